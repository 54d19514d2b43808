"""The gist of events and effects in one line each, without keys; and which of them concern one job."""

from collections.abc import Iterator
from typing import Final

import msgspec

from p2pq.core.effects import Effect, Emit, Record, Send
from p2pq.core.events import Event, Received
from p2pq.model.ids import LeaseId, to_text
from p2pq.wire.objects import Grant, Manifest, Receipt, Result

IDS: Final = frozenset({"node", "peer", "worker", "master", "job", "blob", "by", "boot", "nonce"})
"""Fields that hold a name of something; all other bytes may be keys or data and are only counted."""
OBJECTS: Final = {"grant": Grant, "manifest": Manifest, "receipt": Receipt, "result": Result}
"""Fields that hold a signed object, which is opened for reading; the core verifies it."""
UNSAID: Final = frozenset({"mesh", "reply", "commit"})
TEXT_CHARS_MAX: Final = 60
ITEMS_SHOWN: Final = 4
ID_CHARS: Final = 8


def gist(what: Event | Effect) -> str:
    """Return one line: the kind, what it is about, the fields that are not as usual."""
    match what:
        case Received(peer=peer, message=message):
            return f"{_value('peer', peer)} says {_struct(message)}"
        case Send(peer=peer, message=message):
            return f"say {_struct(message)} to {_value('peer', peer)}"
        case Record(row=row):
            return f"record {_struct(row)}"
        case Emit(notice=notice):
            return f"tell {_struct(notice)}"
        case _:
            return _struct(what)


def _struct(value: msgspec.Struct) -> str:
    shown = []
    for field in msgspec.structs.fields(value):
        content = getattr(value, field.name)
        if field.name not in UNSAID and content != field.default and content not in (None, (), b"", ""):
            shown.append(f"{field.name}={_value(field.name, content)}")
    return " ".join([type(value).__name__, *shown])


def _value(name: str, value: object) -> str:  # noqa: PLR0911  one return per kind of value
    match value:
        case bytes():
            if (inside := _opened(name, value)) is not None:
                return f"({_struct(inside)})"
            return to_text(value)[:ID_CHARS] if name in IDS else f"<{len(value)} bytes>"
        case LeaseId():
            return str(value)
        case msgspec.Struct():
            return f"({_struct(value)})"
        case tuple():
            more = [f"and {len(value) - ITEMS_SHOWN} more"] if len(value) > ITEMS_SHOWN else []
            return f"[{', '.join([*(_value(name, item) for item in value[:ITEMS_SHOWN]), *more])}]"
        case str():
            return repr(value if len(value) <= TEXT_CHARS_MAX else f"{value[:TEXT_CHARS_MAX]}…")
        case float():
            return f"{value:.3f}"
        case _:
            return str(value)


def _opened(name: str, raw: bytes) -> msgspec.Struct | None:
    """Return the object in the bytes of a field, if that is what they are."""
    try:
        _, body, _ = msgspec.msgpack.decode(raw, type=tuple[str, bytes, bytes])
        found: msgspec.Struct = msgspec.msgpack.decode(body, type=OBJECTS[name])
    except (KeyError, ValueError, RecursionError):
        return None
    return found


class Story:
    """Which decisions concern one job: those that name it, or the number of a lease that was seen together with it.

    Another master's lease may have the same number; showing a decision too many does no harm.
    """

    def __init__(self, job: str) -> None:
        """Follow the job whose id begins with that text; empty: everything concerns."""
        self._job = job.lower()
        self._leases: set[LeaseId] = set()

    def concerns(self, event: Event, effects: list[Effect]) -> bool:
        """Tell whether an event or what was decided on it concerns the job; learn its leases on the way."""
        if not self._job:
            return True
        found = False
        for struct in _structs((event, *effects)):
            lease = getattr(struct, "lease", None)
            if self._names(struct):
                found = True
                if lease is not None:
                    self._leases.add(lease)
            found = found or lease in self._leases or not self._leases.isdisjoint(getattr(struct, "leases", ()))
        return found

    def _names(self, struct: msgspec.Struct) -> bool:
        job = getattr(struct, "job", None)
        return isinstance(job, bytes) and to_text(job).startswith(self._job)


def _structs(value: object) -> Iterator[msgspec.Struct]:
    """Yield all structs in a value, the outer ones first."""
    match value:
        case LeaseId():
            return
        case msgspec.Struct():
            yield value
            for name in value.__struct_fields__:
                content = getattr(value, name)
                yield from _structs(_opened(name, content) if isinstance(content, bytes) else content)
        case tuple():
            for item in value:
                yield from _structs(item)
        case _:
            return
