import pytest

from p2pq.core.intervals import IntervalSet
from p2pq.core.jobs import Job, Line
from p2pq.core.records import RestoredTask
from p2pq.model.halt import parse_halt
from p2pq.model.ids import LeaseId, NodeId
from tests.unit.core.mesh import ALICE, BOB, WALL, manifest


def job(number: int = 1, serial: int = 1, **fields: object) -> Job:
    return Job(manifest(number, **fields), b"raw", b"digest", b"key", serial, WALL)


def test_a_million_tasks_are_one_interval() -> None:
    big = job(tasks=1_000_000)
    assert big.grantable == 1_000_000
    assert big.take(ALICE.node, 3) == [0, 1, 2]
    assert big.pending.intervals() == ((3, 1_000_000),)
    assert big.tasks == {}


def test_retried_tasks_go_first_and_not_to_the_worker_they_failed_on() -> None:
    work = job(tasks=9)
    work.pending.remove(3, 9)
    work.hide(5, ALICE.node)
    work.hide(6, BOB.node)
    work.hide(7, BOB.node)
    assert work.grantable == 6
    assert work.take(ALICE.node, 0) == []
    assert work.take(ALICE.node, 1) == [6]
    assert work.take(ALICE.node, 9) == [7, 0, 1, 2]
    assert not work.may_take(ALICE.node)
    assert work.may_take(BOB.node)
    assert work.take(BOB.node, 9) == [5]
    assert not work.may_take(BOB.node)


def test_of_what_avoids_somebody_no_more_is_taken_than_there_is_room_for_elsewhere() -> None:
    work = job(tasks=9)
    work.pending.remove(4, 9)
    for index in (4, 5, 6):
        work.hide(index, ALICE.node)
    for index in (7, 8):
        work.hide(index, BOB.node)
    elsewhere = {ALICE.node: 2, BOB.node: 3}
    assert work.take_beside(elsewhere.__getitem__, 9) == [4, 5, 7, 0, 1, 2, 3]
    assert work.take_beside(lambda _: 0, 9) == []
    assert work.take_beside(lambda _: 9, 1) == [6]
    assert work.take_beside(lambda _: 9, 9) == [8]
    assert work.shy == {}


def test_unrest_tells_whether_the_task_was_shy() -> None:
    work = job(tasks=4)
    work.take(ALICE.node, 4)
    work.hide(0, ALICE.node)
    work.hide(1, ALICE.node)
    work.resting = 2
    assert work.unrest(0, ALICE.node)
    assert not work.unrest(2, ALICE.node)
    assert work.unrest(1, ALICE.node)
    assert not work.unrest(3, ALICE.node)
    assert (work.shy, work.resting) == ({}, 0)


def test_states_of_a_job() -> None:
    work = job(tasks=3)
    assert work.state == "queued"
    assert work.state_of(2) == "pending"
    work.take(ALICE.node, 2)
    work.settle(0, "done", deliver=True)
    assert work.state == "running"
    work.settle(1, "failed", deliver=False)
    work.take(ALICE.node, 1)
    work.settle(2, "done", deliver=False)
    assert (work.state, work.ended, work.to_deliver()) == ("failed", False, [0])
    work.check()
    work.tasks[0].delivered = True
    work.undelivered = 0
    assert work.ended
    work.check()


def test_cancelling_keeps_what_is_over() -> None:
    work = job(tasks=5)
    work.take(ALICE.node, 2)
    work.settle(0, "done", deliver=True)
    work.task(1).avoid = ALICE.node
    work.hide(1, ALICE.node)
    work.cancel()
    assert [work.state_of(index) for index in range(5)] == ["done", *["cancelled"] * 4]
    assert (work.grantable, work.unsettled, work.state, work.ended) == (0, 0, "cancelled", False)
    work.check()


def test_restoring() -> None:
    work = job(tasks=4)
    work.restore(RestoredTask(task=2, state="pending", attempts=3, failures=1, faults=1, died=True, detail="x"))
    work.restore(RestoredTask(task=1, state="failed", attempts=1, failures=1))
    assert (work.grantable, work.undelivered) == (3, 1)
    task = work.tasks[2]
    assert (task.attempts, task.failures, task.faults, task.died, task.detail) == (3, 1, 1, True, "x")
    work.check()


def test_restoring_a_cancelled_job() -> None:
    work = job(tasks=4)
    work.cancel()
    work.restore(RestoredTask(task=1, state="done", attempts=1))
    work.restore(RestoredTask(task=2, state="cancelled", delivered=True))
    assert (work.over, work.undelivered) == ({"done": 1, "failed": 0, "cancelled": 3}, 1)
    work.check()
    work.restore(RestoredTask(task=0, state="pending", attempts=1))  # it was let wait again, or ran on
    assert (work.over, work.unsettled) == ({"done": 1, "failed": 0, "cancelled": 2}, 1)
    assert work.take(ALICE.node, 9) == [0]


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        ("self.resting = 1", "a task was lost or is twice"),
        ("self.running = 1", "the count of running tasks is wrong"),
        ("self.over['done'] = 1", "a count is wrong"),
        ("self.undelivered = 1", "the count of undelivered results is wrong"),
        ("self.shy[b'w'] = IntervalSet()", "an empty set"),
        ("self.hide(0, b'w')", "a task is in two places"),
        ("self.task(0).leases = (LEASE,)", "running means: under a lease"),
    ],
)
def test_check_finds_what_is_wrong(breakage: str, says: str) -> None:
    work = job(tasks=3)
    work.check()
    exec(breakage, {"self": work, "IntervalSet": IntervalSet, "LEASE": LeaseId(1, 0)})
    with pytest.raises(AssertionError, match=says):
        work.check()


def test_a_line_serves_by_priority_then_first_in_first_out() -> None:
    line = Line()
    jobs = [job(1, 1), job(2, 2, priority=5), job(3, 3), job(4, 4, priority=-1)]
    for work in reversed(jobs):
        line.update(work)
        line.update(work)
    assert list(line) == [jobs[1].id, jobs[0].id, jobs[2].id, jobs[3].id]
    jobs[0].take(NodeId(b"w"), 1)
    line.update(jobs[0])
    line.update(jobs[0])
    assert (list(line), len(line)) == ([jobs[1].id, jobs[2].id, jobs[3].id], 3)


def test_kept_tasks_are_done_from_the_start_and_have_no_history() -> None:
    work = job(tasks=5)
    work.keep(((0, 2), (4, 9)))
    assert [work.state_of(index) for index in range(5)] == ["done", "done", "pending", "pending", "done"]
    assert (work.over["done"], work.unsettled, work.state) == (3, 2, "queued")
    assert work.take(ALICE.node, 9) == [2, 3]
    work.pending.add(2, 4)
    work.cancel()
    work.check()
    assert (work.over["cancelled"], work.state, work.ended) == (2, "cancelled", True)


def halting(text: str, **fields: object) -> Job:
    work = job(**fields)
    work.halt = parse_halt(text)
    return work


def test_it_is_time_to_halt_only_once_and_only_while_something_is_left() -> None:
    work = halting("now,fail=1", tasks=3)
    work.keep(((2, 3),))
    assert not work.halts
    work.take(ALICE.node, 1)
    work.settle(0, "failed", deliver=False)
    assert work.halts
    assert work.say_halted() == "halted after 1 failure"
    assert not work.halts
    assert work.snapshot().halted == "halted after 1 failure"
    work.cancel()
    assert work.state == "cancelled"
    over = halting("now,fail=1", tasks=1)
    over.take(ALICE.node, 1)
    over.settle(0, "failed", deliver=False)
    assert not over.halts
    assert not job().halts


def test_what_an_earlier_job_did_does_not_count_as_a_success() -> None:
    work = halting("now,success=1", tasks=4)
    work.keep(((0, 2),))
    assert not work.halts
    work.take(ALICE.node, 1)
    work.settle(2, "done", deliver=False)
    assert work.halts
    work.say_halted()
    work.cancel()
    assert work.state == "done"
    with pytest.raises(AssertionError, match="only a job with a condition"):
        job().say_halted()


def ran(work: Job, *outcomes: str) -> Job:
    """Let the first tasks end so, one after the other, as the books do."""
    for index, state in enumerate(outcomes):
        work.take(ALICE.node, 1)
        work.settle(index, state, deliver=False)
        if work.halts:
            work.say_halted()
        work.look()
    return work


def test_a_search_that_had_its_success_is_done_whatever_failed_or_was_cut_off() -> None:
    work = ran(halting("now,success=1", tasks=6), "failed", "failed", "done")
    work.cancel()
    assert (work.halted, work.state) == ("halted after 1 success", "done")
    share = ran(halting("soon,success=50%", tasks=9), "failed", "done", "done", "failed", "failed")
    share.cancel()
    assert (share.halted, share.state) == ("halted after 2 successes in 3 tasks", "done")
    none = ran(halting("now,success=1", tasks=6), "failed", "failed")
    none.cancel()
    assert (none.halted, none.state) == ("", "cancelled")
    half = ran(halting("soon,done=50%", tasks=4), "failed", "done")
    half.cancel()
    assert (half.halted, half.state) == ("halted after 2 tasks", "failed")


def test_nor_does_it_matter_that_its_success_was_the_last_task() -> None:
    assert (ran(halting("now,success=1", tasks=3), "failed", "failed", "done").state) == "done"
    assert (ran(halting("now,success=2", tasks=3), "failed", "failed", "done").state) == "failed"
    assert (ran(halting("now,success=50%", tasks=3), "failed", "failed", "done").state) == "failed"


def test_what_a_search_had_cut_off_may_run_without_halting_it_again_and_it_stays_done() -> None:
    work = ran(halting("now,success=1", tasks=5), "failed", "done")
    work.cancel()
    assert work.retry(None, cancelled=True) == ([0], True)
    assert (work.halted, work.state, work.halts) == ("", "running", False)
    work.take(ALICE.node, 4)
    for index in (0, 2, 3):
        work.settle(index, "failed" if index else "done", deliver=False)
        assert not work.halts
        work.look()
    work.settle(4, "failed", deliver=False)
    assert (work.state, work.over) == ("done", {"done": 2, "failed": 3, "cancelled": 0})


def test_a_condition_is_met_anew_if_it_was_not_met_in_between() -> None:
    work = ran(halting("now,fail=1", tasks=4), "failed")
    work.cancel()
    work.retry(None, cancelled=True)
    work.take(ALICE.node, 1)
    assert not work.halts
    work.settle(0, "failed", deliver=False)
    assert work.halts
    one = ran(halting("now,fail=1", tasks=4), "failed")
    one.cancel()
    assert one.retry(2, cancelled=True) == ([2], False)
    one.take(ALICE.node, 1)
    one.settle(2, "failed", deliver=False)
    assert not one.halts  # it was met before the user asked for that task all the same
