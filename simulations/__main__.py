"""``python -m simulations``: play a scenario from a seed, or many seeds, measure, or replay a flight record."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from simulations import bounds, fairness, hierarchy, overflow, replay, swarm, weight
from simulations.planted import planted
from simulations.play import Report, play
from simulations.scenarios import SCENARIOS, Scenario


def main(argv: Sequence[str]) -> int:
    """Return the exit code: 1 where a promise was broken."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "fairness": fairness.main,
        "hierarchy": hierarchy.main,
        "overflow": overflow.main,
        "replay": replay.main,
        "swarm": swarm.main,
        "weight": weight.main,
        "seeds": seeds,
    }
    command = commands.get(argv[0]) if argv else None
    return one(argv) if command is None else command(argv[1:])


def _parser(prog: str, scenario: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--scenario", default=scenario, choices=(*SCENARIOS, swarm.NAME))
    parser.add_argument(
        "--nodes", type=bounds.whole(0, bounds.NODES_MAX), default=0, help="0: as many as the scenario says"
    )
    parser.add_argument(
        "--tasks", type=bounds.whole(0, bounds.TASKS_MAX), default=0, help="0: as many as the scenario says"
    )
    parser.add_argument("--planted", action="store_true", help="accept results by task, to see it found")
    return parser


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    arguments = parser.parse_args(argv)
    scenario = SCENARIOS.get(arguments.scenario)
    if arguments.nodes == 1 and (scenario is None or not scenario.own):
        parser.error("argument --nodes: in a mesh of one nobody works for others; the least here is 2")
    return arguments


def _scenario(name: str, seed: int) -> Scenario:
    return swarm.drawn(seed) if name == swarm.NAME else SCENARIOS[name]


def _play(arguments: argparse.Namespace, seed: int) -> Report:
    with planted() if arguments.planted else nullcontext():
        return play(_scenario(arguments.scenario, seed), seed, arguments.nodes, arguments.tasks)


def one(argv: Sequence[str]) -> int:
    """Play one seed and print its figures."""
    parser = _parser("python -m simulations", "clean")
    parser.add_argument("--seed", type=bounds.whole(0, bounds.SEED_MAX), default=1)
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    arguments = _parsed(parser, argv)
    if arguments.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:<12} {scenario.nodes:>5} nodes {scenario.tasks:>6} tasks  {scenario.about}")
        return 0
    try:
        report = _play(arguments, arguments.seed)
    except AssertionError as error:
        print(f"seed {arguments.seed}: {error}", file=sys.stderr)
        raise
    print(report.text())
    return 0


def seeds(argv: Sequence[str]) -> int:
    """Play many seeds; print those that fail, and what to type to see each again."""
    parser = _parser("python -m simulations seeds", "swarm")
    parser.add_argument("--count", type=bounds.whole(1, bounds.RUNS_MAX), default=200)
    parser.add_argument("--first", type=bounds.whole(0, bounds.SEED_MAX), default=1)
    arguments = _parsed(parser, argv)
    failed = settled = attempts = crashes = cuts = events = 0
    took_s = 0.0
    for seed in range(arguments.first, arguments.first + arguments.count):
        try:
            report = _play(arguments, seed)
        except AssertionError as error:
            failed += 1
            again = f"python -m simulations --seed {seed} --scenario {arguments.scenario}"
            for name in ("nodes", "tasks"):
                if value := getattr(arguments, name):
                    again += f" --{name} {value}"
            again += " --planted" if arguments.planted else ""
            print(f"seed {seed}: {error}\n    {again}", flush=True)
            continue
        settled += report.settled
        attempts += report.attempts
        crashes += report.crashes
        cuts += report.cuts
        events += report.events
        took_s += report.took_s
    print(
        f"{arguments.count} seeds of {arguments.scenario}: {failed} failed; {settled} tasks settled in {attempts} attempts"
        f" through {crashes} crashes and {cuts} partitions; {events} events in {took_s:.1f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
