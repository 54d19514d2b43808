"""The store: what a node acknowledged survives anything but the loss of its disk.

One thread writes. Batches of rows are queued by the event loop and applied in order, as many as are waiting in one
transaction (group commit). A batch is acknowledged when its transaction is durable:

- ``full``: it survives a power failure (the write-ahead log is synced). Earlier batches then do, too.
- otherwise it survives the end of the process, however it ends.

A disk that is full or fails for now loses nothing: the batch stays first in the queue, nobody is acknowledged, ``trouble``
says why, and the thread tries again until it works. A damaged store, or a bug, is the end: every batch fails with the same
error and the node stops.

What was committed is in the log first (``store.sqlite-wal``). The thread writes it into the file, and empties the log, whenever
there is nothing else to do for a second, and at least every half minute: the less lies in the log, the less its damage can cost.
"""

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self

import msgspec

from p2pq import decoders
from p2pq.core.records import Restored, Row
from p2pq.daemon import crashpoints, files, migrations, sqlite, wal
from p2pq.daemon.history import AttemptRow, History, JobExtra, JobRow, JobSecret, TaskRow, encode_extra
from p2pq.daemon.home import Home
from p2pq.daemon.tables import APPLICATION, FORMAT, SCHEMA, ExtraKept, Tables
from p2pq.errors import RefusedError, StorageError, StoreDamagedError
from p2pq.model.config import StoreSettings
from p2pq.model.ids import JobId, Wall

__all__ = ["AttemptRow", "JobExtra", "JobRow", "JobSecret", "Store", "TaskRow"]

GROUP_ROWS: Final = 10_000
"""Rows in one transaction, if single batches are not larger."""
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 10.0
IDLE_S: Final = 1.0
"""After so long without a commit the log is emptied."""
LOG_S: Final = 30.0
"""And so long after the first commit in it, if there is always something to commit."""
DAY_MS: Final = 24 * 3600 * 1000
NOT_STARTED: Final = "the store has not been started"

Clock = Callable[[], Wall]
Waiter = asyncio.Future[None]


class _Batch:
    __slots__ = ("full", "rows", "waiter")

    def __init__(self, rows: Sequence[Row | ExtraKept], waiter: Waiter | None, *, full: bool) -> None:
        self.rows = rows
        self.waiter = waiter
        self.full = full


class Store(History):
    """The open store of a node: ``open``, then ``start`` in the event loop, ``commit`` as often as need be, ``close``.

    The queries of ``History`` see what is committed.
    """

    def __init__(self, path: Path, writer: sqlite3.Connection, reader: sqlite3.Connection, clock: Clock) -> None:
        """Use ``Store.open`` instead."""
        super().__init__(reader, path)
        self._writer = writer
        self._clock = clock
        self._tables = Tables(writer)
        self._synchronous = ""
        self._lock = threading.Condition()
        self._queue: deque[_Batch] = deque()
        self._prunes: deque[tuple[int, Wall, Waiter]] = deque()
        self._closing = False
        self._dead: StorageError | None = None
        self._logged: float | None = None
        """Since when (monotonic) there is something in the log."""
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_trouble: Callable[[StorageError | None], None] = _ignore
        self.trouble: StorageError | None = None
        """Why nothing can be written at this time; None while all is well."""

    @classmethod
    def open(cls, path: Path, clock: Clock) -> tuple[Self, Restored]:
        """Open or make the store, check it, and return it with what the core needs of it.

        Args:
            path: the database; its folder exists and is private.
            clock: the present wall time.

        Raises:
            StoreDamagedError: it is damaged, or not a store; it is left as it is.
            RefusedError: a newer p2pq wrote it.
            StorageError: it cannot be opened (full disk, permissions).
        """
        with contextlib.ExitStack() as undo, _understood(path):
            writer, reader = _connect(path, undo)
            store = cls(path, writer, reader, clock)
            store._begin(full=True)
            store._tables.forget_old()
            writer.execute("COMMIT")
            restored = _outdated(store._tables.restore(), clock())
            undo.pop_all()
        return store, restored

    def start(self, on_trouble: Callable[[StorageError | None], None] | None = None) -> None:
        """Start the writing thread; call it once, in the event loop that will commit.

        Args:
            on_trouble: called in the loop when writing fails, and with None when it works again.
        """
        self._loop = asyncio.get_running_loop()
        self._on_trouble = on_trouble or _ignore
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    def commit(self, rows: Sequence[Row], *, full: bool) -> Waiter:
        """Queue rows to be applied in one transaction; the future is done when they are durable.

        Batches become durable in the order of the calls. While the disk fails the future just stays open.

        The future's exceptions:
            StorageError: the store is damaged or closed; the rows are not durable and never will be.
        """
        return self._put(rows, full=full)

    def keep_extra(self, job: JobId, extra: JobExtra) -> None:
        """Remember what people see of a job; durable not later than any row committed after this call."""
        waiter = self._put((ExtraKept(job=job, extra=encode_extra(extra)),), full=False)
        waiter.add_done_callback(_seen)

    def prune(self, settings: StoreSettings) -> Waiter:
        """Let go of ended jobs beyond ``keep_jobs`` and ``keep_days``, piece by piece whenever there is nothing to write.

        The future is done when they are gone, and cancelled if the store is closed before.
        """
        if self._loop is None:
            raise RuntimeError(NOT_STARTED)
        waiter: Waiter = self._loop.create_future()
        with self._lock:
            self._prunes.append((settings.keep_jobs, _days_ago(self._clock(), settings), waiter))
            self._lock.notify()
        return waiter

    async def close(self) -> None:
        """Write what is queued and close. What cannot be written now fails with the trouble that prevents it."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        while self._prunes:
            self._prunes.popleft()[2].cancel()
        self._reader.close()
        self._writer.close()

    def _put(self, rows: Sequence[Row | ExtraKept], *, full: bool) -> Waiter:
        if self._loop is None:
            raise RuntimeError(NOT_STARTED)
        waiter: Waiter = self._loop.create_future()
        with self._lock:
            if self._dead is not None or self._closing:
                waiter.set_exception(self._dead or StorageError("the store is closed"))
                return waiter
            self._queue.append(_Batch(rows, waiter, full=full))
            self._lock.notify()
        return waiter

    # -- the writing thread ------------------------------------------------------------------------------------------

    def _write(self) -> None:
        pause_s = 0.0
        group: list[_Batch] = []
        while True:
            with self._lock:
                if pause_s:
                    self._lock.wait_for(lambda: self._closing, pause_s)
                elif not group:
                    self._lock.wait_for(self._wanted, None if self._logged is None else IDLE_S)
                rows = sum(len(batch.rows) for batch in group)
                while self._queue and rows < GROUP_ROWS:
                    group.append(self._queue.popleft())
                    rows += len(group[-1].rows)
                closing = self._closing
                if closing and not group:
                    return
            error = self._work(group)
            if error is None:
                self._tell(group, None)
                group = []
                pause_s = 0.0
            elif error.retryable and not closing:
                pause_s = min(RETRY_MAX_S, 2 * pause_s or RETRY_FIRST_S)
            else:
                self._die(group, error)
                return
            self._report(error)

    def _wanted(self) -> bool:
        return bool(self._queue or self._prunes or self._closing)

    def _work(self, group: list[_Batch]) -> StorageError | None:
        """Do what is most urgent."""
        now = time.monotonic()
        if not (group or self._prunes) or (self._logged is not None and now - self._logged > LOG_S):
            error = self._empty_log(now)
            if error is not None or not (group or self._prunes):
                return error
        error = self._transact(group) if group else self._prune_piece()
        self._logged = now if self._logged is None else self._logged
        return error

    def _empty_log(self, now: float) -> StorageError | None:
        """Write the log into the file; what keeps it from that may pass, and nothing is lost until then."""
        if self._logged is None:
            return None
        try:
            (busy, *_) = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            self._logged = now
            found = sqlite.storage_error(error, self._path)
            return None if found.retryable else found
        self._logged = now if busy else None
        return None

    def _transact(self, group: list[_Batch]) -> StorageError | None:
        try:
            wall = self._clock()
            full = any(batch.full for batch in group)
            self._begin(full=full)
            for batch in group:
                for row in batch.rows:
                    self._tables.apply(row, wall)
            self._tables.finish(synced=full)
            _reached(group, "before")
            self._writer.execute("COMMIT")
            _reached(group, "after")
        except Exception as error:  # noqa: BLE001  whatever it is must reach those who wait
            return self._rolled_back(error)
        return None

    def _prune_piece(self) -> StorageError | None:
        keep_jobs, ended_before, waiter = self._prunes[0]
        try:
            self._begin(full=False)
            more = self._tables.prune(keep_jobs=keep_jobs, ended_before=ended_before)
            crashpoints.reached("prune.before")
            self._writer.execute("COMMIT")
            crashpoints.reached("prune.after")
        except sqlite3.Error as error:
            return self._rolled_back(error)
        if not more:
            self._prunes.popleft()
            self._in_loop(_settle, [waiter], None)
        return None

    def _begin(self, *, full: bool) -> None:
        # The level cannot be changed within a transaction.
        wanted = "FULL" if full else "NORMAL"
        if wanted != self._synchronous:
            self._writer.execute(f"PRAGMA synchronous = {wanted}")
            self._synchronous = wanted
        self._writer.execute("BEGIN IMMEDIATE")

    def _rolled_back(self, error: Exception) -> StorageError:
        """Undo the transaction and say what is wrong; an error while undoing is worse than the first."""
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            self._tables.reload()
        except sqlite3.Error as worse:
            error = worse
        if isinstance(error, sqlite3.Error):
            return sqlite.storage_error(error, self._path)
        failure = StorageError(f"{self._path}: a row could not be stored ({error!r}); please report this")
        failure.__cause__ = error
        return failure

    def _die(self, group: list[_Batch], error: StorageError) -> None:
        with self._lock:
            self._dead = error
            group += self._queue
            self._queue.clear()
        self._report(error)
        self._tell(group, error)

    def _report(self, error: StorageError | None) -> None:
        if (self.trouble is None) == (error is None):
            return
        self.trouble = error
        self._in_loop(self._on_trouble, error)

    def _tell(self, group: list[_Batch], error: StorageError | None) -> None:
        waiters = [batch.waiter for batch in group if batch.waiter is not None]
        if waiters:
            self._in_loop(_settle, waiters, error)

    def _in_loop(self, call: Callable[..., None], *args: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(call, *args)


def _reached(group: Sequence[_Batch], when: str) -> None:
    if crashpoints.armed():
        for name in {type(row).__name__ for batch in group for row in batch.rows}:
            crashpoints.reached(f"commit.{name}.{when}")


def missing(home: Home) -> str:
    """Say that the store of a home is lost; empty if it is there, or there never was one.

    A node's store is made before its key (``begin``), so where the key is, or the mesh, or a log, a store has been.
    """
    if home.store.exists() or not any(
        path.exists() for path in (home.identity_key, home.mesh_state, wal.of(home.store))
    ):
        return ""
    return (
        f"{home.store}: the store is missing, and with it this node's jobs; put it back, "
        "or run `p2pq repair` to begin an empty one"
    )


def begin(home: Home) -> None:
    """Make the store of a new home; call it before the node's key is made. The home is locked by the caller.

    Raises:
        StoreDamagedError: this home had a store.
        StorageError: it cannot be made.
    """
    if found := missing(home):
        raise StoreDamagedError(found)
    if not home.store.exists():
        with _understood(home.store):
            create(home.store)


def check(path: Path) -> Restored:
    """Look through a store that is there, thoroughly; return what it would give a node.

    Raises:
        StoreDamagedError, RefusedError, StorageError: as ``Store.open``.
    """
    with _understood(path), contextlib.ExitStack() as undo:
        writer, _ = _connect(path, undo)
        if found := sqlite.failed_check(writer, "integrity_check"):
            raise sqlite.damaged(path, found)
        raw = msgspec.msgpack.encode(Tables(writer).restore())
        return decoders.unpack(raw, Restored)


@contextlib.contextmanager
def reading(home: Home) -> Iterator[History]:
    """Read the store of a home, whether its node runs or not; nothing is changed.

    Raises:
        StoreDamagedError: it is missing, damaged, or not a store.
        RefusedError: another version wrote it.
        StorageError: it cannot be read.
    """
    path = home.store
    if found := missing(home):
        raise StoreDamagedError(found)
    if not path.exists():
        raise RefusedError(f"{home.path}: no node has run here; there is nothing to read")
    with contextlib.ExitStack() as undo:
        with _understood(path):
            if not home.running():
                wal.check(path)
            db = undo.enter_context(contextlib.closing(sqlite.connect(path, readonly=True)))
            version = _format(db, path)
        if version < FORMAT:
            raise RefusedError(
                f"{path}: written by an older p2pq; start the node once, so that it is brought up to date"
            )
        yield History(db, path)


@contextlib.contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Say what errors of opening a store mean."""
    try:
        yield
    except sqlite3.Error as error:
        raise sqlite.storage_error(error, path) from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; check the disk and the folder") from error
    except (msgspec.MsgspecError, ValueError, TypeError) as error:
        raise sqlite.damaged(path, "a value in it does not decode") from error


def _ignore(_error: StorageError | None) -> None:
    """Nobody wants to know."""


def _seen(waiter: Waiter) -> None:
    # A failure reaches whoever commits the rows that follow; asyncio must not complain that nobody looked at this one.
    if not waiter.cancelled():
        waiter.exception()


def _settle(waiters: list[Waiter], error: StorageError | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
            waiter.exception()  # the trouble is reported besides; who no longer waits for this needs no trace of it


def _outdated(restored: Restored, now: Wall) -> Restored:
    """Begin after every epoch that this node can have used, also in a store that is lost.

    A node whose store is gone, or was put back from a backup, must never grant a lease id again that a worker may still
    hold. There is far less than one life a millisecond, so an epoch is never ahead of the milliseconds of the wall clock, unless
    that was wrong when a life began. By whole seconds one of a store that was lost met one of before, as the clock was set back
    meanwhile.
    """
    return msgspec.structs.replace(restored, epoch=max(restored.epoch, now))


def _days_ago(now: Wall, settings: StoreSettings) -> Wall:
    return Wall(now - settings.keep_days * DAY_MS)


def _connect(path: Path, undo: contextlib.ExitStack) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """Return a writing and a reading connection to a store that exists now and is whole; ``undo`` closes them."""
    if not path.exists():
        create(path)
    elif path.stat().st_size == 0:
        raise sqlite.damaged(path, "it is empty")
    wal.check(path)
    writer = undo.enter_context(contextlib.closing(sqlite.connect(path)))
    migrations.migrate(writer, path, _check(writer, path))
    reader = undo.enter_context(contextlib.closing(sqlite.connect(path, readonly=True)))
    return writer, reader


def create(path: Path) -> None:
    """Make an empty store beside its place and move it there, so that a crash never leaves half of one.

    Raises:
        OSError, sqlite3.Error: the disk failed.
    """
    fresh = path.with_name(f".{path.name}.new")
    for left_over in (fresh, fresh.with_name(fresh.name + "-wal"), fresh.with_name(fresh.name + "-shm")):
        left_over.unlink(missing_ok=True)
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite.connect(fresh)) as db:
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(
            f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
        )
        db.execute("PRAGMA journal_mode = WAL")
    crashpoints.reached("store.created")
    fresh.replace(path)
    crashpoints.reached("store.renamed")
    files.sync(path.parent)


def _check(db: sqlite3.Connection, path: Path) -> int:
    """Refuse a store that is damaged, of a newer version, or none at all; return its format."""
    version = _format(db, path)
    if found := sqlite.failed_check(db, "quick_check"):
        raise sqlite.damaged(path, found)
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StorageError(f"{path}: this file system cannot hold the store (no write-ahead log); use another --home")
    return version


def _format(db: sqlite3.Connection, path: Path) -> int:
    """Return the format of a store; refuse one of a newer version, or what is none."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION:
        raise sqlite.damaged(path, "it is a database of another program")
    if version > FORMAT:
        raise RefusedError(
            f"{path}: written by a newer p2pq (format {version}; this one knows {FORMAT}); install that version again"
        )
    if version < 1:
        raise sqlite.damaged(path, "its format is missing")
    return int(version)
