"""What is told to a master at once, and in which order."""

import pytest

from p2pq.core import batching
from p2pq.core.batching import Batch
from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire import codec
from p2pq.wire.messages import INLINE_BYTES_MAX, LEASES_MAX, MESSAGE_BYTES_MAX, SUBS_BYTES_MAX, Beat, Report, ReturnItem
from p2pq.wire.objects import ITEMS_MAX, OBJECT_BYTES_MAX
from tests.unit.core.workerkit import BOB, CAT

LEA = NodeId(b"a" * 32)


def lease(number: int) -> LeaseId:
    return LeaseId(1, number)


def test_all_there_is_goes_into_one_report() -> None:
    batch = Batch()
    assert not batch
    batch.placed[lease(1)] = LEA
    batch.beats[lease(1)] = Beat(lease(1))
    assert batch.result(b"one", (b"blob",), by=CAT.node, hurries=False)
    assert batch.result(b"two", (), by=CAT.node, hurries=False)
    batch.hand_back((lease(2),), "late")
    assert batch
    assert not batch.full
    assert batch.take() == [
        Report(
            placed=((lease(1), LEA),),
            beats=(Beat(lease(1)),),
            results=(b"one", b"two"),
            blobs=(b"blob",),
            returns=(ReturnItem(lease(2), "late"),),
        )
    ]
    assert not batch


def test_no_result_makes_a_report_too_long_to_be_said() -> None:
    batch = Batch()
    beats = range(LEASES_MAX)
    batch.beats |= {LeaseId(1 << 52, 1 << 52 | number): Beat(LeaseId(1 << 52, 1 << 52 | number)) for number in beats}
    batch.returns |= {
        lease(number): ReturnItem(lease(number), "refused", "\U0001f4a5" * 500) for number in range(ITEMS_MAX)
    }
    assert batch.result(
        bytes(OBJECT_BYTES_MAX), (bytes(MESSAGE_BYTES_MAX - OBJECT_BYTES_MAX),), by=CAT.node, hurries=False
    )
    longest = tuple(bytes([number]) * (SUBS_BYTES_MAX // 8) for number in range(8))
    assert batch.result(b"small", (bytes(INLINE_BYTES_MAX),), longest, by=CAT.node, hurries=False)
    (report,) = batch.take()
    assert report.subs == longest
    assert report.blobs == (bytes(INLINE_BYTES_MAX),)
    assert len(codec.encode(report)) < MESSAGE_BYTES_MAX


def test_who_has_a_lease_is_said_before_anything_else_of_it() -> None:
    batch = Batch()
    many = ITEMS_MAX + 1
    for number in range(many):
        batch.placed[lease(number)] = LEA
        batch.beats[lease(number)] = Beat(lease(number))
        batch.result(b"r", (), by=CAT.node, hurries=False)
    batch.hand_back(tuple(map(lease, range(many))), "lost")
    assert batch.full
    first, second, third, fourth = batch.take()
    assert (len(first.placed), len(first.beats), len(first.results), len(first.returns)) == (ITEMS_MAX, 0, 0, 0)
    assert (len(second.placed), len(second.beats), len(second.results), len(second.returns)) == (
        1,
        many,
        ITEMS_MAX,
        ITEMS_MAX,
    )
    assert third == Report(results=(b"r",))
    assert fourth == Report(returns=(ReturnItem(lease(ITEMS_MAX), "lost"),))


def test_reports_are_neither_too_long_nor_too_many_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "REPORT_BYTES_MAX", 10)
    batch = Batch()
    for raw, blobs in ((b"123456", ()), (b"12", (b"34",)), (b"1", ()), (b"long" * 10, ())):
        batch.result(raw, blobs, by=CAT.node, hurries=False)
    assert batch.full
    assert batch.take() == [
        Report(results=(b"123456", b"12"), blobs=(b"34",)),
        Report(results=(b"1",)),
        Report(results=(b"long" * 10,)),
    ]
    batch.result(b"1", (b"",) * ITEMS_MAX, by=CAT.node, hurries=False)
    batch.result(b"2", (b"",), by=CAT.node, hurries=False)
    assert [report.results for report in batch.take()] == [(b"1",), (b"2",)]


def test_sub_grants_are_said_once_in_each_report_with_the_results_that_they_are_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = Batch()
    for raw, subs in ((b"1", (b"above", b"lea")), (b"2", (b"above", b"leo")), (b"3", ()), (b"4", (b"above", b"lea"))):
        assert batch.result(raw, (), subs, by=CAT.node, hurries=False)
    assert batch.take() == [Report(results=(b"1", b"2", b"3", b"4"), subs=(b"above", b"lea", b"leo"))]
    monkeypatch.setattr(batching, "SUBS_BYTES_MAX", 10)
    for raw, subs in (
        (b"1", (b"above", b"lea")),
        (b"2", (b"above", b"lea")),
        (b"3", (b"above", b"leo")),
        (b"4", (b"x" * 20,)),
    ):
        batch.result(raw, (), subs, by=CAT.node, hurries=False)
    assert batch.take() == [
        Report(results=(b"1", b"2"), subs=(b"above", b"lea")),
        Report(results=(b"3",), subs=(b"above", b"leo")),
        Report(results=(b"4",), subs=(b"x" * 20,)),
    ]


def test_sub_grants_that_wait_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAITING_BYTES_MAX", 25)
    monkeypatch.setattr(batching, "REPORT_BYTES_MAX", 25)
    batch = Batch()
    for _ in range(5):
        assert batch.result(b"1", (), (b"s" * 20,), by=CAT.node, hurries=False)
    assert batch.full
    assert not batch.result(b"1", (), (b"s" * 20,), by=CAT.node, hurries=False)
    assert batch.take() == [Report(results=(b"1",) * 5, subs=(b"s" * 20,))]
    assert batch.result(b"1", (), (b"s" * 20,), by=CAT.node, hurries=False)
    assert batch.take() == [Report(results=(b"1",), subs=(b"s" * 20,))], "what was said is said anew with the next"


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAITING_BYTES_MAX", 5)
    batch = Batch()
    assert batch.result(b"very long", (), by=CAT.node, hurries=False)
    assert not batch.result(b"1", (), by=CAT.node, hurries=False)
    batch.take()
    assert batch.result(b"1", (), by=CAT.node, hurries=False)


def test_it_hurries_for_what_somebody_waits_for() -> None:
    batch = Batch()
    batch.placed[lease(1)] = LEA
    batch.beats[lease(1)] = Beat(lease(1))
    batch.result(b"one", (), by=CAT.node, hurries=False)
    assert not batch.hurries
    batch.result(b"two", (), by=CAT.node, hurries=True)
    batch.result(b"three", (), by=CAT.node, hurries=False)
    assert batch.hurries
    batch.take()
    assert not batch.hurries
    batch.hand_back((lease(2),), "late")
    assert batch.hurries


def test_what_the_master_knows_to_be_over_is_not_told() -> None:
    batch = Batch()
    batch.placed[lease(1)] = LEA
    batch.beats[lease(1)] = Beat(lease(1))
    batch.hand_back((lease(1),), "late")
    batch.forget(lease(1))
    assert not batch


def test_who_waits_for_its_own_results_makes_them_hurry_and_nobody_else():
    batch = Batch()
    batch.result(b"one", (), by=CAT.node, hurries=False)
    batch.hurry(BOB.node)
    assert not batch.hurries
    batch.hurry(CAT.node)
    assert batch.hurries
    batch.take()
    batch.hurry(CAT.node)
    assert not batch.hurries, "they are told"


def test_nothing_hurries_once_there_is_nothing_to_tell():
    batch = Batch()
    batch.hand_back((LeaseId(1, 1),), "late")
    assert batch.hurries
    batch.forget(LeaseId(1, 1))
    assert not batch.hurries
