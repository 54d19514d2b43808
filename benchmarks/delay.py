"""How long a program of a machine's owner waits for a processor: with guests on all cores, and without, by turns.

Two programs ask for processors as those do that people sit before: ``sleeper`` to be woken every few milliseconds, ``burst`` to
compute for some two after each. They have a session of their own, as a terminal or a desktop has. Guests are tasks of
another node of this machine; between their turns `p2pq pause` lets them stand still.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks.figures import Figure
from benchmarks.nodes import ROOT, Node, until
from benchmarks.processes import cpu_s, family

GOAL: Final = 1.5
TURN_S: Final = 5.0
"""How long each program measures in each turn."""
SPIN: Final = "while True:\n    pass\n"
PROBE: Final = """
import hashlib, json, sys, time

kind, seconds = sys.argv[1], float(sys.argv[2])
work, every_s = (bytes(2_500_000) if kind == "burst" else b""), 0.01 if kind == "burst" else 0.004
waited = []
due = time.monotonic()
end = due + seconds
while due < end:
    due = max(due + every_s, time.monotonic())
    time.sleep(max(0.0, due - time.monotonic()))  # clock_nanosleep, by the clock of monotonic
    if work:
        hashlib.sha256(work).digest()
    waited.append(time.monotonic() - due)
json.dump(waited, sys.stdout)
"""
KINDS: Final = {"sleeper": "to be woken", "burst": "to have computed for some 2 ms"}
_PARTS: Final = {"median": 0.5, "99th percentile": 0.99}
_US: Final = 1e6

Waits = dict[str, list[float]]
"""By program, in seconds."""


def run(base: Path, runs: int) -> list[Figure]:
    """Measure: without any node, then by turns without and with guests, then without any node again."""
    bare = [_probe()]
    still: list[Waits] = []
    beside: list[Waits] = []
    taken: list[float] = []
    cores = len(os.sched_getaffinity(0))
    folder = base / "spin"
    folder.mkdir()
    (folder / "main.py").write_text(SPIN)
    with Node(base / "owner", "--slots", "0") as owner, Node(base / "host", "--slots", str(cores)) as host:
        host.join(owner)
        options = ("--detach", "--cold", "--where", "host", "--memory", "100M", "--array", f"0-{cores - 1}")
        job = owner.command("submit", *options, str(folder)).strip()
        for _ in range(runs):
            host.command("pause")
            until(lambda: not _spinning(host), "guests stand still")
            still.append(_probe())
            host.command("resume")
            until(lambda: len(_spinning(host)) == cores, "guests run on all cores")
            guests = _spinning(host)
            _check(guests)
            began, used = time.monotonic(), cpu_s(guests)
            beside.append(_probe())
            taken.append(100 * (cpu_s(guests) - used) / (time.monotonic() - began) / cores)
        owner.command("cancel", job)
    bare.append(_probe())
    return [*report(bare, still, beside), _taken(taken)]


def report(bare: Sequence[Waits], still: Sequence[Waits], beside: Sequence[Waits]) -> list[Figure]:
    """Return the figures of turns without a node, with guests that stand still, and, after each of these, with guests."""
    found = []
    for kind, what in KINDS.items():
        for part, share in _PARTS.items():
            each = [[_quantile(turn[kind], share) * _US for turn in turns] for turns in (bare, still, beside)]
            ratios = tuple(two / one for one, two in zip(each[1], each[2], strict=True))
            for how, samples in zip(("no node", "guests stand still", "guests on all cores"), each, strict=True):
                found.append(Figure(name=f"{what}, {part}", unit="us", samples=tuple(samples), note=how))
            found.append(
                Figure(name=f"{what}, {part}", unit="x", samples=ratios, goal=GOAL, note="with guests over without")
            )
    return found


def _taken(percent: Sequence[float]) -> Figure:
    return Figure(
        name="what guests had of all cores meanwhile", unit="%", samples=tuple(percent), note="idle class, by turns"
    )


def _quantile(waits: Sequence[float], share: float) -> float:
    return sorted(waits)[min(int(len(waits) * share), len(waits) - 1)] if waits else 0.0


def _probe() -> Waits:
    """Let each of the two programs measure."""
    found = {}
    for kind in KINDS:
        argv = [sys.executable, "-I", "-S", "-c", PROBE, kind, str(TURN_S)]
        done = subprocess.run(argv, capture_output=True, check=True, start_new_session=True, cwd=ROOT)
        found[kind] = json.loads(done.stdout)
    return found


def _spinning(host: Node) -> list[int]:
    """Return the tasks that run, of those that a node has."""
    found = []
    for pid in family(host.pid):
        try:
            process = psutil.Process(pid)
            if process.cmdline()[-1:] == ["main.py"] and process.status() == psutil.STATUS_RUNNING:
                found.append(pid)
        except psutil.Error:
            continue  # it has just ended
    return found


def _check(guests: Sequence[int]) -> None:
    """Make sure that these are behind everything else, by all that the kernel goes by.

    Raises:
        RuntimeError: one is not.
    """
    for pid in guests:
        autogroup = Path(f"/proc/{pid}/autogroup")
        until(lambda: not autogroup.exists() or autogroup.read_text().endswith("nice 19\n"), "its session is lowered")  # noqa: B023
        classes = (os.sched_getscheduler(pid), psutil.Process(pid).ionice().ioclass)
        if classes != (os.SCHED_IDLE, psutil.IOPRIO_CLASS_IDLE):
            raise RuntimeError(f"a guest is not behind everything else: its classes are {classes}")
