"""Each promise that is broken is noticed."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import records
from p2pq.core.through import cluster_of
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import Limits, Outcome, Resources
from p2pq.wire import messages as msg
from p2pq.wire.objects import ResultItem
from simulations.checkers import Broken, Checkers
from simulations.world import WALL0

MASTER, WORKER, OTHER = (NodeId(bytes([number]) * 32) for number in range(3))
JOB = JobId(b"j" * 16)
FIRST, SECOND, THIRD = (LeaseId(1, number) for number in range(3))
OK = Outcome(reason="ok", exit=0)
BRIDGE = NodeId(b"b" * 32)
CLUSTER = cluster_of(BRIDGE)
RETURNS = (msg.ReturnItem(FIRST, "late"),)


def ended(lease: LeaseId, fault: str = "lost") -> records.LeaseEnded:
    return records.LeaseEnded(lease=lease, job=JOB, task=0, attempt=1, fault=fault)


class Bench:
    """A job of one task."""

    def __init__(self) -> None:
        self.checkers = Checkers()
        self.checkers.submitted(MASTER, JOB, tasks=1, retries=0)
        self.row(records.JobAdded(job=JOB, manifest=b"", key=b"", reply_secret=b"", wall=WALL0))
        self.checkers.synced(MASTER)

    def row(self, *rows: records.Row, host: NodeId = MASTER) -> None:
        self.checkers.durable(host, rows)

    def grant(self, lease: LeaseId = FIRST, attempt: int = 1, worker: NodeId = WORKER, task: int = 0) -> None:
        self.row(records.LeaseGranted(lease=lease, job=JOB, task=task, attempt=attempt, worker=worker, wall=WALL0))

    def lose(self, lease: LeaseId = FIRST, fault: str = "lost") -> None:
        self.row(ended(lease, fault))

    def run(self, lease: LeaseId = FIRST, host: NodeId = WORKER) -> None:
        self.checkers.started(
            host,
            fx.Start(
                lease=lease, master=MASTER, owner="ann", job=JOB, task=0, attempt=1, tasks=1, key=b"", reply=b"",
                body=(), blobs=(), resources=Resources(), limits=Limits(), sandbox="strict", own=False,
            ),
        )  # fmt: skip
        self.checkers.exited(host, MASTER, lease, OK)

    def settle(
        self, lease: LeaseId = FIRST, *, under: LeaseId = FIRST, worker: NodeId = WORKER, attempt: int = 1
    ) -> None:
        item = ResultItem(job=JOB, task=0, attempt=attempt, lease=under, outcome=OK, sandbox="strict")
        self.row(
            records.AttemptEnded(lease=lease, job=JOB, task=0, worker=worker, result=item, state="done", wall=WALL0)
        )

    def end(self) -> None:
        self.row(records.JobEnded(job=JOB, state="done", wall=WALL0))


def test_a_good_life_is_accepted():
    bench = Bench()
    bench.grant()
    bench.run()
    bench.settle()
    bench.checkers.written(MASTER, JOB, 0)
    bench.row(records.TaskDelivered(job=JOB, task=0))
    bench.end()
    bench.checkers.finish(clean=True)


def broken(promise: str):
    return pytest.raises(Broken, match=promise)


def test_leases():
    bench = Bench()
    bench.grant()
    with broken("granted twice"):
        bench.grant()
    bench.lose()
    with broken("not live"):
        bench.lose()
    with broken("counted up"):
        bench.grant(SECOND, attempt=1)


def test_a_second_lease_of_a_running_task():
    bench = Bench()
    bench.grant()
    with broken("holds two leases"):
        bench.grant(SECOND, attempt=2)
    bench.grant(SECOND, attempt=2, worker=OTHER)
    with broken("three live leases"):
        bench.grant(THIRD, attempt=3, worker=MASTER)
    bench.run()
    with broken("one of its leases lives on"):
        bench.settle()


def test_what_the_power_takes_is_as_if_it_had_never_been_but_its_lease_is_used_up():
    bench = Bench()
    bench.grant()
    bench.lose()
    bench.checkers.undone(MASTER, 1)
    bench.lose()
    bench.checkers.undone(MASTER, 2)
    with broken("not live"):
        bench.lose()
    bench.run()  # the grant may have been on its way already
    with broken("granted twice"):
        bench.grant()
    with broken("ended that was not live"):
        bench.settle()
    bench.grant(SECOND)
    bench.checkers.synced(MASTER)
    with pytest.raises(IndexError):
        bench.checkers.undone(MASTER, 1)
    assert bench.checkers.undone_rows > 0


def test_what_people_were_told_must_not_be_undone():
    bench = Bench()
    bench.row(records.TasksCancelled(job=JOB, wall=WALL0))
    with broken("what people have been told"):
        bench.checkers.undone(MASTER, 1)


def test_jobs_go_with_the_disk_of_their_master():
    bench = Bench()
    bench.grant()
    bench.checkers.disk_lost(OTHER)
    assert not bench.checkers.lost_jobs
    bench.checkers.disk_lost(MASTER)
    bench.run()  # it holds a lease that nobody wants
    with broken("a lease ended that was not live"):
        bench.lose()
    with broken("a job that has ended"):
        bench.grant(SECOND)
    bench.checkers.finish(clean=False)
    assert (bench.checkers.lost_jobs, bench.checkers.open) == (1, 0)


def test_attempts():
    bench = Bench()
    with broken("not durable"):
        bench.run()
    bench.grant()
    with broken("does not hold its lease"):
        bench.run(host=OTHER)
    bench.run()
    with broken("started twice"):
        bench.run()


def test_results():
    bench = Bench()
    bench.grant()
    with broken("never ended so"):
        bench.settle()
    for bad, promise in (({"under": SECOND}, "another lease"), ({"worker": OTHER}, "did not hold the lease")):
        bench = Bench()
        bench.grant()
        bench.run()
        with broken(promise):
            bench.settle(**bad)


def test_only_its_worker_hands_a_lease_back():
    for said, by in ((MASTER, OTHER), (OTHER, WORKER)):
        bench = Bench()
        bench.grant()
        bench.checkers.handed_back(by, said, [FIRST])
        with broken("not by its worker"):
            bench.lose(fault="late")
    bench = Bench()
    bench.grant()
    bench.checkers.handed_back(WORKER, MASTER, [FIRST])
    bench.lose(fault="late")


def test_a_bridge_may_forget_what_no_leaf_has_and_nothing_else():
    for worker, fault, leaf in (
        (WORKER, "recalled", None),
        (CLUSTER, "late", None),
        (CLUSTER, "recalled", OTHER),
    ):
        bench = Bench()
        bench.checkers.speaks(CLUSTER)
        bench.grant(worker=worker)
        with broken("not by its worker"):
            bench.row(msgspec.structs.replace(ended(FIRST, fault), leaf=leaf))
    bench = Bench()
    bench.checkers.speaks(CLUSTER)
    bench.grant(worker=CLUSTER)
    bench.lose(fault="recalled")


@pytest.mark.parametrize(
    ("host", "peer", "message"),
    [
        (WORKER, MASTER, msg.Return(items=RETURNS)),
        (WORKER, BRIDGE, msg.Through(node=MASTER, message=msg.Return(items=RETURNS))),
        (BRIDGE, MASTER, msg.Through(node=CLUSTER, message=msg.Report(returns=RETURNS))),
    ],
)
def test_a_lease_of_a_cluster_is_handed_back_by_its_leaf_or_its_bridge(host, peer, message):
    bench = Bench()
    bench.checkers.speaks(CLUSTER)
    bench.grant(worker=CLUSTER)
    bench.checkers.said(host, peer, msg.Through(node=CLUSTER, message=msg.Report()))
    with broken("not by its worker"):
        bench.lose(fault="late")
    bench = Bench()
    bench.checkers.speaks(CLUSTER)
    bench.grant(worker=CLUSTER)
    bench.checkers.said(host, peer, message)
    bench.lose(fault="late")


def move(bench: Bench, to: NodeId) -> None:
    bench.row(records.LeaseMoved(lease=FIRST, worker=to))


def test_a_lease_moves_to_bridges_and_to_who_has_it():
    for granted, to in ((WORKER, OTHER), (CLUSTER, OTHER), (WORKER, cluster_of(OTHER))):
        bench = Bench()
        bench.checkers.speaks(CLUSTER)
        with broken("moved that was not live"):
            move(bench, CLUSTER)
        bench.grant(worker=granted)
        bench.run()
        for good in (CLUSTER, WORKER, CLUSTER):
            move(bench, good)
        with broken("does not hold it"):
            move(bench, to)


def test_what_a_liar_says_of_its_own_lease_is_not_judged():
    bench = Bench()
    bench.checkers.distrust(WORKER)
    bench.grant()
    with broken("did not hold the lease"):
        bench.settle(worker=OTHER)
    bench = Bench()
    bench.checkers.distrust(WORKER)
    bench.grant()
    bench.lose(fault="late")
    bench.grant(SECOND, attempt=2)
    bench.settle(SECOND, under=SECOND, attempt=2)
    bench.checkers.written(MASTER, JOB, 0)
    bench.row(records.TaskDelivered(job=JOB, task=0))
    bench.end()
    bench.checkers.finish(clean=False)


def test_settled_once():
    bench = Bench()
    bench.grant()
    bench.run()
    bench.settle()
    with broken("settled twice"):
        bench.row(records.TaskEnded(job=JOB, task=0, state="failed", wall=WALL0))
    with broken("that is over was granted"):
        bench.grant(SECOND, attempt=2)


def test_delivery_and_the_end():
    bench = Bench()
    with broken("before its tasks"):
        bench.end()
    with broken("not over, durably"):
        bench.checkers.written(MASTER, JOB, 0)
    with broken("tasks were lost"):
        bench.checkers.finish(clean=False)
    bench.grant()
    bench.run()
    bench.settle()
    with broken("nothing was written"):
        bench.row(records.TaskDelivered(job=JOB, task=0))
    with broken("before its results were delivered"):
        bench.end()
    with broken("never ended"):
        bench.checkers.finish(clean=False)
    with broken("never submitted there"):
        bench.row(records.TaskDelivered(job=JOB, task=0), host=OTHER)
