"""A store with every table in use, damage to it, and what a repair made of it, for tests."""

import asyncio
import random
import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec

from p2pq.core import records
from p2pq.core.identity import Identity
from p2pq.core.node import Node
from p2pq.core.records import Restored, Row
from p2pq.daemon.home import Home
from p2pq.daemon.pages import Pages, Reader
from p2pq.daemon.repair import Report, repair, trouble
from p2pq.daemon.store import Store
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono
from tests.golden.store import make as golden

TASKS = 3000
BIG = JobId(b"big".ljust(16, b"."))
NOW = golden.NOW
PAGE = 4096


def many() -> list[Row]:
    """Return the life of a job of thousands of tasks: most are done and delivered, some run, some failed."""
    rows: list[Row] = [golden.added("big", TASKS)]
    for task in range(2500):
        held = golden.granted("big", task, 1, LeaseId(2, 1000 + task))
        rows.append(held)
        if task % 100 == 7:
            rows.append(golden.lost(held, "expired"))
            held = golden.granted("big", task, 2, LeaseId(2, 10_000 + task))
            rows.append(held)
        if task % 50 == 9:
            continue  # still runs
        rows.append(
            golden.ended(held, golden.BAD if task % 70 == 3 else golden.OK, "failed" if task % 70 == 3 else "done")
        )
        if task < 2400:
            rows.append(records.TaskDelivered(job=BIG, task=task))
    return rows


def make(path: Path, *, killed: Path | None = None) -> Restored:
    """Make a store with every table in use and one large job; return what it gives back.

    Args:
        path: where.
        killed: where to leave a copy with everything in its log, as ``kill -9`` would.
    """

    async def fill() -> Restored:
        store, _ = Store.open(path, lambda: NOW)
        store._writer.execute("PRAGMA wal_autocheckpoint = 0")
        store.start()
        for name, tasks in (("running", 1_000_000), ("waiting", 3), ("cancelled", 5), ("finished", 2), ("big", TASKS)):
            store.keep_extra(golden.job_id(name), golden.extra(name, tasks))
        rows = golden.rows()
        for at in range(0, len(rows), 10):
            await store.commit(rows[at : at + 10], full=False)
        rows = many()
        for at in range(0, len(rows), 100):
            await store.commit(rows[at : at + 100], full=at % 200 == 0)
        await store.commit([records.EpochBegun(epoch=3)], full=True)
        if killed is not None:
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{path}{suffix}", f"{killed}{suffix}")
        await store.close()
        store, restored = Store.open(path, lambda: NOW)
        await store.close()
        return restored

    return asyncio.run(fill())


def mended(home: Home) -> tuple[Report, Restored]:
    """Repair, and start a core with what came of it."""
    report = repair(home, golden.NODE, NOW)
    assert trouble(home.store, golden.NODE) == ""
    assert {path.name for path in home.path.iterdir() if path.name.startswith(".store")} == set()
    store, restored = Store.open(home.store, lambda: NOW)
    asyncio.run(store.close())
    check(restored)
    return report, restored


def check(restored: Restored) -> None:
    identity = Identity(
        node=golden.NODE,
        secret=golden.MASTER.seed,
        mesh=golden.MESH,
        name="n",
        owner="ada",
        caps=("submit", "work"),
        boot=bytes(16),
        prekey_secret=b"p" * 32,
        prekey=b"q" * 32,
    )
    rng = random.Random(1)
    restored = msgspec.structs.replace(restored, bans=())  # nobody signed those
    node = Node(identity, ScheduleSettings(), restored, rng, rng.randbytes, now=Mono(0.0), wall=NOW)
    node.check()


def states(restored: Restored) -> dict[JobId, Counter[str]]:
    return {job.job: Counter(task.state for task in job.tasks) for job in restored.jobs}


def pages_of(path: Path, table: str) -> list[int]:
    """Return the leaves of a table."""
    with closing(Pages(path)) as pages:
        reader = Reader(pages)
        root = reader.schema()[table]
        before = set(reader.seen)
        list(reader.tree(root))
        return sorted(number for number in reader.seen - before if pages.page(number)[0] in {10, 13})


def overwrite(path: Path, number: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE)
        file.write(content)


def never_twice(restored: Restored, before: Restored) -> None:
    """Nothing that was settled is forgotten as long as its task's history is there; epochs are fenced off."""
    assert restored.epoch == restored.rebuilt >= before.epoch
    old = {(job.job, task.task): task for job in before.jobs for task in job.tasks}
    settled = {
        (epoch, counter) for epoch, spans in restored.settled for start, stop in spans for counter in range(start, stop)
    }
    for job in restored.jobs:
        for task in job.tasks:
            was = old[job.job, task.task]
            if task.state in {"done", "failed", "cancelled"}:
                assert (task.state, was.delivered or not task.delivered) == (was.state, True)
            assert task.attempts <= was.attempts
    for lease in restored.leases:
        assert lease in before.leases
        assert tuple(msgspec.structs.astuple(lease.lease)) not in settled
