"""What the screensaver shows, as lines of text: what is computed here, for whom, how far it is, since when."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from p2pq.cli.common import duration, harmless
from p2pq.wire.control import StatusView
from p2pq.wire.parts import RunningView

ROWS_MAX: Final = 10
"""More tasks are counted, not listed."""
NAMES_MAX: Final = 3
BRIGHT: Final = 0xD8DEE9
CALM: Final = 0x8FA1B3
DIM: Final = 0x4C566A
PERIODS_S: Final = (613.0, 431.0)
"""How long the picture takes from side to side and back, and up and down: a few pixels a second, never the same way twice."""


class Line(NamedTuple):
    """A line of the picture."""

    text: str
    color: int = CALM
    large: bool = False
    part: float | None = None
    """A bar below it, filled as far as that, from 0 to 1."""


def lines(status: StatusView | None, names: Mapping[str, str], now: datetime) -> list[Line]:
    """Return what is to be seen.

    Args:
        status: What the node says; None where none runs.
        names: Names of jobs by their ids, as far as they are known.
        now: By the local clock.
    """
    clock = f"{now:%H:%M}"
    if status is None:
        return [Line("p2pq", BRIGHT, large=True), Line("no node runs here; p2pq start"), Line(""), Line(clock, DIM)]
    running = sorted(status.running, key=lambda each: -each.seconds)
    head = Line(harmless(status.name), BRIGHT, large=True)
    foot = Line(f"mesh {harmless(status.mesh)}   {_count(status.peers, 'peer')}   {clock}", DIM)
    if not running:
        why = status.policy.reason or "nobody asks for anything"
        return [head, Line(f"computes nothing: {harmless(why)}"), Line(""), foot]
    owners = sorted({harmless(each.owner) for each in running})
    shown = _rows(running[:ROWS_MAX], names)
    if len(running) > ROWS_MAX:
        shown.append(Line(f"and {len(running) - ROWS_MAX} more"))
    return [head, Line(f"computes for {_list(owners)}"), Line(""), *shown, Line(""), foot]


def _rows(tasks: Sequence[RunningView], names: Mapping[str, str]) -> list[Line]:
    """Return tasks as lines whose columns stand below one another."""
    cells = [
        (
            harmless(task.owner),
            "" if task.own else f"from {harmless(task.node)}",
            f"{harmless(names.get(task.job) or f'job {task.job[:8]}')}, task {task.task}",
            duration(task.seconds),
            "" if task.progress is None else f"{task.progress:.0%}",
            "" if task.state == "running" else task.state,
        )
        for task in tasks
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width).rstrip() for row in cells
    ]
    return [Line(text, part=task.progress) for text, task in zip(texts, tasks, strict=True)]


def _list(words: Sequence[str]) -> str:
    """Return words as people list them."""
    if len(words) > NAMES_MAX:
        words = [*words[:NAMES_MAX], f"{len(words) - NAMES_MAX} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def place(seconds: float, room: tuple[int, int]) -> tuple[int, int]:
    """Return where the picture is at a time: its upper left corner, where there is so much room to the right and below."""
    x, y = (
        max(0, round(free / 2 * (1 + math.sin(2 * math.pi * seconds / period))))
        for free, period in zip(room, PERIODS_S, strict=True)
    )
    return x, y
