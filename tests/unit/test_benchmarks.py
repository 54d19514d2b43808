"""The benchmarks run and report honestly; how fast things are is not for the test suite to say."""

import json
import os

import pytest

from benchmarks import __main__ as program
from benchmarks import array, bulk, calls, command, delay, environments, figures, idle, latency, links, rates
from benchmarks.figures import Figure

pytestmark = pytest.mark.slow


def test_a_figure_is_the_median_of_its_runs_beside_its_goal():
    slow = Figure(name="x", unit="ms", samples=(9.0, 1.0, 5.0), goal=4.0, note="why")
    assert slow.row() == ("x", "5.00 ms", "4.00 ms", "NO", "1.00 to 9.00", "3", "why")
    assert Figure(name="x", unit="s", samples=(4.0,), goal=4.0).met is True
    assert Figure(name="x", unit="s", samples=(4.0,)).met is None


def test_a_table_for_people_and_one_for_documents():
    found = [Figure(name="one", unit="ms", samples=(123.4,)), Figure(name="three", unit="us", samples=(12.34,), goal=1)]
    head, *rows = figures.plain(found).splitlines()
    assert head.split() == ["figure", "median", "goal", "met", "lowest", "to", "highest", "runs", "note"]
    assert rows[0].split() == ["one", "123", "ms", "123", "to", "123", "1"]
    assert rows[1].split()[:6] == ["three", "12.3", "us", "1.00", "us", "NO"]
    lines = figures.markdown(found, ["about"]).splitlines()
    assert lines[0] == "about"
    assert {line.count("|") for line in lines[2:]} == {8}


def test_the_program_measures_and_writes_what_it_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "PER_RUN", 1)
    wanted = tmp_path / "found.json"
    table = tmp_path / "found.md"
    options = ["help", "--runs", "2", "--json", str(wanted), "--markdown", str(table), "--dir", str(tmp_path)]
    assert program.main(options) == 0
    shown = capsys.readouterr().out
    assert "p2pq --help" in shown
    assert "python -c pass" in table.read_text()
    written = json.loads(wanted.read_text())
    assert [len(figure["samples"]) for figure in written["figures"]] == [2, 2, 2]
    assert all(figure["median"] > 0 for figure in written["figures"])


def test_what_cannot_be_measured_is_refused(capsys):
    for wrong, said in ((["teleport"], "no benchmark 'teleport'"), (["help", "--runs", "0"], "at least 1")):
        with pytest.raises(SystemExit):
            program.main(wrong)
        assert said in capsys.readouterr().err


def test_links_are_measured_between_two_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(links, "HANDSHAKES", 1)
    monkeypatch.setattr(links, "ROUND_TRIPS", 3)
    handshake, trip, bare, ratio = links.run(tmp_path, 1)
    assert (handshake.unit, trip.unit, bare.unit, ratio.unit) == ("ms", "us", "us", "x")
    assert ratio.median == pytest.approx(trip.median / bare.median)


def test_bulk_content_is_new_each_time_and_of_the_size_it_says(tmp_path):
    for name in ("one", "two"):
        bulk._fill(tmp_path / name, 3, 90_000)
        assert bulk._size(tmp_path / name) == (3, 90_000)
    first, second = (next((tmp_path / name).rglob("*.dat")).read_bytes() for name in ("one", "two"))
    assert first != second


def test_the_reference_copies_packs_and_unpacks(tmp_path):
    folder = tmp_path / "folder"
    bulk._fill(folder / "data", 2, 50_000)
    assert all(seconds > 0 for seconds in bulk._reference(folder, tmp_path / "scratch"))
    assert not (tmp_path / "scratch").exists()


def test_rates_are_ratios_of_what_ran_in_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setattr(rates, "COMMANDS", 4)
    found = {figure.name: figure for figure in rates.run(tmp_path, 1)}
    own, bare = found["4 times /bin/true: p2pq"], found["4 times /bin/true: Popen"]
    assert found["p2pq batch over Popen"].median == pytest.approx(own.median / bare.median)


def test_one_command_is_measured_beside_one_without_p2pq(tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "PER_RUN", 1)
    before = dict(os.environ)
    found = {figure.name: figure for figure in latency.run(tmp_path, 1)}
    assert dict(os.environ) == before
    for own, other in ((latency.CLIENT, latency.BARE), (latency.COMMAND, latency.EMPTY)):
        assert found[own].goal is not None
        assert found[f"{own} over {other}"].median == pytest.approx(found[own].median / found[other].median)


def test_an_array_is_killed_in_between_and_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(array, "POLL_S", 0.05)
    found = {figure.name: figure for figure in array.run(tmp_path, 1, tasks=5000, first=60, settle_s=0)}
    assert len(found) == 14
    for level in ("none", "strict"):
        name = f"5,000 tasks, {level}"
        assert found[f"{name}: submitted"].median > 0
        assert found[f"{name}: memory after"].median > 0
        assert "a second" in found[f"{name}: first 30"].note


def test_an_idle_node_is_watched_with_all_its_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(idle, "SETTLE_S", 0.0)
    monkeypatch.setattr(idle, "WINDOW_S", 0.2)
    found = idle.run(tmp_path, 1)
    assert [figure.name for figure in found[:3]] == ["idle memory (RSS)", "idle processor time", "idle wake-ups"]
    kind = "PSS" if os.geteuid() == 0 else "RSS"  # a daemon keeps others out, its own user too
    daemon, everything = (
        figure.median for figure in found[3:] if figure.name == f"idle memory ({kind})" and "alone, mDNS" in figure.note
    )
    assert everything >= daemon > 0


def test_calls_are_made_beside_other_executors_in_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "CALLS", 4)
    monkeypatch.setattr(calls, "PER_RUN", 1)
    monkeypatch.setattr(calls.importlib.util, "find_spec", lambda _: None)
    before = dict(os.environ)
    found = {figure.name: figure for figure in calls.run(tmp_path, 1)}
    own, other = found["4 calls: p2pq"], found["4 calls: ProcessPoolExecutor"]
    assert found["p2pq over ProcessPoolExecutor"].median == pytest.approx(own.median / other.median)
    assert found["one call: p2pq"].goal is not None
    assert dict(os.environ) == before


@pytest.mark.sandbox
def test_what_packages_that_are_there_cost(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "PAIRS", 1)
    found = environments.run(tmp_path, 1)
    assert [(figure.unit, len(figure.samples), figure.goal) for figure in found] == [
        ("ms", 1, None),
        ("ms", 1, 100.0),
        ("ms", 1, 100.0),
    ]
    assert "sandbox strict" in found[1].note


def test_delays_are_compared_turn_by_turn():
    def turn(middle, worst):
        return {kind: [middle] * 98 + [worst] * 2 for kind in delay.KINDS}

    bare, still, beside = [turn(1e-5, 1e-5)], [turn(1e-4, 1e-3), turn(2e-4, 1e-3)], [turn(1e-4, 2e-3), turn(3e-4, 3e-3)]
    found = delay.report(bare, still, beside)
    assert [(each.note, tuple(round(one, 6) for one in each.samples)) for each in found[:8]] == [
        ("no node", (10.0,)),
        ("guests stand still", (100.0, 200.0)),
        ("guests on all cores", (100.0, 300.0)),
        ("with guests over without", (1.0, 1.5)),
        ("no node", (10.0,)),
        ("guests stand still", (1000.0, 1000.0)),
        ("guests on all cores", (2000.0, 3000.0)),
        ("with guests over without", (2.0, 3.0)),
    ]
    assert [(each.name, each.met) for each in found if each.goal] == [
        ("to be woken, median", True),
        ("to be woken, 99th percentile", False),
        ("to have computed for some 2 ms, median", True),
        ("to have computed for some 2 ms, 99th percentile", False),
    ]


def test_delays_are_measured_beside_guests_that_are_behind_everything_else(tmp_path, monkeypatch):
    monkeypatch.setattr(delay, "TURN_S", 0.3)
    *found, taken = delay.run(tmp_path, 1)
    assert [len(each.samples) for each in found] == [2, 1, 1, 1] * 4
    assert all(min(each.samples) > 0 for each in found)
    assert taken.unit == "%"
