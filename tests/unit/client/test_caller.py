"""What works behind an executor, when things go wrong."""

import os
import signal
import threading
from concurrent.futures import BrokenExecutor, Future

import msgspec
import pytest

from p2pq import Executor
from p2pq.client import caller as module
from p2pq.client.here import Here
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends, KeepInput, SubmitCommands
from p2pq.wire.control import Failed
from tests.unit.client.callskit import CallsNode, complain, say, square, status_view
from tests.unit.client.nodekit import GONE

IN_TIME_S = 60.0


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    with CallsNode(tmp_path / "home") as found:
        yield found


@pytest.fixture
def pool(node):
    with Executor(home=node.home) as found:
        yield found


def test_what_calls_print_is_printed(pool, capfd):
    pool.submit(say, "hello").result(IN_TIME_S)
    pool.shutdown()
    assert capfd.readouterr() == ("hello\n", "oops\n")


def test_without_a_standard_output_nothing_is_printed(pool, monkeypatch):
    monkeypatch.setattr(module.sys, "stdout", None)
    pool.submit(print, "x").result(IN_TIME_S)


class Closed:
    """A pipe that nobody reads any more."""

    def write(self, _text):
        raise BrokenPipeError

    def flush(self):
        """Nothing is held."""


def test_where_nobody_reads_what_calls_print_they_return_all_the_same(pool, monkeypatch):
    monkeypatch.setattr(module.sys, "stdout", Closed())
    futures = [pool.submit(say, str(number)) for number in range(5)]
    assert [future.exception(IN_TIME_S) for future in futures] == [None] * 5


@pytest.mark.parametrize(
    ("function", "argument", "words"),
    [
        (os._exit, 3, "a call ended its process with exit code 3"),
        (os._exit, 0, "a call ended its process with exit code 0"),
        (signal.raise_signal, signal.SIGKILL, "ended its process by signal 9"),
    ],
)
def test_a_call_that_ends_its_process_breaks_all_that_is_not_done(pool, function, argument, words):
    done = pool.submit(square, 2)
    assert done.result(IN_TIME_S) == 4
    with pytest.raises(BrokenExecutor, match=words):
        pool.submit(function, argument).result(IN_TIME_S)
    with pytest.raises(BrokenExecutor, match="make another Executor"):
        pool.submit(square, 1)
    assert done.result(0) == 4


def test_what_waited_is_broken_and_what_was_under_way_is_cancelled(node):
    node.gate.clear()
    with Executor(1, home=node.home) as pool:
        first = pool.submit(os._exit, 1)
        later = [pool.submit(square, number) for number in range(3)]
        assert later[2].cancel()
        node.gate.set()
        for each in (first, *later[:2]):
            assert isinstance(each.exception(IN_TIME_S), BrokenExecutor)
    assert later[2].cancelled()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "cancelled"}, "the job of some calls was cancelled"),
        ({"gone": "it made room"}, "is not here any more: it made room"),
        ({"state": "failed", "exit": None, "reason": "memory-limit"}, "failed: memory-limit"),
        ({"state": "failed", "exit": None, "reason": ""}, "failed: it was lost"),
    ],
)
def test_a_task_that_came_to_a_bad_end_says_how(node, pool, changes, words):
    node.doctor = lambda _task, ended: [msgspec.structs.replace(each, **changes) for each in ended]
    # Its call ended its process, so that there is nothing to tell of it.
    with pytest.raises(BrokenExecutor, match=words):
        pool.submit(os._exit, 0).result(IN_TIME_S)


def test_a_task_of_which_nothing_is_told_was_cancelled(node, pool):
    node.answers[Ends] = []
    with pytest.raises(BrokenExecutor, match="was cancelled"):
        pool.submit(square, 1).result(IN_TIME_S)


def test_a_task_that_is_told_of_twice_is_done_once(node, pool):
    node.doctor = lambda _task, ended: ended * 2
    assert pool.submit(square, 2).result(IN_TIME_S) == 4
    assert pool.submit(square, 3).result(IN_TIME_S) == 9


@pytest.mark.parametrize("answer", [[Failed(message="no room\x1b")], []])
def test_a_job_that_is_not_taken_breaks_it(node, pool, answer):
    node.answers[SubmitCommands] = answer
    error = pool.submit(square, 1).exception(IN_TIME_S)
    assert isinstance(error, BrokenExecutor)
    assert str(error).startswith("the node has lost these calls: ")
    assert error.__cause__ is not None


def test_what_is_still_being_sent_when_it_breaks_is_never_submitted(tmp_path):
    begun, go_on = threading.Event(), threading.Event()
    with CallsNode(tmp_path / "home", slots=2) as node:
        keep = node.answers[KeepInput]

        def slowly(request):
            if len(request.data) > 1 << 19:
                begun.set()
                assert go_on.wait(IN_TIME_S)
            return keep(request)

        node.answers[KeepInput] = slowly
        with Executor(home=node.home) as pool:
            large = pool.submit(len, os.urandom(3 << 20))
            assert begun.wait(IN_TIME_S)
            broken = pool.submit(os._exit, 1)
            assert isinstance(broken.exception(IN_TIME_S), BrokenExecutor)
            assert isinstance(large.exception(IN_TIME_S), BrokenExecutor)
            go_on.set()
    assert len(node.submitted) == 1


def test_jobs_under_way_are_cancelled_when_it_breaks(tmp_path, monkeypatch):
    cancelled = threading.Event()
    with CallsNode(tmp_path / "home", slots=2) as node:
        run = node.answers[Ends]
        first = threading.Event()

        def ends(request):
            if not first.is_set():
                first.set()
                assert cancelled.wait(IN_TIME_S)
                return [GONE]
            return run(request)

        node.answers[Ends] = ends
        node.answers[control.CancelJob] = lambda _: cancelled.set() or [Failed(message="no such job")]
        with Executor(home=node.home) as pool:
            held = pool.submit(square, 1)
            assert first.wait(IN_TIME_S)
            broken = pool.submit(os._exit, 1)
            assert isinstance(broken.exception(IN_TIME_S), BrokenExecutor)
            assert isinstance(held.exception(IN_TIME_S), BrokenExecutor)
    assert "job0" in [request.job for request in node.heard if isinstance(request, control.CancelJob)]


def test_an_initializer_that_fails_breaks_it(node):
    with Executor(home=node.home, initializer=complain, initargs=("way",)) as pool:
        error = pool.submit(square, 1).exception(IN_TIME_S)
    assert isinstance(error, BrokenExecutor)
    assert str(error).startswith("the initializer has failed")
    assert "in complain" in str(error.__cause__.__cause__)


def test_what_was_not_begun_in_time_is_made_in_another_task(node, monkeypatch):
    monkeypatch.setattr("p2pq.client.grouping.HAND_BACK", 0.0)
    with Executor(1, home=node.home) as pool:
        pool.submit(square, 1).result(IN_TIME_S)
        pool.submit(square, 1).result(IN_TIME_S)
        node.gate.clear()
        results = pool.map(square, range(6))
        node.gate.set()
        assert list(results) == [0, 1, 4, 9, 16, 25]
    assert len(node.submitted) >= 6


def test_connections_are_bounded_and_used_again(node, monkeypatch):
    monkeypatch.setattr(Here, "jobs_max", 1)
    node.answers[control.Status] = [status_view(slots=4)]
    with Executor(home=node.home) as pool:
        assert list(pool.map(square, range(8))) == [number * number for number in range(8)]
    assert node.greeted == 2, "one to ask how many slots there are, one for all jobs"


def test_what_cannot_be_opened_here_is_what_its_call_raises(pool):
    assert isinstance(pool.submit(unopenable).exception(IN_TIME_S), ZeroDivisionError)


class Unopenable:
    def __reduce__(self):
        return divmod, (1, 0)


def unopenable():
    return Unopenable()


def test_short_calls_wait_as_long_as_more_come_in(node, monkeypatch):
    with Executor(home=node.home) as pool:
        for _ in range(2):
            list(pool.map(square, range(3)))
        caller, before = pool._caller, len(node.submitted)
        monkeypatch.setattr(module, "GATHER_S", 0.0)
        looks = iter([1, 2, 3, 3])
        pace = caller._groups.pace.__class__
        monkeypatch.setattr(pace, "gather_s", 1e9)
        monkeypatch.setattr(pace, "of", lambda *_: 1e-6)  # however long it took on this machine
        monkeypatch.setattr(pace, "doubted", lambda *_: False)
        plain = caller._more_are_coming

        def look():
            # Another call between two looks, once there is one.
            while caller._groups.pending and len(caller._groups.pending) < next(looks, 0):
                call = module.Call(Future(), square, (len(caller._groups.pending),), {})
                added.append(call.future)
                caller._groups.pending.append(call)
            return plain()

        added = []
        monkeypatch.setattr(caller, "_more_are_coming", look)
        assert pool.submit(square, 9).result(IN_TIME_S) == 81
        assert [each.result(IN_TIME_S) for each in added] == [1, 4]
        assert len(node.submitted) == before + 1, "all three went together"


def test_a_bug_in_the_loop_does_not_leave_anybody_waiting(pool, monkeypatch):
    def fail(*_):
        raise AssertionError("a bug")

    monkeypatch.setattr(module.Groups, "take", fail)
    pool._caller._loop.call_soon_threadsafe(pool._caller._loop.set_exception_handler, lambda *_: None)
    with pytest.raises(BrokenExecutor, match="a bug"):
        pool.submit(square, 1).result(IN_TIME_S)


def test_a_bug_does_not_leave_anybody_waiting(pool, monkeypatch):
    def fail(*_):
        raise AssertionError("a bug")

    monkeypatch.setattr(module.Caller, "_hear", fail)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with pytest.raises(BrokenExecutor, match="a bug"):
        pool.submit(square, 1).result(IN_TIME_S)
    pool._caller._thread.join(IN_TIME_S)
    with pytest.raises(BrokenExecutor):
        pool.submit(square, 1)
