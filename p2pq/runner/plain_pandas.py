"""What pandas has, as data (see ``plain``): by columns, each of them an array of numpy wherever it is one."""

import sys

from p2pq.runner import plain
from p2pq.runner.plain import Encoder, NotPlainError

TYPE_CHECKING = False  # see ``calls``
if TYPE_CHECKING:
    from typing import Any

_BITS = ("8", "16", "32", "64")
EXTENSIONS = frozenset(
    {"string", "str", "boolean", "Float32", "Float64", *(f"{kind}{bits}" for kind in ("Int", "UInt") for bits in _BITS)}
)
"""Columns of these types travel value by value."""


def add(encoder: Encoder, value: "Any", depth: int) -> bool:  # noqa: ANN401  whatever it is
    """Write a value if it is of pandas; return whether it was.

    Raises:
        NotPlainError: it is, but something in it does not travel.
    """
    pandas = sys.modules["pandas"]
    kind = type(value)
    if kind is pandas.DataFrame:
        encoder.head(plain.FRAME, 2 + value.shape[1])
        encoder.add(value.index, depth + 1)
        encoder.add(value.columns, depth + 1)
        for number in range(value.shape[1]):
            _column(encoder, value.iloc[:, number].array, depth + 1)
    elif kind is pandas.Series:
        encoder.head(plain.SERIES, 3)
        encoder.add(value.name, depth + 1)
        encoder.add(value.index, depth + 1)
        _column(encoder, value.array, depth + 1)
    elif kind is pandas.RangeIndex:
        encoder.tagged(plain.RANGE_INDEX, (value.start, value.stop, value.step, value.name), depth)
    elif kind is pandas.MultiIndex:
        codes = [each.astype("int64") for each in value.codes]
        encoder.tagged(plain.MULTI_INDEX, (list(value.names), *value.levels, *codes), depth)
    elif kind in (pandas.Index, pandas.DatetimeIndex, pandas.TimedeltaIndex, pandas.CategoricalIndex):
        encoder.head(plain.INDEX, 3)
        encoder.add(value.name, depth + 1)
        encoder.add(getattr(value, "freqstr", None), depth + 1)
        _column(encoder, value.array, depth + 1)
    elif kind in (pandas.Timestamp, pandas.Timedelta):
        zone = (value.tz,) if kind is pandas.Timestamp else ()
        encoder.tagged(plain.TIMESTAMP if zone else plain.SPAN, (value.asm8, *zone), depth)
    elif value is pandas.NA or value is pandas.NaT:
        encoder.tagged(plain.MISSING if value is pandas.NA else plain.NOT_A_TIME, (), depth)
    else:
        return False
    return True


def _column(encoder: Encoder, array: "Any", depth: int) -> None:  # noqa: ANN401  one of pandas' arrays
    """Write the values of a column."""
    pandas = sys.modules["pandas"]
    arrays, name = pandas.arrays, str(array.dtype)
    if isinstance(array.dtype, pandas.CategoricalDtype):
        encoder.tagged(plain.CATEGORIES, (array.codes.astype("int64"), array.categories, bool(array.ordered)), depth)
    elif isinstance(array.dtype, pandas.DatetimeTZDtype):
        encoder.tagged(plain.ZONED, (array.asi8, array.unit, array.tz), depth)
    elif name == "object":
        encoder.tagged(plain.OBJECTS, list(array), depth)
    elif name in EXTENSIONS:
        missing = array.isna()
        values = [None if gone else value for gone, value in zip(missing, array.tolist(), strict=True)]
        encoder.tagged(plain.EXTENSION, (name, values), depth)
    elif isinstance(array, (arrays.NumpyExtensionArray, arrays.DatetimeArray, arrays.TimedeltaArray)):
        encoder.array(array.to_numpy(), depth)
    else:
        raise NotPlainError(f"a pandas column of dtype {name}")
