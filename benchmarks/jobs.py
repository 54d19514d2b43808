"""A small folder until its result lies in ``results/``: through the API, as a command, and where no node runs yet."""

import statistics
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.nodes import Node, run_job, timed
from p2pq.client.connection import Connection
from p2pq.wire import control

API_GOAL_MS: Final = 60.0
COMMAND_GOAL_MS: Final = 250.0
COLD_GOAL_S: Final = 0.8
PER_RUN: Final = 7
"""Submissions and plain runs, by turns; a run's figure is the difference of their medians."""

SCRIPT: Final = """\
import os, pathlib, sys
results = pathlib.Path(os.environ.get("P2PQ_RESULTS", "results"))
results.mkdir(exist_ok=True)
(results / "answer.txt").write_text("42")
(results / "python.txt").write_text(sys.executable)
"""


def run(base: Path, runs: int) -> list[Figure]:
    """Measure."""
    folder = base / "job"
    folder.mkdir()
    (folder / "main.py").write_text(SCRIPT)
    (folder / "parameters.txt").write_text("rate = 7\n" * 20)
    (folder / "helpers.py").write_text("def helper():\n    return 7\n" * 20)
    api, command, plain, ratio = [], [], [], []
    with Node(base / "home") as node, node.connect() as connection:
        level = f"sandbox {node.sandbox}"
        _submit(connection, folder)
        python = (folder / "results/python.txt").read_text()
        for _ in range(runs):
            through_api, as_command, alone = [], [], []
            for _ in range(PER_RUN):
                alone.append(timed(lambda: _plain(python, folder)))
                through_api.append(timed(lambda: _submit(connection, folder)))
                as_command.append(timed(lambda: _command(node, folder)))
            script = statistics.median(alone)
            plain.append(script * 1e3)
            api.append((statistics.median(through_api) - script) * 1e3)
            command.append((statistics.median(as_command) - script) * 1e3)
            ratio.append(statistics.median(through_api) / script)
    cold = [_cold(node, python, folder) for _ in range(runs)]
    return [
        Figure(name="plain script", unit="ms", samples=tuple(plain), note="`python main.py`, by turns with the others"),
        Figure(
            name="submit to result, API", unit="ms", samples=tuple(api), goal=API_GOAL_MS, note=f"beyond it; {level}"
        ),
        Figure(
            name="submit to result, command",
            unit="ms",
            samples=tuple(command),
            goal=COMMAND_GOAL_MS,
            note=f"beyond it; {level}",
        ),
        Figure(name="submit through the API over plain script", unit="x", samples=tuple(ratio)),
        Figure(
            name="submit to result, cold start",
            unit="s",
            samples=tuple(cold),
            goal=COLD_GOAL_S,
            note=f"no node ran; beyond the script; {level}",
        ),
    ]


def _submit(connection: Connection, folder: Path) -> None:
    run_job(connection, control.Submit(folder=str(folder)))
    _check(folder)


def _command(node: Node, folder: Path) -> None:
    node.command("submit", "--quiet", str(folder))
    _check(folder)


def _plain(python: str, folder: Path) -> None:
    subprocess.run([python, "main.py"], cwd=folder, check=True)
    _check(folder)


def _cold(node: Node, python: str, folder: Path) -> float:
    script = statistics.median(timed(lambda: _plain(python, folder)) for _ in range(PER_RUN))
    took = timed(lambda: _command(node, folder))
    node.command("stop")
    return took - script


def _check(folder: Path) -> None:
    """See that the result has come, and make room for the next one."""
    answer = folder / "results/answer.txt"
    if answer.read_text() != "42":
        raise RuntimeError("the result is wrong")
    answer.unlink()
