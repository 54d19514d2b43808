"""What dialling needs of HTTP: a client that follows nobody anywhere, and stable words for what went wrong."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Final

import aiohttp

from p2pq.core import events
from p2pq.model.ids import NodeId
from p2pq.wire import prims, session

# Reasons of DialFailed besides those of wire.session.
NO_ANSWER: Final = events.NO_ANSWER
CONNECTION_REFUSED: Final = "connection-refused"
UNREACHABLE: Final = "unreachable"
UNKNOWN_HOST: Final = "unknown-host"
TURNED_AWAY: Final = "turned-away"
NOT_P2PQ: Final = "not-p2pq"
VERSION: Final = "version"
ALREADY: Final = "already-linked"
FULL: Final = "links-full"
BAD_ADDRESS: Final = "bad-address"
NO_WAY: Final = events.NO_WAY
OTHER_NODE: Final = events.OTHER_NODE

SENTENCES: Final[dict[str, str]] = {
    NO_ANSWER: "Nothing answered in time: the machine is off, or a firewall drops the port.",
    CONNECTION_REFUSED: "The machine is there, but no node listens on that port.",
    UNREACHABLE: "There is no route to that address: check the network.",
    UNKNOWN_HOST: "That host name is not known: check its spelling, or use an IP address.",
    TURNED_AWAY: "It closed the connection: too many attempts at once; it will be tried again.",
    NOT_P2PQ: "Something else than a p2pq node listens there.",
    VERSION: "It speaks another major version of the protocol: upgrade the older of the two.",
    ALREADY: "There is a link to this node already.",
    FULL: "It has as many links as it allows (node.links_max).",
    BAD_ADDRESS: "That is not HOST:PORT.",
    NO_WAY: "The bridge between the two does not carry a link to it now; it will be tried again.",
    OTHER_NODE: "The bridge leads to another node than the one that was asked for.",
}
"""What each reason means."""

UPGRADE_REQUIRED: Final = 426
"""HTTP's word for a path of another protocol version."""

_ERRNOS: Final = {
    errno.ECONNREFUSED: CONNECTION_REFUSED,
    errno.ECONNRESET: TURNED_AWAY,
    errno.EPIPE: TURNED_AWAY,
    errno.ECONNABORTED: TURNED_AWAY,
    errno.ETIMEDOUT: NO_ANSWER,
}


TOTAL_S: Final = 120.0
WS_MESSAGE_MAX: Final = session.RECORD_BYTES_MAX + 1
"""aiohttp refuses messages of this length or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """What a node has to do with other meshes; nothing where nothing is given."""

    foreign: Callable[[], tuple[session.Mesh, ...]] = tuple
    """Those whose members may be linked now, by peerings, the latest first."""
    mesh_of: Callable[[NodeId], bytes] = lambda _: b""
    """The mesh of a node that is known to be of another one; else nothing."""
    carries: Callable[[bytes], bool] = lambda _: False
    """Whether this node, as a bridge, carries links between another mesh and its own."""


NOWHERE: Final = Elsewhere()


def keys_for(own: session.Mesh, others: tuple[session.Mesh, ...], mesh: bytes | None) -> list[session.Mesh]:
    """Return what to dial by, in order: the newest mesh key, then each earlier one, for who was away when it was rotated.

    Args:
        own: this node's mesh.
        others: those whose members may be linked now.
        mesh: where it is known who is there: its mesh, if that is another one, else nothing. None: anybody may be there, a
            member of another mesh, too.

    Raises:
        HandshakeRefused: it is of a mesh that no peering leads to now.
    """
    ours = [replace(own, psks=(psk,)) for psk in own.psks]
    if mesh is None:
        return [*ours, *others]
    if not mesh:
        return ours
    wanted = [each for each in others if prims.mesh_id(each.root) == mesh]
    if not wanted:
        raise session.refused(session.NO_PEERING)
    return wanted


class NoWay(OSError):  # noqa: N818  a bridge's answer, not an error
    """A bridge does not carry a link."""

    def __init__(self, reason: str) -> None:
        """Keep the bridge's word for why."""
        super().__init__(f"the bridge says {reason}")
        self.reason = reason


class Redirected(aiohttp.ClientError):
    """A server tried to send us elsewhere."""


async def _no_redirect(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, _params: aiohttp.TraceRequestRedirectParams
) -> None:
    raise Redirected


def make_session(connect_s: float, total_s: float = TOTAL_S) -> aiohttp.ClientSession:
    """Return an HTTP client for peers: no proxies, no cookies, no redirects, bounded headers, no bodies inflated.

    Args:
        connect_s: time-out of a connection.
        total_s: time-out of a whole plain request; WebSockets live as long as they like.
    """
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_no_redirect)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=10),
        timeout=aiohttp.ClientTimeout(total=total_s, sock_connect=connect_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        read_bufsize=1 << 20,
        max_line_size=1024,
        max_field_size=2048,
        trace_configs=[trace],
        skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
    )


async def open_stream(
    http: aiohttp.ClientSession, address: str, path: str, close_s: float
) -> aiohttp.ClientWebSocketResponse:
    """Open a WebSocket to a peer.

    Raises:
        aiohttp.ClientError, OSError, TimeoutError, ValueError: it could not be opened (see ``dial_reason``).
    """
    try:
        return await http.ws_connect(
            f"http://{address}{path}",
            compress=0,
            autoping=False,
            timeout=aiohttp.ClientWSTimeout(ws_close=close_s),
            max_msg_size=WS_MESSAGE_MAX,
        )
    except AssertionError as error:  # aiohttp's, where a server upgrades and has already gone
        raise aiohttp.ClientError("gone during the upgrade") from error


def dial_reason(error: BaseException) -> str:  # noqa: PLR0911  one line for each kind
    """Return the stable word for a failure to connect."""
    match error:
        case aiohttp.WSServerHandshakeError():
            return VERSION if error.status == UPGRADE_REQUIRED else NOT_P2PQ
        case aiohttp.ServerDisconnectedError():
            return TURNED_AWAY
        case aiohttp.ClientConnectorDNSError():
            return UNKNOWN_HOST
        case TimeoutError():
            return NO_ANSWER
        case NoWay():
            return NO_WAY
        case OSError():
            return _ERRNOS.get(error.errno or 0, UNREACHABLE)
        case ValueError():  # InvalidURL is one too
            return BAD_ADDRESS
        case _:
            return NOT_P2PQ
