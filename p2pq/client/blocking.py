"""The Python API for programs without an event loop: ``asynchronous`` in a thread of its own.

Built on the other one and not on ``connection``, because timeouts and Ctrl-C then cancel a request wherever it is, and all that
is asked is written once.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

from p2pq.client import feeding
from p2pq.client.asking import AnyPath, CommandOptions, JobOptions
from p2pq.client.asynchronous import AsyncClient, AsyncJob, AsyncTask
from p2pq.client.told import TaskFacts
from p2pq.errors import UsageError
from p2pq.model.job import JobState
from p2pq.wire.control import JobView, StatusView

T = TypeVar("T")


class _Background:
    """An event loop in a thread of its own; ``last`` is done there at the end."""

    def __init__(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._last = last
        self._process = os.getpid()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="p2pq client", daemon=True)
        self._thread.start()
        self._begun.wait()
        self.closed = False
        atexit.register(self.close)  # later, nothing would run there any more, and nobody could be waited for

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._begun.set()
        await self._over.wait()
        await self._last()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something there and wait for it; whatever interrupts the wait cancels it.

        Raises:
            UsageError: it is closed, or was made by the process that this one was forked from.
        """
        if self.closed or self._process != os.getpid():
            coroutine.close()
            why = "is closed" if self.closed else "belongs to another process"
            raise UsageError(f"this client {why}; make another one")
        future: Future[T] = Future()

        def begin() -> None:
            task = self._loop.create_task(coroutine)
            task.add_done_callback(lambda _: _pass_on(task, future))
            future.add_done_callback(lambda _: self._loop.call_soon_threadsafe(task.cancel))

        try:
            # The future is there before anything begins: an interruption at any moment finds what it is to cancel.
            self._loop.call_soon_threadsafe(begin)
            return future.result()
        except CancelledError as error:
            raise UsageError("this client was closed meanwhile; make another one") from error
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what runs there and end the thread."""
        if not self.closed and self._process == os.getpid():
            self.closed = True
            atexit.unregister(self.close)
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()


def _pass_on(task: "asyncio.Task[T]", future: "Future[T]") -> None:
    """Give a waiting thread what came of a task; it may wait no longer."""
    if not future.set_running_or_notify_cancel():
        return
    if task.cancelled():
        future.set_exception(CancelledError())
    elif (error := task.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())


class Client:
    """A node, usually the one of this machine and user; a context manager. Threads may share it.

    Every method but ``close`` raises NodeUnreachableError where no node answers, AnswerError where the node cannot do what it
    is asked, UsageError where the node would not understand it or the client is closed; all are P2PQErrors (``p2pq.errors``).
    Ctrl-C in any of them leaves the client usable and the job as it is.
    """

    def __init__(self, home: AnyPath | None = None, *, start: bool = True) -> None:
        """Choose a node; nothing is asked yet.

        Args:
            home: the node's home; None: ``P2PQ_HOME``, else the usual one.
            start: start a node there if none runs when it is first asked.
        """
        self._client = AsyncClient(home, start=start)
        self._background = _Background(self._client.close)

    def __enter__(self) -> Self:
        """Find the node, or start one."""
        try:
            self._background.run(self._client.open())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Ask nothing any more. Jobs and the node go on."""
        self._background.close()

    def submit(self, folder: AnyPath, args: Iterable[object] = (), **options: Unpack[JobOptions]) -> "Job":
        """Send a folder to idle machines, to run its main there; see ``JobOptions`` and ``p2pq submit --help``.

        Raises:
            TypeError: there is no such option.
        """
        return Job(self._background, self._background.run(self._client.submit(folder, args, **options)))

    def commands(
        self,
        words: Iterable[object],
        sources: Iterable[Iterable[object]] = (),
        *,
        stdin: feeding.Block | Iterable[feeding.Input] = (),
        **options: Unpack[CommandOptions],
    ) -> "Job":
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
        submitted = self._client.commands(words, sources, stdin=stdin, **options)
        return Job(self._background, self._background.run(submitted))

    def job(self, job: str) -> "Job":
        """Return a job by its id or the beginning of it, 4 characters at least."""
        return Job(self._background, self._background.run(self._client.job(job)))

    def jobs(self, limit: int = 100) -> list["Job"]:
        """Return jobs of this node, the newest first."""
        return [Job(self._background, job) for job in self._background.run(self._client.jobs(limit))]

    def status(self) -> StatusView:
        """Return how the node is."""
        return self._background.run(self._client.status())


class Job:
    """A job of a node. It lives there: whatever becomes of this object, it goes on."""

    def __init__(self, background: _Background, job: AsyncJob) -> None:
        """Name a job; ``Client`` returns them."""
        self._background = background
        self._job = job
        self.id: str = job.id
        self.name: str = job.name
        self.results: Path | None = job.results
        """Where its results go."""

    def __repr__(self) -> str:
        """Name the job."""
        return f"<{type(self).__name__} {self.id[:8]} {self.name}>"

    def show(self) -> JobView:
        """Return all that the node knows of the job now: counts of tasks, times, why it stopped."""
        return self._background.run(self._job.show())

    def state(self) -> JobState:
        """Return ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``."""
        return self._background.run(self._job.state())

    def wait(self, timeout: float | None = None) -> JobState:
        """Wait until the job has ended and its results are written; return how it ended.

        Raises:
            TimeoutError: it has not ended after so many seconds; it goes on.
        """
        return self._background.run(self._job.wait(timeout))

    def tasks(self) -> list["Task"]:
        """Return all tasks as they are now."""
        return [Task(self._background, task) for task in self._background.run(self._job.tasks())]

    def as_completed(self, timeout: float | None = None) -> Iterator["Task"]:
        """Yield tasks as they end, those that have ended before first, each once: done, failed or cancelled.

        Their results are written by then. Tasks that were cancelled with their job before they began are not among them.

        Raises:
            TimeoutError: the job has not ended after so many seconds; it goes on.
        """
        tasks = self._job.as_completed(timeout)
        one_at_a_time = asyncio.Lock()  # a step that was interrupted may still be on its way out

        async def step() -> AsyncTask | None:
            async with one_at_a_time:
                return await anext(tasks, None)

        async def close() -> None:
            async with one_at_a_time:
                await tasks.aclose()

        try:
            while (task := self._background.run(step())) is not None:
                yield Task(self._background, task)
        finally:
            if not self._background.closed:
                self._background.run(close())

    def cancel(self, task: int | None = None) -> None:
        """Stop the job, or one task of it."""
        self._background.run(self._job.cancel(task))

    def retry(self, task: int | None = None, *, cancelled: bool = False) -> None:
        """Run the failed tasks again (and the cancelled ones), or one task."""
        self._background.run(self._job.retry(task, cancelled=cancelled))

    def logs(self, task: int | None = None, stream: Literal["stdout", "stderr"] = "stdout", attempt: int = 0) -> bytes:
        """Return what a task printed, or all of them in order; ``attempt`` 0 is the latest that has output."""
        return self._background.run(self._job.logs(task, stream, attempt))

    def why(self, task: int | None = None) -> str:
        """Return why the job, or a task of it, is as it is, and what to do."""
        return self._background.run(self._job.why(task))


class Task(TaskFacts):
    """A task of a job, as it was when the node told of it."""

    def __init__(self, background: _Background, task: AsyncTask) -> None:
        """Take what the node told."""
        super().__init__(task.view)
        self._background = background
        self._task = task

    def stdout(self) -> bytes:
        """Return what its latest attempt printed."""
        return self._background.run(self._task.stdout())

    def stderr(self) -> bytes:
        """Return what its latest attempt printed on standard error."""
        return self._background.run(self._task.stderr())
