"""The manifests of a master are kept within bounds; the checks of a grant are tested through the worker."""

import msgspec
import pytest

from p2pq.core import grants
from p2pq.core.grants import Declined, Master, admit, manifest_of, open_grant
from p2pq.errors import Reject
from p2pq.model.ids import Wall
from p2pq.wire import sign
from p2pq.wire.objects import Checkpoint, Grant
from tests.unit.core.workerkit import (
    ANN,
    BOB,
    IDENTITY,
    PROFILE,
    WALL,
    checkpoint,
    granted,
    item,
    job_id,
    manifest,
)


def master() -> Master:
    return Master(ANN.node, "ann", ("submit",), 2, mesh=IDENTITY.mesh, claimed="ann")


def learn(known: Master, number: int, *, sent: bool = False):
    job = manifest(number=number)
    message = granted((item(1),), of=job, sent=sent)
    grant = sign.open_signed(message.grant, Grant, ANN.node)
    return manifest_of(grant, message, known, IDENTITY.node, WALL)


def test_the_least_recently_used_manifest_goes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grants, "MANIFESTS_MAX", 2)
    known = master()
    learn(known, 1)
    learn(known, 2)
    assert learn(known, 1, sent=True) == manifest(number=1)
    learn(known, 3)
    assert learn(known, 2, sent=True) == Declined("no-manifest", "")
    assert learn(known, 1, sent=True) == manifest(number=1)
    assert known.manifests.keys() == known.sizes.keys()


def test_long_manifests_are_bounded_in_sum(monkeypatch: pytest.MonkeyPatch):
    known = master()
    learn(known, 1)
    monkeypatch.setattr(grants, "MANIFEST_BYTES_SUM_MAX", 3 * next(iter(known.sizes.values())) // 2)
    learn(known, 2)
    assert learn(known, 1, sent=True) == Declined("no-manifest", "")


def test_who_may_not_give_work_is_refused():
    known = msgspec.structs.replace(master(), caps=("work",))
    with pytest.raises(Reject, match="may not give work"):
        open_grant(granted((item(1),)), known, IDENTITY)


@pytest.mark.parametrize(("late_ms", "ok"), [(360_000, True), (360_001, False)])
def test_two_clocks_may_differ_by_five_minutes(late_ms, ok):
    grant = sign.open_signed(granted((item(1),)).grant, Grant, ANN.node)
    verdict = admit(grant, manifest(), PROFILE, IDENTITY, Wall(WALL + late_ms), own=False)
    assert (verdict == manifest()) is ok


def enclosed(*checkpoints: bytes) -> grants.Enclosed:
    message = granted((item(1), item(2, 7)), blobs=(b"small",), checkpoints=checkpoints)
    return grants.open_enclosed(open_grant(message, master(), IDENTITY), message, master(), IDENTITY)


def test_checkpoints_come_with_their_grant():
    raw = checkpoint(item(2, 7))
    found = enclosed(raw)
    assert found.blobs == (b"small",)
    assert found.checkpoints == {item(2).lease: sign.open_signed(raw, Checkpoint, ANN.node)}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (checkpoint(item(1), signer=BOB), "bad signature"),
        (checkpoint(item(1), mesh=b"x" * 32), "not between these two nodes"),
        (checkpoint(item(1), node=BOB.node), "not between these two nodes"),
        (checkpoint(item(1), to=BOB.node), "not between these two nodes"),
        (checkpoint(item(1), job=job_id(9)), "not of that grant"),
        (checkpoint(item(1, 7)), "not of that grant"),
        (checkpoint(item(9)), "not of that grant"),
        (b"", "malformed"),
    ],
)
def test_a_checkpoint_that_is_not_the_masters_word_on_this_grant_is_refused(raw, why):
    with pytest.raises(Reject, match=why):
        enclosed(raw)


def test_one_attempt_starts_once():
    with pytest.raises(Reject, match="twice"):
        enclosed(checkpoint(item(1)), checkpoint(item(1)))
