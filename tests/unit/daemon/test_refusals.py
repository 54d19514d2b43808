"""Refusals are all counted, and told of at most once a second for one source and reason."""

import pytest

from p2pq.daemon import refusals
from p2pq.daemon.dialing import ALREADY
from p2pq.daemon.refusals import Refusals
from p2pq.model.ids import NodeId
from p2pq.model.notice import Notice, PeerRefused
from p2pq.wire import session

PEER = NodeId(b"p" * 32)


class Rig:
    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[Notice] = []
        self.duplicates: list[str] = []
        self.refusals = Refusals(self.told.append, self.duplicates.append, lambda: self.now)


def test_all_are_counted_and_one_a_second_is_told_of():
    rig = Rig()
    for _ in range(3):
        rig.refusals.add("10.0.0.1", "banned", PEER)
    rig.refusals.add("10.0.0.2", "banned")
    rig.now = refusals.NOTE_EVERY_S
    rig.refusals.add("10.0.0.1", "banned", PEER)
    assert rig.refusals.counters == {"banned": 5}
    first = PeerRefused(address="10.0.0.1", reason="banned", peer=PEER)
    assert rig.told == [first, PeerRefused(address="10.0.0.2", reason="banned"), first]


def test_two_that_dialled_each_other_are_counted_only():
    rig = Rig()
    rig.refusals.add("10.0.0.1", ALREADY)
    assert (rig.refusals.counters, rig.told) == ({ALREADY: 1}, [])


def test_a_copied_home_is_told_of_every_time():
    rig = Rig()
    rig.refusals.add("10.0.0.1", session.DUPLICATE_KEY)
    rig.refusals.add("10.0.0.1", session.DUPLICATE_KEY, PEER)
    rig.refusals.duplicate("10.0.0.2 is linked to another node that")
    assert [said.partition(" uses")[0] for said in rig.duplicates] == [
        "the node at 10.0.0.1",
        "the node at 10.0.0.2 is linked to another node that",
    ]


def test_what_was_told_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refusals, "NOTES_KEPT", 1)
    rig = Rig()
    for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
        rig.refusals.add(ip, "left")
    assert len(rig.told) == 3
