"""Which processes are ours (the node, its runners, all that these started), and the processor time that they took."""

import os
import time
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from p2pq.daemon.sensors import peeking

TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
PROCESSES_MAX: Final = 20_000
"""More than that are not followed; a node has far lower limits."""


class Process(NamedTuple):
    """A process, in the kernel's ticks."""

    started: int
    """Since the machine started; with its id this names a process for good."""
    own: int
    reaped: int
    """What its children took that have ended, with theirs."""


def ticks_since_boot() -> int:
    """Return now as the kernel notes when a process started."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_A_SECOND)


def process_of(proc: str, pid: int) -> Process | None:
    """Return what /proc says of a process, None where it has gone."""
    fields = peeking.read(f"{proc}/{pid}/stat", 4096).rpartition(b")")[2].split()
    if len(fields) < 20:  # noqa: PLR2004  proc(5): the start is the 22nd field
        return None
    return Process(int(fields[19]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14]))


class Kin:
    """Follows our processes. Not for several threads."""

    def __init__(
        self, ours: Callable[[], Collection[int]], root: str = "", ticks: Callable[[], int] = ticks_since_boot
    ) -> None:
        """Follow this process, those that ``ours`` names whenever it is asked, and what they start.

        What was seen below one of them stays ours when its parents have ended.
        """
        self._ours = ours
        self._proc = f"{root}/proc"
        self._ticks = ticks
        self._looked: int | None = None
        self._known: dict[int, Process] = {}
        self.spent = 0
        """Ticks that our processes took since the first look, those that came and went in between included."""

    @property
    def pids(self) -> Collection[int]:
        """Our processes, as of the last look."""
        return self._known.keys()

    def look(self) -> None:
        """Look at our processes again."""
        now = self._ticks()
        named = {os.getpid(), *self._ours()}
        found: dict[int, Process] = {}
        todo = [(pid, pid in named) for pid in (*named, *self._known)]
        while todo and len(found) < PROCESSES_MAX:
            pid, certain = todo.pop()
            if pid in found or (process := process_of(self._proc, pid)) is None:
                continue
            if not certain and self._known[pid].started != process.started:
                continue  # another process has that id now
            found[pid] = process
            todo += [(child, True) for child in self._children(pid)]
        if self._looked is not None:
            self.spent += self._taken(found, self._looked)
        self._known, self._looked = found, now

    def _taken(self, found: dict[int, Process], looked: int) -> int:
        """Return the ticks since the last look.

        What a process took that has ended since is with its parent now, where it counts but for what had been counted of itself.
        """
        own = reaped = 0
        for pid, process in found.items():
            before = self._known.get(pid)
            if before is not None and before.started == process.started:
                own += process.own - before.own
                reaped += process.reaped - before.reaped
            elif process.started >= looked:  # what began earlier and is named only now took an unknown part of it since
                own += process.own
                reaped += process.reaped
        ended = sum(
            before.own + before.reaped
            for pid, before in self._known.items()
            if pid not in found or found[pid].started != before.started
        )
        return own + max(0, reaped - ended)

    def _children(self, pid: int) -> list[int]:
        folder = f"{self._proc}/{pid}/task"
        return [
            int(child)
            for thread in peeking.names(folder)
            for child in peeking.read(f"{folder}/{thread}/children").split()
        ]
