"""What linked peers say to each other: one tagged union.

Link messages travel inside authenticated records, so the sender is known; they are not signed. Unknown fields are
ignored and a message newer than the agreed minor version is never sent (``SINCE``), so versions can mix. Tags and
field names are never reused or retyped.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.model.ids import LeaseId
from p2pq.wire.objects import BLOB_BYTES_MAX, HOPS_MAX, ITEMS_MAX, Bytes32, Millis
from p2pq.wire.through import (
    LEAVES_MAX,
    Leaf,
    Leaves,
    MasterIs,
    Parted,
    Passed,
    Report,
    Through,
)
from p2pq.wire.work import (
    LEASES_MAX,
    OWNERS_MAX,
    PLACES_MAX,
    PROOF_BYTES_MAX,
    PROOFS_MAX,
    SUB_BYTES_MAX,
    SUBS_BYTES_MAX,
    Beat,
    Cancel,
    Confirm,
    Confirmed,
    Count,
    Granted,
    HasWork,
    Heartbeat,
    Holding,
    Leaving,
    LinkMessage,
    Nothing,
    Place,
    ProfileIs,
    Recall,
    Receipted,
    Request,
    ResultReady,
    Return,
    ReturnItem,
)

__all__ = [
    "HOPS_MAX",
    "LEASES_MAX",
    "LEAVES_MAX",
    "OWNERS_MAX",
    "PLACES_MAX",
    "PROOFS_MAX",
    "PROOF_BYTES_MAX",
    "SUBS_BYTES_MAX",
    "SUB_BYTES_MAX",
    "Beat",
    "Cancel",
    "Confirm",
    "Confirmed",
    "Granted",
    "HasWork",
    "Heartbeat",
    "Holding",
    "Leaf",
    "Leaves",
    "Leaving",
    "MasterIs",
    "Nothing",
    "Parted",
    "Passed",
    "Place",
    "ProfileIs",
    "Recall",
    "Receipted",
    "Report",
    "Request",
    "ResultReady",
    "Return",
    "ReturnItem",
    "Through",
]

MINOR: Final = 4
"""The newest minor protocol version that this code speaks."""

CHECKPOINTS_SINCE: Final = 2
"""The minor version from which on results may hold checkpoints, and grants bring them."""

TRUST_SINCE: Final = 3
"""The minor version from which on mesh keys travel over links, and what both sides know of bans and keys is compared."""
PEERINGS_SINCE: Final = 4
"""The minor version from which on nodes know of other meshes: older ones are told nothing of them."""
MANDATES_SINCE: Final = 4
"""The minor version from which on workers say on which way they take part."""
RENEWALS_SINCE: Final = 4
"""The minor version from which on every admin renews certificates, and bridges pass on what is asked and answered."""
EMPTY_SINCE: Final = 4
"""The minor version from which on a result without a body says that nothing was left or printed."""
PEERINGS_MAX: Final = 64
REACH_MAX: Final = 256
"""Nodes named in one ``Reach``."""
NEAR_MAX: Final = 64
"""Neighbours named by who fetches blobs."""

MESSAGE_BYTES_MAX: Final = 8 << 20
INLINE_BYTES_MAX: Final = 256 << 10
"""Blobs of a grant or result up to this sum travel inside the message and save a round trip."""

BANS_MAX: Final = 4096
BAN_DIGEST_BYTES: Final = 16
Address = Annotated[str, Meta(min_length=3, max_length=64)]
"""``HOST:PORT`` or ``[V6]:PORT``, numeric."""


class Gossip(LinkMessage, frozen=True, kw_only=True):
    """Base of what members tell each other of the mesh; neither master nor worker takes it in."""


class Peers(Gossip, frozen=True, kw_only=True, tag="pe"):
    """Addresses of other nodes that the sender is linked to: hints, nothing more."""

    addresses: Annotated[
        tuple[tuple[Bytes32, Annotated[tuple[Address, ...], Meta(max_length=16)]], ...], Meta(max_length=64)
    ]


class Bans(Gossip, frozen=True, kw_only=True, tag="bn"):
    """Signed bans that the sender knows; grow-only, spread by everyone."""

    bans: Annotated[tuple[bytes, ...], Meta(max_length=256)]


class Heads(Gossip, frozen=True, kw_only=True, tag="he"):
    """What the sender knows of bans and mesh keys, each as one hash: the first message after link-up, then every minute.

    Whose hash differs answers with what takes the two further: ``BansKnown``, ``MeshKeys``.
    """

    bans: Bytes32
    mesh_keys: Bytes32
    peerings: Annotated[bytes, Meta(max_length=32)] = b""
    """Since minor 4. Between nodes of two meshes: of the peerings between these; ``bans`` and ``mesh_keys`` mean nothing then."""
    foreign: Annotated[tuple[tuple[Bytes32, Bytes32], ...], Meta(max_length=PEERINGS_MAX)] = ()
    """Since minor 4: (mesh, hash of what is known of its bans), for other meshes; between two meshes: for both of them."""


class BansKnown(Gossip, frozen=True, kw_only=True, tag="bk"):
    """The signed bans that the sender knows, by digest; it asks for all others in ``Bans``."""

    digests: Annotated[
        tuple[Annotated[bytes, Meta(min_length=BAN_DIGEST_BYTES, max_length=BAN_DIGEST_BYTES)], ...],
        Meta(max_length=BANS_MAX),
    ] = ()
    mesh: Annotated[bytes, Meta(max_length=32)] = b""
    """Since minor 4: of which mesh; empty: of the one that both nodes are in."""


class MeshKeys(Gossip, frozen=True, kw_only=True, tag="mk"):
    """Signed mesh keys that the sender knows, newest first: where ``Heads`` differ, and a new one as soon as it is heard of."""

    keys: Annotated[tuple[Annotated[bytes, Meta(max_length=4096)], ...], Meta(max_length=8)]

    def __repr__(self) -> str:
        """Name how many, not which."""
        return f"MeshKeys({len(self.keys)})"


class PeeringKnown(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All that is known of a peering: the signed offer, its acceptance, and the word that ended it, if one did."""

    offer: Annotated[bytes, Meta(max_length=8192)]
    accept: Annotated[bytes, Meta(max_length=4096)]
    end: Annotated[bytes, Meta(max_length=4096)] = b""


class Peerings(Gossip, frozen=True, kw_only=True, tag="pg"):
    """Peerings of the mesh; between two meshes: those between these. Where ``Heads`` differ, and news as soon as it is heard."""

    peerings: Annotated[tuple[PeeringKnown, ...], Meta(max_length=PEERINGS_MAX)]

    def __repr__(self) -> str:
        """Name how many, as they hold keys."""
        return f"Peerings({len(self.peerings)})"


class KeycardIs(LinkMessage, frozen=True, kw_only=True, tag="kc"):
    """Worker to master: my prekey has changed; the signed keycard names the new one."""

    card: Annotated[bytes, Meta(max_length=1024)]


class Way(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A node that a bridge is linked to, and the further bridges that this link of its goes through, the nearest first."""

    node: Bytes32
    path: Annotated[tuple[Bytes32, ...], Meta(max_length=HOPS_MAX - 1)] = ()


class Reach(Gossip, frozen=True, kw_only=True, tag="re"):
    """Bridge to peer: I am linked to these nodes, and carry links to them; to those I am linked no more."""

    number: Count
    """Grows with each: of what is said of one node the highest counts, in whatever order it comes."""
    ways: Annotated[tuple[Way, ...], Meta(max_length=REACH_MAX)] = ()
    gone: Annotated[tuple[Bytes32, ...], Meta(max_length=REACH_MAX)] = ()
    meshes: Annotated[tuple[Annotated[bytes, Meta(max_length=32)], ...], Meta(max_length=REACH_MAX)] = ()
    """Since minor 4: the meshes of the nodes in ``ways``, in order; empty, or left out: that of the bridge that says this."""


class Ping(LinkMessage, frozen=True, kw_only=True, tag="pi"):
    """Asks for a Pong with the same number; measures the round trip and keeps middle boxes awake."""

    number: Count


class Pong(LinkMessage, frozen=True, kw_only=True, tag="po"):
    """Answers a Ping."""

    number: Count
    wall: Millis = 0


class RenewWant(LinkMessage, frozen=True, kw_only=True, tag="rw"):
    """Member to admin, or to a bridge that passes it on towards one: my certificate ages; sign it again."""

    cert: bytes
    issuer: bytes = b""
    """Since minor 4. The certificate of the admin that issued it; empty: the receiver has, or the root."""
    hops: Annotated[int, Meta(ge=0, le=HOPS_MAX)] = 0
    """Since minor 4. Bridges that have passed it on."""


class Renewed(LinkMessage, frozen=True, kw_only=True, tag="rn"):
    """Admin to member, perhaps over bridges: the new chain (member certificate, admin certificate), or (admin certificate,)."""

    certs: Annotated[tuple[bytes, ...], Meta(max_length=2)]


# -- data plane: handled by daemon services, never by the core ----------------------------------------------------------


Source = Annotated[bytes, Meta(max_length=32)]
"""Since minor 3. Empty, or the node (32 bytes) from which the holder, a bridge, gets the blobs first if it lacks them."""
Sizes = Annotated[tuple[Annotated[int, Meta(ge=1, le=BLOB_BYTES_MAX)], ...], Meta(max_length=ITEMS_MAX)]
"""Since minor 3, with a source: the size of each blob, in bytes of ciphertext."""
Near = Annotated[tuple[Bytes32, ...], Meta(max_length=NEAR_MAX)]
"""Since minor 4: nodes that the fetcher is directly linked to and would ask first. An older holder gives the blobs itself."""
Hints = Annotated[tuple[Annotated[int, Meta(ge=0, le=NEAR_MAX)], ...], Meta(max_length=ITEMS_MAX)]
"""Since minor 4, one per blob: which of ``near``, counted from 1, has it or will soon; 0: none. Only in answer to ``near``."""


class BlobWant(LinkMessage, frozen=True, kw_only=True, tag="bw"):
    """Fetcher (it dialled this link) to holder: tickets to GET these blobs, please."""

    req: Count
    blobs: Annotated[tuple[Bytes32, ...], Meta(max_length=ITEMS_MAX)]
    source: Source = b""
    sizes: Sizes = ()
    near: Near = ()
    soon: bool = False
    """Since minor 4: the holder is a neighbour that was named to have them. It waits for those that it is getting itself, and
    says meanwhile, by answers that name no blob, that it does."""


class BlobTickets(LinkMessage, frozen=True, kw_only=True, tag="bt"):
    """Holder to fetcher: one ticket per blob, in order; empty where it has no such blob, or names who has."""

    req: Count
    tickets: Annotated[tuple[Annotated[bytes, Meta(max_length=32)], ...], Meta(max_length=ITEMS_MAX)]
    hints: Hints = ()


class BlobPush(LinkMessage, frozen=True, kw_only=True, tag="bp"):
    """Fetcher (it was dialled) to holder: PUT these blobs to me, with these tickets."""

    req: Count
    blobs: Annotated[tuple[Bytes32, ...], Meta(max_length=ITEMS_MAX)]
    tickets: Annotated[tuple[Bytes32, ...], Meta(max_length=ITEMS_MAX)]
    source: Source = b""
    sizes: Sizes = ()
    near: Near = ()
    soon: bool = False
    """As in BlobWant."""


class BlobGone(LinkMessage, frozen=True, kw_only=True, tag="bg"):
    """Holder to fetcher, in answer to BlobPush: these blobs I do not have or could not send, or I name who has them."""

    req: Count
    blobs: Annotated[tuple[Bytes32, ...], Meta(max_length=ITEMS_MAX)]
    hints: Hints = ()


class LogWant(LinkMessage, frozen=True, kw_only=True, tag="lw"):
    """Master to worker: send what that attempt prints from ``offset`` on, and go on until it ends or LogStop.

    Since minor 4 also to a bridge that speaks for its leaves: it asks the leaf that has the lease, and passes on the answers.
    """

    req: Count
    lease: LeaseId
    stream: Literal["stdout", "stderr"]
    offset: Count = 0
    master: Annotated[bytes, Meta(max_length=32)] = b""
    """Since minor 4, from a bridge: the master (32 bytes) that takes part through it and granted the lease. Empty: the sender."""


class LogData(LinkMessage, frozen=True, kw_only=True, tag="ld"):
    """Worker to master: output, encrypted under the job key (``seal.encrypt_body``) so that bridges read nothing."""

    req: Count
    offset: Count
    data: Annotated[bytes, Meta(max_length=128 << 10)]
    end: bool = False


class LogStop(LinkMessage, frozen=True, kw_only=True, tag="ls"):
    """Master to worker: nobody follows any more."""

    req: Count


Path = Annotated[tuple[Bytes32, ...], Meta(max_length=HOPS_MAX)]


class RelayWant(LinkMessage, frozen=True, kw_only=True, tag="yw"):
    """Peer to bridge: carry a link of mine to that node. Whoever dialled our link dials again, with this ticket."""

    req: Count
    to: Bytes32
    origin: Bytes32
    """Who wants the link; another than the sender where that is a bridge itself."""
    ticket: Bytes32
    path: Path = ()
    """The bridges that have passed the wish on, in order, the sender among them."""


class RelayOffer(LinkMessage, frozen=True, kw_only=True, tag="yo"):
    """Bridge to peer: a node asks me to carry a link to you. Whoever dialled our link dials again, with this ticket."""

    origin: Bytes32
    ticket: Bytes32
    path: Path
    """The bridges of the link, from the origin on; the sender is the last one."""


class RelayRefused(LinkMessage, frozen=True, kw_only=True, tag="yr"):
    """Bridge to peer, in answer to RelayWant: I do not carry that link."""

    req: Count
    reason: Annotated[str, Meta(max_length=64, pattern=r"\A[a-z-]+\Z")]


CoreMessage = (
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
    | Peers
    | Bans
    | Heads
    | BansKnown
    | MeshKeys
    | Peerings
    | KeycardIs
    | Confirm
    | Confirmed
    | Reach
    | Leaving
    | MasterIs
    | Parted
    | Leaves
    | Report
    | Through
)
"""Messages that the core decides on."""

ServiceMessage = (
    Ping
    | Pong
    | RenewWant
    | Renewed
    | BlobWant
    | BlobTickets
    | BlobPush
    | BlobGone
    | LogWant
    | LogData
    | LogStop
    | RelayWant
    | RelayOffer
    | RelayRefused
)
"""Messages that the daemon's services answer; no scheduling decision hangs on them."""

Message = CoreMessage | ServiceMessage

SINCE: Final[dict[type, int]] = {
    Recall: 2,
    Confirm: 2,
    Confirmed: 2,
    Heads: 3,
    BansKnown: 3,
    MeshKeys: 3,
    Peerings: 4,
    KeycardIs: 3,
    Reach: 3,
    RelayWant: 3,
    RelayOffer: 3,
    RelayRefused: 3,
    MasterIs: 4,
    Parted: 4,
    Leaves: 4,
    Report: 4,
    Through: 4,
}
"""Message types newer than minor version 1 and the version that brought them; never sent to older peers."""
