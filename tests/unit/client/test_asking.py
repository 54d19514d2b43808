"""What callers say becomes a request, or a sentence on what is wrong with it."""

import os
from pathlib import Path

import pytest

from p2pq.client.asking import commands_of, submit_of
from p2pq.client.inherited import umask
from p2pq.errors import UsageError
from p2pq.model.job import Resources
from p2pq.model.params import parse_array, parse_sweep
from p2pq.model.sources import Source
from p2pq.wire.commandcontrol import SubmitCommands
from p2pq.wire.control import Submit


def test_a_folder_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plain = Submit(folder=str(tmp_path / "mysim"), umask=umask())
    assert submit_of("mysim/", (), {}) == submit_of(Path("mysim"), [], {}) == plain


def test_everything(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = {
        "name": "n",
        "results": "out",
        "exclude": ["*.o"],
        "array": [3, 1],
        "sweep": {"rate": [1, 2.5], "seed": range(2), "x": "0:1:0.5"},
        "config": Path("c.toml"),
        "cpus": 2,
        "memory": "4G",
        "needs": {"has": "numpy"},
        "where": "local",
        "sandbox": "none",
        "keep_done": True,
        "cold": True,
    }
    assert submit_of("/f", ["--rate", 3], options) == Submit(
        folder="/f",
        args=("--rate", "3"),
        name="n",
        results=str(tmp_path / "out"),
        exclude=("*.o",),
        array="3,1",
        sweep=("rate=1,2.5", "seed=0,1", "x=0:1:0.5"),
        config=str(tmp_path / "c.toml"),
        resources=Resources(cpus=2, memory_mb=4096, needs=(("has", "numpy"),)),
        where="local",
        sandbox="none",
        umask=umask(),
        resume=True,
        keep_done=True,
        cold=True,
    )
    assert submit_of("/f", (), {"memory": 512}).resources == Resources(memory_mb=512)


@pytest.mark.parametrize(
    ("array", "numbers"),
    [(range(3), [0, 1, 2]), (range(9, 0, -4), [1, 5, 9]), ([7, 2], [7, 2]), ("0-4:2", [0, 2, 4]), (range(5, 6), [5])],
)
def test_arrays(array, numbers):
    ranges = parse_array(submit_of("/f", (), {"array": array}).array)
    assert [number for each in ranges for number in range(each.first, each.last + 1, each.step)] == numbers


@pytest.mark.parametrize("values", [["a b", "c=d", 'x"\n"y'], [True, None], ["0:1", "x"], [0.1, 1e-9]])
def test_swept_values_arrive_as_they_are(values):
    [text] = submit_of("/f", (), {"sweep": {"k": values}}).sweep
    assert parse_sweep(text).values == tuple(map(str, values))


@pytest.mark.parametrize("values", [["a,b"], ["a\n"], [" a"], ["0:1"], [""], ["0:1:0.1"], [(1, 2)]])
def test_swept_values_that_would_not_are_refused(values):
    with pytest.raises(UsageError, match="put such values into a file"):
        submit_of("/f", (), {"sweep": {"k": values}})


@pytest.mark.parametrize(
    ("args", "options", "kind", "words"),
    [
        ("--rate 1", {}, UsageError, "args is a list of words"),
        ((), {"exclude": "*.o"}, UsageError, "exclude is a list of words"),
        ((), {"array": []}, UsageError, "an array without numbers"),
        ((), {"array": range(0)}, UsageError, "an array without numbers"),
        ((), {"array": ""}, UsageError, "an array without numbers"),
        ((), {"sweep": {"k": []}}, UsageError, "the sweep of 'k' has no values"),
        ((), {"sweep": {"task": [1]}}, UsageError, "has a meaning already"),
        ((), {"memory": "much"}, UsageError, "512M or 4G"),
        ((), {"memroy": "4G"}, TypeError, "no option 'memroy'"),
    ],
)
def test_what_is_wrong_is_said(args, options, kind, words):
    with pytest.raises(kind, match=words):
        submit_of("/f", args, options)


def test_commands(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("A", "b")
    one = SubmitCommands(
        words=("echo", "1"), shell=False, cwd=str(tmp_path), environment=b"A=b\0", retries=1, umask=umask()
    )
    assert commands_of(["echo", 1], (), {}) == one
    many = commands_of(["echo {1}{2}"], [range(2), ["x"]], {"retries": 0, "memory": "1G", "halt": "now,fail=1"})
    assert (many.sources, many.shell, many.retries) == ((Source(("0", "1")), Source(("x",))), True, 0)
    assert (many.resources, many.halt) == (Resources(memory_mb=1024), "now,fail=1")
    with pytest.raises(UsageError, match="a source without values"):
        commands_of(["echo"], [[]], {})
    with pytest.raises(UsageError, match="words is a list of words"):
        commands_of("echo 1", (), {})
    with pytest.raises(TypeError, match="no option 'where'"):
        commands_of(["echo"], (), {"where": "any"})
