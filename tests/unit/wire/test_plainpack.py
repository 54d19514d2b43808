"""MessagePack of plain values: what msgspec writes is read, and what is written msgspec reads."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pq.errors import Reject
from p2pq.wire.plainpack import DEEP_MAX, pack, unpack

SIMPLE = st.none() | st.booleans() | st.text() | st.binary()
SAID = st.recursive(
    SIMPLE | st.integers(0, (1 << 32) - 1),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=20,
)
HEARD = st.recursive(
    SIMPLE | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=20,
)


@given(SAID)
def test_what_is_said_is_understood(value):
    assert msgspec.msgpack.decode(pack(value)) == value


@given(HEARD)
def test_what_others_say_is_understood(value):
    assert unpack(msgspec.msgpack.encode(value)) == value


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_every_way_to_write_how_long_it_is(size):
    for value in ("a" * size, b"a" * size, [1] * size, {str(number): None for number in range(size)}):
        assert unpack(msgspec.msgpack.encode(value)) == value
        assert msgspec.msgpack.decode(pack(value)) == value


@pytest.mark.parametrize("number", [0, 127, 128, -1, -32, -33, 1 << 16, -(1 << 31), (1 << 64) - 1, -(1 << 63), 0.5])
def test_every_way_to_write_a_number(number):
    assert unpack(msgspec.msgpack.encode([number, None, True, False])) == [number, None, True, False]


def test_what_is_said_whatever_it_is():
    value = {"a": [None, True, False, 0, 127, 128, (1 << 32) - 1, "é", b"\xff"]}
    assert msgspec.msgpack.decode(pack(value)) == value


def test_sequences_of_any_kind():
    assert unpack(pack(("a", [b"b"]))) == ["a", [b"b"]]


@pytest.mark.parametrize(
    ("value", "error"), [(1.5, TypeError), (-1, TypeError), (1 << 32, TypeError), ("\udcff", UnicodeEncodeError)]
)
def test_what_cannot_be_said(value, error):
    with pytest.raises(error):
        pack({"a": [value]})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0\xc0",  # two values
        b"\xc1",  # never used
        b"\xd4\x01\x00",  # an extension
        b"\xcd\x01",  # half a number
        b"\xd9",  # no length
        b"\xa2a",  # half a text
        b"\xa1\xff",  # no text
        b"\xdd\xff\xff\xff\xff",  # a list of nothing
        b"\x81\x90\xc0",  # a list as a key
        b"\x91" * (DEEP_MAX + 1) + b"\xc0",
    ],
)
def test_what_makes_no_sense_is_rejected(body):
    with pytest.raises(Reject, match="not a message"):
        unpack(body)
