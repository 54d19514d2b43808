"""Nodes with real links on 127.0.0.1, for tests."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from p2pq.core.events import DialFailed, Event, LinkUp
from p2pq.daemon.gate import GateLimits
from p2pq.daemon.home import Home
from p2pq.daemon.identity import NodeKeys, load_or_create
from p2pq.daemon.link import LinkLimits
from p2pq.daemon.links import Links
from p2pq.model.ids import NodeId, Wall
from p2pq.model.notice import Notice
from p2pq.wire import trust
from p2pq.wire.messages import ServiceMessage

E = TypeVar("E")

OPEN_GATE = GateLimits(source_burst=1000, source_rate=1000, rate=1000, burst=1000)


def free_address() -> str:
    """Return an address that nobody listens on: port 0 would take 9476 first, as every other node of these tests does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "{}:{}".format(*probe.getsockname())


def wall() -> Wall:
    return Wall(int(time.time() * 1000))


def keys_at(path: Path, name: str = "ant", at: Wall | None = None) -> NodeKeys:
    home = Home.open(path, environ={"P2PQ_ALLOW_ROOT": "1"})
    return load_or_create(home, name, at or wall(), os.urandom, owner="ann")


def admit(admin: NodeKeys, joiner: NodeKeys, caps: tuple[Any, ...] = ("submit", "work")) -> None:
    subject = trust.Subject(node=joiner.node, name=joiner.cert.name, owner="bob", caps=caps)
    chain = admin.issue(subject, wall())
    joiner.adopt(name=admin.state.name, root=admin.state.root, certs=chain, psks=admin.state.psks, wall=wall())


def members(tmp_path: Path, count: int) -> list[NodeKeys]:
    """Make nodes of one mesh; the first is its founder."""
    keys = [keys_at(tmp_path / f"n{i}", f"n{i}") for i in range(count)]
    for joiner in keys[1:]:
        admit(keys[0], joiner)
    return keys


class Node:
    """A node's links, and everything that they said."""

    def __init__(self, keys: NodeKeys, group: asyncio.TaskGroup, **options: Any) -> None:
        self.keys = keys
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.services: asyncio.Queue[tuple[NodeId, ServiceMessage]] = asyncio.Queue()
        self.notices: asyncio.Queue[Notice] = asyncio.Queue()
        self.duplicates: asyncio.Queue[str] = asyncio.Queue()
        settings: dict[str, Any] = {
            "post": self.events.put_nowait,
            "service": lambda peer, message: self.services.put_nowait((peer, message)),
            "notice": self.notices.put_nowait,
            "on_duplicate_key": self.duplicates.put_nowait,
            "wall": wall,
            "listen": "127.0.0.1:0",
            "gate_limits": OPEN_GATE,
            "limits": LinkLimits(close_s=0.2),
        }
        self.links = Links(keys, group, **(settings | options))

    @property
    def id(self) -> NodeId:
        return self.keys.node

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.links.port}"

    async def event(self, kind: type[E]) -> E:
        """Wait for the next event, which must be of this kind."""
        async with asyncio.timeout(60):
            got = await self.events.get()
        assert isinstance(got, kind), got
        return got


@asynccontextmanager
async def running(*makes: Callable[[asyncio.TaskGroup], Node]) -> AsyncIterator[list[Node]]:
    """Start nodes; stop them all at the end."""
    async with asyncio.TaskGroup() as group:
        nodes = [make(group) for make in makes]
        try:
            for node in nodes:
                await node.links.start()
            yield nodes
        finally:
            for node in nodes:
                await node.links.close()


def node(keys: NodeKeys, **options: Any) -> Callable[[asyncio.TaskGroup], Node]:
    return lambda group: Node(keys, group, **options)


async def link_up(one: Node, two: Node) -> tuple[LinkUp, LinkUp]:
    """Let one dial two; return what each was told."""
    one.links.dial(two.address)
    return await one.event(LinkUp), await two.event(LinkUp)


async def refused(dialler: Node, address: str) -> str:
    """Dial in vain; return the reason."""
    dialler.links.dial(address)
    failed = await dialler.event(DialFailed)
    assert failed.address == address
    return failed.reason
