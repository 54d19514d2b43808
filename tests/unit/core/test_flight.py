"""The bytes of a flight record, and that the life which a header describes begins as any life does."""

import io
from random import Random

import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import flight
from p2pq.core.effects import Effect
from p2pq.core.flight import Broke, Decided, Header, Heard
from p2pq.core.records import EpochBegun, Restored
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import Mono, NodeId, Wall
from p2pq.wire import codec, prims
from p2pq.wire.messages import MINOR
from tests.samples import fullest, smallest, unions
from tests.unit.core.workerkit import IDENTITY, KEY, WALL

HEADER = Header(
    software="p2pq 0.1.0",
    identity=IDENTITY,
    settings=ScheduleSettings(lease_s=30.0, heartbeat_s=5.0),
    restored=Restored(epoch=4),
    links_max=7,
    keep_days=3,
    now=Mono(100.0),
    wall=Wall(WALL),
    seed=b"s" * 32,
)
ENTRIES = [Heard(Mono(100.5), ev.Tick()), Decided(1, b"d" * 8), Heard(Mono(101.0), ev.Drain()), Broke("twice there")]


def written(*entries: flight.Entry) -> bytes:
    return flight.MAGIC + b"".join(map(flight.pack, (HEADER, *entries)))


def read(raw: bytes) -> tuple[Header, list[flight.Entry]]:
    header, entries = flight.read(io.BytesIO(raw).read)
    return header, list(entries)


def test_a_record_reads_as_it_was_written():
    assert read(written(*ENTRIES)) == (HEADER, ENTRIES)


def test_a_record_that_was_cut_off_reads_up_to_there():
    raw = written(*ENTRIES)
    start = len(written())
    ends = [len(written(*ENTRIES[:count])) for count in range(len(ENTRIES) + 1)]
    for cut in range(start, len(raw) + 1):
        whole = sum(end <= cut for end in ends) - 1
        assert read(raw[:cut]) == (HEADER, ENTRIES[:whole])
        told: list[int] = []
        _, entries = flight.read(io.BytesIO(raw[:cut]).read, lambda cut=cut, told=told: told.append(cut))
        assert list(entries) == ENTRIES[:whole]
        assert told == ([] if cut in ends else [cut])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "flight: not a flight record, or of another format"),
        (b"p2pqflt2" + written()[8:], "flight: not a flight record, or of another format"),
        (written()[:-1], "flight: cut off before it began"),
        (flight.MAGIC, "flight: cut off before it began"),
        (written() + bytes(8), "flight: damaged"),
        (written() + b"\xff" * 8, "flight: damaged"),
        (written() + b"\x01\x00\x00\x00\xc1", "malformed"),
    ],
)
def test_what_is_no_record_or_is_damaged_is_refused(raw, reason):
    with pytest.raises(Reject, match=f"^{reason}$"):
        read(raw)


def test_an_entry_that_is_far_too_long_or_no_text_is_refused(monkeypatch):
    with pytest.raises(Reject, match="not encodable"):
        flight.pack(Broke("\udcff"))
    monkeypatch.setattr(flight, "ENTRY_BYTES_MAX", 10)
    with pytest.raises(Reject, match="flight: entry too long"):
        flight.pack(Broke("eleven letters"))


@pytest.mark.parametrize("kind", unions(Effect), ids=lambda kind: kind.__name__)
def test_effects_count_with_their_order_and_every_field(kind):
    small, full = smallest(kind), fullest(kind)
    assert flight.decided([small, full]) == Decided(
        2, prims.blake2b(codec.encode([small, full]), size=8, person="p2pq-flight")
    )
    assert flight.decided([small, full]) == flight.decided([smallest(kind), fullest(kind)])
    tick = fx.Dial(address="192.0.2.1:1")
    assert flight.decided([small, tick]) != flight.decided([tick, small])


def test_a_life_begins_as_its_header_says():
    node = HEADER.begin()
    assert node.deadline == 100.0
    assert node.handle(ev.Tick(), Mono(100.0))[0] == fx.Record(row=EpochBegun(epoch=5))
    with pytest.raises(Reject):
        Header(**{**{name: getattr(HEADER, name) for name in Header.__struct_fields__}, "seed": b""}).begin()


def test_a_bridge_that_batches_is_one_again():
    fields = {name: getattr(HEADER, name) for name in Header.__struct_fields__} | {"bridging": True}
    for batching in (False, True):
        node = Header(**fields | {"batching": batching}).begin()
        node.handle(ev.Tick(), Mono(100.0))
        link = {"owner": "o", "caps": ("submit", "work"), "boot": bytes(16), "minor": MINOR, "prekey": bytes(31) + b"k"}
        for name in (b"1", b"2"):
            told = node.handle(
                ev.LinkUp(peer=NodeId(name * 32), name="n", address="", certs=(b"c",), **link), Mono(101.0)
            )
        kinds = {type(effect.message).__name__ for effect in told if isinstance(effect, fx.Send)}
        assert kinds & {"MasterIs", "Reach"} == ({"MasterIs"} if batching else {"Reach"})


def test_draws_come_from_the_seed_unless_others_are_given():
    seed, other = HEADER.begin(), HEADER.begin(Random(1), Random(2).randbytes)
    hint = ev.AddressSeen(addresses=("192.0.2.1:1",), source="mdns")
    pauses = []
    for node in (seed, other, HEADER.begin()):
        node.handle(hint, Mono(100.0))
        node.handle(ev.DialFailed(address="192.0.2.1:1", reason="no answer"), Mono(100.1))
        pauses.append(node.deadline)
    assert pauses[0] == pauses[2] != pauses[1]


def test_secrets_stay_out_of_what_is_printed():
    assert repr(HEADER) == f"Header('p2pq 0.1.0', {IDENTITY!r})"
    assert str(KEY) not in repr(HEADER)
