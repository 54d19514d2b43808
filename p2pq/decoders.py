"""Bytes to typed values, for every thread: the one place where msgspec's decoders are made.

The first time msgspec meets a type it looks through its fields, and shows what it has found to other threads before it is
through. Two threads that meet the same struct at once end the process with a segmentation fault (msgspec 0.19 to 0.22), so
only one of them at a time makes a decoder here. To use one that is made is safe in any number of threads, and faster than to
name its type with each value.
"""

import threading
from typing import Any, Final, TypeVar, overload

import msgspec

T = TypeVar("T")

_LOCK: Final = threading.RLock()  # an annotation may import a module that makes a decoder
_PACKED: Final[dict[Any, msgspec.msgpack.Decoder[Any]]] = {}
_JSON: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}


@overload
def of_packed(kind: type[T]) -> msgspec.msgpack.Decoder[T]: ...
@overload
def of_packed(kind: Any) -> msgspec.msgpack.Decoder[Any]: ...  # noqa: ANN401  unions are not types
def of_packed(kind: Any) -> Any:
    """Return the decoder of MessagePack for a type, made once; ``kind`` is written in the program, never told from outside."""
    found = _PACKED.get(kind)
    if found is None:
        with _LOCK:
            found = _PACKED.setdefault(kind, msgspec.msgpack.Decoder(kind))
    return found


@overload
def unpack(raw: bytes, kind: type[T]) -> T: ...
@overload
def unpack(raw: bytes, kind: Any) -> Any: ...  # noqa: ANN401
def unpack(raw: bytes, kind: Any) -> Any:
    """Return the value of a type that is written in MessagePack.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: there is no such value.
    """
    return of_packed(kind).decode(raw)


@overload
def of_json(kind: type[T]) -> msgspec.json.Decoder[T]: ...
@overload
def of_json(kind: Any) -> msgspec.json.Decoder[Any]: ...  # noqa: ANN401
def of_json(kind: Any) -> Any:
    """Return the decoder of JSON for a type, made once, as ``of_packed`` does."""
    found = _JSON.get(kind)
    if found is None:
        with _LOCK:
            found = _JSON.setdefault(kind, msgspec.json.Decoder(kind))
    return found


@overload
def read_json(raw: bytes, kind: type[T]) -> T: ...
@overload
def read_json(raw: bytes, kind: Any) -> Any: ...  # noqa: ANN401
def read_json(raw: bytes, kind: Any) -> Any:
    """Return the value of a type that is written in JSON.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: there is no such value.
    """
    return of_json(kind).decode(raw)


@overload
def convert(value: object, kind: type[T], *, strict: bool = ...) -> T: ...
@overload
def convert(value: object, kind: Any, *, strict: bool = ...) -> Any: ...  # noqa: ANN401
def convert(value: object, kind: Any, *, strict: bool = True) -> Any:
    """Return plain values (of TOML, say) as a value of a type; unless ``strict``, text may stand for numbers.

    Raises:
        msgspec.ValidationError, RecursionError: there is no such value.
    """
    with _LOCK:
        return msgspec.convert(value, kind, strict=strict)
