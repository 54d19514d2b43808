"""A runner's folders between two tasks: what one left is collected, and what every task of the job finds is put there again.

For jobs of few and small files that goes on while the slot waits for its next task, which then finds its folder ready.
"""

import asyncio
from typing import Any

from p2pq.daemon.attempt import Outcome
from p2pq.daemon.launches import Furniture, T, TaskLaunch, furnish, storage_error
from p2pq.daemon.runner_process import RunnerProcess
from p2pq.errors import P2PQError, SandboxError


def ahead(launch: TaskLaunch[Any]) -> bool:
    """Tell whether a runner's folder is made ready for a next task before there is one."""
    # What a job runs at its end finds the folder empty.
    return launch.furniture is not None and launch.furniture.small and launch.hooks is None


def collect(
    launch: TaskLaunch[T], runner: RunnerProcess, outcome: Outcome, loop: asyncio.AbstractEventLoop | None = None
) -> T:
    """Return what ``collect`` makes of an attempt that ended, made durable. Blocking.

    The folders are empty then, or that ``loop`` is told to ``begin``, beside what is left to do here.

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
    elif loop is None:
        empty(runner)
    else:
        loop.call_soon_threadsafe(begin, launch, runner)
    if launch.secure is not None:
        launch.secure(result)
    return result


def begin(launch: TaskLaunch[Any], runner: RunnerProcess) -> None:
    """Begin to empty a runner's folders and to furnish them; nothing of a task may be alive. Where that fails, it is killed."""
    assert launch.furniture is not None, "see ``ahead``"  # noqa: S101
    work = asyncio.get_running_loop().run_in_executor(None, _tidy, launch.furniture, runner)
    runner.tidying = work
    work.add_done_callback(lambda done: runner.kill() if done.cancelled() or done.exception() else None)


async def over(runner: RunnerProcess) -> None:
    """Wait until a runner's folders are ready for the next task.

    Raises:
        SandboxError: they will never be.
    """
    if runner.tidying is not None:
        try:
            await asyncio.shield(runner.tidying)
        except (OSError, P2PQError) as error:
            raise SandboxError(f"its folder could not be made ready: {error}") from error


async def remove(runner: RunnerProcess) -> None:
    """Delete the folders of a runner that is dead."""
    if runner.tidying is not None:
        await asyncio.wait([runner.tidying])
    await asyncio.get_running_loop().run_in_executor(None, runner.scratch.remove)


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
    furnish(furniture, runner)
