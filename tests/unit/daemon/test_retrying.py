"""Failed tasks again, beside a real store; the core's part is in test_docket."""

import asyncio

import msgspec
import pytest

from p2pq.core.events import RetryAsked
from p2pq.core.records import JobEnded, TaskDelivered, TaskEnded, TasksCancelled
from p2pq.daemon import retrying
from p2pq.errors import RefusedError
from p2pq.model import notice as facts
from p2pq.model.ids import MeshId, Wall
from p2pq.model.job import Outcome
from p2pq.wire import control, prims, sign
from p2pq.wire.objects import Manifest
from p2pq.wire.resultcontrol import Results
from tests.unit.daemon.jobskit import AUTHOR, id_of

BAD = Outcome(reason="exit", exit=3)


async def retry(rig, view, task=None, *, cancelled=False):
    [again] = await rig.ask(rig.jobs.retrying.retry, control.Retry(job=view.job[:8], task=task, cancelled=cancelled))
    return again


async def ended(rig, folder, state="failed"):
    """A job of three tasks that has ended: one is done, one failed, the last was cancelled."""
    view = await rig.submit(folder, array="0-2")
    job = id_of(rig, view)
    await rig.settle(job, 0)
    await rig.settle(job, 1, state, BAD)
    (folder / "results").mkdir()
    await rig.write(TaskDelivered(job=job, task=0), TaskDelivered(job=job, task=1))
    await rig.write(TasksCancelled(job=job, wall=Wall(3)), JobEnded(job=job, state="failed", wall=Wall(4)))
    rig.jobs.notice(facts.JobFinished(job=job, state="failed"))
    return view, job


def manifest_of(rig, job):
    return sign.open_signed(rig.store.secret(job).manifest, Manifest, AUTHOR.node)


def held(rig, job):
    """Whether the files of a job are safe from making room."""
    return rig.blobs._pinned.keys() >= {ref.blob for ref in manifest_of(rig, job).body}


async def test_an_ended_job_lives_again_durably_with_its_files_held(rig, folder, opened):
    view, job = await ended(rig, folder)
    assert not held(rig, job)
    again = await retry(rig, view)
    assert (again.state, again.finished, again.tasks.pending, again.tasks.cancelled) == ("running", None, 1, 1)
    assert held(rig, job)
    restored = await opened.reopened()
    assert [(task.task, task.state) for task in restored.jobs[0].tasks] == [(0, "done"), (1, "pending")]
    assert restored.jobs[0].cancelled


async def test_results_that_are_gone_or_not_the_latest_there(rig, folder):
    view, _ = await ended(rig, folder)
    (folder / "results").rmdir()
    note, again = await rig.ask(rig.jobs.retrying.retry, control.Retry(job=view.job[:8]))
    assert note.text == f"{folder}/results is not there any more; it is made anew for what runs again"
    assert again.state == "running"
    other = folder.parent / "other"
    folder.rename(other)
    view, _ = await ended(rig, other)
    (other / "results").rmdir()
    newer = await rig.submit(other)
    await rig.write(JobEnded(job=id_of(rig, newer), state="failed", wall=Wall(6)))
    with pytest.raises(RefusedError, match=f"newer results, of job {newer.job[:8]}, lie in .* or with --results DIR"):
        await retry(rig, view)
    with pytest.raises(RefusedError, match=f"`p2pq results {view.job[:8]} --to DIR`"):
        await rig.ask(rig.jobs.results, Results(job=view.job))


async def test_cancelled_tasks_only_if_told(rig, folder):
    view, _ = await ended(rig, folder)
    with pytest.raises(RefusedError, match="task 2 was cancelled; add --cancelled"):
        await retry(rig, view, 2)
    again = await retry(rig, view, cancelled=True)
    assert (again.tasks.pending, again.tasks.cancelled) == (2, 0)


async def test_a_live_job_is_asked_at_once(rig, folder):
    view, job = await ended(rig, folder)
    await retry(rig, view)
    await rig.write(TaskEnded(job=job, task=1, state="failed", detail="x", wall=Wall(9)))
    rig.docket.jobs[job].pending.remove(1)
    rig.docket.jobs[job].settle(1, "failed", deliver=False)
    rig.posted.clear()
    await retry(rig, view, 1)
    [asked] = rig.posted
    assert (asked.task, asked.ended) == (1, None)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (0, "task 0 is done; only tasks that failed"),
        (None, "no task of job .* failed, 1 were cancelled; add --cancelled"),
    ],
)
async def test_what_did_not_fail_is_not_run_again(rig, folder, task, words):
    view, _ = await ended(rig, folder, "done")
    with pytest.raises(RefusedError, match=words):
        await retry(rig, view, task)
    live = await rig.submit(folder, array="0-2")
    with pytest.raises(RefusedError, match=r"nothing to run again: 0 tasks of job .* are done, none failed, 3 go on"):
        await retry(rig, live)


async def test_a_job_whose_files_are_gone_is_to_be_sent_again(rig, folder):
    view, job = await ended(rig, folder)
    rig.blobs.discard([ref.blob for ref in manifest_of(rig, job).body])
    with pytest.raises(RefusedError, match=f"p2pq submit --resume {folder}"):
        await retry(rig, view)
    assert not held(rig, job)
    assert rig.store.job(job).state == "failed"


async def test_two_jobs_never_return_to_one_folder(rig, folder):
    view, _ = await ended(rig, folder)
    (folder / "results").rmdir()
    other = await rig.submit(folder)
    with pytest.raises(RefusedError, match=f"job {other.job[:8]} still returns results to"):
        await retry(rig, view)


async def test_a_job_of_another_mesh_key_or_time_is_not_opened(rig, folder, monkeypatch):
    view, job = await ended(rig, folder)
    author = rig.jobs.retrying._author
    monkeypatch.setattr(retrying, "_now", lambda: Wall(1 << 47))
    with pytest.raises(RefusedError, match="is too old"):
        await retry(rig, view)
    monkeypatch.undo()
    for other, words in (
        ({"mesh": MeshId(b"o" * 32)}, "belongs to another mesh"),
        ({"node": prims.SigningKey(b"o" * 32).public}, "another node key"),
    ):
        fields = {"node": author.node, "secret": author.secret, "mesh": author.mesh, "owner": author.owner}
        rig.jobs.retrying._author = type(author)(**(fields | other))
        with pytest.raises(RefusedError, match=words):
            await retry(rig, view)
    assert not held(rig, job)


async def test_results_that_are_on_their_way_are_waited_for(rig, folder):
    view = await rig.submit(folder)
    await rig.settle(id_of(rig, view), 0, "failed", BAD)
    with pytest.raises(RefusedError, match="on their way to its folder; try again"):
        await retry(rig, view)
    assert [type(event) for event in rig.posted[1:]] == [RetryAsked, RetryAsked]


async def test_a_job_that_is_gone_or_that_another_was_faster_with(rig, folder, monkeypatch):
    view, job = await ended(rig, folder)
    monkeypatch.setattr(rig.store, "ended_job", lambda job: None)
    with pytest.raises(RefusedError, match="is being let go of"):
        await retry(rig, view)
    monkeypatch.undo()
    old = rig.store.ended_job(job)
    stale = msgspec.structs.replace(old, tasks=(old.tasks[0],))
    monkeypatch.setattr(rig.store, "ended_job", lambda job: stale)
    with pytest.raises(RefusedError, match="try again in a moment"):
        await retry(rig, view)
    assert not held(rig, job)


async def test_a_disk_that_fails_leaves_nothing_held(rig, folder, monkeypatch):
    view, job = await ended(rig, folder)

    async def fail(event):
        await asyncio.sleep(0)
        raise RefusedError("no")

    rig.jobs.retrying._post_durable = fail
    with pytest.raises(RefusedError, match="no"):
        await retry(rig, view)
    assert not held(rig, job)
