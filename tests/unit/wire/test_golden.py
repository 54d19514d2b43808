"""The wire does not drift: fixed keys and entropy give the very bytes that are stored in tests/golden/wire/v1.

A file that no longer fits means that old and new nodes no longer understand each other. Bytes of version 1 never change;
a new format gets a new folder.
"""

from pathlib import Path

import pytest

from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire import frames, join, objects, prims, seal, session, sign, trust
from tests.unit.wire.makers import (
    ADMIN,
    ALICE,
    BOB,
    PSK,
    ROOT,
    WALL,
    admin_cert,
    entropy,
    handshake,
    local,
    member_certs,
    secret,
    subject,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "wire" / "v1"
MESH = prims.mesh_id(ROOT.public)
CONTEXT = b"context"
BODY = b"a body that is compressed " * 20


def objects_signed() -> dict[str, bytes]:
    """One of each signed object, with every kind of field in use."""
    manifest = objects.Manifest(
        mesh=MESH,
        node=ALICE.public,
        owner="owner",
        job=b"j" * 16,
        tasks=30,
        reply=prims.x25519_public(secret("reply")),
        commit=seal.commitment(secret("job key")),
        body=(objects.BlobRef(b"b" * 32, 1234),),
        blobs=(objects.BlobRef(b"c" * 32, 4 << 20),),
        submitted=WALL,
        expires=WALL + 1000,
    )
    signed = sign.sign(ALICE, manifest)
    grant = objects.Grant(
        mesh=MESH,
        node=ALICE.public,
        to=BOB.public,
        nonce=b"n" * 16,
        job=b"j" * 16,
        manifest=sign.digest(signed),
        items=(objects.GrantItem(0, 1, LeaseId(1, 2)), objects.GrantItem(29, 2, LeaseId(1, 300))),
        key=seal.seal(
            prims.x25519_public(secret("bob prekey")), secret("job key"), sign.digest(signed), entropy("grant")
        ),
        expires=WALL + 1000,
    )
    result = objects.Result(
        mesh=MESH,
        node=ALICE.public,
        by=BOB.public,
        items=(
            objects.ResultItem(
                job=b"j" * 16,
                task=29,
                attempt=2,
                lease=LeaseId(1, 300),
                outcome=objects.Outcome(reason="exit", exit=3, run_ms=1500, cpu_ms=1400, max_rss=1 << 30, started=WALL),
                sandbox="strict",
                key=b"k" * 80,
                body=(objects.BlobRef(b"d" * 32, 99),),
            ),
        ),
    )
    receipt = objects.Receipt(
        mesh=MESH, node=ALICE.public, to=BOB.public, items=(objects.ReceiptItem(LeaseId(1, 300), "settled"),)
    )
    return {
        "cert-admin": admin_cert(),
        "cert-member": member_certs()[0],
        "ban": trust.issue_ban(ADMIN, ROOT.public, NodeId(BOB.public), at=WALL, certs=(admin_cert(),)),
        "manifest": signed,
        "grant": sign.sign(ALICE, grant),
        "result": sign.sign(BOB, result),
        "receipt": sign.sign(ALICE, receipt),
    }


def link() -> dict[str, bytes]:
    # What a node of minor version 1 said: the newest one is a field of the hello.
    dialler, other, messages = handshake(local(minor=1), local(BOB, "bob", minor=1))
    pieces = [*frames.encode(BODY), frames.encode_bye("bye")]
    records = [dialler.channel.encrypt(piece) for piece in pieces]
    return {
        **{f"link-message-{number}": message for number, message in enumerate(messages, 1)},
        "link-hash": other.handshake_hash,
        "link-record-1": records[0],
        "link-record-2-bye": records[1],
        "frame-compressed": pieces[0],
        "frame-bye": pieces[1],
    }


def joining() -> dict[str, bytes]:
    code = join.parse_code("4T-K7QX-93FD")
    new = prims.SigningKey(secret("new"))
    joiner = join.JoinClient(code, new, "new", software="p2pq 0.1", entropy=entropy("client"))
    inviter = join.JoinServer(code, ("submit", "work"), entropy=entropy("server"))
    said = [joiner.start()[0]]
    for _ in range(2):
        said += inviter.receive(said[-1], WALL)
        said += joiner.receive(said[-1], WALL)
    for message in said[-2:]:
        assert inviter.receive(message, WALL) == []
    cert = trust.issue_member(
        ADMIN, admin_cert(), ROOT.public, subject(new, "new", caps=inviter.caps), serial=b"s" * 16, wall=WALL
    )
    yes = join.JoinAnswer(root=ROOT.public, mesh_name="lab", certs=(cert, admin_cert()), psks=(PSK,), wall=WALL)
    said += inviter.answer(yes)
    said += joiner.receive(said[-1], WALL)
    return {f"join-message-{number}": message for number, message in enumerate(said, 1)}


def secrets() -> dict[str, bytes]:
    key = secret("key")
    to = prims.x25519_public(secret("receiver"))
    return {
        "seal": seal.seal(to, key, CONTEXT, entropy("seal")),
        "body": seal.encrypt_body(key, BODY, CONTEXT),
        "body-stored": seal.encrypt_body(key, b"short", CONTEXT),
        "commitment": seal.commitment(key),
        "blob-id": prims.blob_id(b"blob"),
        "mesh-id": MESH,
        "digest": sign.digest(b"object"),
    }


FRESH = objects_signed() | link() | joining() | secrets()


@pytest.mark.parametrize("name", FRESH)
def test_bytes_are_those_of_version_1(name):
    assert FRESH[name].hex() == (GOLDEN / f"{name}.hex").read_text().replace("\n", "")


def test_no_golden_file_is_left_over():
    assert {path.stem for path in GOLDEN.iterdir()} == FRESH.keys()


def stored(name: str) -> bytes:
    return bytes.fromhex((GOLDEN / f"{name}.hex").read_text())


def test_stored_objects_still_open():
    author = {"manifest": ALICE, "grant": ALICE, "result": BOB, "receipt": ALICE}
    for name, key in author.items():
        kind = getattr(objects, name.title())
        assert sign.open_signed(stored(name), kind, NodeId(key.public)).v == 1
    chain = (stored("cert-member"), stored("cert-admin"))
    assert trust.verify_chain(chain, ROOT.public, WALL, lambda _: False).name == "alice"
    assert trust.open_ban(stored("ban"), ROOT.public, WALL).sub == BOB.public


def test_stored_secrets_still_open():
    key = secret("key")
    assert seal.open_seal(secret("receiver"), stored("seal"), CONTEXT) == key
    assert seal.decrypt_body(key, stored("body"), CONTEXT) == BODY
    assert seal.decrypt_body(key, stored("body-stored"), CONTEXT) == b"short"
    decoder = frames.Decoder()
    assert decoder.feed(stored("frame-compressed") + stored("frame-bye")) == [BODY]


def test_the_names_in_use_are_the_protocols():
    assert session.prologue(MESH) == b"p2pq/1" + stored("mesh-id")
