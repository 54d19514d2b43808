"""Results of other machines as data: whatever is plain comes back as it was, whatever else comes gives one kind of error."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from p2pq.client.plain import decode
from p2pq.errors import Reject
from p2pq.runner import plain
from p2pq.runner.plain import Encoder, encode

pytestmark = pytest.mark.property

KEYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
)
PLAIN = st.recursive(
    KEYS,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(KEYS, inner), st.frozensets(KEYS), st.sets(KEYS)
    ),
    max_leaves=20,
)
DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)),
    hnp.complex_number_dtypes(sizes=(64, 128)),
    hnp.unicode_string_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.datetime64_dtypes(),
    hnp.timedelta64_dtypes(),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(PLAIN)
def test_plain_values_come_back(value):
    found = decode(encode(value))
    assert found == value
    assert type(found) is type(value)
    assert encode(found) == encode(found)


@given(DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, SHAPES)))
def test_arrays_come_back(array):
    found = decode(encode(array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array, strict=True)


def taken(data):
    with contextlib.suppress(Reject):
        decode(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_rejection(data):
    taken(data)


@given(PLAIN | hnp.arrays(np.float64, SHAPES), st.data())
def test_a_result_that_was_altered_gives_a_value_or_a_rejection(value, data):
    raw = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    taken(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    taken(bytes(raw))


@given(st.sampled_from(range(plain.MISSING + 2)), st.lists(PLAIN | hnp.arrays(np.int64, SHAPES), max_size=5))
def test_any_parts_give_a_value_or_a_rejection(tag, parts):
    encoder = Encoder({})
    encoder.tagged(tag, parts, 0)
    taken(bytes(encoder.out))
