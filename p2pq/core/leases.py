"""The right to run one attempt: granted, renewed, settled or over. One table per master.

A lease lives until it is settled (its result is in), ended (returned, lost, cancelled) or due. It is renewed by
heartbeats, but never beyond what the task's time limit allows, so nobody holds one for ever. While its result is being
collected it cannot become due.
"""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from p2pq.core.deadlines import Deadlines
from p2pq.core.intervals import IntervalSet
from p2pq.core.records import Proof
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId
from p2pq.wire.objects import ResultItem

WAIT_S: Final = 4 * 3600.0
"""How long an attempt may be held before it starts: waiting ahead, fetching blobs."""
GRACE_S: Final = 300.0
"""What an attempt may take beyond its time limit: sealing, and having its results collected."""

Standing = Literal["live", "over", "forgotten", "unknown"]


class Given(msgspec.Struct, frozen=True):
    """A grant to a bridge, which hands its leases on: what sub-grants must begin with."""

    digest: bytes
    """Of the signed grant."""
    to: NodeId
    leases: tuple[LeaseId, ...]


class Lease:
    """A live lease. Only ``Leases`` changes it."""

    __slots__ = (
        "attempt",
        "collecting",
        "detail",
        "given",
        "granted",
        "heard",
        "hearsay",
        "id",
        "job",
        "leaf",
        "progress",
        "proof",
        "running",
        "skipped",
        "slow",
        "task",
        "time_s",
        "until",
        "worker",
    )

    def __init__(self, lease: LeaseId, job: JobId, task: int, attempt: int, worker: NodeId) -> None:
        self.id = lease
        self.job = job
        self.task = task
        self.attempt = attempt
        self.worker = worker
        """Whom it was granted to, and who answers for it."""
        self.leaf: NodeId | None = None
        """Of one granted to a cluster: the worker below the bridge that has it, where that is known."""
        self.given: Given | None = None
        """The grant that it is of, where that was to a bridge and is known."""
        self.hearsay = False
        """Only its bridge says so, of one that has never said to take part there: it is not held to account for anything."""
        self.granted = Mono(0.0)
        self.heard = Mono(0.0)
        """When its worker last said that it holds it."""
        self.time_s = 0.0
        self.until = Mono(0.0)
        """It cannot be renewed beyond this instant."""
        self.running = False
        self.progress = -1
        self.collecting: ResultItem | None = None
        self.proof: Proof | None = None
        """What proves the result that is being collected."""
        self.slow = 0
        """How often it took too long to bring its result here."""
        self.detail = ""
        """What the result that was collected says on how the attempt ended."""
        self.skipped: tuple[str, ...] = ()
        """What of its results could not travel, by the task's own doing."""

    @property
    def runner(self) -> NodeId:
        """Who runs the attempt, as far as is known: how it ends is that worker's doing."""
        return self.worker if self.leaf is None else self.leaf


class Leases:
    """All leases of one master: the live ones by id and by worker, and what was settled per epoch."""

    def __init__(
        self,
        epoch: int,
        lease_s: float,
        settled: tuple[tuple[int, tuple[tuple[int, int], ...]], ...],
        rebuilt: int = 0,
    ) -> None:
        """Start a life: ``epoch`` is higher than any before; ``settled`` holds intervals of counters per epoch.

        Of leases of epochs up to ``rebuilt`` only the settled ones are known to be over.
        """
        self.epoch = epoch
        self._rebuilt = rebuilt
        self._lease_s = lease_s
        self._next = 0
        self._live: dict[LeaseId, Lease] = {}
        self._held: dict[NodeId, dict[LeaseId, None]] = {}
        self._placed: dict[NodeId, dict[LeaseId, None]] = {}
        """By leaf."""
        self._due: Deadlines[LeaseId] = Deadlines()
        self._settled = {number: IntervalSet(intervals) for number, intervals in settled}

    def __len__(self) -> int:
        """Return how many leases are live."""
        return len(self._live)

    @property
    def deadline(self) -> Mono | None:
        """When the next lease may be due."""
        return self._due.next

    @property
    def mark(self) -> LeaseId:
        """The lease that will be granted next; every lease so far is smaller."""
        return LeaseId(self.epoch, self._next)

    def new_id(self) -> LeaseId:
        """Return a lease id that was never used."""
        lease = self.mark
        self._next += 1
        return lease

    def add(self, lease: Lease, now: Mono, time_s: float) -> None:
        """Let a lease live from ``now``; the task may run for ``time_s`` seconds once it has started."""
        lease.granted = lease.heard = now
        lease.time_s = time_s
        lease.until = Mono(now + WAIT_S + time_s + GRACE_S)
        self._live[lease.id] = lease
        self._held.setdefault(lease.worker, {})[lease.id] = None
        self._due.set(lease.id, Mono(now + self._lease_s))

    def get(self, lease: LeaseId) -> Lease | None:
        """Return the lease if it is live."""
        return self._live.get(lease)

    def standing(self, lease: LeaseId) -> Standing:
        """Tell whether a lease is live, was once granted, may have been, or was never granted by this master.

        One of a later epoch is over: a life granted it that this master has forgotten, as its disk was lost and its clock is
        behind. Whoever holds it must let go of it, or it would be taken for one that is granted when the epochs get there.
        """
        if lease in self._live:
            return "live"
        if lease.counter < 0 or lease.epoch < 0:
            return "unknown"
        if lease.epoch > self.epoch:
            return "over"
        if lease >= self.mark:
            return "unknown"
        if not 0 < lease.epoch <= self._rebuilt or lease.counter in self._settled.get(lease.epoch, ()):
            return "over"
        return "forgotten"

    def held(self, worker: NodeId) -> list[Lease]:
        """Return the live leases of a worker, oldest first."""
        return [self._live[lease] for lease in self._held.get(worker, ())]

    def run_by(self, runner: NodeId) -> list[Lease]:
        """Return the live leases of a worker, or leaf, that nobody else runs."""
        own = [lease for lease in self.held(runner) if lease.leaf is None]
        return own + [self._live[lease] for lease in self._placed.get(runner, ())]

    def place(self, lease: Lease, leaf: NodeId | None, *, hearsay: bool = False) -> None:
        """It is a leaf that has the lease; None: whom it was granted to."""
        lease.hearsay = hearsay
        if lease.leaf is not None:
            _remove(self._placed, lease.leaf, lease.id)
        lease.leaf = leaf
        if leaf is not None:
            self._placed.setdefault(leaf, {})[lease.id] = None

    def move(self, lease: Lease, worker: NodeId) -> None:
        """Somebody else answers for it from now on: who runs it has come to another bridge, or has a link of its own."""
        runner = lease.runner
        _remove(self._held, lease.worker, lease.id)
        lease.worker = worker
        self._held.setdefault(worker, {})[lease.id] = None
        self.place(lease, None if runner == worker else runner)

    def due(self, lease: LeaseId) -> Mono | None:
        """Return when it ends unless it is renewed; None while its result is being collected."""
        return self._due.get(lease)

    def count(self, worker: NodeId) -> int:
        """Return how many live leases a worker holds."""
        return len(self._held.get(worker, ()))

    def renew(self, lease: Lease, now: Mono, *, running: bool) -> None:
        """The worker still holds it; ``running`` starts the clock of its time limit, once."""
        lease.heard = now
        if running and not lease.running:
            lease.running = True
            lease.until = Mono(now + lease.time_s + GRACE_S)
        if lease.collecting is None:
            self._due.set(lease.id, min(Mono(now + self._lease_s), lease.until))

    def confirm(self, worker: NodeId, leases: Iterable[LeaseId], now: Mono) -> tuple[LeaseId, ...]:
        """Renew those of these that are live and that worker's, and return them."""
        live = [lease for name in leases if (lease := self._live.get(name)) is not None and lease.worker == worker]
        for lease in live:
            self.renew(lease, now, running=lease.running)
        return tuple(lease.id for lease in live)

    def slept(self, counted_s: float, now: Mono) -> None:
        """This master slept: nobody could renew, so each lease has its full term anew, beyond what the clock has counted."""
        for lease in self._live.values():
            lease.until = Mono(lease.until + counted_s)
            if lease.collecting is None:
                self._due.set(lease.id, min(Mono(now + self._lease_s), lease.until))

    def collect(self, lease: Lease, item: ResultItem, proof: Proof | None = None) -> None:
        """Its result is being fetched; it is not due until that has succeeded or failed."""
        lease.proof = proof
        lease.collecting = item
        self._due.cancel(lease.id)

    def collect_failed(self, lease: Lease, now: Mono) -> None:
        """The result could not be had; the lease goes on, within its bounds."""
        lease.collecting = lease.proof = None
        self.renew(lease, now, running=lease.running)

    def pop_due(self, now: Mono) -> Lease | None:
        """End and return the first lease that is due at ``now``, or None."""
        lease = self._due.pop(now)
        return None if lease is None else self.end(self._live[lease])

    def settle(self, lease: Lease) -> None:
        """Its result counts: end it and remember that, for good."""
        settled = self._settled.setdefault(lease.id.epoch, IntervalSet())
        assert lease.id.counter not in settled, "a lease was settled twice"
        settled.add(lease.id.counter)
        self.end(lease)

    def end(self, lease: Lease) -> Lease:
        """End it without a result."""
        del self._live[lease.id]
        _remove(self._held, lease.worker, lease.id)
        if lease.leaf is not None:
            _remove(self._placed, lease.leaf, lease.id)
        if lease.hearsay:
            lease.leaf = None
        self._due.cancel(lease.id)
        return lease

    def settled(self) -> tuple[tuple[int, tuple[tuple[int, int], ...]], ...]:
        """Return, per epoch, the intervals of settled counters."""
        return tuple((epoch, done.intervals()) for epoch, done in sorted(self._settled.items()))

    def check(self) -> None:
        """Assert that the indexes agree, that nothing live is settled, and that what is not collected will end."""
        held = {lease: worker for worker, leases in self._held.items() for lease in leases}
        assert held == {lease.id: lease.worker for lease in self._live.values()}, "the index by worker is wrong"
        placed = {lease: leaf for leaf, leases in self._placed.items() for lease in leases}
        known = {lease.id: lease.leaf for lease in self._live.values() if lease.leaf is not None}
        assert placed == known, "the index by leaf is wrong"
        assert all(self._held.values()), "a worker that holds nothing is remembered"
        assert all(self._placed.values()), "a leaf that holds nothing is remembered"
        for lease in self._live.values():
            assert lease.id < self.mark, "a lease is live before it was granted"
            assert lease.id.counter not in self._settled.get(lease.id.epoch, ()), "a settled lease is live"
            assert (lease.id in self._due) == (lease.collecting is None), "a lease would never end"
        assert len(self._due) <= len(self._live), "a dead lease is due"
        self._due.check()


def _remove(index: dict[NodeId, dict[LeaseId, None]], node: NodeId, lease: LeaseId) -> None:
    held = index[node]
    del held[lease]
    if not held:
        del index[node]
