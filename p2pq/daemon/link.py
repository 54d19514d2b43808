"""One established link: an outbox, a reader and a writer over a WebSocket of encrypted records.

A turn's messages leave together: ``send`` only queues, and the writer packs what has gathered into as few records as it can.
"""

import asyncio
import contextlib
import re
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import aiohttp

from p2pq.core import events
from p2pq.errors import LocalProtocolError, Reject
from p2pq.model.ids import NodeId
from p2pq.wire import codec, frames
from p2pq.wire.messages import MESSAGE_BYTES_MAX, SINCE, Message, Ping
from p2pq.wire.session import (
    DUPLICATE_KEY,
    LEFT,
    NOT_AUTHENTIC,
    SENTENCES,
    Channel,
    HandshakeRefused,
    Initiator,
    PeerInfo,
    Responder,
    refused,
)

# Why a link ended; a peer's own farewell is quoted after BYE.
BYE: Final = "bye"
CUT: Final = events.CUT
SILENT: Final = events.SILENT
SLOW: Final = events.SLOW
ALTERED: Final = events.ALTERED
BROKE_PROTOCOL: Final = "broke-protocol"
REPLACED: Final = "replaced"
LEAVING: Final = "leaving"

WORD: Final = re.compile(r"[a-z0-9-]{1,64}")
"""What a reason looks like; anything else that a peer says is not repeated."""
MALFORMED_MAX: Final = 10
"""Messages of a member that cannot be read, per link, before it is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """Time-outs and bounds of a link; seconds and bytes."""

    handshake_s: float = 5.0
    ping_s: float = 20.0
    silence_s: float = 60.0
    """A link that brings nothing for so long is dead."""
    woke_s: float = 10.0
    """So after this node slept: the other side may have given up long ago, and must be linked to again."""
    write_s: float = 30.0
    """A peer that takes nothing for so long is dead."""
    close_s: float = 1.0
    outbox_bytes: int = 64 << 20
    """A peer that is this far behind is cut off; it links again and is told anew."""
    keep_s: float = 5.0
    """How often links are looked after."""

    def over_bridges(self) -> "LinkLimits":
        """Return those of a link that bridges carry: one that drops all it is given is found out while leases still stand."""
        return replace(self, ping_s=min(self.ping_s, 5.0), silence_s=min(self.silence_s, 20.0))


class SaidByPeer(HandshakeRefused):
    """The other side refused us, after the handshake, with a word of its own."""


class NotOpened(Reject):
    """A record is not the next one that the peer sent."""


class Stream(Protocol):
    """What server and client WebSockets of aiohttp have in common."""

    async def send_bytes(self, data: bytes) -> None:
        """Send one binary message."""

    async def receive(self) -> aiohttp.WSMessage:
        """Return the next message, or one that tells of the end."""

    async def close(self) -> bool:
        """Close and wait, not long, for the other side to agree."""

    def get_extra_info(self, name: str, default: object = None) -> Any:  # noqa: ANN401  as asyncio has it
        """Return what the transport knows."""


class Link:
    """A link to one member. ``run`` carries it until it ends; then ``reason`` says why."""

    def __init__(  # noqa: PLR0913  each is a different fact
        self,
        stream: Stream,
        channel: Channel,
        info: PeerInfo,
        *,
        dialled: bool,
        address: str,
        remote_ip: str,
        limits: LinkLimits,
        path: tuple[NodeId, ...] = (),
    ) -> None:
        """Take over a stream whose handshake is complete."""
        self._stream = stream
        self._channel = channel
        self.limits = limits.over_bridges() if path else limits
        self._decoder = frames.Decoder(size_max=MESSAGE_BYTES_MAX)
        self._loop = asyncio.get_running_loop()
        self._outbox: deque[bytes] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._malformed = 0
        self._closing = False
        self._ended = False
        self.info = info
        self.dialled = dialled
        self.address = address
        self.remote_ip = remote_ip
        self.path = path
        """The bridges that carry it, the nearest first."""
        self.up_at = self.heard_at = self.pinged_at = self._loop.time()
        self.ping_number = 0
        self.writing_since: float | None = None
        self.pending_bytes = 0
        """What waits in the outbox."""
        self.rtt: float | None = None
        """Seconds, of the last ping."""
        self.reason = ""

    @property
    def peer(self) -> NodeId:
        """Who is at the other end."""
        return self.info.node

    @property
    def open(self) -> bool:
        """Whether messages still count."""
        return not self._closing and not self._ended

    def event(self, addresses: tuple[str, ...]) -> events.LinkUp:
        """Return what the core is told of it; ``addresses`` are where else the peer says that it listens."""
        info = self.info
        return events.LinkUp(
            peer=info.node,
            name=info.name,
            owner=info.owner,
            caps=info.caps,
            boot=info.boot,
            minor=info.minor,
            prekey=info.prekey,
            address=self.address,
            dialled=self.dialled,
            addresses=addresses,
            path=self.path,
            certs=info.certs,
            mesh=info.mesh,
            realm=info.realm,
            peering=info.peering,
        )

    def send(self, message: Message) -> None:
        """Queue a message. Nothing happens on a closing link.

        Raises:
            LocalProtocolError: the peer is too old to know such a message; nobody may have decided to say it.
        """
        if not self.open:
            return
        if SINCE.get(type(message), 1) > self.info.minor:
            raise LocalProtocolError(f"{type(message).__name__} to a peer of minor version {self.info.minor}")
        pieces = frames.encode(codec.encode(message), size_max=MESSAGE_BYTES_MAX)
        self.pending_bytes += sum(map(len, pieces))
        if self.pending_bytes > self.limits.outbox_bytes:
            self.abort(SLOW)
            return
        self._outbox.extend(pieces)
        self._stir()

    def close(self, reason: str, farewell: str = "") -> None:
        """End the link politely: what is queued goes out, then BYE."""
        if not self.open:
            return
        self.reason = self.reason or reason
        self._closing = True
        self._outbox.append(frames.encode_bye(farewell or reason))
        self._stir()

    def last_words(self, reason: str) -> tuple[bytes, ...]:
        """Return the records that refuse a link which was never established."""
        return (self._channel.encrypt(frames.encode_bye(reason)),)

    def first(self, record: bytes) -> list[Message]:
        """Take the responder's first record: an established link, or a refusal.

        Raises:
            HandshakeRefused: it is a BYE, or not authentic.
        """
        try:
            messages = self.take(record)
        except Reject:
            raise refused(NOT_AUTHENTIC) from None
        if self.farewell is not None:
            word = self.farewell if WORD.fullmatch(self.farewell) else LEFT
            # session's sentences are about the peer; here the peer says it of us
            reason = f"by-peer:{word}" if word in SENTENCES and word not in (DUPLICATE_KEY, LEFT) else word
            raise SaidByPeer(reason, reason)
        return messages

    def ping(self) -> None:
        """Ask for an answer; it keeps the link alive and measures the round trip."""
        self.ping_number += 1
        self.pinged_at = self._loop.time()
        self.send(Ping(number=self.ping_number))

    def woke(self) -> None:
        """This node slept: the link is dead unless it brings something soon."""
        self.heard_at = self._loop.time() + self.limits.woke_s - self.limits.silence_s
        self.ping()

    def abort(self, reason: str) -> None:
        """End the link at once."""
        self.reason = self.reason or reason
        self._ended = True
        for task in self._tasks:
            task.cancel()

    async def run(self, deliver: Callable[[Message], None]) -> None:
        """Carry the link until it ends, one way or the other."""
        try:
            async with asyncio.TaskGroup() as group:
                if not self._ended:
                    self._tasks = (group.create_task(self._read(deliver)), group.create_task(self._write()))
        finally:
            self._ended = True
            self._tasks = ()
            self._outbox.clear()
            await self._hang_up()

    async def _hang_up(self) -> None:
        try:
            async with asyncio.timeout(self.limits.close_s):
                await self._stream.close()
        except TimeoutError:
            # It takes nothing any more; what is buffered for it must not keep the connection alive.
            cut(self._stream)

    def take(self, record: bytes) -> list[Message]:
        """Open a record and return the messages that it completes.

        Raises:
            Reject: the record or its frames are broken, or too many messages were.
        """
        self.heard_at = self._loop.time()
        messages: list[Message] = []
        try:
            plaintext = self._channel.decrypt(record)
        except Reject as error:
            raise NotOpened(error.reason) from error
        for raw in self._decoder.feed(plaintext):
            try:
                messages.append(codec.decode_lenient(raw, Message, size_max=MESSAGE_BYTES_MAX))
            except Reject:
                self._malformed += 1
                if self._malformed >= MALFORMED_MAX:
                    raise
        return messages

    @property
    def farewell(self) -> str | None:
        """The peer's BYE, once it has come."""
        return self._decoder.bye

    async def _read(self, deliver: Callable[[Message], None]) -> None:
        while True:
            got = await self._stream.receive()
            if got.type is not aiohttp.WSMsgType.BINARY:
                broke = got.type not in ENDS and not isinstance(got.data, OSError | aiohttp.ClientError)
                self.abort(self._meddled if broke else CUT)
                return
            try:
                messages = self.take(got.data)
            except NotOpened:
                self.abort(self._meddled)
                return
            except Reject:
                self.abort(BROKE_PROTOCOL)
                return
            for message in messages:
                if self.open:
                    deliver(message)
            if self.farewell is not None:
                self.abort(BYE)
                return

    @property
    def _meddled(self) -> str:
        """Whose doing it is that what came is no record of the peer's: the bridge's, if there is one."""
        return ALTERED if self.path else BROKE_PROTOCOL

    async def _write(self) -> None:
        while True:
            if not self._outbox:
                if self._closing:
                    self.abort(self.reason)
                    return
                self._wake = self._loop.create_future()
                await self._wake
                self._wake = None
                continue
            plaintext = self._gather()
            self.writing_since = self._loop.time()
            try:
                await self._stream.send_bytes(self._channel.encrypt(plaintext))
            except (ConnectionError, aiohttp.ClientError, RuntimeError):
                # aiohttp's ways to say that the connection is closing; RuntimeError: before version 3.12
                self.abort(CUT)
                return
            self.writing_since = None
            self.pending_bytes = max(0, self.pending_bytes - len(plaintext))

    def _gather(self) -> bytes:
        """Return as many queued pieces as fit one record."""
        first = self._outbox.popleft()
        size = len(first)
        if not self._outbox or size + len(self._outbox[0]) > frames.PIECE_BYTES_MAX:
            return first
        parts = [first]
        while self._outbox and size + len(self._outbox[0]) <= frames.PIECE_BYTES_MAX:
            parts.append(self._outbox.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


async def handshake_message(stream: Stream, side: Initiator | Responder) -> bytes:
    """Return the next handshake message.

    Raises:
        HandshakeRefused: the connection ended, or brought something else.
    """
    got = await stream.receive()
    if got.type is not aiohttp.WSMsgType.BINARY:
        raise side.closed()
    return bytes(got.data)


async def try_send(stream: Stream, data: bytes) -> None:
    """Send to one who may have gone; then the next receive says so."""
    try:
        await stream.send_bytes(data)
    except (ConnectionError, aiohttp.ClientError, RuntimeError):
        return


def cut(stream: Stream) -> None:
    """End a connection without waiting for anything."""
    sock = stream.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):  # not connected any more
            sock.shutdown(socket.SHUT_RDWR)


ENDS: Final = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)
