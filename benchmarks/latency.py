"""One short command: through the Python client, as a whole ``p2pq run``, and without p2pq, by turns in the same run."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final
from unittest import mock

import p2pq
from benchmarks.figures import Figure
from benchmarks.nodes import Node, timed

TRUE: Final = "true"
CLIENT_GOAL_MS: Final = 2.5
COMMAND_GOAL_MS: Final = 80.0
PER_RUN: Final = 11
BARE: Final = "subprocess.run of true"
CLIENT: Final = "true through the Python client"
COMMAND: Final = "p2pq run -- true"
EMPTY: Final = "python -c pass"


def run(base: Path, runs: int) -> list[Figure]:
    """Measure."""
    found: dict[str, list[float]] = {}
    with (
        Node(base / "home") as node,
        mock.patch.dict(os.environ, node.environment()),
        p2pq.Client(start=False) as client,
    ):
        ways: dict[str, Callable[[], object]] = {
            BARE: lambda: subprocess.run([TRUE], check=True),
            CLIENT: lambda: _through(client),
            EMPTY: lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            COMMAND: lambda: node.command("run", "--", TRUE),
        }
        for way in ways.values():
            way()  # the first time is another matter
        for _ in range(runs):
            for name, way in ways.items():
                found.setdefault(name, []).append(statistics.median(timed(way) for _ in range(PER_RUN)) * 1e3)
    goals = {CLIENT: CLIENT_GOAL_MS, COMMAND: COMMAND_GOAL_MS}
    figures = [
        Figure(name=name, unit="ms", samples=tuple(times), goal=goals.get(name)) for name, times in found.items()
    ]
    for own, other in ((CLIENT, BARE), (COMMAND, EMPTY)):
        ratios = tuple(one / two for one, two in zip(found[own], found[other], strict=True))
        figures.append(Figure(name=f"{own} over {other}", unit="x", samples=ratios))
    return figures


def _through(client: p2pq.Client) -> None:
    code = next(task.exit_code for task in client.commands([TRUE]).as_completed())
    if code != 0:
        raise RuntimeError(f"it ended with {code}")
