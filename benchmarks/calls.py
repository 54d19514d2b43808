"""Calls of Python functions: ``p2pq.Executor`` beside other executors, in the same run.

Peers that are not installed are left out. A goal is a time, or a ratio of times: how much longer p2pq may take than a peer.
"""

import importlib.util
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import p2pq
from benchmarks.figures import Figure
from benchmarks.nodes import Node, timed

CALLS: Final = 10_000
AT_ONCE: Final = 2
GOAL_S: Final = 1.0
SINGLE_GOAL_MS: Final = 50.0
PER_RUN: Final = 5
OURS: Final = "p2pq"


def nothing(_: int) -> None:
    """Do nothing."""


def run(base: Path, runs: int) -> list[Figure]:
    """Measure many calls that do nothing, and one at a time."""
    many: dict[str, list[float]] = {}
    single: dict[str, list[float]] = {}
    with Node(base / "home", "--slots", str(AT_ONCE)) as node, ExitStack() as stack:
        pools = {OURS: stack.enter_context(_ours(node)), **_peers(stack)}
        for pool in pools.values():
            pool.submit(nothing, 0).result()
        for _ in range(runs):
            for name, pool in pools.items():
                many.setdefault(name, []).append(timed(lambda pool=pool: list(pool.map(nothing, range(CALLS)))))  # type: ignore[misc]
                took = sorted(timed(lambda pool=pool: pool.submit(nothing, 0).result()) for _ in range(PER_RUN))  # type: ignore[misc]
                single.setdefault(name, []).append(took[PER_RUN // 2] * 1e3)
    found = [
        Figure(name=f"{CALLS} calls: {name}", unit="s", samples=tuple(times), goal=GOAL_S if name == OURS else None)
        for name, times in many.items()
    ]
    for name in many.keys() - {OURS}:
        ratios = tuple(own / other for own, other in zip(many[OURS], many[name], strict=True))
        found.append(Figure(name=f"{OURS} over {name}", unit="x", samples=ratios, goal=1.0 if name == "loky" else None))
    return [
        *found,
        *(
            Figure(
                name=f"one call: {name}", unit="ms", samples=tuple(times), goal=SINGLE_GOAL_MS if name == OURS else None
            )
            for name, times in single.items()
        ),
    ]


@contextmanager
def _ours(node: Node) -> Iterator[Executor]:
    before = dict(os.environ)
    os.environ.update(node.environment())
    try:
        with p2pq.Executor(home=node.home.path, start=False) as pool:
            yield pool
    finally:
        os.environ.clear()
        os.environ.update(before)


def _peers(stack: ExitStack) -> dict[str, Executor]:
    """Return others, with as many processes, and each with a call a future: none of them groups by itself."""
    # Spawned: forking a process that has threads is what Python itself warns of.
    pool = ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn"))
    found: dict[str, Executor] = {"ProcessPoolExecutor": stack.enter_context(pool)}
    if importlib.util.find_spec("loky") is not None:
        import loky  # noqa: PLC0415  only where it is installed

        found["loky"] = stack.enter_context(loky.ProcessPoolExecutor(AT_ONCE))
    return found
