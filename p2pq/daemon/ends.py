"""Jobs as their tasks end: what each printed and how it ended, for whoever follows. As master, beside the core."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from p2pq.daemon import delivery
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.history import JobRow, JobSecret, TaskRow
from p2pq.daemon.jobs import WAIT_WHY_S, Jobs
from p2pq.daemon.logs import Logs
from p2pq.daemon.mixing import LOOKED_AT_MAX, Mixer, Told
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.store import Store
from p2pq.daemon.submission import Sweep, open_sweep
from p2pq.errors import NotFoundError, RefusedError, Reject, StorageError
from p2pq.model import notice as facts
from p2pq.model.ids import JobId
from p2pq.model.params import task_number
from p2pq.wire.body import ResultBody
from p2pq.wire.commandcontrol import Ends as Asked
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk, Note, Reply
from p2pq.wire.tree import Tree, read_part

Send = Callable[[Reply], Awaitable[None]]
Stream = Literal["stdout", "stderr"]

FOLLOWERS_MAX: Final = 256
NOTES_MAX: Final = 8
"""Different ones that a follower is told."""
AT_ONCE: Final = 64
"""Tasks that are looked up together."""
SMALL_BYTES: Final = 64 << 10
"""Output of so many bytes is read with the rest; what is longer is sent piece by piece."""
_OVER: Final = frozenset({"done", "failed", "cancelled"})
_STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return what follows each other without a gap, each as its first and its last."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] + 1 >= number:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


class _Follower:
    """Tasks that have ended and are not told yet."""

    def __init__(self, *, views: bool, written: bool) -> None:
        self.views = views
        self.written = views or written
        """Told of a task once its results are written out."""
        self.held: dict[int, tuple[str, int, int]] = {}
        """What holds the output of each task that is not told yet."""
        self.ended: deque[int] = deque()
        self.over = False
        self.news = asyncio.Event()
        self.mixer: Mixer | None = None
        """Where output is told of as it is printed."""

        self.notes: dict[str, bool] = {}
        """What there is to say besides, each once, and whether it has been said."""

    def note(self, text: str) -> None:
        """There is something to say."""
        if text not in self.notes and len(self.notes) < NOTES_MAX:
            self.notes[text] = False
            self.news.set()

    def unsaid(self) -> list[str]:
        """Return what there is to say, and has not been returned before."""
        texts = [text for text, said in self.notes.items() if not said]
        self.notes.update(dict.fromkeys(texts, True))
        return texts

    def take(self, task: int) -> None:
        """A task has ended."""
        self.ended.append(task)
        self.news.set()


@dataclass(frozen=True, slots=True)
class _Job:
    """The job that is followed."""

    row: JobRow
    sweep: Sweep
    secret: JobSecret | None


@dataclass(slots=True)
class _Printed:
    """What a task left; ``large`` where it is to be sent piece by piece."""

    row: TaskRow
    pieces: list[tuple[Stream, bytes]]
    printed: tuple[int, int] = (0, 0)
    large: Tree | None = None
    heard: Mapping[Stream, int] = field(default_factory=dict)
    """So many bytes of each stream are told already."""
    gone: str = ""


class Ends:
    """Tells of tasks as they end. Use it from the event loop's thread only."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: BlobStore,
        jobs: Jobs,
        scheduler: Scheduler,
        logs: Logs,
        finish: Callable[[JobId], Awaitable[None]],
    ) -> None:
        """Take the parts; ``finish`` returns once nothing of a job that is over is under way here."""
        self._finish = finish
        self._store = store
        self._blobs = blobs
        self._catalogue, self._explaining = jobs.catalogue, jobs.explaining
        self._scheduler = scheduler
        self._logs = logs
        self._followers: dict[JobId, list[_Follower]] = {}

    def notice(self, notice: facts.Notice) -> None:
        """Take in what the core said of a job."""
        match notice:
            case facts.TaskSettled(job=job, task=task, outcome=outcome):
                for follower in self._followers.get(job, ()):
                    if notice.left:
                        self._hold(follower, job, task)
                    if outcome is None or not follower.written:  # with an outcome, results are still to be written out
                        follower.take(task)
            case facts.TaskGranted(job=job, task=task):
                self._granted(job, task)
            case facts.TaskResultsWritten(job=job, task=task):
                for follower in self._followers.get(job, ()):
                    if follower.written:
                        follower.take(task)
            case facts.JobFinished(job=job):
                for follower in self._followers.get(job, ()):
                    follower.over = True
                    follower.news.set()
            case _:
                pass

    def _granted(self, job: JobId, task: int) -> None:
        for follower in self._followers.get(job, ()):
            if follower.mixer is not None:
                follower.mixer.granted([task])

    def said(self, job: JobId, text: str) -> None:
        """Tell who follows a job what went wrong here beside its tasks."""
        for follower in self._followers.get(job, ()):
            follower.note(text)

    def _hold(self, follower: _Follower, job: JobId, task: int) -> None:
        """Keep what a task printed until this follower has been told: it would make room for newer as soon as it is delivered."""
        item = None if follower.views else self._store.result(job, task)
        if item is not None and item.body:
            self._let_go(follower, task)
            tag = ("follower", id(follower), task)
            self._blobs.pin(tag, [ref.blob for ref in (*item.body, *item.blobs)])
            follower.held[task] = tag

    def _let_go(self, follower: _Follower, task: int) -> None:
        tag = follower.held.pop(task, None)
        if tag is not None:
            self._blobs.unpin(tag)

    async def ends(self, request: Asked, send: Send) -> None:
        """Answer ``Ends``."""
        job = JobId(self._catalogue.find(request.job).job)
        if sum(map(len, self._followers.values())) >= FOLLOWERS_MAX:
            raise RefusedError(f"{FOLLOWERS_MAX} clients follow jobs already; end some of them")
        follower = _Follower(views=request.views, written=request.written)
        self._followers.setdefault(job, []).append(follower)
        try:
            row = self._catalogue.row(job)
            followed = _Job(row, open_sweep(row.extra), self._store.secret(job))
            if request.views:
                await self._views(followed, follower, send)
            elif request.live and row.extra is not None and row.extra.tasks == 1:
                await self._live(followed, send)
            elif request.live:
                await self._mixed(followed, follower, send)
            else:
                await self._each(followed, follower, send)
            await self._finish(job)
            await self._say(follower, send)
        finally:
            for task in list(follower.held):
                self._let_go(follower, task)
            self._followers[job].remove(follower)
            if not self._followers[job]:
                del self._followers[job]

    async def _say(self, follower: _Follower, send: Send) -> None:
        for text in follower.unsaid():
            await send(Note(text=text))

    async def _live(self, job: _Job, send: Send) -> None:
        row = job.row
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._say_why_waiting(row, send), name="why")
            streams = [group.create_task(self._stream(row, stream, send), name=f"live {stream}") for stream in _STREAMS]
            gone = "; ".join(dict.fromkeys(filter(None, [await stream for stream in streams])))
            waiting.cancel()
        await self._tell(job, [0], send, output=False, gone=gone)

    async def _stream(self, row: JobRow, stream: Stream, send: Send) -> str:
        """Send what the task prints until it is over; return why not all of it could be read, if so."""
        try:
            await self._logs.follow(row, 0, stream, send)
        except NotFoundError as error:
            return str(error)
        return ""

    async def _mixed(self, job: _Job, follower: _Follower, send: Send) -> None:
        """Tell of each task, of its output as it is printed."""
        async with asyncio.TaskGroup() as group:
            mixer = follower.mixer = Mixer(job.row, logs=self._logs, scheduler=self._scheduler, send=send, group=group)
            mixer.granted(range(min(LOOKED_AT_MAX, job.row.extra.tasks if job.row.extra is not None else 0)))
            watching = group.create_task(mixer.watch(), name="mixer")
            await self._each(job, follower, send)
            watching.cancel()
            mixer.close()

    async def _each(self, job: _Job, follower: _Follower, send: Send) -> None:
        row = job.row
        told: dict[int, int] = {}
        start = 0
        # What ended before is in the store, and may be named again in a moment. Who has had more attempts since is told again.
        while page := self._store.tasks(row.job, start=start):
            over = (task for task in page if task.state in _OVER and (task.delivered or not follower.written))
            ended = {task.task: task.attempts for task in over}
            await self._tell(job, list(ended), send)
            told |= ended
            start = page[-1].task + 1

        async def tell(some: list[int]) -> None:
            mixer = follower.mixer
            heard = {} if mixer is None else {index: heard for index in some if (heard := mixer.end(index))}
            await self._tell(job, some, send, told=told, heard=heard)
            for index in some:
                self._let_go(follower, index)

        await self._until_over(row, follower, send, tell)

    async def _views(self, job: _Job, follower: _Follower, send: Send) -> None:
        row = job.row
        shown: set[int] = set()
        for kept in () if row.extra is None else row.extra.kept:
            await self._show(row.job, range(kept.start, kept.stop), shown, send)
        await self._show_stored(row.job, shown, send)
        await self._until_over(row, follower, send, lambda some: self._show(row.job, some, shown, send))
        await self._show_stored(row.job, shown, send)  # of a job that was cancelled nobody names each task

    async def _show_stored(self, job: JobId, shown: set[int], send: Send) -> None:
        start = 0
        while page := self._store.tasks(job, start=start):
            await self._show(job, [task.task for task in page if task.delivered], shown, send)
            start = page[-1].task + 1

    async def _show(self, job: JobId, indices: Sequence[int], shown: set[int], send: Send) -> None:
        """Send how tasks are of which nothing more is to come, each once."""
        for first in range(0, len(indices), AT_ONCE):
            some = [index for index in indices[first : first + AT_ONCE] if index not in shown]
            if not some:
                continue
            rows = self._rows(job, some)  # these few are quicker to read than another thread is to wake
            row = self._catalogue.row(job)  # its results may have been moved aside meanwhile
            for index in some:
                view = self._catalogue.task(row, index, rows.get(index))
                if view.state in _OVER and (index not in rows or rows[index].delivered):
                    shown.add(index)
                    await send(view)

    async def _until_over(
        self, row: JobRow, follower: _Follower, send: Send, tell: Callable[[list[int]], Awaitable[None]]
    ) -> None:
        """Name tasks to ``tell`` as they end, some at a time, until the job is over."""
        if row.state is not None:
            return
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._say_why_waiting(row, send), name="why")
            while not (follower.over and not follower.ended):
                await follower.news.wait()
                follower.news.clear()
                await self._say(follower, send)
                while follower.ended:
                    await tell([follower.ended.popleft() for _ in range(min(AT_ONCE, len(follower.ended)))])
            waiting.cancel()

    async def _say_why_waiting(self, row: JobRow, send: Send) -> None:
        await asyncio.sleep(WAIT_WHY_S)
        await self._explaining.say_why_waiting(row.job, send)

    async def _tell(  # noqa: PLR0913  what is told, and what was
        self,
        job: _Job,
        indices: Sequence[int],
        send: Send,
        *,
        output: bool = True,
        gone: str = "",
        told: Mapping[int, int] = MappingProxyType({}),
        heard: Mapping[int, Told] = MappingProxyType({}),
    ) -> None:
        """Send what some tasks printed, and how they ended; but not of those ``told`` of after as many attempts.

        What is ``heard`` already is not sent again.
        """
        for first in range(0, len(indices), AT_ONCE):
            some = indices[first : first + AT_ONCE]
            for printed in await asyncio.to_thread(self._look, job, some, heard, output=output):
                if told.get(printed.row.task) == printed.row.attempts:
                    continue
                number = task_number(job.sweep.array, job.sweep.axes, printed.row.task)
                for stream, data in printed.pieces:
                    await send(LogChunk(task=number, data=data, stream=stream))
                printed.gone = printed.gone or gone
                if printed.large is not None:
                    printed.gone = await self._send_large(printed.large, printed.heard, number, send)
                await send(self._ended(number, printed))

    def _rows(self, job: JobId, indices: Sequence[int]) -> dict[int, TaskRow]:
        found: dict[int, TaskRow] = {}
        for first, last in runs(indices):
            found |= {
                row.task: row for row in self._store.tasks(job, start=first, limit=last - first + 1) if row.task <= last
            }
        return found

    def _look(self, job: _Job, indices: Sequence[int], heard: Mapping[int, Told], *, output: bool) -> list[_Printed]:
        found = []
        for task in self._rows(job.row.job, indices).values():
            printed = _Printed(task, [])
            if job.secret is not None:
                self._open(job.row.job, job.secret, printed, heard.get(task.task), output=output)
            found.append(printed)
        return found

    def _open(self, job: JobId, secret: JobSecret, printed: _Printed, heard: Told | None, *, output: bool) -> None:
        """Find out what a task printed last; a cancelled one may have left nothing."""
        item = self._store.result(job, printed.row.task)
        if item is None:
            return
        try:
            limits = delivery.limits_of(secret.manifest)
            body = delivery.open_result(item, secret.reply_secret, self._blobs, limits)
            sizes = {file.path: file.size for file in body.output.files}
            printed.printed = (sizes.get("stdout", 0), sizes.get("stderr", 0))
            if not output:
                return
            if heard is not None and heard.lease == item.lease:
                printed.heard = heard.counts
            if sum(printed.printed) > SMALL_BYTES:
                printed.large = body.output
            else:
                printed.pieces = [
                    (stream, left)
                    for stream, data in self._small(body)
                    if (left := data[printed.heard.get(stream, 0) :])
                ]
        except (StorageError, Reject) as error:
            printed.gone = str(error)

    def _small(self, body: ResultBody) -> list[tuple[Stream, bytes]]:
        return [
            (stream, b"".join(read_part(body.output, part, self._blobs.get) for part in file.parts))
            for stream in _STREAMS
            for file in body.output.files
            if file.path == stream and file.size
        ]

    async def _send_large(self, output: Tree, heard: Mapping[Stream, int], number: int, send: Send) -> str:
        """Send output piece by piece; return why the rest could not be read, if so."""
        try:
            for stream in _STREAMS:
                await self._logs.send_output(output, stream, heard.get(stream, 0), number, send)
        except (StorageError, Reject) as error:
            return str(error)
        return ""

    def _ended(self, number: int, printed: _Printed) -> TaskEnded:
        row = printed.row
        last = row.last
        outcome = None if last is None else last.outcome
        return TaskEnded(
            task=number,
            state=row.state,
            attempts=row.attempts,
            exit=None if outcome is None else outcome.exit,
            signal=None if outcome is None else outcome.signal,
            reason=row.detail or ("" if outcome is None else outcome.reason),
            started=0 if outcome is None else outcome.started,
            seconds=0.0 if outcome is None else outcome.run_ms / 1000,
            node="" if last is None else self._scheduler.name_of(last.worker),
            printed=printed.printed,
            gone=printed.gone,
        )
