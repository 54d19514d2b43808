"""A bridge that passes on what leaves print: to whom it was asked for, no more than that one takes, and not for ever."""

import itertools

import pytest

from p2pq.daemon import passing
from p2pq.daemon.passing import Passing
from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire.messages import LogData, LogStop, LogWant

ANN, BOB = NodeId(b"a" * 32), NodeId(b"b" * 32)
"""Masters."""
CAT, DOG = NodeId(b"c" * 32), NodeId(b"d" * 32)
"""Leaves."""
EMU, FOX = NodeId(b"e" * 32), NodeId(b"f" * 32)
"""Bridges."""
LEASE = LeaseId(1, 1)
ENDED = LogData(req=7, offset=0, data=b"", end=True)


class Bench:
    def __init__(self):
        self.said = []
        self.slow = set()
        self.leaves = {(ANN, LEASE): CAT, (BOB, LEASE): DOG}
        self.bridges = {}
        self.passing = Passing(
            leaf_of=lambda master, lease: self.leaves.get((master, lease)),
            bridge_of=self.bridges.get,
            say=lambda peer, message: self.said.append((peer, message)),
            behind=self.slow.__contains__,
            numbers=itertools.count(1),
        )

    def want(self, master=ANN, req=7, lease=LEASE, asker=None):
        want = LogWant(req=req, lease=lease, stream="stderr", offset=5)
        return self.passing.want(asker or master, master, want)

    def take(self):
        said, self.said[:] = list(self.said), []
        return said


@pytest.fixture
def bench():
    return Bench()


def test_a_leaf_is_asked_for_its_master_and_its_word_goes_up_under_the_masters_number(bench):
    assert bench.want()
    assert bench.want(BOB)
    asked = LogWant(req=1, lease=LEASE, stream="stderr", offset=5, master=ANN)
    other = LogWant(req=2, lease=LEASE, stream="stderr", offset=5, master=BOB)
    assert bench.take() == [(CAT, asked), (DOG, other)]
    bench.passing.data(CAT, LogData(req=1, offset=5, data=b"x"))
    bench.passing.data(DOG, LogData(req=2, offset=5, data=b"y"))
    assert bench.take() == [(ANN, LogData(req=7, offset=5, data=b"x")), (BOB, LogData(req=7, offset=5, data=b"y"))]


def test_between_two_bridges_it_goes_from_one_to_the_other(bench):
    """EMU is the one above, FOX the one below."""
    bench.bridges[CAT] = FOX
    assert bench.want(asker=EMU)
    assert bench.take() == [(FOX, LogWant(req=1, lease=LEASE, stream="stderr", offset=5, master=ANN))]
    bench.passing.data(CAT, LogData(req=1, offset=5, data=b"not asked"))
    bench.passing.data(FOX, LogData(req=1, offset=5, data=b"x"))
    assert bench.take() == [(EMU, LogData(req=7, offset=5, data=b"x"))]
    bench.passing.stop(EMU, LogStop(req=7))
    assert bench.take() == [(FOX, LogStop(req=1))]
    assert len(bench.passing) == 0


def test_the_end_is_passed_on_and_is_the_end(bench):
    bench.want()
    bench.take()
    bench.passing.data(CAT, LogData(req=1, offset=9, data=b"", end=True))
    bench.passing.data(CAT, LogData(req=1, offset=9, data=b"more"))
    assert bench.take() == [(ANN, LogData(req=7, offset=9, data=b"", end=True))]
    assert len(bench.passing) == 0


def test_what_another_leaf_says_under_that_number_is_not_passed_on(bench):
    bench.want()
    bench.take()
    bench.passing.data(DOG, LogData(req=1, offset=5, data=b"x"))
    assert bench.take() == []
    assert len(bench.passing) == 1


def test_a_master_that_is_behind_loses_output_but_not_the_end(bench):
    bench.want()
    bench.take()
    bench.slow.add(ANN)
    bench.passing.data(CAT, LogData(req=1, offset=5, data=b"x"))
    assert bench.take() == []
    bench.passing.data(CAT, LogData(req=1, offset=6, data=b"", end=True))
    assert bench.take() == [(ANN, LogData(req=7, offset=6, data=b"", end=True))]


def test_nobody_is_asked_for_what_no_leaf_has_or_twice_or_without_end(bench, monkeypatch):
    monkeypatch.setattr(passing, "STREAMS_MAX", 2)
    assert not bench.want(lease=LeaseId(1, 2))
    assert bench.want(req=1)
    assert not bench.want(req=1)
    assert bench.want(req=2)
    assert not bench.want(req=3)
    assert bench.want(BOB, req=3), "each master has its own"
    assert len(bench.passing) == 3


def test_who_follows_no_more_lets_the_leaf_know(bench):
    bench.want()
    bench.want(req=8)
    bench.take()
    bench.passing.stop(BOB, LogStop(req=7))
    bench.passing.stop(ANN, LogStop(req=9))
    assert bench.take() == []
    bench.passing.stop(ANN, LogStop(req=7))
    assert bench.take() == [(CAT, LogStop(req=1))]
    assert len(bench.passing) == 1


def test_who_is_gone_wants_and_says_no_more(bench):
    bench.want()
    bench.want(BOB)
    bench.take()
    bench.passing.link_down(ANN)
    assert bench.take() == [(CAT, LogStop(req=1))]
    bench.passing.link_down(DOG)
    assert bench.take() == [(BOB, ENDED)]
    assert len(bench.passing) == 0
