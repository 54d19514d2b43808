"""Sets of integers that are mostly runs: a million pending tasks is one interval."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise


class IntervalSet:
    """A set of integers kept as sorted, disjoint, non-adjacent half-open intervals.

    Queries cost O(log n) and changes at most one move of n machine words, n being the number of intervals.
    """

    __slots__ = ("_count", "_starts", "_stops")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        """Hold the union of the half-open ``intervals``."""
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._count = 0
        for start, stop in intervals:
            self.add(start, stop)

    def __len__(self) -> int:
        """Return how many integers are in the set."""
        return self._count

    def __contains__(self, value: int) -> bool:
        """Tell whether ``value`` is in the set."""
        at = bisect_right(self._starts, value) - 1
        return at >= 0 and value < self._stops[at]

    def __iter__(self) -> Iterator[int]:
        """Yield the integers in order."""
        for start, stop in zip(self._starts, self._stops, strict=True):
            yield from range(start, stop)

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return isinstance(other, IntervalSet) and self.intervals() == other.intervals()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        """Show the intervals."""
        return f"IntervalSet({list(self.intervals())})"

    def intervals(self) -> tuple[tuple[int, int], ...]:
        """Return the half-open intervals in order."""
        return tuple(zip(self._starts, self._stops, strict=True))

    def first(self) -> int:
        """Return the smallest integer.

        Raises:
            IndexError: the set is empty.
        """
        return self._starts[0]

    def add(self, start: int, stop: int | None = None) -> None:
        """Add ``start``, or all of ``start`` up to before ``stop``; what is there already stays."""
        stop = start + 1 if stop is None else stop
        if start >= stop:
            return
        # The intervals in [low, high) touch or overlap the new one and melt into it.
        low = bisect_left(self._stops, start)
        high = bisect_right(self._starts, stop)
        if low < high:
            start = min(start, self._starts[low])
            stop = max(stop, self._stops[high - 1])
        self._replace(low, high, [(start, stop)])

    def remove(self, start: int, stop: int | None = None) -> None:
        """Remove ``start``, or all of ``start`` up to before ``stop``; what is not there is no error."""
        stop = start + 1 if stop is None else stop
        low = bisect_right(self._stops, start)
        high = bisect_left(self._starts, stop)
        if start >= stop or low >= high:
            return
        left, right = self._starts[low], self._stops[high - 1]
        self._replace(low, high, [(a, b) for a, b in ((left, start), (stop, right)) if a < b])

    def take(self, limit: int) -> list[int]:
        """Remove and return the ``limit`` smallest integers, or all if there are fewer."""
        taken: list[int] = []
        while len(taken) < limit and self._starts:
            start = self._starts[0]
            stop = min(self._stops[0], start + limit - len(taken))
            taken.extend(range(start, stop))
            self.remove(start, stop)
        return taken

    def clear(self) -> None:
        """Remove everything."""
        self._replace(0, len(self._starts), [])

    def _replace(self, low: int, high: int, pieces: list[tuple[int, int]]) -> None:
        self._count -= sum(self._stops[low:high]) - sum(self._starts[low:high])
        self._starts[low:high] = [start for start, _ in pieces]
        self._stops[low:high] = [stop for _, stop in pieces]
        self._count += sum(stop - start for start, stop in pieces)

    def check(self) -> None:
        """Assert that the intervals are sorted, disjoint and not adjacent, and that the count is theirs."""
        flat = [edge for pair in self.intervals() for edge in pair]
        assert all(a < b for a, b in pairwise(flat)), "intervals touch or are out of order"
        assert self._count == sum(self._stops) - sum(self._starts), "the count is wrong"
