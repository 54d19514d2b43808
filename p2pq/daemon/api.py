"""The local API: a Unix socket for this user's own programs. Frames and types are in ``wire.control``.

Whoever connects must be this very user (the socket's folder and mode, and the kernel's word where it gives it) and show
the home's token. One request at a time is answered on a connection; closing it ends what it streams.
"""

import asyncio
import contextlib
import errno
import hmac
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from p2pq.errors import P2PQError, RefusedError, Reject
from p2pq.wire import codec
from p2pq.wire.control import API_VERSION, FRAME_BYTES_MAX, ControlRequest, Done, Failed, Hello, Reply, Welcome

log = logging.getLogger(__name__)

CONNECTIONS_MAX: Final = 64
HELLO_BYTES_MAX: Final = 4096
HELLO_S: Final = 5.0
BACKLOG: Final = 64
REQUESTS_AHEAD: Final = 2
"""Requests that are read while one is being answered; further ones wait in the socket."""
OUT_OF_FILES_S: Final = 1.0
HEADER_BYTES: Final = 4
PEERCRED: Final = struct.Struct("3i")
"""What SO_PEERCRED gives: process, user, group."""

R = TypeVar("R")
Send = Callable[[Reply], Awaitable[None]]
Handler = Callable[[Any, Send], Awaitable[None]]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Api:
    """The server: ``register`` handlers, then ``run`` in a task of the daemon; ``bind`` first to fail early."""

    def __init__(self, path: Path, token: bytes, welcome: Callable[[], Welcome]) -> None:
        """Prepare; nothing listens yet.

        Args:
            path: the socket; its folder exists and is private.
            token: what a client must show.
            welcome: who answers.
        """
        self._path = path
        self._token = token
        self._welcome = welcome
        self._handlers: dict[type, Handler] = {}
        self._socket: socket.socket | None = None
        self._connections = 0

    def register(self, kind: type[R], handler: Callable[[R, Send], Awaitable[None]]) -> None:
        """Answer requests of a type with ``handler(request, send)``.

        The handler sends items; ``Done`` follows when it returns. A P2PQError becomes ``Failed`` with its sentence and
        exit code. The handler is cancelled when the client goes away.
        """
        self._handlers[kind] = handler

    def bind(self) -> None:
        """Take the socket's place, which must be free or left over from a node that is gone.

        Raises:
            RefusedError: a node answers there, or the place cannot be taken.
        """
        if _somebody_listens(self._path):
            raise RefusedError(f"{self._path}: a node already answers there; stop it with `p2pq stop`")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        umask = os.umask(0o177)  # the socket is ours alone from its first moment
        try:
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise RefusedError(f"{self._path}: cannot listen there ({error.strerror}); use another --home") from error
        finally:
            os.umask(umask)
        self._socket = listener

    async def run(self) -> None:
        """Serve until cancelled, then close every connection and remove the socket."""
        if self._socket is None:
            self.bind()
        listener = self._socket
        assert listener is not None  # noqa: S101  bind sets it or raises
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        client, _ = await loop.sock_accept(listener)
                    except OSError as error:
                        if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOBUFS):
                            raise
                        log.warning("api.accept", extra={"fields": {"reason": error.strerror}})
                        await asyncio.sleep(OUT_OF_FILES_S)
                        continue
                    if self._connections >= CONNECTIONS_MAX or not _is_us(client):
                        client.close()
                        continue
                    self._connections += 1
                    group.create_task(self._serve(client), name="api")
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening and remove the socket, if it is ours; ``run`` does so at its end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)

    async def _serve(self, client: socket.socket) -> None:
        """Answer one client; whatever happens to it concerns nobody else."""
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_unix_connection(sock=client)
            connection = _Connection(reader, writer)
            if await self._greet(connection):
                await self._answer_all(connection)
        except (OSError, Reject, EOFError, TimeoutError) as error:
            log.debug("api.closed", extra={"fields": {"reason": str(error) or type(error).__name__}})
        finally:
            self._connections -= 1
            if writer is None:
                client.close()
            else:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _greet(self, connection: "_Connection") -> bool:
        async with asyncio.timeout(HELLO_S):
            raw = await connection.read(HELLO_BYTES_MAX)
        try:
            hello = codec.decode_lenient(raw, Hello, size_max=HELLO_BYTES_MAX)
        except Reject:
            await connection.send(Failed(message="that is not how to greet a node; use this version's p2pq"))
            return False
        if not hmac.compare_digest(hello.token, self._token):
            await connection.send(Failed(message="wrong token; the home of this node holds the right one (api.token)"))
            return False
        if hello.api != API_VERSION:
            await connection.send(
                Failed(
                    message=f"this node speaks version {API_VERSION} of the local interface and you speak {hello.api}; "
                    "run `p2pq stop`, then try again"
                )
            )
            return False
        await connection.send(self._welcome())
        return True

    async def _answer_all(self, connection: "_Connection") -> None:
        """Answer requests in order until the client goes."""
        requests: asyncio.Queue[bytes] = asyncio.Queue(REQUESTS_AHEAD)
        try:
            async with asyncio.TaskGroup() as group:
                answering = group.create_task(self._answer_queued(connection, requests), name="api answers")
                # Reading on while a handler runs is how we learn that the client went away.
                try:
                    while True:
                        await requests.put(await connection.read(FRAME_BYTES_MAX))
                finally:
                    answering.cancel()
        except* (OSError, EOFError, Reject) as gone:
            log.debug("api.closed", extra={"fields": {"reason": str(gone.exceptions[0])}})

    async def _answer_queued(self, connection: "_Connection", requests: "asyncio.Queue[bytes]") -> None:
        while True:
            raw = await requests.get()
            try:
                await self._answer(connection, raw)
                reply: Reply = Done()
            except P2PQError as error:
                reply = _failed(error)
            except Exception as error:
                if connection.broken:
                    raise
                ours = _ours(error)
                reply = _internal(error) if ours is None else _failed(ours)
            await connection.send(reply)

    async def _answer(self, connection: "_Connection", raw: bytes) -> None:
        try:
            request = codec.decode_lenient(raw, ControlRequest, size_max=FRAME_BYTES_MAX)
        except Reject:
            raise RefusedError(
                "this node does not understand that request; use the same version of p2pq for both"
            ) from None
        handler = self._handlers.get(type(request))
        if handler is None:
            raise RefusedError(f"this node does not answer {type(request).__name__}")
        await handler(request, connection.send)


class _Connection:
    """Frames on a stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.broken = False

    async def read(self, size_max: int) -> bytes:
        """Return one frame's content.

        Raises:
            EOFError: the client closed the connection.
            Reject: the frame is too long.
        """
        size = int.from_bytes(await self._reader.readexactly(HEADER_BYTES), "big")
        if size > size_max:
            raise Reject("the frame is too long")
        return await self._reader.readexactly(size)

    async def send(self, reply: Reply) -> None:
        """Send one frame; waits while the client does not read.

        Raises:
            OSError: the client is gone.
        """
        raw = msgspec.msgpack.encode(reply)
        if len(raw) > FRAME_BYTES_MAX:
            raise RefusedError("the answer is too long for one frame")
        try:
            self._writer.write(len(raw).to_bytes(HEADER_BYTES, "big") + raw)
            await self._writer.drain()
        except OSError:
            self.broken = True
            raise


def _ours(error: Exception) -> P2PQError | None:
    """Return the first of the errors that a group of tasks ended with, if all are p2pq's own."""
    while isinstance(error, ExceptionGroup) and error.split(P2PQError)[1] is None:
        error = error.exceptions[0]
    return error if isinstance(error, P2PQError) else None


def _failed(error: P2PQError) -> Failed:
    message = str(error) or (type(error).__doc__ or "").strip()
    return Failed(message=message, exit_code=error.exit_code, retryable=error.retryable)


def _internal(error: Exception) -> Failed:
    log.error("api.failed", exc_info=error)
    return Failed(message="internal error; the node's log (node.log) has the details, please report them")


def _is_us(client: socket.socket) -> bool:
    """Tell whether the other end runs as this user. Where the system does not say, the folder's mode and the token must do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _pid, uid, _gid = PEERCRED.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEERCRED.size))
    return bool(uid == os.geteuid())


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
