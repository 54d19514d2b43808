"""The parts of a runner process that need no sandbox; tests/sandbox runs real ones."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pq.daemon import basic, jobpython, limits, runner_process
from p2pq.daemon.runner_process import MARK, RunnerProcess, RunnerToken, Scratch, kill_below, kill_marked, purge
from p2pq.errors import SandboxError


def test_scratch_folders_are_private_and_emptied(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "home" / "1")
    scratch.create()
    folders = (scratch.root, scratch.job, scratch.temporary, scratch.output)
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
    for folder in folders[1:]:
        (folder / "left").touch()
    scratch.job.chmod(0)
    scratch.open_up()
    assert scratch.job.stat().st_mode & 0o777 == 0o700
    scratch.empty()
    assert [list(folder.iterdir()) for folder in folders[1:]] == [[], [], []]
    (scratch.job / "left").touch()
    scratch.remove()
    assert not scratch.root.exists()


def test_an_orphan_is_found_by_its_mark() -> None:
    token = RunnerToken(os.urandom(8).hex())
    with waiting(token) as orphan, waiting(token + "x") as other:
        kill_marked(token)
        assert orphan.wait(20) == -9
        assert other.poll() is None


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    found = Scratch(tmp_path / "scratch" / "1")
    found.create()
    return found


@pytest.fixture
def python(tmp_path: Path) -> jobpython.JobPython:
    return jobpython.resolve_python(None, user_home=Path.home(), p2pq_home=tmp_path / "home")


async def test_a_runner_is_dead_even_where_cleaning_up_after_it_fails(
    scratch: Scratch, python: jobpython.JobPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: RunnerToken) -> None:
        raise ValueError("filedescriptor out of range in select()")

    monkeypatch.setattr(runner_process, "kill_marked", fails)
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(str(context["exception"])))
    runner = RunnerProcess("none", python, scratch, RunnerToken("t"))
    await runner.ready()
    runner.occupied = True
    runner.kill()
    await runner.wait_dead()
    assert said == ["filedescriptor out of range in select()"]


@pytest.mark.skipif(bool(basic.problem()), reason=basic.problem() or "never")
async def test_a_runner_that_proc_hides_is_not_used_in_basic(
    scratch: Scratch, python: jobpython.JobPython, monkeypatch: pytest.MonkeyPatch
) -> None:
    listdir = os.listdir
    runner = RunnerProcess("basic", python, scratch, RunnerToken("t"))
    hidden = f"/proc/{runner._process.pid}/task"

    def lists(path: str) -> list[str]:
        if path == hidden:
            raise PermissionError(1, "Operation not permitted", path)
        return listdir(path)

    monkeypatch.setattr(os, "listdir", lists)
    with pytest.raises(SandboxError, match=r"^this user cannot see its own processes in /proc \(hidepid\?\)$"):
        await runner.ready()
    assert runner.dead.done()
    assert runner.pid == 0


def test_the_threads_of_a_process_can_be_listed_or_not() -> None:
    assert limits.shown(os.getpid())
    assert not limits.shown(1 << 30)


@contextmanager
def waiting(mark: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process with that mark; when it has said something, the kernel shows its environment."""
    argv = ["/bin/sh", "-c", "echo; read _"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, env={MARK: mark}, start_new_session=True, **pipes) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_all_below_a_process_are_killed() -> None:
    shell = "setsid sleep 1000 & sleep 1000 & echo; wait"
    with subprocess.Popen(["sh", "-c", shell], stdout=subprocess.PIPE) as top:
        assert top.stdout is not None
        top.stdout.readline()
        kill_below(top.pid)
        assert top.wait(20) == 0  # it waited for both


def test_a_half_started_sandbox_of_an_earlier_daemon_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    (folder / "3-x" / "job").mkdir(parents=True)
    code = "import sys; print(flush=True); sys.stdin.read()"
    argv = ["/usr/bin/bwrap", "-c", code, f"{folder}/3-x/job"]
    innocent = ["/usr/bin/tail", "-c", code, f"{folder}/3-x/job"]
    started = []
    for name in (argv, innocent):
        process = subprocess.Popen(name, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        started.append(process)
    with started[0] as stuck, started[1] as reader:
        purge(folder)
        assert stuck.wait(20) == -9
        assert reader.poll() is None
        reader.kill()
    assert list(folder.iterdir()) == []
    purge(tmp_path / "missing")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_that_is_none_is_not_followed(tmp_path: Path, kind: str) -> None:
    scratch = Scratch(tmp_path)
    (tmp_path / "secret").mkdir(mode=0o500)
    if kind == "file":
        scratch.job.touch(mode=0o400)
    else:
        scratch.job.symlink_to("secret")
    scratch.open_up()
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o500
