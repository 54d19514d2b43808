"""Whatever bridges say, no way leads in a circle, is too long, or comes back; and what is told over a chain is true."""

from hypothesis import given
from hypothesis import strategies as st

from p2pq.core.events import LinkUp
from p2pq.core.reaching import Reaching, is_via, parse_via, via_address
from p2pq.model.ids import NodeId
from p2pq.wire.messages import HOPS_MAX, MINOR, Reach, Way

NODES = [NodeId(bytes([number]) * 32) for number in range(6)]
ME = NODES[0]
nodes = st.sampled_from(NODES)
ways = st.builds(Way, nodes, st.lists(nodes, max_size=HOPS_MAX - 1).map(tuple))
said = st.builds(
    Reach, number=st.just(0), ways=st.lists(ways, max_size=4).map(tuple), gone=st.lists(nodes, max_size=3).map(tuple)
)
bridges = st.sampled_from(NODES[1:])


@given(st.lists(st.tuples(bridges, st.none() | said)))
def test_whatever_bridges_say_no_way_leads_in_a_circle(told: list[tuple[NodeId, Reach | None]]) -> None:
    reaching = Reaching(ME, bridging=False)
    known: dict[NodeId, dict[NodeId, None]] = {}
    for bridge, message in told:
        of = known.setdefault(bridge, {})
        if message is None:
            assert reaching.leave(bridge) == list(of)
            of.clear()
            continue
        new, gone = reaching.heard(bridge, message)
        assert set(gone) <= set(of)
        for node in gone:
            del of[node]
        of.update(dict.fromkeys(new))
        assert ME not in new
        assert bridge not in new
    for bridge in NODES[1:]:
        for node in NODES:
            path = reaching.path(bridge, node)
            assert (path is not None) == (node in known.get(bridge, {}))
            if path is not None:
                assert path[0] == bridge
                assert len(path) <= HOPS_MAX
                assert len({*path, node, ME}) == len(path) + 2


def link(peer: NodeId, path: tuple[NodeId, ...] = ()) -> LinkUp:
    return LinkUp(
        peer=peer, name="n", owner="o", caps=(), boot=b"", minor=MINOR, prekey=b"", address="192.0.2.1:9476", path=path
    )


@given(st.data())
def test_what_a_bridge_tells_is_what_its_peers_come_to_know(data: st.DataObject) -> None:
    """Links come and go; afterwards every peer knows just the ways that stand, and that are worth telling it."""
    bridge = Reaching(ME, bridging=True)
    links: dict[NodeId, LinkUp] = {}
    peers = {node: Reaching(node, bridging=False) for node in NODES[1:]}
    for peer in data.draw(st.lists(bridges, max_size=12)):
        if (gone := links.pop(peer, None)) is not None:
            told = bridge.link_down(gone, links)
            peers[peer].leave(ME)
        else:
            others = [node for node in NODES[1:] if node != peer]
            path = tuple(data.draw(st.lists(st.sampled_from(others), max_size=HOPS_MAX, unique=True)))
            links[peer] = link(peer, path)
            told = bridge.link_up(links[peer], links)
        for to, message in told:
            new, _ = peers[to].heard(ME, message)
            assert new == [way.node for way in message.ways]  # a bridge that is honest is believed
    for to, peer in peers.items():
        for node in NODES[1:]:
            known = peer.path(ME, node)
            if to in links and known is not None:
                assert known == (ME, *links[node].path)
                assert to not in known
            elif to in links and node in links and node != to:
                path = links[node].path
                assert len(path) == HOPS_MAX or to in path or links[to].path


@given(nodes, nodes)
def test_a_place_behind_a_bridge_is_read_as_it_was_written(bridge: NodeId, node: NodeId) -> None:
    assert is_via(via_address(bridge, node))
    assert parse_via(via_address(bridge, node)) == (bridge, node)
