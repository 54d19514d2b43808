"""What tasks print: live from where they run, and from their results once they have ended.

As worker, ``LogWant`` is answered by ``LogData`` until the attempt ends. As master, the local API's ``Logs`` is answered from
this machine, from a worker (or the bridge that speaks for it, see ``passing``), or from the store. On the way output is
encrypted under the job's key, so that whoever carries it reads nothing.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from p2pq.core.placement import TaskSnapshot
from p2pq.daemon import delivery
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.guests import Guests
from p2pq.daemon.history import JobRow
from p2pq.daemon.jobs import Jobs
from p2pq.daemon.launching import Guest
from p2pq.daemon.passing import Passing
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.store import Store
from p2pq.daemon.submission import open_sweep
from p2pq.errors import NotFoundError, RefusedError, Reject, StorageError
from p2pq.model.ids import LeaseId, NodeId
from p2pq.model.params import task_number
from p2pq.wire import codec, control, seal
from p2pq.wire.control import LogChunk, Note, Reply
from p2pq.wire.messages import LogData, LogStop, LogWant, Message
from p2pq.wire.tree import Tree, read_part

CHUNK_BYTES: Final = 64 << 10
TAIL_POLL_S: Final = 0.2
"""A file that a task writes tells nobody; this often it is looked at while somebody follows."""
STREAMS_MAX: Final = 64
"""Streams per peer, and tasks of a job followed at once."""
QUEUE_MAX: Final = 64
PENDING_BYTES_MAX: Final = 1 << 20
"""While more than this waits to be sent to a peer, no output is added: a task can print faster than any network."""
PENDING_POLL_S: Final = 0.02
TAIL_BYTES: Final = 1 << 20
"""Of what a task here has printed so far, so much of the end is shown."""
SILENCE_S: Final = 10.0
"""A worker that says nothing for this long is asked again, or its result has come."""

Stream = Literal["stdout", "stderr"]
Send = Callable[[Reply], Awaitable[None]]


def aad(lease: LeaseId, stream: Stream, offset: int) -> bytes:
    """Return what a piece of output is bound to."""
    return b"p2pq/1 log" + codec.encode((lease, stream, offset))


class Logs:
    """Live and stored output, as worker and as master. Use it from the event loop's thread only."""

    def __init__(  # noqa: PLR0913  the daemon's parts, each used here
        self,
        *,
        node: NodeId,
        guests: Guests,
        jobs: Jobs,
        store: Store,
        blobs: BlobStore,
        scheduler: Scheduler,
        tasks: asyncio.TaskGroup,
        say: Callable[[NodeId, Message], None],
        pending: Callable[[NodeId], int] = lambda _: 0,
        linked: Callable[[NodeId], bool] = lambda _: True,
        bridge_of: Callable[[NodeId], NodeId | None] = lambda _: None,
        leaf_of: Callable[[NodeId, LeaseId], NodeId | None] = lambda _master, _lease: None,
    ) -> None:
        """Take the parts.

        Args:
            node: this node.
            guests: the attempts that run here.
            jobs: the jobs submitted here.
            store: what is known of them.
            blobs: where results are.
            scheduler: what the core knows of them.
            tasks: owns the streams.
            say: sends to a linked peer; what is for others is lost.
            pending: tells how many bytes wait to be sent to it.
            linked: tells whether a link to a node stands.
            bridge_of: returns the bridge that leads to a master, or a leaf, that is not linked.
            leaf_of: as a bridge, returns the leaf that holds a lease of a master.
        """
        self._node = node
        self._guests = guests
        self._jobs = jobs
        self._store = store
        self._blobs = blobs
        self._scheduler = scheduler
        self._tasks = tasks
        self._say = say
        self._pending = pending
        self._linked = linked
        self._bridge_of = bridge_of
        self._numbers = itertools.count(1)
        self._passing = Passing(
            leaf_of=leaf_of, bridge_of=bridge_of, say=say, behind=self._behind, numbers=self._numbers
        )
        self._serving: dict[tuple[NodeId, int], asyncio.Task[None]] = {}
        self._asked: dict[int, tuple[NodeId, asyncio.Queue[LogData]]] = {}

    def _behind(self, peer: NodeId) -> bool:
        return self._pending(peer) > PENDING_BYTES_MAX

    # ------------------------------------------------------------------ as worker

    def on_message(self, peer: NodeId, message: LogWant | LogData | LogStop) -> None:
        """Take a peer's message about logs."""
        match message:
            case LogWant():
                self._serve(peer, message)
            case LogStop(req=req):
                task = self._serving.get((peer, req))
                if task is not None:
                    task.cancel()
                self._passing.stop(peer, message)
            case LogData(req=req):
                asked = self._asked.get(req)
                if asked is None:
                    self._passing.data(peer, message)
                elif asked[0] == peer and not asked[1].full():
                    asked[1].put_nowait(message)

    def link_down(self, peer: NodeId) -> None:
        """Stop serving a peer that is gone."""
        for (other, _), task in list(self._serving.items()):
            if other == peer:
                task.cancel()
        self._passing.link_down(peer)

    def _serve(self, peer: NodeId, want: LogWant) -> None:
        key, master = (peer, want.req), NodeId(want.master) or peer
        guest = None
        if peer in {master, self._bridge_of(master)}:  # else nobody's business
            guest = self._guests.find(want.lease, master)
            if guest is None and self._passing.want(peer, master, want):
                return
        full = sum(other == peer for other, _ in self._serving) >= STREAMS_MAX
        if guest is None or full or key in self._serving:
            self._say(peer, LogData(req=want.req, offset=want.offset, data=b"", end=True))
            return
        task = self._tasks.create_task(self._tail(peer, want, guest), name="log stream")
        self._serving[key] = task
        task.add_done_callback(lambda _: self._serving.pop(key, None))

    async def _tail(self, peer: NodeId, want: LogWant, guest: Guest) -> None:
        offset = want.offset
        async for data in self._local(guest, want.stream, offset):
            while self._behind(peer):  # noqa: ASYNC110  the link has no event for it
                await asyncio.sleep(PENDING_POLL_S)
            sealed = seal.encrypt_body(guest.start.key, data, aad(want.lease, want.stream, offset))
            self._say(peer, LogData(req=want.req, offset=offset, data=sealed))
            offset += len(data)
        self._say(peer, LogData(req=want.req, offset=offset, data=b"", end=True))

    async def _local(self, guest: Guest, stream: Stream, offset: int) -> AsyncIterator[bytes]:
        """Yield what an attempt here prints, from ``offset`` until it ends."""
        descriptor = -1
        try:
            while True:
                ended = self._guests.find(guest.start.lease, guest.start.master) is not guest
                path = guest.stdout if stream == "stdout" else guest.stderr
                if descriptor < 0 and path is not None and not ended:
                    # Once it has ended, the file of that name may be the next task's.
                    descriptor = _open(path)
                if descriptor >= 0:
                    while data := os.pread(descriptor, CHUNK_BYTES, offset):
                        offset += len(data)
                        yield data
                        await asyncio.sleep(0)  # a gigabyte of output must not hold everything else up
                if ended:
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(TAIL_POLL_S):
                        await guest.over.wait()
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    # ------------------------------------------------------------------ as master

    async def logs(self, request: control.Logs, send: Send) -> None:
        """Answer ``Logs``."""
        row = self._jobs.catalogue.find(request.job)
        total = row.extra.tasks if row.extra is not None else 0
        if request.attempt:
            await self._attempt(row, request, send)
            return
        if request.task is not None:
            indexes = [self._jobs.catalogue.index(row, request.task)]
        elif request.follow and total > STREAMS_MAX:
            raise RefusedError(f"the job has {total} tasks; follow one of them: p2pq logs {request.job}.TASK --follow")
        else:
            indexes = list(range(total))
        away: dict[NodeId, None] = {}
        if not request.follow:
            for index in indexes:
                await self._now(row, index, request, send, away, alone=len(indexes) == 1)
            return
        async with asyncio.TaskGroup() as group:
            for index in indexes:
                group.create_task(self.follow(row, index, request.stream, send, away), name="follow")

    async def _attempt(self, row: JobRow, request: control.Logs, send: Send) -> None:
        """Send what one attempt of one task printed."""
        if request.task is None:
            raise RefusedError(f"--attempt is about one task; name it: p2pq logs {request.job}.TASK --attempt N")
        index = self._jobs.catalogue.index(row, request.task)
        name = f"{request.job}.{request.task}"
        found = [each for each in self._store.attempts(row.job, index) if each.attempt == request.attempt]
        if not found:
            raise NotFoundError(f"the task had no attempt {request.attempt}; see `p2pq show {name}`")
        live = self._live(row, index)
        if live is not None and found[0].fault is None and found[0].outcome is None:
            its = msgspec.structs.replace(live, lease=found[0].lease, worker=found[0].worker)
            if await self._reached(its, send, {}, follow=False):
                await self.stream(row, index, its, request.stream, 0, send, follow=False)
        elif not await self._send(row, index, request.stream, 0, send, attempt=request.attempt):
            what = f"{found[0].fault or 'its lease is over'}{': ' * bool(found[0].detail)}{found[0].detail}"
            raise NotFoundError(f"attempt {request.attempt} left no output ({what}); see `p2pq show {name}`")

    async def _reached(self, live: TaskSnapshot, send: Send, away: dict[NodeId, None], *, follow: bool) -> bool:
        """Tell whether who runs an attempt can be asked; say who cannot, once until it is back (``away``: who was named)."""
        node = live.worker
        if node is None:
            return True
        ask = self._bridge_of(node) or node
        if node == self._node or self._linked(ask):
            away.pop(node, None)
            return True
        if node not in away:
            away[node] = None
            then = "this goes on when it is back, or when the task runs again elsewhere"
            name = self._scheduler.name_of(node)
            await send(
                Note(
                    text=f"{name}, where the task runs as far as is known, is not reachable now; "
                    + (then if follow else "what it has printed there is not known here")
                )
            )
        return False

    async def _now(
        self,
        row: JobRow,
        index: int,
        request: control.Logs,
        send: Send,
        away: dict[NodeId, None],
        *,
        alone: bool,
    ) -> None:
        """Send what there is now."""
        if await self._stored(row, index, request.stream, 0, send):
            return
        live = self._live(row, index)
        if live is not None:
            if await self._reached(live, send, away, follow=False):
                await self.stream(row, index, live, request.stream, 0, send, follow=False)
        elif alone:
            last = next(reversed(self._store.attempts(row.job, index)), None)
            if last is None or not last.fault:
                raise NotFoundError(f"the task has printed nothing yet: it has not run; see `p2pq why {request.job}`")
            why = f"{last.fault}: {last.detail}".rstrip(": ")
            raise NotFoundError(f"nothing that the task printed was kept ({why}); see `p2pq why {request.job}`")

    async def follow(
        self, row: JobRow, index: int, stream: Stream, send: Send, away: dict[NodeId, None] | None = None
    ) -> None:
        """Send output until the task is over, through all its attempts; ``away``: who was named as not reachable."""
        away = {} if away is None else away
        watcher = self._jobs.watcher(row.job)
        try:
            lease: LeaseId | None = None
            offset = 0
            while True:
                live = self._live(row, index)
                if live is not None and live.lease is not None:
                    if lease is not None and live.lease != lease:
                        await send(Note(text=f"attempt {live.attempts} begins"))
                        offset = 0
                    lease = live.lease
                    if await self._reached(live, send, away, follow=True):
                        offset = await self.stream(row, index, live, stream, offset, send, follow=True)
                if self._over(row, index):
                    await self._stored(row, index, stream, offset, send)
                    return
                try:
                    async with asyncio.timeout(1.0):
                        await watcher.queue.get()
                except TimeoutError:
                    continue
        finally:
            self._jobs.unwatch(watcher)

    def _live(self, row: JobRow, index: int) -> TaskSnapshot | None:
        snapshot = self._scheduler.task(row.job, index)
        return snapshot if snapshot is not None and snapshot.state == "running" else None

    def _over(self, row: JobRow, index: int) -> bool:
        now = self._store.job(row.job)
        if now is None or now.state is not None:
            return True
        task = self._jobs.catalogue.task(now, index, self._jobs.catalogue.task_row(now, index))
        return task.state in {"done", "failed", "cancelled"}

    async def stream(  # noqa: PLR0913  what to read, how far, and to whom
        self, row: JobRow, index: int, live: TaskSnapshot, stream: Stream, offset: int, send: Send, *, follow: bool
    ) -> int:
        """Send a running attempt's output from ``offset``; return how far it came."""
        number = _number(row, index)
        if live.lease is None or live.worker is None:
            return offset
        if live.worker == self._node:
            guest = self._guests.find(live.lease, self._node)
            source = self._local(guest, stream, offset) if guest is not None and follow else None
            if guest is not None and not follow:
                path = guest.stdout if stream == "stdout" else guest.stderr
                data = await asyncio.to_thread(_tail_of, path) if path is not None else b""
                await send(LogChunk(task=number, data=data, stream=stream))
        else:
            secret = self._store.secret(row.job)
            key = secret.key if secret is not None else b""
            source = self._remote(live.worker, live.lease, key, stream, offset, follow=follow)
        if source is not None:
            async for data in source:
                offset += len(data)
                await send(LogChunk(task=number, data=data, stream=stream))
        return offset

    async def _remote(
        self, worker: NodeId, lease: LeaseId, key: bytes, stream: Stream, offset: int, *, follow: bool
    ) -> AsyncIterator[bytes]:
        """Yield what an attempt elsewhere prints."""
        req, asked = next(self._numbers), self._bridge_of(worker) or worker
        queue: asyncio.Queue[LogData] = asyncio.Queue(QUEUE_MAX)
        self._asked[req] = (asked, queue)
        try:
            self._say(asked, LogWant(req=req, lease=lease, stream=stream, offset=offset))
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S if follow else 2 * TAIL_POLL_S):
                        message = await queue.get()
                except TimeoutError:
                    return
                if message.end:
                    return
                if message.offset != offset:
                    return  # something was lost on the way; the caller asks again from where it is
                try:
                    data = seal.decrypt_body(key, message.data, aad(lease, stream, offset), size_max=CHUNK_BYTES)
                except Reject:
                    return
                offset += len(data)
                yield data
        finally:
            del self._asked[req]
            self._say(asked, LogStop(req=req))

    async def _stored(self, row: JobRow, index: int, stream: Stream, offset: int, send: Send) -> bool:
        """Send the output of the last attempt that ended, from ``offset``; return whether there was one."""
        origin = None if row.extra is None else row.extra.origin(index)
        if origin is not None:
            row, index = self._jobs.catalogue.row(origin[0]), origin[1]
        if self._live(row, index) is not None:
            return False
        return await self._send(row, index, stream, offset, send)

    async def _send(
        self, row: JobRow, index: int, stream: Stream, offset: int, send: Send, *, attempt: int | None = None
    ) -> bool:
        """Send what an attempt that ended printed (the last one, if none is named); return whether there was one."""
        item, secret = self._store.result(row.job, index, attempt), self._store.secret(row.job)
        if item is None or secret is None:
            return False
        try:
            limits = delivery.limits_of(secret.manifest)
            body = await asyncio.to_thread(delivery.open_result, item, secret.reply_secret, self._blobs, limits)
            await self.send_output(body.output, stream, offset, _number(row, index), send)
        except (StorageError, Reject) as error:
            raise NotFoundError(f"the output is not here any more ({error}); it made room for newer jobs") from error
        return True

    async def send_output(self, output: Tree, stream: Stream, offset: int, number: int, send: Send) -> None:
        """Send what an attempt that ended printed on a stream, from ``offset`` on, piece by piece.

        Raises:
            Reject, StorageError: not all of it can be read.
        """
        at = 0
        for part in (part for file in output.files if file.path == stream for part in file.parts):
            if at + part.length > offset:
                plain = await asyncio.to_thread(read_part, output, part, self._blobs.get)
                piece = plain[max(0, offset - at) :]
                for begin in range(0, len(piece), CHUNK_BYTES):
                    data = piece[begin : begin + CHUNK_BYTES]
                    await send(LogChunk(task=number, data=data, stream=stream))
            at += part.length


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1


def _tail_of(path: Path) -> bytes:
    """Return the last TAIL_BYTES of a file; nothing if it is gone."""
    descriptor = _open(path)
    if descriptor < 0:
        return b""
    try:
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, TAIL_BYTES, max(0, size - TAIL_BYTES))
    finally:
        os.close(descriptor)


def _number(row: JobRow, index: int) -> int:
    sweep = open_sweep(row.extra)
    return task_number(sweep.array, sweep.axes, index)
