"""Whatever one byte is changed to, and wherever: one typed rejection, never acceptance, never another exception."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pq.errors import Reject
from p2pq.model.ids import NodeId
from p2pq.wire import codec, frames, join, messages, objects, prims, seal, session, sign, trust
from tests.unit.wire.makers import (
    ALICE,
    BOB,
    ROOT,
    WALL,
    admin_cert,
    entropy,
    handshake,
    local,
    member_certs,
    mesh,
    secret,
)

KEY = secret("key")
RECEIPT = objects.Receipt(
    mesh=b"m" * 32,
    node=ALICE.public,
    to=BOB.public,
    items=(objects.ReceiptItem(objects.LeaseId(1, 2), "settled"),),
)
SIGNED = sign.sign(ALICE, RECEIPT)
SEALED = seal.seal(prims.x25519_public(KEY), b"secret", b"context", entropy())
BODY = seal.encrypt_body(KEY, b"a" * 1000, b"aad")
CHAIN = member_certs()
BAN = trust.issue_ban(ROOT, ROOT.public, NodeId(BOB.public), at=WALL)

spots = st.integers(0, 1 << 20)
masks = st.integers(1, 255)
junk = st.binary(max_size=300)


def mutated(raw: bytes, spot: int, mask: int) -> bytes:
    at = spot % len(raw)
    return raw[:at] + bytes((raw[at] ^ mask,)) + raw[at + 1 :]


@given(spots, masks)
def test_signed_objects(spot, mask):
    for opener in (
        lambda raw: sign.open_signed(raw, objects.Receipt, ALICE.public),
        lambda raw: sign.open_claimed(raw, objects.Receipt, lambda r: r.node),
    ):
        with pytest.raises(Reject):
            opener(mutated(SIGNED, spot, mask))


@given(spots, masks, st.booleans())
def test_certificates(spot, mask, leaf):
    member, admin = CHAIN
    chain = (mutated(member, spot, mask), admin) if leaf else (member, mutated(admin, spot, mask))
    with pytest.raises(Reject):
        trust.verify_chain(chain, ROOT.public, WALL, trust.nobody)


@given(spots, masks)
def test_bans(spot, mask):
    with pytest.raises(Reject):
        trust.open_ban(mutated(BAN, spot, mask), ROOT.public, WALL)


@given(spots, masks)
def test_seals_and_bodies(spot, mask):
    with pytest.raises(Reject):
        seal.open_seal(KEY, mutated(SEALED, spot, mask), b"context")
    with pytest.raises(Reject):
        seal.decrypt_body(KEY, mutated(BODY, spot, mask), b"aad")


@given(st.integers(1, 3), spots, masks)
def test_handshakes(number, spot, mask):
    dialler = session.Initiator(local(), mesh(), entropy("dial"))
    other = session.Responder(local(BOB, "bob"), mesh(), entropy("answer"))

    def passed(count, message):
        return mutated(message, spot, mask) if count == number else message

    with pytest.raises(session.HandshakeRefused) as caught:
        other.receive(
            passed(3, dialler.receive(passed(2, other.receive(passed(1, dialler.start()), WALL)), WALL)), WALL
        )
    assert caught.value.reason in {session.WRONG_MESH, session.NOT_AUTHENTIC}
    assert other.peer is None


@given(spots, masks, st.binary(max_size=100))
def test_records(spot, mask, plaintext):
    ours, theirs, _ = handshake()
    record = ours.channel.encrypt(plaintext)
    with pytest.raises(Reject):
        theirs.channel.decrypt(mutated(record, spot, mask))


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=5), spots, masks)
def test_frames_never_raise_anything_else(said, spot, mask):
    stream = b"".join(piece for message in said for piece in frames.encode(message))
    decoder = frames.Decoder(size_max=4000)
    try:
        heard = decoder.feed(mutated(stream, spot, mask))
    except Reject:
        return
    # Frames are authenticated by the records; by themselves they only promise to stay within bounds.
    assert all(0 < len(message) <= 4000 for message in heard)


@given(st.lists(st.binary(min_size=1, max_size=2000), max_size=8), st.integers(1, 700))
def test_frames_survive_any_cut(said, size):
    stream = b"".join(piece for message in said for piece in frames.encode(message)) + frames.encode_bye("x")
    decoder = frames.Decoder()
    heard = [m for at in range(0, len(stream), size) for m in decoder.feed(stream[at : at + size])]
    assert heard == said
    decoder.finish()


@given(junk)
def test_junk_is_rejected_by_every_door(raw):
    joiner = join.JoinClient(join.Code("4T", "K7QX93FD"), ALICE, "x", entropy=entropy())
    joiner.start()
    doors = [
        lambda: codec.decode_strict(raw, objects.Cert, size_max=1000),
        lambda: codec.decode_lenient(raw, messages.Message, size_max=1000),
        lambda: sign.open_signed(raw, objects.Manifest, ALICE.public),
        lambda: trust.verify_chain((raw, admin_cert()), ROOT.public, WALL, trust.nobody),
        lambda: trust.open_ban(raw, ROOT.public, WALL),
        lambda: seal.open_seal(KEY, raw, b""),
        lambda: seal.decrypt_body(KEY, raw, b""),
        lambda: session.Responder(local(), mesh(), entropy()).receive(raw, WALL),
        lambda: join.slot_of(raw),
        lambda: joiner.receive(raw, WALL),
    ]
    for door in doors:
        with pytest.raises((Reject, session.HandshakeRefused)):
            door()


@given(st.binary(max_size=5000), st.binary(max_size=50))
def test_opening_undoes_sealing(plaintext, bound):
    public = prims.x25519_public(KEY)
    assert seal.open_seal(KEY, seal.seal(public, plaintext, bound, entropy()), bound) == plaintext
    assert seal.decrypt_body(KEY, seal.encrypt_body(KEY, plaintext, bound), bound) == plaintext


@given(st.lists(st.binary(max_size=20)), st.lists(st.binary(max_size=20)))
def test_pre_authentication_encoding_is_injective(one, two):
    assert (sign.pae(*one) == sign.pae(*two)) == (one == two)


@given(st.text(max_size=40))
def test_codes_parse_or_do_not(text):
    try:
        code = join.parse_code(text)
    except join.UsageError:
        return
    assert join.parse_code(code.text) == code
