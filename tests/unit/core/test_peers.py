"""How other nodes are shown to people."""

import msgspec

from p2pq.core.peers import Peer, refusal, shown, up
from p2pq.core.reaching import via_address
from p2pq.wire import trust
from tests.unit.core.workerkit import ANN, BOB


def test_what_counts_as_a_refusal() -> None:
    assert refusal(trust.BANNED)
    assert refusal("by-peer:wrong-mesh-key")
    assert not refusal("connection refused")


def test_an_address_behind_a_bridge_is_not_shown() -> None:
    assert shown("192.0.2.1:9476") == "192.0.2.1:9476"
    assert shown(via_address(BOB.node, BOB.node)) == ""


def test_who_is_linked_is_up_and_behind_bridges_has_no_address() -> None:
    link = BOB.link(address="192.0.2.1:9476")
    near = Peer(
        id=BOB.node,
        name=link.name,
        owner=link.owner,
        address="192.0.2.1:9476",
        state="up",
        boot=link.boot,
        caps=link.caps,
    )
    assert up(link) == near
    far = msgspec.structs.replace(near, address="", path=(ANN.node,))
    assert up(msgspec.structs.replace(link, path=(ANN.node,))) == far
