"""Hostile encodings (H32): one rejection, whatever is wrong."""

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from p2pq.errors import Reject
from p2pq.wire import codec, join, messages, objects, session


class Thing(msgspec.Struct, frozen=True, tag="thing", forbid_unknown_fields=True, omit_defaults=True):
    n: Annotated[int, Meta(ge=0, lt=1 << 53)]
    s: str = ""
    m: dict[str, int] = {}


class Open(msgspec.Struct, frozen=True, tag="thing"):
    n: int = 0


def raw(**fields):
    return msgspec.msgpack.encode({"type": "thing", **fields})


def strict(data):
    return codec.decode_strict(data, Thing, size_max=1 << 20)


HEAD = b"\x82\xa4type\xa5thing"


def test_there_and_back():
    thing = Thing(7, "ä", {"b": 1, "a": 2})
    assert strict(codec.encode(thing)) == thing


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        HEAD,
        raw(n=1)[:-1],
        raw(n=1) + b"\0",
        raw(),
        raw(n=1, x=2),
        raw(n=True),
        raw(n=1.0),
        raw(n=float("nan")),
        raw(n=float("inf")),
        raw(n=-1),
        raw(n=1 << 53),
        raw(n=1 << 63),
        raw(n=(1 << 64) - 1),
        raw(n=None),
        raw(n="1"),
        raw(n=b"1"),
        raw(n=[1]),
        raw(n=1, s=b"bytes"),
        raw(n=1, s=1),
        raw(n=1, s=""),  # a spelled-out default
        raw(n=1, m={"b": 1, "a": 2}),  # a map out of order
        msgspec.msgpack.encode({"n": 1, "type": "thing"}),  # fields out of order
        msgspec.msgpack.encode({"type": "thang", "n": 1}),
        msgspec.msgpack.encode({"type": 1, "n": 1}),
        msgspec.msgpack.encode(["thing", 1]),
        msgspec.msgpack.encode({"n": 1}),
        b"\x83\xa4type\xa5thing\xa1n\x01\xa1n\x02",  # a repeated key
        b"\x83\xa4type\xa5thing\xa4type\xa5thing\xa1n\x01",
        HEAD + b"\xa1n\xcc\x01",  # a long form of 1
        HEAD + b"\xa1n\xd3" + bytes(7) + b"\x01",
        b"\xde\x00\x02\xa4type\xa5thing\xa1n\x01",  # a long form of the map's length
        HEAD + b"\xa1n\xca\x3f\x80\x00\x00",  # 1.0 as float32
        HEAD + b"\xa1n\xd4\x01\x00",  # an extension type
        HEAD + b"\xa1n\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x83\xa4type\xa5thing\xa1n\x01\xa1s\xa1\xff",  # not UTF-8
        b"\x83\xa4type\xa5thing\xa1n\x01\xa1s\xa3\xed\xa0\x80",  # a lone surrogate
        b"\x82\xa4type\xa5thing\xa1\xff\x01",
        b"\x81" + b"\x91" * 100_000,
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",  # four billion elements
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xef\xbb\xbf" + raw(n=1),
        "text",
        bytearray(raw(n=1)),
        None,
    ],
)
def test_hostile_encodings_are_rejected_and_nothing_else(data):
    with pytest.raises(Reject):
        strict(data)


@pytest.mark.parametrize("opener", [b"\x91", b"\x81\xa1a"])
def test_depth_in_an_ignored_field_is_rejected(opener):
    with pytest.raises(Reject, match="malformed"):
        codec.decode_lenient(HEAD + b"\xa1x" + opener * 100_000 + b"\x01", Open, size_max=1 << 20)


def test_length_is_looked_at_first():
    data = codec.encode(Thing(1))
    assert codec.decode_strict(data, Thing, size_max=len(data)) == Thing(1)
    with pytest.raises(Reject, match="too long"):
        codec.decode_strict(data, Thing, size_max=len(data) - 1)


def test_lenient_ignores_what_it_does_not_know():
    assert codec.decode_lenient(raw(n=1, x=[2]), Open, size_max=100) == Open(1)
    assert codec.decode_lenient(raw(n=1), Open | int, size_max=100) == Open(1)


@pytest.mark.parametrize("value", [1 << 64, "\ud800", object(), {1: object()}])
def test_what_has_no_encoding_is_rejected(value):
    with pytest.raises(Reject, match="not encodable"):
        codec.encode(value)


def unbounded(found, path, seen):
    """List the numbers, texts and lists in a type that have no bound of their own."""
    inspect = msgspec.inspect
    match found:
        case inspect.StructType(cls=cls, fields=fields):
            if cls not in seen:
                seen.add(cls)
                for field in fields:
                    yield from unbounded(field.type, f"{cls.__name__}.{field.name}", seen)
            return
        case inspect.IntType(ge=low, lt=high, le=top) if low is None or (high is None and top is None):
            yield path
        case inspect.StrType(max_length=None) | inspect.VarTupleType(max_length=None):
            yield path
        case inspect.ListType() | inspect.DictType() | inspect.FloatType() | inspect.AnyType():
            yield path
    for part in ("item_type", "types", "item_types"):
        inner = getattr(found, part, ())
        for one in inner if isinstance(inner, tuple) else (inner,):
            yield from unbounded(one, path, seen)


@pytest.mark.parametrize(
    "kind",
    [
        messages.Message,
        session.Hello,
        join.JoinRequest | join.JoinAnswer | join.JoinRefusal,
        *(getattr(objects, name) for name in ("Cert", "Ban", "Manifest", "Grant", "Result", "Receipt")),
    ],
)
def test_everything_that_crosses_the_wire_is_bounded(kind):
    """A number beyond 2^53 would break the store and other languages; a list without end, the memory."""
    assert list(unbounded(msgspec.inspect.type_info(kind), "", set())) == []
    bad = unbounded(msgspec.inspect.type_info(dict[str, int] | list[str] | float), "x", set())
    assert list(bad) == ["x"] * 4
