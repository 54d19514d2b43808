"""Whose load it is: by numbers of our own, and by processes that do nothing but take time."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2pq.daemon.sensors.kin import TICKS_A_SECOND, Kin
from p2pq.daemon.sensors.load import ABSENT, MEASURING, PERIOD_S, Load
from tests.unit.daemon.sensors.prockit import FakeProc


class Measured:
    """The sensor on a machine of two cores, and its clock."""

    def __init__(self, tmp_path: Path, cores: tuple[int, ...] = (0, 1)) -> None:
        self.fake = FakeProc(tmp_path)
        self.fake.process(os.getpid(), own=10)
        self.now = 100.0
        kin = Kin(lambda: (), str(tmp_path), lambda: int(self.now * TICKS_A_SECOND))
        self.load = Load(kin, str(tmp_path), lambda: self.now, lambda: cores)


def test_the_load_is_that_of_others_as_a_part_of_all_cores(tmp_path: Path) -> None:
    measured = Measured(tmp_path)
    measured.fake.busy(1000, 1000)
    assert (measured.load.read(), measured.load.absent) == (None, MEASURING)
    measured.now += 10
    measured.fake.busy(1000 + 8 * TICKS_A_SECOND, 1000 + 4 * TICKS_A_SECOND)
    measured.fake.process(os.getpid(), own=10 + 3 * TICKS_A_SECOND, reaped=4 * TICKS_A_SECOND)
    assert measured.load.read() == 0.25


def test_it_is_measured_over_two_seconds_at_least(tmp_path: Path) -> None:
    measured = Measured(tmp_path)
    measured.fake.busy(0, 0)
    measured.load.read()
    measured.now += PERIOD_S
    measured.fake.busy(TICKS_A_SECOND, TICKS_A_SECOND)
    assert measured.load.read() == 0.5
    measured.fake.busy(9999, 9999)
    measured.now += PERIOD_S - 0.1
    assert measured.load.read() == 0.5


def test_noise_makes_it_neither_negative_nor_more_than_all(tmp_path: Path) -> None:
    measured = Measured(tmp_path)
    measured.fake.busy(0, 0)
    measured.load.read()
    measured.now += PERIOD_S
    measured.fake.process(os.getpid(), own=400)
    assert measured.load.read() == 0.0
    measured.now += PERIOD_S
    measured.fake.busy(99_999, 99_999)
    assert measured.load.read() == 1.0


def test_only_cores_count_that_this_process_may_use(tmp_path: Path) -> None:
    measured = Measured(tmp_path, cores=(1, 7))
    measured.fake.busy(0, 0)
    measured.load.read()
    measured.now += 2
    measured.fake.busy(2 * TICKS_A_SECOND, TICKS_A_SECOND)
    assert measured.load.read() == 0.5


def test_without_figures_it_says_so(tmp_path: Path) -> None:
    measured = Measured(tmp_path)
    assert (measured.load.read(), measured.load.absent) == (None, ABSENT)
    measured.fake.busy(0, 0)
    assert (measured.load.read(), measured.load.absent) == (None, MEASURING)


BURN = """
import sys, time
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
sys.stdin.readline()
"""
HERE = BURN + "burn(0.6); print(flush=True); sys.stdin.readline()"
IN_CHILDREN = (
    BURN
    + """
import os
for _ in range(6):
    if os.fork() == 0:
        burn(0.1)
        os._exit(0)
    os.wait()
print(flush=True); sys.stdin.readline()"""
)
SOMEBODY_ELSES = (
    """
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
"""
    + HERE
)


def seconds_of_others(code: str) -> tuple[float, float]:
    """Burn 0.6 s; return how much others used meanwhile as the sensor sees it, and as one sees it that takes nobody for us."""
    now = 0.0
    looks = [Load(kin, clock=lambda: now) for kin in (Kin(lambda: ()), Kin(lambda: (), "/nonexistent"))]
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"begin\n" * 2)
        for load in looks:
            load.read()
        began = time.monotonic()
        process.stdin.flush()
        process.stdout.readline()
        whole = time.monotonic() - began
        now = whole = max(PERIOD_S, whole)
        loads = [load.read() for load in looks]
        process.stdin.close()
    cores = len(os.sched_getaffinity(0))
    return tuple(load * whole * cores for load in loads if load is not None)  # type: ignore[return-value]


@pytest.mark.parametrize("code", [HERE, IN_CHILDREN], ids=["itself", "children that end"])
def test_what_our_processes_do_is_not_load(code: str) -> None:
    of_others, of_all = seconds_of_others(code)
    assert of_all - of_others > 0.4


def test_what_anybody_else_does_is(tmp_path: Path) -> None:
    of_others, of_all = seconds_of_others(SOMEBODY_ELSES)
    assert of_others > 0.4
    assert of_all - of_others < 0.3
