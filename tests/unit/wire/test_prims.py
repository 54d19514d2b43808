"""The primitives against the RFCs' own answers, and against wrong lengths, types and hostile keys."""

import hmac

import pytest

from p2pq.errors import Reject
from p2pq.wire import prims
from tests.vectors import rfc

KEY = b"k" * 32
ORDER = 2**252 + 27742317777372353535851937790883648493
hexed = bytes.fromhex


@pytest.mark.parametrize(("scalar", "u", "output"), rfc.X25519)
def test_x25519_of_rfc_7748_5_2(scalar, u, output):
    assert prims.x25519_shared(hexed(scalar), hexed(u)) == hexed(output)


def test_x25519_of_rfc_7748_6_1():
    a, a_public, b, b_public, shared = map(hexed, rfc.X25519_DH)
    assert prims.x25519_public(a) == a_public
    assert prims.x25519_public(b) == b_public
    assert prims.x25519_shared(a, b_public) == prims.x25519_shared(b, a_public) == shared


@pytest.mark.parametrize("point", rfc.LOW_ORDER)
def test_low_order_points_are_refused(point):
    with pytest.raises(Reject, match="low-order point"):
        prims.x25519_shared(KEY, hexed(point))


@pytest.mark.parametrize(("seed", "public", "message", "signature"), rfc.ED25519)
def test_ed25519_of_rfc_8032(seed, public, message, signature):
    key = prims.SigningKey(hexed(seed))
    assert key.public == hexed(public)
    assert key.sign(hexed(message)) == hexed(signature)
    prims.verify(key.public, hexed(message), hexed(signature))


def test_a_signature_holds_for_one_key_and_one_message():
    key, other = prims.SigningKey(KEY), prims.SigningKey(b"o" * 32)
    signature = key.sign(b"message")
    for public, message in ((key.public, b"massage"), (other.public, b"message")):
        with pytest.raises(Reject, match="bad signature"):
            prims.verify(public, message, signature)


def test_a_malleated_signature_is_refused():
    """H35: S + L satisfies the equation too."""
    key = prims.SigningKey(KEY)
    signature = key.sign(b"message")
    s = int.from_bytes(signature[32:], "little") + ORDER
    with pytest.raises(Reject, match="bad signature"):
        prims.verify(key.public, b"message", signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize("public", ["01" + "00" * 31, "ec" + "ff" * 30 + "7f", "00" * 32])
def test_a_small_order_key_signs_nothing(public):
    """H35: with A of small order, R = identity and S = 0 would verify for every message."""
    with pytest.raises(Reject, match="bad signature"):
        prims.verify(hexed(public), b"anything", hexed("01" + "00" * 63))


def test_chacha20_poly1305_of_rfc_8439():
    key, nonce, aad, ciphertext = map(hexed, rfc.CHACHA)
    assert prims.chacha_encrypt(key, nonce, rfc.SUNSCREEN, aad) == ciphertext
    assert prims.chacha_decrypt(key, nonce, ciphertext, aad) == rfc.SUNSCREEN


def test_xchacha20_poly1305_of_the_draft():
    key, nonce, aad, ciphertext = map(hexed, rfc.XCHACHA)
    assert prims.xchacha_encrypt(key, nonce, rfc.SUNSCREEN, aad) == ciphertext
    assert prims.xchacha_decrypt(key, nonce, ciphertext, aad) == rfc.SUNSCREEN


def test_blake2b_of_rfc_7693():
    assert prims.blake2b(b"abc", size=64) == hexed(rfc.BLAKE2B_ABC)


def test_hmac_is_the_standard_one():
    assert prims.hmac_blake2b(b"key", b"data") == hmac.new(b"key", b"data", "blake2b").digest()


def test_purposes_are_apart():
    assert len({prims.blob_id(KEY), prims.mesh_id(KEY), prims.blake2b(KEY)}) == 3
    assert len({prims.derive(KEY, b"", person) for person in ("a", "b", "")}) == 3
    assert len(prims.derive(KEY, b"", "a", size=24)) == 24


@pytest.mark.parametrize(
    "call",
    [
        lambda: prims.SigningKey(b"k" * 31),
        lambda: prims.SigningKey(bytearray(32)),
        lambda: prims.SigningKey(KEY).sign("text"),
        lambda: prims.verify(KEY[:31], b"", bytes(64)),
        lambda: prims.verify(KEY, b"", bytes(63)),
        lambda: prims.verify(KEY, None, bytes(64)),
        lambda: prims.x25519_public(b""),
        lambda: prims.x25519_shared(KEY[:31], KEY),
        lambda: prims.x25519_shared(KEY, KEY[:31]),
        lambda: prims.chacha_encrypt(KEY[:31], bytes(12), b"", b""),
        lambda: prims.chacha_encrypt(KEY, bytes(11), b"", b""),
        lambda: prims.chacha_encrypt(KEY, bytes(12), "", b""),
        lambda: prims.chacha_decrypt(KEY, bytes(12), bytes(15), b""),
        lambda: prims.chacha_decrypt(KEY, bytes(12), bytes(16), b""),
        lambda: prims.chacha_decrypt(KEY, bytes(12), bytearray(16), b""),
        lambda: prims.chacha_decrypt(KEY, bytes(12), bytes(16), None),
        lambda: prims.xchacha_encrypt(KEY, bytes(12), b"", b""),
        lambda: prims.xchacha_decrypt(KEY, bytes(12), bytes(16), b""),
        lambda: prims.xchacha_decrypt(KEY, bytes(24), bytes(15), b""),
        lambda: prims.xchacha_decrypt(KEY, bytes(24), bytes(16), b""),
        lambda: prims.blake2b(b"", size=0),
        lambda: prims.blake2b(b"", size=1 << 80),
        lambda: prims.blake2b(b"", key=b"k" * 65),
        lambda: prims.blake2b(b"", person="p" * 17),
        lambda: prims.blake2b("text"),
        lambda: prims.derive(b"", b"", "empty key"),
        lambda: prims.mesh_id(b"short"),
        lambda: prims.hmac_blake2b("key", b""),
        lambda: prims.equal("a", b"a"),
    ],
)
def test_bad_arguments_are_rejected_and_nothing_else(call):
    with pytest.raises(Reject):
        call()


def test_comparing():
    assert prims.equal(KEY, b"k" * 32)
    assert not prims.equal(KEY, KEY[:31])


def test_secrets_do_not_print():
    assert repr(prims.SigningKey(KEY)) == "<secret>"
