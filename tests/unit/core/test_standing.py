"""Whose fault a failure is, and how long who must wait."""

from hypothesis import given
from hypothesis import strategies as st

from p2pq.core.standing import (
    BUDGETS_MAX,
    CAUTION,
    CAUTION_MAX_S,
    FAULTS_FREE,
    OTHERS_MIN,
    PAUSE_MAX_S,
    STREAK_MAX,
    Budget,
    Budgets,
    Standing,
)
from p2pq.model.ids import Mono
from tests.unit.core.mesh import ALICE, BOB, Member

A, B, C = ALICE.node, BOB.node, Member("carol").node
NOW = Mono(100.0)


def fails(standing: Standing, worker: bytes, *tasks: int, elsewhere: tuple[bytes, ...] = ()) -> None:
    for task in tasks:
        standing.failed(worker, task, 1, elsewhere)
    standing.check()


def succeeds(standing: Standing, worker: bytes, times: int) -> None:
    for _ in range(times):
        standing.succeeded(worker)
    standing.check()


def test_a_worker_that_nobody_can_be_compared_with_is_no_suspect() -> None:
    standing = Standing()
    assert not standing.suspect(A)
    fails(standing, A, *range(50))
    succeeds(standing, B, OTHERS_MIN - 1)
    assert not standing.suspect(A)
    assert standing.cautious(A)
    succeeds(standing, B, 1)
    assert standing.suspect(A)
    assert not standing.cautious(A)


def test_one_failure_makes_no_suspect_however_well_others_fare() -> None:
    standing = Standing()
    succeeds(standing, B, 1000)
    fails(standing, A, 1)
    assert not standing.suspect(A)
    fails(standing, A, 2)
    assert standing.suspect(A)
    assert standing.streak(A) == 2


def test_a_success_clears_a_suspect() -> None:
    standing = Standing()
    succeeds(standing, B, 1000)
    fails(standing, A, 1, 2)
    assert standing.pause(A, NOW, 1.0) == NOW + 1.0
    succeeds(standing, A, 1)
    assert not standing.suspect(A)
    assert (standing.streak(A), standing.until(A)) == (0, 0.0)


def test_a_job_that_fails_everywhere_costs_nobody_s_standing() -> None:
    standing = Standing()
    for task in range(0, 100, 2):
        fails(standing, A, task)
        fails(standing, B, task + 1)
    assert not standing.suspect(A)
    assert not standing.suspect(B)
    assert not standing.cautious(A)


def test_a_task_that_fails_elsewhere_too_says_nothing_of_either() -> None:
    standing = Standing()
    succeeds(standing, C, 1000)
    fails(standing, A, 7, 8)
    assert standing.suspect(A)
    fails(standing, B, 7, elsewhere=(A,))
    assert not standing.suspect(A)
    assert (standing.streak(A), standing.streak(B)) == (1, 0)


def test_the_more_others_fail_the_longer_a_streak_must_be() -> None:
    standing = Standing()
    for task in range(10):
        fails(standing, B, task)
        succeeds(standing, C, 1)
    for length in range(1, 7):
        fails(standing, A, 100 + length)
        assert not standing.suspect(A), length
    fails(standing, A, 107)
    assert standing.suspect(A)


def test_what_is_forgiven_is_forgiven_once() -> None:
    standing = Standing()
    assert standing.forgive(A) == {}
    fails(standing, A, 1, 2)
    standing.failed(A, 3, 0, ())
    assert standing.forgive(A) == {1: 1, 2: 1}
    assert standing.forgive(A) == {}
    assert standing.streak(A) == 3


def test_pauses_double_and_are_short_where_there_is_only_reason_for_caution() -> None:
    standing = Standing()
    assert standing.until(A) == 0.0
    assert standing.streak(A) == 0
    fails(standing, A, *range(CAUTION))
    assert [standing.pause(A, NOW, 1.0) - NOW for _ in range(4)] == [1.0, 2.0, CAUTION_MAX_S, CAUTION_MAX_S]
    succeeds(standing, B, 100)
    assert [standing.pause(A, NOW, 1.0) - NOW for _ in range(3)] == [16.0, 32.0, PAUSE_MAX_S]
    assert standing.until(A) == NOW + PAUSE_MAX_S


def test_caution_needs_a_streak() -> None:
    standing = Standing()
    assert not standing.cautious(A)
    fails(standing, A, *range(CAUTION - 1))
    assert not standing.cautious(A)
    fails(standing, A, 99)
    assert standing.cautious(A)


def test_a_streak_is_bounded() -> None:
    standing = Standing()
    fails(standing, A, *range(2 * STREAK_MAX))
    assert standing.streak(A) == STREAK_MAX


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.booleans(), st.integers(0, 9)), max_size=60))
def test_whoever_is_suspect_fares_worse_than_the_others(ends: list[tuple[bytes, bool, int]]) -> None:
    standing = Standing()
    fared: dict[bytes, list[bool]] = {A: [], B: [], C: []}
    for worker, ok, task in ends:
        fared[worker].append(ok)
        if ok:
            succeeds(standing, worker, 1)
        else:
            fails(standing, worker, task)
    for worker, ends_there in fared.items():
        others = [ok for other, ends_elsewhere in fared.items() if other != worker for ok in ends_elsewhere]
        if standing.suspect(worker):
            assert not any(ends_there[-2:])
            assert sum(others) > 0
            assert not standing.cautious(worker)


def test_faults_in_a_row_slow_a_worker_down_and_a_crash_is_one_of_them() -> None:
    budget = Budget()
    waits = []
    for second in range(6):
        waits.append(budget.fault(Mono(float(second)), 1.0))
        assert not budget.fault(Mono(float(second)), 1.0)
    assert waits == [False] * (FAULTS_FREE - 1) + [True] * 4
    assert budget.until == 5.0 + 8.0
    for second in range(6, 30):
        budget.fault(Mono(float(second)), 1.0)
    assert budget.until == 29.0 + PAUSE_MAX_S
    assert budget.slow


def test_budgets_are_bounded_and_forgotten_when_an_attempt_ends() -> None:
    budgets = Budgets()
    for second in range(FAULTS_FREE - 1):
        assert budgets.fault(A, Mono(float(second)), 1.0) is None
    assert budgets.fault(A, NOW, 1.0) == NOW + 1.0
    assert budgets.get(A).slow
    budgets.ended(A)
    budgets.ended(A)
    assert budgets.get(A) is None
    for number in range(BUDGETS_MAX + 1):
        budgets.fault(number.to_bytes(32, "big"), NOW, 1.0)
    assert len(budgets) == BUDGETS_MAX
    assert budgets.get(bytes(32)) is None


def test_who_is_slowed_down_is_named() -> None:
    budgets = Budgets()
    for second in range(FAULTS_FREE):
        budgets.fault(A, Mono(float(second)), 1.0)
    budgets.fault(B, NOW, 1.0)
    assert list(budgets.slow()) == [A]


def test_whom_anything_is_held_against_is_named() -> None:
    standing = Standing()
    standing.succeeded(A)
    standing.failed(B, 1, 1, ())
    standing.decline(C, NOW, 1.0)
    assert list(standing.noted()) == [B, C]
    standing.succeeded(B)
    standing.succeeded(C)
    assert list(standing.noted()) == []
