"""Fresh seeds: everything is drawn from the seed, failures say how to see them again."""

import re

import pytest

from simulations import __main__ as command
from simulations import swarm
from simulations.checkers import Broken
from simulations.planted import planted
from simulations.play import play


def test_topology_workload_and_faults_come_from_the_seed():
    scenarios = [swarm.drawn(seed) for seed in range(200)]
    assert {scenario.nodes for scenario in scenarios} >= {1, 2, 40}
    assert {bool(scenario.masters) for scenario in scenarios} == {True, False}
    assert {scenario.links_max for scenario in scenarios} == {None, 6}
    one, again = (play(swarm.drawn(7), 7) for _ in range(2))
    assert one.digest == again.digest


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_good_seeds(capsys, jobs):
    assert command.main(["swarm", "--first", "1", "--count", "4", "--jobs", jobs]) == 0
    said = capsys.readouterr().out
    assert said.startswith("first seed 1\n")
    assert "\n4 seeds, 0 failed: " in said


def test_only_seeds_that_draw_bridges(capsys, monkeypatch):
    played = []

    def judge(seed):
        played.append(seed)
        return swarm.Verdict(seed, None, "not played")

    monkeypatch.setattr(swarm, "judge", judge)
    assert command.main(["swarm", "--first", "1", "--count", "5", "--bridged"]) == 1
    assert played == [seed for seed in range(1, played[-1] + 1) if swarm.drawn(seed).bridges]
    assert "\n5 seeds, 5 failed: " in capsys.readouterr().out


def test_time_is_up(capsys):
    assert command.main(["swarm", "--minutes", "0"]) == 0
    assert "\n0 seeds, 0 failed: " in capsys.readouterr().out


def test_a_failing_seed_says_what_to_type(capsys):
    with planted():
        assert command.main(["swarm", "--first", "1", "--count", "12"]) == 1
        said = capsys.readouterr().out
        again = re.search(r"\n    python -m simulations (--scenario fresh --seed \d+)\n", said)
        assert again is not None
        with pytest.raises(Broken):
            command.main(again.group(1).split())
