"""The owner of a machine comes first: what runs there for others stands still, goes on, and goes elsewhere."""

import json
import shutil

import lab
import owners
import psutil
import pytest

from tests import keypress
from tests.covers import covers
from tests.desktopkit import x_server

COUNT = 24
FAMILY = """\
import os, subprocess, time
from pathlib import Path

# A child, and one that tried to get away: nobody of them may run on.
subprocess.Popen(["sleep", "611"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "612"])
    os._exit(0)
print("begun", flush=True)
for number in range(100):
    time.sleep(0.05)
Path("results/done").write_text("done")
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "family"
    folder.mkdir()
    (folder / "main.py").write_text(FAMILY)
    return folder


def family(host):
    """Return the states of what a task runs on that host, by name: its program and the two that it has started."""
    found = {}
    for process in psutil.Process(host.process.pid).children(recursive=True):
        try:
            if process.cmdline() == ["sleep", "611"]:
                found["main"] = process.parent().status()
            if process.cmdline()[:1] == ["sleep"]:
                found[process.cmdline()[1]] = process.status()
        except psutil.NoSuchProcess:
            continue
    return found


def stand_still(host):
    return family(host) == dict.fromkeys(("main", "611", "612"), psutil.STATUS_STOPPED)


def begun(alice, folder):
    job = alice.submit("--where", "bob", str(folder))
    lab.until(lambda: "begun" in alice.run("logs", job).stdout, "it runs on bob")
    return job


@covers("pause", "resume")
def test_guests_stand_still_while_their_host_is_paused_and_everybody_is_told_why(tested, folder):
    alice, bob = tested
    job = begun(alice, folder)
    assert "guests are paused here; `p2pq resume` ends that" in bob.ok("pause")
    lab.until(lambda: stand_still(bob), "every process of the task stands still")
    status = bob.json("status")
    assert status["policy"] == {"state": "suspend", "reason": "paused with `p2pq pause`; `p2pq resume` ends that"}
    assert [each["state"] for each in status["running"]] == ["suspended"]
    lab.until(lambda: "suspended on bob" in alice.ok("why", f"{job}.0"), "alice is told")
    assert "paused with `p2pq pause`" in alice.ok("why", f"{job}.0")
    assert "guests may run here" in bob.ok("resume")
    lab.until(lambda: alice.json("show", job)["state"] == "done", "it has gone on")
    assert (folder / "results" / "done").read_text() == "done"
    assert "it stood still for " in alice.ok("show", f"{job}.0")
    assert "paused with" in alice.ok("show", f"{job}.0")


@covers("pause --for")
def test_a_pause_ends_by_itself(tested, folder):
    alice, bob = tested
    job = begun(alice, folder)
    assert "guests are paused here until " in bob.ok("pause", "--for", "2s")
    lab.until(lambda: alice.json("show", job)["state"] == "done", "it has gone on by itself")
    assert bob.json("status")["policy"] == {"state": "run", "reason": ""}
    assert "is not a duration" in bob.fails(2, "pause", "--for", "soon")


def test_a_pause_outlives_the_node(tested):
    _, bob = tested
    bob.ok("pause")
    bob.kill()
    bob.start("--name", "bob")
    assert bob.json("status")["policy"]["state"] == "suspend"
    bob.ok("resume")
    bob.kill()
    bob.start("--name", "bob")
    lab.until(lambda: bob.json("status")["policy"]["state"] == "run", "guests are welcome again")


def test_what_stands_still_for_long_goes_on_elsewhere_from_its_checkpoint(tested, tmp_path):
    alice, bob = tested
    owners.again(bob, evict_s="1")
    lab.until(lambda: owners.linked(alice), "bob is back")
    blocking = owners.blocked(alice, tmp_path)
    folder = tmp_path / "count"
    shutil.copytree(lab.ROOT / "examples" / "checkpoint", folder)
    job = alice.submit(str(folder), "--", "--to", str(COUNT))
    lab.until(lambda: owners.task(alice, job)["progress"], "it counts on bob")
    bob.ok("pause")
    lab.until(lambda: owners.task(alice, job)["state"] == "pending", "bob has handed it back")
    assert bob.json("status")["policy"]["state"] == "evict"
    assert bob.json("status")["running"] == []
    assert "sent a task back: evicted: it was told to end (paused with `p2pq pause`" in alice.ok("why", job)
    alice.ok("cancel", blocking)
    lab.until(lambda: alice.json("show", job)["state"] == "done", "it is done")
    begun = int(alice.ok("logs", job).splitlines()[0].removeprefix("beginning at "))
    assert 0 < begun < COUNT
    assert (folder / "results" / "count.txt").read_text() == f"{COUNT}\n"
    assert owners.task(alice, job)["node"] == "alice"
    shown = alice.ok("show", f"{job}.0")
    assert "it was told to end (paused with `p2pq pause`" in shown


def test_a_policy_without_its_sensor_takes_no_guests_and_says_what_to_do(tested, folder):
    alice, bob = tested
    owners.again(bob, mode="load < 0.5", load_probe="false")
    lab.until(lambda: owners.linked(alice), "bob is back")
    lab.until(lambda: "load_probe printed no number" in bob.json("status")["policy"]["reason"], "bob looks")
    assert bob.json("status")["policy"]["state"] == "hold"
    [found] = [each for each in json.loads(bob.run("doctor", "--json").stdout) if each["check"] == "sensor load"]
    assert (found["ok"], found["detail"]) == (False, "[policy] load_probe printed no number")
    job = alice.submit("--where", "bob", str(folder))
    lab.until(lambda: "takes no guests (the policy needs to know of load" in alice.ok("why", job), "alice is told")
    owners.again(bob, mode="load < 0.5", load_probe="echo 0.1")
    lab.until(lambda: alice.json("show", job)["state"] == "done", "it runs where it may")


@covers("node --load-probe")
@covers("start --load-probe")
@pytest.mark.parametrize("command", ["node", "start"])
def test_what_a_load_probe_prints_counts_as_the_load(home, command):
    home.settings |= {"P2PQ_POLICY_MODE": "load < 0.5", "P2PQ_NODE_LISTEN": "127.0.0.1:0"}
    found = {
        "0.9": {"state": "hold", "reason": "the rule does not hold: load < 0.5"},
        "0.1": {"state": "run", "reason": ""},
    }
    for load, policy in found.items():
        options = ("--load-probe", f"echo {load}")
        if command == "node":
            home.start(*options)
        else:
            home.ok("start", "--no-mdns", *options)
        lab.until(lambda: home.json("status")["policy"] == policy, "the load is known")  # noqa: B023
        if command == "node":
            assert home.stop() == 0
        else:
            home.ok("stop")


@pytest.mark.desktop
def test_a_key_press_stops_guests_quiet_lets_them_go_on_and_more_of_it_sends_them_elsewhere(tested, folder, tmp_path):
    alice, bob = tested
    with x_server(tmp_path, "640x400") as server:
        idle = keypress.policy(server, evict_s="3")
        owners.again(bob, idle.environ, **idle.policy)
        lab.until(lambda: owners.linked(alice), "bob is back")
        lab.until(lambda: bob.json("status")["policy"]["state"] == "run", "nobody is at bob's")
        job = begun(alice, folder)
        server.key()
        lab.until(lambda: stand_still(bob), "every process of the task stands still")
        assert "uses this machine" in bob.json("status")["policy"]["reason"]
        lab.until(lambda: alice.json("show", job)["state"] == "done", "nobody is there any more, so it went on")
        assert (folder / "results" / "done").read_text() == "done"
        assert owners.task(alice, job)["node"] == "bob"

        blocking = owners.blocked(alice, tmp_path)
        again_job = alice.submit(str(folder))
        lab.until(lambda: "begun" in alice.run("logs", again_job).stdout, "it runs on bob")
        alice.ok("cancel", blocking)
        with keypress.typing(server):
            lab.until(lambda: alice.json("show", again_job)["state"] == "done", "it is done elsewhere", 60)
        assert owners.task(alice, again_job)["node"] == "alice"
        assert (folder / "results" / "done").read_text() == "done"
