"""As worker: bring what an attempt needs, run it, seal what it left, and say how it ended.

The core decides what starts and stops; this performs ``Start``, ``Kill``, ``Fetch`` and ``Release`` and answers with
``Started``, ``Exited``, ``Faulted`` and ``Progressed``.
"""

import asyncio
import logging
import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from typing import Final

from p2pq.core.effects import Continue, Fetch, Kill, Release, Start, Suspend, Train
from p2pq.core.events import Event, Faulted, Progressed, Started, TrainExited, Vacated
from p2pq.core.records import ResultKept
from p2pq.daemon import taskfolder, trains
from p2pq.daemon.attempt import Outcome as Ran
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.checkpoints import open_checkpoint
from p2pq.daemon.environments import Environments
from p2pq.daemon.inputs import entries, open_job
from p2pq.daemon.launching import Guest, Key, Launching, can_follow, ended_of, fault_of, fetching, pin_tag
from p2pq.daemon.pacing import Pacing
from p2pq.daemon.requirements import LABEL
from p2pq.daemon.runners import RunnerPool
from p2pq.daemon.sealing import NOTHING, Printed, Sealed, seal_printed
from p2pq.daemon.threads import in_thread
from p2pq.daemon.trains import Ended, Left, run_train
from p2pq.daemon.transfer import Transfers
from p2pq.errors import BuildError, DiskFullError, LinkError, RefusedError, Reject, SandboxError, StorageError
from p2pq.model.config import RunnerSettings
from p2pq.model.ids import LeaseId, NodeId, short
from p2pq.wire import body as bodies
from p2pq.wire import prims
from p2pq.wire.body import AnyJobBody, CommandsBody
from p2pq.wire.objects import BlobRef
from p2pq.wire.tree import Tree

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
STOP_S: Final = 2.0
"""A command of this machine's user that is cancelled is told to end, and killed so much later."""
OPENING_MAX: Final = 2
"""Bodies that are opened at the same time: each may take a quarter of a gigabyte for a moment."""
PROGRESS_POLL_S: Final = 1.0
ALONE_MIN: Final = 4
"""Trains from which one of the first so many leaves something are not worth it: to give the others back costs more."""

JobKey = tuple[NodeId, bytes]
"""Job ids are chosen by masters, so one says nothing without whose it is."""
Post = Callable[[Event], None]


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
        environments: Environments,
        settings: RunnerSettings,
        memory_mb: int,
        gpus: Sequence[int] = (),
        tasks: asyncio.TaskGroup,
        post: Post,
        checkpoint_signal: int = signal.SIGTERM,
    ) -> None:
        """Take the parts; ``memory_mb`` is the limit of a task that asks for none."""
        self._signal = checkpoint_signal
        self._node = node
        self._blobs = blobs
        self._transfers = transfers
        self._pool = pool
        self._environments = environments
        self._settings = settings
        self._launching = Launching(
            name=name, python=pool.python, blobs=blobs, settings=settings, memory_mb=memory_mb, has=gpus
        )
        self._tasks = tasks
        self._post = post
        self._guests: dict[Key, Guest] = {}
        self._bodies: OrderedDict[JobKey, AnyJobBody] = OrderedDict()
        self._opening = asyncio.Semaphore(OPENING_MAX)
        self._entries = 0
        """What the opened bodies name, in all."""
        self._leaving: OrderedDict[JobKey, None] = OrderedDict()
        """Jobs whose tasks do not go together."""
        self._prefetching: dict[JobKey, asyncio.Task[None]] = {}
        self._pacing: Pacing[JobKey] = Pacing(time.monotonic)

    # ------------------------------------------------------------------ effects

    def start(self, effect: Start) -> None:
        """Perform ``Start``."""
        key = (effect.master, effect.lease)
        guest = Guest(effect)
        self._guests[key] = guest
        guest.task = self._tasks.create_task(self._run(key, guest), name=f"task {effect.lease}")

    def train(self, effect: Train) -> None:
        """Perform ``Train``."""
        guests = [Guest(start, coupled=True) for start in effect.starts]
        self._guests.update({_key(guest): guest for guest in guests})
        self._tasks.create_task(self._run_train(guests), name=f"train {guests[0].start.lease}")

    def kill(self, effect: Kill) -> None:
        """Perform ``Kill``: nobody wants a result and nothing is said when it is over, unless it may leave a checkpoint."""
        guest = self._guests.get((effect.master, effect.lease))
        if guest is None:
            if not effect.checkpoint_s:  # else its end is on the way already, and what it left may be kept
                self._unpin(effect.master, effect.lease)
        elif effect.checkpoint_s:
            evicted = effect.reason == "evicted"  # by this machine's owner, who has set how long that may take
            grace_s = effect.checkpoint_s if evicted else min(effect.checkpoint_s, self._settings.grace_s)
            why = f"it was told to end ({effect.detail or effect.reason})"
            told = self._pool.kill(guest.name, "evicted", why, grace_s, self._signal)
            self._tasks.create_task(told, name=f"evict {effect.lease}")
        elif guest.coupled and guest.task is None:
            guest.cancelled = True
            # What is its user's own, in folders of its own, may tidy up; a guest is gone at once.
            tidies = guest.start.own and guest.start.sandbox == "none"
            told = self._pool.kill(guest.name, "cancelled", grace_s=STOP_S if tidies else 0.0)
            self._tasks.create_task(told, name=f"stop {effect.lease}")
            if guest.fetching is not None:
                guest.fetching.drop()
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
            guest.standing.note(effect.reason if isinstance(effect, Suspend) else None)
            self._pool.hold(guest.name, still=guest.suspended)

    def quiet(self, *, still: bool) -> None:
        """While guests stand still, nothing is done for them either: no build, no fetching ahead."""
        self._pool.quiet(still=still)
        for task in self._prefetching.values() if still else ():
            task.cancel()

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

    def pids(self) -> list[int]:
        """Return the processes above those of guests."""
        return self._pool.pids()

    def pin_kept(self, results: Iterable[ResultKept]) -> None:
        """After a start: hold the blobs of results that their masters have not acknowledged."""
        for kept in results:
            refs = (*kept.item.body, *kept.item.blobs)
            self._blobs.pin(pin_tag(kept.master, kept.lease), [ref.blob for ref in refs])

    def release(self, effect: Release) -> None:
        """Perform ``Release``: the master has the result."""
        self._unpin(effect.master, effect.lease)

    def guests(self) -> dict[Key, Guest]:
        """Return what runs here now; read only."""
        return self._guests

    def find(self, lease: LeaseId, master: NodeId) -> Guest | None:
        """Return the attempt under a lease, if it runs here."""
        return self._guests.get((master, lease))

    def opened(self, job: bytes, body: CommandsBody) -> None:
        """Take the body of a job of this very node, which need not be opened again."""
        self._keep_body((self._node, job), body, own=True)

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
            guest.environment = await self._environments.of_task(start, job)
            if isinstance(job, CommandsBody) and isinstance(job.delay_ms, int):
                await self._pacing.wait((start.master, start.job), job.delay_ms / 1000)
            vacated = Vacated(lease=start.lease, master=start.master)
            async with self._launching.alone(guest, job, checkpoint, lambda: self._post(vacated)) as launch:
                self._post(Started(lease=start.lease, master=start.master))
                guest.began = time.monotonic()
                if not isinstance(job, CommandsBody):
                    progress = self._tasks.create_task(self._watch_progress(guest), name="progress")
                wall = int(time.time() * 1000)
                outcome, sealed = await self._pool.run(launch)
            event: Event = ended_of(start, outcome, sealed, wall)
            if guest.cancelled:  # nobody says when its result is held no longer
                self._unpin(start.master, start.lease)
        except asyncio.CancelledError:
            if not guest.cancelled:
                raise
            self._unpin(start.master, start.lease)
            return
        except Exception as error:  # noqa: BLE001  which says more
            self._failed(guest, error)
            return
        finally:
            if progress is not None:
                progress.cancel()
            if guest.environment is not None:
                guest.environment.let_go()
            self._guests.pop(key, None)
            guest.over.set()
        self._post(event)

    def _failed(self, guest: Guest, error: Exception) -> None:
        """An attempt failed by this node's doing; the task goes elsewhere."""
        start = guest.start
        self._over(guest)
        match error:
            case SandboxError() | BuildError() | StorageError() | LinkError() | RefusedError() | Reject():
                fault, detail = fault_of(error, guest), str(error)[:500]
            case _:
                # One job must not take the node down, whatever it found; the log tells us.
                log.error("guest.failed", exc_info=error, extra={"fields": {"lease": str(start.lease)}})
                fault, detail = "sandbox", "an internal error of this node, see its node.log"
        self._post(Faulted(lease=start.lease, master=start.master, fault=fault, detail=detail))

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
                job = await asyncio.to_thread(open_job, start, self._blobs, self._launching.limits(start).disk_bytes)
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
            tree = await asyncio.to_thread(
                open_checkpoint, start, self._blobs, self._launching.limits(start).disk_bytes
            )
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

    # ------------------------------------------------------------------ several, one after another

    async def _run_train(self, guests: list[Guest]) -> None:
        stopped = False
        try:
            with fetching(guests):
                job = await self._open(guests[0].start)
            wanted = [guest for guest in guests if not guest.cancelled]
            needs = guests[0].start.resources
            alone = needs.gpus or LABEL in needs.needs  # each holds its own
            if alone or not can_follow(job) or guests[0].job in self._leaving:
                await self._one_by_one(wanted)
            elif wanted:
                await self._together(wanted, job)
        except asyncio.CancelledError:
            stopped = True
            raise
        except Exception as error:  # noqa: BLE001  see ``_run``
            left = [guest for guest in guests if not guest.over.is_set() and not guest.cancelled]
            # What has run must not run again as if it had not begun.
            for guest in [guest for guest in left if guest.ran] or left[:1]:
                self._failed(guest, error)
            if not left:
                log.warning("train.failed", extra={"fields": {"reason": str(error)}})  # all results are had
        finally:
            # Those that were begun one by one have a task of their own, which tells of them.
            self._give_back([guest for guest in guests if guest.task is None], quietly=stopped)

    def _give_back(self, guests: list[Guest], *, apart: bool = False, quietly: bool = False) -> None:
        """Those of a train that are not over do not run on it; each has a runner of its own next time if ``apart``."""
        left = [guest for guest in guests if not guest.over.is_set()]
        for guest in left:
            self._over(guest)
        back = tuple(_key(guest) for guest in left if not guest.cancelled)
        if back and not quietly:
            self._post(TrainExited(exits=(), back=back, apart=apart))

    async def _together(self, guests: list[Guest], job: AnyJobBody) -> None:
        """Let one runner have them all."""
        launch = self._launching.train(guests, job, self._goes_on)
        self._give_back(guests[len(launch.passengers) :])
        begun = 0
        alone = True  # where none can begin, they must not come together again
        async with aclosing(run_train(self._pool, launch)) as told:
            async for some in told:
                alone = False
                if isinstance(some, Left):
                    self._give_back(guests[some.first : len(launch.passengers)], apart=some.apart)
                    continue
                now = time.time() * 1000
                if isinstance(some, tuple):
                    place, outcome, sealed = some
                    ended = [(guests[place], outcome, sealed)]
                    alone = place < ALONE_MIN and outcome.seconds < trains.LONG_S
                else:
                    ended = await self._sealed(guests, some)
                now -= sum(outcome.seconds for _, outcome, _ in ended) * 1000
                exits = []
                for guest, outcome, sealed in ended:
                    begun = max(begun, int(now))
                    now += outcome.seconds * 1000
                    exits.append(ended_of(guest.start, outcome, sealed, begun))
                for guest, _, _ in ended:  # whose master says when results are held no longer
                    self._over(guest, release=guest.cancelled)
                self._post(TrainExited(exits=tuple(exits)))
        if alone and not any(guest.cancelled or guest.suspended for guest in guests):
            self._leave(guests[0].job)

    def _goes_on(self, started: Started) -> None:
        """One of a train takes long, and is followed like one that came alone."""
        self._post(started)
        guest = self.find(started.lease, started.master)
        if guest is not None and guest.root is not None:
            self._tasks.create_task(self._watch_progress(guest), name="progress")

    def _leave(self, job: JobKey) -> None:
        """Tasks of that job leave so much that each ends its train: they come one by one from now on."""
        self._leaving[job] = None
        if len(self._leaving) > BODIES_MAX:
            self._leaving.popitem(last=False)

    async def _sealed(self, guests: list[Guest], some: list[Ended]) -> list[tuple[Guest, Ran, Sealed]]:
        """Seal what attempts that ended have printed."""

        def seal() -> None:
            sealers = (self._launching.sealer(guests[each.place]) for each in told)
            some = [
                Printed(sealer, each.outcome, each.stdout, each.stderr)
                for sealer, each in zip(sealers, told, strict=True)
            ]
            sealed.update(zip((each.place for each in told), seal_printed(some), strict=True))
            some[0].sealer.secure(*sealed.values())

        told = [each for each in some if each.tells or not guests[each.place].start.may_be_empty]
        sealed: dict[int, Sealed] = {}
        for each in some:
            guests[each.place].ran = True
        if told:
            await in_thread(seal)
        return [(guests[each.place], each.outcome, sealed.get(each.place, NOTHING)) for each in some]

    async def _one_by_one(self, guests: list[Guest]) -> None:
        """Let each have a runner as if it had come alone; behind one that takes long nothing waits."""
        for guest in guests:
            if not guest.cancelled:
                guest.task = self._tasks.create_task(self._run(_key(guest), guest), name=f"task {guest.start.lease}")
                done, _ = await asyncio.wait([guest.task], timeout=trains.LONG_S)
                if not done:
                    break

    def _over(self, guest: Guest, *, release: bool = True) -> None:
        """It has ended here; unless there is a result, what it needed is held no longer."""
        self._guests.pop(_key(guest), None)
        guest.over.set()
        if release:
            self._unpin(guest.start.master, guest.start.lease)

    async def _watch_progress(self, guest: Guest) -> None:
        """Tell the progress that a task writes to ``results/.progress``; hostile text is ignored."""
        start = guest.start
        while not guest.over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PROGRESS_POLL_S):
                    await guest.over.wait()
                    return
            if guest.root is not None:
                progress = taskfolder.read_progress(guest.root)
                if progress is not None and progress != guest.progress:
                    guest.progress = progress
                    self._post(Progressed(lease=start.lease, master=start.master, progress=progress))

    # ------------------------------------------------------------------ blobs

    def _pin(self, start: Start, refs: Iterable[BlobRef]) -> None:
        self._blobs.pin(pin_tag(start.master, start.lease), [ref.blob for ref in refs])

    async def _fetch_missing(self, start: Start, refs: Iterable[BlobRef], *, shared: bool = False) -> None:
        missing = self._missing(refs)
        if missing:
            await self._transfers.fetch(start.master, missing, shared=shared)

    def _missing(self, refs: Iterable[BlobRef]) -> list[tuple[bytes, int]]:
        return [(ref.blob, ref.size) for ref in dict.fromkeys(refs) if not self._blobs.has(ref.blob)]

    def _unpin(self, master: NodeId, lease: LeaseId) -> None:
        self._blobs.unpin(pin_tag(master, lease))


def _key(guest: Guest) -> Key:
    return guest.start.master, guest.start.lease
