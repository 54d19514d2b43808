"""What the local API is asked about commands: as it travels."""

import msgspec
import pytest

from p2pq.model.sources import SOURCES_MAX, Source
from p2pq.wire.commandcontrol import PIECE_BYTES_MAX, Ends, KeepInput, SubmitCommands, TaskEnded
from p2pq.wire.control import ControlRequest, Reply

ASKED = SubmitCommands(
    words=("echo", "{}"),
    sources=(Source(("a", "b", "c", "d"), 2),),
    cwd="/",
    environment=b"A=\xff\0",
    skipped=((0, 1),),
)


FED = msgspec.structs.replace(ASKED, stdin=(1, 0, 1 << 40), upload=b"u" * 16)
PIECE = KeepInput(upload=b"u" * 16, data=b"x")


@pytest.mark.parametrize(
    "message",
    [ASKED, FED, PIECE, Ends(job="abcd", live=True), Ends(job="abcd", views=True, written=True)],
)
def test_requests_come_back(message):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=ControlRequest) == message


def test_an_end_comes_back():
    told = TaskEnded(task=3, state="failed", exit=7, started=1 << 40, seconds=0.5, printed=(1, 2))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Reply) == told


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (ASKED, {"cwd": ""}),
        (ASKED, {"umask": -1}),
        (ASKED, {"skipped": ((-1, 2),)}),
        (ASKED, {"sources": (Source(("a",)),) * (SOURCES_MAX + 1)}),
        (ASKED, {"stdin": (-1,)}),
        (ASKED, {"upload": b"short"}),
        (PIECE, {"upload": b""}),
        (PIECE, {"data": b""}),
        (PIECE, {"data": bytes(PIECE_BYTES_MAX + 1)}),
    ],
)
def test_limits_are_checked(message, fields):
    raw = msgspec.msgpack.encode(msgspec.structs.replace(message, **fields))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(raw, type=ControlRequest)
