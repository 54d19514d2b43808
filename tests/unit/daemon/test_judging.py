"""What a repair says is lost, by table and by job, and what it makes of the rest."""

import asyncio
import shutil
from pathlib import Path

import pytest

from p2pq.core import records
from p2pq.daemon.home import Home
from p2pq.daemon.repair import Report
from p2pq.daemon.store import Store
from p2pq.daemon.views import job_view
from p2pq.model.ids import LeaseId, to_text
from p2pq.model.job import JobState, Outcome
from tests.golden.store import make as golden
from tests.unit.daemon.repairkit import NOW, PAGE, mended, overwrite, pages_of
from tests.unit.daemon.storekit import raw

ENDED = 21
TASKS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store of jobs that have ended, as a user's is most of the time."""
    path = tmp_path_factory.mktemp("judging") / "store.sqlite"

    async def fill() -> None:
        store, _ = Store.open(path, lambda: NOW)
        store.start()
        await store.commit([records.EpochBegun(epoch=1)], full=True)
        for number in range(ENDED):
            name = f"job{number}"
            store.keep_extra(golden.job_id(name), golden.extra(name, TASKS))
            rows: list[records.Row] = [golden.added(name, TASKS)]
            state: JobState = "done"
            for task in range(TASKS):
                held = golden.granted(name, task, 1, LeaseId(1, number * TASKS + task))
                outcome: Outcome = golden.OK
                if number == 5 and task == 3:
                    outcome, state = golden.BAD, "failed"
                rows += [held, golden.ended(held, outcome, "done" if outcome.ok else "failed")]
                rows.append(records.TaskDelivered(job=held.job, task=task))
            rows.append(records.JobEnded(job=golden.job_id(name), state=state, wall=NOW))
            await store.commit(rows, full=True)
        await store.close()

    asyncio.run(fill())
    return path


@pytest.fixture
def home(tmp_path: Path, made: Path) -> Home:
    found = Home.open(tmp_path / "home", environ={"P2PQ_ALLOW_ROOT": "1"})
    shutil.copyfile(made, found.store)
    found.store.chmod(0o600)
    return found


def lost(report: Report) -> dict[str, int]:
    return {table.table: table.lost for table in report.tables if table.lost}


def short(name: str) -> str:
    return to_text(golden.job_id(name))[:8]


def spoil(home: Home, table: str, at: int = 0) -> None:
    overwrite(home.store, pages_of(home.store, table)[at], b"\x5a" * PAGE)


def where(name: str) -> str:
    return f"n = (SELECT n FROM jobs WHERE job = x'{golden.job_id(name).hex()}')"


def test_nothing_is_lost_of_a_whole_store(home: Home) -> None:
    report, _ = mended(home)
    assert (lost(report), report.incomplete, report.lost_jobs, report.names) == ({}, (), (), ())


def test_an_ended_job_without_its_extras_is_named_and_shows_itself_so(home: Home) -> None:
    raw(home.store, f"DELETE FROM extras WHERE job = x'{golden.job_id('job3').hex()}'")
    report, _ = mended(home)
    assert lost(report) == {"extras": 1}
    missing = "its name, its folder and where its results lie"
    assert report.incomplete == (f"{short('job3')} recovered: {missing}",)
    assert report.moved == ()
    store, _ = Store.open(home.store, lambda: NOW)
    row = store.job(golden.job_id("job3"))
    assert row is not None
    view = job_view(row, "ada")
    asyncio.run(store.close())
    assert (view.state, view.tasks.done, view.tasks.total) == ("done", TASKS, TASKS)
    assert view.lost == f"lost with a damaged store: {missing}"


def test_pages_of_extras_are_counted_by_job(home: Home) -> None:
    spoil(home, "extras")
    report, _ = mended(home)
    [table] = [table for table in report.tables if table.table == "extras"]
    assert table.lost > 0
    assert len(report.incomplete) == table.lost
    assert table.saved + table.lost == ENDED
    assert {table.table: table.unreadable_pages for table in report.tables if table.unreadable_pages} == {"extras": 1}


def test_tasks_of_an_ended_job_are_rebuilt_or_named(home: Home) -> None:
    raw(home.store, f"DELETE FROM tasks WHERE {where('job4')} AND task >= 2")
    raw(home.store, f"DELETE FROM attempts WHERE {where('job4')} AND task >= 5")
    raw(home.store, f"DELETE FROM tasks WHERE {where('job5')} AND task = 3")
    raw(home.store, f"DELETE FROM attempts WHERE {where('job5')} AND task = 3")
    report, _ = mended(home)
    assert lost(report) == {"tasks": 4}
    assert report.incomplete == (
        f"{short('job4')} job4: the details of 3 tasks",
        f"{short('job5')} job5: the details of 1 task",
    )
    assert report.again == 0
    store, _ = Store.open(home.store, lambda: NOW)
    four, five = (store.tasks(golden.job_id(name)) for name in ("job4", "job5"))
    asyncio.run(store.close())
    assert {task.state for task in four} == {"done"}
    assert [task.detail for task in four] == [""] * 5 + ["its details were lost with a damaged store"] * 3
    assert len(five) == TASKS - 1, "whether it failed nobody knows by its row alone"


def test_attempts_are_missed_if_something_could_not_be_read(home: Home) -> None:
    raw(home.store, f"DELETE FROM attempts WHERE {where('job6')} AND task = 1")
    report, _ = mended(home)
    assert (lost(report), report.incomplete) == ({}, ()), "a job that was opened again may have let go of them"
    spoil(home, "attempts", 2)
    report, _ = mended(home)
    assert lost(report)["attempts"] > 1
    assert f"{short('job6')} job6: the details of 1 attempt" in report.incomplete


def test_jobs_that_are_lost_are_named_by_whatever_is_left(home: Home) -> None:
    run = home.store
    named, unnamed, nameless = "job7", "job8", "job9"
    for name in (unnamed, nameless):
        raw(run, f"DELETE FROM extras WHERE job = x'{golden.job_id(name).hex()}'")
    raw(run, f"DELETE FROM attempts WHERE {where(nameless)}")
    for name in (named, unnamed, nameless):
        raw(run, f"DELETE FROM jobs WHERE job = x'{golden.job_id(name).hex()}'")
    report, _ = mended(home)
    assert report.lost_jobs == (
        f"{short(named)} {named} (/home/ada/{named})",
        f"{short(unnamed)} (its name and folder are lost, too)",
        "of which not even the id is left",
    )
    assert lost(report) == {"jobs": 3}
