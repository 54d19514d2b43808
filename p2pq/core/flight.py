"""A flight record: how a life of the core began, and every event with what was decided on it.

What the core decides follows from its beginning, its events with their instants, and its draws. The first two are written
down; the draws follow from a seed in the header (``core.draws``). Of the effects only their number and a digest are kept:
enough to tell whether a replay decides the same.

A record is ``MAGIC``, then entries: length (4 bytes, little endian), MessagePack. The first is the ``Header``, then for each
event ``Heard`` (written before the core takes it in, so that even an event that kills the process is there) and ``Decided``,
or ``Broke`` as the last. A record that ends in the middle of an entry was cut off there, which is no error.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from p2pq.core.draws import Stream, StreamRandom
from p2pq.core.effects import Effect
from p2pq.core.events import Event
from p2pq.core.identity import Identity
from p2pq.core.node import Node
from p2pq.core.records import Restored
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import Mono, Wall
from p2pq.wire import codec, prims

MAGIC: Final = b"p2pqflt1"
"""The last byte is the format's version."""
ENTRY_BYTES_MAX: Final = 1 << 30
DIGEST_BYTES: Final = 8
_LENGTH_BYTES: Final = 4


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="header"):
    """How a life began: all that ``Node`` was built from. Holds the node's keys."""

    software: str
    """The version of p2pq that decided."""
    identity: Identity
    settings: ScheduleSettings
    restored: Restored
    links_max: int
    keep_days: int
    now: Mono
    wall: Wall
    seed: bytes
    bridging: bool = False
    batching: bool = False
    welcome: dict[bytes, tuple[str, ...]] = {}

    def begin(self, rng: Random | None = None, entropy: Callable[[int], bytes] | None = None) -> Node:
        """Begin that life, with draws from the seed where none are given; only then can it be replayed.

        Raises:
            Reject: the restored state belongs to another key or mesh, or the seed is not 32 bytes.
        """
        return Node(
            self.identity,
            self.settings,
            self.restored,
            rng or StreamRandom(Stream(self.seed, "rng")),
            entropy or Stream(self.seed, "entropy").take,
            now=self.now,
            wall=self.wall,
            links_max=self.links_max,
            keep_days=self.keep_days,
            bridging=self.bridging,
            batching=self.batching,
            welcome=self.welcome,
        )

    def __repr__(self) -> str:
        """Name the node, not its secrets."""
        return f"Header({self.software!r}, {self.identity!r})"


class Heard(msgspec.Struct, frozen=True, array_like=True, tag="h"):
    """An event, and when the core was given it."""

    now: Mono
    event: Event


class Decided(msgspec.Struct, frozen=True, array_like=True, tag="d"):
    """What the core answered: so many effects, with this digest."""

    count: int
    digest: Annotated[bytes, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class Broke(msgspec.Struct, frozen=True, array_like=True, tag="b"):
    """The core broke on that event; nothing comes after it."""

    error: str


Entry = Heard | Decided | Broke
Entries = Iterator[Entry]


def decided(effects: list[Effect]) -> Decided:
    """Return what a record says of effects; equal for equal ones in the same order."""
    return Decided(len(effects), prims.blake2b(codec.encode(effects), size=DIGEST_BYTES, person="p2pq-flight"))


def pack(entry: Header | Entry) -> bytes:
    """Return an entry as it stands in a record.

    Raises:
        Reject: something in it cannot be encoded, or it is far too long.
    """
    raw = codec.encode(entry)
    if len(raw) > ENTRY_BYTES_MAX:
        raise Reject("flight: entry too long")
    return len(raw).to_bytes(_LENGTH_BYTES, "little") + raw


def read(take: Callable[[int], bytes], on_cut: Callable[[], None] = lambda: None) -> tuple[Header, Entries]:
    """Return the header of a record and its entries, as far as they are whole.

    Args:
        take: returns the next so many bytes of the record, or what is left of it.
        on_cut: called where the entries end because the last one is not whole.

    Raises:
        Reject: this is no record, or not of this format; while iterating: it is damaged at this place.
    """
    if take(len(MAGIC)) != MAGIC:
        raise Reject("flight: not a flight record, or of another format")
    first = _next(take, on_cut)
    if first is None:
        raise Reject("flight: cut off before it began")
    header: Header = codec.decode_lenient(first, Header, size_max=ENTRY_BYTES_MAX)
    return header, _entries(take, on_cut)


def _entries(take: Callable[[int], bytes], on_cut: Callable[[], None]) -> Entries:
    while (raw := _next(take, on_cut)) is not None:
        yield codec.decode_lenient(raw, Entry, size_max=ENTRY_BYTES_MAX)


def _next(take: Callable[[int], bytes], on_cut: Callable[[], None]) -> bytes | None:
    head = take(_LENGTH_BYTES)
    if not head:
        return None
    if len(head) == _LENGTH_BYTES:
        size = int.from_bytes(head, "little")
        if not 0 < size <= ENTRY_BYTES_MAX:
            raise Reject("flight: damaged")
        raw = take(size)
        if len(raw) == size:
            return raw
    on_cut()
    return None
