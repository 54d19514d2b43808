"""The pool of runners: starts, reuses and ends them, and runs one task attempt from scratch folder to collected results.

A runner is used for one job only, and for one task at a time. Faults of this machine raise (`SandboxError`,
`StorageError`) and never count against the task; everything that the task itself brought about is an `Outcome`.
"""

import asyncio
import contextlib
import os
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from p2pq.daemon import limits, sandbox, tidying
from p2pq.daemon.attempt import Attempt, KillReason, Outcome, Reason, Stop
from p2pq.daemon.cgroups import Cgroups
from p2pq.daemon.hooks import Endings
from p2pq.daemon.launches import Run, T, TaskLaunch, fill, order, quick, storage_error, surroundings
from p2pq.daemon.limits import Limits
from p2pq.daemon.runner_messages import Heard, Wake
from p2pq.daemon.runner_process import Level, RunnerProcess, RunnerToken, purge
from p2pq.daemon.scratch import Scratch
from p2pq.daemon.spares import Spares
from p2pq.daemon.threads import in_thread, settled
from p2pq.errors import SandboxError, StorageError

__all__ = ["KillReason", "Level", "Limits", "Outcome", "Reason", "RunnerPool", "TaskLaunch"]

GRACE_S: Final = 5.0
IDLE_S: Final = 5.0
IDLE_MAX: Final = 32
RUNNERS_MAX: Final = 256
LOOK_S: Final = 0.2
SPARE_AFTER_S: Final = 0.02
"""When a spare was taken the next one starts, once the task that took it has been launched."""

_Key = tuple[bytes, Level, Limits, bool, tuple[sandbox.Mount, ...]]
"""Job, level, limits, whether it is a guest's, and what is mounted."""


def _of_guests(key: _Key) -> bool:
    return key[3]


@dataclass(frozen=True, slots=True)
class _Idle:
    runner: RunnerProcess
    timer: asyncio.TimerHandle


class RunnerPool:
    """Runs attempts. Use it from the event loop's own thread only."""

    def __init__(
        self,
        scratch: Path,
        python: sandbox.JobPython,
        *,
        grace_s: float = GRACE_S,
        idle_s: float = IDLE_S,
        runners_max: int = RUNNERS_MAX,
    ) -> None:
        """Keep scratch folders below ``scratch``, which belongs to this pool alone."""
        self.python = python
        self._scratch = scratch
        self.grace_s = grace_s
        self.hooks = Endings(self)
        self._idle_s = idle_s
        self._runners_max = runners_max
        self._count = 0
        self._running: dict[str, Run] = {}
        self._busy: set[RunnerProcess] = set()
        self._idle: dict[_Key, list[_Idle]] = {}
        self._alive: dict[RunnerProcess, _Key | None] = {}
        self._spares = Spares(self._start_spare)
        self._pinned: Counter[int] = Counter()
        self._removals: set[asyncio.Future[None]] = set()
        self.packing = tidying.Packing(lambda runner: runner in self._busy)
        self._closing = False
        self._quiet = False
        """Guests stand still: so does what is made for them, and nothing that they have imported ahead is kept."""
        self._cgroups: Cgroups | None = None

    @property
    def memory_control(self) -> Literal["cgroup", "polling"]:
        """How memory limits are enforced here; known after ``start``."""
        return "polling" if self._cgroups is None else "cgroup"

    async def start(self) -> None:
        """Make the scratch folder and delete what an earlier daemon left in it.

        Raises:
            StorageError: the folder cannot be made or emptied.
        """
        await in_thread(self._prepare_scratch)
        self._cgroups = Cgroups.open()

    def keep_spare(self, level: Level) -> None:
        """Keep one runner of that level started ahead, fresh and bound to no job, so that the next job need not wait for it."""
        self._spares.keep(level)

    def _prepare_scratch(self) -> None:
        try:
            self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            purge(self._scratch)
        except OSError as error:
            raise StorageError(f"cannot empty {self._scratch}: {error.strerror}") from error

    async def run(self, launch: TaskLaunch[T]) -> tuple[Outcome, T]:
        """Run one attempt to its end and return what ``collect`` made of it.

        Cancelling kills the attempt; nothing of it is left when this raises.

        Raises:
            SandboxError: no runner could be started.
            StorageError: the scratch folder could not be filled or emptied, or the disk is too full.
        """
        async with self.borrowed(launch, (launch.lease,)) as (run,):
            outcome = await self._attempt(launch, run)
            # Whoever comes in the place of one that has ended may need a runner more.
            room = not run.runner.broken and len(self._alive) + self.packing.vacated < self._runners_max
            with self.packing.begun(launch, outcome.seconds, room=room):
                return outcome, await self.collected(launch, run.runner, outcome)

    @contextlib.asynccontextmanager
    async def borrowed(self, launch: TaskLaunch[T], leases: tuple[str, ...]) -> AsyncIterator[list[Run]]:
        """Take a runner for some leases, none of which is run now; it is clean, or killed, when this is left.

        Raises:
            SandboxError: no runner could be started.
            StorageError: its folder could not be made.
        """
        if self._closing:
            raise SandboxError("the node is stopping")
        if any(lease in self._running for lease in leases):
            raise ValueError(f"of {', '.join(leases)} one runs already")
        runner = self._take(launch)
        runs = [Run(runner, asyncio.Event(), background=launch.background) for _ in leases]
        if not (launch.suspended or (launch.background and self._quiet)):
            for run in runs:
                run.go.set()
        self._running.update(zip(leases, runs, strict=True))
        self._busy.add(runner)
        try:
            yield runs
        except BaseException:
            runner.kill()
            raise
        finally:
            for lease, run in zip(leases, runs, strict=True):
                if self._running.get(lease) is run:
                    del self._running[lease]
            self._busy.discard(runner)
            if runner.broken:
                await runner.wait_dead()
                self._remove(runner)
            else:
                self._rest(runner)

    def forget(self, leases: Iterable[str]) -> None:
        """These are not run by the runner that was borrowed for them: they may be run by another."""
        for lease in leases:
            self._running.pop(lease, None)

    async def collected(self, launch: TaskLaunch[T], runner: RunnerProcess, outcome: Outcome) -> T:
        """Return what ``collect`` makes of an attempt that ended, made durable; its folder is emptied, or soon will be.

        Raises:
            StorageError: that failed.
        """
        if runner.broken:
            await runner.wait_dead()
        if launch.populate is None and outcome.silent:  # which is quicker than any thread
            return tidying.collect(launch, runner, outcome)
        return await self.packing.collect(launch, runner, outcome)

    async def kill(
        self,
        lease: str,
        reason: KillReason,
        detail: str = "",
        grace_s: float | None = None,
        number: int = signal.SIGTERM,
    ) -> None:
        """Ask a task to end by a signal, then make it (SIGKILL after the grace). Unknown leases are ignored.

        Returns at once; ``run`` returns when it is done.
        """
        run = self._running.get(lease)
        if run is None or run.stop is not None:
            return
        grace = self.grace_s if grace_s is None else grace_s
        run.stop = Stop(reason, detail or "it was cancelled", grace, number)
        run.go.set()
        if run.attempt is not None or run.coupled:
            run.runner.heard.put_nowait(Wake())

    def hold(self, lease: str, *, still: bool) -> None:
        """Let a task stand still, or go on; one that is not launched yet is not until then. Unknown leases are ignored."""
        run = self._running.get(lease)
        if run is None or run.stop is not None:
            return
        if run.attempt is not None:
            now = asyncio.get_running_loop().time()
            (run.attempt.suspend if still else run.attempt.go_on)(now)
            run.runner.heard.put_nowait(Wake())
            return
        if still:
            run.go.clear()
        else:
            run.go.set()
        if run.coupled:
            run.runner.heard.put_nowait(Wake())

    def quiet(self, *, still: bool) -> None:
        """Let what is made for guests stand still with them, or go on; runners that they left warm end."""
        self._quiet = still
        for lease in [name for name, run in self._running.items() if run.background]:
            self.hold(lease, still=still)
        if still:
            for runner in [each for each, key in self._alive.items() if key is not None and _of_guests(key)]:
                if runner not in self._busy:  # nor does it end as its job wants it to
                    self._forget_idle(runner)
                    runner.kill()

    def pids(self) -> list[int]:
        """Return the process ids of the runners of guests."""
        return [runner.pid for runner, key in self._alive.items() if key is not None and _of_guests(key) and runner.pid]

    def end_job(self, job: bytes) -> None:
        """End the idle runners of a job that has no more tasks for this node."""
        for idle in [item for key, items in self._idle.items() if key[0] == job for item in items]:
            self._end_idle(idle.runner)

    async def finish(self, job: bytes) -> None:
        """A job is over: wait until its runners that have something to do at their end have done it."""
        while left := [each for each, key in self._alive.items() if key and key[0] == job and each.begun is not None]:
            self.end_job(job)
            await asyncio.wait([each.dead for each in left], timeout=LOOK_S)

    async def close(self) -> None:
        """Kill everything and wait until nothing is left."""
        self._closing = True
        for idle in [item for items in self._idle.values() for item in items if item.runner.begun is not None]:
            self._end_idle(idle.runner)
        await self.hooks.close()
        for run in self._running.values():
            run.stop = run.stop or Stop("cancelled", "the node is stopping", 0.0)
        runners = list(self._alive)
        for runner in runners:
            self._forget_idle(runner)
            runner.kill()
        for runner in runners:
            await runner.wait_dead()
            if runner not in self._busy:
                self._remove(runner)
        while self._removals:
            await asyncio.wait(self._removals)

    # -- runners

    def _take(self, launch: TaskLaunch[T]) -> RunnerProcess:
        """Return an idle runner of this job, or start one in a new scratch folder."""
        key: _Key = (launch.job, launch.level, launch.limits, launch.idle_priority, launch.mounts)
        for idle in reversed(self._idle.get(key, [])):
            if not idle.runner.broken:
                self._forget_idle(idle.runner)
                return idle.runner
        # One without a sandbox sees all there is, and holds nothing: only its task's end would.
        if (launch.until_dead is None or launch.mounts) and (launch.hooks is None or launch.level == "none"):
            spare = self._spares.take(launch.level, launch.mounts)
            if spare is not None:
                self._alive[spare] = key
                return spare
        if len(self._alive) >= self._runners_max:
            oldest = next((items[0] for items in self._idle.values()), None)
            if oldest is None:
                raise SandboxError(f"{self._runners_max} runners are busy already")
            self._end_idle(oldest.runner)
        runner = self._start(launch.level, key, launch.mounts, begins=launch.hooks is not None)
        if launch.until_dead is not None:
            launch.until_dead(runner.dead)
        return runner

    def _start(
        self, level: Level, key: _Key | None, mounts: tuple[sandbox.Mount, ...] = (), *, begins: bool = False
    ) -> RunnerProcess:
        """Start a runner in a new scratch folder, in ``strict`` with a place for what its job begins with if it does.

        Raises:
            SandboxError: it could not be started.
            StorageError: the folder could not be made.
        """
        self._count += 1
        token = RunnerToken(secrets.token_hex(8))
        scratch = Scratch(self._scratch / f"{self._count}-{token[:6]}")
        try:
            scratch.create()
            if begins and level == "strict":
                mounts = (*mounts, sandbox.Mount(scratch.begun, sandbox.BEGUN_FOLDER, writable=True))
            runner = RunnerProcess(level, self.python, scratch, token, mounts)
        except (OSError, SandboxError) as error:
            if scratch.root.is_dir():
                scratch.remove()
            if isinstance(error, SandboxError):
                raise
            raise storage_error(error, self._scratch) from error
        self._alive[runner] = key
        runner.dead.add_done_callback(lambda _: self._remove_unused(runner))
        return runner

    def _start_spare(self, level: Level, mounts: tuple[sandbox.Mount, ...]) -> RunnerProcess | None:
        """Start one for nobody yet, as ``_start``, if there is room."""
        if self._closing or len(self._alive) >= self._runners_max - 1:
            return None
        return self._start(level, None, mounts)

    def _rest(self, runner: RunnerProcess) -> None:
        """Keep a clean runner for the next task of its job, for a while."""
        key = self._alive[runner]
        assert key is not None, "a runner that ran a task belongs to a job"  # noqa: S101
        if self._closing or (self._quiet and _of_guests(key)):
            runner.kill()
            return
        if sum(map(len, self._idle.values())) >= IDLE_MAX:
            self.hooks.end(runner)
            return
        timer = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle, runner)
        self._idle.setdefault(key, []).append(_Idle(runner, timer))

    def _forget_idle(self, runner: RunnerProcess) -> None:
        key = self._alive[runner]
        if key is None:
            return  # a spare
        left = []
        for idle in self._idle.pop(key, []):
            if idle.runner is runner:
                idle.timer.cancel()
            else:
                left.append(idle)
        if left:
            self._idle[key] = left

    def _end_idle(self, runner: RunnerProcess) -> None:
        """End a runner that nobody uses; its folder goes when it is dead."""
        self._forget_idle(runner)
        self.hooks.end(runner)

    def _remove_unused(self, runner: RunnerProcess) -> None:
        if runner not in self._busy:  # else ``run`` still needs the folder, and removes it itself
            self._remove(runner)

    def _remove(self, runner: RunnerProcess) -> None:
        """Delete the scratch folder of a dead runner, in a worker thread."""
        if runner not in self._alive:
            return
        self._forget_idle(runner)
        del self._alive[runner]
        self._spares.forget(runner)
        removal = asyncio.get_running_loop().create_task(self.packing.remove(runner), name="remove a runner")
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    # -- one attempt

    async def _attempt(self, launch: TaskLaunch[T], run: Run) -> Outcome:
        """Fill the folder, launch the task and follow it until its runner is clean or lost."""
        runner = run.runner
        files: list[int] = []
        try:
            await tidying.over(runner)
            if (failed := await self.hooks.begin(launch, runner, [run])) is not None:
                return failed
            if quick(launch, runner):
                fill(launch, runner, files)
            else:
                await in_thread(lambda: fill(launch, runner, files))
            await self.prepare(launch, runner)
            await run.go.wait()
            number = self.numbers(1)
            with self.pinned(launch, runner):
                if run.stop is None:
                    runner.occupied = True
                    runner.send(order(launch, number, self.surroundings(launch, runner)), tuple(files))
                attempt = self.attempt(launch, run, number)
                if run.stop is not None:
                    attempt.never_started(run.stop)
                return await self.follow(run, attempt)
        finally:
            for fd in files:
                os.close(fd)

    async def prepare(self, launch: TaskLaunch[T], runner: RunnerProcess) -> None:
        """Wait until a runner serves, and tell it what holds for all tasks of its job.

        Raises:
            SandboxError: it does not.
        """
        if not runner.pid:
            await runner.ready()
            self._confine(launch, runner)
            runner.setup(
                launch.limits.rlimits(launch.level),
                sandbox.mounts_below_scratch(self.python),
                idle_priority=launch.idle_priority,
            )

    def numbers(self, count: int) -> int:
        """Return the first of so many numbers that no task has had."""
        first = self._count + 1
        self._count += count
        return first

    def attempt(self, launch: TaskLaunch[T], run: Run, number: int, *, ago_s: float = 0.0) -> Attempt:
        """Begin to follow what was launched by that number, just now or so many seconds ago."""
        loop = asyncio.get_running_loop()
        attempt = Attempt(run.runner, number, launch.limits, self.grace_s, loop.time() - ago_s)
        attempt.on_started = launch.on_started
        run.attempt = attempt
        loop.call_later(SPARE_AFTER_S, self._spares.refill, launch.level, launch.mounts, launch.until_dead)
        return attempt

    def _confine(self, launch: TaskLaunch[T], runner: RunnerProcess) -> None:
        """Put a runner that has not run anything yet into a control group of its own, where there are any."""
        if self._cgroups is None:
            return
        memory_bytes, processes = launch.limits.memory_bytes, launch.limits.processes
        if launch.warm and memory_bytes is not None:
            memory_bytes += limits.WARM_BYTES_MAX
        try:
            runner.group = self._cgroups.create(runner.token, memory_bytes, processes)
            runner.group.add(runner.pid)
        except OSError as error:
            raise SandboxError(f"the control group could not be made: {error.strerror}") from error

    @contextlib.contextmanager
    def pinned(self, launch: TaskLaunch[T], runner: RunnerProcess) -> Iterator[None]:
        """Give a task in a sandbox as many processors as it asked for, the least used ones, for as long as it runs."""
        if launch.level == "none":
            yield
            return
        usable = os.sched_getaffinity(0)
        chosen = sorted(usable, key=lambda cpu: (self._pinned[cpu], cpu))[: launch.limits.cpus]
        runner.pin(frozenset(chosen))
        self._pinned.update(chosen)
        try:
            yield
        finally:
            self._pinned.subtract(chosen)

    def surroundings(self, launch: TaskLaunch[T], runner: RunnerProcess) -> dict[str, Any]:
        """Return the part of an order that is the same for all tasks of a job."""
        return surroundings(launch, runner, launch.python or self.python)

    async def follow(self, run: Run, attempt: Attempt, heed: Callable[[Attempt, float], None] | None = None) -> Outcome:
        """Drive the attempt by what the runner says and by the clock, until its runner is clean or lost.

        ``heed`` is told that there may be something to do with it: by default what is to become of ``run``.
        """
        heed = heed or run.heed
        loop = asyncio.get_running_loop()
        walk: asyncio.Future[limits.Breach | None] | None = None
        try:
            while not attempt.done:
                heard: Heard = Wake()  # when the time is up, the tick below does what is due
                due = attempt.deadline
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        heard = await run.runner.heard.get()
                now = loop.time()
                attempt.woke(due, now)
                heed(attempt, now)
                attempt.hear(heard, now)
                attempt.tick(now)
                if walk is not None and walk.done():
                    attempt.walked(walk.result(), now)
                    walk = None
                elif walk is None and attempt.walk_due(now):
                    walk = loop.run_in_executor(None, attempt.watch.walk)
        finally:
            if walk is not None:
                await settled(walk)
        return attempt.outcome(loop.time())
