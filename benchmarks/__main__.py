"""``python -m benchmarks [NAME...]``: measure, and print the medians with their goals beside them.

``python -m benchmarks peers`` measures p2pq beside other tools, ``python -m benchmarks examples`` compares it with GNU parallel;
they have options of their own.
"""

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks import (
    array,
    bulk,
    calls,
    command,
    delay,
    environments,
    figures,
    idle,
    jobs,
    latency,
    links,
    nodes,
    rates,
)
from benchmarks.examples import program as examples
from benchmarks.figures import Figure
from benchmarks.peers import program as peers

RUNS: Final = 5
BENCHMARKS: Final[dict[str, tuple[Callable[[Path, int], list[Figure]], str]]] = {
    "links": (links.run, "handshake and round trip between two processes"),
    "help": (command.run, "p2pq --help"),
    "submit": (jobs.run, "a small folder until its result is there: API, command, cold start"),
    "environments": (environments.run, "a job with packages that its node has built before, beside the same without"),
    "latency": (latency.run, "one short command: through the Python client, as a whole p2pq run, and without p2pq"),
    "rates": (rates.run, "many short commands beside GNU parallel, xargs and bare processes, where they are installed"),
    "calls": (calls.run, "many calls of functions beside other executors, where they are installed, and one at a time"),
    "idle": (idle.run, "memory and processor time of a node that has nothing to do"),
    "delay": (
        delay.run,
        "how long a program in the foreground waits for a processor, with guests on all cores and without",
    ),
    "bulk": (bulk.run, "200 MB to another node and back, as one file and as 10,000"),
    "array": (array.run, "a million tasks: submitted, the first 100,000 done, a kill -9 in between; only if named"),
    "whole": (array.whole, "the same until the last task is done; only if named"),
}
NAMED: Final = ("array", "whole")
"""What takes many minutes."""

PROGRAMS: Final[dict[str, Callable[[Sequence[str], Callable[[], list[str]]], int]]] = {
    "peers": peers.main,
    "examples": examples.main,
}
"""With options of their own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named, or all; return 0 however fast they were."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in PROGRAMS:
        return PROGRAMS[arguments[0]](arguments[1:], describe)
    options = _parse(arguments)
    about = describe()
    print("\n".join(about), flush=True)
    found: list[Figure] = []
    for name in options.names or [name for name in BENCHMARKS if name not in NAMED]:
        measure, _ = BENCHMARKS[name]
        with nodes.workspace(options.dir) as base:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            found += measure(base, options.runs)
    print(figures.plain(found))
    if options.json is not None:
        figures.write_json(options.json, found, about)
    if options.markdown is not None:
        options.markdown.write_text(figures.markdown(found, [f"- {line}" for line in about]), encoding="utf-8")
    return 0


def describe() -> list[str]:
    """Return sentences about where this is measured: figures mean nothing without."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return [
        f"{cores} cores, {platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}",
        f"load average at the start {load:.1f}: {'quiet' if load < 0.3 * cores else 'others are at work here'}",
        "both nodes of a pair run on this machine; their disk is real and every fsync is made",
    ]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    names = "\n".join(f"  {name:8} {what}" for name, (_, what) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Measure p2pq. Benchmarks:\n{names}\n\nWith options of their own: {', '.join(PROGRAMS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all)")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"samples behind each median (default {RUNS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table for a document")
    parser.add_argument("--dir", type=Path, help="where to work (default /var/tmp): on the disk that counts")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown or options.runs < 1:
        parser.error(f"there is no benchmark {unknown[0]!r}" if unknown else "--runs must be at least 1")
    return options


if __name__ == "__main__":
    # Whatever ends us, the nodes and the peers that were started end, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
