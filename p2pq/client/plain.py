"""What calls on other machines returned, read as the data that it is (``runner/plain`` says how it is written down).

Whoever wrote it is not believed: there is no form of it that names code to run, sizes are checked before anything is made of
them, and what is malformed in any way gives ``Reject``.
"""

import datetime as dt
import decimal
import re
import struct
import uuid
import zoneinfo
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from math import prod
from typing import Any, Final, NoReturn, TypeVar

from p2pq.errors import Reject
from p2pq.runner import plain
from p2pq.runner.plain import type_name

T = TypeVar("T")

DTYPES: Final = re.compile(
    r"\|b1|[<>|][iu][1248]|[<>]f[248]|[<>]c(8|16)|\|S[1-9]\d{0,8}|[<>]U[1-9]\d{0,8}"
    r"|[<>][mM]8(\[[1-9]?\d{0,5}(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
)
"""What arrays may hold: numbers, truth, texts and times; never objects."""
DIMENSIONS_MAX: Final = 32
LENGTH_MAX: Final = 1 << 48
SAME_HASH_MAX: Final = 100
"""So many keys may share a hash: a dictionary of more would take for ever to make."""
CODE_POINT_MAX: Final = 0x10FFFF
NAME_CHARS: Final = 100


class Registered:
    """Types of the program's own that travel as data."""

    def __init__(self) -> None:
        """Know none."""
        self.plain: dict[type, tuple[str, Callable[[Any], object]]] = {}
        """By type the name that it has on the way, and what makes it plain."""
        self.made: dict[str, Callable[[Any], object]] = {}
        """By that name what makes one again."""

    def add(self, kind: type[T], to_plain: Callable[[T], object], from_plain: Callable[[Any], T]) -> None:
        """Let a type travel; what was said of it before is replaced."""
        name = type_name(kind)
        self.plain[kind] = (name, to_plain)
        self.made[name] = from_plain


REGISTERED: Final = Registered()


def register(
    kind: type[T], to_plain: Callable[[T], object] | None = None, from_plain: Callable[[Any], T] | None = None
) -> None:
    """Let a type travel as data, so that calls on other machines can return it.

    Args:
        kind: the type itself, not those derived from it.
        to_plain: makes plain data of an object, on the machine that made the call: numbers, texts, lists, arrays, and what
            else is registered.
        from_plain: makes an object of that, here. Whoever ran the call chose the data: check what has to hold.

    Dataclasses, named tuples and enumerations need neither function.

    Raises:
        TypeError: it is no type, or how it travels has to be said.
    """
    if not isinstance(kind, type):
        raise TypeError(f"register() takes a type, and {kind!r} is none")
    if (to_plain is None) != (from_plain is None):
        raise TypeError("register() takes both functions or neither")
    if to_plain is None or from_plain is None:
        to_plain, from_plain = _usual(kind)
    REGISTERED.add(kind, to_plain, from_plain)


def _usual(kind: type[Any]) -> tuple[Callable[[Any], object], Callable[[Any], Any]]:
    """Return how an object of a type that says itself what it consists of becomes plain, and again what it was.

    Raises:
        TypeError: the type does not say.
    """
    if issubclass(kind, Enum):
        return (lambda member: member.name), (lambda name: kind[name])
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return tuple, (lambda values: kind(*values))
    if is_dataclass(kind):
        names = [field.name for field in fields(kind) if field.init]
        return (lambda thing: [getattr(thing, name) for name in names]), (
            lambda values: kind(**dict(zip(names, values, strict=True)))
        )
    raise TypeError(
        f"register({kind.__qualname__}, to_plain, from_plain): say what makes plain data of one, and what makes one of that; "
        "only dataclasses, named tuples and enumerations do without"
    )


def decode(data: bytes | memoryview, made: Mapping[str, Callable[[Any], object]] | None = None) -> Any:  # noqa: ANN401
    """Return the value that somebody wrote down.

    Args:
        data: from anywhere.
        made: by name, what makes an object of a registered type.

    Raises:
        Reject: it is malformed, too large, or of a type that is not known here.
    """
    decoder = Decoder(memoryview(data), REGISTERED.made if made is None else made)
    value = decoder.value(0)
    if decoder.left():
        raise Reject("there is more than a result")
    return value


def refused(reason: str) -> NoReturn:
    """Take this for no result.

    Raises:
        Reject: always.
    """
    raise Reject(reason)


class Decoder:
    """Reads one value."""

    def __init__(self, data: memoryview, made: Mapping[str, Callable[[Any], object]]) -> None:
        """Begin."""
        self._data = data
        self._at = 0
        self._made = made
        self._values = 0

    def left(self) -> int:
        """Return how many bytes are not read yet."""
        return len(self._data) - self._at

    def value(self, depth: int) -> Any:  # noqa: ANN401  any of them
        """Return the next value, which lies so deep in the one that is read."""
        self._values += 1
        if self._values > plain.VALUES_MAX or depth > plain.DEPTH_MAX:
            refused("a result has too many values, or they lie too deep in each other")
        head = self._take(1)[0]
        if head <= plain.FIXINT_MAX:
            return head
        if head >= 0x100 + plain.NEGATIVE_MIN:
            return head - 0x100
        if plain.FIXARRAY <= head <= plain.FIXARRAY + plain.FIXARRAY_MAX:
            return self._compound(head - plain.FIXARRAY, depth)
        if plain.FIXSTR <= head <= plain.FIXSTR + plain.FIXSTR_MAX:
            return self._text(head - plain.FIXSTR)
        read = _FORMS.get(head)
        return refused("a result is malformed") if read is None else read(self, depth)

    def _take(self, size: int) -> memoryview:
        if size > self.left():
            refused("a result ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def _length(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def _text(self, size: int) -> str:
        try:
            return str(self._take(size), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return refused("a text is no UTF-8")

    def constant(self, _depth: int) -> bool | None:
        """Return what is said by the form alone."""
        head = self._data[self._at - 1]
        return None if head == plain.NIL else head == plain.TRUE

    def number(self, _depth: int) -> int | float:
        """Return a number of eight bytes."""
        form = ">q" if self._data[self._at - 1] == plain.INT64 else ">d"
        found: int | float = struct.unpack(form, self._take(8))[0]
        return found

    def binary(self, _depth: int) -> bytes:
        """Return bytes."""
        return bytes(self._take(self._length()))

    def text(self, _depth: int) -> str:
        """Return a longer text."""
        return self._text(self._length())

    def compound(self, depth: int) -> Any:  # noqa: ANN401  any of them
        """Return something that consists of many values."""
        return self._compound(self._length(), depth)

    def _compound(self, count: int, depth: int) -> Any:  # noqa: ANN401  any of them
        if not 1 <= count <= self.left():  # each of its values takes a byte at least
            refused("a result ends too early")
        make = _MAKE.get(self._take(1)[0])
        if make is None:
            refused("a result has something of a kind that is not known here")
        try:
            values = [self.value(depth + 1) for _ in range(count - 1)]
            return make(self, values)
        except Reject:
            raise
        except Exception as error:  # what libraries raise that are given nonsense is their own affair
            raise Reject(f"a result has a value that there cannot be ({type(error).__name__})") from error

    # -- each by its tag -----------------------------------------------------------------------------------------------

    def floats(self, values: list[Any]) -> list[float]:
        """Return a list of nothing but floats."""
        return list(struct.unpack(f"<{len(_bytes(*values)) // 8}d", values[0]))

    def ints(self, values: list[Any]) -> list[int]:
        """Return a list of nothing but integers."""
        return list(struct.unpack(f"<{len(_bytes(*values)) // 8}q", values[0]))

    def dictionary(self, values: list[Any]) -> dict[Any, Any]:
        """Return a dictionary of keys and values in turn."""
        keys = _hashed(values[::2])
        return dict(zip(keys, values[1::2], strict=True))

    def large_int(self, values: list[Any]) -> int:
        """Return an integer of more than 64 bits."""
        if len(_bytes(*values)) > plain.LARGE_INT_BYTES:
            refused("an integer is too large")
        return int.from_bytes(values[0], "little", signed=True)

    def decimal(self, values: list[Any]) -> decimal.Decimal:
        """Return a decimal number."""
        if len(_text(*values)) > plain.DECIMAL_CHARS:
            refused("a decimal is too long")
        return decimal.Decimal(values[0])

    def zone(self, values: list[Any]) -> zoneinfo.ZoneInfo:
        """Return a time zone, as this machine knows it."""
        if len(_text(*values)) > NAME_CHARS:
            refused("a time zone has a name that is too long")
        try:
            return zoneinfo.ZoneInfo(values[0])
        except (zoneinfo.ZoneInfoNotFoundError, OSError):
            return refused("a time zone is not known here")

    def array(self, values: list[Any]) -> Any:  # noqa: ANN401  numpy is not needed to have this module
        """Return an array of numpy, which can be written to."""
        import numpy as np  # noqa: PLC0415

        dtype, order, data, *shape = values
        if DTYPES.fullmatch(_text(dtype)) is None:
            refused("an array has a dtype that does not travel")
        if len(shape) > DIMENSIONS_MAX or not all(type(each) is int and 0 <= each <= LENGTH_MAX for each in shape):
            refused("an array has a shape that there cannot be")
        kind = np.dtype(dtype)
        if prod(shape) * kind.itemsize != len(_bytes(data)):
            refused("an array has not as many numbers as it should have")
        if order not in ("C", "F"):
            refused("a result is malformed")
        if kind.kind == "b" and data.strip(b"\0\1"):
            refused("an array of truth values has others")
        found = np.frombuffer(bytearray(data), kind)
        if kind.kind == "U" and found.size and found.view(f"{dtype[0]}u4").max() > CODE_POINT_MAX:
            refused("an array of texts has letters that there are not")
        return found.reshape(shape, order=order)

    def scalar(self, values: list[Any]) -> Any:  # noqa: ANN401  see above
        """Return a single number of numpy."""
        import numpy as np  # noqa: PLC0415

        (array,) = values
        if type(array) is not np.ndarray or array.shape:
            refused("a result is malformed")
        return array[()]

    def registered(self, values: list[Any]) -> object:
        """Return an object of a registered type.

        Raises:
            Reject: there is none of this name, or what makes it does not take this.
        """
        name, value = values
        make = self._made.get(_text(name))
        if make is None:
            refused("a result has a type that is not registered here")
        try:
            return make(value)
        except Exception as error:
            raise Reject(f"what is registered for a type did not take what came ({type(error).__name__})") from error


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else refused("a result is malformed")


def _text(value: object) -> str:
    return value if isinstance(value, str) else refused("a result is malformed")


def _hashed(values: list[Any]) -> list[Any]:
    """Return values that can be told apart quickly.

    Raises:
        Reject: too many of them have the same hash.
        TypeError: one of them has none.
    """
    if len(values) > SAME_HASH_MAX and max(Counter(map(hash, values)).values()) > SAME_HASH_MAX:
        refused("too many keys have the same hash")
    return values


def _by(make: Callable[..., Any]) -> Callable[[Decoder, list[Any]], Any]:
    return lambda _, values: make(*values)


def _pandas(name: str) -> Callable[[Decoder, list[Any]], Any]:
    def make(_: Decoder, values: list[Any]) -> Any:  # noqa: ANN401  whatever pandas has
        from p2pq.client import plain_pandas  # noqa: PLC0415  where there is no pandas there is no need of it

        return getattr(plain_pandas, name)(*values)

    return make


_MAKE: Final[Mapping[int, Callable[[Decoder, list[Any]], Any]]] = {
    plain.LIST: lambda _, values: values,
    plain.TUPLE: lambda _, values: tuple(values),
    plain.SET: lambda _, values: set(_hashed(values)),
    plain.FROZENSET: lambda _, values: frozenset(_hashed(values)),
    plain.DICT: Decoder.dictionary,
    plain.FLOATS: Decoder.floats,
    plain.INTS: Decoder.ints,
    plain.COMPLEX: _by(complex),
    plain.LARGE_INT: Decoder.large_int,
    plain.BYTEARRAY: lambda _, values: bytearray(_bytes(*values)),
    plain.RANGE: _by(range),
    plain.ELLIPSIS: _by(lambda: ...),
    plain.DATE: _by(dt.date),
    plain.TIME: _by(lambda h, m, s, us, fold, zone: dt.time(h, m, s, us, zone, fold=fold)),
    plain.DATETIME: _by(lambda y, mo, d, h, m, s, us, fold, zone: dt.datetime(y, mo, d, h, m, s, us, zone, fold=fold)),
    plain.TIMEDELTA: _by(dt.timedelta),
    plain.TIMEZONE: _by(dt.timezone),
    plain.ZONE: Decoder.zone,
    plain.DECIMAL: Decoder.decimal,
    plain.UUID: lambda _, values: uuid.UUID(bytes=_bytes(*values)),
    plain.ARRAY: Decoder.array,
    plain.SCALAR: Decoder.scalar,
    plain.REGISTERED: Decoder.registered,
    plain.SERIES: _pandas("series"),
    plain.FRAME: _pandas("frame"),
    plain.INDEX: _pandas("index"),
    plain.RANGE_INDEX: _pandas("range_index"),
    plain.MULTI_INDEX: _pandas("multi_index"),
    plain.OBJECTS: _pandas("objects"),
    plain.CATEGORIES: _pandas("categories"),
    plain.ZONED: _pandas("zoned"),
    plain.EXTENSION: _pandas("extension"),
    plain.TIMESTAMP: _pandas("timestamp"),
    plain.SPAN: _pandas("span"),
    plain.NOT_A_TIME: _pandas("not_a_time"),
    plain.MISSING: _pandas("missing"),
}
"""What makes a value of its parts, by its tag."""

_FORMS: Final[Mapping[int, Callable[[Decoder, int], Any]]] = {
    plain.NIL: Decoder.constant,
    plain.FALSE: Decoder.constant,
    plain.TRUE: Decoder.constant,
    plain.INT64: Decoder.number,
    plain.FLOAT: Decoder.number,
    plain.BIN: Decoder.binary,
    plain.STR: Decoder.text,
    plain.ARRAY32: Decoder.compound,
}
"""What reads a value that is not said by a single byte, by its form."""
