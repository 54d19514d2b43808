"""Starts of tasks with a time between them."""

import asyncio

import pytest

from p2pq.daemon import pacing
from p2pq.daemon.pacing import Pacing


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_turns_of_a_job_lie_apart_and_jobs_know_nothing_of_one_another(clock):
    paced = Pacing(clock)
    assert [paced.turn("a", 3.0) for _ in range(3)] == [0.0, 3.0, 6.0]
    assert paced.turn("b", 3.0) == 0.0


@pytest.mark.parametrize(("later", "waits"), [(1.0, 2.0), (3.0, 0.0), (50.0, 0.0)])
def test_time_that_has_passed_counts(clock, later, waits):
    paced = Pacing(clock)
    paced.turn("a", 3.0)
    clock.now += later
    assert paced.turn("a", 3.0) == waits
    assert paced.turn("a", 3.0) == waits + 3.0, "time in which nothing started is not made up for"


def test_jobs_whose_time_is_over_are_forgotten(clock, monkeypatch):
    monkeypatch.setattr(pacing, "JOBS_MAX", 2)
    paced = Pacing(clock)
    paced.turn("long", 60.0)
    paced.turn("short", 1.0)
    clock.now += 2.0
    paced.turn("new", 1.0)
    assert set(paced._free) == {"long", "new"}
    assert paced.turn("long", 60.0) == 58.0


async def test_waiting_lasts_until_the_turn(clock, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    paced = Pacing(clock)
    for _ in range(3):
        await paced.wait("a", 2.0)
    assert slept == [0.0, 2.0, 4.0]
