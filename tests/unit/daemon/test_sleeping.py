import pytest

from p2pq.core.events import Woke
from p2pq.daemon.sleeping import WOKE_S, Sleeps, late_s
from p2pq.model.ids import Mono


class Clocks:
    def __init__(self, *, boot: bool = True) -> None:
        self.mono = 100.0
        self.boot = 5000.0
        self.sleeps = Sleeps(lambda: Mono(self.mono), (lambda: self.boot) if boot else None)

    def go(self, seconds: float) -> None:
        self.mono += seconds
        self.boot += seconds


@pytest.mark.parametrize(("now", "late"), [(9.0, 0.0), (10.0, 0.0), (15.0, 0.0), (15.1, 5.1), (100.0, 90.0)])
def test_little_lateness_is_none(now: float, late: float) -> None:
    assert late_s(10.0, now) == pytest.approx(late)
    assert WOKE_S == 5.0


def test_what_was_meant_to_pass_is_no_sleep() -> None:
    clocks = Clocks()
    for _ in range(3):
        clocks.sleeps.wait(60.0)
        clocks.go(64.0)
        assert clocks.sleeps.look() == []


def test_a_stopped_process_finds_that_its_clock_went_on() -> None:
    clocks = Clocks()
    clocks.sleeps.wait(2.0)
    clocks.go(302.0)
    assert clocks.sleeps.look() == [Woke(slept_s=300.0, counted=True)]
    assert clocks.sleeps.look() == []


def test_a_machine_s_sleep_is_in_the_other_clock_only() -> None:
    clocks = Clocks()
    clocks.sleeps.wait(2.0)
    clocks.go(1.0)
    clocks.boot += 3600.0
    assert clocks.sleeps.look() == [Woke(slept_s=3600.0, counted=False)]
    clocks.go(1.0)
    assert clocks.sleeps.look() == []


def test_a_short_sleep_of_the_machine_is_none() -> None:
    clocks = Clocks()
    for _ in range(10):
        clocks.boot += 4.0
        assert clocks.sleeps.look() == []


def test_both_at_once() -> None:
    clocks = Clocks()
    clocks.go(10.0)
    clocks.boot += 20.0
    assert clocks.sleeps.look() == [Woke(slept_s=20.0, counted=False), Woke(slept_s=10.0, counted=True)]


def test_waking_early_leaves_nothing_over_for_later() -> None:
    clocks = Clocks()
    for _ in range(50):
        clocks.sleeps.wait(2.0)
        assert clocks.sleeps.look() == []
    clocks.go(6.0)
    assert clocks.sleeps.look() == [Woke(slept_s=6.0, counted=True)]


def test_without_the_clock_since_boot_only_stops_are_seen() -> None:
    clocks = Clocks(boot=False)
    clocks.boot += 3600.0
    assert clocks.sleeps.look() == []
    clocks.go(7.0)
    assert clocks.sleeps.look() == [Woke(slept_s=7.0, counted=True)]
