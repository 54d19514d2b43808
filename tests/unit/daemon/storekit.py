"""Rows, and a store that can be closed and opened again, for tests."""

import asyncio
import sqlite3
from pathlib import Path

from p2pq.core.records import (
    AttemptEnded,
    JobAdded,
    LeaseGranted,
    Restored,
)
from p2pq.daemon.store import Store
from p2pq.errors import StorageError
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Outcome
from p2pq.wire.objects import ResultItem

DAY_MS = 24 * 3600 * 1000
NOW = Wall(100 * DAY_MS)
OUTDATED = NOW
"""What a store says is the highest epoch used, where it knows of no higher one: the wall clock."""
JOB = JobId(b"j" * 16)
WORKER = NodeId(b"w" * 32)
MASTER = NodeId(b"m" * 32)
LEASE = LeaseId(1, 7)
ADDED = JobAdded(job=JOB, manifest=b"manifest", key=b"KEY", reply_secret=b"SECRET", wall=Wall(1000))


def clock() -> Wall:
    return NOW


def granted(task: int = 0, attempt: int = 1, lease: LeaseId = LEASE, job: JobId = JOB) -> LeaseGranted:
    return LeaseGranted(lease=lease, job=job, task=task, attempt=attempt, worker=WORKER, wall=Wall(2000))


def item(task: int = 0, attempt: int = 1, lease: LeaseId = LEASE, outcome: Outcome | None = None) -> ResultItem:
    return ResultItem(
        job=JOB, task=task, attempt=attempt, lease=lease, outcome=outcome or Outcome(reason="ok"), sandbox="strict"
    )


def attempt_ended(result: ResultItem, state: str = "done", *, counted: bool = True) -> AttemptEnded:
    return AttemptEnded(
        lease=result.lease,
        job=JOB,
        task=result.task,
        worker=WORKER,
        result=result,
        state=state,  # type: ignore[arg-type]
        wall=Wall(3000),
        counted=counted,
    )


class Opened:
    """A store in a folder that can be closed and opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store, self.restored = Store.open(path, clock)
        self.troubles: list[StorageError | None] = []
        self.changed = asyncio.Event()

    def start(self) -> "Opened":
        self.store.start(self._on_trouble)
        return self

    def _on_trouble(self, error: StorageError | None) -> None:
        self.troubles.append(error)
        self.changed.set()

    async def until_trouble_changes(self) -> None:
        async with asyncio.timeout(20):
            await self.changed.wait()
        self.changed.clear()

    async def write(self, *rows: object) -> None:
        await self.store.commit(rows, full=False)  # type: ignore[arg-type]

    async def reopened(self) -> Restored:
        await self.store.close()
        self.store, self.restored = Store.open(self.path, clock)
        self.store.start(self._on_trouble)
        return self.restored


def raw(path: Path, sql: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()
