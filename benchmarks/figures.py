"""What a benchmark measured, and how it is shown."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

Unit = Literal["ms", "us", "s", "MiB", "%", "x", "/s"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    name: str
    unit: Unit
    samples: tuple[float, ...]
    """One per run."""
    goal: float | None = None
    """At most this, in ``unit``; None: only shown for comparison."""
    note: str = ""

    @property
    def median(self) -> float:
        """The figure itself."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        return None if self.goal is None else self.median <= self.goal

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        verdict = {None: "", True: "yes", False: "NO"}[self.met]
        goal = "" if self.goal is None else f"{_show(self.goal)} {self.unit}"
        spread = f"{_show(min(self.samples))} to {_show(max(self.samples))}"
        return (
            self.name,
            f"{_show(self.median)} {self.unit}",
            goal,
            verdict,
            spread,
            str(len(self.samples)),
            self.note,
        )


HEAD = ("figure", "median", "goal", "met", "lowest to highest", "runs", "note")
RIGHT = frozenset({1, 2, 5})


def plain(figures: Iterable[Figure]) -> str:
    """Return the table as aligned text."""
    rows = [HEAD, *(figure.row() for figure in figures)]
    widths = [max(len(row[number]) for row in rows) for number in range(len(HEAD))]
    lines = [
        "  ".join(
            cell.rjust(width) if number in RIGHT else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def markdown(figures: Iterable[Figure], about: Sequence[str] = ()) -> str:
    """Return the table for a document, below what is to be said about the machine."""
    rows = [HEAD, tuple("---:" if number in RIGHT else "---" for number in range(len(HEAD)))]
    rows += [figure.row() for figure in figures]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([*about, "", table, ""]).lstrip("\n")


def write_json(path: Path, figures: Iterable[Figure], about: Sequence[str]) -> None:
    """Write all samples for other programs."""
    found = [{**msgspec.to_builtins(figure), "median": figure.median, "met": figure.met} for figure in figures]
    path.write_text(json.dumps({"about": list(about), "figures": found}, indent=2) + "\n", encoding="utf-8")


def _show(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
