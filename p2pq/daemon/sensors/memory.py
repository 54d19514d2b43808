"""Memory: which part of the time some process waits for it, as the kernel measures (pressure stall information)."""

import re
from typing import Final

from p2pq.daemon.sensors import peeking

FILE: Final = "/proc/pressure/memory"
ABSENT: Final = (
    "this kernel does not measure how long processes wait for memory; boot it with psi=1 on its command line"
)
_SOME: Final = re.compile(rb"^some avg10=(\d+\.\d+) ", re.MULTILINE)


class Memory:
    """The sensor."""

    def __init__(self, root: str = "") -> None:
        """Look below ``root``."""
        self._file = root + FILE

    def pressure(self) -> float | None:
        """Return the part of the last ten seconds in which some process waited, from 0 to 1; None where nobody measures."""
        found = _SOME.search(peeking.read(self._file))
        return None if found is None else min(1.0, float(found[1]) / 100)
