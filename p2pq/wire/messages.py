"""What linked peers say to each other: one tagged union.

Link messages travel inside authenticated records, so the sender is known; they are not signed. Unknown fields are
ignored and a message newer than the agreed minor version is never sent (``SINCE``), so versions can mix. Tags and
field names are never reused or retyped.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.model.ids import LeaseId
from p2pq.model.job import Fault, Profile
from p2pq.wire.objects import (
    BLOB_BYTES_MAX,
    ITEMS_MAX,
    Bytes16,
    Bytes32,
    Millis,
    Name,
)

MINOR: Final = 4
"""The newest minor protocol version that this code speaks."""

CHECKPOINTS_SINCE: Final = 2
"""The minor version from which on results may hold checkpoints, and grants bring them."""

TRUST_SINCE: Final = 3
"""The minor version from which on mesh keys travel over links, and what both sides know of bans and keys is compared."""
PEERINGS_SINCE: Final = 4
"""The minor version from which on nodes know of other meshes: older ones are told nothing of them."""
PEERINGS_MAX: Final = 64
HOPS_MAX: Final = 3
"""Bridges between two nodes at most."""
REACH_MAX: Final = 256
"""Nodes named in one ``Reach``."""
NEAR_MAX: Final = 64
"""Neighbours named by who fetches blobs."""

MESSAGE_BYTES_MAX: Final = 8 << 20
INLINE_BYTES_MAX: Final = 256 << 10
"""Blobs of a grant or result up to this sum travel inside the message and save a round trip."""

LEASES_MAX: Final = 65_536
OWNERS_MAX: Final = 256
BANS_MAX: Final = 4096
BAN_DIGEST_BYTES: Final = 16
Leases = Annotated[tuple[LeaseId, ...], Meta(max_length=LEASES_MAX)]
Address = Annotated[str, Meta(min_length=3, max_length=64)]
"""``HOST:PORT`` or ``[V6]:PORT``, numeric."""
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of all link messages."""


class Gossip(_Message, frozen=True, kw_only=True):
    """Base of what members tell each other of the mesh; neither master nor worker takes it in."""


class ProfileIs(_Message, frozen=True, kw_only=True, tag="pr"):
    """Worker to master: what I can offer. First after link-up, and again whenever it changes."""

    profile: Profile


class Holding(_Message, frozen=True, kw_only=True, tag="ho"):
    """Worker to master, once after link-up: the leases of yours that I still hold (running, waiting, or a kept result).

    Whatever else the master believes this worker to hold is gone and is requeued at once.
    """

    leases: Leases = ()


class HasWork(_Message, frozen=True, kw_only=True, tag="hw"):
    """Master to worker: the owners I have work for. ``counter`` grows with each change of what might fit."""

    counter: Count
    owners: Annotated[tuple[Name, ...], Meta(max_length=OWNERS_MAX)] = ()


class Request(_Message, frozen=True, kw_only=True, tag="rq"):
    """Worker to master: I have this much room; give me tasks of ``owner``. Lapses after REQUEST_TTL_S."""

    nonce: Bytes16
    owner: Name
    cpus: Annotated[int, Meta(ge=0, le=1 << 20)]
    """Free cpus; 0 with ``ahead`` > 0 asks only for leases ahead."""
    memory_mb: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    gpus: Annotated[int, Meta(ge=0, le=1 << 10)] = 0
    tasks_max: Annotated[int, Meta(ge=1, le=ITEMS_MAX)] = 1
    """At most so many attempts in all, running and ahead."""
    ahead: Annotated[tuple[tuple[Bytes16, Count], ...], Meta(max_length=64)] = ()
    """(job, n): up to n attempts beyond the free cpus for jobs whose task length this worker has measured."""


class Granted(_Message, frozen=True, kw_only=True, tag="gr"):
    """Master to worker: a signed grant, the manifest if this link has not carried it yet, small blobs inline."""

    grant: bytes
    manifest: bytes = b""
    blobs: Annotated[tuple[bytes, ...], Meta(max_length=64)] = ()
    checkpoints: Annotated[tuple[bytes, ...], Meta(max_length=ITEMS_MAX)] = ()
    """Signed ``Checkpoint`` objects for some of the granted attempts. An older worker starts those from nothing."""


class Nothing(_Message, frozen=True, kw_only=True, tag="no"):
    """Master to worker: nothing of that owner fits what you asked with, as of this counter."""

    nonce: Bytes16
    owner: Name
    counter: Count
    wide: tuple[
        Annotated[int, Meta(ge=0, le=1 << 20)],
        Annotated[int, Meta(ge=0, le=1 << 30)],
        Annotated[int, Meta(ge=0, le=1 << 10)],
    ] = (0, 0, 0)
    """Cpus, mebibytes and gpus of a task that waits and needs more than it was asked with; since minor 2, zeros: none."""


class ReturnItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One lease handed back: why, and one sentence for people."""

    lease: LeaseId
    fault: Fault
    detail: Annotated[str, Meta(max_length=500)] = ""


class Return(_Message, frozen=True, kw_only=True, tag="rt"):
    """Worker to master: I give these leases back (unstarted, faulty, evicted, draining); grant them elsewhere."""

    items: Annotated[tuple[ReturnItem, ...], Meta(max_length=ITEMS_MAX)]


class Beat(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One held lease in a heartbeat. ``progress`` is in thousandths, -1 where the task tells none."""

    lease: LeaseId
    running: bool = True
    progress: Annotated[int, Meta(ge=-1, le=1000)] = -1


class Heartbeat(_Message, frozen=True, kw_only=True, tag="hb"):
    """Worker to master: I still hold these leases of yours; all are renewed."""

    beats: Annotated[tuple[Beat, ...], Meta(max_length=LEASES_MAX)]


class Recall(_Message, frozen=True, kw_only=True, tag="rl"):
    """Master to worker: others are idle and nothing waits; hand back up to so many leases of yours that have not started."""

    tasks: Annotated[int, Meta(ge=1, le=ITEMS_MAX)]


class Cancel(_Message, frozen=True, kw_only=True, tag="ca"):
    """Master to worker: these leases are over; stop what runs under them and forget it."""

    leases: Leases


class ResultReady(_Message, frozen=True, kw_only=True, tag="rs"):
    """Worker to master: a signed result; small blobs inline, the rest to be fetched."""

    result: bytes
    blobs: Annotated[tuple[bytes, ...], Meta(max_length=256)] = ()


class Receipted(_Message, frozen=True, kw_only=True, tag="rc"):
    """Master to worker: a signed receipt."""

    receipt: bytes


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


class KeycardIs(_Message, frozen=True, kw_only=True, tag="kc"):
    """Worker to master: my prekey has changed; the signed keycard names the new one."""

    card: Annotated[bytes, Meta(max_length=1024)]


class Confirm(_Message, frozen=True, kw_only=True, tag="cf"):
    """Worker to master: I slept. Which of these leases of yours are still mine? What runs under them stands still until then."""

    nonce: Bytes16
    leases: Leases


class Confirmed(_Message, frozen=True, kw_only=True, tag="cd"):
    """Master to worker, in answer to Confirm: those that are, all renewed. The others are over: stop and forget them."""

    nonce: Bytes16
    leases: Leases = ()


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


class Leaving(_Message, frozen=True, kw_only=True, tag="lv"):
    """The sender ends on purpose; its leases have been handed back."""


class Ping(_Message, frozen=True, kw_only=True, tag="pi"):
    """Asks for a Pong with the same number; measures the round trip and keeps middle boxes awake."""

    number: Count


class Pong(_Message, frozen=True, kw_only=True, tag="po"):
    """Answers a Ping."""

    number: Count
    wall: Millis = 0


class RenewWant(_Message, frozen=True, kw_only=True, tag="rw"):
    """Member to admin: my certificate ages; sign it again."""

    cert: bytes


class Renewed(_Message, frozen=True, kw_only=True, tag="rn"):
    """Admin to member: the new chain (member certificate, admin certificate)."""

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


class BlobWant(_Message, frozen=True, kw_only=True, tag="bw"):
    """Fetcher (it dialled this link) to holder: tickets to GET these blobs, please."""

    req: Count
    blobs: Annotated[tuple[Bytes32, ...], Meta(max_length=ITEMS_MAX)]
    source: Source = b""
    sizes: Sizes = ()
    near: Near = ()
    soon: bool = False
    """Since minor 4: the holder is a neighbour that was named to have them. It waits for those that it is getting itself, and
    says meanwhile, by answers that name no blob, that it does."""


class BlobTickets(_Message, frozen=True, kw_only=True, tag="bt"):
    """Holder to fetcher: one ticket per blob, in order; empty where it has no such blob, or names who has."""

    req: Count
    tickets: Annotated[tuple[Annotated[bytes, Meta(max_length=32)], ...], Meta(max_length=ITEMS_MAX)]
    hints: Hints = ()


class BlobPush(_Message, frozen=True, kw_only=True, tag="bp"):
    """Fetcher (it was dialled) to holder: PUT these blobs to me, with these tickets."""

    req: Count
    blobs: Annotated[tuple[Bytes32, ...], Meta(max_length=ITEMS_MAX)]
    tickets: Annotated[tuple[Bytes32, ...], Meta(max_length=ITEMS_MAX)]
    source: Source = b""
    sizes: Sizes = ()
    near: Near = ()
    soon: bool = False
    """As in BlobWant."""


class BlobGone(_Message, frozen=True, kw_only=True, tag="bg"):
    """Holder to fetcher, in answer to BlobPush: these blobs I do not have or could not send, or I name who has them."""

    req: Count
    blobs: Annotated[tuple[Bytes32, ...], Meta(max_length=ITEMS_MAX)]
    hints: Hints = ()


class LogWant(_Message, frozen=True, kw_only=True, tag="lw"):
    """Master to worker: send what that attempt prints from ``offset`` on, and go on until it ends or LogStop."""

    req: Count
    lease: LeaseId
    stream: Literal["stdout", "stderr"]
    offset: Count = 0


class LogData(_Message, frozen=True, kw_only=True, tag="ld"):
    """Worker to master: output, encrypted under the job key (``seal.encrypt_body``) so that bridges read nothing."""

    req: Count
    offset: Count
    data: Annotated[bytes, Meta(max_length=128 << 10)]
    end: bool = False


class LogStop(_Message, frozen=True, kw_only=True, tag="ls"):
    """Master to worker: nobody follows any more."""

    req: Count


Path = Annotated[tuple[Bytes32, ...], Meta(max_length=HOPS_MAX)]


class RelayWant(_Message, frozen=True, kw_only=True, tag="yw"):
    """Peer to bridge: carry a link of mine to that node. Whoever dialled our link dials again, with this ticket."""

    req: Count
    to: Bytes32
    origin: Bytes32
    """Who wants the link; another than the sender where that is a bridge itself."""
    ticket: Bytes32
    path: Path = ()
    """The bridges that have passed the wish on, in order, the sender among them."""


class RelayOffer(_Message, frozen=True, kw_only=True, tag="yo"):
    """Bridge to peer: a node asks me to carry a link to you. Whoever dialled our link dials again, with this ticket."""

    origin: Bytes32
    ticket: Bytes32
    path: Path
    """The bridges of the link, from the origin on; the sender is the last one."""


class RelayRefused(_Message, frozen=True, kw_only=True, tag="yr"):
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
}
"""Message types newer than minor version 1 and the version that brought them; never sent to older peers."""
