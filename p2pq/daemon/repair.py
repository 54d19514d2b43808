"""A new store out of a damaged one: every row that can still be read and means something, and nothing made up.

The node is stopped. The damaged files stay, as ``store.sqlite.damaged~N~``. What the rows mean together is judged again:
what hangs in the air is dropped, a task whose result is lost waits again, and the node learns that it may have forgotten
leases (``Restored.rebuilt``), so that results which workers still keep are taken in.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from p2pq import decoders
from p2pq.daemon import crashpoints, files, judging, salvage, sqlite, store
from p2pq.daemon.history import JobExtra
from p2pq.daemon.home import Home, write_private
from p2pq.daemon.pages import Pages
from p2pq.daemon.salvage import Salvage, columns_of
from p2pq.daemon.tables import Tables
from p2pq.errors import DiskFullError, RefusedError, Reject, StorageError, StoreDamagedError
from p2pq.model.ids import NodeId, Wall, to_text
from p2pq.wire import sign
from p2pq.wire.objects import Manifest

MARK: Final = b"p2pq: the repair of this store was interrupted; run `p2pq repair` again. Damaged: "
"""Begins what lies in the store's place for an instant, so that nobody takes the place for empty."""
ROOM_BYTES: Final = 1 << 20


class TableReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one table."""

    table: str
    saved: int
    dropped: int
    """Rows that could be read and were of no use: damaged, or at odds with others."""
    lost: int
    """Rows that could not be read and must have been there, by what others say; there may have been more."""
    unreadable_pages: int
    """Pages of it that could not be read, or not wholly."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a repair did."""

    damaged: str
    """Where the damaged store is now."""
    unreadable_pages: int
    pages: int
    broken_frames: int
    """Damaged pieces of the store's log, each a page as one change made it."""
    frames: int
    later: int
    """Transactions behind the first of them, which would have been lost without a repair."""
    unknown_pages: int
    """Pages that are of an earlier moment, nobody knows which, as the pieces that held them later are damaged."""
    tables: tuple[TableReport, ...]
    jobs: tuple[str, ...]
    """Live jobs that go on."""
    names: tuple[str, ...]
    """The same, by id and name."""
    incomplete: tuple[str, ...]
    """Jobs of which something is lost, and what."""
    lost_jobs: tuple[str, ...]
    """Jobs of which only a name or a folder is left; their folders can be submitted again."""
    again: int
    """Tasks of live jobs that wait again because what became of them is lost."""
    moved: tuple[str, ...]
    """Jobs whose folder is not known any more, and where their results go now."""


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
    """Replace a store that is damaged, or missing, by what can be saved of it. The home is locked by the caller.

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
    if not path.exists():  # as if it were empty; its log, if that is there, is read
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    source = _interrupted(path)
    resumed = source != path
    if files.free_bytes(path.parent) < (wanted := source.stat().st_size + ROOM_BYTES):
        raise DiskFullError(f"{path.parent}: no room for a second store; make {-(-wanted >> 20)} MB free and try again")
    building = path.with_name(f".{path.name}.building")
    _remove(building)
    store.create(building)
    with closing(Pages(source)) as pages, closing(sqlite.connect(building)) as db:
        saved = Salvage(db, node, home, columns_of(db))
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        salvage.read(saved, pages)
        judging.judge(saved, wall)
        db.execute("COMMIT")
        report = _report(saved, pages)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
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
    return msgspec.structs.replace(report, damaged=str(damaged))


def _report(saved: Salvage, pages: Pages) -> Report:
    restored = Tables(saved.db).restore()
    named = dict(saved.db.execute("SELECT job, extra FROM extras"))
    names = {job.job: decoders.unpack(named[job.job], JobExtra).name for job in restored.jobs}
    return Report(
        damaged="",
        unreadable_pages=len(pages.wrong),
        pages=pages.count,
        broken_frames=pages.log.broken,
        frames=pages.log.frames,
        later=pages.log.later,
        unknown_pages=pages.log.unknown,
        tables=tuple(
            TableReport(
                table=name,
                saved=count.saved,
                dropped=count.dropped,
                lost=count.lost,
                unreadable_pages=count.unreadable,
            )
            for name, count in saved.counts.items()
        ),
        jobs=tuple(to_text(job) for job in names),
        names=tuple(f"{to_text(job)[:8]} {name}" for job, name in names.items()),
        incomplete=tuple(saved.incomplete),
        lost_jobs=tuple(saved.lost),
        again=saved.again,
        moved=tuple(saved.moved),
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
