"""Attempts that stand still: for a doubt, for the owner, for both in every order."""

from itertools import permutations, product

import pytest

from p2pq.core.effects import Continue, Effect, Suspend
from p2pq.core.fairness import accounts
from p2pq.core.slots import Attempt
from p2pq.core.stillness import Stillness
from p2pq.model.ids import LeaseId, Mono
from tests.unit.core.workerkit import ANN, KEY, manifest

LEASE = LeaseId(1, 1)
WHY = "the owner is back"
STOP = Suspend(lease=LEASE, master=ANN.node)
STOP_FOR = Suspend(lease=LEASE, master=ANN.node, reason=WHY)
GO = Continue(lease=LEASE, master=ANN.node)


class Stood:
    """One guest, and what came of it."""

    def __init__(self, *, slot: bool = True) -> None:
        self.accounts = accounts(10.0)
        self.stillness = Stillness(self.accounts)
        self.attempt = Attempt(
            master=ANN.node,
            lease=LEASE,
            manifest=manifest(),
            task=0,
            attempt=1,
            key=KEY,
            own=False,
            sandbox="strict",
            since=Mono(0.0) if slot else None,
        )
        self.accounts[False].charge((ANN.node, LEASE), "ann", 1, 1.0)
        if slot:
            self.accounts[False].occupy((ANN.node, LEASE), Mono(0.0))
        self.out: list[Effect] = []

    def do(self, what: str, now: float) -> list[Effect]:
        self.out.clear()
        match what:
            case "doubt":
                self.stillness.doubt(self.attempt, Mono(now), self.out)
            case "trust":
                self.stillness.trust(self.attempt, Mono(now), self.out)
            case "hold":
                self.stillness.hold(self.attempt, WHY, Mono(now), self.out)
            case "let go":
                self.stillness.let_go(self.attempt, Mono(now), self.out)
        return list(self.out)


def test_the_owner_stops_a_guest_and_lets_it_go_on() -> None:
    stood = Stood()
    assert stood.do("hold", 10.0) == [STOP_FOR]
    assert stood.attempt.ran_s(Mono(50.0)) == 10.0
    assert stood.do("let go", 60.0) == [GO]
    assert stood.attempt.ran_s(Mono(61.0)) == 11.0
    assert stood.accounts[False].free((ANN.node, LEASE), Mono(61.0)) == 11.0


ORDERS = [
    order
    for order in permutations(("doubt", "hold", "trust", "let go"))
    if order.index("doubt") < order.index("trust") and order.index("hold") < order.index("let go")
]


@pytest.mark.parametrize("order", ORDERS)
def test_it_goes_on_when_neither_holds_and_what_it_stood_counts_once(order: tuple[str, ...]) -> None:
    stood = Stood()
    still_s, causes, stopped = 0.0, 0, False
    for number, what in enumerate(order):
        now = 10.0 * (number + 1)
        if causes:
            still_s += 10.0
        effects = stood.do(what, now)
        before, causes = causes, causes + (1 if what in {"doubt", "hold"} else -1)
        expected: list[Effect] = []
        if what == "hold":
            expected = [STOP_FOR]  # again, for its reason, where it stands already
        elif what == "doubt" and not before:
            expected = [STOP]
        elif not causes:
            expected = [GO]
        assert effects == expected
        stopped = causes > 0
        assert (stood.attempt.still is not None) is stopped
        assert stood.attempt.ran_s(Mono(now)) == now - still_s
    assert stood.accounts[False].free((ANN.node, LEASE), Mono(50.0)) == 50.0 - still_s


@pytest.mark.parametrize(("first", "then"), list(product(("doubt", "hold"), repeat=2)))
def test_what_ends_while_it_stands_still_has_not_run_since(first: str, then: str) -> None:
    stood = Stood()
    stood.do(first, 10.0)
    stood.do(then, 20.0)
    stood.stillness.settle(stood.attempt, Mono(70.0))
    assert (stood.attempt.doubted, stood.attempt.held, stood.attempt.still) == (False, False, None)
    assert stood.attempt.ran_s(Mono(70.0)) == 10.0
    stood.stillness.settle(stood.attempt, Mono(80.0))
    assert stood.attempt.ran_s(Mono(80.0)) == 20.0


def test_what_has_no_slot_does_not_begin_and_is_not_stopped() -> None:
    stood = Stood(slot=False)
    assert stood.do("doubt", 10.0) == []
    assert stood.attempt.doubted
    assert stood.attempt.still is None
    assert stood.do("trust", 20.0) == []
    assert not stood.attempt.doubted


def test_own_work_is_charged_to_nobody() -> None:
    stood = Stood()
    stood.attempt.own = True
    stood.stillness.postpone(stood.attempt, 5.0, Mono(20.0))
    assert stood.attempt.ran_s(Mono(20.0)) == 15.0
    assert stood.accounts[False].free((ANN.node, LEASE), Mono(20.0)) == 20.0
