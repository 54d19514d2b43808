"""What every connection to a node has in common: frames of the local API as bytes, and what is wrong with them in words."""

import re
from pathlib import Path
from typing import Final

import msgspec

from p2pq import __version__, decoders
from p2pq.errors import (
    NodeSilentError,
    NodeUnreachableError,
    P2PQError,
    RefusedError,
    RemoteProtocolError,
    UsageError,
)
from p2pq.wire import local
from p2pq.wire.control import API_VERSION, FRAME_BYTES_MAX, ControlRequest, Failed, Hello, Reply, Welcome

CONNECT_S: Final = local.CONNECT_S
LENGTH_BYTES: Final = local.LENGTH_BYTES

_CALLED: Final = {
    "job": ("the job's id", "; `p2pq jobs` lists the jobs"),
    "code": ("the code", "; `p2pq invite` prints it whole"),
    "who": ("the name or id", "; `p2pq members` lists who is there"),
}
"""What people call a field of a request, and where they find what belongs there."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = decoders.of_packed(Reply)


class AnswerError(P2PQError):
    """The node could not do what was asked; the message says what to do next."""

    def __init__(self, failed: Failed) -> None:
        """Take the node's own sentence and exit code."""
        super().__init__(failed.message)
        self.failed = failed


def greeting(token: bytes) -> bytes:
    """Return the frame that opens a connection."""
    return _frame(_ENCODER.encode(Hello(api=API_VERSION, token=token, version=__version__)))


def frame_of(request: ControlRequest) -> bytes:
    """Return a request as a frame.

    Raises:
        UsageError: it is beyond a limit, or holds what is no text.
    """
    try:
        body = _ENCODER.encode(request)
        # Limits of the request are checked here, where the user can be told which one it is.
        decoders.of_packed(ControlRequest).decode(body)
    except UnicodeEncodeError as error:
        raise UsageError("a name or an argument is not UTF-8 text; rename it, or write it in UTF-8") from error
    except msgspec.ValidationError as error:
        raise UsageError(_in_plain_words(str(error))) from error
    except (TypeError, OverflowError) as error:
        raise UsageError(f"the node cannot be told that: {error}") from error
    if len(body) > FRAME_BYTES_MAX:
        raise UsageError(f"there is more than {FRAME_BYTES_MAX >> 20} MiB to tell the node; split it into several jobs")
    return _frame(body)


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def size_of(length: bytes) -> int:
    """Return how long the answer is that follows.

    Raises:
        RemoteProtocolError: too long.
    """
    size = int.from_bytes(length, "big")
    if size > FRAME_BYTES_MAX:
        raise RemoteProtocolError("the node's answer is too large; are both of one version?")
    return size


def reply_of(body: bytes) -> Reply:
    """Return what the node says.

    Raises:
        RemoteProtocolError: it is no answer.
    """
    try:
        reply: Reply = _DECODER.decode(body)
    except msgspec.DecodeError as error:
        raise RemoteProtocolError("the node's answer makes no sense; are both of one version?") from error
    return reply


def welcomed(answer: Reply) -> Welcome:
    """Return the node's answer to the greeting.

    Raises:
        RefusedError: the node does not take the token or the version.
        RemoteProtocolError: it says something else.
    """
    match answer:
        case Welcome():
            return answer
        case Failed(message=message):
            raise RefusedError(message)
        case _:
            raise RemoteProtocolError("the node did not greet back; stop it and start it again")


def not_reached(path: Path, error: OSError | EOFError) -> NodeUnreachableError:
    """Say that no connection came about."""
    if isinstance(error, TimeoutError):
        return NodeSilentError(
            f"the node does not answer within {CONNECT_S:g} s; see node.log beside {path}, or kill it and start it again"
        )
    nobody = isinstance(error, FileNotFoundError | ConnectionRefusedError)
    why = "" if nobody else f" ({getattr(error, 'strerror', None) or error})"
    return NodeUnreachableError(f"no node answers at {path}{why}; start one with `p2pq start`")


def went_away() -> NodeUnreachableError:
    """Say that a connection broke."""
    return NodeUnreachableError("the node went away; see `p2pq doctor`, then ask again")


def missing(kind: type) -> RemoteProtocolError:
    """Say that an answer came without what it is about."""
    return RemoteProtocolError(f"the node answered without {kind.__name__}; are both of one version?")


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
