"""What linked nodes tell each other of what they know, and what was missed is found by comparing."""

import pytest

from p2pq.core import bans, telling
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.records import BanKept
from p2pq.wire import messages as msg
from p2pq.wire import sign
from tests.unit.core.membershipkit import AWAY, CAT, HOME, NEW, ROOT, Bench, ban, mesh_key
from tests.unit.core.workerkit import ANN, BOB, WALL, send


@pytest.fixture
def bench() -> Bench:
    return Bench()


def heads(bench: Bench) -> msg.Heads:
    """Return what this node says that it knows."""
    [said] = bench.do(ev.Tick(wall=WALL))
    assert isinstance(said, fx.Send)
    assert isinstance(said.message, msg.Heads)
    return said.message


def knowing(*words: bytes) -> msg.Heads:
    """Return what a node says that knows these bans and mesh keys."""
    other = Bench()
    other.do(ANN.link(minor=NEW))
    other.says(msg.Bans(bans=words))
    other.says(msg.MeshKeys(keys=words))
    return heads(other)


def test_heads_are_the_first_that_is_said_and_said_again_every_minute(bench: Bench) -> None:
    bench.do(ANN.link())
    bench.says(msg.Bans(bans=(ban(CAT.node),)))
    bench.says(msg.MeshKeys(keys=(mesh_key(1),)))
    same = knowing(ban(CAT.node), mesh_key(1))
    effects = bench.do(BOB.link(address=AWAY, minor=NEW))
    assert [each for each in effects if isinstance(each, fx.Send)] == [
        send(same, BOB),
        send(msg.Peers(addresses=((ANN.node, (HOME,)),)), BOB),
    ]
    assert bench.do(ev.Tick(wall=WALL)) == [send(same, BOB)]
    assert bench.do(ev.Tick()) == []
    assert bench.says(same, BOB) == []


def test_whoever_lacks_a_ban_asks_for_all_but_those_that_it_knows(bench: Bench) -> None:
    bench.do(ANN.link(minor=NEW))
    known, lacking = ban(CAT.node), ban(BOB.node)
    bench.says(msg.Bans(bans=(known,)))
    digest = sign.digest(known)[: msg.BAN_DIGEST_BYTES]
    assert bench.says(knowing(known, lacking)) == [send(msg.BansKnown(digests=(digest,)))]
    assert bench.says(msg.Bans(bans=(known, lacking)))[0] == fx.Record(
        row=BanKept(node=BOB.node, banned=True, issuer=ROOT.public, signed=lacking)
    )
    assert heads(bench) == knowing(lacking, known)


def test_who_asks_is_told_what_it_lacks(bench: Bench) -> None:
    bench.do(ANN.link(minor=NEW))
    one, two = ban(BOB.node), ban(CAT.node)
    bench.says(msg.Bans(bans=(one, two)))
    digest = sign.digest(one)[: msg.BAN_DIGEST_BYTES]
    assert bench.says(msg.BansKnown(digests=(digest, bytes(16)))) == [send(msg.Bans(bans=(two,)))]
    assert bench.tick(telling.COMPARE_S) == []
    assert bench.says(msg.BansKnown(digests=(digest, sign.digest(two)[:16]))) == []


def test_mesh_keys_that_differ_are_told(bench: Bench) -> None:
    bench.do(ANN.link(minor=NEW))
    bench.says(msg.MeshKeys(keys=(mesh_key(1),)))
    assert bench.says(knowing(mesh_key(2))) == [send(msg.MeshKeys(keys=(mesh_key(1),)))]
    nothing = Bench()
    nothing.do(ANN.link(minor=NEW))
    assert nothing.says(knowing(mesh_key(2))) == []


def test_a_peer_is_answered_once_in_a_while_and_at_once_after_it_linked_again(bench: Bench) -> None:
    bench.do(ANN.link(minor=NEW))
    bench.says(msg.Bans(bans=(ban(BOB.node),)))
    ask, tell = msg.BansKnown(digests=(sign.digest(ban(BOB.node))[:16],)), msg.Bans(bans=(ban(BOB.node),))
    for _ in range(2):
        assert bench.says(knowing()) == [send(ask)]
        assert bench.says(knowing()) == []
        assert bench.says(msg.BansKnown()) == [send(tell)]
        assert bench.says(msg.BansKnown()) == []
        bench.tick(telling.COMPARE_S)
    assert bench.says(knowing()) == [send(ask)]
    bench.do(ev.LinkDown(peer=ANN.node))
    bench.do(ANN.link(minor=NEW))
    assert bench.says(knowing()) == [send(ask)]


def test_a_peer_that_asks_for_meshes_that_nobody_knows_is_told_nothing_and_nothing_of_it_is_kept(bench: Bench) -> None:
    bench.do(ANN.link(minor=NEW))
    for number in range(3):
        assert bench.says(msg.BansKnown(mesh=bytes([number]) * 32)) == []
    assert bench.members._telling._compared == {}


def test_who_can_take_no_more_bans_asks_for_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans, "BANS_MAX", 1)
    bench.do(ANN.link(minor=NEW))
    bench.says(msg.Bans(bans=(ban(BOB.node),)))
    assert bench.says(knowing()) == []
