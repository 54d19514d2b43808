"""Time, and the order in which things happen: a heap of instants, entropy from one seed, a digest of all that happened."""

import hashlib
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from p2pq.model.ids import Mono, Wall

WALL0 = Wall(1_700_000_000_000)
"""What the wall clock shows when a world begins."""


class World:
    """A virtual clock. What is scheduled for one instant happens in the order in which it was scheduled."""

    def __init__(self, seed: int) -> None:
        """Begin at instant 0; every random choice comes from ``seed``."""
        self.seed = seed
        self.now = Mono(0.0)
        self.events = 0
        """Events that nodes have handled."""
        self.notices: Counter[str] = Counter()
        self.drops: Counter[str] = Counter()
        """What nodes refused of each other, by reason."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0
        self._hash = hashlib.blake2b(digest_size=16)

    def rng(self, name: str) -> Random:
        """Return a source of chance of its own: what one part draws does not disturb another."""
        return Random(f"{self.seed}/{name}")

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """Call that in so many seconds."""
        self.at(self.now + seconds, call, *arguments)

    def at(self, instant: float, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """Call that at an instant."""
        self._serial += 1
        heappush(self._heap, (instant, self._serial, call, arguments))

    def run(self, until: float, done: Callable[[], bool]) -> None:
        """Let time pass until ``done`` or until that instant, whichever comes first."""
        heap = self._heap
        while heap and heap[0][0] <= until and not done():
            at, _, call, arguments = heappop(heap)
            self.now = Mono(at)
            call(*arguments)
        if not done():
            self.now = Mono(max(self.now, until))

    def wall(self) -> Wall:
        """Return what a correct wall clock shows now."""
        return Wall(WALL0 + round(self.now * 1000))

    def trace(self, where: int, what: bytes) -> None:
        """Let the digest know that this happened there now."""
        self._hash.update(b"%.9f %d %d " % (self.now, where, len(what)))
        self._hash.update(what)

    def digest(self) -> str:
        """Return what all that happened adds up to: equal for equal runs."""
        return self._hash.hexdigest()
