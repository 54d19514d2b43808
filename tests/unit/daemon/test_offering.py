from pathlib import Path

import pytest

from p2pq.daemon import offering
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.offering import Machine
from p2pq.daemon.selftest import IsolationReport
from p2pq.model.config import NodeSettings, RunnerSettings, Settings

PYTHON = JobPython(executable=Path("/usr/bin/python3"), prefixes=(), version="3.11.7")
STRICT = IsolationReport("strict", "held")
MACHINE = Machine(slots=4, memory_mb=8000, task_memory_mb=2000)


def offer(settings: Settings, report: IsolationReport = STRICT, found: Machine = MACHINE):
    return offering.offering(settings, found, PYTHON, frozenset({"numpy", "os", "_private"}), report)


def test_guests_are_welcome_where_strict_holds() -> None:
    event = offer(Settings(node=NodeSettings(labels={"pool": "rack"})))
    assert (event.profile.accepts, event.profile.reason, event.profile.slots) == (True, "", 4)
    assert event.profile.labels[0] == ("pool", "rack")
    assert {("python", "3.11.7"), ("python", "3.11"), ("has", "numpy")} < set(event.profile.labels)
    assert not {("has", "os"), ("has", "_private")} & set(event.profile.labels)


@pytest.mark.parametrize(
    ("settings", "report", "found", "reason"),
    [
        (Settings(node=NodeSettings(accept=False)), STRICT, MACHINE, "nobody else's"),
        (Settings(), IsolationReport("none", "bubblewrap is missing"), MACHINE, "bubblewrap is missing"),
        (Settings(), STRICT, Machine(slots=0, memory_mb=1, task_memory_mb=1), "no slots"),
    ],
)
def test_guests_are_told_why_not_and_own_tasks_run_all_the_same(
    settings: Settings, report: IsolationReport, found: Machine, reason: str
) -> None:
    event = offer(settings, report, found)
    assert not event.profile.accepts
    assert reason in event.profile.reason
    assert event.own.accepts
    assert event.own.slots >= 1


def test_guests_are_not_welcome_on_a_full_disk() -> None:
    event = offering.offering(Settings(), MACHINE, PYTHON, frozenset(), STRICT, "its disk is nearly full")
    assert (event.profile.accepts, event.profile.reason) == (False, "its disk is nearly full")
    assert event.own.accepts


def test_settings_come_before_what_the_machine_has() -> None:
    settings = Settings(node=NodeSettings(slots=3), runner=RunnerSettings(memory_mb=700))
    found = offering.machine(settings)
    assert (found.slots, found.task_memory_mb) == (3, 700)
    assert offering.machine(Settings()).task_memory_mb >= 512


def test_many_modules_are_cut_and_own_labels_stay() -> None:
    features = frozenset(f"module{number}" for number in range(1000)) | {"x" * 65}
    found = offering.labels(Settings(node=NodeSettings(labels={"pool": "rack"})), PYTHON, features)
    assert len(found) == 256
    assert found[0] == ("pool", "rack")
    assert ("has", "x" * 65) not in found


def test_an_interpreter_that_does_not_run_is_a_reason(tmp_path: Path) -> None:
    settings = Settings(runner=RunnerSettings(python=str(tmp_path / "missing")))
    python, problem = offering.find_python(settings, tmp_path)
    assert "does not run as a Python interpreter" in problem
    report, features = offering.prove(python, tmp_path, tmp_path / "node.sock", problem)
    assert (report.level, report.reason) == ("none", problem)
    assert python.executable == tmp_path / "missing", "no other interpreter takes its place"
    assert not features


def test_an_interpreter_may_be_named_from_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings(runner=RunnerSettings(python="~/jobs/bin/python"))
    python, problem = offering.find_python(settings, tmp_path / "node")
    assert python.executable == tmp_path / "jobs" / "bin" / "python"
    assert problem.startswith(
        f"{tmp_path}/jobs/bin/python does not run as a Python interpreter (No such file or directory)"
    )


def test_environments_are_offered_only_where_a_sandbox_holds() -> None:
    for level, builds, offered in (("strict", True, True), ("strict", False, False), ("none", True, False)):
        report = IsolationReport(level, "x")  # type: ignore[arg-type]
        found = offering.offering(Settings(), offering.machine(Settings()), PYTHON, frozenset(), report, builds=builds)
        assert ((("env", "uv") in found.profile.labels), ("env", "uv") in found.own.labels) == (offered, offered)


def test_guests_who_ask_for_no_more_are_welcome_where_basic_holds_and_nothing_is_built_for_them() -> None:
    report = IsolationReport("basic", "Landlock held")
    event = offering.offering(Settings(), MACHINE, PYTHON, frozenset(), report, builds=True)
    assert (event.profile.accepts, event.profile.sandbox, event.own.sandbox) == (True, "basic", "basic")
    assert ("env", "uv") not in event.profile.labels


def test_gpus_are_offered_to_guests_and_to_own_tasks() -> None:
    event = offer(Settings(), found=Machine(slots=1, memory_mb=1, task_memory_mb=1, gpus=(0, 3)))
    assert (event.profile.gpus, event.own.gpus) == (2, 2)
    assert offering.machine(Settings(node=NodeSettings(gpus=3))).gpus == (0, 1, 2)
