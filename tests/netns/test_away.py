"""The small version of ``python -m tests.netns.away``: short absences, short leases."""

from pathlib import Path

from tests.netns import away
from tests.netns.lan import Lan

AWAY_S = 6.0
LEASE_S = 6.0


def test_the_owners_node_is_away(lan: Lan, tmp_path: Path) -> None:
    hosts = away.mesh(lan, 60.0)
    assert away.owner_away(hosts, tmp_path / "killed", AWAY_S, away.kill) == []
    assert away.owner_away(hosts, tmp_path / "ended", AWAY_S, away.end) == []


def test_a_node_is_stopped_for_two_leases(lan: Lan, tmp_path: Path) -> None:
    hosts = away.mesh(lan, LEASE_S)
    assert away.worker_stopped(hosts, tmp_path / "worker", 2 * LEASE_S + 1, LEASE_S) == []
    assert away.owner_stopped(hosts, tmp_path / "owner", 2 * LEASE_S + 1) == []
