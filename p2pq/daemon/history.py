"""What the store can tell people: jobs, their tasks and attempts, ended ones included.

Read through a connection of its own, which sees what is committed. Every query is small and bounded, so that the event
loop may ask directly; whoever wants a million tasks asks page by page.
"""

import sqlite3
import threading
from bisect import bisect_right
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import msgspec

from p2pq import decoders
from p2pq.core.records import Intervals, RestoredJob
from p2pq.daemon import evidence, restoring, sqlite
from p2pq.daemon.evidence import Decided
from p2pq.model.ids import JOB_ID_BYTES, NODE_ID_BYTES, JobId, LeaseId, NodeId, Wall, plain, to_text
from p2pq.model.job import JobState, Outcome, TaskState
from p2pq.wire.messages import PeeringKnown
from p2pq.wire.objects import ResultItem

PAGE_MAX: Final = 10_000
"""Rows that one query gives at most."""
FIND_MAX: Final = 16
SKIPPED_MAX: Final = 1000
"""Tasks that left something behind which are counted."""
ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
JOB_ID_BITS: Final = JOB_ID_BYTES * 8


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """Tasks start, ..., stop - 1, whose results an earlier job brought; there they begin at ``first``."""

    start: int
    stop: int
    job: JobId
    first: int


class JobExtra(msgspec.Struct, frozen=True, kw_only=True):
    """What people see of a job and the core does not need."""

    name: str = ""
    folder: str = ""
    """The submitted folder, absolute."""
    results: str = ""
    """Where its results go, absolute; it follows them when a newer job moves them aside."""
    place: str = ""
    """The one real name of that folder, when the job came; empty where a version wrote this that did not ask."""
    argv: tuple[str, ...] = ()
    axes: bytes = b""
    """The sweep, as ``daemon.jobs`` encodes it."""
    tasks: int = 0
    """How many tasks there are."""
    umask: int = 0o022
    """Modes that the user does not want on the results."""
    inputs: bytes = b""
    """What the tasks' results depend on, besides their parameters and numbers, as a digest; empty: not known."""
    kept: tuple[Kept, ...] = ()
    """Tasks that an earlier job had done, in order."""
    skipped: Intervals = ()
    """Tasks that were not to run, in order, as a log of their owner's told that they ran before."""
    lost: str = ""
    """What a damaged store has lost of the job, for people."""

    def origin(self, index: int) -> tuple[JobId, int] | None:
        """Return the job and the task there whose results a kept task has; None if it was not kept."""
        at = bisect_right(self.kept, index, key=lambda kept: kept.start) - 1
        if at < 0 or index >= self.kept[at].stop:
            return None
        found = self.kept[at]
        return found.job, found.first + index - found.start

    def skips(self, index: int) -> bool:
        """Tell whether a task was not to run."""
        at = bisect_right(self.skipped, index, key=itemgetter(0)) - 1
        return at >= 0 and index < self.skipped[at][1]

    @property
    def kept_count(self) -> int:
        """How many tasks need not, or were not to, run."""
        return sum(each.stop - each.start for each in self.kept) + sum(stop - start for start, stop in self.skipped)


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the store knows it. Plain pending tasks (or plain cancelled ones) have no row and are not counted."""

    job: JobId
    submitted: Wall
    extra: JobExtra | None = None
    state: JobState | None = None
    """How it ended; None while it lives."""
    ended: Wall | None = None
    cancelled: bool = False
    """The whole job was cancelled: a task that was not settled by then is cancelled."""
    attempts: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    cancelled_tasks: int = 0
    """Tasks that were cancelled one by one."""
    waiting: int = 0
    """Tasks with a history that wait."""
    halted: str = ""
    """After what the job was halted, if it was."""


class JobSecret(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to grant a job's tasks and to read its results. Its keys never appear in ``repr``."""

    job: JobId
    manifest: bytes
    key: bytes
    reply_secret: bytes

    def __repr__(self) -> str:
        """Name the job, not its secrets."""
        return f"JobSecret({to_text(self.job)})"


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt: live where neither ``fault`` nor ``outcome`` is there."""

    task: int
    attempt: int
    lease: LeaseId
    worker: NodeId
    granted: Wall
    ended: Wall | None = None
    """When its result came, or its lease ended without one."""
    fault: str | None = None
    detail: str = ""
    outcome: Outcome | None = None
    counted: bool = True
    """Whether its end counts: a failure against the task, a fault against the limit of faults."""
    via: tuple[NodeId, ...] = ()
    """The bridges that carried the link to the worker when it was granted, the nearest first."""
    skipped: tuple[str, ...] = ()
    """What of its results could not travel by the task's own doing, an entry a sentence."""


class TaskRow(msgspec.Struct, frozen=True, kw_only=True):
    """A task with a history, and its latest attempt if it had one."""

    task: int
    state: TaskState
    attempts: int
    failures: int
    faults: int
    detail: str
    delivered: bool
    ended: Wall | None
    last: AttemptRow | None


_JOBS: Final = """
SELECT jobs.job, submitted, extra, jobs.state, jobs.ended, cancelled,
    coalesce(jobs.attempts, (SELECT sum(tasks.attempts) FROM tasks WHERE tasks.n = jobs.n), 0),
    CASE WHEN jobs.state IS NULL THEN (SELECT count(DISTINCT task) FROM leases WHERE leases.n = jobs.n) ELSE 0 END,
    coalesce(done, (SELECT sum(tasks.state = 'done') FROM tasks WHERE tasks.n = jobs.n), 0),
    coalesce(failed, (SELECT sum(tasks.state = 'failed') FROM tasks WHERE tasks.n = jobs.n), 0),
    coalesce((SELECT sum(tasks.state = 'cancelled') FROM tasks WHERE tasks.n = jobs.n), 0),
    CASE WHEN jobs.state IS NULL AND cancelled
        THEN (SELECT count(*) FROM tasks WHERE tasks.n = jobs.n AND tasks.state = 'pending') ELSE 0 END,
    halted
FROM jobs LEFT JOIN extras USING (job) WHERE NOT pruned
"""
_ATTEMPT: Final = (
    "a.task, a.attempt, a.epoch, a.counter, a.worker, a.granted, a.ended, a.fault, a.detail, a.outcome, a.counted, "
    "a.via"
)
_EXTRA: Final = decoders.of_packed(JobExtra)
_OUTCOME: Final = decoders.of_packed(Outcome)
_RESULT: Final = decoders.of_packed(ResultItem)


def encode_extra(extra: JobExtra) -> bytes:
    """Return the bytes that the store keeps."""
    return msgspec.msgpack.encode(extra)


class History:
    """Queries over committed rows, for any thread. What does not exist is None or an empty tuple.

    Every query may raise StorageError, if the disk fails.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        """Use a connection that nobody writes with; ``path`` is only for messages."""
        self._reader = db
        self._path = path
        self._one_at_a_time = threading.Lock()

    def _rows(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        try:
            # A statement that is under way keeps the connection at the moment at which it began: another thread would not
            # see what was committed since, such as the very result that it is to write out.
            with self._one_at_a_time:
                return self._reader.execute(sql, args).fetchall()
        except sqlite3.Error as error:
            raise sqlite.storage_error(error, self._path) from error

    def job_rows(self, limit: int) -> tuple[JobRow, ...]:
        """Return the latest jobs, the newest first."""
        found = self._rows(f"{_JOBS} ORDER BY jobs.n DESC LIMIT ?", _page(limit))
        return tuple(_job_row(row) for row in found)

    def live_jobs(self) -> tuple[JobRow, ...]:
        """Return the jobs that have not ended, the newest first; PAGE_MAX at most."""
        found = self._rows(f"{_JOBS} AND jobs.state IS NULL ORDER BY jobs.n DESC LIMIT ?", PAGE_MAX)
        return tuple(_job_row(row) for row in found)

    def extras(self) -> tuple[tuple[JobId, JobExtra], ...]:
        """Return what people see of the latest jobs, the newest first; PAGE_MAX at most."""
        found = self._rows(
            "SELECT job, extra FROM jobs JOIN extras USING (job) WHERE NOT pruned ORDER BY n DESC LIMIT ?", PAGE_MAX
        )
        return tuple((JobId(job), _EXTRA.decode(extra)) for job, extra in found)

    def running_tasks(self, job: JobId) -> tuple[int, ...]:
        """Return the tasks of a job that are under a lease, in order; PAGE_MAX at most."""
        found = self._rows(
            "SELECT DISTINCT task FROM leases WHERE n = (SELECT n FROM jobs WHERE job = ?) ORDER BY task LIMIT ?",
            job,
            PAGE_MAX,
        )
        return tuple(task for (task,) in found)

    def job(self, job: JobId) -> JobRow | None:
        """Return one job."""
        found = self._rows(f"{_JOBS} AND jobs.job = ?", job)
        return _job_row(found[0]) if found else None

    def signed_bans(self) -> tuple[bytes, ...]:
        """Return the bans that admins signed, for whoever joins; those of nodes first."""
        return tuple(
            signed
            for sql in (
                "SELECT signed FROM bans WHERE signed != x'' ORDER BY node, issuer",
                "SELECT signed FROM owner_bans WHERE signed != x'' ORDER BY owner, issuer",
            )
            for (signed,) in self._rows(sql)
        )

    def peerings(self) -> tuple[PeeringKnown, ...]:
        """Return the peerings with other meshes that are kept, those that are over, too."""
        found = self._rows("SELECT offer, accept, ended FROM peerings ORDER BY id")
        return tuple(PeeringKnown(offer, accept, ended) for offer, accept, ended in found)

    def peer_bans(self) -> tuple[bytes, ...]:
        """Return what admins of other meshes have said of members of these."""
        found = self._rows("SELECT signed FROM peer_bans ORDER BY mesh, issuer, subject")
        return tuple(signed for (signed,) in found)

    def find_jobs(self, prefix: str) -> tuple[JobId, ...]:
        """Return the jobs whose id, as text, begins with ``prefix``; a few at most, in order of id."""
        text = plain(prefix)
        digits = [ALPHABET.find(char) for char in text]
        if not digits or -1 in digits or len(digits) * 5 > JOB_ID_BITS + 4:
            return ()
        number = 0
        for digit in digits:
            number = number << 5 | digit
        spare = JOB_ID_BITS - len(digits) * 5
        low = number << spare if spare >= 0 else number >> -spare
        high = low + (1 << spare) - 1 if spare >= 0 else low
        found = self._rows(
            "SELECT job FROM jobs WHERE job BETWEEN ? AND ? AND NOT pruned ORDER BY job LIMIT ?",
            low.to_bytes(JOB_ID_BYTES, "big"),
            high.to_bytes(JOB_ID_BYTES, "big"),
            FIND_MAX,
        )
        return tuple(JobId(job) for (job,) in found if to_text(job).startswith(text))

    def secret(self, job: JobId) -> JobSecret | None:
        """Return a job's manifest and keys."""
        found = self._rows("SELECT manifest, key, reply_secret FROM jobs WHERE job = ? AND NOT pruned", job)
        if not found:
            return None
        manifest, key, reply_secret = found[0]
        return JobSecret(job=job, manifest=manifest, key=key, reply_secret=reply_secret)

    def banned_here(self) -> tuple[NodeId | str, ...]:
        """Return the nodes and owners that this node's own user has banned."""
        nodes = self._rows("SELECT node FROM bans WHERE issuer = x'' AND signed = x'' AND banned")
        owners = self._rows("SELECT owner FROM owner_bans WHERE issuer = x'' AND signed = x'' AND banned")
        return (*(NodeId(node) for (node,) in nodes), *(str(owner) for (owner,) in owners))

    def decided(self, job: JobId, *, start: int = 0, limit: int = PAGE_MAX) -> tuple[Decided, ...]:
        """Return the tasks of a job that are done or failed, from index ``start`` on, with what proves their results."""
        rebuilt = self._rows("SELECT value FROM meta WHERE key = 'rebuilt'")
        rows = self._rows(evidence.OF_JOB, job, start, _page(limit))
        return evidence.decided(rows, rebuilt[0][0] if rebuilt else -1)

    def workers_named(self) -> dict[NodeId, str]:
        """Return what the workers are called whose results are here with their certificates."""
        return evidence.names(self._rows(evidence.NAMES))

    def tasks(self, job: JobId, *, start: int = 0, limit: int = PAGE_MAX) -> tuple[TaskRow, ...]:
        """Return the tasks with a history from index ``start`` on, in order; PAGE_MAX at most."""
        found = self._rows(
            "SELECT t.task, t.state, t.attempts, t.failures, t.faults, t.detail, t.delivered, t.ended, "  # noqa: S608
            f"{_ATTEMPT} FROM tasks AS t LEFT JOIN attempts AS a "
            "ON a.n = t.n AND a.task = t.task AND a.attempt = "
            "CASE WHEN t.state IN ('done', 'failed') THEN coalesce(t.decided, t.attempts) ELSE t.attempts END "
            "WHERE t.n = (SELECT n FROM jobs WHERE job = ? AND NOT pruned) AND t.task >= ? ORDER BY t.task LIMIT ?",
            job,
            start,
            _page(limit),
        )
        return tuple(_task_row(row) for row in found)

    def attempts(self, job: JobId, task: int | None = None, *, limit: int = PAGE_MAX) -> tuple[AttemptRow, ...]:
        """Return the attempts of a job or of one task, by task and number; PAGE_MAX at most."""
        found = self._rows(
            f"SELECT {_ATTEMPT} FROM attempts AS a WHERE a.n = (SELECT n FROM jobs WHERE job = ? AND NOT pruned) "  # noqa: S608
            "AND (? IS NULL OR a.task = ?) ORDER BY a.task, a.attempt LIMIT ?",
            job,
            task,
            task,
            _page(limit),
        )
        return tuple(_attempt_row(row) for row in found)

    def skipped(self, job: JobId) -> tuple[AttemptRow, ...]:
        """Return the attempts that decided tasks of a job and left results behind that cannot travel; SKIPPED_MAX at most.

        It looks at every task of the job: for a thread.
        """
        found = self._rows(
            f"SELECT {_ATTEMPT} FROM tasks AS t JOIN attempts AS a ON a.n = t.n AND a.task = t.task "  # noqa: S608
            "AND a.attempt = coalesce(t.decided, t.attempts) WHERE t.n = (SELECT n FROM jobs WHERE job = ? AND NOT pruned) "
            "AND t.state IN ('done', 'failed') AND a.outcome IS NOT NULL AND instr(a.detail, char(10)) "
            "ORDER BY t.task LIMIT ?",
            job,
            SKIPPED_MAX,
        )
        return tuple(_attempt_row(row) for row in found)

    def ended_job(self, job: JobId) -> RestoredJob | None:
        """Return what it takes to open a job again that has ended."""
        try:
            with self._one_at_a_time:
                return restoring.ended_job(self._reader, job)
        except sqlite3.Error as error:
            raise sqlite.storage_error(error, self._path) from error

    def failed_results(self, job: JobId) -> tuple[ResultItem, ...]:
        """Return the results of a job's attempts that failed, the latest first; PAGE_MAX at most."""
        found = self._rows(
            "SELECT a.result FROM attempts AS a JOIN tasks AS t ON t.n = a.n AND t.task = a.task "
            "WHERE a.n = (SELECT n FROM jobs WHERE job = ? AND NOT pruned) AND a.result IS NOT NULL "
            "AND NOT (t.state = 'done' AND a.attempt = t.attempts) ORDER BY a.rowid DESC LIMIT ?",
            job,
            PAGE_MAX,
        )
        return tuple(item for item in (_RESULT.decode(result) for (result,) in found) if not item.outcome.ok)

    def result(self, job: JobId, task: int, attempt: int | None = None) -> ResultItem | None:
        """Return the result that came of an attempt (the latest that came), settled or not."""
        found = self._rows(
            "SELECT a.result FROM attempts AS a LEFT JOIN tasks AS t ON t.n = a.n AND t.task = a.task "
            "WHERE a.n = (SELECT n FROM jobs WHERE job = ? AND NOT pruned) AND a.task = ? "
            "AND (? IS NULL OR a.attempt = ?) AND a.result IS NOT NULL "
            "ORDER BY a.attempt = t.decided DESC, a.attempt DESC LIMIT 1",
            job,
            task,
            attempt,
            attempt,
        )
        return _RESULT.decode(found[0][0]) if found else None


def _page(limit: int) -> int:
    return max(0, min(limit, PAGE_MAX))


def _job_row(row: tuple[Any, ...]) -> JobRow:
    job, submitted, extra, state, ended, cancelled, attempts, running, done, failed, cancelled_tasks, *rest = row
    return JobRow(
        job=job,
        submitted=submitted,
        extra=None if extra is None else _EXTRA.decode(extra),
        state=state,
        ended=ended,
        cancelled=bool(cancelled),
        attempts=attempts,
        running=running,
        done=done,
        failed=failed,
        cancelled_tasks=cancelled_tasks,
        waiting=rest[0],
        halted=rest[1],
    )


def _task_row(row: tuple[Any, ...]) -> TaskRow:
    task, state, attempts, failures, faults, detail, delivered, ended, *last = row
    return TaskRow(
        task=task,
        state=state,
        attempts=attempts,
        failures=failures,
        faults=faults,
        detail=detail,
        delivered=bool(delivered),
        ended=ended,
        last=None if last[0] is None else _attempt_row(tuple(last)),
    )


def _attempt_row(row: tuple[Any, ...]) -> AttemptRow:
    task, attempt, epoch, counter, worker, granted, ended, fault, text, outcome, counted, via = row
    detail, *skipped = text.split("\n") if outcome is not None else (text,)
    return AttemptRow(
        task=task,
        attempt=attempt,
        lease=LeaseId(epoch, counter),
        worker=worker,
        granted=granted,
        ended=ended,
        fault=fault,
        detail=detail,
        outcome=None if outcome is None else _OUTCOME.decode(outcome),
        counted=bool(counted),
        via=tuple(NodeId(via[at : at + NODE_ID_BYTES]) for at in range(0, len(via or b""), NODE_ID_BYTES)),
        skipped=tuple(skipped),
    )
