"""What is said of other meshes over the local API is part of the local API; the rest is checked with ``control``."""

import msgspec
import pytest

from p2pq.wire import control, peercontrol
from tests.samples import unions


def test_all_of_it_is_a_request_or_a_reply():
    defined = {
        value
        for value in vars(peercontrol).values()
        if isinstance(value, type) and issubclass(value, peercontrol.Said) and value is not peercontrol.Said
    }
    assert defined <= {*unions(control.ControlRequest), *unions(control.Reply)}


@pytest.mark.parametrize("caps", [("admin",), ("submit", "nothing")])
def test_a_capability_that_no_peering_gives_is_refused(caps):
    raw = msgspec.msgpack.encode({"type": "PeerOffer", "mesh": "m", "ours": ["work"], "theirs": caps, "life_s": 1})
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=control.ControlRequest)
