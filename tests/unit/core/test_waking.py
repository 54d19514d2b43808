"""A worker that slept: what it counts of that, and whom it asks."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.waking import CONFIRM_S
from p2pq.model.ids import LeaseId
from p2pq.wire import messages as msg
from p2pq.wire.objects import GrantItem
from tests.unit.core.workerkit import (
    ANN,
    BOB,
    ME,
    OFFER,
    PROFILE,
    Bench,
    Member,
    ended,
    granted,
    item,
    job_id,
    returned,
    send,
    start,
)

ONE = msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, slots=1))


@pytest.fixture
def bench() -> Bench:
    """A worker that runs one attempt of ANN's short job and holds another ahead."""
    bench = Bench()
    bench.join(ANN, offer=ONE)
    bench.work()
    bench.says(granted((item(1),)))
    bench.exited(item(1), after=0.125)
    bench.says(granted((item(2), item(3)), number=2))
    assert [guest.state for guest in bench.worker.guests(bench.now)] == ["starting", "waiting"]
    return bench


def suspend(entry: GrantItem, member: Member = ANN) -> fx.Suspend:
    return fx.Suspend(lease=entry.lease, master=member.node)


def go_on(entry: GrantItem, member: Member = ANN) -> fx.Continue:
    return fx.Continue(lease=entry.lease, master=member.node)


def confirm(bench: Bench, *entries: GrantItem) -> fx.Send:
    """Return the last question, of these leases."""
    return send(msg.Confirm(nonce=bench.numbers.to_bytes(16, "big"), leases=tuple(entry.lease for entry in entries)))


def confirmed(bench: Bench, *entries: GrantItem) -> list[fx.Effect]:
    """Answer the last question."""
    nonce = bench.numbers.to_bytes(16, "big")
    return bench.says(msg.Confirmed(nonce=nonce, leases=tuple(entry.lease for entry in entries)))


def states(bench: Bench) -> list[str]:
    return [guest.state for guest in bench.worker.guests(bench.now)]


def woke(bench: Bench, slept_s: float, *, counted: bool = True) -> list[fx.Effect]:
    return bench.do(ev.Woke(slept_s=slept_s, counted=counted), after=slept_s if counted else 0.0)


# -- slept time is not run time -----------------------------------------------------------------------------------------


def test_an_attempt_has_not_run_while_the_node_slept(bench: Bench) -> None:
    bench.tick(after=2.0)
    woke(bench, 600.0)
    assert [guest.since_s for guest in bench.worker.guests(bench.now)] == [2.0, 0.0]


def test_an_attempt_begins_no_later_than_now(bench: Bench) -> None:
    bench.tick(after=2.0)
    bench.do(ev.Woke(slept_s=600.0, counted=True), after=3.0)
    assert [guest.since_s for guest in bench.worker.guests(bench.now)] == [0.0, 0.0]


def test_a_sleep_that_the_clock_did_not_count_changes_no_clock(bench: Bench) -> None:
    bench.tick(after=2.0)
    woke(bench, 600.0, counted=False)
    assert [guest.since_s for guest in bench.worker.guests(bench.now)] == [2.0, 0.0]


def test_a_lease_ahead_waits_as_long_as_ever_after_a_sleep(bench: Bench) -> None:
    woke(bench, 600.0)
    assert returned("late", item(3)) not in bench.tick(after=3.9)
    assert returned("late", item(3)) in bench.tick(after=0.2)


def test_a_sleep_is_not_the_owner_s_time() -> None:
    bench = Bench()
    bench.join(ANN, offer=ONE)
    bench.work()
    bench.says(granted((item(1),)))
    woke(bench, 600.0)
    confirmed(bench, item(1))
    bench.exited(item(1), after=0.5)
    # Half a second that it ran, and as much for the one that is asked for next.
    assert bench.worker._accounts[False].given(bench.now) == pytest.approx({"ann": 1.0})
    assert bench.worker._asking.mean_s(job_id(), "ann") == 0.5


def test_own_work_is_charged_to_nobody_before_a_sleep_and_after() -> None:
    bench = Bench()
    bench.join(ME)
    bench.work(ME)
    bench.says(granted((item(1),), member=ME), ME)
    bench.tick(after=1.0)
    woke(bench, 600.0)
    assert [guest.since_s for guest in bench.worker.guests(bench.now)] == [1.0]
    assert ended(item(1), member=ME) in bench.exited(item(1), member=ME)


def test_a_woken_worker_renews_at_once_and_blames_nobody(bench: Bench) -> None:
    effects = woke(bench, 500.0)
    beats = tuple(msg.Beat(item(number).lease, running=False) for number in (2, 3, 1))
    assert effects[:3] == [suspend(item(2)), confirm(bench, item(2), item(3)), send(msg.Heartbeat(beats=beats))]


# -- a woken node asks before it continues ------------------------------------------------------------------------------


@pytest.mark.parametrize("counted", [True, False])
def test_what_is_still_ours_goes_on(bench: Bench, counted: bool) -> None:
    bench.do(ev.Started(lease=item(2).lease, master=ANN.node))
    effects = woke(bench, 90.0, counted=counted)
    assert effects[:2] == [suspend(item(2)), confirm(bench, item(2), item(3))]
    assert states(bench) == ["suspended", "waiting"]
    assert confirmed(bench, item(2), item(3)) == [go_on(item(2))]
    assert states(bench) == ["running", "waiting"]
    assert confirmed(bench) == []  # the question was answered


def test_what_others_were_given_is_killed_and_forgotten_without_a_word(bench: Bench) -> None:
    woke(bench, 90.0, counted=False)
    kill = fx.Kill(lease=item(2).lease, master=ANN.node, reason="cancelled")
    effects = confirmed(bench, item(3))
    assert effects[:2] == [kill, ended(item(2), "cancelled")]
    assert effects[2:] == start(item(3))  # the lease ahead is still ours, and has its slot now
    assert not any(isinstance(effect, fx.Send) for effect in effects)


def test_a_lease_ahead_that_others_were_given_is_forgotten(bench: Bench) -> None:
    woke(bench, 90.0, counted=False)
    assert confirmed(bench, item(2)) == [go_on(item(2))]
    assert states(bench) == ["starting"]


def test_a_lease_ahead_does_not_start_while_it_is_in_doubt(bench: Bench) -> None:
    woke(bench, 90.0, counted=False)
    assert not any(isinstance(effect, fx.Start) for effect in bench.exited(item(2), after=0.125))
    question = bench.worker._waking._asked[ANN.node]
    assert bench.says(msg.Confirmed(nonce=question, leases=(item(3).lease,))) == start(item(3))


def test_what_ended_in_the_meantime_is_reported_as_ever(bench: Bench) -> None:
    bench.do(ev.Started(lease=item(2).lease, master=ANN.node))
    bench.tick(after=1.0)
    woke(bench, 90.0)
    assert ended(item(2)) in bench.exited(item(2), after=7.0)
    assert bench.worker._asking.mean_s(job_id(), "ann") == pytest.approx((0.125 + 1.0) / 2)


def test_an_answer_to_another_question_is_ignored(bench: Bench) -> None:
    woke(bench, 90.0, counted=False)
    old = bench.numbers
    bench.tick(after=1.0)
    assert woke(bench, 90.0, counted=False) == [confirm(bench, item(2), item(3))]
    assert bench.says(msg.Confirmed(nonce=old.to_bytes(16, "big"))) == []
    assert states(bench) == ["suspended", "waiting"]
    bench.join(BOB)
    assert bench.says(msg.Confirmed(nonce=bench.worker._waking._asked[ANN.node]), BOB) == []
    assert states(bench) == ["suspended", "waiting"]


def test_leases_that_nobody_asked_about_are_no_answer(bench: Bench) -> None:
    woke(bench, 90.0, counted=False)
    nonce = bench.numbers.to_bytes(16, "big")
    leases = (item(2).lease, item(3).lease, LeaseId(7, 7))
    assert bench.says(msg.Confirmed(nonce=nonce, leases=leases)) == [go_on(item(2))]


def test_a_master_that_says_nothing_keeps_nobody_waiting(bench: Bench) -> None:
    woke(bench, 90.0, counted=False)
    assert [bench.tick(after=5.0).count(go_on(item(2))) for _ in range(4)] == [0, 0, 0, 1]
    assert CONFIRM_S == 20.0
    assert confirmed(bench) == []
    assert states(bench)[0] == "starting"


def test_what_came_after_waking_was_never_in_doubt() -> None:
    bench = Bench()
    bench.join(ANN)
    bench.work()
    bench.says(granted((item(1),)))
    assert woke(bench, 90.0, counted=False) == [suspend(item(1)), confirm(bench, item(1))]
    assert bench.says(granted((item(2),), number=2))[:2] == start(item(2))
    assert states(bench) == ["suspended", "starting"]
    effects = bench.tick(after=20.0)
    assert go_on(item(1)) in effects
    assert go_on(item(2)) not in effects


def test_what_stood_still_did_not_run(bench: Bench) -> None:
    bench.tick(after=2.0)
    woke(bench, 90.0)
    assert bench.worker.guests(bench.now)[0].since_s == 2.0
    bench.tick(after=3.0)
    assert bench.worker.guests(bench.now)[0].since_s == 2.0
    woke(bench, 600.0)
    bench.tick(after=4.0)
    question = bench.worker._waking._asked[ANN.node]
    bench.says(msg.Confirmed(nonce=question, leases=(item(2).lease,)))
    assert bench.worker.guests(bench.now)[0].since_s == 2.0
    bench.tick(after=1.0)
    assert bench.worker.guests(bench.now)[0].since_s == 3.0


def test_a_master_that_is_not_linked_is_asked_when_it_is(bench: Bench) -> None:
    bench.do(ev.LinkDown(peer=ANN.node))
    assert woke(bench, 90.0, counted=False) == [suspend(item(2))]
    bench.tick(after=15.0)
    effects = bench.do(ANN.link())
    assert effects[0] == send(msg.Holding(leases=(item(2).lease, item(3).lease, item(1).lease)))
    assert returned("late", item(3)) in effects  # nobody waits that long for a slot, in doubt or not
    assert effects[-1] == confirm(bench, item(2))
    bench.tick(after=19.0)
    assert states(bench)[0] == "suspended"
    bench.tick(after=1.0)
    assert states(bench)[0] == "starting"


def test_an_answer_that_a_broken_link_swallowed_is_asked_for_again(bench: Bench) -> None:
    woke(bench, 90.0, counted=False)
    bench.do(ev.LinkDown(peer=ANN.node))
    bench.do(ANN.link())
    assert confirmed(bench, item(2), item(3)) == [go_on(item(2))]


def test_who_is_away_for_long_keeps_nobody_waiting(bench: Bench) -> None:
    bench.do(ev.LinkDown(peer=ANN.node))
    woke(bench, 90.0, counted=False)
    assert go_on(item(2)) in bench.tick(after=20.0)
    assert not any(
        isinstance(effect, fx.Send) and isinstance(effect.message, msg.Confirm) for effect in bench.do(ANN.link())
    )


def test_a_master_of_the_first_version_is_not_asked(bench: Bench) -> None:
    bench.do(ANN.link(minor=1))
    assert woke(bench, 90.0, counted=False) == []
    bench.do(ev.LinkDown(peer=ANN.node))
    assert woke(bench, 90.0, counted=False) == [suspend(item(2))]
    assert go_on(item(2)) in bench.do(ANN.link(minor=1))
    assert states(bench)[0] == "starting"


def test_own_work_needs_no_question() -> None:
    bench = Bench()
    bench.join(ME)
    bench.work(ME)
    bench.says(granted((item(1),), member=ME), ME)
    assert woke(bench, 90.0, counted=False) == []


def test_who_holds_nothing_asks_nobody() -> None:
    bench = Bench()
    bench.join(ANN)
    assert woke(bench, 90.0, counted=False) == []


def test_what_is_suspended_can_be_cancelled_and_banned(bench: Bench) -> None:
    woke(bench, 90.0, counted=False)
    kill = fx.Kill(lease=item(2).lease, master=ANN.node, reason="cancelled")
    assert bench.says(msg.Cancel(leases=(item(2).lease,)))[0] == kill
    assert ended(item(3), "banned") not in bench.worker.expel(ANN.node, bench.now)
    bench.worker.check()
    assert not bench.worker.busy
    assert confirmed(bench, item(2)) == []


def test_what_is_packed_is_asked_about_and_stands_not_still(bench: Bench) -> None:
    bench.do(ev.Started(lease=item(2).lease, master=ANN.node))
    bench.do(ev.Vacated(lease=item(2).lease, master=ANN.node), after=0.5)
    assert states(bench) == ["packing", "starting"]
    effects = woke(bench, 100.0)
    assert confirm(bench, item(2), item(3)) in effects
    assert [each for each in effects if isinstance(each, fx.Suspend)] == [suspend(item(3))]
    assert bench.worker.guests(bench.now)[0].since_s == pytest.approx(0.5)
    assert [each for each in confirmed(bench, item(2), item(3)) if isinstance(each, fx.Continue)] == [go_on(item(3))]
    woke(bench, 100.0)
    assert fx.Kill(lease=item(2).lease, master=ANN.node, reason="cancelled") in confirmed(bench, item(3))
