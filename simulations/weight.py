"""What a job of very many tasks weighs: the master's memory and the messages per task, without, with few and with many faults."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from simulations import bounds
from simulations.host import Host
from simulations.nemesis import Faults
from simulations.play import START_S, Play
from simulations.scenarios import Scenario
from simulations.sizes import size_of
from simulations.work import JobPlan

TASKS: Final = 100_000
NODES: Final = 21
MEAN_S: Final = 0.5
LEVELS: Final = {"none": 0.0, "few": 1.0, "many": 10.0}
"""How often things go wrong, by name: so many crashes of some machine a minute, and the rest in proportion."""
PROBE_S: Final = 2.0
MOMENT_S: Final = 1e-6
GROWTH_MAX: Final = 1.5
"""Memory per task with many faults, compared with few."""


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run. Bytes are those of the master's books."""

    faults: str
    tasks: int
    pending: float
    """Bytes per task when all of them wait."""
    half: float
    """Bytes per task that is over when half of them are."""
    attempts: float
    """Per task."""
    messages: float
    """Per task, to and from everybody."""
    crashes: int
    cuts: int
    seconds: float

    def line(self) -> str:
        """Return a row of a Markdown table."""
        return (
            f"| {self.faults} | {self.crashes} | {self.cuts} | {self.pending:.2f} | {self.half:.0f} | {self.attempts:.3f} "
            f"| {self.messages:.2f} | {self.seconds:.0f} |"
        )


COLUMNS: Final = (
    "faults", "crashes", "partitions", "bytes per pending task", "bytes per ended task", "attempts per task",
    "messages per task", "run, s",
)  # fmt: skip
HEAD: Final = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def weigh(faults: str, tasks: int = TASKS, seed: int = 1) -> Weight:
    """Play one job of so many tasks and weigh it; every promise is checked as in any other run."""
    often = LEVELS[faults]
    every = (lambda seconds: seconds / often) if often else (lambda _: 0.0)
    work_s = tasks * MEAN_S / (2.5 * (NODES - 1))
    scenario = Scenario(
        about="one job of very many tasks",
        nodes=NODES,
        masters=1,
        slots=(1, 4),
        tasks=tasks,
        arrive_s=0.0,
        work=lambda _rng, count: [JobPlan(tasks=count, mean_s=MEAN_S, shape="exponential", fails=0.001, retries=3)],
        faults=lambda _rng: Faults(
            crash_every_s=every(60.0), cut_every_s=every(120.0), drop_every_s=every(30.0), clog_every_s=every(60.0),
            pause_every_s=every(120.0), duplicates=0.002 * often, loss=0.0001 * often,
        ),
        faults_s=2 * work_s,
        checks=20_000,
    )  # fmt: skip
    play = Play(scenario, seed)
    probe = _Probe(play, play.hosts[0])
    report = play.run()
    return Weight(
        faults=faults,
        tasks=tasks,
        pending=probe.pending / tasks,
        half=probe.half / (tasks / 2),
        attempts=report.attempts / tasks,
        messages=report.messages / tasks,
        crashes=report.crashes,
        cuts=report.cuts,
        seconds=report.took_s,
    )


class _Probe:
    """Weighs a master before its job comes, right after that, and when half of it is over."""

    def __init__(self, play: Play, master: Host) -> None:
        self._play = play
        self._master = master
        self._empty = 0
        self.pending = 0
        self.half = 0
        play.world.at(START_S - MOMENT_S, self._before)
        play.world.at(START_S + MOMENT_S, self._after)
        play.world.after(START_S + PROBE_S, self._look)

    def _before(self) -> None:
        self._empty = size_of(self._master.node)

    def _after(self) -> None:
        self.pending = size_of(self._master.node) - self._empty

    def _look(self) -> None:
        if self._master.alive and 2 * self._play.checkers.settled >= self._play.tasks:
            self.half = size_of(self._master.node) - self._empty
        else:
            self._play.world.after(PROBE_S, self._look)


def main(argv: Sequence[str]) -> int:
    """Print a table; return 1 where messages or memory grow with the number of faults."""
    parser = argparse.ArgumentParser(prog="python -m simulations weight", description=__doc__)
    parser.add_argument("--tasks", type=bounds.whole(1, bounds.TASKS_MAX), default=TASKS)
    parser.add_argument("--seed", type=bounds.whole(0, bounds.SEED_MAX), default=1)
    arguments = parser.parse_args(argv)
    print(HEAD)
    weights = []
    for name in LEVELS:
        weights.append(weigh(name, arguments.tasks, arguments.seed))
        print(weights[-1].line(), flush=True)
    _, few, many = weights
    grows = many.half > GROWTH_MAX * few.half or many.messages > GROWTH_MAX * few.messages
    if grows:
        print("memory or messages per task grow with the number of faults", file=sys.stderr)
    return 1 if grows else 0
