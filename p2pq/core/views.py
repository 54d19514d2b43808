"""What a node shows people of other nodes and of itself as a worker."""

from collections.abc import Mapping

import msgspec

from p2pq.core.kept import KeptFor
from p2pq.core.membership import Membership
from p2pq.core.peers import Peer, State, up
from p2pq.core.placement import WorkerSnapshot
from p2pq.core.queue import Queue
from p2pq.core.through import Throughs
from p2pq.core.worker import Worker
from p2pq.model.ids import NodeId
from p2pq.model.job import Profile
from p2pq.model.owner import Verdict


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    """Another node, for people."""

    id: NodeId | None
    """None where nobody has been authenticated at that address yet."""
    name: str
    owner: str
    address: str
    """HOST:PORT; empty where it is only seen through bridges."""
    path: tuple[NodeId, ...]
    """The bridges that carry the link to it, the nearest first."""
    state: State
    reason: str
    """Why it is down or refused, as a stable phrase."""
    slots: int
    """Cpus that it offers to this node's jobs."""
    free: int
    """Of those, the ones that tasks of this node do not use."""
    has_work: bool
    """Whether it has announced work."""
    profile: Profile | None
    """What it said that it offers; None where it is not linked or does not work."""
    boot: bytes
    caps: tuple[str, ...] = ()
    """What its certificate lets it do; empty where it is not up."""
    realm: str = ""
    """What its mesh is called, where that is another one."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What this node does as a worker, for people."""

    known: bool
    """Whether the sensors have spoken yet."""
    accepts: bool
    reason: str
    draining: bool
    slots: int
    free: int
    kept: tuple[KeptFor, ...]
    """Results that wait for their master's receipt, by master."""
    verdict: Verdict = Verdict()
    """What guests may do by the policy of this machine's owner."""


class Spoken(msgspec.Struct, frozen=True):
    """A master for which this node, as a bridge, speaks to leaves, for people."""

    master: NodeId
    stock: int
    """Attempts that no leaf has been given yet."""
    leaves: tuple[tuple[NodeId, int], ...]
    """Workers that take part, and how many attempts each has that have not ended."""


def peer_views(membership: Membership, throughs: Throughs, queue: Queue, me: Worker) -> tuple[PeerView, ...]:
    """Return every other node that a node knows: the linked ones, those that take part through bridges, then the rest."""
    workers = {worker.node: worker for worker in queue.workers()}
    known = membership.peers()
    masters = [stood.link for stood in throughs.peers() if not stood.cluster]
    far = {link.peer: up(link) for link in (*queue.crew.leaves(), *masters)}
    linked = [peer for peer in known if peer.state == "up"]
    rest = [peer for peer in known if peer.state != "up" and peer.id not in far]
    listed = (*linked, *far.values(), *rest)
    return tuple(peer_view(peer, workers, me, membership.abroad.realm(peer.id)) for peer in listed)


def peer_view(peer: Peer, workers: Mapping[NodeId, WorkerSnapshot], me: Worker, realm: str = "") -> PeerView:
    """Return what is shown of another node.

    Args:
        peer: what the membership knows of it.
        workers: what is known of those that work for this node.
        me: this node as a worker.
        realm: what its mesh was last known to be called, where that is another one.
    """
    worker = None if peer.id is None else workers.get(peer.id)
    slots = 0 if worker is None else worker.profile.slots
    return PeerView(
        id=peer.id,
        name=peer.name,
        owner=peer.owner,
        address=peer.address,
        path=peer.path,
        state=peer.state,
        reason=peer.reason,
        slots=slots,
        free=0 if worker is None else max(0, slots - worker.cpus),
        has_work=peer.id is not None and me.has_work(peer.id),
        profile=None if worker is None else worker.profile,
        boot=peer.boot,
        caps=peer.caps,
        realm=peer.realm or realm,
    )


def policy_of(me: Worker) -> Policy:
    """Return what a node does as a worker."""
    offering = me.offering
    return Policy(
        known=offering is not None,
        accepts=offering is not None and offering.profile.accepts and not me.draining,
        reason="" if offering is None else offering.profile.reason,
        draining=me.draining,
        slots=0 if offering is None else offering.profile.slots,
        free=me.free_slots(),
        kept=me.kept(),
        verdict=me.verdict,
    )
