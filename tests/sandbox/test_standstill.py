"""A task that is to stand still does, with all that it started, at both levels; and goes on where it was."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from p2pq.daemon import autogroups, limits
from p2pq.daemon.runners import RunnerPool
from tests.sandbox.conftest import LIMITS
from tests.sandbox.test_runners import Begun, launch

Run = Callable[..., Awaitable[Any]]
STANDING = {"T", "Z", "D"}
"""Stopped; not reaped, as its parent stands; waits in vfork for a child that stands."""
FILES = ("thread", "child", "session", "orphan", "forks")


def states(pid: int) -> list[str]:
    """Return the states of all processes below the runner, and of all their threads."""
    found = []
    for process in limits.tree(pid, 1000)[1:]:
        with contextlib.suppress(OSError):  # it has just ended
            for thread in Path(f"/proc/{process}/task").iterdir():
                stat = (thread / "stat").read_bytes()
                found.append(stat.rpartition(b")")[2].split()[0].decode())
    return found


def sizes(folder: Path) -> list[int]:
    return [(folder / name).stat().st_size for name in FILES]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  the kernel tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_threads_children_and_orphans_stand_still_and_go_on(run: Run, pool: RunnerPool, level: str) -> None:
    begun = Begun()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run("restless", level=level, on_started=begun))
        await begun.wait()
        runner = pool._running["1"].runner
        assert len(states(runner.pid)) >= 8
        pool.hold("1", still=True)
        await until(lambda: set(states(runner.pid)) <= STANDING)
        before = sizes(runner.scratch.job)
        await asyncio.sleep(0.3)
        assert sizes(runner.scratch.job) == before
        assert set(states(runner.pid)) <= STANDING
        pool.hold("1", still=False)
        await until(lambda: all(now > then for now, then in zip(sizes(runner.scratch.job), before, strict=True)))
        (runner.scratch.job / "over").touch()
    assert task.result().outcome.reason == "ok"


@pytest.mark.parametrize("grace_s", [0.0, 5.0])
async def test_what_stands_still_is_killed_at_once(run: Run, pool: RunnerPool, level: str, grace_s: float) -> None:
    begun = Begun()
    code = ("/bin/sh", "-c", "sleep 1000 & echo; wait")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(code, level=level, on_started=begun))
        await begun.wait()
        pool.hold("1", still=True)
        await until(lambda: set(states(pool._running["1"].runner.pid)) == {"T"})
        asked = time.monotonic()
        await pool.kill("1", "cancelled", grace_s=grace_s)
    assert time.monotonic() - asked < 4.0
    outcome = task.result().outcome
    assert (outcome.reason, outcome.signal) == ("cancelled", signal.SIGTERM if grace_s else signal.SIGKILL)


async def test_closing_kills_what_stands_still(pool: RunnerPool, run: Run, level: str) -> None:
    begun = Begun()
    task = asyncio.get_running_loop().create_task(
        run(("/bin/sh", "-c", "echo; sleep 1000"), level=level, on_started=begun)
    )
    await begun.wait()
    pool.hold("1", still=True)
    async with asyncio.timeout(10):
        await pool.close()
        assert (await task).outcome.reason in ("cancelled", "sandbox")


@pytest.mark.slow
async def test_what_stands_still_does_not_run_out_of_time(run: Run, pool: RunnerPool, level: str) -> None:
    begun = Begun()
    bounds = dataclasses.replace(LIMITS, wall_s=1.0)
    async with asyncio.TaskGroup() as group:
        code = ("/bin/sh", "-c", "echo; sleep 0.2; echo over")
        task = group.create_task(run(code, level=level, on_started=begun, limits=bounds))
        await begun.wait()
        pool.hold("1", still=True)
        await asyncio.sleep(1.5)
        pool.hold("1", still=False)
    outcome = task.result().outcome
    assert (outcome.reason, task.result().stdout) == ("ok", "\nover\n")
    assert outcome.seconds < 1.0


async def test_what_is_held_before_its_launch_waits_for_it(pool: RunnerPool) -> None:
    begun = Begun()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.run(launch(suspended=True, on_started=begun)))
        await asyncio.sleep(0.5)
        assert not begun._event.is_set()
        pool.hold("1", still=False)
        pool.hold("1", still=True)
        pool.hold("1", still=False)
    assert task.result()[1] == "hello"
    pool.hold("1", still=True)  # unknown by now: nothing happens


async def test_what_is_held_before_its_launch_can_be_killed(pool: RunnerPool) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.run(launch(suspended=True)))
        await asyncio.sleep(0.2)
        await pool.kill("1", "cancelled")
        pool.hold("1", still=True)  # nobody holds what is to end
    outcome, output = task.result()
    assert (outcome.reason, outcome.exit, output) == ("cancelled", None, "")


async def test_the_owner_s_signal_arrives_in_a_task_that_stands_still(run: Run, pool: RunnerPool, level: str) -> None:
    begun = Begun()
    code = ("/bin/sh", "-c", "trap 'echo saved > results/saved; exit 3' USR1; echo; while :; do sleep 0.05; done")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(code, level=level, on_started=begun))
        await begun.wait()
        pool.hold("1", still=True)
        await until(lambda: "T" in states(pool._running["1"].runner.pid))
        await pool.kill("1", "evicted", "somebody uses this machine", 20.0, signal.SIGUSR1)
    outcome = task.result().outcome
    assert (outcome.reason, outcome.exit, outcome.detail) == ("evicted", 3, "somebody uses this machine")


async def test_guests_leave_no_warm_runner_and_what_is_made_for_them_stands_still(pool: RunnerPool) -> None:
    guest = dataclasses.replace(launch(lease="guest", argv=("/bin/true",)), idle_priority=True)
    own = launch(lease="own", argv=("/bin/true",))
    await pool.run(own)
    await pool.run(dataclasses.replace(guest, job=b"guest"))
    assert len(pool.pids()) == 1
    pool.quiet(still=True)
    await until(lambda: not pool.pids())
    assert sum(map(len, pool._idle.values())) == 1, "own runners stay"
    await pool.run(dataclasses.replace(guest, job=b"other"))
    await until(lambda: not pool.pids())
    made = dataclasses.replace(guest, lease="made", job=b"made", background=True)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.run(made))
        await until(lambda: "made" in pool._running)
        assert not pool._running["made"].go.is_set()
        pool.quiet(still=False)
    assert task.result()[0].reason == "ok"


async def test_guests_run_behind_everything_else(run: Run, pool: RunnerPool) -> None:
    begun = Begun()
    code = ("/bin/sh", "-c", "sleep 1000 & setsid sleep 1000 & echo; wait")
    async with asyncio.TaskGroup() as group:
        guest = dataclasses.replace(launch(argv=code, on_started=begun), idle_priority=True)
        task = group.create_task(pool.run(guest))
        await begun.wait()
        pids = limits.tree(pool._running["1"].runner.pid, 1000)
        await until(lambda: len(limits.tree(pids[0], 1000)) >= 4)
        for pid in limits.tree(pids[0], 1000):
            assert os.sched_getscheduler(pid) == os.SCHED_IDLE
            assert psutil.Process(pid).ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
        # Where sessions compete as a whole, each of them is lowered, also one that a task began.
        files = [Path(f"/proc/{pid}/autogroup") for pid in limits.tree(pids[0], 1000)] if autogroups.enabled() else []
        await until(lambda: all(file.read_text().endswith("nice 19\n") for file in files))
        await pool.kill("1", "cancelled", grace_s=0.0)
    assert task.result()[0].reason == "cancelled"
