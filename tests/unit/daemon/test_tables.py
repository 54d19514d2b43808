"""What rows do to the database, and what comes back of them."""

import msgspec
import pytest

from p2pq.core.records import (
    BanKept,
    EpochBegun,
    JobAdded,
    JobEnded,
    LeaseEnded,
    MeshKeysKept,
    OwnerBanKept,
    PeerSeen,
    Proof,
    Restored,
    RestoredJob,
    RestoredLease,
    RestoredTask,
    ResultKept,
    ResultReleased,
    TaskDelivered,
    TaskEnded,
)
from p2pq.daemon import tables
from p2pq.daemon.store import JobExtra
from p2pq.model.config import StoreSettings
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Outcome
from tests.unit.daemon.storekit import (
    ADDED,
    DAY_MS,
    JOB,
    LEASE,
    MASTER,
    NOW,
    OUTDATED,
    WORKER,
    Opened,
    attempt_ended,
    granted,
    item,
    raw,
)


async def test_everything_comes_back_after_a_restart(opened: Opened) -> None:
    await opened.write(
        EpochBegun(epoch=1),
        ADDED,
        granted(task=3, lease=LeaseId(1, 1)),
        granted(task=4, lease=LeaseId(1, 2)),
        attempt_ended(item(task=4, lease=LeaseId(1, 2))),
        granted(task=5, lease=LeaseId(1, 3)),
        LeaseEnded(lease=LeaseId(1, 3), job=JOB, task=5, attempt=1, fault="lost"),
        granted(task=6, lease=LeaseId(1, 4)),
        attempt_ended(item(task=6, lease=LeaseId(1, 4), outcome=Outcome(reason="exit", exit=3)), "pending"),
        TaskEnded(job=JOB, task=9, state="failed", detail="too many faults", wall=Wall(1)),
        TaskDelivered(job=JOB, task=4),
        ResultKept(lease=LEASE, master=MASTER, item=item(), wall=NOW, owner="eve"),
        ResultKept(lease=LeaseId(1, 9), master=MASTER, item=item(), wall=NOW, subs=(b"above", b"sub")),
        ResultKept(lease=LeaseId(1, 8), master=MASTER, item=item(), wall=NOW, owner="eve"),
        ResultReleased(lease=LeaseId(1, 8), master=MASTER),
        PeerSeen(node=WORKER, name="w", addresses=("10.0.0.1:9476",)),
        PeerSeen(node=MASTER, name="m", addresses=()),
        PeerSeen(node=WORKER, name="w2", addresses=("10.0.0.2:9476",)),
        BanKept(node=WORKER, banned=True, signed=b"ban"),
        OwnerBanKept(owner="z", banned=True, issuer=b"i", signed=b"word"),
        OwnerBanKept(owner="eve", banned=True),
        OwnerBanKept(owner="eve", banned=False),
        MeshKeysKept(signed=(b"a", b"b", b"c")),
        MeshKeysKept(signed=(b"d", b"a")),
    )
    assert await opened.reopened() == Restored(
        epoch=OUTDATED,
        jobs=(
            RestoredJob(
                job=JOB,
                manifest=b"manifest",
                key=b"KEY",
                reply_secret=b"SECRET",
                wall=Wall(1000),
                tasks=(
                    RestoredTask(task=3, state="running", attempts=1),
                    RestoredTask(task=4, state="done", attempts=1, delivered=True),
                    RestoredTask(task=5, state="pending", attempts=1, faults=1),
                    RestoredTask(task=6, state="pending", attempts=1, failures=1),
                    RestoredTask(task=9, state="failed", detail="too many faults", delivered=True),
                ),
            ),
        ),
        leases=(RestoredLease(lease=LeaseId(1, 1), job=JOB, task=3, attempt=1, worker=WORKER),),
        settled=((1, ((2, 3), (4, 5))),),
        kept=(
            ResultKept(lease=LEASE, master=MASTER, item=item(), wall=NOW, owner="eve"),
            ResultKept(lease=LeaseId(1, 9), master=MASTER, item=item(), wall=NOW, subs=(b"above", b"sub")),
        ),
        peers=(
            PeerSeen(node=MASTER, name="m", addresses=()),
            PeerSeen(node=WORKER, name="w2", addresses=("10.0.0.2:9476",)),
        ),
        bans=(BanKept(node=WORKER, banned=True, signed=b"ban"),),
        owner_bans=(
            OwnerBanKept(owner="eve", banned=False),
            OwnerBanKept(owner="z", banned=True, issuer=b"i", signed=b"word"),
        ),
        mesh_keys=(b"d", b"a"),
    )


async def test_a_task_goes_on_with_the_checkpoint_of_the_latest_attempt_that_left_one(opened: Opened) -> None:
    bad = Outcome(reason="exit", exit=3)
    results = [item(attempt=n, lease=LeaseId(1, n), outcome=bad) for n in (1, 2, 3)]
    results[:2] = [msgspec.structs.replace(result, checkpoint=True) for result in results[:2]]
    over = msgspec.structs.replace(item(task=1, lease=LeaseId(1, 9), outcome=bad), checkpoint=True)
    await opened.write(
        ADDED,
        *(
            row
            for result in results
            for row in (granted(attempt=result.attempt, lease=result.lease), attempt_ended(result, "pending"))
        ),
        granted(task=1, lease=over.lease),
        attempt_ended(over, "failed"),
    )
    [job] = (await opened.reopened()).jobs
    assert [task.checkpoint for task in job.tasks] == [results[1], None]


async def test_rows_of_a_job_that_ended_change_nothing(opened: Opened) -> None:
    await opened.write(ADDED, JobEnded(job=JOB, state="done", wall=Wall(5000)))
    before = opened.store.job(JOB)
    late = granted(lease=LeaseId(1, 9))
    await opened.write(
        late,
        LeaseEnded(lease=late.lease, job=JOB, task=0, attempt=1, fault="lost"),
        TaskEnded(job=JOB, task=0, state="failed", wall=Wall(1)),
        TaskDelivered(job=JOB, task=0),
        JobEnded(job=JOB, state="failed", wall=Wall(9000)),
    )
    assert opened.store.job(JOB) == before
    assert opened.store.tasks(JOB) == ()
    assert await opened.reopened() == Restored(epoch=OUTDATED)


async def test_only_the_latest_jobs_and_those_of_the_last_days_stay(opened: Opened) -> None:
    def job(number: int) -> JobId:
        return JobId(bytes([number]) * 16)

    old, dropped, kept, live = (job(n) for n in range(4))
    for which, ended in ((old, NOW - 40 * DAY_MS), (dropped, NOW - 3), (kept, NOW - 2), (live, None)):
        opened.store.keep_extra(which, JobExtra(name="x"))
        await opened.write(
            JobAdded(job=which, manifest=b"", key=b"", reply_secret=b"", wall=Wall(0)),
            granted(job=which, lease=LeaseId(1, which[0])),
            LeaseEnded(lease=LeaseId(1, which[0]), job=which, task=0, attempt=1, fault="lost"),
            *(() if ended is None else (JobEnded(job=which, state="done", wall=Wall(ended)),)),
        )
    await opened.store.prune(StoreSettings(keep_jobs=1, keep_days=30))
    assert [row.job for row in opened.store.job_rows(10)] == [live, kept]
    for table in ("tasks", "attempts", "extras"):
        assert raw(opened.path, f"SELECT count(*) FROM {table}") == [(2,)]


async def test_peers_beyond_the_limit_go_at_start(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [NodeId(bytes([number]) * 32) for number in range(5)]
    await opened.write(*(PeerSeen(node=node, name="n", addresses=()) for node in nodes))
    monkeypatch.setattr(tables, "PEERS_MAX", 3)
    restored = await opened.reopened()
    assert [peer.node for peer in restored.peers] == nodes[2:]


async def test_an_extra_whose_job_never_came_goes_at_start(opened: Opened) -> None:
    opened.store.keep_extra(JOB, JobExtra(name="x"))
    await opened.reopened()
    assert raw(opened.path, "SELECT count(*) FROM extras") == [(0,)]


async def test_after_a_repair_an_attempt_may_begin_again(opened: Opened) -> None:
    await opened.write(
        ADDED, granted(lease=LeaseId(1, 5)), LeaseEnded(lease=LeaseId(1, 5), job=JOB, task=0, attempt=1, fault="lost")
    )
    raw(opened.path, "INSERT INTO meta VALUES ('rebuilt', 7)")
    await opened.write(granted(lease=LeaseId(1, 4)))
    restored = await opened.reopened()
    assert (restored.rebuilt, restored.leases[0].lease) == (7, LeaseId(1, 4))
    assert [(row.lease, row.fault) for row in opened.store.attempts(JOB)] == [(LeaseId(1, 4), None)]


async def test_what_was_proved_in_a_transaction_that_was_undone_is_proved_again(opened: Opened) -> None:
    proof = Proof(signed=b"both", certs=(b"member",))
    ends = [msgspec.structs.replace(attempt_ended(item(task, 1, LeaseId(1, task))), proof=proof) for task in range(2)]
    other = msgspec.structs.replace(ADDED, job=JobId(b"k" * 16))
    elsewhere = msgspec.structs.replace(ends[0], job=other.job, lease=LeaseId(1, 2))
    await opened.write(ADDED, other, *(granted(task, lease=LeaseId(1, task)) for task in range(2)))
    await opened.write(granted(0, lease=LeaseId(1, 2), job=other.job))
    applied, db = opened.store._tables, opened.store._writer
    db.execute("BEGIN IMMEDIATE")
    applied.apply(ends[0], NOW)
    db.execute("ROLLBACK")
    applied.reload()
    await opened.write(*ends, elsewhere)
    assert raw(opened.path, "SELECT n, signed FROM proofs") == [(1, b"both"), (2, b"both")]
    assert raw(opened.path, "SELECT n, task, proof IS NOT NULL, chain FROM attempts") == [
        (1, 0, 1, 1),
        (1, 1, 1, 1),
        (2, 0, 1, 1),
    ]
    found = raw(
        opened.path,
        "SELECT count(DISTINCT proof), count(*) FROM attempts JOIN proofs ON p = proof AND proofs.n = attempts.n",
    )
    assert found == [(2, 3)]
