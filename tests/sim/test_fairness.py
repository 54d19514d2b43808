"""Owners share time: the seven hard cases of ``python -m simulations fairness``, with fewer seeds."""

import pytest

from simulations.fairness import GOAL, cases, jain, main, measure

SECONDS = 5000.0

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("case", cases(SECONDS), ids=lambda case: case.name)
def test_owners_share_time(case):
    assert measure(case, "time", seed=11, seconds=SECONDS) >= GOAL


def test_a_uniform_draw_does_not_share_time():
    first = cases(SECONDS)[0]
    assert measure(first, "uniform", seed=11, seconds=1000.0) < 0.6


def test_jain_knows_the_extremes():
    assert jain([3.0, 3.0, 3.0]) == 1.0
    assert jain([1.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain([0.0, 0.0]) == 1.0


def test_equal_seeds_give_equal_figures_and_a_table(capsys):
    assert main(["--seeds", "1", "--seconds", "200"]) in {0, 1}
    first = capsys.readouterr().out
    main(["--seeds", "1", "--seconds", "200"])
    assert capsys.readouterr().out == first
    assert len(first.splitlines()) == 2 + 7
