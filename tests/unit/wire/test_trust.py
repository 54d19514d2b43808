"""Chains of certificates (H6, H7) and bans."""

import msgspec
import pytest

from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import objects, prims, sign, trust
from tests.unit.wire.makers import (
    ADMIN,
    ALICE,
    BOB,
    DAY_MS,
    OTHER_ROOT,
    ROOT,
    WALL,
    admin_cert,
    entropy,
    member_certs,
    subject,
)


def cert_of(certs, wall=WALL, banned=trust.nobody, root=ROOT):
    return trust.verify_chain(certs, root.public, Wall(wall), banned)


def reason_of(certs, **more):
    with pytest.raises(Reject) as caught:
        cert_of(certs, **more)
    return caught.value.reason


def forged(key=ADMIN, **changes):
    """A certificate that no honest admin would issue, well signed."""
    _, body, _ = msgspec.msgpack.decode(member_certs()[0], type=tuple[str, bytes, bytes])
    cert = msgspec.msgpack.decode(body, type=objects.Cert)
    return sign.sign(key, msgspec.structs.replace(cert, **changes))


def test_a_member():
    cert = cert_of(member_certs())
    assert (cert.sub, cert.name, cert.owner, cert.caps) == (ALICE.public, "alice", "owner", ("submit", "work"))
    assert cert.mesh == prims.mesh_id(ROOT.public)
    assert cert.exp - cert.nbf == objects.CERT_LIFE_MS


def test_an_admin_by_itself():
    assert cert_of((admin_cert(),)).caps == ("admin", "bridge", "submit", "work")


def test_a_new_root():
    root = trust.make_root(entropy("new"))
    assert root.public == trust.make_root(entropy("new")).public != ROOT.public


@pytest.mark.parametrize(
    ("certs", "reason"),
    [
        ((), trust.MISSING),
        ((b"", b"", b""), trust.CHAIN_LENGTH),
        ((*member_certs(), admin_cert()), trust.CHAIN_LENGTH),
        ((b"junk",), trust.BAD_CERT),
        ((bytes(2000),), trust.BAD_CERT),
        ((b"junk", admin_cert()), trust.BAD_CERT),
        (member_certs()[:1], trust.NOT_ADMIN),  # a member alone
        (member_certs()[::-1], trust.NOT_ADMIN),
        ((forged(ALICE, sub=BOB.public, iss=ALICE.public), member_certs()[0]), trust.NOT_ADMIN),
        ((forged(ALICE, sub=BOB.public, iss=ALICE.public), admin_cert()), trust.NOT_ADMIN),
        ((forged(ALICE, sub=BOB.public), admin_cert()), trust.BAD_CERT),  # claims the admin, signed by a member
        ((forged(mesh=b"m" * 32), admin_cert()), trust.WRONG_ROOT),
        ((admin_cert(root=OTHER_ROOT),), trust.WRONG_ROOT),
        ((forged(caps=("admin", "work")), admin_cert()), trust.TOO_MANY_CAPS),
        ((forged(caps=("bridge",)), admin_cert(caps=("admin", "work"))), trust.TOO_MANY_CAPS),
        ((forged(caps=("work", "submit")), admin_cert()), trust.BAD_CERT),
        ((forged(caps=("work", "work")), admin_cert()), trust.BAD_CERT),
        ((forged(name="a\x1b[31m"), admin_cert()), trust.BAD_CERT),
        ((forged(owner="a\nb"), admin_cert()), trust.BAD_CERT),
        ((forged(exp=WALL), admin_cert()), trust.BAD_CERT),
        ((forged(exp=WALL + objects.CERT_LIFE_MS + 1), admin_cert()), trust.BAD_CERT),
    ],
)
def test_chains_that_lead_nowhere(certs, reason):
    assert reason_of(certs) == reason


def test_a_root_signed_certificate_without_admin_is_no_chain():
    root_signed = forged(ROOT, iss=ROOT.public)
    assert reason_of((root_signed,)) == trust.NOT_ADMIN


@pytest.mark.parametrize("certs", [member_certs(), (admin_cert(),)])
def test_times_with_five_minutes_either_way(certs):
    """H19."""
    cert = cert_of(certs)
    assert reason_of(certs, wall=cert.nbf - trust.SKEW_MS - 1) == trust.NOT_YET_VALID
    assert cert_of(certs, wall=cert.nbf - trust.SKEW_MS) == cert
    assert cert_of(certs, wall=cert.exp + trust.SKEW_MS) == cert
    assert reason_of(certs, wall=cert.exp + trust.SKEW_MS + 1) == trust.EXPIRED


def test_an_expired_admin_takes_its_members_along():
    short = admin_cert(life_ms=DAY_MS)
    forever = forged()
    assert reason_of((forever, short), wall=WALL + 2 * DAY_MS) == trust.EXPIRED


def test_a_members_own_time_counts_too():
    short = (issue(life_ms=DAY_MS), admin_cert())
    assert cert_of(short).exp == WALL + DAY_MS
    assert reason_of(short, wall=WALL + 2 * DAY_MS) == trust.EXPIRED
    later = (issue(wall=WALL + DAY_MS), admin_cert())
    assert reason_of(later) == trust.NOT_YET_VALID


def test_long_certificates_are_not_looked_at(monkeypatch):
    certs = member_certs()
    monkeypatch.setattr(trust, "CERT_BYTES_MAX", len(certs[0]) - 1)
    assert reason_of(certs) == trust.BAD_CERT


def test_bans():
    """H7."""
    certs = member_certs()
    assert reason_of(certs, banned=lambda cert: cert.sub == ALICE.public) == trust.BANNED
    assert reason_of(certs, banned=lambda cert: cert.sub == ADMIN.public) == trust.ISSUER_BANNED
    assert reason_of((admin_cert(),), banned=lambda cert: cert.sub == ADMIN.public) == trust.BANNED


def issue(admin=ADMIN, cert=None, who=None, wall=WALL, **more):
    return trust.issue_member(
        admin, cert or admin_cert(), ROOT.public, who or subject(BOB), serial=b"s" * 16, wall=Wall(wall), **more
    )


def test_issuing_refuses_what_would_not_verify():
    for call, reason in [
        (lambda: trust.issue_admin(ROOT, subject(BOB), serial=b"s" * 16, wall=WALL), trust.NOT_ADMIN),
        (lambda: admin_cert(life_ms=objects.CERT_LIFE_MS + 1), trust.BAD_CERT),
        (lambda: issue(who=subject(BOB, caps=("admin",))), trust.TOO_MANY_CAPS),
        (lambda: issue(cert=admin_cert(caps=("admin",))), trust.TOO_MANY_CAPS),
        (lambda: issue(admin=BOB), trust.NOT_ADMIN),
        (lambda: issue(cert=member_certs()[0]), trust.NOT_ADMIN),
        (lambda: issue(wall=WALL + 500 * DAY_MS), trust.EXPIRED),
        (lambda: issue(who=subject(BOB, "a\tb")), trust.BAD_CERT),
        (lambda: issue(who=subject(BOB, "\U0001f600" * 64, owner="\U0001f600" * 200)), "malformed"),
        (lambda: issue(life_ms=0), trust.BAD_CERT),
    ]:
        with pytest.raises(Reject, match=reason):
            call()


def test_long_names_fit():
    assert len(issue(who=subject(BOB, "\U0001f600" * 64, owner="\U0001f600" * 64))) <= trust.CERT_BYTES_MAX


def test_a_member_does_not_outlive_its_admin():
    cert = cert_of((issue(wall=WALL + DAY_MS), admin_cert()), wall=WALL + DAY_MS)
    assert cert.exp == WALL + objects.CERT_LIFE_MS


def test_capabilities_are_put_in_order():
    assert cert_of((issue(who=subject(BOB, caps=("work", "submit", "work"))), admin_cert())).caps == ("submit", "work")


def ban(issuer=ADMIN, at=WALL, certs=None, **more):
    if certs is None:
        certs = (admin_cert(),)
    return trust.issue_ban(issuer, ROOT.public, NodeId(BOB.public), at=Wall(at), certs=certs, **more)


def opened(raw, wall=WALL, root=ROOT):
    return trust.open_ban(raw, root.public, Wall(wall))


def test_a_ban_by_an_admin_and_by_the_root():
    found = opened(ban())
    assert (found.sub, found.iss, found.banned) == (BOB.public, ADMIN.public, True)
    assert opened(ban(ROOT, certs=(), banned=False)).banned is False


def test_a_ban_outlives_its_issuers_certificate():
    assert opened(ban(), wall=WALL + 4000 * DAY_MS).sub == BOB.public


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (ban(ALICE, certs=member_certs()), trust.NOT_ADMIN),
        (ban(ALICE, certs=(admin_cert(),)), trust.NOT_ADMIN),
        (ban(ADMIN, certs=()), trust.MISSING),
        (ban(ROOT), trust.BAD_BAN),
        (ban(at=WALL + trust.SKEW_MS + 1), trust.NOT_YET_VALID),
        (ban(at=WALL - DAY_MS), trust.NOT_YET_VALID),  # before it was an admin
        (trust.issue_ban(ROOT, OTHER_ROOT.public, NodeId(BOB.public), at=WALL), trust.WRONG_ROOT),
        (trust.issue_ban(OTHER_ROOT, ROOT.public, NodeId(BOB.public), at=WALL), trust.MISSING),
        (ban()[:-1], "malformed"),
    ],
)
def test_bans_by_nobody_in_charge(raw, reason):
    with pytest.raises(Reject, match=reason):
        opened(raw)


@pytest.mark.parametrize("issuer", [ADMIN, ROOT])
def test_a_ban_of_an_owner(issuer):
    certs = (admin_cert(),) if issuer is ADMIN else ()
    raw = trust.issue_ban(issuer, ROOT.public, "eve", at=WALL, certs=certs)
    found = opened(raw)
    assert (found.owner, found.iss, found.banned) == ("eve", issuer.public, True)
    with pytest.raises(Reject, match=trust.WRONG_ROOT):
        opened(raw, root=OTHER_ROOT)
    with pytest.raises(Reject, match=trust.NOT_ADMIN):
        opened(trust.issue_ban(BOB, ROOT.public, "eve", at=WALL, certs=(admin_cert(),)))
    with pytest.raises(Reject, match="malformed"):
        trust.issue_ban(issuer, ROOT.public, "", at=WALL)


# -- mesh keys ---------------------------------------------------------------------------------------------------------


def mesh_key(issuer=ADMIN, at=WALL, certs=None, root=ROOT):
    certs = (admin_cert(),) if certs is None else certs
    return trust.issue_mesh_key(issuer, root.public, b"k" * 32, at=Wall(at), certs=certs)


def test_a_mesh_key_by_an_admin_and_by_the_root_outlives_the_certificate():
    late = Wall(WALL + 4000 * DAY_MS)
    assert trust.open_mesh_key(mesh_key(), ROOT.public, late).key == b"k" * 32
    assert trust.open_mesh_key(mesh_key(ROOT, certs=()), ROOT.public, late).iss == ROOT.public


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (mesh_key(certs=member_certs()), trust.NOT_ADMIN),
        (mesh_key(BOB), trust.NOT_ADMIN),
        (mesh_key(BOB, certs=()), trust.MISSING),
        (mesh_key(ROOT), trust.BAD_BAN),
        (mesh_key(at=WALL + trust.SKEW_MS + 1), trust.NOT_YET_VALID),
        (mesh_key(at=WALL - DAY_MS), trust.NOT_YET_VALID),
        (mesh_key(root=OTHER_ROOT), trust.WRONG_ROOT),
        (ban(), "wrong type"),
        (mesh_key()[:-1], "malformed"),
    ],
)
def test_mesh_keys_by_nobody_in_charge(raw, reason):
    with pytest.raises(Reject, match=reason):
        trust.open_mesh_key(raw, ROOT.public, WALL)


def test_a_mesh_key_of_an_admin_that_is_banned():
    with pytest.raises(Reject, match=trust.BANNED):
        trust.open_mesh_key(mesh_key(), ROOT.public, WALL, lambda cert: cert.sub == ADMIN.public)


def test_a_mesh_key_is_not_shown():
    key = trust.open_mesh_key(mesh_key(), ROOT.public, WALL)
    assert "kkkk" not in repr(key)
