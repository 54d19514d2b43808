"""The Python API on asyncio: submit a folder, wait for its tasks, look at them.

Each request has a connection to itself, so that whoever follows a job holds nobody up; and a request that is cancelled in
mid-answer leaves nothing behind. One that is free is kept for a moment, as requests seldom come alone.
"""

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Generic, Literal, Self, TypeVar, Unpack

from p2pq.client import feeding, finding, framing
from p2pq.client.asking import AnyPath, CommandOptions, JobOptions, commands_of, submit_of
from p2pq.client.streams import AsyncConnection
from p2pq.client.told import TaskFacts
from p2pq.errors import UsageError
from p2pq.homes import default_path, plain_path
from p2pq.model.job import JobState
from p2pq.runner.calls import pickled
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends
from p2pq.wire.control import Change, ControlRequest, JobView, LogChunk, Note, Reply, StatusView, TaskView, Watch

log = logging.getLogger(__name__)

R = TypeVar("R")

CALLS_MAX: Final = 8
"""Requests that are answered at the same time; more of them wait."""
KEPT_S: Final = 1.0
"""So long one connection that is free is kept: a node takes 64 connections, and most of its clients have nothing to ask."""
FOLLOWED_MAX: Final = 48
"""Jobs that one client follows at the same time: a node takes 64 connections."""


class AsyncClient:
    """A node, usually the one of this machine and user; an asynchronous context manager.

    Every method but ``close`` raises NodeUnreachableError where no node answers, AnswerError where the node cannot do what it
    is asked, UsageError where the node would not understand it or the client is closed; all are P2PQErrors (``p2pq.errors``).
    What the node remarks goes to the logger ``p2pq.client.asynchronous``.
    """

    def __init__(self, home: AnyPath | None = None, *, start: bool = True) -> None:
        """Choose a node; nothing is asked yet.

        Args:
            home: the node's home; None: ``P2PQ_HOME``, else the usual one.
            start: start a node there if none runs when it is first asked.
        """
        self._home = plain_path(default_path() if home is None else Path(home))
        self._start = start
        self._address: tuple[Path, bytes] | None = None
        self._finding = asyncio.Lock()
        self._calls = asyncio.Semaphore(CALLS_MAX)
        self._kept: AsyncConnection | None = None
        """Free for the next request."""
        self._kept_until: asyncio.TimerHandle | None = None
        self.followed = 0
        """Jobs that are followed now."""
        self._closed = False

    async def __aenter__(self) -> Self:
        """Find the node, or start one."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    async def open(self) -> None:
        """Find the node, or start one; the first request does so as well.

        Raises:
            ConfigError: it could not be started because of a setting.
            RefusedError: as root, or the node does not take this client.
        """
        if self._closed:
            raise UsageError("this client is closed; make another one")
        async with self._finding:
            if self._address is None:
                self._address = await asyncio.to_thread(self._find)

    def _find(self) -> tuple[Path, bytes]:
        finding.connect(self._home, start=self._start, say=log.info).close()
        return finding.address(self._home)

    async def close(self) -> None:
        """Ask nothing any more. Jobs and the node go on."""
        self._closed = True
        node = self._taken()
        if node is not None:
            await node.close()

    async def submit(self, folder: AnyPath, args: Iterable[object] = (), **options: Unpack[JobOptions]) -> "AsyncJob":
        """Send a folder to idle machines, to run its main there; see ``JobOptions`` and ``p2pq submit --help``.

        Raises:
            Exception: whatever ``data`` raises that cannot be pickled.
            TypeError: there is no such option.
        """
        if "data" not in options:
            return AsyncJob(self, await self.one(submit_of(folder, args, options), JobView))
        with tempfile.NamedTemporaryFile(prefix="p2pq-", suffix=".pickle") as file:
            await asyncio.to_thread(_write, file, options["data"])
            with_file: JobOptions = {**options, "data": file.name}
            return AsyncJob(self, await self.one(submit_of(folder, args, with_file), JobView))

    async def commands(
        self,
        words: Iterable[object],
        sources: Iterable[Iterable[object]] = (),
        *,
        stdin: feeding.Block | Iterable[feeding.Input] = (),
        **options: Unpack[CommandOptions],
    ) -> "AsyncJob":
        """Run a command once for each value of ``sources``, on this machine, in this folder and with this environment.

        Args:
            words: the command, in which ``{}`` is the value, as in ``p2pq map``; they are a shell's, if there are sources.
            sources: lists of values; several multiply. None: one task, and the words are its arguments as they are.
            stdin: what each task reads as its standard input, a block for each; without ``sources`` as many tasks as blocks, and
                one for bytes. None: they read nothing.
            options: see ``CommandOptions``.

        Raises:
            TypeError: there is no such option.
        """
        request = commands_of(words, sources, options)
        feed = feeding.Feeding([stdin] if isinstance(stdin, feeding.Block) else stdin)
        async with self._calls, await self.connection() as node:
            for piece in feed.pieces():
                await ask(node, piece, JobView)
            found = await ask(node, feed.named(request), JobView)
        return AsyncJob(self, last(found, JobView))

    async def job(self, job: str) -> "AsyncJob":
        """Return a job by its id or the beginning of it, 4 characters at least."""
        return AsyncJob(self, await self.one(control.Show(job=job), JobView))

    async def jobs(self, limit: int = 100) -> list["AsyncJob"]:
        """Return jobs of this node, the newest first."""
        return [AsyncJob(self, view) for view in await self.all(control.Jobs(limit=limit), JobView)]

    async def status(self) -> StatusView:
        """Return how the node is."""
        return await self.one(control.Status(), StatusView)

    # -- requests of the local API ----------------------------------------------------------------------------------------

    async def one(self, request: ControlRequest, kind: type[R]) -> R:
        """Send a request and return its last item of that kind.

        Raises:
            RemoteProtocolError: there was none.
        """
        return last(await self.all(request, kind), kind)

    async def all(self, request: ControlRequest, kind: type[R]) -> list[R]:
        """Send a request that is answered soon and return its items of that kind."""
        async with self._calls, await self.connection() as node:
            return await ask(node, request, kind)

    async def connection(self) -> AsyncConnection:
        """Return a connection to the node; inside ``async with`` it is open."""
        await self.open()
        assert self._address is not None  # noqa: S101  open sets it or raises
        node = self._taken()
        if node is not None:
            if node.is_free:
                return node
            node.abandon()
        return AsyncConnection(*self._address, self._keep)

    def _keep(self, node: AsyncConnection) -> bool:
        if self._closed or self._kept is not None:
            return False
        self._kept = node
        self._kept_until = asyncio.get_running_loop().call_later(KEPT_S, self._let_go)
        return True

    def _taken(self) -> AsyncConnection | None:
        """Return the connection that was kept, if there is one; it is kept no longer."""
        if self._kept_until is not None:
            self._kept_until.cancel()
        node, self._kept = self._kept, None
        return node

    def _let_go(self) -> None:
        node = self._taken()
        if node is not None:
            node.abandon()


def _write(file: IO[bytes], data: object) -> None:
    file.write(pickled(data))
    file.flush()


def last(found: list[R], kind: type[R]) -> R:
    """Return the last item of an answer. Raises RemoteProtocolError: there is none."""
    if not found:
        raise framing.missing(kind)
    return found[-1]


async def ask(node: AsyncConnection, request: ControlRequest, kind: type[R]) -> list[R]:
    """Send a request over a connection and return its items of that kind."""
    await node.send(request)
    found = []
    while (reply := await next_reply(node)) is not None:
        if isinstance(reply, kind):
            found.append(reply)
    return found


async def next_reply(node: AsyncConnection) -> Reply | None:
    """Return the next item of an answer, None after the last; what the node remarks is logged."""
    reply = await node.reply()
    if isinstance(reply, Note):
        log.info("%s", reply.text)
    return reply


class _Followed(Generic[R]):
    """The answer to a request that lasts as long as a job does; an asynchronous context manager."""

    def __init__(self, client: AsyncClient, request: Watch | Ends, kind: type[R], timeout: float | None) -> None:
        """Take what is asked, of what kind the items are, and after how many seconds from now it is enough."""
        self._client = client
        self._request = request
        self._kind = kind
        self._timeout = timeout
        self._deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        self._open = AsyncExitStack()
        self._node: AsyncConnection

    async def __aenter__(self) -> Self:
        """Ask."""
        if self._client.followed >= FOLLOWED_MAX:
            raise UsageError(f"this client follows {FOLLOWED_MAX} jobs already; wait for some of them first")
        self._client.followed += 1
        try:
            self._node = await self._open.enter_async_context(await self._client.connection())
            await self._node.send(self._request)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Follow no longer."""
        self._client.followed -= 1
        await self._open.aclose()

    async def next(self) -> R | None:
        """Return the next item; None after the last.

        Raises:
            TimeoutError: the job has not ended in time.
        """
        try:
            # Around each step alone: what the caller does between them is none of ours.
            async with asyncio.timeout_at(self._deadline):
                while (reply := await next_reply(self._node)) is not None:
                    if isinstance(reply, self._kind):
                        return reply
        except TimeoutError as error:
            raise TimeoutError(f"the job has not ended after {self._timeout:g} s; it goes on") from error
        return None


class AsyncJob:
    """A job of a node. It lives there: whatever becomes of this object, it goes on."""

    def __init__(self, client: AsyncClient, view: JobView) -> None:
        """Name a job; ``AsyncClient`` returns them."""
        self._client = client
        self.id: str = view.job
        self.name: str = view.name
        self.results: Path | None = Path(view.results) if view.results else None
        """Where its results go."""

    def __repr__(self) -> str:
        """Name the job."""
        return f"<{type(self).__name__} {self.id[:8]} {self.name}>"

    async def show(self) -> JobView:
        """Return all that the node knows of the job now: counts of tasks, times, why it stopped."""
        return await self._client.one(control.Show(job=self.id), JobView)

    async def state(self) -> JobState:
        """Return ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``."""
        return (await self.show()).state

    async def wait(self, timeout: float | None = None) -> JobState:  # noqa: ASYNC109  as concurrent.futures has it
        """Wait until the job has ended and its results are written; return how it ended.

        Raises:
            TimeoutError: it has not ended after so many seconds; it goes on.
        """
        state: JobState | None = None
        async with _Followed(self._client, Watch(jobs=(self.id,)), Change, timeout) as changes:
            while (change := await changes.next()) is not None:
                state = change.job.state
        return await self.state() if state is None else state

    async def tasks(self) -> list["AsyncTask"]:
        """Return all tasks as they are now."""
        views = await self._client.all(control.Tasks(job=self.id), TaskView)
        return [AsyncTask(self, view) for view in views]

    async def as_completed(self, timeout: float | None = None) -> AsyncGenerator["AsyncTask", None]:  # noqa: ASYNC109  as above
        """Yield tasks as they end, those that have ended before first, each once: done, failed or cancelled.

        Their results are written by then. Tasks that were cancelled with their job before they began are not among them.

        Raises:
            TimeoutError: the job has not ended after so many seconds; it goes on.
        """
        async with _Followed(self._client, Ends(job=self.id, views=True), TaskView, timeout) as views:
            while (view := await views.next()) is not None:
                yield AsyncTask(self, view)

    async def cancel(self, task: int | None = None) -> None:
        """Stop the job, or one task of it."""
        await self._client.one(control.CancelJob(job=self.id, task=task), JobView)

    async def retry(self, task: int | None = None, *, cancelled: bool = False) -> None:
        """Run the failed tasks again (and the cancelled ones), or one task."""
        await self._client.one(control.Retry(job=self.id, task=task, cancelled=cancelled), JobView)

    async def logs(
        self, task: int | None = None, stream: Literal["stdout", "stderr"] = "stdout", attempt: int = 0
    ) -> bytes:
        """Return what a task printed, or all of them in order; ``attempt`` 0 is the latest that has output."""
        request = control.Logs(job=self.id, task=task, stream=stream, attempt=attempt)
        return b"".join(chunk.data for chunk in await self._client.all(request, LogChunk))

    async def why(self, task: int | None = None) -> str:
        """Return why the job, or a task of it, is as it is, and what to do."""
        answer = await self._client.one(control.Why(job=self.id, task=task), Note)
        return f"{answer.text} {answer.suggestion}".strip()


class AsyncTask(TaskFacts):
    """A task of a job, as it was when the node told of it."""

    def __init__(self, job: AsyncJob, view: TaskView) -> None:
        """Take what the node told."""
        super().__init__(view)
        self._job = job

    async def stdout(self) -> bytes:
        """Return what its latest attempt printed."""
        return await self._job.logs(self.number)

    async def stderr(self) -> bytes:
        """Return what its latest attempt printed on standard error."""
        return await self._job.logs(self.number, "stderr")
