"""Jobs come in, are offered in order, and are let go when they have ended; attempts are in test_book."""

from p2pq.core import effects as fx
from p2pq.core import records as r
from p2pq.core.clock import WallClock
from p2pq.core.docket import Docket
from p2pq.model import notice as n
from p2pq.model.ids import Mono
from p2pq.wire import sign
from p2pq.wire.objects import Manifest
from tests.unit.core.mesh import MASTER, OWNER, WALL, job_id, submitted


def docket() -> Docket:
    return Docket(MASTER.node, WallClock(Mono(0.0), WALL))


def add(fresh: Docket, number: int, **fields: object) -> r.JobAdded:
    job = submitted(number, **fields)
    row = r.JobAdded(job=job_id(number), manifest=job.manifest, key=job.key, reply_secret=job.reply_secret, wall=WALL)
    fresh.add(row, sign.open_signed(job.manifest, Manifest, MASTER.node))
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
