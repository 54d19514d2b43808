"""The program that makes calls on other machines, as a process without p2pq, and by its parts."""

import pickle  # noqa: TID251  what this very program has made
import shutil
import subprocess
import sys

import pytest

from p2pq.client.away import BOOT
from p2pq.client.plain import decode
from p2pq.runner import away as module
from p2pq.runner import calls, plain
from tests.unit.client.callskit import complain, square
from tests.unit.runner.test_calls import order_of


class Thing:
    """Nothing that travels."""


class OwnError(Exception):
    """Of no builtin type."""


def test_it_makes_calls_where_no_p2pq_is_installed(tmp_path):
    folder = tmp_path / "p2pq-calls"
    (folder / "runner").mkdir(parents=True)
    (folder / "calls").mkdir()
    (folder / "main.py").write_text(BOOT)
    for each in (module, calls, plain):
        shutil.copy(each.__file__, folder / "runner")
    (tmp_path / "beside.py").write_text("")
    made = (
        (abs, -3),
        (eval, "__import__('beside').__name__"),
        (print, "hello"),
        (eval, "__import__('sys').argv"),
        (eval, "1/0"),
    )
    order, arguments = order_of(*made)
    order.trusted = False
    head = pickle.dumps(order)
    (folder / "calls" / "7").write_bytes(len(head).to_bytes(8, "little") + head + arguments)
    done = subprocess.run(
        [sys.executable, "-E", "-S", folder / "main.py"],
        check=False, capture_output=True, timeout=60, cwd=tmp_path, env={"P2PQ_TASK": "7"},
    )  # fmt: skip
    assert done.stderr == b""
    frames = [(kind, bytes(payload)) for kind, _, payload in calls.frames(done.stdout)]
    assert [decode(data) for kind, data in frames if kind == calls.RESULT] == [3, "beside", None, ["prog", "x"]]
    [(kind, made_with, shown, text, missing)] = [decode(data) for kind, data in frames if kind == calls.ERROR]
    assert (kind, made_with, missing) == ("ZeroDivisionError", ("division by zero",), None)
    assert shown == "ZeroDivisionError: division by zero"
    assert text.endswith(f"{shown}\n")
    assert frames[-2:] == [(calls.PRINTED, b"hello\n"), (calls.END, b"")]


def told(error):
    with pytest.raises(type(error)) as raised:
        raise error
    kind, data = module.Plainly([]).failure(raised.value)
    assert kind == calls.ERROR
    return decode(data)


def test_what_an_exception_is_made_with_travels_if_it_is_data_and_of_a_builtin_type():
    assert told(FileNotFoundError(2, "no", "/x"))[:3] == (
        "FileNotFoundError", (2, "no", "/x"), "FileNotFoundError: [Errno 2] no: '/x'",
    )  # fmt: skip
    assert told(ValueError(Thing))[1] is None
    assert told(OwnError("a"))[:3] == (f"{__name__}.OwnError", None, "OwnError: a")
    assert told(ModuleNotFoundError("no", name="x.y"))[4] == "x.y"
    assert told(ModuleNotFoundError("no"))[4] is None


def test_a_traceback_has_an_end():
    assert len(told(OwnError("a" * 1_000_000))[3]) == module.TEXT_CHARS


def test_what_is_no_data_is_named():
    kind, data = module.Plainly([]).result([Thing()])
    assert (kind, decode(data)) == (calls.OTHER, f"a value of type {__name__}.Thing")


def test_registered_types_travel_and_those_that_are_not_here_do_not_matter():
    types = [b"nonsense", calls.pickled((Thing, "a thing", repr_of))]
    kind, data = module.Plainly(types).result(Thing())
    assert kind == calls.RESULT
    assert decode(data, {"a thing": lambda text: [text]}) == ["thing"]


def repr_of(_thing):
    return "thing"


@pytest.mark.parametrize(("trusted", "kind"), [(True, calls.Pickled), (False, module.Plainly)])
def test_results_are_pickles_only_if_they_are_trusted(monkeypatch, trusted, kind):
    monkeypatch.setattr(sys, "argv", [])
    order, _ = order_of((square, 1), (complain, "x"))
    order.trusted = trusted
    assert type(module.as_away(order, None, None)._says) is kind
    assert sys.argv == order.argv
