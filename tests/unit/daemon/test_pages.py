"""Rows out of raw pages: the same as SQLite reads from a whole database, and never an error from a damaged one."""

import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from p2pq.daemon import sqlite
from p2pq.daemon.pages import PageError, Pages, Reader, Record

pytestmark = pytest.mark.slow

TABLES = {
    "plain": "CREATE TABLE plain (n INTEGER PRIMARY KEY, a BLOB, b TEXT, c INTEGER, d REAL)",
    "keyed": "CREATE TABLE keyed (a INTEGER, b TEXT, c BLOB, PRIMARY KEY (a, b)) WITHOUT ROWID",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with a part of it in its log: small and large rows, an index, free pages."""
    path = tmp_path_factory.mktemp("pages") / "made.db"
    copy = path.with_name("copy.db")
    rng = random.Random(7)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        for sql in TABLES.values():
            db.execute(sql)
        db.execute("CREATE INDEX by_b ON plain (b)")
        db.execute("BEGIN")
        for n in range(-5, 2000):
            large = rng.randbytes(rng.choice([0, 1, 200, 5000, 60_000] if n % 50 == 0 else [3, 80]))
            number = rng.choice([None, 0, 1, -1, 127, -40_000, 1 << 23, 1 << 40, -(1 << 62)])
            db.execute("INSERT INTO plain VALUES (?, ?, ?, ?, ?)", (n * 3, large, f"é{n}", number, n / 7))
            db.execute("INSERT INTO keyed VALUES (?, ?, ?)", (n % 40, str(n), large[:3000]))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("DELETE FROM plain WHERE n BETWEEN 900 AND 2400")
        db.execute("UPDATE keyed SET c = x'00' WHERE a = 7")
        shutil.copyfile(path, copy)
        shutil.copyfile(f"{path}-wal", f"{copy}-wal")
    return copy


@pytest.fixture
def db(made: Path, tmp_path: Path) -> Path:
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{made}{suffix}", tmp_path / f"made.db{suffix}")
    return tmp_path / "made.db"


def truth(path: Path) -> dict[str, list[Record]]:
    beside = path.with_name("beside.db")
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            shutil.copyfile(f"{path}{suffix}", f"{beside}{suffix}")
    with closing(sqlite.connect(beside)) as db:
        return {name: db.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in TABLES}


def whole(rowid: int, record: Record) -> Record:
    return (rowid, *record[1:]) if len(record) == 5 else record


def walk(path: Path) -> tuple[Pages, dict[str, list[Record]], list[Record]]:
    with closing(Pages(path)) as pages:
        reader = Reader(pages)
        roots = reader.schema()
        found = {name: [whole(*row) for row in reader.tree(root)] for name, root in roots.items()}
        return pages, found, [whole(*row) for row in reader.orphans()]


def overwrite(path: Path, number: int, content: bytes, size: int = 4096) -> None:
    with path.open("r+b") as file:
        file.seek((number - 1) * size)
        file.write(content)


def test_a_whole_database_reads_as_sqlite_reads_it(db: Path) -> None:
    pages, found, orphans = walk(db)
    assert {name: sorted(rows, key=repr) for name, rows in found.items()} == {
        name: sorted(rows, key=repr) for name, rows in truth(db).items()
    }
    assert (pages.wrong, pages.headed, orphans) == (set(), True, [])
    free = pages_free(db)
    assert free
    assert all(0 < number <= pages.count for number in free)


def pages_free(path: Path) -> set[int] | None:
    with closing(Pages(path)) as pages:
        return pages.free()


def without_log(path: Path) -> Path:
    """Return the database with its log written into it."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def kinds(path: Path) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    with closing(Pages(path)) as pages:
        for number in range(2, pages.count + 1):
            found.setdefault(pages.page(number)[0], []).append(number)
    return found


def test_a_leaf_that_is_lost_costs_its_rows_only(db: Path) -> None:
    expected = truth(without_log(db))
    reached = 0
    for kind, table in ((13, "plain"), (10, "keyed")):
        for number in kinds(db)[kind][2:9:3]:
            if number in (pages_free(db) or ()):
                continue
            content = db.read_bytes()
            overwrite(db, number, b"\x5a" * 4096)
            pages, found, _ = walk(db)
            if number in pages.wrong and len(found[table]) < len(expected[table]):
                reached += 1
                assert pages.wrong == {number}
                lost = [row for row in expected[table] if row not in found[table]]
                assert 0 < len(lost) < 200
                assert [row for row in found[table] if row not in expected[table]] == []
            db.write_bytes(content)
    assert reached >= 2


@pytest.mark.parametrize(("kind", "table"), [(5, "plain"), (2, "keyed")])
def test_leaves_below_an_inner_page_that_is_lost_are_found(db: Path, kind: int, table: str) -> None:
    expected = truth(without_log(db))
    with closing(Pages(db)) as pages:
        root = Reader(pages).schema()[table]
        assert pages.page(root)[0] == kind
    overwrite(db, root, bytes(4096))
    pages, found, orphans = walk(db)
    assert root in pages.wrong
    assert found[table] == []
    missing = [row for row in expected[table] if row not in orphans]
    assert len(missing) <= (0 if kind == 5 else 80), "rows on inner pages of a table without row ids are lost"
    width = len(expected[table][0])
    assert [row for row in orphans if len(row) == width and row not in expected[table]] == [], "nothing from free pages"


def test_without_the_first_page_nothing_is_guessed(db: Path) -> None:
    without_log(db)
    overwrite(db, 1, bytes(4096))
    pages, found, orphans = walk(db)
    assert (pages.headed, found, orphans, pages.free(), pages.size) == (False, {}, [], None, 4096)


def test_the_log_brings_back_the_first_page(db: Path) -> None:
    expected = truth(db)
    overwrite(db, 1, bytes(4096))
    pages, found, _ = walk(db)
    assert pages.headed
    assert {name: sorted(rows, key=repr) for name, rows in found.items()} == {
        name: sorted(rows, key=repr) for name, rows in expected.items()
    }


def test_a_log_counts_up_to_its_last_whole_transaction(db: Path) -> None:
    log = Path(f"{db}-wal")
    content = log.read_bytes()
    with closing(Pages(db)) as pages:
        whole = pages._logged
        all_of_it = len(whole)
    for spoiled in (b"", content[:31]):
        log.write_bytes(spoiled)
        with closing(Pages(db)) as pages:
            assert pages._logged == {}
    for spoiled in (
        b"x" + content[1:],
        content[:24] + b"\0" * 8 + content[32:],
        content[:8] + b"\0\0\2\0" + content[12:],
    ):
        log.write_bytes(spoiled)
        with closing(Pages(db)) as pages:
            assert pages.log.damage
            assert pages._logged == whole, "a head that is broken costs nothing"
    for spoiled in (content[: 32 + 4120 * 2 + 100], content[: 32 + 4120] + b"\xff" * (len(content) - 32 - 4120)):
        log.write_bytes(spoiled)
        with closing(Pages(db)) as pages:
            assert len(pages._logged) < all_of_it
    frame = 32 + 4120 * 2
    log.write_bytes(content[: frame + 8] + b"other salt" + content[frame + 18 :])
    with closing(Pages(db)) as pages:
        assert len(pages._logged) < all_of_it


@pytest.mark.slow
def test_whatever_is_damaged_nothing_breaks(db: Path) -> None:
    rng = random.Random(11)
    content, expected = db.read_bytes(), {repr(row) for rows in truth(db).values() for row in rows}
    for _ in range(60):
        spoiled = bytearray(content)
        for _ in range(rng.randrange(1, 6)):
            at, size = rng.randrange(len(spoiled)), rng.choice([1, 4, 100, 4096, 20_000])
            spoiled[at : at + size] = rng.choice([rng.randbytes(size), bytes(size), b"\xff" * size])
        db.write_bytes(spoiled[: rng.choice([len(spoiled), rng.randrange(len(spoiled))])])
        _, found, _ = walk(db)
        assert sum(repr(row) in expected for rows in found.values() for row in rows) >= 0


def test_a_page_that_is_not_there_is_said_to_be_wrong(db: Path) -> None:
    with closing(Pages(db)) as pages:
        for number in (0, -1, pages.count + 1):
            with pytest.raises(PageError):
                pages.page(number)


def test_a_sector_that_cannot_be_read_is_a_wrong_page(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = truth(without_log(db))
    number = next(each for each in kinds(db)[10][3:] if each not in (pages_free(db) or ()))

    def failing(fd: int, size: int, at: int) -> bytes:
        if at == (number - 1) * 4096:
            raise OSError(5, "Input/output error")
        return pread(fd, size, at)

    pread = os.pread
    monkeypatch.setattr("os.pread", failing)
    pages, found, _ = walk(db)
    assert pages.wrong == {number}
    assert len(found["plain"]) == len(expected["plain"])
