"""The local API: one request and one reply union, tagged by class name; views print what scripts were promised."""

import msgspec
import pytest

from p2pq.wire import control, peercontrol
from p2pq.wire.control import ControlRequest, Reply
from tests.samples import fullest, smallest, unions

REQUESTS = unions(ControlRequest)
REPLIES = unions(Reply)
BASES = (control._Said, peercontrol.Said)


def test_everything_said_is_a_request_a_reply_or_the_greeting():
    defined = {
        value
        for value in vars(control).values()
        if isinstance(value, type) and issubclass(value, BASES) and value not in BASES
    }
    assert defined == {*REQUESTS, *REPLIES, control.Hello}
    assert set(REQUESTS) & set(REPLIES) == set()


@pytest.mark.parametrize("kind", [*REQUESTS, *REPLIES, control.Hello], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("make", [smallest, fullest])
def test_what_is_said_is_heard(kind, make):
    said = make(kind)
    union = ControlRequest if kind in REQUESTS else Reply if kind in REPLIES else control.Hello
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(said), type=union) == said


@pytest.mark.parametrize(
    ("view", "keys"),
    [
        ("JobView", "job name owner state tasks attempts submitted finished results"),
        ("Counts", "total pending running done failed cancelled"),
        ("TaskView", "task state params node via attempt attempts exit signal seconds max_rss reason"),
        ("PeerView", "id name address state rtt_ms slots free has_work mesh via"),
        ("StatusView", "id name mesh version address slots free policy running peers queued sandbox"),
        ("PolicyView", "state reason"),
    ],
)
def test_a_view_always_prints_the_promised_keys(view, keys):
    """The JSON of the command line is a contract: keys stay, also where a value is unknown."""
    printed = msgspec.to_builtins(smallest(getattr(control, view)))
    assert printed.keys() >= set(keys.split())


@pytest.mark.parametrize(
    ("view", "states"),
    [
        ("JobView", {"queued", "running", "done", "failed", "cancelled"}),
        ("PeerView", {"up", "connecting", "down", "untrusted", "refused"}),
    ],
)
def test_a_state_is_one_of_the_promised_words(view, states):
    kind = getattr(control, view)
    raw = msgspec.to_builtins(smallest(kind))
    for state in states:
        assert msgspec.convert({**raw, "state": state}, kind).state == state
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**raw, "state": "odd"}, kind)
