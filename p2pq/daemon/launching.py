"""As worker: how each attempt is launched, in which folder, with what environment and within what limits."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal

from msgspec import UNSET

from p2pq.core.effects import Start
from p2pq.core.events import Exited, Started
from p2pq.daemon import bundles, feeding, gpus, room, taskfolder
from p2pq.daemon.attempt import Outcome as Ran
from p2pq.daemon.blobstore import BlobMissingError, BlobStore
from p2pq.daemon.checkpoints import put_in_place
from p2pq.daemon.environments import Environment
from p2pq.daemon.executing import command, command_line, for_libraries, own_environment, shell_of
from p2pq.daemon.gpus import Gpus
from p2pq.daemon.launches import Furniture, Hooks, TaskLaunch
from p2pq.daemon.limits import BASIC_PROCESSES_MAX, Limits
from p2pq.daemon.sandbox import JOB_FOLDER, JobPython
from p2pq.daemon.sealing import Sealed, Sealer
from p2pq.daemon.standstill import Standing
from p2pq.daemon.trains import Passenger, TrainLaunch
from p2pq.daemon.unpack import unpack
from p2pq.errors import BuildError, DiskFullError, RefusedError, SandboxError, StorageError
from p2pq.model.config import RunnerSettings
from p2pq.model.ids import LeaseId, NodeId, short, to_text
from p2pq.model.job import Fault, Outcome, Reason
from p2pq.model.params import task_number, task_params
from p2pq.wire.body import CHECKPOINT, AnyJobBody, CommandsBody, JobBody
from p2pq.wire.tree import Tree, disk_bytes

OWN_COMMANDS: Final = b"commands"
"""In the place of a job: nothing keeps commands of one user apart, so that all of them share runners."""
TRAIN_BYTES_MAX: Final = 1 << 20
"""Command lines that go to a runner in one message, as they are written there."""
OWN_FILES_MAX: Final = 1 << 60
"""Commands write into their user's own folders, which are none of ours to limit."""


FOLLOWED_MAX: Final = 200
"""Files of a job, of which each is looked at between two tasks that use the same folder."""
SMALL_BYTES: Final = 1 << 20
"""Files of a job that hold so much in sum are unpacked for a task that may not come."""
_REASONS: Final[dict[str, Reason]] = {
    "ok": "ok",
    "exit": "exit",
    "signal": "signal",
    "time-limit": "time-limit",
    "memory-limit": "memory-limit",
    "disk-limit": "disk-limit",
    "output-limit": "output-limit",
    "cancelled": "cancelled",
    "evicted": "saved",
    "sandbox": "runner-died",
}

Key = tuple[NodeId, LeaseId]


@dataclass(frozen=True, slots=True)
class Fetching:
    """What attempts that are to go together need is being brought here."""

    guests: "list[Guest]"
    task: "asyncio.Task[None] | None"

    def drop(self) -> None:
        """Bring it no longer, if none of them is wanted any more."""
        if self.task is not None and all(guest.cancelled for guest in self.guests):
            self.task.cancel()


@dataclass(slots=True)
class Guest:
    """One attempt between Start and its end."""

    start: Start
    task: "asyncio.Task[None] | None" = None
    began: float = 0.0
    """Monotonic seconds at which it began to run; 0 while it is being fetched."""
    root: Path | None = None
    stdout: Path | None = None
    stderr: Path | None = None
    coupled: bool = False
    """It came with others, to run one after another."""
    fetching: Fetching | None = None
    """Until that is here: how it comes."""
    ran: bool = False
    """It has ended as one of them."""
    suspended: bool = False
    standing: Standing = field(default_factory=Standing)
    """How long it stood still for this machine's owner."""
    environment: Environment | None = None
    """What it has its packages from; held."""
    checkpoint_bytes: int = 0
    """What it takes of the store to start with a checkpoint."""
    cancelled: bool = False
    progress: int = -1
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """It has ended here."""

    @property
    def name(self) -> str:
        """What the pool knows it by: lease ids are unique per master only."""
        return f"{short(self.start.master)}-{self.start.lease}"

    @property
    def job(self) -> tuple[NodeId, bytes]:
        """Its job: ids of jobs are chosen by masters, so one says nothing without whose it is."""
        return self.start.master, self.start.job


@contextmanager
def fetching(guests: list[Guest]) -> Iterator[None]:
    """Let this task be dropped while it brings what these need, if none of them is wanted any more."""
    how = Fetching(guests, asyncio.current_task())
    for guest in guests:
        guest.fetching = how
    how.drop()
    try:
        yield
    finally:
        for guest in guests:
            guest.fetching = None


class Launching:
    """Knows how attempts are launched here."""

    def __init__(
        self,
        *,
        name: str,
        python: JobPython,
        blobs: BlobStore,
        settings: RunnerSettings,
        memory_mb: int,
        has: Sequence[int] = (),
    ) -> None:
        """Take the node's name and what it lets a task have; ``memory_mb`` is the limit of one that asks for none.

        ``has`` are the gpus that tasks may use.
        """
        self._gpus = Gpus(has)
        self._name = name
        self._python = python
        self._blobs = blobs
        self._settings = settings
        self._memory_mb = memory_mb

    @asynccontextmanager
    async def alone(
        self, guest: Guest, job: AnyJobBody, checkpoint: Tree | None, vacated: Callable[[], None] | None = None
    ) -> AsyncIterator[TaskLaunch[Sealed]]:
        """Give how to run an attempt that comes alone; until this is left, nobody else has its gpus.

        ``vacated`` is called when another attempt may run in its place, though what it left is still to be packed.

        Raises:
            RefusedError: it asks for more of them than there are.
        """
        async with self._gpus.assigned(guest.start.resources.gpus) as has:
            if isinstance(job, CommandsBody):
                yield self.commands(guest, job, has)
                return
            launch = self.job(guest, job, checkpoint, has)
            # What a job begins with in a runner is for each slot, and no more of them; and of wide attempts there may be no more
            # whose results are packed than there are slots for them.
            stays = has or launch.hooks is not None or guest.start.resources.cpus > 1
            yield launch if stays else dataclasses.replace(launch, on_vacated=vacated)

    def commands(self, guest: Guest, job: CommandsBody, has: Sequence[int] = ()) -> TaskLaunch[Sealed]:
        """Return how to run a command in its user's folder and environment; ``has`` are the gpus that it may use."""
        start = guest.start
        env = own_environment(job) | self._environment(start, start.task) | (gpus.variables(has) if has else {})
        argv, otherwise = command_line(job, start.task)
        limits, hooks = self.limits(start), hooks_of(job)
        return TaskLaunch(
            lease=guest.name,
            job=OWN_COMMANDS if hooks is None else start.master + start.job,
            hooks=hooks,
            level="none",
            argv=argv,
            otherwise=otherwise,
            env=env,
            whole_env=True,
            cwd=job.cwd,
            umask=job.umask,
            limits=dataclasses.replace(
                limits,
                memory_bytes=limits.memory_bytes if start.resources.memory_mb else None,
                disk_bytes=OWN_FILES_MAX,
            ),
            populate=None,
            stdin=partial(feeding.write, job.stdin, start.task, self._blobs) if job.stdin is not None else None,
            collect=self.sealer(guest).seal,
            suspended=guest.suspended,
            on_started=lambda stdout, stderr: _remember(guest, stdout, stderr),
        )

    def train(self, guests: list[Guest], job: AnyJobBody, post: Callable[[Started], None]) -> TrainLaunch[Sealed]:
        """Return how to run attempts one after another: commands in their user's folder, others in one that serves them all.

        ``post`` is told of the one that goes on alone.
        """

        def started(place: int, stdout: Path, stderr: Path) -> None:
            guest = guests[place]
            guest.root = guests[0].root
            _remember(guest, stdout, stderr)
            post(Started(lease=guest.start.lease, master=guest.start.master))

        first = guests[0]
        passengers: list[Passenger] = []
        room = TRAIN_BYTES_MAX
        for guest in guests:
            passenger = self._passenger(guest, job)
            room -= len(json.dumps((passenger.argv, passenger.otherwise, passenger.env, passenger.params)))
            if room < 0 and passengers:
                break  # the others go with the next one
            passengers.append(passenger)
        return TrainLaunch(
            common=self.commands(first, job) if isinstance(job, CommandsBody) else self.job(first, job, None),
            passengers=tuple(passengers),
            collect=lambda place, folder, outcome: self.sealer(guests[place]).seal(folder, outcome),
            on_started=started,
        )

    def _passenger(self, guest: Guest, job: AnyJobBody) -> Passenger:
        if isinstance(job, CommandsBody):
            argv, otherwise = command_line(job, guest.start.task)
            return Passenger(guest.name, argv, otherwise, _own_variables(guest, guest.start.task))
        params, number = self._params(guest.start, job)
        argv = command(job, params, self._python, job_id=to_text(guest.start.job), number=number)
        written = taskfolder.written(params) if job.axes or job.array else ""
        return Passenger(guest.name, argv, (), _own_variables(guest, number), written)

    def _params(self, start: Start, job: JobBody) -> tuple[dict[str, str], int]:
        """Return the parameters of a task, and its number."""
        params = task_params(job.array, job.axes, start.task)
        if job.config:
            params["config"] = job.config
        return params, task_number(job.array, job.axes, start.task)

    def job(self, guest: Guest, job: JobBody, checkpoint: Tree | None, has: Sequence[int] = ()) -> TaskLaunch[Sealed]:
        """Return how to run a task of a folder that travels, in a scratch folder of its own, with the gpus that it has."""
        start = guest.start
        env: dict[str, str] = {}

        def furnish(folder: Path) -> None:
            with room.claim(folder, wanted, self._blobs.reserve_bytes, "the job's files"):
                unpack(tree, lambda chunk: self._blobs.get(chunk.blob), folder)
            taskfolder.furnish(folder)

        def populate(folder: Path) -> None:
            taskfolder.write_params(folder, params)
            # Only now is it known where a task without a sandbox will run.
            root = JOB_FOLDER if strict else str(folder)
            env.update(self._environment(start, number, root) | for_libraries(start.resources.cpus))
            env.update(gpus.variables(has))
            if found is not None:
                env["VIRTUAL_ENV"] = str(python.bin.parent)
            if checkpoint is not None:
                with room.claim(folder, disk_bytes(checkpoint), self._blobs.reserve_bytes, "the checkpoint"):
                    placed = put_in_place(start, checkpoint, self._blobs, folder)
                env.update({"P2PQ_CHECKPOINT": f"{root}/results/{CHECKPOINT}"} if placed else {})
            guest.root = folder

        tree = bundles.own_files(job.tree)
        wanted = disk_bytes(tree)
        strict, basic = start.sandbox == "strict", start.sandbox == "basic"
        found = guest.environment
        python = self._python if found is None else found.python(self._python, strict=strict)
        params, number = self._params(start, job)
        return TaskLaunch(
            lease=guest.name,
            job=start.master + start.job,  # no runner ever serves two masters
            hooks=hooks_of(job),
            level=start.sandbox,
            argv=command(job, params, python, job_id=to_text(start.job), number=number),
            env=env,
            limits=self.limits(start),
            furniture=Furniture(guest.job, furnish, small=is_small(tree) and start.tasks > 1),
            populate=populate,
            quick=checkpoint is None,
            collect=self.sealer(guest).seal,
            secure=self.sealer(guest).secure,
            # One task alone would only wait for it; in ``basic`` each task is shut in by itself, and so starts afresh.
            warm=job.kind == "python" and start.tasks > 1 and not basic,
            idle_priority=not start.own,
            suspended=guest.suspended,
            mounts=(*(() if found is None else found.mounts()), *gpus.mounts(has)) if strict or basic else (),
            python=python,
            until_dead=None if found is None else found.hold_until,
            on_started=lambda stdout, stderr: _remember(guest, stdout, stderr),
        )

    def sealer(self, guest: Guest) -> Sealer:
        """Return what seals what an attempt leaves."""
        start = guest.start
        return Sealer(
            start=start,
            blobs=self._blobs,
            tag=pin_tag(start.master, start.lease),
            bytes_max=self.limits(start).disk_bytes,
            unwanted=lambda: guest.cancelled,
            stood=guest.standing.said,
        )

    def _environment(self, start: Start, number: int, root: str = "") -> dict[str, str]:
        env = {
            "P2PQ_JOB": to_text(start.job),
            "P2PQ_TASK": str(number),
            "P2PQ_TASKS": str(start.tasks),
            "P2PQ_ATTEMPT": str(start.attempt),
            "P2PQ_CPUS": str(start.resources.cpus),
            "P2PQ_NODE": self._name,
        }
        if root:
            env |= {"P2PQ_RESULTS": f"{root}/results", "P2PQ_PARAMS": f"{root}/{taskfolder.PARAMS_FILE}"}
        return env

    def limits(self, start: Start) -> Limits:
        """Return what an attempt may take here."""
        memory_mb = start.resources.memory_mb or self._memory_mb
        processes = start.limits.processes
        if start.sandbox == "basic":
            processes = min(processes, BASIC_PROCESSES_MAX)
        time_s = start.limits.time_s if start.own else min(start.limits.time_s, self._settings.time_s)
        return Limits(
            cpus=start.resources.cpus,
            memory_bytes=memory_mb << 20 if memory_mb else None,
            wall_s=float(time_s),
            disk_bytes=min(start.limits.disk_mb, self._settings.disk_mb) << 20,
            processes=processes,
            output_bytes=start.limits.output_mb << 20,
        )


def hooks_of(job: AnyJobBody) -> Hooks | None:
    """Return what is to run in a runner before and after the tasks of a job."""
    begin, end = (hook if isinstance(hook, str) else "" for hook in (job.begin, job.end))
    if not begin and not end:
        return None
    return Hooks(begin, end, shell_of(job.environment) if isinstance(job, CommandsBody) else "/bin/sh")


def can_follow(job: AnyJobBody) -> bool:
    """Tell whether tasks of a job may follow one another in one runner, without anything being made for each of them."""
    if isinstance(job, CommandsBody):
        return job.stdin is None and job.delay_ms is UNSET
    # A warm interpreter starts tasks one at a time.
    return job.kind != "python" and _entries(job.tree) <= FOLLOWED_MAX


def is_small(tree: Tree) -> bool:
    """Tell whether a job's files are so few and small that they may be unpacked in vain."""
    return _entries(tree) <= FOLLOWED_MAX and disk_bytes(tree) <= SMALL_BYTES


def _entries(tree: Tree) -> int:
    return len(tree.files) + len(tree.dirs) + len(tree.links)


def _own_variables(guest: Guest, number: int) -> dict[str, str]:
    return {"P2PQ_TASK": str(number), "P2PQ_ATTEMPT": str(guest.start.attempt)}


def _remember(guest: Guest, stdout: Path, stderr: Path) -> None:
    guest.stdout, guest.stderr = stdout, stderr


def pin_tag(master: NodeId, lease: LeaseId) -> tuple[str, NodeId, LeaseId]:
    """Return what holds the blobs of an attempt."""
    return "lease", master, lease


def fault_of(error: Exception, guest: Guest) -> Fault:
    """Return what a master is told of an attempt that came to nothing by this node's doing, or its job's."""
    match error:
        case DiskFullError() if guest.stdout is None and not guest.ran:
            return "refused"  # nothing was run: the task waits for room, here or elsewhere, as long as it takes
        case RefusedError():
            return "refused"  # the job's own doing, which says nothing about this machine
        case SandboxError() | BuildError():
            return "sandbox"
        case BlobMissingError():
            return "fetch"  # evicted or damaged since it came: it is fetched again
        case StorageError():
            return "disk"
        case _:
            return "fetch"


def ended_of(start: Start, outcome: Ran, sealed: Sealed, wall: int) -> Exited:
    """Return what the core is told of an attempt that began at ``wall`` and ended."""
    return Exited(
        lease=start.lease,
        master=start.master,
        outcome=Outcome(
            reason=_reason(outcome.reason, sealed.failure),
            exit=outcome.exit,
            signal=outcome.signal,
            run_ms=round(outcome.seconds * 1000),
            cpu_ms=round(outcome.cpu_s * 1000),
            max_rss=outcome.max_rss,
            started=wall,
        ),
        sandbox=start.sandbox,
        key=sealed.key,
        body=sealed.body,
        blobs=sealed.blobs,
        checkpoint=sealed.checkpoint,
    )


def _reason(ended: str, failure: Literal["", "disk-limit", "exit"]) -> Reason:
    """Return why an attempt ended: what became of its results tells on those that had succeeded, or left too much."""
    if failure == "disk-limit" or (failure and ended == "ok"):
        return failure
    return _REASONS[ended]
