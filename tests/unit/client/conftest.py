"""What tests of clients share."""

import pytest

from tests.unit.client.nodekit import Node


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Give a node that plays as told."""
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    with Node(tmp_path / "home") as found:
        yield found
