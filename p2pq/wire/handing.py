"""How a lease came to whom: the sub-grants of bridges, from whom it was granted to down to whom it was handed on to at last.

Results bring them up to their master, each once in a message, however many leases it is for. Whoever takes them in checks what
can be checked without the grant: each is its bridge's word, and none is wider than the one above.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final

import msgspec

from p2pq.errors import Reject
from p2pq.model.ids import LeaseId
from p2pq.wire import sign
from p2pq.wire.objects import SubGrant
from p2pq.wire.work import HOPS_MAX, SUB_BYTES_MAX, SUBS_BYTES_MAX

OPENED_MAX: Final = 256
"""Sub-grants that need not be verified again: the results of a dozen leases bring the same one, message after message."""


class Step(msgspec.Struct, frozen=True):
    """One sub-grant that is its bridge's word."""

    raw: bytes
    digest: bytes
    sub: SubGrant


Way = tuple[Step, ...]
"""Each is below the one before it."""


@lru_cache(maxsize=OPENED_MAX)
def open_step(raw: bytes) -> Step:
    """Return a sub-grant, if it is the word of the bridge that it names.

    Raises:
        Reject: it is not, or it is longer than any can be.
    """
    if len(raw) > SUB_BYTES_MAX:
        raise Reject("too long")
    return Step(raw, sign.digest(raw), sign.open_claimed(raw, SubGrant, attrgetter("node")))


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
        self._steps = {step.digest: step for step in map(open_step, found)}
        if any((step.sub.mesh, step.sub.master) != (mesh, master) for step in self._steps.values()):
            raise Reject("not of this master")
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
            whole = step.sub.leases if above is None else above.sub.leases
            handed = above is None or above.sub.to == step.sub.node
            found = self._narrow[step.digest] = handed and narrows(whole, step.sub.leases)
        return found

    def begins(self, way: Way, grant: bytes, to: bytes, leases: Sequence[LeaseId]) -> bool:
        """Tell whether a way, one step at least, begins with the grant of that digest, of those leases, to that bridge."""
        key, first = (grant, way[0].digest), way[0].sub
        found = self._begun.get(key)
        if found is None:
            found = self._begun[key] = (first.parent, first.node) == (grant, to) and narrows(leases, first.leases)
        return found
