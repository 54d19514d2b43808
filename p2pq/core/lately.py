"""How many slots the masters of its own network lately filled at a worker: those are kept for them a moment longer.

Otherwise a slot that becomes free between two tasks of its own network would be gone for as long as a task from behind a bridge
takes. What stood free of their work for ``KEEP_S`` is free for those.
"""

from collections import deque
from typing import Final

from p2pq.model.ids import Mono

KEEP_S: Final = 0.5


class Lately:
    """The most cpus that were taken at once within the last ``KEEP_S``."""

    __slots__ = ("_now", "_peaks")

    def __init__(self) -> None:
        self._now = 0
        self._peaks: deque[tuple[Mono, int]] = deque()
        """What was taken until when, as far as nothing later was higher: falling, so as many as there are slots at most."""

    def take_in(self, cpus: int, now: Mono) -> None:
        """From now on so many are taken."""
        if cpus < self._now:
            while self._peaks and self._peaks[-1][1] <= self._now:
                self._peaks.pop()
            self._peaks.append((now, self._now))
        self._now = cpus

    def kept(self, now: Mono) -> int:
        """Return how many cpus that are not taken now were taken a moment ago."""
        while self._peaks and now >= self._peaks[0][0] + KEEP_S:
            self._peaks.popleft()
        return max(0, self._peaks[0][1] - self._now) if self._peaks else 0

    @property
    def until(self) -> Mono | None:
        """When fewer will be kept, if nothing is taken until then; None where nothing was."""
        return Mono(self._peaks[0][0] + KEEP_S) if self._peaks else None
