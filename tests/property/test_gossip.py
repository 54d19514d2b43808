"""Whatever is lost on the way, linked nodes end up knowing the same bans and mesh keys."""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.membership import Membership
from p2pq.core.records import Restored
from p2pq.model.ids import Mono, NodeId, Wall
from p2pq.wire import codec, prims, trust
from p2pq.wire import messages as msg
from tests.unit.core.workerkit import IDENTITY, WALL, Member, entropy

ROOT = trust.make_root(entropy)
MEMBERS = [Member(name) for name in ("ann", "bob", "cat", "dan")]
CERTS = [
    trust.issue_admin(
        ROOT,
        trust.Subject(node=each.node, name=each.name, owner=each.name, caps=("admin",)),
        serial=bytes(16),
        wall=WALL,
    )
    for each in MEMBERS
]
MINUTE_S = 60.0


class Mesh:
    """Four admins, each linked to some others; what they say to each other may be lost."""

    def __init__(self, links: set[tuple[int, int]]) -> None:
        self.now = Mono(0.0)
        self.lose = False
        self.nodes = [self._node(each) for each in MEMBERS]
        self.links = links
        self.queue: list[tuple[int, int, msg.CoreMessage]] = []
        for one, two in sorted(links):
            for here, there in ((one, two), (two, one)):
                self.do(here, MEMBERS[there].link(minor=msg.TRUST_SINCE, address=f"192.0.2.{there + 1}:1"))

    def _node(self, member: Member) -> Membership:
        identity = msgspec.structs.replace(
            IDENTITY, node=member.node, name=member.name, root=ROOT.public, mesh=prims.mesh_id(ROOT.public)
        )
        return Membership(identity, Restored(), 8, Random(1), self.now, lambda _now: WALL)

    def do(self, index: int, event: ev.Event) -> None:
        by_node = {each.node: number for number, each in enumerate(MEMBERS)}
        for effect in self.nodes[index].handle(event, self.now):
            assert not isinstance(effect, fx.Drop), effect
            if isinstance(effect, fx.Send) and not self.lose:
                self.queue.append((index, by_node[effect.peer], effect.message))
        self.nodes[index].check()

    def settle(self) -> None:
        said = 0
        while self.queue:
            said += 1
            assert said < 1000, "they never stop talking"
            source, target, message = self.queue.pop(0)
            if self.nodes[target].linked(MEMBERS[source].node):
                again = codec.decode_lenient(codec.encode(message), msg.Message, size_max=msg.MESSAGE_BYTES_MAX)
                self.do(target, ev.Received(peer=MEMBERS[source].node, message=again))

    def minute(self) -> None:
        self.now = Mono(self.now + MINUTE_S)
        for index in range(len(self.nodes)):
            self.do(index, ev.Tick(wall=WALL))
        self.settle()


def ban(admin: int, subject: int, at: int, *, banned: bool) -> ev.BanAsked:
    node = NodeId(bytes([subject]) * 32)
    signed = trust.issue_ban(
        MEMBERS[admin].signer, ROOT.public, node, at=Wall(WALL + at), banned=banned, certs=(CERTS[admin],)
    )
    return ev.BanAsked(node=node, banned=False, signed=signed)


def key(admin: int, number: int, at: int) -> ev.MeshKeyAsked:
    name = number.to_bytes(32, "big")
    signed = trust.issue_mesh_key(MEMBERS[admin].signer, ROOT.public, name, at=Wall(WALL + at), certs=(CERTS[admin],))
    return ev.MeshKeyAsked(signed=signed)


admins, instants = st.integers(0, 3), st.integers(0, 5)
words = st.one_of(
    st.builds(ban, admins, st.integers(1, 3), instants, banned=st.booleans()),
    st.builds(key, admins, st.integers(1, 12), instants),
)
steps = st.lists(st.tuples(admins, words, st.sampled_from(("heard", "lost", "later"))), max_size=12)


@pytest.mark.parametrize("shape", [{(0, 1), (1, 2), (2, 3)}, {(0, 1), (0, 2), (0, 3), (1, 2)}], ids=["line", "star"])
@settings(max_examples=25, deadline=None)
@given(steps)
def test_linked_nodes_end_up_knowing_the_same(shape: set[tuple[int, int]], told: list) -> None:
    mesh = Mesh(shape)
    mesh.settle()
    for index, word, fate in told:
        mesh.lose = fate == "lost"
        mesh.do(index, word)
        if fate != "later":
            mesh.settle()
    mesh.lose = False
    for _ in MEMBERS:  # a minute for each hop, at most
        mesh.minute()
    subjects = [NodeId(bytes([subject]) * 32) for subject in (1, 2, 3)]
    assert len({node.mesh_keys.signed for node in mesh.nodes}) == 1
    assert len({tuple(node.banned(each) for each in subjects) for node in mesh.nodes}) == 1
    mesh.now = Mono(mesh.now + MINUTE_S)
    for index in range(len(MEMBERS)):
        mesh.do(index, ev.Tick(wall=WALL))
    assert {type(message) for _, _, message in mesh.queue} == {msg.Heads}
    mesh.queue, said = [], mesh.queue
    for source, target, message in said:
        mesh.do(target, ev.Received(peer=MEMBERS[source].node, message=message))
    assert mesh.queue == [], "who knows the same has nothing more to say"
