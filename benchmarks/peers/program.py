"""``python -m benchmarks peers``: p2pq beside others, by turns, in one run."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks import nodes
from benchmarks.peers import install, report
from benchmarks.peers.contestant import Contestant, Driven
from benchmarks.peers.own import P2pq
from benchmarks.peers.running import Runner, rough_s
from benchmarks.peers.tools import Parallel, ParallelTwice, Xargs
from benchmarks.peers.workloads import WORKS

RUNS: Final = 3
DRIVEN: Final = {
    "two threads": "threads",
    "ProcessPoolExecutor": "processes",
    "loky": "loky",
    "HyperQueue": "hyperqueue",
    "Dask": "dask",
    "Ray": "ray",
    "Celery": "celery",
    "dispy": "dispy",
}
OWN: Final = ("p2pq none", "p2pq strict", "p2pq strict, 2 nodes")
TOOLS: Final = {tool.name: tool for tool in (Parallel, ParallelTwice, Xargs)}
NAMES: Final = (*OWN, *DRIVEN, *TOOLS)


def main(arguments: Sequence[str], about: Callable[[], list[str]]) -> int:
    """Measure, and print the tables; return 0 however fast anything was."""
    options = _parse(arguments)
    if options.install:
        install.install(options.environment)
        return 0
    if options.draw is not None:
        results, lines = report.read_json(options.draw)
    else:
        lines = about()
        results = _measured(options, lines)
    text = report.markdown(results, lines)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")
    if options.plot is not None:
        report.draw(options.plot, results)
    return 0


def _measured(options: argparse.Namespace, lines: Sequence[str]) -> report.Results:
    python = install.python_of(options.environment)
    if not python.exists():
        print(f"no peers in {options.environment}; python -m benchmarks peers --install makes it", file=sys.stderr)
    minutes = rough_s(options.only, len(options.peers), options.runs, options.scale) / 60
    print(f"about {minutes:.0f} min for {options.runs} runs of {len(options.peers)} contestants", file=sys.stderr)
    results = report.Results()
    with nodes.workspace(options.dir) as base:
        runner = Runner(base, python, works=options.only, scale=options.scale, window_s=options.window)
        results.counts = {name: runner.count(name) for name in options.only}
        makers = [lambda folder, name=name: make(name, folder, python) for name in options.peers]
        for number in range(1, options.runs + 1):
            began = time.monotonic()
            runner.round(makers, results, lambda text: print(text, file=sys.stderr, flush=True))
            if options.json is not None:  # after each run, so that an interrupted one is not lost
                report.write_json(options.json, results, lines)
            left = (options.runs - number) * (time.monotonic() - began) / 60
            print(f"run {number} of {options.runs} is done, {left:.0f} min are left", file=sys.stderr)
    return results


def make(name: str, folder: Path, python: Path) -> Contestant:
    """Return a contestant."""
    if name in TOOLS:
        return TOOLS[name](folder)
    if name in DRIVEN:
        # The standard library's need no environment of the peers.
        used = Path(sys.executable) if DRIVEN[name] in ("threads", "processes") and not python.exists() else python
        outer = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return Driven(name, DRIVEN[name], used, folder, outer)
    level, _, rest = name.removeprefix("p2pq ").partition(", ")
    assert level in ("none", "strict")
    return P2pq(level, folder, python, nodes=2 if rest else 1)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    works = "\n".join(f"  {name:10} {work.title.format(count=f'{work.count:,}')}" for name, work in WORKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks peers",
        description=f"Measure p2pq beside other tools, by turns, in one run.\n\nworks:\n{works}\n\npeers: {'; '.join(NAMES)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = f"where the peers are installed (default {install.DEFAULT})"
    parser.add_argument("--install", action="store_true", help="install benchmarks/peers.txt there, and end")
    parser.add_argument("--environment", type=Path, default=install.DEFAULT, metavar="DIR", help=where)
    parser.add_argument("--only", type=_names(WORKS), default=list(WORKS), metavar="WORK,...", help="which works")
    parser.add_argument("--peers", type=_names(NAMES, ";"), default=list(NAMES), metavar="NAME;...", help="which peers")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"runs of everything (default {RUNS})")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual counts: 0.01 to try")
    parser.add_argument("--window", type=float, default=10.0, metavar="S", help="watch idle processes so long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value, after each run")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="measure nothing; show what --json has written")
    parser.add_argument("--dir", type=Path, help="where to work (default /var/tmp): on the disk that counts")
    options = parser.parse_args(arguments)
    if options.runs < 1 or not 0 < options.scale <= 100:
        parser.error("--runs must be at least 1" if options.runs < 1 else "--scale must be above 0 and at most 100")
    if options.plot is not None and (why := report.lacking()):
        parser.error(why)
    return options


def _names(known: Sequence[str] | dict[str, object], separator: str = ",") -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(separator)]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(known)}")
        return names

    return parse
