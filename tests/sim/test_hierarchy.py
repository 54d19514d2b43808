"""Bridges that speak for a cluster spare the masters messages."""

import sys

import pytest

from p2pq.errors import Reject
from p2pq.wire import prims
from simulations import hierarchy
from simulations.hierarchy import Mesh, Shape, main, remembered

SMALL = {"clusters": 2, "workers": 5, "tasks": 200, "mean_s": 0.5}


def test_a_master_says_and_hears_less_where_bridges_speak_for_its_workers():
    flat, bridged = (Mesh(Shape(depth=depth, **SMALL)).measure() for depth in (1, 2))
    assert sum(bridged.per_task) < sum(flat.per_task) / 4
    assert bridged.makespan_s < 1.2 * flat.makespan_s + 1.0
    assert bridged.heard["ResultReady"] == 0 < bridged.heard["Report"]
    assert flat.heard["ResultReady"] > 0 == flat.heard["Report"]
    assert "Report in" in bridged.kinds()


def test_bridges_below_bridges_spare_it_more_and_lose_nothing():
    shapes = [Shape(clusters=6, workers=3, tasks=300, mean_s=0.5, depth=depth) for depth in (2, 3, 4)]
    assert [shape.levels for shape in shapes] == [[6], [2, 6], [2, 3, 6]]
    runs = [Mesh(shape) for shape in shapes]
    figures = [run.measure() for run in runs]
    assert [run.checkers.states for run in runs] == [{"done": 300}] * 3
    assert [run.checkers.proved for run in runs] == [300] * 3, "of each is shown how it came to its leaf"
    one, two, three = (sum(each.per_task) for each in figures)
    assert max(two, three) < one
    assert all(each.makespan_s < 3 * each.ideal_s + 5.0 for each in figures)


def test_a_signature_is_checked_once_and_a_wrong_one_never_holds():
    key, calls = prims.SigningKey(bytes(32)), []
    check = prims.verify
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prims, "verify", lambda *said: (calls.append(said), check(*said)))
        with remembered():
            for _ in range(3):
                prims.verify(key.public, b"said", key.sign(b"said"))
            for _ in range(2):
                with pytest.raises(Reject):
                    prims.verify(key.public, b"other", key.sign(b"said"))
    assert [said[1] for said in calls] == [b"said", b"other", b"other"]
    assert prims.verify is check


def test_owners_of_several_masters_share_the_time_of_leaves():
    shape = Shape(masters=3, **(SMALL | {"tasks": 600}))
    plans = shape.jobs()
    assert len({plan.mean_s for plan in plans}) == 3
    assert len({round(plan.tasks * plan.mean_s) for plan in plans}) == 1
    figures = Mesh(shape).measure()
    assert figures.tasks == sum(plan.tasks for plan in plans)
    assert figures.given.keys() == {"o0", "o1", "o2"}
    assert figures.shares > 0.9, "though in the first seconds nobody knows lengths yet"


TINY = ["--clusters", "1", "--workers", "2", "3", "--tasks", "20", "--mean", "0.1"]


def forbidden(*_):
    raise AssertionError("it simulates")


def test_who_is_told_how_far_it_is_sees_the_same_mesh(capsys):
    shape = Shape(clusters=2, workers=3, tasks=30)
    silent, telling = Mesh(shape).measure(), Mesh(shape).measure(5)
    assert (telling.heard, telling.said, telling.makespan_s) == (silent.heard, silent.said, silent.makespan_s)
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("5 s: 0 of 30 tasks have ended, 0 run; ")
    assert " s: 30 of 30 tasks have ended, " in told[-1]


def test_the_table_is_printed_and_the_picture_drawn_and_drawn_again(capsys, tmp_path, monkeypatch):
    plot, figures = tmp_path / "plot.png", tmp_path / "plot.csv"
    assert main([*TINY, "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    assert [line.split("  ")[0] for line in out.splitlines() if " x " in line] == [
        "1 x 2 flat",
        "1 x 2 depth 2",
        "1 x 3 flat",
        "1 x 3 depth 2",
    ]
    assert [row.split(",")[:7] for row in figures.read_text().splitlines()[1:]] == [
        ["1", "2", "1", "1", "20", "0.1", "1"],
        ["1", "2", "1", "2", "20", "0.1", "1"],
        ["1", "3", "1", "1", "20", "0.1", "1"],
        ["1", "3", "1", "2", "20", "0.1", "1"],
    ]
    picture, kept = plot.read_bytes(), figures.read_bytes()
    plot.unlink()
    monkeypatch.setattr(hierarchy, "Mesh", forbidden)
    assert main(["--plot", str(plot), "--redraw"]) == 0
    assert plot.read_bytes() == picture
    assert figures.read_bytes() == kept
    assert capsys.readouterr().out == ""


def test_figures_of_each_mesh_are_kept_before_the_next_is_played(tmp_path, monkeypatch):
    made = []

    def second_fails(*arguments):
        made.append(arguments)
        return Mesh(*arguments) if len(made) == 1 else forbidden()

    monkeypatch.setattr(hierarchy, "Mesh", second_fails)
    with pytest.raises(AssertionError, match="it simulates"):
        main([*TINY, "--plot", str(tmp_path / "plot.png")])
    assert [path.name for path in tmp_path.iterdir()] == ["plot.csv"]
    assert len((tmp_path / "plot.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("redraw", [[], ["--redraw"]])
def test_without_matplotlib_one_sentence_says_what_to_install_before_anything_is_played(
    redraw, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(hierarchy, "Mesh", forbidden)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as end:
        main([*TINY, "--plot", str(tmp_path / "plot.png"), *redraw])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err == (
        "--plot draws with matplotlib, which this Python does not have: python -m pip install 'matplotlib>=3.10'\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_there_is_still_a_table(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["--clusters", "1", "--workers", "2", "--tasks", "20", "--mean", "0.1", "--depth", "2"]) == 0
    assert "1 x 2 depth 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--redraw"], "argument --redraw: needs --plot FILE.png"),
        (
            ["--plot", "{}/plot.png", "--redraw"],
            "argument --redraw: [Errno 2] No such file or directory: '{}/plot.csv'",
        ),
        (["--plot", "{}/bad.png", "--redraw"], "argument --redraw: {}/bad.csv does not hold the figures of a picture"),
        (["--plot", "{}/plot.csv"], "argument --plot: '{}/plot.csv' is not the name of a .png in a folder that exists"),
        (["--plot", "{}/no/plot.png"], "argument --plot: '{}/no/plot.png' is not the name of a .png"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_played(arguments, why, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(hierarchy, "Mesh", forbidden)
    (tmp_path / "bad.csv").write_text("clusters\nmany\n")
    with pytest.raises(SystemExit) as end:
        main([argument.format(tmp_path) for argument in arguments])
    assert end.value.code == 2
    assert why.format(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
