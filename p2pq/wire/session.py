"""The link handshake and its records, both roles, as state machines: bytes in, bytes out.

Noise XXpsk0 under the mesh key; its second and third message carry each side's ``Hello``: who it is, by which certificates,
and its signature over the Noise static key it uses. A member is let in only after signature, chain, time and bans have been
checked; everything else ends in one ``HandshakeRefused`` with a stable reason and a sentence for people.
"""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from p2pq.errors import HandshakeError, LocalProtocolError, Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import codec, frames, noise, peering, prims, sign, trust
from p2pq.wire.messages import MINOR
from p2pq.wire.objects import Bytes16, Bytes32, Cert, Millis, PeerSide
from p2pq.wire.seal import Entropy

MESSAGE_BYTES_MAX: Final = 4096
"""Longest handshake message."""
PSKS_MAX: Final = 8
ADDRESSES_MAX: Final = 16
REKEY_RECORDS: Final = 1 << 14
REKEY_BYTES: Final = 1 << 30
RECORD_BYTES_MAX: Final = noise.MESSAGE_BYTES_MAX

# Reasons; those of a chain are trust's own.
WRONG_MESH: Final = "wrong-mesh-key"
REFUSED_EARLY: Final = "refused-early"
LEFT: Final = "left"
NOT_AUTHENTIC: Final = "not-authentic"
BAD_HELLO: Final = "bad-hello"
BAD_SIGNATURE: Final = "bad-signature"
NOT_HOLDER: Final = "not-the-holder"
SELF: Final = "self"
DUPLICATE_KEY: Final = "duplicate-key"
NO_PEERING: Final = "no-peering"

SENTENCES: Final[dict[str, str]] = {
    WRONG_MESH: "It is of another mesh, or has an old mesh key: the first message did not open.",
    REFUSED_EARLY: "It did not answer the first message: it is of another mesh, or this node's mesh key is old.",
    LEFT: "It left before the handshake was complete.",
    NOT_AUTHENTIC: "A handshake message was altered on its way.",
    BAD_HELLO: "Its introduction is not well formed: a broken or foreign program.",
    BAD_SIGNATURE: "It did not prove that it holds its key.",
    NOT_HOLDER: "It showed the certificate of another node.",
    SELF: "This is this very node.",
    DUPLICATE_KEY: "Another node uses this node's key: a copied home. Give one of them a new P2PQ_HOME and join again.",
    NO_PEERING: "It is of another mesh, and no peering with that one holds now: see `p2pq mesh peers`.",
    trust.MISSING: "It showed no certificate.",
    trust.CHAIN_LENGTH: "Its chain of certificates is too long.",
    trust.BAD_CERT: "Its certificate is not sound.",
    trust.WRONG_ROOT: "Its certificate is from another mesh.",
    trust.NOT_ADMIN: "Its certificate was not issued by an admin of this mesh.",
    trust.TOO_MANY_CAPS: "Its certificate claims more than its issuer may give.",
    trust.NOT_YET_VALID: "Its certificate is not valid yet: compare the clocks of both machines.",
    trust.EXPIRED: "Its certificate has expired: let it join again, or compare the clocks of both machines.",
    trust.BANNED: "It is banned from this mesh.",
    trust.ISSUER_BANNED: "The admin that let it in is banned from this mesh: let it join again.",
}
"""What each reason means, said of the peer."""

_OURS: Final[dict[str, str]] = {
    trust.NOT_YET_VALID: "It finds this node's certificate not valid yet: compare the clocks of both machines.",
    trust.EXPIRED: "This node's certificate has expired: join again, or compare the clocks of both machines.",
    trust.BANNED: "This node is banned from the mesh.",
    trust.ISSUER_BANNED: "The admin that let this node in is banned: join again by a code of another admin.",
    DUPLICATE_KEY: SENTENCES[DUPLICATE_KEY],
    SELF: SENTENCES[SELF],
}

HelloAddress = Annotated[str, Meta(min_length=3, max_length=64, pattern=r"\A[!-~]+\Z")]
Software = Annotated[str, Meta(max_length=64, pattern=r"\A[ -~]*\Z")]
Minor = Annotated[int, Meta(ge=1, le=1 << 16)]


class HandshakeRefused(HandshakeError):  # noqa: N818  refusing is what happened, not an error
    """The handshake ended without a link.

    ``reason`` is one of the constants above (or of ``trust``, ``join``); ``farewell`` holds records to send before closing.
    """

    def __init__(self, reason: str, sentence: str, farewell: tuple[bytes, ...] = ()) -> None:
        """Keep the reason; the sentence is the message."""
        super().__init__(sentence)
        self.reason = reason
        self.farewell = farewell


def refused(reason: str, farewell: tuple[bytes, ...] = ()) -> HandshakeRefused:
    """Return the exception for a reason of this module or of ``trust``."""
    return HandshakeRefused(reason, SENTENCES[reason], farewell)


def refused_by_peer(bye: str) -> HandshakeRefused:
    """Return the exception for a link whose first record was a BYE with a reason: the responder let us in no further.

    The reason becomes ``by-peer:REASON``; unknown text is not repeated.
    """
    known = bye if bye in SENTENCES else "unknown"
    sentence = _OURS.get(known, f"It refused this node ({known}).")
    return HandshakeRefused(f"by-peer:{known}", sentence)


class Hello(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who a side is; the payload of handshake messages 2 and 3. Unknown fields are ignored, so it can grow."""

    v: Literal[1]
    node: Bytes32
    sig: Annotated[bytes, Meta(min_length=64, max_length=64)]
    """Over PAE("link-static", mesh, role, Noise static key, prekey)."""
    certs: Annotated[
        tuple[Annotated[bytes, Meta(max_length=trust.CERT_BYTES_MAX)], ...],
        Meta(max_length=trust.CHAIN_MAX),
    ] = ()
    boot: Bytes16
    minor: Minor
    software: Software = ""
    prekey: Bytes32
    addresses: Annotated[tuple[HelloAddress, ...], Meta(max_length=ADDRESSES_MAX)] = ()
    wall: Millis


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What this node says of itself, for one run of the daemon."""

    key: prims.SigningKey
    static: bytes = field(repr=False)
    """X25519 secret for Noise: 32 random bytes, new at every start, never stored."""
    boot: bytes
    """16 random bytes, new at every start."""
    prekey: bytes
    """X25519 public key that others seal job keys to."""
    certs: tuple[bytes, ...]
    """This node's chain, leaf first."""
    addresses: tuple[str, ...] = ()
    software: str = ""
    minor: int = MINOR


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """By what members of another mesh are let in."""

    peering: bytes
    """Its id, 32 bytes: both sides mean the same terms, or their handshake fails."""
    realm: str
    """What the other mesh is called."""
    may: PeerSide
    """What its members may do here, by the peering."""
    welcome: tuple[str, ...]
    """Of that, what this node lets them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """What this node knows of a mesh: its own, or another one that a peering lets in."""

    root: bytes
    """The root's public key."""
    psks: tuple[bytes, ...] = field(repr=False)
    """Mesh keys, newest first; the first is used to dial, the first PSKS_MAX open the gate."""
    is_banned: trust.IsBanned
    foreign: Foreign | None = None

    @property
    def link_id(self) -> bytes:
        """What both sides must mean: the mesh, or the peering between the two."""
        return prims.mesh_id(self.root) if self.foreign is None else self.foreign.peering

    def admit(self, cert: Cert) -> tuple[str, tuple[str, ...]]:
        """Return as whom the holder of a sound certificate counts here, and what it may do here.

        Members of another mesh may do what the certificate, the peering and this node all let them; that may be nothing.
        """
        if self.foreign is None:
            return cert.owner, cert.caps
        caps = peering.narrowed(cert, self.foreign.may)
        allowed = tuple(cap for cap in caps if cap in self.foreign.welcome)
        return peering.name_abroad(cert.owner, self.foreign.realm), allowed


class PeerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who is at the other end: proved by signature and certificate, but for what it says of itself."""

    node: NodeId
    name: str
    owner: str
    caps: tuple[str, ...]
    """What it may do here."""
    boot: bytes
    minor: int
    """The newest minor version that both speak."""
    software: str
    prekey: bytes
    addresses: tuple[str, ...]
    wall_skew_ms: int
    """Its clock less ours, including the time that its message took."""
    cert_expires: Wall
    certs: tuple[bytes, ...]
    mesh: bytes = b""
    """Its mesh, if that is another than ours."""
    realm: str = ""
    """What that is called."""
    peering: bytes = b""
    """The peering that let it in."""


class Channel:
    """The records of an established link: one cipher for each direction, strictly in order, rekeyed on the way."""

    __slots__ = ("_receiving", "_sending")

    def __init__(self, sending: noise.CipherState, receiving: noise.CipherState) -> None:
        """Take the two ciphers of a split handshake."""
        self._sending = _Direction(sending)
        self._receiving: _Direction | None = _Direction(receiving)

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the next record.

        Raises:
            LocalProtocolError: the plaintext is longer than frames.PIECE_BYTES_MAX.
        """
        if len(plaintext) > frames.PIECE_BYTES_MAX:
            raise LocalProtocolError("record too long")
        record = self._sending.cipher.encrypt(b"", plaintext)
        self._sending.count(len(record))
        return record

    def decrypt(self, record: bytes) -> bytes:
        """Return the plaintext of the peer's next record. After one failure nothing opens any more.

        Raises:
            Reject: not the peer's next record: altered, repeated, out of order, or of impossible length.
        """
        direction, self._receiving = self._receiving, None
        if direction is None:
            raise Reject("record after a failure")
        if len(record) > RECORD_BYTES_MAX:
            raise Reject("record too long")
        plaintext = direction.cipher.decrypt(b"", record)
        direction.count(len(record))
        self._receiving = direction
        return plaintext


class _Direction:
    __slots__ = ("bytes", "cipher", "records")

    def __init__(self, cipher: noise.CipherState) -> None:
        self.cipher = cipher
        self.records = 0
        self.bytes = 0

    def count(self, size: int) -> None:
        """Rekey after so many records or bytes; both ends count the same, so no message is needed."""
        self.records += 1
        self.bytes += size
        if self.records >= REKEY_RECORDS or self.bytes >= REKEY_BYTES:
            self.cipher.rekey()
            self.records = self.bytes = 0


class _Side:
    """What both roles share: introducing ourselves and judging the peer's introduction."""

    role: Literal["initiator", "responder"]

    def __init__(self, local: Local, mesh: Mesh, entropy: Entropy) -> None:
        """Prepare one handshake.

        Args:
            local: what this node says of itself.
            mesh: what it knows of its mesh; at least one key.
            entropy: gives the ephemeral key.
        """
        self._local = local
        self._mesh = mesh
        self._ephemeral = entropy(prims.KEY_BYTES)
        self.peer: PeerInfo | None = None
        """The peer, once the handshake is complete."""
        self.channel: Channel | None = None
        """The link's records, once the handshake is complete."""
        self.handshake_hash = b""

    def _noise(self, psk: bytes) -> noise.HandshakeState:
        link_id = self._mesh.link_id
        return noise.HandshakeState(self.role, prologue(link_id), psk, s=self._local.static, e=self._ephemeral)

    def _hello(self, wall: Wall) -> bytes:
        local = self._local
        xpub = prims.x25519_public(local.static)
        hello = Hello(
            v=1,
            node=local.key.public,
            sig=local.key.sign(_claim(self._mesh.link_id, self.role, xpub, local.prekey)),
            certs=local.certs,
            boot=local.boot,
            minor=local.minor,
            software=local.software,
            prekey=local.prekey,
            addresses=local.addresses[:ADDRESSES_MAX],
            wall=wall,
        )
        raw = codec.encode(hello)
        try:
            codec.decode_lenient(raw, Hello, size_max=MESSAGE_BYTES_MAX)
        except Reject:
            raise LocalProtocolError("this node's own introduction is not well formed") from None
        return raw

    def _judge(self, payload: bytes, xpub: bytes, wall: Wall) -> PeerInfo:
        """Return who the peer is, or raise HandshakeRefused."""
        try:
            hello: Hello = codec.decode_lenient(payload, Hello, size_max=MESSAGE_BYTES_MAX)
        except Reject:
            raise refused(BAD_HELLO) from None
        their_role = "responder" if self.role == "initiator" else "initiator"
        try:
            claim = _claim(self._mesh.link_id, their_role, xpub, hello.prekey)
            prims.verify(hello.node, claim, hello.sig)
        except Reject:
            raise refused(BAD_SIGNATURE) from None
        if hello.node == self._local.key.public:
            raise refused(SELF if hello.boot == self._local.boot else DUPLICATE_KEY)
        try:
            cert = trust.verify_chain(hello.certs, self._mesh.root, wall, self._mesh.is_banned)
        except Reject as error:
            raise refused(error.reason) from None
        if cert.sub != hello.node:
            raise refused(NOT_HOLDER)
        foreign = self._mesh.foreign
        owner, caps = self._mesh.admit(cert)
        return PeerInfo(
            node=NodeId(hello.node),
            name=cert.name,
            owner=owner,
            caps=caps,
            boot=hello.boot,
            minor=min(hello.minor, self._local.minor),
            software=hello.software,
            prekey=hello.prekey,
            addresses=hello.addresses,
            wall_skew_ms=hello.wall - wall,
            cert_expires=Wall(cert.exp),
            certs=hello.certs,
            mesh=b"" if foreign is None else cert.mesh,
            realm="" if foreign is None else foreign.realm,
            peering=b"" if foreign is None else foreign.peering,
        )


class Initiator(_Side):
    """The side that dialled: ``start``, then ``receive`` message 2. Complete once message 3 is out."""

    role: Literal["initiator", "responder"] = "initiator"

    def __init__(self, local: Local, mesh: Mesh, entropy: Entropy) -> None:
        """Prepare one handshake with the newest mesh key."""
        super().__init__(local, mesh, entropy)
        self._handshake = self._noise(mesh.psks[0])

    def start(self) -> bytes:
        """Return message 1."""
        return self._handshake.write(b"")

    def receive(self, message: bytes, wall: Wall) -> bytes:
        """Take message 2 and return message 3; ``peer`` and ``channel`` are then set.

        The responder may still refuse: its first record is then a BYE whose text is one of the reasons.

        Raises:
            HandshakeRefused: the responder is not let in.
        """
        payload = _read(self._handshake, message)
        peer = self._judge(payload, self._handshake.remote_static, wall)
        answer = self._handshake.write(self._hello(wall))
        self.peer = peer
        self.channel = Channel(*self._handshake.split())
        self.handshake_hash = self._handshake.hash
        return answer

    def closed(self) -> HandshakeRefused:
        """Return what it means that the connection ended before message 2."""
        return refused(REFUSED_EARLY)


class Responder(_Side):
    """The side that was dialled: ``receive`` message 1 (returns message 2), then message 3 (returns nothing)."""

    role: Literal["initiator", "responder"] = "responder"

    def __init__(self, local: Local, mesh: Mesh, entropy: Entropy, others: tuple[Mesh, ...] = ()) -> None:
        """Prepare one handshake that any of the newest PSKS_MAX mesh keys opens, or the key of a peering (``others``)."""
        super().__init__(local, mesh, entropy)
        self._others = others
        self._handshake: noise.HandshakeState | None = None
        self.psk_index = -1
        """Which mesh key the initiator used; above 0 it has missed a rotation."""

    def receive(self, message: bytes, wall: Wall) -> bytes:
        """Take message 1 or 3; return message 2 or nothing. After message 3 ``peer`` and ``channel`` are set.

        Raises:
            HandshakeRefused: the initiator is not let in.
        """
        if self._handshake is None:
            self._handshake = self._open_gate(message)
            try:
                return self._handshake.write(self._hello(wall))
            except Reject:  # a holder of the mesh key sent a low-order point
                raise refused(NOT_AUTHENTIC) from None
        payload = _read(self._handshake, message)
        channel = Channel(*self._handshake.split())
        try:
            self.peer = self._judge(payload, self._handshake.remote_static, wall)
        except HandshakeRefused as error:
            # The initiator holds the link for established; tell it, authenticated, why it is not.
            error.farewell = (channel.encrypt(frames.encode_bye(error.reason)),)
            raise
        self.channel = channel
        self.handshake_hash = self._handshake.hash
        return b""

    def closed(self) -> HandshakeRefused:
        """Return what it means that the connection ended before message 3."""
        return refused(LEFT)

    def _open_gate(self, message: bytes) -> noise.HandshakeState:
        """Find the key that opens message 1, by symmetric operations only."""
        meshes = (self._mesh, *self._others) if len(message) <= MESSAGE_BYTES_MAX else ()
        for mesh in meshes:
            self._mesh = mesh
            for index, psk in enumerate(mesh.psks[:PSKS_MAX]):
                handshake = self._noise(psk)
                try:
                    handshake.read(message)
                except Reject:
                    continue
                self.psk_index = index
                return handshake
        raise refused(WRONG_MESH)


def prologue(link_id: bytes) -> bytes:
    """Return what both sides of a link agree on beforehand: the major protocol version, and the mesh or the peering."""
    return b"p2pq/1" + link_id


def _claim(mesh: bytes, role: str, xpub: bytes, prekey: bytes) -> bytes:
    return sign.pae(b"link-static", mesh, role.encode(), xpub, prekey)


def _read(handshake: noise.HandshakeState, message: bytes) -> bytes:
    try:
        if len(message) > MESSAGE_BYTES_MAX:
            raise Reject("too long")  # noqa: TRY301  one way out for every failure
        return handshake.read(message)
    except Reject:
        raise refused(NOT_AUTHENTIC) from None
