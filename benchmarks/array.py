"""An array of a million tasks: how long to submit, what it costs the master, how fast it drains, with a kill -9 in between."""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Final, Literal

from benchmarks.figures import Figure
from benchmarks.nodes import Node, timed
from benchmarks.processes import memory_mib
from p2pq.wire import control

TASKS: Final = 1_000_000
FIRST: Final = 100_000
"""So many are waited for; the node is killed after half of them."""
WARM: Final = 200
BATCH: Final = 10_000
SUBMIT_GOAL_S: Final = 2.0
MEMORY_GOAL_MIB: Final = 150.0
BACK_GOAL: Final = 1.2
LIMIT_S: Final = 3600.0
POLL_S: Final = 0.5
SETTLE_S: Final = 10.0
_CLEAR: Final = "/bin/true"


def run(base: Path, runs: int, *, tasks: int = TASKS, first: int = FIRST, settle_s: float = SETTLE_S) -> list[Figure]:
    """Measure in both sandbox levels: the first of the tasks, and the rest is cancelled."""
    return [figure for level in ("none", "strict") for figure in _level(base, runs, level, (tasks, first, settle_s))]


def whole(base: Path, runs: int) -> list[Figure]:
    """Measure until the last task is done."""
    return run(base, runs, first=TASKS)


def _level(base: Path, runs: int, level: Literal["none", "strict"], size: tuple[int, int, float]) -> list[Figure]:
    submits, more, back, before, after, recovered, over = [], [], [], [], [], [], []
    for number in range(runs):
        one = _Array(base / f"{level}{number}", level, *size)
        one.measure()
        submits.append(one.submitted_s)
        more.append(one.most_mib - one.idle_mib)
        back.append(one.after_mib / one.idle_mib)
        before.append(one.before_s)
        after.append(one.after_s)
        recovered.append(one.recovered_s)
        over.append((one.before_s + one.after_s) / one.batch_s)
    tasks, first, _ = size
    name = f"{tasks:,} tasks, {level}"
    half, rest = first // 2, first - first // 2
    end = "all are done" if tasks == first else "the rest is cancelled"
    return [
        Figure(name=f"{name}: submitted", unit="s", samples=tuple(submits), goal=SUBMIT_GOAL_S),
        Figure(
            name=f"{name}: more memory",
            unit="MiB",
            samples=tuple(more),
            goal=MEMORY_GOAL_MIB,
            note="PSS of the master, most",
        ),
        Figure(name=f"{name}: first {half:,}", unit="s", samples=tuple(before), note=_rate(half, before)),
        Figure(
            name=f"{name}: serves again", unit="s", samples=tuple(recovered), note="after kill -9; no result was lost"
        ),
        Figure(name=f"{name}: next {rest:,}", unit="s", samples=tuple(after), note=_rate(rest, after)),
        Figure(
            name=f"{name}: over p2pq batch", unit="x", samples=tuple(over), note=f"time per task; batch of {BATCH:,}"
        ),
        Figure(name=f"{name}: memory after", unit="x", samples=tuple(back), goal=BACK_GOAL, note=f"of before; {end}"),
    ]


def _rate(count: int, seconds: list[float]) -> str:
    return f"{count / sorted(seconds)[len(seconds) // 2]:,.0f} a second"


class _Array:
    """One home, one job."""

    def __init__(self, base: Path, level: Literal["none", "strict"], tasks: int, first: int, settle_s: float) -> None:
        self._folder = base / "folder"
        self._folder.mkdir(parents=True)
        shutil.copy(_CLEAR, self._folder / "main")
        self._lines = base / "lines"
        self._lines.write_text(f"{_CLEAR}\n" * min(BATCH, first))
        self._node = Node(base / "home", "--slots", "2")
        self._level, self._tasks, self._first, self._settle_s = level, tasks, first, settle_s
        self._job = ""
        self.most_mib = 0.0

    def measure(self) -> None:
        """Leave everything in attributes.

        Raises:
            RuntimeError: results were lost, or it takes too long.
        """
        with self._node as node:
            node.command("batch", "--quiet", str(self._lines))
            lines = min(BATCH, self._first)
            self.batch_s = timed(lambda: node.command("batch", "--quiet", str(self._lines))) / lines * self._first
            time.sleep(self._settle_s)
            self.idle_mib = memory_mib([node.pid])
            began = time.monotonic()
            self.submitted_s = timed(self._submit)
            done = self._wait(self._first // 2)
            self.before_s = time.monotonic() - began
            os.kill(node.pid, signal.SIGKILL)
        began = time.monotonic()
        with self._node as node:
            self.recovered_s = time.monotonic() - began
            if (kept := self._done()) < done:
                raise RuntimeError(f"{done} tasks were done before the node was killed, and {kept} after it")
            began, missing = time.monotonic(), self._first - kept
            self._wait(self._first)
            # What was done between the last look and the kill is no work of the second life.
            self.after_s = (time.monotonic() - began) * (self._first - self._first // 2) / max(1, missing)
            if self._first < self._tasks:
                node.command("cancel", self._job)
            time.sleep(self._settle_s)
            self.after_mib = memory_mib([node.pid])

    def _submit(self) -> None:
        where = "local" if self._level == "none" else "any"
        request = control.Submit(
            folder=str(self._folder), array=f"0-{self._tasks - 1}", sandbox=self._level, where=where, retries=0
        )
        with self._node.connect() as node:
            self._job = node.one(request, control.JobView).job

    def _done(self) -> int:
        with self._node.connect() as node:
            return node.one(control.Show(job=self._job), control.JobView).tasks.done

    def _wait(self, count: int) -> int:
        deadline = time.monotonic() + LIMIT_S
        while (done := self._done()) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"only {done} of {count} tasks were done after {LIMIT_S:.0f} s")
            self.most_mib = max(self.most_mib, memory_mib([self._node.pid]))
            time.sleep(POLL_S)
        return done
