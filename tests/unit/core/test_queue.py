"""Who asks, who is told, and what hostile peers get; whole effect lists."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import granting
from p2pq.core import records as r
from p2pq.core.placement import WorkerSnapshot
from p2pq.errors import Reject
from p2pq.model import notice as n
from p2pq.model.ids import LeaseId, Wall
from p2pq.model.job import Outcome, Profile, Resources
from p2pq.wire import messages as msg
from p2pq.wire import prims, sign
from p2pq.wire.objects import BlobRef, Manifest
from tests.unit.core.mesh import (
    ALICE,
    BAD,
    BOB,
    IDENTITY,
    LEFT,
    MASTER,
    OK,
    OWNER,
    PROFILE,
    WALL,
    Bench,
    GrantItem,
    Member,
    grant,
    granted,
    grants,
    job_id,
    proof,
    ready,
    receipt,
    result_item,
    submitted,
)

JOB = job_id()


def lease(counter: int) -> LeaseId:
    return LeaseId(1, counter)


def drop(member: Member, reason: str, *, close: bool = False) -> fx.Drop:
    return fx.Drop(peer=member.node, reason=reason, close=close)


def has_work(member: Member, counter: int, owners: tuple[str, ...] = (OWNER,)) -> fx.Send:
    return fx.Send(peer=member.node, message=msg.HasWork(counter=counter, owners=owners))


def nothing(
    member: Member, nonce: int, counter: int, owner: str = OWNER, wide: tuple[int, int, int] = (0, 0, 0)
) -> fx.Send:
    message = msg.Nothing(nonce=nonce.to_bytes(16, "big"), owner=owner, counter=counter, wide=wide)
    return fx.Send(peer=member.node, message=message)


def leased(member: Member, item: GrantItem, number: int = 1) -> list[fx.Effect]:
    row = r.LeaseGranted(
        lease=item.lease, job=job_id(number), task=item.task, attempt=item.attempt, worker=member.node, wall=WALL
    )
    told = n.TaskGranted(job=job_id(number), task=item.task, attempt=item.attempt, lease=item.lease, worker=member.node)
    return [fx.Record(row=row), fx.Emit(notice=told)]


def bench(*members: Member) -> Bench:
    fresh = Bench()
    fresh.tick()
    for member in members:
        fresh.join(member)
    return fresh


def test_a_life_begins_with_a_higher_epoch() -> None:
    fresh = Bench()
    assert fresh.queue.deadline == 0.0
    assert fresh.tick() == [fx.Record(row=r.EpochBegun(epoch=1))]
    assert fresh.queue.deadline is None
    fresh.boot()
    assert fresh.tick() == [fx.Record(row=r.EpochBegun(epoch=2))]


def test_a_store_of_another_node_is_refused() -> None:
    fresh = Bench()
    raw = sign.sign(ALICE.signer, sign.open_signed(submitted().manifest, Manifest, MASTER.node))
    fresh.disk.apply(r.JobAdded(job=JOB, manifest=raw, key=b"", reply_secret=b"", wall=WALL))
    with pytest.raises(Reject, match="bad signature"):
        fresh.boot()


def test_a_job_is_durable_and_announced() -> None:
    busy = bench(ALICE, BOB)
    busy.do(Member("idler").link_up(caps=("submit",)))
    job = submitted(tasks=3)
    added = r.JobAdded(job=JOB, manifest=job.manifest, key=job.key, reply_secret=job.reply_secret, wall=WALL)
    assert busy.do(job) == [
        fx.Record(row=added),
        fx.Emit(notice=n.JobQueued(job=JOB, tasks=3)),
        has_work(ALICE, 1),
        has_work(BOB, 1),
    ]


def test_what_came_in_one_message_is_proved_by_it_whatever_became_of_the_link() -> None:
    busy = bench(ALICE, BOB)
    busy.do(submitted(tasks=3))
    items = busy.leases(ALICE, tasks_max=3)
    both, last = [result_item(items[0]), result_item(items[2])], result_item(items[1])
    busy.says(ALICE, ready(ALICE, *both))
    busy.says(ALICE, ready(ALICE, last))
    busy.do(ev.CollectFailed(lease=items[2].lease, reason="for now"))
    busy.do(ev.LinkDown(peer=ALICE.node))
    rows = [
        effect.row
        for item in items
        for effect in busy.do(ev.Collected(lease=item.lease))
        if isinstance(effect, fx.Record)
    ]
    ends = {row.task: row.proof for row in rows if isinstance(row, r.AttemptEnded)}
    assert ends == {0: proof(ALICE, *both), 1: proof(ALICE, last)}, "a result that could not be had proves nothing"


def test_a_request_is_answered_by_one_grant_and_the_rest_by_nothing() -> None:
    busy = bench(ALICE, BOB)
    job = submitted(tasks=3)
    busy.do(job)
    items = (GrantItem(0, 1, lease(0)), GrantItem(1, 1, lease(1)))
    assert busy.ask(ALICE, tasks_max=2) == [
        *leased(ALICE, items[0]),
        *leased(ALICE, items[1]),
        *grants(ALICE, job, 1, items),
    ]
    last = (GrantItem(2, 1, lease(2)),)
    assert busy.ask(ALICE) == [
        *leased(ALICE, last[0]),
        *grants(ALICE, job, 2, last, sent=True),
        has_work(ALICE, 2, ()),
        has_work(BOB, 2, ()),
    ]
    assert busy.ask(BOB) == [nothing(BOB, 3, 2)]
    assert busy.ask(BOB, owner="zoe") == [nothing(BOB, 4, 2, "zoe")]
    assert granted([grant(ALICE, job, 2, last)]) == list(last)


def test_room_and_leases_ahead() -> None:
    busy = bench(ALICE)
    busy.do(submitted(tasks=1000))
    assert len(busy.leases(ALICE, cpus=2, tasks_max=9)) == 2
    assert len(busy.leases(ALICE, cpus=2, tasks_max=9, ahead=((JOB, 3),))) == 5
    assert len(busy.leases(ALICE, cpus=0, tasks_max=9, ahead=((JOB, 30),))) == 9
    assert busy.leases(ALICE, cpus=0, tasks_max=9, ahead=((job_id(2), 30),)) == []
    assert len(busy.leases(ALICE, cpus=2, tasks_max=9, ahead=((JOB, -99),))) == 2


def test_jobs_go_by_priority_and_a_job_that_does_not_fit_is_passed_over() -> None:
    busy = bench(ALICE)
    busy.do(submitted(1))
    busy.do(submitted(2, priority=9, resources=Resources(cpus=3)))
    busy.do(submitted(3, priority=5, resources=Resources(gpus=1)))
    (first,) = busy.leases(ALICE, cpus=2)
    assert busy.queue.task_of(first.lease) == (job_id(1), 0)
    (second,) = busy.leases(ALICE, cpus=4)
    assert busy.queue.task_of(second.lease) == (job_id(2), 0)
    assert busy.leases(ALICE) == []
    assert busy.queue.task_of(lease(9)) is None


def test_who_has_too_little_room_free_is_told_how_much_is_wanted() -> None:
    busy = bench(ALICE)
    busy.do(submitted(1, resources=Resources(cpus=99)))
    busy.do(submitted(2, resources=Resources(cpus=3, memory_mb=64)))
    assert busy.ask(ALICE, cpus=2) == [nothing(ALICE, 1, 2, wide=(3, 64, 0))]
    assert busy.ask(ALICE, cpus=0) == [nothing(ALICE, 2, 2)]
    assert len(busy.leases(ALICE, cpus=3)) == 1


def test_a_worker_that_can_do_more_is_told() -> None:
    busy = bench()
    busy.do(submitted(resources=Resources(gpus=1)))
    assert busy.do(ALICE.link_up()) == [has_work(ALICE, 2)]
    assert busy.says(ALICE, msg.ProfileIs(profile=PROFILE)) == [has_work(ALICE, 3)]
    assert busy.ask(ALICE) == [nothing(ALICE, 1, 3)]
    more = msgspec.structs.replace(PROFILE, gpus=1)
    assert busy.says(ALICE, msg.ProfileIs(profile=more)) == [has_work(ALICE, 4)]
    assert len(busy.leases(ALICE, gpus=1)) == 1


def test_peers_that_do_not_work_get_nothing() -> None:
    idler = bench()
    idler.do(ALICE.link_up(caps=("submit",)))
    idler.says(ALICE, msg.ProfileIs(profile=PROFILE))
    idler.do(submitted())
    assert idler.ask(ALICE) == [drop(ALICE, "no work capability")]
    assert idler.queue.workers() == []
    assert idler.queue.why(JOB, None, idler.now).startswith("no worker is linked")


def test_what_must_not_be_said_is_dropped() -> None:
    busy = bench(ALICE)
    assert busy.says(BOB, busy.request()) == [drop(BOB, "not linked")]
    busy.do(submitted(tasks=2))
    (item,) = busy.leases(ALICE, tasks_max=1)
    repeated = busy.request()
    assert len(granted(busy.says(ALICE, repeated))) == 1
    assert busy.says(ALICE, repeated) == [drop(ALICE, "repeated request")]
    busy.join(BOB)
    stranger = [drop(BOB, "lease was never granted to it")]
    foreign = (item.lease, lease(99))
    assert busy.says(BOB, msg.Heartbeat(beats=tuple(msg.Beat(one) for one in foreign))) == stranger
    assert busy.says(BOB, msg.Holding(leases=foreign)) == stranger
    assert busy.says(BOB, msg.Return(items=tuple(msg.ReturnItem(one, "late") for one in foreign))) == stranger
    assert busy.queue.tasks(JOB)[0].state == "running"


def test_nobody_renews_a_lease_of_somebody_else() -> None:
    busy = bench(ALICE, BOB)
    busy.do(submitted())
    (item,) = busy.leases(ALICE)
    beat = msg.Heartbeat(beats=(msg.Beat(item.lease),))
    assert busy.says(BOB, beat, after=59.0) == [drop(BOB, "lease was never granted to it")]
    assert fx.Emit(notice=n.LeaseExpired(lease=item.lease, worker=ALICE.node, held_s=60.0)) in busy.tick(1.0)


def test_whoever_holds_a_lease_of_a_life_that_is_forgotten_lets_go_of_it() -> None:
    """The disk of this master was lost while its clock was behind: its epoch is lower than one that it has used."""
    busy = bench(ALICE)
    future = LeaseId(9, 4)
    over = fx.Send(peer=ALICE.node, message=msg.Cancel(leases=(future,)))
    assert busy.says(ALICE, msg.Holding(leases=(future,))) == [over]
    late = fx.Emit(notice=n.LateResult(lease=future, worker=ALICE.node))
    kept = ready(ALICE, result_item(GrantItem(0, 1, future)))
    assert busy.says(ALICE, kept) == [late, receipt(ALICE, "late", future)]


def test_a_worker_without_a_usable_key_is_cut_off_and_costs_no_task() -> None:
    busy = bench()
    busy.do(ALICE.link_up(prekey=bytes(32)))
    busy.says(ALICE, msg.ProfileIs(profile=PROFILE))
    busy.do(submitted())
    assert busy.ask(ALICE) == [drop(ALICE, "prekey: low-order point", close=True)]
    assert busy.queue.job(JOB).pending == 1


def test_messages_and_events_for_others_are_left_alone() -> None:
    quiet = bench(ALICE)
    for message in (
        msg.HasWork(counter=1),
        msg.Granted(grant=b""),
        msg.Nothing(nonce=bytes(16), owner="x", counter=0),
        msg.Cancel(leases=()),
        msg.Receipted(receipt=b""),
        msg.Peers(addresses=()),
        msg.Bans(bans=()),
    ):
        assert quiet.says(ALICE, message) == []
    for event in (
        ev.AddressSeen(addresses=(), source="mdns"),
        ev.DialFailed(address="x", reason="y"),
        ev.Started(lease=lease(0), master=ALICE.node),
        ev.Exited(lease=lease(0), master=ALICE.node, outcome=BAD, sandbox="strict"),
        ev.Faulted(lease=lease(0), master=ALICE.node, fault="disk"),
        ev.Progressed(lease=lease(0), master=ALICE.node, progress=1),
        ev.Offering(profile=PROFILE, own=PROFILE),
        ev.BanAsked(node=ALICE.node, banned=True),
        ev.Drain(),
        ev.Collected(lease=lease(0)),
        ev.CollectFailed(lease=lease(0), reason="gone"),
        ev.LinkDown(peer=BOB.node),
    ):
        assert quiet.do(event) == []


def test_heartbeats_renew_and_tell_progress() -> None:
    busy = bench(ALICE)
    busy.do(submitted(tasks=2))
    first, second = busy.leases(ALICE)
    progressed = fx.Emit(notice=n.TaskProgressed(job=JOB, task=0, progress=500))
    beats = (msg.Beat(first.lease, True, 500), msg.Beat(second.lease, False))
    assert busy.says(ALICE, msg.Heartbeat(beats=beats), after=20.0) == [progressed]
    assert busy.says(ALICE, msg.Heartbeat(beats=beats), after=20.0) == []
    assert busy.queue.deadline == 100.0
    shown = busy.queue.tasks(JOB)
    assert [(task.started, task.progress, task.since, task.worker) for task in shown] == [
        (True, 500, 0.0, ALICE.node),
        (False, -1, 0.0, ALICE.node),
    ]


def test_leases_that_are_over_are_cancelled_again() -> None:
    busy = bench(ALICE)
    busy.do(submitted(tasks=2))
    first, second = busy.leases(ALICE)
    busy.do(ev.CancelAsked(job=JOB, task=0, wall=WALL))
    stop = [fx.Send(peer=ALICE.node, message=msg.Cancel(leases=(first.lease,)))]
    both = (first.lease, second.lease)
    assert busy.says(ALICE, msg.Heartbeat(beats=tuple(msg.Beat(one) for one in both))) == stop
    assert busy.says(ALICE, msg.Holding(leases=both)) == stop


def test_a_cable_pulled_costs_nothing_and_a_restarted_worker_loses_its_leases_at_once() -> None:
    busy = bench(ALICE)
    busy.do(submitted(tasks=3))
    kept, gone, collecting = busy.leases(ALICE)
    busy.says(ALICE, ready(ALICE, result_item(collecting)))
    assert busy.do(ev.LinkDown(peer=ALICE.node)) == []
    assert busy.do(ALICE.link_up(), after=30.0) == []
    detail = "the worker no longer holds it"
    row = r.LeaseEnded(lease=gone.lease, job=JOB, task=1, attempt=1, fault="lost", detail=detail)
    told = n.AttemptLost(job=JOB, task=1, attempt=1, worker=ALICE.node, fault="lost", detail=detail)
    holding = msg.Holding(leases=(kept.lease,))
    assert busy.says(ALICE, holding) == [fx.Record(row=row), fx.Emit(notice=told), has_work(ALICE, 3)]
    assert busy.queue.deadline == 90.0
    busy.says(ALICE, msg.ProfileIs(profile=PROFILE))
    (again,) = busy.leases(ALICE)
    # The same words again, late: they say nothing of a lease that was granted over this very link.
    assert busy.says(ALICE, holding) == []
    assert busy.queue.task_of(again.lease) == (JOB, 1)


def test_a_worker_that_has_no_manifest_gets_it_again() -> None:
    busy = bench(ALICE)
    job = submitted(tasks=2)
    busy.do(job)
    (item,) = busy.leases(ALICE, tasks_max=1)
    busy.says(ALICE, msg.Return(items=(msg.ReturnItem(item.lease, "no-manifest"),)))
    busy.says(ALICE, msg.Return(items=(msg.ReturnItem(item.lease, "no-manifest"),)))
    items = (GrantItem(0, 2, lease(1)), GrantItem(1, 1, lease(2)))
    assert busy.ask(ALICE)[-2] == grant(ALICE, job, 2, items)


def test_links_forget_the_manifests_used_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granting, "MANIFESTS_MAX", 2)
    busy = bench(ALICE)
    for number in (1, 2, 3):
        busy.do(submitted(number, tasks=3))
    sent = []
    for number in (1, 2, 1, 3, 1, 2):
        effects = busy.ask(ALICE, cpus=0, ahead=((job_id(number), 1),))
        message = next(e.message for e in effects if isinstance(e, fx.Send) and isinstance(e.message, msg.Granted))
        sent.append((number, bool(message.manifest)))
    assert sent == [(1, True), (2, True), (1, False), (3, True), (1, False), (2, True)]


def test_results_count_by_lease_only() -> None:
    busy = bench(ALICE, BOB)
    busy.do(submitted(tasks=3))
    first, second = busy.leases(ALICE, tasks_max=2)
    not_of_it = drop(ALICE, "result: not of that lease")
    for wrong in (
        result_item(first, job=job_id(2)),
        result_item(first, task=1),
        result_item(first, attempt=2),
        result_item(first, lease=second.lease),
    ):
        assert busy.says(ALICE, ready(ALICE, wrong)) == [not_of_it]
    assert busy.says(BOB, ready(BOB, result_item(first))) == [drop(BOB, "result: not of that lease")]
    unknown = result_item(first, lease=lease(50))
    assert busy.says(ALICE, ready(ALICE, unknown)) == [drop(ALICE, "result: lease was never granted")]
    assert busy.queue.job(JOB).done == 0


def test_results_that_do_not_verify_are_dropped() -> None:
    busy = bench(ALICE, BOB)
    busy.do(submitted())
    (item,) = busy.leases(ALICE)
    result = result_item(item)
    assert busy.says(ALICE, ready(BOB, result)) == [drop(ALICE, "result: bad signature")]
    for lie in ({"by": BOB.node}, {"node": BOB.node}, {"mesh": bytes(32)}):
        assert busy.says(ALICE, ready(ALICE, result, **lie)) == [drop(ALICE, "result: for somebody else")]


def test_blobs_that_came_along_go_with_the_attempt_that_names_them() -> None:
    busy = bench(ALICE)
    busy.do(submitted(tasks=2))
    first, second = busy.leases(ALICE)
    blobs = (b"one", b"two", b"nobody's")
    refs = [BlobRef(prims.blob_id(blob), len(blob)) for blob in blobs]
    far = BlobRef(b"f" * 32, 1)
    items = (result_item(first, body=(refs[0],), blobs=(far,)), result_item(second, body=(refs[1],)))
    message = ready(ALICE, *items, blobs=blobs)
    assert busy.says(ALICE, message) == [
        fx.Collect(lease=first.lease, peer=ALICE.node, blobs=(refs[0], far), inline=(b"one",)),
        fx.Collect(lease=second.lease, peer=ALICE.node, blobs=(refs[1],), inline=(b"two",)),
    ]
    assert busy.says(ALICE, message) == []  # being collected already


def test_a_result_that_cannot_be_had_now_keeps_its_lease() -> None:
    busy = bench(ALICE)
    busy.do(submitted())
    (item,) = busy.leases(ALICE)
    collect = fx.Collect(lease=item.lease, peer=ALICE.node, blobs=LEFT)
    assert busy.says(ALICE, ready(ALICE, result_item(item))) == [collect]
    assert busy.queue.deadline is None
    returned = msg.Return(items=(msg.ReturnItem(item.lease, "draining"),))
    assert busy.says(ALICE, returned) == []
    assert busy.do(ev.CollectFailed(lease=item.lease, reason="gone"), after=100.0) == []
    assert busy.do(ev.CollectFailed(lease=item.lease, reason="gone")) == []
    assert busy.do(ev.Collected(lease=item.lease)) == []
    assert busy.queue.deadline == 160.0
    assert busy.says(ALICE, ready(ALICE, result_item(item))) == [collect]


def test_late_results_are_acknowledged_and_change_nothing() -> None:
    busy = bench(ALICE)
    busy.do(submitted(tasks=2))
    settled, other = busy.leases(ALICE)
    busy.finish(ALICE, settled, BAD)
    busy.do(ev.CancelAsked(job=JOB, task=1, wall=WALL))
    before = busy.disk.restored()
    assert busy.says(ALICE, ready(ALICE, result_item(settled), result_item(other))) == [
        fx.Emit(notice=n.LateResult(lease=settled.lease, worker=ALICE.node)),
        fx.Emit(notice=n.LateResult(lease=other.lease, worker=ALICE.node)),
        receipt(ALICE, "late", settled.lease, other.lease),
    ]
    assert busy.disk.restored() == before


def test_the_clock_may_be_set_anew() -> None:
    busy = bench(ALICE)
    busy.do(ev.Tick(wall=Wall(1_000_000)), after=5.0)
    busy.do(submitted())
    (row, *_) = busy.ask(ALICE)
    assert row.row.wall == 1_000_000
    assert busy.queue.why(JOB, 0, busy.now) == (
        "being prepared (fetching files or waiting for a slot) on alice for 0 s, attempt 1; nothing to do but wait."
    )


def test_what_readers_see() -> None:
    busy = bench(ALICE)
    assert busy.queue.workers() == [
        WorkerSnapshot(
            node=ALICE.node, name="alice", profile=PROFILE, own=False, leaving=False, request=None, leases=0, cpus=0
        )
    ]
    busy.do(submitted(tasks=1_000_000, resources=Resources(cpus=2), priority=3))
    busy.ask(ALICE)
    (worker,) = busy.queue.workers()
    assert (worker.leases, worker.cpus, worker.request) == (2, 4, msg.Request(**request_of(1)))
    (job,) = busy.queue.jobs()
    assert job == busy.queue.job(JOB)
    assert (job.state, job.pending, job.running, job.priority, job.owner) == ("running", 999_998, 2, 3, OWNER)
    assert [task.task for task in busy.queue.tasks(JOB, 1, 2)] == [1, 2]
    assert len(busy.queue.tasks(JOB, 999_999)) == 1
    assert busy.queue.why(JOB, None, busy.now) == (
        "alice is busy with this very job, all its slots are taken; it starts when one of its tasks ends."
    )
    for missing in (-1, 1_000_000):
        assert busy.queue.why(JOB, missing, busy.now) is None
    other = job_id(2)
    assert (busy.queue.job(other), busy.queue.tasks(other), busy.queue.why(other, None, busy.now)) == (None, [], None)


def request_of(number: int) -> dict[str, object]:
    return {"nonce": number.to_bytes(16, "big"), "owner": OWNER, "cpus": 4, "memory_mb": 4096, "tasks_max": 4}


def test_the_own_machine_works_under_its_own_rules() -> None:
    alone = bench()
    me = Member("master")
    assert me.node == IDENTITY.node
    alone.join(me, Profile(slots=1, sandbox="none", accepts=False, reason="no bubblewrap"))
    alone.do(submitted(sandbox="none"))
    assert len(alone.leases(me)) == 1
    assert alone.queue.workers()[0].own


def test_a_worker_may_not_hoard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msg, "LEASES_MAX", 3)
    busy = bench(ALICE)
    busy.do(submitted(tasks=9))
    assert len(busy.leases(ALICE, tasks_max=2)) == 2
    assert len(busy.leases(ALICE)) == 1
    assert busy.leases(ALICE) == []


def test_leases_of_an_expelled_worker_are_taken_back_but_for_a_result_that_is_coming():
    bench = Bench()
    bench.join(ALICE)
    bench.do(submitted(tasks=2))
    first, second = bench.leases(ALICE, cpus=2, tasks_max=2)
    bench.says(ALICE, ready(ALICE, result_item(first)))
    effects = bench.queue.expel(ALICE.node, bench.now)
    lost = [effect.row for effect in effects if isinstance(effect, fx.Record)]
    assert [(type(row), row.lease) for row in lost] == [(r.LeaseEnded, second.lease)]
    bench.queue.check()
    assert any(isinstance(effect, fx.Record) for effect in bench.do(ev.Collected(lease=first.lease)))


def test_a_result_that_is_no_result_is_refused_and_its_task_goes_elsewhere():
    bench = Bench()
    bench.join(ALICE)
    bench.do(submitted(tasks=1))
    (item,) = bench.leases(ALICE)
    bench.says(ALICE, ready(ALICE, result_item(item)))
    assert bench.queue.collecting(item.lease) == result_item(item)
    effects = bench.do(ev.CollectFailed(lease=item.lease, reason="the result: a bomb", refused=True))
    assert receipt(ALICE, "refused", item.lease) in effects
    assert bench.queue.tasks(JOB)[0].detail == "deliver: the result: a bomb"
    assert bench.queue.collecting(item.lease) is None
    assert bench.do(ev.CollectFailed(lease=item.lease, reason="again", refused=True)) == []


def test_a_worker_that_is_gone_is_not_told_that_its_result_was_refused():
    bench = Bench()
    bench.join(ALICE)
    bench.do(submitted(tasks=1))
    (item,) = bench.leases(ALICE)
    bench.says(ALICE, ready(ALICE, result_item(item)))
    bench.do(ev.LinkDown(peer=ALICE.node))
    effects = bench.do(ev.CollectFailed(lease=item.lease, reason="a bomb", refused=True))
    assert not any(isinstance(effect, fx.Send) for effect in effects)


def test_results_that_prove_damaged_when_they_are_written_out_fail_their_task_and_end_the_job():
    bench = Bench()
    bench.join(ALICE)
    bench.do(submitted(tasks=2))
    first, second = bench.leases(ALICE, tasks_max=2)
    bench.finish(ALICE, first, Outcome(reason="ok", exit=0))
    bench.do(ev.DeliverFailed(job=JOB, task=0, reason="a full disk"))
    effects = bench.do(ev.DeliverFailed(job=JOB, task=0, reason="a blob does not match its name", refused=True))
    rows = [effect.row for effect in effects if isinstance(effect, fx.Record)]
    assert [(type(row), row.state) for row in rows] == [(r.TaskEnded, "failed")]
    assert bench.queue.tasks(JOB)[0].detail == "deliver: a blob does not match its name"
    assert bench.do(ev.DeliverFailed(job=JOB, task=0, reason="again", refused=True)) == []
    bench.boot()
    bench.tick()
    assert bench.queue.tasks(JOB)[0].state == "failed"
    bench.boot()
    bench.join(ALICE)
    (again,) = bench.leases(ALICE)
    assert again.task == second.task
    bench.finish(ALICE, again, Outcome(reason="ok", exit=0))
    effects = bench.do(ev.Delivered(job=JOB, task=1, wall=WALL))
    assert r.JobEnded(job=JOB, state="failed", wall=WALL) in [e.row for e in effects if isinstance(e, fx.Record)]


# -- this node slept -----------------------------------------------------------------------------------------------------


def test_nothing_expires_because_the_master_slept() -> None:
    busy = bench(ALICE)
    busy.do(submitted())
    busy.leases(ALICE)
    assert busy.do(ev.Woke(slept_s=500.0, counted=True), after=559.0) == []
    assert busy.queue.deadline == 559.0 + 60.0
    assert busy.tick(after=59.9) == []
    assert fx.Emit(notice=n.LeaseExpired(lease=lease(0), worker=ALICE.node, held_s=619.0)) in busy.tick(after=0.1)


def test_a_sleep_that_the_clock_did_not_count_gives_the_full_term_as_well() -> None:
    busy = bench(ALICE)
    busy.do(submitted())
    busy.leases(ALICE)
    assert busy.do(ev.Woke(slept_s=500.0, counted=False), after=59.0) == []
    assert busy.queue.deadline == 59.0 + 60.0


def test_a_failed_task_is_run_again_when_its_owner_wants_it() -> None:
    busy = bench(ALICE)
    job = submitted(tasks=1)
    busy.do(job)
    (item,) = busy.leases(ALICE)
    busy.finish(ALICE, item, BAD)
    failed = busy.disk.restored().jobs[0]
    busy.do(ev.Delivered(job=JOB, task=0, wall=WALL))
    assert busy.queue.jobs() == []
    delivered = msgspec.structs.replace(failed.tasks[0], delivered=True)
    ended = msgspec.structs.replace(failed, tasks=(delivered,))
    asked = ev.RetryAsked(job=JOB, ended=ended, wall=WALL)
    assert busy.do(asked) == [
        fx.Record(row=r.JobReopened(job=ended)),
        fx.Record(row=r.TasksRetried(job=JOB, tasks=((0, 1),), wall=WALL)),
        fx.Emit(notice=n.TasksRetried(job=JOB, tasks=1)),
        has_work(ALICE, 3),
    ]
    assert busy.do(asked) == []
    busy.boot()
    busy.join(ALICE)
    (again,) = busy.leases(ALICE)
    assert again == GrantItem(0, 2, LeaseId(2, 0))
    busy.finish(ALICE, again, OK)
    assert busy.do(ev.Delivered(job=JOB, task=0, wall=WALL))[-1] == fx.Emit(notice=n.JobFinished(job=JOB, state="done"))


def test_a_worker_that_slept_is_told_what_is_still_its_own() -> None:
    busy = bench(ALICE, BOB)
    busy.do(submitted(tasks=2))
    busy.leases(ALICE, tasks_max=1)
    busy.leases(BOB, tasks_max=1)
    question = msg.Confirm(nonce=bytes(16), leases=(lease(0), lease(1), lease(7)))
    answer = msg.Confirmed(nonce=bytes(16), leases=(lease(0),))
    assert busy.says(ALICE, question, after=50.0) == [fx.Send(peer=ALICE.node, message=answer)]
    expired = fx.Emit(notice=n.LeaseExpired(lease=lease(1), worker=BOB.node, held_s=60.0))
    assert expired in busy.tick(after=10.0)
    assert busy.queue.task_of(lease(0)) == (JOB, 0)
    assert busy.says(ALICE, answer) == []  # an answer to a master says nothing
