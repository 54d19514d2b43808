"""A bridge answers its leaves: what waits, what is given, who is told that there is nothing."""

import pytest

from p2pq.core import effects as fx
from p2pq.core import serving
from p2pq.core.announcer import WAVE, WAVE_S
from p2pq.core.stock import GATHER_S
from p2pq.wire import messages as msg
from tests.unit.core.stockkit import (
    ANN,
    CARD,
    LEA,
    LEO,
    Bench,
    asks,
    down,
    granted,
    link,
    master,
    of,
    parcel,
    smaller,
    worker,
)
from tests.unit.core.workerkit import PROFILE, Member, item, job_id, manifest, nonce

ONE, TWO, THREE = item(1), item(2, task=1), item(3, task=2)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.ready(LEA, LEO)
    return bench


def nothing(leaf, number: int, counter: int = 1, wide=(0, 0, 0)) -> fx.Send:
    return down(leaf, msg.Nothing(nonce=nonce(number), owner="ann", counter=counter, wide=wide))


def test_a_request_that_cannot_be_served_waits_for_a_while(bench: Bench) -> None:
    assert bench.leaf(LEA, asks(1)) == []
    assert nothing(LEA, 1) not in bench.tick(after=serving.HOLD_S / 2)
    assert nothing(LEA, 1) in bench.tick(after=serving.HOLD_S / 2)


def test_a_request_waits_for_well_under_the_time_in_which_it_lapses() -> None:
    bench = Bench(request_s=0.5)
    bench.ready(LEA)
    bench.leaf(LEA, asks(1))
    assert nothing(LEA, 1) not in bench.tick(after=0.35)
    assert nothing(LEA, 1) in bench.tick(after=0.025)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [(asks(1), "repeated request"), (asks(2, owner="bob"), "request for another owner")],
)
def test_a_request_is_made_once_and_of_the_master_that_has_the_work(
    bench: Bench, request_: msg.Request, reason: str
) -> None:
    bench.leaf(LEA, asks(1))
    assert bench.leaf(LEA, request_) == [fx.Drop(peer=LEA.node, reason=reason)]


def test_a_leaf_has_not_too_many_requests_open(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "OPEN_MAX", 2)
    bench.leaf(LEO, asks(1))
    bench.leaf(LEA, asks(1))
    bench.leaf(LEA, asks(2))
    assert bench.leaf(LEA, asks(3)) == [nothing(LEA, 1)]


def test_who_cannot_be_spoken_for_or_asks_for_nothing_need_not_wait(bench: Bench) -> None:
    assert bench.leaf(LEA, asks(1, cpus=0)) == [nothing(LEA, 1)]
    assert bench.leaf(LEA, asks(2, cpus=0, ahead=((job_id(), 1),))) == []
    lou = Member("lou")
    bench.do(worker(lou))
    assert bench.leaf(lou, asks(3)) == [nothing(lou, 3)]
    bench.leaf(lou, msg.ProfileIs(profile=PROFILE))
    assert bench.leaf(lou, asks(4)) == [nothing(lou, 4, counter=2)]


def test_who_has_waited_longest_is_served_first_and_only_then_others_ahead(bench: Bench) -> None:
    bench.leaf(LEO, asks(1, ahead=((job_id(), 5),), tasks_max=9))
    bench.leaf(LEA, asks(2))
    bench.flush()
    grant = granted(tuple(item(number, task=number) for number in range(5)), number=1)
    items = [item(number, task=number) for number in range(5)]
    assert bench.master(grant) == [
        down(LEO, parcel(LEO, grant, 1, *items[:3])),
        down(LEA, parcel(LEA, grant, 2, *items[3:])),
    ]


def test_what_nobody_else_needs_is_given_ahead(bench: Bench) -> None:
    bench.leaf(LEA, asks(1, ahead=((job_id(), 5),), tasks_max=9))
    bench.flush()
    grant = granted((ONE, TWO, THREE), number=1)
    assert bench.master(grant) == [down(LEA, parcel(LEA, grant, 1, ONE, TWO, THREE))]


def test_a_leaf_offers_no_more_than_it_has(bench: Bench) -> None:
    bench.leaf(LEA, msg.ProfileIs(profile=smaller(slots=1, memory_mb=5, gpus=0)))
    bench.leaf(LEA, asks(1))
    (request,) = of(bench.flush(), msg.Request)
    assert request.places == (msg.Place(LEA.node, 1, 5, 0),)


def test_the_manifests_that_a_leaf_has_are_remembered_within_bounds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SENT_MAX", 1)
    for number, job, known in ((1, 1, False), (2, 2, False), (3, 1, False), (4, 1, True)):
        bench.leaf(LEA, asks(number))
        bench.flush()
        (message,) = of(bench.master(granted((item(number),), number=number, of=manifest(ANN, job))), msg.Granted)
        assert (message.manifest == b"") is known


def test_one_leaf_that_is_large_enough_keeps_room_for_a_wide_task(bench: Bench) -> None:
    bench.leaf(LEA, msg.ProfileIs(profile=smaller(slots=1)))
    for leaf, number in ((LEA, 1), (LEO, 2), (LEO, 3)):
        bench.leaf(leaf, asks(number, cpus=1))
    bench.flush()
    wide = (2, 0, 0)
    said = of(bench.master(msg.Nothing(nonce=nonce(1), owner="ann", counter=1, wide=wide)), msg.Nothing)
    assert [each.wide for each in said] == [(0, 0, 0), wide, (0, 0, 0)]


def test_a_crowd_is_woken_in_waves() -> None:
    bench = Bench()
    bench.do(master())
    for number in range(40):
        bench.join(Member(f"leaf {number}"))
    bench.tick(after=GATHER_S)
    assert len(of(bench.work(), msg.HasWork)) == WAVE
    assert len(of(bench.tick(after=WAVE_S), msg.HasWork)) == 40 - WAVE


def test_a_leaf_is_introduced_when_all_is_known_of_it() -> None:
    peer = serving.Peer(link(LEA))
    leaf = serving.Leaf(peer)
    assert leaf.introduction() is None
    leaf.profile = PROFILE
    assert leaf.introduction() is None
    peer.card = CARD
    assert leaf.introduction() is None
    leaf.mandate = b"word"
    assert leaf.introduction() == msg.Leaf(certs=link(LEA).certs, card=CARD, profile=PROFILE, mandate=b"word")
    leaf.peer = serving.Peer(link(LEA, certs=()), CARD)
    assert leaf.introduction() is None
