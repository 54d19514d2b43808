"""A worker that slept: what it counts of that, and whom it asks."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.wire import messages as msg
from tests.unit.core.workerkit import ANN, ME, OFFER, PROFILE, Bench, ended, granted, item, job_id, returned, send

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
    bench.exited(item(1), after=0.5)
    # Half a second that it ran, and as much for the one that is asked for next.
    assert bench.worker._fairness.given(bench.now) == pytest.approx({"ann": 1.0})
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
    beats = (msg.Beat(item(2).lease), msg.Beat(item(3).lease, running=False), msg.Beat(item(1).lease, running=False))
    assert send(msg.Heartbeat(beats=beats)) in effects
