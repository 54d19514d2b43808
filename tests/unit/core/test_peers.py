"""How other nodes are shown to people."""

from p2pq.core.peers import refusal, shown
from p2pq.core.reaching import via_address
from p2pq.wire import trust
from tests.unit.core.workerkit import BOB


def test_what_counts_as_a_refusal() -> None:
    assert refusal(trust.BANNED)
    assert refusal("by-peer:wrong-mesh-key")
    assert not refusal("connection refused")


def test_an_address_behind_a_bridge_is_not_shown() -> None:
    assert shown("192.0.2.1:9476") == "192.0.2.1:9476"
    assert shown(via_address(BOB.node, BOB.node)) == ""
