"""What people ask of committed rows."""

import asyncio
import threading

import msgspec

from p2pq.core.records import (
    BanKept,
    EpochBegun,
    JobAdded,
    JobEnded,
    LeaseEnded,
    LeaseGranted,
    OwnerBanKept,
    PeerBanKept,
    PeeringKept,
    TaskEnded,
    TasksCancelled,
)
from p2pq.daemon.store import AttemptRow, JobExtra, JobRow, TaskRow
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall, to_text
from p2pq.model.job import Outcome
from p2pq.wire.messages import PeeringKnown
from tests.unit.daemon.storekit import (
    ADDED,
    JOB,
    MASTER,
    NOW,
    WORKER,
    Opened,
    attempt_ended,
    granted,
    item,
)


async def test_an_ended_job_is_history_and_not_restored(opened: Opened) -> None:
    opened.store.keep_extra(JOB, JobExtra(name="pi", folder="/x", results="/x/results", argv=("a",), tasks=3))
    await opened.write(
        EpochBegun(epoch=1),
        ADDED,
        granted(task=1, lease=LeaseId(1, 1)),
        attempt_ended(item(1, lease=LeaseId(1, 1), outcome=Outcome(reason="exit", exit=2, run_ms=5)), "pending"),
        granted(task=1, attempt=2, lease=LeaseId(1, 2)),
        attempt_ended(item(1, attempt=2, lease=LeaseId(1, 2))),
        granted(task=2, lease=LeaseId(1, 3)),
        TasksCancelled(job=JOB, wall=Wall(4000)),
        LeaseEnded(lease=LeaseId(1, 3), job=JOB, task=2, attempt=1, fault="cancelled", counted=False),
        JobEnded(job=JOB, state="cancelled", wall=Wall(5000)),
    )
    restored = await opened.reopened()
    assert (restored.jobs, restored.leases, restored.settled) == ((), (), ((1, ((1, 3),)),))
    store = opened.store
    expected = JobRow(
        job=JOB,
        submitted=Wall(1000),
        extra=JobExtra(name="pi", folder="/x", results="/x/results", argv=("a",), tasks=3),
        state="cancelled",
        ended=Wall(5000),
        cancelled=True,
        attempts=3,
        done=1,
        cancelled_tasks=1,
    )
    assert store.job(JOB) == expected
    assert store.job_rows(10) == (expected,)
    assert store.job(JobId(b"x" * 16)) is None
    first = AttemptRow(
        task=1,
        attempt=1,
        lease=LeaseId(1, 1),
        worker=WORKER,
        granted=Wall(2000),
        ended=Wall(3000),
        outcome=Outcome(reason="exit", exit=2, run_ms=5),
    )
    second = AttemptRow(
        task=1,
        attempt=2,
        lease=LeaseId(1, 2),
        worker=WORKER,
        granted=Wall(2000),
        ended=Wall(3000),
        outcome=Outcome(reason="ok"),
    )
    third = AttemptRow(
        task=2,
        attempt=1,
        lease=LeaseId(1, 3),
        worker=WORKER,
        granted=Wall(2000),
        ended=NOW,
        fault="cancelled",
        counted=False,
    )
    assert store.attempts(JOB) == (first, second, third)
    assert store.attempts(JOB, 1, limit=1) == (first,)
    done = TaskRow(
        task=1,
        state="done",
        attempts=2,
        failures=1,
        faults=0,
        detail="",
        delivered=False,
        ended=Wall(3000),
        last=second,
    )
    cancelled = TaskRow(
        task=2,
        state="cancelled",
        attempts=1,
        failures=0,
        faults=0,
        detail="",
        delivered=True,
        ended=Wall(4000),
        last=third,
    )
    assert store.tasks(JOB) == (done, cancelled)
    assert store.tasks(JOB, start=2) == (cancelled,)
    assert store.tasks(JOB, limit=1) == (done,)
    assert store.result(JOB, 1) == item(1, attempt=2, lease=LeaseId(1, 2))
    first_result = store.result(JOB, 1, 1)
    assert first_result is not None
    assert first_result.attempt == 1
    assert store.result(JOB, 2) is None


async def test_a_live_job_is_counted_from_its_tasks(opened: Opened) -> None:
    await opened.write(
        ADDED,
        granted(task=1, lease=LeaseId(1, 1)),
        attempt_ended(item(1, lease=LeaseId(1, 1))),
        granted(task=2, lease=LeaseId(1, 2)),
        attempt_ended(item(2, lease=LeaseId(1, 2), outcome=Outcome(reason="signal", signal=9)), "failed"),
        granted(task=3, lease=LeaseId(1, 3)),
    )
    assert opened.store.job(JOB) == JobRow(job=JOB, submitted=Wall(1000), attempts=3, running=1, done=1, failed=1)
    ended = TaskEnded(job=JOB, task=8, state="cancelled", wall=Wall(1))
    await opened.write(ended)
    assert opened.store.tasks(JOB, start=4)[0].last is None


async def test_secrets_are_kept_for_results_and_never_shown(opened: Opened) -> None:
    await opened.write(ADDED)
    secret = opened.store.secret(JOB)
    assert secret is not None
    assert (secret.manifest, secret.key, secret.reply_secret) == (b"manifest", b"KEY", b"SECRET")
    assert "KEY" not in repr(secret)
    assert "SECRET" not in repr(secret)
    assert opened.store.secret(JobId(b"x" * 16)) is None


async def test_a_job_is_found_by_the_beginning_of_its_id(opened: Opened) -> None:
    jobs = [JobId(bytes([first]) + bytes(15)) for first in (0, 1, 255)]
    await opened.write(*(JobAdded(job=job, manifest=b"", key=b"", reply_secret=b"", wall=Wall(0)) for job in jobs))
    find = opened.store.find_jobs
    for job in jobs:
        text = to_text(job)
        assert find(text) == (job,)
        assert find(text[:10].upper()) == (job,)
        assert find(f"{text[:4]}-{text[4:9]} {text[9]}") == (job,)
    assert find("a") == (jobs[0], jobs[1])
    assert find("aaaa") == (jobs[0],)
    assert find("") == ()
    assert find("0189") == ()
    assert find("bbbb") == ()
    assert find(to_text(jobs[0]) + "a") == ()
    assert find(to_text(jobs[0])[:-1] + "b") == ()  # bits beyond the id
    assert find("ä") == ()


async def test_signed_bans_are_for_telling(opened: Opened) -> None:
    await opened.write(BanKept(node=MASTER, banned=True), BanKept(node=WORKER, banned=True, signed=b"ban"))
    await opened.write(OwnerBanKept(owner="a", banned=True), OwnerBanKept(owner="e", banned=True, signed=b"eve"))
    assert opened.store.signed_bans() == (b"ban", b"eve")


async def test_what_is_known_of_other_meshes_is_kept(opened: Opened) -> None:
    one, over = PeeringKept(id=b"1", offer=b"o", accept=b"a"), PeeringKept(id=b"1", offer=b"o", accept=b"a", end=b"e")
    bans = [PeerBanKept(mesh=b"m", issuer=b"i", subject=b"oeve", signed=word) for word in (b"old", b"new")]
    await opened.write(one, PeeringKept(id=b"0", offer=b"p", accept=b"b"), over, *bans)
    assert opened.store.peerings() == (PeeringKnown(b"p", b"b"), PeeringKnown(b"o", b"a", b"e"))
    assert opened.store.peer_bans() == (b"new",)


async def test_a_thread_sees_what_is_committed_though_another_is_in_the_middle_of_a_query(opened: Opened) -> None:
    """A statement that is not finished keeps its connection at the moment at which it began."""
    await opened.write(EpochBegun(epoch=1), ADDED, granted(task=0), granted(task=1, lease=LeaseId(1, 8)))
    begun, go_on = threading.Event(), threading.Event()

    def slowly(_cursor: object, row: tuple[object, ...]) -> tuple[object, ...]:
        begun.set()
        assert go_on.wait(20)
        return row

    opened.store._reader.row_factory = slowly
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(asyncio.to_thread(opened.store.tasks, JOB))
        assert await asyncio.to_thread(begun.wait, 20)
        opened.store._reader.row_factory = None
        await opened.write(attempt_ended(item(0)))
        asking = group.create_task(asyncio.to_thread(opened.store.result, JOB, 0))
        await asyncio.wait([asking], timeout=0.2)  # without a lock it has its answer by now
        go_on.set()
    assert asking.result() == item(0)
    assert [task.state for task in reading.result()] == ["running", "running"]


async def test_who_ran_what_was_granted_to_a_cluster_is_known_once_it_has_ended(opened: Opened) -> None:
    cluster, leaf, bridge = NodeId(b"c" * 32), NodeId(b"l" * 32), NodeId(b"b" * 32)

    def to_cluster(task: int) -> LeaseGranted:
        row = granted(task=task, lease=LeaseId(1, task))
        return msgspec.structs.replace(row, worker=cluster, via=(bridge,))

    done = msgspec.structs.replace(attempt_ended(item(0, lease=LeaseId(1, 0))), worker=leaf, via=(bridge, WORKER))
    lost = LeaseEnded(lease=LeaseId(1, 1), job=JOB, task=1, attempt=1, fault="disk", leaf=leaf, via=(bridge, WORKER))
    late = LeaseEnded(lease=LeaseId(1, 2), job=JOB, task=2, attempt=1, fault="late")
    await opened.write(EpochBegun(epoch=1), ADDED, *map(to_cluster, range(4)), done, lost, late)
    shown = [attempt for task in range(4) for attempt in opened.store.attempts(JOB, task)]
    assert [(attempt.worker, attempt.via) for attempt in shown] == [
        (leaf, (bridge, WORKER)),
        (leaf, (bridge, WORKER)),
        (cluster, (bridge,)),
        (cluster, (bridge,)),
    ]
    assert [(lease.task, lease.worker) for lease in (await opened.reopened()).leases] == [(3, cluster)]
