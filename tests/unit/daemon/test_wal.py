"""A log that is broken where more follows is damage, how it ends is not; and what is in it all the same."""

import asyncio
import os
import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from p2pq.core.records import LeaseEnded, Restored
from p2pq.daemon import store as store_module
from p2pq.daemon import wal
from p2pq.daemon.pages import Pages
from p2pq.daemon.store import Store
from p2pq.errors import StoreDamagedError
from p2pq.model.ids import LeaseId
from tests.unit.daemon.storekit import ADDED, JOB, Opened, attempt_ended, clock, granted, item

pytestmark = pytest.mark.slow

TASKS = 60
STRIDE = wal.FRAME_HEAD_BYTES + wal.PAGE_BYTES


def killed(opened: Opened, folder: Path) -> Path:
    """Return a copy of an open store as it would be left by ``kill -9``."""
    folder.mkdir()
    path = folder / "store.sqlite"
    for suffix in ("", "-wal", "-shm"):
        shutil.copyfile(f"{opened.path}{suffix}", f"{path}{suffix}")
    return path


async def fill(opened: Opened, *, full: bool = True) -> None:
    for n in range(TASKS):
        lease = LeaseId(1, n)
        await opened.store.commit([granted(task=n, lease=lease)], full=False)
        if full:
            await opened.store.commit([attempt_ended(item(task=n, lease=lease))], full=True)


@pytest.fixture(autouse=True)
def _the_log_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "IDLE_S", 3600.0)


@pytest.fixture
async def store(opened: Opened, tmp_path: Path) -> Path:
    await opened.store.commit([ADDED], full=True)
    await fill(opened)
    return killed(opened, tmp_path / "killed")


def opens(path: Path) -> Restored:
    store, restored = Store.open(path, clock)
    asyncio.run(store.close())
    return restored


def settled(restored: Restored) -> int:
    return sum(stop - start for _, spans in restored.settled for start, stop in spans)


def spoil(path: Path, at: int, content: bytes) -> bytes:
    log = wal.of(path)
    whole = log.read_bytes()
    log.write_bytes(whole[:at] + content + whole[at + len(content) :])
    return whole


def frames(path: Path) -> int:
    return (wal.of(path).stat().st_size - wal.HEAD_BYTES) // STRIDE


def refused(path: Path) -> str:
    before = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal")}
    with pytest.raises(StoreDamagedError) as caught:
        Store.open(path, clock)
    assert before == {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", "-wal")}, "it is left as it is"
    with pytest.raises(StoreDamagedError):
        store_module.check(path)
    return str(caught.value)


def test_garbage_in_the_middle_of_the_log_is_damage(store: Path) -> None:
    size = wal.of(store).stat().st_size
    spoil(store, size // 3, os.urandom(64))
    told = refused(store)
    assert "its log store.sqlite-wal is broken in the middle; transactions after that: " in told
    assert "`p2pq repair`" in told


@pytest.mark.slow
def test_any_frame_that_is_broken_with_more_behind_it_is_damage(store: Path) -> None:
    rng = random.Random(5)
    for at in [0, 8, 24, *(rng.randrange(wal.of(store).stat().st_size - 12 * STRIDE) for _ in range(12))]:
        whole = spoil(store, at, b"\xa5" * 9)
        refused(store)
        wal.of(store).write_bytes(whole)
    assert settled(opens(store)) == TASKS


def test_a_torn_end_is_no_damage(store: Path) -> None:
    log = wal.of(store)
    whole = log.read_bytes()
    for size in (0, 10, 32, 33, 32 + STRIDE - 1, len(whole) // 2, len(whole) - 1, len(whole) - STRIDE):
        log.write_bytes(whole[:size])
        wal.check(store)
        with closing(Pages(store)) as pages:
            assert (pages.log.damage, pages.log.broken) == ("", 0)
    log.write_bytes(whole[: -STRIDE // 2] + os.urandom(STRIDE // 2))
    assert settled(opens(store)) >= TASKS - 1


async def test_frames_of_an_earlier_log_behind_the_end_are_no_damage(opened: Opened, tmp_path: Path) -> None:
    await opened.store.commit([ADDED], full=True)
    await fill(opened)
    opened.store._writer.execute("PRAGMA wal_checkpoint(RESTART)")
    await opened.store.commit([granted(task=900, lease=LeaseId(1, 900))], full=True)
    path = killed(opened, tmp_path / "killed")
    assert frames(path) > 100
    wal.check(path)
    assert len((await asyncio.to_thread(opens, path)).leases) == 1


def test_a_log_of_zeros_or_of_which_sqlite_knows_nothing_is_none(store: Path, tmp_path: Path) -> None:
    log = wal.of(store)
    log.write_bytes(bytes(log.stat().st_size))
    wal.check(store)
    assert wal._taken(tmp_path / "missing") is None
    for content in (b"short", b"x" * 100):
        (tmp_path / "index").write_bytes(content)
        assert wal._taken(tmp_path / "index") is None


# -- after a loss of power -------------------------------------------------------------------------------------------------


def long_ago(path: Path) -> None:
    os.utime(wal.of(path), (1, 1))


async def test_what_was_not_synced_may_be_there_in_any_order_after_a_start_of_the_machine(
    opened: Opened, tmp_path: Path
) -> None:
    await opened.store.commit([ADDED], full=True)
    await opened.store.commit([granted(lease=LeaseId(1, 500))], full=True)
    end = frames(killed(opened, tmp_path / "before"))
    await fill(opened, full=False)
    path = killed(opened, tmp_path / "killed")
    whole = spoil(path, wal.HEAD_BYTES + end * STRIDE + 100, b"\xa5" * 9)
    refused(path)
    long_ago(path)
    assert len((await asyncio.to_thread(opens, path)).leases) == 1
    wal.of(path).write_bytes(whole)
    spoil(path, wal.HEAD_BYTES + (end - 1) * STRIDE + 100, b"\xa5" * 9)
    long_ago(path)
    refused(path)  # part of what was synced before the rest came


def test_a_synced_transaction_behind_a_broken_frame_proves_damage(store: Path) -> None:
    spoil(store, wal.HEAD_BYTES + STRIDE * 20 + 100, b"\xa5" * 9)
    long_ago(store)
    refused(store)


async def test_what_is_synced_writes_the_marked_page_and_nothing_else_does(opened: Opened, tmp_path: Path) -> None:
    root = opened.store._rows("SELECT rootpage FROM sqlite_master WHERE name = 'meta'")
    assert root == [(wal.MARKED_PAGE,)]
    seen = []
    for number, full in enumerate((True, False, True)):
        opened.store._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ended = LeaseEnded(lease=LeaseId(1, number), job=JOB, task=0, attempt=1, fault="expired", counted=True)
        await opened.store.commit([granted(lease=LeaseId(2, number)), ended], full=full)
        await opened.store.commit([granted(lease=LeaseId(3, number)), ended], full=False)
        found = wal.read(wal.of(killed(opened, tmp_path / str(number))))
        seen.append(wal.MARKED_PAGE in found.pages)
    assert seen == [True, False, True]


def test_a_machine_without_such_a_clock_may_have_been_started(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert wal._rebooted_since(wal.of(store))


# -- what is in it ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_broken_frame_costs_one_page_at_most(store: Path) -> None:
    rng = random.Random(6)
    whole = wal.read(wal.of(store))
    assert (whole.damage, whole.frames) == ("", frames(store))
    for _ in range(10):
        at = rng.randrange(whole.frames - 12)
        content = spoil(store, wal.HEAD_BYTES + at * STRIDE + rng.randrange(24, STRIDE - 9), b"\xa5" * 9)
        found = wal.read(wal.of(store))
        wal.of(store).write_bytes(content)
        assert (found.broken, found.unknown, bool(found.damage)) == (1, 0, True)
        assert found.pages | dict.fromkeys(found.lost) == {
            number: None if number in found.lost else page for number, page in whole.pages.items()
        }
        assert len(found.lost) <= 1


def test_a_sum_that_is_broken_and_nothing_else_costs_nothing(store: Path) -> None:
    whole = wal.read(wal.of(store))
    for at in (wal.HEAD_BYTES + 30 * STRIDE + 16, 16, 24):
        content = spoil(store, at, b"\xa5" * 8)
        found = wal.read(wal.of(store))
        wal.of(store).write_bytes(content)
        assert found.damage
        assert (found.broken, found.pages) == (0, whole.pages)


def test_a_frame_whose_page_is_not_known_is_counted(store: Path) -> None:
    spoil(store, wal.HEAD_BYTES + 30 * STRIDE, b"\xa5" * 16)
    found = wal.read(wal.of(store))
    assert (found.broken, found.unknown, found.lost) == (1, 1, {})
    spoil(store, wal.HEAD_BYTES + 50 * STRIDE, b"\xa5" * 4)
    assert wal.read(wal.of(store)).unknown == 2


@pytest.mark.slow
async def test_a_page_that_the_file_has_already_is_taken_from_there(opened: Opened, tmp_path: Path) -> None:
    await opened.store.commit([ADDED], full=True)
    await fill(opened)
    opened.store._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
    path = killed(opened, tmp_path / "killed")
    whole = wal.read(wal.of(path))
    content = wal.of(path).read_bytes()
    restored = 0
    last = {int.from_bytes(content[at : at + 4], "big"): at for at in range(wal.HEAD_BYTES, len(content), STRIDE)}
    for at in sorted((at - wal.HEAD_BYTES) // STRIDE for at in last.values() if at < len(content) - 20 * STRIDE):
        spoil(path, wal.HEAD_BYTES + at * STRIDE + 1000, b"\xa5" * 64)
        restored += bool(wal.read(wal.of(path)).lost)
        with closing(Pages(path)) as pages:
            assert pages.log.damage
            assert not pages.log.lost
            assert pages.log.pages == whole.pages
        wal.of(path).write_bytes(content)
    assert restored


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert wal.read(tmp_path / "x-wal") == wal.Log()


@pytest.mark.slow
def test_whatever_is_damaged_nothing_breaks(store: Path) -> None:
    rng = random.Random(8)
    whole = wal.of(store).read_bytes()[: 60 * STRIDE]
    for _ in range(40):
        spoiled = bytearray(whole)
        for _ in range(rng.randrange(1, 5)):
            at, size = rng.randrange(len(spoiled)), rng.choice([1, 32, 5000])
            spoiled[at : at + size] = rng.choice([rng.randbytes(size), bytes(size)])
        wal.of(store).write_bytes(spoiled[: len(whole)])
        found = wal.read(wal.of(store))
        assert found.broken >= found.unknown
        assert all(len(page) == wal.PAGE_BYTES for page in found.pages.values())
        try:
            wal.check(store)
        except StoreDamagedError:
            assert found.damage
        else:
            assert not found.damage


def test_looking_at_a_large_log_takes_a_few_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store_module.create(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        for begin in range(0, 1000, 100):
            db.execute("BEGIN")
            for number in range(begin, begin + 100):
                db.execute("INSERT INTO peers VALUES (?, ?, '', x'00')", (number, os.urandom(7500)))
            db.execute("COMMIT")
        assert wal.of(path).stat().st_size > 8 << 20
        copy = tmp_path / "copy"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        begun = time.process_time()
        wal.check(copy)
        taken_s = time.process_time() - begun
    print(f"{taken_s * 1000:.1f} ms")
    assert taken_s < 0.1
