"""What a master signs says what it was told to say, as itself."""

import pytest

from p2pq.core.jobs import Job
from p2pq.core.signing import Signatory
from p2pq.errors import Reject
from p2pq.model.ids import LeaseId, Wall
from p2pq.wire import sign
from p2pq.wire.objects import Grant, GrantItem, Receipt, ReceiptItem
from tests.unit.core.mesh import ALICE, IDENTITY, KEY, MASTER, MESH, WALL, job_id, manifest, submitted

SIGNATORY = Signatory(IDENTITY)
JOB = Job(manifest(), submitted().manifest, sign.digest(submitted().manifest), KEY, 1, WALL)
ITEMS = (GrantItem(0, 1, LeaseId(1, 0)),)


def test_a_grant() -> None:
    raw = SIGNATORY.grant(JOB, ALICE.node, bytes(16), ITEMS, b"sealed", Wall(WALL + 5))
    assert sign.open_signed(raw, Grant, MASTER.node) == Grant(
        mesh=MESH,
        node=MASTER.node,
        to=ALICE.node,
        nonce=bytes(16),
        job=job_id(),
        manifest=JOB.digest,
        items=ITEMS,
        key=b"sealed",
        expires=WALL + 5,
    )


def test_a_grant_that_would_not_open_is_not_signed() -> None:
    with pytest.raises(Reject):
        SIGNATORY.grant(JOB, ALICE.node, bytes(16), ITEMS, bytes(257), WALL)


def test_a_receipt() -> None:
    items = (ReceiptItem(LeaseId(1, 0), "settled"), ReceiptItem(LeaseId(1, 4), "late"))
    raw = SIGNATORY.receipt(ALICE.node, items)
    assert sign.open_signed(raw, Receipt, MASTER.node) == Receipt(
        mesh=MESH,
        node=MASTER.node,
        to=ALICE.node,
        items=items,
    )
