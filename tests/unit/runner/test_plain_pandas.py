"""How data frames and their kin are written down; that they are read again is tested with ``client/plain_pandas``."""

import pandas as pd
import pytest

from p2pq.runner import plain, plain_pandas
from p2pq.runner.plain import NotPlainError, encode


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (pd.DataFrame({"a": pd.period_range("2020", periods=2, freq="D")}), r"a pandas column of dtype period\[D\]"),
        (pd.Series([pd.Interval(1, 2)]), "a pandas column of dtype interval"),
        (pd.Series([object()]), "a value of type object"),
        (pd.period_range("2020", periods=2, freq="D"), "a value of type pandas.*PeriodIndex"),
    ],
)
def test_what_does_not_travel_is_named(value, said):
    with pytest.raises(NotPlainError, match=said):
        encode(value)


def test_what_is_not_of_pandas_is_left_alone():
    encoder = plain.Encoder({})
    assert plain_pandas.add(encoder, object(), 0) is False
    assert encoder.out == b""
