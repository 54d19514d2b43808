"""Nodes of two meshes: who is let in, what they may do, who hears of what, and how it ends. docs/adr/0220."""

import msgspec
import pytest

from p2pq.core import abroad
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.reaching import is_via, via_address
from p2pq.model.ids import JobId, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import peering, session, sign, trust
from p2pq.wire.objects import PeerSide
from tests.unit.core.abroadkit import ALL, LIFE_MS, Mesh, Peer, World, ended, peer
from tests.unit.core.workerkit import OFFER, PROFILE, WALL

A, B, C = Mesh("lab-a"), Mesh("lab-b"), Mesh("lab-c")
EVE = NodeId(b"e" * 32)
YES = ("bridge", "submit", "work")
KNOWN = peer(A, B)
ID = sign.digest(KNOWN.offer)


@pytest.fixture
def world() -> World:
    return World()


def pair(world: World, ann: tuple[str, ...] = ("work",), bob: tuple[str, ...] = ("submit",)) -> tuple[Peer, Peer]:
    """Return an owner in one mesh and a worker in the other, who do with each other's mesh what is said."""
    return world.add(A, "ann", {B.id: ann} if ann else {}), world.add(B, "bob", {A.id: bob} if bob else {})


def tell(known: msg.PeeringKnown, *peers: Peer) -> None:
    for each in peers:
        each.do(ev.PeeringAsked(known=known))
        each.world.settle()


# -- peering and local policy must both say so ----------------------------------------------------------------------------


def test_a_job_runs_abroad_in_the_strict_sandbox_and_its_result_comes_back(world: World) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    assert world.link(ann, bob) == ""
    assert ann.sees(bob) == ("bob@lab-b", ("work",))
    assert bob.sees(ann) == ("ann@lab-a", ("submit",))
    ann.submit(only=bob.node, sandbox="none")
    world.wait(1)
    [start] = bob.starts
    assert (start.owner, start.sandbox, start.own, start.master) == ("ann@lab-a", "strict", False, ann.node)
    bob.exit(start)
    world.settle()
    assert world.collects == [(ann, start.lease)]
    ann.do(ev.Collected(lease=start.lease))
    world.settle()
    [task] = ann.core.tasks(JobId(start.job))
    assert task.state == "done"
    assert bob.core.policy().kept == ()
    assert not ann.drops + bob.drops


@pytest.mark.parametrize(
    ("ann", "bob", "sides"),
    [
        (("work",), ("work", "bridge"), {}),
        (("submit", "bridge"), ("submit",), {}),
        (YES, YES, {"ours": PeerSide(caps=("bridge", "work"))}),
        (YES, YES, {"theirs": PeerSide(caps=("bridge", "submit"))}),
        (YES, YES, {"ours": PeerSide(caps=YES, owners=("eve",))}),
        (YES, YES, {"theirs": PeerSide(caps=YES, owners=("eve",))}),
    ],
    ids=[
        "the worker takes nothing from there",
        "the owner sends nothing there",
        "ours may not submit",
        "theirs may not work",
        "not this owner",
        "not this worker",
    ],
)
def test_nothing_runs_unless_all_say_so(world: World, ann: tuple, bob: tuple, sides: dict) -> None:
    owner, worker = pair(world, ann, bob)
    tell(peer(A, B, **sides), owner, worker)
    assert world.link(owner, worker) == ""
    owner.submit(only=worker.node)
    world.wait(3)
    assert worker.starts == []


@pytest.mark.parametrize("abroad", [True, False], ids=["from abroad", "of the own mesh"])
def test_less_than_strict_is_for_the_own_mesh_only(world: World, *, abroad: bool) -> None:
    """Whatever a job asks for and a machine has to offer."""
    ann, bob = world.add(A if abroad else B, "ann", {B.id: YES}), world.add(B, "bob", {A.id: YES})
    bob.do(msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, sandbox="basic")))
    tell(KNOWN, *((ann, bob) if abroad else (bob,)))
    assert world.link(ann, bob) == ""
    ann.submit(only=bob.node, sandbox="basic")
    world.wait(3)
    assert [start.sandbox for start in bob.starts] == ([] if abroad else ["basic"])


def test_a_certificate_lets_nobody_do_more_abroad_than_at_home(world: World) -> None:
    ann = world.add(A, "ann", {B.id: YES}, caps=("work",))
    bob = world.add(B, "bob", {A.id: YES}, caps=("submit",))
    tell(KNOWN, ann, bob)
    assert world.link(ann, bob) == ""
    assert (ann.sees(bob)[1], bob.sees(ann)[1]) == (("submit",), ("work",))


def test_without_a_peering_or_a_word_of_this_node_there_is_no_link(world: World) -> None:
    ann, bob = pair(world)
    silent = world.add(B, "silent")
    assert world.link(ann, bob) == session.NO_PEERING
    tell(KNOWN, ann, silent)
    assert world.link(ann, bob) == session.WRONG_MESH, "bob has not heard of it"
    assert world.link(ann, silent) == session.WRONG_MESH, "silent has nothing to do with that mesh"
    assert world.link(silent, ann) == session.NO_PEERING


def test_a_peering_leads_to_no_third_mesh(world: World) -> None:
    """Whoever peers with our peer is nobody to us, and the words of a peering of others are not taken in."""
    ann, cat = world.add(A, "ann", {B.id: YES, C.id: YES}), world.add(C, "cat", {A.id: YES, B.id: YES})
    tell(KNOWN, ann)
    tell(peer(B, C), cat, ann)
    assert [each.name for each in ann.core.abroad.peerings.all()] == ["lab-b"]
    assert ann.drops == [fx.Drop(peer=ann.node, reason=f"peering: {peering.NOT_OURS}")]
    assert world.link(ann, cat) == world.link(cat, ann) == session.NO_PEERING


def test_the_key_of_a_peering_lets_in_nobody_by_itself(world: World) -> None:
    """Who has read the file, with a certificate of a mesh of their own, knocks in vain."""
    ann, _ = pair(world)
    tell(KNOWN, ann)
    mallory = world.add(C, "mallory")
    [found] = ann.core.foreign(world.now)
    opened = peering.open_known(KNOWN, B.root.public, WALL)
    forged = session.Mesh(root=A.root.public, psks=(opened.key,), is_banned=trust.nobody, foreign=found.foreign)
    dialler = session.Initiator(mallory.local(), forged, mallory.entropy)
    answerer = session.Responder(ann.local(), ann.own(), ann.entropy, ann.core.foreign(world.now))
    last = dialler.receive(answerer.receive(dialler.start(), WALL), WALL)
    with pytest.raises(session.HandshakeRefused) as refusal:
        answerer.receive(last, WALL)
    assert refusal.value.reason == trust.WRONG_ROOT


# -- how it spreads, and how it ends ----------------------------------------------------------------------------------


def row(world: World, *, batching: bool = False) -> tuple[Peer, Peer, Peer, Peer]:
    """Return two linked nodes of each mesh; the middle ones are linked, too, and may be bridges."""
    gates = {"caps": YES, "batching": batching}
    ann, gate_a = world.add(A, "ann", {B.id: YES}), world.add(A, "gate-a", {B.id: YES}, **gates)
    gate_b, bob = world.add(B, "gate-b", {A.id: YES}, **gates), world.add(B, "bob", {A.id: YES})
    assert world.link(ann, gate_a) == world.link(gate_b, bob) == ""
    tell(KNOWN, gate_a, gate_b)
    assert world.link(gate_a, gate_b) == ""
    return ann, gate_a, gate_b, bob


def test_a_peering_spreads_within_both_meshes(world: World) -> None:
    assert [each.core.abroad.peerings.known(ID) for each in row(world)] == [KNOWN] * 4


def test_what_was_said_while_nobody_listened_is_compared_later(world: World) -> None:
    ann, bob = pair(world)
    other = world.add(A, "other")
    tell(KNOWN, ann)
    assert world.link(ann, other) == ""
    assert other.core.abroad.peerings.known(ID) == KNOWN
    over = ended(KNOWN, A)
    other.core.handle(ev.PeeringAsked(known=over), world.now)  # and nobody is told
    world.said.clear()
    world.wait(61)
    assert ann.core.abroad.peerings.known(ID) == over
    assert not bob.core.abroad.peerings.all()


def test_bridges_lead_from_one_mesh_to_the_other(world: World) -> None:
    ann, gate_a, gate_b, bob = row(world)
    assert world.link(*by_id(gate_b, ann), path=(gate_a,)) == ""
    assert world.link(*by_id(gate_a, bob), path=(gate_b,)) == ""
    for one, other, bridge in ((ann, bob, gate_a), (bob, ann, gate_b)):
        if one.node < other.node:
            assert fx.Dial(address=via_address(bridge.node, other.node), node=other.node) in after(world, one)
        assert one.core.abroad.mesh_of(other.node) == other.mesh.id


def test_bridges_that_batch_speak_within_their_own_mesh_and_carry_links_of_the_other(world: World) -> None:
    ann, gate_a, gate_b, bob = row(world, batching=True)
    amy = world.add(A, "amy", {B.id: YES})
    assert world.link(amy, gate_a) == ""
    assert world.link(*by_id(gate_a, bob), path=(gate_b,)) == ""
    assert world.link(*by_id(gate_b, ann), path=(gate_a,)) == world.link(*by_id(gate_b, amy), path=(gate_a,)) == ""
    world.wait(4)
    shown = [(source, target, message) for source, target, message in world.heard if isinstance(message, msg.MasterIs)]
    assert {(source.mesh.name, target.mesh.name) for source, target, _ in shown} == {(A.name, A.name)}
    for _, target, message in shown:
        assert trust.verify_chain(message.certs, target.mesh.root.public, WALL, trust.nobody)
    assert {(target.name, message.node) for _, target, message in world.heard if isinstance(message, msg.Through)} >= {
        ("gate-a", ann.node),
        ("gate-a", amy.node),
    }
    for one, other, bridge in ((ann, bob, gate_a), (amy, bob, gate_a), (bob, ann, gate_b), (bob, amy, gate_b)):
        if one.node < other.node:
            assert fx.Dial(address=via_address(bridge.node, other.node), node=other.node) in one.dials
    assert not [dial for dial in (*ann.dials, *amy.dials) if dial.node in {ann.node, amy.node} and is_via(dial.address)]
    assert world.link(ann, bob, (gate_a, gate_b)) == ""
    ann.submit(1, only=bob.node)
    ann.submit(2, only=amy.node)
    world.wait(2)
    assert [start.owner for start in bob.starts] == ["ann@lab-a"]
    assert [(start.owner, start.master) for start in amy.starts] == [("ann", ann.node)]


def test_a_bridge_of_either_mesh_is_suspected_for_what_only_a_bridge_can_have_done(world: World) -> None:
    ann, gate_a, gate_b, bob = row(world)
    tell(KNOWN, ann)
    assert world.link(*by_id(gate_a, bob), path=(gate_b,)) == ""
    assert world.link(ann, gate_b) == world.link(ann, bob, (gate_b,)) == ""
    ann.do(ev.LinkDown(peer=bob.node, reason=ev.ALTERED))
    reasons = {view.name: view.reason for view in ann.core.peers(world.now) if view.state == "up"}
    assert reasons == {"gate-a": "", "gate-b": "behind other bridges: altered"}
    assert ann.core.ways(bob.node) == (gate_a.node, gate_b.node)
    world.wait(1)
    ann.do(ev.Misserved(peer=gate_a.node, reason=ev.OTHER_BYTES))
    assert ann.core.ways(bob.node) == (gate_b.node, gate_a.node), "the one that was suspected longest ago comes first"


def by_id(one: Peer, other: Peer) -> tuple[Peer, Peer]:
    return (one, other) if one.node < other.node else (other, one)


def after(world: World, one: Peer) -> list[fx.Dial]:
    world.wait(4)
    return one.dials


def test_a_bridge_leads_nobody_from_one_other_mesh_to_the_next(world: World) -> None:
    gate = world.add(A, "gate", {B.id: YES, C.id: YES}, caps=YES)
    bob, cat = world.add(B, "bob", {A.id: YES, C.id: YES}), world.add(C, "cat", {A.id: YES, B.id: YES})
    tell(KNOWN, gate, bob)
    tell(peer(A, C), gate, cat)
    tell(peer(B, C), bob, cat)
    assert world.link(gate, bob) == world.link(gate, cat) == ""
    ann = world.add(A, "ann")
    assert world.link(gate, ann) == ""
    world.wait(4)
    assert not [dial for each in (bob, cat) for dial in each.dials if is_via(dial.address)]
    told = {
        (target.name, world.by_node[NodeId(way.node)].name)
        for _, target, message in world.heard
        if isinstance(message, msg.Reach)
        for way in message.ways
    }
    assert told == {("bob", "ann"), ("cat", "ann"), ("ann", "bob"), ("ann", "cat")}


def test_a_bridge_joins_its_own_mesh_with_one_that_it_carries_for(world: World) -> None:
    gate = world.add(A, "gate", {B.id: YES, C.id: ("work",)}, caps=YES)
    ann, amy = world.add(A, "ann"), world.add(A, "amy")
    bob, ben = world.add(B, "bob", {A.id: YES}), world.add(B, "ben", {A.id: YES})
    cat = world.add(C, "cat", {A.id: YES})
    tell(KNOWN, gate, bob, ben)
    tell(peer(A, C), gate, cat)
    assert [world.link(gate, each) for each in (ann, amy, bob, ben, cat)] == [""] * 5
    everybody = (ann, amy, bob, ben, cat)
    joined = {
        (one.name, other.name)
        for one in everybody
        for other in everybody
        if gate.core.abroad.joins(one.node, other.node)
    }
    assert joined == {(one, other) for one in ("ann", "amy") for other in ("ann", "amy", "bob", "ben")} | {
        (one, other) for one in ("bob", "ben") for other in ("ann", "amy")
    }


def test_who_carries_nothing_says_nothing(world: World) -> None:
    gate = world.add(A, "gate", {B.id: ("work",)}, caps=YES)
    ann, bob = world.add(A, "ann", {B.id: YES}), world.add(B, "bob", {A.id: YES})
    tell(KNOWN, gate, bob)
    assert world.link(ann, gate) == world.link(gate, bob) == ""
    world.wait(4)
    assert not [dial for each in (ann, bob) for dial in each.dials if is_via(dial.address)]


@pytest.mark.parametrize("by", [A, B], ids=["ours", "theirs"])
def test_after_its_end_nothing_runs_and_nobody_comes_back(world: World, by: Mesh) -> None:
    ann, gate_a, gate_b, bob = row(world)
    assert world.link(ann, bob, (gate_a, gate_b)) == ""
    job = ann.submit(only=bob.node)
    world.wait(1)
    [start] = bob.starts
    tell(ended(KNOWN, by), ann if by is A else bob)
    assert bob.kills == [fx.Kill(lease=start.lease, master=ann.node, reason="banned")]
    for one, other in ((ann, bob), (gate_a, gate_b)):
        assert not one.linked(other)
        assert not other.linked(one)
        assert world.link(one, other) == world.link(other, one) == session.NO_PEERING
    [task] = ann.core.tasks(job)
    assert task.state == "pending"
    tell(KNOWN, ann, bob, gate_a, gate_b)
    assert world.link(ann, bob) == session.NO_PEERING, "what was ended does not begin again"
    for each in (ann, bob):
        each.boot()
    assert world.link(ann, bob) == session.NO_PEERING, "nor after a restart"


def test_a_link_that_comes_up_as_its_peering_ends_is_none(world: World) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    assert world.link(ann, bob) == ""
    link = bob.core.abroad._links[ann.node]
    tell(ended(KNOWN, A), bob)
    world.said.clear()
    bob.do(link)
    assert not bob.linked(ann)
    assert list(world.said) == [(bob, ann, None)]


def test_it_lapses_with_its_time(world: World) -> None:
    ann, bob = pair(world)
    tell(peer(A, B, exp=WALL + 100_000), ann, bob)
    assert world.link(ann, bob) == ""
    ann.submit(only=bob.node)
    world.wait(1)
    assert len(bob.starts) == 1
    world.at(60)
    assert ann.linked(bob)
    world.at(120)
    assert not ann.linked(bob)
    assert not bob.linked(ann)
    assert len(bob.kills) == 1
    assert world.link(ann, bob) == session.NO_PEERING


def test_a_new_peering_takes_the_place_of_an_ended_one(world: World) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    tell(peer(A, B, at=WALL + 1), ann, bob)
    assert world.link(ann, bob) == ""
    ann.submit(only=bob.node)
    world.wait(1)
    assert len(bob.starts) == 1
    tell(ended(peer(A, B, at=WALL + 1), A, at=WALL + 2), ann, bob)
    assert not ann.linked(bob), "that link was made by the one that has ended"
    assert bob.kills == []
    assert world.link(ann, bob) == "", "the other one holds"


@pytest.mark.parametrize("wait_s", [0.0, 130.0], ids=["at once", "later"])
def test_a_new_peering_links_at_once_whom_the_ended_one_let_in(world: World, wait_s: float) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    assert world.link(ann, bob) == ""
    tell(ended(KNOWN, A), ann, bob)
    failed = ev.DialFailed(address="192.0.2.2:1", reason="unreachable", node=bob.node)
    for _ in range(6):  # what was tried in vain meanwhile does not make it wait
        ann.do(failed)
    world.wait(wait_s)
    assert ann.dials == []
    tell(peer(A, B, at=world.wall + 1), ann, bob)
    assert ann.dials == [fx.Dial(address="192.0.2.2:1", node=bob.node)]
    assert ann.core.abroad.mesh_of(bob.node) == B.id, "or it would be dialled by the key of our own mesh"
    assert world.link(ann, bob) == ""


def test_a_new_peering_dials_at_once_where_nobody_knows_who_is_there(world: World) -> None:
    ann, _ = pair(world)
    ann.do(ev.AddressSeen(addresses=("192.0.2.9:1",), source="config"))
    assert len(ann.dials) == 1
    for _ in range(8):
        ann.do(ev.DialFailed(address="192.0.2.9:1", reason="refused-early"))
    tell(KNOWN, ann)
    assert len(ann.dials) == 2
    tell(peer(A, B, at=WALL + 1), ann)
    ann.do(ev.DialFailed(address="192.0.2.9:1", reason="refused-early"))
    tell(peer(A, B, at=WALL + 2), ann)
    assert len(ann.dials) == 2, "one that held before, too, is no news"


def test_bridges_lead_to_the_other_mesh_again_under_a_new_peering(world: World) -> None:
    ann, gate_a, gate_b, bob = row(world)
    low, high = by_id(ann, bob)
    near, far = (gate_a, gate_b) if low is ann else (gate_b, gate_a)
    assert world.link(*by_id(far, low), path=(near,)) == world.link(*by_id(near, high), path=(far,)) == ""
    assert world.link(low, high, (near, far)) == ""
    tell(ended(KNOWN, A), ann)
    world.wait(130)
    low.dials.clear()
    tell(peer(A, B, at=WALL + 130_000), gate_a, gate_b)
    assert world.link(gate_a, gate_b) == ""
    assert world.link(*by_id(far, low), path=(near,)) == world.link(*by_id(near, high), path=(far,)) == ""
    assert fx.Dial(address=via_address(near.node, high.node), node=high.node) in after(world, low)
    assert low.core.abroad.mesh_of(high.node) == high.mesh.id


def test_a_way_that_is_told_before_the_peering_is_kept_until_that_comes(world: World) -> None:
    ann = world.add(A, "ann", {B.id: YES})
    gate = world.add(A, "gate", caps=YES)
    assert world.link(ann, gate) == ""
    target = NodeId(b"\xff" * 32)
    ann.do(ev.Received(peer=gate.node, message=msg.Reach(number=99, ways=(msg.Way(target),), meshes=(B.id,))))
    world.wait(70)
    assert not [dial for dial in ann.dials if dial.node == target]
    tell(peer(A, B, at=WALL + 70_000), ann)
    assert fx.Dial(address=via_address(gate.node, target), node=target) in ann.dials


def test_whoever_parted_is_forgotten_in_time_and_when_it_is_of_ours(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = world.add(A, "ann", {B.id: YES})
    bobs = [world.add(B, f"bob-{number}", {A.id: YES}) for number in range(3)]
    known = peer(A, B, at=world.wall)
    tell(known, ann, *bobs)
    for bob in bobs:
        assert world.link(ann, bob) == ""
    tell(ended(known, A, at=world.wall), ann, *bobs)
    monkeypatch.setattr(abroad, "NODES_MAX", 2)
    world.at(60)
    ann.dials.clear()
    moved = Peer(world, A, bobs[2].name, {})
    world.peers[world.peers.index(bobs[2])] = world.by_node[moved.node] = moved
    assert world.link(ann, moved) == ""
    tell(peer(A, B, at=world.wall + 1), ann)
    assert {dial.node for dial in ann.dials} == {bobs[1].node}


def test_of_two_peerings_both_ends_use_the_one_that_the_dialling_one_chose(world: World) -> None:
    ann, bob = pair(world)
    later = peer(A, B, at=WALL + 1)
    tell(KNOWN, ann, bob)
    tell(later, ann, bob)
    for one, other in ((ann, bob), (bob, ann)):
        assert world.link(one, other) == ""
        used = {here.core.abroad._links[there.node].peering for here, there in ((one, other), (other, one))}
        assert used == {sign.digest(later.offer)}
        for here, there in ((one, other), (other, one)):
            here.do(ev.LinkDown(peer=there.node))


# -- who is out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "subject"),
    [
        (A, "node"),
        (A, "ann"),
        (B, "node"),
        (B, "ann@lab-a"),
    ],
)
def test_bans_of_either_mesh_count_on_both_sides(world: World, by: Mesh, subject: str) -> None:
    """A ban that was said where only one side hears it crosses the bridges, stops what runs, and bars the way back."""
    ann, gate_a, gate_b, bob = row(world)
    assert world.link(ann, bob, (gate_a, gate_b)) == ""
    ann.submit(only=bob.node)
    world.wait(1)
    [start] = bob.starts
    raw = by.ban(ann.node if subject == "node" else subject)
    asked = ev.BanAsked(node=ann.node, banned=False, signed=raw)
    (gate_a if by is A else gate_b).do(asked)
    world.settle()
    assert bob.kills[:1] == [fx.Kill(lease=start.lease, master=ann.node, reason="banned")]
    assert not bob.linked(ann)
    assert world.link(ann, bob) in {trust.BANNED, "by-peer:banned"}
    bob.boot()
    assert world.link(ann, bob) in {trust.BANNED, "by-peer:banned"}


@pytest.mark.parametrize("lies", [False, True], ids=["linked", "claimed"])
def test_nobody_abroad_says_who_of_ours_is_out(world: World, *, lies: bool) -> None:
    """Neither the admins of another mesh, nor a bridge there that claims members of ours first, nor the end of it all."""
    ann, gate = world.add(A, "ann", {B.id: YES}), world.add(B, "gate", {A.id: YES}, caps=YES)
    own = world.add(A, "own")
    tell(KNOWN, ann, gate)
    assert world.link(ann, gate) == ""
    assert world.link(ann, own) == ""
    ann.submit(only=own.node)
    world.wait(1)
    assert len(own.starts) == 1
    if lies:
        ann.do(ev.LinkDown(peer=own.node))
        del ann.core._membership._remembered[own.node]
        ann.do(ev.Received(peer=gate.node, message=msg.Reach(number=99, ways=(msg.Way(own.node),))))
        assert ann.core.abroad.mesh_of(own.node) == B.id
    gate.do(ev.BanAsked(node=EVE, banned=False, signed=B.ban(own.node)))
    world.settle()
    assert ann.core.abroad.peerings.is_banned(B.id, own.node, "")
    assert not ann.core.banned(own.node)
    tell(ended(KNOWN, A), ann)
    world.said.clear()
    if lies:
        own.do(ev.LinkDown(peer=ann.node))
        assert world.link(ann, own) == ""
    world.wait(1)
    assert own.kills == []
    [task] = ann.core.tasks(ann.core.jobs()[0].job)
    assert (task.state, task.attempts) == ("running", 1)


@pytest.mark.parametrize("by", [A, B], ids=["ours", "theirs"])
def test_bans_that_were_lost_on_the_way_are_compared_within_and_across(world: World, by: Mesh) -> None:
    everybody = ann, gate_a, gate_b, bob = row(world)
    teller = ann if by is A else bob
    raw = by.ban(EVE)
    teller.core.handle(ev.BanAsked(node=EVE, banned=False, signed=raw), world.now)  # and nobody is told
    world.said.clear()
    for _ in everybody:  # a minute for each hop, at most
        world.at(world.now + 60)
    assert [_knows(each, by) for each in everybody] == [True] * 4
    assert gate_a.linked(gate_b)
    world.heard.clear()
    world.at(world.now + 60)
    assert {type(message) for _, _, message in world.heard} == {msg.Heads}, "who knows the same has nothing more to say"


def _knows(one: Peer, by: Mesh) -> bool:
    bans = one.core._membership.bans if one.mesh is by else one.core.abroad.peerings.bans(by.id)
    return bans is not None and EVE in bans


def test_what_is_asked_of_a_third_mesh_is_not_answered(world: World) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    tell(peer(A, C), ann)
    assert world.link(ann, bob) == ""
    ann.do(ev.BanAsked(node=EVE, banned=False, signed=C.ban(EVE)))
    world.settle()
    world.heard.clear()
    for mesh in (C.id, C.id, b"", b"?"):
        ann.do(ev.Received(peer=bob.node, message=msg.BansKnown(mesh=mesh)))
    zero = bytes(32)
    heads = msg.Heads(
        bans=zero, mesh_keys=zero, foreign=((C.id, zero),), peerings=ann.core.abroad.peerings.head(world.wall, B.id)
    )
    ann.do(ev.Received(peer=bob.node, message=heads))
    assert list(world.said) == []


def test_who_is_in_again_is_in_again_abroad(world: World) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    bob.do(ev.Received(peer=ann.node, message=msg.Bans(bans=())))
    for at, banned in ((WALL, True), (WALL + 1, False)):
        raw = trust.issue_ban(A.admin, A.root.public, ann.node, at=Wall(at), banned=banned, certs=A.chain)
        bob.do(ev.BanAsked(node=EVE, banned=False, signed=raw))
        assert (world.link(ann, bob) == "") is not banned


@pytest.mark.parametrize("raw", [C.ban(b"e" * 32), B.ban(b"e" * 32, WALL + 10_000_000)], ids=["third mesh", "future"])
def test_bans_that_mean_nothing_here_are_dropped(world: World, raw: bytes) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    assert world.link(ann, bob) == ""
    ann.do(ev.Received(peer=bob.node, message=msg.Bans(bans=(raw, raw))))
    assert [drop.reason.split(":")[0] for drop in ann.drops] == ["ban", "ban"]
    assert ann.linked(bob)


def test_no_more_nodes_abroad_are_remembered_than_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abroad, "NODES_MAX", 3)
    ann, gate_a, gate_b, _ = row(world)
    ways = tuple(msg.Way(bytes([number]) * 32) for number in range(1, 6))
    gate_a.do(ev.Received(peer=gate_b.node, message=msg.Reach(number=99, ways=ways)))
    known = [gate_a.core.abroad.mesh_of(NodeId(node)) for node in (gate_b.node, *(way.node for way in ways))]
    assert known == [B.id, b"", b"", b"", B.id, B.id]
    assert gate_a.core.abroad.realm(gate_b.node) == "lab-b"
    assert gate_a.core.abroad.realm(ann.node) == gate_a.core.abroad.realm(None) == ""


def test_a_namesake_abroad_is_somebody_else(world: World) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    bob.do(ev.OwnerBanAsked(owner="ann", banned=True))
    assert world.link(ann, bob) == ""
    ann.submit(only=bob.node)
    world.wait(1)
    assert [start.owner for start in bob.starts] == ["ann@lab-a"]


@pytest.mark.parametrize("by", [A, B], ids=["ours", "theirs"])
def test_what_a_banned_admin_signed_does_not_hold(world: World, by: Mesh) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    assert world.link(ann, bob) == ""
    for each in (ann, bob):
        if each.mesh is by:
            each.do(ev.BanAsked(node=by.admin.public, banned=True))
    world.at(60)
    assert not (ann.linked(bob) and bob.linked(ann))
    assert ann.core.foreign(world.now) == () or bob.core.foreign(world.now) == ()


# -- what is no business of another mesh ------------------------------------------------------------------------------


def test_addresses_and_keys_stay_at_home(world: World) -> None:
    ann, bob = pair(world)
    other = world.add(A, "other")
    tell(KNOWN, ann, bob)
    assert world.link(ann, other) == world.link(ann, bob) == ""
    heard = [message for source, _, message in said(world, ann, bob) if source is ann]
    assert not any(isinstance(each, msg.Peers | msg.MeshKeys) for each in heard)
    assert other.node not in {each.id for each in bob.core.peers(world.now)}
    for message in (msg.Peers(addresses=((other.node, ("192.0.2.9:1",)),)), msg.MeshKeys(keys=())):
        bob.do(ev.Received(peer=ann.node, message=message))
    assert [drop.reason for drop in bob.drops] == ["not for another mesh to say"] * 2
    assert [each.node for each in bob.disk.restored().peers] == []


def said(world: World, one: Peer, other: Peer) -> list:
    """Link them anew, and return all that is said."""
    for each, peer_ in ((one, other), (other, one)):
        each.do(ev.LinkDown(peer=peer_.node))
    heard: list = []

    class Tap(type(world.said)):  # type: ignore[misc]
        def append(self, what) -> None:
            heard.append(what)
            super().append(what)

    world.said = Tap()
    world.link(one, other)
    return heard


@pytest.mark.parametrize("lie", ["a node of ours", "of a third mesh", "a mesh that nobody named"])
def test_a_bridge_abroad_speaks_for_its_own_mesh_only(world: World, lie: str) -> None:
    _, gate_a, gate_b, _ = row(world)
    own = world.add(A, "own")
    assert world.link(gate_a, own) == ""
    target = own.node if lie == "a node of ours" else b"x" * 32
    mesh = {"a node of ours": b"", "of a third mesh": C.id}.get(lie, b"m" * 32)
    reach = msg.Reach(number=99, ways=(msg.Way(target),), meshes=(mesh,))
    gate_a.do(ev.Received(peer=gate_b.node, message=reach))
    assert gate_a.core.abroad.mesh_of(target) == b""
    assert not [dial for dial in after(world, gate_a) if dial.node == target and is_via(dial.address)]


def test_a_node_that_proved_to_be_of_ours_is_not_talked_abroad(world: World) -> None:
    ann, gate_a, gate_b, bob = row(world)
    gate_a.do(ev.Received(peer=gate_b.node, message=msg.Reach(number=99, ways=(msg.Way(ann.node),))))
    assert gate_a.core.abroad.mesh_of(ann.node) == b""
    assert world.link(ann, bob, (gate_a, gate_b)) == ""
    ann.do(ev.LinkDown(peer=bob.node))
    ann.do(ev.Received(peer=gate_a.node, message=msg.Reach(number=99, ways=(msg.Way(bob.node),))))
    assert ann.core.abroad.mesh_of(bob.node) == B.id


def test_a_bridge_of_ours_knows_better_than_one_abroad_who_is_of_ours(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, gate_a, gate_b, _ = row(world)
    second = world.add(A, "second", {B.id: YES}, caps=YES)
    assert world.link(gate_a, second) == ""
    hidden = NodeId(b"\xff" * 32)
    reach = msg.Reach(number=99, ways=(msg.Way(hidden),))
    gate_a.do(ev.Received(peer=gate_b.node, message=reach))
    assert gate_a.core.abroad.mesh_of(hidden) == B.id, "nobody of ours has said anything"
    gate_a.do(ev.Received(peer=second.node, message=reach))
    assert gate_a.core.abroad.mesh_of(hidden) == b""
    assert fx.Dial(address=via_address(second.node, hidden), node=hidden) in after(world, gate_a)
    again = msgspec.structs.replace(reach, number=100)
    gate_a.do(ev.Received(peer=gate_b.node, message=again))
    assert gate_a.core.abroad.mesh_of(hidden) == b"", "and it is not talked abroad again"
    monkeypatch.setattr(abroad, "NODES_MAX", 4)
    more = tuple(msg.Way(bytes([number]) * 32) for number in range(10))
    gate_a.do(ev.Received(peer=second.node, message=msgspec.structs.replace(again, ways=more)))
    gate_a.do(ev.Received(peer=gate_b.node, message=msgspec.structs.replace(again, number=101)))
    assert gate_a.core.abroad.mesh_of(hidden) == B.id, "that was too long ago"


def test_an_older_node_is_told_nothing_of_other_meshes(world: World) -> None:
    ann, gate_a, _, _ = row(world)
    link = gate_a.core.abroad._links[ann.node]
    old = msgspec.structs.replace(link, minor=msg.PEERINGS_SINCE - 1)
    gate_a.do(ev.LinkDown(peer=ann.node))
    world.said.clear()
    gate_a.do(old)
    gate_a.do(ev.Tick(wall=Wall(WALL)))
    tell(peer(A, C), gate_a)
    gate_a.do(ev.Received(peer=ann.node, message=msg.Heads(bans=bytes(32), mesh_keys=bytes(32), peerings=b"x")))
    to_old = [message for _, target, message in world.said if target is ann]
    assert all(message.foreign == () for message in to_old if isinstance(message, msg.Heads))
    assert not any(isinstance(message, msg.Peerings) for message in to_old)
    assert not any(getattr(message, "meshes", ()) for message in to_old)


def test_a_node_that_has_changed_its_mesh_is_what_it_proves_to_be_now(world: World) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    assert world.link(ann, bob) == ""
    link = ann.core.abroad._links[bob.node]
    ann.do(msgspec.structs.replace(link, owner="bob", mesh=b"", realm="", peering=b""))
    assert ann.core.abroad.mesh_of(bob.node) == b""
    ann.do(ev.PeeringAsked(known=ended(KNOWN, A)))
    assert ann.linked(bob)


def test_views_name_the_other_mesh(world: World) -> None:
    ann, bob = pair(world)
    tell(KNOWN, ann, bob)
    world.link(ann, bob)
    [view] = ann.core.peers(world.now)
    assert (view.owner, view.realm, view.state) == ("bob@lab-b", "lab-b", "up")
    assert LIFE_MS > 0
    assert ALL.caps == YES
