"""Real processes below this one stand still and go on."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2pq.daemon import limits
from p2pq.daemon.runner_process import kill_below
from p2pq.daemon.standstill import RESISTS_MAX, Standstill, _ticks

TREE = "sleep 100 & (sleep 100 & sleep 100; :) & setsid sleep 100 & echo up; wait"
PROCESSES = 6
FORKS = "echo up; while :; do /bin/true; done"


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return "X"  # it has just ended


def until(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.005)


@pytest.fixture
def spawned() -> Iterator[Callable[[str], int]]:
    """Start a shell below one that stands for the runner; return the latter's process id."""
    processes: list[subprocess.Popen[str]] = []

    def spawn(script: str) -> int:
        process = subprocess.Popen(
            ["/bin/sh", "-c", '/bin/sh -c "$0" & wait', script], stdout=subprocess.PIPE, text=True, process_group=0
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process.pid

    yield spawn
    for process in processes:
        kill_below(process.pid)
        process.kill()
        process.wait()
        process.stdout.close()


def below(pid: int) -> list[int]:
    return limits.tree(pid, 1000)[1:]


def stand(runner: int) -> bool:
    """Whether none goes on: stopped, not reaped as its parent stands (Z), or waiting in vfork for a child that stands (D)."""
    return all(state(pid) in "TZD" for pid in below(runner))


def test_all_below_stand_still_and_go_on_and_the_runner_does_not(spawned: Callable[[str], int]) -> None:
    runner = spawned(TREE)
    until(lambda: len(below(runner)) == PROCESSES)
    still = Standstill(runner)
    still.hold()
    until(lambda: stand(runner))
    assert state(runner) in "SR"  # R for a moment, when it is told that a child stands
    assert len(below(runner)) == PROCESSES
    still.release()
    until(lambda: {state(pid) for pid in below(runner)} == {"S"})


@pytest.mark.parametrize("_again", range(5))
def test_nobody_escapes_who_starts_processes_all_the_time(spawned: Callable[[str], int], _again: int) -> None:
    runner = spawned(FORKS)
    still = Standstill(runner)
    still.hold()
    until(lambda: stand(runner))
    before = below(runner)
    time.sleep(0.05)
    assert below(runner) == before
    still.release()
    until(lambda: below(runner) != before)


def test_who_stood_still_before_stays_so(spawned: Callable[[str], int]) -> None:
    runner = spawned("sleep 100 & kill -STOP $!; echo up; wait")
    shell, sleeper = below(runner)
    until(lambda: state(sleeper) == "T")
    still = Standstill(runner)
    still.hold()
    still.hold()
    until(lambda: state(shell) == "T")
    still.release()
    until(lambda: state(shell) == "S")
    assert state(sleeper) == "T"


def test_who_was_woken_from_outside_is_stopped_again(spawned: Callable[[str], int]) -> None:
    runner = spawned("echo up; sleep 100")
    until(
        lambda: len(below(runner)) == 2
    )  # whoever is started between waking and holding is found by the next hold only
    still = Standstill(runner)
    still.hold()
    until(lambda: stand(runner))
    for pid in below(runner):
        os.kill(pid, signal.SIGCONT)
    still.hold()
    until(lambda: stand(runner))


def test_nobody_below_is_nothing_to_do() -> None:
    still = Standstill(2**22)  # no such process
    still.hold()
    still.release()


def test_who_lets_himself_be_woken_is_noticed(spawned: Callable[[str], int]) -> None:
    runner = spawned("echo up; while :; do :; done")
    [busy] = below(runner)
    still = Standstill(runner)
    still.hold()
    until(lambda: stand(runner))
    for _ in range(2 * RESISTS_MAX):
        still.hold()
    assert not still.resists
    for _ in range(RESISTS_MAX):
        assert not still.resists
        before = _ticks(busy)
        os.kill(busy, signal.SIGCONT)  # as a timer of its own does
        until(lambda: _ticks(busy) > before)  # noqa: B023  asked at once
        still.hold()
    assert still.resists
    assert _ticks(2**22) is None


def test_who_stood_before_and_goes_on_is_stopped(spawned: Callable[[str], int]) -> None:
    runner = spawned("sleep 100 & kill -STOP $!; echo up; wait")
    _, sleeper = below(runner)
    until(lambda: state(sleeper) == "T")
    still = Standstill(runner)
    still.hold()
    os.kill(sleeper, signal.SIGCONT)
    until(lambda: state(sleeper) == "S")
    still.hold()
    until(lambda: state(sleeper) == "T")
    still.release()
    until(lambda: state(sleeper) == "S")
