"""The comparison with other tools asks for the right thing, counts what came back, and says what it could not measure."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks import processes
from benchmarks.peers import install, own, report, tools
from benchmarks.peers import program as peers
from benchmarks.peers.contestant import Driven, NotMeasuredError, Order, Sample
from benchmarks.peers.report import Results
from benchmarks.peers.running import Runner, rough_s
from benchmarks.peers.workloads import GOALS, SLOW, WORKS, Goal

pytestmark = pytest.mark.slow

HERE = Path(sys.executable)


def threads(folder: Path) -> Driven:
    return Driven("two threads", "threads", HERE, folder, {})


class Fake:
    """A contestant that does what it is told."""

    setting = "told"

    def __init__(self, name: str, seconds: float = 2.0, outputs: tuple[str, ...] = (), *, lacks: str = "") -> None:
        self.name, self._seconds, self._outputs, self._lacks = name, seconds, outputs, lacks

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def pids(self):
        return []

    def measure(self, order: Order) -> Sample:
        if order.work == self._lacks:
            raise NotMeasuredError("it cannot")
        return Sample(seconds=(self._seconds,), outputs=self._outputs)


def test_a_driver_says_what_it_can_and_counts_what_came_back(tmp_path):
    with threads(tmp_path / "threads") as driven:
        assert driven.setting
        assert driven.measure(Order(work="commands", count=4)).seconds > (0,)
        assert len(driven.measure(Order(work="latency", count=3)).seconds) == 3
        argvs = tuple(("echo", str(number)) for number in range(3))
        assert driven.measure(Order(work="numpy", count=3, argvs=argvs)).outputs == ("0\n", "1\n", "2\n")
        with pytest.raises(NotMeasuredError, match="one interpreter"):
            driven.measure(Order(work="calls", count=3))
        with pytest.raises(NotMeasuredError, match="no command that runs one"):
            driven.measure(Order(work="cli", count=3))
        with pytest.raises(NotMeasuredError, match="CalledProcessError"):
            driven.measure(Order(work="numpy", count=1, argvs=(("false",),)))
        assert driven.pids()
    assert driven.pids() == []


def test_calls_are_made_one_by_one_and_in_chunks(tmp_path):
    with Driven("pool", "processes", HERE, tmp_path / "pool", {}) as driven:
        for work in ("calls", "chunks"):
            assert driven.measure(Order(work=work, count=30)).seconds[0] > 0


def test_what_is_not_installed_is_said(tmp_path):
    with pytest.raises(NotMeasuredError, match="not installed: No module named"):
        Driven("Ray", "ray", HERE, tmp_path / "ray", {}).__enter__()
    with pytest.raises(NotMeasuredError, match="no interpreter: No such file"):
        Driven("Ray", "ray", tmp_path / "python", tmp_path / "ray", {}).__enter__()
    absent = tools.Xargs(tmp_path)
    absent.program = "no-such-program"
    with pytest.raises(NotMeasuredError, match="not installed: no-such-program"):
        absent.__enter__()


def test_a_driver_that_dies_leaves_its_last_words(tmp_path):
    with threads(tmp_path / "threads") as driven:
        driven._process.kill()
        driven._process.wait()
        with pytest.raises(NotMeasuredError, match="it has ended"):
            driven.measure(Order(work="commands", count=1))


def test_xargs_is_measured_and_its_failures_are_not(tmp_path):
    with tools.Xargs(tmp_path / "xargs") as xargs:
        assert len(xargs.measure(Order(work="cli", count=3)).seconds) == 3
        assert xargs.measure(Order(work="commands", count=5)).seconds[0] > 0
        argvs = tuple(("echo", str(number)) for number in range(3))
        assert sorted(xargs.measure(Order(work="numpy", count=3, argvs=argvs)).outputs) == ["0\n", "1\n", "2\n"]
        with pytest.raises(NotMeasuredError, match="exit code 123"):
            xargs.measure(Order(work="numpy", count=1, argvs=(("false", "1"),)))
        with pytest.raises(NotMeasuredError, match="without a Python client"):
            xargs.measure(Order(work="calls", count=1))
        assert xargs.pids() == []


def test_exit_codes_are_counted_in_job_logs(tmp_path):
    head = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n"
    for name, codes in (("one", "00"), ("two", "01")):
        (tmp_path / name).write_text(head + "".join(f"1\t:\t0\t0\t0\t0\t{code}\t0\ttrue\n" for code in codes))
    with pytest.raises(NotMeasuredError, match="only 3 of 4"):
        tools.check_joblogs(tmp_path, 4)
    (tmp_path / "one").write_text(head)
    with pytest.raises(NotMeasuredError, match="only 0 of 1"):
        tools.check_joblog(tmp_path / "one", 1)


def test_a_round_keeps_values_and_words(tmp_path, monkeypatch):
    monkeypatch.setitem(WORKS, "numpy", WORKS["numpy"].__class__(title="", count=2, least=2, script="print(7)"))
    runner = Runner(tmp_path, HERE, works=["commands", "latency", "numpy", "memory"], scale=0.001, window_s=0.01)
    results = Results()
    fakes = [
        Fake("good", outputs=("7\n", "7\n")),
        Fake("wrong", outputs=("8\n", "7\n")),
        Fake("unable", lacks="latency"),
    ]
    said: list[str] = []
    runner.round([lambda _, fake=fake: fake for fake in fakes], results, said.append)
    assert results.samples("commands", "good") == [2.0]
    assert results.samples("latency", "good") == [2000.0]
    assert results.samples("numpy", "good") == [2.0]
    assert "started cold" in results.words["numpy"]["wrong"]
    assert results.words["latency"]["unable"] == "it cannot"
    assert results.samples("memory", "good") == []
    assert "good ..." in said


def test_processes_with_nothing_to_do_are_watched(tmp_path):
    runner = Runner(tmp_path, HERE, works=["wakeups", "memory"], scale=1.0, window_s=0.05)
    results = Results()
    runner.round([threads], results, lambda _: None)
    assert results.samples("memory", "two threads")[0] > 1
    assert results.samples("wakeups", "two threads")[0] >= 0
    assert "processor" not in results.found


def test_processes_that_have_ended_cost_nothing():
    assert processes.family(2**22 + 1) == []
    gone = [2**22 + 1]
    assert (processes.pss_mib(gone), processes.cpu_s(gone), processes.wakeups(gone)) == (0, 0, 0)


def test_ratios_are_of_the_same_run_and_missing_ones_are_left_out():
    results = Results(counts={"commands": 100})
    for own_s, other_s in ((1.0, 2.0), (1.0, 4.0), (2.0, None)):
        results.add("commands", "p2pq none", own_s)
        if other_s is None:
            results.fail("commands", "Ray", "it broke")
        else:
            results.add("commands", "Ray", other_s)
    results.fail("commands", "Dask", "not installed")
    assert results.ratio("commands", "p2pq none", "Ray") == 3.0
    assert results.ratio("commands", "p2pq none", "Dask") is None
    goals = [Goal(work="commands", own="p2pq none", other=name, at_least=3.1) for name in ("Ray", "Dask")]
    text = report.markdown(results, ["a machine"], goals)
    assert "| commands: p2pq none over Ray | 3.1 x | 3 x | NO |" in text
    assert "| commands: p2pq none over Dask | 3.1 x |  | not measured |" in text
    assert "| Ray | 3 s | 33 | 3 x |  | 2 to 4 | 2 |" in text
    assert "Not measured: Dask (not installed)." in text


def test_what_was_found_is_kept_and_drawn_again(tmp_path, capsys):
    kept, picture = tmp_path / "found.json", tmp_path / "found.png"
    results = Results(counts={"commands": 10}, settings={"xargs": "-P 2"})
    results.add("commands", "xargs", 0.5)
    results.add("commands", "p2pq none", 50.0)
    report.write_json(kept, results, ["a machine"])
    assert report.read_json(kept) == (results, ["a machine"])
    options = ["peers", "--draw", str(kept), "--plot", str(picture), "--markdown", str(tmp_path / "found.md")]
    assert program.main(options) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.strip() == (tmp_path / "found.md").read_text().strip()


def test_the_program_measures_whom_it_is_told_to(tmp_path, capsys):
    kept = tmp_path / "found.json"
    options = ["--environment", str(tmp_path / "none"), "--peers", "xargs; two threads", "--only", "commands,cli"]
    more = ["--runs", "2", "--scale", "0.001", "--json", str(kept), "--dir", str(tmp_path)]
    assert program.main(["peers", *options, *more]) == 0
    shown = capsys.readouterr()
    assert "no peers in" in shown.err
    assert "run 2 of 2 is done" in shown.err
    assert "20 times `/bin/true`" in shown.out
    assert len(json.loads(kept.read_text())["found"]["commands"]["xargs"]) == 2


def test_what_cannot_be_measured_is_refused(capsys):
    for wrong, said in (
        (["--only", "dancing"], "there is no 'dancing'"),
        (["--peers", "nobody"], "there is no 'nobody'"),
        (["--runs", "0"], "at least 1"),
        (["--scale", "0"], "above 0"),
    ):
        with pytest.raises(SystemExit):
            program.main(["peers", *wrong])
        assert said in capsys.readouterr().err


def test_every_goal_is_of_a_work_and_of_contestants_that_there_are():
    for goal in GOALS:
        assert goal.work in WORKS
        assert {goal.own, goal.other} <= set(peers.NAMES)
    assert set(SLOW) <= set(peers.NAMES)
    assert rough_s(WORKS, 2, 3, 1.0) > rough_s(WORKS, 2, 3, 0.1) > 0


def test_everything_that_is_compared_with_can_be_made(tmp_path):
    for name in peers.NAMES:
        assert peers.make(name, tmp_path / "folder", HERE).name == name


@pytest.mark.parametrize("level", ["none", pytest.param("strict", marks=pytest.mark.sandbox)])
def test_p2pq_is_measured_as_its_peers_are(tmp_path, level):
    script = tmp_path / "script"
    script.mkdir()
    (script / "main.py").write_text("import sys\nprint(sys.argv[1], 'here')\n")
    argvs = tuple((str(HERE), str(script / "main.py"), str(number)) for number in range(2))
    with own.P2pq(level, tmp_path / "own", HERE) as contestant:
        for work in ("commands", "latency", "cli"):
            assert contestant.measure(Order(work=work, count=2)).seconds[0] > 0
        done = contestant.measure(Order(work="numpy", count=2, argvs=argvs, folder=script))
        assert sorted(done.outputs) == ["0 here\n", "1 here\n"]
        assert len(contestant.pids()) >= 2


def test_requirements_name_one_version_each():
    lines = [line.partition("#")[0].strip() for line in install.REQUIREMENTS.read_text().splitlines()]
    assert all("==" in line for line in lines if line)
    assert install.python_of(Path("/x")) == Path("/x/bin/python")
