"""Fresh seeds: topology, workload and faults all drawn from the seed, in as many processes as there are processors to use.

``python -m simulations swarm --minutes 20 --jobs 2`` prints each seed that fails with what to type to see it again.
"""

import argparse
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count, islice
from random import Random
from time import monotonic
from typing import Final

import msgspec

from simulations import bounds
from simulations.play import Report, play
from simulations.scenarios import Scenario, swarm_faults
from simulations.work import workload

NAME: Final = "fresh"
SUMS: Final = (
    "tasks", "settled", "attempts", "crashes", "power_losses", "wipes", "lost_jobs", "cuts", "flaps", "pauses", "lies",
    "messages", "events",
)  # fmt: skip


def drawn(seed: int) -> Scenario:
    """Return a scenario of which everything comes from the seed."""
    rng = Random(f"{seed}/swarm")
    nodes = rng.choice((1, 2, 2, 3, 5, 8, 12, 12, 20, 40))
    masters = rng.randint(1, max(1, nodes // 3)) if nodes > 1 and rng.random() < 0.4 else 0
    narrow = not masters and nodes >= 8 and rng.random() < 0.2
    slots = rng.choice(((1, 1), (1, 4), (2, 8)))
    mean_s = rng.choice((0.05, 0.5, 2.0, 10.0))
    bridges = rng.choice((1, 2, 3)) if not masters and not narrow and nodes >= 8 and rng.random() < 0.4 else 0
    widest = 2 if nodes >= 12 and slots[1] > 1 else slots[0]
    widest = slots[0] if narrow else widest
    scenario = Scenario(
        about="everything drawn from the seed",
        nodes=nodes,
        masters=masters,
        bridges=bridges,
        clusters=rng.randint(2, bridges + 1) if bridges else 1,
        slots=slots,
        own=narrow or nodes == 1,
        links_max=6 if narrow else None,
        skew_ms=rng.choice((0, 2000, 140_000)),
        tasks=rng.choice((20, 60, 150, 300)),
        work=lambda of, tasks: workload(of, tasks, mean_s, cpus=(1, 1, 1, widest)),
        arrive_s=rng.choice((0.0, 10.0, 60.0)),
        faults=swarm_faults,
        faults_s=rng.choice((30.0, 120.0, 300.0)),
        checks=rng.choice((1, 10)) if nodes <= 12 else 10,
    )
    batching = scenario.clusters > 1 and rng.random() < 0.5
    return msgspec.structs.replace(scenario, batching=batching)


class Verdict(msgspec.Struct, frozen=True):
    """What came of one seed."""

    seed: int
    report: Report | None
    broken: str = ""


def judge(seed: int) -> Verdict:
    """Play one seed."""
    try:
        return Verdict(seed, play(drawn(seed), seed))
    except Exception as error:  # noqa: BLE001  whatever it is, the seed must be told
        return Verdict(seed, None, f"{type(error).__name__}: {error}")


def _verdicts(seeds: Iterator[int], jobs: int, until: float) -> Iterator[Verdict]:
    """Yield verdicts as they come; no seed begins after that instant."""
    if jobs == 1:
        for seed in seeds:
            if monotonic() >= until:
                return
            yield judge(seed)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: set[Future[Verdict]] = set()
        while True:
            while len(running) < 2 * jobs and monotonic() < until and (following := next(seeds, None)) is not None:
                running.add(pool.submit(judge, following))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from sorted((each.result() for each in done), key=lambda verdict: verdict.seed)


def main(argv: Sequence[str]) -> int:
    """Play fresh seeds; return 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m simulations swarm", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=None, help="begin no seed after so long (default: 1, without --count)"
    )
    parser.add_argument("--count", type=bounds.whole(1, bounds.RUNS_MAX), default=None, help="so many seeds")
    parser.add_argument(
        "--first",
        type=bounds.whole(0, bounds.SEED_MAX),
        default=None,
        help="the first seed; otherwise the system draws it",
    )
    parser.add_argument("--jobs", type=bounds.whole(1, 1024), default=1, help="processes")
    parser.add_argument(
        "--bridged", action="store_true", help="only seeds that draw networks with bridges between them"
    )
    arguments = parser.parse_args(argv)
    first = int.from_bytes(os.urandom(4)) if arguments.first is None else arguments.first
    minutes = arguments.minutes if arguments.minutes is not None or arguments.count is not None else 1.0
    wanted = (seed for seed in count(first) if drawn(seed).bridges or not arguments.bridged)
    seeds = islice(wanted, arguments.count)
    print(f"first seed {first}", flush=True)
    began = monotonic()
    until = began + 60 * minutes if minutes is not None else float("inf")
    played = failed = 0
    sums = dict.fromkeys(SUMS, 0)
    for verdict in _verdicts(seeds, arguments.jobs, until):
        played += 1
        if verdict.report is None:
            failed += 1
            print(f"seed {verdict.seed}: {verdict.broken}\n    {again(verdict.seed)}", flush=True)
            continue
        for name in SUMS:
            sums[name] += getattr(verdict.report, name)
    took_s = monotonic() - began
    figures = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in sums.items())
    print(
        f"{played} seeds, {failed} failed: {figures}; {took_s:.0f} s, {sums['events'] / max(1e-9, took_s):.0f} events/s"
    )
    return 1 if failed else 0


def again(seed: int) -> str:
    """Return what to type to play one seed again."""
    return f"python -m simulations --scenario {NAME} --seed {seed}"
