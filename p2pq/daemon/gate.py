"""The door for peers: our own accept loop in front of aiohttp, because its server waits for ever for a request.

Who connects has a few seconds to prove membership (``admit``), or is cut off. How many may try at once, and how often, is
bounded in all and by source; beyond that a connection is reset without a byte spent on it. A success gives its token back, so
only those who fail are slowed down.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from p2pq.errors import ConfigError

DEFAULT_PORT: Final = 9476
PORT_MAX: Final = 0xFFFF
BACKLOG: Final = 128
SOURCES_MAX: Final = 4096

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Reasons.
TOO_MANY: Final = "too-many-connections"
TOO_MANY_PENDING: Final = "too-many-unauthenticated"
TOO_MANY_FROM_SOURCE: Final = "too-many-from-one-address"
TOO_OFTEN: Final = "too-many-attempts"
TOO_SLOW: Final = "not-authenticated-in-time"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """How many may be in, try, and how often."""

    total: int = 256
    per_source: int = 128
    """Admitted ones counted too: one member must not keep all others out."""
    pending: int = 64
    pending_per_source: int = 8
    deadline_s: float = 5.0
    """From accept to proved membership."""
    source_rate: float = 2.0
    """New connections per second and source, once ``source_burst`` is used up."""
    source_burst: float = 5.0
    rate: float = 20.0
    burst: float = 20.0


class Bucket:
    """A token bucket."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Start full."""
        self._rate, self._burst = rate, burst
        self._tokens, self._at = burst, now

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def give_back(self) -> None:
        """Return the token of one who turned out to be welcome."""
        self._tokens = min(self._burst, self._tokens + 1)


@dataclass(slots=True)
class _Guest:
    source: str
    timer: asyncio.TimerHandle | None
    """None once admitted."""


def runner(app: web.Application, close_s: float) -> web.AppRunner:
    """Return what serves peers: nothing is logged of requests, headers are bounded, and it ends within ``close_s``."""
    return web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        logger=http_log,
        max_line_size=1024,
        max_field_size=2048,
        max_headers=24,
        keepalive_timeout=75,
        lingering_time=0,
        shutdown_timeout=close_s,
    )


class Gate:
    """Accepts connections and hands them to an aiohttp server."""

    def __init__(
        self,
        limits: GateLimits,
        *,
        refused: Callable[[str, str], None],
        known: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Prepare a closed gate.

        Args:
            limits: see there.
            refused: told (IP address, reason) of everyone who was turned away.
            known: tells whether a member is linked from that IP address; then the rates do not hold for it.
        """
        self._limits = limits
        self._refused = refused
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._guests: dict[asyncio.BaseTransport, _Guest] = {}
        self._sources: dict[str, Bucket] = {}
        self._all = Bucket(limits.rate, limits.burst, self._loop.time())

    async def serve(self, listener: socket.socket, server: Callable[[], asyncio.Protocol]) -> None:
        """Accept on one listening socket until cancelled."""
        while True:
            try:
                sock, address = await self._loop.sock_accept(listener)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._refused("", TOO_MANY)
                    await asyncio.sleep(self._limits.deadline_s / 5)  # until others have left
                continue
            await self._let_in(sock, str(address[0]), server)

    def admit(self, transport: asyncio.BaseTransport | None) -> None:
        """Stop the clock for a connection that has proved its right to be here."""
        guest = self._guests.get(transport) if transport is not None else None
        if guest is None or guest.timer is None:
            return
        guest.timer.cancel()
        guest.timer = None
        self._all.give_back()
        if bucket := self._sources.get(guest.source):
            bucket.give_back()

    def close(self) -> None:
        """Cut off everyone who has not been admitted."""
        for transport, guest in self._guests.items():
            if guest.timer is not None:
                guest.timer.cancel()
                _abort(transport)
        self._guests.clear()

    async def _let_in(self, sock: socket.socket, ip: str, server: Callable[[], asyncio.Protocol]) -> None:
        source = source_of(ip)
        reason = self._judge(source, ip)
        if reason is not None:
            _reset(sock)
            self._refused(ip, reason)
            return
        sock.setblocking(False)
        try:
            transport, _ = await self._loop.connect_accepted_socket(server, sock)
        except OSError:  # it has left already
            sock.close()
            return
        timer = self._loop.call_later(self._limits.deadline_s, self._expire, transport, ip)
        self._guests[transport] = _Guest(source, timer)

    def _judge(self, source: str, ip: str) -> str | None:  # noqa: PLR0911  one return per reason
        """Return why this one may not come in, or None."""
        self._forget_gone()
        limits = self._limits
        pending = [guest.source for guest in self._guests.values() if guest.timer is not None]
        if len(self._guests) >= limits.total:
            return TOO_MANY
        if len(pending) >= limits.pending:
            return TOO_MANY_PENDING
        if sum(guest.source == source for guest in self._guests.values()) >= limits.per_source:
            return TOO_MANY_FROM_SOURCE
        if self._known(ip):
            return None
        if pending.count(source) >= limits.pending_per_source:
            return TOO_MANY_FROM_SOURCE
        now = self._loop.time()
        if not self._bucket(source, now).take(now) or not self._all.take(now):
            return TOO_OFTEN
        return None

    def _bucket(self, source: str, now: float) -> Bucket:
        bucket = self._sources.pop(source, None) or Bucket(self._limits.source_rate, self._limits.source_burst, now)
        self._sources[source] = bucket  # the longest unseen comes first
        if len(self._sources) > SOURCES_MAX:
            del self._sources[next(iter(self._sources))]
        return bucket

    def _forget_gone(self) -> None:
        for transport in [transport for transport in self._guests if transport.is_closing()]:
            guest = self._guests.pop(transport)
            if guest.timer is not None:
                guest.timer.cancel()

    def _expire(self, transport: asyncio.BaseTransport, ip: str) -> None:
        if self._guests.pop(transport, None) is not None and not transport.is_closing():
            _abort(transport)
            self._refused(ip, TOO_SLOW)


def source_of(ip: str) -> str:
    """Return what counts as one source: an IPv4 address, or the /64 of an IPv6 one."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def parse_listen(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` or ``[V6]:PORT``; the host is a numeric address or ``localhost``.

    Raises:
        ConfigError: it is not that.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = -1
    if not colon or not 0 <= number <= PORT_MAX:
        raise ConfigError(
            f"listen = {text!r}: expected HOST:PORT with a numeric address, such as 0.0.0.0:{DEFAULT_PORT}"
        )
    return host, number


def bind(text: str) -> socket.socket:
    """Return a listening socket for ``HOST:PORT``; port 0 takes 9476 if it is free, else any.

    Raises:
        ConfigError: the port is in use or the address is not of this machine; the message says what to do.
    """
    host, port = parse_listen(text)
    if port == 0:
        try:
            return _listen(host, DEFAULT_PORT)
        except OSError:
            return _bind_named(host, 0)
    return _bind_named(host, port)


def _bind_named(host: str, port: int) -> socket.socket:
    try:
        return _listen(host, port)
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                detail = f"port {port} is in use; stop what uses it, or choose another with `--listen {host}:PORT`"
            case errno.EADDRNOTAVAIL:
                detail = f"{host} is not an address of this machine; see `ip address`, or use `--listen 0.0.0.0:{port}`"
            case errno.EACCES:
                detail = f"port {port} is reserved for the system; choose one above 1023 with `--listen {host}:PORT`"
            case _:
                detail = f"{host}:{port}: {error.strerror}; choose another with `--listen HOST:PORT`"
        raise ConfigError(f"cannot listen for peers: {detail}") from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _reset(sock: socket.socket) -> None:
    """Close without leaving a connection behind in the system's tables."""
    with contextlib.suppress(OSError):  # it has reset the connection itself
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _abort(transport: asyncio.BaseTransport) -> None:
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


async def upgrade(stream: web.WebSocketResponse, request: web.Request) -> web.Response | None:
    """Turn a request into a stream; return what else to answer where that cannot be done."""
    if not stream.can_prepare(request).ok:
        return web.Response(status=400, text="not a WebSocket\n")
    try:
        await stream.prepare(request)
    except ConnectionError:  # it has gone: this node slept, or was slow, and the dialler gave up long ago
        return web.Response(status=400)
    return None


@web.middleware
async def no_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what a web page sends: peers have no Origin."""
    if "Origin" in request.headers:
        return web.Response(status=403, text="not for browsers\n")
    return await handler(request)


def _is_ours(record: logging.LogRecord) -> bool:
    """Keep what strangers send out of the log: aiohttp reports every malformed request as an error."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


http_log: Final = logging.getLogger("p2pq.http")
http_log.addFilter(_is_ours)
