"""Rows survive a crash: what is written today must be read by the next version, so names and shapes are pinned."""

import msgspec
import pytest

from p2pq.core import records
from p2pq.core.records import Restored, Row, needs_full
from tests.samples import fullest, smallest, unions

KINDS = unions(Row)


def test_every_row_belongs_to_the_union():
    defined = {
        value
        for value in vars(records).values()
        if isinstance(value, type) and issubclass(value, records._Row) and value is not records._Row
    }
    assert defined == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("make", [smallest, fullest])
def test_a_row_reads_as_it_was_written(kind, make):
    row = make(kind)
    raw = msgspec.msgpack.encode(row)
    assert msgspec.msgpack.decode(raw, type=Row) == row


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_row_is_tagged_by_its_own_name(kind):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(smallest(kind)))["type"] == kind.__name__


@pytest.mark.parametrize("make", [smallest, fullest])
def test_what_a_store_gives_back_can_be_compared_and_written_down(make):
    restored = make(Restored)
    raw = msgspec.msgpack.encode(restored)
    assert msgspec.msgpack.decode(raw, type=Restored) == restored


def test_a_first_life_has_nothing_behind_it():
    assert Restored() == smallest(Restored)
    assert Restored().epoch == 0


def test_what_must_survive_a_loss_of_power():
    """What cannot be had again, what people were told is over, and the epoch that fences the rest."""
    full = {kind.__name__ for kind in KINDS if needs_full([smallest(kind)])}
    assert full == {
        "EpochBegun", "JobAdded", "AttemptEnded", "TaskEnded", "TasksCancelled", "TasksRetried", "JobEnded", "ResultKept",
        "BanKept", "OwnerBanKept", "MeshKeysKept", "PeeringKept", "PeerBanKept",
    }  # fmt: skip


def test_one_row_that_must_survive_is_enough():
    assert needs_full([smallest(records.LeaseGranted), smallest(records.JobAdded)])
    assert not needs_full([smallest(records.LeaseGranted), smallest(records.TaskDelivered)])
    assert not needs_full([])


def test_mesh_keys_are_never_shown():
    assert repr(records.MeshKeysKept(signed=(b"secret", b"another"))) == "MeshKeysKept(2)"
