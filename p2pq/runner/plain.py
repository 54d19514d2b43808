"""What calls on other machines return, as data: how it is written down there. ``client/plain`` reads it.

A value is MessagePack of a few forms: nil, booleans, integers of 64 bits, floats, texts, bytes; and whatever else there is as an
array whose first item, one of the numbers below, tells what the others are. Numbers of arrays travel as the bytes that they are
in memory. Standard library only, and by itself: it travels along to machines that have no p2pq.
"""

import datetime as dt
import decimal
import struct
import sys
import uuid
import zoneinfo

TYPE_CHECKING = False  # see ``calls``
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Literal

    import numpy as np

# fmt: off
(
    LIST, TUPLE, SET, FROZENSET, DICT, FLOATS, INTS, COMPLEX, LARGE_INT, BYTEARRAY, RANGE, ELLIPSIS, DATE, TIME, DATETIME,
    TIMEDELTA, TIMEZONE, ZONE, DECIMAL, UUID, ARRAY, SCALAR, REGISTERED, SERIES, FRAME, INDEX, RANGE_INDEX, MULTI_INDEX, OBJECTS,
    CATEGORIES, ZONED, EXTENSION, TIMESTAMP, SPAN, NOT_A_TIME, MISSING,
) = range(36)
# fmt: on
NIL, FALSE, TRUE, BIN, FLOAT, INT64, STR, ARRAY32 = 0xC0, 0xC2, 0xC3, 0xC6, 0xCB, 0xD3, 0xDB, 0xDD
FIXARRAY, FIXSTR, FIXINT_MAX, NEGATIVE_MIN, FIXARRAY_MAX, FIXSTR_MAX = 0x90, 0xA0, 0x7F, -32, 15, 31
"""The only forms of MessagePack that there are."""
DEPTH_MAX = 100
"""So far may values lie within each other."""
VALUES_MAX = 4_000_000
"""So many values may a result be made of. The numbers of an array count as one, as do those of a list that holds nothing else."""
LARGE_INT_BYTES = 1 << 20
DECIMAL_CHARS = 1 << 16
FAILURE = ("type", "arguments", "text", "traceback", "missing module")
"""What is told of an exception: the arguments that make it again are None where they are no data, or it is of no builtin type."""
SHORT = 16
"""Lists of fewer numbers are not worth being looked through for whether they hold nothing else."""
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
LENGTH_MAX = (1 << 32) - 1
_U32 = struct.Struct(">BI")
_I64 = struct.Struct(">Bq")
_F64 = struct.Struct(">Bd")


class NotPlainError(Exception):
    """A value that cannot travel as data; the message says which, as the object of a sentence."""


def type_name(kind: type) -> str:
    """Return what people call a type."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def encode(value: object, registered: "Mapping[type, tuple[str, Callable[[Any], object]]] | None" = None) -> bytes:
    """Return a value as data.

    Args:
        value: of plain types, numpy's, pandas', and those registered, to any depth.
        registered: by type the name that its owner knows it by, and what makes it plain.

    Raises:
        NotPlainError: there is something else in it, or it is too large or too deep.
        Exception: what a registered function raises.
    """
    encoder = Encoder(registered or {})
    encoder.add(value, 0)
    return bytes(encoder.out)


class Encoder:
    """Writes one value."""

    def __init__(self, registered: "Mapping[type, tuple[str, Callable[[Any], object]]]") -> None:
        """Begin."""
        self.out = bytearray()
        self._registered = registered
        self._values = 0

    def add(self, value: object, depth: int) -> None:
        """Write a value that lies so deep in the one that is written."""
        self._values += 1
        if self._values > VALUES_MAX:
            raise NotPlainError(f"more than {VALUES_MAX:,} values; return arrays of numpy in place of lists")
        if depth > DEPTH_MAX:
            raise NotPlainError(f"values more than {DEPTH_MAX} deep in each other, or one that holds itself")
        kind = type(value)
        write = _WRITE.get(kind)
        if write is not None:
            write(self, value, depth)
        elif kind in self._registered:
            name, plain = self._registered[kind]
            self.tagged(REGISTERED, (name, plain(value)), depth)
        elif not self._numpy(value, depth) and not self._pandas(value, depth):
            raise NotPlainError(f"a value of type {type_name(kind)}")

    def head(self, tag: int, count: int) -> None:
        """Begin something that consists of so many values."""
        if count < FIXARRAY_MAX:
            self.out.append(FIXARRAY + count + 1)
        else:
            self.out += _U32.pack(ARRAY32, count + 1)
        self.out.append(tag)

    def tagged(self, tag: int, values: "Sequence[object]", depth: int) -> None:
        """Write something that consists of values."""
        self.head(tag, len(values))
        for value in values:
            self.add(value, depth + 1)

    def array(self, array: "np.ndarray[Any, Any]", depth: int) -> None:
        """Write an array of numpy.

        Raises:
            NotPlainError: it holds objects, or fields.
        """
        dtype = array.dtype
        if dtype.kind not in "biufcSUmM" or dtype.itemsize == 0 or (dtype.kind in "fc" and dtype.char in "gG"):
            raise NotPlainError(f"a numpy array of dtype {dtype}")
        order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        self.tagged(ARRAY, (dtype.str, order, array.tobytes(order), *array.shape), depth)

    # -- each by its type ----------------------------------------------------------------------------------------------

    def _constant(self, value: object, _depth: int) -> None:
        self.out.append(NIL if value is None else TRUE if value else FALSE)

    def _int(self, value: int, depth: int) -> None:
        if NEGATIVE_MIN <= value <= FIXINT_MAX:
            self.out.append(value & 0xFF)
        elif INT64_MIN <= value <= INT64_MAX:
            self.out += _I64.pack(INT64, value)
        else:
            size = value.bit_length() // 8 + 1
            if size > LARGE_INT_BYTES:
                raise NotPlainError(f"an integer of more than {LARGE_INT_BYTES >> 20} MiB")
            self.tagged(LARGE_INT, (value.to_bytes(size, "little", signed=True),), depth)

    def _float(self, value: float, _depth: int) -> None:
        self.out += _F64.pack(FLOAT, value)

    def _complex(self, value: complex, depth: int) -> None:
        self.tagged(COMPLEX, (value.real, value.imag), depth)

    def _text(self, value: str, _depth: int) -> None:
        data = value.encode("utf-8", "surrogatepass")
        if len(data) <= FIXSTR_MAX:
            self.out.append(FIXSTR + len(data))
            self.out += data
        else:
            self._sized(STR, data)

    def _bytes(self, value: bytes, _depth: int) -> None:
        self._sized(BIN, value)

    def _sized(self, form: int, data: bytes) -> None:
        if len(data) > LENGTH_MAX:
            raise NotPlainError("a text or bytes of more than 4 GiB")
        self.out += _U32.pack(form, len(data))
        self.out += data

    def _list(self, value: "list[Any]", depth: int) -> None:
        if len(value) >= SHORT:
            kinds = set(map(type, value))
            if kinds == {float}:
                self.tagged(FLOATS, (struct.pack(f"<{len(value)}d", *value),), depth)
                return
            if kinds == {int} and min(value) >= INT64_MIN and max(value) <= INT64_MAX:
                self.tagged(INTS, (struct.pack(f"<{len(value)}q", *value),), depth)
                return
        self.tagged(LIST, value, depth)

    def _dict(self, value: "dict[Any, Any]", depth: int) -> None:
        self.tagged(DICT, [each for item in value.items() for each in item], depth)

    def _date(self, value: dt.date, depth: int) -> None:
        self.tagged(DATE, (value.year, value.month, value.day), depth)

    def _time(self, value: dt.time, depth: int) -> None:
        clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
        self.tagged(TIME, (*clock, value.tzinfo), depth)

    def _datetime(self, value: dt.datetime, depth: int) -> None:
        day = (value.year, value.month, value.day)
        clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
        self.tagged(DATETIME, (*day, *clock, value.tzinfo), depth)

    def _zone(self, value: zoneinfo.ZoneInfo, depth: int) -> None:
        if not value.key:
            raise NotPlainError("a time zone without a name")
        self.tagged(ZONE, (value.key,), depth)

    def _decimal(self, value: decimal.Decimal, depth: int) -> None:
        text = str(value)
        if len(text) > DECIMAL_CHARS:
            raise NotPlainError(f"a decimal of more than {DECIMAL_CHARS} digits")
        self.tagged(DECIMAL, (text,), depth)

    def _numpy(self, value: "Any", depth: int) -> bool:  # noqa: ANN401  whatever it is
        found = sys.modules.get("numpy")
        if found is None:
            return False
        if type(value) is found.ndarray or type(value) is found.memmap:
            self.array(value, depth)
        elif isinstance(value, found.generic) and type(value).__module__ == "numpy":
            self.head(SCALAR, 1)
            self.array(found.asarray(value), depth + 1)
        else:
            return False
        return True

    def _pandas(self, value: object, depth: int) -> bool:
        if "pandas" not in sys.modules:
            return False
        from p2pq.runner import plain_pandas  # noqa: PLC0415  where there is no pandas there is no need of it

        return plain_pandas.add(self, value, depth)


def _by(tag: int, parts: "Callable[[Any], Iterable[object]]") -> "Callable[[Encoder, Any, int], None]":
    """Return what writes a type by its parts."""
    return lambda encoder, value, depth: encoder.tagged(tag, tuple(parts(value)), depth)


_WRITE: "dict[type, Callable[[Encoder, Any, int], None]]" = {
    type(None): Encoder._constant,  # noqa: SLF001  of this very module, as all of these
    bool: Encoder._constant,  # noqa: SLF001
    int: Encoder._int,  # noqa: SLF001
    float: Encoder._float,  # noqa: SLF001
    complex: Encoder._complex,  # noqa: SLF001
    str: Encoder._text,  # noqa: SLF001
    bytes: Encoder._bytes,  # noqa: SLF001
    list: Encoder._list,  # noqa: SLF001
    dict: Encoder._dict,  # noqa: SLF001
    tuple: _by(TUPLE, tuple),
    set: _by(SET, tuple),
    frozenset: _by(FROZENSET, tuple),
    bytearray: _by(BYTEARRAY, lambda value: (bytes(value),)),
    range: _by(RANGE, lambda value: (value.start, value.stop, value.step)),
    type(...): _by(ELLIPSIS, lambda _: ()),
    dt.date: Encoder._date,  # noqa: SLF001
    dt.time: Encoder._time,  # noqa: SLF001
    dt.datetime: Encoder._datetime,  # noqa: SLF001
    dt.timedelta: _by(TIMEDELTA, lambda value: (value.days, value.seconds, value.microseconds)),
    dt.timezone: _by(TIMEZONE, lambda value: (value.utcoffset(None),)),
    zoneinfo.ZoneInfo: Encoder._zone,  # noqa: SLF001
    decimal.Decimal: Encoder._decimal,  # noqa: SLF001
    uuid.UUID: _by(UUID, lambda value: (value.bytes,)),
}
