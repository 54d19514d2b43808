"""Tells workers when there may be something for them, without a crowd for one task and without polling.

A worker asks until it is answered Nothing, then sleeps until it hears HasWork with a higher counter. So whoever was
answered Nothing, or was told that there is no work, is asleep here; others come by themselves. New work wakes the
sleepers in the order in which they fell asleep: about as many at once as there are tasks, and twice as many at a time
while work is left. Nobody is woken twice for one counter.
"""

from typing import Final

from p2pq.model.ids import Mono, NodeId
from p2pq.wire.messages import OWNERS_MAX, HasWork

WAVE: Final = 32
"""How many are woken at once at least."""
WAVE_S: Final = 0.25
"""Pause before more are woken, in seconds."""


class Announcer:
    """Who sleeps, and whom to wake next."""

    def __init__(self, me: NodeId) -> None:
        """``me`` is the master's own machine: it hears first."""
        self._me = me
        self.counter = 0
        """Grows with each change of what might fit."""
        self._changed = 0
        """The counter of the last change that concerns everybody."""
        self._owners: tuple[str, ...] = ()
        self._asleep: dict[NodeId, int] = {}
        """The counter at which each fell asleep; never decreasing along the dict."""
        self._awake: dict[NodeId, None] = {}
        self._size = WAVE
        self._wave_at: Mono | None = None

    @property
    def deadline(self) -> Mono | None:
        """When the next ones are to be woken."""
        return self._wave_at

    @property
    def owners(self) -> tuple[str, ...]:
        """Whose work was announced last."""
        return self._owners

    @property
    def sleepers(self) -> int:
        """How many are asleep."""
        return len(self._asleep)

    def join(self, worker: NodeId) -> None:
        """A worker linked up: it knows of no work."""
        self._awake.pop(worker, None)
        self.slept(worker)

    def leave(self, worker: NodeId) -> None:
        """A worker is gone."""
        self._asleep.pop(worker, None)
        self._awake.pop(worker, None)

    def slept(self, worker: NodeId) -> None:
        """A worker was answered Nothing(counter)."""
        self._asleep.pop(worker, None)
        self._awake.pop(worker, None)
        self._asleep[worker] = self.counter

    def wake(self, worker: NodeId) -> list[tuple[NodeId, HasWork]]:
        """This worker can do more or other things than before: tell it alone if there is work."""
        if not self._owners:
            return []
        self.counter += 1
        return [self._tell(worker)]

    def update(self, owners: tuple[str, ...], tasks: int, now: Mono, *, grew: bool) -> list[tuple[NodeId, HasWork]]:
        """Take in what there is, and return whom to tell now.

        Args:
            owners: those with work that can be granted.
            tasks: how many tasks that is.
            now: the present.
            grew: whether something can be granted now that could not before.
        """
        owners = owners[:OWNERS_MAX]
        if not owners:
            return self._tell_none() if self._owners else []
        if grew or owners != self._owners:
            if owners != self._owners:
                # Those awake know of other owners only: they are told like the rest, and first.
                self._asleep = dict.fromkeys(self._awake, 0) | self._asleep
                self._awake.clear()
                self._owners = owners
            self.counter += 1
            self._changed = self.counter
            self._size = max(WAVE, 2 * tasks)
            return self._wave(now)
        if self._wave_at is not None and now >= self._wave_at:
            self._size *= 2
            return self._wave(now)
        return []

    def _tell_none(self) -> list[tuple[NodeId, HasWork]]:
        self._owners = ()
        self._wave_at = None
        self.counter += 1
        told = list(self._awake)
        self._awake.clear()
        self._asleep |= dict.fromkeys(told, self.counter)
        return [(worker, HasWork(counter=self.counter)) for worker in told]

    def _wave(self, now: Mono) -> list[tuple[NodeId, HasWork]]:
        told: list[tuple[NodeId, HasWork]] = []
        if self._asleep.get(self._me, self._changed) < self._changed:
            told.append(self._tell(self._me))
        while len(told) < self._size and self._anybody():
            told.append(self._tell(next(iter(self._asleep))))
        self._wave_at = Mono(now + WAVE_S) if self._anybody() else None
        return told

    def _anybody(self) -> bool:
        """Whether somebody sleeps who does not know of the latest change; the front has slept longest."""
        return next(iter(self._asleep.values()), self._changed) < self._changed

    def _tell(self, worker: NodeId) -> tuple[NodeId, HasWork]:
        self._asleep.pop(worker, None)
        self._awake[worker] = None
        return worker, HasWork(counter=self.counter, owners=self._owners)

    def check(self) -> None:
        """Assert that nobody is both, that the order holds, and that a sleeper with work waiting will be woken."""
        assert not self._asleep.keys() & self._awake.keys(), "a worker is asleep and awake"
        counters = list(self._asleep.values())
        assert counters == sorted(counters), "the sleepers are out of order"
        assert self._wave_at is not None or not self._owners or not self._anybody(), "a sleeper would not be woken"
