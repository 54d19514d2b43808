"""What becomes of attempts and tasks, with everything that comes out."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.book import AVOID_S, RETURNS_FREE
from p2pq.model import notice as n
from p2pq.model.halt import parse_halt
from p2pq.model.ids import LeaseId, Wall
from p2pq.model.job import FAULTS_MAX, Outcome, Resources
from p2pq.wire import messages as msg
from tests.unit.core.mesh import (
    ALICE,
    BAD,
    BOB,
    LEFT,
    OK,
    OWNER,
    PROFILE,
    WALL,
    Bench,
    GrantItem,
    Member,
    job_id,
    proof,
    ready,
    receipt,
    result_item,
    submitted,
)

JOB = job_id()
DIED = Outcome(reason="runner-died")
WORK = (OWNER,)


def lease(counter: int) -> LeaseId:
    return LeaseId(1, counter)


def has_work(member: Member, counter: int, owners: tuple[str, ...] = WORK) -> fx.Send:
    return fx.Send(peer=member.node, message=msg.HasWork(counter=counter, owners=owners))


def attempt_ended(item: GrantItem, state: str, outcome: Outcome, *, at: float = 0.0, counted: bool = True) -> fx.Record:
    row = r.AttemptEnded(
        lease=item.lease,
        job=JOB,
        task=item.task,
        worker=ALICE.node,
        result=result_item(item, outcome),
        state=state,
        wall=Wall(WALL + round(at * 1000)),
        counted=counted,
        proof=proof(ALICE, result_item(item, outcome)),
    )
    return fx.Record(row=row)


def settled(item: GrantItem, state: str, outcome: Outcome) -> list[fx.Effect]:
    told = n.TaskSettled(
        job=JOB, task=item.task, attempt=item.attempt, state=state, worker=ALICE.node, outcome=outcome, left=True
    )
    return [fx.Emit(notice=told), fx.Deliver(job=JOB, task=item.task)]


def lost(item: GrantItem, fault: str, detail: str = "", *, counted: bool = True) -> list[fx.Effect]:
    row = r.LeaseEnded(
        lease=item.lease, job=JOB, task=item.task, attempt=item.attempt, fault=fault, detail=detail, counted=counted
    )
    told = n.AttemptLost(job=JOB, task=item.task, attempt=item.attempt, worker=ALICE.node, fault=fault, detail=detail)
    return [fx.Record(row=row), fx.Emit(notice=told)]


def revoked(item: GrantItem) -> fx.Record:
    row = r.LeaseEnded(
        lease=item.lease, job=JOB, task=item.task, attempt=item.attempt, fault="cancelled", counted=False
    )
    return fx.Record(row=row)


def cancel(*items: GrantItem) -> fx.Send:
    return fx.Send(peer=ALICE.node, message=msg.Cancel(leases=tuple(item.lease for item in items)))


def job_ended(state: str) -> list[fx.Effect]:
    told = n.JobFinished(job=JOB, state=state)
    return [fx.Record(row=r.JobEnded(job=JOB, state=state, wall=WALL)), fx.Emit(notice=told)]


def give_back(bench: Bench, item: GrantItem, fault: str, detail: str = "") -> list[fx.Effect]:
    return bench.says(ALICE, msg.Return(items=(msg.ReturnItem(item.lease, fault, detail),)))


def with_alice(**job: object) -> Bench:
    bench = Bench()
    bench.tick()
    bench.join(ALICE)
    bench.do(submitted(**job))
    return bench


def test_a_good_result_settles_the_task_and_its_delivery_ends_the_job() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    assert bench.finish(ALICE, item, OK) == [
        attempt_ended(item, "done", OK),
        *settled(item, "done", OK),
        receipt(ALICE, "settled", item.lease),
    ]
    assert bench.queue.job(JOB).undelivered == 1
    assert bench.do(ev.Delivered(job=JOB, task=0, wall=WALL)) == [
        fx.Record(row=r.TaskDelivered(job=JOB, task=0)),
        fx.Emit(notice=n.TaskResultsWritten(job=JOB, task=0)),
        *job_ended("done"),
    ]
    assert bench.do(ev.Delivered(job=JOB, task=0, wall=WALL)) == []
    assert bench.queue.jobs() == []


def test_what_a_result_says_for_people_is_written_down_with_it() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    bench.says(ALICE, ready(ALICE, result_item(item)))
    told = bench.do(ev.Collected(lease=item.lease, detail="how it ended", skipped=("pipe: is a pipe",)))
    [row] = [effect.row for effect in told if isinstance(effect, fx.Record)]
    assert (row.detail, row.skipped) == ("how it ended", ("pipe: is a pipe",))


def test_a_worker_that_is_gone_gets_its_receipt_later() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    collect = fx.Collect(lease=item.lease, peer=ALICE.node, blobs=LEFT)
    assert bench.says(ALICE, ready(ALICE, result_item(item))) == [collect]
    bench.do(ev.LinkDown(peer=ALICE.node))
    assert bench.do(ev.Collected(lease=item.lease)) == [
        attempt_ended(item, "done", OK),
        *settled(item, "done", OK),
    ]


def test_a_failure_is_retried_after_a_pause_and_the_last_one_is_final() -> None:
    bench = with_alice(retries=1)
    (item,) = bench.leases(ALICE)
    failed = n.AttemptFailed(job=JOB, task=0, attempt=1, worker=ALICE.node, outcome=BAD)
    assert bench.finish(ALICE, item, BAD) == [
        attempt_ended(item, "pending", BAD),
        fx.Emit(notice=failed),
        receipt(ALICE, "settled", item.lease),
    ]
    assert bench.leases(ALICE) == []
    assert bench.queue.why(JOB, 0, bench.now).startswith("waiting 1 s before the next attempt: exit code 3;")
    assert bench.queue.why(JOB, None, bench.now).startswith("waiting 1 s before the next attempt, as the last came to")
    assert bench.queue.deadline == 1.0
    assert bench.tick(1.0) == [has_work(ALICE, 3)]
    (item,) = bench.leases(ALICE)
    assert item == GrantItem(0, 2, lease(1))
    assert bench.finish(ALICE, item, BAD) == [
        attempt_ended(item, "failed", BAD, at=1.0),
        *settled(item, "failed", BAD),
        receipt(ALICE, "settled", item.lease),
    ]
    assert bench.do(ev.Delivered(job=JOB, task=0, wall=WALL))[-1] == fx.Emit(
        notice=n.JobFinished(job=JOB, state="failed")
    )


def test_the_first_death_of_a_runner_does_not_count() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    assert bench.finish(ALICE, item, DIED)[0] == attempt_ended(item, "pending", DIED, counted=False)
    bench.boot()
    bench.join(ALICE)
    (item,) = bench.leases(ALICE)
    assert bench.finish(ALICE, item, DIED)[0] == attempt_ended(item, "failed", DIED)


def test_a_retry_goes_to_another_worker_as_long_as_one_could_take_it() -> None:
    bench = with_alice(retries=3, tasks=2)
    bench.join(BOB)
    first, second = bench.leases(ALICE)
    bench.finish(ALICE, first, BAD)
    bench.finish(ALICE, second, BAD)
    bench.tick(1.0)
    assert bench.leases(ALICE) == []
    assert bench.queue.tasks(JOB)[0].not_before is None
    (item,) = bench.leases(BOB, tasks_max=1)
    assert item.task == 0
    assert bench.leases(ALICE) == []
    told = bench.tick(AVOID_S)  # Bob took his time; the lease of his task is over too
    assert told[-1] == has_work(ALICE, 6)
    assert [(item.task, item.attempt) for item in bench.leases(ALICE)] == [(0, 3), (1, 2)]


def test_a_retry_waits_for_no_worker_that_leaves_or_could_not_run_it() -> None:
    bench = with_alice(retries=3, resources=Resources(cpus=4))
    bench.join(BOB)
    (item,) = bench.leases(ALICE)
    bench.finish(ALICE, item, BAD)
    bench.says(BOB, msg.Leaving())
    bench.tick(1.0)
    assert len(bench.leases(ALICE)) == 1


@pytest.mark.parametrize("fault", ["late", "draining", "no-manifest", "evicted"])
def test_what_comes_back_unstarted_is_granted_again_at_once(fault: str) -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    assert give_back(bench, item, fault) == [*lost(item, fault, counted=False), has_work(ALICE, 3)]
    assert [item.attempt for item in bench.leases(ALICE)] == [2]


def test_but_not_for_ever() -> None:
    bench = with_alice()
    for _ in range(RETURNS_FREE):
        (item,) = bench.leases(ALICE)
        give_back(bench, item, "late")
    (item,) = bench.leases(ALICE)
    assert give_back(bench, item, "late") == lost(item, "late", counted=False)
    assert bench.leases(ALICE) == []
    assert bench.queue.deadline == 1.0


def test_faults_pause_longer_each_time_and_the_eleventh_ends_the_task() -> None:
    bench = with_alice()
    pauses = []
    for _ in range(FAULTS_MAX):
        (item,) = bench.leases(ALICE)
        assert give_back(bench, item, "disk", "full") == lost(item, "disk", "full")
        [task] = bench.queue.tasks(JOB)
        pauses.append(task.not_before - bench.now)
        while bench.queue.tasks(JOB)[0].not_before is not None:
            bench.tick(bench.queue.deadline - bench.now)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]
    (item,) = bench.leases(ALICE)
    detail = "given up after 11 attempts that ended by their workers' doing; the last: disk: full"
    wall = Wall(WALL + round(bench.now * 1000))
    told = n.TaskSettled(job=JOB, task=0, attempt=11, state="failed", worker=ALICE.node, detail=detail)
    assert give_back(bench, item, "disk", "full") == [
        *lost(item, "disk", "full"),
        fx.Record(row=r.TaskEnded(job=JOB, task=0, state="failed", detail=detail, wall=wall)),
        fx.Emit(notice=told),
        fx.Record(row=r.JobEnded(job=JOB, state="failed", wall=wall)),
        fx.Emit(notice=n.JobFinished(job=JOB, state="failed")),
    ]


def test_an_expired_lease_is_taken_away_and_granted_again() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    bench.says(ALICE, msg.Heartbeat(beats=(msg.Beat(item.lease),)), after=10.0)
    assert bench.tick(59.9) == []
    assert bench.tick(0.1) == [
        fx.Emit(notice=n.LeaseExpired(lease=item.lease, worker=ALICE.node, held_s=70.0)),
        *lost(item, "expired"),
        cancel(item),
        has_work(ALICE, 3),
    ]


def test_an_expired_lease_of_a_worker_that_is_gone_tells_nobody() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    bench.do(ev.LinkDown(peer=ALICE.node))
    assert bench.tick(60.0) == [
        fx.Emit(notice=n.LeaseExpired(lease=item.lease, worker=ALICE.node, held_s=60.0)),
        *lost(item, "expired"),
    ]


def test_results_that_cannot_be_written_are_tried_again_less_and_less_often() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    bench.finish(ALICE, item, OK)
    failed = ev.DeliverFailed(job=JOB, task=0, reason="the disk is full")
    pauses = []
    for _ in range(6):
        assert bench.do(failed) == [
            fx.Emit(notice=n.TaskResultsStuck(job=JOB, task=0, reason="the disk is full")),
        ]
        pauses.append(bench.queue.deadline - bench.now)
        assert bench.tick(pauses[-1]) == [fx.Deliver(job=JOB, task=0)]
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    bench.do(ev.Delivered(job=JOB, task=0, wall=WALL))
    assert bench.do(failed) == []
    assert bench.queue.deadline is None


def retried(task: int, at: float = 0.0) -> fx.Record:
    return fx.Record(row=r.TasksRetried(job=JOB, tasks=((task, task + 1),), wall=Wall(WALL + round(at * 1000))))


def test_a_result_that_is_lost_here_is_void_and_its_task_runs_again() -> None:
    bench = with_alice(tasks=2, retries=0)
    item, other = bench.leases(ALICE, tasks_max=2)
    bench.finish(ALICE, item, OK)
    lost_here = ev.DeliverFailed(job=JOB, task=0, reason="a blob was damaged", void=True)
    for turn in range(1, 4):
        told = bench.do(lost_here)
        assert told[:2] == [
            retried(0),
            fx.Emit(notice=n.TaskResultsLost(job=JOB, task=0, reason="a blob was damaged")),
        ]
        assert bench.do(lost_here) == [], "it waits again"
        bench.queue.check()
        assert bench.queue.job(JOB).done == 0
        (item,) = bench.leases(ALICE, tasks_max=1)
        assert item.attempt == turn + 1
        bench.finish(ALICE, item, OK)
    detail = "deliver: a blob was damaged"
    assert bench.do(lost_here)[0] == fx.Record(
        row=r.TaskEnded(job=JOB, task=0, state="failed", detail=detail, wall=WALL)
    ), "not for ever"
    bench.finish(ALICE, other, BAD)
    told = bench.do(ev.DeliverFailed(job=JOB, task=1, reason="gone", void=True))
    assert told[0].row.state == "failed", "one that failed does not run again"
    assert told[-2:] == job_ended("failed")


def test_a_result_that_is_lost_after_its_job_was_cancelled_does_not_run_again() -> None:
    bench = with_alice(tasks=2)
    item, _ = bench.leases(ALICE, tasks_max=2)
    bench.finish(ALICE, item, OK)
    bench.do(ev.CancelAsked(job=JOB, wall=WALL))
    told = bench.do(ev.DeliverFailed(job=JOB, task=0, reason="gone", void=True))
    assert told[-2:] == job_ended("cancelled")


def test_cancelling_gives_up_results_that_cannot_be_written_out_and_ends_the_job() -> None:
    bench = with_alice(tasks=3)
    for item in bench.leases(ALICE, tasks_max=3):
        bench.finish(ALICE, item, OK)
    asked = ev.CancelAsked(job=JOB, wall=WALL)
    assert bench.do(asked) == [], "they are on their way"
    for task in (0, 1):
        bench.do(ev.DeliverFailed(job=JOB, task=task, reason="no room"))

    def given_up(task: int) -> list[fx.Effect]:
        detail = "cancelled before its results could be written out"
        row = r.TaskEnded(job=JOB, task=task, state="cancelled", detail=detail, wall=WALL)
        told = n.TaskSettled(job=JOB, task=task, attempt=1, state="cancelled", worker=ALICE.node, detail=detail)
        return [fx.Record(row=row), fx.Emit(notice=told)]

    assert bench.do(ev.CancelAsked(job=JOB, task=1, wall=WALL)) == given_up(1)
    assert bench.do(asked) == given_up(0)
    bench.queue.check()
    assert bench.do(ev.DeliverFailed(job=JOB, task=0, reason="no room")) == []
    bench.do(ev.DeliverFailed(job=JOB, task=2, reason="no room"))
    assert bench.do(asked) == [*given_up(2), *job_ended("cancelled")]


def test_a_job_whose_files_are_lost_ends_and_nobody_is_blamed() -> None:
    bench = with_alice(tasks=5)
    items = bench.leases(ALICE, tasks_max=3)
    for item in items[:2]:
        give_back(bench, item, "fetch", "1 of 1 blobs could not be fetched")
        bench.tick(0.1)
    lost_files = "its files are lost"
    told = bench.do(ev.CancelAsked(job=JOB, wall=WALL, lost=lost_files))
    assert told[:3] == [
        fx.Record(row=r.JobHalted(job=JOB, detail=lost_files)),
        fx.Emit(notice=n.JobHalted(job=JOB, detail=lost_files)),
        fx.Record(row=r.TasksCancelled(job=JOB, wall=WALL, running=False)),
    ]
    bench.queue.check()
    assert bench.queue._book._budgets.get(ALICE.node) is None
    assert bench.queue.job(JOB).running == 1, "what runs has them"
    told = give_back(bench, items[2], "fetch", "gone")
    assert told[-1] == job_ended("cancelled")[-1]
    assert bench.do(ev.CancelAsked(job=JOB, wall=WALL, lost=lost_files)) == []


def test_cancelling_a_job_ends_what_waits_rests_and_runs() -> None:
    bench = with_alice(tasks=6, retries=1)
    items = bench.leases(ALICE)
    bench.finish(ALICE, items[0], OK)
    bench.finish(ALICE, items[1], BAD)
    assert bench.do(ev.CancelAsked(job=JOB, wall=WALL)) == [
        revoked(items[2]),
        revoked(items[3]),
        fx.Record(row=r.TasksCancelled(job=JOB, wall=WALL)),
        cancel(items[2], items[3]),
        has_work(ALICE, 2, ()),
    ]
    assert bench.do(ev.CancelAsked(job=JOB, wall=WALL)) == []
    states = [task.state for task in bench.queue.tasks(JOB)]
    assert states == ["done", "cancelled", "cancelled", "cancelled", "cancelled", "cancelled"]
    bench.boot()
    assert [task.state for task in bench.queue.tasks(JOB)] == states
    assert bench.tick() == [fx.Record(row=r.EpochBegun(epoch=2)), fx.Deliver(job=JOB, task=0)]
    assert bench.do(ev.Delivered(job=JOB, task=0, wall=WALL))[-2:] == job_ended("cancelled")


def test_cancelling_a_job_that_has_nothing_to_deliver_ends_it() -> None:
    bench = with_alice(tasks=1_000_000)
    (item,) = bench.leases(ALICE, tasks_max=1)
    bench.do(ev.LinkDown(peer=ALICE.node))
    assert bench.do(ev.CancelAsked(job=JOB, wall=WALL)) == [
        revoked(item),
        fx.Record(row=r.TasksCancelled(job=JOB, wall=WALL)),
        *job_ended("cancelled"),
    ]
    assert bench.do(ev.Collected(lease=item.lease)) == []
    assert bench.do(ev.CancelAsked(job=JOB, wall=WALL)) == []


def test_cancelling_single_tasks() -> None:
    bench = with_alice(tasks=4, retries=3)
    bench.join(BOB)
    running, resting, shy = bench.leases(ALICE, tasks_max=3)
    bench.finish(ALICE, shy, BAD)
    bench.tick(1.0)
    bench.finish(ALICE, resting, BAD)
    wall = Wall(7)

    def ended(task: int, attempt: int, worker: bytes | None = ALICE.node) -> list[fx.Effect]:
        told = n.TaskSettled(job=JOB, task=task, attempt=attempt, state="cancelled", worker=worker, detail="cancelled")
        row = r.TaskEnded(job=JOB, task=task, state="cancelled", detail="cancelled", wall=wall)
        return [fx.Record(row=row), fx.Emit(notice=told)]

    def ask(task: int) -> list[fx.Effect]:
        return bench.do(ev.CancelAsked(job=JOB, task=task, wall=wall))

    assert ask(running.task) == [revoked(running), *ended(0, 1), cancel(running)]
    assert ask(running.task) == []
    assert ask(resting.task) == ended(1, 1)
    assert ask(shy.task) == ended(2, 1)
    assert ask(-1) == ask(4) == []
    assert bench.queue.job(JOB).state == "running"
    told = ask(3)
    assert told[:2] == ended(3, 0, None)
    assert told[3] == fx.Emit(notice=n.JobFinished(job=JOB, state="cancelled"))
    assert bench.queue.jobs() == []


def test_a_restart_takes_up_leases_histories_and_deliveries() -> None:
    bench = with_alice(tasks=5, retries=1)
    bench.do(submitted(2))
    items = bench.leases(ALICE)
    bench.finish(ALICE, items[0], OK)
    bench.finish(ALICE, items[1], BAD)
    before = bench.queue.job(JOB)
    bench.boot()
    assert bench.queue.deadline == bench.now
    assert bench.queue.job(JOB) == before
    assert bench.do(ALICE.link_up()) == [
        fx.Record(row=r.EpochBegun(epoch=2)),
        fx.Deliver(job=JOB, task=0),
        has_work(ALICE, 1),
    ]
    assert bench.says(ALICE, msg.Holding(leases=(items[2].lease, items[3].lease))) == []
    assert bench.finish(ALICE, items[2], OK)[0] == attempt_ended(items[2], "done", OK)
    bench.says(ALICE, msg.ProfileIs(profile=PROFILE))
    assert bench.leases(ALICE) == [GrantItem(1, 2, LeaseId(2, 0)), GrantItem(4, 1, LeaseId(2, 1))]
    assert bench.leases(ALICE) == [GrantItem(0, 1, LeaseId(2, 2))]


def test_a_restart_ends_a_job_that_had_only_that_left_to_do() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    bench.finish(ALICE, item, OK)
    bench.disk.apply(r.TaskDelivered(job=JOB, task=0))
    bench.boot()
    assert bench.tick() == [fx.Record(row=r.EpochBegun(epoch=2)), *job_ended("done")]


def test_two_lives_of_an_own_worker_never_share_a_lease() -> None:
    bench = with_alice(tasks=2)
    (old,) = bench.leases(ALICE, tasks_max=1)
    bench.boot()
    bench.join(ALICE)  # it holds nothing: the lease of the former life is lost
    fresh = bench.leases(ALICE)
    assert old.lease not in [item.lease for item in fresh]
    assert [(item.task, item.attempt) for item in fresh] == [(0, 2), (1, 1)]


def test_people_are_told_since_when_a_worker_is_silent_and_when_its_lease_ends() -> None:
    bench = with_alice()
    (item,) = bench.leases(ALICE)
    bench.says(ALICE, msg.Heartbeat(beats=(msg.Beat(item.lease),)), after=10.0)
    bench.tick(24.0)
    assert bench.queue.why(JOB, 0, bench.now) == "running on alice for 34 s, attempt 1; nothing to do but wait."
    bench.tick(6.0)
    assert bench.queue.why(JOB, 0, bench.now) == (
        "running on alice for 40 s as far as is known, but nothing was heard from there for 30 s; "
        "if that lasts its lease ends in 30 s, and it is tried elsewhere."
    )
    bench.says(ALICE, ready(ALICE, result_item(item)))
    assert bench.queue.why(JOB, 0, bench.now) == "ended on alice, attempt 1; its result is on its way."


def test_why_says_that_the_worker_is_not_reachable_and_when_it_is_tried_elsewhere() -> None:
    bench = with_alice()
    bench.leases(ALICE)
    bench.tick(5.0)
    bench.do(ev.LinkDown(peer=ALICE.node))
    assert bench.queue.why(JOB, 0, bench.now, lambda node: {ALICE.node: "alice"}[node]) == (
        "being prepared (fetching files or waiting for a slot) on alice for 5 s as far as is known, but alice is not reachable, "
        "and nothing was heard from there for 5 s; unless it comes back its lease ends in 55 s, and the task runs again "
        "elsewhere."
    )
    bench.join(ALICE)
    assert "not reachable" not in bench.queue.why(JOB, 0, bench.now)


def test_unknown_jobs_and_tasks_do_nothing() -> None:
    bench = with_alice()
    for event in (
        ev.CancelAsked(job=job_id(9), wall=WALL),
        ev.Delivered(job=job_id(9), task=0, wall=WALL),
        ev.Delivered(job=JOB, task=0, wall=WALL),
        ev.Delivered(job=JOB, task=77, wall=WALL),
        ev.DeliverFailed(job=JOB, task=0, reason="x"),
        submitted(),
    ):
        assert bench.do(event) == []
    (item,) = bench.leases(ALICE)
    assert bench.do(ev.Delivered(job=JOB, task=item.task, wall=WALL)) == []


def halting(text: str, **job: object) -> Bench:
    bench = Bench()
    bench.tick()
    bench.join(ALICE)
    bench.do(msgspec.structs.replace(submitted(**job), halt=parse_halt(text)))
    return bench


def halted(detail: str, *, running: bool, at: float = 0.0) -> list[fx.Effect]:
    wall = Wall(WALL + round(at * 1000))
    return [
        fx.Record(row=r.JobHalted(job=JOB, detail=detail)),
        fx.Emit(notice=n.JobHalted(job=JOB, detail=detail)),
        fx.Record(row=r.TasksCancelled(job=JOB, wall=wall, running=running)),
    ]


def test_halt_now_ends_what_runs_and_waits() -> None:
    bench = halting("now,fail=2", tasks=9)
    items = bench.leases(ALICE)
    bench.finish(ALICE, items[0], BAD)
    found = bench.finish(ALICE, items[1], BAD)
    rows = halted("halted after 2 failures", running=True)
    assert found == [
        attempt_ended(items[1], "failed", BAD),
        *settled(items[1], "failed", BAD),
        receipt(ALICE, "settled", items[1].lease),
        *rows[:2],
        revoked(items[2]),
        revoked(items[3]),
        rows[2],
        cancel(items[2], items[3]),
        has_work(ALICE, 2, ()),
    ]
    told = [bench.do(ev.Delivered(job=JOB, task=task, wall=WALL)) for task in (0, 1)]
    assert told[-1][-2:] == job_ended("cancelled")


def test_halt_soon_lets_what_runs_end_but_begins_nothing() -> None:
    bench = halting("soon,fail=1", tasks=6, retries=1)
    first, second, third, fourth = bench.leases(ALICE)
    bench.finish(ALICE, first, BAD)
    bench.tick(1.0)
    (again,) = bench.leases(ALICE, tasks_max=1)
    assert (again.task, again.attempt) == (0, 2)
    after = "halted after 1 failure"
    assert bench.finish(ALICE, again, BAD) == [
        attempt_ended(again, "failed", BAD, at=1.0),
        *settled(again, "failed", BAD),
        receipt(ALICE, "settled", again.lease),
        *halted(after, running=False, at=1.0),
        has_work(ALICE, 3, ()),
    ]
    bench.boot()
    bench.tick()
    assert bench.queue.job(JOB).halted == after
    states = ["failed", "running", "running", "running", "cancelled", "cancelled"]
    assert [task.state for task in bench.queue.tasks(JOB)] == states
    bench.do(ALICE.link_up())
    row = r.TaskEnded(job=JOB, task=3, state="cancelled", detail=after, wall=WALL)
    told = n.TaskSettled(job=JOB, task=3, attempt=1, state="cancelled", worker=ALICE.node, detail=after)
    lost_one = lost(fourth, "lost", "the worker no longer holds it")
    holding = msg.Holding(leases=(second.lease, third.lease))
    assert bench.says(ALICE, holding) == [*lost_one, fx.Record(row=row), fx.Emit(notice=told)]
    assert bench.finish(ALICE, second, BAD)[0] == attempt_ended(second, "failed", BAD)
    assert bench.finish(ALICE, third, OK)[0] == attempt_ended(third, "done", OK)
    ends = [bench.do(ev.Delivered(job=JOB, task=task, wall=WALL)) for task in (0, 1, 2)]
    assert ends[-1][-2:] == job_ended("cancelled")


def test_a_task_given_up_for_its_workers_faults_counts_and_may_be_the_last() -> None:
    bench = halting("now,fail=1", tasks=1)
    for _ in range(FAULTS_MAX + 1):
        (item,) = bench.leases(ALICE)
        told = give_back(bench, item, "expired")
        bench.tick(60.0)
    assert told[-1] == fx.Emit(notice=n.JobFinished(job=JOB, state="failed"))


def test_halting_when_nothing_waits_or_runs_any_more_says_nothing() -> None:
    bench = halting("soon,success=1", tasks=2)
    first, second = bench.leases(ALICE)
    told = bench.finish(ALICE, first, OK)
    assert told[-2:] == halted("halted after 1 success", running=False)[:2]
    bench.finish(ALICE, second, OK)
    ends = [bench.do(ev.Delivered(job=JOB, task=task, wall=WALL)) for task in (0, 1)]
    assert ends[-1][-2:] == job_ended("done")
