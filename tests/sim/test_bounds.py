"""What is typed after ``python -m simulations`` is a run that can be played, or is refused in one sentence."""

import pytest

from simulations.__main__ import main

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--scenario one-node --nodes -3", "argument --nodes: '-3' is not a whole number from 0 to 20000"),
        ("--nodes 99999999999999999999999", "argument --nodes: '99999999999999999999999' is not a whole number"),
        ("--tasks -1", "argument --tasks: '-1' is not a whole number from 0 to 10000000"),
        ("--seed 1e9", "argument --seed: '1e9' is not a whole number"),
        (
            "--scenario clean --nodes 1",
            "argument --nodes: in a mesh of one nobody works for others; the least here is 2",
        ),
        ("seeds --nodes 1", "argument --nodes: in a mesh of one nobody works for others; the least here is 2"),
        ("seeds --count 0", "argument --count: '0' is not a whole number from 1 to 1000000"),
        ("swarm --jobs 0", "argument --jobs: '0' is not a whole number from 1 to 1024"),
        ("fairness --seeds -1", "argument --seeds: '-1' is not a whole number"),
        ("hierarchy --progress 0", "argument --progress: '0' is not a whole number from 1 to 1000000"),
        ("weight --tasks 0", "argument --tasks: '0' is not a whole number"),
    ],
)
def test_numbers_are_bounded(typed: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(typed.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("tasks", [1, 3])
def test_few_tasks_are_enough(tasks: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenario", "one-node", "--nodes", "1", "--tasks", str(tasks)]) == 0
    assert "1 nodes" in capsys.readouterr().out
