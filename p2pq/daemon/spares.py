"""Runners that were started ahead, fresh and bound to no job, so that the next job need not wait for one.

One that sees nothing besides is always there, where one is wanted; those that see an environment are few, and end after a while.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2pq.daemon.runner_process import Level, RunnerProcess
from p2pq.daemon.sandbox import Mount
from p2pq.errors import SandboxError, StorageError

WITH_MOUNTS_MAX: Final = 2
"""Each takes some megabytes, and holds its environment."""
WITH_MOUNTS_S: Final = 300.0
"""So long after the last task that saw the same, one that waits for the next ends."""

Kind = tuple[Level, tuple[Mount, ...]]
"""What a runner must be for a task to have it: its level, and what it sees besides."""
Hold = Callable[["asyncio.Future[None]"], None]
"""Is given what is done when a runner is dead: until then it uses what it sees."""


@dataclass(slots=True)
class _Spare:
    runner: RunnerProcess
    timer: asyncio.TimerHandle | None


class Spares:
    """Knows them by kind. Use it from the event loop's thread only."""

    def __init__(self, start: Callable[[Level, tuple[Mount, ...]], RunnerProcess | None]) -> None:
        """Have none; ``start`` starts a runner for nobody, or returns None where there is no room for one."""
        self._start = start
        self._level: Level | None = None
        self._kept: OrderedDict[Kind, _Spare] = OrderedDict()

    def keep(self, level: Level) -> None:
        """Have one of that level that sees nothing besides, from now on."""
        self._level = level
        self.refill(level, (), None)

    def take(self, level: Level, mounts: tuple[Mount, ...]) -> RunnerProcess | None:
        """Return a runner of that kind, which is a spare no longer; None if there is none."""
        spare = self._kept.pop((level, mounts), None)
        if spare is None:
            return None
        _still(spare)
        return None if spare.runner.broken else spare.runner

    def refill(self, level: Level, mounts: tuple[Mount, ...], hold: Hold | None) -> None:
        """A task of that kind was launched: have a runner for the next one, if it is a kind of which there is to be one.

        Args:
            level: of the task's runner.
            mounts: what it saw besides.
            hold: keeps that in place; None: it is seen once only, so that the next task cannot use it.
        """
        if self._level is None:
            return
        if mounts and hold is not None and level == self._level:
            self._refill_with(level, mounts, hold)
        if (self._level, ()) not in self._kept:
            self._add((self._level, ()))

    def _refill_with(self, level: Level, mounts: tuple[Mount, ...], hold: Hold) -> None:
        kind = (level, mounts)
        spare = self._kept.get(kind)
        if spare is None:
            spare = self._add(kind)
            if spare is None:
                return
            hold(spare.runner.dead)
        _still(spare)
        self._kept.move_to_end(kind)
        spare.timer = asyncio.get_running_loop().call_later(WITH_MOUNTS_S, spare.runner.kill)
        with_mounts = [each for (_, seen), each in self._kept.items() if seen]
        for oldest in with_mounts[:-WITH_MOUNTS_MAX]:
            self.forget(oldest.runner)
            oldest.runner.kill()

    def _add(self, kind: Kind) -> _Spare | None:
        # One that cannot be started is no loss: the next task tries again and says why.
        with contextlib.suppress(SandboxError, StorageError):
            runner = self._start(*kind)
            if runner is not None:
                self._kept[kind] = _Spare(runner, None)
        return self._kept.get(kind)

    def forget(self, runner: RunnerProcess) -> None:
        """It is dead, or dying; one that is no spare is ignored."""
        for kind, spare in self._kept.items():
            if spare.runner is runner:
                _still(spare)
                del self._kept[kind]
                return


def _still(spare: _Spare) -> None:
    if spare.timer is not None:
        spare.timer.cancel()
        spare.timer = None
