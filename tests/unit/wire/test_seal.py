"""Seals, bodies and what lz4 tolerates that we do not."""

import lz4.block
import lz4.frame
import pytest

from p2pq.errors import Reject
from p2pq.wire import prims, seal
from p2pq.wire.objects import Sealed
from tests.unit.wire.makers import entropy, secret
from tests.vectors import rfc

SECRET = secret("receiver")
PUBLIC = prims.x25519_public(SECRET)
KEY = secret("key")
CAP = 1 << 20


def framed(how, size, packed, key=KEY, aad=b"aad"):
    """Encrypt a body as its author could, whatever its header claims."""
    inner = seal.HEADER.pack(how, size) + packed
    nonce = bytes(24)
    return nonce + prims.xchacha_encrypt(prims.derive(key, b"", "p2pq-body"), nonce, inner, aad)


def opened(ciphertext, size_max=CAP):
    return seal.decrypt_body(KEY, ciphertext, b"aad", size_max=size_max)


def test_a_seal_opens_for_its_receiver_in_its_context():
    sealed = seal.seal(PUBLIC, KEY, b"context", entropy())
    assert len(sealed) == len(KEY) + seal.SEAL_OVERHEAD_BYTES
    assert seal.open_seal(SECRET, sealed, b"context") == KEY


def test_each_seal_is_different():
    draw = entropy()
    assert len({seal.seal(PUBLIC, KEY, b"context", draw) for _ in range(3)}) == 3


def test_a_seal_of_another_object_does_not_open():
    """H38, H40."""
    sealed = seal.seal(PUBLIC, KEY, b"context", entropy())
    with pytest.raises(Reject, match="decryption failed"):
        seal.open_seal(SECRET, sealed, b"other")
    with pytest.raises(Reject, match="decryption failed"):
        seal.open_seal(secret("somebody else"), sealed, b"context")


@pytest.mark.parametrize("length", [0, 16, 31, 32, 47])
def test_a_short_seal_is_rejected(length):
    with pytest.raises(Reject):
        seal.open_seal(SECRET, seal.seal(PUBLIC, KEY, b"", entropy())[:length], b"")


@pytest.mark.parametrize("point", rfc.LOW_ORDER)
def test_low_order_points_neither_seal_nor_open(point):
    with pytest.raises(Reject, match="low-order"):
        seal.seal(bytes.fromhex(point), KEY, b"", entropy())
    with pytest.raises(Reject, match="low-order"):
        seal.open_seal(SECRET, bytes.fromhex(point) + bytes(48), b"")


def test_a_wrapped_key_opens_under_its_key_in_its_context():
    wrapped = seal.wrap(KEY, SECRET, b"context")
    assert wrapped == seal.wrap(KEY, SECRET, b"context") != seal.wrap(KEY, SECRET, b"other")
    assert seal.unwrap(KEY, wrapped, b"context") == SECRET
    for key, context in ((SECRET, b"context"), (KEY, b"other")):
        with pytest.raises(Reject, match="decryption failed"):
            seal.unwrap(key, wrapped, context)


def test_a_wrapped_key_is_no_body_and_a_body_no_wrapped_key():
    with pytest.raises(Reject, match="decryption failed"):
        seal.decrypt_body(KEY, seal.wrap(KEY, SECRET, b"aad"), b"aad")
    with pytest.raises(Reject, match="decryption failed"):
        seal.unwrap(KEY, seal.encrypt_body(KEY, SECRET, b"aad"), b"aad")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_only_keys_are_wrapped(length):
    with pytest.raises(Reject, match="not a key"):
        seal.wrap(KEY, bytes(length), b"")
    other = seal.encrypt_body(prims.derive(KEY, b"", "p2pq-wrap"), bytes(length), b"")
    with pytest.raises(Reject, match="not a key" if length < len(KEY) else "too long"):
        seal.unwrap(KEY, other, b"")


def test_a_wrapped_key_fits_where_a_sealed_one_does():
    longest = next(each for each in Sealed.__metadata__ if each.max_length).max_length
    assert len(seal.wrap(KEY, SECRET, bytes(32))) <= longest


def test_commitment():
    """H39."""
    seal.check_commitment(KEY, seal.commitment(KEY))
    with pytest.raises(Reject, match="another key"):
        seal.check_commitment(SECRET, seal.commitment(KEY))
    with pytest.raises(Reject):
        seal.commitment(b"")


@pytest.mark.parametrize("plaintext", [b"", b"x", b"a" * 10_000, secret("noise") * 3, bytes(CAP)])
def test_bodies_there_and_back(plaintext):
    ciphertext = seal.encrypt_body(KEY, plaintext, b"aad")
    assert len(ciphertext) <= len(plaintext) + seal.BODY_OVERHEAD_BYTES
    assert opened(ciphertext) == plaintext


def test_one_key_serves_many_messages():
    nonces = {seal.encrypt_body(KEY, text, aad)[:24] for text in (b"a", b"b") for aad in (b"", b"1")}
    assert len(nonces) == 4
    assert seal.encrypt_body(KEY, b"a", b"") == seal.encrypt_body(KEY, b"a", b"")


def test_bodies_are_bound_and_capped():
    ciphertext = seal.encrypt_body(KEY, b"a" * 1000, b"aad")
    with pytest.raises(Reject, match="decryption failed"):
        seal.decrypt_body(KEY, ciphertext, b"other", size_max=CAP)
    with pytest.raises(Reject, match="decryption failed"):
        seal.decrypt_body(SECRET, ciphertext, b"aad", size_max=CAP)
    with pytest.raises(Reject, match="too long"):
        opened(ciphertext, size_max=999)
    with pytest.raises(Reject, match="too long"):
        opened(bytes(1000 + seal.BODY_OVERHEAD_BYTES + 1), size_max=1000)
    with pytest.raises(Reject, match="too long"):
        seal.encrypt_body(KEY, bytes(11), b"", size_max=10)
    with pytest.raises(Reject):
        seal.encrypt_body(b"", b"text", b"")
    with pytest.raises(Reject):
        opened(b"")


PLAIN = b"a" * 1000
BLOCK = lz4.block.compress(PLAIN, store_size=False)


@pytest.mark.parametrize(
    ("how", "size", "packed"),
    [
        (seal.LZ4, 999, BLOCK),  # H41: too small by one
        (seal.LZ4, 1001, BLOCK),  # too large by one
        (seal.LZ4, 0, BLOCK),
        (seal.LZ4, CAP, BLOCK),
        (seal.LZ4, CAP + 1, BLOCK),  # above the cap, before anything is allocated
        (seal.LZ4, (1 << 32) - 1, BLOCK),
        (seal.LZ4, 1000, BLOCK + b"\0"),  # trailing bytes
        (seal.LZ4, 1000, BLOCK + BLOCK),
        (seal.LZ4, 1000, BLOCK[:-1]),
        (seal.LZ4, 1000, b""),
        (seal.LZ4, 1000, lz4.frame.compress(PLAIN)),  # a frame is not a block
        (seal.LZ4, 1000, lz4.frame.compress(PLAIN) * 2),
        (seal.LZ4, 0, b"\x50\x2a\x4d\x18\x00\x00\x00\x00"),  # a skippable frame
        (seal.LZ4, 1000, secret("garbage")),
        (seal.STORED, 999, PLAIN),
        (seal.STORED, 1001, PLAIN),
        (2, 1000, PLAIN),
        (255, 0, b""),
    ],
)
def test_lying_bodies_are_rejected(how, size, packed):
    with pytest.raises(Reject):
        opened(framed(how, size, packed))


def test_a_body_without_a_header_is_rejected():
    nonce = bytes(24)
    ciphertext = nonce + prims.xchacha_encrypt(prims.derive(KEY, b"", "p2pq-body"), nonce, b"1234", b"aad")
    with pytest.raises(Reject, match="malformed body"):
        opened(ciphertext)


def test_lengths_beyond_lz4_are_rejected_even_without_a_cap():
    with pytest.raises(Reject, match="corrupt"):
        seal.expand(seal.LZ4, BLOCK, 1 << 40)
