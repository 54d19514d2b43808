"""The wire does not drift: fixed keys and entropy give the very bytes that are stored in tests/golden.

A file that no longer fits means that old and new nodes no longer understand each other. What a release speaks never
changes: wire/v1 (keys, signatures, seals, handshakes) and the folders minor-N of the released minor versions (every type).
The folder of a minor version that no release speaks yet grows with it: ``python -m tests.golden.write``.
"""

import hashlib
from pathlib import Path

import pytest

from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire import codec, frames, join, objects, prims, seal, session, sign, trust
from p2pq.wire.messages import MINOR
from tests.golden import kinds as golden
from tests.golden import write
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
FROZEN = {"wire/v1": "65a987b33a6fb7b66d96af92af2e9ffa", "minor-1": "77942e370922844c36fdc69b15de6786"}
"""What all files of a folder add up to; a folder joins this list with the release that speaks it."""
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


# -- every type, by minor version --------------------------------------------------------------------------------------

KINDS = golden.kinds()
PAST = [(minor, path.stem) for minor in range(1, MINOR + 1) for path in sorted(golden.folder(minor).iterdir())]


@pytest.mark.parametrize("name", FROZEN)
def test_what_was_released_never_changes(name):
    sums = hashlib.blake2b(digest_size=16)
    for path in sorted((golden.HERE / name).iterdir()):
        sums.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    assert sums.hexdigest() == FROZEN[name], "restore it; nodes out there speak it"


def test_every_released_minor_version_is_frozen():
    assert {f"minor-{minor}" for minor in golden.RELEASED} == FROZEN.keys() - {"wire/v1"}
    assert max(golden.RELEASED) <= MINOR


@pytest.mark.parametrize("name", KINDS)
def test_a_type_gives_the_golden_bytes_of_the_present_minor_version(name):
    path = golden.folder() / f"{name}.json"
    assert path.exists(), f"a new type: {write.__doc__}"
    assert path.read_text() == golden.text(KINDS[name]), f"it no longer says what it said: {write.__doc__}"


@pytest.mark.parametrize(("minor", "name"), PAST)
def test_golden_bytes_of_every_minor_version_mean_what_they_meant(minor, name):
    """And are what this code says to somebody who speaks that version: nothing that is unknown there is added."""
    for raw, value in golden.stored(minor, name).values():
        read = golden.decode(KINDS[name], raw)
        assert golden.plain(read) == value
        assert codec.encode(read) == raw


def test_missing_golden_files_are_written_and_present_ones_are_left_alone(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(golden, "HERE", tmp_path)
    assert write.main() == 0
    folder = golden.folder()
    assert {path.stem for path in folder.iterdir()} == KINDS.keys()
    assert folder.parent == tmp_path
    (folder / "Ping.json").unlink()
    (folder / "Pong.json").write_text("as it was")
    capsys.readouterr()
    assert write.main() == 1
    said = capsys.readouterr()
    assert said.out == f"wrote {folder / 'Ping.json'}\n"
    assert str(folder / "Pong.json") in said.err
    assert (folder / "Pong.json").read_text() == "as it was"


def test_a_released_version_gets_no_new_types(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(golden, "HERE", tmp_path)
    monkeypatch.setitem(golden.RELEASED, MINOR, "9.9")
    assert write.main() == 1
    assert list(tmp_path.iterdir()) == []
    assert f"p2pq 9.9 speaks {MINOR}: a new type needs a new minor version" in capsys.readouterr().err
