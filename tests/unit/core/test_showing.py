"""Where a task stands, as a value."""

from p2pq.core import events as ev
from p2pq.core.showing import SILENT
from p2pq.core.through import cluster_of
from p2pq.model.ids import Mono
from p2pq.wire import messages as msg
from tests.unit.core.clusterkit import BRIDGE, CAT, CLUSTER, DOG, bench_of, place
from tests.unit.core.mesh import ALICE, BAD, BOB, PROFILE, WALL, Bench, job_id, submitted

JOB = job_id()


def running(bench: Bench) -> None:
    bench.tick()
    bench.join(ALICE)
    bench.do(submitted(tasks=2, retries=2))


def test_a_task_without_history_is_as_its_job_says() -> None:
    bench = Bench()
    bench.tick()
    bench.do(submitted(tasks=2))
    [first, _] = bench.queue.tasks(JOB)
    assert (first.state, first.attempts, first.worker, first.delivered, first.lease) == (
        "pending",
        0,
        None,
        False,
        None,
    )


def test_a_running_task_says_who_has_it_since_when_and_until_when() -> None:
    bench = Bench()
    running(bench)
    [item, _] = bench.leases(ALICE)
    bench.says(ALICE, msg.Heartbeat(beats=(msg.Beat(item.lease, running=True, progress=500),)), after=5.0)
    shown = bench.queue.tasks(JOB)[0]
    assert (shown.state, shown.worker, shown.via, shown.lease) == ("running", ALICE.node, (), item.lease)
    assert (shown.started, shown.since, shown.heard, shown.due) == (True, 0.0, 5.0, 65.0)
    assert (shown.progress, shown.silent_s, shown.again) == (500, SILENT * bench.settings.lease_s, None)


def test_why_says_through_which_bridge_a_worker_was_reached_that_is_not_reachable_now() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    names = {BRIDGE.node: "gate", CAT.node: "cat"}
    cluster.placed(CAT, item)
    said = bench.queue.why(JOB, 0, bench.now, lambda node: names[node])
    assert said is not None
    assert " on cat for 0 s, attempt 1;" in said
    cluster.says(msg.Leaves(gone=(CAT.node,)))
    said = bench.queue.why(JOB, 0, bench.now, lambda node: names[node])
    assert said is not None
    assert " but cat, reached through gate before, is not reachable," in said
    bench.do(ev.LinkDown(peer=CLUSTER))
    assert bench.queue.why(JOB, 0, bench.now, lambda node: names[node]) == said


def test_why_of_a_job_counts_what_a_bridge_has_not_said_yet_who_has_it() -> None:
    bench, cluster = bench_of(CAT, DOG)
    bench.do(submitted(tasks=99))
    items = cluster.leases(place(CAT, PROFILE.slots), place(DOG, PROFILE.slots))
    cluster.placed(CAT, items[0])
    assert bench.queue.why(JOB, None, bench.now) == (
        "cat, dog are busy with this very job, all their slots are taken; it starts when one of its tasks ends."
    )


def test_why_names_the_bridge_where_nobody_knows_which_leaf_has_a_task() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    cluster.leases(place(CAT))
    bench.do(ev.LinkDown(peer=CLUSTER))
    said = bench.queue.why(JOB, 0, bench.now, lambda node: {BRIDGE.node: "gate"}[node])
    assert said is not None
    assert " on gate for 0 s as far as is known, but gate is not reachable," in said


def test_a_task_that_pauses_says_until_when_and_its_job_does_if_nothing_else_waits() -> None:
    bench = Bench()
    running(bench)
    first, second = bench.leases(ALICE)
    bench.finish(ALICE, first, BAD)
    job = bench.queue._book.jobs[JOB]
    until = bench.queue.tasks(JOB)[0].not_before
    assert until is not None
    assert until > bench.now
    assert bench.queue._book.paused(job) == until
    bench.join(BOB)
    bench.says(ALICE, msg.Return(items=(msg.ReturnItem(second.lease, "late"),)))
    assert bench.queue._book.paused(job) is None, "the other one waits for a worker"
    bench.do(ev.CancelAsked(job=JOB, task=1, wall=WALL))
    assert bench.queue._book.paused(job) == until
    bench.do(ev.CancelAsked(job=JOB, wall=WALL))


def test_what_a_cluster_has_is_there_until_a_leaf_has_it() -> None:
    bench, cluster = bench_of(CAT)
    bench.do(submitted())
    [item] = cluster.leases(place(CAT))
    assert cluster_of(BRIDGE.node) == CLUSTER
    for worker, via in ((CLUSTER, (BRIDGE.node,)), (CAT.node, (BRIDGE.node,))):
        shown = bench.queue.tasks(JOB)[0]
        assert (shown.worker, shown.via, shown.since) == (worker, via, Mono(0.0))
        cluster.placed(CAT, item)
