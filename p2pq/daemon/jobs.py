"""As master, beside the core: take submissions in and tell people how their jobs are.

Answers the local API's requests about jobs. What is shown comes from the store, so it is durable;
what only the running core knows (progress, why) is added on top.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from p2pq.core.docket import GIVEN_UP
from p2pq.core.effects import Effect, Emit
from p2pq.core.events import CancelAsked, Event, Submitted
from p2pq.core.records import Intervals
from p2pq.daemon import crashpoints, delivery, places, submission
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.catalogue import Catalogue
from p2pq.daemon.explaining import Explaining
from p2pq.daemon.history import PAGE_MAX, JobExtra, JobRow
from p2pq.daemon.homecoming import Homecoming
from p2pq.daemon.jobfiles import JobFiles
from p2pq.daemon.preparing import Packages, Preparing
from p2pq.daemon.resume import resumed
from p2pq.daemon.retrying import Retrying
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.store import Store
from p2pq.daemon.transfer import Transfers
from p2pq.errors import RefusedError, UsageError
from p2pq.model import notice as facts
from p2pq.model.halt import parse_halt
from p2pq.model.ids import JobId, Wall, to_text
from p2pq.wire import control
from p2pq.wire.control import Change, Note, Reply
from p2pq.wire.resultcontrol import Results, Wrote

log = logging.getLogger(__name__)

Send = Callable[[Reply], Awaitable[None]]

WATCHERS_MAX: Final = 256
WATCH_QUEUE_MAX: Final = 10_000
WATCH_PERIOD_S: Final = 0.1
"""Changes of a watched job are told at most this often, except for its end and for failures."""
WAIT_WHY_S: Final = 10.0
"""A job that nobody took within this time says why."""
TASKS_SHOWN_MAX: Final = 1_000_000
YIELD_EVERY: Final = 256


class Watcher:
    """One client that follows jobs."""

    def __init__(self, jobs: frozenset[bytes]) -> None:
        """Follow these jobs."""
        self.jobs = jobs
        self.queue: asyncio.Queue[tuple[bytes, int | None, bool]] = asyncio.Queue(WATCH_QUEUE_MAX)
        self.lost = False
        """A change was dropped, so that every job must be looked at."""

    def tell(self, job: bytes, task: int | None, *, ended: bool) -> None:
        """Queue a change; a slow reader only loses details, since each change carries the whole count."""
        if self.queue.full():
            self.queue.get_nowait()
            self.lost = True
        self.queue.put_nowait((job, task, ended))


class Jobs:
    """The jobs of this node. Use it from the event loop's thread only."""

    def __init__(  # noqa: PLR0913  the daemon's parts, each used here
        self,
        *,
        author: submission.Author,
        store: Store,
        blobs: BlobStore,
        transfers: Transfers,
        scheduler: Scheduler,
        tasks: asyncio.TaskGroup,
        post: Callable[[Event], None],
        post_durable: Callable[[Event], Awaitable[Sequence[Effect]]],
        unprotected: Callable[[], str] = lambda: "",
        packages: Packages | None = None,
    ) -> None:
        """Take the parts.

        ``unprotected`` says why tasks run without a sandbox here, or nothing; ``packages`` go along with jobs that ask for it.
        """
        self.author = author
        self._store = store
        self._blobs = blobs
        self._scheduler = scheduler
        self._post_durable = post_durable
        self._unprotected = unprotected
        self._preparing = Preparing(author, store, blobs, packages)
        self._watchers: dict[Watcher, None] = {}
        self._submitting: set[str] = set()
        self._held = ""
        self._troubles: dict[JobId, str] = {}
        """Live jobs whose results do not get through on this side, and why."""
        self.catalogue = Catalogue(store, scheduler, author.owner)
        self.explaining = Explaining(self.catalogue, store, scheduler, self._troubles)
        self.home = Homecoming(
            node=author.node,
            store=store,
            blobs=blobs,
            transfers=transfers,
            scheduler=scheduler,
            tasks=tasks,
            post=post,
            in_trouble=self._all_in_trouble,
        )
        """Performs ``Collect`` and ``Deliver``."""
        self.files = JobFiles(node=author.node, store=store, blobs=blobs, tasks=tasks, post=post)
        self.retrying = Retrying(
            author=author,
            catalogue=self.catalogue,
            store=store,
            blobs=blobs,
            claimed=self.claimed,
            post_durable=post_durable,
        )

    # ------------------------------------------------------------------ notices

    def notice(self, notice: facts.Notice) -> None:  # noqa: C901, PLR0912  one arm per notice
        """Tell watchers what the core said of their jobs."""
        match notice:
            case facts.TaskSettled(job=job, task=task, state=state):
                if state == "failed" and notice.outcome is not None:
                    self.home.keep_output(job, task, notice.attempt, final=True)
                elif state == "cancelled":
                    self.home.let_go_of_result(job, task)
                self._tell(job, task if state == "failed" else None, ended=False)
            case facts.TaskGranted(job=job) | facts.TaskProgressed(job=job):
                self._tell(job, None, ended=False)
            case facts.AttemptLost(job=job, fault=fault):
                if fault == "fetch":
                    self.files.fetch_failed(job)
                self._tell(job, None, ended=False)
            case facts.TaskResultsLost(job=job, task=task, reason=reason):
                number = self.catalogue.number(job, task)
                self._in_trouble(job, f"task {number} runs again: {reason}", "")
            case facts.TaskResultsWritten(job=job):
                self._troubles.pop(job, None)
                self._tell(job, None, ended=False)
            case facts.AttemptFailed(job=job, task=task, attempt=attempt):
                self.home.keep_output(job, task, attempt, final=False)
                self._tell(job, None, ended=False)
            case facts.TasksRetried(job=job) | facts.JobHalted(job=job):
                self._tell(job, None, ended=False)
            case facts.TaskResultsStuck(job=job, reason=reason):
                self._in_trouble(job, f"results cannot be written out: {reason}")
            case facts.JobFinished(job=job):
                self._troubles.pop(job, None)
                self.home.let_go(job)
                self.files.let_go(job)
                self._tell(job, None, ended=True)
            case _:
                pass

    def _in_trouble(
        self, job: JobId, sentence: str, tail: str = "; nothing is lost, it is tried again until it works"
    ) -> None:
        self._troubles[job] = f"{sentence}{tail}"
        self._tell(job, None, ended=False)

    def _all_in_trouble(self, sentence: str) -> None:
        for job in {job for watcher in self._watchers for job in watcher.jobs}:
            self._in_trouble(JobId(job), sentence)

    def _tell(self, job: bytes, task: int | None, *, ended: bool) -> None:
        for watcher in self._watchers:
            if job in watcher.jobs:
                watcher.tell(job, task, ended=ended)

    # ------------------------------------------------------------------ requests

    @contextmanager
    def held(self, what: str) -> Iterator[None]:
        """Take no submission for a while: a job that came while the node changes its mesh would belong to neither.

        Raises:
            RefusedError: one is under way.
        """
        if self._submitting or self._held:
            raise RefusedError(f"{self._held or 'a job is being submitted'}; try {what} again when that is done")
        self._held = what
        try:
            yield
        finally:
            self._held = ""

    async def submit(self, request: control.Submit, send: Send) -> None:
        """Answer ``Submit``."""
        only = self._only(request)
        if request.sandbox == "none" and only != self.author.node:
            raise UsageError("--sandbox none is for this machine only; add --where local")
        halt = parse_halt(request.halt) if request.halt else None
        results = _results_folder(request)
        delivery.check_apart(Path(results), Path(request.folder))
        place = os.path.realpath(results)  # noqa: ASYNC240  a few look-ups; one folder may have several names
        with self.claimed(place):
            prepared = await self._preparing.prepare(request, only, results, send)
            for warning in (*prepared.warnings, *self._warnings(only)):
                await send(Note(text=warning))
            try:
                crashpoints.reached("submit.packed")
                kept, extra = (
                    await self._resume(request, prepared.extra, send) if request.resume else ((), prepared.extra)
                )
                moved = await asyncio.to_thread(places.move_aside, self._store, Path(results), leave=bool(kept))
                crashpoints.reached("submit.rotated")
                for job, seen in (*moved.extras, (prepared.job, extra)):
                    self._store.keep_extra(job, seen)
                await self._post_durable(
                    Submitted(
                        manifest=prepared.manifest,
                        key=prepared.key,
                        reply_secret=prepared.reply_secret,
                        wall=_now(),
                        kept=kept,
                        halt=halt,
                    )
                )
            except BaseException:
                self._blobs.unpin(prepared.job)
                raise
        if moved.folder is not None:
            await send(Note(text=f"the earlier results are in {moved.folder}"))
        await send(self.catalogue.view(self.catalogue.row(prepared.job)))

    async def _resume(self, request: control.Submit, extra: JobExtra, send: Send) -> tuple[Intervals, JobExtra]:
        """Find out what need not run again; return that, and what people see of the job with it."""
        found = await asyncio.to_thread(resumed, self._store, extra, anyway=request.keep_done)
        await send(Note(text=found.said))
        return found.intervals, msgspec.structs.replace(extra, kept=found.kept)

    @contextmanager
    def claimed(self, place: str) -> Iterator[None]:
        """Hold a results folder, by its one real name, for a job that is on its way in.

        Raises:
            RefusedError: a live job returns to it, or another is on its way in, or the node changes its mesh.
        """
        if self._held:
            raise RefusedError(f"this node is {self._held}; try again when that is done")
        self._check_free(place)
        self._submitting.add(place)
        try:
            yield
        finally:
            self._submitting.discard(place)

    def _warnings(self, only: bytes) -> tuple[str, ...]:
        why = self._unprotected() if only in (b"", self.author.node) else ""
        return (f"tasks that run on this machine run {why}",) if why else ()

    def _only(self, request: control.Submit) -> bytes:
        if request.where == "any":
            return b""
        if request.where == "local":
            return self.author.node
        return self._scheduler.resolve_node(request.where)

    def _check_free(self, results: str) -> None:
        if results in self._submitting:
            raise RefusedError(f"another job is being submitted with results in {results}; wait, or use --results DIR")
        for row in self._store.live_jobs():
            if row.extra is not None and row.extra.results and os.path.realpath(row.extra.results) == results:
                raise RefusedError(
                    f"job {to_text(row.job)[:8]} still returns results to {results}; "
                    "wait for it, cancel it, or use --results DIR"
                )

    async def jobs(self, request: control.Jobs, send: Send) -> None:
        """Answer ``Jobs``."""
        for row in self._store.job_rows(request.limit):
            await send(self.catalogue.view(row))

    async def show(self, request: control.Show, send: Send) -> None:
        """Answer ``Show``."""
        await send(self.catalogue.view(self.catalogue.find(request.job)))

    async def tasks(self, request: control.Tasks, send: Send) -> None:
        """Answer ``Tasks``: every task in order, those without a history too."""
        row = self.catalogue.find(request.job)
        extra = row.extra or JobExtra()
        index = 0
        while index < min(extra.tasks, TASKS_SHOWN_MAX):
            page = {task.task: task for task in self._store.tasks(row.job, start=index)}
            # A full page ends at its last task; a shorter one means that the rest has no history.
            end = max(page) + 1 if len(page) >= PAGE_MAX else extra.tasks
            for task in range(index, end):
                await send(self.catalogue.task(row, task, page.get(task)))
                if not task % YIELD_EVERY:
                    await asyncio.sleep(0)  # others wait for an answer, too
            index = end

    async def watch(self, request: control.Watch, send: Send) -> None:
        """Answer ``Watch``: until all jobs have ended."""
        jobs = [JobId(self.catalogue.find(name).job) for name in request.jobs]
        if len(self._watchers) >= WATCHERS_MAX:
            raise RefusedError(f"{WATCHERS_MAX} clients follow jobs already; end some of them")
        watcher = Watcher(frozenset(jobs))
        self._watchers[watcher] = None
        try:
            await self._follow(watcher, jobs, send)
        finally:
            del self._watchers[watcher]

    async def _follow(self, watcher: Watcher, jobs: list[JobId], send: Send) -> None:
        loop = asyncio.get_running_loop()
        live: dict[JobId, float] = {}
        for job in dict.fromkeys(jobs):
            if not await self._say_change(job, send):
                live[job] = loop.time() + WAIT_WHY_S
        said: set[tuple[JobId, str]] = set()
        told = loop.time()
        while live:
            timeout_at = min((at for at in live.values() if at), default=None)
            try:
                async with asyncio.timeout_at(timeout_at or None):
                    job_bytes, task, _ = await watcher.queue.get()
            except TimeoutError:
                for job, at in live.items():
                    if at and at <= loop.time():
                        live[job] = 0.0
                        await self.explaining.say_why_waiting(job, send)
                continue
            pending = {JobId(job_bytes)} | (set(live) if watcher.lost else set())
            watcher.lost = False
            if task is not None:
                await send(self._change(JobId(job_bytes), task))
            wait = told + WATCH_PERIOD_S - loop.time()
            if wait > 0 and not self._any_ended(watcher, pending):
                await self._gather(watcher, pending, wait, send)
            told = loop.time()
            for job in pending & live.keys():
                trouble = self._troubles.get(job)
                kind = (job, "" if trouble is None else trouble.partition(":")[0])  # not anew for each task and try
                if trouble is not None and kind not in said:
                    said.add(kind)
                    await send(Note(text=trouble))
                if await self._say_change(job, send):
                    del live[job]

    async def _say_change(self, job: JobId, send: Send) -> bool:
        """Tell how a job is; return whether it has ended, and then say first what of its results could not travel."""
        change = self._change(job)
        left = await self.explaining.left_behind(self.catalogue.row(job)) if change.ended else None
        if left is not None:
            await send(left)
        await send(change)
        return change.ended

    def _any_ended(self, watcher: Watcher, pending: set[JobId]) -> bool:
        del watcher
        return any(self.catalogue.row(job).state is not None for job in pending)

    async def _gather(self, watcher: Watcher, pending: set[JobId], wait: float, send: Send) -> None:
        """Take further changes for a moment, so that a thousand short tasks are not a thousand messages."""
        try:
            async with asyncio.timeout(wait):
                while True:
                    job, task, ended = await watcher.queue.get()
                    pending.add(JobId(job))
                    if task is not None:
                        await send(self._change(JobId(job), task))
                    if ended:
                        return
        except TimeoutError:
            return

    def _change(self, job: JobId, task: int | None = None) -> Change:
        row = self.catalogue.row(job)
        view = self.catalogue.view(row)
        counts = view.tasks
        over = counts.done + counts.failed + counts.cancelled
        part = 0.0
        if counts.running and counts.running <= 1000:  # noqa: PLR2004  beyond that it does not show
            for index in self._store.running_tasks(job):
                snapshot = self._scheduler.task(job, index)
                part += max(0, snapshot.progress) / 1000 if snapshot is not None else 0.0
        shown = None
        if task is not None:
            shown = self.catalogue.task(row, task, self.catalogue.task_row(row, task))
        return Change(
            job=view,
            task=shown,
            progress=(over + part) / max(1, counts.total),
            running_s=max(0.0, (_now() - row.submitted) / 1000),
            ended=row.state is not None,
        )

    async def results(self, request: Results, send: Send) -> None:
        """Answer ``Results``."""
        row = self.catalogue.find(request.job)
        extra = row.extra or JobExtra()
        to = Path(request.to) if request.to else None
        written = 0
        if to is None and not extra.results:
            name = to_text(row.job)[:8]
            raise RefusedError(
                f"what commands leave is what they print: `p2pq logs {name}`, or name a folder with --to DIR"
            )
        if to is not None:
            await asyncio.to_thread(delivery.make_empty, to)
        elif await asyncio.to_thread(places.newer, self._store, row.job, Path(extra.results)) is not None:
            name = to_text(row.job)[:8]
            raise RefusedError(f"a newer job's results lie in {extra.results}; see `p2pq results {name} --to DIR`")
        start = 0
        while page := self._store.tasks(row.job, start=start):
            for task in page:
                has_results = task.state in {"done", "failed"} or task.detail == GIVEN_UP
                if has_results and self._store.result(row.job, task.task) is not None:
                    await asyncio.to_thread(self.home.write_out, row.job, task.task, to)
                    written += 1
            start = page[-1].task + 1
        for kept in extra.kept:
            for task_there in range(kept.first, kept.first + kept.stop - kept.start):
                if self._store.result(kept.job, task_there) is not None:
                    await asyncio.to_thread(self.home.write_out, kept.job, task_there, to or Path(extra.results))
                    written += 1
        if not written:
            raise RefusedError(
                f"job {to_text(row.job)[:8]} has no results yet; see `p2pq tasks {to_text(row.job)[:8]}`"
            )
        await send(Wrote(folder=str(to or extra.results), tasks=written))

    async def cancel(self, request: control.CancelJob, send: Send) -> None:
        """Answer ``CancelJob``."""
        row = self.catalogue.find(request.job)
        index = None if request.task is None else self.catalogue.index(row, request.task)
        if row.state is None:
            effects = await self._post_durable(CancelAsked(job=row.job, task=index, wall=_now()))
            await self._say_given_up(row, effects, send)
        await send(self.catalogue.view(self.catalogue.row(row.job)))

    async def _say_given_up(self, row: JobRow, effects: Sequence[Effect], send: Send) -> None:
        """Say what a cancellation did to results that could not be written out, or what one more would do."""
        told = [effect.notice for effect in effects if isinstance(effect, Emit)]
        count = sum(isinstance(each, facts.TaskSettled) and each.detail == GIVEN_UP for each in told)
        name = to_text(row.job)[:8]
        trouble = self._troubles.get(row.job)
        if count:
            extra = row.extra or JobExtra()
            what = "results of 1 task" if count == 1 else f"results of {count} tasks"
            text = f"{what} could not be written to {extra.results} and are given up"
            await send(Note(text=f"{text}; `p2pq results {name} --to DIR` has them as long as the store has room"))
        elif trouble is not None and self.catalogue.row(row.job).state is None:
            await send(Note(text=f"{trouble}; `p2pq cancel {name}` again gives up what cannot be written"))

    # ------------------------------------------------------------------ for those who follow

    def watcher(self, job: JobId) -> Watcher:
        """Return a watcher of one job that is told of changes until ``unwatch``."""
        watcher = Watcher(frozenset({job}))
        self._watchers[watcher] = None
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Tell this watcher nothing more."""
        self._watchers.pop(watcher, None)


def _results_folder(request: control.Submit) -> str:
    return os.path.normpath(request.results or f"{request.folder}/results")


def _now() -> Wall:
    return Wall(int(time.time() * 1000))
