"""The local API: what the command line and the Python client say to their node over its Unix socket.

A frame is 4 bytes of length (big endian, at most FRAME_BYTES_MAX) and MessagePack. The client sends ``Hello``; the node
answers ``Welcome`` or ``Failed``. Then the client sends one request; the node answers with any number of items of that
request's kind and ends with ``Done`` or ``Failed``. More requests may follow, one at a time. Closing it ends a stream.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.model.job import JobState, Resources, SandboxLevel, TaskState
from p2pq.model.params import Axis
from p2pq.wire import local
from p2pq.wire.commandcontrol import Ends, KeepInput, SubmitCommands, TaskEnded
from p2pq.wire.parts import KeptLimits, KeptView, PolicyView, RunningView, SpokenView
from p2pq.wire.peercontrol import PeerAccept, PeerEnd, PeeringFile, PeeringsList, PeeringView, PeerOffer
from p2pq.wire.resultcontrol import Results, Wrote
from p2pq.wire.settingcontrol import PauseGuests, SettingsList, SettingView

API_VERSION: Final = local.API_VERSION
FRAME_BYTES_MAX: Final = local.FRAME_BYTES_MAX
TOKEN_BYTES: Final = 32

Path_ = Annotated[str, Meta(min_length=1, max_length=4096)]
JobName = Annotated[str, Meta(min_length=1, max_length=64)]
"""A job id, or the unique beginning of one (4 characters at least)."""


class _Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Base of all requests and replies; the tag is the class name."""


# -- requests --------------------------------------------------------------------------------------------------------------


class Hello(_Said, frozen=True, kw_only=True):
    """Who asks: the token of the node's home (``HOME/api.token``) and the client's version."""

    api: int = API_VERSION
    token: bytes
    version: str = ""


EVERYTHING: Final = "!*"
"""A pattern for ``exclude``: all of the folder travels, whatever ignore files say."""


class Submit(_Said, frozen=True, kw_only=True):
    """Submit a folder. Items: Note (warnings), then one JobView. Paths are absolute, on this machine."""

    folder: Path_
    args: tuple[str, ...] = ()
    name: str = ""
    main: str = ""
    results: str = ""
    stays: bool = False
    """Where results go; empty: ``FOLDER/results``. With ``stays`` nowhere: only what tasks print can be read."""
    exclude: tuple[str, ...] = ()
    array: str = ""
    sweep: tuple[str, ...] = ()
    axes: tuple[Axis, ...] = ()
    """``0-99:5`` and ``k=1,2,3`` or ``x=0:1:0.1`` as typed; then the same as values."""
    config: str = ""
    data: str = ""
    """A file that travels as ``.p2pq/data.pickle``."""
    resources: Resources = Resources()
    time_s: int = 0
    """0: the default of 24 h."""
    retries: int = 1
    priority: int = 0
    where: str = "any"
    """``any``, ``local``, or the name or id of a node."""
    sandbox: SandboxLevel = "strict"
    umask: Annotated[int, Meta(ge=0, le=0o777)] = 0o022
    """Modes that the user does not want on the results."""
    hooks: tuple[str, str] = ("", "")  # as begin and end of SubmitCommands
    halt: str = ""
    """``now,fail=3``, ``soon,fail=10%`` and the like, as typed; empty: never."""
    resume: bool = False
    """Run only what the latest job of this folder and these results has not done with the same inputs."""
    keep_done: bool = False
    """With ``resume``: what was done counts even if files or arguments have changed since."""
    cold: bool = False
    """Start each task in a fresh interpreter, whatever ``[tool.p2pq] warm`` says."""
    env: Literal["auto", "none", "bundle", "freeze"] = "auto"
    """``auto``: each node builds what packages the folder asks for; ``none``: tasks have the Python that is there;
    ``bundle``: the packages go along, for the Pythons and machines of all nodes that this one knows;
    ``freeze``: the script, its packages and Python go along as one program."""


class Jobs(_Said, frozen=True, kw_only=True):
    """List jobs, newest first. Items: JobView."""

    limit: int = 100


class Show(_Said, frozen=True, kw_only=True):
    """One job. Item: JobView."""

    job: JobName


class Tasks(_Said, frozen=True, kw_only=True):
    """The tasks of a job. Items: TaskView, in order."""

    job: JobName


class Attempts(_Said, frozen=True, kw_only=True):
    """One task and its attempts. Items: one TaskView, then AttemptView, in order."""

    job: JobName
    task: int


class Watch(_Said, frozen=True, kw_only=True):
    """Follow jobs until all have ended. Items: Change, first of all the present state of each job; Note on waiting > 10 s."""

    jobs: tuple[JobName, ...]


class Logs(_Said, frozen=True, kw_only=True):
    """Output of a job's tasks. Items: LogChunk."""

    job: JobName
    task: int | None = None
    stream: Literal["stdout", "stderr"] = "stdout"
    follow: bool = False
    attempt: Annotated[int, Meta(ge=0)] = 0
    """Which attempt of the task; 0: the latest that has output."""


class CancelJob(_Said, frozen=True, kw_only=True):
    """Stop a job or one task of it. Item: JobView."""

    job: JobName
    task: int | None = None


class Retry(_Said, frozen=True, kw_only=True):
    """Run the failed tasks of a job (``cancelled``: the cancelled ones too), or one of them, again. Item: JobView."""

    job: JobName
    task: int | None = None
    cancelled: bool = False


class Why(_Said, frozen=True, kw_only=True):
    """Why a job or task is as it is. Item: Note with one sentence and one suggestion."""

    job: JobName
    task: int | None = None


class Status(_Said, frozen=True, kw_only=True):
    """This node. Item: StatusView."""


class PeersList(_Said, frozen=True, kw_only=True):
    """Peers. Items: PeerView."""


class Members(_Said, frozen=True, kw_only=True):
    """Members of the mesh that this node knows. Items: MemberView."""


class Mesh(_Said, frozen=True, kw_only=True):
    """What mesh this is. Item: MeshView."""


class MeshInit(_Said, frozen=True, kw_only=True):
    """Make a new mesh of which this node is the founder and admin. Item: MeshView. The node restarts its links."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]


class Invite(_Said, frozen=True, kw_only=True):
    """Let others in by a one-time code. Item: InviteView."""

    caps: tuple[str, ...] = ("submit", "work")
    owner: str = ""
    """As whom the joiner counts; empty: as this node's owner."""
    ttl_s: int = 600
    uses: int = 1


class Join(_Said, frozen=True, kw_only=True):
    """Join a mesh by code. Item: MeshView. Refused while this node's mesh has other members or live jobs."""

    code: Annotated[str, Meta(min_length=8, max_length=32)]
    at: str = ""
    """HOST:PORT of the inviter; empty: found by mDNS."""


class BanMember(_Said, frozen=True, kw_only=True):
    """Put a node out, or let it in again. Item: Note."""

    who: Annotated[str, Meta(min_length=1, max_length=100)]
    banned: bool = True


class BanOwner(_Said, frozen=True, kw_only=True):
    """Put all nodes of an owner out, or let them in again. Item: Note."""

    owner: Annotated[str, Meta(min_length=1, max_length=100)]
    banned: bool = True


class RotateKey(_Said, frozen=True, kw_only=True):
    """Give the mesh a new key. Item: Note."""


class Doctor(_Said, frozen=True, kw_only=True):
    """What works here and what does not. Items: Finding."""


class Stop(_Said, frozen=True, kw_only=True):
    """End the node: hand back leases and go (``now``: kill what runs)."""

    now: bool = False


ControlRequest = (
    Submit
    | KeepInput
    | SubmitCommands
    | Ends
    | Jobs
    | Show
    | Tasks
    | Attempts
    | Watch
    | Logs
    | Results
    | CancelJob
    | Retry
    | Why
    | Status
    | PeersList
    | Members
    | Mesh
    | MeshInit
    | Invite
    | Join
    | BanMember
    | BanOwner
    | RotateKey
    | PeeringsList
    | PeerOffer
    | PeerAccept
    | PeerEnd
    | Doctor
    | SettingsList
    | PauseGuests
    | Stop
)

# -- replies ----------------------------------------------------------------------------------------------------------------


class Welcome(_Said, frozen=True, kw_only=True):
    """The node answers Hello."""

    id: str
    name: str
    version: str


class Done(_Said, frozen=True, kw_only=True):
    """The request is answered in full."""


class Failed(_Said, frozen=True, kw_only=True):
    """The request could not be done: one sentence that says what to do next, and the exit code for it."""

    message: str
    exit_code: int = 4
    retryable: bool = False


class Note(_Said, frozen=True, kw_only=True):
    """One sentence for people."""

    text: str
    suggestion: str = ""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks of a job by state."""

    total: int
    pending: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class JobView(_Said, frozen=True, kw_only=True, omit_defaults=False):
    """A job as ``jobs`` and ``show`` print it. Times are RFC 3339 in UTC."""

    job: str
    name: str
    owner: str
    state: JobState
    tasks: Counts
    attempts: int
    submitted: str
    finished: str | None = None
    results: str
    folder: str = ""
    halted: str = ""
    kept: int = 0
    """Tasks that an earlier job had done (``--resume``); they count as done. ``halted``: after what it was (``--halt``)."""
    lost: str = ""
    """What a damaged store has lost of it."""


class TaskView(_Said, frozen=True, kw_only=True, omit_defaults=False):
    """A task as ``tasks`` prints it. Seconds and bytes."""

    task: int
    state: TaskState
    params: dict[str, str] = {}
    node: str | None = None
    via: tuple[str, ...] = ()
    attempt: int = 0
    attempts: int = 0
    exit: int | None = None
    signal: int | None = None
    seconds: float | None = None
    max_rss: int | None = None
    reason: str | None = None
    progress: float | None = None
    results: str | None = None
    """The folder of this task's results once they are written."""
    skipped: tuple[str, ...] = ()
    """What of its results could not travel (a pipe, a link that leads outside), an entry a sentence."""


class AttemptView(_Said, frozen=True, kw_only=True, omit_defaults=False):
    """An attempt as ``show JOB.TASK`` prints it. failed: by the task's own doing; lost: by its worker's, or taken back."""

    attempt: int
    node: str
    via: tuple[str, ...] = ()
    """The bridges between, the one next to this node first."""
    state: Literal["running", "done", "failed", "lost"]
    granted: str
    ended: str | None = None
    exit: int | None = None
    signal: int | None = None
    seconds: float | None = None
    max_rss: int | None = None
    reason: str | None = None
    detail: str = ""
    counted: bool = False
    """Whether it counts against the task."""
    skipped: tuple[str, ...] = ()


class Change(_Said, frozen=True, kw_only=True):
    """Something changed in a watched job: its counts now, and the task that changed, if one did."""

    job: JobView
    task: TaskView | None = None
    progress: float = 0.0
    """Of the whole job, 0 to 1, counting the progress that running tasks tell."""
    running_s: float = 0.0
    """Seconds since the job was submitted."""
    ended: bool = False


class LogChunk(_Said, frozen=True, kw_only=True):
    """Output of one task."""

    task: int
    data: bytes
    stream: Literal["stdout", "stderr"] = "stdout"


class PeerView(_Said, frozen=True, kw_only=True, omit_defaults=False):
    """A peer as ``peers`` prints it."""

    id: str
    name: str
    address: str
    state: Literal["up", "connecting", "down", "untrusted", "refused"]
    rtt_ms: float | None = None
    slots: int | None = None
    free: int | None = None
    has_work: bool = False
    mesh: str = ""
    via: tuple[str, ...] = ()
    owner: str = ""
    reason: str = ""


class MemberView(_Said, frozen=True, kw_only=True, omit_defaults=False):
    """A member as ``members`` prints it."""

    id: str
    name: str
    owner: str
    caps: tuple[str, ...]
    expires: str
    state: Literal["self", "up", "down", "banned"]


class MeshView(_Said, frozen=True, kw_only=True, omit_defaults=False):
    """The mesh as ``mesh`` prints it."""

    id: str
    name: str
    founder: bool
    """Whether the root key lies here."""
    caps: tuple[str, ...]
    owner: str
    members: int
    solo: bool
    key: str
    """A short mark of the newest mesh key: the same on two nodes that know the same one."""


class InviteView(_Said, frozen=True, kw_only=True):
    """A code, once."""

    code: str
    owner: str
    caps: tuple[str, ...]
    expires: str
    uses: int
    addresses: tuple[str, ...]


class StatusView(_Said, frozen=True, kw_only=True, omit_defaults=False):
    """This node as ``status`` prints it."""

    id: str
    name: str
    mesh: str
    version: str
    address: str
    slots: int
    free: int
    policy: PolicyView
    running: tuple[RunningView, ...]
    peers: int
    queued: int
    sandbox: str
    sandbox_reason: str = ""
    kept_results: int = 0
    """Results of others' tasks that their owners have not yet acknowledged."""
    kept: tuple[KeptView, ...] = ()
    """The same, by whose they are."""
    kept_limits: KeptLimits | None = None
    owner: str = ""
    counters: dict[str, int] = {}
    """Notices since the start, by name: what was refused, lost, expired."""
    bridging: str = ""  # what it carries as a bridge, or why nothing; empty where it is not to be one
    bridge: tuple[SpokenView, ...] = ()
    """As a bridge that batches: the masters to which it speaks for workers here, or of which it has anything."""
    disk: dict[str, Any] = {}
    home: str = ""
    pid: int = 0


class Finding(_Said, frozen=True, kw_only=True, omit_defaults=False):
    """One thing that doctor looked at."""

    check: str
    ok: bool
    detail: str
    suggestion: str = ""


Reply = (
    Welcome
    | Done
    | Failed
    | Note
    | JobView
    | TaskView
    | AttemptView
    | Change
    | LogChunk
    | TaskEnded
    | Wrote
    | PeerView
    | MemberView
    | MeshView
    | PeeringView
    | PeeringFile
    | InviteView
    | StatusView
    | Finding
    | SettingView
)
