"""Peerings: what two admins sign, and everything that somebody else might try to make of it. docs/protocol.md, other meshes."""

from collections.abc import Callable

import msgspec
import pytest

from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import peering, prims, sign, trust
from p2pq.wire.messages import PeeringKnown
from p2pq.wire.objects import Cert, Peering, PeeringAccept, PeeringEnd, PeerSide
from tests.unit.wire.makers import ADMIN, ALICE, BOB, DAY_MS, OTHER_ROOT, ROOT, WALL, secret, subject

MESH_A, MESH_B = prims.mesh_id(ROOT.public), prims.mesh_id(OTHER_ROOT.public)
ADMIN_B = prims.SigningKey(secret("admin b"))
THIRD_ROOT = prims.SigningKey(secret("third root"))
KEY = secret("peering key")
EXP = Wall(WALL + 90 * DAY_MS)
OURS = PeerSide(caps=("bridge", "submit"), owners=("ann", "bob"))
THEIRS = PeerSide(caps=("bridge", "work"))


def admin_chain(key: prims.SigningKey, root: prims.SigningKey, at: int = WALL) -> tuple[bytes, ...]:
    caps = ("admin", "bridge", "submit", "work")
    return (trust.issue_admin(root, subject(key, "admin", caps=caps), serial=b"s" * 16, wall=Wall(at)),)


CHAIN_A, CHAIN_B = admin_chain(ADMIN, ROOT), admin_chain(ADMIN_B, OTHER_ROOT)


def offered(**changes) -> bytes:
    fields = {"name": "a", "to": MESH_B, "ours": OURS, "theirs": THEIRS, "key": KEY, "at": WALL, "exp": EXP}
    return peering.offer(ADMIN, CHAIN_A, ROOT.public, **(fields | changes))


def accepted(offer: bytes, at: int = WALL) -> bytes:
    return peering.accept(ADMIN_B, CHAIN_B, OTHER_ROOT.public, offer, name="b", at=Wall(at))


OFFER = offered()
ACCEPT = accepted(OFFER)
KNOWN = PeeringKnown(OFFER, ACCEPT)
ID = sign.digest(OFFER)


def ended(key=ADMIN_B, chain=CHAIN_B, root=OTHER_ROOT, ident=ID, at=WALL) -> bytes:
    return peering.end(key, chain, root.public, ident, at=Wall(at))


def resigned(raw: bytes, kind: type, key: prims.SigningKey, **changes) -> bytes:
    """Return a signed word with some fields changed, signed anew by whatever key."""
    word = sign.open_claimed(raw, kind, lambda claimed: claimed.iss)
    return sign.sign(key, msgspec.structs.replace(word, **changes))


def test_each_side_sees_the_same_terms_from_its_own_end():
    here = peering.open_known(KNOWN, ROOT.public, WALL)
    there = peering.open_known(KNOWN, OTHER_ROOT.public, WALL)
    assert (here.id, here.mesh, here.root, here.name) == (ID, MESH_B, OTHER_ROOT.public, "b")
    assert (there.id, there.mesh, there.root, there.name) == (ID, MESH_A, ROOT.public, "a")
    assert (here.ours, here.theirs) == (there.theirs, there.ours) == (OURS, THEIRS)
    assert (here.key, here.at, here.exp) == (there.key, there.at, there.exp) == (KEY, WALL, EXP)
    assert (here.our_issuer.sub, here.their_issuer.sub) == (ADMIN.public, ADMIN_B.public)
    assert (there.our_issuer.sub, there.their_issuer.sub) == (ADMIN_B.public, ADMIN.public)
    assert KEY.hex() not in repr(here) + repr(sign.open_claimed(OFFER, Peering, lambda word: word.iss))


@pytest.mark.parametrize(
    ("wall", "holds"),
    [
        (WALL - trust.SKEW_MS - 1, False),
        (WALL - trust.SKEW_MS, True),
        (EXP, True),
        (EXP + 1, False),
    ],
)
def test_it_holds_for_its_time(wall: int, *, holds: bool):
    assert peering.open_known(KNOWN, ROOT.public, WALL).holds(Wall(wall)) is holds


@pytest.mark.parametrize("root", [ROOT, OTHER_ROOT], ids=["ours", "theirs"])
def test_an_admin_of_either_mesh_ends_it_for_both(root: prims.SigningKey):
    word = ended() if root is OTHER_ROOT else ended(ADMIN, CHAIN_A, ROOT)
    for own in (ROOT, OTHER_ROOT):
        opened = peering.open_known(PeeringKnown(OFFER, ACCEPT, word), own.public, WALL)
        assert opened.ended == WALL
        assert not opened.holds(WALL)
    assert peering.end_at(word) == WALL


# -- what somebody else makes of it ----------------------------------------------------------------------------------


def refused(known: PeeringKnown, reason: str, *, root: prims.SigningKey = ROOT, wall: int = WALL) -> None:
    with pytest.raises(Reject) as caught:
        peering.open_known(known, root.public, Wall(wall))
    assert caught.value.reason == reason


def test_nobody_widens_what_was_signed():
    """More for one's own side, signed anew by the other admin, is no word of the first; and an acceptance is of one offer."""
    wide = PeerSide(caps=("bridge", "submit", "work"))
    forged = resigned(OFFER, Peering, ADMIN_B, theirs=wide, iss=ADMIN_B.public, certs=CHAIN_B)
    refused(PeeringKnown(forged, accepted_of(forged)), trust.WRONG_ROOT)
    altered = OFFER.replace(b"work", b"wonk")
    with pytest.raises(Reject):
        peering.open_known(PeeringKnown(altered, ACCEPT), ROOT.public, WALL)
    refused(PeeringKnown(offered(theirs=wide), ACCEPT), peering.OTHER_OFFER)


def accepted_of(offer: bytes, key=ADMIN_B, chain=CHAIN_B, root=OTHER_ROOT, **changes) -> bytes:
    """Return an acceptance that was signed without a look at the offer."""
    word = PeeringAccept(
        mesh=prims.mesh_id(root.public),
        root=root.public,
        name="b",
        offer=sign.digest(offer),
        iss=key.public,
        at=WALL,
        certs=chain,
    )
    return sign.sign(key, msgspec.structs.replace(word, **changes))


def test_only_the_mesh_that_was_asked_can_accept():
    """Whoever gets hold of an offer to somebody else, an admin of a mesh of their own even, has nothing in hand."""
    mallory = prims.SigningKey(secret("mallory"))
    chain = admin_chain(mallory, THIRD_ROOT)
    refused(PeeringKnown(OFFER, accepted_of(OFFER, mallory, chain, THIRD_ROOT)), peering.NOT_ASKED)
    claims_b = accepted_of(OFFER, mallory, chain, THIRD_ROOT, mesh=MESH_B)
    refused(PeeringKnown(OFFER, claims_b), trust.WRONG_ROOT)
    claims_root_b = accepted_of(OFFER, mallory, chain, OTHER_ROOT)
    refused(PeeringKnown(OFFER, claims_root_b), trust.WRONG_ROOT)
    with pytest.raises(Reject, match=peering.NOT_ASKED):
        peering.accept(mallory, chain, THIRD_ROOT.public, OFFER, name="m", at=WALL)


def member_chain(key: prims.SigningKey, admin=ADMIN_B, chain=CHAIN_B, root=OTHER_ROOT) -> tuple[bytes, ...]:
    caps = ("submit", "work")
    member = trust.issue_member(
        admin, chain[0], root.public, subject(key, "member", caps=caps), serial=b"m" * 16, wall=WALL
    )
    return (member, *chain)


def test_a_member_who_is_no_admin_signs_nothing():
    chain = member_chain(ALICE)
    refused(PeeringKnown(OFFER, accepted_of(OFFER, ALICE, chain)), trust.NOT_ADMIN)
    offer = resigned(OFFER, Peering, BOB, iss=BOB.public, certs=member_chain(BOB, ADMIN, CHAIN_A, ROOT))
    refused(PeeringKnown(offer, accepted_of(offer)), trust.NOT_ADMIN)
    end = ended(ALICE, chain)
    refused(PeeringKnown(OFFER, ACCEPT, end), trust.NOT_ADMIN)


def test_who_signs_shows_its_own_certificate():
    refused(PeeringKnown(OFFER, accepted_of(OFFER, ALICE, CHAIN_B)), trust.NOT_ADMIN)
    without = msgspec.msgpack.decode(sign.body_of(ACCEPT)) | {"certs": []}
    assert without["certs"] == []
    with pytest.raises(Reject):
        accepted_of(OFFER, certs=())


def test_a_third_mesh_has_no_part_in_it():
    refused(KNOWN, peering.NOT_OURS, root=THIRD_ROOT)
    mallory = prims.SigningKey(secret("mallory"))
    end = ended(mallory, admin_chain(mallory, THIRD_ROOT), THIRD_ROOT)
    refused(PeeringKnown(OFFER, ACCEPT, end), peering.NOT_OURS)


def test_an_end_is_of_one_peering():
    refused(PeeringKnown(OFFER, ACCEPT, ended(ident=b"x" * 32)), peering.OTHER_END)


def test_one_type_does_not_pass_as_another():
    for known in (PeeringKnown(ACCEPT, ACCEPT), PeeringKnown(OFFER, OFFER), PeeringKnown(OFFER, ACCEPT, ACCEPT)):
        refused(known, sign.WRONG_TYPE)


def test_a_root_of_another_mesh_is_not_believed():
    offer = resigned(OFFER, Peering, ADMIN, root=OTHER_ROOT.public)
    refused(PeeringKnown(offer, accepted_of(offer)), trust.WRONG_ROOT)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"to": MESH_A}, peering.SAME_MESH),
        ({"exp": WALL}, peering.BAD_TERMS),
        ({"exp": WALL + peering.LIFE_MAX_MS + 1}, peering.BAD_TERMS),
        ({"name": "a\x1b[2J"}, peering.BAD_TERMS),
        ({"ours": PeerSide(caps=("submit",), owners=("ann\n",))}, peering.BAD_TERMS),
        ({"at": WALL + trust.SKEW_MS + 1}, trust.NOT_YET_VALID),
    ],
)
def test_unsound_terms_are_refused(changes: dict, reason: str):
    offer = resigned(OFFER, Peering, ADMIN, **changes)
    refused(PeeringKnown(offer, accepted_of(offer)), reason)


@pytest.mark.parametrize("side", [PeerSide(caps=("work", "bridge")), PeerSide(caps=("work", "work"))])
def test_capabilities_have_one_form(side: PeerSide):
    offer = resigned(OFFER, Peering, ADMIN, theirs=side)
    refused(PeeringKnown(offer, accepted_of(offer)), peering.BAD_TERMS)
    assert peering.open_offer(offered(theirs=side), WALL).theirs.caps == tuple(sorted(set(side.caps)))


@pytest.mark.parametrize("caps", [(), ("admin",)], ids=["none", "admin"])
def test_nobody_makes_admins_or_nothing_of_another_mesh(caps: tuple):
    with pytest.raises(Reject):
        offered(theirs=PeerSide(caps=caps))


def test_an_acceptance_or_an_end_from_the_future_waits_for_its_time():
    late = WALL + trust.SKEW_MS + 1
    refused(PeeringKnown(OFFER, accepted_of(OFFER, at=late)), trust.NOT_YET_VALID)
    refused(PeeringKnown(OFFER, ACCEPT, ended(at=late)), trust.NOT_YET_VALID)


def test_a_name_that_terminals_obey_is_not_accepted():
    refused(PeeringKnown(OFFER, accepted_of(OFFER, name="b\x1b[2J")), peering.BAD_TERMS)


def test_what_is_over_is_not_accepted_any_more():
    with pytest.raises(Reject, match=peering.OVER):
        accepted(OFFER, at=EXP + 1)


def test_what_was_signed_outlives_the_certificates_of_who_signed_it():
    much_later = Wall(WALL + 500 * DAY_MS)
    assert peering.open_known(KNOWN, ROOT.public, much_later).id == ID


# -- what members may do ---------------------------------------------------------------------------------------------


def cert_of(owner: str, *caps: str) -> Cert:
    return Cert(
        mesh=MESH_B,
        sub=ALICE.public,
        iss=ADMIN_B.public,
        ser=bytes(16),
        name="n",
        owner=owner,
        caps=caps,
        nbf=WALL,
        exp=EXP,
    )


@pytest.mark.parametrize(
    ("cert", "may"),
    [
        (cert_of("ann", "admin", "bridge", "submit", "work"), ("bridge", "submit")),
        (cert_of("ann", "work"), ()),
        (cert_of("bob", "submit"), ("submit",)),
        (cert_of("eve", "bridge", "submit", "work"), ()),
    ],
)
def test_members_may_do_what_certificate_and_peering_both_say(cert: Cert, may: tuple):
    assert peering.narrowed(cert, OURS) == may
    assert peering.narrowed(cert_of("eve", "work"), THEIRS) == ("work",)
    assert peering.name_abroad("ann", "b") == "ann@b"


# -- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [str, lambda text: f"Hello,\n\n> see below\n{text}\n-- \nAnn\n", lambda text: text.replace("\n", "\r\n  ")],
    ids=["as it is", "in a mail", "indented"],
)
def test_a_file_survives_mail(spoil: Callable[[str], str]):
    assert peering.from_file(spoil(peering.to_file(OFFER))) == peering.File(OFFER)
    assert peering.from_file(spoil(peering.to_file(OFFER, ACCEPT))) == peering.File(OFFER, ACCEPT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        peering.to_file(OFFER)[:-40],
        peering.to_file(OFFER).replace("PEERING-----\n", "PEERING-----\n!", 1),
        peering.to_file(OFFER).replace("PEERING-----\n", "PEERING-----\nAAAA", 1),
    ],
)
def test_what_is_no_file_is_refused(text: str):
    with pytest.raises(Reject):
        peering.from_file(text)


def test_an_end_names_its_mesh():
    word = sign.open_claimed(ended(), PeeringEnd, lambda claimed: claimed.iss)
    assert (word.mesh, word.peering, NodeId(word.iss)) == (MESH_B, ID, ADMIN_B.public)
