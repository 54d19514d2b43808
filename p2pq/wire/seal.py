"""Secrets for one receiver, keys under another key, and whole small objects under one key.

``seal`` is libsodium's sealed box in spirit, built from primitives so that the entropy can be injected and the box can
be bound to the object it belongs to. ``encrypt_body`` is compress | encrypt, ``decrypt_body`` decrypt | decompress; the
signature around them is ``sign``'s.
"""

import struct
from collections.abc import Callable
from typing import Final

import lz4.block

from p2pq.errors import Reject
from p2pq.wire import prims

Entropy = Callable[[int], bytes]
"""Returns that many fresh random bytes; ``os.urandom`` outside of simulations."""

SEAL_OVERHEAD_BYTES: Final = prims.KEY_BYTES + prims.TAG_BYTES
HEADER: Final = struct.Struct("<BI")
"""Inside the encryption: how the body is stored (0 plain, 1 lz4 block), and its plain length."""
BODY_BYTES_MAX: Final = 64 << 20
"""Longest plaintext of a body, unless the caller sets another bound."""
BODY_OVERHEAD_BYTES: Final = prims.XNONCE_BYTES + prims.TAG_BYTES + HEADER.size

_ZERO_NONCE: Final = bytes(prims.XNONCE_BYTES)
STORED: Final = 0
LZ4: Final = 1
"""How bytes are packed, here and in frames."""


def seal(to: bytes, plaintext: bytes, context: bytes, entropy: Entropy) -> bytes:
    """Encrypt for the holder of one X25519 key, bound to ``context``.

    Ephemeral X25519, then XChaCha20-Poly1305 under a BLAKE2b of the shared secret and both public keys. Each box has a
    key of its own, so its nonce is zero.

    Args:
        to: the receiver's X25519 public key.
        plaintext: usually a key.
        context: names the object that the box belongs to; the box opens nowhere else.
        entropy: gives the ephemeral key.

    Raises:
        Reject: ``to`` is not a usable key.
    """
    ephemeral = entropy(prims.KEY_BYTES)
    public = prims.x25519_public(ephemeral)
    key = _seal_key(prims.x25519_shared(ephemeral, to), public, to)
    return public + prims.xchacha_encrypt(key, _ZERO_NONCE, plaintext, context)


def open_seal(secret: bytes, sealed: bytes, context: bytes) -> bytes:
    """Open what was sealed to the public key of ``secret`` for this context.

    Raises:
        Reject: it was not.
    """
    public = sealed[: prims.KEY_BYTES]
    key = _seal_key(prims.x25519_shared(secret, public), public, prims.x25519_public(secret))
    return prims.xchacha_decrypt(key, _ZERO_NONCE, sealed[prims.KEY_BYTES :], context)


def _seal_key(shared: bytes, ephemeral: bytes, to: bytes) -> bytes:
    return prims.derive(shared, ephemeral + to, "p2pq-seal")


def commitment(key: bytes) -> bytes:
    """Return 32 bytes that pin down a key: Poly1305 alone would let one ciphertext open under two keys."""
    return prims.derive(key, b"", "p2pq-commit")


def check_commitment(key: bytes, expected: bytes) -> None:
    """Check that an unwrapped key is the one that its author meant.

    Raises:
        Reject: it is another key.
    """
    if not prims.equal(commitment(key), expected):
        raise Reject("another key")


def wrap(key: bytes, secret: bytes, context: bytes) -> bytes:
    """Encrypt a key for all who have ``key``, bound to ``context``. No entropy: only equal keys for one context look equal.

    Raises:
        Reject: either is not 32 bytes.
    """
    if len(secret) != prims.KEY_BYTES:
        raise Reject("not a key")
    return encrypt_body(_wrap_key(key), secret, context)


def unwrap(key: bytes, wrapped: bytes, context: bytes) -> bytes:
    """Return the key that was wrapped under ``key`` for this context.

    Raises:
        Reject: none was.
    """
    secret = decrypt_body(_wrap_key(key), wrapped, context, size_max=prims.KEY_BYTES)
    if len(secret) != prims.KEY_BYTES:
        raise Reject("not a key")
    return secret


def _wrap_key(key: bytes) -> bytes:
    # Apart from the bodies: nothing that is encrypted as one ever opens as the other.
    return prims.derive(key, b"", "p2pq-wrap")


def encrypt_body(key: bytes, plaintext: bytes, aad: bytes, *, size_max: int = BODY_BYTES_MAX) -> bytes:
    """Compress and encrypt a whole object.

    The nonce is a keyed hash of plaintext and aad (as in SIV), so one key may serve several messages, such as a job's
    body and the pieces of its log, with no counter to keep: only two equal messages give equal bytes.

    Raises:
        Reject: ``key`` is not 32 bytes, or the plaintext is longer than ``size_max``.
    """
    if len(plaintext) > size_max:
        raise Reject("too long")
    packed = lz4.block.compress(plaintext, store_size=False)
    if len(packed) < len(plaintext):
        framed = HEADER.pack(LZ4, len(plaintext)) + packed
    else:
        framed = HEADER.pack(STORED, len(plaintext)) + plaintext
    bound = len(aad).to_bytes(8, "little") + aad + framed
    nonce = prims.derive(key, bound, "p2pq-nonce", size=prims.XNONCE_BYTES)
    return nonce + prims.xchacha_encrypt(_body_key(key), nonce, framed, aad)


def decrypt_body(key: bytes, ciphertext: bytes, aad: bytes, *, size_max: int = BODY_BYTES_MAX) -> bytes:
    """Decrypt and decompress what ``encrypt_body`` made.

    Args:
        key: 32 bytes.
        ciphertext: nonce and ciphertext.
        aad: what it was bound to.
        size_max: longest plaintext that will be produced, in bytes.

    Raises:
        Reject: altered, bound to something else, longer than ``size_max``, or its length is not the one it declares.
    """
    if len(ciphertext) > size_max + BODY_OVERHEAD_BYTES:
        raise Reject("too long")
    nonce, rest = ciphertext[: prims.XNONCE_BYTES], ciphertext[prims.XNONCE_BYTES :]
    framed = prims.xchacha_decrypt(_body_key(key), nonce, rest, aad)
    if len(framed) < HEADER.size:
        raise Reject("malformed body")
    how, size = HEADER.unpack_from(framed)
    if size > size_max:
        raise Reject("too long")
    return expand(how, framed[HEADER.size :], size)


def expand(how: int, packed: bytes, size: int) -> bytes:
    """Undo compression. ``size`` comes from an authenticated header and has been checked against a cap.

    A block, never a frame: lz4's frames allocate what they claim and tolerate trailing bytes and second frames.

    Raises:
        Reject: unknown method, corrupt, or not exactly ``size`` bytes.
    """
    if how == STORED:
        plaintext = packed
    elif how == LZ4:
        try:
            plaintext = lz4.block.decompress(packed, uncompressed_size=size)
        except (lz4.block.LZ4BlockError, OverflowError, MemoryError):
            raise Reject("corrupt compression") from None
    else:
        raise Reject("unknown compression")
    if len(plaintext) != size:
        raise Reject("wrong length")
    return plaintext


def _body_key(key: bytes) -> bytes:
    # Apart from the nonce's key: one key, one algorithm.
    return prims.derive(key, b"", "p2pq-body")
