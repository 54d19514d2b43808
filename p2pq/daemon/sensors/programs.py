"""Programs: which of those that the owner named run, whoever started them; ours do not count."""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from p2pq.daemon.sensors import peeking
from p2pq.daemon.sensors.kin import Kin

PERIOD_S: Final = 5.0
"""Looking through a thousand processes takes some ten milliseconds."""
COMM_CHARACTERS: Final = 15
"""The kernel cuts names of processes to that."""


class Programs:
    """The sensor."""

    def __init__(
        self, names: Sequence[str], kin: Kin, root: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Look for programs of these names below ``root``: the kernel's name of a process, or its first argument's last part."""
        self._names = frozenset(names)
        self._kin = kin
        self._proc = f"{root}/proc"
        self._clock = clock
        self._looked: float | None = None
        self._found: tuple[str, ...] = ()

    def read(self) -> tuple[str, ...]:
        """Return those that run, or did some seconds ago, sorted."""
        now = self._clock()
        if self._names and (self._looked is None or now - self._looked >= PERIOD_S):
            self._looked = now
            self._kin.look()
            ours = self._kin.pids
            self._found = tuple(sorted(self._running(pid for pid in peeking.processes(self._proc) if pid not in ours)))
        return self._found

    def _running(self, pids: Iterable[int]) -> Collection[str]:
        by_comm = {name[:COMM_CHARACTERS]: name for name in self._names}
        found: set[str] = set()
        for pid in pids:
            first = peeking.read(f"{self._proc}/{pid}/cmdline", 4096).partition(b"\0")[0]
            if not first:
                continue  # a thread of the kernel, or a process that has ended
            name = first.decode(errors="replace").rpartition("/")[2]
            if name in self._names:
                found.add(name)
            elif comm := by_comm.get(peeking.text(f"{self._proc}/{pid}/comm")):
                found.add(comm)
        return found
