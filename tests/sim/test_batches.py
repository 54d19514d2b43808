"""Bridges that speak for a cluster: what runs goes on when a way to its master ends and another one is left, or comes back."""

from random import Random

import pytest

from p2pq.core.ways import PATIENCE_S
from p2pq.model.job import Profile
from p2pq.wire import messages as msg
from simulations.plans import Plan
from simulations.play import START_S, Play
from simulations.scenarios import Scenario
from simulations.work import JobPlan

EVENT_S = START_S + 10.0
"""By then all four tasks run."""
TASK_S = 50.0


class Few(Play):
    """A master and a worker of four slots, and bridges that batch, each linked to both."""

    late_s = 40.0
    """How much longer than a task it may take."""

    def __init__(self, *, bridges: int = 1, reach: bool = False) -> None:
        """``reach``: whether master and worker reach each other without a bridge."""
        self.reach = reach
        scenario = Scenario(
            about="few", nodes=bridges + 2, clusters=2, bridges=bridges, batching=True, skew_ms=0, arrive_s=0.0,
            work=lambda _rng, _tasks: [JobPlan(tasks=4, mean_s=TASK_S)],
        )  # fmt: skip
        super().__init__(scenario, seed=1)

    @property
    def ends(self) -> tuple[int, int]:
        """The master and the worker."""
        return self.scenario.bridges, self.scenario.bridges + 1

    def _may_link(self, one: int, other: int) -> bool:
        return self.reach or {one, other} != {*self.ends}

    def _plan(self, index: int, rng: Random) -> Plan:
        del rng
        master, worker = self.ends
        slots = 4 * (index == worker)
        offer = Profile(slots=slots, memory_mb=1024 * slots, sandbox="strict", accepts=True)
        is_bridge = index < master
        return Plan(
            index=index, name=f"n{index}", owner=f"o{index}", profile=offer, own=Profile(), listens=True,
            caps=("bridge",) if is_bridge else ("submit",) if index == master else ("work",),
            bridging=is_bridge, batching=is_bridge, submits=index == master, links_max=self.nodes,
            dials=tuple(range(index)),
        )  # fmt: skip

    def turn(self, *, reach: bool) -> None:
        """From now on master and worker reach each other, or do not."""
        self.reach = reach
        self.part(*self.ends)

    def part(self, one: int, other: int) -> None:
        """The link between these two breaks; they dial each other again."""
        for link in self.network.links_of(one):
            if {link.dialler, link.target} == {one, other}:
                self.network.drop(link)

    def goes_on(self) -> None:
        """Play it to the end: nothing has run twice."""
        report = self.run()
        assert report.states == {"done": 4}
        assert report.attempts == 4
        assert report.makespan_s < TASK_S + self.late_s
        assert report.drops == {}


@pytest.mark.quick
@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True), (False, False)])
def test_from_a_link_to_a_bridge_and_back(first, then):
    play = Few(reach=first)
    play.world.at(EVENT_S, lambda: play.turn(reach=then))
    play.goes_on()


@pytest.mark.quick
@pytest.mark.parametrize("silent", [True, False])
def test_from_one_bridge_to_another(silent):
    play = Few(bridges=2)
    for bridge in play.hosts[:2]:  # whichever it was that the worker took part through
        play.world.at(EVENT_S + 80.0 * bridge.index, lambda bridge=bridge: bridge.crash(silent=silent))
        play.world.at(EVENT_S + 80.0 * bridge.index + 45.0, bridge.start)
    play.goes_on()


@pytest.mark.quick
@pytest.mark.parametrize("mute", [0, 1])
def test_a_bridge_that_shows_a_master_and_leads_nowhere_costs_a_minute(mute, monkeypatch):
    play = Few(bridges=2)
    bridge = play.hosts[mute]
    say = bridge._say
    monkeypatch.setattr(bridge, "_say", lambda peer, said: None if isinstance(said, msg.Through) else say(peer, said))
    report = play.run()
    assert report.states == {"done": 4}
    assert report.attempts == 4
    assert report.makespan_s < TASK_S + play.late_s + PATIENCE_S


@pytest.mark.quick
@pytest.mark.parametrize("down_s", [0.5, 20.0])
def test_a_bridge_that_comes_back_learns_what_there_is_from_its_leaves(down_s):
    play = Few()
    (bridge, *_) = play.hosts
    play.world.at(EVENT_S, lambda: bridge.crash(silent=False))
    play.world.at(EVENT_S + down_s, bridge.start)
    play.goes_on()


@pytest.mark.quick
def test_a_master_that_comes_back_learns_it_from_the_bridge():
    play = Few()
    master = play.hosts[play.ends[0]]
    play.world.at(EVENT_S, lambda: master.crash(silent=False))
    play.world.at(EVENT_S + 5.0, master.start)
    play.goes_on()


@pytest.mark.quick
def test_a_bridge_that_leaves_politely_takes_nothing_with_it():
    play = Few(bridges=2)
    for bridge in play.hosts[:2]:
        play.world.at(EVENT_S + 80.0 * bridge.index, bridge.leave)
        play.world.at(EVENT_S + 80.0 * bridge.index + 1.0, lambda bridge=bridge: bridge.crash(silent=False))
        play.world.at(EVENT_S + 80.0 * bridge.index + 45.0, bridge.start)
    play.goes_on()


@pytest.mark.quick
def test_a_leaf_that_goes_on_to_another_bridge_while_its_first_one_links_anew_takes_its_work_along():
    play = Few(bridges=2)
    for bridge in play.hosts[:2]:  # whichever it was that the worker took part through
        play.world.at(EVENT_S + 20.0 * bridge.index, lambda bridge=bridge: play.part(bridge.index, play.ends[0]))
    play.goes_on()


# -- bridges in a row ----------------------------------------------------------------------------------------------------


class InARow(Few):
    """A master, bridges that batch, and a worker, each linked to the next one only."""

    late_s = 55.0

    def _may_link(self, one: int, other: int) -> bool:
        master, worker = self.ends
        row = (master, *range(master), worker)
        return abs(row.index(one) - row.index(other)) == 1


@pytest.mark.quick
@pytest.mark.parametrize("bridges", [2, 3])
def test_a_worker_works_for_a_master_over_bridges_in_a_row(bridges):
    InARow(bridges=bridges).goes_on()


@pytest.mark.quick
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("down_s", [0.5, 20.0])
def test_any_bridge_of_a_row_comes_back_and_learns_what_there_is(which, down_s):
    play = InARow(bridges=3)
    bridge = play.hosts[which]
    play.world.at(EVENT_S, lambda: bridge.crash(silent=False))
    play.world.at(EVENT_S + down_s, bridge.start)
    play.goes_on()


@pytest.mark.quick
def test_all_bridges_of_a_row_come_back_at_once():
    play = InARow(bridges=3)
    for bridge in play.hosts[:3]:
        play.world.at(EVENT_S, lambda bridge=bridge: bridge.crash(silent=False))
        play.world.at(EVENT_S + 1.0, bridge.start)
    play.goes_on()


@pytest.mark.quick
def test_a_master_that_comes_back_learns_it_over_the_whole_row():
    play = InARow(bridges=2)
    master = play.hosts[play.ends[0]]
    play.world.at(EVENT_S, lambda: master.crash(silent=False))
    play.world.at(EVENT_S + 5.0, master.start)
    play.goes_on()


@pytest.mark.quick
def test_nobody_works_over_more_bridges_than_there_may_be():
    play = InARow(bridges=4)
    play.world.run(EVENT_S, lambda: False)
    for host in play.hosts:
        host.start()
    play.world.run(2 * EVENT_S, lambda: False)
    assert play.world.notices["TooFar"] > 0
    assert play.world.notices["TaskGranted"] == 0
