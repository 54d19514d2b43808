"""A worker whose machine is first of all its owner's: guests stand still, go on, and go."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.model.job import Outcome
from p2pq.model.owner import Stance, Verdict
from p2pq.wire import messages as msg
from p2pq.wire.objects import GrantItem
from tests.unit.core.workerkit import (
    ANN,
    ME,
    OFFER,
    OWN,
    PROFILE,
    Bench,
    Member,
    ended,
    granted,
    item,
    manifest,
    ready,
    result_item,
    returned,
    send,
    start,
)

WHY = "the owner is back"
GRACE_S = 10.0
SAVED = Outcome(reason="saved", exit=1)


def owner(bench: Bench, stance: Stance, *, after: float = 0.0, reason: str = WHY) -> list[fx.Effect]:
    verdict = Verdict(stance=stance, reason="" if stance == "run" else reason)
    return bench.do(ev.OwnerIs(verdict=verdict, grace_s=GRACE_S), after=after)


def suspend(entry: GrantItem) -> fx.Suspend:
    return fx.Suspend(lease=entry.lease, master=ANN.node, reason=WHY)


def go_on(entry: GrantItem) -> fx.Continue:
    return fx.Continue(lease=entry.lease, master=ANN.node)


def kill(entry: GrantItem, checkpoint_s: float = 0.0) -> fx.Kill:
    return fx.Kill(lease=entry.lease, master=ANN.node, reason="evicted", detail=WHY, checkpoint_s=checkpoint_s)


def offered(*, still: bool, reason: str = WHY) -> fx.Send:
    """Return what ANN is told while guests are not welcome."""
    return send(msg.ProfileIs(profile=msgspec.structs.replace(PROFILE, accepts=False, reason=reason, still=still)))


def at_work(minor: int = msg.CHECKPOINTS_SINCE) -> Bench:
    """Return a worker that runs one attempt of ANN's, is about to start another one, and holds a third ahead."""
    bench = Bench()
    bench.do(OFFER)
    bench.do(ANN.link(minor=minor))
    bench.work()
    bench.says(granted((item(1),)))
    bench.do(ev.Started(lease=item(1).lease, master=ANN.node))
    bench.exited(item(1), after=0.125)
    bench.says(granted((item(2),), number=2))
    bench.says(granted((item(3), item(4)), number=3))
    bench.do(ev.Started(lease=item(2).lease, master=ANN.node))
    assert states(bench) == ["running", "starting", "waiting"]
    return bench


@pytest.fixture
def bench() -> Bench:
    return at_work()


def states(bench: Bench) -> list[str]:
    return [guest.state for guest in bench.worker.guests(bench.now)]


def test_suspended_guests_stand_still_and_nothing_new_is_taken(bench: Bench) -> None:
    assert owner(bench, "suspend") == [
        suspend(item(2)),
        suspend(item(3)),
        offered(still=True),
        returned("evicted", item(4), detail=WHY),
    ]
    assert states(bench) == ["suspended", "suspended"]
    assert bench.worker.verdict == Verdict(stance="suspend", reason=WHY)
    assert owner(bench, "suspend") == []


def test_leases_are_renewed_meanwhile_and_nothing_is_asked_for(bench: Bench) -> None:
    owner(bench, "suspend")
    assert bench.work(counter=2) == []
    beats = {
        beat.lease
        for effect in bench.tick(after=20.0)
        if isinstance(effect, fx.Send) and isinstance(effect.message, msg.Heartbeat)
        for beat in effect.message.beats
    }
    assert beats == {item(1).lease, item(2).lease, item(3).lease}  # the first is a result that ANN has yet to take


def test_a_grant_that_comes_too_late_is_handed_back(bench: Bench) -> None:
    bench.exited(item(2))  # whose slot is asked for again
    owner(bench, "suspend")
    effects = bench.says(granted((item(9),), number=bench.numbers))
    assert returned("refused", item(9), detail=WHY) in effects
    assert states(bench) == ["suspended", "suspended"]


def test_they_go_on_and_work_is_asked_for_again(bench: Bench) -> None:
    owner(bench, "suspend", after=1.0)
    effects = owner(bench, "run", after=10.0)
    assert effects[:3] == [go_on(item(2)), go_on(item(3)), send(msg.ProfileIs(profile=PROFILE))]
    assert states(bench) == ["running", "starting"]
    assert [guest.since_s for guest in bench.worker.guests(bench.now)] == pytest.approx([1.0, 1.0])


def test_what_stood_still_is_nobodys_run_time(bench: Bench) -> None:
    owner(bench, "suspend")
    owner(bench, "run", after=300.0)
    bench.exited(item(2), after=0.5)
    bench.exited(item(3))
    assert bench.worker._accounts[False].given(bench.now)["ann"] == pytest.approx(0.125 + 2 * 0.5, abs=0.01)


def test_held_guests_go_on_and_no_more_are_taken(bench: Bench) -> None:
    assert owner(bench, "hold") == [offered(still=False), returned("evicted", item(4), detail=WHY)]
    assert states(bench) == ["running", "starting"]
    owner(bench, "suspend")
    assert owner(bench, "hold")[:2] == [go_on(item(2)), go_on(item(3))]


def test_evicted_guests_leave_a_checkpoint_and_what_has_not_begun_goes_at_once(bench: Bench) -> None:
    assert owner(bench, "evict") == [
        kill(item(2), GRACE_S),
        kill(item(3)),
        ended(item(3), "evicted"),
        returned("evicted", item(3), detail=WHY),
        offered(still=True),
        returned("evicted", item(4), detail=WHY),
    ]
    assert states(bench) == ["ending"]
    assert owner(bench, "evict") == []
    effects = bench.exited(item(2), outcome=SAVED, checkpoint=True)
    assert ready(result_item(item(2), SAVED, checkpoint=True)) in effects


def test_what_leaves_no_checkpoint_is_handed_back_with_the_reason(bench: Bench) -> None:
    owner(bench, "evict")
    assert returned("evicted", item(2), detail=WHY) in bench.exited(item(2), outcome=SAVED)


def test_a_suspended_guest_is_let_go_on_to_leave_its_checkpoint(bench: Bench) -> None:
    owner(bench, "suspend", after=1.0)
    assert kill(item(2), GRACE_S) in owner(bench, "evict", after=600.0)
    assert states(bench) == ["ending"]
    assert [guest.since_s for guest in bench.worker.guests(bench.now)] == pytest.approx([1.0])
    # It may only end now, whatever the owner does.
    assert owner(bench, "suspend") == []
    assert states(bench) == ["ending"]


def test_a_master_that_takes_no_checkpoints_has_its_lease_back_at_once() -> None:
    bench = at_work(minor=msg.CHECKPOINTS_SINCE - 1)
    effects = owner(bench, "evict")
    assert returned("evicted", item(2), item(3), detail=WHY) in effects
    assert states(bench) == []


def test_killed_guests_are_gone_at_once_even_while_they_end(bench: Bench) -> None:
    owner(bench, "evict")
    assert owner(bench, "kill") == [
        kill(item(2)),
        ended(item(2), "evicted"),
        returned("evicted", item(2), detail=WHY),
    ]
    assert not bench.worker.busy


def test_own_tasks_are_the_owner_s(bench: Bench) -> None:
    bench.do(ME.link())
    bench.work(ME)
    bench.says(granted((item(1),), member=ME, number=bench.numbers), ME)
    for stance in ("hold", "suspend", "evict", "kill"):
        owner(bench, stance)
        assert [guest.state for guest in bench.worker.guests(bench.now) if guest.own] == ["starting"]
    bench.exited(item(1), member=ME)
    bench.says(granted((item(2),), member=ME, number=bench.numbers), ME)
    assert [guest.state for guest in bench.worker.guests(bench.now) if guest.own] == ["starting"]


def test_before_the_machine_is_known_nothing_is_offered_and_then_what_the_owner_lets() -> None:
    bench = Bench()
    assert owner(bench, "hold") == []
    bench.do(OFFER)
    assert bench.do(ANN.link()) == [send(msg.Holding()), offered(still=False)]
    assert bench.work() == []
    assert bench.do(ev.Offering(profile=PROFILE, own=OWN)) == []


def test_why_the_machine_takes_no_guests_comes_before_what_its_owner_says() -> None:
    bench = Bench()
    full = msgspec.structs.replace(PROFILE, accepts=False, reason="its disk is nearly full")
    bench.do(ev.Offering(profile=full, own=OWN))
    bench.do(ANN.link())
    owner(bench, "hold")
    assert bench.worker.offering == ev.Offering(profile=full, own=OWN)


# -- a sleep, and the owner ----------------------------------------------------------------------------------------------


def woke(bench: Bench, slept_s: float = 600.0) -> list[fx.Effect]:
    return bench.do(ev.Woke(slept_s=slept_s, counted=True), after=slept_s)


def confirmed(bench: Bench, *entries: GrantItem, member: Member = ANN) -> list[fx.Effect]:
    nonce = bench.numbers.to_bytes(16, "big")
    return bench.says(msg.Confirmed(nonce=nonce, leases=tuple(entry.lease for entry in entries)), member)


def test_who_wakes_while_its_owner_is_there_goes_on_when_both_are_over(bench: Bench) -> None:
    owner(bench, "suspend", after=1.0)
    assert not any(isinstance(effect, fx.Suspend) for effect in woke(bench))
    confirmed(bench, item(2), item(3))
    assert states(bench) == ["suspended", "suspended"]
    assert owner(bench, "run", after=5.0)[:2] == [go_on(item(2)), go_on(item(3))]
    assert [guest.since_s for guest in bench.worker.guests(bench.now)] == pytest.approx([1.0, 1.0])


def test_whose_owner_leaves_while_it_asks_goes_on_when_it_has_the_answer(bench: Bench) -> None:
    owner(bench, "suspend", after=1.0)
    woke(bench)
    assert not any(isinstance(effect, fx.Continue) for effect in owner(bench, "run"))
    assert states(bench) == ["suspended", "suspended"]
    assert confirmed(bench, item(2), item(3))[:2] == [go_on(item(2)), go_on(item(3))]


def test_whose_owner_comes_while_it_asks_stands_still_for_that_too(bench: Bench) -> None:
    woke(bench)
    assert owner(bench, "suspend")[:2] == [suspend(item(2)), suspend(item(3))]
    assert not any(isinstance(effect, fx.Continue) for effect in confirmed(bench, item(2), item(3)))
    assert owner(bench, "run")[:2] == [go_on(item(2)), go_on(item(3))]


def test_what_is_not_ours_any_more_ends_though_it_stands_still(bench: Bench) -> None:
    owner(bench, "suspend")
    woke(bench)
    gone = fx.Kill(lease=item(2).lease, master=ANN.node, reason="cancelled")
    assert gone in confirmed(bench, item(3))
    assert states(bench) == ["suspended"]


def test_what_is_in_doubt_is_handed_back_without_a_checkpoint(bench: Bench) -> None:
    owner(bench, "suspend")
    woke(bench)
    effects = owner(bench, "evict")
    assert [effect for effect in effects if isinstance(effect, fx.Kill)] == [kill(item(2)), kill(item(3))]
    assert returned("evicted", item(2), item(3), detail=WHY) in effects
    assert not bench.worker.busy


# -- what comes back from its slot ---------------------------------------------------------------------------------------


def test_a_guest_that_has_not_begun_in_its_slot_does_not_wait_here(bench: Bench) -> None:
    """No guest goes in a train today; what is put back would be handed back all the same."""
    bench.worker._slots.get(ANN.node, item(3).lease).train = 1
    bench.worker._slots._trains[1] = {(ANN.node, item(3).lease): bench.worker._slots.get(ANN.node, item(3).lease)}
    owner(bench, "suspend")
    effects = bench.do(ev.TrainExited(exits=(), back=((ANN.node, item(3).lease),)))
    assert returned("evicted", item(3), detail=WHY) in effects
    assert states(bench) == ["suspended"]


def test_a_fresh_start_looks_like_ever(bench: Bench) -> None:
    """What is told of attempts holds without any policy, too."""
    owner(bench, "kill")
    effects = owner(bench, "run")
    assert send(msg.ProfileIs(profile=PROFILE)) in effects
    taken = bench.says(granted((item(7),), number=bench.numbers, of=manifest()))
    assert start(item(7))[0] in taken


# -- what has ended, and is only packed any more, is in nobody's way


@pytest.fixture
def packing(bench: Bench) -> Bench:
    bench.do(ev.Vacated(lease=item(2).lease, master=ANN.node))
    assert states(bench) == ["packing", "starting", "starting"]
    return bench


def test_what_is_packed_does_not_stand_still(packing: Bench) -> None:
    assert owner(packing, "suspend") == [suspend(item(3)), suspend(item(4)), offered(still=True)]
    assert states(packing) == ["packing", "suspended", "suspended"]
    packing.worker.check_guests()
    assert ready(result_item(item(2))) in packing.exited(item(2))
    assert owner(packing, "run")[:2] == [go_on(item(3)), go_on(item(4))]


def test_what_is_packed_is_kept_where_guests_have_to_go_but_not_where_they_go_at_once(packing: Bench) -> None:
    effects = owner(packing, "evict")
    assert returned("evicted", item(3), item(4), detail=WHY) in effects
    assert states(packing) == ["packing"]
    packing.worker.check_guests()
    assert kill(item(2)) in owner(packing, "kill")
    assert states(packing) == []


def test_what_stands_still_has_not_left_its_slot(bench: Bench) -> None:
    owner(bench, "suspend")
    assert bench.do(ev.Vacated(lease=item(2).lease, master=ANN.node)) == []
    assert states(bench) == ["suspended", "suspended"]
