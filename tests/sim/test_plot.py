"""A picture shows the figures where they are, and can be drawn again from those that were kept."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from simulations import plot
from simulations.plot import Point

pytestmark = pytest.mark.quick
ROOT = Path(__file__).parents[2]
FIRST = Point(
    clusters=2, workers=10, masters=1, depth=1, tasks=5000, mean_s=0.5, seed=3, heard_per_task=3.0, said_per_task=2.0,
    makespan_s=100.5,
)  # fmt: skip
POINTS = [
    msgspec.structs.replace(FIRST, workers=workers, depth=depth, heard_per_task=3.0 / depth**3)
    for workers in (100, 10, 35)
    for depth in (1, 2, 3)
]


def test_lines_go_where_the_figures_are_and_axes_say_what_they_are():
    (axes,) = plot.figure(POINTS).axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[workers, 2.0 + 3.0 / depth**3] for workers in (20, 70, 200)] for depth in (1, 2, 3)
    ]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_title(loc="left") == "Messages per task at the master, by size of the mesh"
    assert axes.get_xlabel() == "size of the mesh (number of workers, a slot each)"
    assert axes.get_ylabel() == "load (messages per task, heard and said)"
    assert [text.get_text() for text in axes.texts] == [
        "5,000 tasks of 0.5 s in 2 clusters; simulated, nothing goes wrong"
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["20", "70", "200"]


def test_several_masters_are_named_and_large_meshes_readable():
    (axes,) = plot.figure([msgspec.structs.replace(FIRST, masters=10, clusters=1, workers=12_000)]).axes
    assert axes.get_title(loc="left") == "Messages per task at 10 masters, by size of the mesh"
    assert "in 1 cluster;" in axes.texts[0].get_text()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["12,000"]


def test_every_depth_has_a_look_and_a_name_of_its_own():
    for column in (*zip(*plot.LOOKS, strict=True), plot.BETWEEN):
        assert len(set(column)) == plot.DEPTH_MAX
    two, three = (plot.figure([msgspec.structs.replace(FIRST, depth=depth)]).axes[0].lines[0] for depth in (2, 3))
    assert (two.get_color(), two.get_marker(), two.get_linestyle()) == plot.LOOKS[1]
    assert (three.get_color(), three.get_marker(), three.get_linestyle()) == plot.LOOKS[2]


def test_nothing_is_cut_off_or_covered():
    """The legend lies beside the axes and their labels, with all depths that there may be."""
    made = plot.figure([msgspec.structs.replace(FIRST, depth=depth) for depth in range(1, plot.DEPTH_MAX + 1)])
    made.draw_without_rendering()
    (axes,), (legend,) = made.axes, made.legends
    assert [text.get_text() for text in legend.get_texts()] == list(plot.BETWEEN)
    below, rest = legend.get_window_extent(), axes.get_tightbbox()
    assert not below.overlaps(rest)
    for box in (below, rest):
        assert made.bbox.containsx(box.x0)
        assert made.bbox.containsx(box.x1)
        assert made.bbox.containsy(box.y0)
        assert made.bbox.containsy(box.y1)


@pytest.mark.parametrize("heard", [1e-6, 1.0, 1e9])
def test_whatever_the_figures_are_there_is_a_picture_and_the_same_again(tmp_path, heard, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    path, points = tmp_path / "a.png", [FIRST, msgspec.structs.replace(FIRST, depth=2, heard_per_task=heard)]
    plot.draw(points, path)
    raw = path.read_bytes()
    width, height = (round(inches * plot.DPI) for inches in plot.INCHES)
    assert raw.startswith(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height))
    plot.draw(points, path)
    assert path.read_bytes() == raw


def test_matplotlib_is_imported_by_nothing_but_drawing():
    script = "import sys, simulations.__main__; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, cwd=ROOT, timeout=60).returncode == 0


def test_figures_are_kept_as_they_are(tmp_path):
    path = plot.kept(tmp_path / "a.b.png")
    assert path == tmp_path / "a.b.csv"
    plot.keep(POINTS, path)
    head, first, *_ = path.read_text().splitlines()
    assert head == "clusters,workers,masters,depth,tasks,mean_s,seed,heard_per_task,said_per_task,makespan_s"
    assert first == "2,100,1,1,5000,0.5,3,3.0,2.0,100.5"
    assert plot.read(path) == POINTS


HEAD = ",".join(Point.__struct_fields__)


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        f"{HEAD}\n2,10,1,1,5000,0.5,3,3.0,2.0",
        f"{HEAD}\n2,10,1,1,5000,0.5,3,3.0,2.0,100.5,1",
        f"{HEAD}\n2,10,1,0,5000,0.5,3,3.0,2.0,100.5",
        f"{HEAD}\n2,10,1,{plot.DEPTH_MAX + 1},5000,0.5,3,3.0,2.0,100.5",
        f"{HEAD}\n2,10,1,1,5000,0.5,3,0.0,2.0,100.5",
        f"{HEAD}\n2,10,1,1,5000,0.5,3,nan,2.0,100.5",
        f"{HEAD}\n2,10,1,1,5000,0.5,3,inf,2.0,100.5",
        f"{HEAD}\n2,10.5,1,1,5000,0.5,3,3.0,2.0,100.5",
        f"{HEAD}\n2,10,1,1,5000,0.5,3,3.0,2.0,100.5\n2,10,1,1,6000,0.5,3,3.0,2.0,100.5",
        f"{HEAD.replace('depth', 'deep')}\n2,10,1,1,5000,0.5,3,3.0,2.0,100.5",
        f'{HEAD}\n2,10,1,1,5000,0.5,3,3.0,2.0,"100.5',
        f"{HEAD}\n2,10,1,1,5000,0.5,3,3.0,2.0,100.5é",
        f"{HEAD}\n" + "2,10,1,1,5000,0.5,3,3.0,2.0,100.5\n" * (plot.CSV_BYTES_MAX // 30),
    ],
)
def test_what_is_not_figures_of_one_picture_is_refused(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} (does not hold|is too long to hold) the figures of"):
        plot.read(path)


def test_whoever_has_matplotlib_lacks_nothing():
    assert plot.lacking() == ""


def test_the_documented_table_is_of_the_kept_figures():
    """docs/simulation.md shows docs/hierarchy.png and a table of the same figures."""
    loads = {(point.workers, point.depth): point.place[1] for point in plot.read(ROOT / "docs" / "hierarchy.csv")}
    text = (ROOT / "docs" / "simulation.md").read_text()
    rows = {int(row[0]): row[1:] for row in re.findall(r"\| 4 x (\d+) " + r"\| ([\d.]+) " * 5 + r"\|", text)}
    assert rows.keys() == {workers for workers, _ in loads}
    for workers, row in rows.items():
        flat, two, three = (loads[workers, depth] for depth in (1, 2, 3))
        assert row == (f"{flat:.2f}", f"{two:.3f}", f"{three:.3f}", f"{flat / two:.1f}", f"{flat / three:.1f}")
