"""The parts of what a node says of itself; their keys are a contract with scripts."""

import msgspec
import pytest

from p2pq.wire import parts
from tests.samples import smallest


@pytest.mark.parametrize(
    ("part", "keys"),
    [
        (parts.PolicyView, "state reason"),
        (parts.RunningView, "job task owner node seconds own state progress"),
        (parts.KeptView, "owner node results bytes oldest_s full"),
        (parts.KeptLimits, "results bytes days"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_part_always_prints_the_promised_keys(part, keys):
    assert set(msgspec.to_builtins(smallest(part))) == set(keys.split())
