"""Stores of older versions: each golden one loads for ever, and becomes exactly what a fresh one is."""

import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest

from p2pq.core.records import Restored
from p2pq.daemon import migrations, sqlite
from p2pq.daemon.store import Store
from p2pq.daemon.tables import FORMAT
from p2pq.errors import DiskFullError
from p2pq.model.ids import Wall
from tests.golden.store.make import Golden, told
from tests.unit.daemon.storekit import raw

GOLDEN = Path(__file__).parents[2] / "golden" / "store"
OLD = [number for number in range(1, FORMAT + 1) if (GOLDEN / f"v{number}.db").exists()]


def old_store(folder: Path, number: int = 1) -> Path:
    path = folder / "store.sqlite"
    shutil.copyfile(GOLDEN / f"v{number}.db", path)
    path.chmod(0o600)
    return path


def opened(path: Path) -> tuple[Store, Restored]:
    return Store.open(path, lambda: Wall(0))


def in_folder(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def shape(path: Path) -> dict[str, object]:
    """Return what a database looks like: tables with their columns in order, and indexes, without how they came to be."""
    tables = {
        row[1]: (row[4], raw(path, f"PRAGMA table_info({row[1]})"))
        for row in raw(path, "PRAGMA table_list")
        if not str(row[1]).startswith("sqlite_")
    }
    indexes = raw(path, "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name")
    keys = {name: raw(path, f"PRAGMA index_xinfo({name})") for name, _, _ in indexes}
    return {"tables": tables, "indexes": indexes, "keys": keys}


def test_every_format_before_this_one_has_a_step_and_a_golden_store() -> None:
    assert list(migrations.STEPS) == list(range(1, FORMAT))
    assert set(OLD) >= set(range(1, FORMAT)), "make one with the last version that wrote it"


@pytest.mark.parametrize("number", OLD)
async def test_a_golden_store_gives_back_what_it_gave_when_it_was_written(tmp_path: Path, number: int) -> None:
    expected = msgspec.json.decode((GOLDEN / f"v{number}.json").read_bytes(), type=Golden)
    store, restored = opened(old_store(tmp_path, number))
    assert told(store, restored) == expected
    await store.close()
    store, restored = opened(tmp_path / "store.sqlite")
    assert told(store, restored) == expected, "and once more, when it is migrated already"
    await store.close()


async def test_a_migrated_store_is_like_a_fresh_one(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.sqlite"
    migrated = old_store(tmp_path)
    for path in (fresh, migrated):
        store, _ = opened(path)
        await store.close()
    assert shape(migrated) == shape(fresh)
    for pragma in ("user_version", "application_id", "journal_mode", "page_size"):
        assert raw(migrated, f"PRAGMA {pragma}") == raw(fresh, f"PRAGMA {pragma}")


async def test_the_old_store_stays_aside(tmp_path: Path) -> None:
    path = old_store(tmp_path)
    log = sqlite3.connect(path, isolation_level=None)  # a part of the old store is in its write-ahead log
    log.execute("UPDATE peers SET name = 'dora'")
    store, _ = opened(path)
    await store.close()
    log.close()
    aside = tmp_path / "store.sqlite.format1"
    assert aside.stat().st_mode & 0o777 == 0o600
    assert raw(aside, "PRAGMA user_version") == [(1,)]
    assert raw(aside, "PRAGMA integrity_check") == [("ok",)]
    assert raw(aside, "SELECT DISTINCT name FROM peers") == [("dora",)]
    before = aside.read_bytes()
    store, _ = opened(path)
    await store.close()
    assert aside.read_bytes() == before
    assert in_folder(tmp_path) == ["store.sqlite", "store.sqlite.format1"]


def test_without_room_for_a_copy_nothing_is_changed(tmp_path: Path) -> None:
    path = old_store(tmp_path)
    before = path.read_bytes()
    db = sqlite.connect(path)
    with pytest.raises(DiskFullError, match="make 1 MB free and start the node again"):
        migrations.migrate(db, path, 1, free=1 << 20)
    db.close()
    assert path.read_bytes() == before
    assert in_folder(tmp_path) == ["store.sqlite"]


async def test_a_step_that_fails_leaves_the_old_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_store(tmp_path)
    monkeypatch.setitem(migrations.STEPS, 1, "CREATE TABLE half (a); CREATE TABLE peers (a);")
    db = sqlite.connect(path)
    with pytest.raises(sqlite3.OperationalError, match="peers already exists"):
        migrations.migrate(db, path, 1)
    assert not db.in_transaction
    db.close()
    assert raw(path, "PRAGMA user_version") == [(1,)]
    assert raw(path, "SELECT name FROM sqlite_master WHERE name = 'half'") == []
    monkeypatch.undo()
    store, restored = opened(path)  # what an attempt left behind is in nobody's way
    await store.close()
    assert len(restored.jobs) == 3
