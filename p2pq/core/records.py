"""What must survive a crash: rows that the core asks to be made durable, and what the store gives back at start.

The store applies the rows of a batch in order, in one transaction; ``Restored`` is the state they add up to. Every row
survives the end of the process before anybody hears of it; whether it must survive a loss of power, too, is said by
``needs_full``.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import JobState, TaskState
from p2pq.wire.objects import ResultItem

Intervals = tuple[tuple[int, int], ...]
"""Half-open intervals of task indexes, in order."""


class _Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of all rows."""


class EpochBegun(_Row, frozen=True, kw_only=True):
    """A new life of this master; leases of it carry this epoch."""

    epoch: int


class JobAdded(_Row, frozen=True, kw_only=True):
    """A job was submitted here."""

    job: JobId
    manifest: bytes
    key: bytes
    reply_secret: bytes
    wall: Wall
    kept: Intervals = ()
    """Tasks that were done by an earlier job of the same folder: done from the start, never run, never delivered."""
    halt: Halt | None = None
    """When it stops by itself."""


class LeaseGranted(_Row, frozen=True, kw_only=True):
    """Attempt ``attempt`` of a task now belongs to ``worker``; the task is running."""

    lease: LeaseId
    job: JobId
    task: int
    attempt: int
    worker: NodeId
    wall: Wall
    via: tuple[NodeId, ...] = ()
    """The bridges that carry the link to the worker, or speak for it, the nearest first."""


class LeaseMoved(_Row, frozen=True, kw_only=True):
    """Somebody else answers for a live lease from now on: who runs it takes part another way than it was granted on."""

    lease: LeaseId
    worker: NodeId


class GrantKept(_Row, frozen=True, kw_only=True):
    """How attempts of a job were granted: ``lease`` is the first of them, the others follow it without a gap."""

    job: JobId
    lease: LeaseId
    signed: bytes
    """The ``Grant``, as it was sent."""


class LeaseEnded(_Row, frozen=True, kw_only=True):
    """A lease is over without a result (expired, returned, lost, cancelled).

    The task waits again unless it is settled or has another live lease.
    """

    lease: LeaseId
    job: JobId
    task: int
    attempt: int
    fault: str
    detail: str = ""
    counted: bool = True
    """Whether it counts towards the task's fault limit (handed back unstarted does not)."""
    leaf: NodeId | None = None
    """Of one granted to a cluster: who had it, where that is known."""
    via: tuple[NodeId, ...] = ()
    """The bridges on the way to the leaf, the nearest first."""


class HandedOn(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge's word on who was to run an attempt."""

    signed: bytes
    """The ``SubGrant``, as it came."""
    certs: tuple[bytes, ...] = ()
    """The bridge's certificates, its own first; none where they are not known."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Whose word a result is."""

    signed: bytes
    """The ``Result`` that it is part of, as it came."""
    certs: tuple[bytes, ...] = ()
    """The certificates by which its worker was linked, leaf first; none where that is this very node."""
    handed: tuple[HandedOn, ...] = ()
    """How a lease that was granted to a bridge came to the worker, the outermost bridge first; none: it was not told."""


class AttemptEnded(_Row, frozen=True, kw_only=True):
    """A verified, durable result came in; the lease is settled. The task waits again if ``state`` is pending."""

    lease: LeaseId
    job: JobId
    task: int
    worker: NodeId
    result: ResultItem
    state: TaskState
    """done, failed, pending (another attempt follows), or running (another attempt is under way already)."""
    wall: Wall
    counted: bool = True
    """Where the outcome is not ok: whether it counts as a failure (not the first death of a runner, nor a suspect's)."""
    detail: str = ""
    """How it ended, for people."""
    skipped: tuple[str, ...] = ()
    """What of its results could not travel, an entry a sentence."""
    via: tuple[NodeId, ...] = ()
    """Where the worker is a leaf of the cluster that it was granted to: the bridges on the way to it, the nearest first."""
    proof: Proof | None = None
    delivered: bool = False
    """Nothing of it is still to be written out."""


class FailureForgiven(_Row, frozen=True, kw_only=True):
    """A failed attempt that had counted against its task does so no more: its worker turned out to be at fault."""

    job: JobId
    task: int
    attempt: int


class TaskEnded(_Row, frozen=True, kw_only=True):
    """A task ended without a result that decides it (cancelled, or too many worker faults)."""

    job: JobId
    task: int
    state: TaskState
    detail: str = ""
    wall: Wall


class TasksCancelled(_Row, frozen=True, kw_only=True):
    """All tasks of a job that were not yet settled are cancelled."""

    job: JobId
    wall: Wall
    running: bool = True
    """Those that run too; otherwise these go on."""


class JobHalted(_Row, frozen=True, kw_only=True):
    """The job stops by itself, as its ``halt`` says: no further attempt begins."""

    job: JobId
    detail: str
    """After what, as a sentence for people."""


class TasksRetried(_Row, frozen=True, kw_only=True):
    """Tasks that had failed or were cancelled wait again: nothing counts against them, their attempts are counted on.

    The job is halted no longer.
    """

    job: JobId
    tasks: Intervals
    rest: bool = False
    """Of a cancelled job: those that are cancelled without a history, too."""
    wall: Wall


class TaskDelivered(_Row, frozen=True, kw_only=True):
    """The task's results lie in the owner's folder."""

    job: JobId
    task: int


class JobEnded(_Row, frozen=True, kw_only=True):
    """No task of the job is left to run or deliver."""

    job: JobId
    state: JobState
    wall: Wall


class JobReopened(_Row, frozen=True, kw_only=True):
    """A job that had ended is live again, with the tasks as they were."""

    job: "RestoredJob"


class ResultKept(_Row, frozen=True, kw_only=True):
    """As worker: a signed result that its master has not acknowledged yet."""

    lease: LeaseId
    master: NodeId
    item: ResultItem
    wall: Wall
    """Since when."""
    owner: str = ""
    """Whose job it is of; empty where a version kept it that did not remember."""
    subs: tuple[bytes, ...] = ()
    """The signed sub-grants by which bridges handed its lease on to this node, the outermost bridge's first."""


class ResultReleased(_Row, frozen=True, kw_only=True):
    """As worker: acknowledged, or no longer wanted."""

    lease: LeaseId
    master: NodeId


class PeerSeen(_Row, frozen=True, kw_only=True):
    """A member that was linked, and where; dialled again after a restart."""

    node: NodeId
    name: str
    addresses: tuple[str, ...]


class BanKept(_Row, frozen=True, kw_only=True):
    """A ban, or its end; the latest per node and issuer counts. With an issuer and no signature: that word is void."""

    node: NodeId
    banned: bool
    issuer: bytes = b""
    """The admin who signed it; empty: this node's own user, for this node only."""
    signed: bytes = b""


class OwnerBanKept(_Row, frozen=True, kw_only=True):
    """A ban of all nodes of an owner, or its end; otherwise as ``BanKept``."""

    owner: str
    banned: bool
    issuer: bytes = b""
    signed: bytes = b""


class MeshKeysKept(_Row, frozen=True, kw_only=True):
    """All signed mesh keys that count, newest first; they take the place of those that were kept before."""

    signed: tuple[bytes, ...]

    def __repr__(self) -> str:
        """Name how many, not which."""
        return f"MeshKeysKept({len(self.signed)})"


class PeeringKept(_Row, frozen=True, kw_only=True):
    """All that is known of a peering with another mesh; takes the place of what was kept of it before."""

    id: bytes
    """Digest of the signed offer."""
    offer: bytes
    accept: bytes
    end: bytes = b""

    def __repr__(self) -> str:
        """Name which, not its key."""
        return f"PeeringKept({self.id.hex()[:8]})"


class PeerBanKept(_Row, frozen=True, kw_only=True):
    """What an admin of another mesh said of a member of that mesh; the latest per issuer and subject counts."""

    mesh: bytes
    issuer: bytes
    subject: bytes
    """``n`` and a node's id, or ``o`` and an owner's name."""
    signed: bytes


Row = (
    EpochBegun
    | JobAdded
    | LeaseGranted
    | LeaseMoved
    | GrantKept
    | LeaseEnded
    | AttemptEnded
    | FailureForgiven
    | TaskEnded
    | TasksCancelled
    | TaskDelivered
    | JobEnded
    | JobHalted
    | JobReopened
    | TasksRetried
    | ResultKept
    | ResultReleased
    | PeerSeen
    | BanKept
    | OwnerBanKept
    | MeshKeysKept
    | PeeringKept
    | PeerBanKept
)


_FULL: Final = (
    EpochBegun, JobAdded, AttemptEnded, TaskEnded, TasksCancelled, TasksRetried, JobEnded, ResultKept, BanKept,
    OwnerBanKept, MeshKeysKept, PeeringKept, PeerBanKept,
)  # fmt: skip


def needs_full(rows: Iterable[Row]) -> bool:
    """Tell whether rows must survive a loss of power before anybody hears of them.

    So must what cannot be had again (jobs, results, bans, what owners asked for), what people were told is over, and the epoch
    that fences all the rest: a grant, the end of a lease or a receipt that is undone belongs to an older epoch than whatever
    follows.
    """
    return any(isinstance(row, _FULL) for row in rows)


class RestoredTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is not plain pending: it has a history."""

    task: int
    state: TaskState
    attempts: int = 0
    """Attempts granted so far."""
    failures: int = 0
    """Attempts that ended by the task's own doing."""
    faults: int = 0
    """Attempts that ended by a worker's doing and count."""
    detail: str = ""
    """Of the TaskEnded row, if that is how it ended."""
    delivered: bool = False
    """Nothing is left to deliver: delivered, or it ended without a result (TaskEnded, TasksCancelled)."""
    died: bool = False
    """An attempt of it has killed its runner; the next time counts."""
    checkpoint: ResultItem | None = None
    """Of a task that is not over: the result of the latest attempt that left a checkpoint."""


class RestoredLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that was live when the master went down."""

    lease: LeaseId
    job: JobId
    task: int
    attempt: int
    worker: NodeId


class RestoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that has not ended."""

    job: JobId
    manifest: bytes
    key: bytes
    reply_secret: bytes
    wall: Wall
    tasks: tuple[RestoredTask, ...] = ()
    """By index; only those that are not plain pending (or, where ``cancelled``, not plain cancelled) and not ``kept``."""
    cancelled: bool = False
    """TasksCancelled was recorded: a task that is neither in ``tasks`` nor ``kept`` is cancelled."""
    kept: Intervals = ()
    halt: Halt | None = None
    halted: str = ""
    """After what it was halted, if it was."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the core needs of its earlier lives.

    In a fixed order, so that two stores can be compared: jobs as they were added, tasks by index, leases by id, settled
    by epoch, kept by master and lease, peers by when they were last seen (the latest at the end), bans by node.
    """

    epoch: int = 0
    """The highest epoch ever used; the new life uses one more."""
    rebuilt: int = 0
    """The store was damaged and rebuilt: what became of leases up to this epoch is not known for sure, unless settled."""
    jobs: tuple[RestoredJob, ...] = ()
    leases: tuple[RestoredLease, ...] = ()
    grants: tuple[GrantKept, ...] = ()
    """How these leases were granted, as far as that is kept, by job and lease."""
    settled: tuple[tuple[int, tuple[tuple[int, int], ...]], ...] = ()
    """Per epoch, the half-open intervals of lease counters that were settled."""
    kept: tuple[ResultKept, ...] = ()
    peers: tuple[PeerSeen, ...] = ()
    bans: tuple[BanKept, ...] = ()
    owner_bans: tuple[OwnerBanKept, ...] = ()
    mesh_keys: tuple[bytes, ...] = ()
    """Signed, newest first."""
    peerings: tuple[PeeringKept, ...] = ()
    """By id."""
    peer_bans: tuple[PeerBanKept, ...] = ()
    """By mesh, issuer and subject."""
