"""A runner's folders between two tasks of a job: in time for the next one, and never with anything of the last."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pq.daemon import tidying
from p2pq.daemon.blobstore import BlobMissingError
from p2pq.daemon.launches import Furniture, Hooks, TaskLaunch, quick
from p2pq.daemon.runner_process import RunnerProcess
from p2pq.daemon.runners import RunnerPool
from p2pq.daemon.scratch import Scratch
from p2pq.daemon.trains import Passenger, TrainLaunch, run_train
from p2pq.errors import DiskFullError, RefusedError, StorageError
from tests.sandbox.conftest import LIMITS


class Furnisher:
    """Counts how often it furnishes a folder."""

    def __init__(self) -> None:
        self.times = 0
        self.fails: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, folder: Path) -> None:
        assert self.go_on.wait(60)
        if self.fails is not None:
            raise self.fails
        assert not list(folder.iterdir()), "something of another task is here"
        self.times += 1
        (folder / "given").write_text("given")


class Slow:
    """Collects when it is told to."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self._begun = threading.Semaphore(0)

    def __call__(self, *_: object) -> str:
        self._begun.release()
        assert self.go_on.wait(60)
        return "collected"

    async def begun(self, count: int) -> None:
        """Wait until so many are being collected."""
        for _ in range(count):
            await asyncio.to_thread(self._begun.acquire)


def launch(furnisher: Callable[[Path], None], *, small: bool = True, **changes: Any) -> TaskLaunch[str]:
    fields: dict[str, Any] = {
        "lease": "1",
        "job": b"job",
        "level": "none",
        "argv": ("/bin/sh", "-c", "cat given; ls; echo x > left; echo y >> given"),
        "env": {},
        "limits": LIMITS,
        "furniture": Furniture("this job", furnisher, small),
        "populate": lambda _: None,
        "quick": True,
        "collect": lambda _, outcome: outcome.stdout.read_text(),
    }
    return TaskLaunch(**(fields | changes))


def only(pool: RunnerPool) -> RunnerProcess:
    [runner] = pool._alive
    return runner


async def test_a_task_finds_what_all_find_and_nothing_of_the_one_before(pool: RunnerPool, level: str) -> None:
    given = Furnisher()
    for times in range(1, 4):
        _, printed = await pool.run(launch(given, level=level))
        assert printed == "givengiven\n"
        await tidying.over(only(pool))
        assert given.times == times + 1, "it is there before the next task is"
        assert quick(launch(given, level=level), only(pool)), "no thread has to be waited for"


async def test_what_is_large_is_written_for_a_task_that_is_there(pool: RunnerPool) -> None:
    given = Furnisher()
    for times in (1, 2):
        assert (await pool.run(launch(given, small=False)))[1] == "givengiven\n"
        assert (given.times, only(pool).tidying, only(pool).furnished) == (times, None, None)
        assert not list(only(pool).scratch.job.iterdir())


async def test_what_a_job_runs_at_its_end_finds_its_folder_empty(pool: RunnerPool) -> None:
    given = Furnisher()
    await pool.run(launch(given, hooks=Hooks("", "true")))
    assert (given.times, only(pool).tidying) == (1, None)


async def test_a_task_that_comes_soon_waits_for_its_folder(pool: RunnerPool) -> None:
    given = Furnisher()

    def hold(_: Path) -> None:
        given.go_on.clear()

    await pool.run(launch(given, populate=hold))
    async with asyncio.TaskGroup() as group:
        second = group.create_task(pool.run(launch(given)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert (only(pool) in pool._busy, second.done()) == (True, False)
        given.go_on.set()
    assert second.result()[1] == "givengiven\n"


@pytest.mark.parametrize("error", [DiskFullError("full"), BlobMissingError("gone"), RefusedError("in the way")])
async def test_who_needs_a_folder_that_could_not_be_furnished_finds_out_why(pool: RunnerPool, error: Exception) -> None:
    given = Furnisher()

    def fail_later(_: Path) -> None:
        given.fails = error

    assert (await pool.run(launch(given, populate=fail_later)))[1] == "givengiven\n"
    await tidying.over(only(pool))
    assert only(pool).furnished is None
    with pytest.raises(type(error)):
        await pool.run(launch(given))
    given.fails = None
    assert (await pool.run(launch(given)))[1] == "givengiven\n"


async def test_a_folder_that_cannot_be_emptied_costs_the_runner_only(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, failing = Furnisher(), threading.Event()

    def fail(_: Scratch, *, begun: bool) -> None:
        failing.set()
        raise OSError(5, f"broken {begun}")

    with monkeypatch.context() as patch:
        patch.setattr(Scratch, "empty", fail)
        begun = asyncio.create_task(pool.run(launch(given)))  # noqa: TID251  awaited at once
        await asyncio.sleep(0)
        lost = only(pool)
        assert (await begun)[1] == "givengiven\n"
        await asyncio.to_thread(failing.wait)
        with pytest.raises(StorageError, match="failed: broken False"):
            await tidying.over(lost)
    await lost.wait_dead()
    assert (await pool.run(launch(given)))[1] == "givengiven\n"
    assert lost not in pool._alive


async def test_what_a_job_runs_at_its_end_waits_for_its_folder(pool: RunnerPool, tmp_path: Path) -> None:
    """Also where its last task was the last of a train."""
    seen = tmp_path / "seen"
    common = launch(Furnisher(), hooks=Hooks("true", f"ls > {seen}"), argv=())
    train = TrainLaunch(
        common=common,
        passengers=tuple(Passenger(str(n), ("/bin/sh", "-c", "echo x > left"), (), {}) for n in range(3)),
        collect=lambda *_: "x",
        on_started=lambda *_: None,
    )
    async for _ in run_train(pool, train):
        pass
    runner = only(pool)
    pool.end_job(b"job")
    await runner.dead
    assert seen.read_text() == ""


async def test_those_that_end_together_are_not_promised_the_same_room(pool: RunnerPool) -> None:
    pool._runners_max = 3
    vacated: list[str] = []
    slow = Slow()
    async with asyncio.TaskGroup() as group:
        for lease in ("1", "2"):
            each = launch(Furnisher(), lease=lease, collect=slow, on_vacated=lambda: vacated.append("one"))
            group.create_task(pool.run(each))
        await slow.begun(2)
        assert vacated == ["one"], "three runners in all, and two are taken"
        slow.go_on.set()


async def test_slow_results_hold_up_nobody_else_s_threads(pool: RunnerPool) -> None:
    slow = Slow()
    async with asyncio.TaskGroup() as group:
        for lease in map(str, range(tidying.THREADS_MIN)):
            group.create_task(pool.run(launch(Furnisher(), lease=lease, collect=slow, idle_priority=True)))
        await slow.begun(tidying.THREADS_MIN)
        assert (await pool.run(launch(Furnisher(), lease="own")))[1] == "givengiven\n"
        slow.go_on.set()


async def test_folders_are_removed_when_nothing_works_on_them_any_more(pool: RunnerPool) -> None:
    given = Furnisher()
    await pool.run(launch(given, populate=lambda _: given.go_on.clear()))
    runner = only(pool)
    runner.kill()
    await runner.wait_dead()
    for _ in range(3):
        await asyncio.sleep(0)
    assert runner.scratch.job.is_dir(), "it is being filled"
    given.go_on.set()
    while pool._removals:
        await asyncio.wait(pool._removals)
    assert not runner.scratch.root.exists()


async def test_what_was_collected_counts_once_it_is_durable(pool: RunnerPool) -> None:
    given, secured = Furnisher(), []
    await pool.run(launch(given, secure=secured.append))
    assert secured == ["givengiven\n"]

    def fail(_: str) -> None:
        raise StorageError("the disk failed")

    with pytest.raises(StorageError, match="the disk failed"):
        await pool.run(launch(given, secure=fail))


async def test_one_folder_that_cannot_be_emptied_is_this_machines_trouble(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Furnisher()
    once = dataclasses.replace(launch(given), furniture=None, argv=("/bin/true",))
    with monkeypatch.context() as patch:

        def fail(_: Scratch, *, begun: bool) -> None:
            raise OSError(5, f"broken {begun}")

        patch.setattr(Scratch, "empty", fail)
        with pytest.raises(StorageError, match="failed: broken False"):
            await pool.run(once)
    assert not [runner for runner in pool._alive if not runner.broken]


async def test_another_task_can_run_while_the_results_of_one_are_collected(pool: RunnerPool) -> None:
    """Where there may be another runner; the folder that is collected is no longer its own."""
    given, vacated, slow = Furnisher(), asyncio.Event(), Slow()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(pool.run(launch(given, collect=slow, on_vacated=vacated.set)))
        await vacated.wait()
        other = dataclasses.replace(launch(given), lease="2")
        assert (await pool.run(other))[1] == "givengiven\n"
        assert not first.done()
        slow.go_on.set()
    assert first.result()[1] == "collected"
    assert len(pool._alive) == 2, "both wait for more"


async def test_no_other_task_is_asked_for_where_no_other_runner_can_be_had(pool: RunnerPool) -> None:
    pool._runners_max = 1
    await pool.run(launch(Furnisher(), on_vacated=lambda: pytest.fail("there is no room")))


async def test_a_folder_does_not_stay_ready_for_long(pool: RunnerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a job is left lying on a machine that works for it no more."""
    monkeypatch.setattr(tidying, "FURNISHED_S", 0.05)
    emptied, real = threading.Semaphore(0), Scratch.empty

    def empty(scratch: Scratch, *, begun: bool = False) -> None:
        real(scratch, begun=begun)
        emptied.release()

    monkeypatch.setattr(Scratch, "empty", empty)
    given = Furnisher()
    await pool.run(launch(given))
    runner = only(pool)
    for _ in ("for the next task", "as there is none"):
        await asyncio.to_thread(emptied.acquire)
    await tidying.over(runner)
    assert runner.furnished is None
    assert not list(runner.scratch.job.iterdir())
    assert (await pool.run(launch(given)))[1] == "givengiven\n"
    assert only(pool) is runner


async def test_behind_a_long_attempt_no_other_begins_before_it_is_packed(
    pool: RunnerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runner, and what it has imported, is the next one's."""
    monkeypatch.setattr(tidying, "SHORT_S", 0.0)
    await pool.run(launch(Furnisher(), on_vacated=lambda: pytest.fail("it was long")))
