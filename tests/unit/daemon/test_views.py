"""Jobs and tasks as people see them."""

import msgspec
import pytest

from p2pq.core.placement import TaskSnapshot
from p2pq.core.through import cluster_of
from p2pq.core.views import Policy, Spoken
from p2pq.daemon.history import AttemptRow, JobExtra, JobRow, Kept, TaskRow
from p2pq.daemon.submission import Sweep
from p2pq.daemon.views import attempt_view, job_view, policy_view, rfc3339, spoken_view, task_view
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Outcome
from p2pq.model.owner import Verdict
from p2pq.model.params import parse_array, parse_sweep
from p2pq.wire.parts import LeafView, PolicyView

JOB = JobId(b"j" * 16)
OTHER = JobId(b"o" * 16)
WORKER = NodeId(b"w" * 32)
EXTRA = JobExtra(name="sim", folder="/f", results="/f/results", tasks=10)
SWEEP = Sweep(parse_array("10-19"), ())


def job(**fields):
    return job_view(JobRow(job=JOB, submitted=Wall(0), extra=EXTRA, **fields), "alice")


def attempt(**fields):
    return AttemptRow(
        **({"task": 3, "attempt": 2, "lease": LeaseId(1, 1), "worker": WORKER, "granted": Wall(1)} | fields)
    )


def task(row, live=None, *, cancelled=False, sweep=SWEEP, extra=EXTRA):
    return task_view(row, 3, sweep, extra, lambda node: f"<{node[:1].decode()}>", live, cancelled=cancelled)


def row(state, last, **fields):
    settled = {"failures": 0, "faults": 0, "detail": "", "delivered": False, "ended": None, **fields}
    return TaskRow(task=3, state=state, attempts=2, last=last, **settled)


def test_a_bridge_below_is_one_line_of_those_that_a_bridge_speaks_for():
    below, leaf = NodeId(b"b" * 32), NodeId(b"l" * 32)
    names = {WORKER: "master", below: "gate", cluster_of(below): "gate", leaf: "leaf"}
    spoken = Spoken(WORKER, 2, ((below, 1), (leaf, 0), (cluster_of(below), 3)))
    view = spoken_view(spoken, names.__getitem__)
    assert (view.node, view.stock) == ("master", 2)
    assert view.leaves == (LeafView(node="gate", attempts=4), LeafView(node="leaf", attempts=0))


def test_times_are_utc_to_the_second():
    assert rfc3339(1_700_000_000_999) == "2023-11-14T22:13:20Z"


def test_a_job_goes_from_queued_to_its_end():
    assert job().state == "queued"
    assert job(attempts=1).state == "running"
    done = job(attempts=10, done=10, state="done", ended=Wall(61_000))
    assert (done.state, done.finished, done.submitted) == ("done", "1970-01-01T00:01:01Z", "1970-01-01T00:00:00Z")
    assert (done.name, done.owner, done.results, done.folder) == ("sim", "alice", "/f/results", "/f")


def test_every_task_of_a_job_is_counted_once():
    for view in (
        job(done=2, failed=1, running=3, attempts=6),
        job(done=2, failed=1, running=3, cancelled=True),
        job(done=2, cancelled_tasks=3),
        job(done=2, cancelled_tasks=30),
        job(done=30),
    ):
        counts = view.tasks
        assert counts.pending + counts.running + counts.done + counts.failed + counts.cancelled == max(10, counts.done)
    assert job(done=2, failed=1, running=3).tasks.pending == 4
    assert job(done=2, failed=1, running=3, cancelled=True).tasks.cancelled == 4
    assert job(done=2, cancelled_tasks=3).tasks.cancelled == 3
    some_again = job(done=2, failed=1, running=3, cancelled=True, waiting=1)
    assert (some_again.tasks.cancelled, some_again.tasks.pending) == (3, 1)


def test_a_job_of_which_only_the_id_is_known_is_shown():
    view = job_view(JobRow(job=JOB, submitted=Wall(0)), "alice")
    assert (view.name, view.tasks.total, view.results) == ("", 0, "")


def test_a_task_without_history():
    assert task(None).state == "pending"
    assert task(None, cancelled=True).state == "cancelled"
    assert (task(None).task, task(None).params) == (13, {"array": "13"})
    swept = task(None, sweep=Sweep((), (parse_sweep("k=a,b,c,d"),)))
    assert (swept.task, swept.params) == (3, {"k": "d"})


def written(tmp_path, extra=EXTRA):
    """Return a job of which task 13 has left something."""
    (tmp_path / "13").mkdir()
    return msgspec.structs.replace(extra, results=str(tmp_path))


def test_a_task_that_ended(tmp_path):
    outcome = Outcome(reason="exit", exit=3, run_ms=2500, max_rss=7)
    ended = row("failed", attempt(outcome=outcome), delivered=True)
    assert task(ended).results is None, "it left nothing, so no folder was made"
    view = task(ended, extra=written(tmp_path))
    assert (view.state, view.exit, view.signal, view.seconds, view.max_rss) == ("failed", 3, None, 2.5, 7)
    assert (view.node, view.attempt, view.attempts, view.reason) == ("<w>", 2, 2, "exit")
    assert view.results == str(tmp_path / "13")
    killed = task(row("failed", attempt(outcome=Outcome(reason="signal", signal=9))))
    assert (killed.exit, killed.signal, killed.results) == (None, 9, None)


def test_why_a_task_came_to_nothing():
    assert task(row("failed", None, detail="lost too often")).reason == "lost too often"
    assert task(row("pending", attempt(fault="disk", detail="no room"))).reason == "disk: no room"
    assert task(row("pending", attempt(fault="lost"))).reason == "lost"
    assert task(row("running", attempt(fault="lost"))).reason is None
    assert task(row("pending", attempt()), cancelled=True).state == "pending"  # it was let wait again
    assert task(row("done", attempt()), cancelled=True).state == "done"


def test_progress_is_what_the_core_knows():
    running = row("running", attempt())
    assert task(running, TaskSnapshot(task=3, state="running", progress=250)).progress == 0.25
    assert task(running, TaskSnapshot(task=3, state="running")).progress is None


def test_where_a_cluster_runs_a_task_is_what_the_core_knows():
    running, leaf, bridge = row("running", attempt()), NodeId(b"l" * 32), NodeId(b"b" * 32)
    live = TaskSnapshot(task=3, state="running", worker=leaf, via=(bridge,))
    assert (task(running, live).node, task(running, live).via) == ("<l>", ("<b>",))
    same = TaskSnapshot(task=3, state="running", worker=WORKER)
    for other in (same, TaskSnapshot(task=3, state="running"), TaskSnapshot(task=3, state="pending", worker=leaf)):
        assert (task(running, other).node, task(running, other).via) == ("<w>", ())


def test_as_long_as_no_leaf_is_known_to_have_it_an_attempt_is_at_the_bridge():
    bridge = NodeId(b"b" * 32)
    last = attempt(worker=cluster_of(bridge), via=(bridge,))
    live = TaskSnapshot(task=3, state="running", worker=cluster_of(bridge), via=(bridge,))
    for view in (task(row("running", last)), task(row("running", last), live), task(row("running", attempt()), live)):
        assert (view.node, view.via) == ("<b>", ())
    shown = attempt_view(last, lambda node: f"<{node[:1].decode()}>")
    assert (shown.node, shown.via) == ("<b>", ())


def test_kept_tasks_are_done_and_say_where_they_come_from(tmp_path):
    extra = msgspec.structs.replace(EXTRA, kept=(Kept(0, 2, JOB, 0), Kept(3, 4, OTHER, 7)))
    view = job_view(JobRow(job=JOB, submitted=Wall(0), extra=extra, done=1, halted="halted after 1 task"), "alice")
    assert (view.tasks.done, view.tasks.pending, view.kept, view.halted) == (4, 6, 3, "halted after 1 task")
    kept = task_view(None, 3, SWEEP, written(tmp_path, extra), lambda _: "", cancelled=True)
    assert (kept.state, kept.reason, kept.results) == ("done", "kept from job n5xw633p", str(tmp_path / "13"))
    assert task_view(None, 2, SWEEP, extra, lambda _: "").state == "pending"
    assert [extra.origin(index) for index in (1, 2, 3, 4)] == [(JOB, 1), None, (OTHER, 7), None]


def test_every_end_of_an_attempt():
    def shown(**fields):
        return attempt_view(attempt(**fields), lambda node: "ann")

    assert shown().state == "running"
    assert (shown(outcome=Outcome(reason="ok", exit=0)).state, shown(fault="lost").state) == ("done", "lost")
    failed = shown(outcome=Outcome(reason="exit", exit=3), ended=Wall(1000), counted=False)
    assert (failed.state, failed.exit, failed.counted, failed.ended) == ("failed", 3, False, "1970-01-01T00:00:01Z")


def test_skipped_tasks_are_done_and_say_that_they_ran_before():
    extra = msgspec.structs.replace(EXTRA, results="", skipped=((0, 2), (5, 6)))
    view = job_view(JobRow(job=JOB, submitted=Wall(0), extra=extra, done=1), "alice")
    assert (view.tasks.done, view.tasks.pending, view.kept) == (4, 6, 3)
    found = [task_view(None, index, Sweep(), extra, lambda _: "", cancelled=False) for index in range(7)]
    assert [each.state for each in found] == ["done", "done", "pending", "pending", "pending", "done", "pending"]
    assert (found[1].reason, found[1].results) == ("it ran before, so it was not to run again", None)


@pytest.mark.parametrize(
    ("fields", "state", "reason"),
    [
        ({}, "run", ""),
        ({"accepts": False, "reason": "switched off"}, "off", "switched off"),
        ({"accepts": False, "reason": "busy", "verdict": Verdict(stance="suspend", reason="busy")}, "suspend", "busy"),
        ({"accepts": False, "reason": "full", "verdict": Verdict(stance="hold", reason="busy")}, "off", "full"),
        ({"accepts": False, "verdict": Verdict(stance="hold", reason="busy")}, "hold", "busy"),
        ({"draining": True, "reason": "x", "verdict": Verdict(stance="kill", reason="busy")}, "draining", "x"),
    ],
)
def test_whether_guests_may_run_and_why_not(fields, state, reason):
    plain = {"known": True, "accepts": True, "reason": "", "draining": False, "slots": 1, "free": 1, "kept": ()}
    assert policy_view(Policy(**(plain | fields))) == PolicyView(state=state, reason=reason)
