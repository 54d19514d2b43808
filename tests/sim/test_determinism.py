"""Equal seeds give equal runs, in this process, in another, and whatever order sets would have."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.play import play
from simulations.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]


def digest(seed: int) -> str:
    return play(SCENARIOS["swarm"], seed, nodes=8, tasks=40).digest


def command(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulations", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_equal_seeds_are_equal_and_others_are_not():
    assert digest(3) == digest(3) != digest(4)


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_hash_order_does_not_matter(hash_seed):
    said = command("--seed", "3", "--nodes", "8", "--tasks", "40", "--scenario", "swarm", hash_seed=hash_seed)
    assert said.returncode == 0, said.stderr
    found = re.search(r"^digest +(\w+)$", said.stdout, re.MULTILINE)
    assert found is not None
    assert found.group(1) == digest(3)


def test_the_command_lists_its_scenarios():
    said = command("--list").stdout
    assert [line.split()[0] for line in said.splitlines()] == list(SCENARIOS)
