"""Which bridges come behind the others, for what, and for how long."""

import pytest

from p2pq.core import suspects
from p2pq.core.effects import Effect, Emit
from p2pq.core.events import ALTERED, CUT, NO_ANSWER, NO_WAY, OTHER_BYTES, OTHER_NODE, SILENT, SLOW, LinkUp
from p2pq.core.reaching import Reaching
from p2pq.core.suspects import DOUBT_S, SUSPECT_S, Suspects
from p2pq.model.ids import Mono, NodeId
from p2pq.model.notice import BridgeSuspected
from p2pq.wire import session
from p2pq.wire.messages import MINOR, Reach, Way

ME, ONE, TWO, THREE, PEER = (NodeId(bytes([number]) * 32) for number in range(5))
NOW = Mono(1000.0)
LATER = Mono(1010.0)


class Bench:
    """A node to which all bridges say that they lead to one peer."""

    def __init__(self) -> None:
        self.reaching = Reaching(ME, bridging=False)
        for bridge in (ONE, TWO, THREE):
            self.reaching.heard(bridge, Reach(number=1, ways=(Way(PEER),)))
        self.suspects = Suspects(self.reaching)

    def ways(self, *first: NodeId) -> tuple[NodeId, ...]:
        self.suspects.check()
        return self.suspects.ways(PEER, first)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def link(*path: NodeId, boot: bytes = b"boot", peer: NodeId = PEER) -> LinkUp:
    return LinkUp(
        peer=peer, name="n", owner="o", caps=(), boot=boot, minor=MINOR, prekey=b"", address="192.0.2.1:9476", path=path
    )


def told(bridge: NodeId, reason: str, peer: NodeId | None = PEER) -> Effect:
    return Emit(notice=BridgeSuspected(bridge=bridge, reason=reason, peer=peer))


def test_nobody_is_suspected_at_first(bench: Bench) -> None:
    assert bench.ways() == (ONE, TWO, THREE)
    assert bench.ways(TWO) == (TWO, ONE, THREE)
    assert [bench.suspects.behind(bridge, PEER) for bridge in (ONE, TWO, THREE)] == [0, 0, 0]
    assert bench.suspects.why(ONE) == ""


@pytest.mark.parametrize("reason", [ALTERED, session.NOT_AUTHENTIC])
def test_what_only_a_bridge_can_have_done_counts_at_once(bench: Bench, reason: str) -> None:
    assert bench.suspects.ended(link(ONE), reason, NOW) == [told(ONE, reason)]
    assert bench.ways(ONE) == (TWO, THREE, ONE)
    assert bench.suspects.behind(ONE, PEER) == 1
    assert bench.suspects.why(ONE) == f"behind other bridges: {reason}"


def test_a_dial_that_leads_elsewhere_counts_at_once(bench: Bench) -> None:
    assert bench.suspects.failed(ONE, PEER, OTHER_NODE, 1, NOW) == [told(ONE, OTHER_NODE)]
    assert bench.ways() == (TWO, THREE, ONE)


def test_other_bytes_count_whoever_they_were_of(bench: Bench) -> None:
    assert bench.suspects.suspect((ONE,), OTHER_BYTES, NOW) == [told(ONE, OTHER_BYTES, None)]
    assert bench.ways() == (TWO, THREE, ONE)


def test_of_several_on_one_way_nobody_knows_which_it_was(bench: Bench) -> None:
    bench.reaching.heard(ONE, Reach(number=2, ways=(Way(PEER, (TWO,)),)))
    assert bench.suspects.ended(link(ONE, TWO), ALTERED, NOW) == [told(ONE, ALTERED), told(TWO, ALTERED)]
    assert bench.ways() == (THREE, ONE, TWO)
    other = Suspects(bench.reaching)
    other.suspect((TWO,), ALTERED, NOW)
    assert other.ways(PEER) == (THREE, ONE, TWO), "a way is as good as its worst bridge"


def test_the_latest_comes_last_and_all_others_before_it(bench: Bench) -> None:
    bench.suspects.suspect((ONE,), ALTERED, NOW)
    bench.suspects.suspect((TWO,), ALTERED, LATER)
    assert bench.ways() == (THREE, ONE, TWO)
    assert [bench.suspects.behind(bridge, PEER) for bridge in (ONE, TWO, THREE)] == [1, 2, 0]
    bench.suspects.suspect((ONE,), ALTERED, Mono(LATER + 1))
    assert bench.ways() == (THREE, TWO, ONE)


def test_it_is_forgiven_after_a_while(bench: Bench) -> None:
    bench.suspects.suspect((ONE,), ALTERED, NOW)
    bench.suspects.ended(link(TWO), CUT, LATER)
    bench.suspects.forgive(Mono(NOW + SUSPECT_S - 1))
    assert bench.ways() == (THREE, ONE, TWO)
    bench.suspects.forgive(Mono(NOW + SUSPECT_S))
    assert bench.ways() == (ONE, THREE, TWO)
    assert bench.suspects.why(ONE) == ""
    bench.suspects.forgive(Mono(LATER + SUSPECT_S))
    assert bench.ways() == (ONE, TWO, THREE)
    assert bench.suspects.reached(link(ONE), Mono(LATER + SUSPECT_S)) == []


@pytest.mark.parametrize("reason", [CUT, SILENT, SLOW])
def test_what_may_be_honest_counts_once_the_same_peer_was_reached_over_another(bench: Bench, reason: str) -> None:
    assert bench.suspects.ended(link(ONE), reason, NOW) == []
    assert bench.suspects.why(ONE) == ""
    assert bench.ways() == (TWO, THREE, ONE), "the way is behind meanwhile"
    assert bench.suspects.ways(THREE, (ONE, TWO)) == (ONE, TWO), "the bridge is not"
    assert bench.suspects.reached(link(ONE), LATER) == []
    assert bench.suspects.reached(link(), LATER) == [], "a direct link says nothing about bridges"
    assert bench.suspects.reached(link(TWO, peer=THREE), LATER) == []
    assert bench.suspects.reached(link(TWO), LATER) == [told(ONE, reason)]
    assert bench.suspects.reached(link(TWO), LATER) == []


def test_another_life_of_the_peer_explains_why_the_link_ended(bench: Bench) -> None:
    bench.suspects.ended(link(ONE), CUT, NOW)
    assert bench.suspects.reached(link(TWO, boot=b"next"), LATER) == []
    assert bench.ways() == (ONE, TWO, THREE)


def test_who_slept_meanwhile_was_reached_over_no_bridge(bench: Bench) -> None:
    bench.suspects.ended(link(ONE), SILENT, NOW)
    assert bench.suspects.reached(link(TWO), Mono(NOW + DOUBT_S + 0.1)) == []
    assert bench.ways() == (ONE, TWO, THREE)


def test_a_bridge_that_says_that_it_leads_there_no_longer_is_excused(bench: Bench) -> None:
    bench.suspects.ended(link(ONE), CUT, NOW)
    bench.suspects.excuse(ONE, [PEER])
    assert bench.suspects.reached(link(TWO), LATER) == []
    bench.reaching.leave(ONE)
    bench.suspects.ended(link(ONE), CUT, NOW)  # the same the other way round: it had said so before the link ended
    assert bench.suspects.reached(link(TWO), LATER) == []


@pytest.mark.parametrize("reason", [NO_ANSWER, NO_WAY, session.REFUSED_EARLY, session.LEFT])
def test_one_dial_may_fail(bench: Bench, reason: str) -> None:
    assert bench.suspects.failed(ONE, PEER, reason, 1, NOW) == []
    assert bench.suspects.reached(link(TWO), LATER) == []
    assert bench.suspects.failed(ONE, PEER, reason, 2, NOW) == []
    assert bench.suspects.reached(link(TWO, boot=b"any"), LATER) == [told(ONE, reason)]


@pytest.mark.parametrize("reason", ["bye: leaving", "replaced", "broke-protocol", "banned", "already-linked", ""])
def test_what_a_peer_does_itself_is_nobodys_fault(bench: Bench, reason: str) -> None:
    assert bench.suspects.ended(link(ONE), reason, NOW) == []
    assert bench.suspects.failed(ONE, PEER, reason, 5, NOW) == []
    assert bench.suspects.reached(link(TWO), LATER) == []
    assert bench.ways() == (ONE, TWO, THREE)


def test_the_end_of_a_direct_link_is_no_bridges_fault(bench: Bench) -> None:
    assert bench.suspects.ended(link(), ALTERED, NOW) == []


def test_a_bridge_that_was_on_both_ways_is_not_suspected(bench: Bench) -> None:
    bench.reaching.heard(ONE, Reach(number=2, ways=(Way(PEER, (THREE,)),)))
    bench.suspects.ended(link(ONE, THREE), CUT, NOW)
    assert bench.suspects.reached(link(TWO, THREE), LATER) == [told(ONE, CUT)]


def test_what_is_remembered_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "ENTRIES_MAX", 2)
    for bridge in (ONE, TWO, THREE):
        bench.suspects.suspect((bridge,), ALTERED, NOW)
        bench.suspects.ended(link(bridge), CUT, NOW)
        bench.suspects.check()
    assert bench.suspects.why(ONE) == ""
    assert bench.suspects.why(TWO)
