"""Signed objects: strict, versioned, without floats, each kind under a tag of its own."""

import msgspec
import pytest
from msgspec import inspect

from p2pq.errors import Reject
from p2pq.wire import codec, objects
from tests.samples import fullest, smallest

SIGNED = [
    value
    for value in vars(objects).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__struct_config__.tag is not None
]
SIZE_MAX = objects.OBJECT_BYTES_MAX


def test_the_kinds_are_these():
    assert {kind.__struct_config__.tag for kind in SIGNED} == {
        "cert",
        "ban",
        "owner-ban",
        "mesh-key",
        "peering",
        "peering-accept",
        "peering-end",
        "keycard",
        "mandate",
        "manifest",
        "grant",
        "sub-grant",
        "result",
        "checkpoint",
        "receipt",
    }


@pytest.mark.parametrize("kind", SIGNED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("make", [smallest, fullest])
def test_an_object_reads_as_it_was_written(kind, make):
    value = make(kind)
    assert codec.decode_strict(codec.encode(value), kind, size_max=SIZE_MAX) == value


@pytest.mark.parametrize("kind", SIGNED, ids=lambda kind: kind.__name__)
def test_an_unknown_field_is_refused(kind):
    grown = {**msgspec.msgpack.decode(codec.encode(fullest(kind))), "later": 1}
    with pytest.raises(Reject):
        codec.decode_strict(msgspec.msgpack.encode(grown), kind, size_max=SIZE_MAX)


@pytest.mark.parametrize("kind", SIGNED, ids=lambda kind: kind.__name__)
def test_each_missing_or_wrong_field_is_refused(kind):
    value = msgspec.msgpack.decode(codec.encode(fullest(kind)))
    required = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
    assert required
    for name in value:
        wrong = {**value, name: {"no": 1}}
        without = {key: item for key, item in value.items() if key != name}
        for bad in [wrong, without] if name in required else [wrong]:
            with pytest.raises(Reject):
                codec.decode_strict(msgspec.msgpack.encode(bad), kind, size_max=SIZE_MAX)


@pytest.mark.parametrize("kind", SIGNED, ids=lambda kind: kind.__name__)
def test_a_version_of_the_future_is_refused(kind):
    newer = {**msgspec.msgpack.decode(codec.encode(fullest(kind))), "v": 2}
    with pytest.raises(Reject):
        codec.decode_strict(msgspec.msgpack.encode(newer), kind, size_max=SIZE_MAX)


@pytest.mark.parametrize("kind", SIGNED, ids=lambda kind: kind.__name__)
def test_an_object_holds_no_floats(kind):
    assert not floats(inspect.type_info(kind))


def floats(info: object) -> bool:
    """Tell whether a float hides anywhere in a type."""
    if isinstance(info, inspect.FloatType):
        return True
    parts: list[object] = []
    for name in ("fields", "types", "item_types"):
        parts += getattr(info, name, ())
    parts += [getattr(info, name) for name in ("type", "item_type", "key_type", "value_type") if hasattr(info, name)]
    return any(floats(part) for part in parts)
