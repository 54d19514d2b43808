"""A worker's word on which way it takes part: what it says, and that the latest counts."""

import pytest

from p2pq.core import mandates
from p2pq.core.mandates import Homes, Mandates, open_mandate
from p2pq.errors import Reject
from p2pq.model.ids import NodeId
from tests.unit.core.workerkit import ANN, BOB, CAT, IDENTITY, ME, MESH, mandate

WAY = (CAT.node, BOB.node)


def test_each_word_of_a_life_has_a_higher_number_and_says_the_way() -> None:
    mine = Mandates(IDENTITY, 7)
    assert mine.make(ANN.node, WAY) == mandate(ME, CAT, BOB, life=7)
    again = mine.make(ANN.node, ())
    assert again == mandate(ME, life=7, serial=2)
    assert open_mandate(again, ME.node, MESH, ANN.node, ()) == (7, 2)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (b"", "malformed"),
        (mandate(BOB, CAT, BOB), "bad signature"),
        (mandate(ME, CAT, BOB, node=BOB.node), "mandate for another way"),
        (mandate(ME, CAT, BOB, of=BOB), "mandate for another way"),
        (mandate(ME, CAT, BOB, mesh=b"o" * 32), "mandate for another way"),
        (mandate(ME, BOB, CAT), "mandate for another way"),
        (mandate(ME, CAT), "mandate for another way"),
    ],
)
def test_it_is_good_for_that_worker_master_and_way_only(word: bytes, reason: str) -> None:
    with pytest.raises(Reject, match=reason):
        open_mandate(word, ME.node, MESH, ANN.node, WAY)


def test_the_latest_word_counts_by_life_and_then_by_number() -> None:
    homes = Homes()
    assert homes.way(ME.node) is None
    homes.take(ME.node, (1, 5), WAY)
    homes.take(ME.node, (1, 5), WAY)
    for number, way in (((1, 5), ()), ((1, 4), WAY), ((0, 9), ())):
        with pytest.raises(Reject, match="it takes part another way by now"):
            homes.take(ME.node, number, way)
    assert homes.way(ME.node) == WAY
    homes.take(ME.node, (2, 1), ())
    assert homes.way(ME.node) == ()


def test_of_too_many_those_are_forgotten_that_said_something_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mandates, "HOMES_MAX", 2)
    homes = Homes()
    nodes = [NodeId(bytes([number]) * 32) for number in range(3)]
    homes.take(nodes[0], (1, 1), ())
    homes.take(nodes[1], (1, 1), ())
    homes.take(nodes[0], (1, 1), ())
    homes.take(nodes[2], (1, 1), ())
    assert [homes.way(node) for node in nodes] == [(), None, ()]
    homes.check()
