"""Peerings: two meshes agree on what the members of each may do towards the other, and until when.

An admin of one mesh signs an offer that names the other mesh; an admin of that one signs the digest of this offer. Both
signatures are checked by everybody, each up to its own mesh's root, so neither mesh can widen what the other has signed, and
nothing follows from a peering for a third mesh. An admin of either may end it, for good.

The words travel between the admins as text files, by whatever way: they prove themselves.
"""

from base64 import b64decode, b64encode
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from p2pq.errors import Reject
from p2pq.model.ids import MeshId, Wall
from p2pq.wire import codec, prims, sign, trust
from p2pq.wire.messages import PeeringKnown
from p2pq.wire.objects import CERT_LIFE_MS, Cert, Peering, PeeringAccept, PeeringEnd, PeerSide

T = TypeVar("T", Peering, PeeringAccept)

LIFE_MAX_MS: Final = CERT_LIFE_MS
"""No peering is made for longer."""
FILE_BYTES_MAX: Final = 64 << 10
ID_BYTES: Final = 32

# Reasons; those of a chain are trust's own.
SAME_MESH: Final = "peering-with-itself"
BAD_TERMS: Final = "bad-peering"
NOT_ASKED: Final = "accepted-by-another-mesh"
OTHER_OFFER: Final = "acceptance-of-another-offer"
OTHER_END: Final = "end-of-another-peering"
NOT_OURS: Final = "not-a-peering-of-this-mesh"
NO_FILE: Final = "not-a-peering-file"
OVER: Final = "peering-expired"

_BEGIN: Final = "-----BEGIN P2PQ PEERING-----"
_END: Final = "-----END P2PQ PEERING-----"
_LINE: Final = 76


class File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What two admins hand each other: an offer, and its acceptance once there is one."""

    offer: Annotated[bytes, Meta(max_length=8192)]
    accept: Annotated[bytes, Meta(max_length=4096)] = b""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A peering that both meshes have signed, as one of them sees it."""

    id: bytes
    mesh: MeshId
    """The other mesh."""
    root: bytes
    """Its root's public key."""
    name: str
    """What its admin calls it."""
    ours: PeerSide
    """What members of our mesh may do there."""
    theirs: PeerSide
    """What its members may do here."""
    key: bytes
    at: Wall
    exp: Wall
    our_issuer: Cert
    their_issuer: Cert
    ended: Wall | None = None

    def __repr__(self) -> str:
        """Name the mesh, not the key."""
        return f"Opened({self.name!r})"

    def holds(self, wall: Wall) -> bool:
        """Tell whether it is in force at that time, whoever is banned."""
        return self.ended is None and self.at - trust.SKEW_MS <= wall <= self.exp


def offer(  # noqa: PLR0913  each is a different fact
    admin: prims.SigningKey,
    certs: tuple[bytes, ...],
    root: bytes,
    *,
    name: str,
    to: bytes,
    ours: PeerSide,
    theirs: PeerSide,
    key: bytes,
    at: Wall,
    exp: Wall,
) -> bytes:
    """Return a signed offer to another mesh.

    Raises:
        Reject: the terms are out of range, or the admin's chain does not hold now.
    """
    terms = Peering(
        mesh=prims.mesh_id(root),
        root=root,
        name=name,
        to=to,
        ours=_sorted(ours),
        theirs=_sorted(theirs),
        key=key,
        iss=admin.public,
        at=at,
        exp=exp,
        certs=certs,
    )
    raw = sign.sign(admin, terms)
    open_offer(raw, at)
    return raw


def accept(
    admin: prims.SigningKey, certs: tuple[bytes, ...], root: bytes, offered: bytes, *, name: str, at: Wall
) -> bytes:
    """Return the signed acceptance of an offer to this mesh.

    Raises:
        Reject: the offer is to another mesh, is over or does not hold, or the admin's own chain does not.
    """
    terms = open_offer(offered, at)
    if at > terms.exp:
        raise Reject(OVER)
    word = PeeringAccept(
        mesh=prims.mesh_id(root),
        root=root,
        name=name,
        offer=sign.digest(offered),
        iss=admin.public,
        at=at,
        certs=certs,
    )
    raw = sign.sign(admin, word)
    open_accept(raw, offered, terms, at)
    return raw


def end(admin: prims.SigningKey, certs: tuple[bytes, ...], root: bytes, peering: bytes, *, at: Wall) -> bytes:
    """Return the signed word that a peering is over.

    Raises:
        Reject: a field is out of range.
    """
    word = PeeringEnd(mesh=prims.mesh_id(root), peering=peering, iss=admin.public, at=at, certs=certs)
    return sign.sign(admin, word)


def open_offer(raw: bytes, wall: Wall) -> Peering:
    """Return an offer if an admin of the mesh that it names made it; whether that mesh is ours is another question.

    Raises:
        Reject: its terms are not sound, no admin of its mesh signed it, or it is dated in the future.
    """
    terms = _root_of(raw, Peering)
    if terms.to == terms.mesh:
        raise Reject(SAME_MESH)
    sides = terms.ours, terms.theirs
    sound = all(_sorted(side) == side and all(map(str.isprintable, side.owners)) for side in sides)
    if not sound or not terms.name.isprintable() or not 0 < terms.exp - terms.at <= LIFE_MAX_MS:
        raise Reject(BAD_TERMS)
    return trust.open_word(raw, Peering, terms.root, wall, trust.nobody)


def open_accept(raw: bytes, offered: bytes, terms: Peering, wall: Wall) -> PeeringAccept:
    """Return an acceptance if it is of this very offer, by an admin of the mesh that the offer names.

    Raises:
        Reject: it is not, or it is dated in the future.
    """
    word = _root_of(raw, PeeringAccept)
    if word.mesh != terms.to:
        raise Reject(NOT_ASKED)
    if word.offer != sign.digest(offered):
        raise Reject(OTHER_OFFER)
    if not word.name.isprintable():
        raise Reject(BAD_TERMS)
    return trust.open_word(raw, PeeringAccept, word.root, wall, trust.nobody)


def open_known(known: PeeringKnown, own_root: bytes, wall: Wall) -> Opened:
    """Return a peering of our own mesh, if both admins signed it and its end, where there is one, is by one of either.

    Raises:
        Reject: something of it does not hold, or our mesh has no part in it.
    """
    terms = open_offer(known.offer, wall)
    word = open_accept(known.accept, known.offer, terms, wall)
    if own_root not in {terms.root, word.root}:
        raise Reject(NOT_OURS)
    offered = own_root == terms.root
    issuers = _leaf(terms.certs), _leaf(word.certs)
    found = Opened(
        id=sign.digest(known.offer),
        mesh=MeshId(word.mesh if offered else terms.mesh),
        root=word.root if offered else terms.root,
        name=word.name if offered else terms.name,
        ours=terms.ours if offered else terms.theirs,
        theirs=terms.theirs if offered else terms.ours,
        key=terms.key,
        at=Wall(terms.at),
        exp=Wall(terms.exp),
        our_issuer=issuers[0 if offered else 1],
        their_issuer=issuers[1 if offered else 0],
    )
    if not known.end:
        return found
    ended = _open_end(known.end, found.id, (terms.root, word.root), wall)
    return msgspec.structs.replace(found, ended=Wall(ended.at))


def end_at(raw: bytes) -> Wall:
    """Return when a word that was opened before ended its peering.

    Raises:
        Reject: it is none.
    """
    return Wall(sign.open_claimed(raw, PeeringEnd, _issuer).at)


def narrowed(cert: Cert, side: PeerSide) -> tuple[str, ...]:
    """Return what the holder of another mesh's certificate may do here: what both the certificate and the peering let it."""
    if side.owners and cert.owner not in side.owners:
        return ()
    return tuple(cap for cap in side.caps if cap in cert.caps)


def name_abroad(name: str, realm: str) -> str:
    """Return an owner, or a node, of another mesh as it is named here: accounts, bans and people tell it from ours."""
    return f"{name}@{realm}"


def to_file(offered: bytes, accepted: bytes = b"") -> str:
    """Return an offer, or a peering, as text that survives mail."""
    text = b64encode(codec.encode(File(offered, accepted))).decode()
    lines = (text[at : at + _LINE] for at in range(0, len(text), _LINE))
    return "\n".join((_BEGIN, *lines, _END, ""))


def from_file(text: str) -> File:
    """Return what ``to_file`` wrote, from between its two lines; nothing in it has been checked.

    Raises:
        Reject: there is no such thing in the text.
    """
    _, begin, rest = text[:FILE_BYTES_MAX].partition(_BEGIN)
    inner, end_line, _ = rest.partition(_END)
    if not (begin and end_line):
        raise Reject(NO_FILE)
    try:
        raw = b64decode("".join(inner.split()), validate=True)
    except ValueError:
        raise Reject(NO_FILE) from None
    return codec.decode_strict(raw, File, size_max=FILE_BYTES_MAX)


def _open_end(raw: bytes, peering: bytes, roots: tuple[bytes, bytes], wall: Wall) -> PeeringEnd:
    word = sign.open_claimed(raw, PeeringEnd, _issuer)
    if word.peering != peering:
        raise Reject(OTHER_END)
    for root in roots:
        if word.mesh == prims.mesh_id(root):
            return trust.open_word(raw, PeeringEnd, root, wall, trust.nobody)
    raise Reject(NOT_OURS)


def _root_of(raw: bytes, kind: type[T]) -> T:
    """Return a word that names the root of its own mesh; who signed it is not known yet."""
    word = sign.open_claimed(raw, kind, _issuer)
    if prims.mesh_id(word.root) != word.mesh:
        raise Reject(trust.WRONG_ROOT)
    return word


def _issuer(word: Peering | PeeringAccept | PeeringEnd) -> bytes:
    return word.iss


def _leaf(certs: tuple[bytes, ...]) -> Cert:
    """Return the issuer's certificate, out of a chain that has been verified."""
    return sign.open_claimed(certs[0], Cert, lambda cert: cert.iss)


def _sorted(side: PeerSide) -> PeerSide:
    return PeerSide(caps=tuple(sorted(set(side.caps))), owners=tuple(sorted(set(side.owners))))
