"""Load: cores that processes other than ours use, as a part of those that this machine lets us use."""

import os
import time
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from p2pq.daemon.sensors import peeking
from p2pq.daemon.sensors.kin import TICKS_A_SECOND, Kin

FILE: Final = "/proc/stat"
PERIOD_S: Final = 2.0
"""Less than that, and the kernel's ticks are too coarse."""
MEASURING: Final = f"two looks {PERIOD_S:g} s apart are needed; wait for the second"
ABSENT: Final = f"{FILE} does not count what processors do; let this node see that of the machine"
BUSY: Final = (0, 1, 2, 5, 6)
"""Columns: user, nice, system, irq, softirq. What the host of a virtual machine takes away (steal) is no process here."""


class _Sample(NamedTuple):
    at: float
    busy: int
    """Ticks of all our cores together."""
    ours: int


class Load:
    """The sensor. All of a core's time counts, whoever took it and however briefly it lived, less what our processes took."""

    def __init__(
        self,
        kin: Kin,
        root: str = "",
        clock: Callable[[], float] = time.monotonic,
        cores: Callable[[], Collection[int]] = lambda: os.sched_getaffinity(0),
    ) -> None:
        """Look below ``root``.

        Args:
            kin: Our processes.
            root: What stands before /proc.
            clock: Seconds.
            cores: The numbers of the cores that this process may run on: what others do elsewhere is not in anybody's way.
        """
        self._kin = kin
        self._file = root + FILE
        self._clock = clock
        self._cores = cores
        self._last: _Sample | None = None
        self._load: float | None = None
        self.absent = MEASURING
        """Why nothing is known, if that is so."""

    def read(self) -> float | None:
        """Return the load over at least the last two seconds, from 0 to 1; None before it was measured once."""
        now = self._clock()
        if self._last is not None and now - self._last.at < PERIOD_S:
            return self._load
        found = self._busy()
        if found is None:
            self._last = self._load = None
            self.absent = ABSENT
            return None
        count, busy = found
        self._kin.look()
        sample = _Sample(now, busy, self._kin.spent)
        if self._last is not None:
            taken = (sample.busy - self._last.busy) - (sample.ours - self._last.ours)
            whole = (now - self._last.at) * TICKS_A_SECOND * count
            self._load = round(max(0.0, min(1.0, taken / whole)), 3)
        self.absent = MEASURING
        self._last = sample
        return self._load

    def _busy(self) -> tuple[int, int] | None:
        """Return how many cores count and the ticks that they were busy."""
        names = {f"cpu{number}".encode() for number in self._cores()}
        rows = [line.split() for line in peeking.read(self._file).splitlines() if line.startswith(b"cpu")]
        mine = [row[1:] for row in rows if row[0] in names and len(row) > max(BUSY) + 1]
        if not mine:
            return None
        return len(mine), sum(int(row[column]) for row in mine for column in BUSY)
