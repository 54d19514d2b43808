"""Masters that bridges show and clusters for which they speak: who stands through whom, and what is said over which link."""

from random import Random

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import through
from p2pq.core.ledger import Ledger
from p2pq.core.node import Node
from p2pq.core.stock import GATHER_S
from p2pq.core.through import TURNS_MAX, TURNS_S, Fell, Stood, Throughs, cluster_of
from p2pq.core.views import Spoken
from p2pq.core.ways import PATIENCE_S
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import Mono, NodeId, Wall, short
from p2pq.wire import messages as msg
from p2pq.wire import sign, trust
from p2pq.wire.objects import Keycard
from tests.unit.core.stockkit import LEA, WINDOW_S, asks, granted, returns
from tests.unit.core.workerkit import ANN, IDENTITY, ME, MESH, OFFER, WALL, Member, item, mandate

ROOT = trust.make_root(lambda size: b"r" * size)
ADMIN = Member("admin")
CAT, DOG, COW, EEL = Member("cat"), Member("dog"), Member("cow"), Member("eel")
"""Bridges."""
ADMIN_CERT = trust.issue_admin(
    ROOT,
    trust.Subject(node=ADMIN.node, name="admin", owner="admin", caps=("admin", "bridge", "submit", "work")),
    serial=bytes(16),
    wall=Wall(WALL),
)


def chain(member: Member = ANN, *caps: str) -> tuple[bytes, ...]:
    subject = trust.Subject(node=member.node, name=member.name, owner=member.name, caps=caps or ("submit", "work"))
    return (
        trust.issue_member(
            ADMIN.signer, ADMIN_CERT, ROOT.public, subject, serial=bytes(16), wall=Wall(WALL), life_ms=10**9
        ),
        ADMIN_CERT,
    )


def master_is(member: Member = ANN, *caps: str, **fields) -> msg.MasterIs:
    return msg.MasterIs(**({"certs": chain(member, *caps), "boot": bytes(16), "minor": msg.MINOR} | fields))


def bridge(member: Member = CAT, **fields) -> ev.LinkUp:
    return member.link(**({"caps": ("bridge", "submit", "work"), "minor": msg.MINOR} | fields))


def stands(member: Member = ANN, *path: Member) -> ev.LinkUp:
    """Return the link of a master that stands through these bridges."""
    ways = tuple(each.node for each in path or (CAT,))
    return member.link(minor=msg.MINOR, prekey=b"", address="", path=ways, certs=chain(member))


class Idle:
    """Would work for any master, and nothing comes."""

    def brought(self, _master: NodeId) -> None:
        return None

    def waits(self, _master: NodeId, _now: Mono) -> bool:
        return True

    def keeps(self, _master: NodeId, _now: Mono) -> bool:
        return False


class Bench:
    def __init__(self, *voices: Idle) -> None:
        self.out: set[NodeId] = set()
        self.linked: set[NodeId] = set()
        self.now = Mono(0.0)
        self.throughs = Throughs(ME.node, ROOT.public, lambda cert: NodeId(cert.sub) in self.out, voices)

    def show(self, message: msg.MasterIs, by: ev.LinkUp | None = None) -> list[Fell | Stood]:
        self.throughs.show(by or bridge(), message, Wall(WALL), self.now)
        return self.settle()

    def settle(self) -> list[Fell | Stood]:
        changes = self.throughs.settle(self.linked.__contains__, lambda node, _owner: node in self.out, self.now)
        assert not self.throughs.changed
        self.throughs.check()
        return changes


def test_a_master_that_a_bridge_shows_stands_until_the_bridge_parts_it_or_leaves():
    bench = Bench()
    assert bench.show(master_is()) == [Stood(stands(), cluster=False)]
    assert bench.throughs.bridge(ANN.node) == CAT.node
    assert [each.link.peer for each in bench.throughs.peers()] == [ANN.node]
    assert bench.show(master_is()) == []
    bench.throughs.parted(CAT.node, ANN.node)
    assert bench.settle() == [Fell(ANN.node, CAT.node, cluster=False, known=True)]
    assert bench.throughs.bridge(ANN.node) is None
    bench.show(master_is())
    bench.throughs.part(CAT.node, ANN.node)
    assert bench.settle() == [Fell(ANN.node, CAT.node, cluster=False)]
    bench.show(master_is())
    bench.throughs.leave(CAT.node)
    assert bench.settle() == [Fell(ANN.node, CAT.node, cluster=False)]


def test_a_master_stands_through_one_bridge_and_then_through_another():
    bench = Bench()
    bench.show(master_is())
    assert bench.show(master_is(), bridge(DOG)) == []
    bench.throughs.leave(CAT.node)
    assert bench.settle() == [Fell(ANN.node, CAT.node, cluster=False), Stood(stands(ANN, DOG), cluster=False)]


def test_a_new_life_of_a_master_is_another_link():
    bench = Bench()
    bench.show(master_is())
    again = msgspec.structs.replace(stands(), boot=b"b" * 16)
    assert bench.show(master_is(boot=b"b" * 16)) == [
        Fell(ANN.node, CAT.node, cluster=False),
        Stood(again, cluster=False),
    ]


def test_a_link_of_its_own_takes_its_place():
    bench = Bench()
    bench.show(master_is())
    bench.linked.add(ANN.node)
    bench.throughs.changed = True
    assert bench.settle() == [Fell(ANN.node, CAT.node, cluster=False)]
    bench.linked.clear()
    bench.throughs.changed = True
    assert bench.settle() == [Stood(stands(), cluster=False)]


def test_who_is_banned_does_not_stand():
    bench = Bench()
    bench.show(master_is())
    bench.out.add(ANN.node)
    bench.throughs.changed = True
    assert bench.settle() == [Fell(ANN.node, CAT.node, cluster=False)]
    with pytest.raises(Reject, match=trust.BANNED):
        bench.show(master_is())


def circle(*members: Member) -> str:
    return f"the way leads in a circle: {' > '.join(short(member.node) for member in members)}"


def far(*further: Member, **fields) -> msg.MasterIs:
    """Return how a bridge shows a master that is behind further ones, the nearest first."""
    plain = {"path": tuple(each.node for each in further), "bridges": tuple(chain(each, "bridge") for each in further)}
    return master_is(**(plain | fields))


def stands_far(*path: Member) -> ev.LinkUp:
    return msgspec.structs.replace(stands(ANN, *path), bridges=tuple(chain(each, "bridge") for each in path[1:]))


@pytest.mark.parametrize(
    ("message", "by", "reason"),
    [
        (master_is(), bridge(caps=("submit", "work")), "may not be a bridge"),
        (master_is(), bridge(mesh=b"o" * 32, realm="there"), "it is of another mesh"),
        (master_is(certs=(b"x",)), bridge(), "bad-certificate"),
        (master_is(ANN, "work"), bridge(), "may not give work"),
        (master_is(ME), bridge(), circle(ME, CAT, ME)),
        (master_is(path=(ME.node,)), bridge(), circle(ANN, ME, CAT, ME)),
        (master_is(path=(ANN.node,)), bridge(), circle(ANN, ANN, CAT, ME)),
        (master_is(path=(CAT.node,)), bridge(), circle(ANN, CAT, CAT, ME)),
        (master_is(CAT), bridge(), circle(CAT, CAT, ME)),
        (master_is(path=(DOG.node,)), bridge(), "not every node on the way is known to be a bridge"),
        (
            far(DOG, bridges=(chain(DOG, "submit", "work"),)),
            bridge(),
            "not every node on the way is known to be a bridge",
        ),
        (far(DOG, bridges=(chain(COW, "bridge"),)), bridge(), "not every node on the way is known to be a bridge"),
        (far(DOG, bridges=((b"x",),)), bridge(), "bad-certificate"),
    ],
)
def test_what_a_bridge_may_not_show(message: msg.MasterIs, by: ev.LinkUp, reason: str):
    bench = Bench()
    with pytest.raises(Reject, match=reason):
        bench.throughs.show(by, message, Wall(WALL), bench.now)
    assert bench.throughs.peers() == ()


def test_a_master_stands_over_several_bridges_until_a_shorter_way_is_shown():
    bench = Bench()
    assert bench.show(far(DOG, COW)) == [Stood(stands_far(CAT, DOG, COW), cluster=False)]
    assert bench.throughs.bridge(ANN.node) == CAT.node
    near = Stood(stands_far(EEL, COW), cluster=False)
    assert bench.show(far(COW), bridge(EEL)) == [Fell(ANN.node, CAT.node, cluster=False), near]
    assert bench.show(far(COW), bridge(DOG)) == [], "another way as long as that is no reason to go"
    bench.throughs.leave(EEL.node)
    bench.throughs.leave(DOG.node)
    assert bench.settle() == [
        Fell(ANN.node, EEL.node, cluster=False),
        Stood(stands_far(CAT, DOG, COW), cluster=False),
    ]


def test_two_bridges_side_by_side_do_not_go_back_and_forth_between_the_ways_over_each_other():
    """Each has left the way of its own that it shows the other, and likes best what that one shows: which is over by then."""
    bench = Bench(Idle())
    bench.show(master_is())
    bench.show(far(CAT), bridge(DOG))
    bench.now = Mono(PATIENCE_S)
    bench.throughs.fire(bench.now)
    near, over = Stood(stands(), cluster=False), Stood(stands_far(DOG, CAT), cluster=False)
    assert bench.settle() == [Fell(ANN.node, CAT.node, cluster=False), over]
    bench.throughs.parted(DOG.node, ANN.node)
    assert bench.settle() == [Fell(ANN.node, DOG.node, cluster=False, known=True), near]
    assert bench.show(far(CAT), bridge(DOG)) == []


def test_a_way_over_too_many_bridges_is_refused_and_named():
    bench = Bench()
    message = far(DOG, COW, EEL)
    named = " > ".join(short(each.node) for each in (ANN, EEL, COW, DOG, CAT, ME))
    with pytest.raises(Reject, match=f"the way leads over more than 3 bridges: {named}"):
        bench.throughs.show(bridge(), message, Wall(WALL), bench.now)


def test_no_master_stands_behind_a_bridge_that_is_out():
    bench = Bench()
    bench.show(far(DOG))
    bench.show(far(COW), bridge(EEL))
    assert bench.throughs.bridge(ANN.node) == CAT.node
    bench.out.add(DOG.node)
    bench.throughs.changed = True
    assert bench.settle() == [
        Fell(ANN.node, CAT.node, cluster=False),
        Stood(stands_far(EEL, COW), cluster=False),
    ]
    with pytest.raises(Reject, match=trust.BANNED):
        bench.show(far(DOG))
    bench.out.add(COW.node)
    bench.throughs.changed = True
    assert bench.settle() == [Fell(ANN.node, EEL.node, cluster=False)]


def test_a_bridge_that_shows_a_master_anew_again_and_again_is_heard_no_more_than_now_and_then():
    """Each time its leaves would have to say all that they said, and those of bridges below as well."""
    bench = Bench()
    for number in range(TURNS_MAX):
        bench.throughs.parted(CAT.node, ANN.node)
        assert bench.show(master_is(boot=bytes([number]) * 16))[-1] == Stood(
            msgspec.structs.replace(stands(), boot=bytes([number]) * 16), cluster=False
        )
    assert bench.show(master_is(boot=b"b" * 16)) == [Fell(ANN.node, CAT.node, cluster=False)]
    for number in range(99):
        assert bench.show(master_is(boot=bytes([number]) * 16)) == []
    assert bench.throughs.deadline == TURNS_S
    bench.now = Mono(TURNS_S)
    assert bench.throughs.fire(bench.now) == []
    again = msgspec.structs.replace(stands(), boot=bytes([98]) * 16)
    assert bench.settle() == [Stood(again, cluster=False)]
    bench.now = Mono(TURNS_S + 1)
    assert len(bench.show(master_is(boot=b"c" * 16))) == 2, "and then it may again"


@pytest.mark.parametrize("ends", ["parted", "left", "shown in time"])
def test_what_was_shown_too_often_and_is_over_never_stands(ends: str):
    bench = Bench()
    for number in range(TURNS_MAX + 1):
        bench.show(master_is(boot=bytes([number]) * 16))
        bench.show(master_is(DOG, boot=bytes([number]) * 16), bridge(COW))
    assert bench.throughs.peers() == ()
    if ends == "parted":
        bench.throughs.parted(CAT.node, ANN.node)
    elif ends == "left":
        bench.throughs.leave(CAT.node)
    else:
        bench.now = Mono(TURNS_S)
        assert len(bench.show(master_is())) == 1
    bench.settle()
    bench.now = Mono(TURNS_S)
    bench.throughs.fire(bench.now)
    assert [each.link.peer for each in bench.settle() if isinstance(each, Stood)] == [DOG.node]


def test_masters_shown_are_bounded_but_a_known_one_may_change(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(through, "SHOWN_MAX", 1)
    bench = Bench()
    bench.show(master_is())
    bench.throughs.show(bridge(), master_is(Member("eve")), Wall(WALL), bench.now)
    assert [each.link.peer for each in bench.throughs.peers()] == [ANN.node]
    assert len(bench.show(master_is(minor=msg.MINOR + 1, boot=b"c" * 16))) == 2


def test_a_bridge_speaks_for_its_cluster_alone():
    bench = Bench()
    bench.throughs.speak(bridge())
    link = bridge(peer=cluster_of(CAT.node), caps=("work",), prekey=b"", address="", path=(CAT.node,))
    assert bench.settle() == [Stood(link, cluster=True)]
    bench.throughs.speak(bridge())
    assert bench.settle() == []
    assert bench.throughs.bridge(cluster_of(CAT.node)) == CAT.node
    bench.throughs.part(CAT.node, cluster_of(CAT.node))
    assert bench.settle() == [Fell(cluster_of(CAT.node), CAT.node, cluster=True)]
    with pytest.raises(Reject, match="may not be a bridge"):
        bench.throughs.speak(bridge(caps=("work",)))
    with pytest.raises(Reject, match="it is of another mesh"):
        bench.throughs.speak(bridge(mesh=b"o" * 32, realm="there"))


def test_nobody_speaks_for_a_cluster_that_is_out():
    bench = Bench()
    bench.throughs.speak(bridge())
    assert len(bench.settle()) == 1
    bench.out.add(cluster_of(CAT.node))
    bench.throughs.changed = True
    assert bench.settle() == [Fell(cluster_of(CAT.node), CAT.node, cluster=True)]


# -- a node ------------------------------------------------------------------------------------------------------------


class Host:
    """A node that is no bridge itself."""

    def __init__(self, **fields) -> None:
        self.now, self.disk, self.count = Mono(100.0), Ledger(), 0
        identity = msgspec.structs.replace(IDENTITY, root=ROOT.public)
        self.node = Node(
            identity,
            ScheduleSettings(),
            self.disk.restored(),
            Random(1),
            self.entropy,
            now=self.now,
            wall=Wall(WALL),
            **fields,
        )
        self.do(OFFER)

    def entropy(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")

    def do(self, event: ev.Event) -> list[fx.Effect]:
        effects = self.node.handle(event, self.now)
        self.node.check()
        return effects

    def after(self, seconds: float) -> list[fx.Effect]:
        self.now = Mono(self.now + seconds)
        return self.do(ev.Tick())

    def says(self, message: msg.CoreMessage, by: Member = CAT) -> list[fx.Effect]:
        return self.do(ev.Received(peer=by.node, message=message))


def said(effects: list[fx.Effect], to: Member = CAT) -> list[msg.CoreMessage]:
    return [each.message for each in effects if isinstance(each, fx.Send) and each.peer == to.node]


def through_of(effects: list[fx.Effect], node: NodeId = ANN.node, to: Member = CAT) -> list[msg.CoreMessage]:
    """Return what is said to a node through a bridge."""
    return [each.message for each in said(effects, to) if isinstance(each, msg.Through) and each.node == node]


def of_kind(messages: list[msg.CoreMessage], kind: type) -> list[msg.CoreMessage]:
    return [each for each in messages if isinstance(each, kind)]


@pytest.fixture
def leaf() -> Host:
    host = Host()
    host.do(bridge())
    return host


def test_a_leaf_begins_with_a_master_that_is_shown_and_asks_it_through_the_bridge(leaf: Host):
    effects = leaf.says(master_is())
    assert isinstance(said(effects)[0], msg.KeycardIs)
    assert through_of(effects) == [
        msg.Holding(mandate=mandate(ME, CAT, serial=2)),
        msg.ProfileIs(profile=OFFER.profile),
    ]
    effects = leaf.says(msg.Through(node=ANN.node, message=msg.HasWork(counter=1, owners=("ann",))))
    [request] = through_of(effects)
    assert isinstance(request, msg.Request)
    assert request.owner == "ann"
    assert all(each.peer == CAT.node for each in effects if isinstance(each, fx.Send))


def test_a_node_that_is_not_linked_is_reached_over_the_bridge_that_leads_there(leaf: Host):
    assert leaf.node.bridge_of(ANN.node) is None
    leaf.says(master_is())
    assert leaf.node.bridge_of(ANN.node) == CAT.node


def test_a_bridge_speaks_to_a_master_that_one_above_shows_and_knows_what_is_below():
    host = Host(bridging=True, batching=True)
    host.do(bridge(certs=chain(CAT, "bridge")))
    host.do(bridge(DOG, certs=chain(DOG, "bridge")))
    shown = msg.MasterIs(
        certs=chain(), boot=bytes(16), minor=msg.MINOR, path=(CAT.node,), bridges=(chain(CAT, "bridge"),)
    )
    assert said(host.says(master_is()), DOG) == [shown]
    keycard = Keycard(mesh=MESH, node=LEA.node, boot=bytes(16), prekey=LEA.prekey, iat=WALL, exp=WALL + 1)
    below = msg.Leaf(
        certs=chain(LEA, "work"),
        card=sign.sign(LEA.signer, keycard),
        profile=OFFER.profile,
        mandate=mandate(LEA, DOG, ME, CAT),
    )
    host.says(msg.Through(node=ANN.node, message=msg.Leaves(leaves=(below,)), cluster=True), DOG)
    assert host.node.bridge_of(LEA.node) == DOG.node
    told = through_of(host.after(3 * GATHER_S))
    way = {"path": (DOG.node,), "bridges": (chain(DOG, "bridge"),)}
    assert msg.Leaves(leaves=(msgspec.structs.replace(below, **way),)) in told
    assert said(host.says(msg.Parted(node=ANN.node)), DOG) == [msg.Parted(node=ANN.node)]
    assert host.node.bridge_of(LEA.node) is None


def test_a_link_of_its_own_to_the_master_ends_that_and_its_end_brings_it_back(leaf: Host):
    leaf.says(master_is())
    effects = leaf.do(ANN.link())
    assert through_of(effects) == [msg.Leaving()]
    assert said(effects, ANN)[-2:] == [msg.Holding(), msg.ProfileIs(profile=OFFER.profile)], "it is of an old version"
    effects = leaf.do(ev.LinkDown(peer=ANN.node))
    assert through_of(effects) == [
        msg.Holding(mandate=mandate(ME, CAT, serial=3)),
        msg.ProfileIs(profile=OFFER.profile),
    ]
    assert leaf.do(ev.LinkDown(peer=CAT.node))
    assert leaf.says(msg.Through(node=ANN.node, message=msg.HasWork(counter=1, owners=("ann",)))) == [
        fx.Drop(peer=CAT.node, reason="not linked")
    ]


def test_a_bridge_is_told_the_keycard_once_however_many_masters_it_shows(leaf: Host):
    """Each time it hears one it introduces this leaf to all of its masters anew."""
    eve = Member("eve")
    assert sum(isinstance(each, msg.KeycardIs) for each in said(leaf.says(master_is()))) == 1
    assert not any(isinstance(each, msg.KeycardIs) for each in said(leaf.says(master_is(eve))))
    leaf.do(ev.LinkDown(peer=CAT.node))
    leaf.do(bridge())
    assert isinstance(said(leaf.says(master_is(eve)))[0], msg.KeycardIs)


def test_a_bridge_that_shows_a_short_way_which_leads_nowhere_starves_nobody(leaf: Host):
    leaf.do(bridge(DOG))
    leaf.says(master_is())
    leaf.says(far(COW), DOG)
    leaf.says(msg.Through(node=ANN.node, message=msg.HasWork(counter=1, owners=("ann",))))
    assert leaf.node.bridge_of(ANN.node) == CAT.node
    leaf.after(PATIENCE_S / 2)
    [request] = of_kind(through_of(leaf.after(PATIENCE_S / 4)), msg.Request)
    # Whatever it says, and however often it shows that way again: nothing of it is the master's word.
    leaf.says(msg.Through(node=ANN.node, message=msg.Nothing(nonce=request.nonce, owner="ann", counter=1)))
    effects = leaf.after(PATIENCE_S / 4)
    assert of_kind(through_of(effects), msg.Leaving)
    assert [type(each) for each in through_of(effects, to=DOG)] == [msg.Holding, msg.ProfileIs]
    leaf.says(msg.Parted(node=ANN.node))
    leaf.says(master_is())
    assert leaf.node.bridge_of(ANN.node) == DOG.node


def test_a_master_that_parts_is_asked_no_more(leaf: Host):
    leaf.says(master_is())
    assert said(leaf.says(msg.Parted(node=ANN.node))) == [], "it is the bridge's own word"
    assert leaf.says(msg.Through(node=ANN.node, message=msg.HasWork(counter=1, owners=("ann",)))) == [
        fx.Drop(peer=CAT.node, reason="through: nobody here is known by that")
    ]


def test_who_breaks_the_word_of_a_master_is_left_and_said(leaf: Host):
    leaf.says(master_is())
    effects = leaf.says(msg.Through(node=ANN.node, message=msg.Granted(grant=b"x")))
    assert fx.Drop(peer=CAT.node, reason="through: malformed") in effects
    assert through_of(effects) == [msg.Leaving()]


def test_what_only_a_worker_says_is_not_heard_from_a_master(leaf: Host):
    leaf.says(master_is())
    assert leaf.says(msg.Through(node=ANN.node, message=msg.Heartbeat(beats=()))) == [
        fx.Drop(peer=CAT.node, reason="through: not linked")
    ]


def test_a_master_that_is_not_of_this_mesh_is_not_begun_with(leaf: Host):
    assert leaf.says(master_is(certs=(b"x",))) == [fx.Drop(peer=CAT.node, reason="master: bad-certificate")]


def test_a_banned_master_behind_a_bridge_gets_nothing_more(leaf: Host):
    leaf.says(master_is())
    assert through_of(leaf.do(ev.BanAsked(node=ANN.node, banned=True))) == [msg.Leaving()]


def test_a_banned_bridge_speaks_for_nobody(leaf: Host):
    leaf.says(master_is())
    leaf.do(ev.BanAsked(node=CAT.node, banned=True))
    assert leaf.says(msg.Through(node=ANN.node, message=msg.HasWork(counter=1, owners=("ann",)))) == [
        fx.Drop(peer=CAT.node, reason="not linked")
    ]


def test_a_bridge_that_goes_down_hands_its_stock_back_before_it_says_goodbye():
    host = Host(bridging=True, batching=True)
    host.do(ANN.link(caps=("submit",), minor=msg.MINOR, certs=chain()))
    host.do(LEA.link(caps=("work",), minor=msg.MINOR, certs=chain(LEA, "work")))
    keycard = Keycard(mesh=MESH, node=LEA.node, boot=bytes(16), prekey=LEA.prekey, iat=WALL, exp=WALL + 1)
    host.says(msg.KeycardIs(card=sign.sign(LEA.signer, keycard)), LEA)
    for message in (msg.Holding(mandate=mandate(LEA, ME)), msg.ProfileIs(profile=OFFER.profile)):
        host.says(msg.Through(node=ANN.node, message=message), LEA)
    host.after(GATHER_S)
    cluster = cluster_of(ME.node)
    host.says(msg.Through(node=cluster, message=msg.HasWork(counter=1, owners=("ann",))), ANN)
    host.says(msg.Through(node=ANN.node, message=asks(1, tasks_max=1)), LEA)
    [asked] = [each for each in through_of(host.after(WINDOW_S), cluster, ANN) if isinstance(each, msg.Request)]
    items = (item(1), item(2, task=1))
    asked_for = msg.Through(node=cluster, message=granted(items[:1], nonce=asked.nonce))
    assert through_of(host.says(asked_for, ANN), to=LEA)
    host.after(WINDOW_S)
    host.says(msg.Through(node=ANN.node, message=asks(2)), LEA)
    [asked] = [each for each in through_of(host.after(WINDOW_S), cluster, ANN) if isinstance(each, msg.Request)]
    host.says(msg.Through(node=ANN.node, message=msg.Leaving()), LEA)
    host.says(msg.Through(node=cluster, message=granted(items[1:], nonce=asked.nonce, sent=True)), ANN)
    assert host.node.carries
    assert [host.node.leaf_of(ANN.node, each.lease) for each in items] == [LEA.node, None]
    assert host.node.spoken() == (Spoken(ANN.node, 1, ()),)
    told = said(host.do(ev.Drain(now=True)), ANN)
    assert [type(each.message) if isinstance(each, msg.Through) else type(each) for each in told][-2:] == [
        msg.Leaves,
        msg.Leaving,
    ]
    [report] = [each.message for each in told if isinstance(each, msg.Through) and isinstance(each.message, msg.Report)]
    assert report.returns == returns("draining", *items[1:])


@pytest.mark.parametrize(
    "event",
    [
        ev.BanAsked(node=LEA.node, banned=True),
        ev.OwnerBanAsked(owner="lea", banned=True),
        ev.Tick(wall=Wall(WALL + 10**9 + trust.SKEW_MS + 1)),
    ],
)
def test_a_leaf_of_a_bridge_below_that_is_out_takes_part_no_more(event: ev.Event):
    host = Host(bridging=True, batching=True)
    host.do(ANN.link(caps=("submit",), minor=msg.MINOR, certs=chain()))
    host.do(bridge(caps=("bridge",)))
    keycard = Keycard(mesh=MESH, node=LEA.node, boot=bytes(16), prekey=LEA.prekey, iat=WALL, exp=WALL + 1)
    card = sign.sign(LEA.signer, keycard)
    word = mandate(LEA, CAT, ME)
    introduced = msg.Leaf(certs=chain(LEA, "work"), card=card, profile=OFFER.profile, mandate=word)
    host.says(msg.Through(node=ANN.node, message=msg.Leaves(leaves=(introduced,)), cluster=True))
    told = through_of(host.after(3 * GATHER_S), cluster_of(ME.node), ANN)
    assert told[0] == msg.Leaves(leaves=(msgspec.structs.replace(introduced, path=(CAT.node,)),))
    host.do(event)
    assert through_of(host.after(WINDOW_S), cluster_of(ME.node), ANN) == [msg.Leaves(gone=(LEA.node,))]


def test_a_cluster_is_a_worker_of_a_master():
    host = Host()
    host.do(bridge())
    cluster = cluster_of(CAT.node)
    heartbeat = msg.Through(node=cluster, message=msg.Heartbeat(beats=()))
    assert host.says(heartbeat) == [fx.Drop(peer=CAT.node, reason="through: nobody here is known by that")]
    assert [
        each for each in host.says(msg.Through(node=cluster, message=msg.Leaves())) if isinstance(each, fx.Drop)
    ] == []
    assert host.says(heartbeat) == []
    host.do(ev.LinkDown(peer=CAT.node))
    host.do(bridge(caps=("work",)))
    assert host.says(msg.Through(node=cluster, message=msg.Leaves())) == [
        fx.Drop(peer=CAT.node, reason="leaves: it may not be a bridge")
    ]


def shown(host: Host) -> dict[str, tuple[str, tuple[NodeId, ...], int]]:
    return {peer.name: (peer.state, peer.path, peer.slots) for peer in host.node.peers(host.now)}


def test_a_leaf_is_shown_the_masters_that_take_part_through_its_bridge(leaf: Host):
    assert leaf.node.bridge_of(ANN.node) is None
    leaf.says(master_is())
    assert shown(leaf) == {"cat": ("up", (), 0), "ann": ("up", (CAT.node,), 0)}
    assert leaf.node.bridge_of(ANN.node) == CAT.node
    assert leaf.node.bridge_of(CAT.node) is None
    assert [leaf.node.name_of(each.node) for each in (ANN, CAT)] == ["ann", ""]
    leaf.do(ANN.link(address="192.0.2.1:9476"))
    assert shown(leaf)["ann"] == ("up", (), 0)
    assert leaf.node.bridge_of(ANN.node) is None
    leaf.do(ev.LinkDown(peer=ANN.node))
    assert shown(leaf)["ann"] == ("up", (CAT.node,), 0), "it is known how it was linked, too"
    leaf.says(msg.Parted(node=ANN.node))
    assert shown(leaf)["ann"][0] == "down"


def test_a_master_is_shown_the_leaves_of_a_bridge_and_not_its_cluster():
    host = Host()
    host.do(bridge())
    keycard = Keycard(mesh=MESH, node=LEA.node, boot=bytes(16), prekey=LEA.prekey, iat=WALL, exp=WALL + 1)
    card = sign.sign(LEA.signer, keycard)
    word = mandate(LEA, CAT, of=ME)
    introduced = msg.Leaf(certs=chain(LEA, "work"), card=card, profile=OFFER.profile, mandate=word)
    host.says(msg.Through(node=cluster_of(CAT.node), message=msg.Leaves(leaves=(introduced,))))
    assert shown(host) == {"cat": ("up", (), 0), "lea": ("up", (CAT.node,), OFFER.profile.slots)}
    assert host.node.bridge_of(LEA.node) == CAT.node
    assert [host.node.name_of(node) for node in (LEA.node, cluster_of(CAT.node))] == ["lea", ""]
    assert host.node.leaf_of(ANN.node, item(1).lease) is None
    assert host.node.spoken() == (), "it is no bridge itself"
    host.do(ev.LinkDown(peer=CAT.node))
    assert host.node.bridge_of(LEA.node) is None
    assert "lea" not in shown(host)
