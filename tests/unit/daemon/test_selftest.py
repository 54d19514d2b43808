"""The self-test: distinct reasons, and belief only in a complete set of findings."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from p2pq.daemon import jobpython, sandbox, selftest

HELD = dict.fromkeys(map(str, range(selftest.FINDINGS))) | {"nonce": "n"}


@pytest.mark.parametrize(
    ("stderr", "settings", "words", "advice"),
    [
        ("x", {"kernel.unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone", "sysctl"),
        ("x", {"user.max_user_namespaces": "0"}, "user.max_user_namespaces", "sysctl"),
        (
            "bwrap: setting up uid map: Permission denied",
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "AppArmor",
            "apparmor",
        ),
        (
            "bwrap: No permissions to create new namespace, likely because ...",
            {"container": "1", "user.max_user_namespaces": "100"},
            "container",
            "seccomp=unconfined",
        ),
        ("bwrap: Can't find \x1b[2J/usr", {"container": "1"}, r"did not start: bwrap: Can't find \?", ""),
        ("Traceback (most\n  File\nOSError: no ctypes", {}, "OSError: no ctypes", ""),
        ("", {}, "printed nothing", ""),
    ],
)
def test_reasons_are_distinct(stderr: str, settings: dict[str, str], words: str, advice: str) -> None:
    report = selftest.explain(stderr, settings)
    assert report.level == "none"
    assert re.search(words, report.reason)
    assert advice in report.suggestion


@pytest.mark.parametrize(
    ("stdout", "level"),
    [
        (json.dumps(HELD), "strict"),
        (json.dumps(HELD | {"nonce": "other"}), "none"),
        (json.dumps(HELD | {"0": "can write to /usr"}), "none"),
        (json.dumps({"nonce": "n"}), "none"),
        (json.dumps([]), "none"),
        ("{}", "none"),
        ("", "none"),
    ],
)
def test_only_a_complete_answer_is_believed(stdout: str, level: str) -> None:
    report = selftest.judge(stdout, "", "n", {})
    assert report.level == level
    if "can write" in stdout:
        assert report.reason.endswith("a probe inside it can write to /usr")


def fake_bwrap(tmp_path: Path, script: str) -> str:
    path = tmp_path / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def python() -> jobpython.JobPython:
    return jobpython.JobPython(Path(sys.executable), (), "3")


def test_missing_old_and_broken_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = {"user_home": tmp_path / "u", "p2pq_home": tmp_path / "p"}
    monkeypatch.setattr(selftest, "find_bwrap", lambda: None)
    report = selftest.self_test(python(), **homes)
    assert (report.level, report.reason) == ("none", "bubblewrap (bwrap) is not installed")
    assert "apt install bubblewrap" in report.suggestion
    old = fake_bwrap(tmp_path, "echo bubblewrap 0.6.1")
    assert "0.6.1 is too old" in selftest.self_test(python(), **homes, bwrap=old).reason
    mute = fake_bwrap(tmp_path, "true")
    assert "unknown version" in selftest.self_test(python(), **homes, bwrap=mute).reason
    missing = str(tmp_path / "missing")
    assert "unknown version" in selftest.self_test(python(), **homes, bwrap=missing).reason
    # One that isolates nothing: it starts the command as it is.
    open_ = fake_bwrap(
        tmp_path,
        '[ "$1" = --version ] && echo bubblewrap 0.9.0 && exit; while [ "$1" != -- ]; do shift; done; shift; '
        f'shift; exec {sys.executable} -I {selftest.probe.__file__} "$5"',
    )
    report = selftest.self_test(python(), **homes, bwrap=open_)
    assert report.level == "none"
    assert "does not hold: a probe inside it shares the user" in report.reason
    monkeypatch.setattr(sandbox.seccomp, "supported", lambda: False)
    assert "no system call filter" in selftest.self_test(python(), **homes, bwrap=open_).reason


@pytest.mark.sandbox
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap (bwrap) is not installed")
def test_the_real_one_holds(tmp_path: Path) -> None:
    own = sandbox.resolve_python(None, user_home=Path.home(), p2pq_home=tmp_path)
    report = selftest.self_test(own, user_home=Path.home(), p2pq_home=tmp_path, socket_path=tmp_path / "node.sock")
    assert report == selftest.IsolationReport("strict", "bubblewrap held in 12 checks")
