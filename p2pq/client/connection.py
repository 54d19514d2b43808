"""A connection to the local node: one request at a time, its answers as an iterator. No event loop, quick to import."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from p2pq import __version__
from p2pq.errors import NodeSilentError, NodeUnreachableError, P2PQError, RefusedError, RemoteProtocolError, UsageError
from p2pq.wire.control import (
    API_VERSION,
    FRAME_BYTES_MAX,
    ControlRequest,
    Done,
    Failed,
    Hello,
    Note,
    Reply,
    Welcome,
)

CONNECT_S: Final = 5.0
_LENGTH_BYTES: Final = 4

_CALLED: Final = {
    "job": ("the job's id", "; `p2pq jobs` lists the jobs"),
    "code": ("the code", "; `p2pq invite` prints it whole"),
    "who": ("the name or id", "; `p2pq members` lists who is there"),
}
"""What people call a field of a request, and where they find what belongs there."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Reply)

R = TypeVar("R")


class AnswerError(P2PQError):
    """The node could not do what was asked; the message says what to do next."""

    def __init__(self, failed: Failed) -> None:
        """Take the node's own sentence and exit code."""
        super().__init__(failed.message)
        self.failed = failed


class Connection:
    """An open connection to a node's Unix socket."""

    def __init__(self, path: Path, token: bytes) -> None:
        """Connect and say hello.

        Raises:
            NodeSilentError: a node listens there, but does not answer.
            NodeUnreachableError: nobody listens there.
            RefusedError: the node does not take the token or the version.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._buffer = bytearray()
        try:
            self._socket.settimeout(CONNECT_S)
            self._socket.connect(str(path))
            self._send(Hello(api=API_VERSION, token=token, version=__version__))
            answer = self._receive()
            self._socket.settimeout(None)
        except TimeoutError as error:
            self._socket.close()
            raise NodeSilentError(
                f"the node does not answer within {CONNECT_S:g} s; see node.log beside {path}, or kill it and start it again"
            ) from error
        except OSError as error:
            self._socket.close()
            nobody = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            why = "" if nobody else f" ({error.strerror or error})"
            raise NodeUnreachableError(f"no node answers at {path}{why}; start one with `p2pq start`") from error
        except P2PQError:
            self._socket.close()
            raise
        match answer:
            case Welcome():
                self.welcome = answer
            case Failed(message=message):
                self._socket.close()
                raise RefusedError(message)
            case _:
                self._socket.close()
                raise RemoteProtocolError("the node did not greet back; stop it and start it again")

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
            self._send(request)
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
            raise NodeUnreachableError("the node went away; see `p2pq doctor`, then ask again") from error

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
            raise RemoteProtocolError(f"the node answered without {kind.__name__}; are both of one version?")
        return found

    def all(self, request: ControlRequest, kind: type[R]) -> list[R]:
        """Send one request and return its items of that kind."""
        return [reply for reply in self.ask(request) if isinstance(reply, kind)]

    def _send(self, message: Hello | ControlRequest) -> None:
        try:
            body = _ENCODER.encode(message)
            if not isinstance(message, Hello):
                # Limits of the request are checked here, where the user can be told which one it is.
                msgspec.msgpack.decode(body, type=ControlRequest)
        except UnicodeEncodeError as error:
            raise UsageError("a name or an argument is not UTF-8 text; rename it, or write it in UTF-8") from error
        except msgspec.ValidationError as error:
            raise UsageError(_in_plain_words(str(error))) from error
        if len(body) > FRAME_BYTES_MAX:
            raise UsageError(
                f"there is more than {FRAME_BYTES_MAX >> 20} MiB to tell the node; split it into several jobs"
            )
        self._socket.sendall(len(body).to_bytes(_LENGTH_BYTES, "big") + body)

    def _receive(self) -> Reply:
        size = int.from_bytes(self._exactly(_LENGTH_BYTES), "big")
        if size > FRAME_BYTES_MAX:
            raise RemoteProtocolError("the node's answer is too large; are both of one version?")
        try:
            reply: Reply = _DECODER.decode(self._exactly(size))
        except msgspec.DecodeError as error:
            raise RemoteProtocolError("the node's answer makes no sense; are both of one version?") from error
        return reply

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            part = self._socket.recv(max(65_536, size - len(self._buffer)))
            if not part:
                raise ConnectionResetError("connection closed")
            self._buffer += part
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _in_plain_words(text: str) -> str:
    """Say what msgspec says of a field of a request: ``Expected `str` of length >= 1 - at `$.job```."""
    what, _, where = text.partition(" - at ")
    field = where.strip("`$.") or "request"
    limit = re.fullmatch(r"Expected `str` of length ([<>])= (\d+)", what)
    if limit is None:
        return f"{field}: {what[:1].lower()}{what[1:]}"
    called, hint = _CALLED.get(field, (f"the {field}", ""))
    size = int(limit[2])
    if limit[1] == "<":
        return f"{called} is too long, it has at most {size} characters{hint}"
    return (
        f"{called} is empty{hint}" if size == 1 else f"{called} is too short, it has at least {size} characters{hint}"
    )
