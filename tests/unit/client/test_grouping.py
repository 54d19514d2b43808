"""Which calls go together."""

import pickle  # noqa: TID251  what this very program has made
import sys
from concurrent.futures import Future
from functools import partial

import pytest

from p2pq.client import grouping as module
from p2pq.client.grouping import Call, Groups
from p2pq.runner import calls
from tests.unit.client.callskit import argument, square


def call(number=0, function=square):
    return Call(Future(), function, (number,), {})


@pytest.fixture
def groups():
    return Groups(b"")


def sizes(found):
    return [len(group.calls) for group in found]


def wait(groups, count, *, takes=None, later=None, function=square):
    """Let so many calls wait, of which it is known how long they take, the first time and later."""
    some = [call(number, function) for number in range(count)]
    groups.pending.extend(some)
    if takes is not None:
        groups.pace.measured([(some[0], takes)])
    if later is not None:
        groups.pace.measured([(some[0], takes), (some[0], later)])
    return some


def test_calls_of_which_nothing_is_known_begin_alone_as_many_as_there_are_slots(groups):
    wait(groups, 5)
    assert sizes(groups.take(2, 2)) == [1, 1]
    assert groups.take(0, 2) == []
    assert len(groups.pending) == 3


@pytest.mark.parametrize(
    ("count", "seconds", "free", "spare", "expected"),
    [
        (100, 1e-6, 2, 2, [100]),  # less than what is worth a second process
        (10_000, 1e-5, 2, 2, [5000, 5000]),
        (10_000, 1e-4, 2, 2, [800] * 4),  # more than slots, and each of 80 ms
        (10, 0.02, 2, 2, [4, 4]),
        (10, 0.02, 1, 2, [4, 4]),
        (10, 0.02, 0, 2, [4, 4]),
        (3, 0.02, 0, 2, []),  # more may come until a slot is free
        (3, 1.0, 2, 2, [1, 1, 1]),
        (9, 1.0, 2, 2, [1] * 4),
        (9, 1.0, 0, 2, [1] * 2),
        (9, 1.0, 0, 0, []),
        (50_000, 1e-9, 1, 0, [20_000]),
    ],
)
def test_calls_go_together_by_how_long_they_take(groups, count, seconds, free, spare, expected):
    wait(groups, count, takes=seconds, later=seconds)
    assert sizes(groups.take(free, spare)) == expected


def test_what_a_first_call_imports_is_not_taken_for_its_work(groups):
    wait(groups, 9, takes=0.5)
    assert sizes(groups.take(2, 2)) == [2, 2, 2, 2], "a second one in the same task would tell more"
    groups.pending.clear()
    wait(groups, 4, takes=0.5)
    assert sizes(groups.take(2, 2)) == [1] * 4, "but not where a slot would be left without"
    wait(groups, 400, takes=0.5, later=0.001)
    assert sizes(groups.take(2, 2)) == [80] * 4


def test_a_task_that_takes_long_to_start_has_more_to_do(groups):
    groups.pace.started(0.1)
    groups.pace.started(0.3)
    wait(groups, 5000, takes=0.001, later=0.001)
    assert sizes(groups.take(1, 0)) == [800]


def test_calls_that_are_short_may_wait_for_more(groups):
    assert not groups.short()
    wait(groups, 1)
    assert not groups.short(), "nothing is known of it"
    groups.pace.measured([(groups.pending[0], 0.1)])
    assert not groups.short()
    groups.pace.measured([(groups.pending[0], 0.1), (groups.pending[0], 0.0001)])
    assert groups.short()
    assert groups.pace.gather_s == 0.0
    groups.pace.started(0.04)
    assert groups.pace.gather_s == 0.02


def test_durations_are_by_function_whatever_it_is_wrapped_in(groups):
    chunk = partial(calls.run_chunk, partial(square))
    groups.pace.measured([(call(function=square), 2.0)])
    assert groups.pace.of(call(function=chunk)) == 2.0
    assert groups.pace.of(call(function=argument)) is None
    assert groups.pace.of(call(function=partial(int, base=2))) is None


def test_functions_are_not_remembered_for_ever(groups, monkeypatch):
    monkeypatch.setattr(module, "NAMES_MAX", 2)
    for function in (square, argument, len):
        groups.pace.measured([(call(function=function), 1.0), (call(function=function), 1.0)])
    assert [groups.pace.of(call(function=function)) for function in (square, argument, len)] == [None, None, 1.0]


def test_arguments_are_bounded(groups, monkeypatch):
    monkeypatch.setattr(module, "BYTES_MAX", 200)
    groups.pending.extend(call(b"x" * 100, argument) for _ in range(5))
    groups.pace.measured([(groups.pending[0], 1e-4), (groups.pending[0], 1e-4)])
    assert sizes(groups.take(1, 0)) == [2]


def test_a_task_reads_functions_once_and_the_arguments_of_each_call(groups):
    given = [call(2), Call(Future(), argument, (), {"thing": 3}), call(4)]
    groups.pending.extend(given)
    for each in given[:2]:
        groups.pace.measured([(each, 1e-6), (each, 1e-6)])
    [group] = groups.take(1, 0)
    length, head, *arguments = group.data
    assert int.from_bytes(length, "little") == len(head)
    order = pickle.loads(head)
    assert (order.path, order.argv, order.begin) == (sys.path, sys.argv, b"")
    assert [pickle.loads(each) for each in order.functions] == [square, argument]
    assert order.calls == [(0, len(arguments[0])), (1, len(arguments[1])), (0, len(arguments[2]))]
    assert [pickle.loads(each) for each in arguments] == [((2,), {}), ((), {"thing": 3}), ((4,), {})]
    assert all(each.begun and each.future.running() for each in given)


def test_what_is_cancelled_or_cannot_travel_is_left_out(groups):
    cancelled, broken, whole = call(), call(x for x in ()), call()
    groups.pending.extend([cancelled, broken, whole])
    groups.pace.measured([(whole, 1e-6), (whole, 1e-6)])
    assert cancelled.future.cancel()
    [group] = groups.take(2, 0)
    assert group.calls == [whole]
    with pytest.raises(TypeError, match="pickle"):
        broken.future.result(0)
    groups.pending.append(broken_alone := call(x for x in ()))
    assert groups.take(2, 0) == []
    assert broken_alone.future.exception(0)


def test_what_is_handed_back_comes_first_and_cannot_be_cancelled(groups):
    given = wait(groups, 3, takes=1.0, later=1.0)
    [group] = groups.take(1, 0)
    assert group.calls == given[:1]
    groups.put_back(group.calls)
    assert list(groups.pending) == given
    assert not given[0].future.cancel()
    assert groups.take(1, 0)[0].calls == given[:1]


def test_the_interpreter_is_started_as_this_one_was(monkeypatch):
    monkeypatch.setattr(module.subprocess, "_args_from_interpreter_flags", lambda: ["-X", "dev"])
    assert module.argv("/python", "/root") == ("/python", "-X", "dev", "-c", calls.BOOT, "/root")
