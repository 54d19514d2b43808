"""Make a golden store: what this version writes, with every table in use and fixed keys, for later versions to read.

    python -m tests.golden.store.make FOLDER

writes ``vN.db`` (N: this version's format) and ``vN.json``, what the store gives back. Do it once per released format, at
the commit that is released; a golden store never changes. What it gives back may grow, by what was in it all along.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from p2pq.core import records
from p2pq.core.records import Restored, Row
from p2pq.daemon.history import AttemptRow, JobExtra, JobRow, TaskRow
from p2pq.daemon.store import Store
from p2pq.daemon.tables import FORMAT
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Outcome, TaskState
from p2pq.wire import prims, seal, sign
from p2pq.wire.objects import BlobRef, Grant, GrantItem, Manifest, ResultItem

DAY_MS = 24 * 3600 * 1000
NOW = Wall(20_000 * DAY_MS)
MASTER = prims.SigningKey(b"golden store master key, 32 byte")
NODE = NodeId(MASTER.public)
MESH = prims.mesh_id(b"golden store root public key, 32")
WORKERS = [NodeId(bytes([number]) * 32) for number in range(1, 5)]
JOBS = {name: JobId(name.encode().ljust(16, b".")) for name in ("running", "waiting", "cancelled", "finished")}
REPLY = b"golden store reply secret, 32 by"
KEY = b"golden store job key, 32 bytes.."
BODY = BlobRef(b"b" * 32, 1234)
OK = Outcome(reason="ok", exit=0, run_ms=1500, cpu_ms=1400, max_rss=1 << 30, started=NOW)
BAD = Outcome(reason="exit", exit=3, run_ms=20, started=NOW)
DIED = Outcome(reason="runner-died", started=NOW)


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """What a golden store gives back, to the core and to people."""

    restored: Restored
    jobs: tuple[JobRow, ...]
    tasks: dict[str, tuple[TaskRow, ...]]
    attempts: dict[str, tuple[AttemptRow, ...]]


def job_id(name: str) -> JobId:
    return JobId(name.encode().ljust(16, b"."))


def added(name: str, tasks: int) -> records.JobAdded:
    manifest = Manifest(
        mesh=MESH,
        node=NODE,
        owner="ada",
        job=job_id(name),
        tasks=tasks,
        reply=prims.x25519_public(REPLY),
        commit=seal.commitment(KEY),
        body=(BODY,),
        blobs=(BlobRef(b"c" * 32, 4 << 20),),
        submitted=NOW,
        expires=NOW + 366 * DAY_MS,
    )
    return records.JobAdded(
        job=job_id(name), manifest=sign.sign(MASTER, manifest), key=KEY, reply_secret=REPLY, wall=Wall(NOW + tasks)
    )


def extra(name: str, tasks: int) -> JobExtra:
    return JobExtra(
        name=name, folder=f"/home/ada/{name}", results=f"/home/ada/{name}/results", argv=("main.py", "-v"), tasks=tasks
    )


def granted(name: str, task: int, attempt: int, lease: LeaseId) -> records.LeaseGranted:
    worker = WORKERS[task % len(WORKERS)]
    wall = Wall(NOW + 1000 + lease.counter)
    return records.LeaseGranted(lease=lease, job=job_id(name), task=task, attempt=attempt, worker=worker, wall=wall)


def grant(*rows: records.LeaseGranted) -> records.GrantKept:
    first = rows[0]
    value = Grant(
        mesh=MESH,
        node=NODE,
        to=first.worker,
        nonce=b"golden nonce 16b",
        job=first.job,
        manifest=sign.digest(b"manifest"),
        items=tuple(GrantItem(row.task, row.attempt, row.lease) for row in rows),
        key=b"g" * 80,
        expires=first.wall + 60_000,
    )
    return records.GrantKept(job=first.job, lease=first.lease, signed=sign.sign(MASTER, value))


def ended(row: records.LeaseGranted, outcome: Outcome, state: TaskState, *, counted: bool = True) -> Row:
    result = ResultItem(
        job=row.job,
        task=row.task,
        attempt=row.attempt,
        lease=row.lease,
        outcome=outcome,
        sandbox="strict",
        key=b"k" * 80,
        body=(BlobRef(b"d" * 32, 99),),
        blobs=(BlobRef(b"e" * 32, 7),),
    )
    proof = records.Proof(
        signed=f"result {row.lease.epoch} of {row.worker[0]}".encode(),
        certs=(b"member", bytes(row.worker[:1]), b"admin"),
        handed=tuple(records.HandedOn(signed=word, certs=(b"bridge", b"admin")) for word in (b"above", b"sub-grant")),
    )
    return records.AttemptEnded(
        lease=row.lease,
        job=row.job,
        task=row.task,
        worker=row.worker,
        result=result,
        state=state,
        wall=Wall(NOW + 5000 + row.lease.counter),
        counted=counted,
        proof=proof,
    )


def lost(row: records.LeaseGranted, fault: str, *, counted: bool = True) -> Row:
    return records.LeaseEnded(
        lease=row.lease,
        job=row.job,
        task=row.task,
        attempt=row.attempt,
        fault=fault,
        detail="as told",
        counted=counted,
    )


def rows() -> list[Row]:
    """Return a master's and a worker's life: every kind of row, every state of a task."""
    held = [granted("running", task, 1, LeaseId(1, task)) for task in range(8)]
    again = [granted("running", 3, 2, LeaseId(2, 0)), granted("running", 4, 2, LeaseId(2, 1))]
    last = [granted("finished", 0, 1, LeaseId(2, 3)), granted("finished", 1, 1, LeaseId(2, 4))]
    other = granted("cancelled", 0, 1, LeaseId(2, 5))
    return [
        records.EpochBegun(epoch=1),
        added("running", 1_000_000),
        *held,
        grant(*held),
        ended(held[0], OK, "done"),
        records.TaskDelivered(job=JOBS["running"], task=0),
        ended(held[1], OK, "done"),
        ended(held[2], BAD, "failed"),
        ended(held[3], BAD, "pending"),
        ended(held[4], DIED, "pending", counted=False),
        lost(held[5], "expired"),
        lost(held[6], "late", counted=False),
        records.TaskEnded(job=JOBS["running"], task=6, state="failed", detail="given up", wall=Wall(NOW + 9000)),
        records.EpochBegun(epoch=2),
        *again,
        added("waiting", 3),
        added("finished", 2),
        *last,
        grant(*last),
        ended(last[0], OK, "done"),
        records.TaskDelivered(job=JOBS["finished"], task=0),
        ended(last[1], BAD, "failed"),
        records.TaskDelivered(job=JOBS["finished"], task=1),
        records.JobEnded(job=JOBS["finished"], state="failed", wall=Wall(NOW + 9500)),
        added("cancelled", 5),
        other,
        grant(other),
        ended(other, OK, "done"),
        records.TasksCancelled(job=JOBS["cancelled"], wall=Wall(NOW + 9600)),
        records.ResultKept(lease=LeaseId(7, 70), master=WORKERS[1], item=kept(LeaseId(7, 70)), wall=NOW, owner="eve"),
        records.ResultKept(
            lease=LeaseId(7, 72), master=WORKERS[1], item=kept(LeaseId(7, 72)), wall=NOW, subs=(b"sub-grant",)
        ),
        records.ResultKept(lease=LeaseId(7, 71), master=WORKERS[1], item=kept(LeaseId(7, 71)), wall=NOW, owner="eve"),
        records.ResultReleased(lease=LeaseId(7, 71), master=WORKERS[1]),
        records.PeerSeen(node=WORKERS[0], name="bert", addresses=("10.0.0.1:9476", "[fe80::1]:9476")),
        records.PeerSeen(node=WORKERS[1], name="cleo", addresses=()),
        records.BanKept(node=WORKERS[3], banned=True),
        records.BanKept(node=WORKERS[2], banned=True, issuer=WORKERS[0], signed=b"signed by an admin"),
        records.EpochBegun(epoch=3),
    ]


def kept(lease: LeaseId) -> ResultItem:
    return ResultItem(
        job=job_id("foreign"), task=5, attempt=1, lease=lease, outcome=OK, sandbox="strict", key=b"s" * 80, body=(BODY,)
    )


def told(store: Store, restored: Restored) -> Golden:
    """Return all that an open store gives back."""
    return Golden(
        restored=restored,
        jobs=store.job_rows(100),
        tasks={name: store.tasks(job) for name, job in JOBS.items()},
        attempts={name: store.attempts(job) for name, job in JOBS.items()},
    )


async def make(folder: Path) -> None:
    path = folder / f"v{FORMAT}.db"
    assert not path.exists(), "a golden file never changes"
    store, _ = Store.open(path, lambda: NOW)
    store.start()
    for name, tasks in (("running", 1_000_000), ("waiting", 3), ("cancelled", 5), ("finished", 2)):
        store.keep_extra(JOBS[name], extra(name, tasks))
    await store.commit(rows(), full=True)
    await store.close()
    store, restored = Store.open(path, lambda: NOW)
    text = msgspec.json.format(msgspec.json.encode(told(store, restored)), indent=1)
    (folder / f"v{FORMAT}.json").write_bytes(text + b"\n")
    await store.close()


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
