"""What masters and workers say to each other: what bounds it, and what a worker that knows less makes of it."""

import msgspec
import pytest

from p2pq.model.ids import LeaseId
from p2pq.wire import messages as msg
from p2pq.wire.objects import ITEMS_MAX
from p2pq.wire.work import HOPS_MAX, LEASES_MAX, PLACES_MAX, Beat, Granted, Holding, Place, Request, ReturnItem

NODE = b"n" * 32
ASKS = {"type": "rq", "nonce": bytes(16), "owner": "a", "cpus": 1}


def decoded(message: object) -> msg.Message:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=msg.Message)


def test_what_is_not_said_costs_nothing() -> None:
    plain = msgspec.msgpack.decode(msgspec.msgpack.encode(Request(nonce=bytes(16), owner="a", cpus=1)))
    assert plain == ASKS
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(Granted(grant=b"g"))) == {"type": "gr", "grant": b"g"}


@pytest.mark.parametrize(
    "message",
    [
        Request(nonce=bytes(16), owner="a", cpus=2, places=(Place(NODE, 1), Place(NODE, 1, 512, 1))),
        Granted(grant=b"g", subs=(b"s",) * HOPS_MAX, keys=((NODE, b"k"),), avoid=((LeaseId(1, 2), NODE),)),
        Holding(leases=(LeaseId(1, 2), LeaseId(3, 4))),
    ],
)
def test_what_is_said_is_heard(message: msg.Message) -> None:
    assert decoded(message) == message


@pytest.mark.parametrize(
    "message",
    [
        {**ASKS, "places": [[NODE, 1]] * (PLACES_MAX + 1)},
        {**ASKS, "places": [[bytes(31), 1]]},
        {**ASKS, "places": [[NODE, -1]]},
        {**ASKS, "tasks_max": ITEMS_MAX + 1},
        {"type": "gr", "grant": b"g", "subs": [b"s"] * (HOPS_MAX + 1)},
        {"type": "gr", "grant": b"g", "keys": [[NODE, b"k"]] * (PLACES_MAX + 1)},
        {"type": "gr", "grant": b"g", "avoid": [[[1, 2], bytes(31)]]},
        {"type": "ho", "leases": [[1, 1]] * (LEASES_MAX + 1)},
    ],
)
def test_out_of_bounds_dies_at_the_edge(message: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoded(message)


def test_most_beats_say_no_more_than_their_lease() -> None:
    assert (Beat(LeaseId(1, 2)).running, Beat(LeaseId(1, 2)).progress) == (True, -1)
    assert ReturnItem(LeaseId(1, 2), "late").detail == ""
