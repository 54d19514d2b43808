"""The program that makes calls, as a process of its own and by its parts."""

import io
import os
import pickle  # noqa: TID251  what this very program has made
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cloudpickle
import pytest

from p2pq.runner import calls as module
from p2pq.runner.calls import Answers, Calls, Order
from tests.unit.client.callskit import StubbornError, add, argument, complain, say, square, stubborn

ROOT = Path(__file__).parents[3]


def order_of(*made, begin=b"", budget_s=60.0):
    """Return what a task reads, for calls given as a function and its arguments."""
    functions, numbers, arguments = [], [], []
    for function, *args in made:
        data = module.pickled(function)
        if data not in functions:
            functions.append(data)
        arguments.append(module.pickled((tuple(args), {})))
        numbers.append((functions.index(data), len(arguments[-1])))
    return Order(list(sys.path), ["prog", "x"], budget_s, begin, functions, numbers), b"".join(arguments)


def run(*made, **options):
    order, arguments = order_of(*made, **options)
    head = pickle.dumps(order)
    data = len(head).to_bytes(8, "little") + head + arguments
    done = subprocess.run(
        [sys.executable, "-c", module.BOOT, ROOT], check=False, input=data, capture_output=True, timeout=60
    )
    return done, [(kind, bytes(payload)) for kind, _, payload in module.frames(done.stdout)]


def made(order, arguments=b""):
    """Make the calls of an order here; return the frames."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as results:
        with os.fdopen(write, "wb"):
            answers = Answers(write)
            calls = Calls(order, io.BytesIO(arguments), answers)
            if calls.begin():
                calls.make()
            answers.flush()
        return [(kind, pickle.loads(payload)) for kind, _, payload in module.frames(results.read())]


def test_a_task_from_its_start_to_its_end():
    done, frames = run(
        (square, 3), (Path.cwd,), (eval, "__import__('sys').argv"), (eval, "open(0).read()"), (say, "hello")
    )
    values = [pickle.loads(payload) for kind, payload in frames if kind == module.RESULT]
    assert values == [9, Path.cwd(), ["prog", "x"], "", None]
    assert frames[-2:] == [(module.PRINTED, b"hello\n"), (module.END, b"")]
    assert (done.returncode, done.stderr) == (0, b"oops\n")


@pytest.mark.parametrize(("how", "code"), [("os._exit(0)", 0), ("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", -9)])
def test_a_call_that_ends_the_process_leaves_no_end_but_what_was_done_before(how, code):
    slow = (eval, "__import__('time').sleep(0.05)")
    done, frames = run((square, 2), slow, (exec, f"import os; {how}"), (square, 3))
    assert done.returncode == code
    assert [kind for kind, _ in frames] == [module.RESULT] * 2


def test_nothing_that_takes_long_is_imported_before_it_is_needed():
    heavy = ["typing", "re", "traceback", "cloudpickle", "asyncio", "p2pq.client"]
    code = f"import sys; sys.path.insert(0, sys.argv[1]); import p2pq.runner.calls; print(*{{*{heavy}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-S", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_exceptions_travel_with_where_they_came_about():
    order, arguments = order_of((complain, "bread"), (square, 2), (sys.exit, 5))
    [(kind, (error, text)), (_, four), (_, (ended, _))] = made(order, arguments)
    assert (kind, repr(error), four) == (module.ERROR, "ValueError('no bread')", 4)
    assert "in complain\n    raise ValueError" in text
    assert "calls.py" not in text, "what makes the call says nothing"
    assert isinstance(ended, SystemExit)


def test_what_cannot_travel_back_is_said_with_its_traceback():
    order, arguments = order_of((stubborn,), (eval, "(x for x in ())"))
    [(_, (error, text)), (kind, (why, _))] = made(order, arguments)
    assert isinstance(error, RuntimeError)
    assert "StubbornError: 1 and 2 (the exception itself cannot travel" in str(error)
    assert "in stubborn" in text
    assert (kind, type(why)) == (module.ERROR, TypeError)
    assert StubbornError(1, 2).args == ("1 and 2",)


def test_a_function_that_cannot_be_opened_fails_each_of_its_calls():
    order, arguments = order_of((square, 1), (square, 2))
    order.functions[0] = b"cno_such_module\nx\n."
    found = made(order, arguments)
    assert [(kind, type(error)) for kind, (error, _) in found] == [(module.ERROR, ModuleNotFoundError)] * 2


def test_no_call_is_begun_when_time_is_up_but_the_first_is_made():
    order, arguments = order_of((square, 1), (square, 2), budget_s=-1.0)
    assert made(order, arguments) == [(module.RESULT, 1)]


def test_what_is_called_first():
    begin = module.pickled((exec, ("import builtins; builtins.begun = 5",)))
    try:
        assert made(*order_of((eval, "begun"), begin=begin)) == [(module.RESULT, 5)]
    finally:
        del __builtins__["begun"]
    order, arguments = order_of((square, 1), begin=module.pickled((complain, ("way",))))
    [(kind, (error, _))] = made(order, arguments)
    assert (kind, str(error)) == (module.NOT_BEGUN, "no way")


def test_results_are_written_soon(monkeypatch):
    written = []
    monkeypatch.setattr(module.os, "write", lambda _fd, data: written.append(bytes(data)) or len(data))
    clock = iter([0.0, 0.0, 1.0, 1.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    answers = Answers(1)
    answers.add(module.RESULT, b"a")
    answers.flush_if_due(module.FLUSH_S / 2)
    assert written == []
    answers.flush_if_due(module.FLUSH_S)
    answers.add(module.RESULT, b"b" * module.FLUSH_BYTES)
    answers.flush_if_due(0.0)
    assert [len(data) for data in written] == [module.FRAME.size + 1, module.FRAME.size + module.FLUSH_BYTES]


def test_a_frame_that_was_cut_off_is_none():
    whole = module.FRAME.pack(module.RESULT, 0.5, 3) + b"abc"
    assert [(kind, seconds, bytes(data)) for kind, seconds, data in module.frames(whole + whole[:-1])] == [
        (module.RESULT, 0.5, b"abc")
    ]
    assert list(module.frames(whole[:5])) == []


def test_what_has_no_name_of_its_own_elsewhere_goes_by_value(monkeypatch):
    here = {"__name__": "__main__"}
    exec("class Mine:\n    pass\ndef make():\n    return Mine()", here)
    assert pickle.loads(module.pickled(here["make"]))().__class__.__name__ == "Mine"
    assert pickle.loads(module.pickled(lambda: 3))() == 3
    plain = module.pickled(square)
    assert plain == pickle.dumps(square, module.PROTOCOL)
    monkeypatch.setattr(cloudpickle, "list_registry_pickle_by_value", lambda: {"tests"})
    monkeypatch.setattr(cloudpickle, "dumps", lambda *_: b"by value")
    assert module.pickled(square) == b"by value"


def test_a_chunk_is_several_calls():
    assert module.run_chunk(add_to, [(1, 2), (3, 4)]) == [3, 7]
    assert argument(add(1, second=2)) == 3


def add_to(first, second):
    return add(first, second=second)


class SilentError(Exception):
    """Says nothing of itself."""

    def __str__(self):
        raise RuntimeError("no")

    def __reduce__(self):
        raise KeyboardInterrupt


@dataclass(frozen=True)
class FrozenError(Exception):
    number: int


@pytest.mark.parametrize(("kind", "arguments"), [(SilentError, ()), (FrozenError, (3,))])
def test_no_exception_ends_the_task(kind, arguments):
    def fail():
        raise kind(*arguments)

    done, frames = run((fail,), (square, 2))
    assert [each for each, _ in frames] == [module.ERROR, module.RESULT, module.END], done.stderr
    error, text = pickle.loads(frames[0][1])
    assert type(error) is RuntimeError
    assert kind.__qualname__ in str(error)
    assert "in fail" in text


def test_where_no_file_can_be_in_memory_it_is_among_temporary_ones(monkeypatch, tmp_path):
    def refuse(_name):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with os.fdopen(module.unnamed_file(), "w+b", 0) as file:
        file.write(b"x")
        assert os.pread(file.fileno(), 9, 0) == b"x"
    assert not list(tmp_path.iterdir())
