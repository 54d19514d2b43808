"""Nodes are killed and cables pulled; every task is done once in the results."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from p2pq.wire import control
from tests.e2e import lab
from tests.netns.lan import Host, Lan, linked

AGAIN_S = 5.0
"""From a restarted node's ready line until its leases are taken up; a lease lasts 60 s."""
JOB_S = 45.0

APPEND = """
import os, pathlib, sys, time
results = pathlib.Path(os.environ["P2PQ_RESULTS"])
attempt = f"{os.environ['P2PQ_JOB']} {os.environ['P2PQ_TASK']} {os.environ['P2PQ_ATTEMPT']}"
with (results / "attempts.txt").open("a") as file:
    print(attempt, file=file)
print("attempt", attempt, flush=True)
steps = round(float(sys.argv[1]) / 0.2)
for step in range(steps):
    time.sleep(0.2)
    (results / ".progress").write_text(f"{(step + 1) / steps:.3f}")
(results / "end.txt").write_text("end")
"""


class Running:
    """A job of several tasks, and what must hold of it at the end."""

    def __init__(self, master: Host, base: Path, tasks: int, seconds: float, *options: str) -> None:
        """Submit it."""
        self.master, self.tasks = master, tasks
        self.folder = lab.make_folder(base / "job", APPEND)
        self.job = master.detach("--array", f"0-{tasks - 1}", *options, str(self.folder), f"{seconds}")

    def on(self, host: Host) -> set[int]:
        """Return the tasks that run on a host."""
        return {task.task for task in self.master.tasks(self.job) if task.state == "running" and task.node == host.name}

    def wait_until_on(self, host: Host) -> set[int]:
        """Wait until something runs there."""
        return lab.until(lambda: self.on(host), f"a task runs on {host.name}")

    def check_done_once(self) -> dict[int, int]:
        """Wait for the end and check every result; return attempts made by task."""
        self.master.ok("wait", self.job, timeout=JOB_S)
        shown = self.master.json("show", self.job)
        assert shown["state"] == "done"
        assert shown["tasks"]["done"] == self.tasks
        folders = sorted(int(path.name) for path in (self.folder / "results").iterdir())
        assert folders == list(range(self.tasks))
        attempts = {}
        for task in self.master.tasks(self.job):
            path = self.folder / "results" / str(task.task)
            assert sorted(each.name for each in path.iterdir()) == ["attempts.txt", "end.txt"]
            [line] = (path / "attempts.txt").read_text().splitlines()
            assert line == f"{self.job} {task.task} {task.attempt}"
            assert task.exit == 0
            attempts[task.task] = task.attempts
        assert [each.name for each in self.folder.iterdir() if each.name.startswith("results")] == ["results"]
        return attempts


def test_a_worker_is_killed_and_started_again(trio: list[Host], tmp_path: Path) -> None:
    anna, bert, _ = trio
    job = Running(anna, tmp_path, 12, 3)
    had = job.wait_until_on(bert)
    bert.kill()
    assert job.on(bert) >= had, "a silent worker keeps its leases"
    bert.start()
    lab.until(lambda: given_anew(job, had), "its tasks run again", AGAIN_S)
    seconds = time.monotonic() - bert.ready_at
    print(f"leases of a killed worker given anew {seconds:.2f} s after its ready")
    assert seconds < AGAIN_S
    attempts = job.check_done_once()
    assert all(attempts[task] == 2 for task in had)
    assert sum(attempts.values()) <= job.tasks + 2 * len(had) + 2


def given_anew(job: Running, tasks: set[int]) -> bool:
    """Tell whether the second attempt of every one of these tasks has begun."""
    again = [task for task in job.master.tasks(job.job) if task.task in tasks and task.attempt == 2]
    return len(again) == len(tasks) and all(task.state in ("running", "done") for task in again)


def test_the_master_is_killed_and_started_again(trio: list[Host], tmp_path: Path) -> None:
    """What ran elsewhere runs on: the leases are renewed, nothing is run a second time."""
    anna, *others = trio
    job = Running(anna, tmp_path, 6, 8)
    running = {host.name: job.wait_until_on(host) for host in others}
    anna.kill()
    anna.start()
    ours = {task for tasks in running.values() for task in tasks}
    lab.until(lambda: renewed(job, ours), "its leases are renewed", AGAIN_S)
    seconds = time.monotonic() - anna.ready_at
    print(f"leases of a killed master renewed {seconds:.2f} s after its ready")
    assert seconds < AGAIN_S
    attempts = job.check_done_once()
    assert {attempts[task] for task in ours} == {1}


def renewed(job: Running, tasks: set[int]) -> bool:
    """Tell whether the master has heard of all of these: how far an attempt is comes with its lease's renewal only."""
    found = [task for task in job.master.tasks(job.job) if task.task in tasks]
    return len(found) == len(tasks) and all(task.state == "running" and task.progress for task in found)


def test_results_wait_for_a_dead_master_through_a_restart_of_their_worker(trio: list[Host], tmp_path: Path) -> None:
    """What ended while the master was dead is not run again, though the worker that keeps it was killed as well."""
    anna, bert, carl = trio
    job = Running(anna, tmp_path, 6, 3)
    running = {host.name: job.wait_until_on(host) for host in (bert, carl)}
    anna.kill()
    for host in (bert, carl):
        lab.until(lambda host=host: stored(host) >= len(running[host.name]), f"{host.name} keeps its results")
    bert.kill()
    bert.start()
    assert kept(bert) >= len(running["bert"])
    anna.start()
    ended = {task for tasks in running.values() for task in tasks}
    lab.until(lambda: ended <= done(job), "the kept results are in", AGAIN_S)
    print(f"results kept for a dead master were in {time.monotonic() - anna.ready_at:.2f} s after its ready")
    attempts = job.check_done_once()
    assert {attempts[task] for task in ended} == {1}
    lab.until(lambda: kept(bert) == kept(carl) == 0, "nothing is kept that was acknowledged")


def kept(host: Host) -> int:
    """Return how many results a host keeps for their masters."""
    [status] = host.ask(control.Status(), control.StatusView)
    return status.kept_results


def stored(host: Host) -> int:
    """Return how many of them are in its store: no kill loses these."""
    with closing(sqlite3.connect(f"file:{host.home / 'store.sqlite'}?mode=ro", uri=True)) as store:
        return int(store.execute("SELECT count(*) FROM kept").fetchone()[0])


def done(job: Running) -> set[int]:
    return {task.task for task in job.master.tasks(job.job) if task.state == "done"}


def test_master_and_worker_are_killed_and_started_again(trio: list[Host], tmp_path: Path) -> None:
    anna, bert, carl = trio
    job = Running(anna, tmp_path, 12, 3)
    had, kept = job.wait_until_on(bert), job.wait_until_on(carl)
    anna.kill()
    bert.kill()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Host.start, (anna, bert)))
    last = max(anna.ready_at, bert.ready_at)
    lab.until(
        lambda: job.on(carl) >= kept or job.master.tasks(job.job)[min(kept)].state == "done", "carl goes on", AGAIN_S
    )
    lab.until(lambda: given_anew(job, had), "bert's tasks run again", AGAIN_S)
    seconds = time.monotonic() - last
    print(f"leases of a killed worker and master taken up {seconds:.2f} s after the last ready")
    assert seconds < AGAIN_S
    attempts = job.check_done_once()
    assert all(attempts[task] == 2 for task in had)
    assert all(attempts[task] == 1 for task in kept)


def test_a_cable_is_pulled_for_thirty_seconds(lan: Lan, trio: list[Host], tmp_path: Path) -> None:
    """A lease outlives the gap; what ended meanwhile is delivered afterwards; nothing is run twice.

    The tasks are so long that none has run for twice the others' time when the cable is back: no second attempts.
    """
    anna, bert, _ = trio
    job = Running(anna, tmp_path, 6, 20)
    had = job.wait_until_on(bert)
    lan.pull(bert)
    pulled = time.monotonic()
    lab.until(lambda: job.on(bert) == had and only(job, had), "all but bert's tasks are done", 29)
    lab.until(lambda: time.monotonic() - pulled >= 30, "30 s have passed", 31)
    lan.put_back(bert)
    back = time.monotonic()
    attempts = job.check_done_once()
    print(f"job done {time.monotonic() - back:.2f} s after the cable was back")
    assert set(attempts.values()) == {1}
    linked(trio)


def test_nobody_waits_for_a_machine_that_is_cut_off(lan: Lan, trio: list[Host], tmp_path: Path) -> None:
    """Its tasks run a second time elsewhere long before their leases end; what it comes back with is not delivered again."""
    anna, bert, _ = trio
    job = Running(anna, tmp_path, 12, 3)
    had = job.wait_until_on(bert)
    lan.pull(bert)
    attempts = job.check_done_once()
    assert {attempts[task] for task in had} == {2}
    lan.put_back(bert)
    linked(trio)
    lab.until(lambda: kept(bert) == 0, "bert lets go of what nobody needs any more")
    assert job.check_done_once() == attempts


def only(job: Running, tasks: set[int]) -> bool:
    return set(range(job.tasks)) - done(job) == tasks
