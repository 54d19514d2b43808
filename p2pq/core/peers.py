"""How other nodes are shown to people: who, where, and why not linked; and what other nodes are told of where they are."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from p2pq.core.events import LinkUp
from p2pq.core.reaching import is_via
from p2pq.core.records import PeerSeen
from p2pq.model.ids import NodeId
from p2pq.wire import session, trust

TOLD_MAX: Final = 64
"""Peers named to a new one."""
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
    realm: str = ""
    """What its mesh is called, where that is another one."""


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
        realm=link.realm,
    )


def absent(
    node: NodeId | None, look: tuple[tuple[str, ...], str, bool], seen: PeerSeen | None, owner: str, *, banned: bool
) -> Peer:
    """Return who is not linked: a node that was seen or is said to be somewhere, or a mere address.

    Args:
        node: who that is, if that is known.
        look: what ``Addresses.look`` says of it.
        seen: what is remembered of it.
        owner: whose it was when it was last linked in this life.
        banned: whether it is out.
    """
    places, reason, dialling = look
    state: State = "connecting" if dialling else "refused" if refusal(reason) else "down"
    if banned:
        state, reason = "refused", trust.BANNED
    return Peer(
        id=node,
        name="" if seen is None else seen.name,
        owner=owner,
        address=next(filter(shown, places), ""),
        state=state,
        reason=reason,
    )


def told_to(
    peer: NodeId, links: Mapping[NodeId, LinkUp], seen: Mapping[NodeId, PeerSeen]
) -> tuple[tuple[NodeId, tuple[str, ...]], ...]:
    """Return where the nodes of this mesh that were linked last are, for a new one."""
    return tuple(
        (other, seen[other].addresses)
        for other in list(links)[-2 * TOLD_MAX :]
        if other != peer and not links[other].mesh and seen[other].addresses
    )[-TOLD_MAX:]


def shown(address: str) -> str:
    """Return an address as people see it: none where only a bridge leads there."""
    return "" if is_via(address) else address


def refusal(reason: str) -> bool:
    """Tell whether a dial failed because somebody refused, rather than because nobody answered."""
    return reason in session.SENTENCES or reason.startswith("by-peer:")
