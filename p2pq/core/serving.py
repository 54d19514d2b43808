"""The leaves below a bridge that work for one master, and the answers to their requests: out of the stock, or Nothing."""

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Final, Literal

import msgspec

from p2pq.core.announcer import Announcer
from p2pq.core.batching import Batch
from p2pq.core.below import Below
from p2pq.core.deadlines import Deadlines
from p2pq.core.effects import Drop, Effect, Send
from p2pq.core.events import LinkUp
from p2pq.core.proofs import Proof
from p2pq.core.restock import Restock, Want
from p2pq.core.shelf import Lot, Seat, Shelf
from p2pq.core.slots import Room, offered
from p2pq.core.tenants import Placed, Tenants
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId
from p2pq.model.job import Profile
from p2pq.wire import messages as msg

HOLD_S: Final = 1.5
"""A leaf's request that cannot be served is kept open for so long ..."""
HOLD_SHARE: Final = 0.75
"""... or, if that is less, for so much of the time in which a request of this node lapses."""
LEAVES_TOTAL_MAX: Final = 4096
"""Leaves of one master; further workers are ignored."""
OPEN_MAX: Final = 16
"""Requests of a leaf that are kept open; beyond it the oldest is answered."""
SENT_MAX: Final = 256
"""Manifests per leaf that are known to have been sent to it."""

Kind = Literal["gather", "flush", "wave", "request", "quiet", "beat", "patience"]
Ask = tuple[NodeId, bytes]
"""A leaf and the nonce of a request of it."""
Timer = tuple[Kind, NodeId] | tuple[Literal["hold"], NodeId, Ask]
"""What a deadline of a bridge is for, of which master, and what of it."""


class Peer(msgspec.Struct):
    """A linked node, or the cluster that it speaks for: then it is what the path of ``link`` leads through."""

    link: LinkUp
    card: bytes = b""
    """Its keycard, if it has said it."""

    @property
    def speaker(self) -> NodeId:
        """Who is linked."""
        return self.link.path[0] if self.link.path else self.link.peer

    def told(self, master: NodeId, message: msg.Passed) -> Send:
        """Return that it is told this as that master's word."""
        cluster = bool(self.link.path)
        return Send(peer=self.speaker, message=msg.Through(node=master, message=message, cluster=cluster))


class Leaf(msgspec.Struct):
    """A worker that works for the master through this bridge, or a bridge below, which stands for many."""

    peer: Peer
    below: Below | None = None
    """The leaves that it stands for."""
    profile: Profile | None = None
    mandate: bytes = b""
    """Its word that it takes part this way."""
    begun: bool = False
    """It has said what it holds. What comes before that it said as its master stood on another way, or was another life."""
    proven: dict[LeaseId, Proof] = msgspec.field(default_factory=dict)
    """Leases that it, or a leaf that it stands for, has shown to have been given, each with what shows it."""
    shown: int = 0
    """Bytes of what it has shown of these, at most."""
    sent: dict[bytes, None] = msgspec.field(default_factory=dict)
    """Manifests that it was sent, by digest, the least recently used first."""

    def introduction(self) -> msg.Leaf | None:
        """Return what the master is told of it; None as long as it has not said enough."""
        if self.profile is None or not (self.peer.card and self.peer.link.certs and self.mandate):
            return None
        certs, card = self.peer.link.certs, self.peer.card
        return msg.Leaf(certs=certs, card=card, profile=self.profile, mandate=self.mandate)

    def sends(self, digest: bytes) -> bool:
        """Count a manifest as sent to it; return whether it has it already."""
        had = digest in self.sent
        self.sent.pop(digest, None)
        self.sent[digest] = None
        if len(self.sent) > SENT_MAX:
            del self.sent[next(iter(self.sent))]
        return had

    def seats(self, request: msg.Request) -> list[Seat]:
        """Return the room that it asks with, never more than it offers: its own, or that of its leaves."""
        node = self.peer.link.peer
        if self.below is None:
            return [Seat(node, self.profile, _within(request, self.profile))]
        known = ((NodeId(place.leaf), place) for place in request.places)
        found = ((leaf, place, self.below.leaves.get(leaf)) for leaf, place in known)
        return [
            Seat(leaf, view.profile, _within(place, view.profile)) for leaf, place, view in found if view is not None
        ]

    def wants(self, request: msg.Request) -> list[tuple[NodeId, Room]]:
        """Return the same as a master is asked with; where there is no room, what asks for a stock."""
        return [(seat.leaf, seat.room) for seat in self.seats(request)] or [(self.peer.link.peer, Room())]

    def offers(self) -> Iterator[tuple[NodeId, Profile]]:
        """Go through those who run attempts here, and what each offers."""
        if self.below is not None:
            yield from ((node, leaf.profile) for node, leaf in self.below.leaves.items())
        elif self.profile is not None:
            yield self.peer.link.peer, self.profile

    @property
    def known(self) -> bool:
        """Whether the master has been told of it, or is to be."""
        return self.introduction() is not None if self.below is None else bool(self.below.leaves)


class Serving:
    """The master, as its leaves see it. Shares with the cluster what is in stock, who has what, and what is asked for."""

    def __init__(  # noqa: PLR0913, PLR0917  each is a different thing to share
        self,
        me: NodeId,
        master: LinkUp,
        shelf: Shelf,
        restock: Restock,
        tenants: Tenants,
        batch: Batch,
        deadlines: Deadlines[Timer],
        hold_s: float,
    ) -> None:
        """Know of no leaf. ``me`` is this bridge; ``hold_s``: how long a request that cannot be served is kept open."""
        self._master, self._owner = master.peer, master.owner
        self._shelf, self._restock, self._tenants, self._batch = shelf, restock, tenants, batch
        self._deadlines, self._hold_s = deadlines, hold_s
        self._announcer = Announcer(me)
        self._leaves: dict[NodeId, Leaf] = {}
        self._open: dict[Ask, msg.Request] = {}
        """Requests that wait for an answer, in the order in which they came."""
        self._asks: dict[NodeId, dict[Ask, None]] = {}
        """The same by leaf."""
        self._needed = 0
        """Attempts that they have room for."""
        self._wide = (0, 0, 0)
        self._missed = False
        """A leaf was answered Nothing without the master having been asked for it."""
        self._grew = False

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._open)

    @property
    def leaves(self) -> Mapping[NodeId, Leaf]:
        """The leaves, in the order in which they came."""
        return self._leaves

    def wants(self) -> Iterator[Want]:
        """Go through what waits for an answer."""
        for (node, _), request in self._open.items():
            for leaf, room in self._leaves[node].wants(request):
                yield leaf, room, request

    # -- leaves ---------------------------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """How many there are, with those of bridges below."""
        return sum(1 if leaf.below is None else len(leaf.below.leaves) for leaf in self._leaves.values())

    def offers(self) -> Iterator[tuple[NodeId, Profile]]:
        """Go through all of them, and what each offers."""
        return chain.from_iterable(leaf.offers() for leaf in self._leaves.values())

    def stands(self, node: NodeId) -> bool:
        """Tell whether that one is a leaf here, or of a bridge below."""
        return node in self._leaves or self._below(node) is not None

    def introduction(self, node: NodeId) -> msg.Leaf | None:
        """Return what the master is told of a leaf; None as long as it has not said enough."""
        if (leaf := self._leaves.get(node)) is not None:
            return leaf.introduction()
        below = self._below(node)
        return None if below is None else below.leaves[node]

    def _below(self, node: NodeId) -> Below | None:
        belows = (leaf.below for leaf in self._leaves.values() if leaf.below is not None)
        found = [below for below in belows if node in below.leaves]
        return max(found, key=lambda below: below.home(node), default=None)

    def toward(self, node: NodeId) -> NodeId | None:
        """Return the bridge below that leads to a leaf."""
        below = self._below(node)
        return None if below is None else below.bridge

    def join(self, peer: Peer, below: Below | None = None) -> Leaf | None:
        """Return the leaf that this worker is from its first word to the master on; None if there are too many."""
        node = peer.link.peer
        leaf = self._leaves.get(node)
        if leaf is None and len(self._leaves) < LEAVES_TOTAL_MAX:
            leaf = self._leaves[node] = Leaf(peer, below)
            self._announcer.join(node)
        return leaf

    def leave(self, node: NodeId) -> tuple[NodeId, ...]:
        """A worker, or a bridge below, takes part no more; return the leaves that left so."""
        leaf = self._leaves.pop(node, None)
        if leaf is None:
            return ()
        self._announcer.leave(node)
        for key in list(self._asks.get(node, ())):
            self._close(key)
        gone = (node,) if leaf.below is None else tuple(leaf.below.leaves)
        self.unkey((node, *gone))
        return gone

    def unkey(self, nodes: Collection[NodeId]) -> None:
        """Leaves are gone, or have new keys: they may come back as other lives."""
        for node in nodes:
            self._restock.forget(node)
        self._shelf.unkey(nodes)
        for leaf in self._leaves.values():
            if leaf.below is not None:
                leaf.below.unkey(nodes)

    def wake(self, node: NodeId, out: list[Effect]) -> None:
        """A leaf can do other things than before: it is told of work, and what the master had nothing for is asked anew."""
        self._restock.forget(node)
        self._hear(self._announcer.wake(node), out)

    def say(self, node: NodeId, message: msg.Passed, out: list[Effect]) -> None:
        """Say something to a leaf, if it is still there, as the master's word."""
        if (leaf := self._leaves.get(node)) is not None:
            out.append(leaf.peer.told(self._master, message))

    def _hear(self, told: list[tuple[NodeId, msg.HasWork]], out: list[Effect]) -> None:
        for node, message in told:
            self.say(node, message, out)

    # -- requests -------------------------------------------------------------------------------------------------------

    def request(self, node: NodeId, request: msg.Request, now: Mono, out: list[Effect]) -> None:
        """Serve a leaf, or let it wait, or tell it that there is nothing."""
        key, leaf = (node, request.nonce), self._leaves[node]
        if key in self._open or request.owner != self._owner:
            reason = "repeated request" if key in self._open else "request for another owner"
            out.append(Drop(peer=leaf.peer.speaker, reason=reason))
            return
        mine = self._asks.get(node, {})
        if len(mine) >= OPEN_MAX:
            self._nothing(next(iter(mine)), out)
        if self._serve(key, request, len(self._shelf) - self._needed, now, out):
            return
        self._open[key] = request
        self._asks.setdefault(node, {})[key] = None
        self._needed += _needs(request)
        wants = leaf.wants(request)
        hope = self._restock.offers and leaf.known and not self._covered(wants)
        if hope and (request.ahead or any(room.cpus for _, room in wants)):
            self._deadlines.set(("hold", self._master, key), Mono(now + self._hold_s))
        else:
            self._nothing(key, out)
            if len(self._shelf):
                # There is work, but not for this one, which may have one at a time perhaps: its result is waited for.
                self._batch.hurry(node)

    def stocked(self, now: Mono, out: list[Effect]) -> None:
        """Something came into stock: serve those who wait, first those who have waited longest."""
        self._grew = True
        for key, request in list(self._open.items()):
            others = self._needed - _needs(request)
            if self._serve(key, request, len(self._shelf) - others, now, out):
                self._close(key)

    def _serve(self, key: Ask, request: msg.Request, spare: int, now: Mono, out: list[Effect]) -> bool:
        """Give a leaf attempts out of the stock, if there are any for it; ahead only of those that are to spare."""
        node, nonce = key
        leaf = self._leaves[node]
        seats = leaf.seats(request)
        taken = self._shelf.take(seats, request, spare)
        if taken is None:
            return False
        lot, leases = taken
        job = JobId(lot.grant.job)
        for lease in leases:
            self._tenants.add(Placed(lease, node, job, now, now, below=leaf.below is not None))
        if leaf.below is None:
            self._batch.placed |= dict.fromkeys(leases, node)
        self._restock.placed(job, len(leases), now)
        sent = leaf.sends(lot.grant.manifest)
        keys = self._keys(leaf, lot, seats, stock=bool(request.ahead))
        granted = self._shelf.parcel(lot, leases, leaf.peer.speaker, nonce, keys, sent=sent)
        if leaf.below is not None and lot.avoid:
            pairs = ((lease, each) for lease in leases for each in lot.avoid.get(lease, ()))
            avoid = tuple(pair for pair in pairs if pair[1] in leaf.below.leaves)
            granted = msgspec.structs.replace(granted, avoid=avoid)
        self.say(node, granted, out)
        return True

    @staticmethod
    def _keys(leaf: Leaf, lot: Lot, seats: list[Seat], *, stock: bool) -> list[NodeId]:
        """Return whose keys of a job go along: a leaf's own, or those that the bridge below was not sent.

        These are the keys of leaves with room; where it has a ``stock``, of any that may have of that.
        """
        if leaf.below is None:
            return [leaf.peer.link.peer]
        leaves = dict.fromkeys((*(seat.leaf for seat in seats), *(leaf.below.leaves if stock else ())))
        return leaf.below.new_keys(lot.grant.manifest, (each for each in leaves if each in lot.job.keys))

    def _covered(self, wants: list[tuple[NodeId, Room]]) -> bool:
        """Tell whether the master had nothing for all of that already."""
        return all(self._restock.covered(leaf, room) for leaf, room in wants)

    def lapse(self, key: Ask, out: list[Effect]) -> None:
        """A request has waited for long enough; the leaf hears when there is something."""
        self._missed = True
        self._nothing(key, out)

    def refuse(self, wide: tuple[int, int, int], out: list[Effect]) -> None:
        """The master had nothing: whoever it was asked for need not wait. ``wide``: see ``Nothing``."""
        self._wide = wide
        for key, request in list(self._open.items()):
            if self._covered(self._leaves[key[0]].wants(request)):
                self._nothing(key, out)

    def _nothing(self, key: Ask, out: list[Effect]) -> None:
        """Answer a request with Nothing; one leaf of those that are large enough may keep room for a wide task."""
        self._close(key)
        node, nonce = key
        wide = (0, 0, 0)
        if self._wide[0] and any(offered(each).holds(Room(*self._wide)) for _, each in self._leaves[node].offers()):
            wide, self._wide = self._wide, wide
        self._announcer.slept(node)
        message = msg.Nothing(nonce=nonce, owner=self._owner, counter=self._announcer.counter, wide=wide)
        self.say(node, message, out)

    def _close(self, key: Ask) -> None:
        self._needed -= _needs(self._open.pop(key))
        asks = self._asks[key[0]]
        del asks[key]
        if not asks:
            del self._asks[key[0]]
        self._deadlines.cancel(("hold", self._master, key))

    # -- announcing -----------------------------------------------------------------------------------------------------

    def grew(self) -> None:
        """There may be something for leaves for which there was nothing before."""
        self._grew = True

    def answered(self) -> None:
        """The master has answered: whom it was not asked for may ask again."""
        self._grew = self._grew or self._missed
        self._missed = False

    def settle(self, now: Mono, out: list[Effect]) -> None:
        """End a turn: wake leaves if there is something for them."""
        owners = (self._owner,) if self._restock.offers or len(self._shelf) else ()
        self._hear(self._announcer.update(owners, len(self._shelf), now, grew=self._grew), out)
        self._grew = False
        wave_at = self._announcer.deadline
        if wave_at is None:
            self._deadlines.cancel(("wave", self._master))
        else:
            self._deadlines.set(("wave", self._master), wave_at)

    def end(self) -> None:
        """The master is gone: nothing is due any more."""
        for key in self._open:
            self._deadlines.cancel(("hold", self._master, key))

    def check(self) -> None:
        """Assert that every request that waits is one of a leaf, counted, and will be answered."""
        self._announcer.check()
        assert {key for asks in self._asks.values() for key in asks} == self._open.keys(), "the index by leaf is wrong"
        assert all(self._asks.values()), "a leaf that asks for nothing is remembered"
        assert self._needed == sum(map(_needs, self._open.values())), "what is needed is not what was asked for"
        for key in self._open:
            assert key[0] in self._leaves, "a request of nobody"
            assert ("hold", self._master, key) in self._deadlines, "a request that is never answered"


def _within(asked: msg.Request | msg.Place, profile: Profile | None) -> Room:
    """Return the room that is asked with, no more than is offered."""
    most = Room() if profile is None else offered(profile)
    return Room(min(asked.cpus, most.cpus), min(asked.memory_mb, most.memory_mb), min(asked.gpus, most.gpus))


def _needs(request: msg.Request) -> int:
    """Return how many attempts a request has room for at most."""
    return min(request.cpus, request.tasks_max)
