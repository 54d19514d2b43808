"""Room is kept for a wide task, charged to its owner, and let go of in time."""

from p2pq.core.fairness import accounts
from p2pq.core.reserving import WIDE_S, Reserved, Wanted
from p2pq.core.slots import Room
from p2pq.model.ids import Mono
from tests.unit.core.workerkit import ANN

WANTED = Wanted(ANN.node, "ann", Room(4, 100, 0))


class Bench:
    def __init__(self) -> None:
        self.accounts = accounts(10.0)
        self.fairness = self.accounts[False]
        self.reserved = Reserved(self.accounts)

    def keep(self, cpus: int, at: float, memory_mb: int = 100) -> bool:
        enough = self.reserved.keep(Room(cpus, memory_mb, 0), Mono(at))
        self.reserved.check()
        self.fairness.check()
        return enough

    def given(self, at: float) -> float:
        return self.fairness.given(Mono(at)).get("ann", 0.0)


def test_nothing_is_kept_for_nobody() -> None:
    bench = Bench()
    assert not bench.keep(9, 1.0)
    bench.reserved.end()
    assert bench.given(9.0) == 0.0


def test_what_becomes_free_is_kept_and_charged_until_it_is_enough() -> None:
    bench = Bench()
    bench.reserved.begin(WANTED, Mono(0.0))
    assert not bench.keep(0, 1.0)
    assert not bench.keep(1, 2.0)
    assert not bench.keep(1, 5.0)
    assert bench.given(6.0) == 4.0
    assert not bench.keep(3, 6.0)
    assert not bench.keep(4, 8.0, memory_mb=50)
    assert bench.given(9.0) == 4.0 + 6.0 + 4.0
    assert bench.keep(7, 10.0)
    bench.reserved.end()
    assert bench.reserved.wanted is None
    assert bench.given(99.0) == 4.0 + 6.0 + 8.0


def test_nobody_keeps_room_for_ever() -> None:
    bench = Bench()
    bench.reserved.begin(WANTED, Mono(0.0))
    assert not bench.keep(1, WIDE_S - 1.0)
    assert not bench.keep(4, WIDE_S)
    assert bench.reserved.wanted is None


def test_another_takes_the_place() -> None:
    bench = Bench()
    bench.reserved.begin(WANTED, Mono(0.0))
    bench.keep(2, 1.0)
    bench.reserved.begin(Wanted(ANN.node, "bob", Room(2, 0, 0)), Mono(3.0))
    assert bench.keep(2, 4.0)
    assert bench.fairness.given(Mono(5.0)) == {"ann": 0.0, "bob": 2.0}


def test_what_is_kept_for_somebody_behind_a_bridge_is_charged_there() -> None:
    bench = Bench()
    bench.reserved.begin(Wanted(ANN.node, "ann", Room(2, 0, 0), far=True), Mono(0.0))
    assert not bench.keep(1, 0.0)
    assert not bench.keep(1, 3.0)
    bench.reserved.begin(WANTED, Mono(3.0))
    assert bench.given(3.0) == 0.0
    assert bench.accounts[True].given(Mono(9.0)) == {"ann": 3.0}
