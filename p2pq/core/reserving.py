"""Room that is kept free for a wide task: slots that become free wait for the others, or a wide task would wait for ever.

While owners of narrow tasks keep a worker full, a slot that becomes free is gone before the next one is. So when the owner
whose turn it is has only tasks that need more than is free, what becomes free is kept for it until that is enough. What is
kept is charged to that owner as if it ran there.
"""

from typing import Final

import msgspec

from p2pq.core.fairness import Accounts
from p2pq.core.slots import Room
from p2pq.model.ids import Mono, NodeId

WIDE_S: Final = 3600.0
"""Room is kept for so long at most; then others have their turn first."""
_KEY: Final = "wide"


class Wanted(msgspec.Struct, frozen=True):
    """For whom room is kept, and how much."""

    master: NodeId
    owner: str
    room: Room
    far: bool = False
    """Bridges carry the link to that master."""


class Reserved:
    """The room that a worker keeps; for one owner at a time."""

    def __init__(self, accounts: Accounts) -> None:
        """Keep nothing yet; ``accounts`` are the worker's own."""
        self._accounts = accounts
        self._held = 0
        self._now = Mono(0.0)
        self._until = Mono(0.0)
        self.wanted: Wanted | None = None

    def begin(self, wanted: Wanted, now: Mono) -> None:
        """Keep what becomes free from now on."""
        self.end()
        self.wanted = wanted
        self._now, self._until = now, Mono(now + WIDE_S)

    def keep(self, free: Room, now: Mono) -> bool:
        """Keep what is free now; return whether that is enough. Ends by itself when it took too long."""
        if self.wanted is None:
            return False
        held = min(free.cpus, self.wanted.room.cpus)
        if held != self._held:
            self._charge(held, now)
        self._now = now
        if now >= self._until:
            self.end()
            return False
        return free.holds(self.wanted.room)

    def end(self) -> None:
        """Keep nothing any more."""
        self._charge(0, self._now)
        self.wanted = None

    def _charge(self, cpus: int, now: Mono) -> None:
        if not self._held and not cpus:
            return
        assert self.wanted is not None, "room is kept for nobody"
        fairness = self._accounts[self.wanted.far]
        if self._held:
            fairness.free(_KEY, now)
        self._held = cpus
        if cpus:
            fairness.charge(_KEY, self.wanted.owner, cpus, 0.0)
            fairness.occupy(_KEY, now)

    def check(self) -> None:
        """Assert that nothing is kept for nobody."""
        assert self.wanted is not None or not self._held, "room is kept for nobody"
