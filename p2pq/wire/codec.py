"""Values to MessagePack bytes and back, in two strengths.

Signed objects are *strict*: unknown fields are refused, and bytes are accepted only if encoding the value again gives
the same bytes, which rules out repeated keys, long forms of short numbers, spelled-out defaults and trailing data in
one check. Link messages are *lenient*: unknown fields are ignored, so that versions can mix. Either way there is one
failure, ``Reject``.
"""

from typing import Any, Final, TypeVar

import msgspec

from p2pq import decoders
from p2pq.errors import Reject

T = TypeVar("T")

# "deterministic" sorts maps, so a map in any other order fails the strict comparison.
_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")

# msgspec reports bad UTF-8 as UnicodeDecodeError (a ValueError) and deep nesting as RecursionError.
_FAILURES: Final = (ValueError, TypeError, OverflowError, RecursionError)


def encode(value: object) -> bytes:
    """Return the canonical bytes of a value.

    Raises:
        Reject: the value cannot be encoded (a type, a number or a text that MessagePack has no form for).
    """
    try:
        return _ENCODER.encode(value)
    except _FAILURES:
        raise Reject("not encodable") from None


def decode_strict(raw: bytes, kind: type[T], *, size_max: int) -> T:
    """Return the value of which ``raw`` is the canonical encoding.

    Args:
        raw: bytes whose sender has been authenticated.
        kind: the expected type; its structs must forbid unknown fields.
        size_max: longest ``raw`` that is looked at, in bytes.

    Raises:
        Reject: too long, malformed, of another type, out of range, or not canonical.
    """
    value: T = decode_lenient(raw, kind, size_max=size_max)
    if encode(value) != raw:
        raise Reject("not canonical")
    return value


def decode_lenient(raw: bytes, kind: Any, *, size_max: int) -> Any:  # noqa: ANN401
    """Return the value that ``raw`` encodes, ignoring unknown fields where the type allows them.

    Raises:
        Reject: too long, malformed, of another type, or out of range.
    """
    if type(raw) is not bytes:
        raise Reject("not bytes")
    if len(raw) > size_max:
        raise Reject("too long")
    try:
        return decoders.unpack(raw, kind)
    except _FAILURES:
        raise Reject("malformed") from None
