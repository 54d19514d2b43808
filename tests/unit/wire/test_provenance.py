"""What proves a result, whole and with each part of it altered."""

from collections.abc import Callable

import msgspec
import pytest

from p2pq.errors import Reject
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Outcome
from p2pq.wire import objects, prims, provenance, sign, trust
from p2pq.wire.objects import BlobRef, Cert, Grant, GrantItem, Manifest, PeerSide, Result, ResultItem, SubGrant
from p2pq.wire.peering import Opened
from p2pq.wire.provenance import Handing, Job, Kept, Proven, Refuted, Unkept
from tests.unit.wire.makers import (
    ADMIN,
    ALICE,
    BOB,
    DAY_MS,
    OTHER_ROOT,
    ROOT,
    WALL,
    admin_cert,
    member_certs,
    secret,
    subject,
)

MASTER = prims.SigningKey(secret("master"))
MESH = prims.mesh_id(ROOT.public)
JOB = JobId(b"j" * 16)
LEASE = LeaseId(7, 5)
GIVEN = Wall(WALL + DAY_MS // 2)
CAME = Wall(WALL + DAY_MS)
ITEM = ResultItem(
    job=JOB,
    task=3,
    attempt=1,
    lease=LEASE,
    outcome=Outcome(reason="ok", exit=0),
    sandbox="strict",
    key=b"k" * 80,
    body=(BlobRef(b"b" * 32, 100),),
    blobs=(BlobRef(b"c" * 32, 1000),),
)
MANIFEST = Manifest(
    mesh=MESH,
    node=MASTER.public,
    owner="owner",
    job=JOB,
    tasks=10,
    reply=b"r" * 32,
    commit=b"c" * 32,
    body=(BlobRef(b"m" * 32, 10),),
    submitted=WALL,
    expires=WALL + 7 * DAY_MS,
)


def signed_manifest(**changes) -> bytes:
    return sign.sign(MASTER, msgspec.structs.replace(MANIFEST, **changes))


def opened(raw: bytes | None = None) -> Job:
    return provenance.open_job(raw or signed_manifest(), NodeId(MASTER.public), JOB)


def grant(signer=MASTER, to=ALICE, **changes) -> bytes:
    plain = Grant(
        mesh=MESH,
        node=MASTER.public,
        to=to.public,
        nonce=bytes(16),
        job=JOB,
        manifest=sign.digest(signed_manifest()),
        items=(GrantItem(2, 1, LeaseId(7, 4)), GrantItem(3, 1, LEASE)),
        key=b"g" * 80,
        expires=WALL + 60_000,
    )
    return sign.sign(signer, msgspec.structs.replace(plain, **changes))


def result(*items: ResultItem, key=ALICE, **changes) -> bytes:
    other = msgspec.structs.replace(ITEM, task=2, lease=LeaseId(7, 4))
    plain = Result(mesh=MESH, node=MASTER.public, by=key.public, items=items or (other, ITEM))
    return sign.sign(key, msgspec.structs.replace(plain, **changes))


def changed(**changes) -> ResultItem:
    return msgspec.structs.replace(ITEM, **changes)


def kept(**changes) -> Kept:
    plain = Kept(
        task=3,
        attempt=1,
        lease=LEASE,
        granted=GIVEN,
        wall=CAME,
        item=ITEM,
        grant=grant(),
        signed=result(),
        certs=member_certs(),
    )
    return msgspec.structs.replace(plain, **changes)


def foreign_certs() -> tuple[bytes, ...]:
    """A sound chain, of another mesh."""
    admin = admin_cert(root=OTHER_ROOT)
    return (trust.issue_member(ADMIN, admin, OTHER_ROOT.public, subject(ALICE), serial=b"m" * 16, wall=WALL), admin)


def nobody(_: Cert) -> Wall | None:
    return None


def banned(who, since: int) -> Callable[[Cert], Wall | None]:
    return lambda cert: Wall(since) if cert.sub == who.public else None


def reason_of(evidence: Kept, job: Job | None = None, out=nobody) -> str:
    finding = provenance.check(evidence, job or opened(), out)
    assert isinstance(finding, Refuted), finding
    return finding.reason


PROVEN = Proven(by=NodeId(ALICE.public), name="alice", owner="owner")


def test_a_result_as_it_must_be():
    assert provenance.check(kept(), opened(), nobody) == PROVEN


def test_an_admin_may_have_worked():
    certs = (admin_cert(),)
    evidence = kept(grant=grant(to=ADMIN), signed=result(key=ADMIN), certs=certs)
    assert provenance.check(evidence, opened(), nobody) == Proven(by=ADMIN.public, name="admin", owner="owner")


def test_the_master_itself_needs_no_certificate():
    evidence = kept(grant=grant(to=MASTER), signed=result(key=MASTER), certs=())
    assert provenance.check(evidence, opened(), nobody) == Proven(by=NodeId(MASTER.public))


def test_a_failed_attempt_is_somebodys_word_too():
    item = changed(outcome=Outcome(reason="exit", exit=3))
    assert provenance.check(kept(item=item, signed=result(item)), opened(), nobody) == PROVEN


@pytest.mark.parametrize(
    ("raw", "job"),
    [
        (sign.sign(ALICE, MANIFEST), JOB),
        (signed_manifest()[:-1] + b"x", JOB),
        (b"junk", JOB),
        (signed_manifest(), JobId(b"o" * 16)),
        (signed_manifest(node=ALICE.public), JOB),
        (grant(), JOB),
    ],
)
def test_a_manifest_that_is_not_the_masters_word_on_that_job(raw, job):
    with pytest.raises(Reject):
        provenance.open_job(raw, NodeId(MASTER.public), job)


def test_every_byte_of_what_is_signed_counts():
    """Only a ban is told by what is not signed; the time is checked against the certificates."""
    job = opened()
    for field in ("grant", "signed"):
        whole = getattr(kept(), field)
        for at in range(0, len(whole), 7):
            altered = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            assert isinstance(provenance.check(kept(**{field: altered}), job, nobody), Refuted), (field, at)
    for number, whole in enumerate(member_certs()):
        for at in range(0, len(whole), 7):
            altered = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            certs = (*member_certs()[:number], altered, *member_certs()[number + 1 :])
            assert isinstance(provenance.check(kept(certs=certs), job, nobody), Refuted), (number, at)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        # the grant
        ({"grant": grant(ALICE)}, provenance.BAD_GRANT),
        ({"grant": result()}, provenance.BAD_GRANT),
        ({"grant": grant(manifest=sign.digest(signed_manifest(tasks=11)))}, provenance.OTHER_JOB),
        ({"grant": grant(job=b"o" * 16)}, provenance.OTHER_JOB),
        ({"grant": grant(mesh=b"o" * 32)}, provenance.OTHER_JOB),
        ({"grant": grant(node=ALICE.public)}, provenance.OTHER_JOB),
        ({"grant": grant(items=(GrantItem(3, 1, LeaseId(7, 6)),))}, provenance.OTHER_GRANT),
        ({"grant": grant(items=(GrantItem(4, 1, LEASE),))}, provenance.OTHER_GRANT),
        ({"grant": grant(items=(GrantItem(3, 2, LEASE),))}, provenance.OTHER_GRANT),
        # the result
        ({"grant": grant(to=BOB)}, provenance.BAD_RESULT),
        ({"signed": result(key=BOB)}, provenance.BAD_RESULT),
        ({"signed": result()[:-1] + b"x"}, provenance.BAD_RESULT),
        ({"signed": grant(ALICE)}, provenance.BAD_RESULT),
        ({"signed": result(by=BOB.public)}, provenance.OTHER_MASTER),
        ({"signed": result(node=BOB.public)}, provenance.OTHER_MASTER),
        ({"signed": result(mesh=b"o" * 32)}, provenance.OTHER_MASTER),
        ({"signed": result(changed(lease=LeaseId(7, 6)))}, provenance.OTHER_RESULT),
        ({"signed": result(changed(task=4))}, provenance.OTHER_RESULT),
        ({"signed": result(changed(attempt=2))}, provenance.OTHER_RESULT),
        ({"signed": result(changed(job=b"o" * 16))}, provenance.OTHER_RESULT),
        # what was delivered by it
        ({"item": changed(body=(BlobRef(b"x" * 32, 100),))}, provenance.NOT_DELIVERED),
        ({"item": changed(blobs=())}, provenance.NOT_DELIVERED),
        ({"item": changed(key=b"x" * 80)}, provenance.NOT_DELIVERED),
        ({"item": changed(outcome=Outcome(reason="exit", exit=1))}, provenance.NOT_DELIVERED),
        ({"item": changed(sandbox="none")}, provenance.NOT_DELIVERED),
        # whose it is
        ({"certs": member_certs(BOB, "bob")}, provenance.OTHER_HOLDER),
        ({"certs": (admin_cert(),)}, provenance.OTHER_HOLDER),
        ({"certs": member_certs(caps=("submit",))}, provenance.MAY_NOT_WORK),
        ({"certs": (b"junk",)}, provenance.CHAIN[trust.BAD_CERT]),
        ({"certs": (b"junk", admin_cert())}, provenance.CHAIN[trust.BAD_CERT]),
        ({"certs": member_certs()[:1]}, provenance.CHAIN[trust.WRONG_ROOT]),
        ({"certs": (member_certs()[0], admin_cert(root=OTHER_ROOT))}, provenance.CHAIN[trust.WRONG_ROOT]),
        ({"certs": foreign_certs()}, provenance.CHAIN[trust.WRONG_ROOT]),
        ({"certs": (member_certs()[0], *member_certs())}, provenance.CHAIN[trust.CHAIN_LENGTH]),
        ({"certs": (member_certs()[0], admin_cert(BOB))}, provenance.CHAIN[trust.NOT_ADMIN]),
        ({"certs": (member_certs()[0], admin_cert(caps=("admin", "submit")))}, provenance.CHAIN[trust.TOO_MANY_CAPS]),
        ({"wall": Wall(WALL - DAY_MS)}, provenance.CHAIN[trust.NOT_YET_VALID]),
        ({"wall": Wall(WALL + objects.CERT_LIFE_MS + DAY_MS)}, provenance.CHAIN[trust.EXPIRED]),
        ({"certs": member_certs(life_ms=DAY_MS // 2)}, provenance.CHAIN[trust.EXPIRED]),
    ],
)
def test_what_is_altered_is_told(changes, reason):
    assert reason_of(kept(**changes)) == reason


def test_a_grant_under_an_altered_manifest():
    assert reason_of(kept(), opened(signed_manifest(tasks=11))) == provenance.OTHER_JOB


def test_a_job_for_one_node_only():
    for_alice, for_bob = (signed_manifest(only=who.public) for who in (ALICE, BOB))
    evidence = kept(grant=grant(manifest=sign.digest(for_alice)))
    assert provenance.check(evidence, opened(for_alice), nobody) == PROVEN
    evidence = kept(grant=grant(manifest=sign.digest(for_bob)))
    assert reason_of(evidence, opened(for_bob)) == provenance.OTHER_WORKER


def test_who_was_banned_by_then_and_who_has_been_since():
    job = opened()
    for since in (CAME - 1, CAME):
        assert reason_of(kept(), job, banned(ALICE, since)) == provenance.CHAIN[trust.BANNED]
        assert reason_of(kept(), job, banned(ADMIN, since)) == provenance.CHAIN[trust.ISSUER_BANNED]
    later = Wall(CAME + 1)
    for who in (ALICE, ADMIN):
        expected = msgspec.structs.replace(PROVEN, banned=later)
        assert provenance.check(kept(), job, banned(who, later)) == expected
    both = provenance.check(kept(), job, lambda cert: Wall(CAME + (5 if cert.sub == ALICE.public else 9)))
    assert both == msgspec.structs.replace(PROVEN, banned=Wall(CAME + 5))


def test_the_first_of_two_words_on_one_attempt_is_the_one_that_counted():
    two = result(ITEM, changed(key=b"x" * 80))
    assert provenance.check(kept(signed=two), opened(), nobody) == PROVEN
    assert reason_of(kept(signed=two, item=changed(key=b"x" * 80))) == provenance.NOT_DELIVERED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signed": b""}, provenance.NO_EVIDENCE),
        ({"signed": b"", "grant": b"", "certs": ()}, provenance.NO_EVIDENCE),
        ({"grant": b""}, provenance.NO_GRANT),
        ({"grant": grant(items=(GrantItem(3, 1, LeaseId(7, 1)),)), "forgotten": True}, provenance.NO_GRANT),
        ({"certs": ()}, provenance.NO_CERTS),
    ],
)
def test_what_was_not_kept_is_no_proof_and_no_accusation(changes, reason):
    assert provenance.check(kept(**changes), opened(), nobody) == Unkept(reason)


def test_a_lease_that_may_have_been_forgotten_and_was_not():
    assert provenance.check(kept(forgotten=True), opened(), nobody) == PROVEN


HANDED_ON = grant(to=BOB, key=b"")
"""To a bridge: the key comes apart, sealed to each leaf."""


def test_what_a_bridge_handed_on_is_not_proved_and_not_refuted():
    assert provenance.check(kept(grant=HANDED_ON), opened(), nobody) == Unkept(provenance.NO_SUBGRANT)
    by_master = kept(grant=HANDED_ON, signed=result(key=MASTER), certs=())
    assert provenance.check(by_master, opened(), nobody) == Unkept(provenance.NO_SUBGRANT)
    assert provenance.check(kept(grant=HANDED_ON, certs=()), opened(), nobody) == Unkept(provenance.NO_CERTS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signed": result()[:-1] + b"x"}, provenance.BAD_RESULT),
        ({"signed": result(by=BOB.public)}, provenance.BAD_RESULT),
        ({"signed": result(node=BOB.public)}, provenance.OTHER_MASTER),
        ({"signed": result(changed(task=4))}, provenance.OTHER_RESULT),
        ({"item": changed(key=b"x" * 80)}, provenance.NOT_DELIVERED),
        ({"certs": member_certs(BOB, "bob")}, provenance.OTHER_HOLDER),
        ({"certs": member_certs(caps=("submit",))}, provenance.MAY_NOT_WORK),
        ({"certs": foreign_certs()}, provenance.CHAIN[trust.WRONG_ROOT]),
    ],
)
def test_what_is_altered_of_what_a_bridge_handed_on_is_told(changes, reason):
    assert reason_of(kept(grant=HANDED_ON, **changes)) == reason


def test_a_job_for_one_leaf_only():
    for_alice, for_bob = (signed_manifest(only=who.public) for who in (ALICE, BOB))
    evidence = kept(grant=grant(to=BOB, key=b"", manifest=sign.digest(for_alice)))
    assert provenance.check(evidence, opened(for_alice), nobody) == Unkept(provenance.NO_SUBGRANT)
    evidence = kept(grant=grant(to=BOB, key=b"", manifest=sign.digest(for_bob)))
    assert reason_of(evidence, opened(for_bob)) == provenance.OTHER_WORKER


# -- how bridges handed it on -------------------------------------------------------------------------------------------

NEAR, FURTHER = prims.SigningKey(secret("near bridge")), prims.SigningKey(secret("further bridge"))
GRANTED = grant(to=NEAR, key=b"")


def sub_grant(above: bytes, bridge, to, *, signer=None, **changes) -> bytes:
    plain = SubGrant(
        mesh=MESH,
        node=bridge.public,
        master=MASTER.public,
        to=to.public,
        parent=sign.digest(above),
        nonce=bytes(16),
        leases=(LEASE,),
        expires=WALL + 60_000,
    )
    return sign.sign(signer or bridge, msgspec.structs.replace(plain, **changes))


def bridge_certs(bridge, **more) -> tuple[bytes, ...]:
    return member_certs(bridge, "bridge", **({"caps": ("bridge",)} | more))


OUTER = sub_grant(GRANTED, NEAR, FURTHER, leases=(LeaseId(7, 4), LEASE))
INNER = sub_grant(OUTER, FURTHER, ALICE)
ONLY = sub_grant(GRANTED, NEAR, ALICE)
NEAR_STEP = Handing(signed=OUTER, certs=bridge_certs(NEAR))
FURTHER_STEP = Handing(signed=INNER, certs=bridge_certs(FURTHER))


def handed(*steps: Handing, **more) -> Kept:
    return kept(grant=GRANTED, handed=steps or (NEAR_STEP, FURTHER_STEP), **more)


def only(raw: bytes = ONLY, certs: tuple[bytes, ...] | None = None, **more) -> Kept:
    return handed(Handing(signed=raw, certs=bridge_certs(NEAR) if certs is None else certs), **more)


def test_what_bridges_handed_on_is_proved_by_their_words() -> None:
    assert provenance.check(only(), opened(), nobody) == PROVEN
    assert provenance.check(handed(), opened(), nobody) == PROVEN


def test_a_bridge_that_nothing_is_known_of_proves_nothing_and_accuses_nobody() -> None:
    for steps in ((msgspec.structs.replace(NEAR_STEP, certs=()), FURTHER_STEP), (NEAR_STEP, Handing(signed=INNER))):
        assert provenance.check(handed(*steps), opened(), nobody) == Unkept(provenance.NO_BRIDGE_CERTS)
    assert provenance.check(handed(certs=()), opened(), nobody) == Unkept(provenance.NO_CERTS)


def test_sub_grants_of_what_was_granted_to_the_worker_itself_mean_nothing() -> None:
    assert provenance.check(kept(handed=(Handing(signed=b"junk"),)), opened(), nobody) == PROVEN


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (ONLY[:-1] + bytes([ONLY[-1] ^ 1]), provenance.BAD_SUBGRANT),
        (b"junk", provenance.BAD_SUBGRANT),
        (GRANTED, provenance.BAD_SUBGRANT),
        (sub_grant(GRANTED, NEAR, ALICE, signer=FURTHER), provenance.BAD_SUBGRANT),
        (sub_grant(GRANTED, FURTHER, ALICE), provenance.BAD_SUBGRANT),
        (sub_grant(GRANTED, FURTHER, ALICE, signer=NEAR), provenance.BAD_SUBGRANT),
        (sub_grant(GRANTED, NEAR, ALICE, mesh=b"o" * 32), provenance.OTHER_SUBGRANT),
        (sub_grant(GRANTED, NEAR, ALICE, master=BOB.public), provenance.OTHER_SUBGRANT),
        (sub_grant(grant(to=NEAR), NEAR, ALICE), provenance.OTHER_SUBGRANT),
        (sub_grant(GRANTED, NEAR, ALICE, leases=(LeaseId(7, 4),)), provenance.OTHER_SUBGRANT),
        (sub_grant(GRANTED, NEAR, ALICE, leases=(LEASE, LeaseId(7, 6))), provenance.OTHER_SUBGRANT),
        (sub_grant(GRANTED, NEAR, ALICE, leases=(LEASE, LeaseId(7, 4))), provenance.OTHER_SUBGRANT),
        (sub_grant(GRANTED, NEAR, ALICE, leases=(LEASE, LEASE)), provenance.OTHER_SUBGRANT),
        (sub_grant(GRANTED, NEAR, BOB), provenance.OTHER_LEAF),
        (OUTER, provenance.OTHER_LEAF),
    ],
)
def test_a_sub_grant_that_does_not_fit_is_told(raw: bytes, reason: str) -> None:
    assert reason_of(only(raw)) == reason
    assert reason_of(only(raw, ())) == reason, "whoever that bridge was"


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((FURTHER_STEP, NEAR_STEP), provenance.BAD_SUBGRANT),
        ((NEAR_STEP,), provenance.OTHER_LEAF),
        ((FURTHER_STEP,), provenance.BAD_SUBGRANT),
        ((NEAR_STEP, Handing(signed=sub_grant(GRANTED, FURTHER, ALICE))), provenance.OTHER_SUBGRANT),
        ((NEAR_STEP, Handing(signed=sub_grant(OUTER, FURTHER, ALICE, leases=(LeaseId(7, 5), LeaseId(7, 4))))),
         provenance.OTHER_SUBGRANT),
    ],
)  # fmt: skip
def test_each_sub_grant_is_part_of_the_one_above(steps: tuple[Handing, ...], reason: str) -> None:
    assert reason_of(handed(*steps)) == reason


def test_every_byte_of_a_sub_grant_counts() -> None:
    job = opened()
    for number, whole in enumerate((OUTER, INNER)):
        for at in range(0, len(whole), 7):
            altered = Handing(signed=whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], certs=bridge_certs(NEAR))
            steps = (altered, FURTHER_STEP) if number == 0 else (NEAR_STEP, altered)
            assert isinstance(provenance.check(handed(*steps), job, nobody), Refuted), (number, at)


@pytest.mark.parametrize(
    ("certs", "reason"),
    [
        (bridge_certs(FURTHER), provenance.OTHER_BRIDGE),
        (bridge_certs(NEAR, caps=("submit", "work")), provenance.NO_BRIDGE),
        ((b"junk",), provenance.CHAIN_OF_BRIDGE[trust.BAD_CERT]),
        ((b"junk", admin_cert()), provenance.CHAIN_OF_BRIDGE[trust.BAD_CERT]),
        (bridge_certs(NEAR)[:1], provenance.CHAIN_OF_BRIDGE[trust.WRONG_ROOT]),
        (foreign_certs(), provenance.CHAIN_OF_BRIDGE[trust.WRONG_ROOT]),
        ((admin_cert(), *bridge_certs(NEAR)), provenance.CHAIN_OF_BRIDGE[trust.CHAIN_LENGTH]),
        (bridge_certs(NEAR, wall=Wall(CAME + trust.SKEW_MS + 1)), provenance.CHAIN_OF_BRIDGE[trust.NOT_YET_VALID]),
        (bridge_certs(NEAR, life_ms=DAY_MS // 4), provenance.CHAIN_OF_BRIDGE[trust.EXPIRED]),
    ],
)
def test_whoever_handed_it_on_was_a_bridge(certs: tuple[bytes, ...], reason: str) -> None:
    assert reason_of(only(certs=certs)) == reason


def test_a_bridges_certificate_need_not_last_until_the_result_nor_be_the_one_of_the_grant() -> None:
    for certs in (bridge_certs(NEAR, life_ms=DAY_MS // 2), bridge_certs(NEAR, wall=Wall(CAME + trust.SKEW_MS))):
        assert provenance.check(only(certs=certs), opened(), nobody) == PROVEN


def test_a_bridge_that_was_banned_since_has_handed_on_what_it_had() -> None:
    job = opened()
    assert provenance.check(only(), job, banned(NEAR, GIVEN + 1)) == PROVEN
    assert reason_of(only(), job, banned(NEAR, GIVEN)) == provenance.CHAIN_OF_BRIDGE[trust.BANNED]
    assert reason_of(only(), job, banned(ADMIN, GIVEN)) == provenance.CHAIN_OF_BRIDGE[trust.ISSUER_BANNED]


def test_a_chain_whose_issuer_the_root_never_made_an_admin():
    member = trust.Subject(node=NodeId(BOB.public), name="bob", owner="owner", caps=("work",))
    root_cert = trust.issue_admin(ROOT, subject(ADMIN, "admin", caps=("admin", "work")), serial=b"s" * 16, wall=WALL)
    sound = trust.issue_member(ADMIN, root_cert, ROOT.public, member, serial=b"m" * 16, wall=WALL)
    forged = sign.sign(
        ALICE, Cert(**{**msgspec.structs.asdict(sign.open_signed(sound, Cert, ADMIN.public)), "iss": ALICE.public})
    )
    evidence = kept(grant=grant(to=BOB), signed=result(key=BOB), certs=(forged, root_cert))
    assert reason_of(evidence) == provenance.CHAIN[trust.NOT_ADMIN]


# -- workers of another mesh -------------------------------------------------------------------------------------------


def abroad(**changes) -> Opened:
    """Return a peering with the mesh of ``foreign_certs``, as it was when the result came."""
    issuer = sign.open_claimed(admin_cert(), Cert, lambda claimed: claimed.iss)
    plain = Opened(
        id=b"i" * 32,
        mesh=prims.mesh_id(OTHER_ROOT.public),
        root=OTHER_ROOT.public,
        name="there",
        ours=PeerSide(caps=("submit",)),
        theirs=PeerSide(caps=("work",)),
        key=b"k" * 32,
        at=WALL,
        exp=Wall(WALL + 90 * DAY_MS),
        our_issuer=issuer,
        their_issuer=issuer,
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    "peering",
    [
        abroad(),
        abroad(ended=Wall(CAME + 1)),
        abroad(exp=CAME),
        abroad(theirs=PeerSide(caps=("bridge", "work"), owners=("owner",))),
    ],
    ids=["in force", "ended since", "expired since", "of this owner"],
)
def test_a_worker_of_another_mesh_is_proven_by_the_peering_that_let_it_work(peering: Opened) -> None:
    evidence = kept(certs=foreign_certs())
    found = provenance.check(evidence, opened(), nobody, (abroad(root=b"x" * 32), peering))
    assert found == msgspec.structs.replace(PROVEN, name="node", mesh="there")


@pytest.mark.parametrize(
    "peering",
    [
        abroad(at=Wall(CAME + trust.SKEW_MS + 1)),
        abroad(exp=Wall(CAME - trust.SKEW_MS - 1)),
        abroad(ended=Wall(CAME - trust.SKEW_MS - 1)),
        abroad(theirs=PeerSide(caps=("bridge", "submit"))),
        abroad(theirs=PeerSide(caps=("work",), owners=("eve",))),
    ],
    ids=["not yet made", "expired", "ended", "not to work", "not this owner"],
)
def test_a_worker_of_another_mesh_that_no_peering_let_work_is_told(peering: Opened) -> None:
    found = provenance.check(kept(certs=foreign_certs()), opened(), nobody, (peering,))
    assert found == Refuted(provenance.NOT_PEERED)


def test_a_worker_of_another_mesh_may_be_banned_there() -> None:
    evidence = kept(certs=foreign_certs())
    found = provenance.check(evidence, opened(), banned(ALICE, CAME), (abroad(),))
    assert found == Refuted(provenance.CHAIN[trust.BANNED])
    since = provenance.check(evidence, opened(), banned(ALICE, CAME + 1), (abroad(),))
    assert isinstance(since, Proven)
    assert since.banned == CAME + 1
