"""The executor against a node that makes its calls, as programs use it that know ``concurrent.futures``."""

import os
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path

import pytest

import p2pq
from p2pq import Executor
from p2pq.errors import NodeUnreachableError, UsageError
from p2pq.model.job import Resources
from tests.unit.client.callskit import CallsNode, add, argument, complain, square

IN_TIME_S = 60.0
ROOT = Path(__file__).parents[3]


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    with CallsNode(tmp_path / "home") as found:
        yield found


@pytest.fixture
def pool(node):
    with Executor(home=node.home, start=False) as found:
        yield found


def test_calls_are_made_in_this_folder_with_this_environment(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIVEN", "yes")
    with Executor(home=node.home, cpus=2, memory="1G", priority=3, time_s=9, name="mine") as pool:
        assert isinstance(pool, futures.Executor)
        assert pool.submit(Path.cwd).result(IN_TIME_S) == tmp_path
        assert pool.submit(os.getenv, "GIVEN").result(IN_TIME_S) == "yes"
    asked = node.submitted[0]
    assert (asked.name, asked.priority, asked.time_s, asked.retries, asked.shell) == ("mine", 3, 9, 0, False)
    assert asked.resources == Resources(cpus=2, memory_mb=1024)
    assert asked.words[0] == sys.executable


def test_results_come_in_order_and_arguments_as_they_were_given(pool):
    assert pool.submit(add, 1, second=2).result(IN_TIME_S) == 3
    assert list(pool.map(square, range(50))) == [number * number for number in range(50)]
    assert list(pool.map(pow, [2, 3], [5, 2, 9])) == [32, 9]
    assert list(pool.map(square, range(7), chunksize=3)) == [0, 1, 4, 9, 16, 25, 36]
    assert list(pool.map(square, [])) == []
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(square, [], chunksize=0)
    large = os.urandom(3 << 20)
    assert pool.submit(argument, large).result(IN_TIME_S) == large


def test_functions_without_a_name_elsewhere_travel_by_value(pool):
    factor = 3
    assert pool.submit(lambda number: factor * number, 5).result(IN_TIME_S) == 15
    with pytest.raises(TypeError, match="pickle"):
        pool.submit(argument, (x for x in ())).result(IN_TIME_S)


def test_an_exception_comes_with_the_traceback_of_where_it_was_raised(pool):
    error = pool.submit(complain, "bread").exception(IN_TIME_S)
    assert repr(error) == "ValueError('no bread')"
    assert "in complain\n    raise ValueError" in str(error.__cause__)
    with pytest.raises(ValueError, match="no 1"):
        list(pool.map(complain, [1, 2]))


def test_calls_that_came_together_share_tasks(node, pool):
    list(pool.map(square, range(2)))
    before = len(node.submitted)
    list(pool.map(square, range(500)))
    assert len(node.submitted) - before < 50


def test_what_waits_can_be_cancelled_and_what_is_under_way_cannot(node):
    node.gate.clear()
    with Executor(1, home=node.home) as pool:
        first = pool.submit(square, 1)
        until(first.running)
        second = pool.submit(square, 2)
        assert (first.cancel(), second.cancel()) == (False, True)
        with pytest.raises(futures.TimeoutError):
            first.result(timeout=0.0)
        third = pool.submit(square, 3)
        with pytest.raises(futures.TimeoutError):
            list(pool.map(square, [4], timeout=0.0))
        node.gate.set()
        assert (first.result(IN_TIME_S), third.result(IN_TIME_S)) == (1, 9)
        done, _ = p2pq.wait([first, second, third], timeout=IN_TIME_S)
        assert done == {first, second, third}
        assert set(p2pq.as_completed([first, third])) == {first, third}


@pytest.mark.parametrize("cancel", [False, True])
def test_after_its_end_it_takes_no_more(node, cancel):
    node.gate.clear()
    pool = Executor(1, home=node.home)
    first = pool.submit(square, 1)
    until(first.running)
    second = pool.submit(square, 2)
    pool.shutdown(wait=False, cancel_futures=cancel)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(square, 3)
    node.gate.set()
    pool.shutdown()
    assert first.result(0) == 1
    assert second.cancelled() is cancel
    assert cancel or second.result(0) == 4
    pool.shutdown()


def test_an_interruption_waits_for_nothing(node):
    node.gate.clear()
    with pytest.raises(KeyboardInterrupt), Executor(1, home=node.home) as pool:  # noqa: PT012  as people write it
        held = [pool.submit(square, number) for number in range(2)]
        until(lambda: node.submitted)
        threading.Timer(0.0, node.gate.set).start()
        raise KeyboardInterrupt
    assert all("interrupted" in str(each.exception(0)) for each in held)


def test_a_pool_that_nobody_holds_any_more_finishes_what_it_has(node):
    future = Executor(home=node.home).submit(square, 3)
    assert future.result(IN_TIME_S) == 9
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "p2pq calls"])


def test_a_program_that_ends_waits_for_its_calls(node):
    code = f"pool = Executor(home={str(node.home)!r}); pool.submit(print, 'made').add_done_callback(lambda _: print('told'))"
    done = module_run(f"from p2pq import Executor; {code}")
    assert sorted(done.stdout.split()) == ["made", "told"], done.stderr


def test_at_most_so_many_at_a_time(node):
    node.gate.clear()
    with Executor(1, home=node.home) as pool:
        calls = [pool.submit(square, number) for number in range(3)]
        until(lambda: node.submitted)
        assert [call.running() for call in calls] == [True, False, False]
        node.gate.set()
    assert pool._max_workers == 1
    with pytest.raises(ValueError, match="greater than 0"):
        Executor(0, home=node.home)


def test_each_process_begins_with_the_initializer(node):
    with Executor(home=node.home, initializer=os.putenv, initargs=("A", "1")) as pool:
        assert pool.submit(os.system, 'test "$A" = 1').result(IN_TIME_S) == 0
    with pytest.raises(TypeError, match="callable"):
        Executor(home=node.home, initializer=3)


def test_what_cannot_be_is_said_at_once(node, monkeypatch, tmp_path):
    for options in ({"needs": {"has": "numpy"}}, {"files": ["x"]}, {"trust_results": True}):
        with pytest.raises(UsageError, match='say where="any", too'):
            Executor(home=node.home, **options)
    with pytest.raises(NodeUnreachableError):
        Executor(home=tmp_path / "nobody", start=False)
    monkeypatch.setenv("P2PQ_TASK", "0")
    with pytest.raises(UsageError, match="a task of p2pq already"):
        Executor(home=node.home)


def test_it_stays_with_its_process(pool):
    pid = os.fork()
    if not pid:
        try:
            pool.submit(square, 1)
        except RuntimeError as error:
            pool.shutdown()
            os._exit(7 if "make another one" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def until(condition):
    """Wait for what another thread does, and nobody is told of."""
    deadline = time.monotonic() + IN_TIME_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def module_run(code):
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=IN_TIME_S, cwd=ROOT
    )
