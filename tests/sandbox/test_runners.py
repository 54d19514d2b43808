"""The pool with real runners, at all levels: what every user of it relies on."""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from p2pq.daemon import limits as limits_module
from p2pq.daemon import runner_process, sandbox
from p2pq.daemon.cgroups import Cgroups
from p2pq.daemon.runners import Limits, RunnerPool, TaskLaunch
from p2pq.daemon.sandbox import Mount
from p2pq.errors import DiskFullError, SandboxError, StorageError

Run = Callable[..., Awaitable[Any]]
LIMITS = Limits(
    cpus=1,
    memory_bytes=512 << 20,
    wall_s=60.0,
    disk_bytes=512 << 20,
    processes=64,
    output_bytes=16 << 20,
)


def launch(**changes: Any) -> TaskLaunch[str]:
    fields = {
        "lease": "1",
        "job": b"job",
        "level": "none",
        "argv": ("/bin/cat", "input"),
        "env": {},
        "limits": LIMITS,
        "populate": lambda folder: (folder / "input").write_text("hello"),
        "collect": lambda _, outcome: outcome.stdout.read_text(),
    }
    return TaskLaunch(**(fields | changes))


class Begun:
    """Told by the task itself, through its output, that it runs."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __call__(self, stdout: Path, _: Path) -> None:
        if stdout.exists() and stdout.stat().st_size:
            self._event.set()
        elif stdout.exists():
            asyncio.get_running_loop().call_later(0.005, self, stdout, stdout)

    async def wait(self) -> None:
        async with asyncio.timeout(20):
            await self._event.wait()


async def test_a_task_runs_and_its_results_are_collected(run: Run, level: str) -> None:
    ran = await run(("/bin/sh", "-c", "echo out; echo err >&2; echo 42 > answer; exit 3"), level=level)
    assert (ran.outcome.exit, ran.outcome.signal, ran.outcome.reason) == (3, None, "exit")
    assert ran.outcome.detail == "it exited with status 3"
    assert (ran.stdout, ran.stderr, ran.files["answer"]) == ("out\n", "err\n", "42\n")
    assert 0 < ran.outcome.seconds < 20
    assert 0 < ran.outcome.max_rss < 1 << 30


async def test_a_task_reads_what_it_was_given_and_nothing_is_left_of_it(run: Run, pool: RunnerPool, level: str) -> None:
    given = await run(("/bin/cat",), level=level, stdin=lambda path: path.write_text("given"))
    assert given.stdout == "given"
    assert (await run(("/bin/cat",), level=level)).stdout == ""
    assert not list(pool._scratch.rglob("stdin"))


async def test_tasks_of_a_job_share_a_runner_and_nothing_else(run: Run, pool: RunnerPool, level: str) -> None:
    for _ in range(3):
        ran = await run("listing", level=level)
        assert json.loads(ran.stdout)["job"] == ["main.py"]
        mounts = sandbox.mounts_below_scratch(pool.python) if level == "strict" else []
        assert json.loads(ran.stdout)["tmp"] == sorted({path[1] for path in mounts})
        await run(("/bin/sh", "-c", 'touch left; touch "$TMPDIR/left"'), level=level)
    assert len(pool._alive) == 1
    await run(("/bin/true",), level=level, job=b"other")
    assert len(pool._alive) == 2
    pool.end_job(b"other")
    assert sum(not runner.broken for runner in pool._alive) == 1


async def test_ordinary_programs_work(run: Run, level: str) -> None:
    """Threads, processes, shared memory, asyncio with subprocesses, temporary files."""
    ran = await run("ordinary", level=level)
    if level == "basic":
        # /dev/shm belongs to all processes of the user, so that a task has none, and what Python makes there does not work.
        assert (ran.outcome.reason, ran.stdout.split("\n")[0]) == ("exit", "3 b'sub' x"), ran
        assert "PermissionError" in ran.stderr
    else:
        assert (ran.outcome.reason, ran.stdout) == ("ok", "3 b'sub' x\n[1, 4, 9] 5\n"), ran


async def test_the_environment_is_clean(run: Run, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PQ_SECRET", "x")
    seen = json.loads((await run("listing", level=level)).stdout)
    assert set(seen["environment"]) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "PWD", "TMPDIR", "P2PQ_RUNNER", "USER"}
    assert seen["fds"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("no-such-program",), 127, "No such file"),
        (("./main.py",), 126, "Permission denied"),
        (("/",), 126, "Permission denied"),
    ],
)
async def test_what_cannot_be_executed_is_the_task_s_failure(
    run: Run, level: str, argv: tuple[str, ...], status: int, words: str
) -> None:
    ran = await run(argv, level=level)
    assert (ran.outcome.exit, ran.outcome.reason) == (status, "exit")
    assert words in ran.outcome.detail
    assert (await run(("/bin/true",), level=level)).outcome.reason == "ok"


async def test_a_signal_is_named(run: Run, level: str) -> None:
    ran = await run(("/bin/sh", "-c", "kill -SEGV $$"), level=level)
    assert (ran.outcome.exit, ran.outcome.signal) == (None, signal.SIGSEGV)
    assert (ran.outcome.reason, ran.outcome.detail) == ("signal", "it was killed by SIGSEGV")


@pytest.mark.parametrize("how", ["polite", "ignore", "stop"])
async def test_killing_asks_first(pool: RunnerPool, run: Run, level: str, how: str) -> None:
    begun = Begun()
    code = ("/bin/sh", "-c", "echo; trap 'echo saved; exit 7' TERM; while :; do sleep 0.01; done")
    if how == "ignore":
        code = ("/bin/sh", "-c", "trap '' TERM; echo; exec sleep 1000")
    if how == "stop":
        code = ("/bin/sh", "-c", "echo; kill -STOP $$; sleep 1000")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(code, level=level, on_started=begun))
        await begun.wait()
        await pool.kill("1", "cancelled", "the submitter cancelled it")
        await pool.kill("1", "time-limit", "too late to give another reason")
    outcome = task.result().outcome
    assert (outcome.reason, outcome.detail) == ("cancelled", "the submitter cancelled it")
    if how == "polite":
        assert (outcome.exit, task.result().stdout) == (7, "\nsaved\n")
    else:
        assert outcome.signal in (signal.SIGKILL, signal.SIGTERM)


async def test_who_is_told_to_end_may_leave_something_behind(pool: RunnerPool, level: str) -> None:
    """Sent SIGTERM, given the grace, and only then collected."""
    begun = Begun()
    script = """
        mkdir results
        trap 'mkdir results/.checkpoint; sleep 0.2; echo half > results/.checkpoint/state; exit 1' TERM
        echo
        while :; do sleep 0.01; done
    """

    def collect(folder: Path, _: object) -> str:
        return (folder / "results/.checkpoint/state").read_text()

    async with asyncio.TaskGroup() as group:
        argv = ("/bin/sh", "-c", script)
        task = group.create_task(pool.run(launch(level=level, argv=argv, on_started=begun, collect=collect)))
        await begun.wait()
        await pool.kill("1", "evicted", "it was told to end", grace_s=10)
    outcome, state = task.result()
    assert (outcome.reason, outcome.exit, outcome.detail) == ("evicted", 1, "it was told to end")
    assert state == "half\n"


async def test_killing_before_the_start_runs_nothing(pool: RunnerPool) -> None:
    entered, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def populate(_: Path) -> None:
        loop.call_soon_threadsafe(entered.set)
        assert go.wait(20)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.run(launch(populate=populate)))
        await entered.wait()
        await pool.kill("1", "cancelled")
        go.set()
    outcome, output = task.result()
    assert (outcome.reason, outcome.exit, output) == ("cancelled", None, "")
    await pool.kill("1", "cancelled")  # unknown by now: nothing happens


async def test_cancelling_leaves_nothing(pool: RunnerPool, level: str) -> None:
    begun = Begun()
    mark = f"9{os.getpid()}8"
    argv = ("/bin/sh", "-c", f"setsid sleep {mark} & echo; trap '' TERM; sleep {mark}")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.run(launch(level=level, argv=argv, on_started=begun)))
        await begun.wait()
        task.cancel()
    assert task.cancelled()
    assert not pool._alive
    left = [pid for pid in limits_module.tree(os.getpid(), 1000)[1:] if mark in command_line(pid)]
    assert left == []


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill-runner", "stop-runner"])
async def test_none_finds_survivors_even_without_its_runner(
    run: Run, pool: RunnerPool, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("p2pq.daemon.attempt.ANSWER_S", 0.5)
    ran = await run("survivor", how, level="none", limits=dataclasses.replace(LIMITS, wall_s=1.0))
    assert ran.outcome.reason == ("sandbox" if how == "kill-runner" else "time-limit")
    assert working_in(pool._scratch) == []
    assert (await run(("/bin/true",), level="none")).outcome.reason == "ok"
    assert len(pool._alive) == 1


def working_in(folder: Path) -> list[str]:
    """The processes whose folder lies there, wherever they were reparented."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if path.readlink().is_relative_to(folder):
                found.append(path.parent.name)
    return found


async def test_none_kills_what_a_task_leaves(run: Run) -> None:
    ran = await run("survivor", level="none")
    assert ran.outcome.reason == "ok"
    seen = json.loads((await run("listing", level="none")).stdout)
    assert seen["job"] == ["main.py"]


async def test_litter_is_deleted_at_none(run: Run) -> None:
    assert (await run("litter", level="none")).outcome.reason == "ok"
    assert json.loads((await run("listing", level="none")).stdout)["job"] == ["main.py"]


async def test_limits_hold_at_none(run: Run) -> None:
    small = dataclasses.replace(LIMITS, memory_bytes=100 << 20)
    assert (await run("memory_bomb", level="none", limits=small)).outcome.reason == "memory-limit"
    small = dataclasses.replace(LIMITS, output_bytes=1 << 20)
    assert (await run("flood", level="none", limits=small)).outcome.reason == "output-limit"
    small = dataclasses.replace(LIMITS, processes=10)
    assert (await run("fork_bomb", "40", level="none", limits=small)).outcome.reason == "memory-limit"


async def test_a_control_group_bounds_the_runner_and_explains_the_end(
    pool: RunnerPool, run: Run, tmp_path: Path
) -> None:
    assert pool.memory_control in ("cgroup", "polling")
    (tmp_path / "group").mkdir()
    pool._cgroups = Cgroups(tmp_path / "group")
    assert pool.memory_control == "cgroup"

    def kernel_kills(_: Path, __: Path) -> None:
        (runner,) = pool._alive
        (made,) = (tmp_path / "group").iterdir()
        assert (made / "cgroup.procs").read_text() == str(runner.pid)
        (made / "memory.events").write_text("oom_kill 1\n")

    ran = await run(("/bin/sh", "-c", "kill -9 $$"), level="none", on_started=kernel_kills)
    assert ran.outcome.reason == "memory-limit"
    assert ran.outcome.detail == "it used more memory than its limit of 512 MiB"
    ran = await run(("/bin/sh", "-c", "kill -9 $$"), level="none")
    assert ran.outcome.reason == "signal"  # that kill was counted before
    pool._cgroups = Cgroups(tmp_path / "missing")
    with pytest.raises(SandboxError, match="control group"):
        await pool.run(launch(job=b"other"))


async def test_faults_of_this_machine_are_raised(pool: RunnerPool, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(DiskFullError):
        await pool.run(launch(level=level, populate=full))
    with pytest.raises(StorageError, match="Input/output error"):
        await pool.run(launch(level=level, collect=broken))
    monkeypatch.setattr(limits_module, "FREE_BYTES_MIN", 1 << 60)
    with pytest.raises(DiskFullError, match="free"):
        await pool.run(launch(level=level))
    assert not pool._alive


async def test_a_runner_that_cannot_start_says_why(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "runner.py"
    broken.write_text("raise SystemExit('no ctypes\\x1b[2J here')")
    monkeypatch.setattr(runner_process, "RUNNER_FILE", broken)
    with pytest.raises(SandboxError, match=r"did not start: no ctypes\?\[2J here"):
        await pool.run(launch())
    pool.python = dataclasses.replace(pool.python, executable=tmp_path / "none")
    with pytest.raises(SandboxError, match=r"could not start .*No such file"):
        await pool.run(launch())
    assert not pool._alive


READY = '{"op":"ready"}'
STARTED = '{"op":"started","id":ID,"pid":2}'
EXITED = '{"op":"exited","id":ID,"exit":0,"signal":null,"seconds":1e9,"max_rss":0,"utime":0.0,"stime":0.0}'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("says", "why"),
    [
        ([EXITED], "out of turn"),
        ([STARTED, STARTED], "out of turn"),
        (['{"op":"clean","id":ID}'], "out of turn"),
        ([STARTED, EXITED.replace("ID", "77")], "out of turn"),
        ([STARTED, EXITED.replace("null", "9")], "out of turn"),
        ([STARTED, EXITED.replace('"exit":0', '"exit":null')], "out of turn"),
        ([READY], "out of turn"),
        ([STARTED, EXITED.replace('"exit":0', '"exit":256')], "malformed"),
        ([STARTED, EXITED.replace("0.0", "NaN")], "malformed"),
        (['{"op":"started","id":ID,"pid":2,"extra":1}'], "malformed"),
        (["[" * 1000], "malformed"),
        (["\\xff"], "malformed"),
        ([" " * (runner_process.FRAME_BYTES_MAX + 1)], "oversized"),
        ([STARTED] * 50, "(flooded|out of turn)"),
        ([], "did not answer"),
        ([STARTED, EXITED], "did not answer"),
        (["EXIT"], "closed its socket"),
    ],
)
async def test_a_lying_runner_is_the_task_s_failure(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: list[str], why: str
) -> None:
    monkeypatch.setattr("p2pq.daemon.attempt.ANSWER_S", 0.3)
    liar = tmp_path / "liar.py"
    liar.write_text(f"""
import json, re, _socket, sys, time
sock = _socket.socket(fileno=int(sys.argv[1]))
def say(text):
    data = text.encode()
    sock.sendall(len(data).to_bytes(4, "big") + data)
say({READY!r})
heard = b""
while b'"op":"run"' not in heard:
    heard += sock.recv(65536)
number = re.search(rb'"run","id":(\\d+)', heard)[1].decode()
for text in {says!r}:
    if text == "EXIT":
        sys.exit()
    say(text.replace("ID", number))
time.sleep(100)
""")
    monkeypatch.setattr(runner_process, "RUNNER_FILE", liar)
    outcome, _ = await pool.run(launch(argv=("/bin/true",)))
    assert outcome.reason == "sandbox"
    assert re.search(why, outcome.detail), outcome.detail
    assert outcome.seconds < 20
    assert not pool._alive


async def test_idle_runners_end_by_themselves(pool: RunnerPool) -> None:
    pool._idle_s = 0.0
    await pool.run(launch())
    (runner,) = pool._alive
    async with asyncio.timeout(20):
        await asyncio.shield(runner.dead)


async def test_the_number_of_runners_is_bounded(pool: RunnerPool) -> None:
    pool._runners_max = 1
    await pool.run(launch(job=b"a"))
    (first,) = pool._alive
    await pool.run(launch(job=b"b"))  # the idle one makes room
    assert first.broken
    begun = Begun()
    async with asyncio.TaskGroup() as group:
        argv = ("/bin/sh", "-c", "echo; sleep 1000")
        group.create_task(pool.run(launch(lease="2", job=b"b", argv=argv, on_started=begun)))
        await begun.wait()
        with pytest.raises(SandboxError, match="busy"):
            await pool.run(launch(lease="3", job=b"c"))
        with pytest.raises(ValueError, match="runs already"):
            await pool.run(launch(lease="2"))
        await pool.kill("2", "cancelled", grace_s=0)


async def test_closing_kills_what_runs(pool: RunnerPool) -> None:
    begun = Begun()
    argv = ("/bin/sh", "-c", "echo; trap '' TERM; sleep 1000")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.run(launch(argv=argv, on_started=begun)))
        await begun.wait()
        await pool.close()
    assert (task.result()[0].reason, task.result()[0].detail) == (
        "cancelled",
        "the node is stopping",
    )
    with pytest.raises(SandboxError, match="stopping"):
        await pool.run(launch())


@pytest.mark.sandbox
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap (bwrap) is not installed")
async def test_a_sandbox_that_is_ended_while_it_starts_leaves_nothing(pool: RunnerPool) -> None:
    """bubblewrap killed right after its fork leaves a child that waits for ever."""
    for _ in range(10):
        runner = pool._take(launch(level="strict"))
        runner.kill()
        async with asyncio.timeout(20):
            await runner.wait_dead()
    mark = str(pool._scratch)
    assert [pid for pid in all_processes() if mark in command_line(pid)] == []


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


async def test_starting_deletes_what_an_earlier_daemon_left(pool: RunnerPool) -> None:
    left = pool._scratch / "7-abc" / "job"
    left.mkdir(parents=True)
    (left / "file").touch()
    left.chmod(0)
    await pool.start()
    assert list(pool._scratch.iterdir()) == []


@pytest.mark.sandbox
async def test_a_spare_runner_serves_the_next_job_and_is_replaced(pool: RunnerPool) -> None:
    pool.keep_spare("strict")
    (spare,) = pool._alive
    await pool.run(launch(job=b"a", level="strict"))
    async with asyncio.timeout(20):
        while len(pool._alive) < 2:  # noqa: ASYNC110  the pool tells nobody
            await asyncio.sleep(0.01)
    assert next(iter(pool._alive)) is spare
    assert not spare.broken
    pool.end_job(b"a")
    assert spare.broken


@pytest.mark.sandbox
async def test_a_spare_that_died_or_does_not_fit_costs_nothing_but_time(pool: RunnerPool) -> None:
    pool.keep_spare("strict")
    (spare,) = pool._alive
    spare.kill()
    await spare.wait_dead()
    outcome, _ = await pool.run(launch(job=b"a", level="strict"))
    assert outcome.reason == "ok"
    assert spare not in pool._alive
    pool.keep_spare("strict")
    outcome, _ = await pool.run(launch(job=b"b", level="none"))
    assert outcome.reason == "ok"


@pytest.mark.sandbox
async def test_the_next_job_that_sees_the_same_has_a_runner_that_was_started_ahead(
    pool: RunnerPool, tmp_path: Path
) -> None:
    (tmp_path / "word").write_text("seen")
    seen = {
        "mounts": (Mount(tmp_path, "/p2pq-env"),),
        "argv": ("/bin/cat", "/p2pq-env/word"),
        "collect": lambda _, outcome: outcome.stdout.read_text(),
        "level": "strict",
    }
    dead: list[asyncio.Future[None]] = []
    pool.keep_spare("strict")
    (plain,) = pool._alive
    _, said = await pool.run(launch(job=b"a", until_dead=dead.append, **seen))
    assert said == "seen"
    async with asyncio.timeout(20):
        while len(dead) < 2:  # noqa: ASYNC110  the pool tells nobody
            await asyncio.sleep(0.01)
    spare = list(pool._alive)[-1]
    _, said = await pool.run(launch(job=b"b", until_dead=dead.append, **seen))
    assert said == "seen"
    assert dead[:2] == [next(runner for runner in pool._alive if runner not in (plain, spare)).dead, spare.dead]
    pool.end_job(b"b")
    assert spare.broken
    assert not plain.broken


async def test_what_cannot_be_executed_says_so_to_whoever_reads_its_errors(pool: RunnerPool) -> None:
    read = lambda _, outcome: outcome.stderr.read_text()  # noqa: E731
    _, said = await pool.run(launch(argv=("no-such-program",), collect=read))
    assert said == "p2pq: no-such-program: No such file or directory\n"
    _, said = await pool.run(launch(argv=("true",), cwd="/no/such/folder", collect=read))
    assert said == "p2pq: /no/such/folder: No such file or directory\n"


async def test_something_else_is_run_where_the_first_cannot_be(pool: RunnerPool, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo a shell runs this\n")
    script.chmod(0o755)
    outcome, said = await pool.run(launch(argv=(str(script),), otherwise=("/bin/sh", "-c", str(script))))
    assert (outcome.exit, said) == (0, "a shell runs this\n")


async def test_a_command_has_its_users_environment_and_no_other(pool: RunnerPool, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "MINE": "yes"}
    outcome, said = await pool.run(
        launch(argv=("/bin/sh", "-c", "pwd; env"), env=env, whole_env=True, cwd=str(tmp_path))
    )
    assert outcome.exit == 0
    where, *lines = said.splitlines()
    assert where == str(tmp_path)
    assert {line.partition("=")[0] for line in lines} == {"PATH", "MINE", "PWD", runner_process.MARK}


async def test_a_command_makes_files_with_the_modes_that_its_user_wants(pool: RunnerPool, tmp_path: Path) -> None:
    await pool.run(launch(argv=("touch", "private"), cwd=str(tmp_path), umask=0o077))
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
