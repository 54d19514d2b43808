"""What the local API is asked, and answers, about other meshes: part of ``control``."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pq.wire.objects import PeerCapability


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of these requests and replies, as in ``control``."""


class PeeringsList(Said, frozen=True, kw_only=True):
    """Peerings with other meshes. Items: PeeringView."""


class PeerOffer(Said, frozen=True, kw_only=True):
    """Offer another mesh to work together. Item: PeeringFile. Nothing holds before that one has accepted."""

    mesh: str
    """The other mesh's id, whole, as `p2pq mesh` shows it there."""
    ours: tuple[PeerCapability, ...]
    """What members of this mesh may do there."""
    theirs: tuple[PeerCapability, ...]
    our_owners: tuple[str, ...] = ()
    """Only these of our owners; none: all."""
    their_owners: tuple[str, ...] = ()
    life_s: Annotated[int, Meta(ge=1)]


class PeerAccept(Said, frozen=True, kw_only=True):
    """Look at an offer, or an accepted one; where ``sure``, accept it, or make it known. Item: PeeringFile."""

    text: Annotated[str, Meta(max_length=64 << 10)]
    sure: bool = False


class PeerEnd(Said, frozen=True, kw_only=True):
    """End a peering, or all with a mesh, for good. Item: Note."""

    which: str
    """The name or id of the mesh, or the id of the peering; of ids, the beginning."""


class PeeringView(Said, frozen=True, kw_only=True, omit_defaults=False):
    """A peering as ``mesh peers`` prints it."""

    id: str
    mesh: str
    """The other mesh's id."""
    name: str
    state: Literal["offered", "holds", "ended", "expired", "suspended"]
    """suspended: an admin that signed it is banned."""
    ours: tuple[str, ...]
    """What our members may do there."""
    theirs: tuple[str, ...]
    our_owners: tuple[str, ...] = ()
    their_owners: tuple[str, ...] = ()
    since: str
    until: str
    ended: str = ""
    accept: bool = False
    """What this node's own configuration says of that mesh: see [[peer]]."""
    offer: bool = False
    bridge: bool = False


class PeeringFile(Said, frozen=True, kw_only=True, omit_defaults=False):
    """What a file says, and the text to hand to the other admin, where it is that one's turn."""

    peering: PeeringView
    text: str = ""
    already: bool = False
    """This was accepted before, and nothing was changed; ``text`` is what was handed back then, at the side that accepted it."""
    beside: tuple[PeeringView, ...] = ()
    """Other peerings with the same mesh that hold, too."""
