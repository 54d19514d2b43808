"""The load of a master over the size of the mesh: the figures as CSV, and a picture of them, which can be drawn again from these.

The picture is matplotlib's, which only developers have: whoever wants one asks ``lacking`` before anything that takes long.
"""

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from p2pq.wire.messages import HOPS_MAX
from simulations import bounds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH_MAX: Final = HOPS_MAX + 1
CSV_BYTES_MAX: Final = 1 << 20
INCHES: Final = (7.2, 4.6)
DPI: Final = 150
LOOKS: Final = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", "-."), ("#CC79A7", "D", ":"))
"""Colour, marker and line of each depth. People with any kind of colour vision can tell the colours apart (the palette of Okabe
and Ito, "Color Universal Design", 2008); markers and lines tell the same without colour."""
BETWEEN: Final = (
    "flat: no bridge",
    "depth 2: a bridge between",
    "depth 3: 2 bridges between",
    "depth 4: 3 bridges between",
)

Whole = Annotated[int, msgspec.Meta(ge=1, le=bounds.TASKS_MAX)]
Amount = Annotated[float, msgspec.Meta(gt=0.0, le=1e9)]


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one mesh, a row of the CSV: nothing but what follows from the seed."""

    clusters: Whole
    workers: Whole
    """In each cluster."""
    masters: Whole
    depth: Annotated[int, msgspec.Meta(ge=1, le=DEPTH_MAX)]
    tasks: Whole
    """Of all jobs together."""
    mean_s: Amount
    seed: Annotated[int, msgspec.Meta(ge=0, le=bounds.SEED_MAX)]
    heard_per_task: Amount
    """Messages that the masters hear."""
    said_per_task: Amount
    makespan_s: Amount

    @property
    def place(self) -> tuple[int, float]:
        """Workers in the mesh, and messages per task."""
        return self.clusters * self.workers, self.heard_per_task + self.said_per_task

    @property
    def work(self) -> tuple[int, int, int, float]:
        """What is the same for all points of a picture."""
        return self.clusters, self.masters, self.tasks, self.mean_s


def lacking() -> str:
    """Return what to do before a picture can be drawn here; empty where nothing is to be done."""
    if find_spec("matplotlib") is not None:
        return ""
    return "--plot draws with matplotlib, which this Python does not have: python -m pip install 'matplotlib>=3.10'"


def kept(path: Path) -> Path:
    """Return where the figures of a picture are: beside it."""
    return path.with_suffix(".csv")


def keep(points: Sequence[Point], path: Path) -> None:
    """Write figures down."""
    with path.open("w", encoding="ascii", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(Point.__struct_fields__)
        rows.writerows(msgspec.structs.astuple(point) for point in points)


def read(path: Path) -> list[Point]:
    """Return figures that were written down; ValueError or OSError, in words for people, where there are none to draw."""
    with path.open("rb") as file:
        raw = file.read(CSV_BYTES_MAX + 1)
    if len(raw) > CSV_BYTES_MAX:
        raise ValueError(f"{path} is too long to hold the figures of a picture")
    try:
        head, *rows = csv.reader(io.StringIO(raw.decode("ascii"), newline=""), strict=True)
        found = [dict(zip(head, row, strict=True)) for row in rows]
        points = msgspec.convert(found, list[Point], strict=False)
    except (ValueError, csv.Error, msgspec.ValidationError) as error:
        raise ValueError(f"{path} does not hold the figures of a picture: {error}") from error
    if len({point.work for point in points}) != 1:
        raise ValueError(
            f"{path} does not hold the figures of one picture: clusters, masters, tasks and their mean must not change"
        )
    return points


def figure(points: Sequence[Point]) -> "Figure":
    """Return messages per task over workers, a line for each depth."""
    from matplotlib.figure import Figure  # noqa: PLC0415  half a second, and only developers have it
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter  # noqa: PLC0415

    clusters, masters, tasks, mean_s = points[0].work
    made = Figure(figsize=INCHES, dpi=DPI, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = made.add_subplot(xscale="log", yscale="log")
    for depth in sorted({point.depth for point in points}):
        colour, marker, style = LOOKS[depth - 1]
        across, up = zip(*sorted(point.place for point in points if point.depth == depth), strict=True)
        axes.plot(across, up, color=colour, marker=marker, linestyle=style, linewidth=2, label=BETWEEN[depth - 1])
    whose = "the master" if masters == 1 else f"{masters} masters"
    axes.set_title(
        f"Messages per task at {whose}, by size of the mesh", loc="left", fontsize=13, fontweight="bold", pad=26
    )
    axes.annotate(
        f"{tasks:,} tasks of {mean_s:g} s in {clusters} cluster{'s' if clusters > 1 else ''}; simulated, nothing goes wrong",
        (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=10, color="#444444",
    )  # fmt: skip
    axes.set_xlabel("size of the mesh (number of workers, a slot each)")
    axes.set_ylabel("load (messages per task, heard and said)")
    axes.xaxis.set_major_locator(FixedLocator(sorted({point.place[0] for point in points})))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis, numbers in ((axes.xaxis, "{x:,.0f}"), (axes.yaxis, "{x:g}")):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter(numbers))
    axes.grid(color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    made.legend(loc="outside lower center", ncols=3 if len(axes.lines) <= 3 else 2, frameon=False)
    return made


def draw(points: Sequence[Point], path: Path) -> None:
    """Write a picture of them as PNG, without any display; the same figures and matplotlib make the same file."""
    figure(points).savefig(path, format="png", backend="agg", metadata={"Software": None})
