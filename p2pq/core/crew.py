"""The crew of a master: the linked peers that may work for it, what each offers, and which of them could run a job."""

from collections.abc import Callable, Iterator

import msgspec

from p2pq.core import events as ev
from p2pq.core.jobs import Job
from p2pq.core.leases import Leases
from p2pq.core.placement import WorkerSnapshot, barrier
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import Profile
from p2pq.wire import messages as msg


class Hand:
    """A linked peer."""

    __slots__ = ("leaving", "link", "mark", "profile", "request", "sent")

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

    def rekey(self, prekey: bytes) -> None:
        """Seal job keys to that from now on; those that were sealed before are sealed again."""
        self.link = msgspec.structs.replace(self.link, prekey=prekey)
        self.sent.clear()

    @property
    def works(self) -> bool:
        """Whether its certificate lets it work."""
        return "work" in self.link.caps

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
        return hand

    def leave(self, peer: NodeId) -> None:
        """A link is gone."""
        hand = self._hands.pop(peer, None)
        self.far -= hand is not None and hand.far and hand.works
        self.changed()

    def changed(self) -> None:
        """Whoever could run what must be found out anew."""
        self._version += 1

    def able(self, job: Job, hand: Hand) -> bool:
        """Tell whether a linked peer could run tasks of a job."""
        peer = hand.link.peer
        fits = barrier(job.ask, hand.profile, peer, own=peer == self._me) is None
        return hand.works and not hand.leaving and fits

    def other_is_able(self, job: Job, worker: NodeId) -> bool:
        """Tell whether a linked peer besides that one could run tasks of a job."""
        version, able = job.able
        if version != self._version:
            # Two are enough to tell for any worker whether there is another.
            candidates = (peer for peer, hand in self._hands.items() if self.able(job, hand))
            able = tuple(peer for _, peer in zip(range(2), candidates, strict=False))
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
        """Return the bridges that carry the link to a worker, the nearest first."""
        hand = self._hands.get(worker)
        return () if hand is None else hand.link.path

    def fullest(self, idle: Hand, leases: Leases) -> tuple[NodeId | None, int]:
        """Return who, besides ``idle``, holds the most leases beyond its slots and can be asked for them, and how many."""
        most, fullest = 0, None
        for peer, hand in self._hands.items():
            spare = leases.count(peer) - max(1, hand.profile.slots)
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
    ) -> list[WorkerSnapshot]:
        """Return those that may work, as values.

        Args:
            leases: what they hold.
            cpus_of: how many cpus a task of that job takes.
            held_back: whether a worker must prove itself.
            later: whether those behind bridges must wait for what their own network leaves.
        """
        return [
            WorkerSnapshot(
                node=peer,
                name=hand.link.name,
                profile=hand.profile,
                own=peer == self._me,
                leaving=hand.leaving,
                request=hand.request,
                leases=leases.count(peer),
                cpus=sum(cpus_of(lease.job) for lease in leases.held(peer)),
                held_back=held_back(peer),
                far=hand.far,
                later=later and hand.far,
            )
            for peer, hand in self._hands.items()
            if hand.works
        ]
