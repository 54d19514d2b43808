"""On a clean network, work takes hardly longer than it must, however short the tasks are."""

import pytest

from simulations.play import play
from simulations.scenarios import SCENARIOS


@pytest.mark.parametrize(("name", "tasks"), [("short", 4000), ("middle", 200), ("long", 50)])
def test_makespan(name, tasks):
    report = play(SCENARIOS[name], 1, tasks=tasks)
    assert report.settled == report.attempts == tasks
    assert report.makespan_s <= 1.3 * report.ideal_s
    assert report.messages <= 8 * tasks + 1000
