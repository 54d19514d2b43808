"""The writer: batches, durability, full disks, kill -9; and what is found when a store is opened."""

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2pq.core.records import (
    EpochBegun,
    JobAdded,
    Restored,
)
from p2pq.daemon import store as store_module
from p2pq.daemon.home import Home
from p2pq.daemon.store import Store
from p2pq.daemon.tables import FORMAT
from p2pq.errors import DiskFullError, RefusedError, StorageError, StoreDamagedError
from p2pq.model.config import StoreSettings
from p2pq.model.ids import LeaseId, Wall
from tests.unit.daemon.storekit import (
    ADDED,
    JOB,
    NOW,
    OUTDATED,
    Opened,
    attempt_ended,
    clock,
    granted,
    item,
    raw,
)


async def test_a_new_store_is_empty_and_private(opened: Opened) -> None:
    assert opened.restored == Restored(epoch=OUTDATED)
    await opened.write(ADDED)
    names = {path.name: path.stat().st_mode & 0o777 for path in opened.path.parent.iterdir()}
    assert names == {"store.sqlite": 0o600, "store.sqlite-wal": 0o600, "store.sqlite-shm": 0o600}


async def test_the_log_is_synced_only_where_it_must_be(opened: Opened) -> None:
    await opened.store.commit([granted()], full=False)
    assert opened.store._writer.execute("PRAGMA synchronous").fetchone() == (1,)
    await opened.store.commit([ADDED], full=True)
    assert opened.store._writer.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_batches_become_durable_in_order(opened: Opened) -> None:
    order: list[int] = []
    waiters = []
    for number in range(50):
        waiter = opened.store.commit([EpochBegun(epoch=number + 1)], full=number % 7 == 0)
        waiter.add_done_callback(lambda _, number=number: order.append(number))
        waiters.append(waiter)
    await waiters[-1]
    await asyncio.sleep(0)
    assert order == list(range(50))


async def test_a_full_disk_loses_nothing(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RETRY_FIRST_S", 0.01)
    await opened.write(EpochBegun(epoch=1))
    opened.store._writer.execute("PRAGMA max_page_count = 1")
    big = JobAdded(job=JOB, manifest=b"x" * 100_000, key=b"", reply_secret=b"", wall=Wall(0))
    first = opened.store.commit([big, granted(), attempt_ended(item())], full=True)
    await opened.until_trouble_changes()
    assert isinstance(opened.store.trouble, DiskFullError)
    assert "disk is full" in str(opened.store.trouble)
    second = opened.store.commit([EpochBegun(epoch=OUTDATED + 2)], full=False)
    assert not first.done()
    assert not second.done()
    assert opened.store.job(JOB) is None  # half a batch is never seen
    opened.store._writer.execute("PRAGMA max_page_count = 1000000")
    async with asyncio.timeout(20):
        await first
        await second
    await opened.until_trouble_changes()
    assert [type(trouble) for trouble in opened.troubles] == [DiskFullError, type(None)]
    assert opened.store.trouble is None
    restored = await opened.reopened()
    assert (restored.epoch, restored.settled) == (OUTDATED + 2, ((1, ((7, 8),)),))
    assert restored.jobs[0].manifest == big.manifest


async def test_closing_on_a_full_disk_says_so_to_who_waits(opened: Opened) -> None:
    await opened.write(EpochBegun(epoch=1))
    opened.store._writer.execute("PRAGMA max_page_count = 1")
    big = JobAdded(job=JOB, manifest=b"x" * 100_000, key=b"", reply_secret=b"", wall=Wall(0))
    waiter = opened.store.commit([big], full=True)
    await opened.until_trouble_changes()
    await opened.store.close()
    with pytest.raises(DiskFullError):
        await waiter
    with pytest.raises(DiskFullError):
        await opened.store.commit([granted()], full=False)


async def test_nobody_need_look_at_what_became_of_a_commit(opened: Opened) -> None:
    """Who no longer waits is not told by a trace on standard error."""
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    await opened.write(EpochBegun(epoch=1))
    opened.store._writer.execute("PRAGMA max_page_count = 1")
    big = JobAdded(job=JOB, manifest=b"x" * 100_000, key=b"", reply_secret=b"", wall=Wall(0))
    waiter = opened.store.commit([big], full=True)
    await opened.until_trouble_changes()
    await opened.store.close()
    await asyncio.wait([waiter])
    del waiter
    await asyncio.sleep(0)
    gc.collect()
    assert told == []


async def until_empty(opened: Opened) -> None:
    log = opened.path.with_name("store.sqlite-wal")
    async with asyncio.timeout(20):
        while log.stat().st_size > 0:  # noqa: ASYNC110  a thread does it
            await asyncio.sleep(0.01)


async def test_the_log_is_emptied_when_there_is_nothing_to_do(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "IDLE_S", 0.05)
    for number in range(3):
        await opened.write(EpochBegun(epoch=OUTDATED + number))
        await until_empty(opened)
    async with asyncio.timeout(20):
        while opened.store._logged is not None:  # noqa: ASYNC110  the writer's thread notes it a moment later
            await asyncio.sleep(0.01)
    assert (await opened.reopened()).epoch == OUTDATED + 2


async def test_the_log_is_emptied_now_and_then_when_there_is_always_something_to_do(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "IDLE_S", 3600.0)
    await opened.write(ADDED)
    size = opened.path.stat().st_size
    for task in range(200):
        await opened.write(granted(task=task, lease=LeaseId(1, task)))
    assert opened.path.stat().st_size == size
    monkeypatch.setattr(store_module, "LOG_S", 0.0)
    await opened.write(granted(task=900, lease=LeaseId(1, 900)))
    assert opened.path.stat().st_size > size


async def test_a_log_that_cannot_be_emptied_is_tried_again(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "IDLE_S", 0.05)
    monkeypatch.setattr(store_module.sqlite, "BUSY_MS", 1)
    opened.store._writer.execute("PRAGMA busy_timeout = 1")
    reader = opened.store._reader
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM jobs").fetchall()
    await opened.write(ADDED)
    await asyncio.sleep(0.3)
    assert opened.path.with_name("store.sqlite-wal").stat().st_size > 0
    reader.execute("COMMIT")
    await until_empty(opened)
    found: list[sqlite3.Error] = [sqlite3.OperationalError("disk I/O error"), sqlite3.DatabaseError("malformed")]
    found[0].sqlite_errorcode, found[1].sqlite_errorcode = sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT
    truth = opened.store._writer

    class Failing:
        def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
            if "wal_checkpoint" in sql and found:
                raise found.pop(0)
            return truth.execute(sql, *args)

        def __getattr__(self, name: str) -> object:
            return getattr(truth, name)

    opened.store._writer = Failing()  # type: ignore[assignment]
    await opened.write(granted())
    await opened.until_trouble_changes()
    assert isinstance(opened.store.trouble, StoreDamagedError)
    assert found == []


async def test_a_row_that_cannot_be_stored_is_the_end(opened: Opened) -> None:
    await opened.write(ADDED)
    waiting = opened.store.commit([EpochBegun(epoch=OUTDATED + 5), ADDED], full=True)  # the same job twice
    with pytest.raises(StorageError, match="report this"):
        await waiting
    assert opened.store.trouble is not None
    with pytest.raises(StorageError):
        await opened.store.commit([EpochBegun(epoch=6)], full=True)
    assert (await opened.reopened()).epoch == OUTDATED


async def test_a_value_that_sqlite_cannot_hold_is_the_end(opened: Opened) -> None:
    with pytest.raises(StorageError, match="could not be stored"):
        await opened.store.commit([EpochBegun(epoch=1 << 70)], full=True)


async def test_a_closed_store_takes_nothing(opened: Opened) -> None:
    await opened.store.close()
    with pytest.raises(StorageError, match="closed"):
        await opened.store.commit([granted()], full=False)
    with pytest.raises(StorageError):
        opened.store.job(JOB)


async def test_a_closed_store_prunes_nothing(opened: Opened) -> None:
    await opened.store.close()
    waiter = opened.store.prune(StoreSettings())
    await opened.store.close()
    assert waiter.cancelled()


async def test_commit_before_start_is_a_mistake(tmp_path: Path) -> None:
    store, _ = Store.open(tmp_path / "store.sqlite", clock)
    with pytest.raises(RuntimeError):
        store.commit([granted()], full=False)
    with pytest.raises(RuntimeError):
        store.prune(StoreSettings())
    await store.close()


# -- opening what is there -------------------------------------------------------------------------------------------


async def filled(path: Path) -> None:
    store, _ = Store.open(path, clock)
    store.start()
    rows = [ADDED, *(granted(task=n, lease=LeaseId(1, n)) for n in range(2000))]
    await store.commit(rows, full=True)
    await store.close()


async def test_a_damaged_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await filled(path)
    whole = path.read_bytes()
    page = 4096
    damages = {
        "header": b"\xff" * 100 + whole[100:],
        "garbage": b"not a database, surely" * 1000,
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "pages": whole[: 3 * page] + b"\x5a" * (len(whole) - 3 * page),
        "short": whole[:50],
    }
    for name, content in damages.items():
        path.write_bytes(content)
        with pytest.raises(StoreDamagedError, match="damaged") as caught:
            Store.open(path, clock)
        assert "backup" in str(caught.value), name
        assert path.read_bytes() == content, name
    path.write_bytes(whole)
    store, restored = Store.open(path, clock)
    await store.close()
    assert len(restored.leases) == 2000


def test_a_home_that_has_lost_its_store_is_told_from_a_new_one(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home", environ={"P2PQ_ALLOW_ROOT": "1"})
    assert store_module.missing(home) == ""
    store_module.begin(home)
    assert home.store.exists()
    content = home.store.read_bytes()
    store_module.begin(home)  # the first start crashed before there was a key
    for witness in (home.identity_key, home.mesh_state, home.path / "store.sqlite-wal"):
        home.store.write_bytes(content)
        witness.write_bytes(b"x")
        store_module.begin(home)
        home.store.unlink()
        assert "the store is missing" in store_module.missing(home)
        with pytest.raises(StoreDamagedError, match="or run `p2pq repair` to begin an empty one"):
            store_module.begin(home)
        assert not home.store.exists()
        witness.unlink()
    home.path.chmod(0o500)
    try:
        if os.geteuid():
            with pytest.raises(StorageError):
                store_module.begin(home)
    finally:
        home.path.chmod(0o700)


async def test_a_value_that_does_not_decode_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await filled(path)
    raw(path, "INSERT INTO peers VALUES (1, x'00', 'n', x'c1')")
    with pytest.raises(StoreDamagedError, match="does not decode"):
        Store.open(path, clock)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await filled(path)
    raw(path, f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(RefusedError, match="newer p2pq"):
        Store.open(path, clock)


async def test_a_store_without_a_format_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await filled(path)
    raw(path, "PRAGMA user_version = 0")
    with pytest.raises(StoreDamagedError, match="its format is missing"):
        Store.open(path, clock)


async def test_a_life_begins_after_every_epoch_that_a_lost_store_can_have_used(tmp_path: Path) -> None:
    path, backup = tmp_path / "store.sqlite", tmp_path / "backup"
    opened = Opened(path).start()
    await opened.write(EpochBegun(epoch=opened.restored.epoch + 1))
    await opened.store.close()
    backup.write_bytes(path.read_bytes())
    last = opened.restored.epoch + 1
    for _ in range(3):  # lives that come quickly
        store, restored = Store.open(path, lambda: NOW)
        store.start()
        assert restored.epoch == last
        last = restored.epoch + 1
        await store.commit([EpochBegun(epoch=last)], full=True)
        await store.close()
    backup.replace(path)
    later = Wall(NOW + 10_000)
    for _ in ("from a backup", "without its store"):
        store, restored = Store.open(path, lambda: later)
        await store.close()
        assert restored.epoch + 1 > last
        path.unlink()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    raw(path, "CREATE TABLE theirs (x)")
    with pytest.raises(StoreDamagedError, match="another program"):
        Store.open(path, clock)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        Store.open(tmp_path / "missing" / "store.sqlite", clock)


def test_a_crash_while_making_the_store_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".store.sqlite.new").write_bytes(b"half")
    store, restored = Store.open(tmp_path / "store.sqlite", clock)
    asyncio.run(store.close())
    assert restored == Restored(epoch=OUTDATED)
    assert not (tmp_path / ".store.sqlite.new").exists()


# -- kill -9 ---------------------------------------------------------------------------------------------------------

CRASHER = """
import asyncio, sys
from pathlib import Path
from p2pq.core.records import EpochBegun, JobAdded, LeaseGranted
from p2pq.daemon.home import Home
from p2pq.daemon.store import Store
from p2pq.model.ids import LeaseId

async def main(path, start):
    store, _ = Store.open(Path(path), lambda: 0)
    store.start()
    async def write(number):
        job = number.to_bytes(16, "big")
        await store.commit([
            JobAdded(job=job, manifest=b"m" * 300, key=b"", reply_secret=b"", wall=number),
            *(LeaseGranted(lease=LeaseId(1, number * 10 + n), job=job, task=n, attempt=1, worker=b"w", wall=0)
              for n in range(10)),
        ], full=number % 5 == 0)
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    number = start
    while True:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(write(number))
                number += 1

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    acknowledged: set[int] = set()
    for start, acknowledgements in ((0, 3), (100_000, 150), (200_000, 60)):
        argv = [sys.executable, "-c", CRASHER, str(path), str(start)]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        with subprocess.Popen(  # noqa: ASYNC220  the reads below are short
            argv, stdout=subprocess.PIPE, env=environ, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(acknowledgements):
                acknowledged.add(int(process.stdout.readline()))
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().splitlines(keepends=True)
            acknowledged |= {int(line) for line in lines if line.endswith("\n")}
        store, restored = Store.open(path, clock)
        await store.close()
        stored = {job.wall: len(job.tasks) for job in restored.jobs}
        assert acknowledged <= stored.keys()
        assert set(stored.values()) == {10}, "a batch is there as a whole or not at all"
        assert len(restored.leases) == 10 * len(stored)


@pytest.mark.slow
async def test_it_is_fast_enough(opened: Opened) -> None:
    """Tens of thousands of row updates in a second of this process's own time, whatever else the machine does."""
    await opened.write(EpochBegun(epoch=1), ADDED)
    tasks = 20_000
    begun = time.process_time()
    for first in range(0, tasks, 50):
        numbers = range(first, first + 50)
        opened.store.commit([granted(task=n, lease=LeaseId(1, n)) for n in numbers], full=False)
        waiter = opened.store.commit([attempt_ended(item(task=n, lease=LeaseId(1, n))) for n in numbers], full=True)
    await waiter
    rate = 2 * tasks / (time.process_time() - begun)
    print(f"{rate:.0f} rows/s")
    assert rate > 10_000
