"""What every test shares: a clean environment, tiers by folder, and a table of what ran at the end.

A tier is a folder below tests/; tests marked ``sandbox`` or ``desktop`` count for that tier wherever they lie. A tier that
was skipped is said, with its reason; .ci/run reads the same figures from the file named by PYTEST_TIERS_FILE and fails for a
missing one.
"""

import json
import os
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parent
TIERS = ("unit", "property", "tidy", "sim", "sandbox", "desktop", "netns", "e2e")
DESKTOP = ("Xvfb", "xdotool", "xset", "dbus-daemon")
"""Programs that tests marked ``desktop`` need; .ci/run installs them."""
OUTCOMES = ("passed", "failed", "skipped")

hypothesis.settings.register_profile("p2pq", deadline=None, print_blob=True)
hypothesis.settings.load_profile("p2pq")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the developer's own node and settings out of the tests."""
    for name in [name for name in os.environ if name.startswith("P2PQ_")]:
        del os.environ[name]
    if os.geteuid() == 0:
        os.environ["P2PQ_ALLOW_ROOT"] = "1"
    config.pluginmanager.register(TierTable(), "tiers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark by folder, so that no slow tier leaks into the fast tests; skip what this machine cannot do, saying why."""
    for item in items:
        if varying := sets_in_name(item):
            msg = (
                f"{item.nodeid}: name it with ids= so that it is the same in every process; it holds the set {varying}"
            )
            raise pytest.UsageError(msg)
        tier = tier_of(item.nodeid)
        if tier in ("property", "sim", "sandbox", "netns", "e2e"):
            item.add_marker(tier)
        if tier == "netns" and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root: network namespaces"))
        if tier == "e2e":
            item.add_marker(pytest.mark.xdist_group("e2e"))  # nodes started again want the port that they had
        elif item.get_closest_marker("sandbox") and bombs(item):
            item.add_marker(pytest.mark.xdist_group("bombs"))  # those of one test would disturb another
        if item.get_closest_marker("sandbox"):
            item.user_properties.append(("tier", "sandbox"))
            if why := no_sandbox():
                item.add_marker(pytest.mark.skip(reason=why))
        if item.get_closest_marker("desktop"):
            item.user_properties.append(("tier", "desktop"))
            if lacking := [program for program in DESKTOP if shutil.which(program) is None]:
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(lacking)}, which .ci/run installs"))


def sets_in_name(item: pytest.Item) -> str:
    """Return a set in a test's name, or "": its order differs between processes, and xdist's then collect other tests."""
    params = getattr(item, "callspec", None) and item.callspec.params.values()
    sets = [repr(value) for value in params or () if isinstance(value, set | frozenset) and len(value) > 1]
    return next((shown for shown in sets if shown in item.name), "")


def bombs(item: pytest.Item) -> bool:
    """Tell whether a test is of those that fill processes, memory and disks on purpose."""
    return item.path.name == "test_hostile.py"


def tier_of(nodeid: str) -> str:
    """Return the tier of a test by its folder: ``tests/unit/core/test_queue.py::test_x`` is ``unit``."""
    parts = nodeid.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "tests" else "other"


@cache
def no_sandbox() -> str:
    """Return why bubblewrap does not work here, or an empty string."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return "needs bubblewrap: no bwrap on the PATH"
    argv = [bwrap, "--unshare-all", "--ro-bind", "/", "/", "true"]
    probe = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return "" if probe.returncode == 0 else f"needs a working bubblewrap: {probe.stderr.strip()}"


class TierTable:
    """Counts outcomes by tier, prints them before the closing line and writes them where CI wants them."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.counts: dict[str, Counter[str]] = {tier: Counter() for tier in TIERS}
        self.seconds: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {tier: Counter() for tier in TIERS}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count as pytest does: a test by its call, errors of set-up and teardown as failures."""
        tiers = {tier_of(report.nodeid)} | {value for name, value in report.user_properties if name == "tier"}
        for tier in tiers & self.counts.keys():
            self.seconds[tier] += report.duration
        if report.when != "call" and report.outcome == "passed":
            return
        for tier in sorted(tiers & self.counts.keys()):
            self.counts[tier][report.outcome] += 1
            if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
                self.reasons[tier][report.longrepr[2].removeprefix("Skipped: ")] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print which tiers ran, and for how long: the sum over tests, several of which may have run at a time."""
        terminalreporter.section("tiers")
        for tier in TIERS:
            counts = self.counts[tier]
            said = ", ".join(f"{counts[o]} {o}" for o in OUTCOMES if counts[o]) or "not run"
            why = "; ".join(self.reasons[tier])
            took = f", {self.seconds[tier]:.0f} s" if self.seconds[tier] else ""
            terminalreporter.write_line(f"{tier:<9} {said}" + (f" ({why})" if why else "") + took)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the figures; only the process that the user started has them all."""
        target = os.environ.get("PYTEST_TIERS_FILE")
        if target is None or hasattr(session.config, "workerinput"):
            return
        figures = {
            tier: {**{o: self.counts[tier][o] for o in OUTCOMES}, "reasons": self.reasons[tier]} for tier in TIERS
        }
        Path(target).write_text(json.dumps(figures, indent=1))
