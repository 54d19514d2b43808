"""The tail of a job: nothing of it waits any more, workers are idle, and some attempts take much longer than others did.

Such a task gets a second attempt elsewhere and the first verified result counts, so that nobody waits for a machine that is
slow, hangs or is gone. Lengths are measured here, from grant to result: a worker is believed only that an attempt took longer
than the master, which was away in between, could see.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from p2pq.model.ids import LeaseId, Mono

TAIL_S: Final = 2.0
"""Nothing is tried a second time before it has taken this long."""
TAIL_TIMES: Final = 2.0
"""... and this many times as long as half of the attempts before."""
SAMPLE: Final = 101
"""Lengths that the median is of, the latest."""
LOOK_MAX: Final = 64
"""Overdue leases that one request looks at."""


class Pace:
    """The median of the latest lengths."""

    __slots__ = ("_latest", "_ordered")

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def took(self, seconds: float) -> None:
        """Take in one length."""
        if len(self._latest) == SAMPLE:
            del self._ordered[bisect_left(self._ordered, self._latest.popleft())]
        self._latest.append(seconds)
        insort(self._ordered, seconds)

    @property
    def median(self) -> float | None:
        """The middle of the lengths in order, the upper one of two; None before the first."""
        return self._ordered[len(self._ordered) // 2] if self._ordered else None


class Tail:
    """The attempts of one job that are the only ones of their task, in the order in which they began."""

    __slots__ = ("_alone", "open", "pace")

    def __init__(self) -> None:
        self.pace = Pace()
        self._alone: dict[LeaseId, Mono] = {}
        self.open = False
        """There is something to grant a second time, and nothing else of this job."""

    def __len__(self) -> int:
        """Return how many attempts are the only ones of their task."""
        return len(self._alone)

    def __contains__(self, lease: LeaseId) -> bool:
        """Tell whether that attempt is the only one of its task."""
        return lease in self._alone

    def begin(self, lease: LeaseId, now: Mono) -> None:
        """An attempt begins, or is alone again: its time counts from ``now``, which never goes back."""
        self._alone.pop(lease, None)
        self._alone[lease] = now

    def end(self, lease: LeaseId) -> None:
        """It has ended, or has got company."""
        self._alone.pop(lease, None)

    def due(self) -> Mono | None:
        """Return when the first of them will have taken too long; None where nothing is known to compare with."""
        median = self.pace.median
        first = next(iter(self._alone.values()), None)
        return None if median is None or first is None else Mono(first + max(TAIL_S, TAIL_TIMES * median))

    def overdue(self, now: Mono) -> Iterator[LeaseId]:
        """Yield those that have taken too long, the longest first; LOOK_MAX at most."""
        median = self.pace.median
        if median is None:
            return
        begun = now - max(TAIL_S, TAIL_TIMES * median)
        for lease, since in islice(self._alone.items(), LOOK_MAX):
            if since > begun:
                return
            yield lease
