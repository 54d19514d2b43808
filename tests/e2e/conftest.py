"""Nodes for end-to-end tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lab


@pytest.fixture
def host(tmp_path):
    """Give one host whose node runs."""
    with lab.hosts(tmp_path, ["home"]) as [found]:
        found.start()
        yield found


@pytest.fixture
def pair(tmp_path):
    """Give two hosts of one mesh, linked."""
    with lab.hosts(tmp_path, ["alice", "bob"]) as found:
        alice, bob = found
        alice.start("--name", "alice")
        bob.start("--name", "bob")
        code = alice.ok("invite").split()[0]
        bob.ok("join", code, "--at", alice.address, "--yes")
        lab.until(lambda: any(peer["state"] == "up" for peer in alice.json("peers")), "bob is linked")
        yield found
