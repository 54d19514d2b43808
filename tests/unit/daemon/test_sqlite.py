"""Connections with our settings, and SQLite's errors as ours."""

import sqlite3
from pathlib import Path

import pytest

from p2pq.daemon import sqlite
from p2pq.errors import DiskFullError, StorageError, StoreDamagedError

PATH = Path("/home/ann/p2pq/store.sqlite")


def failed(code: int | None) -> sqlite3.Error:
    error = sqlite3.OperationalError("it went wrong")
    if code is not None:
        error.sqlite_errorcode = code
    return error


def made(path: Path) -> Path:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (x)")
    db.close()
    return path


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (sqlite3.SQLITE_FULL, DiskFullError, True),
        (sqlite3.SQLITE_IOERR, sqlite.StoreUnavailableError, True),
        (sqlite3.SQLITE_IOERR_FSYNC, sqlite.StoreUnavailableError, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite.StoreUnavailableError, True),
        (sqlite3.SQLITE_CORRUPT, StoreDamagedError, False),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreDamagedError, False),
        (sqlite3.SQLITE_NOTADB, StoreDamagedError, False),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, StorageError, False),
        (None, StorageError, False),
    ],
)
def test_an_error_has_one_meaning_and_names_the_file(code: int | None, kind: type[StorageError], retryable: bool):
    told = sqlite.storage_error(failed(code), PATH)
    assert (type(told), told.retryable) == (kind, retryable)
    assert str(told).startswith(f"{PATH}: ")


def test_a_connection_begins_no_transaction_and_trusts_no_schema(tmp_path: Path):
    db = sqlite.connect(made(tmp_path / "with space?.sqlite"))
    try:
        db.execute("INSERT INTO t VALUES (1)")
        assert not db.in_transaction
        asked = ("trusted_schema", "temp_store", "busy_timeout", "cache_size", "wal_autocheckpoint")
        assert [db.execute(f"PRAGMA {name}").fetchone()[0] for name in asked] == [0, 2, 2000, -8192, 2000]
    finally:
        db.close()


def test_a_reader_cannot_write(tmp_path: Path):
    db = sqlite.connect(made(tmp_path / "x"), readonly=True)
    try:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("INSERT INTO t VALUES (1)")
    finally:
        db.close()


def test_nothing_is_made_where_nothing_is(tmp_path: Path):
    with pytest.raises(sqlite3.OperationalError):
        sqlite.connect(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_what_is_no_database_is_seen_at_once(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"not a database, surely" * 1000)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        sqlite.connect(tmp_path / "x")
    assert isinstance(sqlite.storage_error(caught.value, PATH), StoreDamagedError)


class Saying:
    """A database in which SQLite finds what it is told to."""

    def __init__(self, *said: str, tables: dict[int, str] | None = None) -> None:
        self.said = said
        self.tables = tables

    def execute(self, sql: str, args: tuple[int, ...] = ()) -> "Saying | list[tuple[str]]":
        if sql.startswith("PRAGMA"):
            return [(text,) for text in self.said]
        if self.tables is None:
            raise sqlite3.DatabaseError
        self.found = self.tables.get(args[0])
        return self

    def fetchone(self) -> tuple[str] | None:
        return None if self.found is None else (self.found,)


@pytest.mark.parametrize(
    ("said", "tables", "told"),
    [
        (("ok",), {}, ""),
        (
            ("*** in database main ***\nPage 7: btreeInitPage() returns error code 11",),
            {},
            "page 7 is wrong: Page 7: btreeInitPage() returns error code 11",
        ),
        (
            ("*** in database main ***\nTree 5 page 7: x",),
            {5: "tasks"},
            "page 7 of table tasks is wrong: Tree 5 page 7: x",
        ),
        (("*** in database main ***", "Tree 5 page 7: x"), {}, "page 7 is wrong: Tree 5 page 7: x"),
        (("Tree 5 page 7: x",), None, "page 7 is wrong: Tree 5 page 7: x"),
        (("row 3 missing from index i",), {}, "its rows do not fit together: row 3 missing from index i"),
        ((), {}, "its rows do not fit together: SQLite does not say what"),
    ],
)
def test_what_a_check_found_is_said_in_words(said: tuple[str, ...], tables: dict[int, str] | None, told: str) -> None:
    assert sqlite.failed_check(Saying(*said, tables=tables), "quick_check") == told  # type: ignore[arg-type]
