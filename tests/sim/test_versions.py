"""Hosts of an older minor version among newer ones: nothing that they do not know is said to them, and all promises hold."""

import msgspec
import pytest

from p2pq.wire.messages import MINOR, SINCE, Request
from simulations import play as module
from simulations.play import Play, play
from simulations.scenarios import SCENARIOS


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every second host speak minor version 1."""
    real = Play._plan

    def plan(self, index, rng):
        return msgspec.structs.replace(real(self, index, rng), minor=1 if index % 2 else MINOR)

    monkeypatch.setattr(module.Play, "_plan", plan)


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("scenario", ["swarm", "crashes", "partitions"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_mesh_of_two_versions_keeps_all_promises(scenario, seed):
    report = play(SCENARIOS[scenario], seed, nodes=8, tasks=60)  # judges by itself
    assert report.settled > 0


@pytest.mark.usefixtures("mixed")
def test_what_is_too_new_for_a_link_is_found(monkeypatch):
    monkeypatch.setitem(SINCE, Request, MINOR)
    with pytest.raises(AssertionError, match=r"^Request is too new for this link"):
        play(SCENARIOS["clean"], 1, nodes=8, tasks=60)
