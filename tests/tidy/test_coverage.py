"""The pure layers are covered in full, every branch, by their own unit and property tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = ("core", "wire", "model")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_branch_of_core_wire_and_model_is_covered(tmp_path):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ["COVERAGE_FILE"] = str(tmp_path / "coverage")
    source = ",".join(f"p2pq.{package}" for package in PURE)
    suites = [f"tests/unit/{package}" for package in PURE] + ["tests/property"]
    measure = ["run", "--branch", f"--source={source}", "-m", "pytest", "-q", "-p", "no:cacheprovider", *suites]
    report = ["report", "--show-missing", "--skip-covered", "--fail-under=100"]
    for step in (measure, report):
        done = subprocess.run(
            [sys.executable, "-m", "coverage", *step],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=580,
            check=False,
        )
        print(done.stdout, done.stderr)
        assert done.returncode == 0, "see the captured output for what is not covered"
