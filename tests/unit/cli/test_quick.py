"""``p2pq run`` without msgspec and click does, says and ends as it does with them."""

import os
import signal
import sys

import pytest

from p2pq.cli import quick
from p2pq.cli.main import main
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends, SubmitCommands, TaskEnded
from p2pq.wire.control import Change, Failed, LogChunk, Note
from tests.unit.client.nodekit import GONE, JOB, Node, job_view

GREETED = control.Welcome(id="abc", name="n", version="1")


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Give a node that plays as told."""
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    monkeypatch.setenv("P2PQ_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("P2PQ_TASK", raising=False)
    with Node(tmp_path / "home") as found:
        found.answers[SubmitCommands] = [job_view()]
        found.answers[control.CancelJob] = [job_view()]
        found.answers[control.Watch] = [Change(job=job_view(state="cancelled"))]
        yield found


@pytest.fixture
def both(node, capfdbinary, monkeypatch):
    """Give a function that runs a command line either way; it returns the exit code, both outputs, and what the node heard."""

    def ended(work):
        node.heard.clear()
        with pytest.raises(SystemExit) as end:
            work()
        sys.stdout.flush()
        return end.value.code, *capfdbinary.readouterr(), list(node.heard)

    def run(*typed):
        found = ended(lambda: sys.exit(quick.run(list(typed))))
        assert found == ended(lambda: main(["run", *typed]))
        return found

    return run


def interrupt(number):
    def send(_request):
        os.kill(os.getpid(), number)
        yield Note(text="never told")
        yield GONE

    return send


def test_what_a_command_prints_is_ours_byte_by_byte_and_so_is_its_exit_code(both, node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIVEN", "a=b\nc")
    node.answers[Ends] = [
        LogChunk(task=0, data=b"\xff\0a"),
        LogChunk(task=0, data=b"oops\n", stream="stderr"),
        LogChunk(task=0, data=b"b\r\n"),
        TaskEnded(task=0, state="failed", exit=7, reason="exit"),
    ]
    code, out, err, heard = both("tool", "--name", "{}", "--", "a b", "ä")
    assert (code, out, err) == (7, b"\xff\0ab\r\n", b"oops\n")
    assert heard[0].words == ("tool", "--name", "{}", "--", "a b", "ä")
    assert b"GIVEN=a=b\nc\0" in heard[0].environment
    assert heard[1] == Ends(job=JOB, live=True)


@pytest.mark.parametrize("typed", [["--", "-x", "--"], ["--quiet", "x"], ["-q", "--", "x", "-q"], ["x", "--quiet"]])
def test_options_and_words(both, node, typed):
    node.answers[Ends] = [Note(text="it waits\x1b"), TaskEnded(task=0, state="done", exit=0)]
    code, _, err, _ = both(*typed)
    quiet = typed[0] in ("-q", "--quiet")
    assert (code, err) == (0, b"" if quiet else "p2pq: it waits\ufffd\n".encode())


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ([TaskEnded(task=0, state="done", exit=0)], 0),
        ([TaskEnded(task=0, state="done", exit=0, gone="evicted")], 125),
        ([TaskEnded(task=0, state="failed", exit=3, reason="exit")], 3),
        ([TaskEnded(task=0, state="failed", exit=3, reason="exit", gone="evicted")], 125),
        ([TaskEnded(task=0, state="failed", signal=9, reason="signal")], 137),
        ([TaskEnded(task=0, state="failed", exit=143, reason="time-limit")], 125),
        ([TaskEnded(task=0, state="cancelled")], 125),
        ([TaskEnded(task=0, state="failed")], 125),
        ([], 125),
        ([Note(text="a"), GONE], 125),
        ([Failed(message="no\x1b more")], 125),
    ],
)
def test_how_it_ends(both, node, ends, code):
    node.answers[Ends] = ends
    found, out, err, _ = both("x")
    assert (found, out) == (code, b"")
    assert (code == 125) == bool(err)


def test_a_node_that_goes_away_before_the_job_has_a_name(both, node):
    node.answers[SubmitCommands] = [Note(text="a"), GONE]
    code, _, err, _ = both("x")
    assert code == 125
    assert b"`p2pq jobs` tells whether it has one" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interruption_cancels_the_job(both, node, number, code):
    node.answers[Ends] = interrupt(number)
    found, _, err, heard = both("x")
    assert (found, [type(request).__name__ for request in heard]) == (
        code,
        ["SubmitCommands", "Ends", "CancelJob", "Watch"],
    )
    assert b"interrupted: cancelled job" in err


class Deaf:
    """An output that takes nothing."""

    def __init__(self, error):
        self._error = error

    @property
    def buffer(self):
        return self

    def write(self, _data):
        raise self._error

    def flush(self):
        """There is nothing."""


@pytest.mark.parametrize(
    ("error", "code"), [(BrokenPipeError(32, "Broken pipe"), 141), (OSError(28, "No space left"), 125)]
)
def test_output_that_nobody_takes_cancels_the_job(both, node, monkeypatch, error, code):
    monkeypatch.setattr("p2pq.cli.outputs.let_go", lambda: None)
    monkeypatch.setattr("sys.stdout", Deaf(error))
    node.answers[Ends] = [LogChunk(task=0, data=b"a\n"), TaskEnded(task=0, state="done", exit=0)]
    found, _, err, heard = both("x")
    assert found == code
    assert type(heard[2]) is control.CancelJob
    assert bool(err) == (code == 125)


@pytest.mark.parametrize(
    "typed", [[], ["--"], ["-i", "x"], ["--detach", "x"], ["--name", "n", "x"], ["-"], ["--quiet"], ["x", "\udcff"]]
)
def test_what_is_left_to_the_whole(node, typed):
    assert quick.run(typed) is None
    assert node.heard == []


def test_a_refusal_is_asked_for_again_by_the_whole(both, node):
    node.answers[SubmitCommands] = [Failed(message="no room")]
    assert quick.run(["x"]) is None


@pytest.mark.parametrize("name", ["P2PQ_TASK", "P2PQ_HOME"])
def test_where_it_cannot_run_the_whole_says_so(node, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, str(tmp_path))
    assert quick.run(["x"]) is None
    assert node.heard == []


def test_a_node_that_does_not_take_us_and_closed_outputs(node, monkeypatch):
    node.greeting = Failed(message="wrong version")
    assert quick.run(["x"]) is None
    node.greeting = GREETED
    monkeypatch.setattr("sys.stdin", None)
    assert quick.run(["x"]) is None
    assert node.heard == []
