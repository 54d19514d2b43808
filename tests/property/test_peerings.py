"""Whatever is lost, repeated or late on the way: nodes of two meshes end up agreeing, and what was ended stays so."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pq.core import events as ev
from p2pq.wire import sign
from tests.unit.core.abroadkit import Mesh, World, ended, peer
from tests.unit.core.workerkit import WALL

A, B = Mesh("lab-a"), Mesh("lab-b")
YES = ("bridge", "submit", "work")
KNOWN = [peer(A, B, at=WALL + number) for number in range(3)]
WORDS = [*KNOWN, *(ended(known, by, WALL + 5) for known in KNOWN for by in (A, B))]
NODES = 4

steps = st.lists(
    st.tuples(st.integers(0, NODES - 1), st.integers(0, len(WORDS) - 1), st.sampled_from(("heard", "lost", "restart"))),
    max_size=10,
)


@settings(max_examples=30, deadline=None)
@given(steps)
def test_two_meshes_end_up_agreeing(told: list) -> None:
    world = World()
    ann, gate = world.add(A, "ann", {B.id: YES}), world.add(A, "gate-a", {B.id: YES}, caps=YES)
    far, bob = world.add(B, "gate-b", {A.id: YES}, caps=YES), world.add(B, "bob", {A.id: YES})
    row = [ann, gate, far, bob]
    over: set[bytes] = set()
    for number, word, fate in told:
        known = WORDS[word]
        if known.end:
            over.add(sign.digest(known.offer))
        row[number].do(ev.PeeringAsked(known=known))
        if fate == "lost":
            world.said.clear()
        world.settle()
        if fate == "restart":
            row[number].boot()
        _link(world, row)
    for each in (ann, bob):  # as somebody has to carry the first word over
        each.do(ev.PeeringAsked(known=KNOWN[0]))
    for _ in range(NODES):
        _link(world, row)
        world.at(world.now - world.now % 60 + 60)
    _check(world, row, over)


def _check(world: World, row: list, over: set[bytes]) -> None:
    heads = [each.core.abroad.peerings.head(world.wall) for each in row]
    assert (heads[0], heads[2]) == (heads[1], heads[3])
    for each in row:
        ended_here = {opened.id for opened in each.core.abroad.peerings.all() if opened.ended is not None}
        assert ended_here <= over
        assert not {ours.peering for ours in each.core.abroad.usable(world.now)} & ended_here
        assert not {link.peering for link in each.core.abroad._links.values()} & ended_here
    if row[1].linked(row[2]):
        assert heads[1] == heads[2]


def _link(world: World, row: list) -> None:
    """Link neighbours that are not linked, as far as they let each other in."""
    for one, other in itertools.pairwise(row):
        if not (one.linked(other) and other.linked(one)):
            for here, there in ((one, other), (other, one)):
                here.do(ev.LinkDown(peer=there.node))
            world.link(one, other)
