"""Seeds of every kind of trouble: nothing is lost, nothing settled twice, everything converges."""

import pytest

from simulations.play import play
from simulations.scenarios import SCENARIOS


@pytest.mark.parametrize("seed", range(1, 21))
def test_swarm(seed):
    report = play(SCENARIOS["swarm"], seed, nodes=12, tasks=150)
    assert report.settled == 150 or report.lost_jobs


def test_masters_that_lose_their_disks_lose_their_jobs_and_nobody_else_does():
    report = play(SCENARIOS["disks"], 1, nodes=12, tasks=150)
    assert report.wipes
    assert report.lost_jobs
    assert report.settled < 150


@pytest.mark.parametrize("name", ["lossy", pytest.param("crashes", marks=pytest.mark.quick), "partitions", "power"])
def test_named(name):
    report = play(SCENARIOS[name], 1, nodes=12, tasks=150)
    assert report.settled == 150
    assert report.lost or report.crashes or report.cuts


@pytest.mark.quick
def test_clean_does_no_more_than_is_called_for():
    report = play(SCENARIOS["clean"], 1, nodes=12, tasks=150)
    assert report.attempts <= 150 + report.notices.get("AttemptFailed", 0) + report.again
    assert report.drops == {}


def test_a_small_thousand():
    report = play(SCENARIOS["thousand"], 1, nodes=110, tasks=1100)
    assert report.settled == 1100
    assert report.crashes


@pytest.mark.slow
def test_bridges_side_by_side_come_to_rest_while_their_masters_have_nothing():
    """The scenario itself judges how much is said; in this one two bridges leave the same ways at the same instant."""
    report = play(SCENARIOS["nested-ring"], 5)
    assert report.settled == 300 or report.lost_jobs
    assert report.notices["WayLeft"]
