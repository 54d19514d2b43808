"""What a job runs in each runner before its first task there and after its last: ``--begin`` and ``--end`` (ADR 0309).

Both run as a task would: in the runner's sandbox and under its limits. What ``begin`` exports, and what it leaves in the folder
that ``P2PQ_BEGUN`` names, is there for the tasks of that runner and for ``end``. Where ``begin`` fails, no task runs: that is
this machine's doing, and the task goes elsewhere; what may run here only has failed as its ``begin`` did. ``end`` is nobody's
task: it runs when the runner is needed no longer, in no slot, and nothing depends on it.
"""

import asyncio
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from p2pq.daemon import tidying
from p2pq.daemon.attempt import Attempt, Outcome, Stop
from p2pq.daemon.launches import Hooks, Run, TaskLaunch, fill, order, storage_error
from p2pq.daemon.runner_process import RunnerProcess
from p2pq.daemon.threads import in_thread
from p2pq.errors import SandboxError, StorageError

if TYPE_CHECKING:
    from p2pq.daemon.runners import RunnerPool

log = logging.getLogger(__name__)

END_S: Final = 60.0
"""``end`` may take no longer."""
GUESTS_MAX: Final = max(4, os.cpu_count() or 1)
"""So many runners of guests may end at once: that takes no slot, and so is no less than a task takes, and beside them."""
CLOSE_S: Final = 1.0
"""So long a node that goes down lets what ends end."""
ENVIRONMENT_BYTES_MAX: Final = 1 << 20
"""What ``begin`` may leave as its environment."""
WORDS_BYTES: Final = 4096
WORDS_CHARS: Final = 300

_BEGIN: Final = 'trap \'[ "$?" -ne 0 ] || command -p env -0 1>&0 || exit 126\' EXIT\neval "$1"'
"""Its standard input is a file that is empty at first, out of the sandbox's reach otherwise."""
_TOO_MUCH: Final = f"exports more than {ENVIRONMENT_BYTES_MAX >> 20} MiB; use files in $P2PQ_BEGUN"
_OF_THE_SHELL: Final = frozenset({"_", "PWD", "OLDPWD", "SHLVL"})
_OF_A_TASK: Final = ("P2PQ_TASK", "P2PQ_ATTEMPT", "P2PQ_PARAMS", "P2PQ_RESULTS", "P2PQ_CHECKPOINT")


@dataclass(frozen=True, slots=True)
class Begun:
    """What a runner has begun with."""

    launch: TaskLaunch[Any]
    """Of the task for which it did."""
    added: Mapping[str, str] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a task with what ``begin`` has changed of it."""
        return {key: value for key, value in env.items() if key not in self.removed} | dict(self.added)


class Endings:
    """Runs ``begin`` and ``end`` in the runners of a pool. Use it from the event loop's thread only."""

    def __init__(self, pool: "RunnerPool") -> None:
        """Take the pool, whose runners they are."""
        self._pool = pool
        self._ending: dict[RunnerProcess, asyncio.Task[None]] = {}
        self.said: Callable[[bytes, str], None] = lambda _job, _text: None
        """Told what went wrong in a runner of a job, for people who follow it."""

    # -- begin

    async def begin(self, launch: TaskLaunch[Any], runner: RunnerProcess, runs: Sequence[Run]) -> Outcome | None:
        """Let a runner begin, if it has not yet; where all of ``runs`` are to end meanwhile, it is left as it was.

        Returned is None, or how it failed where that is the end of the task, too: its user's own, of this machine only.

        Raises:
            SandboxError: what is to run before all tasks failed; it says how.
            StorageError: the folder could not be filled or emptied.
        """
        if launch.hooks is None or runner.begun is not None:
            return None
        await self._pool.prepare(launch, runner)
        for run in runs:
            await run.go.wait()
        begun = Begun(launch)
        if launch.hooks.begin:
            changed = await self._first(launch.hooks, launch, runner, runs)
            if changed is None:
                return None
            if isinstance(changed, Outcome):
                return changed
            begun = Begun(launch, *changed)
        runner.begun = begun
        return None

    async def _first(
        self, hooks: Hooks, launch: TaskLaunch[Any], runner: RunnerProcess, runs: Sequence[Run]
    ) -> tuple[dict[str, str], frozenset[str]] | Outcome | None:
        """Run ``begin``; return what it changed of the environment, how it failed, or None if it was not to go on."""
        for run in runs:
            run.coupled = True  # what is to become of it is to be heard of
        files: list[int] = []
        try:
            attempt = await self._launched(
                launch, (hooks.shell, "-c", _BEGIN, hooks.shell, hooks.begin), runner, files, exported=True
            )

            def heed(attempt: Attempt, now: float) -> None:
                if os.fstat(files[-1]).st_size > ENVIRONMENT_BYTES_MAX:
                    attempt.stop(Stop("output-limit", f"it {_TOO_MUCH}", 0.0), now)
                stops = [run.stop for run in runs if run.stop is not None]
                if len(stops) == len(runs):
                    attempt.stop(stops[0], now)
                elif all(run.go.is_set() for run in runs):
                    attempt.go_on(now)
                else:
                    attempt.suspend(now)

            with self._pool.pinned(launch, runner):
                outcome = await self._pool.follow(runs[0], attempt, heed)
            stopped = all(run.stop is not None for run in runs)
            if outcome.reason != "ok" and not stopped:
                if launch.whole_env and not runner.broken:
                    return dataclasses.replace(outcome, detail=f"--begin failed: {outcome.detail}")
                raise self._failed("--begin", launch.job, outcome)
            left = os.pread(files[-1], ENVIRONMENT_BYTES_MAX + 1, 0)
            if len(left) > ENVIRONMENT_BYTES_MAX and not stopped:
                raise SandboxError(f"--begin {_TOO_MUCH}")
        finally:
            for fd in files:
                os.close(fd)
            for run in runs:
                run.coupled = False
        if not runner.broken:
            await in_thread(lambda: tidying.empty(runner, begun=stopped))
        return None if stopped else _checked(changes(self._surroundings(launch, runner)["env"], left))

    # -- end

    def end(self, runner: RunnerProcess) -> None:
        """A runner is needed no longer: let it end, and then be killed."""
        begun = runner.begun
        if begun is None or begun.launch.hooks is None or not begun.launch.hooks.end or runner.broken:
            runner.kill()
        elif runner in self._ending:
            pass
        elif begun.launch.idle_priority and sum(map(_of_guest, self._ending)) >= GUESTS_MAX:
            self.said(begun.launch.job, "--end did not run: too many others ran here")
            log.warning("runner.end-failed", extra={"fields": {"reason": f"{GUESTS_MAX} others ran"}})
            runner.kill()
        else:
            ending = self._last(begun, begun.launch.hooks, runner)
            task = asyncio.get_running_loop().create_task(ending, name="end of a runner")
            self._ending[runner] = task
            task.add_done_callback(lambda _: self._ending.pop(runner, None))

    async def close(self) -> None:
        """Give what ends a moment, then kill it."""
        if self._ending:
            await asyncio.wait(self._ending.values(), timeout=CLOSE_S)
        for runner in list(self._ending):
            runner.kill()  # which ends the task

    async def _last(self, begun: Begun, hooks: Hooks, runner: RunnerProcess) -> None:
        limits = dataclasses.replace(begun.launch.limits, wall_s=min(begun.launch.limits.wall_s, END_S))
        launch = dataclasses.replace(begun.launch, limits=limits, furniture=None, populate=None)
        files: list[int] = []
        run = Run(runner, asyncio.Event())
        try:
            await tidying.over(runner)
            attempt = await self._launched(launch, (hooks.shell, "-c", hooks.end), runner, files)
            outcome = await self._pool.follow(run, attempt)
            if outcome.reason != "ok":
                raise self._failed("--end", launch.job, outcome)
        except (SandboxError, StorageError) as error:
            log.warning("runner.end-failed", extra={"fields": {"reason": str(error)}})
        finally:
            for fd in files:
                os.close(fd)
            runner.kill()

    # -- both

    async def _launched(
        self,
        launch: TaskLaunch[Any],
        argv: tuple[str, ...],
        runner: RunnerProcess,
        files: list[int],
        *,
        exported: bool = False,
    ) -> Attempt:
        """Launch a command line as a task of that launch; with ``exported`` the last of ``files`` takes its environment."""
        scratch = runner.scratch
        bare = dataclasses.replace(launch, argv=argv, otherwise=(), stdin=None, warm=False, on_started=None)
        await in_thread(lambda: fill(bare, runner, files))
        if exported:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                files.append(os.open(scratch.output / "exported", flags, 0o600))
            except OSError as error:
                raise storage_error(error, scratch.root) from error
        number = self._pool.numbers(1)
        runner.occupied = True
        runner.send(order(bare, number, self._surroundings(launch, runner)), tuple(files))
        return Attempt(runner, number, launch.limits, self._pool.grace_s, asyncio.get_running_loop().time())

    def _surroundings(self, launch: TaskLaunch[Any], runner: RunnerProcess) -> dict[str, Any]:
        found = self._pool.surroundings(launch, runner)
        return {**found, "env": {key: value for key, value in found["env"].items() if key not in _OF_A_TASK}}

    def _failed(self, which: str, job: bytes, outcome: Outcome) -> SandboxError:
        words = _words(outcome)
        text = f"{which} failed: {outcome.detail}{': ' * bool(words)}{words}"
        self.said(job, text)
        return SandboxError(text)


def changes(before: Mapping[str, str], left: bytes) -> tuple[dict[str, str], frozenset[str]]:
    """Return what was set and what was taken away in an environment, given as K=V with zero bytes between.

    Nothing left means that nothing has changed. What is a shell's or p2pq's own does not count.
    """
    if not left:
        return {}, frozenset()
    pairs = (os.fsdecode(each).partition("=") for each in left.split(b"\0"))
    after = {key: value for key, equals, value in pairs if key and equals}
    own = {key for key in (*before, *after) if key in _OF_THE_SHELL or key.startswith("P2PQ_")}
    added = {key: value for key, value in after.items() if key not in own and before.get(key) != value}
    return added, frozenset(before.keys() - after.keys() - own)


def _checked(changed: tuple[dict[str, str], frozenset[str]]) -> tuple[dict[str, str], frozenset[str]]:
    """Return changes that a runner can be told of, in one frame with a task."""
    if len(json.dumps(changed[0])) > 2 * ENVIRONMENT_BYTES_MAX:  # what is no ASCII takes six times as much
        raise SandboxError(f"--begin {_TOO_MUCH}")
    return changed


def _of_guest(runner: RunnerProcess) -> bool:
    return runner.begun is not None and runner.begun.launch.idle_priority


def _words(outcome: Outcome) -> str:
    """Return the last line of what was printed, on one printable line: standard error's, if there is any."""
    for path in (outcome.stderr, outcome.stdout):
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - WORDS_BYTES))
                lines = file.read(WORDS_BYTES).decode(errors="replace").strip().splitlines()
        except OSError:
            continue
        if lines:
            return "".join(char if char.isprintable() else "?" for char in lines[-1])[:WORDS_CHARS]
    return ""
