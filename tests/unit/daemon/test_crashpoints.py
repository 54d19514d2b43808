"""Points at which a process dies: only where it was asked to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from p2pq.daemon import crashpoints

ROOT = Path(__file__).parents[3]
PROGRAM = """
from p2pq.daemon import crashpoints
for _ in range(3):
    crashpoints.reached("blob.renamed")
    crashpoints.reached("blob.written")
    print(crashpoints.armed(), flush=True)
"""


def run(value: str | None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)} | ({} if value is None else {crashpoints.VARIABLE: value})
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("value", [None, "", "nowhere", "blob.written:4"])
def test_a_process_lives(value: str | None) -> None:
    done = run(value)
    assert done.returncode == 0
    assert done.stdout.split() == [str(value == "blob.written:4")] * 3


@pytest.mark.parametrize(("value", "lines"), [("blob.written", 0), ("blob.written:1", 0), ("blob.written:3", 2)])
def test_a_process_dies_the_kth_time(value: str, lines: int) -> None:
    done = run(value)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["True"] * lines


def test_every_point_that_the_code_names_is_known_and_each_once() -> None:
    named = {
        line.split('reached("')[1].split('"')[0]
        for path in (ROOT / "p2pq").rglob("*.py")
        for line in path.read_text().splitlines()
        if 'crashpoints.reached("' in line
    }
    assert named == {point for point in crashpoints.POINTS if not point.startswith("commit.")}
    assert len(set(crashpoints.POINTS)) == len(crashpoints.POINTS)
