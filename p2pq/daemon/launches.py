"""What a runner is given to run: a task's launch, and what the pool knows of it while it runs."""

import asyncio
import errno
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from p2pq.daemon import basic, limits, sandbox
from p2pq.daemon.attempt import Attempt, Outcome, Stop
from p2pq.daemon.limits import Limits
from p2pq.daemon.runner_process import MARK, Level, RunnerProcess
from p2pq.daemon.sandbox import JobPython, Mount
from p2pq.daemon.scratch import Scratch
from p2pq.errors import DiskFullError, StorageError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hooks:
    """Command lines that a runner runs before its first task of a job, and after its last; empty: nothing."""

    begin: str
    end: str
    shell: str = "/bin/sh"
    """What reads them."""


@dataclass(frozen=True, slots=True)
class Furniture:
    """What every task of a job finds in its folder, each anew."""

    key: Hashable
    """Tells it from that of other jobs."""
    write: Callable[[Path], None]
    small: bool
    """It is so little that it may be written in vain, for a task that then does not come."""


@dataclass(frozen=True, slots=True)
class TaskLaunch(Generic[T]):
    """Everything needed to run one attempt.

    ``populate``, ``collect`` and ``secure`` run in worker threads; what they raise ends the attempt as a fault of this
    machine. The output files, which lie outside the sandbox, live until ``collect`` returns.
    """

    lease: str
    job: bytes
    level: Level
    argv: tuple[str, ...]
    """In ``strict`` paths are those inside: the task's folder is ``/job``, the job's Python lies where it does outside."""

    env: Mapping[str, str]
    """Added to the level's own PATH, HOME, LANG and TMPDIR."""

    limits: Limits
    populate: Callable[[Path], None] | None
    """Adds what is of this task only. None: nothing has to be there."""

    collect: Callable[[Path, Outcome], T]
    furniture: Furniture | None = None
    """What is in the folder before ``populate``."""
    quick: bool = False
    """``populate`` is done sooner than a thread begins, where the folder is furnished."""
    secure: Callable[[T], None] | None = None
    """Makes what was collected durable; None: nobody needs that yet."""
    stdin: Callable[[Path], None] | None = None
    """Writes what the task reads as its standard input to a file of that name, in a worker thread; None: it reads nothing."""

    cwd: str | None = None
    """Level ``none`` only: where to run; default the scratch folder."""

    whole_env: bool = False
    """Level ``none`` only: ``env`` is the whole environment, the user's own."""

    umask: int | None = None
    """None: the runner's own, which lets others read."""

    otherwise: tuple[str, ...] = ()
    """What to run where ``argv`` cannot be executed."""

    hooks: Hooks | None = None
    """What its runner runs before and after all tasks, which are of its job alone then."""

    warm: bool = False
    """``argv`` is Python and a script, which may start in an interpreter that has imported ahead."""

    idle_priority: bool = False
    """It is a guest's, or made for guests: everything else on this machine goes first."""
    background: bool = False
    """It is no attempt, but made for some: it stands still while guests do."""
    suspended: bool = False
    """Not to be launched before ``hold`` says so."""

    mounts: tuple[Mount, ...] = ()
    """In ``strict``: what its runner sees besides."""

    python: JobPython | None = None
    """The Python that comes first on PATH, where that is not the pool's; its installation is."""

    until_dead: "Callable[[asyncio.Future[None]], None] | None" = None
    """Called with what is done when a runner that was started for it is dead: it may use ``mounts`` and ``python`` until then."""

    on_started: Callable[[Path, Path], None] | None = None
    """Called on the event loop with the paths of standard output and error, to be tailed."""

    on_vacated: Callable[[], None] | None = None
    """Called on the event loop when nothing of it runs any more, before it is collected, where another runner can be had."""


@dataclass(slots=True)
class Run:
    """A lease that is being run, as ``kill`` finds it."""

    runner: RunnerProcess
    go: asyncio.Event
    """Not set while it may not be launched."""

    attempt: Attempt | None = None
    """Once it is launched, and followed by itself."""

    stop: Stop | None = None
    background: bool = False
    coupled: bool = False
    """Its runner has it among others; whoever follows them all wants to hear of whatever is to become of it."""

    def heed(self, attempt: Attempt, now: float) -> None:
        """End its attempt, if that is wanted."""
        if self.stop is not None:
            attempt.stop(self.stop, now)


def surroundings(launch: TaskLaunch[T], runner: RunnerProcess, python: JobPython) -> dict[str, Any]:
    """Return the part of an order that is the same for all tasks of a job."""
    scratch = runner.scratch
    cwd, begun = str(scratch.job), str(scratch.begun)
    if launch.level == "strict":
        env = sandbox.base_environment(python)
        cwd, begun = sandbox.JOB_FOLDER, sandbox.BEGUN_FOLDER
    elif launch.level == "basic":
        env = basic.base_environment(python, scratch.job, scratch.temporary)
    elif launch.whole_env:
        env = {}
    else:
        env = {
            "PATH": f"{python.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(scratch.job),
            "LANG": "C.UTF-8",
            "TMPDIR": str(scratch.temporary),
        }
    env |= launch.env
    if runner.begun is not None:
        env = runner.begun.environment(env)
    if launch.hooks is not None:
        env["P2PQ_BEGUN"] = begun
    if launch.level == "none":
        env[MARK] = runner.token
        cwd = launch.cwd or cwd
    return {"umask": launch.umask, "env": env, "cwd": cwd}


def order(launch: TaskLaunch[T], number: int, around: Mapping[str, Any]) -> dict[str, object]:
    """Return the message that launches a task by a number, in what is the same for all tasks of its job."""
    argv, otherwise = list(launch.argv), list(launch.otherwise)
    return {"op": "run", "id": number, "argv": argv, "otherwise": otherwise, **around, "warm": launch.warm}


def quick(launch: TaskLaunch[T], runner: RunnerProcess) -> bool:
    """Tell whether ``fill`` is done sooner than a thread would begin."""
    furnished = launch.furniture is None or runner.furnished == launch.furniture.key
    return launch.stdin is None and (launch.populate is None or launch.quick) and furnished


def fill(launch: TaskLaunch[T], runner: RunnerProcess, files: list[int]) -> None:
    """Fill the scratch folder and open the output files, which are added to ``files``. Blocking.

    Raises:
        DiskFullError: there is too little room on the disk.
        StorageError: it failed.
    """
    scratch = runner.scratch
    try:
        check_room(scratch)
        populate(launch, runner)
        files += open_outputs(scratch, os.O_WRONLY)
        if launch.stdin is not None:
            launch.stdin(scratch.output / "stdin")
            files.append(os.open(scratch.output / "stdin", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise storage_error(error, scratch.root) from error


def populate(launch: TaskLaunch[T], runner: RunnerProcess) -> None:
    """Fill the folder of a task. Blocking.

    Raises:
        StorageError: it failed.
    """
    try:
        if launch.furniture is not None:
            furnish(launch.furniture, runner)
        if launch.populate is not None:
            launch.populate(runner.scratch.job)
    except OSError as error:
        raise storage_error(error, runner.scratch.root) from error


def furnish(furniture: Furniture, runner: RunnerProcess) -> None:
    """Put into an empty folder what every task finds there, unless that has been done. Blocking.

    Raises:
        OSError, StorageError: it failed.
    """
    if runner.furnished != furniture.key:
        furniture.write(runner.scratch.job)
        runner.furnished = furniture.key


def check_room(scratch: Scratch) -> None:
    """Refuse to run anything where the disk is too full.

    Raises:
        DiskFullError: it is.
        OSError: it cannot be told.
    """
    if limits.free_bytes(scratch.root) < limits.FREE_BYTES_MIN:
        least = limits.size_text(limits.FREE_BYTES_MIN)
        raise DiskFullError(f"less than {least} is free in {scratch.root.parent}")


def open_outputs(scratch: Scratch, access: int) -> tuple[int, int]:
    """Open new files for standard output and error.

    Raises:
        OSError: that failed.
    """
    flags = access | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    stdout = os.open(scratch.output / "stdout", flags, 0o600)
    try:
        return stdout, os.open(scratch.output / "stderr", flags, 0o600)
    except OSError:
        os.close(stdout)
        raise


def storage_error(error: OSError, folder: Path) -> StorageError:
    """Return what it means that a scratch folder failed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"the disk that holds {folder} is full")
    return StorageError(f"the scratch folder {folder} failed: {error.strerror or error}")
