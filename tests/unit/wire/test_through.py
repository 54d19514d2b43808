"""What goes through bridges: what masters and workers say, and nothing else."""

import msgspec
import pytest

from p2pq.wire import messages as msg
from p2pq.wire.through import LEAVES_MAX, Leaf, Leaves, MasterIs, Parted, Passed, Report, Through
from p2pq.wire.work import HOPS_MAX, LinkMessage
from tests.samples import fullest, smallest, unions

NODE = b"n" * 32
PASSED = unions(Passed)


def decoded(message: object) -> msg.Message:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=msg.Message)


@pytest.mark.parametrize("kind", PASSED, ids=lambda kind: kind.__name__)
def test_what_masters_and_workers_say_goes_through(kind: type[LinkMessage]) -> None:
    for make in (smallest, fullest):
        through = Through(node=NODE, message=make(kind))
        assert decoded(through) == through


@pytest.mark.parametrize("kind", sorted({*unions(msg.Message)} - {*PASSED}, key=lambda kind: kind.__name__))
def test_nothing_else_does(kind: type[LinkMessage]) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoded({"type": "th", "node": NODE, "message": msgspec.msgpack.decode(msgspec.msgpack.encode(smallest(kind)))})


def test_everything_that_goes_through_is_as_new_as_that_itself() -> None:
    new = (MasterIs, Parted, Leaves, Report, Through)
    assert {msg.SINCE[kind] for kind in new} == {msg.MINOR} == {4}


@pytest.mark.parametrize(
    "message",
    [
        {"type": "mi", "certs": [], "boot": bytes(16), "minor": 4},
        {"type": "mi", "certs": [b"c"] * 3, "boot": bytes(16), "minor": 4},
        {"type": "mi", "certs": [b"c"], "boot": bytes(16), "minor": 0},
        {"type": "mi", "certs": [b"c"], "boot": bytes(16), "minor": 4, "path": [NODE] * HOPS_MAX},
        {"type": "mi", "certs": [bytes(4097)], "boot": bytes(16), "minor": 4},
        {"type": "pt", "node": bytes(31)},
        {"type": "lf", "leaves": [msgspec.to_builtins(smallest(Leaf), builtin_types=(bytes,))] * (LEAVES_MAX + 1)},
        {"type": "lf", "gone": [NODE] * 1025},
        {"type": "rp", "placed": [[[1, 1], bytes(31)]]},
        {"type": "th", "node": NODE},
    ],
)
def test_out_of_bounds_dies_at_the_edge(message: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoded(message)
