"""Bridges that speak for a cluster spare the masters messages."""

import pytest

from simulations.hierarchy import Mesh, Shape, main

SMALL = {"clusters": 2, "workers": 5, "tasks": 200, "mean_s": 0.5}


@pytest.mark.quick
def test_a_master_says_and_hears_less_where_bridges_speak_for_its_workers():
    flat, bridged = (Mesh(Shape(flat=flat, **SMALL)).measure() for flat in (True, False))
    assert sum(bridged.per_task) < sum(flat.per_task) / 4
    assert bridged.makespan_s < 1.2 * flat.makespan_s + 1.0
    assert bridged.heard["ResultReady"] == 0 < bridged.heard["Report"]
    assert flat.heard["ResultReady"] > 0 == flat.heard["Report"]
    assert "Report in" in bridged.kinds()


@pytest.mark.quick
def test_owners_of_several_masters_share_the_time_of_leaves():
    shape = Shape(masters=3, **(SMALL | {"tasks": 600}))
    plans = shape.jobs()
    assert len({plan.mean_s for plan in plans}) == 3
    assert len({round(plan.tasks * plan.mean_s) for plan in plans}) == 1
    figures = Mesh(shape).measure()
    assert figures.tasks == sum(plan.tasks for plan in plans)
    assert figures.given.keys() == {"o0", "o1", "o2"}
    assert figures.shares > 0.9, "though in the first seconds nobody knows lengths yet"


@pytest.mark.quick
def test_the_table_is_printed_and_the_chart_drawn(capsys, tmp_path):
    plot = tmp_path / "plot.png"
    assert main(["--clusters", "1", "--workers", "2", "3", "--tasks", "20", "--mean", "0.1", "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert [line.split("  ")[0] for line in out.splitlines() if " x " in line] == [
        "1 x 2 flat",
        "1 x 2 bridges",
        "1 x 3 flat",
        "1 x 3 bridges",
    ]
