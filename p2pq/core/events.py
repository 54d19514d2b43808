"""Everything that can happen to a node. Events are values: they can be written down and fed again."""

from typing import Final

import msgspec

from p2pq.core.records import Intervals, RestoredJob
from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Fault, Outcome, Profile
from p2pq.model.owner import Verdict
from p2pq.wire.messages import CoreMessage, PeeringKnown
from p2pq.wire.objects import BlobRef


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of all events."""


class Tick(_Event, frozen=True, kw_only=True):
    """Nothing but time has passed.

    The core derives wall time from ``now`` and the last ``wall`` it was told (here or at construction); the driver
    tells it again every minute and after a jump.
    """

    wall: Wall | None = None


class Woke(_Event, frozen=True, kw_only=True):
    """This node did nothing for a while: its machine slept, its process was stopped or hung.

    Handled before the deadlines that passed meanwhile, and before whatever waited.
    """

    slept_s: float
    counted: bool
    """Whether the clock of the core, ``now``, went on meanwhile (a stopped process), or stood still (a machine's sleep)."""


class AddressSeen(_Event, frozen=True, kw_only=True):
    """Somebody may listen there: a hint from mDNS, a peer, the configuration or memory."""

    addresses: tuple[str, ...]
    source: str
    """``mdns``, ``peer``, ``config`` or ``memory``."""
    node: NodeId | None = None
    """Who is said to be there, where the source claims to know."""


class LinkUp(_Event, frozen=True, kw_only=True):
    """A mutually authenticated link to a member stands."""

    peer: NodeId
    name: str
    owner: str
    caps: tuple[str, ...]
    boot: bytes
    minor: int
    prekey: bytes
    address: str
    """Where it was dialled, or where it says that it listens; remembered for the next start."""
    dialled: bool = False
    addresses: tuple[str, ...] = ()
    path: tuple[NodeId, ...] = ()
    """The bridges that carry this link, the nearest first; none: it is direct."""
    certs: tuple[bytes, ...] = ()
    """By which it was let in, or by which it was shown, leaf first; none where that is this very node."""
    bridges: tuple[tuple[bytes, ...], ...] = ()
    """Of a master that a bridge has shown: the chains of the further bridges on the way to it, the nearest first."""
    mesh: bytes = b""
    """Its mesh, where that is another than ours. ``caps`` is what it may do here, and ``owner`` is ``OWNER@REALM`` then."""
    realm: str = ""
    """What its mesh is called."""
    peering: bytes = b""
    """The id of the peering that let it in."""

    @property
    def way(self) -> tuple[NodeId, ...]:
        """The bridges that speak for this peer, the outermost first; none where it has shown a prekey of its own."""
        return () if self.prekey else self.path[::-1]

    @property
    def far(self) -> bool:
        """Whether it is not of our own network: behind bridges, that carry the link or speak for it, or of another mesh."""
        return bool(self.path or self.mesh)

    @property
    def claimed(self) -> str:
        """The owner as its certificate has it."""
        return self.owner.removesuffix(f"@{self.realm}") if self.mesh else self.owner


# Reasons of LinkDown that the core judges bridges by; all but the first may have honest causes.
ALTERED: Final = "altered"
"""On a link that bridges carry came what is not the next record of the peer: changed, repeated, swapped, cut short or made up."""
CUT: Final = "cut"
SILENT: Final = "silent"
SLOW: Final = "too-slow"

# The same of DialFailed.
OTHER_NODE: Final = "other-node"
"""A bridge leads to another member than it was asked for."""
NO_ANSWER: Final = "no-answer"
NO_WAY: Final = "no-way"

# Reasons of Misserved.
OTHER_BYTES: Final = "other-bytes"
NO_BLOBS: Final = "no-blobs"
FORGED: Final = "forged-sub-grant"
"""A bridge told of how a lease came to a leaf what no honest one says or passes on."""


class LinkDown(_Event, frozen=True, kw_only=True):
    """The link to that peer is gone. ``reason`` is a word: one of the above, or whatever the transport or the peer says."""

    peer: NodeId
    reason: str = ""


class DialFailed(_Event, frozen=True, kw_only=True):
    """Nobody of this mesh answered there. ``reason`` is a stable phrase of ``wire.session`` or the transport."""

    address: str
    reason: str
    node: NodeId | None = None


class Misserved(_Event, frozen=True, kw_only=True):
    """A linked peer gave something else than the blob that was asked for; or, as a bridge, nothing where another one had it.

    Or, as a bridge that speaks for leaves, sub-grants that are none.
    """

    peer: NodeId
    reason: str


class Received(_Event, frozen=True, kw_only=True):
    """A linked peer said something (decoded and within its type's bounds, otherwise unchecked)."""

    peer: NodeId
    message: CoreMessage


class Submitted(_Event, frozen=True, kw_only=True):
    """A job of this node: its manifest, signed by this node, with the job key and the reply secret."""

    manifest: bytes
    key: bytes
    reply_secret: bytes
    wall: Wall
    kept: Intervals = ()
    """Tasks that an earlier job of the same folder has done."""
    halt: Halt | None = None
    """When it is to stop by itself."""


class CancelAsked(_Event, frozen=True, kw_only=True):
    """The owner wants a job, or one task of it, stopped; so does this node where the files of a job are lost.

    Where nothing is left to stop, results that could not be written out are given up.
    """

    job: JobId
    task: int | None = None
    wall: Wall
    lost: str = ""
    """How its files were lost: what waits is cancelled, and no worker is to blame that it could not have them."""


class RetryAsked(_Event, frozen=True, kw_only=True):
    """The owner wants the failed tasks of a job, or one of them, run again (and, if so said, the cancelled ones)."""

    job: JobId
    task: int | None = None
    cancelled: bool = False
    ended: RestoredJob | None = None
    """What the store has of the job, where it has ended."""
    wall: Wall


class Started(_Event, frozen=True, kw_only=True):
    """An attempt of ours (as worker) runs now."""

    lease: LeaseId
    master: NodeId


class Vacated(_Event, frozen=True, kw_only=True):
    """Nothing of an attempt of ours (as worker) runs any more; until it has Exited, only what it left is packed and kept."""

    lease: LeaseId
    master: NodeId


class Exited(_Event, frozen=True, kw_only=True):
    """An attempt of ours (as worker) ended and its results are sealed and durable here."""

    lease: LeaseId
    master: NodeId
    outcome: Outcome
    sandbox: str
    key: bytes = b""
    body: tuple[BlobRef, ...] = ()
    blobs: tuple[BlobRef, ...] = ()
    checkpoint: bool = False
    """The results hold a checkpoint. One that was told to end (``saved``) and left none has no results at all."""


class TrainExited(_Event, frozen=True, kw_only=True):
    """Attempts of ours (as worker) that were started together have ended, in this order."""

    exits: tuple[Exited, ...]
    back: tuple[tuple[NodeId, LeaseId], ...] = ()
    """Masters and leases of those behind them that have not begun, and are not going to: what runs is longer than was thought."""
    apart: bool = False
    """One of those may have lost the runner of all: each runs alone from now on."""


class Faulted(_Event, frozen=True, kw_only=True):
    """An attempt of ours (as worker) failed by this node's doing: fetch, sandbox, disk. Not the task's fault."""

    lease: LeaseId
    master: NodeId
    fault: Fault
    detail: str = ""


class Progressed(_Event, frozen=True, kw_only=True):
    """A running attempt of ours (as worker) told its progress, in thousandths."""

    lease: LeaseId
    master: NodeId
    progress: int


class Collected(_Event, frozen=True, kw_only=True):
    """As master: all blobs of the result under this lease are durable here."""

    lease: LeaseId
    detail: str = ""
    """What it says on how the attempt ended, for people."""
    skipped: tuple[str, ...] = ()
    """What of the results could not travel by the task's own doing, an entry a sentence."""


class CollectFailed(_Event, frozen=True, kw_only=True):
    """As master: the blobs of that result could not be had now; the worker keeps them and will say so again."""

    lease: LeaseId
    reason: str
    refused: bool = False
    """They are here, but are not what a result must be; there is no point in having them again."""
    slow: bool = False
    """Their worker did not bring them at the pace that is asked for (``collecting``)."""


class Delivered(_Event, frozen=True, kw_only=True):
    """As master: the final results of a task lie in the owner's folder."""

    job: JobId
    task: int
    wall: Wall


class DeliverFailed(_Event, frozen=True, kw_only=True):
    """As master: results could not be written out (full disk, folder gone); they stay in the store."""

    job: JobId
    task: int
    reason: str
    refused: bool = False
    """They are not what their worker signed: they will never be written out."""
    void: bool = False
    """They were, and are damaged or gone here: the task has no result any more."""


class Several(_Event, frozen=True, kw_only=True):
    """As master: results were brought here, and written out, together."""

    events: tuple[Collected | CollectFailed | Delivered, ...]


class Offering(_Event, frozen=True, kw_only=True):
    """What this node offers as a worker changed (start, policy, self-test, settings)."""

    profile: Profile
    own: Profile
    """What its own jobs may use: the same machine under the rules for own work."""


class OwnerIs(_Event, frozen=True, kw_only=True):
    """What guests may do here changed, by the policy of this machine's owner."""

    verdict: Verdict
    grace_s: float = 0.0
    """What is evicted has so long to leave a checkpoint."""


class TrustAsked(_Event, frozen=True, kw_only=True):
    """Base of what the user asks of the membership; neither master nor worker takes it in."""


class BanAsked(TrustAsked, frozen=True, kw_only=True):
    """The user bans (or unbans) a node here; signed too where this node is an admin."""

    node: NodeId
    banned: bool
    signed: bytes = b""


class OwnerBanAsked(TrustAsked, frozen=True, kw_only=True):
    """The user bans (or unbans) all nodes of an owner here; signed too where this node is an admin."""

    owner: str
    banned: bool
    signed: bytes = b""


class MeshKeyAsked(TrustAsked, frozen=True, kw_only=True):
    """The user, whose node is an admin's, gives the mesh a new key."""

    signed: bytes


class PeeringAsked(TrustAsked, frozen=True, kw_only=True):
    """The user makes a peering with another mesh known, or that it has ended."""

    known: PeeringKnown


class Drain(_Event, frozen=True, kw_only=True):
    """The node is going down: hand back what is not running to its end; take nothing more."""

    save_s: float = 0.0
    """More than 0: what runs is told to end and has so long to leave a checkpoint."""
    now: bool = False
    """Hand back everything."""


Event = (
    Tick
    | Woke
    | AddressSeen
    | LinkUp
    | LinkDown
    | DialFailed
    | Misserved
    | Received
    | Submitted
    | CancelAsked
    | RetryAsked
    | Started
    | Vacated
    | Exited
    | TrainExited
    | Faulted
    | Progressed
    | Collected
    | CollectFailed
    | Delivered
    | DeliverFailed
    | Several
    | Offering
    | OwnerIs
    | BanAsked
    | OwnerBanAsked
    | MeshKeyAsked
    | PeeringAsked
    | Drain
)
