"""Shutting a process in: what the rules name is in reach, the rest is not, and what cannot be shut in does not run."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from p2pq.daemon import basic, jobpython, seccomp
from p2pq.runner import confine

needs_landlock = pytest.mark.skipif(bool(basic.problem()), reason=basic.problem() or "never")


@pytest.fixture
def rules(tmp_path: Path) -> "confine.Rules":
    python = jobpython.resolve_python(None, user_home=Path.home(), p2pq_home=tmp_path / "home")
    (tmp_path / "own").mkdir()
    return basic.rules(python, [tmp_path / "own"])


def entered(rules: "confine.Rules", *argv: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that is shut in, by the program that the module is."""
    command = [sys.executable, "-I", "-S", confine.__file__, json.dumps(rules), *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"LANG": "C"}, timeout=60)


@needs_landlock
def test_what_the_rules_name_is_in_reach_and_the_rest_is_not(rules: "confine.Rules", tmp_path: Path) -> None:
    (tmp_path / "others").write_text("secret")
    code = f"cd {tmp_path}/own && echo a > b && cat b /proc/loadavg > c && cat c; cat ../others; echo x > ../more; ls /proc"
    done = entered(rules, "/bin/sh", "-c", code)
    assert done.stdout.startswith("a\n")
    assert "secret" not in done.stdout
    assert done.stderr.count("ermission denied") == 3, done.stderr
    assert {each.name for each in tmp_path.iterdir()} == {"own", "others"}


@needs_landlock
def test_a_file_of_proc_stays_in_reach_of_whoever_holds_it(rules: "confine.Rules") -> None:
    """Its inode is made anew when nobody has it open and the kernel wants the memory; the runner has them open."""
    held = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in rules["read"] if path.startswith("/proc/")]
    assert len(held) == 6
    try:
        assert entered(rules, "/bin/cat", "/proc/uptime").returncode == 0
    finally:
        for fd in held:
            os.close(fd)


@needs_landlock
def test_what_is_open_may_be_opened_again_and_no_device_made_of_it(rules: "confine.Rules", tmp_path: Path) -> None:
    out, err = (os.open(tmp_path / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for name in ("out", "err"))
    argv = ["/bin/sh", "-c", "echo said > /dev/stdout; echo wrong > /dev/stderr; read line; echo read $?; ls /dev"]
    pid = confine.spawn(argv, {"PATH": "/bin"}, (-1, out, err), rules, ())
    assert os.getpgid(pid) == pid
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    assert (tmp_path / "err").read_text().startswith("wrong\n")
    assert "ermission denied" in (tmp_path / "err").read_text()
    os.close(out)
    os.close(err)
    assert (tmp_path / "out").read_text().endswith("read 1\n")


@needs_landlock
@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["no-such-program"], FileNotFoundError),
        (["/etc/passwd"], PermissionError),
        (["/bin/tr\0ue"], OSError),
    ],
)
def test_what_cannot_be_executed_is_an_error_here(
    rules: "confine.Rules", argv: list[str], error: type[OSError]
) -> None:
    before = set(psutil.Process().children())
    with pytest.raises(error):
        confine.spawn(argv, {"PATH": "/bin"}, (-1, 1, 2), rules, ())
    assert set(psutil.Process().children()) <= before, "no child is left, not even a dead one"


def test_without_rules_nothing_is_executed() -> None:
    with pytest.raises(PermissionError, match="nobody has said"):
        confine.spawn(["/bin/true"], {}, (-1, 1, 2), None, ())


@needs_landlock
@pytest.mark.parametrize("wrong", ["filter", "folder"])
def test_what_cannot_be_shut_in_is_not_executed(rules: "confine.Rules", tmp_path: Path, wrong: str) -> None:
    if wrong == "filter":
        rules["filter"] = base64.b64encode(b"\xff" * 8).decode()  # no instruction that there is
    else:
        rules["filter"] = base64.b64encode(
            seccomp.program(os.uname().machine, shared=True)[:-8]
        ).decode()  # ends nowhere
    with pytest.raises(OSError, match="Invalid argument"):
        confine.spawn(["/bin/sh", "-c", f"echo > {tmp_path}/own/ran"], {"PATH": "/bin"}, (-1, 1, 2), rules, ())
    assert list((tmp_path / "own").iterdir()) == []


def test_a_kernel_without_enough_landlock_shuts_nothing_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "abi", lambda: confine.ABI_MIN - 1)
    with pytest.raises(OSError, match=r"Landlock 5 is too old, 6 \(Linux 6\.12\) is needed"):
        confine.landlock({"read": [], "write": [], "devices": [], "filter": ""})


@needs_landlock
def test_what_dies_with_its_runner(rules: "confine.Rules", tmp_path: Path) -> None:
    """A task's first process does, whatever becomes of the runner."""
    code = (
        "import json, os, sys\n"
        f"sys.path.insert(0, {str(Path(confine.__file__).parent)!r})\n"
        "import confine\n"
        "pid = confine.spawn(['/bin/sleep', '1000'], {}, (-1, 1, 2), json.loads(sys.argv[1]), ())\n"
        "print(pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, json.dumps(rules)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    # The pipe is at its end only when the sleeper, which has it too, is dead.
    assert done.stdout.strip().isdigit()
    assert done.returncode == -9
