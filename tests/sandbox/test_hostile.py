"""Hostile programs run from inside each sandbox, the strict and the basic one (security.md H59 to H65)."""

import asyncio
import dataclasses
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from p2pq.daemon import basic, sandbox
from p2pq.daemon import limits as limits_module
from p2pq.daemon.runner_process import RunnerProcess
from p2pq.daemon.runners import Limits, RunnerPool, TaskLaunch
from tests.sandbox.conftest import possible

Run = Callable[..., Awaitable[Any]]
REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.sandbox

LIMITS = Limits(
    cpus=1,
    memory_bytes=512 << 20,
    wall_s=60.0,
    disk_bytes=512 << 20,
    processes=64,
    output_bytes=16 << 20,
)


def limited(**changes: object) -> Limits:
    return dataclasses.replace(LIMITS, **changes)


@pytest.fixture
def run(run: Run, sandboxed: str) -> Run:
    return partial(run, level=sandboxed)


async def run_begun(run: Run, *program: str, wall_s: float) -> tuple[Any, float]:
    """Run a program with a time limit, on a busy machine a longer one, which is returned, too: it had begun by then."""
    while True:
        ran = await run(*program, limits=limited(wall_s=wall_s))
        if ran.outcome.reason != "time-limit" or ran.stdout or "begun" in ran.files:
            return ran, wall_s
        wall_s *= 2


@pytest.fixture
def basic_run() -> None:
    possible("basic")


def neighbour(pool: RunnerPool) -> TaskLaunch[None]:
    """Return a task of another job at the level ``basic``."""
    return TaskLaunch(
        lease="neighbour",
        job=b"neighbour",
        level="basic",
        argv=("/bin/true",),
        env={},
        limits=LIMITS,
        populate=lambda _: None,
        collect=lambda _, __: None,
    )


def bound_in_tmp(pool: RunnerPool) -> list[str]:
    """What lies in the sandbox's /tmp where the tests' own Python does."""
    return sorted({path[1] for path in sandbox.mounts_below_scratch(pool.python)})


async def test_h59_h60_nothing_of_the_host_is_reached(run: Run, pool: RunnerPool, tmp_path: Path) -> None:
    ways = {str(folder) for prefix in pool.python.prefixes for folder in prefix.parents}
    secret = tmp_path / "secret"
    secret.write_text("x")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        os.chdir(tmp_path)
        unix.bind("s")  # a short name: the folder's own may be too long
        unix.listen()
        abstract.bind(f"\0p2pq-test-{os.getpid()}")
        abstract.listen()
        asked = {
            "paths": [
                *(str(secret), str(tmp_path), "/etc/shadow", "/run", "/var", "/home", "/sys", "/mnt"),
                *(str(tmp_path / "home"), str(pool._scratch), *map(str, pool._scratch.glob("*/*"))),
                *(str(Path.home() / name) for name in (".ssh", ".bashrc", ".profile", ".cache")),
                *(
                    "../out",
                    "../runner",
                    "../../",
                    "/proc/kcore",
                    "/proc/1/root/etc/shadow",
                    f"/proc/{os.getpid()}/environ",
                ),
            ],
            "unix": [str(tmp_path / "s"), f"\0p2pq-test-{os.getpid()}", "/run/dbus/system_bus_socket"],
            "inet": [
                ("SOCK_STREAM", "127.0.0.1", tcp.getsockname()[1]),
                ("SOCK_STREAM", "169.254.169.254", 80),
                ("SOCK_DGRAM", "224.0.0.251", 5353),
                ("SOCK_DGRAM", "192.168.1.1", 53),
                ("SOCK_STREAM", "::1", tcp.getsockname()[1]),
            ],
        }
        async with pool.borrowed(neighbour(pool), ("another",)) as (other,):
            asked["paths"] += [str(other.runner.scratch.job), str(other.runner.scratch.job / "theirs")]
            (other.runner.scratch.job / "theirs").touch()
            ran = await run("reach", json.dumps(asked))
    assert ran.outcome.reason == "ok", ran
    # ".." of /job is the sandbox's own root; a folder on the way to the Python that runs this holds that way and no more.
    assert set(json.loads(ran.stdout)) <= {"../../"} | ways


async def test_h59_the_way_to_the_python_shows_only_the_way(run: Run, pool: RunnerPool, sandboxed: str) -> None:
    prefixes = pool.python.prefixes
    for folder in sorted({folder for prefix in prefixes for folder in prefix.parents} - {Path("/")}):
        ran = await run(("/bin/ls", "-A", str(folder)))
        assert ran.stdout.split() == sorted(
            {path.parts[len(folder.parts)] for path in prefixes if folder in path.parents and sandboxed == "strict"}
        )


async def test_a_task_sees_only_what_it_was_given(run: Run, pool: RunnerPool, sandboxed: str) -> None:
    ran = await run("listing", idle_priority=True)
    assert ran.outcome.reason == "ok", ran.outcome
    seen = json.loads(ran.stdout)
    assert seen["job"] == ["main.py"]
    if sandboxed == "strict":
        assert (seen["tmp"], seen["shm"]) == (bound_in_tmp(pool), [])
        assert seen["processes"][0] == 1
        assert len(seen["processes"]) == 2
    else:
        assert (seen["tmp"], seen["shm"], seen["processes"]) == ([], None, None)
    assert set(seen["environment"]) <= {"HOME", "LANG", "LC_CTYPE", "PATH", "PWD", "TMPDIR", "USER"}
    assert seen["fds"] == [0, 1, 2]
    assert (seen["nice"], seen["policy"], seen["cpus"]) == (19, os.SCHED_IDLE, 1)


async def test_h61_fork_bomb_stops_at_the_limit(run: Run, sandboxed: str) -> None:
    counted = os.getuid() == 0 or sandboxed == "basic"
    ran, _ = await run_begun(run, "fork_bomb", "500", wall_s=60.0 if counted else 1.0)
    if counted:
        # The kernel exempts root from RLIMIT_NPROC, and without a user namespace that limit counts all of the user's processes.
        # The watch ends the task instead, after the fact.
        assert ran.outcome.reason == "memory-limit"
        assert "more than 64 processes" in ran.outcome.detail
    else:
        assert ran.outcome.reason == "time-limit"
        assert int(ran.stdout) < 64
    assert (await run(("/bin/true",))).outcome.reason == "ok"


async def test_h61_thread_bomb_stops_at_the_limit(run: Run, sandboxed: str) -> None:
    ran, _ = await run_begun(run, "thread_bomb", "500", wall_s=60.0 if sandboxed == "basic" else 1.0)
    if sandboxed == "basic":
        assert ran.outcome.reason == "memory-limit"
        assert ran.outcome.detail == "it started more than 64 processes and threads"
    else:
        assert ran.outcome.reason == "time-limit"
        assert os.getuid() == 0 or int(ran.stdout) < 64
    assert (await run(("/bin/true",))).outcome.reason == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("who", ["alone", "child"])
async def test_h61_memory_bomb_is_killed(run: Run, who: str) -> None:
    ran = await run("memory_bomb", who, limits=limited(memory_bytes=200 << 20))
    assert ran.outcome.reason == "memory-limit", ran
    assert "the limit is 200 MiB" in ran.outcome.detail
    assert ran.outcome.max_rss < 2 << 30


async def test_h61_folders_in_memory_count_and_are_bounded(run: Run, sandboxed: str) -> None:
    roomy = limited(memory_bytes=2 << 30, disk_bytes=100 << 20)
    ran = await run("fill", "/", "/dev", "/etc", "/usr", "/proc", "/tmp", "/dev/shm", limits=roomy)
    took = json.loads(ran.stdout)
    if sandboxed == "basic":
        assert set(took.values()) == {0}, took
        ran = await run(
            ("/bin/sh", "-c", 'for i in 1 2; do head -c 60M /dev/zero > "$TMPDIR/$i"; done; sleep 60'), limits=roomy
        )
        assert ran.outcome.reason == "disk-limit", "temporary files lie on the disk, and count there"
        return
    assert took.pop("/tmp") <= 256 << 20
    assert 0 < took.pop("/dev/shm") <= 64 << 20
    assert set(took.values()) == {0}, took
    ran = await run(
        ("/bin/sh", "-c", "head -c 150M /dev/zero > /tmp/x; sleep 60"),
        limits=limited(memory_bytes=100 << 20),
    )
    assert ran.outcome.reason == "memory-limit"


@pytest.mark.slow
async def test_h61_disk_is_bounded(run: Run) -> None:
    small = limited(disk_bytes=20 << 20)
    ran = await run("fill", ".", limits=small)
    assert json.loads(ran.stdout)["."] <= 20 << 20  # one file: the kernel stops it
    many = "i=0; while :; do i=$((i+1)); head -c 2M /dev/zero > f$i; done"
    ran = await run(("/bin/sh", "-c", many), limits=small)
    assert ran.outcome.reason == "disk-limit", ran.outcome
    assert "more than 20 MiB" in ran.outcome.detail


async def test_h62_a_survivor_does_not_reach_the_next_task(run: Run, pool: RunnerPool, sandboxed: str) -> None:
    first = await run("survivor")
    assert first.outcome.reason == "ok"
    (runner,) = pool._alive
    assert limits_module.tree(runner.pid, 100) == [runner.pid]
    second = await run("listing")
    assert (await run(("/bin/true",))).outcome.reason == "ok"
    assert list(pool._alive) == [runner], "it is used again"
    assert json.loads(second.stdout)["job"] == ["main.py"]
    assert sandboxed == "basic" or len(json.loads(second.stdout)["processes"]) == 2


async def test_h62_who_runs_on_from_process_to_process_is_caught(run: Run, pool: RunnerPool, sandboxed: str) -> None:
    ran = await run("hopper")
    assert ran.outcome.reason in ("ok", "sandbox"), ran.outcome  # it may take long to catch: then its sandbox goes
    assert all(limits_module.tree(runner.pid, 100) == [runner.pid] for runner in pool._alive)
    assert sandboxed == "strict" or marked(pool) == {runner.pid for runner in pool._alive}


def marked(pool: RunnerPool) -> set[int]:
    """Return all processes that a runner of the level ``basic`` has started, in whatever session, and the runners."""
    ours = basic._of_folder(pool._scratch)
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    mine = [pid for pid in found if (basic._mark(f"/proc/{pid}") or 0) >> basic.RUNNER_BITS == ours]
    return {pid for pid in mine if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE}


async def runs_and_loses_its_runner(pool: RunnerPool, program: str, kill: Callable[[RunnerProcess], None]) -> str:
    """Run what leaves processes behind, end its runner from outside as the kernel does for want of memory; return the reason."""
    source = (Path(__file__).parents[1] / "hostile" / f"{program}.py").read_text()
    stays = source + "\nsys.stdout.flush(); print('up', flush=True); import time; time.sleep(1000)\n"

    def lose(out: Path, _: Path) -> None:
        if not out.stat().st_size:
            asyncio.get_running_loop().call_later(0.01, lose, out, _)
            return
        (runner,) = pool._alive
        assert len(marked(pool)) > 1, "there is something to be left"
        kill(runner)

    outcome, _ = await pool.run(
        dataclasses.replace(
            neighbour(pool),
            lease="lost",
            argv=(str(pool.python.executable), "-I", "-S", "main.py"),
            populate=lambda folder: (folder / "main.py").write_text(stays) and None,
            on_started=lose,
        )
    )
    return outcome.reason


@pytest.mark.usefixtures("basic_run")
async def test_h62_nothing_survives_a_runner_that_is_killed(pool: RunnerPool) -> None:
    reason = await runs_and_loses_its_runner(pool, "survivor", lambda runner: os.kill(runner.pid, signal.SIGKILL))
    assert reason == "sandbox"
    assert marked(pool) == set()


@pytest.mark.usefixtures("basic_run")
async def test_h65_what_a_killed_daemon_and_its_killed_runner_left_is_gone_at_the_next_start(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(basic, "kill_marked", lambda _: None)  # the daemon is dead
        for _ in range(5):  # the watch of its limits may be at work just then, and end it as well
            await runs_and_loses_its_runner(pool, "survivor", lambda runner: os.kill(runner.pid, signal.SIGKILL))
            if marked(pool):
                break
    assert marked(pool), "something is left"
    await RunnerPool(pool._scratch, pool.python).start()
    deadline = time.monotonic() + 10
    while marked(pool):  # killed, and reaped by whoever has it now
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_h63_the_runner_cannot_be_attacked(run: Run) -> None:
    ran = await run("attack_runner")
    assert ran.outcome.reason == "ok", ran
    # Root owns what is not dumpable, and may list (not read or open) it.
    assert set(json.loads(ran.stdout)) <= ({"fd", "ns"} if os.getuid() == 0 else set())
    assert (await run("listing")).outcome.reason == "ok"


async def test_h63_the_kernel_refuses(run: Run, sandboxed: str) -> None:
    ran = await run("kernel")
    answers = json.loads(ran.stdout)
    if sandboxed == "basic":
        del answers["RLIMIT_NPROC"]  # not set: it would count all of the user's processes
    nosys = {"clone3", "io_uring_setup", "fsopen", "memfd_create", "x32"}
    families = {"netlink", "packet", "vsock", "alg"}
    if os.getuid() == 0:
        del answers["/proc/1/oom_score_adj"]  # root owns what is not dumpable; harmless
    for name, answer in answers.items():
        expected = (
            {"ENOSYS"}
            if name in nosys
            else {"EAFNOSUPPORT" if sandboxed == "strict" else "EACCES"}
            if name in families
            else {"EPERM", "EACCES", "EROFS", "ENOENT", "ValueError"}
        )
        assert answer in expected, (name, answer)


@pytest.mark.usefixtures("basic_run")
async def test_h63_what_namespaces_keep_apart_is_refused_without_them(pool: RunnerPool, tmp_path: Path) -> None:
    """The level ``basic``: a task is a process among its user's others, with the same user's files around it."""
    file = tmp_path / "file"
    file.write_text("x")
    file.chmod(0o640)
    before, around = file.stat(), tmp_path.stat()  # noqa: ASYNC240  quick
    os.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind("d")
        priority, limit = os.getpriority(os.PRIO_PROCESS, 0), resource.getrlimit(resource.RLIMIT_CORE)
        source = (Path(__file__).parents[1] / "hostile" / "shared.py").read_text()
        said: list[str] = []
        await pool.run(
            dataclasses.replace(
                neighbour(pool),
                argv=(
                    *(str(pool.python.executable), "-I", "-S", "main.py"),
                    *(str(os.getpid()), str(file), str(tmp_path / "d")),
                ),
                populate=lambda folder: (folder / "main.py").write_text(source) and None,
                collect=lambda _, outcome: said.append(outcome.stdout.read_text() + outcome.stderr.read_text()),
            )
        )
        datagrams.setblocking(False)
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)
    answers = json.loads(said[0])
    # These say that they have done what they did not: a copy of a file would fail otherwise.
    assert (answers.pop("mode"), answers.pop("date")) == ("worked", "worked")
    assert (file.stat(), tmp_path.stat().st_mode) == (before, around.st_mode)  # noqa: ASYNC240  quick
    assert {name: answer for name, answer in answers.items() if answer == "worked"} == {}
    expected = {
        "shared memory": "ENOSYS",
        "watch": "ENOSYS",
        "attribute": "ENOTSUP",
        "attribute, removed": "ENOTSUP",
    }
    others = {"EPERM", "EACCES", "EXDEV", "EAFNOSUPPORT", "EISCONN", "ENOTSUP"}
    assert {
        name: answer
        for name, answer in answers.items()
        if answer not in ({expected[name]} if name in expected else others)
    } == {}
    assert os.getpriority(os.PRIO_PROCESS, 0) == priority
    assert resource.getrlimit(resource.RLIMIT_CORE) == limit


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ignore", "stop", "close"])
async def test_h64_a_stubborn_task_ends_at_its_time_limit(run: Run, how: str) -> None:
    ran, wall_s = await run_begun(run, "stubborn", how, wall_s=0.3)
    assert ran.outcome.reason == "time-limit"
    assert ran.outcome.detail == f"it ran longer than its limit of {wall_s:g} s"
    assert ran.outcome.signal == (signal.SIGTERM if how != "ignore" else signal.SIGKILL)
    assert ran.outcome.seconds < wall_s + 5
    assert "begun" in ran.files


async def test_h64_a_flood_of_output_is_stopped(run: Run) -> None:
    ran = await run("flood", limits=limited(output_bytes=1 << 20))
    assert ran.outcome.reason in ("output-limit", "disk-limit"), ran.outcome
    assert ran.outcome.stdout.parent.name == "out"


async def test_litter_is_deleted(run: Run, pool: RunnerPool, sandboxed: str) -> None:
    ran = await run("litter", limits=limited(processes=8))
    assert ran.outcome.reason == "ok", ran
    ran = await run("listing", limits=limited(processes=8))
    seen = json.loads(ran.stdout)
    in_memory = (bound_in_tmp(pool), []) if sandboxed == "strict" else ([], None)
    assert (seen["job"], (seen["tmp"], seen["shm"])) == (["main.py"], in_memory)


async def test_h65_nothing_survives_a_killed_daemon(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from p2pq.daemon import sandbox
from p2pq.daemon.runners import Limits, RunnerPool, TaskLaunch

async def main(level):
    scratch = Path(sys.argv[1])
    python = sandbox.resolve_python(None, user_home=Path.home(), p2pq_home=scratch)
    pool = RunnerPool(scratch, python)
    await pool.start()
    launch = TaskLaunch(
        lease="1", job=b"j", level=level, env={}, populate=lambda _: None, collect=lambda *_: None,
        argv=("/bin/sh", "-c", "trap '' TERM HUP; setsid sleep 1000 & sleep 1000 & echo; wait"),
        limits=Limits(1, None, 600, 1 << 30, 64, 1 << 20), on_started=lambda out, _: poll(out),
    )
    def poll(out):
        if out.stat().st_size:
            print("started", flush=True)
        else:
            asyncio.get_running_loop().call_later(0.01, poll, out)
    await pool.run(launch)

asyncio.run(main(sys.argv[2]))
"""
    for level in ("strict", "basic", "none"):
        daemon = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", program, str(tmp_path / level), level),
            stdout=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
        )
        assert daemon.stdout is not None
        try:
            said = await daemon.stdout.readline()
            pids = limits_module.tree(daemon.pid, 1000)[1:]
            fds = [os.pidfd_open(pid) for pid in pids]
        finally:
            daemon.kill()
            await daemon.wait()
        assert said == b"started\n"
        assert len(pids) >= 4
        for fd in fds:
            ended = select.select([fd], [], [], 10)[0]
            os.close(fd)
            assert ended, f"a process of the task outlived the daemon at level {level}"
