"""The table of tiers: a tier that did not run is seen."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import TIERS, sets_in_name, tier_of
from tests.required_tiers import missing, together

ROOT = Path(__file__).parents[2]
FULL = {tier: {"passed": 3, "failed": 0, "skipped": 0, "reasons": Counter()} for tier in TIERS}


def without(tier: str, **figures: object) -> dict[str, dict[str, object]]:
    return {**FULL, tier: {**FULL[tier], **figures}}


@pytest.mark.parametrize(
    ("nodeid", "tier"),
    [
        ("tests/unit/core/test_queue.py::test_x", "unit"),
        ("tests/unit/test_project.py::test_x[a/b]", "unit"),
        ("tests/netns/test_mesh.py::test_x", "netns"),
        ("tests/test_x.py::test_x", "other"),
        ("elsewhere/unit/test_x.py::test_x", "other"),
    ],
)
def test_a_tier_is_a_folder(nodeid, tier):
    assert tier_of(nodeid) == tier


@pytest.mark.parametrize(
    ("value", "refused"), [({1, "a"}, True), (frozenset("ab"), True), ({1}, False), ([1, 2], False)]
)
def test_a_name_that_differs_between_processes_is_refused(value, refused):
    named = SimpleNamespace(callspec=SimpleNamespace(params={"value": value}), name=f"test_x[{value!r}]")
    otherwise = SimpleNamespace(callspec=named.callspec, name="test_x[two of them]")
    assert bool(sets_in_name(named)) is refused
    assert not sets_in_name(otherwise)
    assert not sets_in_name(SimpleNamespace(name="test_x"))


def test_skips_for_want_of_a_user_say_so_in_the_words_that_are_excused():
    conditions = re.compile(r"skipif\(\s*(?:not )?(?:AS_ROOT|os\.geteuid\(\)[^,]*),\s*reason=f?\"([^\"]*)\"")
    reasons = [why for path in (ROOT / "tests").rglob("*.py") for why in conditions.findall(path.read_text())]
    assert len(reasons) > 2
    assert [why for why in reasons if not why.startswith(("needs an ordinary user", "needs root"))] == []


@pytest.mark.parametrize("root", [True, False])
def test_everything_ran(root):
    assert missing(FULL, root=root) == []


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_that_did_not_run_is_missing(tier):
    assert missing(without(tier, passed=0), root=True) == [f"{tier}: nothing ran"]


def test_a_tier_may_run_in_any_part_of_the_suite():
    parts = [
        without("netns", passed=0),
        {tier: {**FULL[tier], "passed": 0} for tier in TIERS} | {"netns": FULL["netns"]},
    ]
    assert missing(together(parts), root=True) == []
    assert missing(together(parts[:1]), root=True) == ["netns: nothing ran"]
    skips = without("sandbox", reasons={"needs bubblewrap": 1})
    assert missing(together([FULL, skips]), root=True) == ["sandbox: skipped: needs bubblewrap"]


def test_only_root_must_run_the_network_namespaces():
    assert missing(without("netns", passed=0, reasons={"needs root: network namespaces": 4}), root=False) == []


def test_a_skip_needs_an_excuse_that_fits_the_user():
    bare = without("sandbox", skipped=1, reasons={"needs bubblewrap": 1})
    assert missing(bare, root=True) == missing(bare, root=False) == ["sandbox: skipped: needs bubblewrap"]
    ordinary = without("e2e", skipped=1, reasons={"needs an ordinary user that can read the checkout": 1})
    assert missing(ordinary, root=True) == []
    assert len(missing(ordinary, root=False)) == 1


@pytest.mark.slow
def test_figures_and_table_tell_passed_skipped_failed_and_their_reasons(tmp_path):
    """Run a little suite of its own under this project's conftest."""
    suite = tmp_path / "tests"
    (suite / "unit").mkdir(parents=True)
    (suite / "netns").mkdir()
    (suite / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (suite / "unit" / "test_a.py").write_text(
        "import os, pytest\n"
        "def test_ok(): assert 'P2PQ_HOME' not in os.environ\n"
        "def test_bad(): assert 0\n"
        "@pytest.mark.sandbox\n"
        "@pytest.mark.skip(reason='not today')\n"
        "def test_skip(): pass\n"
    )
    (suite / "netns" / "test_b.py").write_text(
        "def test_fast(request): assert request.node.get_closest_marker('netns')\n"
    )
    figures = tmp_path / "figures.json"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path,
        env={**environ, "PYTEST_TIERS_FILE": str(figures), "P2PQ_HOME": "/nonexistent"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    told = json.loads(figures.read_text())
    assert told["unit"] == {"passed": 1, "failed": 1, "skipped": 1, "reasons": {"not today": 1}}
    assert re.search(r"^unit      1 passed, 1 failed, 1 skipped \(not today\), \d+ s$", done.stdout, re.MULTILINE)
    assert "property  not run" in done.stdout
    assert told["sandbox"]["skipped"] == 1
    if os.geteuid() == 0:
        assert told["netns"]["passed"] == 1
    else:
        assert told["netns"]["reasons"] == {"needs root: network namespaces": 1}
