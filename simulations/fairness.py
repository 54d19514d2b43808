"""How equally owners share time: seven hard cases, each worker drawing on its own with the real ``Fairness``.

Owners are saturated, so workers influence each other in nothing and are played one after the other: a small loop per
worker, no codec, no network but the round trip of a request. ``python -m simulations fairness`` prints Jain's index
of time, and of the uniform draw beside it, for the worst of the seeds.
"""

import argparse
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Literal

import msgspec

from p2pq.core.asking import AHEAD_MAX
from p2pq.core.fairness import Fairness, Means
from p2pq.core.running import PATIENCE
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import Mono
from simulations import bounds

WORKERS: Final = 20
ROUND_TRIP_S: Final = 0.002
GOAL: Final = 0.98
_MANY_S: Final = 0.05
"""Attempts shorter than this are played in one go, batch by batch."""


class Daemon(msgspec.Struct, frozen=True):
    """A node with work: whose it is, how long tasks are at an instant, and when there are any."""

    owner: str
    mean_s: Callable[[float], float]
    present: Callable[[float], bool] = lambda _now: True


class Case(msgspec.Struct, frozen=True):
    """One mix of daemons, which may be several of one owner."""

    name: str
    daemons: tuple[Daemon, ...]
    setup_s: float = 0.0


def _steady(mean_s: float) -> Callable[[float], float]:
    return lambda _now: mean_s


def _owners(*means_s: float) -> tuple[Daemon, ...]:
    return tuple(Daemon(f"o{index}", _steady(mean_s)) for index, mean_s in enumerate(means_s))


def cases(seconds: float) -> tuple[Case, ...]:
    """Return the seven cases; what switches does so half-way."""
    switcher = Daemon("switcher", lambda now: 0.1 if now < seconds / 2 else 300.0)
    three = Daemon("three", _steady(10.0))
    visitor = Daemon("visitor", _steady(10.0), present=lambda now: int(now // 250) % 2 == 0)
    return (
        Case("10/10/10/100 s", _owners(10, 10, 10, 100)),
        Case("1/10/100 s", _owners(1, 10, 100)),
        Case("0.02/10 s", _owners(0.02, 10)),
        Case("50 ms of set-up, 0.1/1/10 s", _owners(0.1, 1, 10), setup_s=0.05),
        Case("one switches from 0.1 to 300 s", (switcher, *_owners(10, 10))),
        Case("one owner runs three daemons", (three, three, three, *_owners(10, 100))),
        Case("one comes and goes", (visitor, *_owners(10, 10))),
    )


def jain(shares: list[float]) -> float:
    """Return Jain's index: 1 where all shares are equal, 1/n where one has everything."""
    squares = sum(share * share for share in shares)
    return 1.0 if squares == 0 else sum(shares) ** 2 / (len(shares) * squares)


class Worker:
    """One slot that draws, asks, runs, and holds short attempts ahead as ``core.worker`` does."""

    def __init__(self, case: Case, mode: Literal["time", "uniform"], rng: Random) -> None:
        """Start idle at 0."""
        settings = ScheduleSettings()
        self._case = case
        self._rng = rng
        self._ahead_s = settings.ahead_s
        self._fairness = Fairness(settings.fair_scale_s, mode)
        self._prior_s = settings.fair_scale_s
        self._means = Means()
        # As in core.asking: whoever owns several daemons is drawn once, and then any of them asked.
        self._owners = {daemon.owner: daemon for daemon in case.daemons}
        self._names = tuple(self._owners)
        self._comings = any(not owner.present(second) for owner in case.daemons for second in range(0, 1000, 50))
        self._key = 0
        self._turn: str | None = None
        self.given: dict[str, float] = dict.fromkeys(self._owners, 0.0)

    def play(self, seconds: float) -> None:
        """Run until ``seconds``; ``given`` holds the slot time of each owner up to then."""
        now = 0.0
        batch: tuple[int, str, int] | None = None
        while now < seconds:
            if batch is None:
                batch = self._grant(now, 1)
                now += ROUND_TRIP_S
                continue
            key, name, count = batch
            # The next grant is asked for while the last one runs, as core.worker does where lengths allow it.
            now = self._run(key, name, count, now, seconds)
            batch = self._grant(now, 0)

    def _grant(self, now: float, free: int) -> tuple[int, str, int] | None:
        names = self._names
        if self._comings:
            names = tuple(name for name in names if self._owners[name].present(now))
        name = self._turn if self._turn in names else self._draw(names, now)
        mean_s = self._means.get(name)
        ahead = 0 if not mean_s else min(AHEAD_MAX, int(self._ahead_s / mean_s))
        count = free + ahead
        self._turn = None if count else name
        if not count:
            return None
        self._key += 1
        self._fairness.charge(self._key, name, 1, count * (self._prior_s if mean_s is None else mean_s))
        return self._key, name, count

    def _draw(self, names: tuple[str, ...], now: float) -> str:
        return self._fairness.draw(names, Mono(now), self._rng, self._means.lengths(names, self._prior_s))

    def _run(self, key: int, name: str, count: int, start: float, seconds: float) -> float:
        """Play the attempts of one grant; what lengths that grew make unwelcome is handed back."""
        owner = self._owners[name]
        setup_s = self._case.setup_s
        self._fairness.occupy(key, Mono(start))
        mean_s = owner.mean_s(start)
        now = start
        if mean_s < _MANY_S:
            now += self._rng.gammavariate(count, mean_s) + count * setup_s
            self._means.learn(name, (now - start) / count, count)
        else:
            for _ in range(count):
                took_s = setup_s + self._rng.expovariate(1 / owner.mean_s(now))
                now += took_s
                self._means.learn(name, took_s)
                if took_s > PATIENCE * self._ahead_s or now >= seconds:
                    break
        self._fairness.free(key, Mono(now))
        self.given[name] += min(now, seconds) - min(start, seconds)
        return now


def entitled(case: Case, seconds: float) -> dict[str, float]:
    """Return each owner's fair share of one slot: an equal part of every instant at which it has work."""
    shares = dict.fromkeys((daemon.owner for daemon in case.daemons), 0.0)
    for second in range(int(seconds)):
        present = dict.fromkeys(daemon.owner for daemon in case.daemons if daemon.present(second))
        for name in present:
            shares[name] += 1 / len(present)
    return shares


def measure(case: Case, mode: Literal["time", "uniform"], seed: int, seconds: float) -> float:
    """Return Jain's index of what all workers together gave, each owner's part relative to its fair share."""
    total = dict.fromkeys((daemon.owner for daemon in case.daemons), 0.0)
    for index in range(WORKERS):
        worker = Worker(case, mode, Random(seed * 1000 + index))
        worker.play(seconds)
        for name, given_s in worker.given.items():
            total[name] += given_s
    share = entitled(case, seconds)
    return jain([total[name] / share[name] for name in total])


def main(argv: Sequence[str]) -> int:
    """Print the table; the exit code is 1 where a case misses the goal."""
    parser = argparse.ArgumentParser(prog="python -m simulations fairness", description=__doc__)
    parser.add_argument(
        "--seeds", type=bounds.whole(1, bounds.RUNS_MAX), default=10, help="the worst of so many seeds counts"
    )
    parser.add_argument("--seconds", type=float, default=5000.0, help="simulated time")
    arguments = parser.parse_args(argv)
    worst_of_all = 1.0
    print(
        f"Jain's index of time, {WORKERS} one-slot workers, {arguments.seconds:g} s, worst of {arguments.seeds} seeds"
    )
    print(f"{'case':<34}{'time':>8}{'uniform':>9}")
    for case in cases(arguments.seconds):
        fair = min(measure(case, "time", seed, arguments.seconds) for seed in range(arguments.seeds))
        uniform = min(measure(case, "uniform", seed, arguments.seconds) for seed in range(arguments.seeds))
        worst_of_all = min(worst_of_all, fair)
        print(f"{case.name:<34}{fair:>8.4f}{uniform:>9.4f}")
    return 0 if worst_of_all >= GOAL else 1
