"""What the tables add up to for one job, and how a job that had ended comes back; test_store (property) compares the rest."""

import msgspec

from p2pq.core.records import (
    JobEnded,
    JobHalted,
    JobReopened,
    RestoredJob,
    RestoredTask,
    TaskDelivered,
    TasksCancelled,
    TasksRetried,
)
from p2pq.model.config import StoreSettings
from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, Wall
from p2pq.model.job import Outcome
from tests.unit.daemon.storekit import ADDED, JOB, Opened, attempt_ended, granted, item

HALT = Halt(now=True, what="fail", count=1)
FAILED = item(lease=LeaseId(1, 1), outcome=Outcome(reason="exit", exit=3))
ENDED = RestoredJob(
    job=JOB,
    manifest=ADDED.manifest,
    key=ADDED.key,
    reply_secret=ADDED.reply_secret,
    wall=ADDED.wall,
    tasks=(RestoredTask(task=0, state="failed", attempts=1, failures=1, delivered=True),),
    cancelled=True,
    kept=((3, 5),),
    halt=HALT,
    halted="halted after 1 failure",
)


async def end(opened: Opened) -> None:
    await opened.write(
        msgspec.structs.replace(ADDED, kept=((3, 5),), halt=HALT),
        granted(lease=LeaseId(1, 1)),
        attempt_ended(FAILED, "failed"),
        JobHalted(job=JOB, detail="halted after 1 failure"),
        TasksCancelled(job=JOB, wall=Wall(4000)),
        TaskDelivered(job=JOB, task=0),
        JobEnded(job=JOB, state="cancelled", wall=Wall(5000)),
    )


async def test_an_ended_job_is_found_as_it_was(opened: Opened) -> None:
    await end(opened)
    assert opened.store.ended_job(JOB) == ENDED
    assert opened.store.ended_job(JobId(b"x" * 16)) is None
    row = opened.store.job(JOB)
    assert row is not None
    assert row.halted == "halted after 1 failure"


async def test_it_lives_again_and_what_failed_waits(opened: Opened) -> None:
    await end(opened)
    again = TasksRetried(job=JOB, tasks=((0, 1),), rest=True, wall=Wall(6000))
    await opened.write(JobReopened(job=ENDED), again)
    live = msgspec.structs.replace(
        ENDED, tasks=(RestoredTask(task=0, state="pending", attempts=1),), cancelled=False, halted=""
    )
    assert (await opened.reopened()).jobs == (live,)
    assert opened.store.ended_job(JOB) is None
    row = opened.store.job(JOB)
    assert row is not None
    assert (row.state, row.ended, row.attempts, row.failed, row.halted) == (None, None, 1, 0, "")
    [task] = opened.store.tasks(JOB)
    assert (task.state, task.ended, task.delivered) == ("pending", None, False)
    await opened.write(granted(attempt=2, lease=LeaseId(1, 2)))
    assert [attempt.attempt for attempt in opened.store.attempts(JOB)] == [1, 2]
    await opened.write(TasksRetried(job=JobId(b"x" * 16), tasks=((0, 1),), wall=Wall(0)))


async def test_it_comes_back_even_if_it_was_let_go_of_meanwhile(opened: Opened) -> None:
    await end(opened)
    await opened.store.prune(StoreSettings(keep_jobs=0, keep_days=1))
    assert opened.store.job(JOB) is None
    await opened.write(JobReopened(job=ENDED))
    assert (await opened.reopened()).jobs == (ENDED,)
