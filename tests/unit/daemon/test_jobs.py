"""As master beside the core: submissions, results, and what people are told; test_homecoming.py has hostile results."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from p2pq.core.docket import GIVEN_UP
from p2pq.core.effects import Collect, Deliver, Emit
from p2pq.core.events import CancelAsked, Collected, CollectFailed, Delivered, DeliverFailed
from p2pq.core.records import JobEnded, Restored, RestoredJob, RestoredTask, TaskDelivered, TaskEnded
from p2pq.daemon import delivery
from p2pq.daemon import jobs as jobs_module
from p2pq.daemon.jobs import Watcher
from p2pq.errors import LinkError, RefusedError, Reject, StorageError, UsageError
from p2pq.model import notice as facts
from p2pq.model.ids import Wall, to_text
from p2pq.model.job import Outcome
from p2pq.wire import control, prims, sign
from p2pq.wire.control import Change, JobView, Note, TaskView
from p2pq.wire.objects import BlobRef, Manifest
from p2pq.wire.resultcontrol import Results, Wrote
from tests.unit.daemon.jobskit import AUTHOR, LEASE, id_of
from tests.unit.daemon.storekit import WORKER

# -- submitting ---------------------------------------------------------------------------------------------------------


async def test_a_submission_is_durable_before_it_is_said(rig, folder):
    (folder / "results").mkdir()
    replies = await rig.ask(rig.jobs.submit, control.Submit(folder=str(folder), array="0-4"))
    [note, view] = replies
    assert note == Note(text=f"the earlier results are in {folder}/results.~1~")
    assert isinstance(view, JobView)
    assert (view.state, view.tasks.total, view.tasks.pending, view.owner) == ("queued", 5, 5, "alice")
    [submitted] = rig.posted
    manifest = sign.open_signed(submitted.manifest, Manifest, AUTHOR.node)
    assert (to_text(manifest.job), manifest.only) == (view.job, b"")


@pytest.mark.parametrize(("where", "notes"), [("any", 1), ("local", 1), ("worker", 0)])
async def test_a_machine_without_a_sandbox_says_so_where_it_matters(rig, folder, where, notes):
    rig.jobs._unprotected = lambda: "without a sandbox: bubblewrap is not installed"
    *said, _ = await rig.ask(rig.jobs.submit, control.Submit(folder=str(folder), where=where))
    assert (
        said == [Note(text="tasks that run on this machine run without a sandbox: bubblewrap is not installed")] * notes
    )


@pytest.mark.parametrize(("where", "only"), [("local", AUTHOR.node), ("worker", WORKER)])
async def test_where_names_the_only_node(rig, folder, where, only):
    await rig.submit(folder, where=where)
    assert sign.open_signed(rig.posted[0].manifest, Manifest, AUTHOR.node).only == only


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"where": "nobody"}, RefusedError, "no such node"),
        ({"sandbox": "none"}, UsageError, "--where local"),
        ({"array": "x"}, UsageError, "--array"),
        ({"results": "/proc/self/status/x"}, RefusedError, "--results DIR"),
    ],
)
async def test_a_refused_submission_leaves_nothing(rig, folder, options, error, words):
    with pytest.raises(error, match=words):
        await rig.submit(folder, **options)
    assert rig.posted == []
    await rig.submit(folder)  # the place for results is free again


async def test_two_live_jobs_never_share_a_results_folder(rig, folder):
    view = await rig.submit(folder)
    with pytest.raises(RefusedError, match=f"job {view.job[:8]} still returns results to {folder}/results"):
        await rig.submit(folder)
    await rig.submit(folder, results=str(folder.parent / "other"))
    await rig.write(JobEnded(job=id_of(rig, view), state="done", wall=Wall(5)))
    await rig.submit(folder)


async def test_a_client_that_goes_away_while_the_folder_is_packed(rig, folder, monkeypatch):
    loop, begun, over = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def prepare(*args, given_up, **kwargs):
        loop.call_soon_threadsafe(begun.set)
        while not given_up():
            time.sleep(0.001)
        loop.call_soon_threadsafe(over.set)
        raise RefusedError("interrupted")

    monkeypatch.setattr(jobs_module.submission, "prepare", prepare)
    task = loop.create_task(rig.submit(folder))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await over.wait()
    monkeypatch.undo()
    assert rig.posted == []
    await rig.submit(folder)


# -- results ------------------------------------------------------------------------------------------------------------


async def test_a_result_is_collected_from_the_worker_and_from_the_message(rig, folder):
    job = id_of(rig, await rig.submit(folder))
    item, parts = rig.result(job, store=False)
    rig.transfers.has = parts
    rig.jobs.home.collect(Collect(lease=LEASE, peer=WORKER, blobs=item.body))
    assert await rig.event() == Collected(lease=LEASE)
    assert all(rig.blobs.has(blob) for blob in parts)
    stray = b"nobody asked for this"
    inline = b"small"
    ref = BlobRef(prims.blob_id(inline), len(inline))
    rig.jobs.home.collect(Collect(lease=LEASE, peer=WORKER, blobs=(ref,), inline=(stray, inline)))
    assert await rig.event() == Collected(lease=LEASE)
    assert rig.blobs.has(ref.blob)
    assert not rig.blobs.has(prims.blob_id(stray))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LinkError("the peer is gone"), "the peer is gone"),
        (StorageError("the disk is full"), "the disk is full"),
        (ZeroDivisionError(), "an internal error, see node.log"),
    ],
)
async def test_a_result_that_cannot_be_had_now_is_asked_for_again(rig, folder, error, reason):
    job = id_of(rig, await rig.submit(folder))
    item, _ = rig.result(job, store=False)
    rig.transfers.error = error
    watcher = rig.jobs.watcher(job)
    rig.jobs.home.collect(Collect(lease=LEASE, peer=WORKER, blobs=item.body))
    assert await rig.event() == CollectFailed(lease=LEASE, reason=reason)
    [why] = await rig.ask(rig.jobs.explaining.why, control.Why(job=to_text(job)))
    assert ("results cannot be taken in: the disk is full" in why.text) == isinstance(error, StorageError)
    rig.jobs.unwatch(watcher)


async def test_results_are_written_out(rig, folder):
    job = id_of(rig, await rig.submit(folder))
    await rig.settle(job)
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    delivered = await rig.event()
    assert isinstance(delivered, Delivered)
    assert (delivered.job, delivered.task) == (job, 0)
    assert (folder / "results").is_dir()


@pytest.mark.parametrize(
    ("outcome", "names"),
    [(Outcome(reason="ok"), ["out.txt"]), (Outcome(reason="exit", exit=1), [".checkpoint", "out.txt"])],
)
async def test_a_checkpoint_is_written_out_only_where_it_may_explain_a_failure(rig, folder, outcome, names):
    job = id_of(rig, await rig.submit(folder))
    state = "done" if outcome.ok else "failed"
    item = await rig.settle(job, state=state, outcome=outcome, files=("out.txt", ".checkpoint/state"))
    rig.blobs.pin(("checkpoint", LEASE), [ref.blob for ref in item.body])
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    await rig.event()
    assert sorted(path.name for path in (folder / "results").iterdir()) == names
    assert ("checkpoint", LEASE) not in rig.blobs._tags


@pytest.mark.parametrize("how", ["gone", "damaged", "damaged-unread"])
async def test_results_that_are_lost_here_are_void(rig, folder, how):
    """They were whole when they came: their worker has let go of them, and trying again cannot help."""
    job = id_of(rig, await rig.submit(folder))
    item = await rig.settle(job, printed="some output")
    rig.blobs.pin(("result", item.lease), [ref.blob for ref in item.body])
    path = rig.blobs._path(item.body[0].blob)
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"rotten")
    if how == "damaged-unread":
        rig.blobs._unchecked.add(item.body[0].blob)
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    failed = await rig.event()
    assert (failed.void, failed.refused) == (True, False)
    assert failed.reason.startswith("the results are damaged on this machine's disk (")
    assert ("result", item.lease) not in rig.blobs._tags
    rig.jobs.notice(facts.TaskResultsLost(job=job, task=0, reason=failed.reason))
    [why] = await rig.ask(rig.jobs.explaining.why, control.Why(job=to_text(job)))
    assert why.text == f"task 0 runs again: {failed.reason}"


async def test_results_that_never_were_what_they_should_be_are_refused(rig, folder, monkeypatch):
    job = id_of(rig, await rig.submit(folder))
    await rig.settle(job)

    def write(*_, **__):
        raise Reject("a chunk does not decompress")

    monkeypatch.setattr(delivery, "write", write)
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    refused = DeliverFailed(job=job, task=0, reason="a chunk does not decompress", refused=True)
    assert await rig.event() == refused

    def unreadable(_):
        raise StorageError("Input/output error")

    monkeypatch.setattr(rig.blobs, "verify", unreadable)
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    assert await rig.event() == refused


async def test_cancelling_says_what_becomes_of_results_that_cannot_be_written(rig, folder, tmp_path):
    view = await rig.submit(folder, array="5-6")
    job, name = id_of(rig, view), view.job[:8]
    items = [await rig.settle(job, task, files=("out.txt",)) for task in (0, 1)]
    rig.jobs.notice(facts.TaskResultsStuck(job=job, task=0, reason="no room"))
    note, _ = await rig.ask(rig.jobs.cancel, control.CancelJob(job=view.job, task=5))
    assert note.text.endswith(f"; `p2pq cancel {name}` again gives up what cannot be written")
    given_up = [facts.TaskSettled(job=job, task=task, attempt=1, state="cancelled", detail=GIVEN_UP) for task in (0, 1)]

    async def give_up(event):
        assert isinstance(event, CancelAsked)
        rows = [TaskEnded(job=job, task=task, state="cancelled", detail=GIVEN_UP, wall=Wall(9)) for task in (0, 1)]
        await rig.write(*rows, JobEnded(job=job, state="cancelled", wall=Wall(9)))
        return [Emit(notice=each) for each in given_up]

    rig.jobs._post_durable = give_up
    note, shown = await rig.ask(rig.jobs.cancel, control.CancelJob(job=view.job))
    assert note.text == (
        f"results of 2 tasks could not be written to {folder}/results and are given up; "
        f"`p2pq results {name} --to DIR` has them as long as the store has room"
    )
    assert (shown.state, shown.tasks.cancelled) == ("cancelled", 2)
    for item, told in zip(items, given_up, strict=True):
        rig.blobs.pin(("result", item.lease), [ref.blob for ref in item.body])
        rig.jobs.notice(told)
        assert ("result", item.lease) not in rig.blobs._tags
    task, _ = await rig.ask(rig.jobs.tasks, control.Tasks(job=view.job))
    assert (task.state, task.reason, task.results) == ("cancelled", GIVEN_UP, None)
    rig.jobs.notice(facts.JobFinished(job=job, state="cancelled"))
    [why] = await rig.ask(rig.jobs.explaining.why, control.Why(job=view.job, task=5))
    assert why.suggestion == f"`p2pq results {name} --to DIR` has them"
    [wrote] = await rig.ask(rig.jobs.results, Results(job=view.job, to=str(tmp_path / "to")))
    assert wrote.tasks == 2
    assert (tmp_path / "to/6/out.txt").exists()


async def test_results_that_can_never_be_written_there_are_not_tried_again(rig, folder, monkeypatch):
    job = id_of(rig, await rig.submit(folder))
    item = await rig.settle(job)
    rig.blobs.pin(("result", item.lease), [ref.blob for ref in item.body])

    def write(*_, **__):
        raise delivery.UndeliverableError("/home: File name too long")

    monkeypatch.setattr(delivery, "write", write)
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    reason = f"/home: File name too long; `p2pq results {to_text(job)[:8]} --to DIR` writes them elsewhere"
    assert await rig.event() == DeliverFailed(job=job, task=0, reason=reason, refused=True)
    assert ("result", item.lease) not in rig.blobs._tags


async def test_what_a_delivery_left_half_written_goes_with_the_next_one(rig, folder, monkeypatch):
    """A disk that turns read-only lets nothing be removed, either."""
    job = id_of(rig, await rig.submit(folder))
    await rig.settle(job)
    half, write = folder / f"{delivery.STAGING_PREFIX}abcdefgh", delivery.write

    def fails(*_, **__):
        half.mkdir()
        (half / "out.txt").touch()
        raise StorageError("Read-only file system")

    monkeypatch.setattr(delivery, "write", fails)
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    assert await rig.event() == DeliverFailed(job=job, task=0, reason="Read-only file system")
    monkeypatch.setattr(delivery, "write", write)
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    assert isinstance(await rig.event(), Delivered)
    assert not half.exists()


async def test_results_that_cannot_be_written_out_are_kept_and_said(rig, folder):
    job = id_of(rig, await rig.submit(folder))
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    assert await rig.event() == DeliverFailed(job=job, task=0, reason="the store has no such result")
    await rig.settle(job)
    folder.rename(folder.with_name("moved"))
    folder.write_text("a file in its place")
    rig.jobs.home.deliver(Deliver(job=job, task=0))
    failed = await rig.event()
    assert isinstance(failed, DeliverFailed)
    assert "mend it" in failed.reason
    rig.jobs.notice(facts.TaskResultsStuck(job=job, task=0, reason="no room"))
    [why] = await rig.ask(rig.jobs.explaining.why, control.Why(job=to_text(job)))
    assert why.text.startswith("results cannot be written out: no room; nothing is lost")
    rig.jobs.notice(facts.TaskResultsWritten(job=job, task=0))
    [why] = await rig.ask(rig.jobs.explaining.why, control.Why(job=to_text(job)))
    assert why.text == rig.scheduler.reason


async def test_results_once_more_and_elsewhere(rig, folder, tmp_path):
    view = await rig.submit(folder, array="0-1")
    with pytest.raises(RefusedError, match="no results yet"):
        await rig.ask(rig.jobs.results, Results(job=view.job))
    await rig.settle(id_of(rig, view), task=1)
    to = tmp_path / "copy"
    assert await rig.ask(rig.jobs.results, Results(job=view.job, to=str(to))) == [Wrote(folder=str(to), tasks=1)]
    assert (to / "1").is_dir()
    with pytest.raises(RefusedError, match="not empty; name another with --to"):
        await rig.ask(rig.jobs.results, Results(job=view.job, to=str(to)))
    with pytest.raises(RefusedError, match="name another with --to"):
        await rig.ask(rig.jobs.results, Results(job=view.job, to=f"{folder}/main.py"))


async def test_after_a_start_live_jobs_and_undelivered_results_are_held(rig, folder, monkeypatch):
    job = id_of(rig, await rig.submit(folder))
    item = await rig.settle(job)
    held = {}
    monkeypatch.setattr(rig.blobs, "pin", lambda tag, blobs: held.setdefault(tag, set()).update(blobs))
    rig.jobs.home.pin_live(Restored())
    assert held[("result", LEASE)] == {ref.blob for ref in item.body}
    assert held[job]
    await rig.write(TaskDelivered(job=job, task=0))
    held.clear()
    rig.jobs.home.pin_live(Restored())
    assert set(held) == {job}


async def test_after_a_start_checkpoints_are_held(rig, folder):
    job = id_of(rig, await rig.submit(folder))
    item = msgspec.structs.replace(rig.result(job)[0], checkpoint=True)
    tasks = (RestoredTask(task=0, state="pending", checkpoint=item), RestoredTask(task=1, state="running"))
    kept = RestoredJob(job=job, manifest=b"", key=b"", reply_secret=b"", wall=Wall(1), tasks=tasks)
    rig.jobs.home.pin_live(Restored(jobs=(kept,)))
    assert rig.blobs._tags["checkpoint", LEASE] == {ref.blob for ref in item.body}


# -- telling ------------------------------------------------------------------------------------------------------------


async def test_jobs_show_and_tasks(rig, folder, tmp_path):
    first = await rig.submit(folder, array="3,5", sweep=("k=a,b",))
    second = await rig.submit(folder, results=str(tmp_path / "second"))
    assert await rig.ask(rig.jobs.jobs, control.Jobs(limit=1)) == [second]
    assert await rig.ask(rig.jobs.show, control.Show(job=first.job[:6])) == [first]
    await rig.settle(id_of(rig, first), task=2, state="failed", outcome=Outcome(reason="exit", exit=3, run_ms=1500))
    tasks = await rig.ask(rig.jobs.tasks, control.Tasks(job=first.job))
    assert [task.state for task in tasks] == ["pending", "pending", "failed", "pending"]
    assert [task.params for task in tasks][2] == {"array": "5", "k": "a"}
    assert (tasks[2].exit, tasks[2].seconds, tasks[2].node, tasks[2].attempts) == (3, 1.5, "worker", 1)
    [why] = await rig.ask(rig.jobs.explaining.why, control.Why(job=first.job))
    assert why == Note(text=rig.scheduler.reason)


async def test_cancelling_is_durable_before_it_is_said_and_done_once(rig, folder):
    view = await rig.submit(folder, array="0-2")
    [after] = await rig.ask(rig.jobs.cancel, control.CancelJob(job=view.job, task=1))
    assert rig.posted[-1].task == 1
    assert after.tasks.cancelled == 3
    await rig.write(JobEnded(job=id_of(rig, view), state="cancelled", wall=Wall(9)))
    count = len(rig.posted)
    [after] = await rig.ask(rig.jobs.cancel, control.CancelJob(job=view.job))
    assert (after.state, len(rig.posted)) == ("cancelled", count)
    [why] = await rig.ask(rig.jobs.explaining.why, control.Why(job=view.job))
    assert "3 cancelled of 3" in why.text
    [why] = await rig.ask(rig.jobs.explaining.why, control.Why(job=view.job, task=2))
    assert why.text.startswith("Task 2")
    assert "cancelled" in why.text


async def test_watching_until_the_end(rig, folder):
    view = await rig.submit(folder)
    job = id_of(rig, view)
    watching = asyncio.get_running_loop().create_task(rig.ask(rig.jobs.watch, control.Watch(jobs=(view.job,))))
    await asyncio.sleep(0)
    await rig.settle(job, state="failed", outcome=Outcome(reason="exit", exit=7))
    rig.jobs.notice(facts.TaskSettled(job=job, task=0, state="failed", worker=WORKER, attempt=1))
    await rig.write(JobEnded(job=job, state="failed", wall=Wall(9)))
    rig.jobs.notice(facts.JobFinished(job=job, state="failed"))
    async with asyncio.timeout(10):
        said = await watching
    assert all(isinstance(change, Change) for change in said)
    assert (said[0].ended, said[0].progress) == (False, 0.0)
    assert [change.task.exit for change in said if change.task is not None] == [7]
    assert isinstance(said[1].task, TaskView)
    assert (said[-1].ended, said[-1].job.state, said[-1].progress) == (True, "failed", 1.0)
    assert await rig.ask(rig.jobs.watch, control.Watch(jobs=(view.job,))) == [rig.sent[-1]]


async def test_a_job_that_nobody_takes_says_why_and_trouble_is_said_once(rig, folder, monkeypatch):
    monkeypatch.setattr(jobs_module, "WAIT_WHY_S", 0.05)
    view = await rig.submit(folder)
    job = id_of(rig, view)
    watching = asyncio.get_running_loop().create_task(rig.ask(rig.jobs.watch, control.Watch(jobs=(view.job,))))
    async with asyncio.timeout(10):
        await rig.noted.wait()
        for _ in range(3):
            rig.jobs.notice(facts.TaskResultsStuck(job=job, task=0, reason="no room"))
            await asyncio.sleep(0.15)
        await rig.write(JobEnded(job=job, state="done", wall=Wall(9)))
        rig.jobs.notice(facts.JobFinished(job=job, state="done"))
        said = await watching
    notes = [reply.text for reply in said if isinstance(reply, Note)]
    assert notes[0] == "still waiting: no machine has that label"
    assert len(notes) == 2
    assert notes[1].startswith("results cannot be written out: no room")


async def test_watchers_are_bounded_and_a_slow_one_loses_only_details(rig, folder, monkeypatch):
    view = await rig.submit(folder)
    monkeypatch.setattr(jobs_module, "WATCHERS_MAX", 1)
    watcher = rig.jobs.watcher(id_of(rig, view))
    with pytest.raises(RefusedError, match="end some of them"):
        await rig.ask(rig.jobs.watch, control.Watch(jobs=(view.job,)))
    rig.jobs.unwatch(watcher)
    monkeypatch.setattr(jobs_module, "WATCH_QUEUE_MAX", 2)
    slow = Watcher(frozenset({b"j"}))
    for task in range(5):
        slow.tell(b"j", task, ended=False)
    assert [slow.queue.get_nowait()[1] for _ in range(2)] == [3, 4]
    assert slow.lost


async def test_the_end_of_a_job_is_not_lost_among_many_changes(rig, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "WATCH_QUEUE_MAX", 2)
    views = [await rig.submit(folder, results=str(tmp_path / name)) for name in "ab"]
    one, other = (id_of(rig, view) for view in views)
    names = tuple(view.job for view in views)
    watching = asyncio.get_running_loop().create_task(rig.ask(rig.jobs.watch, control.Watch(jobs=names)))
    await asyncio.sleep(0)
    await rig.write(*(JobEnded(job=job, state="done", wall=Wall(9)) for job in (one, other)))
    rig.jobs.notice(facts.JobFinished(job=one, state="done"))
    for _ in range(5):
        rig.jobs.notice(facts.JobFinished(job=other, state="done"))
    async with asyncio.timeout(10):
        assert {change.job.job for change in await watching if change.ended} == set(names)


def test_results_go_below_the_folder_unless_said_otherwise():
    assert jobs_module._results_folder(control.Submit(folder="/a/b/")) == "/a/b/results"
    assert jobs_module._results_folder(control.Submit(folder="/a/b", results="/c/../d")) == str(Path("/d"))


@pytest.mark.parametrize("results", ["", "/..", "/../..", "/link"])
async def test_results_never_take_the_place_of_what_is_submitted(rig, tmp_path, results):
    folder = tmp_path / "work/project"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text("")
    (folder / "link").symlink_to(folder.parent)
    request = control.Submit(folder=str(folder), results=f"{folder}{results}" if results else str(folder))
    with pytest.raises(UsageError, match="holds the folder"):
        await rig.jobs.submit(request, None)
    assert (folder / "main.py").exists()


async def test_no_job_is_taken_while_the_node_changes_its_mesh(rig, tmp_path):
    request = control.Submit(folder=str(tmp_path))
    with rig.jobs.held("joining another mesh"):
        with pytest.raises(RefusedError, match="joining another mesh"):
            await rig.jobs.submit(request, None)
        with pytest.raises(RefusedError), rig.jobs.held("founding another mesh"):
            pass
    rig.jobs._submitting.add("/results")
    with pytest.raises(RefusedError, match="being submitted"), rig.jobs.held("joining another mesh"):
        pass
