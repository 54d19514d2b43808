"""A new store out of a damaged one: what could be read is kept, means something, and the node can start with it."""

import asyncio
import os
import random
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from p2pq.core.records import Restored
from p2pq.daemon import repair as module
from p2pq.daemon import store as store_module
from p2pq.daemon import wal
from p2pq.daemon.history import JobExtra
from p2pq.daemon.home import Home
from p2pq.daemon.repair import repair, trouble
from p2pq.daemon.store import Store
from p2pq.daemon.tables import SCHEMA
from p2pq.errors import DiskFullError, RefusedError, StorageError, StoreDamagedError
from tests.golden.store import make as golden
from tests.unit.daemon.repairkit import (
    BIG,
    NOW,
    PAGE,
    TASKS,
    check,
    make,
    mended,
    never_twice,
    overwrite,
    pages_of,
    states,
)
from tests.unit.daemon.storekit import raw

pytestmark = pytest.mark.slow

TABLES = tuple(line.split()[2] for line in SCHEMA.splitlines() if line.startswith("CREATE TABLE"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Restored]:
    path = tmp_path_factory.mktemp("repair") / "store.sqlite"
    return path, make(path)


@pytest.fixture
def home(tmp_path: Path, made: tuple[Path, Restored]) -> Home:
    found = Home.open(tmp_path / "home", environ={"P2PQ_ALLOW_ROOT": "1"})
    shutil.copyfile(made[0], found.store)
    found.store.chmod(0o600)
    return found


def test_a_whole_store_comes_out_as_it_was(home: Home, made: tuple[Path, Restored]) -> None:
    assert trouble(home.store, golden.NODE) == ""
    before = home.store.read_bytes()
    report, restored = mended(home)
    assert msgspec.structs.replace(restored, rebuilt=0) == made[1]
    assert restored.rebuilt == NOW == restored.epoch
    assert (report.unreadable_pages, report.lost_jobs, report.again, report.moved) == (0, (), 0, ())
    assert {table.table: table.dropped for table in report.tables} == dict.fromkeys(TABLES, 0)
    assert Path(report.damaged).read_bytes() == before
    assert Path(report.damaged).name == "store.sqlite.damaged~1~"
    assert len(report.jobs) == 4
    again = repair(home, golden.NODE, NOW)
    assert Path(again.damaged).name == "store.sqlite.damaged~2~"


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_pages_in_the_middle_of_any_table(home: Home, made: tuple[Path, Restored], table: str) -> None:
    numbers = pages_of(home.store, table)
    middle = numbers[len(numbers) // 2]
    overwrite(home.store, middle, b"\x5a" * PAGE)
    told = trouble(home.store, golden.NODE)
    assert "run `p2pq repair`" in told
    assert "***" not in told
    assert "page " in told or "rows do not fit" in told or "malformed" in told
    report, restored = mended(home)
    assert report.unreadable_pages == 1
    never_twice(restored, made[1])
    big = next(job for job in (*restored.jobs, *made[1].jobs) if job.job == BIG)
    if table != "jobs":
        assert BIG in states(restored)
        lost = states(made[1])[BIG]["done"] - Counter(task.state for task in big.tasks)["done"]
        assert lost < (100 if table in {"tasks", "attempts"} else 1)
        assert len(restored.jobs) == 4


def test_a_lost_page_of_tasks_is_rebuilt_from_their_attempts(home: Home, made: tuple[Path, Restored]) -> None:
    results = home.path / "results"
    raw(home.store, f"UPDATE extras SET extra = x'{_extra_at(results).hex()}' WHERE job = x'{BIG.hex()}'")
    numbers = pages_of(home.store, "tasks")
    overwrite(home.store, numbers[len(numbers) // 2], bytes(PAGE))
    for task in range(TASKS):
        (results / str(task)).mkdir(parents=True)
    report, restored = mended(home)
    big, was = ({task.task: task for task in job.tasks} for job in (*restored.jobs, *made[1].jobs) if job.job == BIG)
    changed = {task for task in was if big.get(task) != was[task]}
    assert changed
    for task in changed:
        assert big[task].state == ("pending" if was[task].state != "done" else "done")
        assert big[task].delivered == (big[task].state == "done")
    assert report.again == sum(big[task].state == "pending" for task in changed)


def _extra_at(results: Path) -> bytes:
    return msgspec.msgpack.encode(JobExtra(name="big", folder="/home/ada/big", results=str(results), tasks=TASKS))


def test_a_result_that_is_lost_before_it_was_delivered_comes_again(home: Home, made: tuple[Path, Restored]) -> None:
    for number in pages_of(home.store, "attempts")[-8:]:
        overwrite(home.store, number, os.urandom(PAGE))
    report, restored = mended(home)
    never_twice(restored, made[1])
    waiting = {task.task for job in restored.jobs if job.job == BIG for task in job.tasks if task.state == "pending"}
    assert report.again > 50
    assert {task for task in waiting if task < 2400} == set(), "what was delivered, is"
    assert len(waiting) >= 50


def test_a_lost_page_of_jobs_names_what_is_lost(home: Home, made: tuple[Path, Restored]) -> None:
    for number in pages_of(home.store, "jobs"):
        overwrite(home.store, number, bytes(PAGE))
    report, restored = mended(home)
    assert restored.jobs == ()
    assert sorted(text.split()[1] for text in report.lost_jobs) == [
        "big",
        "cancelled",
        "finished",
        "running",
        "waiting",
    ]
    assert "(/home/ada/big)" in " ".join(report.lost_jobs)
    assert (restored.leases, restored.kept, restored.bans) == ((), made[1].kept, made[1].bans)


def test_a_job_whose_folder_is_forgotten_brings_its_results_into_the_home(home: Home) -> None:
    for number in pages_of(home.store, "extras"):
        overwrite(home.store, number, bytes(PAGE))
    report, _ = mended(home)
    assert len(report.moved) == 4
    store, _ = Store.open(home.store, lambda: NOW)
    row = store.job(BIG)
    asyncio.run(store.close())
    assert row is not None
    assert row.extra is not None
    assert (row.extra.tasks, Path(row.extra.results).parent) == (TASKS, home.path / "recovered")


def test_a_header_of_zeros(home: Home, made: tuple[Path, Restored]) -> None:
    overwrite(home.store, 1, bytes(PAGE))
    report, restored = mended(home)
    assert report.unreadable_pages <= 1
    assert msgspec.structs.replace(restored, rebuilt=0) == made[1], "every table is where it is in a fresh store"


def test_half_a_file(home: Home, made: tuple[Path, Restored]) -> None:
    os.truncate(home.store, home.store.stat().st_size // 2 + 100)
    _, restored = mended(home)
    never_twice(restored, made[1])
    assert restored.jobs


@pytest.mark.parametrize("content", [b"", b"not a database, surely" * 1000, b"SQLite format 3\0" + b"\xff" * 9000])
def test_nothing_at_all_is_left(home: Home, content: bytes) -> None:
    home.store.write_bytes(content)
    report, restored = mended(home)
    assert restored == Restored(epoch=NOW, rebuilt=NOW)
    assert Path(report.damaged).read_bytes() == content


@pytest.mark.slow
def test_random_damage(home: Home, made: tuple[Path, Restored]) -> None:
    rng = random.Random(3)
    content = home.store.read_bytes()
    for _ in range(6):
        spoiled = bytearray(content)
        for _ in range(rng.randrange(1, 9)):
            at, size = rng.randrange(len(spoiled)), rng.choice([1, 40, PAGE, 30_000])
            spoiled[at : at + size] = rng.choice([rng.randbytes(size), bytes(size)])
        home.store.write_bytes(spoiled[: len(content)])
        repair(home, golden.NODE, NOW)
        store, restored = Store.open(home.store, lambda: NOW)
        asyncio.run(store.close())
        check(restored)


def test_a_log_beside_it_counts_and_stays(home: Home) -> None:
    db = sqlite3.connect(home.store, isolation_level=None)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("UPDATE peers SET name = 'dora'")
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{home.store}{suffix}", f"{home.path}/aside{suffix}")
    db.close()
    for suffix in ("", "-wal"):
        (home.path / f"aside{suffix}").replace(f"{home.store}{suffix}")
    report, restored = mended(home)
    assert {peer.name for peer in restored.peers} == {"dora"}
    assert Path(f"{report.damaged}-wal").stat().st_size > PAGE
    assert not home.store.with_name("store.sqlite-wal").exists()


# -- a damaged log ---------------------------------------------------------------------------------------------------------

STRIDE = wal.FRAME_HEAD_BYTES + PAGE


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Restored]:
    """Return a store that a killed node left, with all of it in the log, and what it gives back."""
    folder = tmp_path_factory.mktemp("killed")
    return folder / "killed.sqlite", make(folder / "store.sqlite", killed=folder / "killed.sqlite")


@pytest.fixture
def killed(tmp_path: Path, left: tuple[Path, Restored]) -> Home:
    found = Home.open(tmp_path / "killed", environ={"P2PQ_ALLOW_ROOT": "1"})
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{left[0]}{suffix}", f"{found.store}{suffix}")
        Path(f"{found.store}{suffix}").chmod(0o600)
    return found


def spoil(home: Home, at: int, size: int = 64) -> None:
    with wal.of(home.store).open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(size))


def same_but(restored: Restored, before: Restored) -> int:
    """Return how many tasks are not as they were; the rest of what matters is."""
    assert [job.job for job in restored.jobs] == [job.job for job in before.jobs]
    assert (restored.kept, restored.bans) == (before.kept, before.bans)
    old = {(job.job, task.task): task for job in before.jobs for task in job.tasks}
    return sum(old[job.job, task.task] != task for job in restored.jobs for task in job.tasks)


@pytest.mark.slow
def test_garbage_in_the_log_costs_next_to_nothing(killed: Home, left: tuple[Path, Restored]) -> None:
    size = wal.of(killed.store).stat().st_size
    log = wal.of(killed.store).read_bytes()
    spoil(killed, size // 3)
    assert "store.sqlite-wal is broken in the middle" in trouble(killed.store, golden.NODE)
    spoiled = wal.of(killed.store).read_bytes()
    assert spoiled != log
    report, restored = mended(killed)
    never_twice(restored, left[1])
    assert same_but(restored, left[1]) < 100
    assert 1 <= report.broken_frames <= 3
    assert (report.frames, report.later > 20) == (len(log) // STRIDE, True)
    assert Path(f"{report.damaged}-wal").read_bytes() == spoiled
    assert len(report.names) == 4
    assert "big" in " ".join(report.names)


@pytest.mark.slow
def test_any_damage_to_the_log(killed: Home, left: tuple[Path, Restored]) -> None:
    rng = random.Random(9)
    log, file = wal.of(killed.store), killed.store.read_bytes()
    whole = log.read_bytes()
    for size in (0, 64, 64, 9000, 50_000):
        killed.store.write_bytes(file)
        log.write_bytes(whole)
        spoil(killed, rng.randrange(len(whole) * 3 // 4) if size else 0, size or 32)
        report, restored = mended(killed)
        never_twice(restored, left[1])
        assert restored.epoch == restored.rebuilt
        assert same_but(restored, left[1]) <= (0 if size == 0 else 300)
        assert report.later > 5


@pytest.mark.slow
def test_pages_whose_last_change_is_lost_cost_only_that(killed: Home, left: tuple[Path, Restored]) -> None:
    """The last contents of the tables' pages, each in turn: jobs come back as they were before, tasks as attempts say."""
    log = wal.of(killed.store)
    whole, file = log.read_bytes(), killed.store.read_bytes()
    begins = range(wal.HEAD_BYTES, len(whole) - 3 * STRIDE, STRIDE)
    last = {int.from_bytes(whole[at : at + 4], "big"): at for at in begins}
    spoken: set[str] = set()
    for number, at in sorted(last.items())[:14]:
        killed.store.write_bytes(file)
        log.write_bytes(whole)
        spoil(killed, at + 1000, 2000)
        report, restored = mended(killed)
        assert report.broken_frames == 1, number
        never_twice(restored, left[1])
        assert len(restored.jobs) + len(report.lost_jobs) == 4, number
        spoken |= {text.partition(": ")[2] for text in report.incomplete}
    assert "what happened to it last" in spoken


def test_of_a_page_that_nobody_knows_the_report_says_so(killed: Home, left: tuple[Path, Restored]) -> None:
    spoil(killed, wal.HEAD_BYTES + 40 * STRIDE, 4000)
    report, restored = mended(killed)
    assert report.unknown_pages == 1
    never_twice(restored, left[1])


def test_a_store_that_is_missing_begins_empty_and_after_all_that_was(home: Home) -> None:
    home.store.unlink()
    report, restored = mended(home)
    assert restored == Restored(epoch=NOW, rebuilt=NOW)
    assert (report.jobs, report.pages) == ((), 0)


def test_a_store_that_is_missing_without_its_log_is_read_from_there(killed: Home, left: tuple[Path, Restored]) -> None:
    killed.store.unlink()
    _, restored = mended(killed)
    assert same_but(restored, left[1]) == 0


def test_an_old_store_is_repaired_into_this_format(home: Home) -> None:
    shutil.copyfile(Path(golden.__file__).with_name("v1.db"), home.store)
    overwrite(home.store, pages_of(home.store, "peers")[0], bytes(PAGE))
    report, restored = mended(home)
    assert report.unreadable_pages == 1
    assert (len(restored.jobs), restored.peers) == (3, ())


def test_rows_that_contradict_each_other_are_dropped(home: Home) -> None:
    def spoil(sql: str) -> None:
        raw(home.store, sql)

    spoil("INSERT INTO leases SELECT 2, 900001, n, 2700, 1, worker FROM leases LIMIT 1")  # without its task
    spoil("INSERT INTO leases SELECT 2, 900002, 77, 1, 1, worker FROM leases LIMIT 1")  # of no job
    spoil(
        "INSERT INTO leases SELECT epoch, counter + 500000, n, task, attempt, worker FROM leases WHERE counter = 1009"
    )
    spoil("INSERT INTO settled SELECT epoch, counter, counter + 1 FROM leases WHERE counter = 1059")
    spoil("INSERT INTO tasks (n, task, state) SELECT n, 2800, 'singing' FROM jobs WHERE state IS NULL LIMIT 1")
    spoil("INSERT INTO tasks (n, task, state) VALUES (77, 1, 'done')")
    spoil("UPDATE attempts SET outcome = x'c1' WHERE task = 1 AND epoch = 2 AND counter = 1001")
    spoil("UPDATE jobs SET halt = x'c1' WHERE job = x'" + golden.JOBS["finished"].hex() + "'")
    spoil("UPDATE jobs SET manifest = x'00' WHERE job = x'" + golden.JOBS["waiting"].hex() + "'")
    report, restored = mended(home)
    dropped = {table.table: table.dropped for table in report.tables}
    assert (dropped["leases"], dropped["tasks"], dropped["attempts"], dropped["jobs"]) == (5, 4, 3, 2)
    assert sorted(text.split()[1] for text in report.lost_jobs) == ["finished", "waiting"]
    assert {lease.lease.counter for lease in restored.leases}.isdisjoint({900001, 900002, 1009, 501009, 1059})


def test_no_room_for_a_second_store(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.store.read_bytes()
    monkeypatch.setattr(module.files, "free_bytes", lambda _: 1 << 19)
    with pytest.raises(DiskFullError, match="make 3 MB free and try again"):
        repair(home, golden.NODE, NOW)
    assert home.store.read_bytes() == before


class Crash(BaseException):
    """The process died."""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["built", "aside", "marked", "cleared", "in-place"])
@pytest.mark.parametrize("links", [True, False])
def test_a_repair_that_dies_is_repeated_and_never_leaves_an_empty_store(
    home: Home, made: tuple[Path, Restored], monkeypatch: pytest.MonkeyPatch, point: str, links: bool
) -> None:
    overwrite(home.store, pages_of(home.store, "peers")[0], bytes(PAGE))
    damaged = home.store.read_bytes()

    def reached(name: str) -> None:
        if name == f"repair.{point}":
            raise Crash

    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(module.crashpoints, "reached", reached)
        if not links:
            patch.setattr(os, "link", no_links)
        with pytest.raises(Crash):
            repair(home, golden.NODE, NOW)
    if point != "in-place":
        with pytest.raises(StoreDamagedError):
            store_module.check(home.store)
        report, restored = mended(home)
        assert Path(report.damaged).read_bytes() == damaged
        assert msgspec.structs.replace(restored, rebuilt=0) == msgspec.structs.replace(made[1], peers=())
    assert trouble(home.store, golden.NODE) == ""


def test_what_an_interrupted_repair_put_aside_must_be_there(home: Home) -> None:
    home.store.write_bytes(module.MARK + b"store.sqlite.damaged~9~\n")
    with pytest.raises(RefusedError, match="put it back"):
        repair(home, golden.NODE, NOW)


def test_a_disk_that_fails_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Path) -> None:
        raise OSError(5, "Input/output error", "x")

    monkeypatch.setattr(module.files, "sync", failing)
    before = home.store.read_bytes()
    with pytest.raises(StorageError, match="run `p2pq repair` again"):
        repair(home, golden.NODE, NOW)
    monkeypatch.setattr(module.store, "create", lambda path: path.write_bytes(b"x" * 9000))
    with pytest.raises(StorageError):
        repair(home, golden.NODE, NOW)
    assert home.store.read_bytes() == before


def test_there_is_nothing_wrong_with_a_store_that_is_not_there(tmp_path: Path) -> None:
    assert trouble(tmp_path / "store.sqlite", golden.NODE) == ""


def test_a_job_that_another_key_signed_is_damage(home: Home) -> None:
    assert "does not verify" in trouble(home.store, golden.WORKERS[0])


def test_a_number_of_attempts_that_no_task_reaches_is_not_taken_over(home: Home) -> None:
    """Whoever got it in would leave the task no further attempt."""
    raw(home.store, "UPDATE tasks SET attempts = 1 << 20 WHERE state = 'pending'")
    raw(home.store, "UPDATE attempts SET attempt = 1 << 20 WHERE rowid = (SELECT max(rowid) FROM attempts)")
    _, restored = mended(home)
    attempts = [task.attempts for job in restored.jobs for task in job.tasks]
    assert attempts
    assert max(attempts) < 100
