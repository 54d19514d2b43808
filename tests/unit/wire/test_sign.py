"""Signed objects: the right author, the right type, the very bytes."""

import msgspec
import pytest

from p2pq.errors import Reject
from p2pq.model.ids import LeaseId
from p2pq.wire import codec, objects, sign
from tests.unit.wire.makers import ALICE, BOB

RECEIPT = objects.Receipt(
    mesh=b"m" * 32,
    node=ALICE.public,
    to=BOB.public,
    items=(objects.ReceiptItem(LeaseId(1, 2), "settled"),),
)


class Twin(msgspec.Struct, frozen=True, kw_only=True, tag="twin", forbid_unknown_fields=True):
    """Same fields as a Receipt, another type."""

    v: int = 1
    mesh: bytes
    node: bytes
    to: bytes
    items: tuple[objects.ReceiptItem, ...]


class Untagged(msgspec.Struct):
    n: int = 1


def resign(tag, body, key=ALICE):
    return codec.encode([tag, body, key.sign(sign.pae(tag.encode(), body))])


def test_there_and_back():
    raw = sign.sign(ALICE, RECEIPT)
    assert sign.open_signed(raw, objects.Receipt, ALICE.public) == RECEIPT
    assert sign.open_claimed(raw, objects.Receipt, lambda r: r.node) == RECEIPT
    assert len(sign.digest(raw)) == 32
    assert len(raw) <= len(codec.encode(RECEIPT)) + sign.OVERHEAD_BYTES


def test_another_author_is_refused():
    raw = sign.sign(BOB, RECEIPT)
    with pytest.raises(Reject, match="bad signature"):
        sign.open_signed(raw, objects.Receipt, ALICE.public)
    with pytest.raises(Reject, match="bad signature"):
        sign.open_claimed(raw, objects.Receipt, lambda r: r.node)


def test_another_type_is_refused():
    """H33: the signature of the right bytes under the wrong type."""
    raw = sign.sign(ALICE, RECEIPT)
    with pytest.raises(Reject, match="wrong type"):
        sign.open_signed(raw, objects.Grant, ALICE.public)
    _, body, signature = codec.decode_lenient(raw, tuple[str, bytes, bytes], size_max=1000)
    with pytest.raises(Reject, match="bad signature"):
        sign.open_signed(codec.encode(["twin", body, signature]), Twin, ALICE.public)


def test_encoded_again_is_refused():
    """H34: the right key over bytes that mean the same."""
    fields = msgspec.to_builtins(RECEIPT, builtin_types=(bytes,))
    other_order = msgspec.msgpack.encode(dict(reversed(fields.items())))
    with pytest.raises(Reject, match="not canonical"):
        sign.open_signed(resign("receipt", other_order), objects.Receipt, ALICE.public)


def test_envelope_is_canonical_too():
    raw = sign.sign(ALICE, RECEIPT)
    assert raw[0] == 0x93
    with pytest.raises(Reject, match="not canonical"):
        sign.open_signed(b"\xdc\x00\x03" + raw[1:], objects.Receipt, ALICE.public)
    with pytest.raises(Reject):
        sign.open_signed(raw + b"\0", objects.Receipt, ALICE.public)


@pytest.mark.parametrize("parts", [[], ["receipt"], ["receipt", b""], ["receipt", b"", b"short"], ["", b"", bytes(64)]])
def test_malformed_envelopes_are_refused(parts):
    with pytest.raises(Reject, match="malformed"):
        sign.open_signed(codec.encode(parts), objects.Receipt, ALICE.public)


def test_verified_before_parsed():
    """A body that would crash a parser is not looked at unless its author signed it."""
    bomb = b"\x91" * 100_000
    with pytest.raises(Reject, match="bad signature"):
        sign.open_signed(codec.encode(["receipt", bomb, bytes(64)]), objects.Receipt, ALICE.public)
    with pytest.raises(Reject, match="malformed"):
        sign.open_signed(resign("receipt", bomb), objects.Receipt, ALICE.public)
    with pytest.raises(Reject, match="malformed"):
        sign.open_claimed(resign("receipt", bomb), objects.Receipt, lambda r: r.node)


def test_own_mistakes_are_found_before_they_travel():
    with pytest.raises(Reject, match="not a signed type"):
        sign.sign(ALICE, Untagged())
    with pytest.raises(Reject, match="malformed"):
        sign.sign(ALICE, msgspec.structs.replace(RECEIPT, mesh=b"short"))


def test_sizes():
    assert sign.size_max(objects.Manifest) == sign.size_max(objects.Result) == objects.MANIFEST_BYTES_MAX
    assert sign.size_max(objects.Grant) == objects.OBJECT_BYTES_MAX
    with pytest.raises(Reject, match="too long"):
        sign.open_signed(bytes(objects.OBJECT_BYTES_MAX + 200), objects.Grant, ALICE.public)


def test_pae_is_unambiguous():
    assert sign.pae() == b"p2pq1"
    assert sign.pae(b"a", b"bc") == b"p2pq1" + b"\x01" + bytes(7) + b"a" + b"\x02" + bytes(7) + b"bc"
    assert len({sign.pae(*p) for p in [(b"ab",), (b"a", b"b"), (b"", b"ab"), (b"ab", b"")]}) == 4


SIGNED = [objects.Cert, objects.Ban, objects.Manifest, objects.Grant, objects.Result, objects.Receipt]


@pytest.mark.parametrize("kind", SIGNED)
def test_signed_types_are_strict_versioned_and_hold_no_floats(kind):
    assert kind.__struct_fields__[0] == "v"
    seen, todo = set(), [msgspec.inspect.type_info(kind)]
    while todo:
        found = todo.pop()
        assert not isinstance(found, msgspec.inspect.FloatType | msgspec.inspect.AnyType | msgspec.inspect.RawType)
        if isinstance(found, msgspec.inspect.StructType):
            if found.cls in seen:
                continue
            seen.add(found.cls)
            todo += [field.type for field in found.fields]
        for part in ("item_type", "types", "item_types", "key_type", "value_type", "type"):
            inner = getattr(found, part, ())
            todo += inner if isinstance(inner, tuple) else [inner]
    assert kind.__struct_config__.forbid_unknown_fields
    assert sign.tag_of(kind)


def test_the_body_of_what_was_opened_before():
    assert sign.body_of(sign.sign(ALICE, RECEIPT)) == codec.encode(RECEIPT)
    with pytest.raises(Reject):
        sign.body_of(b"no object")
