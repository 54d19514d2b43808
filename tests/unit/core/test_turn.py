"""What machines want done in one turn goes to the world, to this very node, or through a bridge."""

import pytest

from p2pq.core import effects as fx
from p2pq.core.records import ResultKept, ResultReleased
from p2pq.core.turn import Turn
from p2pq.wire import messages as msg
from tests.unit.core.test_through import Bench, master_is, stands
from tests.unit.core.workerkit import ANN, BOB, ME, WALL, Member, item, result_item

CAT = Member("cat")
HAS = msg.HasWork(counter=1)
BEAT = msg.Heartbeat(beats=())


@pytest.fixture
def bench() -> Bench:
    """Know a master that takes part through a bridge."""
    bench = Bench()
    bench.show(master_is())
    assert bench.throughs.bridge(ANN.node) == CAT.node == stands().path[0]
    return bench


def test_what_a_node_says_to_itself_is_set_aside_and_the_rest_stays_in_order(bench: Bench) -> None:
    turn = Turn(ME.node, bench.throughs)
    to_bob, drop = fx.Send(peer=BOB.node, message=BEAT), fx.Drop(peer=BOB.node, reason="odd", close=True)
    turn.take([fx.Send(peer=ME.node, message=HAS), to_bob])
    turn.take([fx.Send(peer=ME.node, message=BEAT), drop])
    assert turn.out == [to_bob, drop]
    assert list(turn.said) == [HAS, BEAT]


def test_what_is_for_a_peer_behind_a_bridge_goes_there(bench: Bench) -> None:
    turn = Turn(ME.node, bench.throughs)
    turn.take([fx.Send(peer=ANN.node, message=BEAT), fx.Drop(peer=ANN.node, reason="odd")])
    assert turn.out == [
        fx.Send(peer=CAT.node, message=msg.Through(node=ANN.node, message=BEAT)),
        fx.Drop(peer=CAT.node, reason="through: odd"),
    ]
    assert not bench.throughs.changed


def test_a_peer_that_is_to_be_left_takes_part_there_no_more_and_its_bridge_stays(bench: Bench) -> None:
    turn = Turn(ME.node, bench.throughs)
    turn.take([fx.Drop(peer=ANN.node, reason="odd", close=True)])
    assert turn.out == [fx.Drop(peer=CAT.node, reason="through: odd")]
    assert bench.settle()
    assert bench.throughs.bridge(ANN.node) is None


def test_what_only_linked_peers_say_does_not_go_through(bench: Bench) -> None:
    turn = Turn(ME.node, bench.throughs)
    with pytest.raises(AssertionError, match="only linked peers"):
        turn.take([fx.Send(peer=ANN.node, message=msg.Reach(number=1))])


def test_bridges_that_are_to_be_suspected_are_named_whomever_they_speak_for(bench: Bench) -> None:
    turn = Turn(ME.node, bench.throughs)
    turn.take(
        [
            fx.Drop(peer=ANN.node, reason="odd", suspect="forged"),
            fx.Drop(peer=BOB.node, reason="odd", suspect="altered"),
        ]
    )
    turn.take([fx.Drop(peer=BOB.node, reason="odd")])
    assert turn.suspects == {CAT.node: "forged", BOB.node: "altered"}
    assert turn.out[0] == fx.Drop(peer=CAT.node, reason="through: odd")


def test_what_is_kept_and_let_go_of_in_one_turn_was_never_kept(bench: Bench) -> None:
    turn = Turn(ME.node, bench.throughs)
    mine, other = result_item(item(1)), result_item(item(2))
    rows = [ResultKept(lease=each.lease, master=ME.node, item=each, wall=WALL, owner="me") for each in (mine, other)]
    beat = fx.Send(peer=BOB.node, message=BEAT)
    turn.take([fx.Record(row=rows[0]), fx.Record(row=rows[1]), beat])
    assert turn.over() == turn.out, "nothing is let go of"
    gone = ResultReleased(lease=mine.lease, master=ME.node)
    elsewhere = ResultReleased(lease=other.lease, master=BOB.node)
    turn.take([fx.Record(row=gone), fx.Record(row=elsewhere)])
    assert turn.over() == [fx.Record(row=rows[1]), beat, fx.Record(row=elsewhere)]
