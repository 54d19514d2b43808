"""Time between the starts of tasks of one job (``--delay``)."""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")

JOBS_MAX: Final = 1024
"""Jobs beyond so many whose time is over are forgotten; what waits is not counted here, as it holds a slot."""


class Pacing(Generic[Key]):
    """Lets tasks of a job start in the order in which they come, with a time between any two of them."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take a clock that never goes back; in seconds, as those of the event loop."""
        self._now = now
        self._free: dict[Key, float] = {}
        """When the next task of a job may start."""

    def turn(self, job: Key, delay_s: float) -> float:
        """Take the job's next turn; return the seconds until then. A turn that is not used is not given again."""
        now = self._now()
        if len(self._free) >= JOBS_MAX:
            self._free = {key: free for key, free in self._free.items() if free > now}
        turn = max(now, self._free.get(job, now))
        self._free[job] = turn + delay_s
        return turn - now

    async def wait(self, job: Key, delay_s: float) -> None:
        """Wait for the job's next turn."""
        await asyncio.sleep(self.turn(job, delay_s))
