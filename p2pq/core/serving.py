"""The leaves below a bridge that work for one master, and the answers to their requests: out of the stock, or Nothing."""

from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from p2pq.core.announcer import Announcer
from p2pq.core.batching import Batch
from p2pq.core.deadlines import Deadlines
from p2pq.core.effects import Drop, Effect, Send
from p2pq.core.events import LinkUp
from p2pq.core.restock import Restock, Want
from p2pq.core.shelf import Shelf
from p2pq.core.slots import Room, offered
from p2pq.core.tenants import Placed, Tenants
from p2pq.model.ids import JobId, Mono, NodeId
from p2pq.model.job import Profile
from p2pq.wire import messages as msg

HOLD_S: Final = 1.0
"""A leaf's request that cannot be served is kept open for so long, less than it takes to lapse."""
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
    """A linked node."""

    link: LinkUp
    card: bytes = b""
    """Its keycard, if it has said it."""


class Leaf(msgspec.Struct):
    """A worker that works for the master through this bridge."""

    peer: Peer
    profile: Profile | None = None
    sent: dict[bytes, None] = msgspec.field(default_factory=dict)
    """Manifests that it was sent, by digest, the least recently used first."""

    def introduction(self) -> msg.Leaf | None:
        """Return what the master is told of it; None as long as it has not said enough."""
        if self.profile is None or not self.peer.card or not self.peer.link.certs:
            return None
        return msg.Leaf(certs=self.peer.link.certs, card=self.peer.card, profile=self.profile)

    def sends(self, digest: bytes) -> bool:
        """Count a manifest as sent to it; return whether it has it already."""
        had = digest in self.sent
        self.sent.pop(digest, None)
        self.sent[digest] = None
        if len(self.sent) > SENT_MAX:
            del self.sent[next(iter(self.sent))]
        return had

    def room(self, request: msg.Request) -> Room:
        """Return the room that it asks with, never more than it offers."""
        most = Room() if self.profile is None else offered(self.profile)
        return Room(min(request.cpus, most.cpus), min(request.memory_mb, most.memory_mb), min(request.gpus, most.gpus))


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
    ) -> None:
        """Know of no leaf. ``me`` is this bridge."""
        self._master, self._owner = master.peer, master.owner
        self._shelf, self._restock, self._tenants, self._batch = shelf, restock, tenants, batch
        self._deadlines = deadlines
        self._announcer = Announcer(me)
        self._leaves: dict[NodeId, Leaf] = {}
        self._open: dict[Ask, msg.Request] = {}
        """Requests that wait for an answer, in the order in which they came."""
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
            yield node, self._leaves[node].room(request), request

    # -- leaves ---------------------------------------------------------------------------------------------------------

    def join(self, peer: Peer) -> Leaf | None:
        """Return the leaf that this worker is from its first word to the master on; None if there are too many."""
        node = peer.link.peer
        leaf = self._leaves.get(node)
        if leaf is None and len(self._leaves) < LEAVES_TOTAL_MAX:
            leaf = self._leaves[node] = Leaf(peer)
            self._announcer.join(node)
        return leaf

    def leave(self, node: NodeId) -> bool:
        """A worker takes part no more; return whether it did. It may come back as another life, with other keys."""
        if self._leaves.pop(node, None) is None:
            return False
        self._announcer.leave(node)
        self._restock.forget(node)
        self._shelf.unkey(node)
        for key in [key for key in self._open if key[0] == node]:
            self._close(key)
        return True

    def wake(self, node: NodeId, out: list[Effect]) -> None:
        """A leaf can do other things than before: it is told of work, and what the master had nothing for is asked anew."""
        self._restock.forget(node)
        self._hear(self._announcer.wake(node), out)

    def say(self, node: NodeId, message: msg.Passed, out: list[Effect]) -> None:
        """Say something to a leaf, if it is still there, as the master's word."""
        if node in self._leaves:
            out.append(Send(peer=node, message=msg.Through(node=self._master, message=message)))

    def _hear(self, told: list[tuple[NodeId, msg.HasWork]], out: list[Effect]) -> None:
        for node, message in told:
            self.say(node, message, out)

    # -- requests -------------------------------------------------------------------------------------------------------

    def request(self, node: NodeId, request: msg.Request, now: Mono, out: list[Effect]) -> None:
        """Serve a leaf, or let it wait, or tell it that there is nothing."""
        key, leaf = (node, request.nonce), self._leaves[node]
        if key in self._open or request.owner != self._owner:
            reason = "repeated request" if key in self._open else "request for another owner"
            out.append(Drop(peer=node, reason=reason))
            return
        mine = [each for each in self._open if each[0] == node]
        if len(mine) >= OPEN_MAX:
            self._nothing(mine[0], out)
        if self._serve(key, request, len(self._shelf) - self._needed, now, out):
            return
        self._open[key] = request
        self._needed += _needs(request)
        room = leaf.room(request)
        hope = self._restock.offers and leaf.introduction() is not None and not self._restock.covered(node, room)
        if hope and (room.cpus or request.ahead):
            self._deadlines.set(("hold", self._master, key), Mono(now + HOLD_S))
        else:
            self._nothing(key, out)

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
        taken = None if leaf.profile is None else self._shelf.take(node, leaf.profile, request, spare)
        if taken is None:
            return False
        lot, leases = taken
        job = JobId(lot.grant.job)
        for lease in leases:
            self._tenants.add(Placed(lease, node, job, now, now))
            self._batch.placed[lease] = node
        self._restock.placed(job, len(leases), now)
        sent = leaf.sends(lot.grant.manifest)
        self.say(node, self._shelf.parcel(lot, leases, node, nonce, sent=sent), out)
        return True

    def lapse(self, key: Ask, out: list[Effect]) -> None:
        """A request has waited for long enough; the leaf hears when there is something."""
        self._missed = True
        self._nothing(key, out)

    def refuse(self, wide: tuple[int, int, int], out: list[Effect]) -> None:
        """The master had nothing: whoever it was asked for need not wait. ``wide``: see ``Nothing``."""
        self._wide = wide
        for key, request in list(self._open.items()):
            if self._restock.covered(key[0], self._leaves[key[0]].room(request)):
                self._nothing(key, out)

    def _nothing(self, key: Ask, out: list[Effect]) -> None:
        """Answer a request with Nothing; one leaf of those that are large enough may keep room for a wide task."""
        self._close(key)
        node, nonce = key
        profile, wide = self._leaves[node].profile, (0, 0, 0)
        if self._wide[0] and profile is not None and offered(profile).holds(Room(*self._wide)):
            wide, self._wide = self._wide, wide
        self._announcer.slept(node)
        message = msg.Nothing(nonce=nonce, owner=self._owner, counter=self._announcer.counter, wide=wide)
        self.say(node, message, out)

    def _close(self, key: Ask) -> None:
        self._needed -= _needs(self._open.pop(key))
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
        assert self._needed == sum(map(_needs, self._open.values())), "what is needed is not what was asked for"
        for key in self._open:
            assert key[0] in self._leaves, "a request of nobody"
            assert ("hold", self._master, key) in self._deadlines, "a request that is never answered"


def _needs(request: msg.Request) -> int:
    """Return how many attempts a request has room for at most."""
    return min(request.cpus, request.tasks_max)
