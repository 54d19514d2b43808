"""Who is linked, whom to dial, who is out."""

import msgspec
import pytest

from p2pq.core import bans, membership, reaching, suspects
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.addresses import PAUSE_MAX_S
from p2pq.core.peers import Peer
from p2pq.core.records import BanKept, MeshKeysKept, OwnerBanKept, PeerSeen, Restored
from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.model.notice import (
    BridgeSuspected,
    LinksFull,
    MeshKeyRotated,
    OwnerBanned,
    PeerBanned,
    PeerDown,
    PeerRefused,
    PeerUp,
)
from p2pq.wire import messages as msg
from p2pq.wire import trust
from tests.unit.core.membershipkit import (
    AWAY,
    CAT,
    DAN,
    HOME,
    NEW,
    ROOT,
    Bench,
    admin,
    ban,
    mesh_key,
)
from tests.unit.core.workerkit import ANN, BOB, ME, WALL, Member, send


@pytest.fixture
def bench() -> Bench:
    return Bench()


def seen(member: Member, *addresses: str) -> fx.Record:
    return fx.Record(row=PeerSeen(node=member.node, name=member.name, addresses=addresses or (HOME,)))


def up(member: Member, address: str = HOME) -> fx.Emit:
    return fx.Emit(notice=PeerUp(peer=member.node, name=member.name, address=address))


# -- links ---------------------------------------------------------------------------------------------------------------


def test_a_link_is_remembered_and_told(bench: Bench) -> None:
    assert bench.do(ANN.link(addresses=(AWAY,))) == [seen(ANN, HOME, AWAY), up(ANN)]
    assert bench.members.linked(ANN.node)
    assert bench.members.link(ANN.node) == ANN.link(addresses=(AWAY,))
    assert bench.do(BOB.link(address="")) == [
        fx.Record(row=PeerSeen(node=BOB.node, name="bob", addresses=())),
        up(BOB, ""),
        send(msg.Peers(addresses=((ANN.node, (HOME, AWAY)),)), BOB),
    ]


def test_a_link_that_breaks_is_dialled_again(bench: Bench) -> None:
    bench.do(ANN.link())
    assert bench.do(ev.LinkDown(peer=ANN.node, reason="reset")) == [
        fx.Emit(notice=PeerDown(peer=ANN.node, reason="reset"))
    ]
    assert bench.do(ev.LinkDown(peer=ANN.node)) == []
    assert bench.tick(after=0.75) == [fx.Dial(address=HOME, node=ANN.node)]
    bench.do(ANN.link(dialled=True))
    assert bench.members.deadline is None


def test_who_said_goodbye_is_not_dialled_soon_but_not_forgotten(bench: Bench) -> None:
    """It may be behind a wall that we can pass and it cannot."""
    bench.do(ANN.link())
    assert bench.says(msg.Leaving()) == []
    bench.do(ev.LinkDown(peer=ANN.node))
    assert bench.members.deadline is not None
    assert PAUSE_MAX_S / 2 <= bench.members.deadline - bench.now <= PAUSE_MAX_S


def test_links_are_bounded_and_it_is_said_once() -> None:
    bench = Bench(links_max=1)
    bench.do(ANN.link())
    hangup = fx.Hangup(peer=BOB.node, reason="links-full")
    assert bench.do(BOB.link()) == [hangup, fx.Emit(notice=LinksFull(links_max=1))]
    assert bench.do(BOB.link()) == [hangup]
    assert bench.do(ev.AddressSeen(addresses=(AWAY,), source="mdns", node=BOB.node)) == []
    bench.do(ANN.link(dialled=True))
    assert bench.do(ev.LinkDown(peer=ANN.node)) == [
        fx.Emit(notice=PeerDown(peer=ANN.node, reason="")),
        fx.Dial(address=AWAY, node=BOB.node),
    ]


def test_who_is_not_linked_is_not_heard(bench: Bench) -> None:
    assert bench.says(msg.Leaving()) == [fx.Drop(peer=ANN.node, reason="not linked")]


def test_what_concerns_others_is_ignored(bench: Bench) -> None:
    bench.do(ANN.link())
    assert bench.says(msg.Holding()) == []
    assert bench.do(ev.Drain()) == []
    assert bench.do(ev.Drain(now=True)) == [send(msg.Leaving())]


def test_memory_is_bounded_and_those_linked_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "REMEMBERED_MAX", 1)
    bench = Bench()
    bench.do(ANN.link())
    bench.do(ev.LinkDown(peer=ANN.node))
    bench.do(BOB.link(address=AWAY))
    names = [peer.name for peer in bench.members.peers()]
    assert names == ["bob", ""]


# -- addresses -----------------------------------------------------------------------------------------------------------


def test_a_hint_is_dialled(bench: Bench) -> None:
    assert bench.do(ev.AddressSeen(addresses=(HOME,), source="mdns", node=ANN.node)) == [
        fx.Dial(address=HOME, node=ANN.node)
    ]


def test_hints_about_this_node_or_one_that_is_linked_are_not_dialled(bench: Bench) -> None:
    bench.do(ANN.link())
    assert bench.do(ev.AddressSeen(addresses=(AWAY,), source="mdns", node=ME.node)) == []
    assert bench.do(ev.AddressSeen(addresses=(AWAY,), source="mdns", node=ANN.node)) == []
    assert bench.members.deadline is None


def test_peers_tell_of_peers(bench: Bench) -> None:
    bench.do(ANN.link())
    assert bench.says(msg.Peers(addresses=((BOB.node, (AWAY,)), (ME.node, (HOME,))))) == [
        fx.Dial(address=AWAY, node=BOB.node)
    ]


def test_remembered_peers_are_dialled_at_once() -> None:
    restored = Restored(peers=(seen(ANN).row, PeerSeen(node=ME.node, name="me", addresses=(AWAY,))))
    assert Bench(restored).tick() == [fx.Dial(address=HOME, node=ANN.node)]


def test_other_addresses_of_somebody_linked_are_not_dialled(bench: Bench) -> None:
    bench.do(ev.AddressSeen(addresses=(HOME, AWAY), source="config"))
    bench.do(ANN.link(address=HOME, addresses=(AWAY,), dialled=True))
    assert bench.tick(after=1.0) == []


def test_a_dial_that_was_given_up_is_not_repeated_once_linked(bench: Bench) -> None:
    bench.do(ev.AddressSeen(addresses=(HOME,), source="config", node=ANN.node))
    bench.do(ANN.link(address=AWAY))
    assert bench.tick(after=30.0) == []
    assert bench.tick(after=10.0) == []
    assert bench.members.deadline is None


def test_a_refusal_is_told_once(bench: Bench) -> None:
    bench.do(ev.AddressSeen(addresses=(HOME,), source="config"))
    refused = fx.Emit(notice=PeerRefused(address=HOME, reason="wrong-mesh-key"))
    failed = ev.DialFailed(address=HOME, reason="wrong-mesh-key")
    assert bench.do(failed) == [refused]
    assert bench.tick(after=1.0) == [fx.Dial(address=HOME)]
    assert bench.do(failed) == []
    assert bench.do(ev.DialFailed(address=HOME, reason="connection refused")) == []
    assert bench.do(ev.DialFailed(address=AWAY, reason="wrong-mesh-key", node=ANN.node)) == []


def test_this_very_node_is_never_dialled_again(bench: Bench) -> None:
    bench.do(ev.AddressSeen(addresses=(HOME,), source="config"))
    bench.do(ev.DialFailed(address=HOME, reason="self"))
    assert bench.members.deadline is None
    assert bench.members.peers() == ()


# -- bans ----------------------------------------------------------------------------------------------------------------


def gone(member: Member) -> tuple[fx.Hangup, fx.Emit]:
    """Return how the link of somebody ends who is out: at once, whatever is still on its way."""
    down = PeerDown(peer=member.node, reason="banned")
    return fx.Hangup(peer=member.node, reason="banned"), fx.Emit(notice=down)


def test_a_ban_of_the_user_ends_the_link_and_keeps_the_node_out(bench: Bench) -> None:
    bench.do(ANN.link())
    assert bench.do(ev.BanAsked(node=ANN.node, banned=True)) == [
        fx.Record(row=BanKept(node=ANN.node, banned=True)),
        fx.Emit(notice=PeerBanned(peer=ANN.node, banned=True, by="me")),
        *gone(ANN),
    ]
    assert bench.do(ev.BanAsked(node=ANN.node, banned=True)) == [fx.Record(row=BanKept(node=ANN.node, banned=True))]
    assert bench.says(msg.Leaving()) == [fx.Drop(peer=ANN.node, reason="not linked")]
    assert bench.do(ev.LinkDown(peer=ANN.node)) == []
    assert bench.members.deadline is None
    assert bench.do(ANN.link()) == [
        fx.Hangup(peer=ANN.node, reason="banned"),
        fx.Emit(notice=PeerRefused(address=HOME, reason="banned", peer=ANN.node)),
    ]
    assert not bench.members.linked(ANN.node)
    assert bench.do(ev.AddressSeen(addresses=(HOME,), source="mdns", node=ANN.node)) == []
    assert bench.do(ev.DialFailed(address=HOME, reason="timeout", node=ANN.node)) == []
    assert bench.do(ev.BanAsked(node=ANN.node, banned=False))[1] == fx.Emit(
        notice=PeerBanned(peer=ANN.node, banned=False, by="me")
    )
    assert bench.tick(after=0.75) == [fx.Dial(address=HOME, node=ANN.node)]


def test_a_signed_ban_is_believed_kept_and_passed_on(bench: Bench) -> None:
    bench.do(ANN.link())
    bench.do(BOB.link(address=AWAY))
    raw = ban(BOB.node)
    assert bench.says(msg.Bans(bans=(raw,))) == [
        fx.Record(row=BanKept(node=BOB.node, banned=True, issuer=ROOT.public, signed=raw)),
        send(msg.Bans(bans=(raw,)), BOB),
        fx.Emit(notice=PeerBanned(peer=BOB.node, banned=True, by="an admin")),
        *gone(BOB),
    ]
    assert bench.says(msg.Bans(bans=(raw,))) == []
    assert bench.members.banned(BOB.node)
    assert bench.do(CAT.link())[-1] == send(msg.Bans(bans=(raw,)), CAT)


def test_the_latest_word_of_each_admin_counts(bench: Bench) -> None:
    bench.do(ANN.link())
    bench.says(msg.Bans(bans=(ban(BOB.node, WALL),)))
    assert bench.says(msg.Bans(bans=(ban(BOB.node, WALL - 1, banned=False),))) == []
    assert bench.members.banned(BOB.node)
    by_ann = ban(BOB.node, issuer=ANN.signer, certs=(admin(ANN),))
    assert len(bench.says(msg.Bans(bans=(by_ann,)))) == 1
    bench.says(msg.Bans(bans=(ban(BOB.node, WALL + 1, banned=False),)))
    assert bench.members.banned(BOB.node)
    free = ban(BOB.node, WALL + 1, banned=False, issuer=ANN.signer, certs=(admin(ANN),))
    assert bench.says(msg.Bans(bans=(free,)))[-1] == fx.Emit(notice=PeerBanned(peer=BOB.node, banned=False, by="ann"))


def test_an_admin_asks_with_its_signature(bench: Bench) -> None:
    bench.do(ANN.link())
    raw = ban(BOB.node)
    assert bench.do(ev.BanAsked(node=BOB.node, banned=True, signed=raw)) == [
        fx.Record(row=BanKept(node=BOB.node, banned=True)),
        fx.Record(row=BanKept(node=BOB.node, banned=True, issuer=ROOT.public, signed=raw)),
        send(msg.Bans(bans=(raw,))),
        fx.Emit(notice=PeerBanned(peer=BOB.node, banned=True, by="me")),
    ]


def test_a_forged_ban_is_dropped(bench: Bench) -> None:
    bench.do(ANN.link())
    assert bench.says(msg.Bans(bans=(ban(BOB.node, issuer=CAT.signer),))) == [
        fx.Drop(peer=ANN.node, reason="ban: missing-certificate")
    ]
    assert bench.says(msg.Bans(bans=(b"garbage",))) == [fx.Drop(peer=ANN.node, reason="ban: malformed")]
    assert not bench.members.banned(BOB.node)


def test_bans_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans, "BANS_MAX", 1)
    bench.do(ANN.link())
    bench.says(msg.Bans(bans=(ban(BOB.node),)))
    assert bench.says(msg.Bans(bans=(ban(CAT.node),))) == [fx.Drop(peer=ANN.node, reason="ban: too many")]


def test_each_issuers_word_survives_a_restart_on_its_own() -> None:
    free = ban(BOB.node, WALL + 1, banned=False)
    rows = (
        BanKept(node=BOB.node, banned=True),
        BanKept(node=BOB.node, banned=False, issuer=ROOT.public, signed=free),
        BanKept(node=CAT.node, banned=True, issuer=b"void"),
    )
    bench = Bench(Restored(bans=rows))
    assert bench.members.banned(BOB.node)
    assert not bench.members.banned(CAT.node)


def test_bans_survive_a_restart() -> None:
    raw = ban(BOB.node)
    rows = (BanKept(node=BOB.node, banned=True, issuer=ROOT.public, signed=raw), BanKept(node=ANN.node, banned=True))
    bench = Bench(Restored(bans=rows, peers=(seen(ANN).row,)))
    assert bench.members.banned(BOB.node)
    assert bench.members.banned(ANN.node)
    assert bench.tick() == []
    with pytest.raises(Reject):
        Bench(Restored(bans=(BanKept(node=BOB.node, banned=True, signed=b"x"),)))


def test_a_ban_of_an_owner_puts_all_its_nodes_out_those_to_come_too(bench: Bench) -> None:
    raw = trust.issue_ban(ROOT, ROOT.public, "eve", at=Wall(WALL))
    bench.do(ANN.link(minor=NEW))
    bench.do(BOB.link(address=AWAY, owner="eve"))
    bench.do(CAT.link(minor=NEW, owner="eve"))
    kept = OwnerBanKept(owner="eve", banned=True, issuer=ROOT.public, signed=raw)
    assert bench.says(msg.Bans(bans=(raw,))) == [
        fx.Record(row=kept),
        send(msg.Bans(bans=(raw,)), CAT),  # bob is too old to know of such a thing
        fx.Emit(notice=OwnerBanned(owner="eve", banned=True, by="an admin")),
        *gone(BOB),
        *gone(CAT),
    ]
    assert [bench.members.banned(each.node) for each in (ANN, BOB, CAT, DAN)] == [False, True, True, False]
    assert bench.members.banned(DAN.node, "eve")
    assert "eve" in bench.members.bans
    assert [type(each) for each in bench.do(DAN.link(owner="eve"))] == [fx.Hangup, fx.Emit]
    assert not bench.members.linked(DAN.node)
    again = Bench(Restored(owner_bans=(kept,)))
    assert [type(each) for each in again.do(BOB.link(owner="eve"))] == [fx.Hangup, fx.Emit]
    free = trust.issue_ban(ROOT, ROOT.public, "eve", at=Wall(WALL + 1), banned=False)
    said = bench.says(msg.Bans(bans=(free,)))
    assert said[-1] == fx.Emit(notice=OwnerBanned(owner="eve", banned=False, by="an admin"))
    assert {each.address for each in bench.tick(after=1.0)} == {AWAY, HOME}


def test_the_user_bans_an_owner_here(bench: Bench) -> None:
    bench.do(ANN.link())
    assert bench.do(ev.OwnerBanAsked(owner="ann", banned=True)) == [
        fx.Record(row=OwnerBanKept(owner="ann", banned=True)),
        fx.Emit(notice=OwnerBanned(owner="ann", banned=True, by="me")),
        *gone(ANN),
    ]
    assert "ann" in bench.members.bans


def test_older_versions_are_told_of_nodes_only(bench: Bench) -> None:
    bench.do(ANN.link())
    owner = trust.issue_ban(ROOT, ROOT.public, "eve", at=Wall(WALL))
    bench.says(msg.Bans(bans=(owner, ban(CAT.node))))
    assert bench.do(BOB.link(address=AWAY))[-1] == send(msg.Bans(bans=(ban(CAT.node),)), BOB)


# -- mesh keys -----------------------------------------------------------------------------------------------------------


def rotated(*keys: bytes, by: str = "an admin") -> tuple[fx.Record, fx.Emit]:
    return fx.Record(row=MeshKeysKept(signed=keys)), fx.Emit(notice=MeshKeyRotated(by=by))


def test_a_new_mesh_key_is_kept_before_it_is_told_and_told_to_who_understands(bench: Bench) -> None:
    bench.do(ANN.link(minor=NEW))
    bench.do(BOB.link(address=AWAY))
    raw = mesh_key(1, issuer=ME.signer, certs=(admin(ME),))
    kept, said = rotated(raw, by="me")
    assert bench.do(ev.MeshKeyAsked(signed=raw)) == [kept, send(msg.MeshKeys(keys=(raw,))), said]
    assert bench.members.mesh_keys.psks == ((1).to_bytes(32, "big"),)
    assert bench.do(ev.MeshKeyAsked(signed=raw)) == []


def test_a_mesh_key_is_passed_on_but_not_back(bench: Bench) -> None:
    bench.do(ANN.link(minor=NEW))
    bench.do(BOB.link(address=AWAY, minor=NEW))
    one, two = mesh_key(1), mesh_key(2)
    kept, said = rotated(two, one)
    told = bench.says(msg.MeshKeys(keys=(two, one)))
    assert told == [kept, send(msg.MeshKeys(keys=(two, one)), BOB), said]
    assert bench.says(msg.MeshKeys(keys=(two, one)), BOB) == []


def test_who_is_banned_is_told_nothing(bench: Bench) -> None:
    bench.do(ev.BanAsked(node=CAT.node, banned=True))
    assert [type(each) for each in bench.do(CAT.link(minor=NEW))] == [fx.Hangup, fx.Emit]


def test_a_mesh_key_of_nobody_in_charge_is_dropped_and_the_others_count(bench: Bench) -> None:
    bench.do(ANN.link())
    forged = mesh_key(2, issuer=CAT.signer)
    kept, said = rotated(mesh_key(1))
    assert bench.says(msg.MeshKeys(keys=(forged, mesh_key(1)))) == [
        fx.Drop(peer=ANN.node, reason="mesh key: missing-certificate"),
        kept,
        said,
    ]
    bench.do(ev.BanAsked(node=CAT.node, banned=True))
    by_cat = mesh_key(3, issuer=CAT.signer, certs=(admin(CAT),))
    assert bench.says(msg.MeshKeys(keys=(by_cat,))) == [fx.Drop(peer=ANN.node, reason="mesh key: banned")]


def test_mesh_keys_survive_a_restart() -> None:
    assert Bench(Restored(mesh_keys=(mesh_key(1),))).members.mesh_keys.signed == (mesh_key(1),)
    with pytest.raises(Reject):
        Bench(Restored(mesh_keys=(b"x",)))


# -- for people ----------------------------------------------------------------------------------------------------------


def test_peers_are_shown_with_their_state(bench: Bench) -> None:
    bench.do(ANN.link())
    bench.do(BOB.link(address=AWAY))
    bench.do(ev.LinkDown(peer=BOB.node))
    other = "192.0.2.3:9476"
    bench.do(ev.AddressSeen(addresses=(other,), source="config"))
    linked = Peer(
        id=ANN.node, name="ann", owner="ann", address=HOME, state="up", boot=bytes(16), caps=("submit", "work")
    )
    down = Peer(id=BOB.node, name="bob", owner="bob", address=AWAY, state="down")
    assert bench.members.peers() == (linked, down, Peer(id=None, address=other, state="connecting"))
    bench.do(ev.DialFailed(address=other, reason="wrong-mesh-key"))
    bench.tick(after=0.75)
    bench.do(ev.DialFailed(address=AWAY, reason="timeout", node=BOB.node))
    bench.do(ev.DialFailed(address=other, reason="wrong-mesh-key"))
    assert bench.members.peers() == (
        linked,
        msgspec.structs.replace(down, reason="timeout"),
        Peer(id=None, address=other, state="refused", reason="wrong-mesh-key"),
    )
    bench.do(ev.BanAsked(node=BOB.node, banned=True))
    assert bench.members.peers()[1] == msgspec.structs.replace(down, state="refused", reason="banned")


def test_a_ban_that_was_kept_holds_after_a_start_with_a_clock_that_is_a_day_behind():
    tomorrow = WALL + 24 * 3600 * 1000
    row = BanKept(node=BOB.node, banned=True, signed=ban(BOB.node, tomorrow))
    assert Bench(Restored(bans=(row,))).members.banned(BOB.node)


# -- through bridges -----------------------------------------------------------------------------------------------------

GATE, GATE_2 = Member("gate"), Member("gate 2")
BRIDGE_CAPS = ("submit", "work", "bridge")


def bridge_link(member: Member = GATE, **fields) -> ev.LinkUp:
    return member.link(**({"address": "192.0.2.9:9476", "caps": BRIDGE_CAPS} | fields))


def via(node: Member, bridge: Member = GATE) -> str:
    return reaching.via_address(bridge.node, node.node)


def to(*members: Member) -> msg.Reach:
    return msg.Reach(number=1, ways=tuple(msg.Way(each.node) for each in members))


def someone(*, larger: bool) -> Member:
    """Return a member whose id is larger, or smaller, than that of this node."""
    names = (Member(f"member {number}") for number in range(100))
    return next(each for each in names if (each.node > ME.node) is larger)


LARGER = someone(larger=True)
SMALLER = someone(larger=False)


@pytest.fixture
def beside() -> Bench:
    """Give a node that is linked to a bridge."""
    bench = Bench()
    bench.do(bridge_link())
    return bench


def test_of_two_the_smaller_id_dials_through_a_bridge(beside: Bench) -> None:
    assert beside.says(to(LARGER), GATE) == [fx.Dial(address=via(LARGER), node=LARGER.node)]
    assert beside.says(to(SMALLER), GATE) == []
    assert beside.members.path(GATE.node, SMALLER.node) == (GATE.node,)


def test_the_path_is_as_long_as_the_bridge_says(beside: Bench) -> None:
    beside.says(msg.Reach(number=1, ways=(msg.Way(LARGER.node, (CAT.node,)),)), GATE)
    assert beside.members.path(GATE.node, LARGER.node) == (GATE.node, CAT.node)
    assert beside.members.path(GATE.node, BOB.node) == (GATE.node,)  # nothing was told


def test_a_direct_way_has_a_little_time_before_that_through_a_bridge(beside: Bench) -> None:
    assert beside.do(ev.AddressSeen(addresses=(AWAY,), source="mdns", node=LARGER.node)) == [
        fx.Dial(address=AWAY, node=LARGER.node)
    ]
    assert beside.says(to(LARGER), GATE) == []
    assert beside.tick(after=membership.VIA_AFTER_S - 0.1) == []
    assert beside.tick(after=0.1) == [fx.Dial(address=via(LARGER), node=LARGER.node)]


def test_a_direct_link_in_that_time_makes_the_other_needless(beside: Bench) -> None:
    beside.do(ev.AddressSeen(addresses=(AWAY,), source="mdns", node=LARGER.node))
    beside.says(to(LARGER), GATE)
    beside.do(LARGER.link(address=AWAY, dialled=True))
    assert beside.tick(after=60.0) == []
    assert beside.members.deadline is None


def test_who_is_linked_or_banned_is_not_dialled_through_a_bridge(beside: Bench) -> None:
    beside.do(LARGER.link(address=AWAY))
    assert beside.says(to(LARGER), GATE) == []
    beside.do(ev.LinkDown(peer=LARGER.node))
    beside.do(ev.BanAsked(node=LARGER.node, banned=True))
    assert beside.says(to(LARGER), GATE) == []
    assert beside.members.deadline is None


def test_a_link_that_breaks_comes_again_through_the_bridge(beside: Bench) -> None:
    beside.says(to(LARGER), GATE)
    beside.do(LARGER.link(address=via(LARGER), dialled=True, path=(GATE.node,)))
    assert beside.members.deadline is None
    beside.do(ev.LinkDown(peer=LARGER.node, reason="cut"))
    assert beside.tick(after=0.75) == [fx.Dial(address=via(LARGER), node=LARGER.node)]


def test_the_ways_end_with_the_link_to_the_bridge(beside: Bench) -> None:
    beside.says(to(LARGER), GATE)
    beside.do(ev.DialFailed(address=via(LARGER), reason="no-way", node=LARGER.node))
    assert beside.members.deadline is not None
    beside.do(ev.LinkDown(peer=GATE.node, reason="bye: leaving"))
    assert beside.tick(after=60.0) == [fx.Dial(address="192.0.2.9:9476", node=GATE.node)]
    assert [peer.id for peer in beside.members.peers()] == [GATE.node]
    assert beside.members.path(GATE.node, LARGER.node) == (GATE.node,)


def test_a_way_that_is_taken_back_is_not_dialled(beside: Bench) -> None:
    beside.says(to(LARGER), GATE)
    beside.do(ev.DialFailed(address=via(LARGER), reason="no-way", node=LARGER.node))
    assert beside.says(msg.Reach(number=2, gone=(LARGER.node,)), GATE) == []
    assert beside.members.deadline is None


def test_another_bridge_still_leads_there(beside: Bench) -> None:
    beside.do(bridge_link(GATE_2, address=AWAY))
    beside.says(to(LARGER), GATE)
    beside.says(to(LARGER), GATE_2)
    beside.do(ev.LinkDown(peer=GATE.node))
    assert beside.tick(after=membership.VIA_AFTER_S) == [
        fx.Dial(address="192.0.2.9:9476", node=GATE.node),
        fx.Dial(address=via(LARGER, GATE_2), node=LARGER.node),
    ]


def test_a_relayed_link_goes_on_looking_for_a_direct_way(beside: Bench) -> None:
    beside.do(ev.AddressSeen(addresses=(AWAY,), source="config", node=LARGER.node))
    beside.do(ev.DialFailed(address=AWAY, reason="unreachable", node=LARGER.node))
    beside.says(to(LARGER), GATE)
    beside.do(LARGER.link(address=via(LARGER), dialled=True, path=(GATE.node,)))
    for _ in range(3):
        assert beside.members.deadline is not None
        assert beside.members.deadline - beside.now <= PAUSE_MAX_S
        assert beside.tick(after=beside.members.deadline - beside.now) == [fx.Dial(address=AWAY, node=LARGER.node)]
        beside.do(ev.DialFailed(address=AWAY, reason="unreachable", node=LARGER.node))
    beside.do(ev.LinkDown(peer=LARGER.node, reason="replaced"))
    beside.do(LARGER.link(address=AWAY, dialled=True))
    assert beside.tick(after=60.0) == []
    assert beside.members.deadline is None


def test_a_dial_through_a_bridge_that_failed_is_not_repeated_once_linked(beside: Bench) -> None:
    beside.says(to(LARGER), GATE)
    beside.do(LARGER.link(address="", path=(GATE_2.node,)))
    beside.do(ev.DialFailed(address=via(LARGER), reason="already-linked", node=LARGER.node))
    assert beside.members.deadline is None


def test_places_behind_a_bridge_are_neither_remembered_nor_told(beside: Bench) -> None:
    beside.says(to(LARGER), GATE)
    assert beside.do(LARGER.link(address=via(LARGER), dialled=True, path=(GATE.node,))) == [
        fx.Record(row=PeerSeen(node=LARGER.node, name=LARGER.name, addresses=())),
        fx.Emit(notice=PeerUp(peer=LARGER.node, name=LARGER.name, address="", path=(GATE.node,))),
        send(msg.Peers(addresses=((GATE.node, ("192.0.2.9:9476",)),)), LARGER),
    ]
    assert beside.do(BOB.link(address=AWAY)) == [
        fx.Record(row=PeerSeen(node=BOB.node, name="bob", addresses=(AWAY,))),
        up(BOB, AWAY),
        send(msg.Peers(addresses=((GATE.node, ("192.0.2.9:9476",)),)), BOB),
    ]


def test_what_was_seen_of_a_peer_is_not_forgotten_for_what_it_says_through_a_bridge(beside: Bench) -> None:
    beside.do(LARGER.link(address=HOME))
    beside.do(ev.LinkDown(peer=LARGER.node))
    assert beside.do(LARGER.link(address="", addresses=(AWAY,), path=(GATE.node,)))[0] == seen(LARGER, AWAY, HOME)


def test_ways_of_who_may_not_be_a_bridge_are_dropped(bench: Bench) -> None:
    bench.do(GATE.link())
    assert bench.says(to(LARGER), GATE) == [fx.Drop(peer=GATE.node, reason="ways, though it may not be a bridge")]
    assert bench.members.deadline is None


def test_a_bridge_tells_of_its_links() -> None:
    bench = Bench(bridging=True)
    bench.do(ANN.link(minor=msg.MINOR))
    assert bench.do(BOB.link(address=AWAY, path=(CAT.node,)))[-1] == send(to_through(BOB, CAT))
    assert bench.do(ev.LinkDown(peer=BOB.node, reason="cut")) == [
        send(msg.Reach(number=2, gone=(BOB.node,))),
        fx.Emit(notice=PeerDown(peer=BOB.node, reason="cut")),
    ]


def to_through(member: Member, *path: Member) -> msg.Reach:
    return msg.Reach(number=1, ways=(msg.Way(member.node, tuple(each.node for each in path)),))


def test_people_see_the_bridges_and_no_places_behind_them(beside: Bench) -> None:
    beside.says(to(LARGER), GATE)
    unseen = Peer(id=LARGER.node, address="", state="connecting")
    assert beside.members.peers()[1:] == (unseen,)
    failed = ev.DialFailed(address=via(LARGER), reason="wrong-mesh-key", node=LARGER.node)
    assert beside.do(failed) == [
        fx.Emit(notice=PeerRefused(address="", reason="wrong-mesh-key", peer=LARGER.node)),
    ]
    beside.do(ev.AddressSeen(addresses=(AWAY,), source="mdns", node=LARGER.node))
    assert [peer.address for peer in beside.members.peers()[1:]] == [AWAY]
    beside.do(LARGER.link(address=via(LARGER), dialled=True, path=(GATE.node,)))
    assert [(peer.address, peer.path, peer.state) for peer in beside.members.peers()[1:]] == [("", (GATE.node,), "up")]


# -- bridges that are not to be trusted ------------------------------------------------------------------------------------


@pytest.fixture
def between(beside: Bench) -> Bench:
    """Give a node that is linked to two bridges, and over the first to a node behind both."""
    beside.do(bridge_link(GATE_2, address=AWAY))
    beside.says(to(LARGER), GATE)
    beside.says(to(LARGER), GATE_2)
    beside.do(LARGER.link(address=via(LARGER), dialled=True, path=(GATE.node,)))
    return beside


def suspected(bridge: Member, reason: str, peer: NodeId | None = LARGER.node) -> fx.Emit:
    return fx.Emit(notice=BridgeSuspected(bridge=bridge.node, reason=reason, peer=peer))


def test_after_a_bridge_altered_a_link_the_other_is_tried_first(between: Bench) -> None:
    assert between.do(ev.LinkDown(peer=LARGER.node, reason=ev.ALTERED)) == [
        fx.Emit(notice=PeerDown(peer=LARGER.node, reason=ev.ALTERED)),
        suspected(GATE, ev.ALTERED),
    ]
    reasons = {peer.id: peer.reason for peer in between.members.peers()}
    assert reasons[GATE.node] == "behind other bridges: altered"
    assert not reasons[GATE_2.node]
    assert between.tick(after=0.75) == [fx.Dial(address=via(LARGER, GATE_2), node=LARGER.node)]
    assert between.members.ways(LARGER.node) == (GATE_2.node, GATE.node)
    assert between.tick(after=membership.VIA_AFTER_S - 0.1) == []
    assert between.tick(after=0.1) == [fx.Dial(address=via(LARGER), node=LARGER.node)], "but it is tried as well"


def test_a_link_that_is_only_cut_is_tried_over_the_other_first_and_told_of_when_that_holds(between: Bench) -> None:
    assert between.do(ev.LinkDown(peer=LARGER.node, reason=ev.CUT)) == [
        fx.Emit(notice=PeerDown(peer=LARGER.node, reason=ev.CUT))
    ]
    assert between.tick(after=0.75) == [fx.Dial(address=via(LARGER, GATE_2), node=LARGER.node)]
    effects = between.do(LARGER.link(address=via(LARGER, GATE_2), dialled=True, path=(GATE_2.node,)))
    assert suspected(GATE, ev.CUT) in effects


def test_a_bridge_that_is_gone_is_not_suspected(between: Bench) -> None:
    between.do(ev.LinkDown(peer=LARGER.node, reason=ev.CUT))
    between.do(ev.LinkDown(peer=GATE.node, reason=ev.CUT))
    effects = between.do(LARGER.link(address=via(LARGER, GATE_2), dialled=True, path=(GATE_2.node,)))
    assert not [each for each in effects if isinstance(each, fx.Emit) and isinstance(each.notice, BridgeSuspected)]


def test_a_bridge_that_leads_elsewhere_is_told_of(between: Bench) -> None:
    between.do(ev.LinkDown(peer=LARGER.node, reason="bye: leaving"))
    failed = ev.DialFailed(address=via(LARGER, GATE_2), reason=ev.OTHER_NODE, node=LARGER.node)
    assert between.do(failed) == [suspected(GATE_2, ev.OTHER_NODE)]


def test_a_suspected_bridge_that_tells_of_a_node_waits_for_the_others(between: Bench) -> None:
    between.do(ev.Misserved(peer=GATE.node, reason=ev.OTHER_BYTES))
    other = next(each for each in (Member(f"other {number}") for number in range(100)) if each.node > ME.node)
    assert between.says(msg.Reach(number=2, ways=(msg.Way(other.node),)), GATE_2) == [
        fx.Dial(address=via(other, GATE_2), node=other.node)
    ]
    assert between.says(msg.Reach(number=2, ways=(msg.Way(other.node),)), GATE) == []
    assert between.members.ways(other.node) == (GATE_2.node, GATE.node)


def test_who_gives_other_bytes_is_told_of(between: Bench) -> None:
    assert between.do(ev.Misserved(peer=GATE.node, reason=ev.OTHER_BYTES)) == [suspected(GATE, ev.OTHER_BYTES, None)]
    between.do(ANN.link(address="192.0.2.3:9476"))
    for nobodys in (ANN, BOB):  # no bridge, and not linked
        assert between.do(ev.Misserved(peer=nobodys.node, reason=ev.OTHER_BYTES)) == [
            fx.Drop(peer=nobodys.node, reason=ev.OTHER_BYTES)
        ]
    assert between.members.ways(LARGER.node) == (GATE_2.node, GATE.node)
    between.tick(after=suspects.SUSPECT_S)
    assert between.members.ways(LARGER.node) == (GATE.node, GATE_2.node)
