"""What the store's database looks like, how a row of the core changes it, and what it gives back at start.

Used by one connection in one thread (``store``). Queries for people are in ``history``. Ended jobs stay for those
queries until they are pruned; the core never sees them again.
"""

import sqlite3
from typing import Final, assert_never

import msgspec

from p2pq.core.intervals import IntervalSet
from p2pq.core.records import (
    AttemptEnded,
    BanKept,
    EpochBegun,
    FailureForgiven,
    GrantKept,
    JobAdded,
    JobEnded,
    JobHalted,
    JobReopened,
    LeaseEnded,
    LeaseGranted,
    LeaseMoved,
    MeshKeysKept,
    OwnerBanKept,
    PeerBanKept,
    PeeringKept,
    PeerSeen,
    Restored,
    ResultKept,
    ResultReleased,
    Row,
    TaskDelivered,
    TaskEnded,
    TasksCancelled,
    TasksRetried,
)
from p2pq.daemon import evidence, restoring
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall

FORMAT: Final = 2
"""The format of the database (``PRAGMA user_version``). A node refuses a newer one and migrates an older one
(``migrations``, which says what a change of SCHEMA needs)."""
APPLICATION: Final = 0x70327071
"""``p2pq``: tells our database from any other."""
PEERS_MAX: Final = 1024
"""Peers that are remembered over a restart; those not seen for longest go first."""
CHUNK_ROWS: Final = 5_000
"""Rows of a pruned job that are deleted in one transaction, so that commits never wait for long."""

SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
    n INTEGER PRIMARY KEY,
    job BLOB NOT NULL UNIQUE,
    manifest BLOB NOT NULL,
    key BLOB NOT NULL,
    reply_secret BLOB NOT NULL,
    submitted INTEGER NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0,
    state TEXT,
    ended INTEGER,
    attempts INTEGER,
    done INTEGER,
    failed INTEGER,
    pruned INTEGER NOT NULL DEFAULT 0,
    kept BLOB,
    halt BLOB,
    halted TEXT NOT NULL DEFAULT ''
);
CREATE INDEX jobs_ended ON jobs (ended) WHERE state IS NOT NULL;
CREATE INDEX jobs_live ON jobs (n) WHERE state IS NULL;
CREATE TABLE extras (job BLOB PRIMARY KEY, extra BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE tasks (
    n INTEGER NOT NULL,
    task INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    faults INTEGER NOT NULL DEFAULT 0,
    detail TEXT NOT NULL DEFAULT '',
    delivered INTEGER NOT NULL DEFAULT 0,
    died INTEGER NOT NULL DEFAULT 0,
    ended INTEGER,
    decided INTEGER,
    checkpoint INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (n, task)
) WITHOUT ROWID;
CREATE TABLE attempts (
    n INTEGER NOT NULL,
    task INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    worker BLOB NOT NULL,
    granted INTEGER NOT NULL,
    ended INTEGER,
    fault TEXT,
    detail TEXT NOT NULL DEFAULT '',
    outcome BLOB,
    result BLOB,
    counted INTEGER NOT NULL DEFAULT 1,
    via BLOB,
    proof INTEGER,
    chain INTEGER,
    sub INTEGER,
    UNIQUE (n, task, attempt)
);
CREATE TABLE leases (
    epoch INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    n INTEGER NOT NULL,
    task INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker BLOB NOT NULL,
    PRIMARY KEY (epoch, counter)
) WITHOUT ROWID;
CREATE INDEX leases_task ON leases (n, task);
CREATE TABLE settled (
    epoch INTEGER NOT NULL,
    start INTEGER NOT NULL,
    stop INTEGER NOT NULL,
    PRIMARY KEY (epoch, start)
) WITHOUT ROWID;
CREATE TABLE kept (
    master BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    item BLOB NOT NULL,
    since INTEGER NOT NULL,
    owner TEXT NOT NULL DEFAULT '',
    subs BLOB,
    UNIQUE (master, epoch, counter)
);
CREATE TABLE peers (
    seen INTEGER PRIMARY KEY,
    node BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    addresses BLOB NOT NULL
);
CREATE TABLE bans (
    node BLOB NOT NULL,
    issuer BLOB NOT NULL,
    banned INTEGER NOT NULL,
    signed BLOB NOT NULL,
    PRIMARY KEY (node, issuer)
) WITHOUT ROWID;
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
CREATE TABLE subs (
    s INTEGER PRIMARY KEY,
    n INTEGER NOT NULL,
    digest BLOB NOT NULL,
    above INTEGER,
    chain INTEGER,
    signed BLOB NOT NULL,
    UNIQUE (n, digest)
);
"""


class ExtraKept(msgspec.Struct, frozen=True, kw_only=True):
    """What people see of a job and the core does not need; encoded by ``history``. Written ahead of its JobAdded."""

    job: JobId
    extra: bytes


class Tables:
    """Applies rows inside a transaction that the caller begins and ends. Call ``reload`` after a rollback."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Use a connection whose database has the schema."""
        self._db = db
        self._proofs = evidence.Proofs(db)
        self.reload()

    def reload(self) -> None:
        """Forget what is remembered of the database and read it again."""
        self._numbers: dict[bytes, int] = dict(self._db.execute("SELECT job, n FROM jobs WHERE state IS NULL"))
        self._settled: dict[int, IntervalSet] = {}
        for epoch, start, stop in self._db.execute("SELECT epoch, start, stop FROM settled"):
            self._settled.setdefault(epoch, IntervalSet()).add(start, stop)
        self._touched: dict[int, None] = {}
        self._proofs.forget()

    def apply(self, row: Row | ExtraKept, wall: Wall) -> None:  # noqa: C901, PLR0912, PLR0915  one arm per row
        """Change the database as the row says; rows of a job that has ended change nothing but leases.

        Args:
            row: what to remember.
            wall: the present time, at which a lease that ends without a result ended.

        Raises:
            sqlite3.Error: the database failed; the transaction is to be rolled back.
        """
        run = self._db.execute
        match row:
            case EpochBegun():
                run(
                    "INSERT INTO meta VALUES ('epoch', ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
                    (row.epoch,),
                )
            case JobAdded():
                self._numbers[row.job] = restoring.add(self._db, row)
            case JobReopened():
                self._numbers[row.job.job] = restoring.reopen(self._db, row.job)
            case TasksRetried():
                self._retried(row)
            case JobHalted():
                run("UPDATE jobs SET halted = ? WHERE n = ?", (row.detail, self._numbers.get(row.job)))
            case LeaseGranted():
                self._granted(row)
            case LeaseMoved():
                run("UPDATE leases SET worker = ? WHERE epoch = ? AND counter = ?", (row.worker, *_key(row.lease)))
            case GrantKept():
                evidence.keep_grant(self._db, self._numbers.get(row.job), row)
            case LeaseEnded():
                self._lease_ended(row, wall)
            case AttemptEnded():
                self._attempt_ended(row)
            case FailureForgiven():
                self._forgiven(row)
            case TaskEnded():
                self._task_ended(row)
            case TasksCancelled():
                self._cancelled(row)
            case TaskDelivered():
                run("UPDATE tasks SET delivered = 1 WHERE n = ? AND task = ?", (self._numbers.get(row.job), row.task))
            case JobEnded():
                self._job_ended(row)
            case ResultKept():
                item, subs = msgspec.msgpack.encode(row.item), msgspec.msgpack.encode(row.subs) if row.subs else None
                run(
                    "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (row.master, *_key(row.lease), item, row.wall, row.owner, subs),
                )
            case ResultReleased():
                run("DELETE FROM kept WHERE master = ? AND epoch = ? AND counter = ?", (row.master, *_key(row.lease)))
            case PeerSeen():
                self._seen(row)
            case BanKept():
                run("INSERT OR REPLACE INTO bans VALUES (?, ?, ?, ?)", (row.node, row.issuer, row.banned, row.signed))
            case OwnerBanKept():
                values = (row.owner, row.issuer, row.banned, row.signed)
                run("INSERT OR REPLACE INTO owner_bans VALUES (?, ?, ?, ?)", values)
            case MeshKeysKept():
                run("DELETE FROM mesh_keys")
                self._db.executemany("INSERT INTO mesh_keys VALUES (?, ?)", enumerate(row.signed))
            case PeeringKept():
                run("INSERT OR REPLACE INTO peerings VALUES (?, ?, ?, ?)", (row.id, row.offer, row.accept, row.end))
            case PeerBanKept():
                words = (row.mesh, row.issuer, row.subject, row.signed)
                run("INSERT OR REPLACE INTO peer_bans VALUES (?, ?, ?, ?)", words)
            case ExtraKept():
                run("INSERT OR REPLACE INTO extras VALUES (?, ?)", (row.job, row.extra))
            case _:
                assert_never(row)

    def finish(self, *, synced: bool = False) -> None:
        """Write what ``apply`` only remembered; call it before the transaction is committed.

        Args:
            synced: the transaction will be synced, which is marked for ``wal.check``.
        """
        if synced:
            self._db.execute("INSERT INTO meta VALUES ('synced', 1) ON CONFLICT DO UPDATE SET value = value + 1")
        for epoch in self._touched:
            wanted = dict(self._settled[epoch].intervals())
            found = dict(self._db.execute("SELECT start, stop FROM settled WHERE epoch = ?", (epoch,)))
            gone = [(epoch, start) for start in found.keys() - wanted.keys()]
            changed = [(epoch, start, stop) for start, stop in wanted.items() if found.get(start) != stop]
            self._db.executemany("DELETE FROM settled WHERE epoch = ? AND start = ?", gone)
            self._db.executemany("INSERT OR REPLACE INTO settled VALUES (?, ?, ?)", changed)
        self._touched = {}

    def prune(self, *, keep_jobs: int, ended_before: Wall) -> bool:
        """Delete a piece of what is kept no longer; call it in a transaction of its own until it returns False.

        Args:
            keep_jobs: so many ended jobs stay, the latest.
            ended_before: jobs that ended earlier than this go.
        """
        run = self._db.execute
        run(
            "UPDATE jobs SET pruned = 1 WHERE state IS NOT NULL AND NOT pruned AND (ended < ? OR n NOT IN "
            "(SELECT n FROM jobs WHERE state IS NOT NULL ORDER BY ended DESC, n DESC LIMIT ?))",
            (ended_before, keep_jobs),
        )
        victim = run("SELECT n, job FROM jobs WHERE pruned ORDER BY n LIMIT 1").fetchone()
        if victim is None:
            return False
        number, job = victim
        gone = run(
            "DELETE FROM attempts WHERE rowid IN (SELECT rowid FROM attempts WHERE n = ? LIMIT ?)", (number, CHUNK_ROWS)
        ).rowcount
        gone += run(
            "DELETE FROM tasks WHERE n = ? AND task IN (SELECT task FROM tasks WHERE n = ? LIMIT ?)",
            (number, number, CHUNK_ROWS),
        ).rowcount
        gone += evidence.forget(self._db, number, CHUNK_ROWS)
        if gone == 0:
            run("DELETE FROM extras WHERE job = ?", (job,))
            run("DELETE FROM jobs WHERE n = ?", (number,))
            evidence.forget_chains(self._db)
        return True

    def restore(self) -> Restored:
        """Return what the core needs of its earlier lives.

        Raises:
            msgspec.MsgspecError: a value does not decode: the database is damaged.
        """
        return restoring.restored(self._db, self._settled)

    def forget_old(self) -> None:
        """At start, before ``restore``: drop peers beyond PEERS_MAX and extras without a job."""
        self._db.execute(
            "DELETE FROM peers WHERE seen NOT IN (SELECT seen FROM peers ORDER BY seen DESC LIMIT ?)", (PEERS_MAX,)
        )
        self._db.execute("DELETE FROM extras WHERE job NOT IN (SELECT job FROM jobs)")

    # Jobs that have ended have no number here, and no row of a table has the number NULL.

    def _granted(self, row: LeaseGranted) -> None:
        number = self._numbers.get(row.job)
        if number is None:
            return
        epoch, counter = _key(row.lease)
        live = (epoch, counter, number, row.task, row.attempt, row.worker)
        self._db.execute("INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?)", live)
        self._db.execute(
            "INSERT INTO tasks (n, task, state, attempts) VALUES (?, ?, 'running', ?) ON CONFLICT "
            "DO UPDATE SET state = 'running', attempts = excluded.attempts",
            (number, row.task, row.attempt),
        )
        self._db.execute(
            # After a repair an attempt may begin anew under its old lease, or another one may have got its number.
            "INSERT OR REPLACE INTO attempts (n, task, attempt, epoch, counter, worker, granted, via) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (number, row.task, row.attempt, epoch, counter, row.worker, row.wall, _path(row.via)),
        )

    def _lease_ended(self, row: LeaseEnded, wall: Wall) -> None:
        number = self._numbers.get(row.job)
        self._db.execute("DELETE FROM leases WHERE epoch = ? AND counter = ?", _key(row.lease))
        self._db.execute(
            "UPDATE tasks SET faults = faults + ?, state = CASE WHEN state = 'running' AND NOT EXISTS "
            "(SELECT 1 FROM leases WHERE leases.n = tasks.n AND leases.task = tasks.task) THEN 'pending' ELSE state END "
            "WHERE n = ? AND task = ?",
            (row.counted, number, row.task),
        )
        self._db.execute(
            "UPDATE attempts SET ended = ?, fault = ?, detail = ?, counted = ?, worker = coalesce(?, worker), "
            "via = coalesce(?, via) WHERE n = ? AND task = ? AND attempt = ?",
            (wall, row.fault, row.detail, row.counted, row.leaf, _path(row.via), number, row.task, row.attempt),
        )

    def _attempt_ended(self, row: AttemptEnded) -> None:
        number = self._numbers.get(row.job)
        outcome = row.result.outcome
        epoch, counter = _key(row.lease)
        self._db.execute("DELETE FROM leases WHERE epoch = ? AND counter = ?", (epoch, counter))
        self._settled.setdefault(epoch, IntervalSet()).add(counter)
        self._touched[epoch] = None
        proof, chain, sub = self._proofs.keep(number, row.proof)
        self._db.execute(
            "UPDATE tasks SET state = ?, failures = failures + ?, died = died OR ?, ended = ?, decided = ?, "
            "checkpoint = max(checkpoint, ?), delivered = max(delivered, ?) WHERE n = ? AND task = ?",
            (
                row.state,
                not outcome.ok and row.counted,
                outcome.reason == "runner-died",
                row.wall if row.state in {"done", "failed"} else None,
                row.result.attempt,
                row.result.attempt if row.result.checkpoint else 0,
                row.delivered,
                number,
                row.task,
            ),
        )
        self._db.execute(
            "UPDATE attempts SET ended = ?, outcome = ?, result = ?, detail = ?, counted = ?, proof = ?, chain = ?, "
            "sub = ?, worker = ?, via = coalesce(?, via) WHERE n = ? AND task = ? AND attempt = ?",
            (
                row.wall,
                msgspec.msgpack.encode(outcome),
                msgspec.msgpack.encode(row.result),
                "\n".join((row.detail, *row.skipped)),
                row.counted,
                proof,
                chain,
                sub,
                row.worker,
                _path(row.via),
                number,
                row.task,
                row.result.attempt,
            ),
        )

    def _seen(self, row: PeerSeen) -> None:
        # Replacing gives a new, highest rowid: the order in which peers were last seen.
        self._db.execute(
            "INSERT OR REPLACE INTO peers (node, name, addresses) VALUES (?, ?, ?)",
            (row.node, row.name, msgspec.msgpack.encode(row.addresses)),
        )

    def _cancelled(self, row: TasksCancelled) -> None:
        number = self._numbers.get(row.job)
        self._db.execute("UPDATE jobs SET cancelled = 1 WHERE n = ?", (number,))
        self._db.execute(
            "UPDATE tasks SET state = 'cancelled', delivered = 1, ended = ? "
            "WHERE n = ? AND (state = 'pending' OR ? AND state = 'running')",
            (row.wall, number, row.running),
        )

    def _retried(self, row: TasksRetried) -> None:
        if (number := self._numbers.get(row.job)) is not None:
            restoring.retried(self._db, number, row)

    def _forgiven(self, row: FailureForgiven) -> None:
        number = self._numbers.get(row.job)
        self._db.execute("UPDATE tasks SET failures = failures - 1 WHERE n = ? AND task = ?", (number, row.task))
        attempt = (number, row.task, row.attempt)
        self._db.execute("UPDATE attempts SET counted = 0 WHERE n = ? AND task = ? AND attempt = ?", attempt)

    def _task_ended(self, row: TaskEnded) -> None:
        number = self._numbers.get(row.job)
        if number is None:
            return
        self._db.execute(
            "INSERT INTO tasks (n, task, state, detail, delivered, ended) VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT "
            "DO UPDATE SET state = excluded.state, detail = excluded.detail, delivered = 1, ended = excluded.ended",
            (number, row.task, row.state, row.detail, row.wall),
        )

    def _job_ended(self, row: JobEnded) -> None:
        number = self._numbers.get(row.job)
        # Counted once, so that listing ended jobs never reads their tasks.
        attempts, done, failed = self._db.execute(
            "SELECT coalesce(sum(attempts), 0), coalesce(sum(state = 'done'), 0), coalesce(sum(state = 'failed'), 0) "
            "FROM tasks WHERE n = ?",
            (number,),
        ).fetchone()
        self._db.execute(
            "UPDATE jobs SET state = ?, ended = ?, attempts = ?, done = ?, failed = ? WHERE n = ?",
            (row.state, row.wall, attempts, done, failed, number),
        )
        self._numbers.pop(row.job, None)


def _path(via: tuple[NodeId, ...]) -> bytes | None:
    return b"".join(via) or None


def _key(lease: LeaseId) -> tuple[int, int]:
    return lease.epoch, lease.counter
