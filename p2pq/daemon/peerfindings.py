"""What doctor says of the nodes that this one sees: who is linked, who refuses or is refused, who does not answer."""

from collections.abc import Callable, Iterable
from typing import Final

from p2pq.core.views import PeerView
from p2pq.model.ids import NodeId, short
from p2pq.wire import session, trust
from p2pq.wire.control import Finding

NAMELESS: Final = "a node behind a bridge"
_UNKNOWN_KEY: Final = (session.WRONG_MESH, session.REFUSED_EARLY)
_OTHER_MESH: Final = (session.NO_PEERING, trust.WRONG_ROOT)


def of_peers(peers: Iterable[PeerView], is_foreign: Callable[[NodeId], bool]) -> list[Finding]:
    """Return how many are linked, and what hinders the others.

    Args:
        peers: everyone linked or seen.
        is_foreign: whether a node is known to be of another mesh.
    """
    found, up = [], 0
    for peer in peers:
        up += peer.state == "up"
        called = peer.name or peer.address or (NAMELESS if peer.id is None else short(peer.id))
        if peer.state == "refused" and _elsewhere(peer, is_foreign):
            found.append(
                Finding(
                    check="peer",
                    ok=True,
                    detail=f"{called} is not linked ({peer.reason}): {sentence(peer.reason)}",
                    suggestion="if it is of this mesh, let it join again; if of one that yours peers with, see [[peer]]",
                )
            )
        elif peer.state == "refused":
            found.append(Finding(check="peer", ok=False, detail=f"{called} ({peer.reason}): {sentence(peer.reason)}"))
        elif peer.state in {"down", "connecting"} and peer.reason:
            found.append(
                Finding(
                    check="peer",
                    ok=True,
                    detail=f"{called} is not linked: {peer.reason}",
                    suggestion="if it runs, its firewall may refuse the port" if "time" in peer.reason else "",
                )
            )
    return [Finding(check="peers", ok=True, detail=f"{up} linked"), *found]


def _elsewhere(peer: PeerView, is_foreign: Callable[[NodeId], bool]) -> bool:
    """Tell whether a refused node seems to be of another mesh: nothing is wrong then.

    One that does not share a key with us may also be a member that was away for too long. It has a name: it was linked before.
    """
    if peer.reason in _OTHER_MESH:
        return True
    was_ours = bool(peer.name) and not (peer.id is not None and is_foreign(peer.id))
    return peer.reason in _UNKNOWN_KEY and not was_ours


def sentence(reason: str) -> str:
    """Say what the reason of a refused link means."""
    if reason.startswith("by-peer:"):
        return str(session.refused_by_peer(reason.removeprefix("by-peer:")))
    return session.SENTENCES.get(reason, "see docs/protocol.md for what this reason means")
