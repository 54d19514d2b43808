"""A runner's folders between two tasks: what one left is collected, and what every task of the job finds is put there again.

For jobs of few and small files that goes on while the slot waits for its next task, which then finds its folder ready.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from p2pq.daemon.attempt import Outcome
from p2pq.daemon.launches import Furniture, T, TaskLaunch, furnish, storage_error
from p2pq.daemon.runner_process import RunnerProcess
from p2pq.daemon.threads import in_thread
from p2pq.errors import P2PQError

THREADS_MIN: Final = 4
FURNISHED_S: Final = 1.0
"""So long a folder stays ready for a task that does not come; then nothing of the job is left in it."""
SHORT_S: Final = 2.0
"""Behind longer attempts no other one begins while their results are packed: little would be won, and the runner, with all that
it has imported, would idle until the next but one."""


def ahead(launch: TaskLaunch[Any]) -> bool:
    """Tell whether a runner's folder is made ready for a next task before there is one."""
    # What a job runs at its end finds the folder empty.
    return launch.furniture is not None and launch.furniture.small and launch.hooks is None


def collect(
    launch: TaskLaunch[T], runner: RunnerProcess, outcome: Outcome, again: Callable[[], object] | None = None
) -> T:
    """Return what ``collect`` makes of an attempt that ended, made durable. Blocking.

    The folders are empty then; or ``again`` is called to have that begun, beside what is left to do here.

    Raises:
        StorageError: that failed.
    """
    try:
        runner.scratch.open_up()
        result = launch.collect(runner.scratch.job, outcome)
    except OSError as error:
        raise storage_error(error, runner.scratch.root) from error
    if runner.broken:
        pass
    elif again is None:
        empty(runner)
    else:
        again()
    if launch.secure is not None:
        launch.secure(result)
    return result


async def over(runner: RunnerProcess) -> None:
    """Wait until a runner's folders are ready for the next task.

    Raises:
        StorageError: they will never be.
    """
    if runner.tidying is not None:
        await asyncio.shield(runner.tidying)


def empty(runner: RunnerProcess, *, begun: bool = False) -> None:
    """Delete what a task left, or what ``--begin`` did, too; no process of it may be alive. Blocking.

    Raises:
        StorageError: that failed.
    """
    try:
        runner.scratch.empty(begun=begun)
    except OSError as error:
        raise storage_error(error, runner.scratch.root) from error
    runner.furnished = None


def _tidy(furniture: Furniture, runner: RunnerProcess) -> None:
    empty(runner)
    try:
        furnish(furniture, runner)
    except (OSError, P2PQError):
        empty(runner)


class Packing:
    """Packs what attempts left and tidies up after them, in threads of its own: of guests and of own tasks apart.

    Results may be large, and nothing else is to wait for them. Use it from the event loop's thread only.
    """

    def __init__(self, used: Callable[[RunnerProcess], bool]) -> None:
        """Begin no thread yet; ``used`` tells whether a runner is somebody's."""
        self._used = used
        width = max(THREADS_MIN, os.cpu_count() or 1)
        self._threads = {guests: ThreadPoolExecutor(width, thread_name_prefix="packing") for guests in (False, True)}
        self.vacated = 0
        """Attempts whose place may be taken while what they left is packed."""

    @contextmanager
    def begun(self, launch: TaskLaunch[Any], seconds: float, *, room: bool) -> Iterator[None]:
        """Around the packing of what an attempt left that ran for so long.

        Its place may be taken meanwhile, if it was short and there is ``room`` for a runner more.
        """
        vacates = launch.on_vacated if room and seconds < SHORT_S else None
        self.vacated += vacates is not None
        try:
            if vacates is not None:
                vacates()
            yield
        finally:
            self.vacated -= vacates is not None

    async def collect(self, launch: TaskLaunch[T], runner: RunnerProcess, outcome: Outcome) -> T:
        """Return what ``collect`` makes of an attempt that ended, made durable; its folders are empty, or soon will be.

        Raises:
            StorageError: that failed.
        """
        again = partial(asyncio.get_running_loop().call_soon_threadsafe, self.tidy, launch, runner)
        work = partial(collect, launch, runner, outcome, again if ahead(launch) else None)
        return await in_thread(work, self._threads[launch.idle_priority])

    def tidy(self, launch: TaskLaunch[Any], runner: RunnerProcess) -> None:
        """Begin to empty a runner's folders and to furnish them; nothing of a task may be alive.

        Where they cannot be emptied the runner is killed; where they cannot be furnished they stay empty: whoever needs them
        finds out why.
        """
        assert launch.furniture is not None, "see ``ahead``"  # noqa: S101
        self._work(runner, partial(_tidy, launch.furniture, runner), guests=launch.idle_priority)
        asyncio.get_running_loop().call_later(FURNISHED_S, self._clear, runner, runner.tidying)

    def _clear(self, runner: RunnerProcess, tidied: "asyncio.Future[None] | None") -> None:
        """No task has come: what is a job's is not left lying here."""
        if tidied is None or runner.tidying is not tidied or runner.broken or self._used(runner):
            return
        if not tidied.done():
            asyncio.get_running_loop().call_later(FURNISHED_S, self._clear, runner, tidied)
        elif runner.furnished is not None:
            self._work(runner, partial(empty, runner), guests=True)

    def _work(self, runner: RunnerProcess, work: Callable[[], None], *, guests: bool) -> None:
        runner.tidying = asyncio.get_running_loop().run_in_executor(self._threads[guests], work)
        runner.tidying.add_done_callback(lambda done: runner.kill() if done.cancelled() or done.exception() else None)

    async def remove(self, runner: RunnerProcess) -> None:
        """Delete the folders of a runner that is dead."""
        if runner.tidying is not None:
            await asyncio.wait([runner.tidying])
        await asyncio.get_running_loop().run_in_executor(self._threads[True], runner.scratch.remove)
