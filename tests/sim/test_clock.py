"""A host's clock: what a machine sleeps does not count, what its node is stopped does."""

import pytest

from simulations.clock import Clock
from simulations.world import World


class Bench:
    def __init__(self) -> None:
        self.world = World(1)
        self.clock = Clock(self.world)
        self.fired: list[tuple[str, float, float]] = []

    def fire(self, name: str) -> None:
        self.fired.append((name, self.world.now, self.clock.now))

    def run(self, until: float) -> None:
        self.world.run(until, lambda: False)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.clock.after(5.0, bench.fire, "late")
    bench.clock.after(3.0, bench.fire, "node")
    bench.clock.after_of_task(4.0, bench.fire, "task")
    bench.run(2.0)
    return bench


def test_timers_fire_when_they_are_due(bench):
    bench.run(10.0)
    assert bench.fired == [("node", 3.0, 3.0), ("task", 4.0, 4.0), ("late", 5.0, 5.0)]


def test_a_sleep_does_not_count(bench):
    bench.clock.hold(asleep=True)
    bench.run(102.0)
    assert (bench.clock.now, bench.fired) == (2.0, [])
    assert bench.clock.release() == (100.0, False)
    bench.run(110.0)
    assert bench.fired == [("node", 103.0, 3.0), ("task", 104.0, 4.0), ("late", 105.0, 5.0)]
    bench.clock.at(20.0, bench.fire, "at")
    bench.run(200.0)
    assert bench.fired[-1] == ("at", 120.0, 20.0)


def test_a_stopped_node_does_nothing_while_its_tasks_run_on_and_its_clock_counts(bench):
    bench.clock.hold(asleep=False)
    bench.run(102.0)
    assert (bench.clock.now, bench.fired) == (102.0, [("task", 4.0, 4.0)])
    assert bench.clock.release() == (100.0, True)
    bench.run(110.0)
    assert bench.fired[1:] == [("node", 102.0, 102.0), ("late", 102.0, 102.0)]


def test_what_waits_is_forgotten_with_the_life(bench):
    bench.clock.hold(asleep=True)
    bench.run(50.0)
    bench.clock.reset()
    bench.run(100.0)
    assert bench.fired == []
    assert bench.clock.now == 52.0
