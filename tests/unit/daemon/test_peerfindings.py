"""Doctor's words on the nodes that are seen: always with something to call them by, and no alarm where nothing is wrong."""

import msgspec
import pytest

from p2pq.core.views import PeerView
from p2pq.daemon.peerfindings import NAMELESS, of_peers
from p2pq.model.ids import NodeId, short
from p2pq.wire.session import NO_PEERING, REFUSED_EARLY, SENTENCES, WRONG_MESH
from p2pq.wire.trust import BANNED, EXPIRED, WRONG_ROOT

BOB, EVE = NodeId(b"b" * 32), NodeId(b"e" * 32)


def seen(node=None, name="", address="", state="refused", reason=REFUSED_EARLY):
    nothing = {
        "owner": "",
        "path": (),
        "slots": 0,
        "free": 0,
        "has_work": False,
        "profile": None,
        "boot": b"",
        "caps": (),
    }
    return PeerView(id=node, name=name, address=address, state=state, reason=reason, **nothing)


def findings(*peers):
    first, *rest = of_peers(peers, lambda node: node == EVE)
    assert (first.check, first.ok) == ("peers", True)
    assert {each.check for each in rest} <= {"peer"}
    return first.detail, rest


def test_those_that_are_linked_are_counted():
    up, down = seen(BOB, "bob", state="up", reason=""), seen(EVE, "eve", state="down", reason="")
    assert findings(up, up, down) == ("2 linked", [])


@pytest.mark.parametrize(
    ("peer", "called"),
    [
        (seen(BOB, "bob", "10.0.0.9:9476"), "bob"),
        (seen(BOB, "", "10.0.0.9:9476"), "10.0.0.9:9476"),
        (seen(BOB), short(BOB)),
        (seen(), NAMELESS),
    ],
)
@pytest.mark.parametrize("state", ["refused", "down", "connecting"])
@pytest.mark.parametrize("reason", [REFUSED_EARLY, BANNED])
def test_nobody_is_called_by_an_empty_name(peer, called, state, reason):
    _, [finding] = findings(msgspec.structs.replace(peer, state=state, reason=reason))
    assert finding.detail.startswith(f"{called} ")
    assert reason in finding.detail


@pytest.mark.parametrize("reason", [WRONG_MESH, REFUSED_EARLY])
def test_who_shares_no_key_is_a_fault_only_if_it_was_a_member(reason):
    _, [member] = findings(seen(BOB, "bob", reason=reason))
    assert not member.ok
    for stranger in (
        seen(BOB, reason=reason),
        seen(address="10.0.0.9:9476", reason=reason),
        seen(EVE, "eve", reason=reason),
    ):
        _, [finding] = findings(stranger)
        assert finding.ok
        assert SENTENCES[reason] in finding.detail
        assert "[[peer]]" in finding.suggestion


@pytest.mark.parametrize("reason", [NO_PEERING, WRONG_ROOT])
def test_a_node_that_is_of_another_mesh_is_no_fault(reason):
    _, [finding] = findings(seen(BOB, "bob", reason=reason))
    assert finding.ok


@pytest.mark.parametrize("reason", [EXPIRED, BANNED, "by-peer:banned"])
def test_any_other_refusal_is_a_fault(reason):
    _, [finding] = findings(seen(BOB, reason=reason))
    assert not finding.ok


def test_who_does_not_answer_in_time_may_be_behind_a_firewall():
    _, [slow, gone] = findings(
        seen(BOB, state="down", reason="timeout"), seen(EVE, state="connecting", reason="refused")
    )
    assert (slow.ok, gone.ok, gone.suggestion) == (True, True, "")
    assert "firewall" in slow.suggestion
