"""What crosses between nodes as MessagePack, and its golden samples: for each type the least and the fullest value, as bytes.

A folder ``minor-N`` holds one file for each type as minor version N of the protocol has it: the bytes, and beside them the
value that they must decode to.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from p2pq.wire import body, codec, join, objects, session, tree
from p2pq.wire.messages import MESSAGE_BYTES_MAX, MINOR, Message
from tests.samples import fullest, smallest, unions

HERE = Path(__file__).parent
RELEASED = {1: "0.1.0"}
"""Minor versions that some release speaks, and the first one that did: their folders never change again."""
SAMPLES: dict[str, Callable[[Any], Any]] = {"least": smallest, "full": fullest}


def folder(minor: int = MINOR) -> Path:
    return HERE / f"minor-{minor}"


def kinds() -> dict[str, type[msgspec.Struct]]:
    """Return every type by name: link messages, signed objects, bodies, introductions. New ones are found by themselves."""
    signed = [
        value
        for value in vars(objects).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__struct_config__.tag is not None
    ]
    others = [body.JobBody, body.ResultBody, tree.Tree, session.Hello]
    joining = [join.JoinRequest, join.JoinAnswer, join.JoinRefusal]
    found = [*unions(Message), *signed, *others, *joining]
    named = {kind.__name__: kind for kind in found}
    assert len(named) == len(found), "two types of one name"
    return named


def decode(kind: type[msgspec.Struct], raw: bytes) -> Any:
    """Return what a receiver makes of bytes: any message where it expects one; strictly, what is strict."""
    if kind in unions(Message):
        return codec.decode_lenient(raw, Message, size_max=MESSAGE_BYTES_MAX)
    if kind.__struct_config__.forbid_unknown_fields:
        return codec.decode_strict(raw, kind, size_max=MESSAGE_BYTES_MAX)
    return codec.decode_lenient(raw, kind, size_max=MESSAGE_BYTES_MAX)


def plain(value: object) -> Any:
    """Return a value as JSON shows it, with hexadecimal bytes; fields that are as their defaults have it may be left out."""
    return json.loads(json.dumps(msgspec.to_builtins(value, builtin_types=(bytes,)), default=bytes.hex))


def text(kind: type[msgspec.Struct]) -> str:
    """Return the golden file of a type as this code has it."""
    samples = {}
    for name, make in SAMPLES.items():
        value = make(kind)
        samples[name] = {"bytes": codec.encode(value).hex(), "value": plain(value)}
    return json.dumps(samples, indent=1) + "\n"


def stored(minor: int, name: str) -> dict[str, tuple[bytes, Any]]:
    """Return the golden bytes of a type and the values that they mean, by sample."""
    samples = json.loads((folder(minor) / f"{name}.json").read_text())
    return {sample: (bytes.fromhex(found["bytes"]), found["value"]) for sample, found in samples.items()}
