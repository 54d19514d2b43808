"""Where to dial and when."""

from random import Random

import pytest

from p2pq.core import addresses
from p2pq.core.addresses import (
    ANSWER_S,
    DIALS_MAX,
    HINT_TRIES_MAX,
    PAUSE_S,
    PER_NODE_MAX,
    VIA_DIALS_MAX,
    Addresses,
)
from p2pq.core.reaching import via_address
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import Mono, NodeId
from tests.unit.core.workerkit import ANN, BOB


class Middle(Random):
    """Jitters by nothing: three quarters of every pause."""

    def random(self) -> float:
        return 0.5


class Bench:
    def __init__(self) -> None:
        self.places = Addresses(Middle())
        self.now = Mono(0.0)

    def add(self, *names: str, node=ANN.node, kept: bool = False, dial: bool = True) -> None:
        self.places.add(names, node, self.now, kept=kept, dial=dial)

    def dialled(self, after: float = 0.0) -> list[str]:
        """Return what is dialled now."""
        self.now = Mono(self.now + after)
        names = []
        while (place := self.places.next(self.now)) is not None:
            names.append(place.address)
        self.places.check()
        return names


def test_addresses_are_dialled_one_shortly_after_the_other():
    bench = Bench()
    bench.add("a", "b")
    assert bench.places.deadline == 0.0
    assert bench.dialled() == ["a"]
    assert bench.places.flying("a")
    assert bench.places.deadline == pytest.approx(0.1)
    assert bench.dialled(0.1) == ["b"]
    assert bench.places.deadline == pytest.approx(ANSWER_S)
    bench.add("a")
    assert bench.dialled(0.1) == []


def test_a_failed_dial_is_tried_again_after_a_pause_that_doubles():
    bench = Bench()
    bench.add("a", kept=True)
    pauses = []
    for _ in range(9):
        bench.dialled(100.0)
        assert bench.places.failed("a", "refused", bench.now, dial=True) is bench.places.get("a")
        pauses.append(bench.places.deadline - bench.now)
        bench.add("a")
    assert pauses == [0.75, 1.5, 3.0, 6.0, 12.0, 22.5, 22.5, 22.5, 22.5]


def test_who_was_away_for_long_is_found_again_before_leases_expire():
    unanswered_s = 10.0  # as long as a link lets a dial take
    assert addresses.PAUSE_MAX_S + unanswered_s < ScheduleSettings().lease_s


def test_nobody_is_dialled_again_who_is_not_wanted():
    bench = Bench()
    bench.add("a")
    bench.dialled()
    bench.places.failed("a", "refused", bench.now, dial=False)
    assert bench.places.deadline is None
    assert bench.places.failed("elsewhere", "refused", bench.now, dial=True) is None


def test_a_hint_that_always_fails_is_forgotten_but_not_what_is_configured():
    bench = Bench()
    bench.add("hint")
    bench.add("set", kept=True)
    for _ in range(HINT_TRIES_MAX):
        bench.dialled(100.0)
        for name in ("hint", "set"):
            bench.places.failed(name, "no answer", bench.now, dial=True)
    assert [place.address for place in bench.places] == ["set"]


def test_dials_in_flight_are_bounded_and_given_up():
    bench = Bench()
    names = tuple(f"a{number}" for number in range(DIALS_MAX + 2))
    for name in names:
        bench.add(name, node=None)
    assert bench.dialled() == list(names[:DIALS_MAX])
    assert bench.places.deadline == ANSWER_S
    assert bench.dialled(1.0) == []
    bench.places.failed("a0", "no answer", bench.now, dial=False)
    assert bench.dialled() == ["a8"]
    assert bench.dialled(ANSWER_S - 1) == ["a9"]
    assert bench.places.get("a1").reason == "no answer"


def test_places_behind_bridges_leave_dials_for_the_others():
    bench = Bench()
    behind = [via_address(BOB.node, NodeId(bytes([number]) * 32)) for number in range(DIALS_MAX)]
    for name in behind:
        bench.add(name, node=None)
    bench.add("direct", node=None)
    assert bench.dialled() == [*behind[:VIA_DIALS_MAX], "direct"]
    bench.places.failed(behind[0], "no answer", bench.now, dial=False)
    assert bench.dialled(PAUSE_S) == [behind[VIA_DIALS_MAX]]
    bench.places.check()


def test_who_is_there_is_learnt_from_a_link():
    bench = Bench()
    bench.add("a", node=None)
    bench.dialled()
    bench.places.failed("a", "refused", bench.now, dial=True)
    bench.places.arrived("a", BOB.node)
    bench.places.arrived("elsewhere", BOB.node)
    place = bench.places.get("a")
    assert (place.node, place.failures, place.reason) == (BOB.node, 0, "")
    assert bench.places.deadline is None
    assert bench.places.of(BOB.node) == ("a",)


def test_a_new_claim_starts_over():
    bench = Bench()
    bench.add("a")
    bench.dialled()
    bench.places.failed("a", "refused", bench.now, dial=True)
    bench.add("a", node=BOB.node)
    assert bench.places.of(BOB.node) == ("a",)
    assert bench.places.get("a").failures == 0
    assert bench.dialled() == ["a"]
    # While it is dialled nobody else's word counts.
    bench.add("a", node=ANN.node)
    assert bench.places.of(BOB.node) == ("a",)


def test_a_link_ends_dialling_and_its_end_begins_it_again():
    bench = Bench()
    bench.add("a", "b")
    bench.dialled()
    bench.places.rest(ANN.node)
    assert bench.dialled(1.0) == []
    bench.places.retry(ANN.node, bench.now)
    assert bench.dialled(0.75) == ["b"]


def test_all_are_dialled_anew_but_whom_it_does_not_concern_and_who_is_being_dialled():
    bench = Bench()
    bench.add("a", "b")
    bench.add("c", node=BOB.node, dial=False)
    assert bench.dialled() == ["a"]
    bench.places.anew(bench.now, which=lambda node: node == ANN.node)
    assert bench.dialled(1.0) == ["b"]
    bench.places.anew(bench.now, which=lambda node: node == BOB.node)
    assert bench.dialled() == ["c"]


def test_a_node_has_only_so_many_addresses():
    bench = Bench()
    for number in range(PER_NODE_MAX + 1):
        bench.add(f"a{number}", dial=False)
    assert bench.places.of(ANN.node) == tuple(f"a{number}" for number in range(1, PER_NODE_MAX + 1))


def test_addresses_are_bounded(monkeypatch):
    monkeypatch.setattr(addresses, "ADDRESSES_MAX", 2)
    bench = Bench()
    bench.add("a", "b", "c", node=None)
    assert [place.address for place in bench.places] == ["a", "b"]
    # What a link or the configuration says is worth more than a hint, but for one that is being dialled.
    assert bench.dialled() == ["a"]
    bench.add("c", kept=True)
    assert [place.address for place in bench.places] == ["a", "c"]
    bench.add("d", kept=True)
    assert [place.address for place in bench.places] == ["a", "c"]


def test_a_place_that_is_forgotten_is_nobodys():
    bench = Bench()
    bench.add("a", "b")
    bench.places.forget("a")
    bench.places.forget("a")
    assert bench.places.of(ANN.node) == ("b",)
    bench.places.forget("b")
    assert bench.places.of(ANN.node) == ()
    bench.places.check()
