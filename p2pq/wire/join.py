"""Joining a mesh by a short one-time code: SPAKE2 turns the code into a key, Noise XXpsk0 under that key carries the rest.

    joiner                                        inviter
    slot, SPAKE2 A            ->
                              <-                  SPAKE2 B
    Noise 1 (proves the code) ->                  a wrong code fails here, and counts as one guess
                              <-                  Noise 2
    Noise 3, JoinRequest      ->
                              <-                  JoinAnswer or JoinRefusal
    BYE                       ->

Nothing secret is sent before the code has been proved, and each run allows either side one guess at 2^40. The SPAKE2
package computes in Python integers, so not in constant time: the secret lives ten minutes and gives an attacker three
timings.
"""

from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.errors import LocalProtocolError, Reject, UsageError
from p2pq.model.ids import Wall
from p2pq.wire import codec, frames, noise, prims, session, sign, trust
from p2pq.wire.objects import CAPABILITIES, Bytes32, Capability, Cert, Millis, Name
from p2pq.wire.seal import Entropy
from p2pq.wire.session import HandshakeRefused, HelloAddress, Software

if TYPE_CHECKING:
    from spake2 import SPAKE2_A, SPAKE2_B

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: no I, L, O, U."""
SLOT_CHARS: Final = 2
SECRET_CHARS: Final = 8
REQUEST_BYTES_MAX: Final = 4096
ANSWER_BYTES_MAX: Final = 1 << 20

# Reasons.
WRONG_CODE: Final = "wrong-code"
UNKNOWN_CODE: Final = "unknown-code"
NOT_AUTHENTIC: Final = session.NOT_AUTHENTIC
BAD_MESSAGE: Final = "bad-join-message"
BAD_PROOF: Final = "bad-proof"
TOO_MUCH: Final = "asks-too-much"
GIVES_TOO_MUCH: Final = "gives-too-much"
BAD_ANSWER: Final = "bad-answer"
EXPIRED: Final = "invite-expired"
USED: Final = "invite-used"
NAME_TAKEN: Final = "name-taken"
IS_BANNED: Final = "joiner-banned"
DENIED: Final = "denied"
CLOCK: Final = "clock"
LEFT: Final = session.LEFT

SENTENCES: Final[dict[str, str]] = {
    WRONG_CODE: "The code is wrong, or another node answers to its first two characters.",
    UNKNOWN_CODE: "There is no open invitation for that code: it was used, has expired, or is another node's.",
    NOT_AUTHENTIC: session.SENTENCES[session.NOT_AUTHENTIC],
    BAD_MESSAGE: "It does not follow the protocol: a broken or foreign program.",
    BAD_PROOF: "The joiner did not prove that it holds its key.",
    TOO_MUCH: "The joiner asks for more than the invitation offers.",
    GIVES_TOO_MUCH: "The inviter would give this node more than it asked for.",
    BAD_ANSWER: "The inviter's answer does not make this node a member.",
    EXPIRED: "The invitation has expired: ask for a new code.",
    USED: "The invitation has been used: ask for a new code.",
    NAME_TAKEN: "Another member has this node's name: choose one with `p2pq node --name`.",
    IS_BANNED: "This node is banned from that mesh.",
    DENIED: "The inviter said no.",
    CLOCK: "The clocks of the two machines differ by more than five minutes: set them and try again.",
    LEFT: "The other side left before the joining was complete.",
}
"""What each reason means."""


_SPAKE_BYTES: Final = 33
_JOINER: Final = b"p2pq-join/1 joiner"
_INVITER: Final = b"p2pq-join/1 inviter"


class Code(msgspec.Struct, frozen=True):
    """A one-time code: a public slot that finds the inviter's invitation, and 40 bits of secret."""

    slot: str
    secret: str

    @property
    def text(self) -> str:
        """The code as people write it, such as ``4T-K7QX-93FD``."""
        return f"{self.slot}-{self.secret[:4]}-{self.secret[4:]}"

    def __repr__(self) -> str:
        return f"Code({self.slot!r}, <secret>)"


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, tag="join"):
    """Joiner to inviter: who wants in."""

    node: Bytes32
    name: Name
    proof: Annotated[bytes, Meta(min_length=64, max_length=64)]
    """The node's signature over PAE("join", handshake hash)."""
    wanted: Annotated[tuple[Capability, ...], Meta(max_length=4)] = ()
    """Capabilities; empty for what the invitation offers, short of admin."""
    software: Software = ""
    wall: Millis


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="yes"):
    """Inviter to joiner: you are a member; this is all it takes."""

    root: Bytes32
    mesh_name: Name
    certs: Annotated[
        tuple[Annotated[bytes, Meta(max_length=trust.CERT_BYTES_MAX)], ...],
        Meta(min_length=1, max_length=trust.CHAIN_MAX),
    ]
    psks: Annotated[tuple[Bytes32, ...], Meta(min_length=1, max_length=session.PSKS_MAX)]
    """Mesh keys, newest first."""
    bans: Annotated[tuple[bytes, ...], Meta(max_length=256)] = ()
    peers: Annotated[tuple[HelloAddress, ...], Meta(max_length=64)] = ()
    """Where members listen: hints."""
    wall: Millis


class JoinRefusal(msgspec.Struct, frozen=True, kw_only=True, tag="no"):
    """Inviter to joiner: no, because. Unknown reasons read as ``denied``."""

    reason: Annotated[str, Meta(max_length=64)]


def new_code(entropy: Entropy) -> Code:
    """Return a fresh code: 10 characters of 5 bits, 8 of them secret."""
    text = "".join(ALPHABET[byte & 31] for byte in entropy(SLOT_CHARS + SECRET_CHARS))
    return Code(text[:SLOT_CHARS], text[SLOT_CHARS:])


def parse_code(text: str) -> Code:
    """Read a code as people type it: any case, O for 0, I or L for 1, dashes and spaces anywhere.

    Raises:
        UsageError: that is no code.
    """
    swaps = str.maketrans("OIL", "011", "- ")
    clean = text.strip().upper().translate(swaps)
    if len(clean) != SLOT_CHARS + SECRET_CHARS or not set(clean) <= set(ALPHABET):
        raise UsageError("A code has ten letters and digits, such as 4T-K7QX-93FD.")
    return Code(clean[:SLOT_CHARS], clean[SLOT_CHARS:])


def slot_of(message: bytes) -> str:
    """Return the slot that a joiner's first message names, so that the inviter can find the invitation.

    Raises:
        HandshakeRefused: it is no such message.
    """
    if len(message) != SLOT_CHARS + _SPAKE_BYTES:
        raise _refused(BAD_MESSAGE)
    slot = message[:SLOT_CHARS].decode("ascii", errors="replace")
    if not set(slot) <= set(ALPHABET):
        raise _refused(BAD_MESSAGE)
    return slot


class _Side:
    """What both sides share: the code's key, then records once Noise is through."""

    def __init__(self, code: Code, entropy: Entropy) -> None:
        self._code = code
        self._entropy = entropy
        self._handshake: noise.HandshakeState | None = None
        self._channel: session.Channel | None = None
        self._decoder = frames.Decoder(size_max=REQUEST_BYTES_MAX)

    def _noise(
        self, role: Literal["initiator", "responder"], pake: "SPAKE2_A | SPAKE2_B", message: bytes
    ) -> noise.HandshakeState:
        if len(message) != _SPAKE_BYTES:
            raise _refused(BAD_MESSAGE)
        try:
            shared = pake.finish(message)
        except Exception:  # noqa: BLE001  a foreign package's many ways to refuse a point
            raise _refused(BAD_MESSAGE) from None
        psk = prims.derive(shared, b"", "p2pq-join-psk")
        prologue = b"p2pq-join/1" + self._code.slot.encode()
        s, e = self._entropy(prims.KEY_BYTES), self._entropy(prims.KEY_BYTES)
        return noise.HandshakeState(role, prologue, psk, s=s, e=e)

    def _send(self, channel: session.Channel, value: msgspec.Struct) -> list[bytes]:
        pieces = frames.encode(codec.encode(value), size_max=ANSWER_BYTES_MAX)
        return [channel.encrypt(piece) for piece in pieces]

    def _take(self, channel: session.Channel, record: bytes) -> bytes | None:
        """Return the message that this record completes, if it does."""
        try:
            messages = self._decoder.feed(channel.decrypt(record))
        except Reject:
            raise _refused(NOT_AUTHENTIC) from None
        if len(messages) > 1:
            raise _refused(BAD_MESSAGE)
        return messages[0] if messages else None


class JoinClient(_Side):
    """The joiner: ``start``, then ``receive`` what comes until ``answer`` is set. All returned messages are to be sent."""

    def __init__(
        self,
        code: Code,
        key: prims.SigningKey,
        name: str,
        *,
        wanted: tuple[Capability, ...] = (),
        software: str = "",
        entropy: Entropy,
    ) -> None:
        """Prepare one attempt.

        Args:
            code: what the inviter's screen shows.
            key: this node's key.
            name: what this node would like to be called.
            wanted: capabilities; empty takes what is offered.
            software: name and version of this program.
            entropy: gives SPAKE2's and Noise's secrets.
        """
        from spake2 import SPAKE2_A  # noqa: PLC0415  slow to import, and most runs of a node see no join

        super().__init__(code, entropy)
        self._decoder = frames.Decoder(size_max=ANSWER_BYTES_MAX)
        self._key = key
        self._name = name
        self._wanted = wanted
        self._software = software
        self._pake = SPAKE2_A(_password(code), _JOINER, _INVITER, entropy_f=entropy)
        self.answer: JoinAnswer | None = None
        """What makes this node a member: checked against its own signatures, once it has come."""
        self.cert: Cert | None = None
        """This node's certificate in it."""

    def start(self) -> list[bytes]:
        """Return the first message."""
        return [self._code.slot.encode() + self._pake.start()]

    def receive(self, message: bytes, wall: Wall) -> list[bytes]:
        """Take the inviter's next message and return what to send.

        Raises:
            HandshakeRefused: the joining failed.
        """
        if self._channel is not None:
            raw = self._take(self._channel, message)
            if raw is None:
                return []
            if self.answer is not None:
                raise _refused(BAD_MESSAGE)
            self.cert = self._check(raw, wall)
            return [self._channel.encrypt(frames.encode_bye())]
        if self._handshake is None:
            self._handshake = self._noise("initiator", self._pake, message)
            return [self._handshake.write(b"")]
        third = self._answer_noise(self._handshake, message)
        self._channel = session.Channel(*self._handshake.split())
        request = JoinRequest(
            node=self._key.public,
            name=self._name,
            proof=self._key.sign(_proof(self._handshake.hash)),
            wanted=self._wanted,
            software=self._software,
            wall=wall,
        )
        return [third, *self._send(self._channel, request)]

    def closed(self) -> HandshakeRefused:
        """Return what it means that the connection ended here."""
        if self._handshake is None:
            return _refused(UNKNOWN_CODE)
        return _refused(WRONG_CODE if self._channel is None else LEFT)

    def _answer_noise(self, handshake: noise.HandshakeState, message: bytes) -> bytes:
        try:
            handshake.read(message)
            return handshake.write(b"")
        except Reject:
            raise _refused(WRONG_CODE) from None

    def _check(self, raw: bytes, wall: Wall) -> Cert:
        kind = JoinAnswer | JoinRefusal
        try:
            answer: JoinAnswer | JoinRefusal = codec.decode_lenient(raw, kind, size_max=ANSWER_BYTES_MAX)
        except Reject:
            raise _refused(BAD_MESSAGE) from None
        if isinstance(answer, JoinRefusal):
            raise _refused(answer.reason if answer.reason in SENTENCES else DENIED)
        if abs(answer.wall - wall) > trust.SKEW_MS:
            raise _refused(CLOCK)
        try:
            cert = trust.verify_chain(answer.certs, answer.root, wall, is_banned=lambda _: False)
        except Reject:
            raise _refused(BAD_ANSWER) from None
        if cert.sub != self._key.public:
            raise _refused(BAD_ANSWER)
        if not set(cert.caps) <= set(self._wanted or CAPABILITIES):
            raise _refused(GIVES_TOO_MUCH)
        self.answer = answer
        return cert


class JoinServer(_Side):
    """The inviter: ``receive`` until ``request`` is set, then ``answer`` or ``refuse``; ``confirmed`` once the joiner has it.

    A refusal with WRONG_CODE is a guess: the caller counts them and burns the code.
    """

    def __init__(self, code: Code, offered: tuple[Capability, ...], *, entropy: Entropy) -> None:
        """Prepare to serve one connection.

        Args:
            code: the invitation's.
            offered: the capabilities that the invitation gives at most.
            entropy: gives SPAKE2's and Noise's secrets.
        """
        from spake2 import SPAKE2_B  # noqa: PLC0415  slow to import, and most runs of a node see no join

        super().__init__(code, entropy)
        self._offered = offered
        self._pake = SPAKE2_B(_password(code), _JOINER, _INVITER, entropy_f=entropy)
        self.request: JoinRequest | None = None
        """Who wants in, once it is known; its key is proved, its name and wishes are claims."""
        self.caps: tuple[Capability, ...] = ()
        """What the joiner is to get: what it wants, else what is offered."""
        self._proved = False
        self._hash = b""
        self.confirmed = False
        """Whether the joiner has said that it is through."""

    def receive(self, message: bytes, wall: Wall) -> list[bytes]:
        """Take the joiner's next message and return what to send.

        Raises:
            HandshakeRefused: the joining failed; its ``farewell`` is to be sent before closing.
        """
        if self._channel is not None:
            self._hear(self._channel, message, wall)
            return []
        if self._handshake is None:
            if slot_of(message) != self._code.slot:
                raise _refused(UNKNOWN_CODE)
            reply: bytes = self._pake.start()
            self._handshake = self._noise("responder", self._pake, message[SLOT_CHARS:])
            return [reply]
        if not self._proved:
            return [self._prove(self._handshake, message)]
        try:
            self._handshake.read(message)
        except Reject:
            raise _refused(NOT_AUTHENTIC) from None
        self._channel = session.Channel(*self._handshake.split())
        self._hash = self._handshake.hash
        return []

    def answer(self, answer: JoinAnswer) -> list[bytes]:
        """Return the records that make the joiner a member.

        Raises:
            LocalProtocolError: nobody has asked yet, or the answer is not one that the joiner could read.
        """
        try:
            codec.decode_lenient(codec.encode(answer), JoinAnswer, size_max=ANSWER_BYTES_MAX)
        except Reject:
            raise LocalProtocolError("join answer is not well formed") from None
        return self._reply(answer)

    def refuse(self, reason: str) -> list[bytes]:
        """Return the records that turn the joiner away for one of this module's reasons.

        Raises:
            LocalProtocolError: nobody has asked yet, or that is no reason.
        """
        if reason not in SENTENCES:
            raise LocalProtocolError("not a reason")
        return self._reply(JoinRefusal(reason=reason))

    def _reply(self, value: JoinAnswer | JoinRefusal) -> list[bytes]:
        if self._channel is None or self.request is None:
            raise LocalProtocolError("nobody has asked to join")
        return self._send(self._channel, value)

    def closed(self) -> HandshakeRefused:
        """Return what it means that the connection ended here; before the code was proved, it is no guess."""
        return _refused(LEFT)

    def _prove(self, handshake: noise.HandshakeState, message: bytes) -> bytes:
        try:
            handshake.read(message)
        except Reject:
            raise _refused(WRONG_CODE) from None
        self._proved = True
        try:
            return handshake.write(b"")
        except Reject:  # the joiner knows the code and sent a low-order point
            raise _refused(NOT_AUTHENTIC) from None

    def _hear(self, channel: session.Channel, record: bytes, wall: Wall) -> None:
        raw = self._take(channel, record)
        if raw is None:
            self.confirmed = self.request is not None and self._decoder.bye is not None
            return
        if self.request is not None:
            raise _refused(BAD_MESSAGE)
        try:
            request: JoinRequest = codec.decode_lenient(raw, JoinRequest, size_max=REQUEST_BYTES_MAX)
        except Reject:
            raise _refused(BAD_MESSAGE) from None
        reason = self._fault(request, wall)
        if reason is not None:
            raise _refused(reason, tuple(self._send(channel, JoinRefusal(reason=reason))))
        self.caps = request.wanted or self._offered
        self.request = request

    def _fault(self, request: JoinRequest, wall: Wall) -> str | None:
        """Return why this request cannot be granted, whatever the inviter thinks of it."""
        try:
            prims.verify(request.node, _proof(self._hash), request.proof)
        except Reject:
            return BAD_PROOF
        if not request.name.isprintable():
            return BAD_MESSAGE
        if abs(request.wall - wall) > trust.SKEW_MS:
            return CLOCK
        if not set(request.wanted) <= set(self._offered):
            return TOO_MUCH
        return None


def _password(code: Code) -> bytes:
    return f"{code.slot}{code.secret}".encode()


def _proof(handshake_hash: bytes) -> bytes:
    return sign.pae(b"join", handshake_hash)


def _refused(reason: str, farewell: tuple[bytes, ...] = ()) -> HandshakeRefused:
    return HandshakeRefused(reason, SENTENCES[reason], farewell)
