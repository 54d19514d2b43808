"""Wall time is counted on from what was told last."""

from p2pq.core.clock import WallClock
from p2pq.model.ids import Mono, Wall


def test_wall_time_goes_on_with_the_monotonic_clock():
    clock = WallClock(Mono(5.0), Wall(1000))
    assert clock.at(Mono(5.0)) == 1000
    assert clock.at(Mono(6.5)) == 2500


def test_a_wall_clock_that_was_set_counts_from_there():
    clock = WallClock(Mono(5.0), Wall(1000))
    clock.rebase(Mono(10.0), Wall(77))
    assert clock.at(Mono(10.001)) == 78


def test_wall_time_is_never_before_the_epoch():
    assert WallClock(Mono(5.0), Wall(10)).at(Mono(0.0)) == 0
