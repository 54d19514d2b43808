"""Own network first: what goes over a bridge and when, what it costs, and how owners share time through bridges."""

import pytest

from p2pq.core import overflow, running
from p2pq.core.fairness import Fairness
from p2pq.core.overflow import HOLD_S
from simulations.fairness import jain
from simulations.overflow import (
    FAR,
    GOAL,
    NEAR,
    SHARED_S,
    Case,
    Figures,
    Mesh,
    alone,
    both,
    busy,
    equals,
    gaps,
    large,
    light,
    limit,
    main,
    shared,
    shares,
    without,
)

DELAY_S = 0.1
"""From a word of its master until an attempt begins behind a bridge, at most."""
COST_MAX = 1.05


def beside(case: Case) -> tuple[Figures, Figures]:
    """Return the figures, and those without any of it."""
    with without():
        before = Mesh(case).finish()
    return Mesh(case).finish(), before


@pytest.mark.slow
@pytest.mark.quick
def test_nothing_goes_far_while_slots_here_are_free():
    now, before = beside(light())
    assert (now.far, now.early, now.openings) == (0, 0, 0)
    assert before.early > 20
    assert now.makespan_s <= before.makespan_s * COST_MAX


@pytest.mark.slow
@pytest.mark.quick
@pytest.mark.parametrize(("case", "first_s"), [(large(), 0.0), (alone(), 0.0), (busy(), 5.0 + HOLD_S)])
def test_what_slots_here_cannot_take_goes_far_within_a_moment_and_costs_no_time(case, first_s):
    now, before = beside(case)
    assert now.first_far_s is not None
    assert first_s < now.first_far_s < first_s + DELAY_S
    assert now.early == 0
    assert now.far >= 8
    assert now.openings == 1
    assert now.makespan_s <= before.makespan_s * COST_MAX


def test_a_network_whose_work_is_done_helps_the_other_at_no_cost():
    now, before = beside(both())
    assert now.far > 20
    assert now.makespan_s <= before.makespan_s * COST_MAX


def test_small_jobs_around_the_limit_do_not_open_and_close_the_far_side(monkeypatch):
    now = Mesh(limit()).finish()
    assert now.far > 100
    assert now.early == 0
    assert now.openings <= 3
    monkeypatch.setattr(overflow, "HOLD_S", 1e-4)
    monkeypatch.setattr(overflow, "CALM_S", 1e-3)
    assert Mesh(limit()).finish().openings > 100


def test_no_long_task_from_afar_takes_a_slot_between_two_own_tasks():
    now, before = beside(gaps())
    assert max(now.waits["own"]) < DELAY_S
    assert max(before.waits["own"]) > 10.0
    assert now.far == before.far == 12


@pytest.mark.parametrize(
    "case",
    [
        shared(NEAR, NEAR, NEAR, NEAR),
        shared(FAR, FAR, FAR, FAR),
        shared(NEAR, NEAR, FAR, FAR),
        shared(FAR, FAR, FAR, FAR, own=True),
    ],
    ids=["near", "far", "mixed", "far beside little"],
)
def test_equals_in_nearness_share_time_equally(case):
    given = shares(case)
    assert jain(equals(case, given)) >= GOAL
    assert sum(given.values()) > 0.95 * 16 * SHARED_S
    if case.seats[0].side == NEAR:  # strictly before those behind the bridge, if there are any
        assert sum(equals(case, given)) > 0.99 * sum(given.values())


class ByLeads(Fairness):
    """Draws by leads alone; that lengths count as well would hide half of what goes wrong with leads."""

    def draw(self, owners, now, rng, lengths=None):
        return super().draw(owners, now, rng)


@pytest.mark.parametrize("apart", [True, False], ids=["apart", "one"])
def test_one_account_for_both_sides_would_not_share(monkeypatch, apart):
    """A little work here would wipe out again and again who leads among those behind bridges."""

    def made(scale_s: float, mode: str) -> dict[bool, Fairness]:
        one = ByLeads(scale_s, mode)
        return {False: one, True: ByLeads(scale_s, mode) if apart else one}

    monkeypatch.setattr(running, "accounts", made)
    case = shared(FAR, FAR, FAR, FAR, own=True)
    index = jain(equals(case, shares(case)))
    assert index >= GOAL if apart else index < 0.8


def test_the_tables(capsys, monkeypatch):
    monkeypatch.setattr("simulations.overflow.SHARED_S", 20.0)
    monkeypatch.setattr("simulations.overflow.CASES", (light, busy))
    assert main([]) in {0, 1}
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 + 2 + 4
    assert lines[1].split()[:6] == ["jobs", "that", "fit", "200", "0", "0"]
