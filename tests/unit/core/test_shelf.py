"""What is in stock of a master: what is believed, who gets what, and in which order."""

import pytest

from p2pq.core import shelf as module
from p2pq.core.shelf import Lot, Seat, Shelf
from p2pq.core.slots import Room
from p2pq.errors import Reject
from p2pq.model.ids import Mono, Wall
from p2pq.model.job import Resources
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.messages import INLINE_BYTES_MAX
from p2pq.wire.trust import SKEW_MS
from tests.unit.core.stockkit import ANN, LEA, LEO, asks, checkpoint, granted, master, parcel, smaller
from tests.unit.core.workerkit import IDENTITY, PROFILE, WALL, item, job_id, manifest, nonce

ONE, TWO, THREE = item(1), item(2, task=1), item(3, task=2)
T0 = Mono(0.0)
MANY = 100


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(IDENTITY, master())


def put(shelf: Shelf, message: msg.Granted, now: float = 0.0, wall: int = WALL) -> object:
    opened = shelf.open(message)
    fresh = {each.lease: each for each in opened[0].items}
    kept = shelf.put(message, opened, fresh, Mono(now), Wall(wall))
    shelf.check()
    return kept


def take(shelf: Shelf, leaf=LEA, spare: int = MANY, profile=PROFILE, **fields) -> tuple:
    """Return the leases that a leaf is given."""
    request = asks(1, **fields)
    taken = shelf.take([seat(leaf, request, profile)], request, spare)
    shelf.check()
    return () if taken is None else taken[1]


def seat(leaf, request: msg.Request, profile=PROFILE) -> Seat:
    return Seat(leaf.node, profile, Room(request.cpus, request.memory_mb, request.gpus))


# -- what is believed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (granted((ONE,), signer=LEA), "bad signature"),
        (granted((ONE,), to=LEA.node), "grant: not between these two nodes"),
        (granted((ONE,), node=LEA.node), "grant: not between these two nodes"),
        (granted((ONE,), mesh=b"n" * 32), "grant: not between these two nodes"),
        (granted((ONE, item(1, task=5))), "grant: a lease twice"),
        (granted((ONE,), checkpoints=(checkpoint(ONE, to=LEA.node),)), "checkpoint: not for this cluster"),
        (granted((ONE,), checkpoints=(checkpoint(TWO),)), "checkpoint: not of that grant"),
        (granted((ONE,), checkpoints=(checkpoint(ONE),) * 2), "checkpoint: not of that grant"),
        (granted((ONE,), manifest=b"m" * 32), "grant: another manifest"),
        (granted((ONE,), of=manifest(ANN, owner="bob")), "manifest: not of this master"),
        (granted((ONE,), job=job_id(7)), "grant: not of that manifest"),
        (granted((item(1, task=1000),)), "grant: not of that manifest"),
    ],
)
def test_only_the_word_of_the_master_to_this_bridge_is_passed_on(
    shelf: Shelf, message: msg.Granted, reason: str
) -> None:
    with pytest.raises(Reject, match=reason):
        put(shelf, message)
    assert len(shelf) == 0


def test_a_manifest_is_kept_for_the_next_grants(shelf: Shelf) -> None:
    assert put(shelf, granted((ONE,), sent=True)) == "no-manifest"
    assert isinstance(put(shelf, granted((ONE,))), Lot)
    assert isinstance(put(shelf, granted((TWO,), sent=True)), Lot)
    assert isinstance(put(shelf, granted((THREE,))), Lot)


def test_a_grant_that_has_expired_is_of_no_use(shelf: Shelf) -> None:
    assert put(shelf, granted((ONE,)), wall=WALL + 60_000 + SKEW_MS + 1) == "late"
    assert isinstance(put(shelf, granted((ONE,)), wall=WALL + 60_000 + SKEW_MS), Lot)


def test_manifests_are_kept_within_bounds(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOBS_MAX", 2)
    for number in (1, 2, 1, 3):
        put(shelf, granted((item(number + 10 * len(shelf)),), of=manifest(ANN, number)))
    for number, known in ((1, True), (2, False), (3, True)):
        said = put(shelf, granted((item(100 + number),), of=manifest(ANN, number), sent=True))
        assert isinstance(said, Lot) is known
    size = len(granted((ONE,)).manifest) + 2 * module._KEY_BYTES
    monkeypatch.setattr(module, "JOBS_BYTES_MAX", size + 1)
    put(shelf, granted((item(200),), of=manifest(ANN, 4)))
    assert put(shelf, granted((item(201),), of=manifest(ANN, 3), sent=True)) == "no-manifest"


def test_keys_are_kept_within_bounds(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 1)
    put(shelf, granted((ONE,)))
    assert take(shelf, LEA) == ()
    assert take(shelf, LEO) == (ONE.lease,)


def test_what_is_given_out_with_a_grant_is_never_too_long_to_be_said(shelf: Shelf) -> None:
    for entry, size, kept in ((ONE, INLINE_BYTES_MAX, True), (TWO, INLINE_BYTES_MAX + 1, False)):
        blobs = (bytes(size - 1), b"1")
        lot = put(shelf, granted((entry,), blobs=blobs))
        assert isinstance(lot, Lot)
        assert shelf.parcel(lot, (entry.lease,), LEA.node, nonce(1), (), sent=False).blobs == (blobs if kept else ())


# -- who gets what -------------------------------------------------------------------------------------------------------


def test_what_is_enclosed_is_kept_within_bounds_and_then_left_out(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = checkpoint(ONE)
    monkeypatch.setattr(module, "ENCLOSED_BYTES_MAX", len(saved) + 4)
    first = put(shelf, granted((ONE,), checkpoints=(saved,), blobs=(b"blob",)))
    second = put(shelf, granted((TWO,), number=2, checkpoints=(checkpoint(TWO),)))
    assert isinstance(first, Lot)
    assert isinstance(second, Lot)
    assert (first.checkpoints, first.blobs) == ({ONE.lease: saved}, (b"blob",))
    assert second.checkpoints == {}, "it starts from nothing"
    shelf.rest(first)
    third = put(shelf, granted((THREE,), number=3, blobs=(b"blob",)))
    assert isinstance(third, Lot)
    assert third.blobs == (b"blob",), "there is room again"


def test_who_lacks_the_key_of_a_job_lacks_it_for_all_of_it(shelf: Shelf) -> None:
    lots = [put(shelf, granted((entry,), number=entry.lease.counter, keys=())) for entry in (ONE, TWO)]
    assert take(shelf) == ()
    assert [lot.keyless for lot in lots if isinstance(lot, Lot)] == [True, True]


def test_a_leaf_gets_what_it_has_room_for(shelf: Shelf) -> None:
    put(shelf, granted((ONE, TWO, THREE)))
    assert ONE.lease in shelf
    assert shelf.leases() == (ONE.lease, TWO.lease, THREE.lease)
    assert shelf.count(job_id()) == 3
    assert take(shelf, tasks_max=5) == (ONE.lease, TWO.lease)
    assert (len(shelf), shelf.count(job_id())) == (1, 1)
    assert take(shelf, cpus=0) == ()
    assert take(shelf) == (THREE.lease,)
    assert shelf.count(job_id()) == 0


def test_attempts_ahead_are_those_to_spare(shelf: Shelf) -> None:
    put(shelf, granted(tuple(item(number, task=number) for number in range(10))))
    ahead = ((job_id(), 3),)
    assert len(take(shelf, cpus=1, tasks_max=9, ahead=ahead, spare=1)) == 1
    assert len(take(shelf, cpus=1, tasks_max=9, ahead=ahead, spare=2)) == 2
    assert len(take(shelf, cpus=1, tasks_max=9, ahead=((job_id(2), 9),))) == 1
    assert len(take(shelf, cpus=0, tasks_max=9, ahead=ahead)) == 3
    assert len(take(shelf, cpus=1, tasks_max=2, ahead=ahead)) == 2


def test_what_is_urgent_goes_first_then_what_was_granted_first(shelf: Shelf) -> None:
    put(shelf, granted((ONE,), of=manifest(ANN, 1)))
    put(shelf, granted((TWO,), of=manifest(ANN, 2, priority=5)))
    put(shelf, granted((THREE,), of=manifest(ANN, 3, priority=5)))
    assert [take(shelf) for _ in range(3)] == [(TWO.lease,), (THREE.lease,), (ONE.lease,)]


def test_nobody_gets_what_it_cannot_run_or_has_no_key_for_or_is_to_avoid(shelf: Shelf) -> None:
    lot = put(shelf, granted((ONE, TWO), keys=(LEA,), avoid=((ONE.lease, LEA.node), (THREE.lease, LEO.node))))
    assert isinstance(lot, Lot)
    assert take(shelf, profile=smaller(sandbox="basic")) == ()
    assert not lot.keyless
    assert take(shelf, LEO) == ()
    assert lot.keyless
    assert take(shelf, LEA) == (TWO.lease,)
    assert take(shelf, LEA) == ()
    put(shelf, granted((THREE,), of=manifest(ANN, 2, only=LEO.node)))
    assert take(shelf, LEA) == ()
    assert take(shelf, LEO) == (THREE.lease,)
    put(shelf, granted((THREE,), of=manifest(ANN, 3, resources=Resources(cpus=2))))
    assert take(shelf, LEO, cpus=1) == ()
    assert take(shelf, LEO) == (THREE.lease,)


def test_whether_any_leaf_can_have_it(shelf: Shelf) -> None:
    lot = put(shelf, granted((ONE,), keys=(LEA,)))
    assert isinstance(lot, Lot)
    assert shelf.usable_by_any(lot, [(LEO.node, PROFILE), (LEA.node, PROFILE)])
    assert not shelf.usable_by_any(lot, [(LEO.node, PROFILE)])
    shelf.unkey((LEA.node,))
    assert not shelf.usable_by_any(lot, [(LEA.node, PROFILE)])


def test_a_leaf_is_given_what_it_needs_to_believe_it(shelf: Shelf) -> None:
    saved = checkpoint(TWO)
    message = granted((ONE, TWO), checkpoints=(saved,), blobs=(b"b",))
    put(shelf, message)
    taken = shelf.take([seat(LEA, asks(1))], asks(1), MANY)
    assert taken is not None
    assert shelf.parcel(*taken, LEA.node, nonce(1), [LEA.node], sent=False) == parcel(
        LEA, message, 1, ONE, TWO, checkpoints=(saved,)
    )
    assert shelf.parcel(taken[0], (ONE.lease,), LEA.node, nonce(2), [LEA.node], sent=True) == parcel(
        LEA, message, 2, ONE, sent=True
    )
    assert sign.digest(message.grant) != sign.digest(message.manifest)


# -- what goes back ------------------------------------------------------------------------------------------------------


def test_what_goes_back_is_gone(shelf: Shelf) -> None:
    assert shelf.waiting_since() is None
    put(shelf, granted((ONE, TWO)), now=1.0)
    lot = put(shelf, granted((THREE,)), now=2.0)
    assert isinstance(lot, Lot)
    assert shelf.waiting_since() == 1.0
    assert [each.since for each in shelf.overdue(5.0, Mono(6.5))] == [1.0]
    assert len(shelf.overdue(5.0, Mono(7.0))) == 2
    assert shelf.newest(2) == (THREE.lease, TWO.lease)
    assert shelf.rest(lot) == ()
    assert shelf.drop(ONE.lease)
    assert not shelf.drop(ONE.lease)
    assert shelf.newest(5) == ()
    shelf.check()
    lot = put(shelf, granted((ONE, TWO)))
    assert isinstance(lot, Lot)
    assert shelf.rest(lot) == (ONE.lease, TWO.lease)
    assert shelf.waiting_since() is None


def test_what_is_due_by_its_deadline_is_overdue_whatever_the_rounding(shelf: Shelf) -> None:
    since = next(at / 7 for at in range(1, 10_000) if (at / 7 + 5.0) - 5.0 < at / 7)
    put(shelf, granted((ONE,)), now=since)
    assert len(shelf.overdue(5.0, Mono(since + 5.0))) == 1
