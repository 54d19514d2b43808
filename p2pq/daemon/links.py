"""Links to peers: who is let in, who is dialled, which of two links to one peer stays.

All of it ends in events for the core: LinkUp, LinkDown, DialFailed, Received. A responder's first record is a Ping; the
initiator takes the link for established when that has come, for until then it may still be refused.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Final, get_args

import aiohttp
from aiohttp import web

from p2pq.core import reaching
from p2pq.core.events import DialFailed, Event, LinkDown, Received
from p2pq.daemon import gate, link, netinfo
from p2pq.daemon.arbiter import Arbiter
from p2pq.daemon.dialing import (
    NOWHERE,
    OTHER_NODE,
    UPGRADE_REQUIRED,
    WS_MESSAGE_MAX,
    Elsewhere,
    dial_reason,
    keys_for,
    make_session,
    open_stream,
)
from p2pq.daemon.gate import Gate, GateLimits
from p2pq.daemon.identity import NodeKeys
from p2pq.daemon.link import Link, LinkLimits, Stream
from p2pq.daemon.refusals import AlreadyLinked, GaveUp, OtherNode, Refusals
from p2pq.daemon.relays import Relays
from p2pq.daemon.renewal import Renewals
from p2pq.errors import LinkError
from p2pq.model.ids import NodeId, Wall, short
from p2pq.model.notice import Notice
from p2pq.wire import messages as msg
from p2pq.wire import session, trust
from p2pq.wire.session import HandshakeRefused, PeerInfo

LINK_PATH: Final = "/p2pq/1/link"
RENEW_CHECK_S: Final = 3600.0
FALL_BACK_S: Final = 0.5
"""Between two mesh keys tried at one address: as often as the gate there lets one address in (``GateLimits``)."""

_CORE: Final = frozenset(get_args(msg.CoreMessage))


class Links:
    """All links of a node. Built inside the running loop; ``start`` opens the door."""

    def __init__(  # noqa: PLR0913  each is a different fact
        self,
        keys: NodeKeys,
        group: asyncio.TaskGroup,
        *,
        post: Callable[[Event], None],
        service: Callable[[NodeId, msg.ServiceMessage], None],
        notice: Callable[[Notice], None],
        wall: Callable[[], Wall],
        is_banned: trust.IsBanned = trust.nobody,
        psks: Callable[[], tuple[bytes, ...]] = tuple,
        on_duplicate_key: Callable[[str], None] = lambda _: None,
        listen: str = "0.0.0.0:0",
        links_max: int = 64,
        software: str = "",
        limits: LinkLimits | None = None,
        gate_limits: GateLimits | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        bridging: bool = False,
        path: Callable[[NodeId, NodeId], tuple[NodeId, ...]] = lambda bridge, _: (bridge,),
        elsewhere: Elsewhere = NOWHERE,
    ) -> None:
        """Prepare everything; nothing is opened yet.

        Args:
            keys: who this node is.
            group: owns the tasks of all links.
            post: takes events for the core.
            service: takes messages that a daemon service answers (all but pings, renewals and relays).
            notice: takes facts for people: PeerRefused, at most one per second for one peer and reason.
            wall: reads the clock.
            is_banned: whether a node is out, as far as the core knows.
            psks: the mesh keys that the core knows, newest first.
            on_duplicate_key: told a sentence when another node uses this node's key.
            listen: HOST:PORT; port 0 takes 9476 if it is free, else any.
            links_max: peers at most.
            software: name and version, told to members.
            limits: of each link.
            gate_limits: of the door.
            entropy: fresh random bytes.
            bridging: carry links between peers.
            path: the bridges of a link that one carries to a node, the nearest first.
            elsewhere: what this node has to do with other meshes.
        """
        self._keys, self._group, self._post, self._service = keys, group, post, service
        self._wall, self._is_banned, self._psks = wall, is_banned, psks
        self._listen, self._software = listen, software
        self._limits = limits or LinkLimits()
        self._entropy = entropy
        self._loop = asyncio.get_running_loop()
        self._refusals = Refusals(notice, on_duplicate_key, self._loop.time)
        self._gate = Gate(gate_limits or GateLimits(), refused=self._refusals.add, known=self._is_linked_ip)
        self._app = web.Application(middlewares=[gate.no_browsers, self._admit_members], client_max_size=4096)
        self._app.router.add_get("/p2pq/{version}/link", self._answer)
        self._runner = gate.runner(self._app, self._limits.close_s)
        self._links: dict[NodeId, Link] = {}
        self._arbiter = Arbiter(keys.node, links_max)
        talk = (self._links.values, self.send)
        self._renewals = Renewals(keys, wall, is_banned, self._loop.time, *talk, bridging=bridging)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._closing = False
        self.http = make_session(self._limits.handshake_s)
        """For services that fetch from peers over plain HTTP."""
        self.counters = self._refusals.counters
        """What was refused or lost, by reason."""
        self.addresses: tuple[str, ...] = ()
        """Where this node says that it listens; set anew when interfaces change."""
        self._path, self._elsewhere = path, elsewhere
        close_s, ends = self._limits.close_s, (keys.node, self, self._respond, entropy, elsewhere.carries)
        self.relays = Relays(*ends, close_s=close_s, bridging=bridging)
        """What bridges carry for this node, and it for others."""
        self._app.router.add_routes([self.relays.route()])

    # -- the door ---------------------------------------------------------------------------------------------------------

    def add_routes(self, routes: Iterable[web.AbstractRouteDef]) -> None:
        """Add HTTP routes of a service for peers. Call before ``start``; handlers call ``admit`` once they trust a request."""
        self._app.router.add_routes(routes)

    async def start(self) -> None:
        """Open the door.

        Raises:
            ConfigError: the port is in use, or ``listen`` is not an address of this machine.
        """
        self._listener = gate.bind(self._listen)
        self.addresses = netinfo.listening(gate.parse_listen(self._listen)[0], self.port)
        await self._runner.setup()
        server = self._runner.server
        if server is None:
            raise LinkError("the peer server did not start")
        self.spawn(self._gate.serve(self._listener, server), "gate")
        self.spawn(self._look_after(), "links")

    async def close(self, reason: str = link.LEAVING) -> None:
        """Say BYE to everyone and close the door. Takes at most a second or two."""
        self._closing = True
        running = list(self._tasks)
        for peer in list(self._links):
            self.hangup(peer, reason)
        ending = [task for task in running if task.get_name().startswith("link ")]
        if ending:
            await asyncio.wait(ending, timeout=2 * self._limits.close_s)
        self._gate.close()
        for task in running:
            task.cancel()
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()
        await self.http.close()

    @property
    def port(self) -> int:
        """The port that peers dial."""
        if self._listener is None:
            raise LinkError("not listening yet")
        return int(self._listener.getsockname()[1])

    def admit(self, request: web.BaseRequest) -> None:
        """Tell the gate that this connection has proved its right to be here (a ticket, a join code)."""
        self._gate.admit(request.transport)

    # -- what the driver and the services use -----------------------------------------------------------------------------

    def send(self, peer: NodeId, message: msg.Message) -> None:
        """Say something to a linked peer, as ``Link.send`` does; nothing where there is no link (the core hears LinkDown)."""
        if found := self._links.get(peer):
            found.send(message)
            if found.reason and not found.open:
                self._down(found)

    def dial(self, address: str, node: NodeId | None = None) -> None:
        """Try to link to whoever listens there; ends in LinkUp or DialFailed."""
        if not self._closing:
            self.spawn(self._dial(address, node), "link dial")

    def hangup(self, peer: NodeId, reason: str) -> None:
        """End a link politely."""
        if found := self._links.get(peer):
            found.close(reason)
            self._down(found)

    def peers(self) -> tuple[NodeId, ...]:
        """All linked peers."""
        return tuple(self._links)

    def info(self, peer: NodeId) -> PeerInfo | None:
        """Who that is, if linked."""
        return self._links[peer].info if peer in self._links else None

    def rtt(self, peer: NodeId) -> float | None:
        """Seconds of the last round trip, if linked and measured."""
        return self._links[peer].rtt if peer in self._links else None

    def link_dialled(self, peer: NodeId) -> bool:
        """Whether this node dialled that link: then it is this node that can reach the peer by HTTP."""
        return self._links[peer].dialled if peer in self._links else False

    def link_path(self, peer: NodeId) -> tuple[NodeId, ...]:
        """The bridges that carry that link, the nearest first; none where it is direct, or where there is none."""
        return self._links[peer].path if peer in self._links else ()

    def address(self, peer: NodeId) -> str:
        """Where that link was dialled, or where the peer says that it listens; empty if not known."""
        return self._links[peer].address if peer in self._links else ""

    def remote_ip(self, peer: NodeId) -> str:
        """The IP address at the other end; empty if not linked."""
        return self._links[peer].remote_ip if peer in self._links else ""

    def pending(self, peer: NodeId) -> int:
        """Bytes that wait to be sent to that peer; senders of bulk (logs) hold back above some MiB."""
        return self._links[peer].pending_bytes if peer in self._links else 0

    @web.middleware
    async def _admit_members(self, request: web.Request, handler: gate.Handler) -> web.StreamResponse:
        """Give requests from where a member is linked the time they need; each route checks its ticket itself."""
        if self._is_linked_ip(netinfo.plain_ip(request.remote or "")):
            self._gate.admit(request.transport)
        return await handler(request)

    # -- being dialled ----------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["version"] != "1":
            return web.Response(status=UPGRADE_REQUIRED, text="p2pq/1\n")
        stream = web.WebSocketResponse(
            compress=False,
            autoping=False,
            timeout=self._limits.close_s,
            max_msg_size=WS_MESSAGE_MAX,
            writer_limit=256 << 10,
        )
        if (no_stream := await gate.upgrade(stream, request)) is not None:
            return no_stream
        ip = netinfo.plain_ip(request.remote or "")
        await self._respond(stream, (), None, ip, request.transport)
        return stream

    async def _respond(
        self,
        stream: Stream,
        path: tuple[NodeId, ...],
        node: NodeId | None,
        ip: str = "",
        transport: asyncio.Transport | None = None,
    ) -> None:
        """Shake hands with who dialled, and carry the link; with nobody else than ``node`` where one is named."""
        responder = session.Responder(self._local(), self._mesh(), self._entropy, self._elsewhere.foreign())
        source = f"bridge {short(path[0])}" if path else ip
        try:
            # The gate's own clock has stopped where a member is linked from this address.
            async with asyncio.timeout(self._limits.handshake_s):
                accepted = await self._receive_hello(stream, responder, ip, path, node)
        except TimeoutError:
            self._refusals.add(source, gate.TOO_SLOW)
            link.cut(stream)
            return
        except GaveUp as left:
            self.counters[left.reason] += 1
            link.cut(stream)
            return
        except HandshakeRefused as refusal:
            self._refusals.add(source, refusal.reason, responder.peer.node if responder.peer else None)
            for record in refusal.farewell:
                await link.try_send(stream, record)
            if refusal.farewell:
                await stream.close()
            else:
                link.cut(stream)  # nothing to say, nothing to wait for
            return
        self._gate.admit(transport)
        self._establish(accepted)
        accepted.send(msg.Ping(number=0))
        task = asyncio.current_task()
        if task is not None:
            task.set_name("link accepted")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self._carry(accepted)

    async def _receive_hello(
        self, stream: Stream, responder: session.Responder, ip: str, path: tuple[NodeId, ...], node: NodeId | None
    ) -> Link:
        await link.try_send(stream, responder.receive(await link.handshake_message(stream, responder), self._wall()))
        try:
            last = await link.handshake_message(stream, responder)
        except HandshakeRefused as refusal:
            raise GaveUp(refusal.reason, str(refusal)) from refusal
        responder.receive(last, self._wall())
        info, channel = responder.peer, responder.channel
        if info is None or channel is None:
            raise responder.closed()
        address = netinfo.dialable(info.addresses, ip)
        found = (stream, channel, info)
        accepted = Link(*found, dialled=False, address=address, remote_ip=ip, limits=self._limits, path=path)
        existing, now = self._links.get(info.node), self._loop.time()
        reason = self._arbiter.why_not(info, existing, len(self._links), now, direct=not path)
        if self._closing or node not in (None, info.node):
            reason = link.LEAVING if self._closing else OTHER_NODE
        if reason is not None:
            raise HandshakeRefused(reason, reason, accepted.last_words(reason))
        return accepted

    # -- dialling ---------------------------------------------------------------------------------------------------------

    async def _dial(self, address: str, node: NodeId | None) -> None:
        said = False
        async with AsyncExitStack() as until_it_ends:
            try:
                dialled, first = await self._connect(address, node, until_it_ends)
            except HandshakeRefused as refusal:
                reason, said = refusal.reason, isinstance(refusal, link.SaidByPeer)
                node = refusal.node if isinstance(refusal, AlreadyLinked) else node
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                reason = dial_reason(error)
            else:
                self._establish(dialled)
                dialled.ping()
                for message in first:
                    self._deliver(dialled, message)
                await self._carry(dialled)
                return
        self.counters[reason] += 1
        if reason == session.DUPLICATE_KEY:
            self._refusals.duplicate(f"{address} is linked to another node that" if said else address)
        self._post(DialFailed(address=address, reason=reason, node=node))

    async def _connect(
        self, address: str, node: NodeId | None, until_it_ends: AsyncExitStack
    ) -> tuple[Link, list[msg.Message]]:
        """Dial with each key that may be right there, until one is."""
        node = reaching.parse_via(address)[1] if reaching.is_via(address) else node
        mesh_of = None if node is None else self._elsewhere.mesh_of(node)
        *keys, last = keys_for(self._mesh(), self._elsewhere.foreign(), mesh_of)
        for mesh in keys:
            try:
                return await self._connect_by(address, mesh, until_it_ends)
            except HandshakeRefused as refusal:
                if refusal.reason != session.REFUSED_EARLY:
                    raise
            await asyncio.sleep(FALL_BACK_S)
        return await self._connect_by(address, last, until_it_ends)

    async def _connect_by(
        self, address: str, mesh: session.Mesh, until_it_ends: AsyncExitStack
    ) -> tuple[Link, list[msg.Message]]:
        """Dial, shake hands, and wait for the responder's first record."""
        if reaching.is_via(address):
            bridge, node = reaching.parse_via(address)
            async with AsyncExitStack() as attempt:
                relayed = await attempt.enter_async_context(self.relays.open(bridge, node))
                async with asyncio.timeout(self._limits.handshake_s):
                    found = await self._introduce(relayed, address, mesh, self._path(bridge, node), node)
                until_it_ends.push_async_exit(attempt.pop_all())
                return found
        async with asyncio.timeout(self._limits.handshake_s):
            stream = await open_stream(self.http, address, LINK_PATH, self._limits.close_s)
            try:
                return await self._introduce(stream, address, mesh, ())
            except BaseException:
                link.cut(stream)
                await stream.close()
                raise

    async def _introduce(
        self, stream: Stream, address: str, mesh: session.Mesh, path: tuple[NodeId, ...], node: NodeId | None = None
    ) -> tuple[Link, list[msg.Message]]:
        initiator = session.Initiator(self._local(), mesh, self._entropy)
        await stream.send_bytes(initiator.start())
        answer = initiator.receive(await link.handshake_message(stream, initiator), self._wall())
        info, channel = initiator.peer, initiator.channel
        if info is None or channel is None:
            raise initiator.closed()
        if node not in (None, info.node):
            raise OtherNode
        if not self._arbiter.may_finish(info, self._links.get(info.node), direct=not path):
            raise AlreadyLinked(info.node)
        self._arbiter.dialling.add(info.node)
        try:
            await stream.send_bytes(answer)
            ip = "" if path else netinfo.plain_ip(str((stream.get_extra_info("peername") or ("",))[0]))
            found = (stream, channel, info)
            dialled = Link(*found, dialled=True, address=address, remote_ip=ip, limits=self._limits, path=path)
            return dialled, dialled.first(await link.handshake_message(stream, initiator))
        finally:
            self._arbiter.dialling.discard(info.node)

    # -- links ------------------------------------------------------------------------------------------------------------

    def _establish(self, new: Link) -> None:
        if old := self._links.get(new.peer):
            old.close(link.REPLACED)
            self._down(old)
        self._links[new.peer] = new
        self._arbiter.began(new.info)
        self._post(new.event(netinfo.hints(new.info.addresses, new.remote_ip)))
        self._renewals.ask(new)

    async def _carry(self, carried: Link) -> None:
        try:
            await carried.run(lambda message: self._deliver(carried, message))
        finally:
            self._down(carried)

    def _down(self, ended: Link) -> None:
        """Tell, once, that a link is gone."""
        if self._links.get(ended.peer) is not ended:
            return
        del self._links[ended.peer]
        word = ended.reason or link.CUT
        reason = f"{link.BYE}: {ended.farewell}" if ended.farewell else word
        self.counters[word] += 1
        self._post(LinkDown(peer=ended.peer, reason=reason))

    def _deliver(self, heard: Link, message: msg.Message) -> None:
        if isinstance(message, msg.Peers) and not heard.info.mesh:
            message = msg.Peers(addresses=netinfo.worth_a_try(message.addresses, heard.remote_ip))
        if type(message) in _CORE:
            self._post(Received(peer=heard.peer, message=message))  # type: ignore[arg-type]  # checked by type
            return
        match message:
            case msg.Ping():
                heard.send(msg.Pong(number=message.number, wall=self._wall()))
            case msg.Pong():
                if message.number == heard.ping_number:
                    heard.rtt = self._loop.time() - heard.pinged_at
            case msg.RenewWant():
                self.refuse(heard.peer, self._renewals.answer(heard, message))
            case msg.Renewed():
                self.refuse(heard.peer, self._renewals.take(heard, message))
            case msg.RelayWant() | msg.RelayOffer() | msg.RelayRefused():
                self.relays.handle(heard.peer, message)
            case _:
                self._service(heard.peer, message)  # type: ignore[arg-type]  # all that is left

    def woke(self) -> None:
        """This node slept: find out which links still stand."""
        for each in self._links.values():
            each.woke()

    async def _look_after(self) -> None:
        """Ping, and end links that bring or take nothing."""
        asked = self._loop.time()
        while True:
            await asyncio.sleep(self._limits.keep_s)
            now = self._loop.time()
            for each in list(self._links.values()):
                limits = each.limits
                if each.writing_since is not None and now - each.writing_since > limits.write_s:
                    self._abort(each, link.SLOW)
                elif now - each.heard_at > limits.silence_s:
                    self._abort(each, link.SILENT)
                elif now - each.pinged_at >= limits.ping_s:
                    each.ping()
            if now - asked > RENEW_CHECK_S:
                asked = now
                self._renewals.tick()

    def _abort(self, ended: Link, reason: str) -> None:
        ended.abort(reason)
        self._down(ended)

    # -- small things -----------------------------------------------------------------------------------------------------

    def _local(self) -> session.Local:
        return self._keys.local(self.addresses, self._software)

    def _mesh(self) -> session.Mesh:
        return self._keys.known_mesh(self._is_banned, self._psks())

    def _is_linked_ip(self, ip: str) -> bool:
        return any(each.remote_ip == ip for each in self._links.values())

    def refuse(self, peer: NodeId, reason: str | None) -> None:
        """Count, and tell of, what a peer must not say; nothing where there is no reason."""
        if reason is not None:
            self._refusals.add(self.remote_ip(peer), reason, peer)

    def spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run something for as long as the links are open."""
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
