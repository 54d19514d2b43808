"""Runners started ahead: which kinds there are, how many of them, for how long."""

import asyncio
from pathlib import Path

import pytest

from p2pq.daemon import spares
from p2pq.daemon.sandbox import Mount
from p2pq.daemon.spares import Spares
from p2pq.errors import SandboxError

A, B, C = ((Mount(Path(f"/{name}"), "/p2pq-env"),) for name in "abc")


class Runner:
    def __init__(self, kind) -> None:
        self.kind = kind
        self.broken = False
        self.dead = asyncio.get_running_loop().create_future()
        self.killed = asyncio.Event()

    def kill(self) -> None:
        self.broken = True
        self.killed.set()


class Bench:
    def __init__(self) -> None:
        self.started: list[Runner] = []
        self.room = True
        self.failure: SandboxError | None = None
        self.held: list[asyncio.Future[None]] = []
        self.spares = Spares(self.start)  # type: ignore[arg-type]

    def start(self, level, mounts):
        if self.failure is not None:
            raise self.failure
        if not self.room:
            return None
        self.started.append(Runner((level, mounts)))
        return self.started[-1]

    def launched(self, mounts, level="strict") -> None:
        self.spares.refill(level, mounts, self.held.append)

    def kinds(self):
        return [runner.kind for runner in self.started]


@pytest.fixture
async def bench():
    return Bench()


async def test_nothing_is_started_before_spares_are_wanted(bench):
    bench.launched(A)
    bench.spares.refill("strict", (), None)
    assert (bench.started, bench.held, bench.spares.take("strict", ())) == ([], [], None)


async def test_one_that_sees_nothing_besides_is_always_there(bench):
    bench.spares.keep("strict")
    bench.spares.keep("strict")
    assert bench.kinds() == [("strict", ())]
    assert bench.spares.take("none", ()) is None
    assert bench.spares.take("strict", ()) is bench.started[0]
    assert bench.spares.take("strict", ()) is None
    bench.spares.refill("none", (), None)
    assert bench.kinds() == [("strict", ())] * 2


async def test_a_task_with_an_environment_leaves_one_that_sees_it_and_holds_it(bench):
    bench.spares.keep("strict")
    bench.launched(A)
    bench.launched(A)
    assert bench.kinds() == [("strict", ()), ("strict", A)]
    assert bench.held == [bench.started[1].dead], "once for each runner"
    assert bench.spares.take("strict", B) is None
    assert bench.spares.take("strict", A) is bench.started[1]
    assert bench.spares.take("strict", A) is None


async def test_what_a_task_saw_that_nobody_holds_is_for_it_alone(bench):
    bench.spares.keep("strict")
    bench.spares.refill("strict", A, None)
    bench.launched(B, level="none")
    assert bench.kinds() == [("strict", ())]


async def test_there_are_few_and_the_least_recently_wanted_goes(bench):
    assert spares.WITH_MOUNTS_MAX == 2
    bench.spares.keep("strict")
    for each in (A, B, A, C):
        bench.launched(each)
    plain, of_a, of_b, of_c = bench.started
    assert [runner.broken for runner in (plain, of_a, of_b, of_c)] == [False, False, True, False]
    assert bench.spares.take("strict", B) is None
    assert [bench.spares.take("strict", each) for each in (A, C)] == [of_a, of_c]


async def test_one_that_nobody_wanted_for_a_while_ends(bench, monkeypatch):
    monkeypatch.setattr(spares, "WITH_MOUNTS_S", 0.0)
    bench.spares.keep("strict")
    bench.launched(A)
    await bench.started[1].killed.wait()
    assert bench.spares.take("strict", A) is None
    assert not bench.started[0].broken


async def test_one_that_was_taken_is_not_ended(bench, monkeypatch):
    monkeypatch.setattr(spares, "WITH_MOUNTS_S", 0.0)
    bench.spares.keep("strict")
    bench.launched(A)
    taken = bench.spares.take("strict", A)
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, later.set)
    await later.wait()
    assert taken is not None
    assert not taken.broken


async def test_one_that_died_is_forgotten_and_replaced(bench):
    bench.spares.keep("strict")
    bench.launched(A)
    bench.spares.forget(bench.started[1])  # type: ignore[arg-type]
    bench.spares.forget(Runner(("strict", ())))  # type: ignore[arg-type]
    bench.launched(A)
    assert bench.kinds() == [("strict", ()), ("strict", A), ("strict", A)]
    bench.started[2].broken = True
    assert bench.spares.take("strict", A) is None


async def test_where_none_can_be_started_there_is_none(bench):
    bench.failure = SandboxError("no bubblewrap")
    bench.spares.keep("strict")
    bench.failure, bench.room = None, False
    bench.launched(A)
    assert (bench.started, bench.held) == ([], [])
    bench.room = True
    bench.launched(A)
    assert bench.kinds() == [("strict", A), ("strict", ())]
