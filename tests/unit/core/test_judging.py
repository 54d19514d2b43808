"""Failures and faults at their master: charged to the task, or to the worker that they follow around."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.judging import FAULTS_EACH, unsolvable
from p2pq.core.standing import CAUTION, FAULTS_FREE, OTHERS_MIN
from p2pq.model import notice as n
from p2pq.model.job import FAULTS_MAX
from p2pq.wire import messages as msg
from tests.unit.core.mesh import (
    ALICE,
    BAD,
    BOB,
    OK,
    PROFILE,
    Bench,
    GrantItem,
    Member,
    job_id,
    ready,
    result_item,
    submitted,
)

JOB = job_id()


def bench(*members: Member, **job: object) -> Bench:
    fresh = Bench()
    fresh.tick()
    for member in members:
        fresh.join(member)
    fresh.do(submitted(**({"tasks": 1000, "retries": 1} | job)))
    return fresh


def one(fresh: Bench, member: Member, **fields: object) -> GrantItem:
    (item,) = fresh.leases(member, **({"tasks_max": 1} | fields))
    return item


def fares(fresh: Bench, member: Member, *outcomes: object) -> list[list[fx.Effect]]:
    """Let attempts end there, one after the other; return what came out of each."""
    return [fresh.finish(member, one(fresh, member), outcome) for outcome in outcomes]


def ended(effects: list[fx.Effect]) -> r.AttemptEnded:
    [row] = [each.row for each in effects if isinstance(each, fx.Record) and isinstance(each.row, r.AttemptEnded)]
    return row


def forgiven(effects: list[fx.Effect]) -> list[tuple[int, int]]:
    rows = [each.row for each in effects if isinstance(each, fx.Record)]
    return [(row.task, row.attempt) for row in rows if isinstance(row, r.FailureForgiven)]


def test_a_black_hole_is_left_out_and_its_failures_are_forgiven() -> None:
    fresh = bench(ALICE, BOB)
    fares(fresh, BOB, *[OK] * 10)
    (first,) = fares(fresh, ALICE, BAD)
    assert first[0].row.counted
    assert fresh.queue.tasks(JOB)[10].failures == 1
    (second,) = fares(fresh, ALICE, BAD)
    assert not ended(second).counted
    assert fx.Emit(notice=n.WorkerSuspected(job=JOB, worker=ALICE.node, failures=2)) in second
    assert forgiven(second) == [(10, 1)]
    assert [task.failures for task in fresh.queue.tasks(JOB)[10:12]] == [0, 0]
    assert fresh.leases(ALICE) == [], "it waits"
    woken = fresh.tick(1.0)
    assert [each.peer for each in woken if isinstance(each, fx.Send)][:1] == [ALICE.node]
    probe = one(fresh, ALICE, tasks_max=9, ahead=((JOB, 9),))
    assert fresh.leases(ALICE) == [], "one at a time"
    fresh.finish(ALICE, probe, BAD)
    fresh.tick(1.9)
    assert fresh.leases(ALICE) == [], "longer each time"
    fresh.tick(0.1)
    fares(fresh, ALICE, OK)
    assert len(fresh.leases(ALICE)) == 4, "a success clears it"
    assert all(task.failures == 0 for task in fresh.queue.tasks(JOB))


def test_what_was_forgiven_is_so_after_a_restart() -> None:
    fresh = bench(ALICE, BOB)
    fares(fresh, BOB, *[OK] * 10)
    fares(fresh, ALICE, BAD, BAD)
    fresh.boot()
    assert [task.failures for task in fresh.queue.tasks(JOB)[10:12]] == [0, 0]


def test_tasks_that_are_over_are_not_forgiven_any_more() -> None:
    fresh = bench(ALICE, BOB, retries=0)
    fares(fresh, BOB, *[OK] * 10)
    effects = fares(fresh, ALICE, BAD, BAD)
    assert effects[0][0].row.state == "failed"
    assert forgiven(effects[1]) == []


def test_without_another_worker_every_failure_counts() -> None:
    fresh = bench(ALICE, BOB)
    fares(fresh, BOB, *[OK] * 10)
    fresh.do(ev.LinkDown(peer=BOB.node))
    effects = fares(fresh, ALICE, *[BAD] * 9)
    assert all(each[0].row.counted for each in effects)
    assert len(fresh.leases(ALICE)) == 4


def test_a_broken_job_fails_on_whoever_has_it() -> None:
    fresh = bench(ALICE, BOB, tasks=20)
    attempts = 0
    while fresh.queue.job(JOB).failed < 20:
        for member in (ALICE, BOB):
            for item in fresh.leases(member, tasks_max=2):
                attempts += 1
                fresh.finish(member, item, BAD)
        fresh.tick(1.0)
    assert attempts == 40
    assert fresh.now < 60
    assert len(fresh.leases(ALICE)) == 0
    fresh.do(submitted(2, tasks=8))
    assert len(fresh.leases(ALICE)) == 4


def test_a_worker_that_fails_alone_is_slowed_down_until_there_is_something_to_compare_with() -> None:
    fresh = bench(ALICE, BOB)
    effects = fares(fresh, ALICE, *[BAD] * CAUTION)
    assert all(each[0].row.counted for each in effects)
    assert fresh.leases(ALICE) == []
    fares(fresh, BOB, *[OK] * OTHERS_MIN)
    fresh.tick(1.0)
    assert fresh.leases(ALICE, tasks_max=4) != []


def test_the_same_task_failing_elsewhere_clears_the_first() -> None:
    fresh = bench(ALICE, BOB, tasks=14, retries=3)
    fares(fresh, BOB, *[OK] * 10)
    fares(fresh, ALICE, BAD)
    fresh.tick(1.0)
    item = one(fresh, BOB)
    assert item.attempt == 2
    fresh.finish(BOB, item, BAD)
    effects = fares(fresh, ALICE, BAD)
    assert effects[0][0].row.counted, "a streak of one"


# -- faults ---------------------------------------------------------------------------------------------------------------


def drops(fresh: Bench, member: Member, item: GrantItem, fault: str = "sandbox") -> list[fx.Effect]:
    return fresh.says(member, msg.Return(items=(msg.ReturnItem(item.lease, fault),)))


def test_who_takes_and_drops_is_slowed_down() -> None:
    fresh = bench(ALICE, BOB)
    for _ in range(FAULTS_FREE):
        item = one(fresh, ALICE)
        fresh.tick(0.01)
        drops(fresh, ALICE, item)
    assert fresh.leases(ALICE) == []
    fresh.tick(1.0)
    item = one(fresh, ALICE, tasks_max=9)
    assert fresh.leases(ALICE) == [], "one at a time"
    fresh.finish(ALICE, item, BAD)
    assert len(fresh.leases(ALICE)) == 4, "an attempt that ended clears it, however it ended"


def test_one_worker_alone_cannot_use_up_the_faults_of_a_task() -> None:
    fresh = bench(ALICE, BOB, tasks=1)
    for _ in range(3 * FAULTS_MAX):
        while not (items := fresh.leases(ALICE)):
            fresh.tick(fresh.queue.deadline - fresh.now)
        effects = drops(fresh, ALICE, items[0])
    assert fresh.queue.tasks(JOB)[0].faults == FAULTS_EACH
    assert not effects[0].row.counted
    assert fresh.queue.tasks(JOB)[0].state == "pending"


def test_but_a_task_that_nobody_can_run_is_given_up() -> None:
    fresh = bench(ALICE, BOB, tasks=1)
    turns = 0
    while fresh.queue.jobs():
        for member in (ALICE, BOB):
            for item in fresh.leases(member):
                turns += 1
                drops(fresh, member, item)
        if fresh.queue.jobs():
            fresh.tick(fresh.queue.deadline - fresh.now)
    assert FAULTS_MAX < turns <= 5 * FAULTS_MAX


def test_who_waits_and_is_gone_meanwhile_is_not_told() -> None:
    fresh = bench(ALICE, BOB)
    for _ in range(FAULTS_FREE):
        item = one(fresh, ALICE)
        fresh.tick(0.01)
        drops(fresh, ALICE, item)
    fresh.do(ev.LinkDown(peer=ALICE.node))
    told = [each.peer for each in fresh.tick(1.0) if isinstance(each, fx.Send)]
    assert ALICE.node not in told


def test_people_are_told_who_is_left_out() -> None:
    fresh = bench(ALICE, BOB, tasks=14)
    fares(fresh, BOB, *[OK] * 10)
    fares(fresh, ALICE, BAD, BAD)
    assert "serve others now" in fresh.queue.why(JOB, 13, fresh.now).replace("serves", "serve")
    fresh.says(BOB, msg.ProfileIs(profile=msgspec.structs.replace(PROFILE, accepts=True, slots=4)))
    assert fresh.queue.workers()[0].held_back is False
    assert [worker.held_back for worker in fresh.queue.workers(fresh.queue._book.jobs[JOB])] == [True, False]


def test_who_was_told_nothing_while_its_one_attempt_was_fetched_is_told_when_that_is_over() -> None:
    """Its slot is free before its result is here: it asks for everything, gets nothing, and would sleep for ever."""
    fresh = bench(ALICE, BOB)
    for _ in range(FAULTS_FREE):
        item = one(fresh, ALICE)
        fresh.tick(0.01)
        drops(fresh, ALICE, item)
    fresh.tick(1.0)
    item = one(fresh, ALICE)
    fresh.says(ALICE, ready(ALICE, result_item(item)))
    assert fresh.leases(ALICE) == []
    told = [each for each in fresh.do(ev.Collected(lease=item.lease)) if isinstance(each, fx.Send)]
    assert [each.peer for each in told if isinstance(each.message, msg.HasWork)] == [ALICE.node]
    assert len(fresh.leases(ALICE)) == 4


def test_the_job_tells_what_sent_its_tasks_back() -> None:
    fresh = bench(ALICE, tasks=1)
    assert "sent a task back" not in fresh.queue.why(JOB, None, fresh.now)
    fresh.says(ALICE, msg.Return(items=(msg.ReturnItem(one(fresh, ALICE).lease, "refused", "its disk is full"),)))
    assert fresh.queue.why(JOB, None, fresh.now).endswith("; a worker sent a task back: refused: its disk is full.")
    assert fresh.queue.tasks(JOB)[0].faults == 0


def test_who_has_no_room_for_a_job_is_not_offered_it_again_at_once() -> None:
    """Neither this task nor another one; the pause doubles, and is over when an attempt ends there."""
    fresh = bench(ALICE, BOB)
    hands_back = "the job's files would take 5 GiB, and there is room for 1 GiB"
    pauses = []
    for _ in range(3):
        item = one(fresh, ALICE)
        fresh.says(ALICE, msg.Return(items=(msg.ReturnItem(item.lease, "refused", hands_back),)))
        began = fresh.now
        assert fresh.leases(ALICE) == []
        while not fresh.leases(ALICE, tasks_max=1):
            fresh.tick(0.25)
        pauses.append(fresh.now - began)
        [held] = [lease.id for lease in fresh.queue._book.leases.held(ALICE.node)]
        fresh.says(ALICE, msg.Return(items=(msg.ReturnItem(held, "draining"),)))
    assert fresh.queue.tasks(JOB)[0].faults == 0, "nobody's failure"
    assert pauses[1] >= 2 * pauses[0] - 0.5
    assert pauses[2] >= 2 * pauses[1] - 0.5
    assert "a worker sent a task back: refused: the job's files would take 5 GiB" in fresh.queue.why(
        JOB, None, fresh.now
    )
    assert one(fresh, BOB), "others may have it"
    fares(fresh, ALICE, OK)
    item = one(fresh, ALICE)
    fresh.says(ALICE, msg.Return(items=(msg.ReturnItem(item.lease, "refused", hands_back),)))
    fresh.tick(pauses[0])
    assert one(fresh, ALICE), "it begins anew"


def test_it_is_woken_when_the_pause_is_over() -> None:
    fresh = bench(ALICE)
    item = one(fresh, ALICE)
    fresh.says(ALICE, msg.Return(items=(msg.ReturnItem(item.lease, "refused", "too large"),)))
    assert fresh.leases(ALICE) == []
    assert fresh.queue.deadline is not None
    told = fresh.tick(fresh.queue.deadline - fresh.now)
    assert [each.peer for each in told if isinstance(each, fx.Send)] == [ALICE.node]


CANNOT = "environment of requirements.txt: No solution found when resolving dependencies: Because numpie was not found"
"""in the package registry and you require numpie"""


def loses(fresh: Bench, member: Member, detail: str = CANNOT, fault: str = "sandbox") -> None:
    """Let one attempt be lost there, once one is to be had."""
    while not (items := fresh.leases(member, tasks_max=1)):
        fresh.tick(fresh.queue.deadline - fresh.now)
    fresh.tick(0.01)
    fresh.says(member, msg.Return(items=(msg.ReturnItem(items[0].lease, fault, detail),)))


@pytest.mark.parametrize(
    ("fault", "detail", "expected"),
    [
        ("sandbox", CANNOT, True),
        ("sandbox", CANNOT.replace("requirements.txt", "uv.lock"), True),
        ("fetch", CANNOT, False),
        ("sandbox", CANNOT.replace("environment of", "x environment of"), False),
        ("sandbox", "environment of requirements.txt: Failed to fetch: numpie", False),
        ("sandbox", f"{CANNOT} because the current Python version (3.11.2) is too old", False),
        ("sandbox", f"{CANNOT} has no wheels with a matching platform tag", False),
        (
            "sandbox",
            "environment of x: pypi.org does not answer: No solution found when resolving dependencies: y",
            False,
        ),
    ],
)
def test_what_is_the_jobs_own_fault_is_told_by_what_the_worker_says(fault, detail, expected):
    assert unsolvable(fault, detail) is expected


def test_packages_that_a_second_worker_has_not_either_end_the_task() -> None:
    fresh = bench(ALICE, BOB, tasks=2)
    loses(fresh, ALICE)
    loses(fresh, ALICE)
    assert [task.state for task in fresh.queue.tasks(JOB)] == ["pending", "pending"], "one may have an index of its own"
    loses(fresh, BOB)
    assert [task.state for task in fresh.queue.tasks(JOB)].count("failed") == 1
    assert [task.detail for task in fresh.queue.tasks(JOB) if task.state == "failed"] == [
        f"given up, as no worker has a solution: {CANNOT}"
    ]
    loses(fresh, BOB)
    assert fresh.queue.jobs() == [], "the next one at once"


def test_nobody_is_blamed_for_packages_that_nobody_has() -> None:
    fresh = bench(ALICE, BOB, tasks=20)
    for _ in range(FAULTS_FREE + 1):
        loses(fresh, ALICE)
    assert fresh.leases(ALICE) == []
    loses(fresh, BOB)
    assert len(fresh.leases(ALICE)) == 4


def test_a_worker_alone_is_asked_twice() -> None:
    fresh = bench(ALICE, tasks=1)
    loses(fresh, ALICE)
    assert fresh.queue.tasks(JOB)[0].state == "pending"
    loses(fresh, ALICE)
    assert fresh.queue.jobs() == []


def test_packages_that_somebody_had_can_be_had() -> None:
    fresh = bench(ALICE, BOB, tasks=3)
    fares(fresh, ALICE, OK)
    for member in (ALICE, BOB):
        loses(fresh, member)
    assert [task.state for task in fresh.queue.tasks(JOB)].count("failed") == 0
