"""How results of other machines are written down; that they are read again as they were is tested with ``client/plain``."""

import io
import subprocess
import sys
from collections import OrderedDict
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from p2pq.runner import plain as module
from p2pq.runner.plain import NotPlainError, encode

ROOT = Path(__file__).parents[3]


class Thing:
    """Nothing that travels."""


class Pair(NamedTuple):
    first: int
    second: int


class Number(IntEnum):
    ONE = 1


def test_it_is_messagepack():
    value = {"a": [1, -1, 128, -129], "é" * 40: (None, True, 1.5, b"x")}
    assert msgspec.msgpack.decode(encode(value)) == [
        module.DICT, "a", [module.LIST, 1, -1, 128, -129], "é" * 40, [module.TUPLE, None, True, 1.5, b"x"],
    ]  # fmt: skip
    assert msgspec.msgpack.decode(encode(list("abcdefghijklmnopq"))) == [module.LIST, *"abcdefghijklmnopq"]


def test_numbers_of_a_list_travel_as_an_array():
    assert len(encode([0.5] * 1000)) < 8100
    assert len(encode([1] * 1000)) < 8100
    assert encode([0.5] * 15)[1] == encode([0.5, 1] * 10)[5] == module.LIST


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Thing(), "a value of type tests.unit.runner.test_plain.Thing"),
        ([{"a": Thing}], "a value of type type"),
        (OrderedDict(), "a value of type collections.OrderedDict"),
        (Number.ONE, "a value of type tests.unit.runner.test_plain.Number"),
        (Pair(1, 2), "a value of type tests.unit.runner.test_plain.Pair"),
        (np.array([None]), "a numpy array of dtype object"),
        (np.zeros(2, [("a", "i4")]), r"a numpy array of dtype \[\('a', '<i4'\)\]"),
        (np.longdouble(1), "a numpy array of dtype (float128|longdouble)"),
        (np.ma.array([1]), "a value of type numpy.ma.MaskedArray"),
        (1 << (8 << 20), "an integer of more than 1 MiB"),
        (Decimal("1" * 70000), "a decimal of more than 65536 digits"),
        (ZoneInfo.from_file(io.BytesIO(Path("/usr/share/zoneinfo/UTC").read_bytes())), "a time zone without a name"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_is_no_data_is_named(value, said):
    with pytest.raises(NotPlainError, match=said):
        encode(value)


def test_what_holds_itself_or_is_too_large_ends(monkeypatch):
    endless = []
    endless.append(endless)
    with pytest.raises(NotPlainError, match="100 deep in each other, or one that holds itself"):
        encode(endless)
    doubling = [1, "x"]
    for _ in range(50):
        doubling = [doubling, doubling]
    monkeypatch.setattr(module, "VALUES_MAX", 4000)
    with pytest.raises(NotPlainError, match="more than 4,000 values; return arrays"):
        encode(doubling)


def test_more_than_a_length_can_say_is_refused(monkeypatch):
    monkeypatch.setattr(module, "LENGTH_MAX", 100)
    encode(b"x" * 100)
    with pytest.raises(NotPlainError, match="4 GiB"):
        encode(b"x" * 101)


def test_registered_types_are_made_plain():
    data = encode([Thing()], {Thing: ("thing", lambda _thing: {"a": 1})})
    assert msgspec.msgpack.decode(data) == [module.LIST, [module.REGISTERED, "thing", [module.DICT, "a", 1]]]


def test_it_needs_nothing_but_the_standard_library():
    code = f"import runpy; print(runpy.run_path({module.__file__!r})['encode']((1, 'x')).hex())"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    assert bytes.fromhex(done.stdout) == encode((1, "x"))
