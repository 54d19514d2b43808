"""What a host runs one after another in one slot, and when it tells of what has ended there."""

from collections.abc import Callable
from random import Random
from typing import Final

from p2pq.core.effects import Start
from p2pq.core.events import Event, Exited, TrainExited, Vacated
from p2pq.model.ids import LeaseId, NodeId
from simulations.clock import Clock
from simulations.plans import Misfortune

Key = tuple[NodeId, LeaseId]

LONG_S: Final = 0.1
"""Behind an attempt that takes longer nothing waits any more."""
HELD: Final = 0.5
"""How often an end is told of together with the next one."""
PACKS_S: Final = (0.001, 2.0)
"""For so long results are packed, where that is told."""


class _Train:
    def __init__(self, starts: tuple[Start, ...]) -> None:
        self.left = {(start.master, start.lease): start for start in starts}
        self.held: list[Exited] = []


class Trains:
    """The trains of one host. Attempts that are in none are alone."""

    def __init__(
        self,
        rng: Random,
        clock: Clock,
        misfortune: Misfortune,
        running: dict[Key, int],
        start: Callable[[Start], None],
        post: Callable[[Event], None],
    ) -> None:
        """Share what runs at the host; ``start`` lets an attempt begin, ``post`` tells the core."""
        self._rng = rng
        self._clock = clock
        self._misfortune = misfortune
        self._packing: dict[Key, Exited] = {}
        self._running = running
        self._start = start
        self._post = post
        self._of: dict[Key, _Train] = {}

    def couple(self, starts: tuple[Start, ...]) -> None:
        """Begin a train with its first attempt."""
        train = _Train(starts)
        self._of.update(dict.fromkeys(train.left, train))
        self._start(starts[0])

    def __len__(self) -> int:
        """Return how many attempts run, or have left something that is still being packed."""
        return len(self._running) + len(self._packing)

    def clear(self) -> None:
        """Whatever runs is over, and nobody is told."""
        self._running.clear()
        self._packing.clear()
        self._of.clear()

    def over(self, key: Key, exited: Exited | None) -> None:
        """An attempt has ended, or is not wanted any more: then nothing is told of it. What waits behind it begins."""
        ran = self._running.pop(key, None) is not None
        train = self._of.pop(key, None)
        if train is None:
            self._packing.pop(key, None)
            if exited is not None:
                self._ended(exited)
            return
        del train.left[key]
        if exited is not None:
            train.held.append(exited)
        if not (train.left and ran and exited is not None and self._rng.random() < HELD):
            self._tell(train)
        if ran and train.left:
            self._start(next(iter(train.left.values())))

    def _ended(self, exited: Exited) -> None:
        """One that was alone has ended: it is told now, or once what it left is packed."""
        packs = self._misfortune.packs
        if not packs or self._rng.random() >= packs:
            self._post(exited)
            return
        self._packing[exited.master, exited.lease] = exited
        self._post(Vacated(lease=exited.lease, master=exited.master))
        self._clock.after(self._rng.uniform(*PACKS_S), self._packed, exited)

    def _packed(self, exited: Exited) -> None:
        key = exited.master, exited.lease
        if self._packing.get(key) is exited:
            del self._packing[key]
            self._post(exited)

    def _tell(self, train: _Train) -> None:
        if train.held:
            self._post(TrainExited(exits=tuple(train.held)))
        train.held = []

    def runs(self, key: Key, length_s: float) -> None:
        """An attempt begins to run; behind a long one nothing waits."""
        train = self._of.get(key)
        back = () if train is None or length_s <= LONG_S else tuple(other for other in train.left if other != key)
        if train is not None and back:
            for other in back:
                del train.left[other], self._of[other]
            self._tell(train)
            self._post(TrainExited(exits=(), back=back))
