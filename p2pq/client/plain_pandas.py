"""What pandas has, made of data from anywhere; whatever does not fit raises something, which ``plain`` takes for a no."""

import datetime as dt
from typing import Any, Final

import numpy as np
import pandas as pd

from p2pq.errors import Reject
from p2pq.runner.plain_pandas import EXTENSIONS

FREQ_CHARS: Final = 40
UNITS: Final = ("s", "ms", "us", "ns")
_COLUMNS: Final = (np.ndarray, pd.api.extensions.ExtensionArray)


def frame(index: object, columns: object, *values: object) -> pd.DataFrame:
    """Return a data frame of columns, whose names may repeat."""
    if not isinstance(index, pd.Index) or not isinstance(columns, pd.Index) or len(columns) != len(values):
        raise Reject("a data frame is malformed")
    made = pd.DataFrame({number: _column(each) for number, each in enumerate(values)}, index=index, copy=False)
    made.columns = columns
    return made


def series(name: Any, index: object, values: object) -> pd.Series:  # noqa: ANN401  any that has a hash
    """Return a series."""
    if not isinstance(index, pd.Index):
        raise Reject("a series is malformed")
    return pd.Series(_column(values), index=index, name=name, copy=False)


def index(name: Any, freq: object, values: object) -> pd.Index:  # noqa: ANN401  see above
    """Return an index; ``freq`` says how regular it is, if it is one of times."""
    column = _column(values)
    made = pd.Index(column, name=name, dtype=column.dtype)
    if freq is not None:
        if not isinstance(made, pd.DatetimeIndex | pd.TimedeltaIndex) or len(_text(freq)) > FREQ_CHARS:
            raise Reject("an index is malformed")
        made.freq = freq
    return made


def range_index(start: object, stop: object, step: object, name: Any) -> pd.RangeIndex:  # noqa: ANN401  see above
    """Return an index that counts."""
    return pd.RangeIndex(start, stop, step, name=name)


def multi_index(names: object, *parts: object) -> pd.MultiIndex:
    """Return an index of several levels: first the values of each, then which of them each row has."""
    half = len(parts) // 2
    if not isinstance(names, list) or not len(names) == half == len(parts) - half:
        raise Reject("an index is malformed")
    levels = [level for level in parts[:half] if isinstance(level, pd.Index)]
    return pd.MultiIndex(levels, [_codes(each) for each in parts[half:]], names=names)


def objects(*values: object) -> np.ndarray[Any, Any]:
    """Return a column of values of any kind."""
    made = np.empty(len(values), object)
    for number, value in enumerate(values):  # all at once it would look into those that are lists
        made[number] = value
    return made


def categories(codes: object, found: object, ordered: object) -> pd.Categorical:
    """Return a column of categories."""
    return pd.Categorical.from_codes(_codes(codes), found, ordered=ordered is True)


def zoned(times: object, unit: object, zone: object) -> Any:  # noqa: ANN401  an array of pandas
    """Return a column of times in a time zone."""
    if unit not in UNITS or not isinstance(zone, dt.tzinfo):
        raise Reject("a column of times is malformed")
    return pd.DatetimeIndex(_codes(times).view(f"M8[{unit}]"), tz="UTC").tz_convert(zone).array


def extension(name: object, values: object) -> Any:  # noqa: ANN401  an array of pandas
    """Return a column of one of pandas' own types; None is what is missing."""
    if name not in EXTENSIONS or not isinstance(values, list):
        raise Reject("a column is of a type that does not travel")
    return pd.array(values, dtype=name)


def timestamp(time: object, zone: object) -> pd.Timestamp:
    """Return a point in time."""
    if not isinstance(time, np.datetime64) or not isinstance(zone, dt.tzinfo | None):
        raise Reject("a time is malformed")
    found = pd.Timestamp(time)
    return found if zone is None else found.tz_localize("UTC").tz_convert(zone)


def span(length: object) -> pd.Timedelta:
    """Return a span of time."""
    if not isinstance(length, np.timedelta64):
        raise Reject("a time is malformed")
    return pd.Timedelta(length)


def not_a_time() -> Any:  # noqa: ANN401  pandas' own
    """Return what stands for no time."""
    return pd.NaT


def missing() -> Any:  # noqa: ANN401  pandas' own
    """Return what stands for what is missing."""
    return pd.NA


def _column(values: object) -> Any:  # noqa: ANN401  an array of numpy or of pandas
    """Return the values of a column."""
    if not isinstance(values, _COLUMNS):
        raise Reject("a column is malformed")
    return values


def _codes(values: object) -> np.ndarray[Any, Any]:
    if not isinstance(values, np.ndarray) or values.dtype != np.int64:
        raise Reject("a column is malformed")
    return values


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise Reject("an index is malformed")
    return value
