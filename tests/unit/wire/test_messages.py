"""Link messages: one union, stable tags, bounds that hold, and room to grow."""

import msgspec
import pytest

from p2pq.wire import messages, work
from p2pq.wire.messages import CoreMessage, Message, ServiceMessage
from tests.samples import fullest, smallest, unions

KINDS = unions(Message)


def test_every_message_belongs_to_exactly_one_plane():
    core, service = set(unions(CoreMessage)), set(unions(ServiceMessage))
    defined = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, work.LinkMessage) and value.__struct_config__.tag is not None
    }
    assert core | service == set(KINDS) == defined
    assert core & service == set()


def test_tags_are_short_and_never_shared():
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(tags)) == len(tags)
    assert all(len(tag) == 2 for tag in tags)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("make", [smallest, fullest])
def test_a_message_reads_as_it_was_written(kind, make):
    message = make(kind)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message) == message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_field_of_a_later_version_is_ignored(kind):
    message = smallest(kind)
    grown = {**msgspec.msgpack.decode(msgspec.msgpack.encode(message)), "later": [1, {"a": 2}]}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(grown), type=Message) == message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_field_of_another_type_is_refused(kind):
    for field in msgspec.structs.fields(kind):
        wrong = {**msgspec.msgpack.decode(msgspec.msgpack.encode(smallest(kind))), field.encode_name: [{"no": 1}]}
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(wrong), type=Message)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "rq", "nonce": bytes(15), "owner": "a", "cpus": 1},
        {"type": "rq", "nonce": bytes(16), "owner": "", "cpus": 1},
        {"type": "rq", "nonce": bytes(16), "owner": "a" * 65, "cpus": 1},
        {"type": "rq", "nonce": bytes(16), "owner": "a", "cpus": -1},
        {"type": "rq", "nonce": bytes(16), "owner": "a", "cpus": True},
        {"type": "rq", "nonce": bytes(16), "owner": "a", "cpus": 1.5},
        {"type": "hw", "counter": 1 << 53},
        {"type": "hw", "counter": 0, "owners": ["a"] * (messages.OWNERS_MAX + 1)},
        {"type": "hb", "beats": [[[1, 1], True, 1001]]},
        {"type": "ho", "leases": [[1]]},
        {"type": "lw", "req": 0, "lease": [1, 1], "stream": "stdin"},
        {"type": "zz"},
        {"counter": 1},
        [],
        None,
    ],
)
def test_out_of_bounds_dies_at_the_edge(message):
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message)


def test_only_messages_can_be_newer_than_the_first_version():
    assert messages.SINCE.keys() <= set(KINDS)
    assert all(1 < minor <= messages.MINOR for minor in messages.SINCE.values())


def test_mesh_keys_are_never_shown():
    assert repr(messages.MeshKeys(keys=(b"secret",))) == "MeshKeys(1)"


def test_a_key_of_a_peering_is_not_shown():
    known = messages.PeeringKnown(b"offer", b"accept")
    assert repr(messages.Peerings(peerings=(known,))) == "Peerings(1)"
