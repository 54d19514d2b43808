"""One bad machine among good ones, broken jobs, and meshes too small to compare with anybody."""

import msgspec
import pytest

from simulations.play import play
from simulations.scenarios import SCENARIOS


@pytest.mark.parametrize("seed", [1, 2])
def test_a_black_hole_takes_few_attempts_and_fails_no_task(seed):
    """A tenth of the scenario's size: its attempts at the bad worker are a matter of time, not of tasks."""
    report = play(SCENARIOS["blackhole"], seed, tasks=2000)
    assert report.states == {"done": 2000}
    assert 0 < report.last_attempts <= 20


def test_a_broken_job_fails_on_two_workers_each_and_hurts_nobody_s_standing():
    report = play(SCENARIOS["broken-job"], 1)
    assert report.states == {"failed": 200, "done": 200}
    assert report.attempts <= 200 + 2.5 * 200
    assert report.last_attempts >= 15, "everybody works for the good job"
    assert report.makespan_s <= 1.5 * report.ideal_s


@pytest.mark.quick
@pytest.mark.parametrize("name", ["one-node", "two-nodes"])
def test_small_meshes_do_not_wait_for_a_worker_that_is_not_there(name):
    report = play(SCENARIOS[name], 1)
    assert report.settled == 40
    assert report.makespan_s < 120


@pytest.mark.parametrize("mean_s", [1.0, 10.0])
def test_nobody_waits_for_a_slow_machine(mean_s):
    scenario = SCENARIOS["slow-worker"]
    work = [msgspec.structs.replace(plan, mean_s=mean_s) for plan in scenario.work(None, scenario.tasks)]
    report = play(msgspec.structs.replace(scenario, work=lambda _rng, _tasks: work), 1)
    of_nine_alone_s = scenario.tasks * mean_s / 9
    assert report.states == {"done": 100}
    assert report.makespan_s <= 1.5 * of_nine_alone_s
