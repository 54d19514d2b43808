"""Which leaf below a bridge holds which lease of one master, and what it last said of it."""

from collections.abc import Iterator

import msgspec

from p2pq.model.ids import JobId, LeaseId, Mono, NodeId
from p2pq.wire.messages import Beat


class Placed(msgspec.Struct):
    """A lease that a leaf holds."""

    lease: LeaseId
    leaf: NodeId
    job: JobId | None
    """None where it was given by another bridge, or by an earlier life of this one."""
    since: Mono
    """Since when it is there; once it has ended, since then."""
    heard: Mono
    """When the leaf last said that it holds it."""
    running: bool = False
    progress: int = -1
    ended: bool = False
    """Its result has been passed on; the receipt is still to come."""
    runner: NodeId | None = None
    """The leaf that runs it, where a bridge below has it and has said who."""
    below: bool = False
    """A bridge below has it, and may not have given it to anybody."""
    proof: tuple[bytes, ...] = ()
    """What shows that it was given there, where this life of this bridge did not give it."""

    def hear(self, beat: Beat) -> bool:
        """Take in what the leaf says of it; return whether that is news."""
        before = self.beat
        self.running = self.running or beat.running
        self.progress = max(beat.progress, -1) if beat.progress != -1 else self.progress
        return self.beat != before

    @property
    def waits(self) -> bool:
        """Whether it only waits at a bridge below, as far as that has said."""
        return self.below and self.runner is None

    @property
    def beat(self) -> Beat:
        """What the master is told of it."""
        return Beat(self.lease, self.running, self.progress)


class Tenants:
    """All leases that leaves hold, by lease and by leaf."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._placed: dict[LeaseId, Placed] = {}
        self._held: dict[NodeId, dict[LeaseId, None]] = {}

    def __len__(self) -> int:
        """Return how many leases there are."""
        return len(self._placed)

    def __iter__(self) -> Iterator[Placed]:
        """Go through them, those placed first."""
        yield from self._placed.values()

    def get(self, lease: LeaseId) -> Placed | None:
        """Return what is known of a lease, if a leaf holds it."""
        return self._placed.get(lease)

    def of(self, leaf: NodeId, lease: LeaseId) -> Placed | None:
        """Return what is known of a lease, if that leaf holds it."""
        placed = self._placed.get(lease)
        return placed if placed is not None and placed.leaf == leaf else None

    def leases(self) -> tuple[LeaseId, ...]:
        """Return all leases that leaves hold."""
        return tuple(self._placed)

    def held(self, leaf: NodeId) -> list[Placed]:
        """Return what a leaf holds."""
        return [self._placed[lease] for lease in self._held.get(leaf, ())]

    def count(self, leaf: NodeId) -> int:
        """Return how many leases a leaf holds."""
        return len(self._held.get(leaf, ()))

    def add(self, placed: Placed) -> None:
        """A leaf holds a lease from now on."""
        assert placed.lease not in self._placed, "a lease was placed twice"
        self._placed[placed.lease] = placed
        self._held.setdefault(placed.leaf, {})[placed.lease] = None

    def move(self, placed: Placed, leaf: NodeId, *, below: bool) -> None:
        """A lease is held that way from now on; ``below``: by a bridge."""
        self.remove(placed.lease)
        placed.leaf, placed.below = leaf, below
        self.add(placed)

    def remove(self, lease: LeaseId) -> Placed | None:
        """No leaf holds a lease any more; return what was known of it."""
        placed = self._placed.pop(lease, None)
        if placed is not None:
            held = self._held[placed.leaf]
            del held[lease]
            if not held:
                del self._held[placed.leaf]
        return placed

    def check(self) -> None:
        """Assert that both indexes hold the same."""
        held = {lease: leaf for leaf, leases in self._held.items() for lease in leases}
        assert held == {lease: placed.leaf for lease, placed in self._placed.items()}, "the index by leaf is wrong"
