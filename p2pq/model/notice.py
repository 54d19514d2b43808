"""Facts worth telling people. The core emits them; ``daemon/telemetry.py`` makes each one log line and one counter."""

import msgspec

from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import JobState, Outcome, TaskState


class _Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of all notices."""


class JobQueued(_Notice, frozen=True, kw_only=True):
    """A job was accepted and is durable."""

    job: JobId
    tasks: int


class TaskGranted(_Notice, frozen=True, kw_only=True):
    """As master: a worker got an attempt."""

    job: JobId
    task: int
    attempt: int
    lease: LeaseId
    worker: NodeId


class TaskProgressed(_Notice, frozen=True, kw_only=True):
    """As master: a running task told how far it is, in thousandths."""

    job: JobId
    task: int
    progress: int


class AttemptLost(_Notice, frozen=True, kw_only=True):
    """As master: an attempt ended by its worker's doing; the task waits again or is given up."""

    job: JobId
    task: int
    attempt: int
    worker: NodeId
    fault: str
    detail: str = ""


class AttemptFailed(_Notice, frozen=True, kw_only=True):
    """As master: an attempt ended by the task's own doing and another follows."""

    job: JobId
    task: int
    attempt: int
    worker: NodeId
    outcome: Outcome


class TaskSettled(_Notice, frozen=True, kw_only=True):
    """As master: a task is over and its result durable."""

    job: JobId
    task: int
    attempt: int
    state: TaskState
    worker: NodeId | None = None
    outcome: Outcome | None = None
    detail: str = ""
    left: bool = False
    """Something of it is kept: what it printed, or left as results."""


class TaskResultsWritten(_Notice, frozen=True, kw_only=True):
    """As master: a task's results lie in the owner's folder."""

    job: JobId
    task: int


class TaskResultsStuck(_Notice, frozen=True, kw_only=True):
    """As master: a task's results cannot be written out now; they stay in the store and are tried again."""

    job: JobId
    task: int
    reason: str


class TaskResultsLost(_Notice, frozen=True, kw_only=True):
    """As master: the results of a task that was done are damaged or gone here before they were written out; it runs again."""

    job: JobId
    task: int
    reason: str


class TasksRetried(_Notice, frozen=True, kw_only=True):
    """As master: the owner wanted tasks that had failed (or were cancelled) run again."""

    job: JobId
    tasks: int
    """How many wait again."""


class JobHalted(_Notice, frozen=True, kw_only=True):
    """As master: a job stops by itself, as ``--halt`` says."""

    job: JobId
    detail: str


class JobFinished(_Notice, frozen=True, kw_only=True):
    """Every task of the job is over and delivered."""

    job: JobId
    state: JobState


class LeaseExpired(_Notice, frozen=True, kw_only=True):
    """As master: a worker did not renew in time."""

    lease: LeaseId
    worker: NodeId
    held_s: float


class LateResult(_Notice, frozen=True, kw_only=True):
    """As master: a result for a lease that is over; acknowledged and dropped."""

    lease: LeaseId
    worker: NodeId


class WorkerSuspected(_Notice, frozen=True, kw_only=True):
    """As master: attempts of a job fail there that succeed elsewhere; the worker must prove itself, one by one."""

    job: JobId
    worker: NodeId
    failures: int
    """Tasks that failed there in a row."""


class GuestTaken(_Notice, frozen=True, kw_only=True):
    """As worker: an attempt for somebody begins (or is fetched)."""

    lease: LeaseId
    master: NodeId
    owner: str
    job: JobId
    task: int


class GuestEnded(_Notice, frozen=True, kw_only=True):
    """As worker: an attempt ended here."""

    lease: LeaseId
    master: NodeId
    job: JobId
    task: int
    reason: str


class KeptForgotten(_Notice, frozen=True, kw_only=True):
    """As worker: results that were kept for so long that their master is not waited for any more."""

    master: NodeId
    results: int


class NodeWoke(_Notice, frozen=True, kw_only=True):
    """This node did nothing for a while; ``counted``: its clock went on meanwhile (a stopped process, a hang)."""

    slept_s: float
    counted: bool


class PeerUp(_Notice, frozen=True, kw_only=True):
    """A link stands."""

    peer: NodeId
    name: str
    address: str
    """Empty where bridges carry the link."""
    path: tuple[NodeId, ...] = ()
    """These, the nearest first."""


class PeerDown(_Notice, frozen=True, kw_only=True):
    """A link is gone."""

    peer: NodeId
    reason: str


class PeerRefused(_Notice, frozen=True, kw_only=True):
    """A node was not let in, or did not let us in; the reason is one stable phrase."""

    address: str
    reason: str
    peer: NodeId | None = None


class BridgeSuspected(_Notice, frozen=True, kw_only=True):
    """A bridge did not carry what it was given, or gave something else; it comes behind the others for a while."""

    bridge: NodeId
    reason: str
    peer: NodeId | None = None
    """To whom it was to lead, where it carried a link."""


class LinksFull(_Notice, frozen=True, kw_only=True):
    """More peers than links are allowed; bridges are the way to grow."""

    links_max: int


class TooFar(_Notice, frozen=True, kw_only=True):
    """As bridge: a master is so many bridges away that this one does not speak to it for anybody."""

    master: NodeId
    path: tuple[NodeId, ...]
    """The bridges on the way to it, the nearest first."""


class WayLeft(_Notice, frozen=True, kw_only=True):
    """A bridge shows a master, and nothing that it has signed came that way for too long; another way is tried."""

    master: NodeId
    bridge: NodeId


class PeerBanned(_Notice, frozen=True, kw_only=True):
    """A node is out (or in again)."""

    peer: NodeId
    banned: bool
    by: str


class OwnerBanned(_Notice, frozen=True, kw_only=True):
    """All nodes of an owner are out (or in again)."""

    owner: str
    banned: bool
    by: str


class PeeringChanged(_Notice, frozen=True, kw_only=True):
    """A peering with another mesh was heard of; or that it has ended."""

    mesh: str
    """What the other mesh is called."""
    ended: bool
    by: str


class PeeringLapsed(_Notice, frozen=True, kw_only=True):
    """A link with a node of another mesh is not covered by any peering any more."""

    mesh: str
    peer: NodeId


class MeshKeyRotated(_Notice, frozen=True, kw_only=True):
    """The mesh has a new key; who knows an earlier one is still let in."""

    by: str


class PrekeyChanged(_Notice, frozen=True, kw_only=True):
    """This node has a new prekey, which handshakes name from now on."""

    prekey: bytes


Notice = (
    JobQueued
    | TaskGranted
    | TaskProgressed
    | AttemptLost
    | AttemptFailed
    | TaskSettled
    | TaskResultsWritten
    | TaskResultsStuck
    | TaskResultsLost
    | TasksRetried
    | JobHalted
    | JobFinished
    | LeaseExpired
    | LateResult
    | WorkerSuspected
    | GuestTaken
    | GuestEnded
    | KeptForgotten
    | NodeWoke
    | PeerUp
    | PeerDown
    | PeerRefused
    | BridgeSuspected
    | LinksFull
    | TooFar
    | WayLeft
    | PeerBanned
    | OwnerBanned
    | MeshKeyRotated
    | PeeringChanged
    | PeeringLapsed
    | PrekeyChanged
)
