"""Scenarios by name: what must come of each."""

import pytest

from simulations.play import play
from simulations.scenarios import SCENARIOS


def test_results_of_a_stopped_node_are_fenced_and_nothing_doubles():
    report = play(SCENARIOS["sleeper"], 1)
    assert report.states == {"done": 240}
    assert report.notices["LateResult"] >= 1
    assert report.attempts <= 240 + report.notices["AttemptLost(expired)"] + report.notices.get("AttemptLost(lost)", 0)
    assert report.attempts > 240


def test_leases_outlive_the_sleep_of_their_master():
    report = play(SCENARIOS["sleeping-master"], 1)
    assert report.states == {"done": 60}
    assert report.attempts == 60
    # Grants in answer to requests that had waited went out over links that their peers had given up: nothing had started.
    assert [name for name in report.notices if name.startswith("AttemptLost")] == ["AttemptLost(lost)"]


@pytest.mark.quick
def test_a_worker_whose_clock_is_wrong_costs_one_request():
    report = play(SCENARIOS["wrong-clock"], 1)
    assert report.states == {"done": 200}
    assert report.attempts == 200
    # It finds the grant over before it begins; its master keeps it waiting then, and says what it said.
    assert 0 < report.last_attempts < 15
    assert [name for name in report.notices if name.startswith("AttemptLost")] == ["AttemptLost(late)"]
    assert report.notices["AttemptLost(late)"] <= 5


@pytest.mark.slow
@pytest.mark.quick
@pytest.mark.parametrize("seed", [2, 3])
def test_nothing_of_a_banned_owner_runs_anywhere_a_minute_after_all_can_be_reached(seed):
    """The scenario itself judges, on every node; what others have runs to its end."""
    report = play(SCENARIOS["revoked"], seed)
    assert report.states["done"] == 400
    assert report.cuts
    assert report.notices["OwnerBanned"] >= 16
