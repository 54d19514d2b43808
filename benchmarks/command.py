"""The command line by itself."""

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.nodes import Node, timed

HELP_GOAL_MS: Final = 100.0
PER_RUN: Final = 7


def run(base: Path, runs: int) -> list[Figure]:
    """Measure ``p2pq --help`` and, for comparison, an interpreter that does nothing."""
    node = Node(base / "home")
    node.command("--help")  # compiles, the first time
    helped, nothing = [], []
    for _ in range(runs):
        shown, empty = [], []
        for _ in range(PER_RUN):
            empty.append(timed(lambda: _nothing(node)))
            shown.append(timed(lambda: node.command("--help")))
        helped.append(statistics.median(shown) * 1e3)
        nothing.append(statistics.median(empty) * 1e3)
    return [
        Figure(name="p2pq --help", unit="ms", samples=tuple(helped), goal=HELP_GOAL_MS),
        Figure(name="python -c pass", unit="ms", samples=tuple(nothing), note="the same interpreter"),
        Figure(
            name="--help over an empty program",
            unit="x",
            samples=tuple(one / other for one, other in zip(helped, nothing, strict=True)),
        ),
    ]


def _nothing(node: Node) -> None:
    subprocess.run([sys.executable, "-c", "pass"], env=node.environment(), check=True)
