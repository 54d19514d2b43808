"""Nodes are killed and cables pulled while a job runs; every task must end once in its owner's results.

    python -m tests.netns.chaos [--tasks 5000] [--runs 3] [--seed S]

Five nodes in network namespaces (needs root and bubblewrap) run a job of short tasks twice: undisturbed, and while every five
seconds one of them, the owner's too, is killed with -9 and started again after 1 to 5 s, and cables are pulled for 0.5 to 10 s.
It prints what it measured and ends with 1 if a promise was broken. The seed decides every fault; the homes of a failed run stay.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from p2pq.wire import control
from tests.netns.lan import Host, Lan, into_one_mesh
from tests.netns.traces import calm, still_at_it

NAMES = ("anna", "bert", "carl", "dora", "emil")
RATIO_MAX = 2.5
"""The disturbed job may take this many times as long as the undisturbed one."""
JOB_S = 900.0
POLL_S = 0.25
KILL_EVERY_S = 5.0
DOWN_S = (1.0, 5.0)
CUT_EVERY_S = 10.0
"""On average."""
CUT_S = (0.5, 10.0)

SLEEPS = """#!/bin/sh
# Sleeps 20 to 200 ms, by its number, and says which attempt it was: a second line would be a double.
milliseconds=$((20 + P2PQ_TASK * 73 % 181))
sleep "0.$(printf %03d $milliseconds)"
echo "$P2PQ_JOB $P2PQ_TASK $P2PQ_ATTEMPT" >> "$P2PQ_RESULTS/attempts.txt"
echo $((P2PQ_TASK * P2PQ_TASK + milliseconds)) > "$P2PQ_RESULTS/value.txt"
"""


def slept_ms(task: int) -> int:
    """Return how long a task sleeps."""
    return 20 + task * 73 % 181


@dataclass(frozen=True)
class Fault:
    """Something that happens to a host."""

    at_s: float
    """After the job was submitted."""
    host: int
    kind: Literal["kill", "cut"]
    for_s: float


def plan(seed: int, hosts: int, pace: float = 1.0) -> Iterator[Fault]:
    """Return what happens, in order and without end; all of it follows from the seed.

    ``pace`` is how many times as often as said above; nothing lasts shorter for it.
    """
    rng = random.Random(seed)
    kill_s = KILL_EVERY_S / pace
    cut_s = rng.expovariate(pace / CUT_EVERY_S)
    while True:
        if kill_s <= cut_s:
            yield Fault(kill_s, rng.randrange(hosts), "kill", rng.uniform(*DOWN_S))
            kill_s += KILL_EVERY_S / pace
        else:
            yield Fault(cut_s, rng.randrange(hosts), "cut", rng.uniform(*CUT_S))
            cut_s += rng.expovariate(pace / CUT_EVERY_S)


class Chaos:
    """Makes the faults of a plan happen until it is stopped."""

    def __init__(self, lan: Lan, faults: Iterator[Fault]) -> None:
        """Take the network and the plan."""
        self._lan = lan
        self._faults = faults
        self._over = threading.Event()
        self._busy = {host.name: threading.Lock() for host in lan.hosts}
        self._cable = {host.name: threading.Lock() for host in lan.hosts}
        self.happened: list[Fault] = []

    @contextlib.contextmanager
    def reign(self) -> Iterator[None]:
        """Let it happen; afterwards every cable is in and every node runs."""
        with ThreadPoolExecutor(4 * len(self._lan.hosts)) as pool:
            thread = pool.submit(self._run, pool)
            try:
                yield
            finally:
                self._over.set()
                made = thread.result()
                for each in made:
                    each.result()

    def _run(self, pool: ThreadPoolExecutor) -> "list[Future[None]]":
        began = time.monotonic()
        made: list[Future[None]] = []
        for fault in self._faults:
            if self._over.wait(max(0.0, began + fault.at_s - time.monotonic())):
                break
            self.happened.append(fault)
            made.append(pool.submit(self._kill if fault.kind == "kill" else self._cut, fault))
        return made

    def _kill(self, fault: Fault) -> None:
        host = self._lan.hosts[fault.host]
        with self._busy[host.name]:  # one that is just being started dies when it has started
            host.kill()
            self._over.wait(fault.for_s)
            host.start()

    def _cut(self, fault: Fault) -> None:
        host = self._lan.hosts[fault.host]
        with self._cable[host.name]:
            self._lan.pull(host)
            self._over.wait(fault.for_s)
            self._lan.put_back(host)

    def count(self, kind: str) -> int:
        """Return how many faults of a kind there were."""
        return sum(fault.kind == kind for fault in self.happened)


@dataclass
class Sleepers:
    """A job of short tasks, and what must hold of it at the end."""

    owner: Host
    base: Path
    tasks: int
    job: str = ""
    folder: Path = field(init=False)
    began: float = 0.0
    stall_s: float = 0.0
    """The longest time in which no task ended."""

    def submit(self) -> None:
        """Hand it in."""
        self.folder = self.base / "job"
        self.folder.mkdir(parents=True)
        (self.folder / "main.sh").write_text(SLEEPS)
        self.job = self.owner.detach("--array", f"0-{self.tasks - 1}", str(self.folder))
        self.began = time.monotonic()

    def wait(self, seconds: float = JOB_S) -> float:
        """Wait until all results lie in the owner's folder; return how long that took, from its submission."""
        done, at = -1, self.began
        while True:
            now = time.monotonic()
            view = next(iter(self.owner.ask(control.Show(job=self.job), control.JobView)), None)
            if view is not None and view.tasks.done != done:
                self.stall_s = max(self.stall_s, now - at)
                done, at = view.tasks.done, now
            if view is not None and view.finished is not None:
                return now - self.began
            assert now - self.began < seconds, f"{done} of {self.tasks} tasks are done after {seconds:g} s"
            time.sleep(POLL_S)

    def broken(self) -> list[str]:
        """Look at everything that came back; return a sentence for each promise that was broken."""
        [view] = self.owner.ask(control.Show(job=self.job), control.JobView)
        found = []
        if (view.state, view.tasks.done) != ("done", self.tasks):
            found.append(f"the job is {view.state}: {view.tasks}")
        beside = sorted(path.name for path in self.folder.iterdir() if path.name not in {"main.sh", "results"})
        if beside:
            found.append(f"beside the results lies {beside}")
        results = self.folder / "results"
        names = {path.name for path in results.iterdir()}
        wanted = {str(task) for task in range(self.tasks)}
        if names != wanted:
            found.append(f"missing in results: {sorted(wanted - names)[:10]}; too many: {sorted(names - wanted)[:10]}")
        views = {task.task: task for task in self.owner.tasks(self.job)}
        for task in range(self.tasks):
            what = self._of_task(results / str(task), views[task])
            if what:
                found.append(f"task {task}: {what}")
        return found[:20]

    def _of_task(self, folder: Path, view: control.TaskView) -> str:
        try:
            files = {path.name: path.read_text() for path in folder.iterdir()}
        except OSError as error:
            return str(error)
        wanted = {
            "attempts.txt": f"{self.job} {view.task} {view.attempt}\n",
            "value.txt": f"{view.task * view.task + slept_ms(view.task)}\n",
        }
        if (view.state, view.exit) != ("done", 0):
            return f"{view.state}, exit {view.exit}, {view.reason}"
        return "" if files == wanted else f"results are {files}, should be {wanted}"

    def attempts(self) -> int:
        """Return how many attempts were granted in all."""
        return sum(task.attempts for task in self.owner.tasks(self.job))

    def nodes(self) -> dict[str, int]:
        """Return how many tasks each node did."""
        done = [task.node or "" for task in self.owner.tasks(self.job)]
        return {name: done.count(name) for name in sorted(set(done))}


@dataclass
class Figures:
    """What one run measured."""

    seed: int
    undisturbed_s: float
    disturbed_s: float
    kills: int
    cuts: int
    attempts: int
    tasks: int
    stall_s: float
    nodes: dict[str, int]
    broken: list[str]

    @property
    def ratio(self) -> float:
        """How many times as long the faults made it take."""
        return self.disturbed_s / self.undisturbed_s

    def __str__(self) -> str:
        """Say it in a few lines."""
        return (
            f"seed {self.seed}: undisturbed {self.undisturbed_s:.1f} s, disturbed {self.disturbed_s:.1f} s, "
            f"ratio {self.ratio:.2f} (at most {RATIO_MAX}); {self.kills} kills, {self.cuts} cables pulled\n"
            f"    {self.tasks} tasks by {self.attempts} attempts on {self.nodes}\n"
            f"    the longest time in which no task ended: {self.stall_s:.1f} s"
        )


def once(base: Path, tasks: int, seed: int, *, slots: int = 2, pace: float = 1.0) -> Figures:
    """Run the job undisturbed, then in chaos, with the same nodes; return what was seen."""
    lan = Lan(base)
    try:
        lan.open()
        for name in NAMES:
            lan.add(name).configure(f"[node]\nslots = {slots}\n")
        into_one_mesh(lan.hosts)
        owner = lan.hosts[0]
        still = Sleepers(owner, base / "still", tasks)
        still.submit()
        undisturbed_s = still.wait()
        chaos = Chaos(lan, plan(seed, len(lan.hosts), pace))
        storm = Sleepers(owner, base / "storm", tasks)
        storm.submit()
        with chaos.reign():
            disturbed_s = storm.wait()
        broken = [*calm(lan.hosts), *still.broken(), *storm.broken()]
        broken += still_at_it(storm.job)
        return Figures(
            seed=seed,
            undisturbed_s=undisturbed_s,
            disturbed_s=disturbed_s,
            kills=chaos.count("kill"),
            cuts=chaos.count("cut"),
            attempts=storm.attempts(),
            tasks=tasks,
            stall_s=storm.stall_s,
            nodes=storm.nodes(),
            broken=broken,
        )
    finally:
        lan.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run it as often as asked; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.netns.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=5000, help="tasks of the job (5000)")
    parser.add_argument("--runs", type=int, default=3, help="how often; each with a seed of its own (3)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the first run; the next ones count on (by the clock)"
    )
    parser.add_argument(
        "--slots", type=int, default=2, help="of each node; so few that the machine is not the limit (2)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the homes and logs")
    given = parser.parse_args(argv)
    os.environ["P2PQ_ALLOW_ROOT"] = "1"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as for Ctrl-C: nodes and networks do not outlive it
    first = int(time.time()) if given.seed is None else given.seed
    failed = False
    for seed in range(first, first + given.runs):
        base = Path(tempfile.mkdtemp(prefix="p2pq-chaos-"))
        print(f"seed {seed}: {given.tasks} tasks, {len(NAMES)} nodes of {given.slots} slots, in {base}", flush=True)
        bad = True
        try:
            figures = once(base, given.tasks, seed, slots=given.slots)
            broken = figures.broken + ([f"the ratio is above {RATIO_MAX}"] if figures.ratio > RATIO_MAX else [])
            print(figures, flush=True)
            bad = bool(broken)
            for sentence in broken:
                print(f"    BROKEN: {sentence}", flush=True)
        except AssertionError as error:
            print(f"    BROKEN: {error}", flush=True)
        failed = failed or bad
        if bad:
            print(f"    again with: --tasks {given.tasks} --slots {given.slots} --runs 1 --seed {seed}", flush=True)
        if not bad and not given.keep:
            shutil.rmtree(base, ignore_errors=True)
    print("a promise was broken" if failed else "every task of every run ended once in its owner's results")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
