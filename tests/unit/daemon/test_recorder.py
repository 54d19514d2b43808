"""The recorder writes all that the core hears and decides, within its bounds, and never stands in the node's way."""

import io
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pq.core.effects import Dial, Effect
from p2pq.core.events import CancelAsked, Drain, Event, Tick
from p2pq.core.flight import MAGIC, Broke, Decided, Entry, Heard, decided, pack, read
from p2pq.daemon import recorder as module
from p2pq.daemon.recorder import Recorder, record
from p2pq.errors import InvariantError
from p2pq.model.ids import JobId, Mono, Wall
from tests.unit.core.test_flight import HEADER

DIAL = Dial(address="192.0.2.1:1")
STARTED = [("flight.recording", "as secret as the home: it holds the node's keys")]


class FakeNode:
    """Dials once for each event; breaks when told to."""

    def __init__(self) -> None:
        self.deadline: Mono | None = Mono(7.0)
        self.broken = ""

    def handle(self, event: Event, now: Mono) -> list[Effect]:
        if self.broken == "handle":
            raise AssertionError("a task is in two places")
        return [DIAL]

    def check(self) -> None:
        if self.broken == "check":
            raise AssertionError("the count is wrong")


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.node = FakeNode()
        self.told: list[tuple[str, object]] = []

    def tell(self, _level: int, name: str, /, **fields: object) -> None:
        self.told.append((name, fields.get("reason") or fields.get("warning")))

    def record(self) -> Recorder:
        found = record(self.folder, HEADER, self.node, self.tell)
        assert found is not None
        return found

    def entries(self, number: int = 1) -> list[Entry]:
        header, entries = read(io.BytesIO((self.folder / f"{number:04}.flight").read_bytes()).read)
        assert header == HEADER
        return list(entries)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "flight")


def test_what_is_heard_and_decided_is_in_the_file_at_once(rig):
    core = rig.record()
    assert core.deadline == 7.0
    assert core.handle(Tick(wall=Wall(5)), Mono(1.5)) == [DIAL]
    assert core.handle(Drain(), Mono(2.5)) == [DIAL]
    core.check()
    answer = decided([DIAL])
    assert rig.entries() == [Heard(Mono(1.5), Tick(wall=Wall(5))), answer, Heard(Mono(2.5), Drain()), answer]
    core.close()
    core.close()
    assert core.handle(Tick(), Mono(3.0)) == [DIAL]
    assert len(rig.entries()) == 4
    assert rig.told == STARTED


def test_nobody_else_can_read_it(rig):
    old = os.umask(0)
    try:
        rig.record().close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(rig.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((rig.folder / "0001.flight").stat().st_mode) == 0o600


def test_a_broken_core_names_its_record_which_ends_there(rig):
    core = rig.record()
    rig.node.broken = "handle"
    path = rig.folder / "0001.flight"
    with pytest.raises(
        InvariantError, match=rf"^a task is in two places; `python -m simulations replay {path} --check`"
    ):
        core.handle(Tick(), Mono(1.0))
    assert rig.entries() == [Heard(Mono(1.0), Tick()), Broke("a task is in two places")]
    rig.node.broken = "check"
    with pytest.raises(InvariantError, match=r"^the count is wrong$"):
        core.check()  # the record has ended, so nobody is sent to it
    core = rig.record()
    with pytest.raises(InvariantError, match=r"0002\.flight"):
        core.check()
    assert rig.entries(2) == [Broke("the count is wrong")]


def test_a_core_that_breaks_unrecorded_breaks_as_ever(rig):
    core = rig.record()
    core.close()
    rig.node.broken = "handle"
    with pytest.raises(AssertionError, match=r"^a task is in two places$"):
        core.handle(Tick(), Mono(1.0))


def test_at_its_bound_a_record_ends_and_the_node_goes_on(rig, monkeypatch):
    pair = len(pack(Heard(Mono(1.0), Tick()))) + len(pack(decided([DIAL])))
    monkeypatch.setattr(module, "FILE_BYTES_MAX", len(MAGIC) + len(pack(HEADER)) + pair)
    core = rig.record()
    for _ in range(3):
        assert core.handle(Tick(), Mono(1.0)) == [DIAL]
    assert rig.entries() == [Heard(Mono(1.0), Tick()), decided([DIAL])]
    assert rig.told == [*STARTED, ("flight.ended", "0 MB are written")]


def test_what_cannot_be_written_down_ends_the_record_not_the_node(rig, monkeypatch):
    def refuse(value: object) -> bytes:
        if isinstance(value, list):
            raise module.Reject("not encodable")
        return real(value)

    core = rig.record()
    real: Callable[[object], bytes] = module.flight.codec.encode
    monkeypatch.setattr(module.flight.codec, "encode", refuse)
    assert core.handle(Tick(), Mono(1.0)) == [DIAL]
    assert rig.entries() == [Heard(Mono(1.0), Tick())]
    assert rig.told == [*STARTED, ("flight.ended", "not encodable")]


def test_a_full_disk_ends_the_record_not_the_node(rig, monkeypatch):
    """A short write first, as a disk that has a little room left gives it."""
    core = rig.record()
    writes = iter([3, OSError(28, "No space left on device")])
    real = os.write

    def write(file: int, data: bytes) -> int:
        size = next(writes)
        if isinstance(size, OSError):
            raise size
        return real(file, data[:size])

    monkeypatch.setattr(module.os, "write", write)
    assert core.handle(Tick(), Mono(1.0)) == [DIAL]
    assert rig.entries() == []
    assert rig.record().handle(Tick(), Mono(1.0)) == [DIAL]
    assert rig.told == [
        *STARTED,
        ("flight.ended", "the disk is full"),
        *STARTED,
        ("flight.ended", "No space left on device"),
    ]


def test_the_systems_own_limit_ends_the_record_not_the_node(rig):
    """The kernel refuses for real: a limit on the size of files (SIGXFSZ is ignored by Python)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    core = rig.record()
    size = (rig.folder / "0001.flight").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2, hard))
    try:
        assert core.handle(Tick(), Mono(1.0)) == [DIAL]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert rig.told == [*STARTED, ("flight.ended", "the disk is full")]
    assert rig.entries() == []


def test_where_no_file_can_be_made_the_node_goes_on_unrecorded(rig):
    rig.folder.write_text("in the way")
    assert record(rig.folder, HEADER, rig.node, rig.tell) is None
    assert rig.told == [("flight.ended", "File exists")]


def test_the_last_records_are_kept(rig, monkeypatch):
    monkeypatch.setattr(module, "FILES_MAX", 3)
    for _ in range(5):
        rig.record().close()
    (rig.folder / "notes.txt").write_text("not ours")
    (rig.folder / "copy.flight").write_text("not ours")
    rig.record().close()
    assert sorted(path.name for path in rig.folder.iterdir()) == [
        "0004.flight",
        "0005.flight",
        "0006.flight",
        "copy.flight",
        "notes.txt",
    ]


def test_old_records_make_room_for_a_full_new_one(rig, monkeypatch):
    monkeypatch.setattr(module, "FILE_BYTES_MAX", 1000)
    monkeypatch.setattr(module, "BYTES_MAX", 2000)
    rig.folder.mkdir()
    for number, size in ((9998, 500), (9999, 400), (10_000, 601)):
        (rig.folder / f"{number}.flight").write_bytes(bytes(size))
    rig.record().close()
    assert sorted(path.name for path in rig.folder.iterdir()) == ["10000.flight", "10001.flight"]


def test_ids_and_bytes_of_every_kind_survive(rig):
    core = rig.record()
    event = CancelAsked(job=JobId(bytes(range(16))), task=3, wall=Wall(9))
    core.handle(event, Mono(0.1 + 0.2))
    assert rig.entries() == [Heard(Mono(0.1 + 0.2), event), Decided(1, decided([DIAL]).digest)]
