"""How we talk to SQLite: connections with our settings, and its errors as ours."""

import re
import sqlite3
from pathlib import Path
from typing import Final

from p2pq.errors import DiskFullError, StorageError, StoreDamagedError

CACHE_KIB: Final = 8 * 1024
CHECKPOINT_PAGES: Final = 2_000
JOURNAL_BYTES_MAX: Final = 64 << 20
BUSY_MS: Final = 2_000

AGAIN: Final = "the node tries again"
"""Ends what is said of errors that may pass."""
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_FORMAT)
_PASSING: Final = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
)


class StoreUnavailableError(StorageError):
    """The store cannot be written now; nothing was lost. It is tried again."""

    retryable = True


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """Open an existing database; the caller sees to it that one thread at a time uses the connection.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    mode = "ro" if readonly else "rw"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        for pragma in (
            f"cache_size = -{CACHE_KIB}",
            f"busy_timeout = {BUSY_MS}",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            f"journal_size_limit = {JOURNAL_BYTES_MAX}",
            "temp_store = MEMORY",
            "trusted_schema = OFF",
        ):
            db.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        db.close()
        raise
    return db


def storage_error(error: sqlite3.Error, path: Path) -> StorageError:
    """Return what an error of SQLite means here: a full disk, a store that is damaged, or one that fails for now.

    Only ``retryable`` ones may pass by themselves.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return DiskFullError(f"{path}: the disk is full; nothing was lost. Free some space: {AGAIN}")
    if code in _PASSING:
        return StoreUnavailableError(
            f"{path}: the store cannot be used now ({error}); nothing was lost. "
            f"Check the disk and the folder's permissions: {AGAIN}"
        )
    if code in _DAMAGED:
        return damaged(path, str(error))
    return StorageError(f"{path}: the store failed ({error}); nothing was changed. Please report this")


def failed_check(db: sqlite3.Connection, pragma: str) -> str:
    """Let SQLite look through a database; return what it found first, in words, or nothing if all is well.

    Args:
        db: where to look.
        pragma: ``quick_check`` or ``integrity_check``.

    Raises:
        sqlite3.Error: it could not even look.
    """
    # One finding is a line that names the database and a line that says what.
    lines = [line for (text,) in db.execute(f"PRAGMA {pragma}(1)") for line in text.splitlines()]
    if lines == ["ok"]:
        return ""
    found = next((line for line in lines if line.strip() and not line.startswith("***")), "SQLite does not say what")
    page = re.search(r"\bpage (\d+)", found, re.IGNORECASE)
    if page is None:
        return f"its rows do not fit together: {found}"
    tree = re.match(r"Tree (\d+)", found)
    return f"page {page[1]}{_table(db, int(tree[1])) if tree else ''} is wrong: {found}"


def _table(db: sqlite3.Connection, root: int) -> str:
    try:
        found = db.execute("SELECT tbl_name FROM sqlite_master WHERE rootpage = ?", (root,)).fetchone()
    except sqlite3.Error:
        return ""
    return "" if found is None else f" of table {found[0]}"


def damaged(path: Path, detail: str) -> StoreDamagedError:
    """Return the error for a store that must not be used."""
    return StoreDamagedError(
        f"{path}: the store is damaged ({detail}) and was left as it is; "
        "run `p2pq repair` to save what can be saved, or put it back from a backup"
    )
