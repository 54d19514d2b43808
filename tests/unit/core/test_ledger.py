import msgspec

from p2pq.core import records as r
from p2pq.core.ledger import PEERS_MAX, Ledger
from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Outcome
from tests.unit.core.mesh import BAD, OK, GrantItem, job_id, result_item

JOB = job_id()
W = NodeId(b"w" * 32)
AT = Wall(5)
DIED = Outcome(reason="runner-died")


def added(job: JobId = JOB) -> r.JobAdded:
    return r.JobAdded(job=job, manifest=b"m", key=b"k", reply_secret=b"r", wall=AT)


def granted(counter: int, task: int = 0, attempt: int = 1) -> r.LeaseGranted:
    return r.LeaseGranted(lease=LeaseId(1, counter), job=JOB, task=task, attempt=attempt, worker=W, wall=AT)


def lost(counter: int, *, task: int = 0, counted: bool = True) -> r.LeaseEnded:
    return r.LeaseEnded(lease=LeaseId(1, counter), job=JOB, task=task, attempt=1, fault="disk", counted=counted)


def ended(counter: int, state: str, outcome: Outcome = OK, *, task: int = 0, counted: bool = True) -> r.AttemptEnded:
    item = result_item(GrantItem(task, 1, LeaseId(1, counter)), outcome)
    return r.AttemptEnded(
        lease=item.lease, job=JOB, task=task, worker=W, result=item, state=state, wall=AT, counted=counted
    )


def total(*rows: r.Row) -> r.Restored:
    ledger = Ledger()
    for row in rows:
        ledger.apply(row)
    return ledger.restored()


def job(*tasks: r.RestoredTask, cancelled: bool = False) -> r.RestoredJob:
    return r.RestoredJob(job=JOB, manifest=b"m", key=b"k", reply_secret=b"r", wall=AT, tasks=tasks, cancelled=cancelled)


def test_nothing_is_nothing() -> None:
    assert total() == r.Restored()


def test_a_live_lease() -> None:
    live = r.RestoredLease(lease=LeaseId(1, 0), job=JOB, task=4, attempt=2, worker=W)
    assert total(r.EpochBegun(epoch=1), added(), granted(0, 4, 2)) == r.Restored(
        epoch=1, jobs=(job(r.RestoredTask(task=4, state="running", attempts=2)),), leases=(live,)
    )


def test_a_live_lease_is_somebody_elses_from_when_it_moved() -> None:
    moved = r.LeaseMoved(lease=LeaseId(1, 0), worker=NodeId(b"o" * 32))
    [live] = total(added(), granted(0), moved).leases
    assert live.worker == moved.worker
    assert total(added(), granted(0), lost(0), moved).leases == ()


def kept_grant(counter: int) -> r.GrantKept:
    return r.GrantKept(job=JOB, lease=LeaseId(1, counter), signed=b"grant %d" % counter)


def test_how_live_leases_were_granted_is_given_back_and_nothing_else() -> None:
    rows = (added(), *map(granted, range(4)), *map(kept_grant, (0, 1, 3)))
    assert total(*rows).grants == (kept_grant(0), kept_grant(1), kept_grant(3))
    assert total(*rows, lost(0), lost(1)).grants == (kept_grant(1), kept_grant(3)), (
        "the second one is of the third lease, too"
    )
    assert total(*rows, *map(lost, range(4))).grants == ()
    assert total(added(), granted(0), kept_grant(1)).grants == (), "it begins later"
    assert total(kept_grant(0)).grants == ()


def test_leases_that_end_without_a_result_count_or_not() -> None:
    rows = (added(), granted(0), lost(0), granted(1, attempt=2), lost(1, counted=False))
    assert total(*rows) == r.Restored(jobs=(job(r.RestoredTask(task=0, state="pending", attempts=2, faults=1)),))


def test_results_settle_their_lease_and_maybe_their_task() -> None:
    rows = (
        added(),
        granted(0),
        ended(0, "pending", DIED, counted=False),
        granted(1, attempt=2),
        ended(1, "pending", BAD),
        granted(3, attempt=3),
        ended(3, "done"),
        granted(2, 1),
        ended(2, "failed", BAD, task=1),
        r.TaskDelivered(job=JOB, task=1),
    )
    assert total(*rows) == r.Restored(
        jobs=(
            job(
                r.RestoredTask(task=0, state="done", attempts=3, failures=1, died=True),
                r.RestoredTask(task=1, state="failed", attempts=1, failures=1, delivered=True),
            ),
        ),
        settled=((1, ((0, 4),)),),
    )


def test_of_two_attempts_at_once_one_may_end_while_the_task_runs_on() -> None:
    rows = (added(), granted(0), granted(1, attempt=2), lost(0))
    [running] = total(*rows).jobs[0].tasks
    assert (running.state, running.attempts) == ("running", 2)
    rows += (ended(1, "pending", BAD), r.FailureForgiven(job=JOB, task=0, attempt=2))
    [waits] = total(*rows).jobs[0].tasks
    assert (waits.state, waits.failures) == ("pending", 0)


def test_a_task_that_ends_without_a_result_has_nothing_to_deliver() -> None:
    row = r.TaskEnded(job=JOB, task=2, state="failed", detail="given up", wall=AT)
    assert total(added(), row) == r.Restored(
        jobs=(job(r.RestoredTask(task=2, state="failed", detail="given up", delivered=True)),)
    )


def test_cancelling_a_job_leaves_what_was_over() -> None:
    rows = (added(), granted(0), ended(0, "done"), granted(1, 1), lost(1, task=1, counted=False))
    assert total(*rows, r.TasksCancelled(job=JOB, wall=AT)) == r.Restored(
        jobs=(
            job(
                r.RestoredTask(task=0, state="done", attempts=1),
                r.RestoredTask(task=1, state="cancelled", attempts=1, delivered=True),
                cancelled=True,
            ),
        ),
        settled=((1, ((0, 1),)),),
    )


def test_a_lease_that_ends_after_its_task_was_cancelled_does_not_revive_it() -> None:
    rows = (added(), granted(0), r.TasksCancelled(job=JOB, wall=AT), lost(0, counted=False))
    over = r.RestoredTask(task=0, state="cancelled", attempts=1, delivered=True)
    assert total(*rows) == r.Restored(jobs=(job(over, cancelled=True),))


def test_an_ended_job_is_gone_and_later_rows_of_it_do_nothing() -> None:
    other = job_id(2)
    rows = (
        added(other),
        added(),
        r.JobEnded(job=JOB, state="done", wall=AT),
        granted(0),
        lost(1),
        ended(2, "done"),
        r.TaskEnded(job=JOB, task=0, state="failed", wall=AT),
        r.FailureForgiven(job=JOB, task=0, attempt=1),
        r.TasksCancelled(job=JOB, wall=AT),
        r.TaskDelivered(job=JOB, task=0),
        r.JobEnded(job=JOB, state="done", wall=AT),
    )
    kept = r.RestoredJob(job=other, manifest=b"m", key=b"k", reply_secret=b"r", wall=AT)
    assert total(*rows) == r.Restored(jobs=(kept,), settled=((1, ((2, 3),)),))


def test_what_a_worker_and_a_member_remember() -> None:
    def kept(counter: int) -> r.ResultKept:
        return r.ResultKept(
            lease=LeaseId(1, counter), master=W, item=result_item(GrantItem(0, 1, LeaseId(1, counter))), wall=Wall(1)
        )

    def seen(name: str) -> r.PeerSeen:
        return r.PeerSeen(node=NodeId(name.encode()), name=name, addresses=())

    ban = r.BanKept(node=NodeId(b"z"), banned=True)
    unban = r.BanKept(node=NodeId(b"a"), banned=False)
    signed = r.BanKept(node=NodeId(b"a"), banned=True, issuer=b"i", signed=b"s")
    rows = (
        kept(2),
        kept(1),
        r.ResultReleased(lease=LeaseId(1, 9), master=W),
        kept(3),
        r.ResultReleased(lease=LeaseId(1, 3), master=W),
        seen("p"),
        seen("q"),
        seen("p"),
        ban,
        r.BanKept(node=NodeId(b"a"), banned=True),
        unban,
        signed,
        r.OwnerBanKept(owner="z", banned=True),
        r.OwnerBanKept(owner="a", banned=True),
        r.OwnerBanKept(owner="a", banned=False),
        r.MeshKeysKept(signed=(b"old",)),
        r.MeshKeysKept(signed=(b"new", b"old")),
        r.PeeringKept(id=b"2", offer=b"o", accept=b"a"),
        r.PeeringKept(id=b"1", offer=b"o", accept=b"a"),
        r.PeeringKept(id=b"2", offer=b"o", accept=b"a", end=b"e"),
        r.PeerBanKept(mesh=b"m", issuer=b"i", subject=b"o", signed=b"old"),
        r.PeerBanKept(mesh=b"m", issuer=b"i", subject=b"o", signed=b"new"),
    )
    assert total(*rows) == r.Restored(
        kept=(kept(1), kept(2)),
        peers=(seen("q"), seen("p")),
        bans=(unban, signed, ban),
        owner_bans=(r.OwnerBanKept(owner="a", banned=False), r.OwnerBanKept(owner="z", banned=True)),
        mesh_keys=(b"new", b"old"),
        peerings=(
            r.PeeringKept(id=b"1", offer=b"o", accept=b"a"),
            r.PeeringKept(id=b"2", offer=b"o", accept=b"a", end=b"e"),
        ),
        peer_bans=(r.PeerBanKept(mesh=b"m", issuer=b"i", subject=b"o", signed=b"new"),),
    )
    many = total(*(seen(f"{number:05}") for number in range(PEERS_MAX + 2)))
    assert [peer.name for peer in many.peers] == [f"{number:05}" for number in range(2, PEERS_MAX + 2)]


def test_kept_tasks_and_the_condition_stay_with_the_job() -> None:
    halt = Halt(now=True, what="fail", count=2)
    row = msgspec.structs.replace(added(), kept=((1, 3),), halt=halt)
    assert total(row, r.JobHalted(job=JOB, detail="halted")) == r.Restored(
        jobs=(msgspec.structs.replace(job(), kept=((1, 3),), halt=halt, halted="halted"),)
    )


def test_a_soft_cancellation_leaves_what_runs() -> None:
    live = r.RestoredLease(lease=LeaseId(1, 0), job=JOB, task=0, attempt=1, worker=W)
    soft = r.TasksCancelled(job=JOB, wall=AT, running=False)
    assert total(added(), granted(0), granted(1, task=1), lost(1, task=1), soft) == r.Restored(
        jobs=(
            job(
                r.RestoredTask(task=0, state="running", attempts=1),
                r.RestoredTask(task=1, state="cancelled", attempts=1, faults=1, delivered=True),
                cancelled=True,
            ),
        ),
        leases=(live,),
    )


def test_an_ended_job_comes_back_with_its_history_and_takes_its_old_place() -> None:
    other = job_id(2)
    old = r.RestoredTask(
        task=1, state="failed", attempts=3, failures=2, faults=1, detail="x", delivered=True, died=True
    )
    back = job(old, cancelled=True)
    again = r.TasksRetried(job=JOB, tasks=((1, 3),), wall=AT)
    rows = (added(), added(other), r.JobEnded(job=JOB, state="failed", wall=AT), r.JobReopened(job=back))
    second = msgspec.structs.replace(job(), job=other)
    assert total(*rows) == r.Restored(jobs=(back, second))
    waits = (r.RestoredTask(task=1, state="pending", attempts=3), r.RestoredTask(task=2, state="pending"))
    assert total(*rows, again) == r.Restored(jobs=(job(*waits, cancelled=True), second))
    assert total(*rows, msgspec.structs.replace(again, rest=True)) == r.Restored(jobs=(job(*waits), second))
    assert total(r.JobHalted(job=JOB, detail="x"), again) == r.Restored()


def test_the_latest_checkpoint_is_what_a_task_goes_on_with() -> None:
    def left(counter: int, attempt: int, state: str = "pending") -> r.AttemptEnded:
        plain = ended(counter, state, BAD)
        return msgspec.structs.replace(
            plain, result=msgspec.structs.replace(plain.result, attempt=attempt, checkpoint=True)
        )

    rows = [added(), granted(0), left(0, 1), granted(2, attempt=3), left(2, 3), granted(1, attempt=2), left(1, 2)]
    rows += [granted(3, attempt=4), ended(3, "pending", BAD)]
    [task] = total(*rows).jobs[0].tasks
    assert (task.state, task.failures, task.checkpoint) == ("pending", 4, left(2, 3).result)
    [task] = total(*rows, granted(4, attempt=5), left(4, 5, "failed")).jobs[0].tasks
    assert (task.state, task.checkpoint) == ("failed", None)
