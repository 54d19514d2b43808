"""Scenarios by name: what must come of each."""

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
