"""Runs the contestants by turns, and keeps what they needed."""

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from benchmarks.peers.contestant import Contestant, NotMeasuredError, Order
from benchmarks.peers.report import Results
from benchmarks.peers.workloads import IDLE, SLOW, WORKS, Work
from benchmarks.processes import cpu_s, pss_mib, wakeups

SETTLE_S: Final = 35.0
"""Longer than p2pq and Ray keep workers that nobody needs."""

Maker = Callable[[Path], Contestant]
Say = Callable[[str], None]


class Runner:
    """One run of everything is a round; ratios are made within rounds."""

    def __init__(self, base: Path, python: Path, *, works: Sequence[str], scale: float, window_s: float) -> None:
        """Say what to measure.

        Args:
            base: a folder that will be deleted.
            python: the interpreter that scripts run with.
            works: names of WORKS.
            scale: so many times the usual counts.
            window_s: so long processes with nothing to do are watched, after SETTLE_S, or four times as long if that is shorter.
        """
        self._base = base
        self._works = [name for name in works if name not in IDLE]
        self._idle = [name for name in works if name in IDLE]
        self._scale = scale
        self._window_s = window_s
        self._python = python if python.exists() else Path(sys.executable)
        self._expected: dict[str, list[str]] = {}
        self._turn = 0

    def count(self, name: str) -> int:
        """Return how often something is done in one measurement."""
        return count_of(WORKS[name], self._scale)

    def round(self, makers: Iterable[Maker], results: Results, say: Say) -> None:
        """Measure all of them once, one after the other; what cannot be measured is kept as words."""
        for make in makers:
            self._turn += 1
            folder = self._base / f"turn{self._turn}"
            contestant = make(folder)
            say(f"{contestant.name} ...")
            try:
                with contestant:
                    results.settings[contestant.name] = contestant.setting
                    self._measure(contestant, results, say)
            except NotMeasuredError as error:
                say(f"  {error}")
                for name in (*self._works, *self._idle):
                    results.fail(name, contestant.name, str(error))
            shutil.rmtree(folder, ignore_errors=True)

    def _measure(self, contestant: Contestant, results: Results, say: Say) -> None:
        for name in self._works:
            try:
                value = self._value(contestant, name)
            except NotMeasuredError as error:
                results.fail(name, contestant.name, str(error))
                say(f"  {name}: {error}")
            else:
                results.add(name, contestant.name, value)
                say(f"  {name} {value:.4g} {WORKS[name].unit}")
        if not self._idle:
            return
        if not contestant.pids():
            for name in self._idle:
                results.fail(name, contestant.name, "nothing of it is there when idle")
            return
        for name, value in zip(IDLE, self._watch(contestant), strict=True):
            if name in self._idle:
                results.add(name, contestant.name, value)
                say(f"  {name} {value:.4g} {WORKS[name].unit}")

    def _value(self, contestant: Contestant, name: str) -> float:
        if name == "brian2" and contestant.name not in SLOW:
            raise NotMeasuredError("starts scripts as two threads do")
        order = self._order(name)
        sample = contestant.measure(order)
        if order.argvs and sorted(sample.outputs) != self._expected[name]:
            raise NotMeasuredError("what the scripts printed is not what they print when started cold")
        return statistics.median(sample.seconds) * (1e3 if WORKS[name].unit == "ms" else 1.0)

    def _watch(self, contestant: Contestant) -> tuple[float, float, float]:
        time.sleep(min(SETTLE_S, 4 * self._window_s))
        pids = contestant.pids()
        woken, cpu, began = wakeups(pids), cpu_s(pids), time.monotonic()
        time.sleep(self._window_s)
        passed = time.monotonic() - began
        return pss_mib(pids), 100 * (cpu_s(pids) - cpu) / passed, (wakeups(pids) - woken) / passed

    def _order(self, name: str) -> Order:
        count = self.count(name)
        if not WORKS[name].script:
            return Order(work=name, count=count)
        folder = self._base / f"script-{name}"
        if not folder.exists():
            folder.mkdir()
            (folder / "main.py").write_text(WORKS[name].script)
        argvs = tuple((str(self._python), str(folder / "main.py"), str(number)) for number in range(count))
        if name not in self._expected:
            self._expected[name] = self._cold(argvs)
        return Order(work=name, count=count, argvs=argvs, folder=folder)

    def _cold(self, argvs: Sequence[Sequence[str]]) -> list[str]:
        """Return what scripts print when each is started by itself.

        Raises:
            NotMeasuredError: they do not run with this interpreter.
        """
        with ThreadPoolExecutor(2) as pool:
            outputs = list(
                pool.map(lambda argv: subprocess.run(argv, capture_output=True, text=True, check=False), argvs)
            )
        if failed := next((done for done in outputs if done.returncode), None):
            why = (failed.stderr.strip().splitlines() or ["it failed"])[-1]
            raise NotMeasuredError(f"the script does not run here: {why}")
        return sorted(done.stdout for done in outputs)


def count_of(work: Work, scale: float) -> int:
    """Return how often something is done at this scale."""
    return max(work.least, round(work.count * scale)) if work.count > 1 else 1


def rough_s(works: Iterable[str], contestants: int, runs: int, scale: float) -> float:
    """Return how long it may take, more or less: what is not scaled are starts and ends."""
    each = sum(WORKS[name].rough_s * (1.0 if name in IDLE else min(1.0, scale)) for name in works)
    return runs * contestants * (each + 5.0)
