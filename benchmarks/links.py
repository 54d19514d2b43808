"""A link between two processes on loopback: how long until it stands, and how long a message takes there and back."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.nodes import ROOT
from p2pq.core.events import DialFailed, Event, LinkDown, LinkUp
from p2pq.daemon.gate import GateLimits
from p2pq.daemon.home import Home
from p2pq.daemon.identity import NodeKeys, load_or_create
from p2pq.daemon.links import Links
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import trust
from p2pq.wire.messages import LogData, ServiceMessage

HANDSHAKE_GOAL_MS: Final = 5.0
ROUND_TRIP_GOAL_US: Final = 150.0
HANDSHAKES: Final = 40
"""Per run; the run's figure is their median."""
ROUND_TRIPS: Final = 2000
MESSAGE_BYTES: Final = 200
ANSWER_S: Final = 10.0
# The door lets a stranger in twice a second; a benchmark that dials all the time would only measure that.
OPEN_GATE: Final = GateLimits(source_burst=1e6, source_rate=1e6, rate=1e6, burst=1e6)


def run(base: Path, runs: int) -> list[Figure]:
    """Measure."""
    asker, answerer = _members(base)
    del asker
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "P2PQ_ALLOW_ROOT": "1"}
    command = [sys.executable, "-m", "benchmarks.links", str(answerer)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address, bare = process.stdout.readline().split()
        try:
            handshakes, trips, raw = asyncio.run(_ask(_keys(base / "asker"), address, int(bare), runs))
        finally:
            process.terminate()
    return [
        Figure(name="link handshake", unit="ms", samples=tuple(handshakes), goal=HANDSHAKE_GOAL_MS, note="loopback"),
        Figure(
            name="encrypted round trip",
            unit="us",
            samples=tuple(trips),
            goal=ROUND_TRIP_GOAL_US,
            note=f"{MESSAGE_BYTES} bytes each way",
        ),
        Figure(name="bare TCP round trip", unit="us", samples=tuple(raw), note="asyncio streams, the same bytes"),
        Figure(
            name="encrypted over bare round trip",
            unit="x",
            samples=tuple(trip / plain for trip, plain in zip(trips, raw, strict=True)),
        ),
    ]


class Node:
    """A node's links and what they say."""

    def __init__(
        self, keys: NodeKeys, group: asyncio.TaskGroup, service: "Callable[[Node, NodeId, LogData], None]"
    ) -> None:
        """Build them."""
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.on_heard: Callable[[LogData], None] = lambda _: None
        self._serve = service
        self.links = Links(
            keys,
            group,
            post=self.events.put_nowait,
            service=self._service,
            notice=lambda _: None,
            wall=_wall,
            listen="127.0.0.1:0",
            gate_limits=OPEN_GATE,
        )

    def _service(self, peer: NodeId, message: ServiceMessage) -> None:
        assert isinstance(message, LogData)
        self._serve(self, peer, message)

    async def event(self, kind: type[LinkUp | LinkDown]) -> None:
        """Wait for an event of a kind."""
        async with asyncio.timeout(ANSWER_S):
            while not isinstance(found := await self.events.get(), kind):
                if isinstance(found, DialFailed):
                    raise ConnectionError(f"the other process cannot be dialled: {found.reason}")


@asynccontextmanager
async def _running(keys: NodeKeys, service: Callable[[Node, NodeId, LogData], None]) -> AsyncIterator[Node]:
    async with asyncio.TaskGroup() as group:
        node = Node(keys, group, service)
        await node.links.start()
        try:
            yield node
        finally:
            await node.links.close()


async def _ask(keys: NodeKeys, address: str, bare: int, runs: int) -> tuple[list[float], list[float], list[float]]:
    handshakes, trips, raw = [], [], []
    async with _running(keys, lambda node, _, message: node.on_heard(message)) as node:
        for _ in range(runs):
            handshakes.append(statistics.median([await _handshake(node, address) for _ in range(HANDSHAKES)]) * 1e3)
            node.links.dial(address)
            await node.event(LinkUp)
            trips.append(statistics.median(await _round_trips(node)) * 1e6)
            await _hang_up(node)
            raw.append(statistics.median(await _bare_round_trips(bare)) * 1e6)
    return handshakes, trips, raw


async def _handshake(node: Node, address: str) -> float:
    began = time.perf_counter()
    node.links.dial(address)
    await node.event(LinkUp)
    took = time.perf_counter() - began
    await _hang_up(node)
    return took


async def _hang_up(node: Node) -> None:
    [peer] = node.links.peers()
    node.links.hangup(peer, "leaving")
    await node.event(LinkDown)


async def _round_trips(node: Node) -> list[float]:
    """Return the seconds from each ``send`` to the call that brings the answer; that call sends the next message."""
    [peer] = node.links.peers()
    message = LogData(req=1, offset=0, data=os.urandom(MESSAGE_BYTES))
    took: list[float] = []
    done = asyncio.Event()
    began = 0.0

    def heard(_message: LogData) -> None:
        took.append(time.perf_counter() - began)
        if len(took) < ROUND_TRIPS:
            ask()
        else:
            done.set()

    def ask() -> None:
        nonlocal began
        began = time.perf_counter()
        node.links.send(peer, message)

    node.on_heard = heard
    ask()
    await done.wait()
    return took


async def _bare_round_trips(port: int) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    message = os.urandom(MESSAGE_BYTES)
    took = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        writer.write(message)
        await reader.readexactly(MESSAGE_BYTES)
        took.append(time.perf_counter() - began)
    writer.close()
    await writer.wait_closed()
    return took


async def _answer(keys: NodeKeys) -> None:
    """Serve until terminated: send every message back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    bare = server.sockets[0].getsockname()[1]
    async with _running(keys, lambda node, peer, message: node.links.send(peer, message)) as node:
        print(f"127.0.0.1:{node.links.port} {bare}", flush=True)
        await asyncio.Event().wait()


def _members(base: Path) -> tuple[Path, Path]:
    """Make two homes of one mesh."""
    founder, other = _keys(base / "asker"), _keys(base / "answerer")
    subject = trust.Subject(node=other.node, name=other.cert.name, owner="bob", caps=("submit", "work"))
    chain = founder.issue(subject, _wall())
    other.adopt(name=founder.state.name, root=founder.state.root, certs=chain, psks=founder.state.psks, wall=_wall())
    return base / "asker", base / "answerer"


def _keys(path: Path) -> NodeKeys:
    home = Home.open(path, environ={"P2PQ_ALLOW_ROOT": "1"})
    return load_or_create(home, path.name, _wall(), os.urandom, owner="ann")


def _wall() -> Wall:
    return Wall(int(time.time() * 1000))


if __name__ == "__main__":
    asyncio.run(_answer(_keys(Path(sys.argv[1]))))
