"""Why a job or a task is as it is, in one sentence and one suggestion."""

import asyncio

from p2pq.core.placement import TaskSnapshot
from p2pq.core.records import JobEnded, JobHalted, LeaseEnded, LeaseGranted, TaskEnded, TasksCancelled
from p2pq.model import notice as facts
from p2pq.model.ids import LeaseId, Wall
from p2pq.model.job import Outcome
from p2pq.wire import control
from p2pq.wire.control import AttemptView, Note, TaskView
from tests.unit.daemon.jobskit import id_of
from tests.unit.daemon.storekit import NOW, WORKER

BAD = Outcome(reason="exit", exit=3)


async def why(rig, view, task=None):
    [note] = await rig.ask(rig.jobs.explaining.why, control.Why(job=view.job, task=task))
    return note


async def lose(rig, job, task, attempt):
    lease = LeaseId(2, attempt)
    await rig.write(
        LeaseGranted(lease=lease, job=job, task=task, attempt=attempt, worker=WORKER, wall=Wall(1)),
        LeaseEnded(lease=lease, job=job, task=task, attempt=attempt, fault="disk", detail="no room"),
    )


async def test_a_live_job_is_explained_by_the_core(rig, folder):
    view = await rig.submit(folder, array="0-2")
    assert await why(rig, view) == await why(rig, view, 1) == Note(text=rig.scheduler.reason)


async def test_a_task_that_is_tried_again_says_what_became_of_the_attempts(rig, folder):
    view = await rig.submit(folder, array="0-2")
    job = id_of(rig, view)
    await rig.settle(job, 1, "pending", BAD)
    assert await why(rig, view, 1) == Note(
        text="no machine has that label. The task failed by its own doing (exit 3 on worker), and nowhere else was it tried.",
        suggestion=f"see `p2pq logs {view.job[:8]}.1 --attempt 1 --stderr`",
    )


async def test_a_task_that_its_worker_lost_is_not_to_be_retried_while_it_waits(rig, folder):
    view = await rig.submit(folder, array="0-2")
    job, name = id_of(rig, view), view.job[:8]
    for attempt in (1, 2, 3):
        await lose(rig, job, 1, attempt)
    assert await why(rig, view, 1) == Note(
        text="no machine has that label. 3 attempts ended by their workers' doing, not the task's (disk on worker).",
        suggestion=f"see `p2pq show {name}.1`",
    )


async def test_a_task_that_failed_says_whose_doing_it_was(rig, folder):
    view = await rig.submit(folder, array="0-2")
    job, name = id_of(rig, view), view.job[:8]
    await rig.settle(job, 0, "failed", BAD)
    assert await why(rig, view, 0) == Note(
        text="Task 0 failed: the task failed by its own doing (exit 3 on worker), and nowhere else was it tried.",
        suggestion=f"see `p2pq logs {name}.0 --attempt 1 --stderr`",
    )
    await lose(rig, job, 1, 1)
    detail = "given up after 11 attempts"
    await rig.write(TaskEnded(job=job, task=1, state="failed", detail=detail, wall=Wall(3)))
    assert await why(rig, view, 1) == Note(
        text="Task 1 failed: 1 attempt ended by its worker's doing, not the task's (disk on worker).",
        suggestion=f"see `p2pq show {name}.1`; `p2pq retry {name}.1` runs it again",
    )
    await rig.write(TaskEnded(job=job, task=2, state="failed", detail="deliver: damaged", wall=Wall(3)))
    assert (await why(rig, view, 2)).text == "Task 2 failed: deliver: damaged."


async def test_what_is_over_says_how_and_what_can_be_done(rig, folder):
    view = await rig.submit(folder, array="0-2")
    job, name = id_of(rig, view), view.job[:8]
    await rig.settle(job, 0)
    await rig.settle(job, 1, "failed", BAD)
    await rig.write(
        JobHalted(job=job, detail="halted after 1 failure"),
        TasksCancelled(job=job, wall=Wall(3)),
        JobEnded(job=job, state="cancelled", wall=Wall(4)),
    )
    assert await why(rig, view) == Note(
        text="The job is cancelled, halted after 1 failure: 1 done, 1 failed, 1 cancelled of 3.",
        suggestion=f"see `p2pq tasks {name}`; `p2pq retry {name}` runs what failed again, "
        "with --cancelled also what was cancelled",
    )
    assert await why(rig, view, 0) == Note(text="Task 0: done on worker.")
    assert await why(rig, view, 2) == Note(
        text="Task 2: cancelled.", suggestion=f"`p2pq retry {name}.2 --cancelled` runs it"
    )


async def test_a_job_that_was_only_cancelled_or_is_done(rig, folder, tmp_path):
    view = await rig.submit(folder, array="0-1")
    await rig.write(
        TasksCancelled(job=id_of(rig, view), wall=Wall(3)),
        JobEnded(job=id_of(rig, view), state="cancelled", wall=Wall(4)),
    )
    assert (await why(rig, view)).suggestion == f"`p2pq retry {view.job[:8]} --cancelled` runs the rest"
    done = await rig.submit(folder, results=str(tmp_path / "other"))
    await rig.settle(id_of(rig, done))
    await rig.write(JobEnded(job=id_of(rig, done), state="done", wall=Wall(4)))
    assert await why(rig, done) == Note(text="The job is done: 1 done, 0 failed, 0 cancelled of 1.")


async def test_a_search_that_is_done_although_tasks_failed_says_why(rig, folder):
    view = await rig.submit(folder, array="0-1")
    job = id_of(rig, view)
    await rig.settle(job, 0, "failed", BAD)
    await rig.settle(job, 1)
    await rig.write(JobEnded(job=job, state="done", wall=Wall(4)))
    text = "The job is done, as enough of its tasks succeeded: 1 done, 1 failed, 0 cancelled of 2."
    assert (await why(rig, view)).text == text


async def test_a_task_is_shown_with_every_attempt(rig, folder):
    view = await rig.submit(folder, array="0-2")
    job = id_of(rig, view)
    await lose(rig, job, 1, 1)
    await rig.settle(job, 1, "pending", Outcome(reason="exit", exit=3, run_ms=1500), attempt=2)
    granted = LeaseGranted(lease=LeaseId(2, 3), job=job, task=1, attempt=3, worker=WORKER, wall=Wall(1))
    await rig.write(granted)
    rig.scheduler.task = lambda job, task: TaskSnapshot(task=task, state="running", progress=500)
    task, lost, failed, running = await rig.ask(rig.jobs.explaining.attempts, control.Attempts(job=view.job, task=1))
    assert isinstance(task, TaskView)
    assert (task.state, task.attempts, task.progress) == ("running", 3, 0.5)
    begun = "1970-01-01T00:00:00Z"
    assert lost == AttemptView(
        attempt=1,
        node="worker",
        state="lost",
        granted=begun,
        ended="1970-04-11T00:00:00Z",
        reason="disk",
        detail="no room",
    )
    assert NOW == 100 * 24 * 3600 * 1000
    assert failed == AttemptView(
        attempt=2,
        node="worker",
        state="failed",
        granted=begun,
        ended=begun,
        exit=3,
        seconds=1.5,
        max_rss=0,
        reason="exit",
        counted=True,
    )
    assert running == AttemptView(attempt=3, node="worker", state="running", granted=begun)


# -- results that could not travel ------------------------------------------------------------------------------------

LEFT = ("pipe: is a pipe, a socket or a device", "out: a symlink leads outside the tree", "c: x", "d: y")


async def test_what_could_not_travel_is_said_wherever_its_owner_looks(rig, folder):
    view = await rig.submit(folder, array="5-8")
    job, name = id_of(rig, view), view.job[:8]
    await rig.settle(job, 1, "done", skipped=LEFT)
    await rig.settle(job, 2, "failed", BAD, skipped=LEFT[:1])
    await rig.settle(job, 3, "done")
    listed = "pipe: is a pipe, a socket or a device; out: a symlink leads outside the tree; c: x"
    assert await why(rig, view, 6) == Note(
        text=f"{rig.scheduler.reason} Of its results could not travel: {listed} and 1 more."
    )
    assert (await why(rig, view, 7)).text.endswith(f" Of its results could not travel: {LEFT[0]}.")
    task, attempt = await rig.ask(rig.jobs.explaining.attempts, control.Attempts(job=view.job, task=6))
    assert task.skipped == attempt.skipped == LEFT
    await rig.write(JobEnded(job=job, state="failed", wall=Wall(5)))
    said = f"task 6 and 1 more tasks left results behind that cannot travel ({listed}); see `p2pq show {name}.6`"
    note, change = await rig.ask(rig.jobs.watch, control.Watch(jobs=(view.job,)))
    assert note == Note(text=said)
    assert change.ended
    assert (await why(rig, view, 6)).text.startswith("Task 6: done on worker. Of its results could not travel: pipe")
    assert f" T{said[1:]}." in (await why(rig, view)).text


async def test_a_job_that_ends_says_it_to_those_who_wait(rig, folder):
    view = await rig.submit(folder)
    job = id_of(rig, view)
    waiting = asyncio.get_running_loop().create_task(rig.ask(rig.jobs.watch, control.Watch(jobs=(view.job,))))
    await asyncio.sleep(0)
    await rig.settle(job, 0, "done", skipped=LEFT[:1])
    await rig.write(JobEnded(job=job, state="done", wall=Wall(5)))
    rig.jobs.notice(facts.JobFinished(job=job, state="done"))
    *_, note, change = await waiting
    said = f"task 0 left results behind that cannot travel ({LEFT[0]}); see `p2pq show {view.job[:8]}.0`"
    assert note == Note(text=said)
    assert change.ended


async def test_a_task_without_a_results_folder_any_more_says_why_it_failed(rig, folder):
    view = await rig.submit(folder)
    said = "results is a link now, not a folder; nothing of it was taken along"
    await rig.settle(id_of(rig, view), 0, "failed", Outcome(reason="exit", exit=0), detail=said)
    task, attempt = await rig.ask(rig.jobs.explaining.attempts, control.Attempts(job=view.job, task=0))
    assert (task.reason, attempt.detail, task.skipped) == (said, said, ())
    assert f"({said} on worker)" in (await why(rig, view, 0)).text


async def test_a_job_whose_packages_cannot_be_had_says_which_to_those_who_wait(rig, folder):
    view = await rig.submit(folder)
    job = id_of(rig, view)
    said = []

    async def told():
        said.clear()
        await rig.jobs.explaining.say_why_waiting(job, keep)
        return [note.text for note in said]

    async def keep(note):
        said.append(note)

    assert await told() == ["still waiting: no machine has that label"]
    why = "environment of requirements.txt: x was not found"
    for attempt, detail in ((1, why), (2, "no room")):
        lease = LeaseId(2, attempt)
        granted = LeaseGranted(lease=lease, job=job, task=0, attempt=attempt, worker=WORKER, wall=Wall(1))
        await rig.write(
            granted, LeaseEnded(lease=lease, job=job, task=0, attempt=attempt, fault="sandbox", detail=detail)
        )
        assert await told() == ([f"still waiting: {why} (tried on worker)"] if attempt == 1 else [])
