"""Bridges that speak for a cluster: what goes on when a way to a master ends and another one is left."""

from random import Random

import pytest

from p2pq.model.job import Profile
from simulations.plans import Plan
from simulations.play import START_S, Play
from simulations.scenarios import Scenario
from simulations.work import JobPlan

BRIDGE, MASTER, WORKER = range(3)
CUT_S = START_S + 8.0


class Trio(Play):
    """A master, a worker, and a bridge that batches, linked to both."""

    def __init__(self, *, first: bool, then: bool) -> None:
        """Whether master and worker reach each other at first, and then."""
        self.reach = first
        scenario = Scenario(
            about="a way ends", nodes=3, clusters=2, bridges=1, batching=True, skew_ms=0, arrive_s=0.0,
            work=lambda _rng, _tasks: [JobPlan(tasks=4, mean_s=20.0)],
        )  # fmt: skip
        super().__init__(scenario, seed=1)
        self.world.at(CUT_S, self.turn, then)

    def turn(self, reach: bool) -> None:
        self.reach = reach
        for link in self.network.links_of(WORKER):
            if {link.dialler, link.target} == {MASTER, WORKER}:
                self.network.drop(link)

    def _may_link(self, one: int, other: int) -> bool:
        return BRIDGE in {one, other} or self.reach

    def _plan(self, index: int, rng: Random) -> Plan:
        del rng
        slots = 4 if index == WORKER else 0
        offer = Profile(slots=slots, memory_mb=1024 * slots, sandbox="strict", accepts=True)
        return Plan(
            index=index, name=f"n{index}", owner=f"o{index}", profile=offer, own=Profile(), listens=True,
            caps=(("bridge",), ("submit",), ("work",))[index], bridging=index == BRIDGE, batching=index == BRIDGE,
            submits=index == MASTER, links_max=3, dials=tuple(range(index)),
        )  # fmt: skip


@pytest.mark.quick
@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True), (False, False)])
def test_what_runs_goes_on_whichever_way_its_master_is_reached(first, then):
    report = Trio(first=first, then=then).run()
    assert report.states == {"done": 4}
    assert report.attempts == 4, "nothing ran twice"
    assert report.makespan_s < 30.0
    assert report.drops == {}
