"""Hostile members: a master stays right for the honest, and all converges once they repent."""

import pytest

from simulations.liar import Habits, Liar
from simulations.play import Play, play
from simulations.scenarios import SCENARIOS


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_liars(seed):
    report = play(SCENARIOS["liars"], seed)
    assert report.settled == 300
    assert report.lies > 100
    assert report.drops


def test_lies_are_refused_with_reasons():
    run = Play(SCENARIOS["liars"], 5, tasks=100)
    for host in run.hosts:
        if isinstance(host, Liar):
            host.habits = Habits(lie_every_s=0.05, repeats=0.5, flood=1000)
    report = run.run()
    assert report.settled == 100
    assert {"lease was never granted to it", "result: for somebody else", "work that it may not offer"} <= set(
        report.drops
    )
