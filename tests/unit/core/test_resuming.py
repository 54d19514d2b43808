"""What becomes of a task whose attempts leave checkpoints: at once, elsewhere, and not counted where told to end."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.book import RETURNS_FREE
from p2pq.model import notice as n
from p2pq.model.halt import parse_halt
from p2pq.model.ids import LeaseId
from p2pq.model.job import Outcome
from p2pq.wire import messages as msg
from p2pq.wire.objects import BlobRef, GrantItem
from tests.unit.core.mesh import ALICE, BAD, BOB, OK, OWNER, WALL, Bench, receipt, result_item
from tests.unit.core.savekit import (
    JOB,
    SAVED,
    bench_of,
    bring,
    checkpoint,
    ended,
    handed_on,
    job,
    join,
    left,
)


def test_a_task_that_was_told_to_end_goes_on_at_once_and_elsewhere_from_its_checkpoint() -> None:
    bench = bench_of()
    [item] = bench.leases(ALICE)
    result = left(item)
    lost = n.AttemptLost(job=JOB, task=0, attempt=1, worker=ALICE.node, fault="evicted", detail="it left a checkpoint")
    assert bring(bench, ALICE, item, result) == [
        ended(item, result, "pending", counted=False),
        fx.Emit(notice=lost),
        receipt(ALICE, "settled", item.lease),
        fx.Send(peer=ALICE.node, message=msg.HasWork(counter=3, owners=(OWNER,))),
        fx.Send(peer=BOB.node, message=msg.HasWork(counter=3, owners=(OWNER,))),
    ]
    again = GrantItem(0, 2, LeaseId(1, 1))
    assert handed_on(bench.ask(BOB)) == (checkpoint(BOB, again),)
    assert bench.queue.tasks(JOB)[0].failures == 0
    assert bench.queue.why(JOB, 0, bench.now) == (
        "being prepared (fetching files or waiting for a slot) on bob for 0 s, attempt 2 from the checkpoint of "
        "attempt 1; nothing to do but wait."
    )


def test_one_who_is_told_to_end_too_often_rests() -> None:
    bench = bench_of()
    for _ in range(RETURNS_FREE):
        [item] = bench.leases(ALICE)
        bring(bench, ALICE, item, left(item))
    [item] = bench.leases(ALICE)
    bring(bench, ALICE, item, left(item))
    assert bench.leases(BOB) == []
    bench.tick(after=60.0)
    assert [item.attempt for item in bench.leases(BOB)] == [RETURNS_FREE + 2]


def test_a_failure_counts_and_its_checkpoint_too() -> None:
    bench = bench_of(retries=1)
    [item] = bench.leases(ALICE)
    result = left(item, BAD)
    assert bring(bench, ALICE, item, result)[:2] == [
        ended(item, result, "pending", counted=True),
        fx.Emit(notice=n.AttemptFailed(job=JOB, task=0, attempt=1, worker=ALICE.node, outcome=BAD)),
    ]
    bench.tick(after=60.0)
    assert handed_on(bench.ask(BOB)) == (checkpoint(BOB, GrantItem(0, 2, LeaseId(1, 1))),)


def test_the_latest_checkpoint_takes_the_place_of_the_one_before() -> None:
    bench = bench_of()
    [first] = bench.leases(ALICE)
    bring(bench, ALICE, first, left(first))
    [second] = bench.leases(ALICE)
    newer = (BlobRef(b"n" * 32, 1),)
    assert fx.Forget(lease=first.lease) in bring(bench, ALICE, second, left(second, body=newer))
    [third] = bench.leases(ALICE)
    assert fx.Forget(lease=second.lease) not in bring(bench, ALICE, third, result_item(third, Outcome(reason="saved")))
    assert handed_on(bench.ask(BOB)) == (checkpoint(BOB, GrantItem(0, 4, LeaseId(1, 3)), newer),)


@pytest.mark.parametrize("outcome", [OK, BAD])
def test_a_task_that_is_over_needs_no_checkpoint(outcome: Outcome) -> None:
    bench = bench_of()
    [first] = bench.leases(ALICE)
    bring(bench, ALICE, first, left(first))
    [second] = bench.leases(BOB)
    result = left(second, outcome)
    state = "done" if outcome.ok else "failed"
    told = n.TaskSettled(job=JOB, task=0, attempt=2, state=state, worker=BOB.node, outcome=outcome, left=True)
    assert bring(bench, BOB, second, result) == [
        ended(second, result, state, counted=True, by=BOB),
        fx.Emit(notice=told),
        fx.Deliver(job=JOB, task=0),
        fx.Forget(lease=first.lease),
        receipt(BOB, "settled", second.lease),
    ]
    assert bench.queue.tasks(JOB)[0].checkpoint == 0


@pytest.mark.parametrize("task", [None, 0])
def test_a_cancelled_task_needs_no_checkpoint(task: int | None) -> None:
    bench = bench_of()
    [item] = bench.leases(ALICE)
    bring(bench, ALICE, item, left(item))
    assert fx.Forget(lease=item.lease) in bench.do(ev.CancelAsked(job=JOB, task=task, wall=WALL))


def test_a_checkpoint_outlives_its_master_until_the_task_is_over() -> None:
    bench = bench_of()
    [item] = bench.leases(ALICE)
    result = left(item)
    bring(bench, ALICE, item, result)
    [restored] = bench.disk.restored().jobs
    assert restored.tasks == (r.RestoredTask(task=0, state="pending", attempts=1, checkpoint=result),)
    bench.boot()
    join(bench, BOB)
    again = GrantItem(0, 2, LeaseId(2, 0))
    assert handed_on(bench.ask(BOB)) == (checkpoint(BOB, again),)
    bench.boot()
    join(bench, BOB, again.lease)
    bring(bench, BOB, again, result_item(again))
    assert bench.disk.restored().jobs[0].tasks == (r.RestoredTask(task=0, state="done", attempts=2),)


def test_a_halted_job_begins_no_further_attempt() -> None:
    bench = Bench()
    bench.tick()
    join(bench, ALICE)
    bench.do(msgspec.structs.replace(job(tasks=2), halt=parse_halt("soon,fail=1")))
    first, second = bench.leases(ALICE)
    bring(bench, ALICE, first, result_item(first, BAD))
    result = left(second)
    effects = bring(bench, ALICE, second, result)
    row = r.TaskEnded(job=JOB, task=1, state="cancelled", detail="halted after 1 failure", wall=WALL)
    assert effects[0].row.state == "pending"
    assert effects[2:4] == [fx.Forget(lease=second.lease), fx.Record(row=row)]
    assert bench.queue.tasks(JOB)[1].state == "cancelled"


def test_one_of_two_attempts_that_is_told_to_end_leaves_the_task_to_the_other() -> None:
    bench = bench_of(tasks=2, retries=1)
    first, second = bench.leases(ALICE)
    bench.tick(3.0)
    bench.finish(ALICE, first, OK)
    bench.leases(BOB)
    bench.tick(3.0)
    [again] = bench.leases(BOB)
    effects = bring(bench, ALICE, second, left(second))
    assert effects[0].row.state == "running"
    assert bench.leases(ALICE) == []
    bench.says(BOB, msg.Return(items=(msg.ReturnItem(again.lease, "draining"),)))
    assert handed_on(bench.ask(ALICE)) == (checkpoint(ALICE, GrantItem(1, 3, LeaseId(1, 3))),)


def test_who_says_that_it_saved_and_brings_nothing_is_held_for_nobody() -> None:
    bench = bench_of()
    [item] = bench.leases(ALICE)
    result = result_item(item, SAVED)
    lost = n.AttemptLost(job=JOB, task=0, attempt=1, worker=ALICE.node, fault="evicted")
    assert bring(bench, ALICE, item, result)[:3] == [
        ended(item, result, "pending", counted=False),
        fx.Emit(notice=lost),
        fx.Forget(lease=item.lease),
    ]
