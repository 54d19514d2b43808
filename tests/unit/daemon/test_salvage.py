"""Rows as they were before a change that is lost: taken where an old one is better than none, and only there."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from p2pq.daemon import salvage, store
from p2pq.daemon.home import Home
from p2pq.daemon.pages import Record
from p2pq.daemon.salvage import Salvage
from tests.golden.store import make as golden
from tests.unit.daemon.repairkit import make


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("salvage") / "store.sqlite"
    make(path)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Salvage]:
    store.create(tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / "new", isolation_level=None)) as db:
        yield Salvage(db, golden.NODE, Home(tmp_path), salvage.columns_of(db))


def rows(path: Path, table: str) -> list[tuple[int, Record]]:
    with closing(sqlite3.connect(path)) as db:
        if table == "jobs":
            return [(row[0], (None, *row[1:])) for row in db.execute("SELECT * FROM jobs")]
        return [(0, row) for row in db.execute(f"SELECT * FROM {table}")]


def take(saved: Salvage, found: dict[str, list[tuple[int, Record]]]) -> dict[str, int]:
    for table in saved.columns:
        saved.counts.setdefault(table, salvage.Count())
    salvage._read_earlier(saved, found)
    return {table: count.saved for table, count in saved.counts.items() if count.saved}


def test_a_job_and_what_people_see_of_it_come_back_together(saved: Salvage, whole: Path) -> None:
    jobs, extras = rows(whole, "jobs"), rows(whole, "extras")
    assert take(saved, {"jobs": jobs, "extras": extras}) == {"jobs": len(jobs), "extras": len(jobs)}
    assert saved.earlier == {number for number, _ in jobs} == saved.sizes.keys()


def test_neither_comes_back_alone(saved: Salvage, whole: Path) -> None:
    assert take(saved, {"jobs": rows(whole, "jobs")}) == {}
    assert take(saved, {"extras": rows(whole, "extras")}) == {}
    assert saved.earlier == set()


def test_what_is_there_stays(saved: Salvage, whole: Path) -> None:
    both = {"jobs": rows(whole, "jobs"), "extras": rows(whole, "extras")}
    take(saved, both)
    saved.db.execute("UPDATE jobs SET cancelled = 7")
    before = take(saved, {})
    assert take(saved, both) == before
    assert saved.db.execute("SELECT DISTINCT cancelled FROM jobs").fetchall() == [(7,)]


@pytest.mark.slow
def test_tasks_and_leases_are_better_rebuilt(saved: Salvage, whole: Path) -> None:
    take(saved, {"jobs": rows(whole, "jobs"), "extras": rows(whole, "extras")})
    names = ("tasks", "leases", "settled", "attempts", "peers", "bans", "kept", "meta")
    found = take(saved, {table: rows(whole, table) for table in names})
    assert found.keys() == {"jobs", "extras", "attempts", "peers", "bans", "kept"}
