"""A function that is called with each task as it ends."""

import sys

import pytest

from p2pq.cli import each
from p2pq.cli.each import Calls, function_of
from p2pq.errors import EachFailedError, RefusedError, UsageError
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module into the current folder; what is loaded is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(source)

    return write


def test_a_function_of_this_folder(module, tmp_path):
    module("mine", "def collect(task):\n    return task\nnumber = 3\n")
    assert function_of("mine:collect")(7) == 7
    assert function_of("mine:collect")(8) == 8
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mine", "is not module:function; write it like --each mine:collect"),
        (":f", "is not module:function"),
        ("mine:", "is not module:function"),
        ("nowhere:f", "there is no nowhere.py here, nor a module of that name for "),
        ("no.where:f", "there is no no.where.py here"),
        ("mine:g", "mine has no function g"),
        ("mine:number", "mine has no function number"),
    ],
)
def test_what_is_no_function(module, text, sentence):
    module("mine", "def f(task): pass\nnumber = 3\n")
    with pytest.raises(UsageError, match=sentence):
        function_of(text)


@pytest.mark.parametrize("source", ["1 / 0", "import not_there_at_all", "raise SystemExit(3)", "def f(:"])
def test_a_module_that_cannot_be_loaded(module, capsys, source):
    module("broken", source)
    with pytest.raises(EachFailedError, match="--each: broken could not be loaded, as said above"):
        function_of("broken:f")
    assert "Traceback" in capsys.readouterr().err


def chunk(task, data, stream="stdout"):
    return LogChunk(task=task, data=data, stream=stream)


def ended(task):
    return TaskEnded(task=task, state="done")


def test_it_is_called_with_what_tasks_printed_as_they_end():
    seen = []
    with Calls(seen.append, None, lambda ended, stdout, stderr: (ended.task, stdout, stderr)) as calls:
        calls.take(chunk(1, b"a"))
        calls.take(chunk(1, b"e", "stderr"))
        calls.take(chunk(1, b"b"))
        calls.end(ended(1))
        assert seen == [(1, b"ab", b"e")]
        calls.end(ended(0))
        calls.finish()
    assert seen[1:] == [(0, b"", b"")]


def test_it_is_called_in_the_order_of_tasks_if_wanted():
    seen = []
    with Calls(seen.append, iter([0, 2, 3, 5]), lambda ended, stdout, _stderr: (ended.task, stdout)) as calls:
        calls.take(chunk(3, b"3"))
        calls.end(ended(3))
        calls.end(ended(2))
        assert seen == []
        calls.end(ended(0))
        assert seen == [(0, b""), (2, b""), (3, b"3")]
        calls.end(ended(7))
        calls.finish()
    assert seen[3:] == [(7, b"")]


def test_what_waits_for_it_has_a_limit(monkeypatch):
    monkeypatch.setattr(each, "HELD_BYTES_MAX", 1 << 20)
    with Calls(lambda _task: None, iter([0, 1, 2]), lambda *_all: None) as calls:
        calls.take(chunk(0, b"x" * 600_000))
        calls.end(ended(0))
        calls.take(chunk(2, b"x" * 600_000))
        with pytest.raises(UsageError, match="more than 1 MiB waits for the function; let tasks write into files"):
            calls.take(chunk(1, b"x" * 600_000))


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(0), OSError(2, "No such file")])
def test_what_it_raises_is_printed_and_ends_the_job(capsys, error):
    def collect(_task):
        raise error

    said = "collect failed with task 4, as said above; mend that and try again"
    with Calls(collect, None, lambda *_all: None) as calls, pytest.raises(EachFailedError, match=said):
        calls.end(ended(4))
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [BrokenPipeError(), RefusedError("no"), KeyboardInterrupt()])
def test_what_is_not_its_own_failure_is_left_alone(error):
    def collect(_task):
        raise error

    with Calls(collect, None, lambda *_all: None) as calls, pytest.raises(type(error)):
        calls.end(ended(4))
