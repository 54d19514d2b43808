"""A task that needs a whole machine gets one though another owner keeps every slot busy."""

from p2pq.core import records
from p2pq.model.ids import NodeId
from p2pq.model.job import Resources
from simulations.play import Play
from simulations.scenarios import Scenario
from simulations.work import JobPlan

NARROW = JobPlan(tasks=400, mean_s=3.0, shape="exponential")
WIDE = JobPlan(tasks=4, mean_s=3.0, resources=Resources(cpus=4))


def test_wide_tasks_are_not_starved_by_narrow_ones() -> None:
    scenario = Scenario(
        about="two owners: one has more one-cpu tasks than there are slots, the other's need all four of a machine",
        nodes=4,
        masters=2,
        slots=(4, 4),
        arrive_s=0.0,
        work=lambda _rng, _tasks: [NARROW, WIDE],
    )
    play = Play(scenario, 1)
    ended: list[float] = []
    keep = play.checkers.durable

    def watch(host: NodeId, rows: list[records.Row]) -> None:
        keep(host, rows)
        ended.extend(play.world.now for row in rows if isinstance(row, records.JobEnded))

    play.checkers.durable = watch  # type: ignore[method-assign,assignment]
    report = play.run()
    assert report.settled == 404
    assert ended[0] < 0.4 * ended[1], "the wide ones had to wait until the narrow ones were through"
