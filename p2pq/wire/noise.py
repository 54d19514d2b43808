"""``Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b``, the only handshake, after the Noise specification, revision 34.

    XXpsk0:
      -> psk, e
      <- e, ee, s, es
      -> s, se

Names follow the specification. ``psk0`` mixes the pre-shared key in before anything else, so the first message is
already authenticated: an outsider is refused with hashing and one AEAD, before any Diffie-Hellman. A key is therefore
always set when something is encrypted, and the specification's "no key yet" branches do not exist here.
"""

from typing import Final, Literal

from p2pq.errors import LocalProtocolError, Reject
from p2pq.wire import prims

PROTOCOL: Final = b"Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b"
MESSAGE_BYTES_MAX: Final = 65_535
HASH_BYTES: Final = 64
NONCE_MAX: Final = 2**64 - 1

# Without the leading psk, which SymmetricState takes in when it starts.
_PATTERN: Final[tuple[tuple[str, ...], ...]] = (("e",), ("e", "ee", "s", "es"), ("s", "se"))


class CipherState:
    """A key and the number of the next message under it (section 5.1)."""

    __slots__ = ("_key", "_nonce")

    def __init__(self, key: bytes, nonce: int = 0) -> None:
        """Start at message ``nonce``."""
        self._key = key
        self._nonce = nonce

    @staticmethod
    def _nonce_bytes(nonce: int) -> bytes:
        return bytes(4) + nonce.to_bytes(8, "little")

    def _usable(self) -> bytes:
        if self._nonce == NONCE_MAX:  # reserved for rekey; ending here loses nothing that could ever happen
            raise Reject("nonces used up")
        return self._nonce_bytes(self._nonce)

    def encrypt(self, aad: bytes, plaintext: bytes) -> bytes:
        """Encrypt the next message.

        Raises:
            Reject: the nonces are used up.
        """
        ciphertext = prims.chacha_encrypt(self._key, self._usable(), plaintext, aad)
        self._nonce += 1
        return ciphertext

    def decrypt(self, aad: bytes, ciphertext: bytes) -> bytes:
        """Decrypt the next message; a failure leaves the state as it was.

        Raises:
            Reject: it is not the next message under this key.
        """
        plaintext = prims.chacha_decrypt(self._key, self._usable(), ciphertext, aad)
        self._nonce += 1
        return plaintext

    def rekey(self) -> None:
        """Replace the key by a one-way function of itself (section 4.2); the nonce goes on."""
        self._key = prims.chacha_encrypt(self._key, self._nonce_bytes(NONCE_MAX), bytes(32), b"")[:32]


class SymmetricState:
    """The chaining key, the transcript hash and the current cipher (section 5.2)."""

    __slots__ = ("_chaining_key", "_cipher", "hash")

    def __init__(self, prologue: bytes, psk: bytes) -> None:
        """InitializeSymmetric, MixHash(prologue) and the leading ``psk`` token in one."""
        # The protocol's name is shorter than HASHLEN, so it is padded with zeros, not hashed.
        self._chaining_key = self.hash = PROTOCOL.ljust(HASH_BYTES, b"\0")
        self.mix_hash(prologue)
        self._cipher = CipherState(self._mix_key_and_hash(psk))

    def _hkdf(self, material: bytes, outputs: int) -> list[bytes]:
        secret = prims.hmac_blake2b(self._chaining_key, material)
        blocks: list[bytes] = []
        for counter in range(1, outputs + 1):
            previous = blocks[-1] if blocks else b""
            blocks.append(prims.hmac_blake2b(secret, previous + bytes((counter,))))
        return blocks

    def mix_hash(self, data: bytes) -> None:
        """Take ``data`` into the transcript."""
        self.hash = prims.blake2b(self.hash + data, size=HASH_BYTES)

    def mix_key(self, material: bytes) -> None:
        """Take key material in; a new cipher starts."""
        self._chaining_key, key = self._hkdf(material, 2)
        self._cipher = CipherState(key[:32])

    def _mix_key_and_hash(self, material: bytes) -> bytes:
        self._chaining_key, hashed, key = self._hkdf(material, 3)
        self.mix_hash(hashed)
        return key[:32]

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Encrypt under the transcript, then take the ciphertext into it."""
        ciphertext = self._cipher.encrypt(self.hash, plaintext)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Undo ``encrypt_and_hash``."""
        plaintext = self._cipher.decrypt(self.hash, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        """Return the ciphers initiator to responder, and responder to initiator."""
        first, second = self._hkdf(b"", 2)
        return CipherState(first[:32]), CipherState(second[:32])


class HandshakeState:
    """One run of the handshake, as one role (section 5.3). Write and read in turn; then ``split``.

    A failed read ends the run for good: there is no second try on the same keys.
    """

    def __init__(
        self, role: Literal["initiator", "responder"], prologue: bytes, psk: bytes, *, s: bytes, e: bytes
    ) -> None:
        """Begin a run.

        Args:
            role: who this side is.
            prologue: what both sides must agree on beforehand.
            psk: the 32-byte pre-shared key.
            s: this side's static X25519 secret.
            e: this side's ephemeral X25519 secret, fresh for this run.

        Raises:
            Reject: a key has not 32 bytes.
        """
        if {len(psk), len(s), len(e)} != {prims.KEY_BYTES}:
            raise Reject("noise: bad key length")
        self._initiator = role == "initiator"
        self._symmetric = SymmetricState(prologue, psk)
        self._s = s
        self._e = e
        self._step = 0
        self._remote_e = b""
        self.remote_static = b""
        """The peer's static public key, once a message has brought it."""

    @property
    def hash(self) -> bytes:
        """The transcript's hash so far; after the last message it names this session. 64 bytes."""
        return self._symmetric.hash

    @property
    def done(self) -> bool:
        """Whether all three messages have passed."""
        return self._step == len(_PATTERN)

    def _begin(self, *, writing: bool) -> tuple[str, ...]:
        if not 0 <= self._step < len(_PATTERN) or writing != (self._initiator == (self._step != 1)):
            raise LocalProtocolError("noise: not this side's turn")
        tokens = _PATTERN[self._step]
        self._step = -1 - self._step  # dead until the message is through
        return tokens

    def _finish(self) -> None:
        self._step = -self._step

    def _mix_dh(self, pair: str) -> None:
        """Mix in one Diffie-Hellman; ``pair`` names the initiator's key first."""
        mine, theirs = (pair[0], pair[1]) if self._initiator else (pair[1], pair[0])
        secret = self._e if mine == "e" else self._s
        public = self._remote_e if theirs == "e" else self.remote_static
        self._symmetric.mix_key(prims.x25519_shared(secret, public))

    def write(self, payload: bytes) -> bytes:
        """Return the next message, carrying ``payload``.

        Raises:
            LocalProtocolError: it is not this side's turn.
            Reject: the peer's key is a low-order point.
        """
        message = b""
        for token in self._begin(writing=True):
            match token:
                case "e":
                    public = prims.x25519_public(self._e)
                    self._symmetric.mix_hash(public)
                    self._symmetric.mix_key(public)  # with a psk, e is also mixed into the key (9.2)
                    message += public
                case "s":
                    message += self._symmetric.encrypt_and_hash(prims.x25519_public(self._s))
                case _:
                    self._mix_dh(token)
        message += self._symmetric.encrypt_and_hash(payload)
        self._finish()
        return message

    def read(self, message: bytes) -> bytes:
        """Take the peer's next message and return its payload.

        Raises:
            LocalProtocolError: it is not the peer's turn, or an earlier message failed.
            Reject: the message is not authentic.
        """
        tokens = self._begin(writing=False)
        if len(message) > MESSAGE_BYTES_MAX:
            raise Reject("noise: message too long")
        rest = message
        for token in tokens:
            match token:
                case "e":
                    self._remote_e, rest = rest[: prims.KEY_BYTES], rest[prims.KEY_BYTES :]
                    self._symmetric.mix_hash(self._remote_e)
                    self._symmetric.mix_key(self._remote_e)
                case "s":
                    size = prims.KEY_BYTES + prims.TAG_BYTES
                    self.remote_static = self._symmetric.decrypt_and_hash(rest[:size])
                    rest = rest[size:]
                case _:
                    self._mix_dh(token)
        payload = self._symmetric.decrypt_and_hash(rest)
        self._finish()
        return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """Return this side's (sending, receiving) ciphers.

        Raises:
            LocalProtocolError: the handshake is not complete.
        """
        if not self.done:
            raise LocalProtocolError("noise: handshake not complete")
        first, second = self._symmetric.split()
        return (first, second) if self._initiator else (second, first)
