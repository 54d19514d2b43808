"""A master that accepts results by task instead of by lease is found out, and what finds it can be repeated."""

import re

import pytest

from simulations import __main__ as command
from simulations.checkers import Broken
from simulations.planted import planted
from simulations.play import play
from simulations.scenarios import SCENARIOS

SCENARIO = SCENARIOS["partitions"]


def play_ten():
    with planted():
        for seed in range(1, 11):
            play(SCENARIO, seed)


def test_partitions_find_the_planted_fault():
    with pytest.raises(Broken, match="a result under another lease"):
        play_ten()


def test_failing_seeds_are_printed_with_what_to_type(capsys):
    arguments = ["seeds", "--count", "4", "--scenario", "partitions", "--nodes", "20", "--planted"]
    assert command.main(arguments) == 1
    again = re.search(
        r"python -m simulations (--seed \d+ --scenario partitions --nodes 20 --planted)", capsys.readouterr().out
    )
    assert again is not None
    with pytest.raises(Broken):
        command.main(again.group(1).split())


def test_without_it_the_same_seeds_pass(capsys):
    assert command.main(["seeds", "--count", "1", "--scenario", "partitions"]) == 0
    assert "0 failed; 300 tasks settled" in capsys.readouterr().out
