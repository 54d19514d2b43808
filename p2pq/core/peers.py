"""How other nodes are shown to people: who, where, and why not linked."""

from collections.abc import Mapping
from typing import Final, Literal, Protocol

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


class Tried(Protocol):
    """A place that may have been dialled."""

    @property
    def reason(self) -> str:
        """Why the latest dial failed; empty if it did not."""


class Places(Protocol):
    """Where others are said to be."""

    def of(self, node: NodeId) -> tuple[str, ...]:
        """Return the places of a node."""

    def get(self, address: str) -> Tried | None:
        """Return what is known of one."""

    def flying(self, address: str) -> bool:
        """Tell whether it is being dialled."""


def up(link: LinkUp) -> Peer:
    """Return a linked node as people see it."""
    return Peer(
        id=link.peer,
        name=link.name,
        owner=link.owner,
        address="" if link.path else link.address,
        path=link.path,
        state="up",
        boot=link.boot,
        caps=link.caps,
        realm=link.realm,
    )


def absent(
    known: Places,
    address: str,
    node: NodeId | None = None,
    seen: PeerSeen | None = None,
    owner: str = "",
    *,
    banned: bool = False,
) -> Peer:
    """Return who is not linked as people see it: a node that was seen or is said to be somewhere, or a mere address."""
    places = (address,) if node is None else known.of(node)
    state: State = "down"
    reason = ""
    for each in places:
        place = known.get(each)
        if place is not None and place.reason:
            state, reason = ("refused" if refusal(place.reason) else "down"), place.reason
            break
    if banned:
        state, reason = "refused", trust.BANNED
    elif any(known.flying(each) for each in places):
        state = "connecting"
    return Peer(
        id=node,
        name="" if seen is None else seen.name,
        owner=owner,
        address=next(filter(shown, places), ""),
        state=state,
        reason=reason,
    )


def whereabouts(
    links: Mapping[NodeId, LinkUp], seen: Mapping[NodeId, PeerSeen], to: NodeId
) -> tuple[tuple[NodeId, tuple[str, ...]], ...]:
    """Return where the nodes of this mesh that were linked last are, for a new one."""
    return tuple(
        (peer, seen[peer].addresses)
        for peer in list(links)[-2 * TOLD_MAX :]
        if peer != to and not links[peer].mesh and seen[peer].addresses
    )[-TOLD_MAX:]


def shown(address: str) -> str:
    """Return an address as people see it: none where only a bridge leads there."""
    return "" if is_via(address) else address


def refusal(reason: str) -> bool:
    """Tell whether a dial failed because somebody refused, rather than because nobody answered."""
    return reason in session.SENTENCES or reason.startswith("by-peer:")
