"""Where others may listen, and when to try: every address on its own, with a pause that doubles."""

from collections.abc import Callable, Container, Iterable, Iterator
from random import Random
from typing import Final

import msgspec

from p2pq.core.deadlines import Deadlines
from p2pq.core.reaching import is_via
from p2pq.model.ids import Mono, NodeId

ADDRESSES_MAX: Final = 4096
"""Addresses known at most; further hints are ignored, and what is more than a hint takes the place of one."""
PER_NODE_MAX: Final = 16
"""Addresses per node at most; a newer one takes the place of the oldest."""
DIALS_MAX: Final = 8
"""Dials in flight at once."""
VIA_DIALS_MAX: Final = 4
"""Of these, through bridges: who says that it leads somewhere and does not must not keep the others waiting."""
PAUSE_S: Final = 1.0
PAUSE_MAX_S: Final = 30.0
"""With a dial that nobody answers still well under the length of a lease: who was away for long is found again before the
leases that were kept for it expire."""
HINT_TRIES_MAX: Final = 10
"""A mere hint (mDNS, a peer's word) that failed this often is forgotten."""
ANSWER_S: Final = 30.0
"""A dial that was not heard of for so long no longer counts as in flight."""
STAGGER_S: Final = 0.1
"""Between the first dials of several addresses, so that the first that answers usually is the only one."""


class Address(msgspec.Struct):
    """One place to dial."""

    address: str
    node: NodeId | None
    kept: bool
    """From the configuration or memory: not forgotten for failing."""
    failures: int = 0
    reason: str = ""
    """Why the last dial failed."""


class Addresses:
    """All places known, when each is due, and which dials are in flight."""

    def __init__(self, rng: Random) -> None:
        """Know of nowhere. ``rng`` jitters the pauses, so that a mesh does not dial in step."""
        self._rng = rng
        self._known: dict[str, Address] = {}
        self._of: dict[NodeId, dict[str, None]] = {}
        self._due: Deadlines[str] = Deadlines()
        self._flying: Deadlines[str] = Deadlines()

    def __iter__(self) -> Iterator[Address]:
        """Go through all places, those known longest first."""
        return iter(tuple(self._known.values()))

    @property
    def deadline(self) -> Mono | None:
        """When a dial is due or given up; None where neither is."""
        due = self._due.next if len(self._flying) < DIALS_MAX else None
        return min((at for at in (due, self._flying.next) if at is not None), default=None)

    def of(self, node: NodeId) -> tuple[str, ...]:
        """Return the places where that node is said to be."""
        return tuple(self._of.get(node, ()))

    def get(self, address: str) -> Address | None:
        """Return what is known of a place."""
        return self._known.get(address)

    def absent(self, me: NodeId, linked: Container[NodeId]) -> Iterator[tuple[NodeId | None, str]]:
        """Go through who may be somewhere and is not linked, each node once with its first place."""
        told: dict[NodeId, None] = {}
        for place in self:
            if place.node is None or not (place.node == me or place.node in linked or place.node in told):
                if place.node is not None:
                    told[place.node] = None
                yield place.node, place.address

    def look(self, node: NodeId | None, address: str) -> tuple[tuple[str, ...], str, bool]:
        """Return the places of a node, or that one place; why the last dial failed, if it did; whether one is in flight."""
        places = (address,) if node is None else self.of(node)
        reasons = (place.reason for place in map(self._known.get, places) if place is not None and place.reason)
        return places, next(reasons, ""), any(map(self.flying, places))

    def flying(self, address: str) -> bool:
        """Tell whether a dial to that place is in flight."""
        return address in self._flying

    def add(self, addresses: Iterable[str], node: NodeId | None, now: Mono, *, kept: bool, dial: bool) -> None:
        """Take in a hint.

        Args:
            addresses: where somebody may listen.
            node: who is said to be there, if anyone is named.
            now: the present; the first dial is due at once, the others shortly after.
            kept: not a mere hint.
            dial: whether to dial at all (not while linked to that node).
        """
        at = now
        for address in addresses:
            place = self._known.get(address)
            if place is None:
                if len(self._known) >= ADDRESSES_MAX and not (kept and self._make_room()):
                    return
                place = self._known[address] = Address(address, None, kept)
                self._claim(place, node)
            elif node is not None and place.node != node and not self.flying(address):
                # Somebody else lives there now: what failed before says nothing.
                self._claim(place, node)
                place.failures = 0
            place.kept = place.kept or kept
            if dial and not self.flying(address) and (address not in self._due or place.failures == 0):
                self._due.set(address, at)
                at = Mono(at + STAGGER_S)

    def _make_room(self) -> bool:
        """Forget the oldest mere hint that is not being dialled; False if there is none."""
        hints = (place.address for place in self._known.values() if not place.kept and not self.flying(place.address))
        oldest = next(hints, None)
        if oldest is not None:
            self.forget(oldest)
        return oldest is not None

    def _claim(self, place: Address, node: NodeId | None) -> None:
        """Note who is at a place; the oldest place of a node with too many is forgotten."""
        self._disclaim(place)
        place.node = node
        if node is not None:
            places = self._of.setdefault(node, {})
            places[place.address] = None
            if len(places) > PER_NODE_MAX:
                self.forget(next(iter(places)))

    def _disclaim(self, place: Address) -> None:
        if place.node is not None:
            places = self._of[place.node]
            del places[place.address]
            if not places:
                del self._of[place.node]

    def forget(self, address: str) -> None:
        """Know nothing of a place any more."""
        place = self._known.pop(address, None)
        if place is not None:
            self._disclaim(place)
        self._due.cancel(address)
        self._flying.cancel(address)

    def rest(self, node: NodeId) -> None:
        """Dial that node no more: it is linked, or not wanted."""
        for address in self.of(node):
            self._due.cancel(address)

    def arrived(self, address: str, node: NodeId) -> None:
        """Note that a dial led to that node."""
        self._flying.cancel(address)
        self._due.cancel(address)
        place = self._known.get(address)
        if place is not None:
            self._claim(place, node)
            place.failures, place.reason = 0, ""

    def retry(
        self,
        node: NodeId,
        now: Mono,
        *,
        soon: bool = True,
        which: Callable[[str], bool] = lambda _: True,
        later_s: Callable[[str], float] = lambda _: 0.0,
    ) -> None:
        """Dial that node again: its link is gone. Not ``soon``: it said goodbye, and may be away for long.

        ``which`` tells which of its places to dial, ``later_s`` how long those wait for the better ones.
        """
        for address in self.of(node):
            if which(address) and not self.flying(address):
                self._due.set(address, Mono(now + self._pause_s(0 if soon else 16) + later_s(address)))

    def anew(
        self, now: Mono, *, which: Callable[[NodeId | None], bool], later_s: Callable[[str], float] = lambda _: 0.0
    ) -> None:
        """Dial whoever it concerns as after a start: what failed before says nothing.

        ``which`` tells of who is at a place (None: nobody knows) whether it does, ``later_s`` is as for ``retry``.
        """
        at = now
        for place in self._known.values():
            if which(place.node):
                place.failures = 0
                if not self.flying(place.address):
                    self._due.set(place.address, Mono(at + later_s(place.address)))
                    at = Mono(at + STAGGER_S)

    def failed(self, address: str, reason: str, now: Mono, *, dial: bool) -> Address | None:
        """Note that a dial failed and when to try again; return the place, None if it is unknown.

        A hint that failed HINT_TRIES_MAX times is forgotten.
        """
        self._flying.cancel(address)
        place = self._known.get(address)
        if place is None:
            return None
        place.failures += 1
        place.reason = reason
        if not place.kept and place.failures >= HINT_TRIES_MAX:
            self.forget(address)
        elif dial:
            self._due.set(address, Mono(now + self._pause_s(place.failures - 1)))
        return place

    def _pause_s(self, failures: int) -> float:
        pause_s = min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(failures, 16))
        return pause_s * (0.5 + self._rng.random() / 2)

    def next(self, now: Mono) -> Address | None:
        """Return the next place to dial now, and count it as in flight."""
        while (late := self._flying.pop(now)) is not None:
            self.failed(late, "no answer", now, dial=True)
        while len(self._flying) < DIALS_MAX and (address := self._due.pop(now)) is not None:
            if is_via(address) and sum(map(is_via, self._flying)) >= VIA_DIALS_MAX:
                self._due.set(address, Mono(now + PAUSE_S))
                continue
            self._flying.set(address, Mono(now + ANSWER_S))
            return self._known[address]
        return None

    def check(self) -> None:
        """Assert the bounds, and that only known places are dialled."""
        assert len(self._known) <= ADDRESSES_MAX, "too many addresses"
        assert len(self._flying) <= DIALS_MAX, "too many dials"
        claims = sum(len(places) for places in self._of.values())
        assert claims == sum(place.node is not None for place in self._known.values()), "who is where is not clear"
        assert all(self._known[each].node == node for node, places in self._of.items() for each in places), "not there"
        known = sum((address in self._due) + (address in self._flying) for address in self._known)
        assert known == len(self._due) + len(self._flying), "a dial to nowhere known"
        assert not any(address in self._due and address in self._flying for address in self._known), "dialled twice"
