"""Results wait here until their master has them."""

import msgspec
import pytest

from p2pq.core import kept
from p2pq.core.kept import BATCH_MAX, RENEW_S, RESEND_S, Kept, KeptFor
from p2pq.core.records import ResultKept
from p2pq.model.ids import LeaseId, Mono, Wall
from p2pq.wire.objects import BlobRef
from tests.unit.core.workerkit import ANN, BOB, IDENTITY, WALL, Member, item, ready, result_item


def book(count: int, now: float | None = 0.0, **fields) -> Kept:
    """Return a book that keeps so many results of ANN."""
    results = Kept(IDENTITY, ())
    for number in range(count):
        results.keep(row(number, **fields), None if now is None else Mono(now))
    results.check()
    return results


def row(number: int, *, member: Member = ANN, owner: str = "ann", wall: Wall = WALL, **fields) -> ResultKept:
    result = result_item(item(number), **fields)
    return ResultKept(lease=result.lease, master=member.node, item=result, wall=wall, owner=owner)


def test_a_result_is_kept_until_it_is_released():
    results = book(1)
    assert results.has(ANN.node, LeaseId(1, 0))
    assert not results.has(BOB.node, LeaseId(1, 0))
    assert results.release(ANN.node, LeaseId(1, 0))
    assert not results.release(ANN.node, LeaseId(1, 0))
    assert results.by_master() == ()
    results.check()


def test_results_of_an_earlier_life_count_from_the_first_link_on():
    results = Kept(IDENTITY, (row(3),))
    assert results.leases(ANN.node) == (LeaseId(1, 3),)
    assert results.renewed(ANN.node, Mono(0.0)) == ()
    assert results.due(ANN.node, Mono(1e9)) == ()
    results.linked(ANN.node, Mono(100.0))
    results.linked(ANN.node, Mono(5000.0))
    assert results.renewed(ANN.node, Mono(100.0 + RENEW_S - 1)) == (LeaseId(1, 3),)
    assert results.renewed(ANN.node, Mono(100.0 + RENEW_S)) == ()
    assert results.due(ANN.node, Mono(100.0 + RESEND_S - 1)) == ()
    assert results.due(ANN.node, Mono(100.0 + RESEND_S)) == (LeaseId(1, 3),)


def test_one_signature_serves_a_batch():
    results = book(BATCH_MAX + 1)
    items = [result_item(item(number)) for number in range(BATCH_MAX + 1)]
    sent = results.messages(ANN.node, results.leases(ANN.node), IDENTITY.mesh)
    assert sent == [ready(*items[:BATCH_MAX]).message, ready(items[-1]).message]
    assert results.messages(ANN.node, (), IDENTITY.mesh) == []


def test_how_leases_were_handed_on_is_said_with_their_results_each_once(monkeypatch: pytest.MonkeyPatch):
    results = Kept(IDENTITY, ())
    for number, subs in enumerate(((b"above", b"one"), (b"above", b"one"), (), (b"above", b"two"))):
        results.keep(msgspec.structs.replace(row(number), subs=subs), Mono(0.0))
    [sent] = results.messages(ANN.node, results.leases(ANN.node), IDENTITY.mesh)
    assert sent.subs == (b"above", b"one", b"two")
    monkeypatch.setattr(kept, "SUBS_BYTES_MAX", 8)
    sent, other = results.messages(ANN.node, results.leases(ANN.node), IDENTITY.mesh)
    assert (sent.subs, other.subs) == ((b"above", b"one"), (b"above", b"two"))
    assert other.result == ready(result_item(item(3))).message.result


def test_a_batch_names_not_too_many_blobs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "_BLOBS_MAX", 3)
    blobs = (BlobRef(b"b" * 32, 1), BlobRef(b"c" * 32, 1))
    results = book(3, blobs=blobs)
    assert len(results.messages(ANN.node, results.leases(ANN.node), IDENTITY.mesh)) == 3


def test_a_master_that_acknowledges_nothing_is_full(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "KEPT_MAX", 2)
    assert not book(1).full(ANN.node)
    assert book(2).full(ANN.node)
    assert not book(2).full(BOB.node)


def test_a_master_that_acknowledges_nothing_gets_no_more_of_this_disk(monkeypatch):
    monkeypatch.setattr(kept, "KEPT_BYTES_MAX", 3000)
    results = book(2, blobs=(BlobRef(b"b" * 32, 1000),))
    assert not results.full(ANN.node)
    results.keep(row(2, blobs=(BlobRef(b"b" * 32, 1000),)), Mono(0.0))
    assert results.full(ANN.node)
    assert not results.full(BOB.node)
    results.release(ANN.node, LeaseId(1, 0))
    results.check()
    assert not results.full(ANN.node)


def test_the_sub_grants_of_results_count_as_well(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "KEPT_BYTES_MAX", 3000)
    results = Kept(IDENTITY, ())
    for number in range(3):
        assert not results.full(ANN.node)
        results.keep(msgspec.structs.replace(row(number), subs=(b"s" * 500, b"t" * 500)), Mono(0.0))
    assert results.full(ANN.node)


def test_what_a_master_keeps_for_itself_is_kept_for_nobody():
    results = Kept(IDENTITY, (row(1), msgspec.structs.replace(row(2), master=IDENTITY.node)))
    assert [each.master for each in results.by_master()] == [ANN.node]


def test_people_see_what_is_kept_for_whom_and_since_when(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kept, "KEPT_MAX", 2)
    body, blobs = (BlobRef(b"b" * 32, 10),), (BlobRef(b"c" * 32, 100),)
    earlier, later = Wall(WALL - 5000), Wall(WALL + 5000)
    rows = (
        row(1, body=body, blobs=blobs, wall=later, owner=""),
        row(2, body=body, wall=earlier),
        row(1, member=BOB, owner="bob", body=body),
    )
    assert Kept(IDENTITY, rows).by_master() == (
        KeptFor(master=ANN.node, owner="ann", results=2, bytes=120, since=earlier, full=True),
        KeptFor(master=BOB.node, owner="bob", results=1, bytes=10, since=WALL, full=False),
    )


def test_results_that_have_been_kept_for_too_long_are_named():
    rows = (row(1), row(2, wall=Wall(WALL + 1)), row(3, member=BOB, wall=Wall(WALL + 2)), row(4))
    results = Kept(IDENTITY, rows)
    assert results.older(WALL) == {}
    assert results.older(Wall(WALL + 1)) == {ANN.node: [LeaseId(1, 1), LeaseId(1, 4)]}
    assert results.older(Wall(WALL + 9)) == {
        ANN.node: [LeaseId(1, 1), LeaseId(1, 2), LeaseId(1, 4)],
        BOB.node: [LeaseId(1, 3)],
    }
