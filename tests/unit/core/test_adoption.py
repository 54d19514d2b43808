"""A master whose store was rebuilt takes results under leases that it no longer knows, each task once."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.adoption import ADOPTIONS_MAX, AHEAD_MAX
from p2pq.core.ledger import Ledger
from p2pq.core.queue import Queue
from p2pq.errors import Reject
from p2pq.model import notice as n
from p2pq.model.ids import LeaseId, NodeId
from p2pq.model.job import ATTEMPTS_MAX, Outcome
from p2pq.wire import messages as msg
from p2pq.wire import trust
from p2pq.wire.objects import GrantItem
from tests.unit.core.mesh import (
    ALICE,
    BAD,
    BOB,
    IDENTITY,
    LEFT,
    OK,
    WALL,
    Bench,
    entropy,
    job_id,
    ready,
    receipt,
    result_item,
    submitted,
)

JOB = job_id()
EPOCH = 9
FORGOTTEN = [GrantItem(task, 1, LeaseId(EPOCH, task)) for task in range(4)]


def rebuilt(*rows: r.Row, links: bool = True, **job: object) -> Bench:
    """Return a master with one job of four tasks, after a repair that lost its history; alice and bob are linked."""
    bench = Bench()
    bench.disk = Ledger()
    event = submitted(**({"tasks": 4} | job))
    added = r.JobAdded(
        job=JOB, manifest=event.manifest, key=event.key, reply_secret=event.reply_secret, wall=event.wall
    )
    for row in (r.EpochBegun(epoch=EPOCH), added, *rows):
        bench.disk.apply(row)
    restored = msgspec.structs.replace(bench.disk.restored(), rebuilt=EPOCH)
    bench.queue = Queue(IDENTITY, bench.settings, restored, entropy, bench.now, WALL, trust.nobody)
    for member in (ALICE, BOB) if links else ():
        bench.join(member)
    return bench


def granted_again(item: GrantItem) -> list[fx.Effect]:
    return [
        fx.Record(
            row=r.LeaseGranted(
                lease=item.lease, job=JOB, task=item.task, attempt=item.attempt, worker=ALICE.node, wall=WALL
            )
        ),
        fx.Emit(
            notice=n.TaskGranted(job=JOB, task=item.task, attempt=item.attempt, lease=item.lease, worker=ALICE.node)
        ),
    ]


def collect(item: GrantItem) -> fx.Collect:
    return fx.Collect(lease=item.lease, peer=ALICE.node, blobs=LEFT, inline=())


def late(item: GrantItem, member: object = ALICE) -> list[fx.Effect]:
    return [
        fx.Emit(notice=n.LateResult(lease=item.lease, worker=member.node)),
        receipt(member, "late", item.lease),
    ]


def test_a_forgotten_lease_lives_again_for_its_result() -> None:
    bench = rebuilt()
    one, two = FORGOTTEN[:2]
    said = bench.says(ALICE, ready(ALICE, result_item(one), result_item(two)))
    assert said == [*granted_again(one), collect(one), *granted_again(two), collect(two)]
    effects = bench.do(ev.Collected(lease=one.lease))
    assert effects[0].row.state == "done"
    assert receipt(ALICE, "settled", one.lease) in effects
    assert bench.says(ALICE, ready(ALICE, result_item(one))) == late(one)
    assert bench.disk.restored().settled == ((EPOCH, ((0, 1),)),)
    assert [item.task for item in bench.leases(BOB)] == [2, 3], "what is being collected is nobody's"


def test_what_a_worker_still_holds_of_them_is_left_alone() -> None:
    bench = rebuilt()
    held = tuple(item.lease for item in FORGOTTEN)
    assert bench.says(ALICE, msg.Holding(leases=held)) == []
    assert bench.says(ALICE, msg.Heartbeat(beats=tuple(msg.Beat(lease, running=True) for lease in held))) == []
    assert bench.says(ALICE, msg.Return(items=(msg.ReturnItem(held[0], "draining"),))) == []
    over = LeaseId(EPOCH, 50)
    bench = rebuilt(
        r.LeaseGranted(lease=over, job=JOB, task=0, attempt=1, worker=ALICE.node, wall=WALL),
        r.AttemptEnded(
            lease=over,
            job=JOB,
            task=0,
            worker=ALICE.node,
            result=result_item(GrantItem(0, 1, over)),
            state="done",
            wall=WALL,
        ),
    )
    assert bench.says(ALICE, msg.Holding(leases=(over,))) == [
        fx.Send(peer=ALICE.node, message=msg.Cancel(leases=(over,)))
    ], "what is known to be settled is over"
    assert bench.says(ALICE, ready(ALICE, result_item(GrantItem(0, 1, over)))) == late(GrantItem(0, 1, over))


def test_a_task_that_was_granted_again_has_no_use_for_it() -> None:
    bench = rebuilt()
    fresh = bench.leases(BOB)
    assert {item.lease.epoch for item in fresh} == {EPOCH + 1}
    assert bench.says(ALICE, ready(ALICE, result_item(FORGOTTEN[0]))) == late(FORGOTTEN[0])
    bench.finish(BOB, fresh[0], OK)
    assert bench.says(ALICE, ready(ALICE, result_item(FORGOTTEN[0]))) == late(FORGOTTEN[0])
    assert len(bench.disk.restored().leases) == 3


def test_the_first_of_two_results_of_a_task_counts() -> None:
    bench = rebuilt()
    other = GrantItem(0, 2, LeaseId(EPOCH - 1, 7))
    bench.says(ALICE, ready(ALICE, result_item(FORGOTTEN[0])))
    assert bench.says(BOB, ready(BOB, result_item(other))) == late(other, BOB)
    bench.do(ev.Collected(lease=FORGOTTEN[0].lease))
    assert bench.says(BOB, ready(BOB, result_item(other))) == late(other, BOB)


def test_an_older_attempt_than_those_that_are_known_is_late() -> None:
    task = r.LeaseGranted(lease=LeaseId(EPOCH, 80), job=JOB, task=0, attempt=2, worker=BOB.node, wall=WALL)
    lost = r.LeaseEnded(lease=LeaseId(EPOCH, 80), job=JOB, task=0, attempt=2, fault="lost")
    bench = rebuilt(task, lost)
    assert bench.says(ALICE, ready(ALICE, result_item(FORGOTTEN[0]))) == late(FORGOTTEN[0])
    newest = GrantItem(0, 3, LeaseId(EPOCH, 81))
    assert bench.says(ALICE, ready(ALICE, result_item(newest)))[-1] == collect(newest)
    bench.do(ev.CollectFailed(lease=newest.lease, reason="no", refused=True))
    assert [item.attempt for item in bench.leases(BOB, tasks_max=1)] == [1]
    assert [job.tasks[0].attempts for job in bench.disk.restored().jobs] == [3], (
        "the next attempt has a number of its own"
    )


def test_a_task_that_rests_can_be_adopted() -> None:
    bench = rebuilt(retries=3, tasks=1)
    (item,) = bench.leases(BOB)
    bench.finish(BOB, item, BAD)
    old = GrantItem(0, 1, LeaseId(EPOCH, 3))
    assert bench.says(ALICE, ready(ALICE, result_item(old)))[-1] == collect(old)
    bench.do(ev.Collected(lease=old.lease))
    assert [task.state for task in bench.disk.restored().jobs[0].tasks] == ["done"]


@pytest.mark.parametrize(
    "item",
    [
        result_item(FORGOTTEN[0], number=2),
        result_item(GrantItem(4, 1, LeaseId(EPOCH, 0))),
    ],
)
def test_there_must_be_such_a_task(item: object) -> None:
    bench = rebuilt()
    assert bench.says(ALICE, ready(ALICE, item)) == late(item)


def test_a_lease_that_this_life_never_granted_is_refused_as_ever() -> None:
    bench = rebuilt()
    for unknown in (LeaseId(EPOCH + 1, 0), LeaseId(EPOCH + 1, 9)):
        refused = [fx.Drop(peer=ALICE.node, reason="result: lease was never granted")]
        assert bench.says(ALICE, ready(ALICE, result_item(GrantItem(0, 1, unknown)))) == refused
        stranger = [fx.Drop(peer=ALICE.node, reason="lease was never granted to it")]
        assert bench.says(ALICE, msg.Holding(leases=(unknown,))) == stranger


def test_whoever_may_not_work_brings_nothing() -> None:
    bench = rebuilt(links=False)
    bench.do(ALICE.link_up(caps=("submit",)))
    assert bench.says(ALICE, ready(ALICE, result_item(FORGOTTEN[0]))) == late(FORGOTTEN[0])
    bench = rebuilt(only=BOB.node)
    assert bench.says(ALICE, ready(ALICE, result_item(FORGOTTEN[0]))) == late(FORGOTTEN[0])
    assert bench.says(BOB, ready(BOB, result_item(FORGOTTEN[0])))[-1] == msgspec.structs.replace(
        collect(FORGOTTEN[0]), peer=BOB.node
    )


def test_an_attempt_with_an_absurd_number_is_not_believed() -> None:
    """It would be counted on, and the next grant could not be signed."""
    bench = rebuilt()
    for number in (ATTEMPTS_MAX, AHEAD_MAX + 1):
        item = GrantItem(0, number, LeaseId(1, 9999))
        assert bench.says(ALICE, ready(ALICE, result_item(item))) == late(item)
    newest = GrantItem(0, AHEAD_MAX, LeaseId(1, 9999))
    assert bench.says(ALICE, ready(ALICE, result_item(newest)))[-1] == collect(newest)


def test_a_failure_is_not_adopted_but_what_was_saved_is() -> None:
    bench = rebuilt(retries=0)
    assert bench.says(ALICE, ready(ALICE, result_item(FORGOTTEN[0], BAD))) == late(FORGOTTEN[0])
    assert [item.attempt for item in bench.leases(BOB, tasks_max=1)] == [1], "it runs again"
    saved = result_item(FORGOTTEN[1], Outcome(reason="saved"))
    assert bench.says(ALICE, ready(ALICE, saved))[-1] == collect(FORGOTTEN[1])


def test_a_worker_brings_one_such_result_of_a_task_and_few_workers_do() -> None:
    bench = rebuilt(tasks=1)
    saved = Outcome(reason="saved")
    for lease in (7, 8):
        item = GrantItem(0, 1, LeaseId(EPOCH, lease))
        said = bench.says(ALICE, ready(ALICE, result_item(item, saved)))
        if lease == 7:
            assert collect(item) in said
            bench.do(ev.Collected(lease=item.lease))
        else:
            assert said == late(item)
    task = bench.queue._book.jobs[JOB].tasks[0]
    task.adopted = tuple(NodeId(bytes([number]) * 32) for number in range(ADOPTIONS_MAX))
    assert bench.says(BOB, ready(BOB, result_item(GrantItem(0, 2, LeaseId(EPOCH, 9)), saved))) == late(
        GrantItem(0, 2, LeaseId(EPOCH, 9)), BOB
    )


def test_a_task_whose_attempts_are_used_up_has_failed() -> None:
    granted = r.LeaseGranted(
        lease=LeaseId(EPOCH, 80), job=JOB, task=0, attempt=ATTEMPTS_MAX, worker=BOB.node, wall=WALL
    )
    lost = r.LeaseEnded(lease=LeaseId(EPOCH, 80), job=JOB, task=0, attempt=ATTEMPTS_MAX, fault="lost")
    bench = rebuilt(granted, lost, tasks=2)
    assert [item.task for item in bench.leases(BOB, tasks_max=1)] == [1], "the other one is granted instead"
    (spent,) = [task for task in bench.queue.tasks(JOB) if task.task == 0]
    assert (spent.state, spent.detail) == ("failed", "given up: its 1048576 attempts are used up")
    bench = rebuilt(granted, lost, tasks=1)
    assert bench.leases(BOB, tasks_max=1) == []
    assert bench.queue.job(JOB) is None
    assert bench.disk.restored().jobs == ()


def test_a_grant_that_cannot_be_signed_costs_that_grant_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = rebuilt(tasks=1)

    def refuse(*_: object) -> bytes:
        raise Reject("out of range")

    with monkeypatch.context() as patch:
        patch.setattr("p2pq.core.queue.sign.sign", refuse)
        assert bench.leases(BOB) == []
    assert bench.disk.restored().leases == ()
    (task,) = bench.queue.tasks(JOB)
    assert (task.state, task.detail) == ("pending", "refused: it could not be granted: out of range")
