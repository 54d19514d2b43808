"""A job with an environment that is there already, beside the same job without one, by turns: what its packages cost it."""

import statistics
import zipfile  # noqa: TID251  what packages are
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.nodes import Node, run_job, timed
from p2pq.client.connection import Connection
from p2pq.wire import control

GOAL_MS: Final = 100.0
PAIRS: Final = 15
"""A run's figures are medians of so many submissions of each kind."""

SCRIPT: Final = """\
import os, pathlib, sys
(pathlib.Path(os.environ["P2PQ_RESULTS"]) / "answer.txt").write_text(sys.prefix)
"""


def run(base: Path, runs: int) -> list[Figure]:
    """Measure."""
    home, packages = base / "home", base / "packages"
    home.mkdir(mode=0o700)
    packages.mkdir()
    (home / "config.toml").write_text(f'[environments]\nindex = "none"\nfind_links = ["{packages}"]\n')
    _wheel(packages)
    plain, packaged = _folder(base / "plain"), _folder(base / "packaged")
    (packaged / "requirements.txt").write_text("greeting\n")
    alone, beyond, command = [], [], []
    with Node(home) as node, node.connect() as connection:
        _submit(connection, packaged, "/p2pq-env")  # builds it
        for _ in range(runs):
            took: dict[Path, list[float]] = {plain: [], packaged: []}
            whole: dict[Path, list[float]] = {plain: [], packaged: []}
            for _ in range(PAIRS):
                for folder, prefix in ((plain, ""), (packaged, "/p2pq-env")):
                    took[folder].append(timed(lambda: _submit(connection, folder, prefix)))  # noqa: B023  called at once
            for _ in range(PAIRS):
                for folder in (plain, packaged):
                    whole[folder].append(timed(lambda: node.command("submit", "--quiet", str(folder))))  # noqa: B023
            alone.append(statistics.median(took[plain]) * 1e3)
            beyond.append((statistics.median(took[packaged]) - statistics.median(took[plain])) * 1e3)
            command.append((statistics.median(whole[packaged]) - statistics.median(whole[plain])) * 1e3)
    return [
        Figure(name="submit without packages, API", unit="ms", samples=tuple(alone), note="by turns with the next"),
        Figure(
            name="with packages that are there, API",
            unit="ms",
            samples=tuple(beyond),
            goal=GOAL_MS,
            note=f"beyond it; sandbox {node.sandbox}",
        ),
        Figure(
            name="with packages that are there, command",
            unit="ms",
            samples=tuple(command),
            goal=GOAL_MS,
            note="beyond the same command without",
        ),
    ]


def _folder(path: Path) -> Path:
    path.mkdir()
    (path / "main.py").write_text(SCRIPT)
    return path


def _submit(connection: Connection, folder: Path, prefix: str) -> None:
    run_job(connection, control.Submit(folder=str(folder)))
    answer = folder / "results/answer.txt"
    if prefix not in answer.read_text():
        raise RuntimeError("the job did not have its packages")
    answer.unlink()


def _wheel(folder: Path) -> None:
    about = "greeting-1.0.dist-info"
    with zipfile.ZipFile(folder / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("greeting.py", "")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", f"greeting.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
