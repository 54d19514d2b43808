"""What a bridge tells of whom it is linked to, and what is believed of it."""

import itertools

import msgspec
import pytest

from p2pq.core import events as ev
from p2pq.core import reaching
from p2pq.core.reaching import Reaching, is_via, parse_via, via_address
from p2pq.model.ids import NodeId
from p2pq.wire.messages import HOPS_MAX, MINOR, REACH_MAX, SINCE, Reach, Through, Way
from tests.unit.core.workerkit import ANN, BOB, ME, Member

CAT, DAN, EVE = Member("cat"), Member("dan"), Member("eve")


class Bridge:
    """A bridge and its links."""

    def __init__(self, *, bridging: bool = True, batching: bool = False, carries=lambda _: False) -> None:
        self.reaching = Reaching(ME.node, bridging=bridging, batching=batching, carries=carries)
        self.links: dict[NodeId, ev.LinkUp] = {}

    def up(self, member: Member, **fields) -> list[tuple[NodeId, Reach]]:
        link = self.links[member.node] = member.link(**({"minor": MINOR} | fields))
        return unnumbered(self.reaching.link_up(link, self.links))

    def down(self, member: Member) -> list[tuple[NodeId, Reach]]:
        return unnumbered(self.reaching.link_down(self.links.pop(member.node), self.links))


@pytest.fixture
def bridge() -> Bridge:
    return Bridge()


def unnumbered(told: list[tuple[NodeId, Reach]]) -> list[tuple[NodeId, Reach]]:
    """Leave out the numbers, after a look at them: they grow."""
    numbers = [reach.number for _, reach in told]
    assert numbers == sorted(set(numbers))
    return [(to, msgspec.structs.replace(reach, number=0)) for to, reach in told]


_numbers = itertools.count(1)


def hear(node: Reaching, bridge: NodeId, message: Reach) -> tuple[list[NodeId], list[NodeId]]:
    """Let a message come in as the next one."""
    return node.heard(bridge, msgspec.structs.replace(message, number=next(_numbers)))


def test_what_comes_out_of_order_counts_by_its_number() -> None:
    node = Reaching(ME.node, bridging=False)
    first = Reach(number=1, ways=(Way(BOB.node), Way(CAT.node)))
    second, third = Reach(number=2, gone=(BOB.node,)), Reach(number=3, ways=(Way(BOB.node),))
    assert node.heard(ANN.node, second) == ([], [])
    assert node.heard(ANN.node, first) == ([CAT.node], []), "of bob something later was said"
    assert node.heard(ANN.node, third) == ([BOB.node], [])
    assert node.heard(ANN.node, second) == ([], []), "it came again"
    node.leave(ANN.node)
    assert node.heard(ANN.node, first) == ([BOB.node, CAT.node], []), "another life of a bridge counts anew"


def ways(*told: tuple[Member, tuple[Member, ...]]) -> Reach:
    return Reach(number=0, ways=tuple(Way(node.node, tuple(each.node for each in path)) for node, path in told))


def gone(*members: Member) -> Reach:
    return Reach(number=0, gone=tuple(each.node for each in members))


# -- as a bridge -------------------------------------------------------------------------------------------------------


def test_everybody_is_told_of_a_new_link_and_the_new_one_of_everybody(bridge: Bridge) -> None:
    assert bridge.up(ANN) == []
    assert bridge.up(BOB) == [(ANN.node, ways((BOB, ()))), (BOB.node, ways((ANN, ())))]
    assert bridge.up(CAT) == [
        (ANN.node, ways((CAT, ()))),
        (BOB.node, ways((CAT, ()))),
        (CAT.node, ways((ANN, ()), (BOB, ()))),
    ]


def test_everybody_is_told_of_a_link_that_is_gone(bridge: Bridge) -> None:
    for member in (ANN, BOB, CAT):
        bridge.up(member)
    assert bridge.down(BOB) == [(ANN.node, gone(BOB)), (CAT.node, gone(BOB))]
    assert bridge.down(CAT) == [(ANN.node, gone(CAT))]
    assert bridge.down(ANN) == []


def test_who_is_no_bridge_tells_nothing() -> None:
    node = Bridge(bridging=False)
    assert [*node.up(ANN), *node.up(BOB), *node.down(ANN)] == []


def test_an_older_peer_is_told_nothing_but_told_of(bridge: Bridge) -> None:
    bridge.up(ANN, minor=SINCE[Reach] - 1)
    assert bridge.up(BOB) == [(BOB.node, ways((ANN, ())))]
    assert bridge.down(BOB) == []
    bridge.up(BOB)
    assert bridge.down(ANN) == [(BOB.node, gone(ANN))]


def test_a_bridge_that_speaks_for_its_cluster_leads_only_those_who_are_too_old_for_that() -> None:
    bridge = Bridge(batching=True)
    bridge.up(ANN)
    assert bridge.up(BOB) == []
    old = SINCE[Through] - 1
    assert bridge.up(CAT, minor=old) == [
        (ANN.node, Reach(number=0, ways=(Way(CAT.node),))),
        (BOB.node, Reach(number=0, ways=(Way(CAT.node),))),
        (CAT.node, Reach(number=0, ways=(Way(ANN.node), Way(BOB.node)))),
    ]
    assert bridge.down(BOB) == [(CAT.node, Reach(number=0, gone=(BOB.node,)))]


def test_a_bridge_that_speaks_for_its_cluster_leads_to_another_mesh_as_before() -> None:
    bridge = Bridge(batching=True, carries=lambda _: True)
    bridge.up(ANN)
    bridge.up(CAT)
    there = Reach(number=0, ways=(Way(BOB.node),), meshes=(b"o" * 32,))
    assert bridge.up(BOB, mesh=b"o" * 32, realm="there") == [
        (ANN.node, there),
        (CAT.node, there),
        (BOB.node, Reach(number=0, ways=(Way(ANN.node), Way(CAT.node)))),
    ]


def test_a_way_names_the_further_bridges(bridge: Bridge) -> None:
    bridge.up(ANN)
    assert bridge.up(BOB, path=(CAT.node, DAN.node)) == [
        (ANN.node, ways((BOB, (CAT, DAN)))),  # and bob hears of ann from dan, who is next to him
    ]


def test_no_way_leads_back_to_who_is_on_it(bridge: Bridge) -> None:
    bridge.up(CAT)
    assert bridge.up(BOB, path=(CAT.node,)) == []
    assert bridge.down(BOB) == []
    bridge.up(BOB, path=(CAT.node,))
    assert bridge.down(CAT) == []


def test_no_way_is_longer_than_allowed(bridge: Bridge) -> None:
    far = (CAT.node, DAN.node, EVE.node)
    assert len(far) == HOPS_MAX
    bridge.up(ANN)
    assert bridge.up(BOB, path=far) == []
    assert bridge.down(BOB) == []


def test_many_ways_are_told_in_several_messages(bridge: Bridge) -> None:
    links = [ANN.link(peer=NodeId(number.to_bytes(32, "big"))) for number in range(REACH_MAX + 1)]
    bridge.links = {link.peer: link for link in links}
    told = [message for to, message in bridge.up(BOB) if to == BOB.node]
    assert [len(message.ways) for message in told] == [REACH_MAX, 1]
    assert [way.node for message in told for way in message.ways] == [link.peer for link in links]


# -- what a bridge says ------------------------------------------------------------------------------------------------


@pytest.fixture
def node() -> Reaching:
    return Reaching(ME.node, bridging=False)


def test_a_bridge_is_believed(node: Reaching) -> None:
    assert hear(node, ANN.node, ways((BOB, ()), (CAT, (DAN,)))) == ([BOB.node, CAT.node], [])
    assert node.path(ANN.node, BOB.node) == (ANN.node,)
    assert node.path(ANN.node, CAT.node) == (ANN.node, DAN.node)
    assert node.path(ANN.node, DAN.node) is None
    assert node.path(EVE.node, BOB.node) is None


def test_a_bridge_takes_back_what_it_said_and_nothing_else(node: Reaching) -> None:
    hear(node, ANN.node, ways((BOB, ()), (CAT, ())))
    hear(node, DAN.node, ways((BOB, ())))
    assert hear(node, ANN.node, gone(BOB, EVE)) == ([], [BOB.node])
    assert node.path(ANN.node, BOB.node) is None
    assert node.path(DAN.node, BOB.node) == (DAN.node,)


def test_a_way_that_changes_is_taken_back_and_told_anew(node: Reaching) -> None:
    hear(node, ANN.node, ways((BOB, (CAT,))))
    both = msgspec.structs.replace(ways((BOB, ())), gone=(BOB.node,))
    assert hear(node, ANN.node, both) == ([BOB.node], [BOB.node])
    assert node.path(ANN.node, BOB.node) == (ANN.node,)


def test_a_bridge_that_is_gone_leads_nowhere(node: Reaching) -> None:
    hear(node, ANN.node, ways((BOB, ()), (CAT, ())))
    assert node.leave(ANN.node) == [BOB.node, CAT.node]
    assert node.leave(ANN.node) == []
    assert node.path(ANN.node, BOB.node) is None


@pytest.mark.parametrize(
    ("to", "path"),
    [
        (ME, ()),
        (ANN, ()),
        (BOB, (ME,)),
        (BOB, (ANN,)),
        (BOB, (BOB,)),
        (BOB, (CAT, CAT)),
    ],
    ids=["to me", "to itself", "through me", "through itself", "through its end", "in a circle"],
)
def test_a_way_that_leads_in_a_circle_is_not_followed(node: Reaching, to: Member, path: tuple[Member, ...]) -> None:
    assert hear(node, ANN.node, ways((to, path), (DAN, ()))) == ([DAN.node], [])
    assert node.path(ANN.node, to.node) is None


def test_what_all_bridges_say_is_bounded(node: Reaching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "WAYS_MAX", 2)
    assert hear(node, ANN.node, ways((BOB, ()), (CAT, ()), (DAN, ()))) == ([BOB.node, CAT.node], [])
    assert hear(node, ANN.node, ways((BOB, (EVE,)))) == ([BOB.node], [])  # known: it takes no room
    assert hear(node, EVE.node, ways((DAN, ()))) == ([], [])
    hear(node, ANN.node, gone(CAT))
    assert hear(node, EVE.node, ways((DAN, ()))) == ([DAN.node], [])


def test_what_is_remembered_of_the_order_is_bounded(node: Reaching, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said of the longest untold is forgotten: at worst a way is followed that is none any more, in vain."""
    monkeypatch.setattr(reaching, "WAYS_MAX", 1)
    late = Reach(number=0, ways=(Way(BOB.node),))
    for number, member in enumerate((BOB, CAT), 1):
        node.heard(ANN.node, Reach(number=number, gone=(member.node,)))
    assert node.heard(ANN.node, late) == ([], [])
    node.heard(ANN.node, Reach(number=3, gone=(DAN.node,)))
    assert node.heard(ANN.node, late) == ([BOB.node], [])


# -- places ------------------------------------------------------------------------------------------------------------


def test_a_place_seen_through_a_bridge() -> None:
    place = via_address(ANN.node, BOB.node)
    assert is_via(place)
    assert parse_via(place) == (ANN.node, BOB.node)
    assert not is_via("192.0.2.1:9476")


@pytest.mark.parametrize(
    "place", ["192.0.2.1:9476", "via:00:11", "via:" + "00" * 32, f"{'00' * 32}:{'11' * 32}", "via:x:y", "via:::"]
)
def test_other_places_are_none(place: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_via(place)


def test_the_members_of_these_tests_know_of_bridges() -> None:
    assert SINCE[Reach] <= MINOR
