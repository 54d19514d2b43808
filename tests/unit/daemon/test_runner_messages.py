"""What a runner says is bounded in every respect, as a task may have taken it over."""

import json

import msgspec
import pytest

from p2pq.daemon.runner_messages import TRAIN_MAX, Did, End, Exited, decode
from p2pq.runner.main import PRINTED_MAX, TEXT_CHARS_MAX

END = [1, 0, 0, 0.5, 10, 0.25, 0.125, "b3V0", "ZXJy"]


def did(**fields: object) -> bytes:
    return json.dumps({"op": "did", "id": 3, "ends": [END], **fields}).encode()


def test_ends_are_told_with_what_was_printed():
    end = End(1, 0, 0, 0.5, 10, 0.25, 0.125, b"out", b"err")
    assert decode(did()) == Did(id=3, ends=(end,))
    assert decode(did(over=True, pid=7, dirty="", large=False)) == Did(id=3, ends=(end,), over=True, pid=7)


def test_an_end_alone_is_as_before():
    said = {
        "op": "exited",
        "id": 1,
        "exit": 0,
        "signal": None,
        "seconds": 1.0,
        "max_rss": 5,
        "utime": 0.0,
        "stime": 0.0,
    }
    assert isinstance(decode(json.dumps(said).encode()), Exited)


@pytest.mark.parametrize(
    "fields",
    [
        {"ends": [END] * (TRAIN_MAX + 1)},
        {"ends": [END[:-1]]},
        {"ends": [[256, *END[1:]]]},
        {"ends": [[0, 65, *END[2:]]]},
        {"ends": [[0, 0, 4096, *END[3:]]]},
        {"ends": [[*END[:7], "A" * (PRINTED_MAX * 4 // 3 + 8), ""]]},
        {"ends": [[*END[:7], "not base64!", ""]]},
        {"pid": 0},
        {"dirty": "x" * (TEXT_CHARS_MAX + 1)},
        {"more": 1},
        {"id": -1},
    ],
)
def test_what_is_out_of_bounds_is_no_message(fields: dict[str, object]):
    with pytest.raises(msgspec.MsgspecError):
        decode(did(**fields))
