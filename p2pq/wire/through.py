"""What bridges say that speak for a cluster (docs/adr/0201): whom they show to each other, and what goes through them."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from p2pq.model.ids import LeaseId
from p2pq.model.job import Profile
from p2pq.wire.objects import HOPS_MAX, ITEMS_MAX, Bytes16, Bytes32
from p2pq.wire.work import (
    LEASES_MAX,
    Beat,
    Cancel,
    Confirm,
    Confirmed,
    Granted,
    HasWork,
    Heartbeat,
    Holding,
    Leaving,
    LinkMessage,
    Nothing,
    ProfileIs,
    Proofs,
    Recall,
    Receipted,
    Request,
    ResultReady,
    Return,
    ReturnItem,
    Subs,
)

LEAVES_MAX: Final = 64
"""Leaves introduced in one ``Leaves``."""


Chain = Annotated[tuple[Annotated[bytes, Meta(max_length=4096)], ...], Meta(min_length=1, max_length=2)]
"""The certificates of a member, its own first."""


class MasterIs(LinkMessage, frozen=True, kw_only=True, tag="mi"):
    """Bridge to worker, or to a bridge: this master takes part through me. What is said to it and by it goes in ``Through``."""

    certs: Chain
    """Its chain, as in the handshake."""
    boot: Bytes16
    minor: Annotated[int, Meta(ge=1, lt=1 << 16)]
    path: Annotated[tuple[Bytes32, ...], Meta(max_length=HOPS_MAX - 1)] = ()
    """Further bridges on the way to it, the nearest first."""
    bridges: Annotated[tuple[Chain, ...], Meta(max_length=HOPS_MAX - 1)] = ()
    """Their chains, as the path names them."""


class Parted(LinkMessage, frozen=True, kw_only=True, tag="pt"):
    """Bridge to peer: that master, or that cluster, takes part through me no more."""

    node: Bytes32


class Leaf(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A worker for which a bridge speaks."""

    certs: Chain
    card: Annotated[bytes, Meta(max_length=1024)]
    """Its signed keycard."""
    profile: Profile
    path: Annotated[tuple[Bytes32, ...], Meta(max_length=HOPS_MAX - 1)] = ()
    """Further bridges on the way to it, the nearest first."""
    bridges: Annotated[tuple[Chain, ...], Meta(max_length=HOPS_MAX - 1)] = ()
    """Their chains, as the path names them; none where they are not known."""
    mandate: Annotated[bytes, Meta(max_length=1024)] = b""
    """Its signed ``Mandate``: only on the way that it names it is spoken for."""


class Leaves(LinkMessage, frozen=True, kw_only=True, tag="lf"):
    """Bridge towards master, in ``Through`` its cluster: these workers take part through me, as said here last; those no more."""

    leaves: Annotated[tuple[Leaf, ...], Meta(max_length=LEAVES_MAX)] = ()
    gone: Annotated[tuple[Bytes32, ...], Meta(max_length=1024)] = ()


class Report(LinkMessage, frozen=True, kw_only=True, tag="rp"):
    """Bridge towards master, in ``Through`` its cluster: all that is new of leases below me, in the order of these fields."""

    placed: Annotated[tuple[tuple[LeaseId, Bytes32], ...], Meta(max_length=ITEMS_MAX)] = ()
    """Leases, each with the leaf that was given it."""
    beats: Annotated[tuple[Beat, ...], Meta(max_length=LEASES_MAX)] = ()
    results: Annotated[tuple[bytes, ...], Meta(max_length=ITEMS_MAX)] = ()
    """``Result`` objects, each signed by its leaf."""
    blobs: Annotated[tuple[bytes, ...], Meta(max_length=ITEMS_MAX)] = ()
    """Small blobs of these results."""
    returns: Annotated[tuple[ReturnItem, ...], Meta(max_length=ITEMS_MAX)] = ()
    subs: Subs = ()
    """The sub-grants by which the leases of these results came to who signed them, and those above, each once, in any order."""
    proofs: Proofs = ()
    """To a bridge above: grants and sub-grants by which leases came here that it has not given, each after what it names."""
    strays: Annotated[tuple[bytes, ...], Meta(max_length=ITEMS_MAX)] = ()
    """``Result`` objects of leases that it could not be shown to have been given: they count only if the master knows better."""


Passed = (
    ProfileIs
    | Holding
    | HasWork
    | Request
    | Granted
    | Nothing
    | Return
    | Heartbeat
    | Recall
    | Cancel
    | ResultReady
    | Receipted
    | Confirm
    | Confirmed
    | Leaving
    | Leaves
    | Report
)
"""What goes through a bridge between masters and workers."""


class Through(LinkMessage, frozen=True, kw_only=True, tag="th"):
    """Said to, or by, a node that is not linked: a master, or a bridge's cluster. The bridge answers for it, or passes it on."""

    node: Bytes32
    """To the bridge: whom it is for. From the bridge: whose word it is."""
    message: Passed
    cluster: bool = False
    """Between two bridges: it is said by, or to, the cluster of the one that is farther from that master, not its own worker."""
