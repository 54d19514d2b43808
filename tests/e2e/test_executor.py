"""Calls of functions on a real node, as programs make them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import BrokenExecutor

import lab
import pytest

from p2pq import Executor

pytestmark = pytest.mark.slow

IN_TIME_S = 60.0


def run(code, *, expect=0):
    """Run a program of its own, whose functions are of ``__main__``."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        timeout=IN_TIME_S,
        env={**os.environ, "PYTHONPATH": str(lab.ROOT)},
    )
    assert done.returncode == expect, done.stderr
    return done


def test_a_program_makes_calls_of_its_own_functions(usual, tmp_path):
    (tmp_path / "beside.py").write_text("def double(number):\n    return 2 * number\n")
    done = run(
        """
        import os
        import beside
        from p2pq import Executor, as_completed

        class Point:
            def __init__(self, x):
                self.x = x

        def move(point, by=1):
            print("moved", by)
            return Point(point.x + by)

        def fail():
            raise KeyError("nothing")

        with Executor(initializer=os.putenv, initargs=("A", "b")) as pool:
            assert [*pool.map(beside.double, range(3000))] == [*range(0, 6000, 2)]
            assert isinstance(pool.submit(move, Point(1), by=3).result(), Point)
            large = os.urandom(5 << 20)
            assert pool.submit(lambda data: data[::-1], large).result() == large[::-1]
            assert pool.submit(os.getcwd).result() == os.getcwd()
            try:
                pool.submit(fail).result()
            except KeyError as error:
                assert "in fail" in str(error.__cause__), error.__cause__
            assert {future.result() for future in as_completed([pool.submit(abs, -1), pool.submit(abs, 2)])} == {1, 2}
        """
    )
    assert done.stdout == "moved 3\n"
    assert "Traceback" not in done.stderr


def test_a_crash_breaks_the_executor_and_not_the_node(usual):
    with Executor() as pool, pytest.raises(BrokenExecutor, match="by signal 11"):
        pool.submit(signal.raise_signal, signal.SIGSEGV).result(IN_TIME_S)
    with Executor() as pool:
        assert pool.submit(abs, -1).result(IN_TIME_S) == 1


def test_an_executor_in_a_task_is_refused(usual):
    with Executor() as pool, pytest.raises(Exception, match="a task of p2pq already"):
        pool.submit(Executor).result(IN_TIME_S)


def test_whoever_interrupts_a_program_waits_for_nothing_and_leaves_nothing(usual):
    with pytest.raises(KeyboardInterrupt), Executor(name="held") as pool:  # noqa: PT012  as people write it
        held = pool.submit(time.sleep, 600)
        lab.until(lambda: any(job["name"] == "held" for job in usual.json("jobs")), "it is under way")
        raise KeyboardInterrupt
    assert isinstance(held.exception(0), BrokenExecutor)
    lab.until(
        lambda: [job["state"] for job in usual.json("jobs") if job["name"] == "held"] == ["cancelled"],
        "it is cancelled",
    )
