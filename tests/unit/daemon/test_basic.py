"""The level ``basic``: what is in reach, by which rules, and how what outlives a runner is told from all else."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from p2pq.daemon import basic, jobpython, seccomp
from p2pq.daemon.sandbox import Mount
from p2pq.daemon.scratch import Scratch
from p2pq.errors import SandboxError
from p2pq.runner import confine

needs_landlock = pytest.mark.skipif(bool(basic.problem()), reason=basic.problem() or "never")


@pytest.fixture
def python(tmp_path: Path) -> jobpython.JobPython:
    return jobpython.resolve_python(None, user_home=Path.home(), p2pq_home=tmp_path / "home")


@pytest.fixture
def marked(tmp_path: Path):
    """Start a process with the mark of a runner whose scratch folder lies in a folder."""
    started = []

    def start(mark: int) -> "subprocess.Popen[bytes]":
        code = f"import resource, time; resource.setrlimit({confine.RLIMIT_LOCKS}, ({mark}, {mark})); print(); time.sleep(1000)"
        process = subprocess.Popen([sys.executable, "-I", "-S", "-u", "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@needs_landlock
def test_the_rules_name_the_system_the_python_and_the_folders(python: jobpython.JobPython, tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch" / "1")
    found = basic.confinement(python, scratch, [Mount(tmp_path / "environment", "/environment")])
    assert found.rules["write"] == [str(scratch.job), str(scratch.temporary), str(scratch.begun)]
    assert found.outputs == str(scratch.output)
    read = found.rules["read"]
    assert {"/usr", str(tmp_path / "environment"), "/proc/meminfo", *map(str, python.prefixes)} <= set(read)
    assert not {"/", "/proc", "/etc", "/dev", "/sys", "/home", "/tmp", str(tmp_path)} & set(read)
    assert "/dev/null" in found.rules["devices"]
    assert "/dev/tty" not in found.rules["devices"]
    assert basic.rules(python, [], devices=[Path("/dev/nvidia0")])["devices"][-1] == "/dev/nvidia0"


def test_the_reason_why_it_cannot_be_is_one_sentence(
    python: jobpython.JobPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confine, "abi", lambda: 4)
    assert basic.problem() == "this kernel has version 4 of Landlock, and version 6 is needed (Linux 6.12)"
    monkeypatch.setattr(confine, "abi", lambda: 0)
    assert basic.problem() == "this kernel has nothing of Landlock, and version 6 is needed (Linux 6.12)"
    with pytest.raises(SandboxError, match="nothing of Landlock"):
        basic.rules(python, [])
    monkeypatch.setattr(seccomp, "supported", lambda: False)
    assert basic.problem().startswith("there is no system call filter for ")


def test_nothing_of_the_daemon_s_environment_is_passed_on(python: jobpython.JobPython, tmp_path: Path) -> None:
    found = basic.base_environment(python, tmp_path / "job", tmp_path / "tmp")
    assert found == {
        "PATH": f"{python.bin}:/usr/bin:/bin",
        "HOME": str(tmp_path / "job"),
        "LANG": "C.UTF-8",
        "TMPDIR": str(tmp_path / "tmp"),
        "USER": "job",
    }


@needs_landlock
def test_what_is_left_of_one_runner_is_killed_and_nothing_else(
    python: jobpython.JobPython, tmp_path: Path, marked
) -> None:
    one, other = (basic.confinement(python, Scratch(tmp_path / "scratch" / name)).mark for name in ("1", "2"))
    assert one != other
    assert max(one, other) < 1 << 62
    first, second, third = marked(one), marked(one), marked(other)
    basic.kill_marked(one)
    assert (first.wait(10), second.wait(10), third.poll()) == (-signal.SIGKILL, -signal.SIGKILL, None)


@needs_landlock
def test_what_is_left_of_all_runners_of_a_folder_is_killed_and_nothing_else(
    python: jobpython.JobPython, tmp_path: Path, marked
) -> None:
    ours, theirs = (
        marked(basic.confinement(python, Scratch(tmp_path / name / "1")).mark) for name in ("scratch", "another")
    )
    small = marked(100)
    basic.purge(tmp_path / "scratch")
    assert (ours.wait(10), theirs.poll(), small.poll()) == (-signal.SIGKILL, None, None)


@pytest.fixture
def many_files():
    """Have descriptors of this process from 1024 on, beyond what ``select`` knows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2048), hard))
    taken = [os.open("/dev/null", os.O_RDONLY)]
    while taken[-1] < 1024:
        taken.append(os.dup(taken[0]))
    yield
    for fd in taken:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@needs_landlock
@pytest.mark.usefixtures("many_files")
def test_what_is_left_is_killed_where_descriptors_have_high_numbers(tmp_path: Path, marked) -> None:
    ours = marked(basic._of_folder(tmp_path) << basic.RUNNER_BITS | 7)
    basic.purge(tmp_path)
    assert ours.wait(10) == -signal.SIGKILL


@needs_landlock
def test_a_round_holds_few_descriptors_and_kills_all(tmp_path: Path, marked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic, "AT_ONCE_MAX", 2)
    held, most = set(), []
    opens, closes = os.pidfd_open, os.close

    def opened(pid: int) -> int:
        fd = opens(pid)
        held.add(fd)
        most.append(len(held))
        return fd

    def closed(fd: int) -> None:
        held.discard(fd)
        closes(fd)

    mark = basic._of_folder(tmp_path) << basic.RUNNER_BITS | 7
    ours = [marked(mark) for _ in range(5)]
    monkeypatch.setattr(os, "pidfd_open", opened)
    monkeypatch.setattr(os, "close", closed)
    basic.purge(tmp_path)
    monkeypatch.undo()
    assert [each.wait(10) for each in ours] == [-signal.SIGKILL] * 5
    assert max(most) == 2
    assert not held


def test_who_has_no_mark_has_none() -> None:
    assert basic._mark("/proc/self") in (None, resource.getrlimit(confine.RLIMIT_LOCKS)[1])
    assert basic._mark("/proc/no such process") is None
