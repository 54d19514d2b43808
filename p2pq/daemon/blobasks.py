"""Asking one linked peer for blobs, whichever side dialled: a BlobWant is answered with tickets, a BlobPush with PUTs."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pq.daemon.blobhttp import PARALLEL, BlobHttp
from p2pq.daemon.tickets import TICKET_S, Arrival, Tickets, resolve
from p2pq.model.ids import NodeId
from p2pq.wire.messages import BlobGone, BlobPush, BlobTickets, BlobWant

ANSWER_S: Final = 10.0
"""How long a peer may take to answer BlobWant."""
FAR_ANSWER_S: Final = 60.0
"""The same where that one has to get the blobs first: a bridge, or a neighbour that is getting them itself."""

BlobMessage = BlobWant | BlobTickets | BlobPush | BlobGone


@dataclass(slots=True)
class PeerLink:
    """What is under way with one linked peer."""

    dialled: bool
    host: str
    url: str
    bridge: NodeId | None = None
    """Who carries the link, if it is not direct: no HTTP to the peer itself."""
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL))
    near_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PARALLEL))
    """The same for what it is asked as a neighbour, which may take long: what only it has must not wait for that."""
    still: dict[int, Callable[[], None]] = field(default_factory=dict)
    """What to call when the peer says, of a request, that it goes on."""
    answers: "dict[int, asyncio.Future[BlobTickets | None]]" = field(default_factory=dict)
    """BlobWants of ours that wait for BlobTickets."""
    pushes: "dict[int, Pushed]" = field(default_factory=dict)
    """BlobPushes of ours, by request."""
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)
    """BlobPushes of theirs that are being served, and BlobWants of what this node gets first."""


@dataclass(slots=True)
class Pushed:
    """A BlobPush of ours that waits for PUTs."""

    blobs: dict[bytes, bytes]
    """Ticket -> blob."""
    hints: dict[bytes, int] = field(default_factory=dict)
    """Blob -> which of the neighbours that we named has it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is said with the names of the blobs; see ``BlobWant``."""

    source: bytes = b""
    near: tuple[NodeId, ...] = ()
    soon: bool = False
    still: Callable[[], None] = lambda: None
    """Called when a neighbour says that it is getting the blobs itself."""

    @property
    def patient(self) -> bool:
        """Whether the peer may have to get the blobs first."""
        return bool(self.source) or self.soon


class Asks:
    """The questions of this node. Use it from the event loop's thread only."""

    def __init__(self, http: BlobHttp, tickets: Tickets, say: Callable[[NodeId, BlobMessage], bool]) -> None:
        """Take the parts; ``say`` returns False where the link is gone."""
        self._http, self._tickets, self._say = http, tickets, say
        self._req = 0

    async def ask(self, peer: NodeId, link: PeerLink, batch: dict[bytes, int], terms: Terms) -> Sequence[int]:
        """Get blobs from a peer, as many as it has; return the hints that it gave instead of some.

        Raises:
            StorageError: they cannot be stored.
        """
        self._req = req = self._req + 1
        if terms.soon:
            link.still[req] = terms.still
        try:
            return await (self._pull if link.dialled else self._await_push)(peer, link, batch, terms)
        finally:
            link.still.pop(req, None)

    @staticmethod
    def answered(link: PeerLink, message: BlobTickets) -> None:
        """Take the answer to a BlobWant."""
        answer = link.answers.get(message.req)
        if not message.tickets and message.req in link.still:
            link.still[message.req]()
        elif answer is not None:
            resolve(answer, message)

    def gone(self, link: PeerLink, message: BlobGone) -> None:
        """Take what is said of a BlobPush: these will not come."""
        if not message.blobs and message.req in link.still:
            link.still[message.req]()
        pushed = link.pushes.get(message.req)
        if pushed is not None:
            pushed.hints.update(zip(message.blobs, message.hints, strict=False))
            self._revoke([token for token, blob in pushed.blobs.items() if blob in message.blobs])

    async def _pull(self, peer: NodeId, link: PeerLink, batch: dict[bytes, int], terms: Terms) -> Sequence[int]:
        req = self._req
        answer: asyncio.Future[BlobTickets | None] = asyncio.get_running_loop().create_future()
        link.answers[req] = answer
        want = BlobWant(
            req=req,
            blobs=tuple(batch),
            source=terms.source,
            sizes=tuple(batch.values()) if terms.source else (),
            near=terms.near,
            soon=terms.soon,
        )
        try:
            if not self._say(peer, want):
                return ()
            async with asyncio.timeout(FAR_ANSWER_S if terms.patient else ANSWER_S):
                given = await answer
        except TimeoutError:
            return ()
        finally:
            del link.answers[req]
        if given is None:
            return ()
        for (blob, size), token in zip(batch.items(), given.tickets, strict=False):
            if token:
                await self._http.get(peer, f"{link.url}{token.hex()}", (blob, size), near=terms.soon)
        return given.hints

    async def _await_push(self, peer: NodeId, link: PeerLink, batch: dict[bytes, int], terms: Terms) -> Sequence[int]:
        req = self._req
        life_s = FAR_ANSWER_S if terms.patient else TICKET_S
        pairs = [self._tickets.to_put(peer, link.host, ref, life_s, near=terms.soon) for ref in batch.items()]
        tokens = [token for token, _ in pairs]
        pushed = link.pushes[req] = Pushed(dict(zip(tokens, batch, strict=True)))
        arrivals: list[Arrival] = [arrived for _, arrived in pairs]
        stale = asyncio.get_running_loop().call_later(life_s, self._revoke, tokens)
        push = BlobPush(
            req=req,
            blobs=tuple(batch),
            tickets=tuple(tokens),
            source=terms.source,
            sizes=tuple(batch.values()) if terms.source else (),
            near=terms.near,
            soon=terms.soon,
        )
        try:
            if self._say(peer, push):
                # Every future ends: by its PUT, by BlobGone, with the link, or unused after its time.
                await asyncio.wait(arrivals)
        finally:
            stale.cancel()
            del link.pushes[req]
            for token in tokens:
                self._tickets.end(token)
        for arrived in arrivals:
            error = arrived.result()
            if error is not None:
                raise error
        return [pushed.hints.get(blob, 0) for blob in batch]

    def _revoke(self, tokens: list[bytes]) -> None:
        for token in tokens:
            self._tickets.revoke(token)
