"""Results on their way home, at their master: brought from the worker, looked into, made durable, written out.

Performs ``Collect`` and ``Deliver``. A result counts only once it has been opened here; it is held until
its owner's folder has it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from p2pq.core.collecting import COLLECT_BYTES_S, COLLECT_S
from p2pq.core.effects import Collect, Deliver, Forget
from p2pq.core.events import Collected, CollectFailed, Delivered, DeliverFailed, Event, Several
from p2pq.core.records import Restored
from p2pq.daemon import delivery, submission
from p2pq.daemon.blobstore import BlobMissingError, BlobStore
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.store import Store
from p2pq.daemon.transfer import Transfers
from p2pq.errors import LinkError, RefusedError, Reject, StorageError
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall, short, to_text
from p2pq.model.params import task_number
from p2pq.wire import body as bodies
from p2pq.wire import names, prims, sign
from p2pq.wire.body import ResultBody
from p2pq.wire.objects import Manifest, ResultItem
from p2pq.wire.tree import select

log = logging.getLogger(__name__)

DELIVERIES_MAX: Final = 4
"""Results written out at the same time."""
LOOK_S: Final = 10.0
"""How often it is looked whether results come fast enough."""
GATHERED_MAX: Final = 256
"""Results of this very node that are made durable together."""
SKIPPED_MAX: Final = 20
"""Entries that an attempt left behind which are remembered; the rest is a count."""
OUTPUTS_SHARE: Final = 8
"""What failed attempts of live jobs printed is held up to this part of the store; beyond it, it makes room for newer blobs."""


class Homecoming:
    """Brings results home. Use it from the event loop's thread only."""

    def __init__(  # noqa: PLR0913  the daemon's parts, each used here
        self,
        *,
        node: NodeId,
        store: Store,
        blobs: BlobStore,
        transfers: Transfers,
        scheduler: Scheduler,
        tasks: asyncio.TaskGroup,
        post: Callable[[Event], None],
        in_trouble: Callable[[str], None],
    ) -> None:
        """Take the parts; ``in_trouble`` is told, as a sentence, why no result can be taken in now."""
        self._node = node
        self._store = store
        self._blobs = blobs
        self._transfers = transfers
        self._scheduler = scheduler
        self._tasks = tasks
        self._post = post
        self._in_trouble = in_trouble
        self._deliveries = asyncio.Semaphore(DELIVERIES_MAX)
        self._unswept: set[JobId] = set()
        """Jobs whose results may lie half written beside their place: this node died meanwhile, or their disk failed."""
        self._brought: dict[NodeId, int] = {}
        """Bytes of results that each worker has brought in this life."""
        self._stays: dict[JobId, bool] = {}
        """Live jobs of which it is known whether their results stay here."""
        self._at_home: list[Collect] = []
        """Results of this very node that are to be taken in."""
        self._staying: list[Deliver] = []
        """Results that count and are written out nowhere."""
        self._outputs: dict[JobId, int] = {}
        """Bytes held of what failed attempts printed, by live job."""

    def pin_live(self, restored: Restored) -> None:
        """After a start: hold the blobs that live jobs need."""
        for job in restored.jobs:
            for task in job.tasks:
                if task.checkpoint is not None:
                    self._blobs.pin(("checkpoint", task.checkpoint.lease), _named(task.checkpoint))
        for row in self._store.live_jobs():
            self._unswept.add(row.job)
            secret = self._store.secret(row.job)
            if secret is not None:
                manifest = sign.open_signed(secret.manifest, Manifest, self._node)
                self._blobs.pin(row.job, [ref.blob for ref in (*manifest.body, *manifest.blobs)])
            self._pin_undelivered(row.job)
            for item in self._store.failed_results(row.job):
                self._tasks.create_task(self._keep_output(item, final=True), name=f"keep output {item.lease}")

    def _pin_undelivered(self, job: JobId) -> None:
        """Hold results that are here but not yet in the owner's folder."""
        start = 0
        while page := self._store.tasks(job, start=start):
            for task in page:
                if task.state in {"done", "failed"} and not task.delivered:
                    item = self._store.result(job, task.task)
                    if item is not None:
                        self._blobs.pin(("result", item.lease), _named(item))
            start = page[-1].task + 1

    def forget(self, effect: Forget) -> None:
        """Perform ``Forget``."""
        self._unpin(effect.lease)

    def _unpin(self, lease: LeaseId) -> None:
        self._blobs.unpin(("result", lease))
        self._blobs.unpin(("checkpoint", lease))

    def keep_output(self, job: JobId, task: int, attempt: int, *, final: bool) -> None:
        """An attempt failed: hold what it printed for as long as its job lives, so that every try can be looked into.

        Where it is not ``final``, the rest of its result is wanted no longer.
        """
        item = self._store.result(job, task, attempt)
        if item is not None:
            self._tasks.create_task(self._keep_output(item, final=final), name=f"keep output {item.lease}")

    async def _keep_output(self, item: ResultItem, *, final: bool) -> None:
        job = JobId(item.job)
        try:
            refs = await asyncio.to_thread(self._output_of, item)
        except (Reject, StorageError) as error:
            log.info("result.output-gone", extra={"fields": {"lease": str(item.lease), "reason": str(error)}})
            refs = {}
        size = sum(refs.values())
        room = self._blobs.quota_bytes // OUTPUTS_SHARE - sum(self._outputs.values())
        # Its job may have ended meanwhile, and then nobody would let go of them.
        if size <= room and self._scheduler.task(job, item.task) is not None:
            self._outputs[job] = self._outputs.get(job, 0) + size
            self._blobs.pin(("outputs", job), refs)
        if not final and not item.checkpoint:  # the core says when a checkpoint is wanted no longer
            self._blobs.unpin(("result", item.lease))

    def _output_of(self, item: ResultItem) -> dict[bytes, int]:
        """Return the blobs, with their sizes, that it takes to read what an attempt printed."""
        secret = self._store.secret(JobId(item.job))
        if secret is None:
            return {}
        body = delivery.open_result(item, secret.reply_secret, self._blobs, delivery.limits_of(secret.manifest))
        return {ref.blob: ref.size for ref in (*item.body, *bodies.tree_refs(body.output))}

    def let_go(self, job: JobId) -> None:
        """A job has ended: nothing of it is held any longer."""
        self._outputs.pop(job, None)
        self._stays.pop(job, None)
        self._blobs.unpin(("outputs", job))
        self._blobs.unpin(job)

    def collect(self, effect: Collect) -> None:
        """Perform ``Collect``."""
        if effect.peer == self._node and not effect.inline and all(self._blobs.has(ref.blob) for ref in effect.blobs):
            self._blobs.pin(("result", effect.lease), [ref.blob for ref in effect.blobs])
            self._at_home.append(effect)
            if len(self._at_home) == 1:
                self._tasks.create_task(self._gather(), name="gather")
        else:
            self._tasks.create_task(self._collect(effect), name=f"collect {effect.lease}")

    async def _gather(self) -> None:
        """Take in what this very node's attempts left: it is here already, and is made durable all together."""
        while self._at_home:
            some = self._at_home[:GATHERED_MAX]
            try:
                bodies_of = await asyncio.to_thread(self._secure_all, some)
            except Exception:  # noqa: BLE001  whatever it is, it is found out, and told, one by one
                for effect in some:
                    self._tasks.create_task(self._collect(effect), name=f"collect {effect.lease}")
            else:
                found = zip(some, bodies_of, strict=True)
                self._post(Several(events=tuple(self._collected(effect, body) for effect, body in found)))
            del self._at_home[: len(some)]

    def _secure_all(self, effects: list[Collect]) -> list[ResultBody | None]:
        """Look into results and make them durable; raises as ``_secure``."""
        found = [
            self._look_into(self._scheduler.collecting(each.lease), {ref.blob for ref in each.blobs})
            for each in effects
        ]
        self._blobs.sync(dict.fromkeys(ref.blob for each in effects for ref in each.blobs))
        return found

    async def _collect(self, effect: Collect) -> None:
        tag = ("result", effect.lease)
        wanted = {ref.blob for ref in effect.blobs}
        self._blobs.pin(tag, wanted)
        try:
            if effect.inline:
                await asyncio.to_thread(self._keep_inline, effect, wanted)
            missing = [(ref.blob, ref.size) for ref in effect.blobs if not self._blobs.has(ref.blob)]
            if missing:
                await self._bring(effect.peer, missing, effect.through)
            body = await self._in_hand(effect.lease, wanted)
        except Reject as error:
            self._blobs.unpin(tag)
            self._post(CollectFailed(lease=effect.lease, reason=f"the result: {error}"[:500], refused=True))
            return
        except (LinkError, BlobMissingError) as error:
            self._blobs.unpin(tag)
            # What this very node lacks of a result of its own nobody has: it lost power before that was on the disk.
            own = effect.peer == self._node
            self._post(CollectFailed(lease=effect.lease, reason=str(error)[:500], refused=own))
            return
        except StorageError as error:
            self._blobs.unpin(tag)
            if isinstance(error, StorageError):
                self._in_trouble(f"results cannot be taken in: {error}")
            self._post(CollectFailed(lease=effect.lease, reason=str(error)[:500]))
            return
        except TimeoutError:
            self._blobs.unpin(tag)
            self._post(CollectFailed(lease=effect.lease, reason="its worker was too slow to bring it", slow=True))
            return
        except Exception:
            # One result must not take the node down; its worker keeps it and offers it again.
            log.exception("result.collect-failed", extra={"fields": {"lease": str(effect.lease)}})
            self._blobs.unpin(tag)
            self._post(CollectFailed(lease=effect.lease, reason="an internal error, see node.log"))
            return
        self._post(self._collected(effect, body))

    def _collected(self, effect: Collect, body: ResultBody | None) -> Collected:
        """Return what the core is told of a result that is here, and hold it for as long as it is wanted."""
        item = self._scheduler.collecting(effect.lease)
        if item is None:
            self._blobs.unpin(("result", effect.lease))  # the task was cancelled, or another attempt of it was faster
        elif item.checkpoint and not item.outcome.ok:
            wanted = [ref.blob for ref in effect.blobs]
            self._blobs.pin(("checkpoint", effect.lease), wanted)  # until ``Forget``, or until it is delivered
        if item is None or body is None:
            return Collected(lease=effect.lease)
        return Collected(lease=effect.lease, detail=_detail(item, body), skipped=_skipped(body))

    async def _bring(self, peer: NodeId, missing: list[tuple[bytes, int]], through: NodeId | None) -> None:
        """Fetch blobs at no less than the pace that the core asks for; what else the same worker brings counts as well.

        Raises:
            LinkError, StorageError: they cannot be had, or not be kept.
            TimeoutError: they come too slowly.
        """
        loop = asyncio.get_running_loop()
        began, before = loop.time(), self._brought.get(peer, 0)
        waits = dict(missing)

        def look() -> None:
            came = [blob for blob in waits if self._blobs.has(blob)]
            self._brought[peer] = self._brought.get(peer, 0) + sum(waits.pop(blob) for blob in came)
            if not limit.expired():
                limit.reschedule(began + COLLECT_S + (self._brought[peer] - before) / COLLECT_BYTES_S)

        async def look_again() -> None:
            while True:
                await asyncio.sleep(LOOK_S)
                look()

        async with asyncio.timeout(COLLECT_S) as limit:
            looking = self._tasks.create_task(look_again(), name=f"pace of {short(peer)}")
            try:
                await self._transfers.fetch(peer, missing, through=through)
            finally:
                looking.cancel()
                look()

    async def _in_hand(self, lease: LeaseId, wanted: set[bytes]) -> ResultBody | None:
        """Return what a result says, once it is durable; raises as ``_secure``."""
        if not wanted:  # nothing was left: there is nothing to make durable
            return self._secure(self._scheduler.collecting(lease), wanted)
        return await asyncio.to_thread(self._secure, self._scheduler.collecting(lease), wanted)

    def _secure(self, item: ResultItem | None, wanted: set[bytes]) -> ResultBody | None:
        """Look into a result before it counts, and make it durable.

        Raises:
            Reject: it does not open, or names blobs that its worker did not bring.
            StorageError: it cannot be kept.
        """
        body = self._look_into(item, wanted)
        if wanted:
            self._blobs.sync(wanted)
        return body

    def _look_into(self, item: ResultItem | None, wanted: set[bytes]) -> ResultBody | None:
        """Open a result; raises as ``_secure``."""
        body = None
        secret = None if item is None else self._store.secret(JobId(item.job))
        if item is not None and secret is not None:
            body = delivery.open_result(item, secret.reply_secret, self._blobs, delivery.limits_of(secret.manifest))
            named = {ref.blob for tree in (body.tree, body.output) for ref in bodies.tree_refs(tree)}
            if not named <= wanted:
                raise Reject("it names blobs that it did not bring")
            if item.checkpoint and not bodies.has_checkpoint(body.tree):
                raise Reject("it does not hold the checkpoint that it promises")
        return body

    def _keep_inline(self, effect: Collect, wanted: set[bytes]) -> None:
        for ciphertext in effect.inline:
            blob = prims.blob_id(ciphertext)
            if blob in wanted:
                self._blobs.add(blob, ciphertext)

    def deliver(self, effect: Deliver) -> None:
        """Perform ``Deliver``."""
        if self._goes_out(effect.job):
            self._tasks.create_task(self._deliver(effect), name=f"deliver {short(effect.job)}")
            return
        self._staying.append(effect)
        if len(self._staying) == 1:
            asyncio.get_running_loop().call_soon(self._stay)

    def _stay(self) -> None:
        """Say of results that go nowhere that they are where they belong."""
        some, self._staying = self._staying, []
        for effect in some:
            self._unpin_result(effect)
        self._post(Several(events=tuple(Delivered(job=each.job, task=each.task, wall=_now()) for each in some)))

    async def _deliver(self, effect: Deliver) -> None:
        async with self._deliveries:
            try:
                await asyncio.to_thread(self.write_out, effect.job, effect.task, None)
            except BlobMissingError as error:
                self._post_void(effect, error)
                return
            except (Reject, delivery.UndeliverableError) as error:
                if isinstance(error, Reject) and await asyncio.to_thread(self._damaged, effect):
                    self._post_void(effect, error)
                    return
                self._unpin_result(effect)
                reason = str(error)[:500]
                if isinstance(error, delivery.UndeliverableError):
                    reason += f"; `p2pq results {to_text(effect.job)[:8]} --to DIR` writes them elsewhere"
                self._post(DeliverFailed(job=effect.job, task=effect.task, reason=reason, refused=True))
                return
            except (StorageError, RefusedError, OSError) as error:
                self._post(DeliverFailed(job=effect.job, task=effect.task, reason=str(error)[:500]))
                return
            except Exception:
                log.exception("result.deliver-failed", extra={"fields": {"job": to_text(effect.job)}})
                reason = "an internal error, see node.log"
                self._post(DeliverFailed(job=effect.job, task=effect.task, reason=reason))
                return
        self._unpin_result(effect)
        self._post(Delivered(job=effect.job, task=effect.task, wall=_now()))

    def _goes_out(self, job: JobId) -> bool:
        """Tell whether a job's results go to a folder: what commands leave is what they print, which stays here."""
        if job not in self._stays:
            row = self._store.job(job)
            self._stays[job] = row is not None and row.extra is not None and not row.extra.results
        return not self._stays[job]

    def _post_void(self, effect: Deliver, error: Reject | StorageError) -> None:
        """What counted is here no longer: whoever wrote it has let go of it."""
        self._unpin_result(effect)
        reason = f"the results are damaged on this machine's disk ({error})"
        self._post(DeliverFailed(job=effect.job, task=effect.task, reason=reason, void=True))

    def _damaged(self, effect: Deliver) -> bool:
        """Tell whether blobs of a result, which were whole when they came, are so no more."""
        item = self._store.result(effect.job, effect.task)
        try:
            return item is not None and bool(self._blobs.verify(_named(item)))
        except StorageError:
            return False

    def let_go_of_result(self, job: JobId, task: int) -> None:
        """Nobody waits for a task's results any more."""
        item = self._store.result(job, task)
        if item is not None:
            self._unpin(item.lease)

    def _unpin_result(self, effect: Deliver) -> None:
        self.let_go_of_result(effect.job, effect.task)

    def write_out(self, job: JobId, task: int, to: Path | None) -> Path:
        """Write one task's results into the owner's folder, or below ``to``."""
        row, secret, item = self._store.job(job), self._store.secret(job), self._store.result(job, task)
        if row is None or row.extra is None or secret is None or item is None:
            raise StorageError("the store has no such result")
        body = delivery.open_result(item, secret.reply_secret, self._blobs, delivery.limits_of(secret.manifest))
        sweep = submission.open_sweep(row.extra)
        number = task_number(sweep.array, sweep.axes, task)
        folder = delivery.target(to or Path(row.extra.results), tasks=row.extra.tasks, number=number)
        if to is None and job in self._unswept:
            self._unswept.discard(job)
            delivery.sweep(folder.parent)
        tree = body.tree
        if not item.body:
            return folder  # it left nothing
        if item.outcome.ok:  # of no more use; whoever looks into a failure may want it
            tree = select(tree, lambda path: not bodies.in_checkpoint(path))
        try:
            delivery.write(tree, self._blobs, folder, umask=row.extra.umask)
        except StorageError:
            if to is None:
                self._unswept.add(job)  # where nothing can be written, nothing can be removed
            raise
        return folder


def _detail(item: ResultItem, body: ResultBody) -> str:
    """Return what a worker says on how an attempt ended, if that is more than its outcome says; others wrote it."""
    outcome = item.outcome
    plain, _, more = body.detail.partition("; ")
    if outcome.ok or plain == f"it exited with status {outcome.exit}":
        return names.display(more)
    return names.display(body.detail)


def _skipped(body: ResultBody) -> tuple[str, ...]:
    """Return what could not travel of an attempt's results, as people see it."""
    lines = tuple(names.display(line) for line in body.skipped[:SKIPPED_MAX])
    more = len(body.skipped) - SKIPPED_MAX
    return (*lines, f"and {more} more") if more > 0 else lines


def _named(item: ResultItem) -> list[bytes]:
    return [ref.blob for ref in (*item.body, *item.blobs)]


def _now() -> Wall:
    return Wall(int(time.time() * 1000))
