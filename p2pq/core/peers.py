"""How other nodes are shown to people: who, where, and why not linked."""

from typing import Literal

import msgspec

from p2pq.core.events import LinkUp
from p2pq.core.reaching import is_via
from p2pq.model.ids import NodeId
from p2pq.wire import session

State = Literal["up", "connecting", "down", "refused"]


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A node that this one knows of."""

    id: NodeId | None
    """None where nobody has been authenticated at that address yet."""
    name: str = ""
    owner: str = ""
    address: str = ""
    path: tuple[NodeId, ...] = ()
    """The bridges that carry the link, the nearest first."""
    state: State
    reason: str = ""
    boot: bytes = b""
    caps: tuple[str, ...] = ()


def up(link: LinkUp, reason: str = "") -> Peer:
    """Return a node that is linked, or takes part through a bridge; ``reason``: why it is suspected, if it is."""
    return Peer(
        id=link.peer,
        name=link.name,
        owner=link.owner,
        address="" if link.path else link.address,
        path=link.path,
        state="up",
        reason=reason,
        boot=link.boot,
        caps=link.caps,
    )


def shown(address: str) -> str:
    """Return an address as people see it: none where only a bridge leads there."""
    return "" if is_via(address) else address


def refusal(reason: str) -> bool:
    """Tell whether a dial failed because somebody refused, rather than because nobody answered."""
    return reason in session.SENTENCES or reason.startswith("by-peer:")
