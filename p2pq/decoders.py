"""Bytes to typed values, for every thread: the one place where msgspec's decoders are made.

The first time msgspec meets a type it looks through its fields, and shows what it has found to other threads before it is
through. Two threads that meet the same struct at once end the process with a segmentation fault (msgspec 0.19 to 0.22), so
only one of them at a time makes a decoder here. To use one that is made is safe in any number of threads, and faster than to
name its type with each value.

Types are written in the program, never told from outside: what is made for them is kept.
"""

import threading
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")

_LOCK: Final = threading.RLock()  # an annotation may import a module that makes a decoder
_PACKED: Final[dict[Any, msgspec.msgpack.Decoder[Any]]] = {}
_JSON: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}


def of_packed(kind: Any) -> msgspec.msgpack.Decoder[Any]:  # noqa: ANN401  unions are not types
    """Return the decoder of MessagePack for a type, made once."""
    if (found := _PACKED.get(kind)) is None:
        with _LOCK:
            found = _PACKED.setdefault(kind, msgspec.msgpack.Decoder(kind))
    return found


def of_json(kind: Any) -> msgspec.json.Decoder[Any]:  # noqa: ANN401
    """Return the decoder of JSON for a type, made once."""
    if (found := _JSON.get(kind)) is None:
        with _LOCK:
            found = _JSON.setdefault(kind, msgspec.json.Decoder(kind))
    return found


def unpack(raw: bytes, kind: type[T]) -> T:
    """Return the value of a type that is written in MessagePack.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: there is no such value.
    """
    value: T = of_packed(kind).decode(raw)
    return value


def read_json(raw: bytes, kind: type[T]) -> T:
    """Return the value of a type that is written in JSON.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: there is no such value.
    """
    value: T = of_json(kind).decode(raw)
    return value


def convert(value: object, kind: type[T], *, strict: bool = True) -> T:
    """Return plain values (of TOML, say) as a value of a type; unless ``strict``, text may stand for numbers.

    Raises:
        msgspec.ValidationError, RecursionError: there is no such value.
    """
    with _LOCK:  # msgspec has no converter that could be kept
        return msgspec.convert(value, kind, strict=strict)
