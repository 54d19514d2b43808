"""A node that was stopped: it asks before it continues, and nothing doubles."""

import os
import signal
import time

import lab
import pytest

STOPPED_S = 8.0
"""A node notices a sleep of more than 5 s."""
COUNTS = """
import os, time
with open("results/count", "w") as file:
    for number in range(300):
        print(number, os.environ["P2PQ_ATTEMPT"], file=file, flush=True)
        time.sleep(0.05)
"""
LONG_ON_BOB = """
import os, time
open("results/node", "w").write(os.environ["P2PQ_NODE"] + " " + os.environ["P2PQ_ATTEMPT"])
time.sleep(100 if os.environ["P2PQ_NODE"] == "bob" else 1.5)
"""


def stop(host: lab.Host) -> None:
    os.kill(host.process.pid, signal.SIGSTOP)


def go_on(host: lab.Host) -> None:
    os.kill(host.process.pid, signal.SIGCONT)


def running(host: lab.Host) -> list[str]:
    return [row["state"] for row in host.json("status")["running"]]


@pytest.mark.slow
def test_a_woken_node_lets_its_task_stand_still_until_its_master_has_answered(pair, tmp_path):
    alice, bob = pair
    job = alice.submit(str(lab.make_folder(tmp_path / "count", COUNTS)), "--where", "bob")
    lab.until(lambda: running(bob) == ["running"], "it runs on bob")
    stop(bob)
    try:
        time.sleep(STOPPED_S)
        stop(alice)
    finally:
        go_on(bob)
    try:
        lab.until(lambda: running(bob) == ["suspended"], "bob asks", 10)
        [count] = (bob.home / "scratch").glob("*/job/results/count")
        before = count.read_text()
        time.sleep(0.5)
        assert count.read_text() == before
        assert "node.woke" in bob.log()
    finally:
        go_on(alice)
    lab.until(lambda: running(bob) == ["running"], "alice has answered", 10)
    alice.ok("wait", job)
    [task] = alice.json("tasks", job)
    assert (task["attempts"], task["node"]) == (1, "bob")
    lines = (tmp_path / "count" / "results" / "count").read_text().splitlines()
    assert lines == [f"{number} 1" for number in range(300)]


@pytest.mark.slow
def test_what_others_were_given_meanwhile_is_killed_and_nothing_doubles(tmp_path):
    with lab.hosts(tmp_path, ["alice", "bob"]) as (alice, bob):
        for host in (alice, bob):
            host.settings |= {"P2PQ_SCHEDULE_LEASE_S": "4", "P2PQ_SCHEDULE_HEARTBEAT_S": "1"}
        alice.start("--name", "alice", "--slots", "1")
        bob.start("--name", "bob", "--slots", "1")
        bob.ok("join", alice.ok("invite").split()[0], "--at", alice.address, "--yes")
        lab.until(lambda: [peer["slots"] for peer in alice.json("peers")] == [1], "bob offers his slot")
        folder = lab.make_folder(tmp_path / "two", LONG_ON_BOB)
        job = alice.submit(str(folder), "--array", "1-2")
        lab.until(lambda: running(bob) == ["running"], "one runs on bob")
        stop(bob)
        try:
            alice.ok("wait", job, timeout=30)
            time.sleep(STOPPED_S)
        finally:
            go_on(bob)
        lab.until(lambda: running(bob) == [], "bob has given up what was given to alice", 10)
        assert "node.woke" in bob.log()
        lab.until(lambda: list((bob.home / "scratch").glob("*/job/results/node")) == [], "nothing of it is left", 20)
        assert bob.json("status")["kept_results"] == 0
        nodes = [(folder / "results" / str(task) / "node").read_text().split()[0] for task in (1, 2)]
        assert nodes == ["alice", "alice"]
        settled = [line for line in alice.whole_log().splitlines() if "task.settled" in line or "job.finished" in line]
        assert sum("job.finished" in line for line in settled) == 1
