"""The node of a home: connect to it, and start it first if that is wanted."""

from collections.abc import Callable
from pathlib import Path

from p2pq.client.connection import Connection
from p2pq.errors import NodeSilentError, NodeUnreachableError
from p2pq.homes import TOKEN_FILE, refuse_root, socket_path


def connect(home: Path, *, start: bool, say: Callable[[str], None]) -> Connection:
    """Connect to the node of a home, starting one where that is wanted and none runs; ``say`` is told of that.

    Raises:
        ConfigError: it could not be started because of a setting.
        NodeUnreachableError: there is none, or it could not be started for another reason.
        RefusedError: as root, without P2PQ_ALLOW_ROOT=1; or the node does not take the token or the version.
    """
    refuse_root()
    try:
        return Connection(*address(home))
    except NodeSilentError:
        raise  # no other one could be started beside it
    except NodeUnreachableError:
        if not start:
            raise
    from p2pq.client import starter  # noqa: PLC0415  seldom needed

    starter.start_again(home, say=say)
    say("started a node in the background; `p2pq stop` ends it")
    return Connection(*address(home))


def address(home: Path) -> tuple[Path, bytes]:
    """Return the socket of a home's node, and the token to show there.

    Raises:
        NodeUnreachableError: no node has run there, or its token cannot be read.
    """
    file = home / TOKEN_FILE
    try:
        token = file.read_bytes()
    except FileNotFoundError as error:
        raise NodeUnreachableError(f"no node has run in {home}; start one with `p2pq start`") from error
    except OSError as error:
        raise NodeUnreachableError(f"{file}: {error.strerror}; check P2PQ_HOME and whose it is") from error
    return socket_path(home), token
