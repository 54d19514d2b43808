"""How a lease came to whom: the sub-grants of bridges, from whom it was granted to down to whom it was handed on to at last.

Grants bring them down, and results up to their master, each once in a message, however many leases it is for. Whoever names a
lease to another bridge shows them, too. Wherever they come they are opened and compared with what is above them here: each is
its bridge's word on a grant of that master, and none is wider than the one above.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final

import msgspec

from p2pq.errors import Reject
from p2pq.model.ids import LeaseId
from p2pq.wire import sign
from p2pq.wire.objects import HOPS_MAX, SubGrant
from p2pq.wire.work import SUB_BYTES_MAX, SUBS_BYTES_MAX

OPENED_MAX: Final = 256
"""Sub-grants that need not be verified again: the results of a dozen leases bring the same one, message after message."""


FOREIGN: Final = "not of this master"


class Step(msgspec.Struct, frozen=True):
    """One sub-grant that is its bridge's word."""

    raw: bytes
    digest: bytes
    sub: SubGrant


Way = tuple[Step, ...]
"""Each is below the one before it."""


@lru_cache(maxsize=OPENED_MAX)
def open_step(raw: bytes, mesh: bytes, master: bytes) -> Step:
    """Return a sub-grant, if it is the word of the bridge that it names on a grant of that master.

    Raises:
        Reject: it is not, or it is longer than any can be.
    """
    if len(raw) > SUB_BYTES_MAX:
        raise Reject("too long")
    sub = sign.open_claimed(raw, SubGrant, attrgetter("node"))
    if (sub.mesh, sub.master) != (mesh, master):
        raise Reject(FOREIGN)
    return Step(raw, sign.digest(raw), sub)


def narrows(whole: Sequence[LeaseId], part: Sequence[LeaseId]) -> bool:
    """Tell whether these leases are some of those, in their order, and each once."""
    places = {lease: place for place, lease in enumerate(whole)}
    last = -1
    for lease in part:
        place = places.get(lease, -1)
        if place <= last:
            return False
        last = place
    return True


def hands_on(step: Step, above: bytes, to: bytes, leases: Sequence[LeaseId]) -> bool:
    """Tell whether a sub-grant is of a grant, or a sub-grant, with that digest, which gave its bridge these leases."""
    return (step.sub.parent, step.sub.node) == (above, to) and narrows(leases, step.sub.leases)


class Handed:
    """The sub-grants that came with one message."""

    def __init__(self, subs: Iterable[bytes], mesh: bytes, master: bytes) -> None:
        """Take in what came with results for that master.

        Raises:
            Reject: one is not its bridge's word on a grant of that master, or they are too long. No honest bridge passes that on.
        """
        found = tuple(subs)
        if sum(map(len, found)) > SUBS_BYTES_MAX:
            raise Reject("too many")
        self._steps = {step.digest: step for step in (open_step(raw, mesh, master) for raw in found)}
        self._to: dict[bytes, dict[LeaseId, Step]] = {}
        """By whom it was handed on to, as far as anybody has asked."""
        self._narrow: dict[bytes, bool] = {}
        """By digest: whether it is as narrow as it must be."""
        self._begun: dict[tuple[bytes, bytes], bool] = {}
        """By the digests of a grant and of a sub-grant: whether this is of that."""

    def way(self, lease: LeaseId, by: bytes) -> Way:
        """Return how a lease came to whom, as far as is told; nothing where nothing is.

        Raises:
            Reject: a bridge handed on what it did not have, or it went over too many of them.
        """
        if by not in self._to:
            mine = (step for step in self._steps.values() if step.sub.to == by)
            # Of two for one lease the first counts: whoever says both harms nobody but itself.
            self._to[by] = {each: step for step in reversed(list(mine)) for each in step.sub.leases}
        step = self._to[by].get(lease)
        way: list[Step] = []
        while step is not None:
            way.insert(0, step)
            if len(way) > HOPS_MAX:
                raise Reject("over too many bridges")
            if not self._is_narrow(step):
                raise Reject("wider than the one above")
            step = self._steps.get(step.sub.parent)
        return tuple(way)

    def _is_narrow(self, step: Step) -> bool:
        found = self._narrow.get(step.digest)
        if found is None:
            above = self._steps.get(step.sub.parent)
            if above is None:
                found = narrows(step.sub.leases, step.sub.leases)
            else:
                found = hands_on(step, above.digest, above.sub.to, above.sub.leases)
            self._narrow[step.digest] = found
        return found

    def begins(self, way: Way, grant: bytes, to: bytes, leases: Sequence[LeaseId]) -> bool:
        """Tell whether a way, one step at least, begins with the grant of that digest, of those leases, to that bridge."""
        key = (grant, way[0].digest)
        found = self._begun.get(key)
        if found is None:
            found = self._begun[key] = hands_on(way[0], grant, to, leases)
        return found
