"""What a node that has nothing to do costs: memory, and processor time over 30 s."""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks.figures import Figure
from benchmarks.nodes import Node

MEMORY_GOAL_MIB: Final = 70.0
CPU_GOAL_PERCENT: Final = 0.3
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
    before = [_cpu_s(node) for node in nodes]
    began = time.monotonic()
    time.sleep(WINDOW_S)
    passed = time.monotonic() - began
    percent = [100 * (_cpu_s(node) - earlier) / passed for node, earlier in zip(nodes, before, strict=True)]
    rss = [psutil.Process(node.pid).memory_info().rss / _MIB for node in nodes]
    figures = [
        Figure(
            name="idle memory (RSS)", unit="MiB", samples=tuple(rss), goal=MEMORY_GOAL_MIB, note=f"{how}; daemon only"
        ),
        Figure(
            name="idle processor time",
            unit="%",
            samples=tuple(percent),
            goal=CPU_GOAL_PERCENT,
            note=f"{how}; of one core, over {WINDOW_S:.0f} s",
        ),
    ]
    for what, pids in (("daemon only", _itself), ("with its spare runner", _family)):
        pss = [_pss_mib(pids(node)) for node in nodes]
        if all(pss):
            note = f"{how}; {what}; shared pages divided among {len(nodes)} nodes"
            figures.append(Figure(name="idle memory (PSS)", unit="MiB", samples=tuple(pss), note=note))
    return figures
