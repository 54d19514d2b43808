"""The worker: what it asks, what it believes, what it runs, and what it says of it."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.lately import KEEP_S
from p2pq.core.records import ResultKept, ResultReleased
from p2pq.core.slots import Guest
from p2pq.model.ids import LeaseId, Mono, Wall
from p2pq.model.job import Limits, Outcome, Profile, Resources
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.objects import GrantItem
from tests.unit.core.workerkit import (
    ANN,
    BOB,
    BODY,
    IDENTITY,
    KEY,
    ME,
    OFFER,
    OWN,
    PROFILE,
    SAVED_BODY,
    SAVED_KEY,
    WALL,
    Bench,
    checkpoint,
    ended,
    granted,
    item,
    job_id,
    kept,
    manifest,
    ready,
    receipted,
    result_item,
    returned,
    send,
    start,
)

ONE = msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, slots=1))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def running(bench: Bench, *items: GrantItem, number: int = 1, **fields) -> None:
    """Take ANN's grant of these attempts and start them."""
    bench.says(granted(items, number=number, **fields))
    for entry in items:
        bench.do(ev.Started(lease=entry.lease, master=ANN.node))


def shown(bench: Bench, *items: GrantItem) -> None:
    """Let a second pass, in which ANN hears that these run."""
    beats = tuple(msg.Beat(entry.lease) for entry in items)
    assert bench.tick(after=1.0) == [send(msg.Heartbeat(beats=beats))]


def kept_row(bench: Bench, entry: GrantItem, **fields) -> fx.Record:
    """Return the row of a result that is kept now."""
    wall = Wall(WALL + round(bench.now * 1000))
    row = ResultKept(lease=entry.lease, master=ANN.node, item=result_item(entry, **fields), wall=wall, owner="ann")
    return fx.Record(row=row)


def released(lease: LeaseId) -> list[fx.Effect]:
    return [
        fx.Record(row=ResultReleased(lease=lease, master=ANN.node)),
        fx.Release(lease=lease, master=ANN.node),
    ]


# -- links and offers ----------------------------------------------------------------------------------------------------


def test_a_link_begins_with_what_is_held_then_what_is_offered(bench: Bench) -> None:
    bench.do(OFFER)
    assert bench.do(ANN.link()) == [send(msg.Holding()), send(msg.ProfileIs(profile=PROFILE))]


def test_the_own_master_is_offered_the_own_room(bench: Bench) -> None:
    bench.do(OFFER)
    assert bench.do(ME.link()) == [send(msg.Holding(), ME), send(msg.ProfileIs(profile=OWN), ME)]


def test_before_the_sensors_spoke_nothing_is_offered_or_asked(bench: Bench) -> None:
    assert bench.do(ANN.link()) == [send(msg.Holding())]
    assert bench.work() == []
    assert bench.worker.offering is None
    assert bench.do(OFFER) == [send(msg.ProfileIs(profile=PROFILE)), bench.asks(1)]
    assert bench.worker.offering == OFFER
    assert bench.do(OFFER) == []


def test_who_may_not_give_work_is_told_nothing_and_believed_nothing(bench: Bench) -> None:
    bench.do(OFFER)
    assert bench.do(ANN.link(caps=("work",))) == []
    assert bench.work() == [fx.Drop(peer=ANN.node, reason="work that it may not offer")]
    assert bench.says(granted((item(1),))) == [
        fx.Drop(peer=ANN.node, reason="grant: the peer may not give work", close=True)
    ]
    assert not bench.worker.has_work(ANN.node)


def test_nobody_offers_work_of_another_owner(bench: Bench) -> None:
    bench.join(ANN)
    assert bench.says(msg.HasWork(counter=1, owners=("ann", "bob"))) == [
        fx.Drop(peer=ANN.node, reason="work that it may not offer")
    ]


def test_who_is_not_linked_is_not_heard(bench: Bench) -> None:
    assert bench.work() == [fx.Drop(peer=ANN.node, reason="not linked")]


def test_what_concerns_others_is_ignored(bench: Bench) -> None:
    bench.join(ANN)
    for message in (msg.Holding(), msg.Leaving(), msg.Peers(addresses=()), msg.Heartbeat(beats=())):
        assert bench.says(message) == []
    for event in (ev.AddressSeen(addresses=(), source="mdns"), ev.Collected(lease=LeaseId(1, 1))):
        assert bench.do(event) == []


# -- asking --------------------------------------------------------------------------------------------------------------


def test_work_is_asked_for_with_all_the_free_room(bench: Bench) -> None:
    bench.join(ANN)
    assert bench.work() == [bench.asks(1)]
    assert bench.worker.has_work(ANN.node)
    assert bench.tick(after=1.0) == []


def test_nothing_puts_to_sleep_until_the_counter_grows(bench: Bench) -> None:
    bench.join(ANN)
    bench.work(counter=3)
    assert bench.says(msg.Nothing(nonce=bytes(15) + b"\x01", owner="ann", counter=3)) == []
    assert bench.tick(after=100.0) == []
    assert bench.work(counter=3) == []
    assert bench.work(counter=4) == [bench.asks(2)]


def test_an_old_nothing_is_asked_again_once(bench: Bench) -> None:
    bench.join(ANN)
    bench.work(counter=3)
    bench.work(counter=4)
    assert bench.says(msg.Nothing(nonce=bytes(15) + b"\x01", owner="ann", counter=2)) == [bench.asks(2)]
    assert bench.says(msg.Nothing(nonce=bytes(15) + b"\x02", owner="ann", counter=2)) == []


def test_more_room_than_was_asked_with_wakes(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    running(bench, item(1))
    shown(bench, item(1))
    bench.says(msg.Nothing(nonce=bytes(15) + b"\x02", owner="ann", counter=1))
    effects = bench.exited(item(1), after=5.0)
    assert effects[:2] == [ended(item(1)), bench.asks(3)]


def test_an_unanswered_request_lapses_and_the_master_is_left_alone_longer_each_time(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    asked = [bench.now for _ in range(60) if bench.tick(after=1.0)]
    assert asked == [3.0, 7.0, 13.0, 23.0, 41.0]


def test_a_late_grant_is_declined(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    bench.tick(after=2.0)
    assert bench.says(granted((item(1), item(2)))) == [returned("late", item(1), item(2))]


def test_a_grant_that_comes_twice_does_no_harm(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    running(bench, item(1), item(2))
    again = granted((item(1), item(2)))
    assert bench.says(again) == []
    bench.exited(item(1), after=10.0)
    assert bench.says(again) == []


def test_a_lease_granted_twice_runs_once(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    running(bench, item(1))
    assert bench.says(granted((item(1),), number=2)) == []
    assert bench.work(counter=2) == [bench.asks(3, cpus=1)]


def test_draws_share_the_free_cpus_among_owners(bench: Bench) -> None:
    bench.do(msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, slots=0)))
    for member in (ANN, BOB):
        bench.do(member.link())
        assert bench.work(member) == []
    effects = bench.do(msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, slots=200)))
    requests = [effect.message for effect in effects if isinstance(effect.message, msg.Request)]
    assert sorted(request.owner for request in requests) == ["ann", "bob"]
    assert sum(request.cpus for request in requests) == 200
    assert all(80 <= request.cpus <= 120 for request in requests)
    assert sum(request.memory_mb for request in requests) == 4096
    assert [request.gpus for request in requests] == [1, 0]


def test_a_master_is_drawn_among_those_of_one_owner() -> None:
    seen = []
    for _ in range(2):
        bench = Bench()
        bench.do(msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, slots=0)))
        for member in (ANN, BOB):
            bench.do(member.link(owner="lab"))
            bench.says(msg.HasWork(counter=1, owners=("lab",)), member)
        effects = bench.do(OFFER)
        seen.append([effect.peer for effect in effects if isinstance(effect.message, msg.Request)])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1


def test_a_node_without_the_work_capability_asks_no_other() -> None:
    bench = Bench(identity=msgspec.structs.replace(IDENTITY, caps=("submit",)))
    bench.join(ANN, ME)
    assert bench.work() == []
    assert bench.work(ME) == [bench.asks(1, cpus=3, memory_mb=8192, gpus=0, member=ME)]


def test_a_node_that_accepts_no_guests_asks_no_other(bench: Bench) -> None:
    bench.join(ANN, offer=msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, accepts=False)))
    assert bench.work() == []


def test_a_link_that_goes_takes_its_requests_along(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    assert bench.do(ev.LinkDown(peer=ANN.node)) == []
    assert bench.worker.deadline is None
    assert not bench.worker.has_work(ANN.node)


# -- grants --------------------------------------------------------------------------------------------------------------


def test_a_grant_starts_what_fits(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    assert bench.says(granted((item(1, task=7), item(2, task=8)), blobs=(b"x",))) == [
        *start(item(1, task=7), inline=(b"x",)),
        *start(item(2, task=8)),
    ]
    assert bench.worker.busy
    assert bench.worker.free_slots() == 0
    assert bench.do(ev.Started(lease=LeaseId(1, 1), master=ANN.node), after=1.0) == []
    assert bench.worker.guests(Mono(3.0)) == tuple(
        Guest(
            lease=LeaseId(1, counter),
            master=ANN.node,
            owner="ann",
            job=job_id(),
            task=6 + counter,
            attempt=1,
            state=state,
            own=False,
            since_s=3.0,
            progress=-1,
        )
        for counter, state in ((1, "running"), (2, "starting"))
    )


def test_own_work_runs_beside_guests_in_room_of_its_own(bench: Bench) -> None:
    bench.join(ANN, ME)
    bench.work()
    running(bench, item(1), item(2))
    assert bench.work(ME) == [bench.asks(2, cpus=3, memory_mb=8192, gpus=0, member=ME)]
    own = manifest(ME, sandbox="none")
    assert bench.says(granted((item(1),), number=2, member=ME, of=own), ME) == [
        *start(item(1), member=ME, of=own, sandbox="none"),
        bench.asks(3, cpus=2, memory_mb=8192, gpus=0, member=ME),
    ]


def test_own_work_is_kept_and_released_like_any_other(bench: Bench) -> None:
    bench.join(ME)
    bench.work(ME)
    bench.says(granted((item(1),), member=ME), ME)
    assert bench.exited(item(1), member=ME, after=2.0)[0] == ended(item(1), member=ME)
    assert bench.says(receipted(LeaseId(1, 1), member=ME), ME)[1] == fx.Release(lease=LeaseId(1, 1), master=ME.node)


@pytest.mark.parametrize("proved", ["strict", "basic", "none"])
def test_own_tasks_run_in_what_is_proved(bench: Bench, proved: str) -> None:
    bench.join(ME, offer=msgspec.structs.replace(OFFER, own=msgspec.structs.replace(OWN, sandbox=proved)))
    bench.work(ME)
    for number, wanted in ((1, "strict"), (2, "basic")):
        job = manifest(ME, number, sandbox=wanted)
        found = bench.says(granted((item(number),), number=number, member=ME, of=job), ME)[:2]
        assert found == start(item(number), member=ME, of=job, sandbox=proved)


def test_a_guest_that_asks_for_none_is_shut_in_all_the_same(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    job = manifest(sandbox="none")
    assert bench.says(granted((item(1), item(2)), of=job))[:1] == start(item(1), of=job, sandbox="strict")[:1]


def test_the_manifest_is_carried_once_per_link(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    shown(bench, item(1))
    effects = bench.exited(item(1), after=10.0)
    assert effects[1] == bench.asks(2, cpus=1)
    assert bench.says(granted((item(2),), number=2, sent=True)) == start(item(2))
    bench.do(ev.LinkDown(peer=ANN.node))
    bench.do(ANN.link())
    bench.exited(item(2), after=10.0)
    assert bench.work() == [bench.asks(3, cpus=1)]
    assert bench.says(granted((item(3),), number=3, sent=True)) == [returned("no-manifest", item(3))]
    assert bench.tick(after=1.0) == [bench.asks(4, cpus=1)]


FORGED = [
    ({"signer": BOB}, "bad signature"),
    ({"mesh": bytes(32)}, "grant: not between these two nodes"),
    ({"to": BOB.node}, "grant: not between these two nodes"),
    ({"node": BOB.node}, "grant: not between these two nodes"),
    ({"manifest": bytes(32)}, "grant: another manifest"),
    ({"job": job_id(2)}, "grant: not of that manifest"),
    ({"of": manifest(mesh=bytes(32))}, "manifest: not of this master"),
    ({"of": manifest(node=BOB.node)}, "manifest: not of this master"),
    ({"of": manifest(owner="bob")}, "manifest: another owner"),
    ({"of": manifest(tasks=1), "items": (item(1, task=1),)}, "grant: not of that manifest"),
    ({"items": (item(1), item(1, task=1))}, "grant: a lease twice"),
    ({"items": (item(1), item(2), item(3))}, "grant: more than was asked for"),
]


@pytest.mark.parametrize(("fields", "reason"), FORGED, ids=[reason + str(n) for n, (_, reason) in enumerate(FORGED)])
def test_a_forged_grant_ends_the_link(bench: Bench, fields: dict, reason: str) -> None:
    bench.join(ANN)
    bench.work()
    items = fields.get("items", (item(1),))
    rest = {key: value for key, value in fields.items() if key != "items"}
    effects = bench.says(granted(items, **rest))
    assert effects[0] == fx.Drop(peer=ANN.node, reason=reason, close=True)
    assert not bench.worker.busy


def test_garbage_is_dropped(bench: Bench) -> None:
    bench.join(ANN)
    assert bench.says(msg.Granted(grant=b"garbage")) == [fx.Drop(peer=ANN.node, reason="malformed", close=True)]
    assert bench.says(msg.Receipted(receipt=b"garbage")) == [
        fx.Drop(peer=ANN.node, reason="receipt: malformed", close=True)
    ]
    assert bench.says(receipted(LeaseId(1, 1), to=BOB.node)) == [
        fx.Drop(peer=ANN.node, reason="receipt: not between these two nodes", close=True)
    ]


REFUSED = [
    ({"expires": WALL - 300_001}, "late", "the grant has expired (or a clock is wrong)"),
    ({"of": manifest(expires=WALL - 300_001)}, "refused", "the job has expired (or a clock is wrong)"),
    ({"of": manifest(only=BOB.node)}, "refused", "meant for another node"),
    ({"of": manifest(resources=Resources(cpus=3))}, "refused", "larger than what is offered"),
    ({"of": manifest(resources=Resources(needs=(("os", "mac"),)))}, "refused", "lacks os=mac"),
    ({"key": b"k" * 80}, "refused", "the job key: decryption failed"),
    ({"of": manifest(commit=bytes(32))}, "refused", "the job key: another key"),
]


@pytest.mark.parametrize(("fields", "fault", "detail"), REFUSED, ids=[detail for _, _, detail in REFUSED])
def test_what_cannot_run_here_is_handed_back_and_not_asked_for_again(
    bench: Bench, fields: dict, fault: str, detail: str
) -> None:
    bench.join(ANN)
    bench.work()
    assert bench.says(granted((item(1),), **fields)) == [returned(fault, item(1), detail=detail)]
    assert bench.work(counter=2) == [bench.asks(2)]


def test_a_guest_is_refused_where_the_offer_changed_meanwhile(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    bench.do(msgspec.structs.replace(OFFER, profile=Profile(slots=2, sandbox="strict", reason="on battery")))
    assert bench.says(granted((item(1),))) == [returned("refused", item(1), detail="on battery")]
    weak = msgspec.structs.replace(PROFILE, sandbox="basic")
    assert bench.do(msgspec.structs.replace(OFFER, profile=weak)) == [send(msg.ProfileIs(profile=weak))]
    assert bench.work(counter=2) == [bench.asks(2)]
    assert bench.says(granted((item(2),), number=2)) == [
        returned("refused", item(2), detail="its isolation is not proved here")
    ]


# -- the life of an attempt ----------------------------------------------------------------------------------------------


def test_a_result_is_kept_said_and_released_by_its_receipt(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    shown(bench, item(1))
    assert bench.exited(item(1), after=5.0, key=b"sealed", body=BODY, blobs=BODY) == [
        ended(item(1)),
        bench.asks(2, cpus=1),
        kept_row(bench, item(1), key=b"sealed", body=BODY, blobs=BODY),
        ready(result_item(item(1), key=b"sealed", body=BODY, blobs=BODY)),
    ]
    assert [kept.results for kept in bench.worker.kept()] == [1]
    assert bench.says(receipted(LeaseId(1, 1), LeaseId(1, 9))) == released(LeaseId(1, 1))
    assert bench.worker.kept() == ()
    assert bench.exited(item(1)) == []


def test_an_unacknowledged_result_is_said_again(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    bench.exited(item(1), after=5.0)
    bench.do(ev.Drain())
    assert [effect for effect in bench.tick(after=30.0) if effect == ready(result_item(item(1)))]
    assert [effect for effect in bench.tick(after=30.0) if effect == ready(result_item(item(1)))]


def test_results_survive_a_restart_and_an_absent_master() -> None:
    first, second = result_item(item(1)), result_item(item(2))
    bench = Bench(kept(first, second))
    assert bench.worker.deadline is None
    bench.do(OFFER)
    assert bench.do(ANN.link()) == [
        send(msg.Holding(leases=(LeaseId(1, 1), LeaseId(1, 2)))),
        send(msg.ProfileIs(profile=PROFILE)),
        ready(first, second),
    ]
    assert bench.tick(after=15.0) == [
        send(msg.Heartbeat(beats=(msg.Beat(LeaseId(1, 1), running=False), msg.Beat(LeaseId(1, 2), running=False))))
    ]
    assert bench.says(receipted(LeaseId(1, 1), LeaseId(1, 2))) == [*released(LeaseId(1, 1)), *released(LeaseId(1, 2))]
    assert bench.tick(after=15.0) == []
    assert bench.worker.deadline is None


def test_an_attempt_outlives_a_broken_link(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    bench.do(ev.LinkDown(peer=ANN.node))
    assert bench.worker.deadline is None
    assert bench.do(ev.Progressed(lease=LeaseId(1, 1), master=ANN.node, progress=5)) == []
    assert bench.exited(item(1), after=90.0) == [ended(item(1)), kept_row(bench, item(1))]
    assert bench.do(ANN.link())[0] == send(msg.Holding(leases=(LeaseId(1, 1),)))


def test_a_fault_hands_the_lease_back_and_pauses(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    shown(bench, item(1))
    fault = ev.Faulted(lease=LeaseId(1, 1), master=ANN.node, fault="disk", detail="x" * 900)
    assert bench.do(fault, after=5.0) == [ended(item(1), "disk"), returned("disk", item(1), detail="x" * 500)]
    assert bench.do(fault) == []
    assert bench.tick(after=1.0) == [bench.asks(2, cpus=1)]


def test_a_fault_without_a_link_is_said_later(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    bench.do(ev.LinkDown(peer=ANN.node))
    fault = ev.Faulted(lease=LeaseId(1, 1), master=ANN.node, fault="fetch")
    assert bench.do(fault) == [ended(item(1), "fetch")]
    # Held until it is handed back, or the master would count it as lost.
    assert bench.do(ANN.link(caps=())) == [send(msg.Holding(leases=(LeaseId(1, 1),))), returned("fetch", item(1))]


def test_a_cancelled_attempt_is_killed_and_forgotten(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    assert bench.says(msg.Cancel(leases=(LeaseId(1, 1), LeaseId(1, 5)))) == [
        fx.Kill(lease=LeaseId(1, 1), master=ANN.node, reason="cancelled"),
        ended(item(1), "cancelled"),
        bench.asks(2, cpus=1),
    ]
    assert bench.exited(item(1)) == []


def test_a_cancelled_result_is_released(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    bench.exited(item(1))
    assert bench.says(msg.Cancel(leases=(LeaseId(1, 1),))) == released(LeaseId(1, 1))


def test_other_masters_do_not_end_a_lease(bench: Bench) -> None:
    bench.join(ANN, BOB)
    bench.work()
    running(bench, item(1))
    assert bench.says(msg.Cancel(leases=(LeaseId(1, 1),)), BOB) == []
    assert bench.worker.busy


# -- heartbeats ----------------------------------------------------------------------------------------------------------


def test_a_heartbeat_renews_all_leases_of_a_master(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    running(bench, item(1), item(2))
    shown(bench, item(1), item(2))
    beats = (msg.Beat(LeaseId(1, 1)), msg.Beat(LeaseId(1, 2)))
    assert bench.tick(after=15.0) == [send(msg.Heartbeat(beats=beats))]
    assert bench.tick(after=15.0) == [send(msg.Heartbeat(beats=beats))]


def test_nobody_holds_a_lease_for_ever(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1), of=manifest(limits=Limits(time_s=10)))
    shown(bench, item(1))
    assert bench.tick(after=120.0) == [send(msg.Heartbeat(beats=(msg.Beat(LeaseId(1, 1)),)))]
    assert bench.tick(after=15.0) == []


def test_a_kept_result_is_not_renewed_for_ever(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    bench.exited(item(1))
    bench.do(ev.Drain())
    beats = [
        effect.message.beats for _ in range(100) for effect in bench.tick(after=15.0)
        if isinstance(effect.message, msg.Heartbeat)
    ]  # fmt: skip
    assert beats == [(msg.Beat(LeaseId(1, 1), running=False),)] * 39


def test_progress_is_told_at_once_but_not_too_often(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    running(bench, item(1), item(2))

    def progressed(counter: int, progress: int, after: float = 0.0) -> list[fx.Effect]:
        return bench.do(ev.Progressed(lease=LeaseId(1, counter), master=ANN.node, progress=progress), after=after)

    def told(*beats: tuple[int, int]) -> list[fx.Effect]:
        return [send(msg.Heartbeat(beats=tuple(msg.Beat(LeaseId(1, lease), progress=at) for lease, at in beats)))]

    assert progressed(1, 50) == []
    assert bench.tick(after=1.0) == told((1, 50), (2, -1))
    assert bench.tick(after=1.0) == []
    assert progressed(1, 100) == told((1, 100))
    assert progressed(1, 100) == []
    assert progressed(1, 200, after=0.5) == []
    assert progressed(2, 5000) == []
    assert bench.tick(after=0.5) == told((1, 200), (2, 1000))
    assert bench.tick(after=1.0) == []
    assert progressed(9, 1) == []


def test_a_master_hears_soon_that_attempts_run_once_for_all_and_not_of_short_ones(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    bench.says(granted((item(1), item(2))))
    assert bench.tick(after=14.0) == []  # they fetch their files
    [beat] = bench.tick(after=1.0)
    assert beat == send(msg.Heartbeat(beats=tuple(msg.Beat(item(n).lease, running=False) for n in (1, 2))))
    bench.do(ev.Started(lease=item(1).lease, master=ANN.node))
    bench.do(ev.Started(lease=item(2).lease, master=ANN.node), after=0.9)
    shown_at_once = bench.tick(after=0.1)
    assert shown_at_once == [send(msg.Heartbeat(beats=(msg.Beat(item(1).lease), msg.Beat(item(2).lease))))]
    assert bench.tick(after=1.0) == []
    bench.exited(item(1))
    bench.says(granted((item(3),), number=2))
    bench.do(ev.Started(lease=item(3).lease, master=ANN.node))
    bench.exited(item(3), after=0.9)
    assert [each for each in bench.tick(after=0.2) if isinstance(each.message, msg.Heartbeat)] == []


def test_another_life_of_a_master_hears_it_anew(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    running(bench, item(1))
    shown(bench, item(1))
    bench.do(ev.LinkDown(peer=ANN.node))
    bench.do(ANN.link())
    shown(bench, item(1))


# -- leases ahead --------------------------------------------------------------------------------------------------------


def short(bench: Bench) -> None:
    """Teach the worker that ANN's job takes an eighth of a second: it has seen so many attempts of it."""
    bench.join(ANN, offer=ONE)
    bench.worker._asking._means.learn(job_id(), 0.125, 63)
    bench.work()
    running(bench, item(1))
    assert bench.exited(item(1), after=0.125)[1] == bench.asks(2, cpus=1, ahead=((job_id(), 8),), tasks_max=9)


def test_short_attempts_are_asked_for_ahead_and_wait_their_turn(bench: Bench) -> None:
    short(bench)
    items = tuple(item(counter, task=counter) for counter in range(2, 11))
    assert bench.says(granted(items, number=2)) == [
        *start(items[0]),
        fx.Fetch(master=ANN.node, job=job_id(), blobs=BODY),
    ]
    assert [guest.state for guest in bench.worker.guests(bench.now)] == ["starting"] + ["waiting"] * 8
    for which in range(3):
        assert bench.exited(items[which], after=0.125)[:4] == [
            ended(items[which]),
            *start(items[which + 1]),
            kept_row(bench, items[which]),
        ]
    # Half of what may wait is gone: time to ask for more, before the slot is free.
    assert bench.exited(items[3], after=0.125)[:4] == [
        ended(items[3]),
        *start(items[4]),
        bench.asks(3, cpus=0, memory_mb=0, gpus=0, ahead=((job_id(), 4),), tasks_max=4),
    ]


def test_whose_turn_it_is_has_what_is_free_next_while_what_waits_runs(bench: Bench) -> None:
    short(bench)
    bench.do(BOB.link())
    bench.says(granted((item(2), item(3), item(4)), number=2))
    bench.work(BOB)
    bench.worker._asking._turn = ("bob", BOB.node)
    assert bench.exited(item(2), after=0.125)[:4] == [
        ended(item(2)),
        *start(item(3)),
        bench.asks(4, cpus=1, memory_mb=4096, member=BOB),
    ]
    assert bench.exited(item(3), after=0.125)[1] == start(item(4))[0], "it is asked once"
    waits = granted((item(9),), number=4, member=BOB)
    assert [each for each in bench.says(waits, BOB) if isinstance(each, fx.Start)] == [], "and waits for the next slot"
    assert start(item(9), member=BOB)[0] in bench.exited(item(4), after=0.125)


def test_a_waiting_attempt_cannot_have_exited(bench: Bench) -> None:
    short(bench)
    bench.says(granted((item(2), item(3)), number=2))
    assert bench.exited(item(3)) == []
    assert bench.do(ev.Started(lease=LeaseId(1, 3), master=ANN.node)) == []


def test_a_waiting_attempt_is_cancelled_without_a_kill(bench: Bench) -> None:
    short(bench)
    bench.says(granted((item(2), item(3)), number=2))
    assert [each for each in bench.says(msg.Cancel(leases=(LeaseId(1, 3),))) if isinstance(each, fx.Kill)] == []
    assert len(bench.worker.guests(bench.now)) == 1


def test_leases_that_wait_too_long_are_handed_back(bench: Bench) -> None:
    short(bench)
    items = tuple(item(counter) for counter in range(2, 11))
    bench.says(granted(items, number=2))
    effects = bench.tick(after=4.0)
    assert effects == [returned("late", entry) for entry in items[1:]]
    # Not asked for again until an attempt shows that the job is short after all.
    assert bench.tick(after=1.0) == []


def test_leases_that_are_asked_back_are_those_that_would_start_last(bench: Bench) -> None:
    short(bench)
    items = tuple(item(counter) for counter in range(2, 7))
    bench.says(granted(items, number=2))
    back = fx.Send(
        peer=ANN.node,
        message=msg.Return(items=tuple(msg.ReturnItem(entry.lease, "recalled") for entry in items[-2:])),
    )
    assert bench.says(msg.Recall(tasks=2))[0] == back
    assert len(bench.says(msg.Recall(tasks=99))[0].message.items) == 2
    assert [guest.state for guest in bench.worker.guests(bench.now)] == ["starting"]
    assert bench.says(msg.Recall(tasks=99)) == []


def test_waiting_leases_go_back_when_the_offer_ends(bench: Bench) -> None:
    short(bench)
    bench.says(granted((item(2), item(3)), number=2))
    closed = Profile(slots=1, sandbox="strict", reason="on battery")
    assert bench.do(msgspec.structs.replace(OFFER, profile=closed)) == [
        send(msg.ProfileIs(profile=closed)),
        returned("evicted", item(3)),
    ]


def test_a_wide_task_is_not_overtaken(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    wide = manifest(number=2, resources=Resources(cpus=2))
    running(bench, item(1))
    shown(bench, item(1))
    assert bench.says(granted((item(2),), number=2, of=wide)) == [fx.Fetch(master=ANN.node, job=job_id(2), blobs=BODY)]
    # Asked with what is kept for it, every answer would be another lease that waits behind it, and the next request.
    assert bench.work(counter=2) == []
    assert bench.exited(item(1), after=1.0)[1:3] == start(item(2), of=wide)
    assert bench.exited(item(2), after=1.0)[1] == bench.asks(4)


# -- going down ----------------------------------------------------------------------------------------------------------


def test_drain_hands_back_what_waits_and_lets_the_rest_end(bench: Bench) -> None:
    short(bench)
    bench.says(granted((item(2), item(3), item(4)), number=2))
    closed = msgspec.structs.replace(ONE.profile, accepts=False, reason="the node is going down")
    assert bench.do(ev.Drain()) == [
        send(msg.ProfileIs(profile=closed)),
        returned("draining", item(3), item(4)),
    ]
    assert bench.worker.draining
    assert bench.work(counter=9) == []
    assert bench.exited(item(2), after=0.1) == [ended(item(2)), kept_row(bench, item(2)), ready(result_item(item(2)))]
    assert not bench.worker.busy


def test_drain_now_kills_and_hands_back_everything(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    running(bench, item(1))
    bench.do(ev.Drain())
    assert bench.do(ev.Drain(now=True)) == [
        fx.Kill(lease=LeaseId(1, 1), master=ANN.node, reason="draining"),
        ended(item(1), "draining"),
        returned("draining", item(1)),
    ]
    assert bench.says(granted((item(2),), number=2)) == [returned("late", item(2))]


def saving(bench: Bench, *, minor: int = 2) -> GrantItem:
    """Let one attempt run and be told to end."""
    bench.do(OFFER)
    bench.do(ANN.link(minor=minor))
    bench.work()
    running(bench, item(1))
    bench.do(ev.Drain())
    kill = fx.Kill(lease=LeaseId(1, 1), master=ANN.node, reason="draining", checkpoint_s=2.5)
    assert bench.do(ev.Drain(save_s=2.5)) == ([kill] if minor > 1 else [])
    return item(1)


def test_who_is_told_to_end_may_leave_a_checkpoint(bench: Bench) -> None:
    entry = saving(bench)
    assert bench.do(ev.Drain(save_s=2.5)) == []
    assert bench.worker.busy
    shown(bench, entry)
    [beat] = bench.tick(after=15.0)
    assert beat == send(msg.Heartbeat(beats=(msg.Beat(entry.lease),)))
    saved = Outcome(reason="saved", exit=1)
    assert bench.exited(entry, outcome=saved, checkpoint=True, key=b"k", body=BODY) == [
        ended(entry, "saved"),
        kept_row(bench, entry, outcome=saved, checkpoint=True, key=b"k", body=BODY),
        ready(result_item(entry, saved, checkpoint=True, key=b"k", body=BODY)),
    ]
    assert bench.worker.owes
    bench.says(receipted(entry.lease))
    assert not bench.worker.owes


def test_who_is_told_to_end_and_leaves_nothing_is_handed_back(bench: Bench) -> None:
    entry = saving(bench)
    assert bench.exited(entry, outcome=Outcome(reason="saved")) == [
        ended(entry, "saved"),
        returned("draining", entry),
    ]
    assert not bench.worker.busy


def test_who_ends_by_itself_just_then_has_ended_by_itself(bench: Bench) -> None:
    entry = saving(bench)
    assert bench.exited(entry) == [ended(entry), kept_row(bench, entry), ready(result_item(entry))]


def test_an_older_master_is_not_sent_checkpoints(bench: Bench) -> None:
    entry = saving(bench, minor=1)
    bad = Outcome(reason="exit", exit=1)
    assert bench.exited(entry, outcome=bad, checkpoint=True)[1] == kept_row(bench, entry, outcome=bad)


def test_who_takes_too_long_to_leave_a_checkpoint_is_killed(bench: Bench) -> None:
    entry = saving(bench)
    assert bench.do(ev.Drain(now=True)) == [
        fx.Kill(lease=entry.lease, master=ANN.node, reason="draining"),
        ended(entry, "draining"),
        returned("draining", entry),
    ]
    assert bench.exited(entry, outcome=Outcome(reason="saved"), checkpoint=True) == []


def test_what_stands_still_is_not_told_to_end(bench: Bench) -> None:
    """It would have to go on for that, though its master may have given it to others."""
    bench.do(OFFER)
    bench.do(ANN.link(minor=2))
    bench.work()
    running(bench, item(1))
    bench.do(ev.Woke(slept_s=60.0, counted=False))
    bench.do(ev.Drain())
    assert bench.do(ev.Drain(save_s=2.5)) == []


def test_what_does_not_run_yet_has_nothing_to_save(bench: Bench) -> None:
    bench.do(OFFER)
    bench.do(ANN.link(minor=2))
    bench.work()
    bench.says(granted((item(1),)))
    bench.do(ev.Drain())
    assert bench.do(ev.Drain(save_s=2.5)) == []


def test_an_attempt_starts_with_the_checkpoint_that_came_with_its_grant(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    message = granted((item(1), item(2, 1)), checkpoints=(checkpoint(item(2, 1)),))
    effects = bench.says(message)
    assert effects[:2] == start(item(1))
    assert effects[2:] == start(item(2, 1), checkpoint_key=SAVED_KEY, checkpoint=SAVED_BODY)


def test_a_checkpoint_that_does_not_open_costs_the_work_behind_it_only(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    effects = bench.says(granted((item(1),), checkpoints=(checkpoint(item(1), key=b"x" * 80),)))
    assert effects[0] == fx.Drop(peer=ANN.node, reason="checkpoint: decryption failed")
    assert effects[1:3] == start(item(1))


def test_a_forged_checkpoint_costs_the_link(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    assert bench.says(granted((item(1),), checkpoints=(checkpoint(item(1), signer=BOB),))) == [
        fx.Drop(peer=ANN.node, reason="bad signature", close=True)
    ]


def test_the_outcome_travels(bench: Bench) -> None:
    bench.join(ANN, offer=ONE)
    bench.work()
    running(bench, item(1))
    bad = Outcome(reason="exit", exit=3)
    effects = bench.exited(item(1), outcome=bad, sandbox="none")
    assert effects[0] == ended(item(1), "exit")
    assert effects[2:] == [
        kept_row(bench, item(1), outcome=bad, sandbox="none"),
        ready(result_item(item(1), bad, sandbox="none")),
    ]


def test_the_key_of_the_start_is_the_jobs(bench: Bench) -> None:
    bench.join(ANN)
    bench.work()
    (effect, *_) = bench.says(granted((item(1),)))
    assert isinstance(effect, fx.Start)
    assert effect.key == KEY
    assert sign.digest(b"") != KEY


def test_nothing_of_an_expelled_master_is_kept():
    bench = Bench(kept(result_item(item(9))))
    bench.join(ANN)
    bench.work()
    bench.says(granted((item(1), item(2)), number=1))
    effects = bench.worker.expel(ANN.node, bench.now)
    assert [type(effect) for effect in effects].count(fx.Kill) == 2
    assert fx.Release(lease=item(9).lease, master=ANN.node) in effects
    assert not bench.worker.busy
    assert bench.worker.kept() == ()
    bench.worker.check()


def test_what_waits_for_a_slot_is_forgotten_with_its_master():
    bench = Bench()
    bench.join(ANN)
    bench.work()
    bench.says(granted((item(1), item(2)), number=1, of=manifest(resources=Resources(cpus=2))))
    effects = bench.worker.expel(ANN.node, bench.now)
    assert [type(effect) for effect in effects].count(fx.Kill) == 1
    assert not bench.worker.busy
    bench.worker.check()


def test_a_slot_that_the_own_network_left_is_kept_for_it_a_moment():
    bench = Bench()
    bench.join(ANN)
    bench.do(BOB.link(path=(ME.node,)))
    assert bench.work() == [bench.asks(1)]
    first, second = item(1), item(2, task=1)
    assert bench.says(granted((first, second))) == [*start(first), *start(second)]
    assert bench.says(msg.HasWork(counter=2)) == []
    assert bench.work(BOB) == []
    result = ResultKept(
        lease=first.lease, master=ANN.node, item=result_item(first), wall=Wall(WALL + 1000), owner="ann"
    )
    assert bench.exited(first, after=1.0) == [ended(first), fx.Record(row=result), ready(result_item(first))]
    assert bench.tick(KEEP_S - 0.01) == []
    assert bench.tick(0.01) == [bench.asks(2, cpus=1, member=BOB)]
    guest = item(1)
    taken = bench.says(granted((guest,), number=2, member=BOB), BOB)
    assert taken == start(guest, member=BOB)
    # What came over a bridge leaves nothing to be kept.
    bench.exited(guest, member=BOB, after=1.0)
    assert bench.work(BOB, counter=2) == []
    assert bench.worker._asking.lately.kept(bench.now) == 0


def test_a_task_between_two_of_the_own_network_gets_no_slot_from_afar():
    bench = Bench()
    bench.join(ANN)
    bench.do(BOB.link(path=(ME.node,)))
    bench.work()
    first, second = item(1), item(2, task=1)
    bench.says(granted((first, second)))
    bench.says(msg.HasWork(counter=2))
    bench.work(BOB)
    bench.exited(first, after=1.0)
    bench.tick(KEEP_S / 2)
    (request,) = bench.work(counter=3)
    assert (request.peer, request.message.cpus) == (ANN.node, 1)
