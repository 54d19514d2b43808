"""Objects that cross nodes, each signed by its author over the exact bytes sent (see ``sign``).

All are strict: unknown fields and non-canonical bytes are refused, there are no floats. ``v`` is the format's version.
Instants are Wall milliseconds unless the name says otherwise.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.model.ids import LeaseId
from p2pq.model.job import ATTEMPTS_MAX, RETRIES_MAX, TASKS_MAX, Limits, Outcome, Resources, SandboxLevel

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Sealed = Annotated[bytes, Meta(max_length=256)]
Millis = Annotated[int, Meta(ge=0, lt=1 << 48)]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
TaskIndex = Annotated[int, Meta(ge=0, lt=TASKS_MAX)]
AttemptNumber = Annotated[int, Meta(ge=1, le=ATTEMPTS_MAX)]

Capability = Literal["admin", "bridge", "submit", "work"]
CAPABILITIES: Final[tuple[Capability, ...]] = ("admin", "bridge", "submit", "work")

MANIFEST_BYTES_MAX: Final = 4 << 20
OBJECT_BYTES_MAX: Final = 1 << 20
BLOB_BYTES_MAX: Final = 4 << 20
BLOBS_MAX: Final = 100_000
BODY_PARTS_MAX: Final = 64
ITEMS_MAX: Final = 1024
HOPS_MAX: Final = 3
"""Bridges between two nodes at most."""
CERT_LIFE_MS: Final = 400 * 24 * 3600 * 1000


class BlobRef(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A blob's name and its size in bytes (ciphertext): all that a cache needs to know."""

    blob: Bytes32
    size: Annotated[int, Meta(ge=1, le=BLOB_BYTES_MAX)]


class Cert(msgspec.Struct, frozen=True, kw_only=True, tag="cert", forbid_unknown_fields=True):
    """Membership: ``iss`` (the root, or an admin) says that ``sub`` is a member, as whom, and what it may do."""

    v: Literal[1] = 1
    mesh: Bytes32
    sub: Bytes32
    iss: Bytes32
    """The issuer's public key: the mesh root's or an admin's node id."""
    ser: Bytes16
    name: Name
    owner: Name
    """Whose machine this is; what fair shares are counted by. Set by the inviter, never by the joiner."""
    caps: Annotated[tuple[Capability, ...], Meta(max_length=4)]
    """Sorted, without repeats."""
    nbf: Millis
    exp: Millis


class Ban(msgspec.Struct, frozen=True, kw_only=True, tag="ban", forbid_unknown_fields=True):
    """An admin's word that a node is out (or, with ``banned`` false, in again); the latest ``at`` per issuer counts."""

    v: Literal[1] = 1
    mesh: Bytes32
    iss: Bytes32
    sub: Bytes32
    at: Millis
    banned: bool = True
    certs: Annotated[tuple[bytes, ...], Meta(max_length=2)] = ()
    """The issuer's own chain, so that anyone can check its right to ban."""


class OwnerBan(msgspec.Struct, frozen=True, kw_only=True, tag="owner-ban", forbid_unknown_fields=True):
    """An admin's word that every node of an owner is out, whatever its certificate (or, with ``banned`` false, in again)."""

    v: Literal[1] = 1
    mesh: Bytes32
    iss: Bytes32
    owner: Name
    at: Millis
    banned: bool = True
    certs: Annotated[tuple[bytes, ...], Meta(max_length=2)] = ()
    """As in ``Ban``."""


class MeshKey(msgspec.Struct, frozen=True, kw_only=True, tag="mesh-key", forbid_unknown_fields=True):
    """An admin's word that this is a key of the mesh; the latest is used to dial. Only ever sent over links."""

    v: Literal[1] = 1
    mesh: Bytes32
    iss: Bytes32
    at: Millis
    key: Bytes32
    certs: Annotated[tuple[bytes, ...], Meta(max_length=2)] = ()
    """The issuer's own chain, so that anyone can check its right to make one."""

    def __repr__(self) -> str:
        """Name the instant, not the key."""
        return f"MeshKey(at={self.at})"


PeerCapability = Literal["bridge", "submit", "work"]
"""What a peering may let members of another mesh do; never ``admin``."""
PEER_CAPABILITIES: Final[tuple[PeerCapability, ...]] = ("bridge", "submit", "work")
PEER_OWNERS_MAX: Final = 32
Chain = Annotated[tuple[Annotated[bytes, Meta(max_length=1024)], ...], Meta(min_length=1, max_length=2)]


class PeerSide(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a peering lets the members of one mesh do towards the other: no more than their certificates let them at home."""

    caps: Annotated[tuple[PeerCapability, ...], Meta(min_length=1, max_length=3)]
    """Sorted, without repeats."""
    owners: Annotated[tuple[Name, ...], Meta(max_length=PEER_OWNERS_MAX)] = ()
    """Nodes of these owners only, by the names in their certificates; sorted, without repeats. None: of all."""


class Peering(msgspec.Struct, frozen=True, kw_only=True, tag="peering", forbid_unknown_fields=True):
    """An admin of a mesh offers another mesh, which it names, to work together. Nothing holds before that one accepts."""

    v: Literal[1] = 1
    mesh: Bytes32
    """The offering mesh."""
    root: Bytes32
    """Its root's public key."""
    name: Name
    to: Bytes32
    """The other mesh: nobody else's acceptance counts."""
    ours: PeerSide
    """What members of the offering mesh may do towards the other."""
    theirs: PeerSide
    key: Bytes32
    """Opens the gates of both meshes for the links between them, as a mesh key does at home. It proves nothing."""
    iss: Bytes32
    at: Millis
    exp: Millis
    certs: Chain
    """The issuer's own chain, so that anyone can check its right to offer."""

    def __repr__(self) -> str:
        """Name the mesh, not the key."""
        return f"Peering({self.name!r}, at={self.at})"


class PeeringAccept(msgspec.Struct, frozen=True, kw_only=True, tag="peering-accept", forbid_unknown_fields=True):
    """An admin of the mesh that an offer names agrees to exactly that offer."""

    v: Literal[1] = 1
    mesh: Bytes32
    root: Bytes32
    name: Name
    offer: Bytes32
    """Digest of the signed offer: the id of the peering."""
    iss: Bytes32
    at: Millis
    certs: Chain
    """The issuer's own chain."""


class PeeringEnd(msgspec.Struct, frozen=True, kw_only=True, tag="peering-end", forbid_unknown_fields=True):
    """An admin of either mesh ends a peering for good, before its time."""

    v: Literal[1] = 1
    mesh: Bytes32
    """The mesh that ends it."""
    peering: Bytes32
    iss: Bytes32
    at: Millis
    certs: Chain
    """The issuer's own chain."""


class Keycard(msgspec.Struct, frozen=True, kw_only=True, tag="keycard", forbid_unknown_fields=True):
    """A node's word that job keys for it are to be sealed to this prekey from now on."""

    v: Literal[1] = 1
    mesh: Bytes32
    node: Bytes32
    boot: Bytes16
    """The life of the node that has the private half."""
    prekey: Bytes32
    iat: Millis
    exp: Millis


class Mandate(msgspec.Struct, frozen=True, kw_only=True, tag="mandate", forbid_unknown_fields=True):
    """A worker's word that it takes part with a master on this way from now on. The latest of its words on that master counts."""

    v: Literal[1] = 1
    mesh: Bytes32
    node: Bytes32
    master: Bytes32
    way: Annotated[tuple[Bytes32, ...], Meta(max_length=HOPS_MAX)]
    """The bridges that speak for it, the nearest first; none: it has a link of its own."""
    life: Annotated[int, Meta(ge=0, lt=1 << 53)]
    """The number of the worker's life, as in the names of its own leases; a later one counts more."""
    serial: Annotated[int, Meta(ge=0, lt=1 << 53)]
    """Of two words of one life the higher counts."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, tag="manifest", forbid_unknown_fields=True):
    """A job, as its master signs it once. What people wrote (paths, arguments, names) is inside the encrypted body."""

    v: Literal[1] = 1
    mesh: Bytes32
    node: Bytes32
    """The master: the node that signs this, grants the tasks and takes the results."""
    owner: Name
    job: Bytes16
    tasks: Annotated[int, Meta(ge=1, le=TASKS_MAX)]
    resources: Resources = Resources()
    limits: Limits = Limits()
    retries: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] = 1
    priority: Annotated[int, Meta(ge=-100, le=100)] = 0
    sandbox: SandboxLevel = "strict"
    """The least isolation; ``none`` is only ever honoured on the master's own machine."""
    only: bytes = b""
    """Empty: any worker. 32 bytes: this worker only (``--where``)."""
    reply: Bytes32
    """X25519 public key that results of this job are sealed to; its secret stays with the job in the master's store."""
    commit: Bytes32
    """Commitment to the job key."""
    body: Annotated[tuple[BlobRef, ...], Meta(min_length=1, max_length=BODY_PARTS_MAX)]
    """The parts of the job's body, encrypted under the job key (see ``body``): name, arguments, parameters, tree."""
    blobs: Annotated[tuple[BlobRef, ...], Meta(max_length=BLOBS_MAX)] = ()
    """Every blob of the tree, so that caches and prefetch work blind."""
    submitted: Millis
    expires: Millis


class GrantItem(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One attempt: which task, which try of it (from 1), under which lease."""

    task: TaskIndex
    attempt: AttemptNumber
    lease: LeaseId


class Grant(msgspec.Struct, frozen=True, kw_only=True, tag="grant", forbid_unknown_fields=True):
    """The master gives ``to`` the right to run attempts of one job, in answer to the request with this nonce."""

    v: Literal[1] = 1
    mesh: Bytes32
    node: Bytes32
    to: Bytes32
    nonce: Bytes16
    job: Bytes16
    manifest: Bytes32
    """Digest of the signed manifest."""
    items: Annotated[tuple[GrantItem, ...], Meta(min_length=1, max_length=ITEMS_MAX)]
    key: Sealed
    """The job key, sealed to the worker's prekey, bound to the manifest's digest; empty to a bridge: see ``Granted.keys``."""
    expires: Millis


class SubGrant(msgspec.Struct, frozen=True, kw_only=True, tag="sub-grant", forbid_unknown_fields=True):
    """A bridge hands some attempts of a grant to it on to ``to``, in answer to the request with this nonce."""

    v: Literal[1] = 1
    mesh: Bytes32
    node: Bytes32
    """The bridge: whom the grant, or sub-grant, above was given to."""
    master: Bytes32
    """Whose grant it is: leases of two masters may have the same names."""
    to: Bytes32
    parent: Bytes32
    """Digest of the signed grant, or sub-grant, above."""
    nonce: Bytes16
    leases: Annotated[tuple[LeaseId, ...], Meta(min_length=1, max_length=ITEMS_MAX)]
    """Some of those of the parent, in its order."""
    expires: Millis


class ResultItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How one attempt ended and where its output is. The body is encrypted with a key sealed to ``Manifest.reply``."""

    job: Bytes16
    task: TaskIndex
    attempt: AttemptNumber
    lease: LeaseId
    outcome: Outcome
    sandbox: SandboxLevel
    """The isolation that was really used."""
    key: Sealed = b""
    """The result key, sealed to the manifest's reply key, bound to job, task, attempt and lease."""
    body: Annotated[tuple[BlobRef, ...], Meta(max_length=BODY_PARTS_MAX)] = ()
    """The parts of the result's body (see ``body``): standard output, standard error, the results' tree."""
    blobs: Annotated[tuple[BlobRef, ...], Meta(max_length=BLOBS_MAX)] = ()
    """Every blob of the results' tree and of full outputs, without the body."""
    checkpoint: bool = False
    """The results hold a checkpoint for the next attempt. Only said to masters of minor version 2 or newer."""


class Result(msgspec.Struct, frozen=True, kw_only=True, tag="result", forbid_unknown_fields=True):
    """A worker's word on attempts it ran; one signature serves a batch."""

    v: Literal[1] = 1
    mesh: Bytes32
    node: Bytes32
    """The master that granted them."""
    by: Bytes32
    items: Annotated[tuple[ResultItem, ...], Meta(min_length=1, max_length=ITEMS_MAX)]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint", forbid_unknown_fields=True):
    """The master hands on what an earlier attempt left for the one that it now grants to ``to`` under ``lease``.

    Its files are those of the earlier attempt's result, whose key is sealed anew.
    """

    v: Literal[1] = 1
    mesh: Bytes32
    node: Bytes32
    to: Bytes32
    job: Bytes16
    task: TaskIndex
    lease: LeaseId
    key: Sealed
    """The key of the earlier result, bound to job, task and lease: sealed to the worker's prekey, or, where ``to`` is a bridge's
    cluster, wrapped under the job key."""
    body: Annotated[tuple[BlobRef, ...], Meta(min_length=1, max_length=BODY_PARTS_MAX)]
    """The parts of the earlier result's body; which blobs it takes to unpack its checkpoint is said in there."""


Verdict = Literal["settled", "late", "refused"]
"""settled: this attempt counts and is durable. late: the lease is over; drop your copy. refused: it does not verify."""


class ReceiptItem(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """What the master says of one result."""

    lease: LeaseId
    verdict: Verdict


class Receipt(msgspec.Struct, frozen=True, kw_only=True, tag="receipt", forbid_unknown_fields=True):
    """The master has the results, durably; the worker may drop its copies."""

    v: Literal[1] = 1
    mesh: Bytes32
    node: Bytes32
    to: Bytes32
    items: Annotated[tuple[ReceiptItem, ...], Meta(min_length=1, max_length=ITEMS_MAX)]
