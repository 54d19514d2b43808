"""Jobs come in, are offered in order, let go when they have ended, and opened again; attempts are in test_book."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import records as r
from p2pq.core.clock import WallClock
from p2pq.core.docket import Docket
from p2pq.core.events import RetryAsked
from p2pq.errors import Reject
from p2pq.model import notice as n
from p2pq.model.halt import parse_halt
from p2pq.model.ids import Mono
from p2pq.wire import sign
from p2pq.wire.objects import Manifest
from tests.unit.core.mesh import ALICE, MASTER, OWNER, WALL, job_id, submitted


def docket() -> Docket:
    return Docket(MASTER.node, WallClock(Mono(0.0), WALL))


def add(fresh: Docket, number: int, **fields: object) -> r.JobAdded:
    job = submitted(number, **fields)
    row = r.JobAdded(job=job_id(number), manifest=job.manifest, key=job.key, reply_secret=job.reply_secret, wall=WALL)
    fresh.add(row, sign.open_signed(job.manifest, Manifest, MASTER.node), Mono(0.0))
    return row


def test_a_job_comes_in_once() -> None:
    fresh = docket()
    row = add(fresh, 1, tasks=3)
    add(fresh, 1, tasks=3)
    assert fresh.out == [fx.Record(row=row), fx.Emit(notice=n.JobQueued(job=job_id(1), tasks=3))]
    assert fresh.grew
    assert fresh.owners() == (OWNER,)


def test_tasks_that_can_be_granted_are_counted_as_far_as_somebody_wants_to_know() -> None:
    fresh = docket()
    assert fresh.grantable(9) == 0
    for number in (1, 2, 3):
        add(fresh, number, tasks=3)
    assert fresh.grantable(100) == 9
    assert fresh.grantable(4) == 6
    assert fresh.grantable(0) == 0


def test_a_job_ends_when_nothing_is_left_of_it() -> None:
    fresh = docket()
    add(fresh, 1)
    job = fresh.jobs[job_id(1)]
    fresh.out.clear()
    fresh.finish(job, Mono(1.0))
    assert fresh.out == []
    job.cancel()
    fresh.finish(job, Mono(1.0))
    ended = r.JobEnded(job=job_id(1), state="cancelled", wall=WALL + 1000)
    assert fresh.out == [fx.Record(row=ended), fx.Emit(notice=n.JobFinished(job=job_id(1), state="cancelled"))]
    assert fresh.jobs == {}


def test_a_job_of_which_all_is_kept_has_ended_at_once() -> None:
    fresh = docket()
    job = submitted(1, tasks=3)
    row = r.JobAdded(job=JOB, manifest=job.manifest, key=job.key, reply_secret=b"", wall=WALL, kept=((0, 3),))
    fresh.add(row, sign.open_signed(job.manifest, Manifest, MASTER.node), Mono(0.0))
    assert fresh.out == [
        fx.Record(row=row),
        fx.Emit(notice=n.JobQueued(job=JOB, tasks=3)),
        fx.Record(row=r.JobEnded(job=JOB, state="done", wall=WALL)),
        fx.Emit(notice=n.JobFinished(job=JOB, state="done")),
    ]
    assert (fresh.jobs, fresh.owners()) == ({}, ())


JOB = job_id(1)
ENDED = r.RestoredJob(
    job=JOB,
    manifest=submitted(1, tasks=6, retries=1).manifest,
    key=b"k" * 32,
    reply_secret=b"r" * 32,
    wall=WALL,
    kept=((4, 5),),
    halted="halted after 1 failure",
    cancelled=True,
    tasks=(
        r.RestoredTask(task=0, state="done", attempts=1, delivered=True),
        r.RestoredTask(task=1, state="failed", attempts=3, failures=2, faults=1, died=True, detail="x", delivered=True),
        r.RestoredTask(task=2, state="cancelled", attempts=1, delivered=True),
    ),
)


def retried(*tasks: tuple[int, int], left: int, rest: bool = False) -> list[fx.Effect]:
    row = r.TasksRetried(job=JOB, tasks=tasks, rest=rest, wall=WALL)
    return [fx.Record(row=row), fx.Emit(notice=n.TasksRetried(job=JOB, tasks=left))]


def ask(fresh: Docket, *, ended: r.RestoredJob | None = ENDED, **fields: object) -> list[fx.Effect]:
    fresh.out.clear()
    fresh.retry(RetryAsked(job=JOB, ended=ended, wall=WALL, **fields))
    return fresh.out


def states(fresh: Docket) -> list[str]:
    fresh.jobs[JOB].check()
    return [fresh.jobs[JOB].state_of(index) for index in range(6)]


def test_an_ended_job_is_opened_again_for_what_failed() -> None:
    fresh = docket()
    assert ask(fresh) == [fx.Record(row=r.JobReopened(job=ENDED)), *retried((1, 2), left=1)]
    assert states(fresh) == ["done", "pending", "cancelled", "cancelled", "done", "cancelled"]
    task = fresh.jobs[JOB].tasks[1]
    assert (task.attempts, task.failures, task.faults, task.died, task.detail) == (3, 0, 0, False, "")
    assert (fresh.owners(), fresh.grew, fresh.jobs[JOB].halted) == ((OWNER,), True, "")


def test_after_a_restart_too_what_a_search_had_cut_off_runs_without_halting_it_again() -> None:
    retried = msgspec.structs.replace(ENDED, halt=parse_halt("now,success=1"), halted="", cancelled=False)
    job = docket()._take_up(retried)
    job.take(ALICE.node, 1)
    job.settle(3, "failed", deliver=False)
    assert not job.halts


def test_and_for_all_that_was_cancelled() -> None:
    fresh = docket()
    told = ask(fresh, cancelled=True)
    assert told == [fx.Record(row=r.JobReopened(job=ENDED)), *retried((1, 3), left=4, rest=True)]
    assert states(fresh) == ["done", "pending", "pending", "pending", "done", "pending"]
    assert fresh.jobs[JOB].pending.intervals() == ((1, 4), (5, 6))


def test_or_for_one_task() -> None:
    fresh = docket()
    assert ask(fresh, task=5, cancelled=True)[1:] == retried((5, 6), left=1)
    assert ask(fresh, task=2, cancelled=True) == retried((2, 3), left=2)
    assert ask(fresh, task=1, ended=None) == retried((1, 2), left=3)
    assert states(fresh) == ["done", "pending", "pending", "cancelled", "done", "pending"]


@pytest.mark.parametrize("fields", [{"task": 0}, {"task": 3}, {"task": 4, "cancelled": True}, {"task": 9}])
def test_what_did_not_fail_is_left_as_it_is(fields: dict[str, object]) -> None:
    fresh = docket()
    assert ask(fresh, **fields) == []
    assert fresh.jobs == {}
    ask(fresh)
    assert ask(fresh, **fields) == []
    assert states(fresh)[1] == "pending"


def test_a_job_whose_cancelled_tasks_all_have_a_history() -> None:
    fresh = docket()
    history = tuple(r.RestoredTask(task=task, state="cancelled", delivered=True) for task in range(6))
    ended = msgspec.structs.replace(ENDED, tasks=history, kept=())
    assert ask(fresh, ended=ended, cancelled=True)[1:] == retried((0, 6), left=6)


def test_results_on_their_way_get_there_first() -> None:
    fresh = docket()
    job = submitted(1, tasks=6)
    row = r.JobAdded(job=JOB, manifest=job.manifest, key=job.key, reply_secret=b"", wall=WALL)
    fresh.add(row, sign.open_signed(job.manifest, Manifest, MASTER.node), Mono(0.0))
    fresh.jobs[JOB].pending.remove(1)
    fresh.jobs[JOB].settle(1, "failed", deliver=True)
    assert ask(fresh) == []
    fresh.delivered(JOB, 1, Mono(0.0))
    assert ask(fresh) == retried((1, 2), left=6)


def test_a_job_that_is_not_here_or_not_ours_is_not_opened() -> None:
    fresh = docket()
    assert ask(fresh, ended=None) == []
    assert ask(fresh, ended=msgspec.structs.replace(ENDED, job=job_id(2))) == []
    forged = sign.sign(ALICE.signer, sign.open_signed(ENDED.manifest, Manifest, MASTER.node))
    with pytest.raises(Reject, match="bad signature"):
        ask(fresh, ended=msgspec.structs.replace(ENDED, manifest=forged))
    assert fresh.jobs == {}
