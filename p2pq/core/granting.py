"""The granting half of a master: who asks is answered by one grant, of one job, or by Nothing.

A cluster asks once for what many leaves have room for. It is granted what they could run, each judged for itself, and a
stock; which leaf gets what is its bridge's choice, but for those that an attempt is to avoid.
"""

from collections.abc import Iterable
from itertools import chain
from typing import Final

from p2pq.core import checkpoints, records
from p2pq.core import effects as fx
from p2pq.core.clock import WallClock
from p2pq.core.clusters import KEYS_MAX, Cluster, Rooms
from p2pq.core.crew import Crew, Hand
from p2pq.core.identity import Identity
from p2pq.core.jobs import Job
from p2pq.core.leases import Lease
from p2pq.core.overflow import Overflow
from p2pq.core.placement import barrier, fits, room
from p2pq.core.showing import ShownBook
from p2pq.core.signing import Signatory
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import seal
from p2pq.wire.objects import ITEMS_MAX, GrantItem, ReceiptItem

MANIFESTS_MAX: Final = 256
"""Jobs per link whose manifest is known to have been sent; beyond it the longest unused is sent again."""
RECALL_S: Final = 0.25
"""Leases are asked back at most this often."""
KEYS_SPARE: Final = 4
"""Leaves beyond the number of attempts that get the job key with a grant: its bridge has a choice."""
KEYS_AHEAD: Final = 64
"""Where the bridge has a stock of a job, so many leaves get the key at a time, as far as tasks wait for them to run."""


class Granting:
    """The jobs of this node, those who work for it, and what they are granted."""

    def __init__(
        self,
        identity: Identity,
        settings: ScheduleSettings,
        restored: records.Restored,
        entropy: seal.Entropy,
        now: Mono,
        wall: Wall,
    ) -> None:
        """Begin a life with a new epoch; what was live is live again.

        Raises:
            Reject: a restored manifest is not this node's: the store belongs to another key.
        """
        self._identity = identity
        self._signatory = Signatory(identity)
        self._lease_ms = round(settings.lease_s * 1000)
        self._entropy = entropy
        self._clock = WallClock(now, wall)
        self._recall_at = now
        self._crew = crew = Crew(identity.node)
        self._book = ShownBook(identity.node, settings, restored, self._clock, crew.other_is_able, crew.path, now)
        self._overflow = Overflow(identity.node, self._book, crew)
        self._out = self._book.out

    @property
    def crew(self) -> Crew:
        """Who may work for this node; for readers."""
        return self._crew

    def _request(self, worker: Hand, request: msg.Request, now: Mono) -> None:
        peer = worker.link.peer
        if not worker.works:
            self._drop(peer, "no work capability")
            return
        if worker.request is not None and worker.request.nonce == request.nonce:
            self._drop(peer, "repeated request")
            return
        worker.request = request
        serve = self._serve if worker.cluster is None else self._serve_cluster
        if serve(worker, request, now):
            return
        counter, wide = self._overflow.slept(worker), self._wide(worker, request, now)
        self._send(peer, msg.Nothing(nonce=request.nonce, owner=request.owner, counter=counter, wide=wide))
        self._recall(worker, request, now)

    def _serve(self, worker: Hand, request: msg.Request, now: Mono) -> bool:
        """Grant tasks that wait; where none do, second attempts of what takes too long. Return whether there were any."""
        peer = worker.link.peer
        ahead = dict(request.ahead)
        held_max = msg.LEASES_MAX - self._book.leases.count(peer)
        for again in (False, True):
            for job, left in self._overflow.jobs(worker, request.owner, now):
                if not self._crew.able(job, worker) or not (job.tail.open if again else job.may_take(peer)):
                    continue
                limit = room(job.ask.resources, request)
                if not again and not self._book.held_back(job, peer):
                    limit += max(0, ahead.get(job.id, 0))
                limit = self._book.allowance(job, peer, min(limit, request.tasks_max, held_max, left), now)
                if limit > 0 and self._grant(job, worker, request.nonce, limit, now, again=again):
                    self._overflow.took(worker, now)
                    return True
        return False

    def _wide(self, worker: Hand, request: msg.Request, now: Mono) -> tuple[int, int, int]:
        """Return what the first job that waits for more room than was offered needs, or zeros."""
        peer = worker.link.peer
        for job, _ in self._overflow.jobs(worker, request.owner, now):
            wants = job.ask.resources
            if worker.cluster is not None:
                able = [place for place in request.places if self._may_run(job, worker.cluster, place)]
                waits = bool(able) and job.waits and not any(fits(wants, place) for place in able)
            else:
                waits = job.may_take(peer) and not self._book.held_back(job, peer) and self._crew.able(job, worker)
                waits = waits and room(wants, request) == 0
            if waits and request.cpus:
                return wants.cpus, wants.memory_mb, wants.gpus
        return 0, 0, 0

    def _recall(self, idle: Hand, request: msg.Request, now: Mono) -> None:
        """Ask the worker that holds most more than it can run for some of that: another one is idle and nothing waits."""
        if now < self._recall_at or not request.cpus or not len(self._book.leases):
            return
        if idle.far and not self._overflow.open:
            return
        fullest, most = self._crew.fullest(idle, self._book.leases)
        if fullest is not None:
            self._recall_at = Mono(now + RECALL_S)
            self._send(fullest, msg.Recall(tasks=min(-(-most // 2), request.tasks_max)))

    def _grant(self, job: Job, worker: Hand, nonce: bytes, limit: int, now: Mono, *, again: bool) -> bool:
        """Grant up to so many attempts, if there is one that it may have; return whether that is settled by this."""
        peer = worker.link.peer
        known = job.id in worker.sent
        try:
            key = worker.sent[job.id] if known else self._seal(job, worker)
        except Reject as reject:
            self._drop(peer, f"prekey: {reject.reason}", close=True)
            return True
        give = self._book.grant_again if again else self._book.grant
        items = give(job, peer, limit, now)
        if not items:
            return False
        self._sent(worker, job, key)
        signed = self._signed(job, peer, nonce, items, key, now)
        if signed is None:
            return False
        manifest = b"" if known else job.raw
        handed_on = checkpoints.hand_on(job, items, worker.link, self._identity, self._signatory.key, self._entropy)
        self._send(peer, msg.Granted(grant=signed, manifest=manifest, checkpoints=handed_on))
        return True

    def _sent(self, worker: Hand, job: Job, key: bytes) -> None:
        """The link carries the manifest of a job, or did so before."""
        worker.sent.pop(job.id, None)
        worker.sent[job.id] = key
        if len(worker.sent) > MANIFESTS_MAX:
            del worker.sent[next(iter(worker.sent))]

    def _signed(
        self, job: Job, to: NodeId, nonce: bytes, items: tuple[GrantItem, ...], key: bytes, now: Mono
    ) -> bytes | None:
        """Return the signed grant, which is kept; None if it cannot be said, and its attempts are taken back."""
        expires = Wall(self._clock.at(now) + self._lease_ms)
        try:
            signed = self._signatory.grant(job, to, nonce, items, key, expires)
        except Reject as reject:
            self._book.take_back(items, f"it could not be granted: {reject.reason}", now)
            return None
        self._out.append(fx.Record(row=records.GrantKept(job=job.id, lease=items[0].lease, signed=signed)))
        return signed

    def _seal(self, job: Job, worker: Hand) -> bytes:
        return seal.seal(worker.link.prekey, job.key, job.digest, self._entropy)

    # -- granting to clusters -------------------------------------------------------------------------------------------

    def _serve_cluster(self, worker: Hand, request: msg.Request, now: Mono) -> bool:
        """As ``_serve``, for many leaves at once."""
        peer = worker.link.peer
        ahead = dict(request.ahead)
        held_max = msg.LEASES_MAX - self._book.leases.count(peer)
        for again in (False, True):
            for job, left in self._overflow.jobs(worker, request.owner, now):
                if worker.leaving or not (job.tail.open if again else job.waits):
                    continue
                rooms = self._rooms(job, worker, request, 0 if again else ahead.get(job.id, 0), now)
                limit = self._book.allowance(job, peer, min(rooms.most, request.tasks_max, held_max, left), now)
                if limit > 0 and self._grant_cluster(job, worker, request.nonce, rooms, limit, now, again=again):
                    self._overflow.took(worker, now)
                    return True
        return False

    def _rooms(self, job: Job, worker: Hand, request: msg.Request, ahead: int, now: Mono) -> Rooms:
        """Return how many attempts of a job each leaf with room may have, and how many may wait at the bridge."""
        cluster = worker.cluster
        assert cluster is not None, "only a cluster has leaves"
        each: dict[NodeId, int] = {}
        for place in request.places:
            if self._may_run(job, cluster, place):
                leaf = NodeId(place.leaf)
                count = min(fits(job.ask.resources, place), request.tasks_max)
                if count > 0 and (count := self._book.allowance(job, leaf, count, now)) > 0:
                    each[leaf] = count
        doubtful = self._book.doubtful(job, cluster.leaves, now)
        if ahead > 0 and all(leaf in doubtful for leaf in cluster.able(job.ask)):
            ahead = 0
        return Rooms(worker.link.peer, each, max(0, ahead), (*doubtful, *cluster.shunned))

    def _may_run(self, job: Job, cluster: Cluster, place: msg.Place) -> bool:
        leaf = NodeId(place.leaf)
        view = cluster.leaves.get(leaf)
        return view is not None and barrier(job.ask, view.profile, leaf, own=False) is None

    def _grant_cluster(  # noqa: PLR0913  each is a different fact
        self, job: Job, worker: Hand, nonce: bytes, rooms: Rooms, limit: int, now: Mono, *, again: bool
    ) -> bool:
        """Grant up to so many attempts, if there is one that some leaf may have; return whether there was."""
        peer, cluster = worker.link.peer, worker.cluster
        assert cluster is not None, "only a cluster has leaves"
        give = self._book.grant_again if again else self._book.grant
        items = give(job, peer, limit, now, rooms)
        if not items:
            return False
        known = job.id in worker.sent
        self._sent(worker, job, b"")
        # The bridge signs what it hands on, so the grant is to the bridge itself.
        signed = self._signed(job, cluster.bridge, nonce, items, b"", now)
        if signed is None:
            return False
        self._book.gave(items, signed, cluster.bridge)
        granted = msg.Granted(
            grant=signed,
            manifest=b"" if known else job.raw,
            checkpoints=checkpoints.hand_on(
                job, items, worker.link, self._identity, self._signatory.key, self._entropy, cluster=True
            ),
            keys=self._keys(job, cluster, rooms, len(items)),
            avoid=rooms.avoid(items, cluster.leaves),
        )
        self._send(peer, granted)
        return True

    def _keys(self, job: Job, cluster: Cluster, rooms: Rooms, attempts: int) -> tuple[tuple[NodeId, bytes], ...]:
        """Return the job key, sealed to each leaf that may need it and has not got it; to no more than can be of use.

        These are the leaves with room. Where there is a stock any other may have of it, and would else wait for its key.
        """
        keys: list[tuple[NodeId, bytes]] = []
        most = attempts + KEYS_SPARE
        if rooms.ahead:
            most = max(most, min(KEYS_AHEAD, attempts + job.grantable))
        ahead, may_go_ahead = 0, cluster.may_go_ahead(job.id)
        for leaf in chain(rooms.each, cluster.leaves if rooms.ahead else ()):
            view = cluster.leaves[leaf]
            apart = leaf not in rooms.each
            if len(keys) == min(most, msg.PLACES_MAX) or (apart and ahead == may_go_ahead):
                break
            # Mostly all have it.
            if job.id not in view.keyed and barrier(job.ask, view.profile, leaf, own=False) is None:
                ahead += apart
                keys.append((leaf, seal.seal(view.prekey, job.key, job.digest, self._entropy)))
                view.keyed[job.id] = None
                if len(view.keyed) > KEYS_MAX:
                    del view.keyed[next(iter(view.keyed))]
        cluster.went_ahead(job.id, ahead)
        return tuple(keys)

    # -- those who have said on which way they take part ----------------------------------------------------------------

    def _at_home(self, worker: Hand, mandate: bytes) -> None:
        """Take in a linked worker's word that it has a link of its own, if it has said it; clusters take part as they can."""
        if mandate and worker.cluster is None:
            try:
                self._crew.at_home(worker.link, mandate, self._identity)
            except Reject as reject:
                self._drop(worker.link.peer, f"holding: {reject.reason}")

    # -- helpers --------------------------------------------------------------------------------------------------------

    def _revoke(self, leases: list[Lease]) -> None:
        """Tell the workers of leases that are over to stop; one that is not linked hears it when it links up."""
        by_worker: dict[NodeId, list[LeaseId]] = {}
        for lease in leases:
            by_worker.setdefault(lease.worker, []).append(lease.id)
        for worker, over in by_worker.items():
            if worker in self._crew:
                self._send(worker, msg.Cancel(leases=tuple(over)))

    def _send(self, peer: NodeId, message: msg.CoreMessage) -> None:
        self._out.append(fx.Send(peer=peer, message=message))

    def _tell(self, told: list[tuple[NodeId, msg.HasWork]]) -> None:
        self._out += [fx.Send(peer=peer, message=message) for peer, message in told]

    def _drop(self, peer: NodeId, reason: str, *, close: bool = False) -> None:
        self._out.append(fx.Drop(peer=peer, reason=reason, close=close))

    def _hand_out(self, worker: Hand) -> None:
        """Say the receipts that wait for a cluster."""
        cluster = worker.cluster
        while cluster is not None and cluster.receipts:
            self._say_receipt(worker.link.peer, cluster.receipts[:ITEMS_MAX])
            del cluster.receipts[:ITEMS_MAX]

    def _say_receipt(self, peer: NodeId, items: Iterable[ReceiptItem]) -> None:
        self._send(peer, msg.Receipted(receipt=self._signatory.receipt(peer, items)))
