"""All that a build of an environment can reach of the network: the hosts of the node's indexes, by an HTTP proxy on a socket.

The sandbox of a build has no network but this socket; code of packages runs there. So it is the daemon that decides, for each
connection, where it leads.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from p2pq.daemon import upstream
from p2pq.daemon.upstream import Host, Proxies, Upstream

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 64
HEAD_BYTES_MAX: Final = 16 << 10
HEAD_S: Final = 10.0
CONNECT_S: Final = 20.0
PIECE_BYTES: Final = 64 << 10
_HEAD: Final = re.compile(rb"[A-Z]+ [\x21-\x7e]+ HTTP/1\.[01]\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\x20-\x7e]*\r\n)*\r\n")
"""One line, and fields of one line each. Whatever else an index or a proxy could take for the end of a line is no part of it."""
PLAIN: Final = frozenset({"GET", "HEAD"})
"""What builds may ask for outside of a tunnel: it has no body."""
_OWN: Final = frozenset(
    {
        *(b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade"),
        *(b"transfer-encoding", b"content-length", b"expect"),
    }
)
"""Fields that are between two ends of a connection, or tell of a body: none is passed on."""
REFUSED_MAX: Final = 8
"""Names of hosts that are remembered, to be told."""


class BuildProxy:
    """Serves one build."""

    def __init__(
        self, hosts: frozenset[Host], proxies: Proxies = upstream.NONE, *, secure: frozenset[Host] = frozenset()
    ) -> None:
        """Let it reach these hosts and ports only, by the proxies that lead there; the ``secure`` ones by a tunnel only."""
        self._hosts = hosts
        self._secure = secure
        self._proxies = proxies
        self._connections = 0
        self.refused: dict[str, None] = {}
        """Hosts that it asked for and did not get."""
        self.unreached: dict[str, None] = {}
        """Hosts that it may reach, and that do not answer."""

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Listen on a Unix socket, whose folder is this user's alone; all connections end when this is left.

        Raises:
            OSError: there can be no socket.
        """
        _remove(path)
        tasks: set[asyncio.Task[None]] = set()

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="build proxy")
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_unix_server(accepted, path, limit=HEAD_BYTES_MAX)
        try:
            yield
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            _remove(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                await self._request(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            log.debug("build.connection-ended reason=%s", error)
        finally:
            self._connections -= 1
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
        if not _HEAD.fullmatch(head):
            raise ValueError(head[:100])
        line, *fields = head[: -len(b"\r\n\r\n")].split(b"\r\n")
        method, target, version = line.decode("ascii").split(" ")
        if method == "CONNECT":
            name, _, port = target.rpartition(":")
            await self._connect((name.strip("[]").lower(), int(port)), None, reader, writer)
            return
        if method not in PLAIN:
            await _answer(writer, b"HTTP/1.1 405 Builds may GET and HEAD only\r\nAllow: GET, HEAD\r\n\r\n")
            return
        parts = urlsplit(target)
        host = (parts.hostname or "") if parts.scheme == "http" else "", parts.port or 80
        path = target.split("/", 3)[3:]
        kept = [field for field in fields if field.partition(b":")[0].lower() not in _OWN]
        await self._connect(host, _Plain(method, "".join(path), version, tuple(kept)), reader, writer)

    async def _connect(
        self, host: Host, plain: "_Plain | None", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if host not in self._hosts or (plain is not None and host in self._secure):
            if len(self.refused) < REFUSED_MAX:
                self.refused[host[0][:100]] = None
            await _answer(writer, b"HTTP/1.1 403 Not a host that this node lets builds reach\r\n\r\n")
            return
        through = self._proxies.to(host[0], secure=plain is None)
        try:
            async with asyncio.timeout(CONNECT_S):
                far_reader, far_writer = await _opened(host, through, tunnel=plain is None)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.unreached[host[0] if through is None else f"{host[0]} by the proxy {through.host}"] = None
            await _answer(writer, b"HTTP/1.1 502 It does not answer\r\n\r\n")
            return
        try:
            async with asyncio.TaskGroup() as group:
                if plain is None:
                    writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
                    group.create_task(_copy(reader, far_writer), name="build proxy out")
                else:
                    # One request for each connection, and nothing after it: a later one could be for another host.
                    far_writer.write(plain.request(host, through))
                group.create_task(_copy(far_reader, writer), name="build proxy in")
        except* OSError:
            pass  # one side has gone, and so has the other
        finally:
            far_writer.close()


@dataclass(frozen=True, slots=True)
class _Plain:
    """A request that is not for a tunnel."""

    method: str
    path: str
    version: str
    fields: tuple[bytes, ...]

    def request(self, host: Host, through: Upstream | None) -> bytes:
        """Return it as the host takes it, or a proxy that is to pass it on."""
        place = "" if through is None else f"http://{_written(host)}"
        more = b"" if through is None else through.headers
        first = f"{self.method} {place}/{self.path} {self.version}".encode()
        return b"\r\n".join([first, *self.fields, b"Connection: close"]) + b"\r\n" + more + b"\r\n"


async def _opened(
    host: Host, through: Upstream | None, *, tunnel: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a host, or to the proxy that leads there.

    Raises:
        OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError: it does not answer as it should.
    """
    if through is None:
        return await asyncio.open_connection(*host)
    reader, writer = await asyncio.open_connection(*through.address, limit=HEAD_BYTES_MAX)
    if tunnel:
        try:
            place = _written(host)
            head = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n".encode()
            writer.write(head + through.headers + b"\r\n")
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer.split(b" ", 2)[1:2] != [b"200"]:
                raise ConnectionRefusedError(answer[:100])  # noqa: TRY301  so that it is closed, too
        except BaseException:
            writer.close()
            raise
    return reader, writer


def _written(host: Host) -> str:
    return f"[{host[0]}]:{host[1]}" if ":" in host[0] else f"{host[0]}:{host[1]}"


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _answer(writer: asyncio.StreamWriter, text: bytes) -> None:
    writer.write(text)
    await writer.drain()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on what comes until it ends, and that it ended."""
    while piece := await source.read(PIECE_BYTES):
        target.write(piece)
        await target.drain()
    with contextlib.suppress(OSError):
        target.write_eof()
