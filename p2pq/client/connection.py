"""A connection to the local node: one request at a time, its answers as an iterator. No event loop, quick to import."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from p2pq.client import framing
from p2pq.client.framing import AnswerError
from p2pq.errors import P2PQError
from p2pq.wire.control import ControlRequest, Done, Failed, Note, Reply

R = TypeVar("R")


class Connection:
    """An open connection to a node's Unix socket."""

    def __init__(self, path: Path, token: bytes) -> None:
        """Connect and say hello.

        Raises:
            NodeSilentError: a node listens there, but does not answer.
            NodeUnreachableError: nobody listens there.
            RefusedError: the node does not take the token or the version.
            RemoteProtocolError: what answers is no node.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._buffer = bytearray()
        try:
            self._socket.settimeout(framing.CONNECT_S)
            self._socket.connect(str(path))
            self._socket.sendall(framing.greeting(token))
            self.welcome = framing.welcomed(self._receive())
            self._socket.settimeout(None)
        except OSError as error:
            self._socket.close()
            raise framing.not_reached(path, error) from error
        except P2PQError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; a stream that was under way ends."""
        self._socket.close()

    def ask(self, request: ControlRequest) -> Iterator[Reply]:
        """Send one request and yield what the node answers, until it is done.

        Raises:
            UsageError: the request is beyond a limit, or holds what is no text.
            AnswerError: the node could not do it.
            NodeUnreachableError: the node went away in the middle.
        """
        try:
            self._socket.sendall(framing.frame_of(request))
            while True:
                reply = self._receive()
                match reply:
                    case Done():
                        return
                    case Failed():
                        raise AnswerError(reply)
                    case _:
                        yield reply
        except OSError as error:
            raise framing.went_away() from error

    def one(self, request: ControlRequest, kind: type[R], *, say: Callable[[str], None] | None = None) -> R:
        """Send one request and return its only item of that kind; ``say`` is told what the node remarks.

        Raises:
            RemoteProtocolError: there was none.
        """
        found: R | None = None
        for reply in self.ask(request):
            if isinstance(reply, kind):
                found = reply
            elif isinstance(reply, Note) and say is not None:
                say(reply.text)
        if found is None:
            raise framing.missing(kind)
        return found

    def all(self, request: ControlRequest, kind: type[R]) -> list[R]:
        """Send one request and return its items of that kind."""
        return [reply for reply in self.ask(request) if isinstance(reply, kind)]

    def _receive(self) -> Reply:
        return framing.reply_of(self._exactly(framing.size_of(self._exactly(framing.LENGTH_BYTES))))

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            part = self._socket.recv(max(65_536, size - len(self._buffer)))
            if not part:
                raise ConnectionResetError("connection closed")
            self._buffer += part
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
