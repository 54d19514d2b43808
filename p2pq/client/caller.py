"""What works behind an ``Executor``: a thread that sends calls to the node, some at a time, and takes in what came of them."""

import asyncio
import atexit
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, Final, Protocol

from p2pq.client.asynchronous import ask, next_reply
from p2pq.client.grouping import Call, Group, Groups
from p2pq.client.streams import AsyncConnection
from p2pq.errors import P2PQError
from p2pq.runner import calls
from p2pq.wire import names
from p2pq.wire.commandcontrol import Ends, TaskEnded
from p2pq.wire.control import CancelJob, JobView, LogChunk

log = logging.getLogger(__name__)

GATHER_S: Final = 0.002
"""Short calls are given so long to become more, again and again as long as they do."""
SECONDS_MAX: Final = 1e7
"""No call takes longer: who says that one did is not believed."""


class Place(Protocol):
    """Where calls are made: ``here.Here`` or ``away.Away``."""

    @property
    def jobs_max(self) -> int:
        """How many jobs are under way at the same time."""

    def jobs(self, groups: list[Group]) -> list[list[Group]]:
        """Return groups of calls as they are put into jobs."""

    async def submit(self, node: AsyncConnection, groups: list[Group], check: Callable[[], None]) -> str:
        """Make a job of groups of calls; return its id."""

    def result(self, payload: memoryview, node: str) -> Any:  # noqa: ANN401  whatever the call returned
        """Return what a call returned on a node, or raise what is to be raised in its place."""

    def other(self, payload: memoryview, node: str) -> BaseException:
        """Return what says that a call returned something that does not travel."""

    def failure(self, payload: memoryview, node: str) -> BaseException:
        """Return what a call raised."""


class _Task:
    """A group of calls that is under way."""

    def __init__(self, group: Group) -> None:
        self.calls = group.calls
        self.written = bytearray()
        self.over = False


class Caller:
    """Makes calls. ``submit`` and ``shut_down`` may come from any thread; the rest happens in its own."""

    def __init__(self, address: tuple[Path, bytes], place: Place, groups: Groups, *, slots: int, tasks: int) -> None:
        """Begin.

        Args:
            address: the node's socket and token.
            place: where calls are made.
            groups: puts calls together.
            slots: tasks that run at the same time.
            tasks: tasks that may be under way at the same time; more than ``slots`` wait there for their turn.
        """
        self._address = address
        self._place = place
        self._groups = groups
        self._slots = min(slots, tasks)
        self._tasks_max = tasks
        self._inbox: deque[Call] = deque()
        self._under_way: set[_Task] = set()
        self._jobs: set[str] = set()
        self._submitting = 0
        self._free: list[AsyncConnection] = []
        self._hungry = True
        """Nothing waits, and more could be under way: whoever submits has to say so."""
        self._seen = 0
        """Short calls that waited when it was looked last, if it is to be looked again."""
        self._gather_until = 0.0
        self._lock = threading.Lock()
        self._broken: BaseException | None = None
        self._closed = False
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._live, name="p2pq calls", daemon=True)
        self._thread.start()
        self._begun.wait()
        # Whatever was submitted is made before the program ends, as with every other executor.
        atexit.register(self.shut_down, wait=True)

    # -- from any thread -----------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Make a call, soon.

        Raises:
            BrokenExecutor: calls have been lost.
            RuntimeError: it is shut down.
        """
        with self._lock:
            if self._broken is not None:
                raise BrokenExecutor(str(self._broken))
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._inbox.append(call)
            if self._hungry:
                self._hungry = False
                self._loop.call_soon_threadsafe(self._work)

    def give_up(self, why: str) -> None:
        """Make no call any more, and cancel what is under way."""
        with self._lock:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._break, why)

    def shut_down(self, *, wait: bool, cancel: bool = False) -> None:
        """Take no more; end when all is done. ``cancel``: calls that are not under way are not made."""
        with self._lock:
            self._closed = True
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._closing, cancel)
        if wait and self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    # -- in its own thread ---------------------------------------------------------------------------------------------

    def _live(self) -> None:
        runner = asyncio.Runner()
        try:
            runner.run(self._serve())
        finally:
            with self._lock:
                runner.close()
            atexit.unregister(self.shut_down)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._begun.set()
        async with asyncio.TaskGroup() as self._running:
            await self._over.wait()
        for node in self._free:
            await node.__aexit__(None, None, None)

    def _closing(self, cancel: bool) -> None:
        if cancel:
            self._take_in()
            waiting = [call for call in self._groups.pending if not call.begun]
            self._groups.pending = deque(call for call in self._groups.pending if call.begun)
            for call in waiting:
                if call.future.cancel():
                    call.future.set_running_or_notify_cancel()
        self._work()

    def _take_in(self) -> None:
        inbox, pending = self._inbox, self._groups.pending
        while inbox:
            pending.append(inbox.popleft())

    def _work(self) -> None:
        """Send off what can be, and end if there is no more to do."""
        try:
            self._look()
        except Exception as error:  # a bug, of which nobody else would tell whoever waits
            self._break(f"these calls are lost: {error!r}", error)
            raise

    def _look(self) -> None:
        self._take_in()
        if self._broken is not None:
            self._give_up(self._broken)
        if self._more_are_coming():
            return
        while self._submitting + len(self._jobs) < self._place.jobs_max and self._groups.pending:
            under_way = len(self._under_way)
            free = max(0, self._slots - under_way)
            groups = self._groups.take(free, self._tasks_max - under_way - free)
            if not groups:
                break
            for some in self._place.jobs(groups):
                tasks = [_Task(group) for group in some]
                self._under_way.update(tasks)
                self._submitting += 1
                self._running.create_task(self._run(some, tasks), name="calls")
        if not self._groups.pending:
            self._hungry = True
            if self._inbox:
                self._hungry = False
                self._loop.call_soon(self._work)
            elif self._closed and not self._under_way:
                self._over.set()

    def _more_are_coming(self) -> bool:
        """Whether short calls are still coming in, so that it is better to look again in a moment."""
        waiting, now = len(self._groups.pending), self._loop.time()
        if self._closed or len(self._under_way) >= self._slots or not self._groups.short():
            return False
        if not self._seen:
            self._gather_until = now + self._groups.pace.gather_s
        if waiting == self._seen or now >= self._gather_until:
            self._seen = 0
            return False
        self._seen = waiting
        self._loop.call_later(GATHER_S, self._work)
        return True

    async def _run(self, groups: list[Group], tasks: list[_Task]) -> None:
        """Make a job of groups, and follow it to its end."""
        job = ""
        try:
            node = self._free.pop() if self._free else await AsyncConnection(*self._address).__aenter__()
            try:
                job = await self._place.submit(node, groups, self._check)
                self._jobs.add(job)
                self._submitting -= 1
                if self._broken is not None:
                    await self._cancel(job)
                await node.send(Ends(job=job))
                while (reply := await next_reply(node)) is not None:
                    self._hear(reply, tasks)
            except BaseException:
                await node.__aexit__(None, None, None)
                raise
            self._free.append(node)
            if any(task.calls for task in tasks):
                self._break("the job of some calls was cancelled")  # before they began
        except P2PQError as error:
            self._break(f"the node has lost these calls: {error}", error)
        except BaseException as error:
            self._break(f"these calls are lost: {error!r}", error)
            raise
        finally:
            if job:
                self._jobs.discard(job)
            else:
                self._submitting -= 1
            self._under_way.difference_update(tasks)
            self._work()

    def _check(self) -> None:
        """Go no further where all has been given up: what is not submitted yet need not be cancelled.

        Raises:
            P2PQError: so it is.
        """
        if self._broken is not None:
            raise P2PQError(str(self._broken))

    def _hear(self, reply: object, tasks: list[_Task]) -> None:
        match reply:
            case LogChunk(task=number, stream="stdout"):
                tasks[number].written += reply.data
            case LogChunk():
                _show(sys.stderr, reply.data)
            case TaskEnded(task=number):
                self._ended(tasks[number], reply)
            case _:
                pass

    def _ended(self, task: _Task, ended: TaskEnded) -> None:
        """Tell of all calls that a task has made; the others wait again, or are lost if it came to a bad end."""
        if task.over or self._broken is not None:
            return
        task.over = True
        left = deque(task.calls)
        made: list[tuple[Call, float]] = []
        whole, refused, node = False, None, names.display(ended.node) or "the node"
        for kind, seconds, payload in calls.frames(task.written):
            if kind in (calls.RESULT, calls.ERROR, calls.OTHER):
                if not left:
                    break
                call = left.popleft()
                task.calls = list(left)  # whatever comes of telling it, it is told
                made.append((call, seconds if 0 <= seconds <= SECONDS_MAX else 0.0))
                self._tell(call, kind, payload, node)
            elif kind == calls.PRINTED:
                _show(sys.stdout, bytes(payload))
            elif kind == calls.NOT_BEGUN:
                refused = self._opened(payload, node)
            else:
                whole = kind == calls.END
        task.written = bytearray()
        task.calls = list(left)
        self._groups.pace.measured(made)
        if refused is not None:
            self._break("the initializer has failed", refused)
        elif whole and made and ended.state == "done":
            self._groups.pace.started(max(0.0, ended.seconds - sum(seconds for _, seconds in made)))
            self._groups.put_back(task.calls)
            task.calls = []
            self._under_way.discard(task)
            self._work()
        else:
            self._break(_lost(ended))

    def _tell(self, call: Call, kind: int, payload: memoryview, node: str) -> None:
        """Give a call its result, or what it raised; what cannot be opened here is what it raises."""
        if kind != calls.RESULT:
            call.future.set_exception(self._opened(payload, node, other=kind == calls.OTHER))
            return
        try:
            found = self._place.result(payload, node)
        except BaseException as error:  # noqa: BLE001  told to whoever waits
            call.future.set_exception(error)
        else:
            call.future.set_result(found)

    def _opened(self, payload: memoryview, node: str, *, other: bool = False) -> BaseException:
        """Return what a call raised, or why that cannot be told."""
        try:
            return self._place.other(payload, node) if other else self._place.failure(payload, node)
        except BaseException as error:  # noqa: BLE001  it cannot be opened here
            return error

    def _break(self, why: str, cause: BaseException | None = None) -> None:
        """Fail whatever is not made yet, as none of it may be made in what is left of this."""
        if self._broken is None:
            self._broken = BrokenExecutor(f"{why}; make another Executor and submit again what is not done")
            self._broken.__cause__ = cause
            for job in self._jobs:
                self._running.create_task(self._cancel(job), name="cancel")
        self._give_up(self._broken)

    def _give_up(self, error: BaseException) -> None:
        self._take_in()
        lost = [*(call for task in self._under_way for call in task.calls), *self._groups.pending]
        self._groups.pending.clear()
        for task in self._under_way:
            task.calls = []
        for call in lost:
            if not call.future.done() and (call.begun or call.future.set_running_or_notify_cancel()):
                call.future.set_exception(error)

    async def _cancel(self, job: str) -> None:
        try:
            async with AsyncConnection(*self._address) as node:
                await ask(node, CancelJob(job=job), JobView)
        except P2PQError as error:
            log.info("job %s goes on: %s", job[:8], error)


def _lost(ended: TaskEnded) -> str:
    """Say how a task ended that has not said so itself."""
    if ended.gone:
        return f"what calls returned is not here any more: {ended.gone}"
    if ended.state == "cancelled":
        return "the job of some calls was cancelled"
    if ended.signal is not None:
        return f"a call, or something that it did, ended its process by signal {ended.signal}"
    if ended.exit is not None and ended.reason in ("", "ok", "exit"):
        return f"a call ended its process with exit code {ended.exit}"
    return f"the task of some calls failed: {ended.reason or 'it was lost'}"


def _show(stream: Any, data: bytes) -> None:  # noqa: ANN401  whatever the program has put there
    """Print what calls have printed."""
    if stream is not None:
        try:
            stream.write(data.decode(errors="replace"))
            stream.flush()
        except (OSError, ValueError) as error:  # a pipe that nobody reads, a closed file, letters that it does not have
            log.debug("what calls printed cannot be shown: %s", error)
