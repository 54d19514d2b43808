"""Lets every process of a task stand still (SIGSTOP), and go on (SIGCONT).

From outside and process by process, as a runner belongs to its task and must go on answering: it could be neither trusted to do
this nor stopped along, in its control group. A stopped process uses no processor, keeps its memory, and can be killed. One
with a signal pending cannot fork, so nobody escapes a round that finds nobody new.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Final

from p2pq.daemon import limits

ROUNDS_MAX: Final = 100
"""A task that starts processes faster than they are stopped is bounded by its limit of processes long before."""
PROCESSES_MAX: Final = 100_000
RESISTS_MAX: Final = 3
"""Who runs again at so many looks lets himself be woken, and will do so for ever."""
REASONS_MAX: Final = 4


class Standing:
    """How long an attempt stood still, and for what, for people."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """It goes."""
        self._clock = clock
        self._since: float | None = None
        self._reasons: dict[str, float] = {}
        self._reason = ""

    def note(self, reason: str | None) -> None:
        """It stands still from now on, or goes on (None). Without a reason it is nobody's concern, and not told."""
        now = self._clock()
        if self._since is not None and self._reason:
            self._reasons[self._reason] = self._reasons.get(self._reason, 0.0) + now - self._since
            if len(self._reasons) > REASONS_MAX:
                del self._reasons[next(iter(self._reasons))]
        self._since = None if reason is None else now
        self._reason = reason or ""

    def said(self) -> str:
        """Return what there is to tell: for how long, by reason; nothing where it never stood still."""
        self.note(None if self._since is None else self._reason)
        told = [f"{seconds:.0f} s ({reason})" for reason, seconds in self._reasons.items()]
        return f"it stood still for {', '.join(told)}" if told else ""


class Standstill:
    """The processes below one, standing still from ``hold`` until ``release``."""

    def __init__(self, pid: int) -> None:
        """Take the process above them, which itself goes on."""
        self._pid = pid
        self._held: set[int] = set()
        self._stood: set[int] = set()
        """Stopped by the task's own doing before; they are its own affair, for as long as they stand."""
        self._used: dict[int, int] = {}
        """Clock ticks of processor time that those held had used at the last look."""
        self._ran = 0

    @property
    def resists(self) -> bool:
        """Whether what was stopped runs all the same: a task can have itself woken, by a timer that sends SIGCONT."""
        return self._ran >= RESISTS_MAX

    def hold(self) -> None:
        """Stop all of them, again until none is new; call it again now and then, for whoever was just being started."""
        self._look()
        for _ in range(ROUNDS_MAX):
            below = set(self._below())
            fresh = below - self._held - self._stood
            self._stood.update(pid for pid in fresh if _stands(pid))
            for pid in below - self._stood:
                _signal(pid, signal.SIGSTOP)
            if not fresh:
                return
            self._held |= fresh - self._stood

    def _look(self) -> None:
        """See who has used the processor since he was stopped, and who, of those that stood before, stands no longer."""
        self._stood = {pid for pid in self._stood if _stands(pid)}
        used = {pid: ticks for pid in self._held if (ticks := _ticks(pid)) is not None}
        # Between the signal and the first look after it each may have got as far as its stop.
        self._ran += any(ticks > self._used.get(pid, ticks) for pid, ticks in used.items())
        self._used = used

    def release(self) -> None:
        """Let them go on, but for those that stood still before."""
        for pid in self._below():
            if pid not in self._stood:
                _signal(pid, signal.SIGCONT)

    def _below(self) -> list[int]:
        return limits.tree(self._pid, PROCESSES_MAX)[1:]


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended meanwhile, or changed its user
        os.kill(pid, number)


def _stands(pid: int) -> bool:
    """Whether a process is stopped."""
    return limits.stat_fields(pid)[:1] == [b"T"]


def _ticks(pid: int) -> int | None:
    """Return the processor time that a process has used, in clock ticks; None where it has ended."""
    times = limits.stat_fields(pid)[11:13]  # utime and stime, proc(5)
    return sum(map(int, times)) if times else None
