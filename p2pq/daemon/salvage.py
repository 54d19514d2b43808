"""The rows of a damaged store that can still be read and mean something by themselves, put into a new one.

What they mean together is for ``judging``.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, get_args

import msgspec

from p2pq import decoders
from p2pq.core.records import Intervals
from p2pq.daemon import evidence
from p2pq.daemon.history import JobExtra
from p2pq.daemon.home import Home
from p2pq.daemon.pages import Pages, Reader, Record, Value
from p2pq.daemon.submission import open_sweep
from p2pq.daemon.tables import SCHEMA
from p2pq.errors import Reject
from p2pq.model.halt import Halt
from p2pq.model.ids import LeaseId, NodeId
from p2pq.model.job import ATTEMPTS_MAX, TASKS_MAX, JobState, Outcome, TaskState
from p2pq.wire import sign
from p2pq.wire.objects import Grant, Manifest, ResultItem

NODE_BYTES: Final = 32
KEY_BYTES: Final = 32
JOB_BYTES: Final = 16
ATTEMPTS_SANE: Final = ATTEMPTS_MAX // 2
"""No task gets so far; a larger number is damage, or somebody's lie, and would leave the task no further attempt."""

Row = dict[str, Any]


@dataclass
class Count:
    """What became of the rows of one table."""

    saved: int = 0
    dropped: int = 0
    lost: int = 0
    """Rows that must have been there, by what other rows say."""
    unreadable: int = 0
    """Pages of it that could not be read, or not wholly."""


@dataclass
class Salvage:
    """A new store that is being filled."""

    db: sqlite3.Connection
    node: NodeId
    home: Home
    columns: dict[str, list[tuple[str, str, bool, Any]]]
    """By table: name, type, whether it may be NULL, and the default, of each column."""
    counts: dict[str, Count] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    """Tasks of each job, by its number."""
    earlier: set[int] = field(default_factory=set)
    """Jobs of which only an earlier state is left, by number."""
    harmed: bool = False
    """Whether something could not be read."""
    lost: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    again: int = 0


def columns_of(db: sqlite3.Connection) -> dict[str, list[tuple[str, str, bool, Any]]]:
    """Return the columns of each table, as ``Salvage.columns`` has them."""
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


def read(salvage: Salvage, pages: Pages) -> None:
    """Fill the new store with what can be read."""
    reader = Reader(pages)
    roots = reader.schema()
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(SCHEMA)
        usual = dict(fresh.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"))
    for table in salvage.columns:
        root = roots.get(table, usual[table] if not roots else 0)
        rows = (row for found in reader.tree(root) if (row := _row(salvage, table, found)) is not None) if root else ()
        before = len(pages.wrong)
        _insert(salvage, table, rows)
        salvage.counts[table].unreadable = len(pages.wrong) - before
    strays = _sorted(salvage, reader.orphans())
    for table in salvage.columns:  # jobs before what belongs to them
        _insert(salvage, table, filter(None, (_row(salvage, table, found) for found in strays.get(table, ()))))
    _read_earlier(salvage, _sorted(salvage, reader.earlier()))
    salvage.harmed = bool(pages.wrong or pages.log.broken or any(count.dropped for count in salvage.counts.values()))


def _sorted(salvage: Salvage, rows: Iterable[tuple[int, Record]]) -> dict[str, list[tuple[int, Record]]]:
    """Return rows of unknown tables by the only table that each fits into."""
    found: dict[str, list[tuple[int, Record]]] = {}
    for row in rows:
        fitting = [table for table in salvage.columns if _fits(salvage, table, row[1])]
        if len(fitting) == 1:
            found.setdefault(fitting[0], []).append(row)
    return found


def _read_earlier(salvage: Salvage, found: dict[str, list[tuple[int, Record]]]) -> None:
    """Take in rows as they were before a change that is lost, where an old one is better than none.

    It is not for tasks and leases: what became of them is said better by what else is there. A job and what people see of
    it are taken only together, so that none comes back that was let go of.
    """
    run = salvage.db.execute
    jobs: set[Value] = {job for (job,) in run("SELECT job FROM jobs")}
    extras: set[Value] = {job for (job,) in run("SELECT job FROM extras")}
    told = {record[0] for _, record in found.get("extras", ())} | extras
    for number, record in found.get("jobs", ()):
        if number not in salvage.sizes and record[1] not in jobs and record[1] in told:
            before = salvage.counts["jobs"].saved
            _insert(salvage, "jobs", filter(None, [_row(salvage, "jobs", (number, record))]))
            if salvage.counts["jobs"].saved > before:
                salvage.earlier.add(number)
                jobs.add(record[1])
    for table in ("extras", "attempts", "kept", "peers", "bans", "mesh_keys"):
        rows = [each for each in found.get(table, ()) if table != "extras" or each[1][0] in jobs - extras]
        _insert(salvage, table, filter(None, [_row(salvage, table, each) for each in rows]))


def _fits(salvage: Salvage, table: str, record: Record) -> bool:
    columns = salvage.columns[table]
    if len(record) > len(columns) or any(default is _MISSING for *_, default in columns[len(record) :]):
        return False
    kinds = {"INTEGER": int, "TEXT": str, "BLOB": bytes}
    return all(
        isinstance(value, kinds[kind]) or (value is None and nullable)
        for value, (_, kind, nullable, _) in zip(record, columns, strict=False)
    )


def _row(salvage: Salvage, table: str, found: tuple[int, Record]) -> Row | None:
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
    salvage.counts.setdefault(table, Count()).dropped += 1
    return None


def _insert(salvage: Salvage, table: str, rows: Iterable[Row]) -> None:
    names = [column for column, *_ in salvage.columns[table]]
    places = ", ".join("?" * len(names))
    count = salvage.counts.setdefault(table, Count())
    for row in rows:
        done = salvage.db.execute(
            f"INSERT OR IGNORE INTO {table} VALUES ({places})",  # noqa: S608  names of our own schema
            [row[name] for name in names],
        )
        count.saved += done.rowcount
        count.dropped += 1 - done.rowcount


def _job(salvage: Salvage, row: Row) -> bool:
    manifest = sign.open_signed(row["manifest"], Manifest, salvage.node)
    if row["kept"] is not None:
        decoders.unpack(row["kept"], Intervals)
    if row["halt"] is not None:
        decoders.unpack(row["halt"], Halt)
    salvage.sizes[row["n"]] = manifest.tasks
    return (
        manifest.job == row["job"]
        and len(row["key"]) == KEY_BYTES
        and len(row["reply_secret"]) == KEY_BYTES
        and row["state"] in {None, *get_args(JobState)}
    )


# Rows of a job that is lost stay until they have told what is known of it.


def _task(salvage: Salvage, row: Row) -> bool:
    return 0 <= row["task"] < salvage.sizes.get(row["n"], TASKS_MAX) and row["state"] in get_args(TaskState)


def _attempt(salvage: Salvage, row: Row) -> bool:
    if row["outcome"] is not None:
        decoders.unpack(row["outcome"], Outcome)
    if row["result"] is not None:
        item = decoders.unpack(row["result"], ResultItem)
        if (item.lease, item.task, item.attempt) != (
            LeaseId(row["epoch"], row["counter"]),
            row["task"],
            row["attempt"],
        ):
            return False
    known = 0 <= row["task"] < salvage.sizes.get(row["n"], TASKS_MAX)
    sane = 0 < row["attempt"] <= ATTEMPTS_SANE
    return known and len(row["worker"]) == NODE_BYTES and sane and _positive(row)


def _lease(salvage: Salvage, row: Row) -> bool:
    known = 0 <= row["task"] < salvage.sizes.get(row["n"], TASKS_MAX)
    return known and len(row["worker"]) == NODE_BYTES and _positive(row)


def _kept(_: Salvage, row: Row) -> bool:
    item = decoders.unpack(row["item"], ResultItem)
    if row["subs"] is not None:
        decoders.unpack(row["subs"], tuple[bytes, ...])
    return len(row["master"]) == NODE_BYTES and item.lease == LeaseId(row["epoch"], row["counter"])


def _extra(_: Salvage, row: Row) -> bool:
    extra = decoders.unpack(row["extra"], JobExtra)
    open_sweep(extra)
    return len(row["job"]) == JOB_BYTES


def _peer(_: Salvage, row: Row) -> bool:
    decoders.unpack(row["addresses"], tuple[str, ...])
    return len(row["node"]) == NODE_BYTES


def _grant(salvage: Salvage, row: Row) -> bool:
    grant = sign.open_signed(row["signed"], Grant, salvage.node)
    return grant.items[0].lease == LeaseId(row["epoch"], row["counter"])


def _positive(row: Row) -> bool:
    return bool(0 <= row["epoch"] < 1 << 53 and 0 <= row["counter"] < 1 << 53)


_CHECKS: Final[dict[str, Callable[[Salvage, Row], bool]]] = {
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
    "owner_bans": lambda _, row: len(row["owner"]) > 0 and row["banned"] in {0, 1},
    "mesh_keys": lambda _, row: row["place"] >= 0 and len(row["signed"]) > 0,
    "peerings": lambda _, row: sign.digest(row["offer"]) == row["id"],
    "peer_bans": lambda _, row: len(row["signed"]) > 0 and row["subject"][:1] in {b"n", b"o"},
    "grants": _grant,
    "proofs": lambda _, row: sign.digest(row["signed"]) == row["digest"],
    "subs": lambda _, row: sign.digest(row["signed"]) == row["digest"],
    "chains": lambda _, row: evidence.chain_digest(row["certs"]) == row["digest"],
}
