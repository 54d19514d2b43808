"""Single blobs over HTTP: what is counted, and who is named as a liar. Requests that must be refused are in test_transfer."""

import asyncio
import os
from collections import Counter
from types import SimpleNamespace

import pytest
from aiohttp import web

from p2pq.daemon.blobhttp import PATH, SENDFILE_BYTES, BlobHttp, http_session
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.tickets import Tickets
from p2pq.model.ids import NodeId
from p2pq.wire import prims
from tests.unit.daemon.transferkit import until

PEER = NodeId(b"p" * 32)
LOCAL = "127.0.0.1"


def one(folder, session):
    came, lied = [], []
    store = BlobStore(folder, quota_bytes=1 << 30, reserve_bytes=0)
    tickets = Tickets(lambda: 0.0, os.urandom)
    http = BlobHttp(store, session, tickets, came=came.append, lied=lied.append)
    return SimpleNamespace(store=store, tickets=tickets, http=http, came=came, lied=lied)


@pytest.fixture
async def pair(tmp_path):
    """Give a client, a server and the server's URL."""
    async with http_session() as session:
        client, server = one(tmp_path / "client", session), one(tmp_path / "server", session)
        app = web.Application()
        app.add_routes(server.http.routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, LOCAL, 0).start()
        host, port = runner.addresses[0][:2]
        yield client, server, f"http://{host}:{port}{PATH}"
        await runner.cleanup()


def words(near):
    """Return the names of what came in and what went out."""
    return ("from-neighbours-bytes", "to-neighbours-bytes") if near else ("from-holders-bytes", "to-fetchers-bytes")


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize("size", [7, SENDFILE_BYTES])
async def test_a_get_is_counted_at_both_ends(pair, near, size):
    client, server, url = pair
    data = os.urandom(size)
    blob = prims.blob_id(data)
    server.store.put(blob, data)
    token = server.tickets.to_get(PEER, LOCAL, blob, near=near)
    await client.http.get(PEER, url + token.hex(), (blob, size), near=near)
    assert (client.came, client.lied, client.store.get(blob)) == ([blob], [], data)
    came, went = words(near)
    assert client.http.counters == Counter({came: size})
    assert server.http.counters == Counter({went: size})


@pytest.mark.parametrize("near", [True, False])
async def test_a_put_is_counted_at_both_ends(pair, near):
    client, server, url = pair
    blob = prims.blob_id(b"payload")
    client.store.put(blob, b"payload")
    token, arrived = server.tickets.to_put(PEER, LOCAL, (blob, 7), near=near)
    assert await client.http.put(url + token.hex(), blob, near=near)
    assert await arrived is None
    assert server.came == [blob]
    came, went = words(near)
    assert server.http.counters == Counter({came: 7})
    assert client.http.counters == Counter({went: 7})


async def test_what_is_not_there_is_not_put(pair):
    client, _, url = pair
    assert not await client.http.put(url + "0" * 64, bytes(32))
    assert client.http.counters == {}


async def test_who_sends_other_bytes_is_named(pair):
    client, server, url = pair
    blob = prims.blob_id(b"payload")
    for each in (client, server):
        each.store.put(blob, b"payload")
        each.store.path(blob).write_bytes(b"another")
    wanted = one(client.store._folder.parent / "third", client.http._session)
    token = server.tickets.to_get(PEER, LOCAL, blob)
    await wanted.http.get(PEER, url + token.hex(), (blob, 7))
    assert (wanted.came, wanted.lied, len(wanted.store)) == ([], [PEER], 0)
    server.store.discard([blob])
    token, arrived = server.tickets.to_put(PEER, LOCAL, (blob, 7))
    assert not await client.http.put(url + token.hex(), blob)
    await arrived
    assert (server.came, server.lied, len(server.store)) == ([], [PEER], 0)


@pytest.mark.parametrize("size", [7, SENDFILE_BYTES])
async def test_a_get_for_a_neighbour_waits_for_its_turn(pair, size):
    client, server, url = pair
    data = os.urandom(size)
    blob = prims.blob_id(data)
    server.store.put(blob, data)
    slots = server.http._uploads
    while not slots.locked():
        await slots.acquire()
    token = server.tickets.to_get(PEER, LOCAL, blob, near=True)
    get = client.http.get(PEER, url + token.hex(), (blob, size), near=True)
    task = asyncio.get_running_loop().create_task(get)
    await until(lambda: slots._waiters or client.came)
    assert client.came == []
    slots.release()
    await task
    assert client.came == [blob]
