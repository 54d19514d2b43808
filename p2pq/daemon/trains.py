"""Short attempts of one job that go to a runner in one message, and come back a few at a time.

What takes long, or prints much, goes on alone; what has not begun by then is given back. Whatever is to become of one of them
(it is cancelled, or is to stand still) ends the train, too.
"""

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic

from p2pq.daemon import tidying
from p2pq.daemon.attempt import ANSWER_S, Outcome, Reason, by_itself, exit_unexecuted, exited, unexecuted
from p2pq.daemon.launches import Run, T, TaskLaunch, check_room, open_outputs, populate, storage_error
from p2pq.daemon.limits import size_text
from p2pq.daemon.runner_messages import Did, End, Gone, Started, Wake
from p2pq.daemon.runner_process import RunnerProcess
from p2pq.daemon.runners import RunnerPool
from p2pq.daemon.threads import in_thread
from p2pq.errors import StorageError
from p2pq.runner import main as runner_main

LONG_S: Final = runner_main.LONG_S
"""Behind an attempt that takes longer nothing waits."""


@dataclass(frozen=True, slots=True)
class Passenger:
    """One attempt of a train: what is not the same for all."""

    lease: str
    argv: tuple[str, ...]
    otherwise: tuple[str, ...]
    env: dict[str, str]
    params: str = ""
    """The content of the file of parameters, where it is not the same for all."""


@dataclass(frozen=True, slots=True)
class TrainLaunch(Generic[T]):
    """Everything needed to run a train."""

    common: TaskLaunch[T]
    """What is the same for all; its lease, command and ``collect`` are not used. Where there is a ``populate``, one folder serves
    them all, until one leaves something in it."""
    passengers: tuple[Passenger, ...]
    collect: Callable[[int, Path, Outcome], T]
    """As that of a launch, for the one of that place that goes on alone, printed much or left anything in the folder."""
    on_started: Callable[[int, Path, Path], None]
    """The one of that place goes on alone: the paths of what it prints."""


@dataclass(frozen=True, slots=True)
class Left:
    """Those from this place on do not end on this train: they are free at once."""

    first: int
    apart: bool = False
    """One of them has lost its runner, and nobody knows which: each is to have one of its own."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One that ended on the train, and what it printed."""

    place: int
    outcome: Outcome
    stdout: bytes
    stderr: bytes

    @property
    def tells(self) -> bool:
        """Whether there is more to say of it than its exit code."""
        return bool(self.stdout or self.stderr) or self.outcome.detail != exited(self.outcome.exit)


@dataclass(slots=True)
class _Train:
    """How far it is."""

    count: int
    begun: float
    oom_kills: int
    ended: int = 0
    over: bool = False
    alone: int | None = None
    """The process id of the one that goes on alone."""
    large: Outcome | None = None
    """Of the last one that ended: there is more of it to collect."""
    lost: str = ""
    batch: list[Ended] = field(default_factory=list)


async def run_train(
    pool: RunnerPool, launch: TrainLaunch[T]
) -> AsyncGenerator[list[Ended] | Left | tuple[int, Outcome, T], None]:
    """Run a train; yield those that ended on it, some at a time, and at last the one that went on alone, by its place.

    Before that one has ended, the others are ``Left``. What is never named may have run where a runner was lost, and has not
    begun otherwise. Cancelling kills what runs.

    Raises:
        SandboxError: no runner could be started.
        StorageError: the scratch folder failed, or the disk is too full.
    """
    leases = tuple(each.lease for each in launch.passengers)
    async with pool.borrowed(launch.common, leases) as runs:
        runner = runs[0].runner
        if (failed := await pool.hooks.begin(launch.common, runner, runs)) is not None:
            yield Left(1)
            yield 0, failed, await pool.collected(_launch_of(launch, 0), runner, failed)
            return
        await tidying.over(runner)
        await pool.prepare(launch.common, runner)
        await _populate(launch, runner)
        if _ends(runs):
            await _tidy(pool, launch, runner)
            return  # before it has begun; whoever is still wanted waits again
        for run in runs:
            run.coupled = True
        alone: Outcome | None = None
        with pool.pinned(launch.common, runner):
            number = _depart(pool, launch, runs)
            train = _Train(len(leases), asyncio.get_running_loop().time(), _oom_kills(runner))
            while not train.over:
                await _hear(train, number, runs, launch)
                if train.batch:
                    batch, train.batch = train.batch, []
                    yield batch
            place = train.ended
            if train.alone is not None:
                pool.forget(leases[place + 1 :])
                yield Left(place + 1)
                alone = await _alone(pool, launch, runs[place], place, number, train.alone)
        if train.large is not None:
            place, outcome = place - 1, train.large
        elif train.lost and place < train.count - 1:
            yield Left(place, apart=True)
            return
        elif train.lost and place < train.count:
            outcome = _outcome(runner, 0.0, 0, ("sandbox", train.lost), (None, None))
        elif alone is not None:
            outcome = alone
        else:
            await _tidy(pool, launch, runner)
            return
        yield place, outcome, await pool.collected(_launch_of(launch, place), runner, outcome)


async def _populate(launch: TrainLaunch[T], runner: RunnerProcess) -> None:
    """Fill the folder that serves them all, if there is one."""
    if launch.common.populate is not None:
        await in_thread(lambda: populate(launch.common, runner))


def _has_temporary(launch: TrainLaunch[T]) -> bool:
    """Tell whether the tasks have a folder for temporary files that the daemon made; in ``strict`` it is the sandbox's."""
    return launch.common.level != "strict" and not launch.common.whole_env


def _ends(runs: list[Run]) -> bool:
    """Tell whether something is to become of one of them: it is to end, or to stand still."""
    return any(run.stop is not None or not run.go.is_set() for run in runs)


def _depart(pool: RunnerPool, launch: TrainLaunch[T], runs: list[Run]) -> int:
    """Send a train to its runner; return the number of its first attempt."""
    runner = runs[0].runner
    files: tuple[int, ...] = ()
    try:
        check_room(runner.scratch)
        files = open_outputs(runner.scratch, os.O_RDWR)
        number = pool.numbers(len(runs))
        order: dict[str, object] = {
            "op": "train",
            "id": number,
            "tasks": [
                {
                    "argv": list(each.argv),
                    "otherwise": list(each.otherwise),
                    "env": each.env,
                    "params": each.params,
                }
                for each in launch.passengers
            ],
            "long_s": LONG_S,
            "files": launch.common.populate is not None,
            "temporary": str(runner.scratch.temporary) if _has_temporary(launch) else "",
            **pool.surroundings(launch.common, runner),
        }
        runner.occupied = True
        runner.send(order, files)
    except OSError as error:
        raise storage_error(error, runner.scratch.root) from error
    finally:
        for each in files:
            os.close(each)
    return number


async def _hear(train: _Train, number: int, runs: list[Run], launch: TrainLaunch[T]) -> None:
    """Take in the next thing that the runner says."""
    runner = runs[0].runner
    try:
        async with asyncio.timeout(ANSWER_S):
            heard = await runner.heard.get()
    except TimeoutError:
        # Where this process itself stood still, the answer is there already.
        heard = runner.heard.get_nowait() if runner.heard.qsize() else Gone("it did not answer any more")
    match heard:
        case Wake():
            if _ends(runs):
                runner.send({"op": "halt", "id": number})
        case Did() if heard.id == number and _fits(train, heard):
            _did(train, heard, runner, launch, now=asyncio.get_running_loop().time())
        case Gone(why):
            _lose(train, runner, f"its runner was lost: {why}")
        case _:
            _lose(train, runner, "its runner spoke out of turn")


def _fits(train: _Train, did: Did) -> bool:
    """Tell whether it is what an honest runner may say next."""
    left = train.count - train.ended - len(did.ends)
    alone = did.pid is not None
    wrong = (did.large and not did.ends) or (bool(did.dirty) and not (did.ends or train.ended))
    wrong = wrong or ((did.large or bool(did.dirty)) and alone)
    return left >= alone and not (wrong or (alone and not did.over) or ((did.large or did.dirty) and not did.over))


def _did(train: _Train, did: Did, runner: RunnerProcess, launch: TrainLaunch[T], *, now: float) -> None:
    out_of_memory = (kills := _oom_kills(runner)) > train.oom_kills
    train.oom_kills = kills
    most_s = now - train.begun  # a runner may lie, but not beyond our own clock
    for end in did.ends:
        limit = launch.common.limits.memory_bytes if out_of_memory and end.signal == signal.SIGKILL else None
        outcome = _of(end, runner, most_s, limit)
        train.batch.append(Ended(train.ended, outcome, end.stdout, end.stderr))
        train.ended += 1
    train.over = did.over
    train.alone = did.pid
    if did.large:
        train.large = train.batch.pop().outcome
    if did.dirty:
        runner.kill()
    elif train.over and did.pid is None:
        runner.occupied = False


def _of(end: End, runner: RunnerProcess, most_s: float, memory_limit: int | None) -> Outcome:
    code: int | None = end.exit
    number: int | None = end.signal or None
    said: tuple[Reason, str]
    if end.errno:
        code = exit_unexecuted(end.errno)
        said = ("exit", unexecuted(end.errno))
    elif memory_limit is not None:
        said = ("memory-limit", f"it used more memory than its limit of {size_text(memory_limit)}")
    else:
        said = by_itself(code, number)
    exit_or_signal = (None, number) if number is not None else (code, None)
    return _outcome(runner, min(end.seconds, most_s), end.max_rss, said, exit_or_signal, cpu_s=end.utime + end.stime)


def _outcome(
    runner: RunnerProcess,
    seconds: float,
    max_rss: int,
    said: tuple[Reason, str],
    exit_or_signal: tuple[int | None, int | None],
    *,
    cpu_s: float = 0.0,
) -> Outcome:
    stdout, stderr = runner.scratch.prints
    return Outcome(
        exit=exit_or_signal[0],
        signal=exit_or_signal[1],
        seconds=seconds,
        max_rss=max_rss,
        reason=said[0],
        detail=said[1],
        stdout=stdout,
        stderr=stderr,
        cpu_s=cpu_s,
    )


async def _alone(pool: RunnerPool, launch: TrainLaunch[T], run: Run, place: int, number: int, pid: int) -> Outcome:
    """Follow the one that goes on alone to its end."""
    alone = _launch_of(launch, place)
    attempt = pool.attempt(alone, run, number + place, ago_s=2 * LONG_S)  # at most, with the time that its word took
    loop = asyncio.get_running_loop()
    attempt.hear(Started(id=number + place, pid=pid), loop.time())
    if not run.go.is_set():
        attempt.suspend(loop.time())
    run.runner.heard.put_nowait(Wake())  # what is to become of it may be known already
    return await pool.follow(run, attempt)


def _launch_of(launch: TrainLaunch[T], place: int) -> TaskLaunch[T]:
    return dataclasses.replace(
        launch.common,
        lease=launch.passengers[place].lease,
        argv=launch.passengers[place].argv,
        collect=lambda folder, outcome: launch.collect(place, folder, outcome),
        on_started=lambda stdout, stderr: launch.on_started(place, stdout, stderr),
    )


def _lose(train: _Train, runner: RunnerProcess, why: str) -> None:
    train.lost, train.over = why, True
    runner.kill()


async def _tidy(pool: RunnerPool, launch: TrainLaunch[T], runner: RunnerProcess) -> None:
    """Empty the folders for the next task; nothing of the train is alive. Where that fails the runner is not used again."""
    if runner.broken:
        return
    if tidying.ahead(launch.common):
        pool.packing.tidy(launch.common, runner)
        return
    try:
        if launch.common.populate is not None:
            await in_thread(lambda: tidying.empty(runner))
        else:
            tidying.empty(runner)
    except StorageError:
        runner.kill()  # all results are had already


def _oom_kills(runner: RunnerProcess) -> int:
    return 0 if runner.group is None else runner.group.oom_kills()
