"""MessagePack of plain values, without msgspec: its import takes longer than ``p2pq run`` needs for everything else.

Only for what a node of this user says to its own client and the other way round. Types and limits of messages are checked where
they are decoded with msgspec.
"""

from struct import Struct, error

from p2pq.errors import Reject

TYPE_CHECKING = False  # importing typing for real would cost as much as the rest
if TYPE_CHECKING:
    from typing import Any, Final

DEEP_MAX: "Final" = 16
"""Values within values; messages are flatter than that."""

_LENGTH: "Final" = Struct(">BI")
_SHORT: "Final" = {0x8: (dict, 0x0F), 0x9: (list, 0x0F), 0xA: (str, 0x1F), 0xB: (str, 0x1F)}
_PLAIN: "Final" = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS: "Final" = {0xCA + number: Struct(f">{kind}") for number, kind in enumerate("fdBHIQbhiq")}
_SIZED: "Final" = {
    first: (kind, Struct(f">{size}"))
    for kind, codes in (
        (bytes, "\xc4B\xc5H\xc6I"),
        (str, "\xd9B\xdaH\xdbI"),
        (list, "\xdcH\xddI"),
        (dict, "\xdeH\xdfI"),
    )
    for first, size in zip(map(ord, codes[::2]), codes[1::2], strict=True)
}


def pack(value: object) -> bytes:  # noqa: PLR0911  one for each kind
    """Return the bytes of a value made of dicts, sequences, texts, bytes, numbers from 0 to 2**32 - 1, truth and None.

    Raises:
        UnicodeEncodeError: a text is none.
        TypeError: something else is in it.
    """
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int() if 0 <= value < 1 << 32:
            return bytes((value,)) if value < 0x80 else _LENGTH.pack(0xCE, value)  # noqa: PLR2004
        case str():
            text = value.encode()
            return _LENGTH.pack(0xDB, len(text)) + text
        case bytes():
            return _LENGTH.pack(0xC6, len(value)) + value
        case list() | tuple():
            return _LENGTH.pack(0xDD, len(value)) + b"".join(map(pack, value))
        case dict():
            pairs = b"".join(pack(key) + pack(item) for key, item in value.items())
            return _LENGTH.pack(0xDF, len(value)) + pairs
        case _:
            raise TypeError(f"{type(value).__name__} cannot be said")


def unpack(body: bytes) -> "Any":  # noqa: ANN401  whatever was said
    """Return the value of some bytes.

    Raises:
        Reject: they are no value, or more than one.
    """
    try:
        value, end = _one(body, 0, 0)
    except (LookupError, UnicodeDecodeError, TypeError, error) as wrong:
        raise Reject("not a message") from wrong
    if end != len(body):
        raise Reject("not a message")
    return value


def _one(body: bytes, at: int, deep: int) -> "tuple[Any, int]":
    """Return the value that begins there, and where it ends."""
    first, at = body[at], at + 1
    if first < 0x80:  # noqa: PLR2004  these numbers are those of the specification
        return first, at
    if first >= 0xE0:  # noqa: PLR2004
        return first - 0x100, at
    if first < 0xC0:  # noqa: PLR2004
        kind, mask = _SHORT[first >> 4]
        return _several(kind, first & mask, body, at, deep)
    if first in _PLAIN:
        return _PLAIN[first], at
    if first in _NUMBERS:
        number = _NUMBERS[first]
        return number.unpack_from(body, at)[0], at + number.size
    kind, length = _SIZED[first]
    return _several(kind, length.unpack_from(body, at)[0], body, at + length.size, deep)


def _several(kind: type, count: int, body: bytes, at: int, deep: int) -> "tuple[Any, int]":
    if kind in (str, bytes):
        raw = body[at : at + count]
        if len(raw) < count:
            raise Reject("not a message")
        return (raw.decode() if kind is str else raw), at + count
    if deep >= DEEP_MAX:
        raise Reject("not a message")
    items = []
    for _ in range(2 * count if kind is dict else count):
        item, at = _one(body, at, deep + 1)
        items.append(item)
    return (dict(zip(items[::2], items[1::2], strict=True)) if kind is dict else items), at
