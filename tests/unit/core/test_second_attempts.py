"""The tail of a job at its master: second attempts, the first result counts; leases ahead are asked back for who idles."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.granting import RECALL_S
from p2pq.core.tails import TAIL_S
from p2pq.model import notice as n
from p2pq.model.ids import LeaseId, Wall
from p2pq.model.job import ATTEMPTS_MAX, Profile
from p2pq.wire import messages as msg
from tests.unit.core.mesh import (
    ALICE,
    BAD,
    BOB,
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
CAROL = Member("carol")


def lagging(retries: int = 1) -> tuple[Bench, GrantItem, GrantItem]:
    """Two tasks; Alice has brought one after 3 s and is still at the other, and Bob gets a second attempt of that."""
    bench, second = late(retries)
    told = bench.tick(0.1)
    assert [(each.peer, each.message.owners) for each in told] == [(ALICE.node, (OWNER,)), (BOB.node, (OWNER,))]
    assert bench.leases(ALICE) == [], "it holds the first attempt"
    (again,) = bench.leases(BOB)
    assert again == GrantItem(1, 2, LeaseId(1, 2))
    return bench, second, again


def late(retries: int = 1) -> tuple[Bench, GrantItem]:
    """One of Alice's two tasks is about to take too long."""
    bench = Bench()
    bench.tick()
    bench.join(ALICE)
    bench.join(BOB)
    bench.do(submitted(tasks=2, retries=retries))
    first, second = bench.leases(ALICE)
    assert bench.leases(BOB) == []
    bench.tick(3.0)
    bench.finish(ALICE, first, OK)
    bench.do(ev.Delivered(job=JOB, task=0, wall=WALL))
    assert bench.leases(BOB) == []
    assert bench.queue.deadline == 6.0
    assert bench.tick(2.9) == []
    return bench, second


def revoked(item: GrantItem) -> fx.Record:
    row = r.LeaseEnded(
        lease=item.lease, job=JOB, task=item.task, attempt=item.attempt, fault="cancelled", counted=False
    )
    return fx.Record(row=row)


def done(member: Member, item: GrantItem, at: float) -> list[fx.Effect]:
    row = r.AttemptEnded(
        lease=item.lease, job=JOB, task=1, worker=member.node, result=result_item(item), state="done",
        wall=Wall(WALL + round(at * 1000)), proof=proof(member, result_item(item)),
    )  # fmt: skip
    told = n.TaskSettled(job=JOB, task=1, attempt=item.attempt, state="done", worker=member.node, outcome=OK, left=True)
    return [fx.Record(row=row), fx.Emit(notice=told), fx.Deliver(job=JOB, task=1)]


def cancel(member: Member, item: GrantItem) -> fx.Send:
    return fx.Send(peer=member.node, message=msg.Cancel(leases=(item.lease,)))


@pytest.mark.parametrize("winner", ["first", "second"])
def test_the_first_result_counts_and_ends_the_other_attempt(winner: str) -> None:
    bench, first, again = lagging()
    sides = [(ALICE, first), (BOB, again)]
    (member, item), (other, loser) = sides if winner == "first" else sides[::-1]
    assert bench.finish(member, item, OK) == [
        revoked(loser),
        *done(member, item, 6.0),
        cancel(other, loser),
        receipt(member, "settled", item.lease),
    ]
    assert bench.says(other, ready(other, result_item(loser))) == [
        fx.Emit(notice=n.LateResult(lease=loser.lease, worker=other.node)),
        receipt(other, "late", loser.lease),
    ]
    [old] = bench.disk.restored().jobs
    assert [(task.state, task.attempts) for task in old.tasks] == [("done", 1), ("done", 2)]


def test_people_are_told_of_both() -> None:
    bench, first, _ = lagging()
    shown = bench.queue.tasks(JOB)[1]
    assert (shown.state, shown.worker, shown.again, shown.lease) == ("running", ALICE.node, BOB.node, first.lease)
    said = bench.queue.why(JOB, 1, bench.now)
    assert said == "running on alice for 6 s, longer than others, so also on bob; the first result counts."


def test_a_failure_of_one_leaves_the_task_to_the_other() -> None:
    bench, first, again = lagging(retries=0)
    effects = bench.finish(ALICE, first, BAD)
    assert effects[0].row.state == "running"
    assert effects[1:] == [
        fx.Emit(notice=n.AttemptFailed(job=JOB, task=1, attempt=1, worker=ALICE.node, outcome=BAD)),
        receipt(ALICE, "settled", first.lease),
    ]
    assert bench.queue.tasks(JOB)[1].failures == 1
    assert bench.finish(BOB, again, OK)[0] == done(BOB, again, 6.0)[0]


def test_failures_of_both_fail_the_task() -> None:
    bench, first, again = lagging(retries=1)
    bench.finish(ALICE, first, BAD)
    effects = bench.finish(BOB, again, BAD)
    assert effects[0].row.state == "failed"
    assert bench.queue.job(JOB).failed == 1


def test_losing_one_leaves_the_other_and_a_third_comes_only_after_a_while() -> None:
    bench, first, again = lagging()
    bench.says(BOB, msg.Return(items=(msg.ReturnItem(again.lease, "disk"),)))
    assert bench.queue.tasks(JOB)[1].state == "running"
    bench.says(ALICE, msg.Heartbeat(beats=(msg.Beat(first.lease),)))
    assert bench.leases(BOB) == []
    assert bench.queue.deadline == 12.0
    bench.tick(6.0)
    assert bench.leases(BOB) == [GrantItem(1, 3, LeaseId(1, 3))]
    bench.join(CAROL)
    assert bench.leases(CAROL) == [], "two at most"


def test_losing_both_lets_the_task_wait_again() -> None:
    bench, first, again = lagging()
    bench.says(ALICE, msg.Return(items=(msg.ReturnItem(first.lease, "evicted"),)))
    bench.says(BOB, msg.Return(items=(msg.ReturnItem(again.lease, "evicted"),)))
    assert [task.state for task in bench.queue.tasks(JOB)] == ["done", "pending"]
    assert bench.leases(ALICE) == [GrantItem(1, 3, LeaseId(1, 3))]


@pytest.mark.parametrize("task", [None, 1])
def test_cancelling_ends_both(task: int | None) -> None:
    bench, first, again = lagging()
    effects = bench.do(ev.CancelAsked(job=JOB, task=task, wall=WALL))
    assert effects[:2] == [revoked(first), revoked(again)]
    assert cancel(ALICE, first) in effects
    assert cancel(BOB, again) in effects
    assert bench.queue.jobs() == []


def test_a_restart_takes_up_both() -> None:
    bench, first, again = lagging()
    bench.boot()
    bench.do(ALICE.link_up())
    bench.says(ALICE, msg.Holding(leases=(first.lease,)))
    bench.do(BOB.link_up())
    bench.says(BOB, msg.Holding(leases=(again.lease,)))
    shown = bench.queue.tasks(JOB)[1]
    assert (shown.worker, shown.again) == (ALICE.node, BOB.node)
    effects = bench.finish(BOB, again, OK)
    assert effects[0] == revoked(first)
    assert cancel(ALICE, first) in effects


def test_a_result_that_is_being_fetched_is_not_tried_again() -> None:
    bench = Bench()
    bench.tick()
    bench.join(ALICE)
    bench.join(BOB)
    bench.do(submitted(tasks=2))
    first, second = bench.leases(ALICE)
    bench.finish(ALICE, first, OK)
    bench.says(ALICE, ready(ALICE, result_item(second)))
    bench.tick(TAIL_S)
    assert bench.leases(BOB) == []


def test_what_waits_goes_before_second_attempts() -> None:
    bench, _, again = lagging()
    bench.says(BOB, msg.Return(items=(msg.ReturnItem(again.lease, "evicted"),)))
    bench.tick(6.0)
    bench.do(submitted(2))
    (item,) = bench.leases(BOB)
    assert bench.queue.task_of(item.lease) == (job_id(2), 0)
    (item,) = bench.leases(BOB)
    assert bench.queue.task_of(item.lease) == (JOB, 1)


# -- leases ahead ---------------------------------------------------------------------------------------------------------


def ahead(minor: int = 2) -> Bench:
    """Alice, of four slots, holds nine leases."""
    bench = Bench()
    bench.tick()
    bench.do(ALICE.link_up(minor=minor))
    bench.says(ALICE, msg.ProfileIs(profile=PROFILE))
    bench.join(BOB)
    bench.do(submitted(tasks=9))
    assert len(bench.leases(ALICE, tasks_max=9, ahead=((JOB, 9),))) == 9
    return bench


def recalls(effects: list[fx.Effect]) -> list[fx.Effect]:
    return [each for each in effects if isinstance(each, fx.Send) and isinstance(each.message, msg.Recall)]


def test_who_idles_gets_half_of_what_others_hold_beyond_their_slots() -> None:
    bench = ahead()
    assert recalls(bench.ask(BOB)) == [fx.Send(peer=ALICE.node, message=msg.Recall(tasks=3))]
    assert recalls(bench.ask(BOB)) == [], "not at every request"
    bench.tick(RECALL_S)
    assert recalls(bench.ask(BOB, tasks_max=2)) == [fx.Send(peer=ALICE.node, message=msg.Recall(tasks=2))]
    held = bench.disk.restored().leases
    bench.says(ALICE, msg.Return(items=tuple(msg.ReturnItem(lease.lease, "recalled") for lease in held[-3:])))
    assert len(bench.leases(BOB)) == 3
    assert [task.faults for task in bench.queue.tasks(JOB)] == [0] * 9


def test_nobody_is_asked_for_leases_who_has_none_to_spare_or_would_not_understand() -> None:
    assert recalls(ahead(minor=1).ask(BOB)) == []
    bench = ahead()
    assert recalls(bench.ask(ALICE)) == []
    assert recalls(bench.ask(BOB, cpus=0)) == []
    bench.says(ALICE, msg.ProfileIs(profile=Profile(slots=9, memory_mb=1, sandbox="strict", accepts=True)))
    assert recalls(bench.ask(BOB)) == []
    empty = Bench()
    empty.tick()
    empty.join(BOB)
    assert recalls(empty.ask(BOB)) == []


def back_after(away: float, **outcome: object) -> tuple[Bench, GrantItem]:
    """Alice took three tasks of which two ended while their master was away, and runs the third; Bob is idle."""
    bench = Bench()
    bench.tick()
    bench.join(ALICE)
    bench.do(submitted(tasks=3))
    items = bench.leases(ALICE)
    bench.tick(away)
    bench.boot()
    bench.tick()
    bench.do(ALICE.link_up())
    bench.says(ALICE, msg.Holding(leases=tuple(item.lease for item in items)))
    bench.says(ALICE, msg.ProfileIs(profile=PROFILE))
    bench.join(BOB)
    for item in items[:2]:
        bench.finish(ALICE, item, msgspec.structs.replace(OK, **outcome))
    return bench, items[2]


def test_what_ended_while_the_master_was_away_took_as_long_as_its_worker_says() -> None:
    bench, _ = back_after(50.0, run_ms=40_000)
    assert bench.leases(BOB) == []
    bench.says(ALICE, msg.Heartbeat(beats=(msg.Beat(LeaseId(1, 2)),)), after=50.0)
    bench.tick(29.9)
    assert bench.leases(BOB) == [], "it runs for 79.9 s, twice 40 s have not passed"
    bench.tick(0.1)
    assert bench.leases(BOB) == [GrantItem(2, 2, LeaseId(2, 0))]


def test_but_not_less_than_was_seen_of_it() -> None:
    bench, _ = back_after(50.0)  # the worker says that they took no time at all
    bench.tick(TAIL_S)
    assert bench.leases(BOB) == [GrantItem(2, 2, LeaseId(2, 0))]
    liar, second, _ = lagging()
    liar.finish(ALICE, second, msgspec.structs.replace(OK, run_ms=900_000))
    assert liar.queue._book.jobs[JOB].tail.pace.median == 6.0, "what was granted in this life is measured here"


def test_there_is_none_once_the_attempts_of_a_task_are_used_up() -> None:
    bench, item = late()
    bench.queue._book.jobs[JOB].tasks[item.task].attempts = ATTEMPTS_MAX
    bench.tick(0.1)
    assert bench.leases(BOB) == []
