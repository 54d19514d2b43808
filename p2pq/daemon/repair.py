"""A new store out of a damaged one: every row that can still be read and means something, and nothing made up.

The node is stopped. The damaged files stay, as ``store.sqlite.damaged~N~``. What the rows mean together is judged again:
what hangs in the air is dropped, a task whose result is lost waits again, and the node learns that it may have forgotten
leases (``Restored.rebuilt``), so that results which workers still keep are taken in.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from p2pq.core.intervals import IntervalSet
from p2pq.core.records import Intervals
from p2pq.daemon import crashpoints, files, sqlite, store
from p2pq.daemon.delivery import target
from p2pq.daemon.history import JobExtra, encode_extra
from p2pq.daemon.home import Home, write_private
from p2pq.daemon.pages import Pages, Reader, Record
from p2pq.daemon.submission import open_sweep
from p2pq.daemon.tables import SCHEMA, Tables
from p2pq.errors import DiskFullError, RefusedError, Reject, StorageError, StoreDamagedError
from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall, to_text
from p2pq.model.job import ATTEMPTS_MAX, JobState, Outcome, TaskState
from p2pq.model.params import task_number
from p2pq.wire import sign
from p2pq.wire.objects import Manifest, ResultItem

MARK: Final = b"p2pq: the repair of this store was interrupted; run `p2pq repair` again. Damaged: "
"""Begins what lies in the store's place for an instant, so that nobody takes the place for empty."""
ROOM_BYTES: Final = 1 << 20
NODE_BYTES: Final = 32
KEY_BYTES: Final = 32
JOB_BYTES: Final = 16
ATTEMPTS_SANE: Final = ATTEMPTS_MAX // 2
"""No task gets so far; a larger number is damage, or somebody's lie, and would leave the task no further attempt."""

Row = dict[str, Any]


class TableReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one table."""

    table: str
    saved: int
    dropped: int
    """Rows that could be read and were of no use: damaged, or at odds with others."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair did."""

    damaged: str
    """Where the damaged store is now."""
    unreadable_pages: int
    pages: int
    tables: tuple[TableReport, ...]
    jobs: tuple[str, ...]
    """Live jobs that go on."""
    lost_jobs: tuple[str, ...]
    """Jobs of which only a name or a folder is left; their folders can be submitted again."""
    again: int
    """Tasks of live jobs that wait again because what became of them is lost."""
    moved: tuple[str, ...]
    """Jobs whose folder is not known any more, and where their results go now."""


@dataclass
class _Count:
    saved: int = 0
    dropped: int = 0


@dataclass
class _Salvage:
    """A new store that is being filled."""

    db: sqlite3.Connection
    node: NodeId
    home: Home
    columns: dict[str, list[tuple[str, str, bool, Any]]]
    """By table: name, type, whether it may be NULL, and the default, of each column."""
    counts: dict[str, _Count] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    """Tasks of each job, by its number."""
    lost: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    again: int = 0


def trouble(path: Path, node: NodeId) -> str:
    """Say what is wrong with a store; empty if it is whole, or if there is none yet.

    Raises:
        P2PQError: it cannot be read at all, or a newer version wrote it.
    """
    if not path.exists():
        return ""
    try:
        for job in store.check(path).jobs:
            sign.open_signed(job.manifest, Manifest, node)
    except (StoreDamagedError, Reject) as error:
        return str(error if isinstance(error, StoreDamagedError) else sqlite.damaged(path, "a job does not verify"))
    return ""


def repair(home: Home, node: NodeId, wall: Wall) -> Report:
    """Replace a damaged store by what can be saved of it. The home is locked by the caller.

    Args:
        home: where the store lies.
        node: this node, the author of its jobs.
        wall: the present.

    Raises:
        DiskFullError: there is no room for a second store.
        StorageError: the disk failed; the damaged store is as it was, or ``repair`` can be run again.
    """
    try:
        return _repair(home, node, wall)
    except OSError as error:
        raise StorageError(
            f"{error.filename or home.store}: {error.strerror}; mend that and run `p2pq repair` again"
        ) from error
    except sqlite3.Error as error:
        raise sqlite.storage_error(error, home.store) from error


def _repair(home: Home, node: NodeId, wall: Wall) -> Report:
    path = home.store
    source = _interrupted(path)
    resumed = source != path
    if files.free_bytes(path.parent) < (wanted := source.stat().st_size + ROOM_BYTES):
        raise DiskFullError(f"{path.parent}: no room for a second store; make {-(-wanted >> 20)} MB free and try again")
    building = path.with_name(f".{path.name}.building")
    _remove(building)
    store.create(building)
    with closing(Pages(source)) as pages, closing(sqlite.connect(building)) as db:
        salvage = _Salvage(db, node, home, _columns(db))
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        _read(salvage, pages)
        _judge(salvage, wall)
        db.execute("COMMIT")
        restored = Tables(db).restore()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        wrong, count = len(pages.wrong), pages.count
    files.sync(building)
    crashpoints.reached("repair.built")
    damaged = source if resumed else _keep_aside(path)
    write_private(path, MARK + damaged.name.encode() + b"\n")
    crashpoints.reached("repair.marked")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    crashpoints.reached("repair.cleared")
    building.replace(path)
    files.sync(path.parent)
    crashpoints.reached("repair.in-place")
    return Report(
        damaged=str(damaged),
        unreadable_pages=wrong,
        pages=count,
        tables=tuple(
            TableReport(table=name, saved=found.saved, dropped=found.dropped) for name, found in salvage.counts.items()
        ),
        jobs=tuple(to_text(job.job) for job in restored.jobs),
        lost_jobs=tuple(salvage.lost),
        again=salvage.again,
        moved=tuple(salvage.moved),
    )


# -- files ---------------------------------------------------------------------------------------------------------------


def _interrupted(path: Path) -> Path:
    """Return the store to read: the one in its place, or the one that an interrupted repair has put aside."""
    with path.open("rb") as file:
        head = file.read(len(MARK) + 256)
    if not head.startswith(MARK):
        return path
    aside = path.with_name(head[len(MARK) :].decode(errors="replace").strip().replace("/", ""))
    if not aside.is_file():
        raise RefusedError(f"{aside}: missing, though a repair had put the damaged store there; put it back")
    return aside


def _keep_aside(path: Path) -> Path:
    """Give the damaged store and its log a second name, under which they stay."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged~{number}~")).exists():
        number += 1
    for suffix in ("-wal", ""):  # the log first: a store without its log may look whole
        part = path.with_name(path.name + suffix)
        if part.exists():
            named = aside.with_name(aside.name + suffix)
            named.unlink(missing_ok=True)
            try:
                os.link(part, named)
            except OSError:  # a file system without links
                shutil.copy2(part, named)
                files.sync(named)
    files.sync(path.parent)
    crashpoints.reached("repair.aside")
    return aside


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


# -- row by row ----------------------------------------------------------------------------------------------------------


def _columns(db: sqlite3.Connection) -> dict[str, list[tuple[str, str, bool, Any]]]:
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found: dict[str, list[tuple[str, str, bool, Any]]] = {}
    for name in names:
        found[name] = [
            (column, kind, not notnull and not (key and kind != "INTEGER"), _default(default, notnull))
            for _, column, kind, notnull, default, key in db.execute(f"PRAGMA table_info({name})")
        ]
    return found


_MISSING: Final = object()


def _default(text: str | None, notnull: int) -> Any:  # noqa: ANN401
    if text is None:
        return _MISSING if notnull else None
    return text[1:-1] if text.startswith("'") else int(text)


def _read(salvage: _Salvage, pages: Pages) -> None:
    reader = Reader(pages)
    roots = reader.schema()
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        usual = dict(fresh.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"))
    for table in salvage.columns:
        root = roots.get(table, usual[table] if not roots else 0)
        rows = (row for found in reader.tree(root) if (row := _row(salvage, table, found)) is not None) if root else ()
        _insert(salvage, table, rows)
    strays: dict[str, list[Row]] = {}
    for found in reader.orphans():
        fitting = [table for table in salvage.columns if _fits(salvage, table, found[1])]
        if len(fitting) == 1 and (row := _row(salvage, fitting[0], found)) is not None:
            strays.setdefault(fitting[0], []).append(row)
    for table in salvage.columns:  # jobs before what belongs to them
        _insert(salvage, table, strays.get(table, ()))


def _fits(salvage: _Salvage, table: str, record: Record) -> bool:
    columns = salvage.columns[table]
    if len(record) > len(columns) or any(default is _MISSING for *_, default in columns[len(record) :]):
        return False
    kinds = {"INTEGER": int, "TEXT": str, "BLOB": bytes}
    return all(
        isinstance(value, kinds[kind]) or (value is None and nullable)
        for value, (_, kind, nullable, _) in zip(record, columns, strict=False)
    )


def _row(salvage: _Salvage, table: str, found: tuple[int, Record]) -> Row | None:
    """Return a record as a row of a table, or None, counted, if it is none."""
    rowid, record = found
    columns = salvage.columns[table]
    if _fits(salvage, table, record):
        row: Row = {column: default for column, _, _, default in columns}
        row.update(zip((column for column, *_ in columns), record, strict=False))
        first, kind, nullable, _ = columns[0]
        if row[first] is None and kind == "INTEGER" and nullable:
            row[first] = rowid
        try:
            if _CHECKS[table](salvage, row):
                return row
        except (msgspec.MsgspecError, Reject, ValueError, TypeError):
            pass
    salvage.counts.setdefault(table, _Count()).dropped += 1
    return None


def _insert(salvage: _Salvage, table: str, rows: Iterable[Row]) -> None:
    names = [column for column, *_ in salvage.columns[table]]
    places = ", ".join("?" * len(names))
    count = salvage.counts.setdefault(table, _Count())
    for row in rows:
        done = salvage.db.execute(
            f"INSERT OR IGNORE INTO {table} VALUES ({places})",  # noqa: S608  names of our own schema
            [row[name] for name in names],
        )
        count.saved += done.rowcount
        count.dropped += 1 - done.rowcount


def _job(salvage: _Salvage, row: Row) -> bool:
    manifest = sign.open_signed(row["manifest"], Manifest, salvage.node)
    if row["kept"] is not None:
        msgspec.msgpack.decode(row["kept"], type=Intervals)
    if row["halt"] is not None:
        msgspec.msgpack.decode(row["halt"], type=Halt)
    salvage.sizes[row["n"]] = manifest.tasks
    return (
        manifest.job == row["job"]
        and len(row["key"]) == KEY_BYTES
        and len(row["reply_secret"]) == KEY_BYTES
        and row["state"] in {None, *get_args(JobState)}
    )


def _task(salvage: _Salvage, row: Row) -> bool:
    return 0 <= row["task"] < salvage.sizes.get(row["n"], 0) and row["state"] in get_args(TaskState)


def _attempt(salvage: _Salvage, row: Row) -> bool:
    if row["outcome"] is not None:
        msgspec.msgpack.decode(row["outcome"], type=Outcome)
    if row["result"] is not None:
        item = msgspec.msgpack.decode(row["result"], type=ResultItem)
        if (item.lease, item.task, item.attempt) != (
            LeaseId(row["epoch"], row["counter"]),
            row["task"],
            row["attempt"],
        ):
            return False
    known = 0 <= row["task"] < salvage.sizes.get(row["n"], 0)
    sane = 0 < row["attempt"] <= ATTEMPTS_SANE
    return known and len(row["worker"]) == NODE_BYTES and sane and _positive(row)


def _lease(salvage: _Salvage, row: Row) -> bool:
    known = 0 <= row["task"] < salvage.sizes.get(row["n"], 0)
    return known and len(row["worker"]) == NODE_BYTES and _positive(row)


def _kept(_: _Salvage, row: Row) -> bool:
    item = msgspec.msgpack.decode(row["item"], type=ResultItem)
    return len(row["master"]) == NODE_BYTES and item.lease == LeaseId(row["epoch"], row["counter"])


def _extra(_: _Salvage, row: Row) -> bool:
    extra = msgspec.msgpack.decode(row["extra"], type=JobExtra)
    open_sweep(extra)
    return len(row["job"]) == JOB_BYTES


def _peer(_: _Salvage, row: Row) -> bool:
    msgspec.msgpack.decode(row["addresses"], type=tuple[str, ...])
    return len(row["node"]) == NODE_BYTES


def _positive(row: Row) -> bool:
    return bool(0 <= row["epoch"] < 1 << 53 and 0 <= row["counter"] < 1 << 53)


_CHECKS: Final[dict[str, Callable[[_Salvage, Row], bool]]] = {
    "meta": lambda _, row: row["key"] in {"epoch", "rebuilt", "synced"} and 0 <= row["value"] < 1 << 53,
    "jobs": _job,
    "extras": _extra,
    "tasks": _task,
    "attempts": _attempt,
    "leases": _lease,
    "settled": lambda _, row: 0 <= row["start"] < row["stop"] <= 1 << 53,
    "kept": _kept,
    "peers": _peer,
    "bans": lambda _, row: len(row["node"]) == NODE_BYTES and row["banned"] in {0, 1},
    "mesh_keys": lambda _, row: row["place"] >= 0 and len(row["signed"]) > 0,
}


# -- what the rows mean together -----------------------------------------------------------------------------------------


def _judge(salvage: _Salvage, wall: Wall) -> None:
    run = salvage.db.execute
    _belong(salvage)
    _settle(salvage)
    _drop(
        salvage,
        "leases",
        "n NOT IN (SELECT n FROM jobs WHERE state IS NULL) OR NOT EXISTS (SELECT * FROM tasks WHERE tasks.n = leases.n "
        "AND tasks.task = leases.task AND state = 'running' AND attempts = leases.attempt) "
        "OR (SELECT count(*) FROM leases AS other WHERE other.n = leases.n AND other.task = leases.task) > 1 "
        "OR EXISTS (SELECT * FROM settled WHERE settled.epoch = leases.epoch AND counter >= start AND counter < stop)",
    )
    salvage.again += run(
        "UPDATE tasks SET state = 'pending' WHERE state = 'running' AND NOT EXISTS "
        "(SELECT * FROM leases WHERE leases.n = tasks.n AND leases.task = tasks.task)"
    ).rowcount
    run("UPDATE tasks SET attempts = 0 WHERE attempts NOT BETWEEN 0 AND ?", (ATTEMPTS_SANE,))
    run(
        "UPDATE tasks SET attempts = max(attempts, coalesce((SELECT max(attempt) FROM attempts "
        "WHERE attempts.n = tasks.n AND attempts.task = tasks.task), 0))"
    )
    _rebuild_tasks(salvage)
    salvage.again += run(
        "UPDATE tasks SET state = 'pending', ended = NULL WHERE state IN ('done', 'failed') AND NOT delivered "
        "AND n IN (SELECT n FROM jobs WHERE state IS NULL) AND NOT EXISTS (SELECT * FROM attempts "
        "WHERE attempts.n = tasks.n AND attempts.task = tasks.task AND result IS NOT NULL)"
    ).rowcount
    run(
        "UPDATE tasks SET state = 'cancelled', delivered = 1 WHERE state = 'pending' "
        "AND n IN (SELECT n FROM jobs WHERE cancelled AND state IS NULL)"
    )
    _rebuild_extras(salvage)
    (highest,) = run(
        "SELECT max(coalesce((SELECT max(value) FROM meta WHERE key != 'synced'), 0), "
        "coalesce((SELECT max(epoch) FROM attempts), 0), "
        "coalesce((SELECT max(epoch) FROM leases), 0), coalesce((SELECT max(epoch) FROM settled), 0), ?)",
        (wall // 1000,),
    ).fetchone()
    for key in ("epoch", "rebuilt"):
        run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, highest))


def _drop(salvage: _Salvage, table: str, where: str) -> None:
    gone = salvage.db.execute(f"DELETE FROM {table} WHERE {where}").rowcount  # noqa: S608  all of it is written here
    salvage.counts[table].saved -= gone
    salvage.counts[table].dropped += gone


def _belong(salvage: _Salvage) -> None:
    """Drop what belongs to a job that is lost, and remember its name."""
    lost = salvage.db.execute("SELECT job, extra FROM extras WHERE job NOT IN (SELECT job FROM jobs)").fetchall()
    for job, raw in lost:
        extra = msgspec.msgpack.decode(raw, type=JobExtra)
        salvage.lost.append(f"{to_text(job)[:8]} {extra.name} ({extra.folder})")
    _drop(salvage, "extras", "job NOT IN (SELECT job FROM jobs)")
    for table in ("tasks", "attempts"):
        _drop(salvage, table, "n NOT IN (SELECT n FROM jobs)")


def _settle(salvage: _Salvage) -> None:
    """Whatever brought a result is settled, even if that very row is lost."""
    run = salvage.db.execute
    found: dict[int, IntervalSet] = {}
    for epoch, start, stop in run("SELECT epoch, start, stop FROM settled"):
        found.setdefault(epoch, IntervalSet()).add(start, stop)
    for epoch, counter in run("SELECT epoch, counter FROM attempts WHERE outcome IS NOT NULL"):
        found.setdefault(epoch, IntervalSet()).add(counter)
    run("DELETE FROM settled")
    salvage.db.executemany(
        "INSERT INTO settled VALUES (?, ?, ?)",
        ((epoch, start, stop) for epoch, done in found.items() for start, stop in done.intervals()),
    )


def _rebuild_tasks(salvage: _Salvage) -> None:
    """Tasks whose row is lost: what their attempts say of them."""
    run = salvage.db.execute
    lost = run(
        "SELECT n, task, max(attempt), sum(fault IS NOT NULL), max(attempts.ended), job, jobs.state, "
        "group_concat(hex(outcome)) FROM attempts JOIN jobs USING (n) "
        "WHERE NOT EXISTS (SELECT * FROM tasks WHERE tasks.n = attempts.n AND tasks.task = attempts.task) "
        "GROUP BY n, task"
    ).fetchall()
    for number, task, attempts, faults, ended, job, job_state, outcomes in lost:
        ends = [
            msgspec.msgpack.decode(bytes.fromhex(text), type=Outcome) for text in (outcomes or "").split(",") if text
        ]
        done = any(outcome.ok for outcome in ends)
        delivered = done and (job_state is not None or _is_delivered(salvage, job, task))
        salvage.again += not done and job_state is None
        run(
            "INSERT INTO tasks (n, task, state, attempts, failures, faults, delivered, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (number, task, "done" if done else "pending", attempts, len(ends) - done, faults, delivered, ended),
        )


def _is_delivered(salvage: _Salvage, job: bytes, task: int) -> bool:
    found = salvage.db.execute("SELECT extra FROM extras WHERE job = ?", (job,)).fetchone()
    if found is None:
        return False
    extra = msgspec.msgpack.decode(found[0], type=JobExtra)
    sweep = open_sweep(extra)
    number = task_number(sweep.array, sweep.axes, task)
    return target(Path(extra.results), tasks=extra.tasks, number=number).is_dir()


def _rebuild_extras(salvage: _Salvage) -> None:
    """Live jobs whose folder is not known any more bring their results into the home, by index."""
    lost = salvage.db.execute(
        "SELECT n, job FROM jobs WHERE state IS NULL AND job NOT IN (SELECT job FROM extras)"
    ).fetchall()
    for number, job in lost:
        results = salvage.home.path / "recovered" / to_text(job)
        extra = JobExtra(name="recovered", results=str(results), tasks=salvage.sizes[number])
        salvage.db.execute("INSERT INTO extras VALUES (?, ?)", (job, encode_extra(extra)))
        salvage.moved.append(f"{to_text(JobId(job))[:8]}: {results}")
