"""Lets every process of a task stand still (SIGSTOP), and go on (SIGCONT).

From outside and process by process, as a runner belongs to its task and must go on answering: it could be neither trusted to do
this nor stopped along, in its control group. A stopped process uses no processor, keeps its memory, and can be killed. One
with a signal pending cannot fork, so nobody escapes a round that finds nobody new.
"""

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

from p2pq.daemon import limits

ROUNDS_MAX: Final = 100
"""A task that starts processes faster than they are stopped is bounded by its limit of processes long before."""
PROCESSES_MAX: Final = 100_000


class Standstill:
    """The processes below one, standing still from ``hold`` until ``release``."""

    def __init__(self, pid: int) -> None:
        """Take the process above them, which itself goes on."""
        self._pid = pid
        self._held: set[int] = set()
        self._stood: set[int] = set()
        """Stopped by the task's own doing before; they are its own affair."""

    def hold(self) -> None:
        """Stop all of them, again until none is new; call it again now and then, for whoever was just being started."""
        for _ in range(ROUNDS_MAX):
            below = set(self._below())
            fresh = below - self._held - self._stood
            self._stood.update(pid for pid in fresh if _stands(pid))
            for pid in below - self._stood:
                _signal(pid, signal.SIGSTOP)
            if not fresh:
                return
            self._held |= fresh - self._stood

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
    """Whether a process is stopped; the command name before the state may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    except (OSError, IndexError):
        return False  # it ended
