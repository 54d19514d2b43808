"""Who is drawn, and what is charged to whom."""

from random import Random

import pytest

from p2pq.core.fairness import ACCOUNTS_MAX, MEANS_MAX, Fairness, Means, accounts
from p2pq.model.ids import Mono


def drawn(fair: Fairness, owners: tuple[str, ...], now: float = 0.0, times: int = 10_000, **given) -> dict[str, float]:
    """Return how often each owner is drawn, as a part of 1."""
    rng = Random(7)
    names = [fair.draw(owners, Mono(now), rng, **given) for _ in range(times)]
    fair.check()
    return {owner: names.count(owner) / times for owner in owners}


def give(fair: Fairness, owner: str, seconds: float, cpus: int = 1) -> None:
    fair.charge("given", owner, cpus, 0.0)
    fair.occupy("given", Mono(0.0))
    assert fair.free("given", Mono(seconds)) == seconds


def test_one_owner_is_drawn_without_a_dice():
    rng = Random(7)
    before = rng.getstate()
    assert Fairness(10.0).draw(("ann",), Mono(0.0), rng) == "ann"
    assert rng.getstate() == before


def test_equals_are_drawn_alike():
    assert drawn(Fairness(10.0), ("ann", "bob")) == pytest.approx({"ann": 0.5, "bob": 0.5}, abs=0.05)


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_lead_of_one_scale_makes_a_draw_e_times_rarer(cpus):
    fair = Fairness(10.0)
    fair.draw(("ann", "bob"), Mono(0.0), Random(1))
    give(fair, "ann", 10.0 / cpus, cpus)
    assert drawn(fair, ("ann", "bob"))["ann"] == pytest.approx(1 / (1 + 2.71828), abs=0.02)


@pytest.mark.parametrize(
    ("lengths", "ann"),
    [
        ({"ann": 1.0, "bob": 3.0}, 0.75),
        ({"ann": 0.001, "bob": 1.0}, 2 / 3),  # as if it were half a second: a twentieth of the scale
        ({"ann": 5.0, "bob": 500.0}, 2 / 3),  # as if it were ten seconds: the scale
    ],
)
def test_who_has_long_attempts_is_drawn_less_often(lengths, ann):
    fair = Fairness(10.0)
    assert drawn(fair, ("ann", "bob"), lengths=lengths)["ann"] == pytest.approx(ann, abs=0.02)


@pytest.mark.parametrize(("length_s", "scale_s"), [(1.0, 2.0), (0.01, 0.5), (60.0, 10.0)])
def test_the_scale_is_two_mean_attempts_within_bounds(length_s, scale_s):
    fair = Fairness(10.0)
    fair.draw(("ann", "bob"), Mono(0.0), Random(1))
    give(fair, "ann", scale_s)
    found = drawn(fair, ("ann", "bob"), lengths={"ann": length_s, "bob": length_s})
    assert found["ann"] == pytest.approx(1 / (1 + 2.71828), abs=0.02)


def test_uniform_ignores_leads():
    fair = Fairness(10.0, "uniform")
    fair.draw(("ann", "bob"), Mono(0.0), Random(1))
    give(fair, "ann", 1000.0)
    assert drawn(fair, ("ann", "bob"))["ann"] == pytest.approx(0.5, abs=0.05)


def test_the_last_owner_is_drawn_where_rounding_leaves_nobody():
    class Last(Random):
        def random(self) -> float:
            return 1.0

    assert Fairness(10.0).draw(("ann", "bob"), Mono(0.0), Last()) == "bob"


def test_a_grant_counts_as_expected_then_as_it_runs_then_as_it_was():
    fair = Fairness(10.0)
    fair.charge("a", "ann", 2, 5.0)
    assert fair.given(Mono(0.0)) == {"ann": 10.0}
    fair.occupy("a", Mono(100.0))
    assert fair.given(Mono(104.0)) == {"ann": 10.0}
    assert fair.given(Mono(109.0)) == {"ann": 18.0}
    assert fair.free("a", Mono(103.0)) == 3.0
    assert fair.given(Mono(200.0)) == {"ann": 6.0}


def test_what_never_had_a_slot_costs_nothing():
    fair = Fairness(10.0)
    fair.charge("a", "ann", 2, 5.0)
    assert fair.free("a", Mono(50.0)) == 0.0
    assert fair.given(Mono(50.0)) == {"ann": 0.0}


def test_a_newcomer_starts_level_with_the_least_served():
    fair = Fairness(10.0)
    fair.draw(("ann", "bob"), Mono(0.0), Random(1))
    give(fair, "ann", 50.0)
    give(fair, "bob", 30.0)
    fair.draw(("ann", "bob", "cat"), Mono(0.0), Random(1))
    assert fair.given(Mono(0.0)) == {"ann": 50.0, "bob": 30.0, "cat": 30.0}


def test_an_absence_earns_nothing_and_forgives_nothing():
    fair = Fairness(10.0)
    fair.draw(("ann", "bob", "cat"), Mono(0.0), Random(1))
    give(fair, "cat", 90.0)
    fair.draw(("bob",), Mono(0.0), Random(1))
    give(fair, "bob", 40.0)
    fair.draw(("ann", "bob", "cat"), Mono(0.0), Random(1))
    assert fair.given(Mono(0.0)) == {"ann": 40.0, "bob": 40.0, "cat": 90.0}


def test_nobody_is_in_debt_for_using_an_idle_machine():
    fair = Fairness(10.0)
    fair.draw(("ann",), Mono(0.0), Random(1))
    give(fair, "ann", 86_400.0)
    fair.draw(("bob",), Mono(0.0), Random(1))
    fair.draw(("ann", "bob"), Mono(0.0), Random(1))
    assert fair.given(Mono(0.0)) == {"ann": 86_400.0, "bob": 86_400.0}


def test_accounts_are_bounded_and_open_ones_stay():
    fair = Fairness(10.0)
    fair.charge("a", "busy", 1, 1.0)
    for number in range(ACCOUNTS_MAX + 10):
        fair.draw((f"o{number}",), Mono(0.0), Random(1))
    assert len(fair.given(Mono(0.0))) == ACCOUNTS_MAX
    assert "busy" in fair.given(Mono(0.0))
    fair.check()


def test_means_fade_towards_what_is_new():
    means = Means()
    assert means.get("job") is None
    means.learn("job", 1.0)
    means.learn("job", 3.0)
    assert means.get("job") == 2.0
    assert (means.seen("job"), means.seen("other")) == (2, 0)
    for _ in range(100):
        means.learn("job", 50.0)
    assert means.get("job") == pytest.approx(50.0, abs=0.01)


def test_many_at_once_weigh_more_than_one():
    one, many = Means(), Means()
    for means in (one, many):
        means.learn("job", 1.0, 100)
    one.learn("job", 2.0)
    many.learn("job", 2.0, 8)
    assert one.get("job") == pytest.approx(1.125)
    assert many.get("job") == pytest.approx(2 - (7 / 8) ** 8)


def test_means_are_bounded_by_the_latest():
    means = Means()
    for key in range(MEANS_MAX + 1):
        means.learn(key, 1.0)
    assert means.get(0) is None
    assert means.get(1) == 1.0


def test_time_that_is_postponed_is_not_paid_for():
    fair = Fairness(10.0)
    fair.charge("key", "ann", 2, 5.0)
    fair.occupy("key", Mono(0.0))
    assert fair.given(Mono(100.0)) == {"ann": 200.0}
    fair.postpone("key", 60.0, Mono(100.0))
    assert fair.given(Mono(100.0)) == {"ann": 80.0}
    fair.postpone("key", 60.0, Mono(101.0))  # never beyond the present
    assert fair.free("key", Mono(101.0)) == 0.0
    assert fair.given(Mono(101.0)) == {"ann": 0.0}


def test_accounts_of_the_two_sides_know_nothing_of_each_other():
    """A stream of short work here must not wipe out who leads among those behind bridges."""
    both = accounts(10.0)
    both[True].draw(("ann", "bob"), Mono(0.0), Random(1))
    give(both[True], "ann", 10.0)
    both[False].draw(("cat",), Mono(0.0), Random(1))
    give(both[False], "cat", 1000.0)
    assert both[True].given(Mono(0.0)) == {"ann": 10.0, "bob": 0.0}
    assert drawn(both[True], ("ann", "bob"))["ann"] == pytest.approx(1 / (1 + 2.71828), abs=0.02)
    assert drawn(accounts(10.0, "uniform")[True], ("ann", "bob"))["ann"] == pytest.approx(0.5, abs=0.05)


def test_who_is_not_known_counts_as_the_mean_of_the_others():
    means = Means()
    assert means.lengths(("ann", "bob"), 10.0) == {"ann": 10.0, "bob": 10.0}
    means.learn("ann", 1.0)
    means.learn("bob", 3.0)
    assert means.lengths(("ann", "bob", "cat"), 10.0) == {"ann": 1.0, "bob": 3.0, "cat": 2.0}


def test_what_leaves_its_slot_has_paid_for_it_and_waits_again():
    fair = Fairness(10.0)
    fair.charge("a", "ann", 2, 1.0)
    fair.vacate("a", Mono(1.0))  # it has no slot
    fair.postpone("a", 1.0, Mono(1.0))
    assert fair.given(Mono(1.0)) == {"ann": 2.0}
    fair.occupy("a", Mono(1.0))
    fair.vacate("a", Mono(4.0))
    assert fair.given(Mono(50.0)) == {"ann": 8.0}, "3 s of two cpus, and what is expected"
    fair.occupy("a", Mono(60.0))
    assert fair.free("a", Mono(61.0)) == 1.0
    assert fair.given(Mono(61.0)) == {"ann": 8.0}
    fair.check()
