"""Many deadlines, one next: a heap whose entries may be moved and cancelled."""

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, Generic, TypeVar

from p2pq.model.ids import Mono

Key = TypeVar("Key", bound=Hashable)

_SLACK: Final = 64
"""Stale heap entries that are tolerated beyond as many as there are live ones."""


class Deadlines(Generic[Key]):
    """One instant per key. Ties fire in the order in which the keys were first set.

    Moving a deadline to later, which is what renewing a lease does, costs one dict write: the heap is put right when the
    old instant comes up.
    """

    __slots__ = ("_at", "_heap", "_serial")

    def __init__(self) -> None:
        self._at: dict[Key, tuple[Mono, int]] = {}
        self._heap: list[tuple[Mono, int, Key]] = []
        self._serial = 0

    def __len__(self) -> int:
        """Return how many deadlines are set."""
        return len(self._at)

    def __contains__(self, key: Key) -> bool:
        """Tell whether ``key`` has a deadline."""
        return key in self._at

    def __iter__(self) -> Iterator[Key]:
        """Go through all keys that have one."""
        return iter(self._at)

    def get(self, key: Key) -> Mono | None:
        """Return the instant of ``key``, or None."""
        entry = self._at.get(key)
        return None if entry is None else entry[0]

    def set(self, key: Key, at: Mono) -> None:
        """Set or move the deadline of ``key``."""
        old = self._at.get(key)
        if old is not None and at >= old[0]:
            self._at[key] = (at, old[1])
            return
        self._serial += 1
        serial = self._serial
        self._at[key] = (at, serial)
        heappush(self._heap, (at, serial, key))
        if len(self._heap) > 2 * len(self._at) + _SLACK:
            self._heap = [(when, number, name) for name, (when, number) in self._at.items()]
            heapify(self._heap)

    def cancel(self, key: Key) -> None:
        """Forget the deadline of ``key``, if it has one."""
        self._at.pop(key, None)

    @property
    def next(self) -> Mono | None:
        """Return the earliest instant, or None."""
        heap = self._heap
        while heap:
            at, serial, key = heap[0]
            live = self._at.get(key)
            if live is None or live[1] != serial:
                heappop(heap)
            elif live[0] > at:
                heapreplace(heap, (live[0], serial, key))
            else:
                return at
        return None

    def pop(self, now: Mono) -> Key | None:
        """Remove and return the first key that is due at ``now``, or None.

        Popped one at a time because what one expiry causes may cancel or set others.
        """
        at = self.next
        if at is None or at > now:
            return None
        key = heappop(self._heap)[2]
        del self._at[key]
        return key

    def check(self) -> None:
        """Assert that every deadline has a heap entry that will bring it up in time."""
        soonest = {serial: at for at, serial, _ in self._heap}
        assert all(soonest.get(serial, at + 1) <= at for at, serial in self._at.values()), "a deadline would be missed"
