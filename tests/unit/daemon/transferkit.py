"""The data planes of some nodes in one process, over real sockets."""

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import web

from p2pq.daemon.blobhttp import http_session
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.transfer import Transfers
from p2pq.daemon.ways import Bridges
from p2pq.model.ids import NodeId
from p2pq.wire import prims
from p2pq.wire.messages import BlobPush

DIALLER = NodeId(b"d" * 32)
DIALLED = NodeId(b"l" * 32)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Host:
    """One node's data plane: a store, a server, a client, and what it said."""

    def __init__(self, node, folder, session, tasks, clock):
        self.node = node
        self.store = BlobStore(folder, quota_bytes=1 << 30, reserve_bytes=0)
        self.session = session
        self.said = []
        self.pushes = asyncio.Queue()
        self.other = None
        self.filter = lambda message: message
        self.transfers = Transfers(self.store, session, self.send, tasks=tasks, clock=clock)

    def serves(self, bridging):
        """Make it a bridge, or none."""
        self.transfers._bridges = replace(self.transfers._bridges, serves=bridging)

    def send(self, peer, message):
        assert peer == self.other.node
        message = self.filter(message)
        if message is not None:
            self.said.append(message)
            if type(message) is BlobPush:
                self.pushes.put_nowait(message)
            loop = asyncio.get_running_loop()
            loop.call_soon(self.other.transfers.on_message, self.node, message)

    def fill(self, *datas):
        for data in datas:
            self.store.put(prims.blob_id(data), data)
        return [(prims.blob_id(data), len(data)) for data in datas]

    def said_of(self, kind):
        return [message for message in self.said if type(message) is kind]


def datas(count=20, size=1000):
    return [os.urandom(size + number) for number in range(count)]


BRIDGE, SOURCE = NodeId(b"b" * 32), NodeId(b"s" * 32)
ASKERS = [NodeId(bytes([number]) * 32) for number in (1, 2, 3)]


class Station(Host):
    """A host with links to several others, and a server."""

    def __init__(self, node, folder, session, tasks, clock, *, bridging):
        super().__init__(node, folder, session, tasks, clock)
        self.others = {}
        self.put = []
        self.ways = {}
        self.speakers = {}
        self.misserved = []
        bridges = Bridges(
            serves=bridging,
            speaks=self.speakers.get,
            ways=lambda node: self.ways.get(node, ()),
            post=self.misserved.append,
        )
        self.transfers = Transfers(self.store, session, self.send, tasks=tasks, clock=clock, bridges=bridges)

    def send(self, peer, message):
        self.other = self.others[peer]
        super().send(peer, message)

    async def open(self):
        app = web.Application()
        app.add_routes(self.transfers.routes())
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.address = "{}:{}".format(*self.runner.addresses[0][:2])
        add = self.store.add

        def count(blob, data, **options):
            self.put.append(blob)
            add(blob, data, **options)

        self.store.add = count


def join(one, two, *, dials):
    """Link two stations; ``one`` dials, or is dialled."""
    one.others[two.node], two.others[one.node] = two, one
    one.transfers.link_up(two.node, dials, two.address if dials else "127.0.0.1:9")
    two.transfers.link_up(one.node, not dials, "127.0.0.1:9" if dials else one.address)


def join_far(one, bridge, two, back=None):
    """Link two stations through a bridge, or through one bridge at each end."""
    one.transfers.link_up(two.node, True, f"via:{bridge.node.hex()}:{two.node.hex()}", bridge.node)
    two.transfers.link_up(one.node, False, ":0", (back or bridge).node)


@asynccontextmanager
async def stations(tmp_path, *nodes, bridges=(BRIDGE,)):
    async with http_session() as session, asyncio.TaskGroup() as tasks:
        made = [
            Station(node, tmp_path / node.hex()[:8], session, tasks, Clock(), bridging=node in bridges)
            for node in nodes
        ]
        for each in made:
            await each.open()
        try:
            yield made
        finally:
            for each in made:
                for peer in list(each.transfers._links):
                    each.transfers.link_down(peer)
            for each in made:
                await each.runner.cleanup()
    for each in made:
        assert len(each.transfers._tickets) == 0
        assert each.transfers._flights == {}
        assert each.store._tags == {}


async def until(holds):
    """Let the loop go on until something holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  what is looked at tells nobody that it changes
            await asyncio.sleep(0)
