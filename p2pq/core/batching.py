"""What a bridge has to tell a master of leases below it, collected until it is said in one ``Report``, or in a few."""

from itertools import islice
from typing import Final

import msgspec

from p2pq.model.ids import LeaseId, NodeId
from p2pq.model.job import Fault
from p2pq.wire.messages import INLINE_BYTES_MAX, LEASES_MAX, SUBS_BYTES_MAX, Beat, Report, ReturnItem
from p2pq.wire.objects import ITEMS_MAX

REPORT_BYTES_MAX: Final = 2 << 20
"""Results and their blobs in one report, unless a single one is longer; when so much waits, it is said at once."""
WAITING_BYTES_MAX: Final = 16 << 20
"""Results that wait for a master that is not to be told yet; what comes beyond is ignored, and its leaf says it again."""


class _Word(msgspec.Struct, frozen=True):
    """A signed result, and what goes with it."""

    raw: bytes
    blobs: tuple[bytes, ...]
    subs: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Its bytes, without the sub-grants: these are counted once, however many results they go with."""
        return len(self.raw) + sum(map(len, self.blobs))


class Batch:
    """News of leases, in the order in which a master has to hear them."""

    def __init__(self) -> None:
        """Have nothing to tell."""
        self.placed: dict[LeaseId, NodeId] = {}
        self.beats: dict[LeaseId, Beat] = {}
        self.returns: dict[LeaseId, ReturnItem] = {}
        self._results: list[_Word] = []
        self._subs: dict[bytes, None] = {}
        """Of all these results, each once."""
        self._by: dict[NodeId, None] = {}
        """Whose these are."""
        self._bytes = 0
        self._hurries = False

    def __bool__(self) -> bool:
        """Tell whether there is anything to tell."""
        return bool(self.placed or self.beats or self.returns or self._results)

    @property
    def full(self) -> bool:
        """Whether it is to be told at once: more would not make it cheaper."""
        most = max(len(self.placed), len(self.returns), len(self._results))
        return most >= ITEMS_MAX or self._bytes >= REPORT_BYTES_MAX

    @property
    def hurries(self) -> bool:
        """Whether somebody waits for what there is to tell: a task for another attempt, or a job for its last results."""
        return self._hurries

    def hurry(self, leaf: NodeId) -> None:
        """That leaf waits until its results are told, if there are any here."""
        self._hurries = self._hurries or leaf in self._by

    def result(
        self, raw: bytes, blobs: tuple[bytes, ...], subs: tuple[bytes, ...] = (), *, by: NodeId, hurries: bool
    ) -> bool:
        """Take in a signed result, its small blobs and how its leases were handed on; return whether there was room for it.

        More blobs than a leaf may enclose stay behind: with them a report could be too long to be said, and all in it be lost.
        """
        word = _Word(raw, blobs if sum(map(len, blobs)) <= INLINE_BYTES_MAX else (), subs)
        new = dict.fromkeys(each for each in subs if each not in self._subs)
        size = word.size + sum(map(len, new))
        if self._bytes and self._bytes + size > WAITING_BYTES_MAX:
            return False
        self._results.append(word)
        self._by[by] = None
        self._subs |= new
        self._bytes += size
        self._hurries = self._hurries or hurries
        return True

    def hand_back(self, leases: tuple[LeaseId, ...], fault: Fault) -> None:
        """Tell that these are given back."""
        for lease in leases:
            self.returned(ReturnItem(lease, fault))

    def returned(self, item: ReturnItem, *, hurries: bool = True) -> None:
        """Tell that one is given back; that ``hurries`` unless there are others to have first."""
        self.returns[item.lease] = item
        self._hurries = self._hurries or hurries

    def forget(self, lease: LeaseId) -> None:
        """The master itself says that this one is over: it is told nothing more of it."""
        for news in (self.placed, self.beats, self.returns):
            news.pop(lease, None)
        self._hurries = self._hurries and bool(self)

    def take(self) -> list[Report]:
        """Return all there is to tell, and begin anew. Who has a lease comes before anything else of it."""
        placed, returns = tuple(self.placed.items()), tuple(self.returns.values())
        cuts = range(0, len(placed), ITEMS_MAX)
        reports = [Report(placed=placed[first : first + ITEMS_MAX]) for first in cuts]
        last = reports.pop().placed if reports else ()
        beats = tuple(islice(self.beats.values(), LEASES_MAX))
        reports.append(msgspec.structs.replace(self._next(), placed=last, beats=beats, returns=returns[:ITEMS_MAX]))
        while self._results:
            reports.append(self._next())
        cuts = range(ITEMS_MAX, len(returns), ITEMS_MAX)
        reports += [Report(returns=returns[first : first + ITEMS_MAX]) for first in cuts]
        self.placed.clear()
        self.beats.clear()
        self.returns.clear()
        self._subs.clear()
        self._by.clear()
        self._bytes = 0
        self._hurries = False
        return reports

    def _next(self) -> Report:
        """Remove the results that go into one report, and return that."""
        results: list[bytes] = []
        blobs: list[bytes] = []
        subs: dict[bytes, None] = {}
        size = 0
        for word in self._results:
            size += word.size
            more = subs | dict.fromkeys(word.subs)
            handed = sum(map(len, more))
            many = len(results) == ITEMS_MAX or len(blobs) + len(word.blobs) > ITEMS_MAX or handed > SUBS_BYTES_MAX
            if results and (many or size + handed > REPORT_BYTES_MAX):
                break
            results.append(word.raw)
            blobs += word.blobs
            subs = more
        del self._results[: len(results)]
        return Report(results=tuple(results), blobs=tuple(blobs), subs=tuple(subs))
