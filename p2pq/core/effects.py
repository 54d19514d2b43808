"""Everything a node can ask for. Effects are ordered; ``Record`` is a barrier before any later ``Send`` of the turn."""

import msgspec

from p2pq.core.records import Row
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import Limits, Resources, SandboxLevel
from p2pq.model.notice import Notice
from p2pq.wire.messages import CoreMessage
from p2pq.wire.objects import BlobRef


class _Effect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of all effects."""


class Send(_Effect, frozen=True, kw_only=True):
    """Say this to a linked peer. To itself: never appears (the node routes it inside the turn)."""

    peer: NodeId
    message: CoreMessage


class Record(_Effect, frozen=True, kw_only=True):
    """Make this durable before any later Send of this turn leaves."""

    row: Row


class Dial(_Effect, frozen=True, kw_only=True):
    """Try to link to whoever listens there."""

    address: str
    node: NodeId | None = None


class Hangup(_Effect, frozen=True, kw_only=True):
    """End the link, politely."""

    peer: NodeId
    reason: str


class Drop(_Effect, frozen=True, kw_only=True):
    """A peer said something it must not say: count, log, ignore. ``close`` ends the link too."""

    peer: NodeId
    reason: str
    close: bool = False
    suspect: str = ""
    """What only a bridge can have done, as a reason of ``Misserved``: it is put behind the others (docs/adr/0212)."""


class Start(_Effect, frozen=True, kw_only=True):
    """As worker: run this attempt. The daemon fetches what is missing from the master, then starts.

    Answered by Started, then Exited or Faulted; by Faulted alone when it cannot start.
    """

    lease: LeaseId
    master: NodeId
    owner: str
    job: JobId
    task: int
    attempt: int
    tasks: int
    key: bytes
    """The job key, opened. Kept in memory only."""
    reply: bytes
    """X25519 public key that the results are sealed to."""
    body: tuple[BlobRef, ...]
    blobs: tuple[BlobRef, ...]
    inline: tuple[bytes, ...] = ()
    """Ciphertext of small blobs that came with the grant."""
    resources: Resources
    limits: Limits
    sandbox: SandboxLevel
    """The level to use (already decided)."""
    own: bool
    """Submitted on this very node: normal priority."""
    may_be_empty: bool = False
    """Its master takes a result without a body, of an attempt that left and printed nothing."""
    checkpoint_key: bytes = b""
    """Opens the body that holds the checkpoint. Kept in memory only."""
    checkpoint: tuple[BlobRef, ...] = ()
    """The parts of an earlier attempt's result whose checkpoint is put in place first; none: it starts from nothing."""


class Train(_Effect, frozen=True, kw_only=True):
    """As worker: run these attempts of one job one after another, in one slot.

    Answered by TrainExited as they end, or for each as ``Start`` is.
    """

    starts: tuple[Start, ...]


class Fetch(_Effect, frozen=True, kw_only=True):
    """As worker: get the blobs of a job that will probably run here next. A hint; no answer needed."""

    master: NodeId
    job: JobId
    blobs: tuple[BlobRef, ...]


class Kill(_Effect, frozen=True, kw_only=True):
    """As worker: end this attempt and forget it; no result is wanted, unless it is given time for a checkpoint."""

    lease: LeaseId
    master: NodeId
    reason: str
    detail: str = ""
    """More about it, for people."""
    checkpoint_s: float = 0.0
    """More than 0: ask it to end, give it so long at most, and answer Exited (``saved``) with what checkpoint it left."""


class Suspend(_Effect, frozen=True, kw_only=True):
    """As worker: let this attempt stand still, or not begin, until ``Continue``. A Kill may come first."""

    lease: LeaseId
    master: NodeId
    reason: str = ""
    """Why, for people; none where that is this node's own affair."""


class Continue(_Effect, frozen=True, kw_only=True):
    """As worker: let a suspended attempt go on."""

    lease: LeaseId
    master: NodeId


class Release(_Effect, frozen=True, kw_only=True):
    """As worker: the result under this lease is acknowledged (or refused); its blobs need no pin any more."""

    lease: LeaseId
    master: NodeId


class Collect(_Effect, frozen=True, kw_only=True):
    """As master: make these blobs durable here (inline ones first, the rest from the peer), then answer Collected."""

    lease: LeaseId
    peer: NodeId
    through: NodeId | None = None
    """The linked bridge that speaks for the peer, where that is a leaf of a cluster."""
    blobs: tuple[BlobRef, ...]
    inline: tuple[bytes, ...] = ()


class Forget(_Effect, frozen=True, kw_only=True):
    """As master: nothing goes on from the result under this lease (any more); its blobs need no pin."""

    lease: LeaseId


class Deliver(_Effect, frozen=True, kw_only=True):
    """As master: write the settled task's results into the owner's folder; answer Delivered or DeliverFailed."""

    job: JobId
    task: int


class Emit(_Effect, frozen=True, kw_only=True):
    """Tell people: one log line, one counter, watchers of the job."""

    notice: Notice


Effect = (
    Send
    | Record
    | Dial
    | Hangup
    | Drop
    | Start
    | Train
    | Fetch
    | Kill
    | Suspend
    | Continue
    | Release
    | Collect
    | Forget
    | Deliver
    | Emit
)
