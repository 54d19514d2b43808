"""As worker: bring what an attempt needs, run it, seal what it left, and say how it ended.

The core decides what starts and stops; this performs ``Start``, ``Kill``, ``Fetch`` and ``Release`` and answers with
``Started``, ``Exited``, ``Faulted`` and ``Progressed``.
"""

import asyncio
import dataclasses
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from p2pq.core.effects import Continue, Fetch, Kill, Release, Start, Suspend
from p2pq.core.events import Event, Exited, Faulted, Progressed, Started
from p2pq.core.records import ResultKept
from p2pq.daemon import room, taskfolder
from p2pq.daemon.blobstore import BlobMissingError, BlobStore
from p2pq.daemon.checkpoints import open_checkpoint, put_in_place
from p2pq.daemon.executing import command, command_line, for_libraries, own_environment
from p2pq.daemon.inputs import entries, open_job
from p2pq.daemon.limits import Limits
from p2pq.daemon.runners import RunnerPool, TaskLaunch
from p2pq.daemon.sandbox import JOB_FOLDER
from p2pq.daemon.sealing import Sealed, Sealer
from p2pq.daemon.transfer import Transfers
from p2pq.daemon.unpack import unpack
from p2pq.errors import DiskFullError, LinkError, RefusedError, Reject, SandboxError, StorageError
from p2pq.model.config import RunnerSettings
from p2pq.model.ids import LeaseId, NodeId, short, to_text
from p2pq.model.job import Fault, Outcome, Reason
from p2pq.model.params import task_number, task_params
from p2pq.wire import body as bodies
from p2pq.wire import prims
from p2pq.wire.body import CHECKPOINT, AnyJobBody, CommandsBody, JobBody
from p2pq.wire.objects import BlobRef
from p2pq.wire.tree import Tree, disk_bytes

log = logging.getLogger(__name__)

GUESTS_PART: Final = 2
"""Inputs of others' jobs may take one part in this many of the store."""
BODIES_MAX: Final = 64
"""Opened job bodies kept in memory."""
ENTRIES_KEPT_MAX: Final = 500_000
"""Files, chunks, arguments and the like that all of them may name; a few compressed bytes can name a million."""
PREFETCH_BYTES_MAX: Final = 1 << 30
"""Larger jobs are fetched when they start."""
PREFETCHES_MAX: Final = 8
OWN_FILES_MAX: Final = 1 << 60
"""Commands write into their user's own folders, which are none of ours to limit."""
STOP_S: Final = 2.0
"""A command of this machine's user that is cancelled is told to end, and killed so much later."""
OPENING_MAX: Final = 2
"""Bodies that are opened at the same time: each may take a quarter of a gigabyte for a moment."""
PROGRESS_POLL_S: Final = 1.0

Key = tuple[NodeId, LeaseId]
JobKey = tuple[NodeId, bytes]
"""Job ids are chosen by masters, so one says nothing without whose it is."""
Post = Callable[[Event], None]


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
    suspended: bool = False
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


class Guests:
    """The attempts that run here. Use it from the event loop's thread only."""

    def __init__(  # noqa: PLR0913  the daemon's parts, each used here
        self,
        *,
        node: NodeId,
        name: str,
        blobs: BlobStore,
        transfers: Transfers,
        pool: RunnerPool,
        settings: RunnerSettings,
        memory_mb: int,
        tasks: asyncio.TaskGroup,
        post: Post,
    ) -> None:
        """Take the parts; ``memory_mb`` is the limit of a task that asks for none."""
        self._node = node
        self._name = name
        self._blobs = blobs
        self._transfers = transfers
        self._pool = pool
        self._settings = settings
        self._memory_mb = memory_mb
        self._tasks = tasks
        self._post = post
        self._guests: dict[Key, Guest] = {}
        self._bodies: OrderedDict[JobKey, AnyJobBody] = OrderedDict()
        self._opening = asyncio.Semaphore(OPENING_MAX)
        self._entries = 0
        """What the opened bodies name, in all."""
        self._prefetching: dict[JobKey, asyncio.Task[None]] = {}

    # ------------------------------------------------------------------ effects

    def start(self, effect: Start) -> None:
        """Perform ``Start``."""
        key = (effect.master, effect.lease)
        guest = Guest(effect)
        self._guests[key] = guest
        guest.task = self._tasks.create_task(self._run(key, guest), name=f"task {effect.lease}")

    def kill(self, effect: Kill) -> None:
        """Perform ``Kill``: nobody wants a result and nothing is said when it is over, unless it may leave a checkpoint."""
        guest = self._guests.get((effect.master, effect.lease))
        if guest is None:
            self._unpin(effect.master, effect.lease)
        elif effect.checkpoint_s:
            grace_s = min(effect.checkpoint_s, self._settings.grace_s)
            told = self._pool.kill(guest.name, "evicted", f"it was told to end ({effect.reason})", grace_s)
            self._tasks.create_task(told, name=f"evict {effect.lease}")
        elif guest.task is not None:
            guest.cancelled = True
            if guest.start.own and guest.start.sandbox == "none" and guest.stdout is not None:
                told = self._pool.kill(guest.name, "cancelled", grace_s=STOP_S)
                self._tasks.create_task(told, name=f"stop {effect.lease}")
            else:
                guest.task.cancel()

    def hold(self, effect: Suspend | Continue) -> None:
        """Perform ``Suspend`` and ``Continue``; what is still being fetched only does not begin meanwhile."""
        guest = self._guests.get((effect.master, effect.lease))
        if guest is not None:
            guest.suspended = isinstance(effect, Suspend)
            self._pool.hold(guest.name, still=guest.suspended)

    def fetch(self, effect: Fetch) -> None:
        """Perform ``Fetch``: bring blobs that will probably be needed, one job at a time."""
        missing = self._missing(effect.blobs)
        key = (effect.master, effect.job)
        # Unpinned blobs beyond what fits push each other out, and would be fetched for ever.
        modest = sum(size for _, size in missing) <= PREFETCH_BYTES_MAX and len(self._prefetching) < PREFETCHES_MAX
        if missing and modest and key not in self._prefetching:
            task = self._tasks.create_task(self._prefetch(effect.master, effect.job, missing), name="prefetch")
            self._prefetching[key] = task
            task.add_done_callback(lambda _: self._prefetching.pop(key, None))

    def pin_kept(self, results: Iterable[ResultKept]) -> None:
        """After a start: hold the blobs of results that their masters have not acknowledged."""
        for kept in results:
            refs = (*kept.item.body, *kept.item.blobs)
            self._blobs.pin(self._pin_tag(kept.master, kept.lease), [ref.blob for ref in refs])

    def release(self, effect: Release) -> None:
        """Perform ``Release``: the master has the result."""
        self._unpin(effect.master, effect.lease)

    def guests(self) -> dict[Key, Guest]:
        """Return what runs here now; read only."""
        return self._guests

    def find(self, lease: LeaseId, master: NodeId) -> Guest | None:
        """Return the attempt under a lease, if it runs here."""
        return self._guests.get((master, lease))

    # ------------------------------------------------------------------ one attempt

    async def _prefetch(self, master: NodeId, job: bytes, missing: list[tuple[bytes, int]]) -> None:
        try:
            await self._transfers.fetch(master, missing, shared=True)
        except (LinkError, StorageError) as error:
            log.debug("blobs.prefetch-failed job=%s reason=%s", short(job), error)

    async def _run(self, key: Key, guest: Guest) -> None:
        start = guest.start
        progress: asyncio.Task[None] | None = None
        try:
            job = await self._open(start)
            checkpoint = await self._open_checkpoint(guest)
            self._post(Started(lease=start.lease, master=start.master))
            guest.began = time.monotonic()
            progress = self._tasks.create_task(self._watch_progress(guest), name="progress")
            event: Event = await self._execute(guest, job, checkpoint)
        except asyncio.CancelledError:
            if not guest.cancelled:
                raise
            self._unpin(start.master, start.lease)
            return
        except (SandboxError, StorageError, LinkError, RefusedError, Reject) as error:
            self._unpin(start.master, start.lease)
            event = Faulted(lease=start.lease, master=start.master, fault=_fault(error, guest), detail=str(error)[:500])
        except Exception:
            # One job must not take the node down, whatever it found; the task goes elsewhere and the log tells us.
            log.exception("guest.failed", extra={"fields": {"lease": str(start.lease)}})
            self._unpin(start.master, start.lease)
            detail = "an internal error of this node, see its node.log"
            event = Faulted(lease=start.lease, master=start.master, fault="sandbox", detail=detail)
        finally:
            if progress is not None:
                progress.cancel()
            del self._guests[key]
            guest.over.set()
        self._post(event)

    async def _open(self, start: Start) -> AnyJobBody:
        """Bring every blob of the job here and open its body.

        Raises:
            LinkError, StorageError: a blob cannot be had.
            Reject: the body is not what the manifest promised.
        """
        if not start.own:
            self._check_share()
        refs = (*start.body, *start.blobs)
        self._pin(start, refs)
        for ciphertext in start.inline:
            blob = prims.blob_id(ciphertext)
            if any(ref.blob == blob for ref in refs) and not self._blobs.has(blob):
                self._blobs.put(blob, ciphertext)
        await self._fetch_missing(start, refs, shared=True)
        key = (start.master, start.job)
        job = self._bodies.get(key)
        if job is None:
            async with self._opening:
                job = await asyncio.to_thread(open_job, start, self._blobs, self._limits(start).disk_bytes)
            self._keep_body(key, job, own=start.own)
        else:
            self._bodies.move_to_end(key)
        return job

    async def _open_checkpoint(self, guest: Guest) -> Tree | None:
        """Bring what an earlier attempt left for this one; None if there is nothing of use.

        Raises:
            LinkError, StorageError: a blob cannot be had.
        """
        start = guest.start
        if not start.checkpoint:
            return None
        self._pin(start, start.checkpoint)
        await self._fetch_missing(start, start.checkpoint)
        async with self._opening:
            tree = await asyncio.to_thread(open_checkpoint, start, self._blobs, self._limits(start).disk_bytes)
        if tree is not None:
            refs = bodies.tree_refs(tree)
            guest.checkpoint_bytes = sum(ref.size for ref in refs)
            if not start.own:
                self._check_share()
            self._pin(start, refs)
            await self._fetch_missing(start, refs)
        return tree

    def _check_share(self) -> None:
        """Refuse inputs that would take from this machine's owner, and from other guests, all room for blobs.

        Raises:
            DiskFullError: the inputs of guests' jobs here would be more than their part of the store.
        """
        jobs = {
            (guest.start.master, guest.start.job): guest.start for guest in self._guests.values() if not guest.start.own
        }
        wanted = sum(ref.size for start in jobs.values() for ref in (*start.body, *start.blobs))
        wanted += sum(guest.checkpoint_bytes for guest in self._guests.values() if not guest.start.own)
        if wanted > self._blobs.quota_bytes // GUESTS_PART:
            raise DiskFullError("the files of others' jobs would take more than half of [store] blobs_mb here")

    def _keep_body(self, key: "JobKey", job: AnyJobBody, *, own: bool) -> None:
        if key not in self._bodies:
            self._bodies[key] = job
            self._entries += entries(job)
        # The newest of an own job stays in any case: it is wanted for the next task, and nobody else's doing.
        least = int(own)
        while len(self._bodies) > BODIES_MAX or (self._entries > ENTRIES_KEPT_MAX and len(self._bodies) > least):
            self._entries -= entries(self._bodies.popitem(last=False)[1])

    async def _execute(self, guest: Guest, job: AnyJobBody, checkpoint: Tree | None) -> Event:
        start = guest.start
        wall = int(time.time() * 1000)
        launch = self._commands(guest, job) if isinstance(job, CommandsBody) else self._launch(guest, job, checkpoint)
        outcome, sealed = await self._pool.run(launch)
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

    def _commands(self, guest: Guest, job: CommandsBody) -> TaskLaunch[Sealed]:
        """Return how to run a command in its user's folder and environment."""
        start = guest.start
        env = own_environment(job)

        env.update(self._environment(start, start.task))
        argv, otherwise = command_line(job, start.task)
        limits = self._limits(start)
        return TaskLaunch(
            lease=guest.name,
            job=start.master + start.job,
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
            collect=self._sealer(guest).seal,
            suspended=guest.suspended,
            on_started=lambda stdout, stderr: _remember(guest, stdout, stderr),
        )

    def _launch(self, guest: Guest, job: JobBody, checkpoint: Tree | None) -> TaskLaunch[Sealed]:
        start = guest.start
        env: dict[str, str] = {}

        def populate(folder: Path) -> None:
            with room.claim(folder, wanted, self._blobs.reserve_bytes, "the job's files"):
                unpack(job.tree, lambda chunk: self._blobs.get(chunk.blob), folder)
            taskfolder.prepare(folder, params)
            # Only now is it known where a task without a sandbox will run.
            root = JOB_FOLDER if strict else str(folder)
            env.update(self._environment(start, number, root) | for_libraries(start.resources.cpus))
            if checkpoint is not None and put_in_place(start, checkpoint, self._blobs, folder):
                env["P2PQ_CHECKPOINT"] = f"{root}/results/{CHECKPOINT}"
            guest.root = folder

        wanted = disk_bytes(job.tree) + (0 if checkpoint is None else disk_bytes(checkpoint))
        strict = start.sandbox == "strict"
        params = task_params(job.array, job.axes, start.task)
        number = task_number(job.array, job.axes, start.task)
        if job.config:
            params["config"] = job.config
        return TaskLaunch(
            lease=guest.name,
            job=start.master + start.job,  # no runner ever serves two masters
            level="strict" if strict else "none",
            argv=command(job, params, self._pool.python, job_id=to_text(start.job), number=number),
            env=env,
            limits=self._limits(start),
            populate=populate,
            collect=self._sealer(guest).seal,
            idle_priority=not start.own,
            suspended=guest.suspended,
            on_started=lambda stdout, stderr: _remember(guest, stdout, stderr),
        )

    def _sealer(self, guest: Guest) -> Sealer:
        start = guest.start
        return Sealer(
            start=start,
            blobs=self._blobs,
            tag=self._pin_tag(start.master, start.lease),
            bytes_max=self._limits(start).disk_bytes,
            unwanted=lambda: guest.cancelled,
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

    def _limits(self, start: Start) -> Limits:
        memory_mb = start.resources.memory_mb or self._memory_mb
        time_s = start.limits.time_s if start.own else min(start.limits.time_s, self._settings.time_s)
        return Limits(
            cpus=start.resources.cpus,
            memory_bytes=memory_mb << 20 if memory_mb else None,
            wall_s=float(time_s),
            disk_bytes=min(start.limits.disk_mb, self._settings.disk_mb) << 20,
            processes=start.limits.processes,
            output_bytes=start.limits.output_mb << 20,
        )

    async def _watch_progress(self, guest: Guest) -> None:
        """Tell the progress that a task writes to ``results/.progress``; hostile text is ignored."""
        start = guest.start
        while True:
            await asyncio.sleep(PROGRESS_POLL_S)
            if guest.root is not None:
                progress = taskfolder.read_progress(guest.root)
                if progress is not None and progress != guest.progress:
                    guest.progress = progress
                    self._post(Progressed(lease=start.lease, master=start.master, progress=progress))

    # ------------------------------------------------------------------ blobs

    def _pin(self, start: Start, refs: Iterable[BlobRef]) -> None:
        self._blobs.pin(self._pin_tag(start.master, start.lease), [ref.blob for ref in refs])

    async def _fetch_missing(self, start: Start, refs: Iterable[BlobRef], *, shared: bool = False) -> None:
        missing = self._missing(refs)
        if missing:
            await self._transfers.fetch(start.master, missing, shared=shared)

    def _missing(self, refs: Iterable[BlobRef]) -> list[tuple[bytes, int]]:
        return [(ref.blob, ref.size) for ref in dict.fromkeys(refs) if not self._blobs.has(ref.blob)]

    def _unpin(self, master: NodeId, lease: LeaseId) -> None:
        self._blobs.unpin(self._pin_tag(master, lease))

    @staticmethod
    def _pin_tag(master: NodeId, lease: LeaseId) -> str:
        return f"lease {to_text(master)} {lease}"


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


def _remember(guest: Guest, stdout: Path, stderr: Path) -> None:
    guest.stdout, guest.stderr = stdout, stderr


def _reason(ended: str, failure: Literal["", "disk-limit", "exit"]) -> Reason:
    """Return why an attempt ended: what became of its results tells on those that had succeeded, or left too much."""
    if failure == "disk-limit" or (failure and ended == "ok"):
        return failure
    return _REASONS[ended]


def _fault(error: Exception, guest: Guest) -> Fault:
    match error:
        case DiskFullError() if guest.stdout is None:
            return "refused"  # nothing was run: the task waits for room, here or elsewhere, as long as it takes
        case RefusedError():
            return "refused"  # the job's own doing, which says nothing about this machine
        case SandboxError():
            return "sandbox"
        case BlobMissingError():
            return "fetch"  # evicted or damaged since it came: it is fetched again
        case StorageError():
            return "disk"
        case _:
            return "fetch"
