"""Data frames and their kin come back as they were; nonsense does not."""

import numpy as np
import pandas as pd
import pytest

from p2pq.client.plain import decode
from p2pq.errors import Reject
from p2pq.runner import plain
from p2pq.runner.plain import Encoder, encode

TIMES = pd.date_range("2020", periods=3, tz="Europe/Berlin")
INDEXES = [
    TIMES,
    pd.date_range("2020", periods=3),
    pd.DatetimeIndex(["2020-01-01", "2020-01-09", None], name="when"),
    pd.RangeIndex(1, 7, 2, name="r"),
    pd.Index([1, 2, 4], name="q"),
    pd.Index(["a", "b", "c"]),
    pd.Index([1, "b", None], dtype=object),
    pd.MultiIndex.from_tuples([(1, "a"), (2, "b"), (1, "b")], names=["x", None]),
    pd.timedelta_range("1D", periods=3),
    pd.CategoricalIndex(["a", "b", "a"]),
]
COLUMNS = {
    "int": [1, 2, 3],
    "float": [1.5, None, 2],
    "bool": [True, False, True],
    "text": ["x", None, "z"],
    "string": pd.array(["x", None, "z"], "string"),
    "categories": pd.Categorical(["u", "v", None], ordered=True),
    "zoned": TIMES,
    "times": pd.date_range("2021", periods=3),
    "spans": pd.to_timedelta([1, 2, 3], unit="s"),
    "nullable": pd.array([1, None, 2], "Int64"),
    "truth": pd.array([True, None, False], "boolean"),
    "objects": pd.Series([[1], {"a": 1}, None], dtype=object),
}


@pytest.mark.parametrize("index", INDEXES, ids=lambda index: str(index.dtype))
def test_frames_and_indexes_come_back(index):
    pd.testing.assert_index_equal(decode(encode(index)), index)
    frame = pd.DataFrame(COLUMNS)
    frame.index = index
    found = decode(encode(frame))
    pd.testing.assert_frame_equal(found, frame)
    found.loc[found.index[0], "int"] = 9  # it can be written to


@pytest.mark.parametrize("name", COLUMNS)
def test_series_come_back(name):
    series = pd.Series(COLUMNS[name], name=name)
    pd.testing.assert_series_equal(decode(encode(series)), series)


def test_frames_whose_columns_have_one_name_or_none():
    for frame in (pd.DataFrame([[1, "a"]], columns=["x", "x"]), pd.DataFrame(), pd.DataFrame(index=[1, 2])):
        pd.testing.assert_frame_equal(decode(encode(frame)), frame)


@pytest.mark.parametrize(
    "value", [pd.Timestamp("2020-01-01", tz="Europe/Berlin"), pd.Timestamp(5), pd.Timedelta(3, "s")], ids=str
)
def test_times_come_back(value):
    found = decode(encode([value]))[0]
    assert (found, found.unit, getattr(found, "tz", None)) == (value, value.unit, getattr(value, "tz", None))


def test_what_is_missing_comes_back():
    assert decode(encode(pd.NA)) is pd.NA
    assert decode(encode(pd.NaT)) is pd.NaT


NUMBERS, RANGE = np.arange(3), pd.RangeIndex(3)


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        (plain.FRAME, (RANGE, RANGE, NUMBERS)),
        (plain.FRAME, (RANGE, 3)),
        (plain.FRAME, (RANGE, pd.Index(["a"]), np.arange(4))),
        (plain.FRAME, (RANGE, pd.Index(["a"]), [1, 2, 3])),
        (plain.SERIES, ("a", 3, NUMBERS)),
        (plain.SERIES, ([], RANGE, NUMBERS)),
        (plain.SERIES, ("a", RANGE, np.arange(4))),
        (plain.INDEX, ("a", "D", NUMBERS)),
        (plain.INDEX, ("a", 3, NUMBERS)),
        (plain.INDEX, ("a", "D" * 1000, np.array(["2020"], "M8[ns]"))),
        (plain.INDEX, ("a", "?", np.array(["2020"], "M8[ns]"))),
        (plain.RANGE_INDEX, (0, "x", 1, None)),
        (plain.MULTI_INDEX, (["a"], RANGE, np.array([7]))),
        (plain.MULTI_INDEX, (["a"], RANGE, np.array([0.5]))),
        (plain.MULTI_INDEX, (["a"], NUMBERS, np.array([0]))),
        (plain.MULTI_INDEX, (["a"], RANGE)),
        (plain.MULTI_INDEX, ("a", RANGE, np.array([0]))),
        (plain.CATEGORIES, (np.array([5]), RANGE, False)),
        (plain.CATEGORIES, (np.array([0.5]), RANGE, False)),
        (plain.ZONED, (NUMBERS, "years", None)),
        (plain.ZONED, (NUMBERS, "s", "x")),
        (plain.EXTENSION, ("object", [1])),
        (plain.EXTENSION, ("Int64", 1)),
        (plain.EXTENSION, ("Int64", ["x"])),
        (plain.TIMESTAMP, (1, None)),
        (plain.TIMESTAMP, (np.datetime64("2020"), 1)),
        (plain.SPAN, ("x",)),
        (plain.NOT_A_TIME, (1,)),
    ],
)
def test_nonsense_is_rejected(tag, parts):
    encoder = Encoder({})
    encoder.tagged(tag, parts, 0)
    with pytest.raises(Reject):
        decode(bytes(encoder.out))
