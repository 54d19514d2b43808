"""Many short commands: ``p2pq batch`` beside what people use now, in the same run, on the same disk.

Peers that are not installed are left out. A goal is a ratio of times: how much longer p2pq may take than a peer.
"""

import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.nodes import Node, timed

COMMANDS: Final = 2000
AT_ONCE: Final = 2
GOALS: Final = {"Popen": 1 / 0.75, "GNU parallel": 1 / 3}
"""At most so many times as long: 0.75 of the rate of two threads that start processes, three times that of GNU parallel."""
_CLEAR: Final = "/bin/true"


def run(base: Path, runs: int) -> list[Figure]:
    """Measure ``/bin/true`` many times over."""
    lines = base / "lines"
    lines.write_text(f"{_CLEAR}\n" * COMMANDS)
    ways: dict[str, Callable[[], object]] = {"Popen": _popen, **_installed(lines)}
    taken: dict[str, list[float]] = {name: [] for name in ("p2pq", *ways)}
    with Node(base / "home", "--slots", str(AT_ONCE)) as node:
        node.command("run", "--", _CLEAR)
        for _ in range(runs):
            taken["p2pq"].append(timed(lambda: node.command("batch", str(lines))))
            for name, way in ways.items():
                taken[name].append(timed(way))
    count = f"{COMMANDS} times {_CLEAR}"
    found = [Figure(name=f"{count}: {name}", unit="s", samples=tuple(times)) for name, times in taken.items()]
    for name in ways:
        ratios = tuple(own / other for own, other in zip(taken["p2pq"], taken[name], strict=True))
        found.append(Figure(name=f"p2pq batch over {name}", unit="x", samples=ratios, goal=GOALS.get(name)))
    return found


def _installed(lines: Path) -> dict[str, Callable[[], object]]:
    """Return the peers that are installed, each with its outputs grouped or none to group, and two at a time."""
    wanted = {
        "GNU parallel": ["parallel", "-j", str(AT_ONCE), "--will-cite", "--arg-file", str(lines)],
        "xargs": ["xargs", "-P", str(AT_ONCE), "-a", str(lines), "-n", "1", "env"],
    }
    return {
        name: lambda argv=argv: subprocess.run(argv, check=True, capture_output=True)  # type: ignore[misc]
        for name, argv in wanted.items()
        if shutil.which(argv[0]) is not None
    }


def _popen() -> None:
    """Start as many from threads, and remember nothing: what no durable tool can reach."""

    def work() -> None:
        for _ in range(COMMANDS // AT_ONCE):
            subprocess.run([_CLEAR], check=True)

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
