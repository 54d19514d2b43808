"""The self-test: distinct reasons, and belief only in a complete set of findings."""

import base64
import json
import os
import re
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import pytest

from p2pq.daemon import basic, jobpython, sandbox, selftest
from p2pq.runner import confine

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
    ("stdout", "found"),
    [
        (json.dumps(HELD), ""),
        (json.dumps(HELD | {"nonce": "other"}), "left out a check"),
        (json.dumps(HELD | {"0": "can write to /usr"}), "can write to /usr"),
        (json.dumps({"nonce": "n"}), "left out a check"),
        (json.dumps([]), None),
        ("{}", None),
        ("", None),
    ],
)
def test_only_a_complete_answer_is_believed(stdout: str, found: str | None) -> None:
    assert selftest.judge(stdout, "n") == found


def test_what_gets_out_is_said_and_no_weaker_sandbox_is_tried() -> None:
    report = selftest._verdict("basic", "Landlock", "can write to /usr")
    assert (report.level, report.suggestion) == ("none", selftest.BUG)
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
    assert selftest.self_test(python(), **homes, bwrap=open_, floor="basic") == report, "a bug is a bug"
    monkeypatch.setattr(sandbox.seccomp, "supported", lambda: False)
    assert "no system call filter" in selftest.self_test(python(), **homes, bwrap=open_).reason


@pytest.mark.sandbox
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap (bwrap) is not installed")
def test_the_real_one_holds(tmp_path: Path) -> None:
    own = sandbox.resolve_python(None, user_home=Path.home(), p2pq_home=tmp_path)
    report = selftest.self_test(own, user_home=Path.home(), p2pq_home=tmp_path, socket_path=tmp_path / "node.sock")
    assert report == selftest.IsolationReport("strict", "bubblewrap held in 13 checks")


needs_landlock = pytest.mark.skipif(bool(basic.problem()), reason=basic.problem() or "never")


def examined(tmp_path: Path, floor: str) -> selftest.IsolationReport:
    """Test a machine on which bubblewrap cannot make a namespace."""
    own = sandbox.resolve_python(None, user_home=Path.home(), p2pq_home=tmp_path / "home")
    (tmp_path / "home").mkdir(exist_ok=True)
    denied = fake_bwrap(
        tmp_path,
        '[ "$1" = --version ] && echo bubblewrap 0.9.0 && exit; echo bwrap: no namespaces >&2; exit 1',
    )
    homes = {"user_home": Path.home(), "p2pq_home": tmp_path / "home"}
    return selftest.self_test(own, **homes, socket_path=tmp_path / "node.sock", bwrap=denied, floor=floor)


@pytest.mark.sandbox
@needs_landlock
def test_the_weaker_one_holds_where_it_is_allowed_and_the_stronger_one_does_not(tmp_path: Path) -> None:
    report = examined(tmp_path, "basic")
    assert (report.level, report.reason) == (
        "basic",
        (
            "Landlock and a system call filter held in 13 checks, which is weaker than strict: "
            "the sandbox did not start: bwrap: no namespaces"
        ),
    )


@needs_landlock
def test_the_weaker_one_is_proposed_and_not_used_where_it_is_not_allowed(tmp_path: Path) -> None:
    report = examined(tmp_path, "strict")
    assert report.level == "none"
    assert report.suggestion == selftest.LOWER


def test_the_weaker_one_is_not_proposed_where_it_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "abi", lambda: 3)
    assert examined(tmp_path, "strict").suggestion == ""
    report = examined(tmp_path, "basic")
    assert report.level == "none"
    assert report.reason.endswith(
        "nor does basic hold: this kernel has version 3 of Landlock, and version 6 is needed (Linux 6.12)"
    )


@needs_landlock
@pytest.mark.parametrize(
    ("left_out", "found"),
    [
        ("filter", "can change the priority|allowed|without a system call filter"),
        ("read", "sees .* processes|can read /"),
        ("write", "can read /"),
    ],
)
def test_the_weaker_one_is_believed_only_as_far_as_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: str, found: str
) -> None:
    """Each with one part of it left out."""
    rules, canary = basic.rules, tempfile.gettempdir()

    def lax(*args: object) -> "confine.Rules":
        made = rules(*args)
        match left_out:
            case "filter":
                allow = struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)
                return {**made, "filter": base64.b64encode(allow).decode()}
            case "read":
                return {**made, "read": ["/"]}
            case _:
                return {**made, "write": [*made["write"], canary]}

    monkeypatch.setattr(basic, "rules", lax)
    report = examined(tmp_path, "basic")
    assert report.level == "none"
    assert re.search(
        f"nor does basic hold: the sandbox does not hold: a probe inside it .*{found}",
        report.reason,
    )


@needs_landlock
def test_where_the_weaker_one_cannot_start_the_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = basic.rules
    monkeypatch.setattr(basic, "rules", lambda *args: {**rules(*args), "filter": "AAAA"})
    assert "nor does basic hold: the sandbox did not start: OSError: [Errno 22]" in examined(tmp_path, "basic").reason


@needs_landlock
def test_the_weaker_one_is_not_believed_where_proc_hides_what_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = selftest.IsolationReport("none", "x" * 400)
    monkeypatch.setattr(selftest, "explain", lambda *_: long)
    listdir = os.listdir

    def lists(path: str) -> list[str]:
        if re.fullmatch(r"/proc/\d+/task", str(path)):
            raise PermissionError(1, "Operation not permitted", path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", lists)
    report = examined(tmp_path, "basic")
    assert (report.level, len(report.reason)) == ("none", 300)
    assert report.reason.endswith("nor does basic hold: this user cannot see its own processes in /proc (hidepid?)")
