"""Stores of older versions, brought to the present format when they are opened.

``STEPS`` holds one script per format; all that a store needs run in one transaction, so it is either what it was or what
this version writes. Before that the whole old store is copied aside as ``NAME.formatN``, for whoever has to go back.

Whoever changes ``tables.SCHEMA`` writes the same change here: new columns with a default, at the end of their table. A
test compares a migrated store with a fresh one.
"""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from p2pq.daemon import crashpoints, files, sqlite
from p2pq.daemon.tables import FORMAT
from p2pq.errors import DiskFullError

log = logging.getLogger(__name__)

STEPS: Final = {
    1: """
ALTER TABLE jobs ADD COLUMN kept BLOB;
ALTER TABLE jobs ADD COLUMN halt BLOB;
ALTER TABLE jobs ADD COLUMN halted TEXT NOT NULL DEFAULT '';
ALTER TABLE attempts ADD COLUMN counted INTEGER NOT NULL DEFAULT 1;
ALTER TABLE tasks ADD COLUMN decided INTEGER;
CREATE INDEX leases_task ON leases (n, task);
ALTER TABLE kept ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN checkpoint INTEGER NOT NULL DEFAULT 0;
CREATE TABLE owner_bans (
    owner TEXT NOT NULL,
    issuer BLOB NOT NULL,
    banned INTEGER NOT NULL,
    signed BLOB NOT NULL,
    PRIMARY KEY (owner, issuer)
) WITHOUT ROWID;
CREATE TABLE mesh_keys (place INTEGER PRIMARY KEY, signed BLOB NOT NULL);
CREATE TABLE peerings (
    id BLOB PRIMARY KEY,
    offer BLOB NOT NULL,
    accept BLOB NOT NULL,
    ended BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE peer_bans (
    mesh BLOB NOT NULL,
    issuer BLOB NOT NULL,
    subject BLOB NOT NULL,
    signed BLOB NOT NULL,
    PRIMARY KEY (mesh, issuer, subject)
) WITHOUT ROWID;
ALTER TABLE attempts ADD COLUMN via BLOB;
ALTER TABLE attempts ADD COLUMN proof INTEGER;
ALTER TABLE attempts ADD COLUMN chain INTEGER;
CREATE TABLE grants (
    n INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    signed BLOB NOT NULL,
    PRIMARY KEY (n, epoch, counter)
) WITHOUT ROWID;
CREATE TABLE proofs (
    p INTEGER PRIMARY KEY,
    n INTEGER NOT NULL,
    digest BLOB NOT NULL,
    signed BLOB NOT NULL,
    UNIQUE (n, digest)
);
CREATE TABLE chains (
    c INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    n INTEGER NOT NULL,
    certs BLOB NOT NULL
);
ALTER TABLE attempts ADD COLUMN sub INTEGER;
ALTER TABLE kept ADD COLUMN subs BLOB;
CREATE TABLE subs (
    s INTEGER PRIMARY KEY,
    n INTEGER NOT NULL,
    digest BLOB NOT NULL,
    above INTEGER,
    chain INTEGER,
    signed BLOB NOT NULL,
    UNIQUE (n, digest)
);
""",
}
"""Format -> the statements that make the next one of it."""
ROOM_BYTES: Final = 1 << 20
"""Free disk that is wanted besides the copy and what the migration itself writes, at most as much again."""


def migrate(db: sqlite3.Connection, path: Path, found: int, *, free: int | None = None) -> None:
    """Bring a store that was found whole from format ``found`` to FORMAT.

    Args:
        db: its only connection, outside a transaction.
        path: its file.
        found: what it is now; nothing happens if that is FORMAT.
        free: bytes that may be used; None: what the disk has.

    Raises:
        DiskFullError: there is no room for a copy; the store was not changed.
        sqlite3.Error, OSError: the disk failed; the store was not changed.
    """
    if found == FORMAT:
        return
    aside = path.with_name(f"{path.name}.format{found}")
    _copy_aside(db, aside, files.free_bytes(path.parent) if free is None else free)
    crashpoints.reached("migration.copied")
    script = "".join(STEPS[number] for number in range(found, FORMAT))
    db.execute("PRAGMA synchronous = FULL")
    try:
        db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {FORMAT};")
        crashpoints.reached("migration.before")
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    crashpoints.reached("migration.after")
    log.info("store.migrated", extra={"fields": {"format": FORMAT, "was": found, "copy": str(aside)}})


def _copy_aside(db: sqlite3.Connection, aside: Path, free: int) -> None:
    """Copy the store to ``aside`` durably: whole, or not there; a copy of an earlier attempt is replaced."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    wanted = 2 * pages * page_bytes + ROOM_BYTES
    if free < wanted:
        raise DiskFullError(
            f"{aside.parent}: no room to copy the store before it is brought to this version's format; "
            f"make {wanted >> 20} MB free and start the node again. Nothing was changed"
        )
    fresh = aside.with_name(f".{aside.name}.new")
    fresh.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite.connect(fresh)) as copy:
        db.backup(copy)
    files.sync(fresh)
    fresh.replace(aside)
    files.sync(aside.parent)
