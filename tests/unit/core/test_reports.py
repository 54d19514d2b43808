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
