"""What outlives a generation."""

from types import SimpleNamespace
from typing import Any

import pytest

from p2pq.daemon.lasting import Lasting


@pytest.mark.parametrize(
    ("told", "caps", "bridging"),
    [(True, ("bridge", "work"), True), (True, ("work",), False), (False, ("bridge",), False)],
)
def test_a_bridge_is_one_that_is_told_to_and_may(told: bool, caps: tuple[str, ...], bridging: bool) -> None:
    anything: Any = None
    lasting = Lasting(
        home=anything,
        settings=SimpleNamespace(bridge=SimpleNamespace(enabled=told)),  # type: ignore[arg-type]
        keys=SimpleNamespace(cert=SimpleNamespace(caps=caps)),  # type: ignore[arg-type]
        telemetry=anything,
        machine=anything,
        owner=anything,
        python=anything,
        listen="",
        mono=anything,
        wall=anything,
        boot=None,
        restart=anything,
        stop=anything,
    )
    assert lasting.bridging is bridging
