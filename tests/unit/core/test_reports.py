"""What is said in parts, and what becomes of results that nobody acknowledges; the rest is tested through the worker."""

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import kept as kept_module
from p2pq.core import reports
from p2pq.core.events import Drain
from p2pq.core.records import ResultReleased
from p2pq.model.ids import LeaseId, Wall
from p2pq.model.notice import KeptForgotten
from p2pq.wire import messages as msg
from tests.unit.core.workerkit import (
    ANN,
    BOB,
    IDENTITY,
    OFFER,
    PROFILE,
    WALL,
    Bench,
    granted,
    item,
    kept,
    receipted,
    result_item,
    send,
)


def full() -> Bench:
    bench = Bench()
    bench.join(ANN, offer=msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, slots=3)))
    bench.work()
    bench.says(granted((item(1), item(2), item(3))))
    return bench


def test_a_long_heartbeat_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "LEASES_MAX", 2)
    beats = [msg.Beat(item(number).lease, running=False) for number in (1, 2, 3)]
    assert full().tick(after=15.0) == [
        send(msg.Heartbeat(beats=tuple(beats[:2]))),
        send(msg.Heartbeat(beats=tuple(beats[2:]))),
    ]


def test_a_long_return_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "ITEMS_MAX", 2)
    effects = full().do(Drain(now=True))
    sizes = [len(each.message.items) for each in effects if isinstance(getattr(each, "message", None), msg.Return)]
    assert sizes == [2, 1]


def test_a_master_that_acknowledges_nothing_is_asked_for_nothing_over_its_next_link_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_module, "KEPT_MAX", 1)
    bench = Bench(kept(result_item(item(1))))
    bench.join(ANN)
    assert bench.work() == []
    assert bench.says(receipted(item(1).lease))[-1] == bench.asks(1)


def test_what_nobody_came_for_is_forgotten_and_said() -> None:
    bench = Bench(kept(result_item(item(1)), result_item(item(2))))
    bench.join(BOB)
    assert bench.worker.forget_old(WALL) == []
    assert bench.worker.forget_old(Wall(WALL + 1)) == [
        fx.Record(row=ResultReleased(lease=LeaseId(1, 1), master=ANN.node)),
        fx.Release(lease=LeaseId(1, 1), master=ANN.node),
        fx.Record(row=ResultReleased(lease=LeaseId(1, 2), master=ANN.node)),
        fx.Release(lease=LeaseId(1, 2), master=ANN.node),
        fx.Emit(notice=KeptForgotten(master=ANN.node, results=2)),
    ]
    assert bench.worker.kept() == ()


def test_what_comes_of_a_way_are_new_grants_and_receipts_for_what_waits() -> None:
    bench = Bench()
    voice = bench.worker.voice
    assert not voice.waits(ANN.node, bench.now)
    assert voice.brought(ANN.node) is None
    bench.join(ANN)
    bench.work()
    assert voice.waits(ANN.node, bench.now)
    assert voice.brought(ANN.node) is None, "to say that there is work proves nothing"
    bench.says(granted((item(1), item(2))), after=1.0)
    assert voice.brought(ANN.node) == 1.0
    assert voice.keeps(ANN.node, bench.now)
    assert not voice.waits(ANN.node, bench.now), "there is no room"
    bench.exited(item(1), after=1.0)
    bench.says(receipted(item(9).lease))
    assert voice.brought(ANN.node) == 1.0
    bench.says(receipted(item(1).lease))
    assert voice.brought(ANN.node) == 2.0
    bench.exited(item(2))
    assert not voice.keeps(ANN.node, bench.now)


@pytest.mark.parametrize("why", ["no guests", "no worker", "going down"])
def test_who_takes_no_guests_misses_nothing(why: str) -> None:
    caps = ("submit",) if why == "no worker" else IDENTITY.caps
    bench = Bench(identity=msgspec.structs.replace(IDENTITY, caps=caps))
    profile = msgspec.structs.replace(PROFILE, accepts=why != "no guests")
    bench.join(ANN, offer=msgspec.structs.replace(OFFER, profile=profile))
    if why == "going down":
        assert bench.worker.voice.waits(ANN.node, bench.now)
        bench.do(Drain())
    assert not bench.worker.voice.waits(ANN.node, bench.now)


def test_a_way_over_which_results_go_and_no_receipts_come_is_not_good_for_its_grants() -> None:
    bench = Bench()
    bench.join(ANN)
    bench.work()
    bench.says(granted((item(1), item(2))))
    bench.exited(item(1))
    bench.tick(after=kept_module.RESEND_S - 1)
    assert bench.worker.voice.keeps(ANN.node, bench.now)
    bench.tick(after=1.0)
    assert not bench.worker.voice.keeps(ANN.node, bench.now)
    assert bench.worker.voice.waits(ANN.node, bench.now)
    bench.says(granted((item(3),), number=bench.numbers))
    assert bench.worker.voice.brought(ANN.node) == 0.0
