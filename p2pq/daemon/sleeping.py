"""Tells that this process did nothing for a while: its machine slept, or it was stopped or hung. Arithmetic on two clocks."""

from collections.abc import Callable
from typing import Final

from p2pq.core.events import Woke
from p2pq.model.ids import Mono

WOKE_S: Final = 5.0
"""What comes later than this after its time was not merely slow."""
LOOK_EVERY_S: Final = 2.0
"""How often whoever waits must look, so that a sleep is seen soon after it, and its length within this."""


def late_s(due: float, now: float) -> float:
    """Return by how much something came too late to have been merely slow; 0.0 where it did not."""
    return now - due if now - due > WOKE_S else 0.0


class Sleeps:
    """What passed between two looks beyond what was meant to pass.

    A stopped process finds that the monotonic clock went on without it. A machine's sleep is in another clock only, the one
    since boot: where there is none it goes unseen, as a wall clock that jumps may merely have been set.
    """

    def __init__(self, mono: Callable[[], Mono], boot: Callable[[], float] | None) -> None:
        """Begin now; ``boot`` counts the machine's sleep too and is otherwise as fast as ``mono``."""
        self._mono = mono
        self._boot = boot
        self._due = mono()
        self._slept = self._in_all()

    def _in_all(self) -> float:
        return 0.0 if self._boot is None else self._boot() - self._mono()

    def wait(self, wait_s: float) -> None:
        """So long nothing is meant to happen until the next look."""
        self._due = Mono(self._due + wait_s)

    def look(self) -> list[Woke]:
        """Return the sleeps since the last look."""
        found = []
        if slept_s := late_s(self._slept, slept := self._in_all()):
            found.append(Woke(slept_s=slept_s, counted=False))
        if slept_s := late_s(self._due, now := self._mono()):
            found.append(Woke(slept_s=slept_s, counted=True))
        self._due, self._slept = now, slept
        return found
