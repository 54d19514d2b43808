"""The bubblewrap command line: what a job can see, and nothing else."""

import os
from pathlib import Path

import pytest

from p2pq.daemon import sandbox, seccomp
from p2pq.daemon.jobpython import JobPython
from p2pq.errors import SandboxError

PYTHON = JobPython(Path("/tmp/co/venv/bin/python"), (Path("/tmp/co/venv"), Path("/opt/py")), "3.12.1")


def pairs(argv: list[str], option: str) -> list[tuple[str, str]]:
    return [(argv[at + 1], argv[at + 2]) for at, item in enumerate(argv) if item == option]


def test_the_command_line() -> None:
    job = Path('/h/it\'s "a" job')
    command = sandbox.strict_command(
        "/usr/bin/bwrap",
        PYTHON,
        job,
        ["cmd", "--bind"],
        [sandbox.Mount(Path("/x/r.py"), "/r.py"), sandbox.Mount(Path("/x/w"), "/w", writable=True)],
    )
    try:
        argv = command.argv
        assert argv[-3:] == ["--", "cmd", "--bind"]
        options = argv[: argv.index("--")]
        for needed in (
            *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
            *("--new-session", "--as-pid-1", "--clearenv", "--seccomp"),
        ):
            assert options.count(needed) == 1, needed
        assert pairs(options, "--cap-drop")[0][0] == "ALL"
        # The job's folder, and what is said to be, is all that is writable of the host.
        assert pairs(options, "--bind") == [("/x/w", "/w"), (str(job), "/job")]
        assert "--dev-bind" not in options
        assert "--share-net" not in options
        bound = {source for source, _ in pairs(options, "--ro-bind")}
        assert bound <= {
            "/usr",
            "/bin",
            "/sbin",
            "/lib",
            "/lib32",
            "/lib64",
            "/libx32",
            "/tmp/co/venv",
            "/opt/py",
            "/x/r.py",
        }
        # A checkout in /tmp must be bound after the sandbox's own /tmp, and all before the root is closed.
        assert options.index("/tmp/co/venv") > options.index("/tmp")
        assert options[-6:-2] == ["--remount-ro", "/dev", "--remount-ro", "/"]
        assert len(command.fds) == 3
        for fd in command.fds:
            assert str(fd) in options
            assert not os.get_inheritable(fd)
        assert dict(pairs(options, "--setenv")) == sandbox.base_environment(PYTHON)
    finally:
        command.close()
    assert command.fds == ()


def test_the_environment_finds_the_job_s_python() -> None:
    assert sandbox.base_environment(PYTHON)["PATH"] == "/tmp/co/venv/bin:/usr/bin:/bin"


def test_prefixes_in_tmp_are_not_emptied() -> None:
    assert sandbox.mounts_below_scratch(PYTHON) == [["tmp", "co", "venv"]]


def test_no_filter_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "supported", lambda: False)
    with pytest.raises(SandboxError, match="no system call filter"):
        sandbox.strict_command("bwrap", PYTHON, Path("/j"), ["x"])
