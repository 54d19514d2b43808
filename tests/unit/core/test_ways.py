"""Ways to a master: which is taken, and how long one that brings nothing is."""

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import ways
from p2pq.core.ways import DOUBLINGS_MAX, PATIENCE_S, PROVEN_S, Ways
from p2pq.model.ids import Mono, NodeId
from p2pq.model.notice import WayLeft
from tests.unit.core.workerkit import ANN, Member, behind

CAT, DOG, COW, EEL = Member("cat"), Member("dog"), Member("cow"), Member("eel")
SHORT, LONG = behind(ANN, CAT), behind(ANN, DOG, COW)


class Ear:
    """Hears what a test says that it does."""

    def __init__(self) -> None:
        self.at: Mono | None = None
        self.misses, self.has = True, False

    def brought(self, _master: NodeId) -> Mono | None:
        return self.at

    def waits(self, _master: NodeId, _now: Mono) -> bool:
        return self.misses

    def keeps(self, _master: NodeId, _now: Mono) -> bool:
        return self.has


class Bench:
    """Two ways to ANN, the shorter one taken first; the better one is taken whenever there is reason to go."""

    def __init__(self, *links: ev.LinkUp) -> None:
        self.now, self.ear = Mono(0.0), Ear()
        deaf = Ear()
        deaf.misses = False
        self.ways = Ways((deaf, self.ear, None))
        self.links = links or (SHORT, LONG)
        self.link = self.ways.best(self.links)
        self.ways.stand(self.link, self.now)
        self.ways.watch(ANN.node, self.now, several=len(self.links) > 1)
        self.ways.check()

    def go(self, seconds: float) -> ev.LinkUp:
        """Let time pass; return the way that is taken then."""
        self.now = Mono(self.now + seconds)
        told = self.ways.fire(self.now)
        best = self.ways.best(self.links)
        if self.ways.better(best, self.link):
            assert told == [fx.Emit(notice=WayLeft(master=ANN.node, bridge=self.link.path[0]))]
            self.link, self.ear.at = best, None
            self.ways.fall(ANN.node)
            self.ways.stand(best, self.now)
            self.ways.watch(ANN.node, self.now, several=True)
        else:
            assert told == []
        self.ways.check()
        return self.link


def test_a_way_that_brings_nothing_is_left_and_tried_again_after_all_others():
    bench = Bench()
    assert bench.link == SHORT
    assert bench.ways.deadline == PATIENCE_S
    assert bench.go(PATIENCE_S - 1) == SHORT
    assert bench.go(1) == LONG
    assert bench.go(2 * PATIENCE_S - 1) == LONG, "each has twice the time of the one before"
    assert bench.go(1) == SHORT
    assert bench.go(4 * PATIENCE_S) == LONG
    for _ in range(4, DOUBLINGS_MAX + 1):
        bench.go(2**DOUBLINGS_MAX * PATIENCE_S)
    before = bench.link
    assert bench.go(2**DOUBLINGS_MAX * PATIENCE_S - 1) == before
    assert bench.go(1) != before, "but no more than so often"


def test_a_way_that_brought_something_is_not_left_for_a_shorter_one():
    bench = Bench(LONG)
    assert bench.ways.deadline is None, "there is no other"
    bench.links = (LONG, SHORT)
    bench.ear.at = Mono(1.0)
    bench.ways.watch(ANN.node, bench.now, several=True)
    assert bench.go(2.0) == LONG
    assert bench.go(PROVEN_S - 2.0) == LONG
    bench.ear.at = bench.now
    assert bench.go(1.0) == LONG
    assert bench.go(PROVEN_S) == SHORT
    assert bench.go(2 * PATIENCE_S) == LONG


def test_what_was_left_and_brings_something_after_all_is_as_good_as_before():
    bench = Bench()
    bench.go(PATIENCE_S)
    bench.go(2 * PATIENCE_S)
    assert bench.link == SHORT
    bench.ear.at = Mono(bench.now + 1)
    assert bench.go(4 * PATIENCE_S) == SHORT
    assert bench.go(PROVEN_S - 4 * PATIENCE_S + 1) == LONG
    assert bench.go(2 * PATIENCE_S) == SHORT, "they are counted anew"


def test_nothing_is_missed_where_nothing_could_come_or_what_is_held_could_be_lost():
    bench = Bench()
    bench.ear.has = True
    assert bench.go(PATIENCE_S) == SHORT
    bench.ear.has, bench.ear.misses = False, False
    assert bench.go(PATIENCE_S) == SHORT
    bench.ear.misses = True
    assert bench.go(PATIENCE_S) == LONG


def test_a_way_without_another_is_kept_for_ever():
    bench = Bench()
    bench.ways.watch(ANN.node, bench.now, several=False)
    assert bench.ways.deadline is None
    bench.ways.watch(DOG.node, bench.now, several=True)
    assert bench.ways.deadline is None, "nobody stands there"


def test_a_way_to_which_there_is_another_again_is_given_time():
    bench = Bench(SHORT)
    bench.links = (SHORT, LONG)
    assert bench.go(PATIENCE_S * 5) == SHORT
    bench.ways.watch(ANN.node, bench.now, several=True)
    assert bench.go(PATIENCE_S - 1) == SHORT
    assert bench.go(1) == LONG


def test_a_way_over_further_bridges_that_is_gone_before_it_brought_anything_comes_behind_all_others():
    bench = Bench()
    other = behind(ANN, EEL, COW)
    bench.ways.gone(LONG, Mono(1.0))
    assert bench.ways.best((LONG, other)) == other
    bench.ways.gone(other, Mono(2.0))
    assert bench.ways.best((other, LONG)) == LONG, "it is gone for longer"
    bench.ear.at = Mono(3.0)
    bench.ways.gone(LONG, Mono(4.0))
    assert bench.ways.best((other, LONG)) == LONG, "it had brought something"
    bench.ear.at = None
    bench.ways.gone(SHORT, Mono(5.0))
    assert bench.ways.best((LONG, SHORT)) == SHORT, "its bridge lost the master, which says nothing of the way"
    bench.ways.check()


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(ways, "LEFT_MAX", 1)
    bench = Bench()
    bench.go(PATIENCE_S)
    bench.go(2 * PATIENCE_S)
    assert list(bench.ways._left) == [(DOG.node, ANN.node)]
    bench.ways.forget(lambda master: master == ANN.node)
    assert bench.ways._strikes
    bench.ways.forget(lambda _: False)
    assert not bench.ways._strikes


def test_no_way_is_to_blame_for_what_was_slept():
    bench = Bench()
    bench.now = Mono(PATIENCE_S * 3)
    bench.ways.woke(bench.now)
    assert bench.go(PATIENCE_S - 1) == SHORT
    assert bench.go(1) == LONG
    bench.ways.watch(ANN.node, bench.now, several=False)
    bench.ways.woke(bench.now)
    assert bench.ways.deadline is None
