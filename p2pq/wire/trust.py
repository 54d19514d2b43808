"""Who is a member, and what it may do: certificates, chains and bans.

A chain is exactly root > admin > member, and nothing is transitive beyond that: only the root makes admins, an admin never
gives a capability that it does not have, and a member signs for nobody. A chain is written leaf first, without the root,
which everyone knows: ``(member, admin)``, or ``(admin,)`` for an admin itself.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import msgspec

from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import prims, sign
from p2pq.wire.objects import CERT_LIFE_MS, Ban, Capability, Cert, MeshKey, OwnerBan, Peering, PeeringAccept, PeeringEnd

CERT_BYTES_MAX: Final = 1024
CHAIN_MAX: Final = 2
SKEW_MS: Final = 300_000
"""How far two clocks may be apart."""

# Reasons: stable words, distinct, for ``Reject.reason``.
MISSING: Final = "missing-certificate"
CHAIN_LENGTH: Final = "chain-length"
BAD_CERT: Final = "bad-certificate"
WRONG_ROOT: Final = "wrong-mesh-root"
NOT_ADMIN: Final = "issuer-not-admin"
TOO_MANY_CAPS: Final = "too-many-capabilities"
NOT_YET_VALID: Final = "certificate-not-yet-valid"
EXPIRED: Final = "certificate-expired"
BANNED: Final = "banned"
ISSUER_BANNED: Final = "issuer-banned"
BAD_BAN: Final = "bad-ban"

W = TypeVar("W", Ban, OwnerBan, MeshKey, Peering, PeeringAccept, PeeringEnd)

IsBanned = Callable[[Cert], bool]
"""Tells whether the holder of a certificate is out, as far as this node knows."""


def nobody(_cert: Cert) -> bool:
    """Tell that nobody is out: for where that does not matter."""
    return False


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate says of its holder."""

    node: NodeId
    name: str
    owner: str
    caps: tuple[Capability, ...]


def make_root(entropy: Callable[[int], bytes]) -> prims.SigningKey:
    """Return a new root key: a new mesh, whose id is ``prims.mesh_id(root.public)``."""
    return prims.SigningKey(entropy(prims.KEY_BYTES))


def issue_admin(
    root: prims.SigningKey, subject: Subject, *, serial: bytes, wall: Wall, life_ms: int = CERT_LIFE_MS
) -> bytes:
    """Return a signed admin certificate, valid from ``wall`` on.

    Raises:
        Reject: no ``admin`` among the capabilities, or a field or the life is out of range.
    """
    if "admin" not in subject.caps:
        raise Reject(NOT_ADMIN)
    cert = Cert(
        mesh=prims.mesh_id(root.public),
        sub=subject.node,
        iss=root.public,
        ser=serial,
        name=subject.name,
        owner=subject.owner,
        caps=tuple(sorted(set(subject.caps))),
        nbf=wall,
        exp=wall + life_ms,
    )
    return _sign_cert(root, cert)


def issue_member(  # noqa: PLR0913  each is a different fact
    admin: prims.SigningKey,
    admin_cert: bytes,
    root: bytes,
    subject: Subject,
    *,
    serial: bytes,
    wall: Wall,
    life_ms: int = CERT_LIFE_MS,
) -> bytes:
    """Return a signed member certificate, valid from ``wall`` on and no longer than the admin's own.

    Raises:
        Reject: the admin's certificate is not valid now or not this key's, the subject would get ``admin`` or a
            capability that the admin lacks, or a field or the life is out of range.
    """
    issuer = verify_chain((admin_cert,), root, wall, is_banned=nobody)
    if issuer.sub != admin.public:
        raise Reject(NOT_ADMIN)
    cert = Cert(
        mesh=issuer.mesh,
        sub=subject.node,
        iss=admin.public,
        ser=serial,
        name=subject.name,
        owner=subject.owner,
        caps=tuple(sorted(set(subject.caps))),
        nbf=wall,
        exp=min(wall + life_ms, issuer.exp),
    )
    _check_member_caps(cert, issuer)
    return _sign_cert(admin, cert)


def verify_chain(certs: Sequence[bytes], root: bytes, wall: Wall, is_banned: IsBanned) -> Cert:
    """Return the leaf's certificate if the chain leads to this root, now.

    Args:
        certs: signed certificates, leaf first: ``(member, admin)`` or ``(admin,)``.
        root: the mesh root's public key.
        wall: the time by this node's clock; SKEW_MS is allowed either way.
        is_banned: asked about the leaf and about its issuer, once each is known to be signed.

    Raises:
        Reject: with one of this module's reasons.
    """
    if not certs:
        raise Reject(MISSING)
    if len(certs) > CHAIN_MAX:
        raise Reject(CHAIN_LENGTH)
    admin = _open_cert(certs[-1], NodeId(root), prims.mesh_id(root))
    if "admin" not in admin.caps:
        raise Reject(NOT_ADMIN)
    leaf = admin
    if len(certs) == CHAIN_MAX:
        leaf = _open_cert(certs[0], NodeId(admin.sub), admin.mesh)
        _check_member_caps(leaf, admin)
        _check_time(leaf, wall)
        if is_banned(leaf):
            raise Reject(BANNED)
    _check_time(admin, wall)
    if is_banned(admin):
        raise Reject(BANNED if leaf is admin else ISSUER_BANNED)
    return leaf


def issue_ban(
    issuer: prims.SigningKey,
    root: bytes,
    subject: NodeId | str,
    *,
    at: Wall,
    banned: bool = True,
    certs: tuple[bytes, ...] = (),
) -> bytes:
    """Return a signed ban of a node or, by name, of an owner (or its end). The root needs no certificate; an admin adds its own.

    Raises:
        Reject: a field is out of range.
    """
    mesh, iss = prims.mesh_id(root), issuer.public
    if isinstance(subject, str):
        return sign.sign(issuer, OwnerBan(mesh=mesh, iss=iss, owner=subject, at=at, banned=banned, certs=certs))
    return sign.sign(issuer, Ban(mesh=mesh, iss=iss, sub=subject, at=at, banned=banned, certs=certs))


def open_ban(raw: bytes, root: bytes, wall: Wall) -> Ban | OwnerBan:
    """Return a ban, of a node or of an owner, if its issuer was entitled to it when it was made.

    It does not lapse with the issuer's certificate. Whether the issuer has itself been banned since is for the caller to
    weigh.

    Raises:
        Reject: not the mesh's, not by root or an admin, dated in the future, or malformed.
    """
    try:
        return open_word(raw, Ban, root, wall, nobody)
    except Reject as error:
        if error.reason != sign.WRONG_TYPE:
            raise
    return open_word(raw, OwnerBan, root, wall, nobody)


def issue_mesh_key(
    issuer: prims.SigningKey, root: bytes, key: bytes, *, at: Wall, certs: tuple[bytes, ...] = ()
) -> bytes:
    """Return a signed mesh key. The root needs no certificate; an admin adds its own.

    Raises:
        Reject: a field is out of range.
    """
    return sign.sign(issuer, MeshKey(mesh=prims.mesh_id(root), iss=issuer.public, at=at, key=key, certs=certs))


def open_mesh_key(raw: bytes, root: bytes, wall: Wall, is_banned: IsBanned = nobody) -> MeshKey:
    """Return a mesh key if its issuer was entitled to make one when it did; it does not lapse with the certificate.

    Raises:
        Reject: not the mesh's, not by root or an admin, by one that is banned now, dated in the future, or malformed.
    """
    return open_word(raw, MeshKey, root, wall, is_banned)


def open_word(raw: bytes, kind: type[W], root: bytes, wall: Wall, is_banned: IsBanned) -> W:
    """Return what the root, or somebody who was an admin at that instant, says of the mesh.

    Raises:
        Reject: not the mesh's, not by root or an admin, dated in the future, or malformed.
    """
    word = sign.open_claimed(raw, kind, lambda claimed: claimed.iss)
    if word.mesh != prims.mesh_id(root):
        raise Reject(WRONG_ROOT)
    if word.at > wall + SKEW_MS:
        raise Reject(NOT_YET_VALID)
    if word.iss == root:
        if word.certs:
            raise Reject(BAD_BAN)
        return word
    issuer = verify_chain(word.certs, root, Wall(word.at), is_banned)
    if issuer.sub != word.iss or "admin" not in issuer.caps:
        raise Reject(NOT_ADMIN)
    return word


def _sign_cert(key: prims.SigningKey, cert: Cert) -> bytes:
    _check_shape(cert)
    return sign.sign(key, cert)


def _open_cert(raw: bytes, issuer: NodeId, mesh: bytes) -> Cert:
    if len(raw) > CERT_BYTES_MAX:
        raise Reject(BAD_CERT)
    try:
        cert = sign.open_claimed(raw, Cert, lambda claimed: claimed.iss)
    except Reject:
        raise Reject(BAD_CERT) from None
    # A certificate of another mesh is sound in itself; that deserves a reason of its own.
    if cert.mesh != mesh:
        raise Reject(WRONG_ROOT)
    if cert.iss != issuer:
        raise Reject(NOT_ADMIN)
    _check_shape(cert)
    return cert


def _check_shape(cert: Cert) -> None:
    texts = cert.name.isprintable() and cert.owner.isprintable()
    life = 0 < cert.exp - cert.nbf <= CERT_LIFE_MS
    if not texts or not life or list(cert.caps) != sorted(set(cert.caps)):
        raise Reject(BAD_CERT)


def _check_member_caps(member: Cert, admin: Cert) -> None:
    if not set(member.caps) <= set(admin.caps) - {"admin"}:
        raise Reject(TOO_MANY_CAPS)


def _check_time(cert: Cert, wall: Wall) -> None:
    if wall < cert.nbf - SKEW_MS:
        raise Reject(NOT_YET_VALID)
    if wall > cert.exp + SKEW_MS:
        raise Reject(EXPIRED)
