"""What the local API is asked about results: as it travels."""

import msgspec
import pytest

from p2pq.wire.control import ControlRequest, Reply
from p2pq.wire.resultcontrol import Results, Wrote


def test_they_come_back():
    asked, told = Results(job="abcd", to="/x"), Wrote(folder="/x", tasks=3)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(asked), type=ControlRequest) == asked
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(told), type=Reply) == told


def test_a_job_has_a_name():
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(Results(job="")), type=ControlRequest)
