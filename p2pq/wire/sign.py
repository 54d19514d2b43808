"""Signed objects: ``[type tag, body, signature]``, signed over the exact bytes that are sent.

The signature covers ``PAE(tag, body)``, so that bytes signed as one type never pass as another (the idea is DSSE's
pre-authentication encoding). Whoever forwards an object forwards these bytes; nobody encodes again to verify. Opening
verifies first and parses second.
"""

from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from p2pq.errors import Reject
from p2pq.model.ids import NodeId
from p2pq.wire import codec, prims
from p2pq.wire.objects import MANIFEST_BYTES_MAX, OBJECT_BYTES_MAX, Manifest, Result

S = TypeVar("S", bound=msgspec.Struct)

MAGIC: Final = b"p2pq1"
WRONG_TYPE: Final = "wrong type"
"""The reason where an object is signed as another type than was asked for."""
OVERHEAD_BYTES: Final = 128
"""At most so much longer is a signed object than its body."""

_LONG: Final = (Manifest, Result)
"""The types that list blobs, and so may be as long as MANIFEST_BYTES_MAX."""


class _Envelope(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    tag: Annotated[str, Meta(min_length=1, max_length=32)]
    body: bytes
    sig: Annotated[bytes, Meta(min_length=64, max_length=64)]


def pae(*parts: bytes) -> bytes:
    """Join parts so that no other parts give the same bytes: ``p2pq1``, then each one's length (8, LE) and bytes."""
    return MAGIC + b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def tag_of(kind: type[msgspec.Struct]) -> str:
    """Return the tag under which a type is signed.

    Raises:
        Reject: the type has no tag and so cannot be signed.
    """
    tag = kind.__struct_config__.tag
    if not isinstance(tag, str):
        raise Reject("not a signed type")
    return tag


def size_max(kind: type[msgspec.Struct]) -> int:
    """Return how long the body of a signed object of this type may be, in bytes."""
    return MANIFEST_BYTES_MAX if kind in _LONG else OBJECT_BYTES_MAX


def sign(key: prims.SigningKey, value: msgspec.Struct) -> bytes:
    """Return the signed object: the author's word, ready to be sent.

    Raises:
        Reject: the value would not open at the other end (too long, out of range, no tag).
    """
    kind = type(value)
    tag = tag_of(kind)
    body = codec.encode(value)
    codec.decode_strict(body, kind, size_max=size_max(kind))  # msgspec does not check on construction
    return codec.encode(_Envelope(tag, body, key.sign(pae(tag.encode(), body))))


def open_signed(raw: bytes, kind: type[S], author: NodeId) -> S:
    """Return the object if ``author`` signed exactly these bytes as this type.

    Raises:
        Reject: another type or author, altered, too long, malformed, out of range or not canonical.
    """
    envelope = _envelope(raw, kind)
    prims.verify(author, pae(envelope.tag.encode(), envelope.body), envelope.sig)
    return codec.decode_strict(envelope.body, kind, size_max=size_max(kind))


def open_claimed(raw: bytes, kind: type[S], author_of: Callable[[S], bytes]) -> S:
    """Return an object that names its own author, if that author signed it. Whether the author may is another question.

    Here, and only here, a bounded body is parsed before its signature has been checked, to learn who claims it.

    Raises:
        Reject: as for ``open_signed``.
    """
    envelope = _envelope(raw, kind)
    value = codec.decode_strict(envelope.body, kind, size_max=size_max(kind))
    prims.verify(author_of(value), pae(envelope.tag.encode(), envelope.body), envelope.sig)
    return value


def body_of(raw: bytes) -> bytes:
    """Return the body of a signed object that was opened before, such as one out of this node's own store.

    Raises:
        Reject: it is no signed object.
    """
    return codec.decode_strict(raw, _Envelope, size_max=MANIFEST_BYTES_MAX + OVERHEAD_BYTES).body


def digest(raw: bytes) -> bytes:
    """Return the 32 bytes by which other objects refer to this signed object."""
    return prims.blake2b(raw, person="p2pq-object")


def _envelope(raw: bytes, kind: type[msgspec.Struct]) -> _Envelope:
    envelope = codec.decode_strict(raw, _Envelope, size_max=size_max(kind) + OVERHEAD_BYTES)
    if envelope.tag != tag_of(kind):
        raise Reject(WRONG_TYPE)
    return envelope
