"""What a node that has nothing to do costs: memory; processor time and wake-ups over 30 s."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks.figures import Figure
from benchmarks.nodes import Node
from benchmarks.processes import cpu_s, family, pss_mib, rss_mib, wakeups

MEMORY_GOAL_MIB: Final = 70.0
CPU_GOAL_PERCENT: Final = 0.3
WAKEUPS_GOAL: Final = 2.0
WINDOW_S: Final = 30.0
SETTLE_S: Final = 5.0
_MIB: Final = 1 << 20


def run(base: Path, runs: int) -> list[Figure]:
    """Measure: as many lone nodes as there are runs, side by side; then pairs."""
    figures = []
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Node(base / f"lone{number}")) for number in range(runs)]
        figures += _watch(nodes, "alone, mDNS off")
    with contextlib.ExitStack() as stack:
        pairs = []
        for number in range((runs + 1) // 2):
            founder = stack.enter_context(Node(base / f"founder{number}", mdns=True))
            member = stack.enter_context(Node(base / f"member{number}", mdns=True))
            member.join(founder)
            pairs += [founder, member]
        figures += _watch(pairs[:runs] if runs > 1 else pairs[:1], "one linked peer, mDNS on")
    return figures


def _watch(nodes: Sequence[Node], how: str) -> list[Figure]:
    time.sleep(SETTLE_S)
    before = [(cpu_s(family(node.pid)), wakeups(family(node.pid))) for node in nodes]
    began = time.monotonic()
    time.sleep(WINDOW_S)
    passed = time.monotonic() - began
    percent, woken = [], []
    for node, (cpu, switches) in zip(nodes, before, strict=True):
        percent.append(100 * (cpu_s(family(node.pid)) - cpu) / passed)
        woken.append((wakeups(family(node.pid)) - switches) / passed)
    rss = [psutil.Process(node.pid).memory_info().rss / _MIB for node in nodes]
    over = f"{how}; all processes, over {WINDOW_S:.0f} s"
    figures = [
        Figure(name="idle memory (RSS)", unit="MiB", samples=tuple(rss), note=f"{how}; daemon only"),
        Figure(
            name="idle processor time",
            unit="%",
            samples=tuple(percent),
            goal=CPU_GOAL_PERCENT,
            note=f"{over}, of one core",
        ),
        Figure(
            name="idle wake-ups", unit="/s", samples=tuple(woken), goal=WAKEUPS_GOAL, note=f"{over}, of all threads"
        ),
    ]
    for what, goal, pids in (("daemon only", None, _itself), ("all processes", MEMORY_GOAL_MIB, family)):
        pss = [pss_mib(pids(node.pid)) for node in nodes]
        if all(pss):
            note = f"{how}; {what}; shared pages divided among {len(nodes)} nodes"
            figures.append(Figure(name="idle memory (PSS)", unit="MiB", samples=tuple(pss), goal=goal, note=note))
        else:
            note = f"{how}; {what}; shared pages counted for each, as root alone may know more"
            rss = [rss_mib(pids(node.pid)) for node in nodes]
            figures.append(Figure(name="idle memory (RSS)", unit="MiB", samples=tuple(rss), goal=goal, note=note))
    return figures


def _itself(pid: int) -> list[int]:
    return [pid]
