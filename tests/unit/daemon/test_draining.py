"""A node that goes down waits for what runs, not for ever, and says what is left in the end."""

import asyncio

import pytest

from p2pq.core.events import Drain
from p2pq.daemon import draining
from p2pq.errors import StorageError


class Node:
    """A core that is busy until it has heard so many events."""

    def __init__(self, busy_for=0, error=None):
        self.heard, self.busy_for, self.error = [], busy_for, error
        self.flushed = 0

    @property
    def busy(self):
        return len(self.heard) < self.busy_for

    owes = False

    async def post_durable(self, event):
        self.heard.append(event)
        if self.error:
            raise self.error
        return []

    async def flush(self):
        self.flushed += 1


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setattr(draining, "LET_FINISH_S", 0.02)
    monkeypatch.setattr(draining, "SAVE_S", 0.02)
    monkeypatch.setattr(draining, "LOOK_S", 0.001)


async def test_what_runs_may_end_then_may_leave_a_checkpoint_then_the_rest_is_handed_back(hurry):
    node = Node(busy_for=9)
    await draining.drain(node, node, at_once=False)
    assert node.heard == [Drain(), Drain(save_s=draining.SAVE_GRACE_S), Drain(now=True)]
    assert node.flushed == 1


async def test_nobody_waits_for_a_node_that_does_nothing(monkeypatch):
    monkeypatch.setattr(draining, "LET_FINISH_S", 1000.0)
    monkeypatch.setattr(draining, "SAVE_S", 1000.0)
    node = Node()
    async with asyncio.timeout(60):
        await draining.drain(node, node, at_once=False)
    assert len(node.heard) == 3


async def test_at_once_means_at_once():
    node = Node(busy_for=9)
    await draining.drain(node, node, at_once=True)
    assert (node.heard, node.flushed) == ([Drain(now=True)], 1)


async def test_a_broken_disk_does_not_keep_it_up():
    node = Node(error=StorageError("no disk"))
    await draining.drain(node, node, at_once=False)
    assert (len(node.heard), node.flushed) == (3, 0)
