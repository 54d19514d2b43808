"""What other machines returned is read as it was written there, and is rejected where it is anything else."""

import datetime as dt
import decimal
import uuid
import zoneinfo
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
import pytest

from p2pq.client import plain as module
from p2pq.client.plain import Registered, decode, register
from p2pq.errors import Reject
from p2pq.runner import plain
from p2pq.runner.plain import Encoder, encode

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
VALUES = [
    None,
    True,
    False,
    0,
    127,
    128,
    -1,
    -32,
    -33,
    2**63 - 1,
    -(2**63),
    2**63,
    -(2**200),
    1.5,
    float("inf"),
    1j,
    "",
    "x" * 31,
    "é" * 40,
    "\udc80",
    b"",
    b"x" * 300,
    [],
    [1, [2, "x"]],
    (),
    (1, (2,)),
    set(),
    pytest.param({1, "a"}, id="a set of two"),
    frozenset({(1, 2)}),
    {},
    {"a": {1: [None]}},
    [0.5] * 20,
    [*range(30)],
    [True] * 20,
    [2**70] * 20,
    [1, 2.0] * 10,
    bytearray(b"q"),
    range(1, 9, 2),
    ...,
    dt.date(2020, 1, 2),
    dt.time(1, 2, 3, 4, fold=1),
    dt.datetime(2020, 10, 25, 2, 30, 5, 6, BERLIN, fold=1),
    dt.datetime(2020, 1, 1),  # noqa: DTZ001
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    dt.timedelta(-1, 2, 3),
    decimal.Decimal("1.50"),
    uuid.UUID(int=7),
]
ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(3.5),
    np.zeros((0, 3)),
    np.array(["ab", "ç"]),
    np.array([b"x"]),
    np.array(["2020", "NaT"], "M8[D]"),
    np.array([True, False]),
    np.arange(3, dtype=">i2"),
    np.arange(6)[::2],
    np.array([1 + 2j], "c8"),
    np.array([1], "m8[3s]"),
    np.array([1.5], "f2"),
    np.array(["x"], ">U3"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back(value):
    found = decode(encode(value))
    assert found == value
    assert type(found) is type(value)
    assert list(map(type, found)) == list(map(type, value)) if isinstance(value, list) else True
    assert getattr(found, "fold", 0) == getattr(value, "fold", 0)


@pytest.mark.parametrize("array", ARRAYS, ids=repr)
def test_arrays_come_back_and_can_be_written_to(array):
    found = decode(encode(array))
    np.testing.assert_array_equal(found, array, strict=True)
    assert found.dtype == array.dtype
    assert found.flags.f_contiguous == array.flags.f_contiguous or not array.flags.c_contiguous
    assert found.flags.writeable


@pytest.mark.parametrize(
    "value", [np.float32(1.5), np.int64(3), np.bool_(True), np.str_("x"), np.datetime64("2020")], ids=repr
)
def test_scalars_of_numpy_come_back(value):
    found = decode(encode(value))
    assert found == value
    assert type(found) is type(value)


def test_a_file_in_memory_comes_back_as_an_array(tmp_path):
    mapped = np.memmap(tmp_path / "x", np.int32, "w+", shape=(3,))
    np.testing.assert_array_equal(decode(encode(mapped)), np.zeros(3, np.int32), strict=True)


def tagged(tag, *parts):
    encoder = Encoder({})
    encoder.tagged(tag, parts, 0)
    return bytes(encoder.out)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends too early"),
        (b"\x01\x01", "more than a result"),
        (b"\xc1", "malformed"),
        (b"\x81\x01\x01", "malformed"),
        (b"\xcb\x00", "ends too early"),
        (b"\xc6\xff\xff\xff\xffx", "ends too early"),
        (b"\xdd\xff\xff\xff\xff\x00", "ends too early"),
        (b"\x90", "ends too early"),
        (b"\x91\x7f", "a kind that is not known"),
        (b"\xa1\xff", "no UTF-8"),
        (b"\x92\x00" * 200 + b"\x01", "too deep"),
        (tagged(plain.DICT, "a"), "there cannot be"),
        (tagged(plain.DICT, [], 1), "there cannot be"),
        (tagged(plain.SET, {}), "there cannot be"),
        (tagged(plain.FLOATS, b"1234567"), "there cannot be"),
        (tagged(plain.INTS, "12345678"), "malformed"),
        (tagged(plain.LARGE_INT, b"x" * (2 << 20)), "too large"),
        (tagged(plain.LARGE_INT, 5), "malformed"),
        (tagged(plain.DECIMAL, "1" * 100_000), "too long"),
        (tagged(plain.DECIMAL, "one"), "there cannot be"),
        (tagged(plain.BYTEARRAY, 1 << 50), "malformed"),
        (tagged(plain.UUID, b"x"), "there cannot be"),
        (tagged(plain.UUID, 3), "malformed"),
        (tagged(plain.DATE, 2020, 13, 1), "there cannot be"),
        (tagged(plain.TIME, 1), "there cannot be"),
        (tagged(plain.DATETIME, 1, 1, 1, 1, 1, 1, 1, 0, "UTC"), "there cannot be"),
        (tagged(plain.TIMEDELTA, 1 << 60), "there cannot be"),
        (tagged(plain.TIMEZONE, 1), "there cannot be"),
        (tagged(plain.ZONE, "Nowhere/AtAll"), "not known here"),
        (tagged(plain.ZONE, "../../etc/passwd"), "there cannot be"),
        (tagged(plain.ZONE, "x" * 1000), "too long"),
        (tagged(plain.RANGE, 1, 2, 0), "there cannot be"),
        (tagged(plain.COMPLEX, 1, b""), "there cannot be"),
        (tagged(plain.ELLIPSIS, 1), "there cannot be"),
        (tagged(plain.REGISTERED, "os.system", "true"), "not registered here"),
        (tagged(plain.ARRAY, "|O", "C", b"x" * 8, 1), "dtype that does not travel"),
        (tagged(plain.ARRAY, "O", "C", b"x" * 8, 1), "dtype that does not travel"),
        (tagged(plain.ARRAY, "i8,O", "C", b"x" * 16, 1), "dtype that does not travel"),
        (tagged(plain.ARRAY, "<i8\n", "C", b"x" * 8, 1), "dtype that does not travel"),
        (tagged(plain.ARRAY, "|V8", "C", b"x" * 8, 1), "dtype that does not travel"),
        (tagged(plain.ARRAY, "<U0", "C", b"", 1 << 40), "dtype that does not travel"),
        (tagged(plain.ARRAY, "<f8", "C", b"x" * 8, 2), "not as many numbers"),
        (tagged(plain.ARRAY, "<f8", "C", "x" * 8, 1), "malformed"),
        (tagged(plain.ARRAY, "<f8", "C", b"x" * 8, -1, -1), "a shape"),
        (tagged(plain.ARRAY, "<f8", "C", b"x" * 8, True), "a shape"),
        (tagged(plain.ARRAY, "<f8", "C", b"x" * 8, *[1] * 40), "a shape"),
        (tagged(plain.ARRAY, "<f8", "C", b"", 0, 1 << 60), "a shape"),
        (tagged(plain.ARRAY, "<f8", "A", b"x" * 8, 1), "malformed"),
        (tagged(plain.ARRAY, "|b1", "C", b"\x02", 1), "truth values"),
        (tagged(plain.ARRAY, "<U1", "C", b"\xff" * 4, 1), "letters"),
        (tagged(plain.ARRAY, ">U1", "C", b"\x7f\0\0\0", 1), "letters"),
        (tagged(plain.ARRAY), "there cannot be"),
        (tagged(plain.SCALAR, 3), "malformed"),
        (tagged(plain.SCALAR, np.arange(2)), "malformed"),
    ],
)
def test_nonsense_is_rejected(data, reason):
    with pytest.raises(Reject, match=reason):
        decode(data)


def test_what_is_made_of_too_many_values_is_rejected(monkeypatch):
    data = encode(["x"] * 50)
    monkeypatch.setattr(plain, "VALUES_MAX", 51)
    assert len(decode(data)) == 50
    monkeypatch.setattr(plain, "VALUES_MAX", 50)
    with pytest.raises(Reject, match="too many values"):
        decode(data)


def test_keys_that_collide_are_rejected():
    keys = [number * (2**61 - 1) for number in range(module.SAME_HASH_MAX + 1)]
    decode(encode(set(keys[:-1])))
    for value in (set(keys), frozenset(keys), dict.fromkeys(keys)):
        with pytest.raises(Reject, match="the same hash"):
            decode(encode(value))


@dataclass(frozen=True)
class Point:
    x: int
    y: list[float]
    size: float = field(init=False, default=1.0)


class Pair(NamedTuple):
    first: int
    second: str


class Colour(Enum):
    RED = "r"


class Own:
    def __init__(self, text):
        self.text = text


@pytest.fixture
def registered(monkeypatch):
    found = Registered()
    monkeypatch.setattr(module, "REGISTERED", found)
    return found


@pytest.mark.parametrize("value", [Point(1, [2.0]), Pair(1, "x"), Colour.RED], ids=repr)
def test_types_that_say_what_they_consist_of_need_only_their_name(registered, value):
    register(type(value))
    found = decode(encode({"a": [value]}, registered.plain))
    assert found == {"a": [value]}
    assert type(found["a"][0]) is type(value)


def test_other_types_say_how_they_travel(registered):
    register(Own, lambda own: own.text, Own)
    assert decode(encode(Own("x"), registered.plain)).text == "x"


def test_what_a_registered_type_does_not_take_is_rejected(registered):
    register(Point)
    name, _ = registered.plain[Point]
    for value in ([1], 3, [1, 2, 3]):
        with pytest.raises(Reject, match="did not take what came"):
            decode(tagged(plain.REGISTERED, name, value))


def test_what_cannot_be_registered(registered):
    with pytest.raises(TypeError, match="takes a type"):
        register(3)
    with pytest.raises(TypeError, match="both functions or neither"):
        register(Own, str)
    with pytest.raises(TypeError, match=r"register\(Own, to_plain, from_plain\)"):
        register(Own)
