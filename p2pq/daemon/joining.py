"""Letting others in by a short one-time code, and getting in by one.

The exchange itself is ``wire.join``; here are the invitations that are open, how often a code may be guessed, and the
connection. An invitation lives in memory: it ends with the node.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from aiohttp import web

from p2pq.core import reaching
from p2pq.daemon import link, netinfo
from p2pq.daemon.dialing import NO_ANSWER, SENTENCES, WS_MESSAGE_MAX, dial_reason, open_stream
from p2pq.daemon.gate import DEFAULT_PORT
from p2pq.daemon.identity import NO_ADMIN, ONLY_FOUNDER, NodeKeys, usable_name
from p2pq.daemon.views import rfc3339
from p2pq.errors import ConfigError, NodeUnreachableError, RefusedError, Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import join, trust
from p2pq.wire.objects import CAPABILITIES, Capability
from p2pq.wire.session import HandshakeRefused

JOIN_PATH: Final = "/p2pq/1/join"
OPEN_MAX: Final = 4
GUESSES_MAX: Final = 3
USES_MAX: Final = 1000
TTL_MAX_S: Final = 7 * 24 * 3600
EXCHANGE_S: Final = 10.0
FIND_S: Final = 5.0
DIRECTLY: Final = (
    "An inviter has to be reached directly, not over a bridge: any admin that this machine reaches may invite."
)
PEERS_MAX: Final = 64
NAME_CHARS_MAX: Final = 64

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Invitation:
    """An open invitation."""

    code: join.Code
    caps: tuple[Capability, ...]
    owner: str
    """As whom the joiner counts."""
    expires: Wall
    uses: int
    """How many may still use it."""
    admitted: dict[NodeId, tuple[bytes, ...]] = field(default_factory=dict)
    """Who got in by it, and its chain: whose answer was lost may ask again."""
    failures: int = 0
    guesses: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(GUESSES_MAX))
    """One permit for every guess that is under way; a wrong one is not given back."""
    timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        """Name the slot, not the secret."""
        return f"Invitation({self.code.slot!r}, uses={self.uses})"


class Invitations:
    """The inviter's side."""

    def __init__(  # noqa: PLR0913  each is a different fact
        self,
        keys: NodeKeys,
        *,
        wall: Callable[[], Wall],
        entropy: Callable[[int], bytes],
        admit: Callable[[web.BaseRequest], None],
        show_slot: Callable[[str], None] = lambda _: None,
        is_banned: Callable[[NodeId, str], bool] = lambda _node, _owner: False,
        names: Callable[[NodeId], frozenset[str]] = lambda _joiner: frozenset(),
        peers: Callable[[], tuple[str, ...]] = tuple,
        bans: Callable[[], tuple[bytes, ...]] = tuple,
        psks: Callable[[], tuple[bytes, ...]] = tuple,
        joined: Callable[[NodeId, str], None] = lambda _node, _name: None,
    ) -> None:
        """Prepare; nobody is invited yet.

        Args:
            keys: sign for the joiner.
            wall: reads the clock.
            entropy: fresh random bytes.
            admit: tells the gate that a connection has proved its code.
            show_slot: announces the newest open slot by mDNS; empty for none.
            is_banned: whether a node, or its owner, is out.
            names: the names of all members known but that one; a joiner of the same name gets a number behind it.
            peers: where members listen, told to the joiner.
            bans: signed bans, told to the joiner.
            psks: the mesh keys, newest first, told to the joiner; none: those that came with this node's membership.
            joined: told who got in, by node id and name.
        """
        self._keys, self._wall, self._entropy, self._admit = keys, wall, entropy, admit
        self._show_slot, self._is_banned, self._names = show_slot, is_banned, names
        self._peers, self._bans, self._psks, self._joined = peers, bans, psks, joined
        self._loop = asyncio.get_running_loop()
        self._open: list[Invitation] = []
        self._given: dict[str, NodeId] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return the route for ``Links.add_routes``."""
        return [web.get(JOIN_PATH, self._serve, allow_head=False)]

    def invite(self, caps: tuple[str, ...], owner: str = "", ttl_s: int = 600, uses: int = 1) -> Invitation:
        """Open an invitation; its code is ``code.text``.

        Args:
            caps: what the joiner may do at most.
            owner: as whom it counts; empty: as this node's owner.
            ttl_s: how long the code is good.
            uses: for how many machines.

        Raises:
            RefusedError: this node may not invite, or not for that, or four invitations are open.
            ConfigError: a value is out of range.
        """
        if not self._keys.admin:
            raise RefusedError(NO_ADMIN)
        offered = tuple(sorted(cap for cap in CAPABILITIES if cap in caps))
        if len(offered) != len(set(caps)):
            raise ConfigError(f"--caps: choose among {', '.join(CAPABILITIES)}")
        if "admin" in offered and not self._keys.founder:
            raise RefusedError(ONLY_FOUNDER)
        if not 0 < ttl_s <= TTL_MAX_S or not 0 < uses <= USES_MAX:
            raise ConfigError(f"an invitation lasts 1 s to {TTL_MAX_S // 86400} days, for 1 to {USES_MAX} machines")
        if owner != "" and usable_name(owner) != owner:
            raise ConfigError("--owner: a name of 1 to 64 printable characters")
        if len(self._open) >= OPEN_MAX:
            ends = min(each.expires for each in self._open)
            minutes = max(1, round((ends - self._wall()) / 60_000))
            raise RefusedError(
                f"{OPEN_MAX} invitations are open, the most there can be; the next expires at {rfc3339(ends)}, in {minutes} min. "
                "Use one of them, or close them all by `p2pq stop`, then `p2pq start`"
            )
        code = join.new_code(self._entropy)
        while any(code.slot == each.code.slot for each in self._open):
            code = join.new_code(self._entropy)
        expires = Wall(self._wall() + ttl_s * 1000)
        opened = Invitation(code, offered, owner or self._keys.cert.owner, expires, uses)
        opened.timer = self._loop.call_later(ttl_s, self._end, opened)
        self._open.append(opened)
        self._show_slot(code.slot)
        return opened

    def close(self) -> None:
        """End all invitations."""
        for each in list(self._open):
            self._end(each)

    def open_invitations(self) -> tuple[Invitation, ...]:
        """Return those that can still be used."""
        return tuple(self._open)

    def _end(self, ended: Invitation) -> None:
        if ended.timer is not None:
            ended.timer.cancel()
        if ended in self._open:
            self._open.remove(ended)
            ended.guesses.release()  # whoever waits for a guess hears, one after the other, that it is over
            self._show_slot(self._open[-1].code.slot if self._open else "")

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        stream = web.WebSocketResponse(compress=False, autoping=False, timeout=1.0, max_msg_size=WS_MESSAGE_MAX)
        if not stream.can_prepare(request).ok:
            return web.Response(status=400, text="not a WebSocket\n")
        await stream.prepare(request)
        try:
            async with asyncio.timeout(EXCHANGE_S):
                await self._exchange(stream, request)
        except HandshakeRefused as refusal:
            log.info("a join from %s failed: %s", request.remote, refusal.reason)
            for record in refusal.farewell:
                await _send(stream, [record])
        except TimeoutError:
            log.info("a join from %s took too long", request.remote)
        await stream.close()
        return stream

    async def _exchange(self, stream: web.WebSocketResponse, request: web.Request) -> None:
        first = await _receive(stream, None)
        slot = join.slot_of(first)
        invitation = next((each for each in self._open if each.code.slot == slot), None)
        if invitation is None:
            raise _refused(join.UNKNOWN_CODE)
        server = join.JoinServer(invitation.code, invitation.caps, entropy=self._entropy)
        await self._prove(stream, server, invitation, first)
        self._admit(request)
        while server.request is None:
            await _send(stream, server.receive(await _receive(stream, server), self._wall()))
        await _send(stream, self._decide(server, server.request, invitation))
        while not server.confirmed:
            server.receive(await _receive(stream, server), self._wall())

    async def _prove(
        self, stream: web.WebSocketResponse, server: join.JoinServer, invitation: Invitation, first: bytes
    ) -> None:
        """Let the other side show that it knows the code: one guess."""
        await invitation.guesses.acquire()
        wrong = False
        try:
            self._check_open(invitation)
            await _send(stream, server.receive(first, self._wall()))
            await _send(stream, server.receive(await _receive(stream, server), self._wall()))
        except HandshakeRefused as refusal:
            wrong = refusal.reason == join.WRONG_CODE
            raise
        finally:
            if wrong:
                self._count_failure(invitation)
            else:
                invitation.guesses.release()

    def _check_open(self, invitation: Invitation) -> None:
        if invitation not in self._open:
            raise _refused(join.UNKNOWN_CODE)

    def _count_failure(self, invitation: Invitation) -> None:
        invitation.failures += 1
        if invitation.failures >= GUESSES_MAX:
            log.warning("an invitation was ended after %d wrong codes; invite again", GUESSES_MAX)
            self._end(invitation)

    def _decide(self, server: join.JoinServer, request: join.JoinRequest, invitation: Invitation) -> list[bytes]:
        """Make the joiner a member, or say why not. No await in here: two joiners cannot take one use."""
        node = NodeId(request.node)
        if self._is_banned(node, invitation.owner):
            return server.refuse(join.IS_BANNED)
        if node == self._keys.node:
            return server.refuse(join.DENIED)
        chain = invitation.admitted.get(node)
        if chain is None:
            if invitation not in self._open:
                return server.refuse(join.USED if invitation.uses == 0 else join.EXPIRED)
            name = self._free_name(request.name, node)
            subject = trust.Subject(node=node, name=name, owner=invitation.owner, caps=server.caps)
            chain = self._keys.issue(subject, self._wall())
            invitation.admitted[node] = chain
            invitation.uses -= 1
            self._given[name] = node
            if invitation.uses == 0:
                self._end(invitation)
            self._joined(node, name)
        state = self._keys.state
        return server.answer(
            join.JoinAnswer(
                root=state.root,
                mesh_name=state.name,
                certs=chain,
                psks=self._psks() or state.psks,
                bans=self._bans()[-256:],
                # Who is linked to this node over a bridge has no address that means something elsewhere.
                peers=tuple(each for each in self._peers() if not reaching.is_via(each))[:PEERS_MAX],
                wall=self._wall(),
            )
        )

    def _free_name(self, wanted: str, joiner: NodeId) -> str:
        name = usable_name(wanted)
        given = {each for each, node in self._given.items() if node != joiner}
        taken = self._names(joiner) | given | {self._keys.cert.name}
        number = 2
        free = name
        while free in taken:
            tail = f"-{number}"
            free = name[: NAME_CHARS_MAX - len(tail)] + tail
            number += 1
        return free


@dataclass(frozen=True, slots=True)
class Joined:
    """What a join ended with."""

    mesh: str
    name: str
    """What this node is called there."""
    owner: str
    caps: tuple[Capability, ...]
    inviter: str
    """The inviter's address."""
    peers: tuple[str, ...]
    """Where other members listen: hints for AddressSeen."""
    bans: tuple[bytes, ...]


async def join_mesh(  # noqa: PLR0913  each is a different fact
    keys: NodeKeys,
    http: aiohttp.ClientSession,
    text: str,
    *,
    at: str = "",
    find: Callable[[str, float], Awaitable[tuple[str, ...]]],
    wall: Callable[[], Wall],
    entropy: Callable[[int], bytes],
    software: str = "",
) -> Joined:
    """Join a mesh by a code. When this returns, the membership is durable and the solo mesh is gone.

    Args:
        keys: this node.
        http: ``Links.http``.
        text: the code as typed.
        at: ``HOST`` or ``HOST:PORT`` of the inviter; empty: found by mDNS.
        find: ``Discovery.find_inviter``.
        wall: reads the clock.
        entropy: fresh random bytes.
        software: name and version, told to the inviter.

    Raises:
        UsageError: that is no code.
        RefusedError: this node's mesh has other members, or the inviter did not let it in; the message says why.
        NodeUnreachableError: nobody was found or reached.
        StorageError: the home cannot be written.
    """
    code = join.parse_code(text)
    keys.check_may_join()
    addresses = (with_port(at),) if at else await find(code.slot, FIND_S)
    if not addresses:
        raise NodeUnreachableError(
            f"no node on this network shows an invitation {code.slot}-...; check the code, "
            f"or name the inviter with --at HOST:PORT. {DIRECTLY}"
        )
    guesses = 0
    problem = NO_ANSWER
    for address in addresses:
        client = join.JoinClient(code, keys.key, keys.cert.name, software=software, entropy=entropy)
        try:
            async with asyncio.timeout(EXCHANGE_S):
                return await _ask(keys, http, client, address, wall)
        except HandshakeRefused as refusal:
            # Another node may show the same two characters; but every try lets a stranger guess once.
            guesses += 1
            if refusal.reason not in (join.WRONG_CODE, join.UNKNOWN_CODE) or guesses >= GUESSES_MAX:
                raise RefusedError(str(refusal)) from refusal
            problem = str(refusal)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            reason = dial_reason(error)
            problem = problem if guesses else SENTENCES[reason]
    if guesses:
        raise RefusedError(problem)
    raise NodeUnreachableError(f"{', '.join(addresses)}: {problem} {DIRECTLY}")


def with_port(text: str) -> str:
    """Return ``HOST:PORT``, with the default port where none is given."""
    host = text.removeprefix("[").removesuffix("]")
    if ":" in host and netinfo.plain_ip(host):
        return netinfo.join(host, DEFAULT_PORT)
    return text if netinfo.port_of(text) and ":" in text else netinfo.join(text, DEFAULT_PORT)


async def _ask(
    keys: NodeKeys, http: aiohttp.ClientSession, client: join.JoinClient, address: str, wall: Callable[[], Wall]
) -> Joined:
    stream = await open_stream(http, address, JOIN_PATH, close_s=1.0)
    try:
        await _send(stream, client.start())
        while True:
            replies = client.receive(await _receive(stream, client), wall())
            # Durable before the inviter hears that it has arrived.
            joined = _adopt(keys, client.answer, address, wall()) if client.answer is not None else None
            await _send(stream, replies)
            if joined is not None:
                return joined
    finally:
        await stream.close()


def _adopt(keys: NodeKeys, answer: join.JoinAnswer, address: str, wall: Wall) -> Joined:
    try:
        keys.adopt(name=answer.mesh_name, root=answer.root, certs=answer.certs, psks=answer.psks, wall=wall)
    except Reject as error:
        raise _refused(join.BAD_ANSWER) from error
    cert = keys.cert
    return Joined(
        mesh=answer.mesh_name,
        name=cert.name,
        owner=cert.owner,
        caps=cert.caps,
        inviter=address,
        peers=tuple(each for each in answer.peers if netinfo.is_hint(each, netinfo.host_of(address))),
        bans=answer.bans,
    )


def _refused(reason: str) -> HandshakeRefused:
    return HandshakeRefused(reason, join.SENTENCES[reason])


async def _receive(stream: link.Stream, side: join.JoinClient | join.JoinServer | None) -> bytes:
    got = await stream.receive()
    if got.type is not aiohttp.WSMsgType.BINARY:
        raise side.closed() if side is not None else _refused(join.LEFT)
    return bytes(got.data)


async def _send(stream: link.Stream, records: list[bytes]) -> None:
    for record in records:
        try:
            await stream.send_bytes(record)
        except (ConnectionError, aiohttp.ClientError, RuntimeError):
            return  # it has gone; the next receive says so
