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

IN_TIME_S = 120.0


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


@pytest.fixture
def abroad(pair, tmp_path, monkeypatch):
    """Make the first of two linked nodes the usual one of this process, in a folder with a module."""
    (tmp_path / "beside.py").write_text("def double(number):\n    return 2 * number\n")
    for name, value in pair[0].environment().items():
        if name.startswith("P2PQ_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def test_calls_on_another_machine_return_data(abroad):
    done = run(
        """
        import dataclasses, os
        import numpy as np
        import pandas as pd
        import beside, p2pq

        @dataclasses.dataclass(frozen=True)
        class Point:
            x: int

        p2pq.register(Point)
        value = {"a": (1, None, 2.5, 1j), b"b": [{1}, "x"], "p": Point(3)}
        frame = pd.DataFrame({"x": [1, 2], "y": ["a", None]})
        array = np.arange(300_000)

        def say():
            print("said")
            return os.environ["P2PQ_NODE"]

        with p2pq.Executor(where="bob", files=["beside.py"]) as pool:
            said = pool.submit(say)
            same = [pool.submit(lambda each: each, each) for each in (value, frame, array)]
            doubled = pool.map(beside.double, range(50), chunksize=20)
            assert said.result() == "bob"
            assert same[0].result() == value
            pd.testing.assert_frame_equal(same[1].result(), frame)
            assert (same[2].result() == array).all()
            assert [*doubled] == [*range(0, 100, 2)]
        with p2pq.Executor() as pool:
            assert pool.submit(beside.double, 1).result() == 2
        """
    )
    assert done.stdout == "said\n"


def test_what_goes_wrong_on_another_machine_is_told(abroad):
    run(
        """
        import sys
        import beside, p2pq
        from p2pq.errors import RemoteError, UntrustedResultError

        class Other:
            pass

        class OwnError(Exception):
            pass

        def fail(kind):
            raise kind("nothing")

        def missing():
            import no_such_module.below

        with p2pq.Executor(where="bob") as pool:
            calls = [
                (pool.submit(Other), UntrustedResultError, "a call on bob returned a value of type __main__.Other, which"),
                (pool.submit(fail, KeyError), KeyError, "'nothing'"),
                (pool.submit(fail, OwnError), RemoteError, "a call on bob raised __main__.OwnError: nothing"),
                (pool.submit(missing), ModuleNotFoundError, "bob has no module 'no_such_module': install it there"),
                (pool.submit(beside.double, 1), ModuleNotFoundError, "bob has no module 'beside': install it there"),
                (pool.submit(sys.exit, 3), RemoteError, "a call on bob raised SystemExit: 3"),
            ]
            for call, kind, text in calls:
                error = call.exception()
                assert type(error) is kind and str(error).startswith(text), repr(error)
            assert "in fail" in str(calls[1][0].exception().__cause__)
        with p2pq.Executor(where="any", trust_results=True) as pool:
            other, failed = pool.submit(Other), pool.submit(fail, OwnError)
            assert type(other.result()) is Other
            assert type(failed.exception()) is OwnError
        """
    )
