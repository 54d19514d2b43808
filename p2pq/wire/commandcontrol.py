"""What the local API is asked, and answers, about commands (``run``, ``map``, ``batch``): part of ``control``."""

from typing import Annotated, Final

from msgspec import Meta

from p2pq.model.job import TASKS_MAX, Resources, TaskState
from p2pq.model.sources import SOURCES_MAX, Source
from p2pq.wire.peercontrol import Said

DELAY_MS_MAX: Final = 24 * 3600 * 1000
TaskIndex = Annotated[int, Meta(ge=0, le=TASKS_MAX)]

PIECE_BYTES_MAX: Final = 1 << 20
"""Of standard input, so much is sent, sealed and read in one piece."""
UPLOAD_BYTES: Final = 16
STDIN_BYTES_MAX: Final = 1 << 40
"""What one task may read."""

Sizes = Annotated[tuple[Annotated[int, Meta(ge=0, le=STDIN_BYTES_MAX)], ...], Meta(max_length=TASKS_MAX)]
"""How many bytes of standard input each task reads, in the order of the tasks."""
Upload = Annotated[bytes, Meta(min_length=UPLOAD_BYTES, max_length=UPLOAD_BYTES)]


class KeepInput(Said, frozen=True, kw_only=True):
    """Keep a piece of what commands are to read as their standard input, behind the pieces before it. No items.

    It is forgotten if for ten minutes neither another piece comes nor the ``SubmitCommands`` that names it.
    """

    upload: Upload
    """Drawn by the client at random, the same for all pieces."""
    data: Annotated[bytes, Meta(min_length=1, max_length=PIECE_BYTES_MAX)]


class SubmitCommands(Said, frozen=True, kw_only=True):
    """Submit commands, to run on this machine in the caller's folder and environment. Items: Note, then one JobView."""

    words: tuple[str, ...] = ()
    """The command; none: the values are command lines themselves."""
    sources: Annotated[tuple[Source, ...], Meta(max_length=SOURCES_MAX)] = ()
    shell: bool = True
    """``words`` make a command line with replacement strings; else they are the arguments as they are, of a single task."""
    cwd: Annotated[str, Meta(min_length=1, max_length=4096)]
    environment: bytes
    """As ``/proc/PID/environ`` has it: K=V, each ended by a zero byte."""
    name: str = ""
    resources: Resources = Resources()
    time_s: int = 0
    """0: the default of 24 h."""
    retries: int = 0
    priority: int = 0
    halt: str = ""
    """``now,fail=3``, ``soon,fail=10%`` and the like, as typed; empty: never."""
    umask: Annotated[int, Meta(ge=0, le=0o777)] = 0o022
    stdin: Sizes = ()
    """How many bytes each task reads as its standard input; none: nothing. Without sources, there are as many tasks as sizes."""
    upload: Upload | None = None
    """What was kept of it with ``KeepInput``: as many bytes as all tasks read. It can be used once."""
    skipped: tuple[tuple[TaskIndex, TaskIndex], ...] = ()
    """Tasks that are not to run, as they ran before: half-open intervals. They count as done."""
    begin: str = ""
    end: str = ""
    """What each runner runs before its first task of this job, and after its last; empty: nothing."""
    delay_ms: Annotated[int, Meta(ge=0, le=DELAY_MS_MAX)] = 0
    """Between the starts of any two tasks."""


class Ends(Said, frozen=True, kw_only=True):
    """Follow a job: what each task printed and how it ended, as they end, those that have ended first.

    Items: of each task LogChunks, first of standard output, then of standard error, then TaskEnded (or, with ``views``, its
    TaskView alone); Notes. It is over when the job is.
    """

    job: Annotated[str, Meta(min_length=1, max_length=64)]
    live: bool = False
    """What is printed comes as it is printed, streams and tasks mixed. What a lost attempt printed stays."""
    written: bool = False
    """Tell of a task once its results are written out, where its job has a folder for them."""
    views: bool = False
    """Tell of a task once its results are written out, or never will be; also of those that an earlier job had done."""


class TaskEnded(Said, frozen=True, kw_only=True, omit_defaults=True):
    """A task has ended, or never will run."""

    task: int
    state: TaskState
    attempts: int = 0
    exit: int | None = None
    signal: int | None = None
    reason: str = ""
    started: int = 0
    """Milliseconds since 1970."""
    seconds: float = 0.0
    node: str = ""
    printed: tuple[int, int] = (0, 0)
    """Bytes of standard output and of standard error, in all."""
    gone: str = ""
    """Why not all of that could be read any more, if so."""
