"""What the contestants needed, as tables, as JSON and as a picture."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.peers.workloads import GOALS, WORKS, Goal

OWN: Final = ("p2pq none", "p2pq strict")
"""Whom the others are compared with in the tables: above 1 they need more than p2pq, of whatever is measured."""
DPI: Final = 150


class Results(msgspec.Struct, kw_only=True):
    """All that was found."""

    counts: dict[str, int] = {}
    found: dict[str, dict[str, list[float | None]]] = {}
    """Of each work and contestant a value for each run; None where there was none."""
    words: dict[str, dict[str, str]] = {}
    """Why there is none."""
    settings: dict[str, str] = {}

    def add(self, work: str, contestant: str, value: float) -> None:
        """Keep the value of a run."""
        self.found.setdefault(work, {}).setdefault(contestant, []).append(value)

    def fail(self, work: str, contestant: str, why: str) -> None:
        """Keep that there is none in this run."""
        self.found.setdefault(work, {}).setdefault(contestant, []).append(None)
        self.words.setdefault(work, {})[contestant] = why

    def samples(self, work: str, contestant: str) -> list[float]:
        """Return the values that there are."""
        return [value for value in self.found.get(work, {}).get(contestant, []) if value is not None]

    def ratio(self, work: str, own: str, other: str) -> float | None:
        """Return how many times as fast ``own`` is as ``other``: the median of the ratios within runs."""
        found = self.found.get(work, {})
        pairs = zip(found.get(own, []), found.get(other, []), strict=False)
        ratios = [theirs / ours for ours, theirs in pairs if ours and theirs]
        return statistics.median(ratios) if ratios else None


def markdown(results: Results, about: Sequence[str], goals: Iterable[Goal] = GOALS) -> str:
    """Return all tables: goals first, then each work, then how each contestant was used."""
    parts = ["\n".join(f"- {line}" for line in about)]
    parts.append(_table(("wanted", "at least", "found", "met"), _goal_rows(results, goals)))
    for work, found in results.found.items():
        title = WORKS[work].title.format(count=f"{results.counts.get(work, 1):,}")
        rate = ("per second",) if WORKS[work].rate else ()
        head = ("", "median", *rate, *(f"over {own}" for own in OWN), "lowest to highest", "runs")
        rows = [_row(results, work, contestant) for contestant in _ordered(results, work, found)]
        parts.append(f"### {title}\n\n{_table(head, rows)}{_left_out(results, work)}")
    parts.append(
        "### How each is used\n\n" + "\n".join(f"- **{name}**: {text}" for name, text in results.settings.items())
    )
    return "\n\n".join(parts) + "\n"


def _ordered(results: Results, work: str, found: Mapping[str, object]) -> list[str]:
    measured = [name for name in found if results.samples(work, name)]
    return sorted(measured, key=lambda name: statistics.median(results.samples(work, name)))


def _left_out(results: Results, work: str) -> str:
    names: dict[str, list[str]] = {}
    for name, why in results.words.get(work, {}).items():
        if not results.samples(work, name):
            names.setdefault(why, []).append(name)
    said = "; ".join(f"{', '.join(who)} ({why})" for why, who in names.items())
    return f"\n\nNot measured: {said}." if said else ""


def _row(results: Results, work: str, contestant: str) -> tuple[str, ...]:
    samples = results.samples(work, contestant)
    median = statistics.median(samples)
    rate = (f"{results.counts.get(work, 1) / median:,.0f}",) if WORKS[work].rate else ()
    ratios = []
    for own in OWN:
        ratio = None if own == contestant else results.ratio(work, own, contestant)
        ratios.append("" if ratio is None else f"{show(ratio)} x")
    spread = f"{show(min(samples))} to {show(max(samples))}"
    return (contestant, f"{show(median)} {WORKS[work].unit}", *rate, *ratios, spread, str(len(samples)))


def _goal_rows(results: Results, goals: Iterable[Goal]) -> list[tuple[str, ...]]:
    rows = []
    for goal in goals:
        if goal.work in results.found:
            ratio = results.ratio(goal.work, goal.own, goal.other)
            met = "not measured" if ratio is None else "yes" if ratio >= goal.at_least else "NO"
            name = f"{goal.work}: {goal.own} over {goal.other}"
            rows.append((name, f"{show(goal.at_least)} x", "" if ratio is None else f"{show(ratio)} x", met))
    return rows


def show(value: float) -> str:
    """Return three digits of a figure, or all that stand before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_json(path: Path, results: Results, about: Sequence[str]) -> None:
    """Write every value, for other programs and for drawing again."""
    path.write_text(
        json.dumps({"about": list(about), **msgspec.to_builtins(results)}, indent=1) + "\n", encoding="utf-8"
    )


def read_json(path: Path) -> tuple[Results, list[str]]:
    """Return what was written."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return msgspec.convert(data, Results), data["about"]


def lacking() -> str:
    """Return what to do before a picture can be drawn; nothing if it can."""
    return "" if find_spec("matplotlib") else "a picture needs matplotlib: pip install 'p2pq[dev]'"


def draw(path: Path, results: Results) -> None:
    """Draw a panel of bars for each work; longer bars are slower, and p2pq's are of another colour."""
    import matplotlib as mpl  # noqa: PLC0415  takes a second, and only developers have it

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    works = [work for work, found in results.found.items() if _ordered(results, work, found)]
    rows = -(-len(works) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(11, 2.6 * rows), squeeze=False, layout="constrained")
    for place in axes.flat[len(works) :]:
        place.set_visible(False)
    for place, work in zip(axes.flat, works, strict=False):
        names = _ordered(results, work, results.found[work])[::-1]
        medians = [statistics.median(results.samples(work, name)) for name in names]
        colours = ["#D55E00" if name.startswith("p2pq") else "#0072B2" for name in names]
        bars = place.barh(names, medians, color=colours)
        place.bar_label(bars, [show(value) for value in medians], padding=3, fontsize=8)
        # Of memory and the like zero is a fair value, which a logarithm does not show.
        if min(medians) > 0 and max(medians) / min(medians) > 20:
            place.set_xscale("log")
        place.margins(x=0.18)
        title = WORKS[work].title.format(count=f"{results.counts.get(work, 1):,}").replace("`", "")
        place.set_title(f"{title}, {WORKS[work].unit}", fontsize=9)
        place.tick_params(labelsize=8)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
