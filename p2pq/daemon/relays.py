"""Links that bridges carry: a stream to a node that cannot be dialled, through one that is linked to both.

A bridge joins two WebSockets and passes on what comes, record by record, without being able to open it: the handshake is
between the two ends, and fails where a bridge meddles. Each WebSocket is opened by whoever dialled the link beside it, for
that side can reach the other one, and is known by a ticket of 32 random bytes that went over that link. Where the bridge's
own link to the wanted node is carried by another bridge, it asks that one in turn.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import web

from p2pq.daemon import gate, link, netinfo
from p2pq.daemon.dialing import WS_MESSAGE_MAX, NoWay, dial_reason, open_stream
from p2pq.daemon.link import Stream
from p2pq.model.ids import NodeId
from p2pq.wire.messages import HOPS_MAX, SINCE, Message, RelayOffer, RelayRefused, RelayWant
from p2pq.wire.session import PeerInfo

PATH: Final = "/p2pq/1/relay/"
MEET_S: Final = 10.0
"""Within this time both ends must have come to the bridge."""
RELAYS_MAX: Final = 1024
"""Links that a bridge carries at once."""
PER_PEER_MAX: Final = 256
"""Of these, asked for by one peer."""
OFFERS_MAX: Final = 64
"""Streams that one bridge offers to this node and that are not open yet."""
TICKET_BYTES: Final = 32

# Reasons of RelayRefused.
NO_BRIDGE: Final = "no-bridge"
NOT_LINKED: Final = "not-linked"
BUSY: Final = "busy"
LOOP: Final = "loop"
TOO_FAR: Final = "too-far"
NOT_MET: Final = "not-met"
_REASONS: Final = (NO_BRIDGE, NOT_LINKED, BUSY, LOOP, TOO_FAR, NOT_MET)

RelayMessage = RelayWant | RelayOffer | RelayRefused


class Neighbours(Protocol):
    """What is needed of the links."""

    http: aiohttp.ClientSession
    counters: Counter[str]
    """What was refused, by reason; the bytes carried are counted there, too."""

    def spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run something for as long as the links are open."""

    def send(self, peer: NodeId, message: Message) -> None:
        """Say something to a linked peer."""

    def info(self, peer: NodeId) -> PeerInfo | None:
        """Who that is, if linked."""

    def refuse(self, peer: NodeId, reason: str | None) -> None:
        """Count, and tell of, what a peer must not say."""

    def link_path(self, peer: NodeId) -> tuple[NodeId, ...]:
        """The bridges that carry the link to that peer."""

    def link_dialled(self, peer: NodeId) -> bool:
        """Whether this node dialled that link."""

    def address(self, peer: NodeId) -> str:
        """Where it was dialled."""

    def remote_ip(self, peer: NodeId) -> str:
        """The address at its other end."""


class _Came:
    """A WebSocket that was opened to us. Its request lasts until ``close``."""

    def __init__(self, stream: web.WebSocketResponse) -> None:
        self._stream = stream
        self.closed = asyncio.Event()

    async def send_bytes(self, data: bytes) -> None:
        await self._stream.send_bytes(data)

    async def receive(self) -> aiohttp.WSMessage:
        return await self._stream.receive()

    async def close(self) -> bool:
        try:
            return await self._stream.close()
        finally:
            self.closed.set()

    def get_extra_info(self, name: str, default: object = None) -> Any:  # noqa: ANN401  as asyncio has it
        return self._stream.get_extra_info(name, default)


class _Asked:
    """A stream that a bridge was asked for: its time is over at once when the bridge refuses."""

    clock: asyncio.Timeout | None = None
    refused = ""


class Relays:
    """Streams through bridges; and, if this node is one, the streams that it joins."""

    def __init__(  # noqa: PLR0913  each is a different fact
        self,
        me: NodeId,
        neighbours: Neighbours,
        respond: Callable[[Stream, tuple[NodeId, ...], NodeId], Awaitable[None]],
        entropy: Callable[[int], bytes],
        carries: Callable[[bytes], bool] = lambda _: False,
        *,
        close_s: float,
        bridging: bool,
    ) -> None:
        """Carry nothing yet.

        Args:
            me: this node.
            neighbours: the links.
            respond: shakes hands with whoever dialled over these bridges (the nearest first), who must be this node, and
                carries the link.
            entropy: makes tickets.
            carries: whether this node joins streams between its own mesh and another one.
            close_s: time for a closing handshake.
            bridging: whether it joins streams for others at all.
        """
        self._me, self._neighbours, self._respond, self._entropy = me, neighbours, respond, entropy
        self._close_s = close_s
        self._bridging, self._carries = bridging, carries
        self._req = 0
        self._asked: dict[tuple[NodeId, int], _Asked] = {}
        self._expected: dict[bytes, tuple[NodeId, asyncio.Future[_Came]]] = {}
        self._carried: Counter[NodeId] = Counter()
        self._offered: Counter[NodeId] = Counter()

    def route(self) -> web.RouteDef:
        """Return the route for the server that peers reach."""
        return web.get(PATH + "{ticket:[0-9a-f]{64}}", self._on_come, allow_head=False)

    @property
    def carried(self) -> int:
        """How many links this node carries now."""
        return self._carried.total()

    # -- at the ends --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, bridge: NodeId, node: NodeId) -> AsyncIterator[Stream]:
        """Ask a bridge for a stream to a node; it is closed at the end.

        Raises:
            NoWay: the bridge does not carry it.
            aiohttp.ClientError, OSError, TimeoutError: it could not be had.
        """
        async with self._ask(bridge, node, self._me, ()) as stream:
            yield stream

    async def _be_met(self, bridge: NodeId, offer: RelayOffer) -> None:
        """Take up the stream that a bridge offers, and answer whoever is at its other end."""
        try:
            async with asyncio.timeout(MEET_S):
                stream = await self._meet(bridge, offer.ticket)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._neighbours.counters[dial_reason(error)] += 1
            return
        finally:
            _less(self._offered, bridge)
        try:
            await self._respond(stream, tuple(map(NodeId, reversed(offer.path))), NodeId(offer.origin))
        finally:
            await _end(stream)

    @asynccontextmanager
    async def _ask(
        self, bridge: NodeId, node: NodeId, origin: NodeId, path: tuple[bytes, ...]
    ) -> AsyncIterator[Stream]:
        info = self._neighbours.info(bridge)
        if info is None or self._neighbours.link_path(bridge) or info.minor < SINCE[RelayWant]:
            raise NoWay(NOT_LINKED)
        if "bridge" not in info.caps:
            raise NoWay(NO_BRIDGE)
        self._req = req = self._req + 1
        ticket = self._entropy(TICKET_BYTES)
        asked = self._asked[bridge, req] = _Asked()
        dialled = self._neighbours.link_dialled(bridge)
        self._say(bridge, RelayWant(req=req, to=node, origin=origin, ticket=ticket, path=path))
        try:
            async with asyncio.timeout(MEET_S) as asked.clock:
                stream = await self._meet(bridge, ticket, patient=dialled)
        except TimeoutError:
            if asked.refused:
                raise NoWay(asked.refused) from None
            raise
        finally:
            del self._asked[bridge, req]
        try:
            yield stream
        finally:
            await _end(stream)

    async def _meet(self, peer: NodeId, ticket: bytes, *, patient: bool = False) -> Stream:
        """Open the WebSocket with that ticket to a neighbour, or wait for it to do so.

        ``patient``: the neighbour may not have heard of the ticket yet; try again until it has.
        """
        if not self._neighbours.link_dialled(peer):
            return await self._wait_for(peer, ticket)
        pause_s = 0.02
        while True:
            try:
                return await open_stream(
                    self._neighbours.http, self._neighbours.address(peer), PATH + ticket.hex(), self._close_s
                )
            except aiohttp.WSServerHandshakeError as error:
                if not patient or error.status != web.HTTPNotFound.status_code:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(1.0, 2 * pause_s)

    async def _wait_for(self, peer: NodeId, ticket: bytes) -> Stream:
        if ticket in self._expected:
            raise NoWay(BUSY)  # others make tickets too, and might make one twice
        coming: asyncio.Future[_Came] = asyncio.get_running_loop().create_future()
        self._expected[ticket] = (peer, coming)
        try:
            return await coming
        except asyncio.CancelledError:
            if coming.done() and not coming.cancelled():  # it came at the very moment at which time was up
                await _end(coming.result())
            raise
        finally:
            del self._expected[ticket]

    async def _on_come(self, request: web.Request) -> web.StreamResponse:
        peer, coming = self._expected.get(bytes.fromhex(request.match_info["ticket"]), (None, None))
        ip = netinfo.plain_ip(request.remote or "")
        if peer is None or coming is None or coming.done() or self._neighbours.remote_ip(peer) != ip:
            raise web.HTTPNotFound
        stream = web.WebSocketResponse(
            compress=False, autoping=False, timeout=self._close_s, max_msg_size=WS_MESSAGE_MAX, writer_limit=256 << 10
        )
        if (no_stream := await gate.upgrade(stream, request)) is not None:
            return no_stream
        came = _Came(stream)
        if coming.done():  # another came meanwhile, or nobody waits any more
            await came.close()
            return stream
        coming.set_result(came)
        await came.closed.wait()
        return stream

    # -- as a bridge --------------------------------------------------------------------------------------------------------

    def handle(self, peer: NodeId, message: RelayMessage) -> None:
        """Take in what a neighbour says."""
        match message:
            case RelayRefused(req=req, reason=reason):
                asked = self._asked.get((peer, req))
                if asked is not None and asked.clock is not None and not asked.clock.expired():
                    asked.refused = reason if reason in _REASONS else NOT_MET
                    asked.clock.reschedule(asyncio.get_running_loop().time())
            case RelayOffer():
                if self._is_sound(peer, message) and self._offered[peer] < OFFERS_MAX:
                    self._offered[peer] += 1
                    self._neighbours.spawn(self._be_met(peer, message), "link relayed")
                else:
                    self._neighbours.refuse(peer, "relay-offer-dropped")
            case RelayWant():
                reason = self._why_not(peer, message)
                if reason:
                    self._refuse(peer, message, reason)
                else:
                    self._carried[peer] += 1
                    self._neighbours.spawn(self._carry(peer, message), "relay")

    def _is_sound(self, bridge: NodeId, offer: RelayOffer) -> bool:
        """Tell whether an offer comes from a bridge, by a link of its own, and names a way that may be."""
        info = self._neighbours.info(bridge)
        if info is None or "bridge" not in info.caps or self._neighbours.link_path(bridge):
            return False
        return offer.path[-1:] == (bridge,) and len({*offer.path, offer.origin, self._me}) == len(offer.path) + 2

    def _say(self, peer: NodeId, message: RelayMessage) -> None:
        """Say something, unless the link is gone or its peer is too old to know of it."""
        info = self._neighbours.info(peer)
        if info is not None and info.minor >= SINCE[type(message)]:
            self._neighbours.send(peer, message)

    def _refuse(self, peer: NodeId, want: RelayWant, reason: str) -> None:
        self._neighbours.counters[f"relay-{reason}"] += 1
        self._say(peer, RelayRefused(req=want.req, reason=reason))

    def _why_not(self, peer: NodeId, want: RelayWant) -> str:  # noqa: PLR0911  one return per reason
        """Return why a link is not carried; empty where it is."""
        to = NodeId(want.to)
        if not self._bridging:
            return NO_BRIDGE
        if self._me in {to, want.origin, *want.path} or to in want.path or want.origin in want.path:
            return LOOP
        if len(want.path) >= HOPS_MAX:
            return TOO_FAR
        # Who passes a wish on is on the path; who has it does not claim to be another.
        if (want.path[-1] if want.path else want.origin) != peer:
            return LOOP
        near, far = self._neighbours.info(peer), self._neighbours.info(to)
        if near is None or self._neighbours.link_path(peer):
            return NOT_LINKED
        if want.path and "bridge" not in near.caps:
            return NO_BRIDGE
        if far is None or far.minor < SINCE[RelayOffer] or to == peer or peer in self._neighbours.link_path(to):
            return NOT_LINKED
        if not self._may_meet(near, far):
            return NO_BRIDGE
        if self.carried >= RELAYS_MAX or self._carried[peer] >= PER_PEER_MAX:
            return BUSY
        return ""

    def _may_meet(self, one: PeerInfo, other: PeerInfo) -> bool:
        """Tell whether these two may be joined: nothing leads through this node from one other mesh to the next."""
        meshes = [info.mesh for info in (one, other) if info.mesh]
        return len(meshes) <= 1 and all(map(self._carries, meshes))

    async def _carry(self, peer: NodeId, want: RelayWant) -> None:
        """Bring both ends together and pass on what they say until one of them ends."""
        try:
            async with self._onward(want) as far:
                async with asyncio.timeout(MEET_S):
                    near = await self._meet(peer, want.ticket)
                try:
                    await self._join(near, far)
                finally:
                    await _end(near)
        except NoWay as no_way:
            self._refuse(peer, want, no_way.reason)
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._refuse(peer, want, NOT_MET)
        finally:
            _less(self._carried, peer)

    @asynccontextmanager
    async def _onward(self, want: RelayWant) -> AsyncIterator[Stream]:
        """Get the stream to the wanted node: from itself, or from the next bridge."""
        to, path = NodeId(want.to), (*want.path, self._me)
        if further := self._neighbours.link_path(to):
            async with self._ask(further[0], to, NodeId(want.origin), path) as stream:
                yield stream
            return
        ticket = self._entropy(TICKET_BYTES)
        self._say(to, RelayOffer(origin=want.origin, ticket=ticket, path=path))
        async with asyncio.timeout(MEET_S):
            stream = await self._meet(to, ticket, patient=True)
        try:
            yield stream
        finally:
            await _end(stream)

    async def _join(self, near: Stream, far: Stream) -> None:
        async with asyncio.TaskGroup() as group:
            ways = [group.create_task(self._pass_on(near, far)), group.create_task(self._pass_on(far, near))]
            ways[0].add_done_callback(lambda _: ways[1].cancel())
            ways[1].add_done_callback(lambda _: ways[0].cancel())

    async def _pass_on(self, source: Stream, sink: Stream) -> None:
        with suppress(ConnectionError, aiohttp.ClientError, RuntimeError):  # aiohttp's ways to say that one is closing
            while (got := await source.receive()).type is aiohttp.WSMsgType.BINARY:
                self._neighbours.counters["relay-bytes"] += len(got.data)
                # A sink that takes nothing stops its source; the ends notice by their own pings.
                await sink.send_bytes(got.data)


def _less(counter: Counter[NodeId], peer: NodeId) -> None:
    """Count one less, and nobody whose count is nothing."""
    counter[peer] -= 1
    if not counter[peer]:
        del counter[peer]


async def _end(stream: Stream) -> None:
    """Close a stream, and not wait for long."""
    with suppress(aiohttp.ClientError, OSError, RuntimeError):
        try:
            async with asyncio.timeout(1.0):
                await stream.close()
        except TimeoutError:
            link.cut(stream)
