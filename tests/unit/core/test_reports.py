"""What is said in parts where it is too long for one message; the rest is tested through the worker."""

import msgspec
import pytest

from p2pq.core import reports
from p2pq.core.events import Drain
from p2pq.wire import messages as msg
from tests.unit.core.workerkit import ANN, OFFER, PROFILE, Bench, granted, item, send


def full() -> Bench:
    bench = Bench()
    bench.join(ANN, offer=msgspec.structs.replace(OFFER, profile=msgspec.structs.replace(PROFILE, slots=3)))
    bench.work()
    bench.says(granted((item(1), item(2), item(3))))
    return bench


def test_a_long_heartbeat_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "LEASES_MAX", 2)
    beats = [msg.Beat(item(number).lease) for number in (1, 2, 3)]
    assert full().tick(after=15.0) == [
        send(msg.Heartbeat(beats=tuple(beats[:2]))),
        send(msg.Heartbeat(beats=tuple(beats[2:]))),
    ]


def test_a_long_return_goes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "ITEMS_MAX", 2)
    effects = full().do(Drain(now=True))
    sizes = [len(each.message.items) for each in effects if isinstance(getattr(each, "message", None), msg.Return)]
    assert sizes == [2, 1]
