"""The crew of a master: the linked peers that may work for it, what each offers, and which of them could run a job."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

import msgspec

from p2pq.core import events as ev
from p2pq.core.clusters import Cluster
from p2pq.core.identity import Identity
from p2pq.core.jobs import Job
from p2pq.core.leases import Leases
from p2pq.core.mandates import Homes, open_mandate
from p2pq.core.placement import WorkerSnapshot, barrier
from p2pq.core.through import cluster_of
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Profile
from p2pq.wire import messages as msg
from p2pq.wire import trust
from p2pq.wire.objects import Cert
from p2pq.wire.peering import name_abroad

BRIDGES_MAX: Final = 1024
"""Bridges whose certificates are known: they prove what these have handed on."""
LEFT_MAX: Final = 1024
"""Nodes that are gone of which the way to them is still known."""


class Hand:
    """A linked peer, or a cluster for which one speaks."""

    __slots__ = ("away", "cluster", "leaving", "link", "mark", "profile", "request", "sent")

    def __init__(self, link: ev.LinkUp, mark: LeaseId) -> None:
        """Know it by what it said when the link came up."""
        self.link = link
        self.mark = mark
        """Leases from here on were granted over this very link, so its Holding says nothing of them."""
        self.profile = Profile()
        self.request: msg.Request | None = None
        self.sent: dict[JobId, bytes] = {}
        """Jobs whose manifest this link has carried, least recently used first, with the job key sealed to it."""
        self.leaving = False
        self.away = False
        """It has said since that it takes part through a bridge."""
        self.cluster = Cluster(link.path[0]) if link.path and link.peer == cluster_of(link.path[0]) else None
        """The leaves, where it is a cluster."""

    def rekey(self, prekey: bytes) -> None:
        """Seal job keys to that from now on; those that were sealed before are sealed again."""
        self.link = msgspec.structs.replace(self.link, prekey=prekey)
        self.sent.clear()

    def forget(self, job: JobId) -> None:
        """What came with the grants of a job is not there any more: it is sent again."""
        self.sent.pop(job, None)
        if self.cluster is not None:
            self.cluster.forget_keys(job)

    @property
    def works(self) -> bool:
        """Whether its certificate lets it work."""
        return "work" in self.link.caps

    @property
    def slots(self) -> int:
        """How many cpus it offers."""
        return self.profile.slots if self.cluster is None else self.cluster.slots

    @property
    def far(self) -> bool:
        """Whether it is not of the master's own network: behind bridges, or of another mesh."""
        return self.link.far


class Crew:
    """Every linked peer of a master, itself among them."""

    def __init__(self, me: NodeId) -> None:
        """Begin with nobody; ``me`` is the master's own node."""
        self._me = me
        self._hands: dict[NodeId, Hand] = {}
        self._spoken: dict[NodeId, NodeId] = {}
        """Leaves, and the cluster in which each was introduced last."""
        self._bridges: dict[NodeId, tuple[bytes, ...]] = {}
        """The certificates of bridges, as they were shown last; the one not shown for longest goes first."""
        self._left: dict[NodeId, tuple[NodeId, ...]] = {}
        """The bridges on the way to nodes that are gone, as it was last; who left longest ago goes first."""
        self._homes = Homes()
        self._version = 0
        self.far = 0
        """How many of those that may work are behind bridges."""

    def __contains__(self, peer: NodeId) -> bool:
        """Tell whether that peer is linked."""
        return peer in self._hands

    def __iter__(self) -> Iterator[Hand]:
        """Go through all of them, in the order in which they came."""
        yield from self._hands.values()

    def get(self, peer: NodeId) -> Hand | None:
        """Return a linked peer."""
        return self._hands.get(peer)

    def join(self, link: ev.LinkUp, mark: LeaseId) -> Hand:
        """A link came up."""
        self.leave(link.peer)
        hand = self._hands[link.peer] = Hand(link, mark)
        self.far += hand.far and hand.works
        if "bridge" in link.caps and not link.mesh:
            self._know(link.peer, link.certs)
        return hand

    def leave(self, peer: NodeId) -> None:
        """A link is gone."""
        cluster = self._hands[peer].cluster if peer in self._hands else None
        for node in (peer, *(() if cluster is None else cluster.leaves)):
            self._note_way(node)
        hand = self._hands.pop(peer, None)
        self.far -= hand is not None and hand.far and hand.works
        for leaf in () if hand is None or hand.cluster is None else hand.cluster.leaves:
            self._unspoken(leaf, peer)
        self.changed()

    def changed(self) -> None:
        """Whoever could run what must be found out anew."""
        self._version += 1

    def introduce(self, cluster: Cluster, leaf: msg.Leaf, identity: Identity, wall: Wall, out: trust.IsBanned) -> None:
        """Take in a leaf, or what has changed of it.

        Raises:
            Reject: it does not count as one.
        """
        node = cluster.introduce(leaf, identity, wall, out, self._homes)
        for bridge, certs in zip(leaf.path, leaf.bridges, strict=False):
            self._know(NodeId(bridge), certs)
        self._spoken[node] = cluster_of(cluster.bridge)
        if (hand := self._hands.get(node)) is not None:
            hand.away = True
        self.changed()

    def at_home(self, link: ev.LinkUp, mandate: bytes, identity: Identity) -> None:
        """A linked worker says so itself: what bridges were told by it before is over.

        Raises:
            Reject: it says something else.
        """
        self._homes.take(link.peer, open_mandate(mandate, link.peer, identity.mesh, identity.node, ()), ())
        self._hands[link.peer].away = False

    def _know(self, bridge: NodeId, certs: tuple[bytes, ...]) -> None:
        self._bridges.pop(bridge, None)
        self._bridges[bridge] = certs
        if len(self._bridges) > BRIDGES_MAX:
            del self._bridges[next(iter(self._bridges))]

    def bridge_certs(self, bridge: NodeId) -> tuple[bytes, ...]:
        """Return the certificates of a bridge, linked or further away, now or lately; none of one that was never shown."""
        return self._bridges.get(bridge, ())

    def part(self, cluster: Cluster, leaf: NodeId) -> None:
        """A leaf takes part there no more."""
        self._note_way(leaf)
        cluster.leave(leaf)
        self._unspoken(leaf, cluster_of(cluster.bridge))
        self.changed()

    def expel(self, gone: Callable[[Cert], bool]) -> list[NodeId]:
        """Forget the leaves that are out, by their certificates; return which."""
        found: dict[NodeId, None] = {}
        for peer, hand in self._hands.items():
            for leaf in () if hand.cluster is None else hand.cluster.expel(gone):
                self._unspoken(leaf, peer)
                found[leaf] = None
        if found:
            self.changed()
        return list(found)

    def _unspoken(self, leaf: NodeId, cluster: NodeId) -> None:
        if self._spoken.get(leaf) == cluster:
            del self._spoken[leaf]

    def speaker(self, node: NodeId) -> NodeId | None:
        """Return who is told what is for a node: itself where it is linked, else the cluster that it is a leaf of."""
        return node if node in self._hands else self._spoken.get(node)

    def home(self, node: NodeId) -> NodeId | None:
        """Return who answers for what a worker runs: as it said last, for its link may be gone without a sign yet."""
        hand = self._hands.get(node)
        return self._spoken.get(node, node) if hand is not None and hand.away else self.speaker(node)

    def able(self, job: Job, hand: Hand) -> bool:
        """Tell whether a linked peer, or a leaf of a cluster, could run tasks of a job."""
        if hand.cluster is not None:
            return next(self._runners(job, hand), None) is not None
        peer = hand.link.peer
        fits = barrier(job.ask, hand.profile, peer, own=peer == self._me) is None
        return hand.works and not hand.leaving and fits

    def _runners(self, job: Job, hand: Hand) -> Iterator[NodeId]:
        if hand.cluster is None:
            if self.able(job, hand):
                yield hand.link.peer
        elif hand.works and not hand.leaving:
            yield from hand.cluster.able(job.ask)

    def other_is_able(self, job: Job, worker: NodeId) -> bool:
        """Tell whether somebody besides that worker, leaf or cluster could run tasks of a job."""
        mine = self._hands.get(worker)
        if mine is not None and mine.cluster is not None:
            return any(self.able(job, hand) for hand in self._hands.values() if hand is not mine)
        version, able = job.able
        if version != self._version:
            # Two are enough to tell for any worker whether there is another.
            found: dict[NodeId, None] = {}
            for peer in chain.from_iterable(self._runners(job, hand) for hand in self._hands.values()):
                found[peer] = None
                if len(found) == 2:  # noqa: PLR2004  see above
                    break
            able = tuple(found)
            job.able = (self._version, able)
        return any(peer != worker for peer in able)

    @property
    def slots_here(self) -> int:
        """How many slots there are in the master's own network, free or not."""
        return sum(
            hand.profile.slots for hand in self._hands.values() if hand.works and not hand.far and not hand.leaving
        )

    def room_here(self, job: Job, leases: Leases, cpus_of: Callable[[JobId], int]) -> int | None:
        """Return how many cpus tasks of a job find free in the master's own network, as far as the master knows.

        Returns:
            None where nobody there is able to run it.
        """
        able, free, wants = False, 0, job.ask.resources.cpus
        for peer, hand in self._hands.items():
            if not hand.far and self.able(job, hand):
                able = True
                # What has ended is still leased while its result is fetched.
                taken = sum(cpus_of(lease.job) for lease in leases.held(peer) if lease.collecting is None)
                free += max(0, hand.profile.slots - taken) // wants * wants
        return free if able else None

    def path(self, worker: NodeId) -> tuple[NodeId, ...]:
        """Return the bridges on the way to a worker, or a leaf, the nearest first."""
        hand = self._hands.get(worker)
        if hand is not None:
            return hand.link.path
        cluster = self._hands[self._spoken[worker]].cluster if worker in self._spoken else None
        return () if cluster is None else (cluster.bridge, *cluster.leaves[worker].path)

    def way_left(self, worker: NodeId) -> tuple[NodeId, ...]:
        """Return the bridges on the way to a worker, or a leaf, that is gone, as it was last; nothing where nobody remembers."""
        return self._left.get(worker, ())

    def _note_way(self, worker: NodeId) -> None:
        self._left.pop(worker, None)
        if path := self.path(worker):
            self._left[worker] = path
            if len(self._left) > LEFT_MAX:
                del self._left[next(iter(self._left))]

    def leaf(self, node: NodeId) -> ev.LinkUp | None:
        """Return a leaf of a cluster that has no link of its own, as if this link were up; None for any other node."""
        peer = self._spoken.get(node)
        hand = None if peer is None or node in self._hands else self._hands[peer]
        if hand is None or hand.cluster is None:
            return None
        leaf = hand.cluster.leaves[node]
        return ev.LinkUp(
            peer=node,
            name=leaf.cert.name,
            owner=leaf.cert.owner,
            caps=leaf.cert.caps,
            boot=b"",
            minor=hand.link.minor,
            prekey=leaf.prekey,
            address="",
            path=(hand.cluster.bridge, *leaf.path),
            certs=leaf.certs,
        )

    def leaves(self) -> list[ev.LinkUp]:
        """Return all of these."""
        return [leaf for node in self._spoken if (leaf := self.leaf(node)) is not None]

    def fullest(self, idle: Hand, leases: Leases) -> tuple[NodeId | None, int]:
        """Return who, besides ``idle``, holds the most leases beyond its slots and can be asked for them, and how many."""
        most, fullest = 0, None
        for peer, hand in self._hands.items():
            spare = leases.count(peer) - max(1, hand.slots)
            if spare > most and hand is not idle and hand.link.minor >= msg.SINCE[msg.Recall]:
                most, fullest = spare, peer
        return fullest, most

    def snapshots(
        self,
        leases: Leases,
        cpus_of: Callable[[JobId], int],
        held_back: Callable[[NodeId], bool] = lambda _: False,
        *,
        later: bool = False,
        job: JobId | None = None,
    ) -> list[WorkerSnapshot]:
        """Return those that may work, as values; of a cluster its leaves.

        Args:
            leases: what they hold.
            cpus_of: how many cpus a task of that job takes.
            held_back: whether a worker must prove itself.
            later: whether those behind bridges must wait for what the own network leaves.
            job: the job in question, if there is one. Then what nobody has said yet which leaf has it fills up any of them.
        """
        found = []
        for peer, hand in self._hands.items():
            if not hand.works:
                continue
            cluster = hand.cluster
            name = name_abroad(hand.link.name, hand.link.realm) if hand.link.mesh else hand.link.name
            offers = {peer: (name, hand.profile)}
            if cluster is not None:
                offers = {node: (leaf.cert.name, leaf.profile) for node, leaf in cluster.leaves.items()}
            adrift = [] if cluster is None or job is None else leases.run_by(peer)
            for node, (name, profile) in offers.items():
                held = leases.held(peer) if cluster is None else leases.run_by(node)
                while adrift and sum(cpus_of(lease.job) for lease in (*held, adrift[0])) <= profile.slots:
                    held = [*held, adrift.pop(0)]
                found.append(
                    WorkerSnapshot(
                        node=node,
                        name=name,
                        profile=profile,
                        own=node == self._me,
                        leaving=hand.leaving,
                        request=hand.request,
                        leases=len(held),
                        cpus=sum(cpus_of(lease.job) for lease in held),
                        of_job=sum(lease.job == job for lease in held),
                        held_back=held_back(node),
                        far=hand.far,
                        later=later and hand.far,
                    )
                )
        return found

    def check(self) -> None:
        """Assert that whoever is spoken for is a leaf there."""
        self._homes.check()
        for hand in self._hands.values():
            if hand.cluster is not None:
                hand.cluster.check()
        for leaf, peer in self._spoken.items():
            cluster = self._hands[peer].cluster
            assert cluster is not None, "a leaf of no cluster"
            assert leaf in cluster.leaves, "a leaf is spoken for where it is not"
        assert len(self._bridges) <= BRIDGES_MAX, "too many bridges are known"
        assert len(self._left) <= LEFT_MAX, "too many that are gone are known"
        assert self.far == sum(hand.far and hand.works for hand in self._hands.values()), "those far are miscounted"
