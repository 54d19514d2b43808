"""The primitives, and the only importer of nacl: every failure is one typed ``Reject``.

libsodium's bindings trust the lengths that they are given (some would read past the end of a short key), so lengths and
types are checked here, before the call. Nothing here draws entropy: secrets and nonces are arguments.
"""

import hashlib
import hmac
from typing import Final

from nacl.bindings import (
    crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import CryptoError

from p2pq.errors import Reject
from p2pq.model.ids import BlobId, MeshId, NodeId

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
TAG_BYTES: Final = 16
NONCE_BYTES: Final = 12
XNONCE_BYTES: Final = 24
DIGEST_BYTES: Final = 32


def _sized(value: object, size: int, what: str) -> bytes:
    if type(value) is not bytes or len(value) != size:
        raise Reject(f"{what}: not {size} bytes")
    return value


def _raw(value: object, what: str) -> bytes:
    if type(value) is not bytes:
        raise Reject(f"{what}: not bytes")
    return value


class SigningKey:
    """An Ed25519 secret key (RFC 8032); its public half is a node id. Prints as ``<secret>``.

    Raises:
        Reject: the seed is not 32 bytes.
    """

    __slots__ = ("_secret", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """Derive the key pair from its 32-byte seed."""
        self.seed = _sized(seed, KEY_BYTES, "ed25519 seed")
        public, self._secret = crypto_sign_seed_keypair(seed)
        self.public = NodeId(public)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of ``message``."""
        return bytes(crypto_sign(_raw(message, "message"), self._secret)[:SIGNATURE_BYTES])

    def __repr__(self) -> str:
        return "<secret>"


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature (RFC 8032; libsodium also refuses small-order keys and S >= L).

    Raises:
        Reject: the signature is not that key's over exactly these bytes.
    """
    _sized(public, KEY_BYTES, "ed25519 public key")
    _sized(signature, SIGNATURE_BYTES, "signature")
    try:
        crypto_sign_open(signature + _raw(message, "message"), public)
    except CryptoError:
        raise Reject("bad signature") from None


def x25519_public(secret: bytes) -> bytes:
    """Return the X25519 public key of a 32-byte secret (RFC 7748)."""
    return bytes(crypto_scalarmult_base(_sized(secret, KEY_BYTES, "x25519 secret")))


def x25519_shared(secret: bytes, public: bytes) -> bytes:
    """Return the X25519 shared secret (RFC 7748 section 6.1, with its check for the all-zero output).

    Raises:
        Reject: the public key is a low-order point, or a length is wrong.
    """
    _sized(secret, KEY_BYTES, "x25519 secret")
    _sized(public, KEY_BYTES, "x25519 public key")
    try:
        return bytes(crypto_scalarmult(secret, public))
    except CryptoError:
        raise Reject("low-order point") from None


def chacha_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt with ChaCha20-Poly1305 (RFC 8439); the nonce has 12 bytes and never repeats under a key."""
    _sized(key, KEY_BYTES, "key")
    _sized(nonce, NONCE_BYTES, "nonce")
    return bytes(crypto_aead_chacha20poly1305_ietf_encrypt(_raw(plaintext, "plaintext"), _raw(aad, "aad"), nonce, key))


def chacha_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Decrypt what ``chacha_encrypt`` made.

    Raises:
        Reject: key, nonce, aad or ciphertext are not the ones it was made with.
    """
    _sized(key, KEY_BYTES, "key")
    _sized(nonce, NONCE_BYTES, "nonce")
    if len(_raw(ciphertext, "ciphertext")) < TAG_BYTES:
        raise Reject("ciphertext: too short")
    try:
        return bytes(crypto_aead_chacha20poly1305_ietf_decrypt(ciphertext, _raw(aad, "aad"), nonce, key))
    except CryptoError:
        raise Reject("decryption failed") from None


def xchacha_encrypt(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Encrypt with XChaCha20-Poly1305; the nonce has 24 bytes and never repeats under a key."""
    _sized(key, KEY_BYTES, "key")
    _sized(nonce, XNONCE_BYTES, "nonce")
    return bytes(crypto_aead_xchacha20poly1305_ietf_encrypt(_raw(plaintext, "plaintext"), _raw(aad, "aad"), nonce, key))


def xchacha_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    """Decrypt what ``xchacha_encrypt`` made.

    Raises:
        Reject: key, nonce, aad or ciphertext are not the ones it was made with.
    """
    _sized(key, KEY_BYTES, "key")
    _sized(nonce, XNONCE_BYTES, "nonce")
    if len(_raw(ciphertext, "ciphertext")) < TAG_BYTES:
        raise Reject("ciphertext: too short")
    try:
        return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, _raw(aad, "aad"), nonce, key))
    except CryptoError:
        raise Reject("decryption failed") from None


def blake2b(data: bytes, *, size: int = DIGEST_BYTES, key: bytes = b"", person: str = "") -> bytes:
    """Return the BLAKE2b digest (RFC 7693) of ``data``: ``size`` bytes, keyed and personalised as given.

    Raises:
        Reject: a size is out of range (digest 1..64, key 0..64, person 0..16 bytes) or a type is wrong.
    """
    try:
        return hashlib.blake2b(data, digest_size=size, key=key, person=person.encode()).digest()
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise Reject("blake2b: bad argument") from None


def derive(key: bytes, data: bytes, person: str, *, size: int = DIGEST_BYTES) -> bytes:
    """Return keyed BLAKE2b: a key, nonce or commitment for one purpose, from a key.

    Raises:
        Reject: the key is not 32 bytes (an empty one would make an unkeyed hash).
    """
    return blake2b(data, size=size, key=_sized(key, KEY_BYTES, "key"), person=person)


def hmac_blake2b(key: bytes, data: bytes) -> bytes:
    """Return HMAC-BLAKE2b-512: the HMAC that the Noise HKDF is built on. 64 bytes."""
    return hmac.digest(_raw(key, "key"), _raw(data, "data"), hashlib.blake2b)


def equal(left: bytes, right: bytes) -> bool:
    """Compare secrets in time that does not depend on where they differ."""
    return hmac.compare_digest(_raw(left, "left"), _raw(right, "right"))


def blob_id(ciphertext: bytes) -> BlobId:
    """Return the name of a blob: a hash of the very bytes that are stored and sent."""
    return BlobId(blake2b(ciphertext, person="p2pq-blob"))


def mesh_id(root: bytes) -> MeshId:
    """Return the id of the mesh that this root public key founds."""
    return MeshId(blake2b(_sized(root, KEY_BYTES, "root key"), person="p2pq-mesh"))
