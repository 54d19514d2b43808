"""Machines that are somebody's: guests stand still, are sent away and go on, and nothing is lost or done twice."""

import pytest

from simulations.play import play
from simulations.scenarios import SCENARIOS

STANCES = {
    "people-always": {"run", "suspend", "evict"},
    "people-idle": {"run", "suspend", "evict"},
    "people-night": {"run", "suspend", "evict"},
    "people-screensaver": {"run", "kill"},
    "people-rule": {"run", "suspend", "evict"},
}


@pytest.mark.parametrize("name", STANCES)
def test_all_work_gets_done_on_machines_whose_people_come_and_go(name):
    report = play(SCENARIOS[name], 1, nodes=10, tasks=120)
    assert report.states == {"done": 120}
    seen = {stance for stance in ("run", "hold", "suspend", "evict", "kill") if report.notices.get(f"Owner({stance})")}
    assert seen == STANCES[name]
    assert name == "people-always" or report.notices["AttemptLost(evicted)"] > 0
