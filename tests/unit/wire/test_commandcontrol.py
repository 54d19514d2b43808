"""What the local API is asked about commands: as it travels."""

import msgspec
import pytest

from p2pq.model.sources import SOURCES_MAX, Source
from p2pq.wire.commandcontrol import Ends, SubmitCommands, TaskEnded
from p2pq.wire.control import ControlRequest, Reply

ASKED = SubmitCommands(
    words=("echo", "{}"), sources=(Source(("a", "b", "c", "d"), 2),), cwd="/", environment=b"A=\xff\0"
)


@pytest.mark.parametrize("message", [ASKED, Ends(job="abcd", live=True), Ends(job="abcd", views=True)])
def test_requests_come_back(message):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=ControlRequest) == message


def test_an_end_comes_back():
    told = TaskEnded(task=3, state="failed", exit=7, started=1 << 40, seconds=0.5, printed=(1, 2))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Reply) == told


@pytest.mark.parametrize("fields", [{"cwd": ""}, {"umask": -1}, {"sources": (Source(("a",)),) * (SOURCES_MAX + 1)}])
def test_limits_are_checked(fields):
    raw = msgspec.msgpack.encode(msgspec.structs.replace(ASKED, **fields))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=ControlRequest)
