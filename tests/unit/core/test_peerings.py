"""What is known of peerings and of bans abroad: it only grows, in whatever order it is heard."""

import itertools

import pytest

from p2pq.core.peerings import NO_ROOM, Peerings
from p2pq.core.records import PeerBanKept, PeeringKept
from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import peering, sign, trust
from p2pq.wire.messages import PeeringKnown
from tests.unit.core.abroadkit import LIFE_MS, Mesh, ended, peer
from tests.unit.core.workerkit import WALL

A, B, C = Mesh("lab-a"), Mesh("lab-b"), Mesh("lab-c")
KNOWN = peer(A, B)
ID = sign.digest(KNOWN.offer)
EVE = NodeId(b"e" * 32)
YES = {B.id: ("submit", "work"), C.id: ("submit",)}


def begin(rows: tuple[PeeringKept, ...] = (), bans: tuple[PeerBanKept, ...] = (), mesh: Mesh = A) -> Peerings:
    return Peerings(mesh.root.public, YES, rows, bans)


def accepted_at(at: int, known: PeeringKnown = KNOWN) -> PeeringKnown:
    """Return the same peering, as another admin of the same mesh accepted it."""
    word = peering.accept(B.admin, B.chain, B.root.public, known.offer, name=B.name, at=Wall(at))
    return PeeringKnown(known.offer, word)


def row_of(known: PeeringKnown) -> PeeringKept:
    return PeeringKept(id=sign.digest(known.offer), offer=known.offer, accept=known.accept, end=known.end)


def hear(known: PeeringKnown, peerings: Peerings, wall: int = WALL) -> PeeringKept | None:
    heard = peerings.hear(known, Wall(wall))
    peerings.check()
    return None if heard is None else heard[1]


def test_what_is_news_is_kept_and_told_and_comes_back_after_a_restart():
    peerings = begin()
    assert peerings.told(Wall(WALL)) == ()
    assert hear(KNOWN, peerings) == row_of(KNOWN)
    assert hear(KNOWN, peerings) is None
    [opened] = peerings.all()
    assert (opened.id, opened.mesh, opened.name) == (ID, B.id, "lab-b")
    assert repr(row_of(KNOWN)) == f"PeeringKept({ID.hex()[:8]})"
    assert peerings.told(Wall(WALL)) == (KNOWN,)
    assert peerings.told(Wall(WALL), B.id) == (KNOWN,)
    assert peerings.told(Wall(WALL), C.id) == ()
    again = begin((row_of(KNOWN), row_of(peer(B, C))))
    assert again.all() == peerings.all(), "what a mesh that was left had agreed on is nobody's here"
    assert again.head(Wall(WALL)) == peerings.head(Wall(WALL))


STATES = (KNOWN, accepted_at(WALL + 5), ended(KNOWN, A, WALL + 9), ended(KNOWN, B, WALL + 7))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_in_which_it_is_heard_does_not_matter(order: tuple[int, ...]):
    peerings = begin()
    for number in order:
        hear(STATES[number], peerings, WALL + 10)
        hear(STATES[number], peerings, WALL + 10)
    [opened] = peerings.all()
    assert opened.ended == WALL + 7, "the earlier end counts"
    assert peerings.known(ID) == PeeringKnown(KNOWN.offer, KNOWN.accept, STATES[3].end)
    assert not peerings.holds(ID, Wall(WALL + 10), trust.nobody)
    assert hear(KNOWN, peerings, WALL + 10) is None, "it does not begin again"


def test_ends_of_both_sides_are_equal_words():
    one, other = ended(KNOWN, A), ended(KNOWN, B)
    first, second = begin(), begin()
    for known in (one, other):
        hear(known, first)
    for known in (other, one):
        hear(known, second)
    assert first.head(Wall(WALL)) == second.head(Wall(WALL))


def test_one_that_is_over_is_not_taken_in_but_stays_where_it_is_known():
    late = WALL + LIFE_MS + trust.SKEW_MS + 1
    peerings = begin()
    hear(KNOWN, peerings)
    assert peerings.told(Wall(late)) == ()
    assert peerings.usable(Wall(late), trust.nobody) == ()
    assert peerings.get(ID) is not None
    with pytest.raises(Reject, match=peering.OVER):
        hear(KNOWN, begin(), late)
    assert peerings.get(b"x" * 32) is None
    assert peerings.known(b"x" * 32) is None
    assert not peerings.holds(b"x" * 32, Wall(WALL), trust.nobody)


def test_clocks_may_differ_a_little():
    early = Wall(WALL - trust.SKEW_MS)
    peerings = begin()
    hear(KNOWN, peerings, early)
    assert peerings.holds(ID, early, trust.nobody)
    with pytest.raises(Reject, match=trust.NOT_YET_VALID):
        hear(KNOWN, begin(), early - 1)


def test_there_is_room_for_so_many_and_the_oldest_that_is_over_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(msg, "PEERINGS_MAX", 2)
    short_lived = [peer(A, B, at=WALL + number, exp=WALL + 1000 + number) for number in range(2)]
    peerings = begin()
    for known in short_lived:
        hear(known, peerings, WALL + 10)
    with pytest.raises(Reject, match=NO_ROOM):
        hear(KNOWN, peerings, WALL + 10)
    assert hear(ended(short_lived[1], A, WALL + 10), peerings, WALL + 10) is not None, "what is known may end"
    with pytest.raises(Reject, match=NO_ROOM):
        hear(KNOWN, peerings, WALL + 10)
    later = WALL + 2000 + 2 * trust.SKEW_MS
    assert hear(KNOWN, peerings, later) is not None
    assert {each.id for each in peerings.all()} == {sign.digest(short_lived[1].offer), ID}


def test_bans_of_a_mesh_go_with_the_last_peering_with_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(msg, "PEERINGS_MAX", 1)
    peerings = begin()
    hear(peer(A, B, at=WALL, exp=WALL + 1000), peerings)
    hear(peer(A, C, at=WALL, exp=WALL + LIFE_MS), peerings, WALL + 2000 + 2 * trust.SKEW_MS)
    assert peerings.bans(B.id) is None
    assert peerings.bans(C.id) is not None


def test_of_more_than_there_is_room_for_the_latest_come_back_after_a_restart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(msg, "PEERINGS_MAX", 2)
    over = peer(A, C, at=WALL, exp=WALL + 1000)
    known = [KNOWN, over, peer(A, B, at=WALL, exp=WALL + LIFE_MS - 1)]
    peerings = begin(tuple(map(row_of, known)))
    peerings.check()
    assert {each.id for each in peerings.all()} == {sign.digest(each.offer) for each in known if each is not over}
    assert peerings.bans(C.id) is None


def test_links_are_made_by_the_latest_peering_with_a_mesh_that_is_wanted():
    peerings = begin()
    newer = peer(A, B, at=WALL + 1)
    for known in (newer, KNOWN, peer(C, A), peer(A, Mesh("lab-d"))):
        hear(known, peerings)
    usable = peerings.usable(Wall(WALL), trust.nobody)
    assert [each.name for each in usable] == ["lab-b", *sorted(["lab-b", "lab-c"])]
    assert usable[0].peering == sign.digest(newer.offer)
    assert repr(usable[0]) == "Ours('lab-b')"
    assert (peerings.welcome(B.id), peerings.welcome(b"?")) == (("submit", "work"), ())


# -- bans abroad ---------------------------------------------------------------------------------------------------------


def test_admins_abroad_speak_for_their_own_mesh():
    peerings = begin()
    with pytest.raises(Reject, match=trust.WRONG_ROOT):
        peerings.hear_ban(B.ban(EVE), Wall(WALL))
    hear(KNOWN, peerings)
    hear(peer(A, C), peerings)
    heard = peerings.hear_ban(B.ban(EVE), Wall(WALL))
    assert heard == (B.id, PeerBanKept(mesh=B.id, issuer=B.admin.public, subject=b"n" + EVE, signed=B.ban(EVE)))
    assert peerings.hear_ban(B.ban(EVE), Wall(WALL)) is None
    named = peerings.hear_ban(C.ban("eve"), Wall(WALL))
    assert named == (C.id, PeerBanKept(mesh=C.id, issuer=C.admin.public, subject=b"oeve", signed=C.ban("eve")))
    assert peerings.is_banned(B.id, EVE, "bob")
    assert not peerings.is_banned(B.id, NodeId(b"b" * 32), "eve"), "that is a word about another mesh's owner"
    assert peerings.is_banned(C.id, NodeId(b"b" * 32), "eve")
    assert not peerings.is_banned(b"?", EVE, "eve")
    with pytest.raises(Reject, match=trust.NOT_YET_VALID):
        peerings.hear_ban(B.ban(EVE, WALL + trust.SKEW_MS + 1), Wall(WALL))
    assert {mesh for mesh, _ in peerings.bans_heads()} == {B.id, C.id}


def test_bans_abroad_come_back_after_a_restart():
    ban = PeerBanKept(mesh=B.id, issuer=B.admin.public, subject=b"n" + EVE, signed=B.ban(EVE))
    left = PeerBanKept(mesh=C.id, issuer=C.admin.public, subject=b"n" + EVE, signed=C.ban(EVE))
    broken = PeerBanKept(mesh=B.id, issuer=b"?", subject=b"n", signed=b"?")
    peerings = begin((row_of(KNOWN),), (ban, left, broken))
    assert peerings.is_banned(B.id, EVE, "")
    assert peerings.bans(C.id) is None


def test_who_signed_it_must_still_be_in_good_standing():
    peerings = begin()
    hear(KNOWN, peerings)
    assert peerings.holds(ID, Wall(WALL), trust.nobody)
    assert not peerings.holds(ID, Wall(WALL), lambda cert: cert.sub == A.admin.public)
    peerings.hear_ban(B.ban(B.admin.public), Wall(WALL))
    assert not peerings.holds(ID, Wall(WALL), trust.nobody)
