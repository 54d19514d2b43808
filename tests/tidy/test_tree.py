"""The tree explains the project: tests mirror sources, and every folder that the documentation names exists."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIRRORED = ("core", "wire", "model", "daemon")
SOURCES = sorted(
    path for package in MIRRORED for path in (ROOT / "p2pq" / package).rglob("*.py") if path.name != "__init__.py"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_module_has_a_test_file_of_its_name(path):
    """Under tests/unit, or under tests/sandbox where it cannot be tested without a sandbox."""
    inside = path.relative_to(ROOT / "p2pq")
    test = ROOT / "tests" / "unit" / inside.parent / f"test_{inside.name}"
    assert test.is_file() or (ROOT / "tests" / "sandbox" / test.name).is_file(), f"write {test.relative_to(ROOT)}"


@pytest.mark.parametrize("folder", ["p2pq", "simulations", "tests", "configs", "examples", "benchmarks", "docs"])
def test_top_level_folders_hold_something(folder):
    assert any(path.is_file() for path in (ROOT / folder).rglob("*"))


@pytest.mark.parametrize("name", ["pi", "brian2-sweep", "shell", "checkpoint"])
def test_each_example_has_a_short_readme_and_something_to_run(name):
    folder = ROOT / "examples" / name
    assert len((folder / "README.md").read_text().splitlines()) <= 15
    assert (folder / "main.py").is_file() != (folder / "main.sh").is_file()
