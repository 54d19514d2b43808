"""What the store's tables add up to: the state that a node starts with, one job of it, and how an ended one comes back."""

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from p2pq import decoders
from p2pq.core.intervals import IntervalSet
from p2pq.core.records import (
    BanKept,
    Intervals,
    OwnerBanKept,
    PeerBanKept,
    PeeringKept,
    PeerSeen,
    Restored,
    RestoredJob,
    RestoredLease,
    RestoredTask,
    ResultKept,
    TasksRetried,
)
from p2pq.daemon import evidence
from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.wire.objects import ResultItem

_JOBS: Final = "SELECT n, job, manifest, key, reply_secret, submitted, cancelled, kept, halt, halted FROM jobs"
_TASKS: Final = """
SELECT t.task, t.state, t.attempts, t.failures, t.faults, t.detail, t.delivered, t.died, a.result
FROM tasks AS t LEFT JOIN attempts AS a
ON a.n = t.n AND a.task = t.task AND a.attempt = t.checkpoint AND t.state IN ('pending', 'running')
WHERE t.n = ? ORDER BY t.task
"""


def restored(db: sqlite3.Connection, settled: dict[int, IntervalSet]) -> Restored:
    """Return what the core needs of its earlier lives.

    Args:
        db: the store.
        settled: what was settled, by epoch, as ``tables`` remembers it.

    Raises:
        msgspec.MsgspecError: a value does not decode: the database is damaged.
    """
    run = db.execute
    meta = dict(run("SELECT key, value FROM meta"))
    return Restored(
        epoch=meta.get("epoch", 0),
        rebuilt=meta.get("rebuilt", 0),
        jobs=tuple(_jobs(db)),
        leases=tuple(
            RestoredLease(lease=LeaseId(e, c), job=JobId(job), task=task, attempt=attempt, worker=NodeId(worker))
            for e, c, job, task, attempt, worker in run(
                "SELECT epoch, counter, job, task, attempt, worker FROM leases JOIN jobs USING (n) ORDER BY epoch, counter"
            )
        ),
        grants=evidence.of_live_leases(db),
        settled=tuple((e, found.intervals()) for e, found in sorted(settled.items())),
        kept=tuple(
            ResultKept(
                lease=LeaseId(e, c),
                master=NodeId(master),
                item=decoders.unpack(item, ResultItem),
                wall=Wall(since),
                owner=owner,
                subs=() if subs is None else decoders.unpack(subs, tuple[bytes, ...]),
            )
            for master, e, c, item, since, owner, subs in run(
                "SELECT master, epoch, counter, item, since, owner, subs FROM kept ORDER BY master, epoch, counter"
            )
        ),
        peers=tuple(
            PeerSeen(node=NodeId(node), name=name, addresses=decoders.unpack(found, tuple[str, ...]))
            for node, name, found in run("SELECT node, name, addresses FROM peers ORDER BY seen")
        ),
        bans=tuple(
            BanKept(node=NodeId(node), banned=bool(banned), issuer=issuer, signed=signed)
            for node, issuer, banned, signed in run(
                "SELECT node, issuer, banned, signed FROM bans ORDER BY node, issuer"
            )
        ),
        owner_bans=tuple(
            OwnerBanKept(owner=owner, banned=bool(banned), issuer=issuer, signed=signed)
            for owner, issuer, banned, signed in run(
                "SELECT owner, issuer, banned, signed FROM owner_bans ORDER BY owner, issuer"
            )
        ),
        mesh_keys=tuple(signed for (signed,) in run("SELECT signed FROM mesh_keys ORDER BY place")),
        peerings=tuple(
            PeeringKept(id=ident, offer=offer, accept=accept, end=ended)
            for ident, offer, accept, ended in run("SELECT id, offer, accept, ended FROM peerings ORDER BY id")
        ),
        peer_bans=tuple(
            PeerBanKept(mesh=mesh, issuer=issuer, subject=subject, signed=signed)
            for mesh, issuer, subject, signed in run(
                "SELECT mesh, issuer, subject, signed FROM peer_bans ORDER BY mesh, issuer, subject"
            )
        ),
    )


def _jobs(db: sqlite3.Connection) -> Iterator[RestoredJob]:
    for row in db.execute(f"{_JOBS} WHERE state IS NULL ORDER BY n").fetchall():
        yield _job(db, row)


def ended_job(db: sqlite3.Connection, job: JobId) -> RestoredJob | None:
    """Return a job that has ended, as it would be if it had not.

    Raises:
        msgspec.MsgspecError: a value does not decode: the database is damaged.
    """
    row = db.execute(f"{_JOBS} WHERE job = ? AND state IS NOT NULL AND NOT pruned", (job,)).fetchone()
    return None if row is None else _job(db, row)


def _job(db: sqlite3.Connection, row: tuple[Any, ...]) -> RestoredJob:
    number, job, manifest, key, reply_secret, submitted, cancelled, kept, halt, halted = row
    return RestoredJob(
        job=JobId(job),
        manifest=manifest,
        key=key,
        reply_secret=reply_secret,
        wall=Wall(submitted),
        cancelled=bool(cancelled),
        kept=() if kept is None else decoders.unpack(kept, Intervals),
        halt=None if halt is None else decoders.unpack(halt, Halt),
        halted=halted,
        tasks=tuple(
            RestoredTask(
                task=task,
                state=state,
                attempts=attempts,
                failures=failures,
                faults=faults,
                detail=detail,
                delivered=bool(delivered),
                died=bool(died),
                checkpoint=None if left is None else decoders.unpack(left, ResultItem),
            )
            for task, state, attempts, failures, faults, detail, delivered, died, left in db.execute(_TASKS, (number,))
        ),
    )


def add(db: sqlite3.Connection, job: Any) -> int:  # noqa: ANN401  JobAdded and RestoredJob agree in these fields
    """Insert a job; return its number."""
    added = db.execute(
        "INSERT INTO jobs (job, manifest, key, reply_secret, submitted, kept, halt) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING n",
        (
            job.job,
            job.manifest,
            job.key,
            job.reply_secret,
            job.wall,
            msgspec.msgpack.encode(job.kept) if job.kept else None,
            None if job.halt is None else msgspec.msgpack.encode(job.halt),
        ),
    )
    number: int = added.fetchone()[0]
    return number


def reopen(db: sqlite3.Connection, job: RestoredJob) -> int:
    """Make an ended job live again, with its tasks as they are told; return its number.

    It may have been let go of, in part or wholly, since it was looked at: all that the core needs is told.
    """
    found = db.execute("SELECT n FROM jobs WHERE job = ?", (job.job,)).fetchone()
    number: int = add(db, job) if found is None else found[0]
    db.execute(
        "UPDATE jobs SET state = NULL, ended = NULL, attempts = NULL, done = NULL, failed = NULL, pruned = 0, "
        "cancelled = ?, halted = ? WHERE n = ?",
        (job.cancelled, job.halted, number),
    )
    db.executemany(
        "INSERT INTO tasks (n, task, state, attempts, failures, faults, detail, delivered, died) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, "
        "attempts = excluded.attempts, failures = excluded.failures, faults = excluded.faults, "
        "detail = excluded.detail, delivered = excluded.delivered, died = excluded.died",
        (
            (number, old.task, old.state, old.attempts, old.failures, old.faults, old.detail, old.delivered, old.died)
            for old in job.tasks
        ),
    )
    return number


def retried(db: sqlite3.Connection, number: int, row: TasksRetried) -> None:
    """Tasks wait again, as if nothing had happened but their attempts."""
    db.execute("UPDATE jobs SET halted = '', cancelled = cancelled AND NOT ? WHERE n = ?", (row.rest, number))
    db.executemany(
        "INSERT INTO tasks (n, task, state) VALUES (?, ?, 'pending') ON CONFLICT DO UPDATE SET state = 'pending', "
        "failures = 0, faults = 0, detail = '', delivered = 0, died = 0, ended = NULL, checkpoint = 0, decided = NULL",
        ((number, task) for task in IntervalSet(row.tasks)),
    )
