"""The attempt as a state machine: a recorded runner, a clock that the test sets."""

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pq.daemon import attempt as attempt_module
from p2pq.daemon import limits
from p2pq.daemon.attempt import ANSWER_S, Attempt, Stop
from p2pq.daemon.limits import Breach, Limits
from p2pq.daemon.runner_messages import Clean, Dirty, Exited, Failed, Gone, Ready, Started, Wake
from p2pq.daemon.runner_process import Scratch

LIMITS = Limits(cpus=1, memory_bytes=None, wall_s=10.0, disk_bytes=1 << 30, processes=9, output_bytes=1 << 30)
NUMBER = 7


class Recorded:
    """Stands for a runner: keeps what it was sent."""

    def __init__(self, tmp_path: Path) -> None:
        self.scratch = Scratch(tmp_path)
        self.level = "strict"
        self.pid = 2**22  # no such process: nothing to count
        self.in_memory: list[int] = []
        self.group = None
        self.grouped = False
        self.occupied = True
        self.killed = False
        self.sent: list[dict[str, object]] = []

    def send(self, message: dict[str, object]) -> None:
        self.sent.append(message)

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def runner(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


@pytest.fixture
def attempt(runner: Recorded) -> Attempt:
    return Attempt(runner, NUMBER, LIMITS, 5.0, 100.0)


@pytest.mark.parametrize(("level", "reason"), [("strict", None), ("basic", "memory-limit"), ("none", None)])
def test_threads_count_where_only_the_watch_bounds_them(
    runner: Recorded, monkeypatch: pytest.MonkeyPatch, level: str, reason: str | None
) -> None:
    monkeypatch.setattr(limits, "children", lambda pid: [runner.pid + 1] if pid == runner.pid else [])
    monkeypatch.setattr(limits, "threads", lambda _: LIMITS.processes + 1)
    runner.level = level
    breach = Attempt(runner, NUMBER, LIMITS, 5.0, 100.0).watch.look()
    assert (breach and breach.reason) == reason


def exited(**changes: object) -> Exited:
    fields = {"id": NUMBER, "exit": 0, "signal": None, "seconds": 1.5, "max_rss": 9, "utime": 1.0, "stime": 0.5}
    return Exited(**(fields | changes))


def orders(runner: Recorded) -> list[object]:
    return [(message["op"], message.get("signal")) for message in runner.sent]


def test_a_task_from_start_to_clean(attempt: Attempt, runner: Recorded) -> None:
    told = []
    attempt.on_started = lambda out, err: told.append((out, err))
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.hear(exited(), 102.0)
    assert not attempt.done
    assert attempt.deadline == 102.0 + ANSWER_S
    attempt.hear(Clean(id=NUMBER), 102.1)
    assert attempt.done
    assert (runner.occupied, runner.killed) == (False, False)
    assert told == [(attempt.stdout, attempt.stderr)]
    outcome = attempt.outcome(102.1)
    assert (outcome.reason, outcome.exit, outcome.seconds, outcome.cpu_s) == ("ok", 0, 1.5, 1.5)
    assert runner.sent == []


def test_a_runner_cannot_stretch_time(attempt: Attempt) -> None:
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.hear(exited(seconds=1e9), 102.0)
    assert attempt.outcome(102.0).seconds == 2.0


def test_a_dirty_runner_is_replaced_but_the_task_counts(attempt: Attempt, runner: Recorded) -> None:
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.hear(exited(exit=3), 102.0)
    attempt.hear(Dirty(id=NUMBER, why="a file stayed"), 102.1)
    assert attempt.done
    assert runner.killed
    assert attempt.outcome(103.0).detail == "it exited with status 3"


@pytest.mark.parametrize(("errno", "status"), [(2, 127), (13, 126), (8, 126), (0, 126)])
def test_what_cannot_be_executed(attempt: Attempt, errno: int, status: int) -> None:
    attempt.hear(Failed(id=NUMBER, errno=errno), 100.1)
    attempt.hear(Clean(id=NUMBER), 100.2)
    outcome = attempt.outcome(100.2)
    assert (outcome.reason, outcome.exit) == ("exit", status)


@pytest.mark.parametrize(
    ("number", "reason", "detail"),
    [
        (signal.SIGSEGV, "signal", "it was killed by SIGSEGV"),
        (signal.SIGXFSZ, "disk-limit", "one of its files grew beyond its limit"),
        (33, "signal", "it was killed by signal 33"),
    ],
)
def test_signals(attempt: Attempt, number: int, reason: str, detail: str) -> None:
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.hear(exited(exit=None, signal=number), 101.0)
    assert (attempt.outcome(101.0).reason, attempt.outcome(101.0).detail) == (reason, detail)


def test_the_ladder_of_the_wall_clock(attempt: Attempt, runner: Recorded) -> None:
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.tick(109.9)
    assert runner.sent == []
    attempt.tick(110.0)
    assert orders(runner) == [("signal", signal.SIGTERM), ("signal", signal.SIGCONT)]
    assert attempt.deadline == 115.0
    attempt.stop(Stop("cancelled", "too late", 0.0), 111.0)  # the first reason counts
    attempt.tick(115.0)
    assert orders(runner)[2:] == [("kill", None)]
    attempt.tick(115.0 + ANSWER_S)
    assert attempt.done
    assert runner.killed
    outcome = attempt.outcome(130.0)
    assert (outcome.reason, outcome.exit, outcome.signal) == ("time-limit", None, None)


def test_a_breach_kills_at_once(attempt: Attempt, runner: Recorded) -> None:
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    assert not attempt.walk_due(100.5)
    assert attempt.walk_due(101.0)
    attempt.walked(None, 101.1)
    assert not attempt.walk_due(101.2)
    attempt.walked(Breach("disk-limit", "too much"), 103.0)
    attempt.tick(103.0)
    assert orders(runner) == [("kill", None)]
    attempt.hear(exited(exit=None, signal=9), 103.1)
    assert attempt.outcome(103.1).reason == "disk-limit"


def test_silence_loses_the_runner(runner: Recorded) -> None:
    attempt = Attempt(runner, NUMBER, dataclasses.replace(LIMITS, wall_s=1e6), 5.0, 100.0)
    attempt.hear(Wake(), 100.0)
    attempt.tick(100.0 + ANSWER_S - 0.1)
    assert not attempt.done
    attempt.tick(100.0 + ANSWER_S)
    assert attempt.done
    assert attempt.outcome(120.0).reason == "sandbox"


def test_a_start_that_is_reported_after_the_kill_must_still_end(attempt: Attempt, runner: Recorded) -> None:
    attempt.stop(Stop("cancelled", "it was cancelled", 0.0), 100.0)
    attempt.tick(100.0)
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.tick(100.0 + ANSWER_S)
    assert attempt.done
    assert runner.killed
    assert attempt.outcome(120.0).reason == "cancelled"


@pytest.mark.parametrize(
    "said",
    [
        [Ready()],
        [Gone("it ended")],
        [exited()],
        [Clean(id=NUMBER)],
        [Started(id=NUMBER + 1, pid=2)],
        [Started(id=NUMBER, pid=2)] * 2,
        [Started(id=NUMBER, pid=2), Failed(id=NUMBER, errno=2)],
        [Started(id=NUMBER, pid=2), exited(signal=9)],
        [Started(id=NUMBER, pid=2), exited(exit=None)],
        [Started(id=NUMBER, pid=2), exited(), exited()],
    ],
)
def test_whatever_does_not_fit_loses_the_runner(attempt: Attempt, runner: Recorded, said: list[Started]) -> None:
    for heard in said:
        assert not attempt.done
        attempt.hear(heard, 101.0)
    assert attempt.done
    assert runner.killed
    assert attempt.outcome(101.0).reason == "sandbox"


def test_stopped_before_the_launch(attempt: Attempt, runner: Recorded) -> None:
    attempt.never_started(Stop("cancelled", "it was cancelled", 5.0))
    assert attempt.done
    assert attempt.outcome(100.0).reason == "cancelled"
    assert runner.sent == []


def test_the_kernel_s_word_on_memory_counts(tmp_path: Path) -> None:
    kills = [0]
    runner = Recorded(tmp_path)
    runner.group = SimpleNamespace(oom_kills=lambda: kills[0])
    attempt = Attempt(runner, NUMBER, LIMITS, 5.0, 100.0)
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.hear(exited(exit=1), 101.0)
    assert attempt.outcome(101.0).reason == "exit"
    kills[0] = 1
    assert attempt.outcome(101.0).reason == "memory-limit"


# -- standing still, and sleeping ----------------------------------------------------------------------------------------


class Held:
    """Stands for the processes of the task: counts what was asked of them."""

    def __init__(self, pid: int) -> None:
        assert pid == 2**22
        self.holds = 0
        self.releases = 0
        self.resists = False
        Held.last = self

    def hold(self) -> None:
        self.holds += 1

    def release(self) -> None:
        self.releases += 1


@pytest.fixture
def held(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, int]]:
    """A started attempt that stands still from 103 on; return how often it was held and released."""
    monkeypatch.setattr(attempt_module, "Standstill", Held)
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.suspend(103.0)
    attempt.suspend(104.0)
    return lambda: (Held.last.holds, Held.last.releases)


def test_what_stands_still_does_not_run(
    attempt: Attempt, runner: Recorded, held: Callable[[], tuple[int, int]]
) -> None:
    attempt.tick(150.0)  # its limit is 10 s
    assert runner.sent == []
    attempt.go_on(153.0)
    attempt.go_on(154.0)
    assert held() == (2, 1)
    attempt.tick(159.9)
    assert runner.sent == []
    attempt.tick(160.0)
    assert orders(runner) == [("signal", signal.SIGTERM), ("signal", signal.SIGCONT)]
    attempt.hear(exited(seconds=59.0), 160.0)
    assert attempt.outcome(160.0).seconds == 9.0


def test_who_is_being_started_is_held_as_soon_as_it_is_there(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_module, "Standstill", Held)
    attempt.suspend(100.0)
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    assert (Held.last.holds, Held.last.releases) == (2, 0)


def test_who_does_not_stand_still_is_ended_at_once(
    attempt: Attempt, runner: Recorded, held: Callable[[], tuple[int, int]]
) -> None:
    Held.last.resists = True
    attempt.tick(attempt.deadline)
    attempt.tick(attempt.deadline)
    assert held()[1] == 1
    assert ("kill", None) in orders(runner)
    attempt.hear(exited(signal=9, exit=None), 104.0)
    assert attempt.outcome(104.0).reason == "evicted"


def test_it_is_held_again_at_every_look(attempt: Attempt, held: Callable[[], tuple[int, int]]) -> None:
    attempt.tick(103.1)
    looked = held()[0]
    attempt.tick(attempt.deadline)
    assert held() == (looked + 1, 0)


def test_who_is_to_end_is_let_go_first(attempt: Attempt, runner: Recorded, held: Callable[[], tuple[int, int]]) -> None:
    attempt.stop(Stop("cancelled", "it was cancelled", 5.0), 104.0)
    assert held() == (1, 1)
    assert orders(runner) == [("signal", signal.SIGTERM), ("signal", signal.SIGCONT)]
    attempt.suspend(105.0)
    attempt.tick(109.0)
    assert (held(), orders(runner)[-1]) == ((1, 1), ("kill", None))


def test_it_may_end_while_it_stands_still(attempt: Attempt, held: Callable[[], tuple[int, int]]) -> None:
    attempt.hear(exited(exit=None, signal=9, seconds=3.5), 110.0)
    attempt.hear(Clean(id=NUMBER), 110.1)
    assert attempt.done
    assert attempt.outcome(110.1).seconds == 3.5
    attempt.go_on(111.0)
    attempt.suspend(112.0)
    assert held() == (1, 1)


def test_a_task_ran_no_longer_than_its_node(attempt: Attempt, runner: Recorded) -> None:
    attempt.hear(Started(id=NUMBER, pid=2), 100.1)
    attempt.woke(101.0, 160.0)
    attempt.tick(160.0)
    assert runner.sent == []
    attempt.tick(168.9)
    assert runner.sent == []
    attempt.tick(169.0)
    assert orders(runner)[0] == ("signal", signal.SIGTERM)


def test_nobody_is_lost_because_the_node_slept(attempt: Attempt, runner: Recorded) -> None:
    attempt.woke(100.05, 200.0)
    attempt.tick(200.0)  # it should have said long ago that the task started
    assert not attempt.done
    attempt.hear(Started(id=NUMBER, pid=2), 200.1)
    attempt.stop(Stop("cancelled", "it was cancelled", 5.0), 201.0)
    attempt.woke(202.0, 302.0)
    attempt.tick(302.0)
    assert ("kill", None) not in orders(runner)  # its grace is not over
    attempt.tick(306.0)
    assert orders(runner)[-1] == ("kill", None)
    attempt.woke(306.5, 400.0)
    attempt.tick(400.0)
    assert not attempt.done
    attempt.tick(400.0 + ANSWER_S)
    assert attempt.outcome(500.0).detail == "it was cancelled"


def test_a_sleep_that_it_stood_still_in_counts_once(
    attempt: Attempt, runner: Recorded, held: Callable[[], object]
) -> None:
    attempt.woke(104.0, 163.0)
    attempt.go_on(163.0)
    attempt.tick(169.9)
    assert runner.sent == []
    attempt.tick(170.0)
    assert orders(runner)[0] == ("signal", signal.SIGTERM)
