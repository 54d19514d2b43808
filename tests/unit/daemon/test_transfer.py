"""Blobs between two nodes over real sockets: whoever dialled speaks HTTP, either side can fetch."""

import asyncio
import os
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from p2pq.core.events import Misserved
from p2pq.daemon import blobasks, blobhttp, tickets, transfer
from p2pq.daemon.blobhttp import http_session
from p2pq.daemon.blobstore import BlobMissingError
from p2pq.daemon.transfer import TransferError
from p2pq.errors import DiskFullError, LinkError, Reject
from p2pq.model.ids import NodeId
from p2pq.wire import prims
from p2pq.wire.messages import BlobGone, BlobPush, BlobTickets, BlobWant
from p2pq.wire.tree import CHUNK
from tests.unit.daemon.transferkit import (
    ASKERS,
    BRIDGE,
    DIALLED,
    DIALLER,
    SOURCE,
    Clock,
    Host,
    datas,
    join,
    join_far,
    stations,
)

pytestmark = pytest.mark.slow


@asynccontextmanager
async def two_hosts(tmp_path):
    clock = Clock()
    async with http_session() as first, http_session() as second, asyncio.TaskGroup() as tasks:
        dialler = Host(DIALLER, tmp_path / "dialler", first, tasks, clock)
        dialled = Host(DIALLED, tmp_path / "dialled", second, tasks, clock)
        dialler.other, dialled.other = dialled, dialler
        app = web.Application()
        app.add_routes(dialled.transfers.routes())
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        dialled.url = f"http://{host}:{port}"
        dialled.clock = clock
        dialler.transfers.link_up(DIALLED, True, f"{host}:{port}")
        dialled.transfers.link_up(DIALLER, False, "127.0.0.1:9")
        try:
            yield dialler, dialled
        finally:
            dialler.transfers.link_down(DIALLED)
            dialled.transfers.link_down(DIALLER)
            await runner.cleanup()


@pytest.fixture
async def hosts(tmp_path):
    async with two_hosts(tmp_path) as pair:
        yield pair


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSES_S", (0.0, 0.0, 0.0))


@pytest.fixture(params=["dialler fetches", "dialled fetches"])
def sides(request, hosts):
    """(fetcher, holder), both ways round."""
    return hosts if request.param == "dialler fetches" else hosts[::-1]


# -- both directions ----------------------------------------------------------------------------------------------------


async def test_blobs_arrive(sides):
    fetcher, holder = sides
    all_data = [*datas(), os.urandom(blobhttp.SENDFILE_BYTES), os.urandom(CHUNK), b"x"]
    await fetcher.transfers.fetch(holder.node, holder.fill(*all_data))
    assert all(fetcher.store.get(prims.blob_id(data)) == data for data in all_data)


async def test_what_is_here_is_not_asked_for(sides):
    fetcher, holder = sides
    wanted = holder.fill(*datas())
    fetcher.fill(*(holder.store.get(blob) for blob, _ in wanted))
    await fetcher.transfers.fetch(holder.node, wanted)
    assert fetcher.said == []
    await fetcher.transfers.fetch(holder.node, [])


async def test_single_flight(sides):
    fetcher, holder = sides
    wanted = holder.fill(*datas(8))
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(fetcher.transfers.fetch(holder.node, wanted))
        group.create_task(fetcher.transfers.fetch(holder.node, wanted[:3]))
    asked = [blob for message in fetcher.said for blob in getattr(message, "blobs", ())]
    assert sorted(asked) == sorted(blob for blob, _ in wanted)


async def test_overlapping_fetches_share(sides):
    fetcher, holder = sides
    wanted = holder.fill(*datas(9))
    async with asyncio.TaskGroup() as group:
        group.create_task(fetcher.transfers.fetch(holder.node, wanted[:6]))
        group.create_task(fetcher.transfers.fetch(holder.node, wanted[3:]))
    asked = [blob for message in fetcher.said for blob in getattr(message, "blobs", ())]
    assert sorted(asked) == sorted(blob for blob, _ in wanted)


@pytest.mark.usefixtures("impatient")
async def test_missing_blobs_fail_typed_and_the_rest_stays(sides):
    fetcher, holder = sides
    wanted = holder.fill(*datas(6))
    missing = (prims.blob_id(b"nobody has this"), 15)
    with pytest.raises(TransferError, match="1 of 7 blobs"):
        await fetcher.transfers.fetch(holder.node, [*wanted, missing])
    assert all(fetcher.store.has(blob) for blob, _ in wanted)
    fetcher.said.clear()
    holder.fill(b"nobody has this")
    await fetcher.transfers.fetch(holder.node, [*wanted, missing])
    (asked,) = fetcher.said
    assert asked.blobs == (missing[0],)  # resumed: only the rest


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("size", [999, 1001, CHUNK + 1])
async def test_wrong_size_is_not_taken(sides, size):
    fetcher, holder = sides
    ((blob, _),) = holder.fill(os.urandom(1000))
    with pytest.raises(TransferError):
        await fetcher.transfers.fetch(holder.node, [(blob, size)])
    assert not fetcher.store.has(blob)


@pytest.mark.usefixtures("impatient")
async def test_hostile_holder_sends_other_bytes(sides):
    fetcher, holder = sides
    ((blob, size),) = holder.fill(os.urandom(1000))
    holder.store.path(blob).write_bytes(os.urandom(1000))
    with pytest.raises(TransferError):
        await fetcher.transfers.fetch(holder.node, [(blob, size)])
    assert len(fetcher.store) == 0


async def test_full_disk_is_told_as_such(sides, monkeypatch):
    fetcher, holder = sides
    wanted = holder.fill(*datas(5))

    def full(*_args, **_options):
        raise DiskFullError("the disk is full")

    monkeypatch.setattr(fetcher.store, "put", full)
    with pytest.raises(DiskFullError):
        await fetcher.transfers.fetch(holder.node, wanted)


async def test_no_link(hosts):
    dialler, _ = hosts
    with pytest.raises(TransferError, match="1 of 1"):
        await dialler.transfers.fetch(NodeId(bytes(32)), [(bytes(32), 1)])


async def test_link_that_ends_ends_the_fetch(sides):
    fetcher, holder = sides
    wanted = holder.fill(*datas())
    asked = asyncio.Event()

    def drop(message):
        asked.set()
        return None if type(message) in (BlobWant, BlobPush) else message

    fetcher.filter = drop
    task = asyncio.get_running_loop().create_task(fetcher.transfers.fetch(holder.node, wanted))
    await asked.wait()
    fetcher.transfers.link_down(holder.node)
    with pytest.raises(TransferError):
        await task


@pytest.mark.usefixtures("impatient")
async def test_link_that_cannot_send(sides):
    fetcher, holder = sides
    wanted = holder.fill(*datas(2))

    def broken(_message):
        raise LinkError("the outbox is full")

    fetcher.filter = broken
    with pytest.raises(TransferError):
        await fetcher.transfers.fetch(holder.node, wanted)


async def test_cancelled_fetch_leaves_nothing_behind(sides):
    fetcher, holder = sides
    wanted = holder.fill(*datas())
    asked = asyncio.Event()

    def drop(message):
        asked.set()
        return None if type(message) in (BlobWant, BlobPush) else message

    fetcher.filter = drop
    task = asyncio.get_running_loop().create_task(fetcher.transfers.fetch(holder.node, wanted))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(fetcher.transfers._tickets) == 0
    assert fetcher.transfers._flights == {}
    fetcher.filter = lambda message: message
    await fetcher.transfers.fetch(holder.node, wanted)
    assert all(fetcher.store.has(blob) for blob, _ in wanted)


@pytest.mark.usefixtures("impatient")
async def test_peer_that_never_answers(sides, monkeypatch):
    fetcher, holder = sides
    wanted = holder.fill(*datas(3))
    monkeypatch.setattr(blobasks, "ANSWER_S", 0.01)
    monkeypatch.setattr(blobasks, "TICKET_S", 0.01)
    fetcher.filter = lambda _message: None
    with pytest.raises(TransferError):
        await fetcher.transfers.fetch(holder.node, wanted)
    assert len(fetcher.transfers._tickets) == 0


async def test_nothing_is_left_after_a_fetch(sides):
    fetcher, holder = sides
    await fetcher.transfers.fetch(holder.node, holder.fill(*datas()))
    for host in sides:
        assert len(host.transfers._tickets) == 0
        assert host.transfers._flights == {}
        (link,) = host.transfers._links.values()
        assert (link.answers, link.pushes) == ({}, {})


@pytest.mark.usefixtures("impatient")
async def test_dialled_address_where_nobody_listens(sides):
    fetcher, holder = sides
    dialler, dialled = (fetcher, holder) if fetcher.node == DIALLER else (holder, fetcher)
    wanted = holder.fill(*datas(2))
    dialler.transfers.link_up(dialled.node, True, "127.0.0.1:1")
    with pytest.raises(TransferError):
        await fetcher.transfers.fetch(holder.node, wanted)


# -- tickets ------------------------------------------------------------------------------------------------------------


async def get_ticket(_dialler, dialled, data=b"payload"):
    """Let the dialler ask for one blob, and return the URL of its ticket."""
    ((blob, _),) = dialled.fill(data)
    dialled.transfers.on_message(DIALLER, BlobWant(req=7, blobs=(blob,)))
    (token,) = dialled.said_of(BlobTickets)[-1].tickets
    return f"{dialled.url}{blobhttp.PATH}{token.hex()}"


async def put_ticket(dialler, dialled, data=b"payload"):
    """Let the dialled side ask for one blob, and return (the URL of its ticket, the running fetch)."""
    dialler.transfers.link_down(DIALLED)  # it shall not push by itself
    fetch = dialled.transfers.fetch(DIALLER, [(prims.blob_id(data), len(data))])
    task = asyncio.get_running_loop().create_task(fetch)
    (token,) = (await dialled.pushes.get()).tickets
    return f"{dialled.url}{blobhttp.PATH}{token.hex()}", task


async def status(session, method, url, **options):
    async with session.request(method, url, **options) as response:
        return response.status, await response.read()


async def test_ticket_is_good_once(hosts):
    dialler, _ = hosts
    url = await get_ticket(*hosts)
    assert await status(dialler.session, "GET", url) == (200, b"payload")
    assert (await status(dialler.session, "GET", url))[0] == 404


async def test_url_names_no_blob_and_answer_no_path(hosts):
    dialler, _ = hosts
    url = await get_ticket(*hosts)
    assert prims.blob_id(b"payload").hex() not in url
    async with dialler.session.get(url) as response:
        assert "Content-Disposition" not in response.headers


async def test_ticket_grows_stale(hosts):
    dialler, dialled = hosts
    url = await get_ticket(*hosts)
    dialled.clock.now += tickets.TICKET_S
    assert (await status(dialler.session, "GET", url))[0] == 404


async def test_stale_tickets_are_forgotten(hosts):
    _, dialled = hosts
    await get_ticket(*hosts)
    dialled.clock.now += tickets.TICKET_S
    await get_ticket(*hosts)
    assert len(dialled.transfers._tickets) == 1


async def test_ticket_dies_with_its_link(hosts):
    dialler, dialled = hosts
    url = await get_ticket(*hosts)
    dialled.transfers.link_up(DIALLER, False, "127.0.0.1:9")  # a new link to the same peer
    assert (await status(dialler.session, "GET", url))[0] == 404
    assert len(dialled.transfers._tickets) == 0


async def test_ticket_is_bound_to_the_address_and_survives_who_overheard_it(hosts):
    dialler, dialled = hosts
    dialled.transfers.link_up(DIALLER, False, "127.0.0.2:9")
    url = await get_ticket(*hosts)
    assert (await status(dialler.session, "GET", url))[0] == 404
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=connector) as other:
        assert await status(other, "GET", url) == (200, b"payload")


@pytest.mark.parametrize("address", ["[::ffff:127.0.0.1]:9", "[::ffff:7f00:1]:9"])
async def test_addresses_are_compared_in_one_spelling(hosts, address):
    dialler, dialled = hosts
    dialled.transfers.link_up(DIALLER, False, address)
    assert (await status(dialler.session, "GET", await get_ticket(*hosts)))[0] == 200


@pytest.mark.parametrize("origin", ["null", "http://127.0.0.1", ""])
async def test_web_pages_are_refused(hosts, origin):
    dialler, _ = hosts
    url = await get_ticket(*hosts)
    assert (await status(dialler.session, "GET", url, headers={"Origin": origin}))[0] == 403
    assert (await status(dialler.session, "PUT", url, headers={"Origin": origin}, data=b"x"))[0] == 403
    assert (await status(dialler.session, "GET", url))[0] == 200


@pytest.mark.parametrize("token", ["", "00", "0" * 64, "g" * 64, "A" * 64, "../" * 10, "0" * 65])
async def test_other_urls_are_not_found(hosts, token):
    dialler, dialled = hosts
    for method in ("GET", "PUT"):
        url = f"{dialled.url}{blobhttp.PATH}{token}"
        assert (await status(dialler.session, method, url))[0] == 404


async def test_other_methods_are_refused(hosts):
    dialler, _ = hosts
    url = await get_ticket(*hosts)
    for method in ("HEAD", "POST", "DELETE", "PATCH", "OPTIONS"):
        assert (await status(dialler.session, method, url))[0] == 405
    assert (await status(dialler.session, "GET", url))[0] == 200


async def test_tickets_are_for_one_method(hosts):
    dialler, _ = hosts
    url = await get_ticket(*hosts)
    assert (await status(dialler.session, "PUT", url, data=b"payload"))[0] == 404
    url, task = await put_ticket(*hosts, data=b"other payload")
    assert (await status(dialler.session, "GET", url))[0] == 404
    assert (await status(dialler.session, "PUT", url, data=b"other payload"))[0] == 204  # not spoilt
    await task


async def test_evicted_between_ticket_and_request(hosts):
    dialler, dialled = hosts
    url = await get_ticket(*hosts)
    dialled.store.discard([prims.blob_id(b"payload")])
    assert (await status(dialler.session, "GET", url))[0] == 404


async def test_a_reader_that_does_not_read_is_cut_off(hosts, monkeypatch):
    _, dialled = hosts
    monkeypatch.setattr(blobhttp, "BODY_S", 0.1)
    cut = asyncio.Event()
    real = blobhttp._BlobFile.prepare

    async def prepare(self, request):
        try:
            return await real(self, request)
        except ConnectionResetError:
            cut.set()
            raise

    monkeypatch.setattr(blobhttp._BlobFile, "prepare", prepare)
    url = await get_ticket(*hosts, data=os.urandom(CHUNK))
    host, port = dialled.url.removeprefix("http://").split(":")
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect((host, int(port)))
        silent.sendall(f"GET {url.removeprefix(dialled.url)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await cut.wait()
        silent.settimeout(5)
        received = await asyncio.to_thread(read_all, silent)
    assert received < CHUNK


def read_all(connection):
    received = 0
    with suppress(ConnectionResetError):
        while data := connection.recv(1 << 20):
            received += len(data)
    return received


async def test_no_more_tickets_than_the_limit(hosts, monkeypatch):
    _, dialled = hosts
    monkeypatch.setattr(tickets, "TICKETS_MAX", 3)
    blobs = [blob for blob, _ in dialled.fill(*datas(5))]
    dialled.transfers.on_message(DIALLER, BlobWant(req=1, blobs=tuple(blobs)))
    (answer,) = dialled.said_of(BlobTickets)
    assert [len(ticket) for ticket in answer.tickets] == [32, 32, 32, 0, 0]
    assert len(set(answer.tickets)) == 4


# -- PUT ----------------------------------------------------------------------------------------------------------------


async def test_put_by_hand(hosts):
    dialler, dialled = hosts
    url, task = await put_ticket(*hosts)
    assert (await status(dialler.session, "PUT", url, data=b"payload"))[0] == 204
    await task
    assert dialled.store.get(prims.blob_id(b"payload")) == b"payload"
    assert (await status(dialler.session, "PUT", url, data=b"payload"))[0] == 404


@pytest.mark.parametrize(
    ("data", "headers"),
    [
        (b"payloaD", {}),
        (b"payload more", {}),
        (b"pay", {}),
        (b"", {}),
        (b"payload", {"Content-Encoding": "deflate"}),
    ],
)
@pytest.mark.usefixtures("impatient")
async def test_put_of_something_else(hosts, data, headers):
    dialler, dialled = hosts
    url, task = await put_ticket(*hosts)
    answer = await status(dialler.session, "PUT", url, data=data, headers=headers)
    assert answer[0] == 400
    dialled.transfers.link_down(DIALLER)
    with pytest.raises(TransferError):
        await task
    assert len(dialled.store) == 0


@pytest.mark.usefixtures("impatient")
async def test_put_without_a_length(hosts):
    dialler, dialled = hosts
    url, task = await put_ticket(*hosts)

    async def endless():
        yield b"payload"

    assert (await status(dialler.session, "PUT", url, data=endless()))[0] == 400
    dialled.transfers.link_down(DIALLER)
    with pytest.raises(TransferError):
        await task


@pytest.mark.usefixtures("impatient")
async def test_put_that_stalls_or_breaks_off(hosts, monkeypatch):
    _, dialled = hosts
    monkeypatch.setattr(blobhttp, "BODY_S", 0.05)
    url, task = await put_ticket(*hosts)
    host, port = dialled.url.removeprefix("http://").split(":")
    path = url.removeprefix(dialled.url)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\npay".encode())
    assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()
    token = (await dialled.pushes.get()).tickets[0].hex()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"PUT {blobhttp.PATH}{token} HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\npay".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    dialled.transfers.link_down(DIALLER)
    with pytest.raises(TransferError):
        await task
    assert len(dialled.store) == 0


# -- messages -----------------------------------------------------------------------------------------------------------


async def test_messages_of_strangers_and_late_answers_are_ignored(hosts):
    dialler, _ = hosts
    stranger = NodeId(b"s" * 32)
    for message in (
        BlobWant(req=1, blobs=(bytes(32),)),
        BlobPush(req=1, blobs=(), tickets=()),
        BlobGone(req=1, blobs=(bytes(32),)),
    ):
        dialler.transfers.on_message(stranger, message)
    dialler.transfers.on_message(DIALLED, BlobTickets(req=99, tickets=(bytes(32),)))
    dialler.transfers.on_message(DIALLED, BlobGone(req=99, blobs=(bytes(32),)))
    assert dialler.said == []
    dialler.transfers.link_down(stranger)


async def test_push_that_contradicts_itself(hosts):
    dialler, _ = hosts
    with pytest.raises(Reject):
        dialler.transfers.on_message(DIALLED, BlobPush(req=1, blobs=(bytes(32),), tickets=()))


async def test_push_to_a_side_that_did_not_dial(hosts):
    _, dialled = hosts
    dialled.transfers.on_message(DIALLER, BlobPush(req=1, blobs=(bytes(32),), tickets=(bytes(32),)))
    assert dialled.said == [BlobGone(req=1, blobs=(bytes(32),))]


async def test_too_many_pushes_at_once(hosts):
    dialler, _ = hosts
    push = BlobPush(req=1, blobs=(bytes(32),), tickets=(bytes(32),))
    for _ in range(transfer.PUSHES_MAX):
        dialler.transfers.on_message(DIALLED, push)
    assert dialler.said == []
    dialler.transfers.on_message(DIALLED, push)
    assert dialler.said == [BlobGone(req=1, blobs=push.blobs)]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("tickets", [(), (b"",), (b"short",), (bytes(32),), (bytes(32),) * 5])
async def test_hostile_tickets(hosts, tickets):
    dialler, dialled = hosts
    dialled.filter = lambda message: BlobTickets(req=message.req, tickets=tickets)
    with pytest.raises(TransferError):
        await dialler.transfers.fetch(DIALLED, dialled.fill(os.urandom(100)))


async def serve(handler):
    """A hostile holder's HTTP server."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["redirect", "encoded", "short", "error"])
async def test_hostile_holders_server(hosts, kind):
    dialler, dialled = hosts
    data = os.urandom(100)
    followed = []

    async def handler(request):
        if "elsewhere" in request.path:
            followed.append(request.path)
            return web.Response(body=data)
        if kind == "redirect":
            raise web.HTTPFound("/elsewhere")
        if kind == "encoded":
            return web.Response(body=data[:99], headers={"Content-Encoding": "gzip"})
        if kind == "short":
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(data[:50])
            request.transport.close()
            return response
        raise web.HTTPInternalServerError

    runner = await serve(handler)
    host, port = runner.addresses[0][:2]
    dialler.transfers.link_up(DIALLED, True, f"{host}:{port}")
    wanted = dialled.fill(data)
    with pytest.raises(TransferError):
        await dialler.transfers.fetch(DIALLED, wanted)
    await runner.cleanup()
    assert followed == []


async def test_a_damaged_blob_of_the_holder_is_missing(hosts):
    dialler, dialled = hosts
    with pytest.raises(BlobMissingError):
        dialled.store.get(bytes(32))
    assert not await dialler.transfers._http.put(f"{dialled.url}/", bytes(32))


def test_batches():
    small = {bytes([n]): 10 for n in range(10)}
    assert [len(batch) for batch in transfer._batches(small, transfer.BATCH_BYTES)] == [3, 3, 3, 1]
    large = {bytes([n]): CHUNK for n in range(40)}
    assert [len(batch) for batch in transfer._batches(large, transfer.BATCH_BYTES)] == [4] * 10
    many = {bytes([n, m]): 1 for n in range(100) for m in range(10)}
    assert max(len(batch) for batch in transfer._batches(many, transfer.BATCH_BYTES)) == transfer.BATCH_BLOBS
    assert sum(len(batch) for batch in transfer._batches(many, transfer.BATCH_BYTES)) == 1000
    assert list(transfer._batches({}, transfer.BATCH_BYTES)) == []


async def test_a_peer_that_sends_nothing_does_not_hold_up_what_another_sends(hosts):
    fetcher, holder = hosts
    silent = NodeId(b"s" * 32)
    honest_send = fetcher.transfers._send

    def send(peer, message):
        if peer != silent:
            honest_send(peer, message)

    fetcher.transfers._send = send
    fetcher.transfers.link_up(silent, True, "127.0.0.1:9")
    wanted = holder.fill(*datas(3))
    async with asyncio.TaskGroup() as group:
        group.create_task(fetcher.transfers.fetch(silent, wanted))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await fetcher.transfers.fetch(holder.node, wanted)
        fetcher.transfers.link_down(silent)


# -- through bridges ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["near dials", "near is dialled"])
def near_dials(request):
    return request.param == "near dials"


@pytest.fixture(params=["far dials", "far is dialled"])
def far_dials(request):
    return request.param == "far dials"


@pytest.fixture
async def row(tmp_path, near_dials, far_dials):
    """Give an asker, a bridge and a source."""
    async with stations(tmp_path, ASKERS[0], BRIDGE, SOURCE) as (asker, bridge, source):
        join(asker, bridge, dials=near_dials)
        join(source, bridge, dials=far_dials)
        join_far(asker, bridge, source)
        yield asker, bridge, source


@pytest.mark.slow
async def test_blobs_come_through_a_bridge_and_stay_there(row):
    asker, bridge, source = row
    all_data = [*datas(), os.urandom(CHUNK), b"x"]
    await asker.transfers.fetch(SOURCE, source.fill(*all_data))
    for data in all_data:
        assert asker.store.get(prims.blob_id(data)) == bridge.store.get(prims.blob_id(data)) == data
    assert SOURCE not in [NodeId(message.source) for message in bridge.said if type(message) in (BlobWant, BlobPush)]
    bridge.put.clear()
    asker.store.discard([prims.blob_id(data) for data in all_data])
    await asker.transfers.fetch(SOURCE, [(prims.blob_id(data), len(data)) for data in all_data])
    assert bridge.put == []


async def test_results_go_back_the_other_way(row):
    asker, _, source = row
    data = datas(3)
    await source.transfers.fetch(asker.node, asker.fill(*data))
    assert all(source.store.get(prims.blob_id(each)) == each for each in data)


async def test_each_blob_crosses_a_bridge_once(tmp_path, near_dials, far_dials):
    async with stations(tmp_path, BRIDGE, SOURCE, *ASKERS) as (bridge, source, *askers):
        join(source, bridge, dials=far_dials)
        for asker in askers:
            join(asker, bridge, dials=near_dials)
            join_far(asker, bridge, source)
        wanted = source.fill(*datas(30))
        async with asyncio.TaskGroup() as group:
            for asker in askers:
                group.create_task(asker.transfers.fetch(SOURCE, wanted))
        for asker in askers:
            assert all(asker.store.has(blob) for blob, _ in wanted)
        assert sorted(bridge.put) == sorted(blob for blob, _ in wanted)
        asked = [blob for message in bridge.said if type(message) in (BlobWant, BlobPush) for blob in message.blobs]
        assert sorted(asked) == sorted(blob for blob, _ in wanted)


async def test_blobs_come_through_two_bridges(tmp_path, near_dials, far_dials):
    second = NodeId(b"c" * 32)
    nodes = (ASKERS[0], BRIDGE, second, SOURCE)
    async with stations(tmp_path, *nodes, bridges=(BRIDGE, second)) as (asker, first, last, source):
        join(asker, first, dials=near_dials)
        join(first, last, dials=far_dials)
        join(source, last, dials=far_dials)
        join_far(first, last, source)
        join_far(asker, first, source, last)
        wanted = source.fill(*datas())
        await asker.transfers.fetch(SOURCE, wanted)
        assert all(each.store.has(blob) for blob, _ in wanted for each in (asker, first, last))


@pytest.mark.parametrize("known", ["now", "when it was decided"])
@pytest.mark.parametrize("near_dials", [True, False])
async def test_a_holder_that_is_not_linked_is_reached_through_who_speaks_for_it(tmp_path, known, near_dials):
    """Each blob crosses the bridge once, here too."""
    async with stations(tmp_path, *ASKERS[:2], BRIDGE, SOURCE) as (asker, other, bridge, source):
        for each in (asker, other):
            join(each, bridge, dials=near_dials)
        join(bridge, source, dials=False)
        wanted = source.fill(*datas())
        options = {"through": BRIDGE}
        if known == "now":
            options = {}
            asker.speakers[SOURCE] = other.speakers[SOURCE] = BRIDGE
        for each in (asker, other):
            await each.transfers.fetch(SOURCE, wanted, **options)
            assert all(each.store.has(blob) for blob, _ in wanted)
        assert sorted(bridge.put) == sorted(blob for blob, _ in wanted)


async def test_nothing_leads_to_a_holder_for_which_nobody_linked_speaks(row):
    asker, bridge, source = row
    wanted = source.fill(*datas(2))
    asker.transfers.link_down(SOURCE)
    for through in (None, ASKERS[2]):
        with pytest.raises(TransferError, match="2 of 2"):
            await asker.transfers.fetch(SOURCE, wanted, through=through)
    bridge.transfers.link_up(SOURCE, True, ":0", ASKERS[2])
    with pytest.raises(TransferError, match="2 of 2"):
        await bridge.transfers.fetch(SOURCE, wanted)
    assert asker.said == bridge.said == []


async def test_a_bridge_with_little_room_passes_on_what_it_cannot_keep(row):
    """The last blobs do not drive out the first before those have gone on."""
    asker, bridge, source = row
    bridge.store._quota = 10_500
    wanted = source.fill(*datas(40))
    async with asyncio.timeout(20):
        await asker.transfers.fetch(SOURCE, wanted)
    assert all(asker.store.has(blob) for blob, _ in wanted)
    assert bridge.store.used_bytes <= 10_500


@pytest.mark.usefixtures("impatient")
async def test_a_bridge_without_room(row):
    asker, bridge, source = row
    bridge.store._quota = 100
    wanted = source.fill(*datas(5))
    async with asyncio.timeout(20):
        with pytest.raises(TransferError, match="5 of 5"):
            await asker.transfers.fetch(SOURCE, wanted)
    assert len(bridge.store) == 0


@pytest.mark.usefixtures("impatient")
async def test_what_the_source_lacks_is_missing_and_the_rest_comes(row):
    asker, _, source = row
    wanted = source.fill(*datas(5))
    with pytest.raises(TransferError, match="1 of 6"):
        await asker.transfers.fetch(SOURCE, [*wanted, (bytes(32), 7)])
    assert all(asker.store.has(blob) for blob, _ in wanted)


@pytest.mark.usefixtures("impatient")
async def test_a_bridge_that_has_lost_the_source(row):
    asker, bridge, source = row
    wanted = source.fill(*datas(2))
    bridge.transfers.link_down(SOURCE)
    with pytest.raises(TransferError):
        await asker.transfers.fetch(SOURCE, wanted)
    bridge.fill(source.store.get(wanted[0][0]))
    with pytest.raises(TransferError, match="1 of 2"):  # what it has it gives
        await asker.transfers.fetch(SOURCE, wanted)


@pytest.mark.usefixtures("impatient")
async def test_a_link_whose_bridge_is_not_linked(row):
    asker, _, source = row
    wanted = source.fill(*datas(2))
    asker.transfers.link_down(BRIDGE)
    with pytest.raises(TransferError):
        await asker.transfers.fetch(SOURCE, wanted)
    assert asker.said == []


@pytest.mark.usefixtures("impatient")
async def test_wrong_sizes_bring_nothing(row):
    asker, bridge, source = row
    wanted = source.fill(*datas(2))
    with pytest.raises(TransferError):
        await asker.transfers.fetch(SOURCE, [(blob, size + 1) for blob, size in wanted])
    assert len(bridge.store) == len(asker.store) == 0


@pytest.mark.usefixtures("impatient")
async def test_who_is_no_bridge_answers_as_before(row):
    asker, bridge, source = row
    bridge.serves(False)
    wanted = source.fill(*datas(2))
    with pytest.raises(TransferError):
        await asker.transfers.fetch(SOURCE, wanted)
    assert len(bridge.store) == 0
    assert not any(type(message) in (BlobWant, BlobPush) for message in bridge.said)
    bridge.fill(*(source.store.get(blob) for blob, _ in wanted))
    await asker.transfers.fetch(SOURCE, wanted)


@pytest.mark.usefixtures("impatient")
async def test_a_bridge_gets_nothing_for_whom_it_does_not_join_with_the_holder(row):
    asker, bridge, source = row
    asked = []
    bridge.transfers._bridges = replace(bridge.transfers._bridges, joins=lambda *ends: asked.append(ends))
    with pytest.raises(TransferError):
        await asker.transfers.fetch(SOURCE, source.fill(*datas(2)))
    assert set(asked) == {(asker.node, SOURCE)}
    assert len(bridge.store) == 0


def wants(source, sizes, blobs=(bytes(32), bytes([1]) * 32)):
    return [
        BlobWant(req=1, blobs=blobs, source=source, sizes=sizes),
        BlobPush(req=1, blobs=blobs, tickets=(bytes(32),) * len(blobs), source=source, sizes=sizes),
    ]


@pytest.mark.parametrize("sizes", [(), (1,), (1, 2, 3)])
@pytest.mark.parametrize("kind", [0, 1])
async def test_a_source_without_a_size_for_each_blob_is_rejected(hosts, sizes, kind):
    _, dialled = hosts
    for bridging in (True, False):
        dialled.serves(bridging)
        with pytest.raises(Reject, match="size"):
            dialled.transfers.on_message(DIALLER, wants(SOURCE, sizes)[kind])


@pytest.mark.parametrize("source", [SOURCE, b"short", DIALLER, DIALLED, BRIDGE])
async def test_a_source_that_a_bridge_does_not_lead_to(hosts, source):
    """Unknown, none at all, who asks, the bridge itself, or reached through who asks: it answers with what it has."""
    _, dialled = hosts
    dialled.serves(True)
    dialled.transfers.link_up(BRIDGE, False, ":0", DIALLER)
    ((blob, size),) = dialled.fill(b"here")
    dialled.transfers.on_message(DIALLER, wants(source, (size, 1), (blob, bytes(32)))[0])
    (answer,) = dialled.said
    assert [len(ticket) for ticket in answer.tickets] == [32, 0]
    dialled.transfers.link_down(BRIDGE)


async def test_a_bridge_does_no_more_at_once_for_one_peer_than_it_may(row, monkeypatch):
    asker, bridge, source = row
    monkeypatch.setattr(transfer, "PUSHES_MAX", 2)
    source.filter = lambda _message: None
    bridge.filter = lambda message: None if type(message) in (BlobWant, BlobPush) else message
    wanted = source.fill(*datas(3))
    for number, (blob, size) in enumerate(wanted):
        bridge.transfers.on_message(asker.node, BlobWant(req=number, blobs=(blob,), source=SOURCE, sizes=(size,)))
    assert bridge.said == [BlobTickets(req=2, tickets=(b"",))]
    assert len(bridge.transfers._links[asker.node].tasks) == 2


async def test_an_asker_that_goes_takes_what_is_under_way_for_it_along(row):
    asker, bridge, source = row
    bridge.filter = lambda message: None if type(message) in (BlobWant, BlobPush) else message
    ((blob, size),) = source.fill(b"payload")
    bridge.transfers.on_message(asker.node, BlobWant(req=1, blobs=(blob,), source=SOURCE, sizes=(size,)))
    tasks = list(bridge.transfers._links[asker.node].tasks)
    await asyncio.sleep(0)
    bridge.transfers.link_down(asker.node)
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert bridge.transfers._flights == {}
    assert bridge.store._tags == {}


async def test_a_bridge_has_longer_to_bring_what_it_has_to_get_first(tmp_path, monkeypatch):
    """Tickets for it live as long as an answer is waited for."""
    monkeypatch.setattr(blobasks, "TICKET_S", 0.0)
    monkeypatch.setattr(blobasks, "ANSWER_S", 0.0)
    async with stations(tmp_path, ASKERS[0], BRIDGE, SOURCE) as (asker, bridge, source):
        join(asker, bridge, dials=False)
        join(bridge, source, dials=False)
        join_far(asker, bridge, source)
        wanted = source.fill(*datas(3))
        held = asyncio.Event()
        fetch = bridge.transfers.fetch

        async def slow(peer, blobs, *, shared):
            monkeypatch.undo()
            await held.wait()
            await fetch(peer, blobs, shared=shared)

        bridge.transfers.fetch = slow
        task = asyncio.get_running_loop().create_task(asker.transfers.fetch(SOURCE, wanted))
        await asker.pushes.get()
        held.set()
        await task
        assert len(asker.said_of(BlobPush)) == len(list(transfer._batches(dict(wanted), transfer.BATCH_BYTES)))


# -- two bridges to one source -------------------------------------------------------------------------------------------

SECOND = NodeId(b"c" * 32)


@pytest.fixture
async def fork(tmp_path, near_dials, far_dials, monkeypatch):
    """(asker, first bridge, second bridge, source): the first bridge carries the link."""
    monkeypatch.setattr(transfer, "PAUSES_S", (0.0, 0.0, 0.0))
    nodes = (ASKERS[0], BRIDGE, SECOND, SOURCE)
    async with stations(tmp_path, *nodes, bridges=(BRIDGE, SECOND)) as (asker, first, second, source):
        for bridge in (first, second):
            join(asker, bridge, dials=near_dials)
            join(source, bridge, dials=far_dials)
        join_far(asker, first, source)
        asker.ways[SOURCE] = [BRIDGE, SECOND]
        yield asker, first, second, source


def lying(data):
    return bytes([data[0] ^ 1]) + data[1:]


async def test_the_bridge_of_the_link_is_asked_and_nobody_else(fork):
    asker, _, second, source = fork
    await asker.transfers.fetch(SOURCE, source.fill(*datas()))
    assert (len(second.store), asker.misserved) == (0, [])


async def test_the_best_bridge_is_asked_though_another_carries_the_link(fork):
    asker, first, _, source = fork
    asker.ways[SOURCE].reverse()
    await asker.transfers.fetch(SOURCE, source.fill(*datas()))
    assert (len(first.store), asker.misserved) == (0, [])


async def test_what_a_bridge_withholds_comes_over_another_and_it_is_told_of(fork):
    asker, first, second, source = fork
    first.serves(False)
    wanted = source.fill(*datas())
    await asker.transfers.fetch(SOURCE, wanted)
    assert all(asker.store.has(blob) for blob, _ in wanted)
    assert len(second.store) == len(wanted)
    assert asker.misserved == [Misserved(peer=BRIDGE, reason="no-blobs")]


async def test_a_bridge_that_brings_nothing_in_all_its_time_is_not_asked_for_everything_first(fork, monkeypatch):
    asker, _, _, source = fork
    monkeypatch.setattr(transfer, "VAIN_S", -1.0)  # it has taken longer
    monkeypatch.setattr(transfer, "BATCH_BLOBS", 2)
    honest = asker.transfers._asks.ask
    asked = []

    async def ask(peer, link, batch, terms):
        asked.append(peer)
        return () if peer == BRIDGE else await honest(peer, link, batch, terms)

    monkeypatch.setattr(asker.transfers._asks, "ask", ask)
    wanted = source.fill(*datas())
    await asker.transfers.fetch(SOURCE, wanted)
    assert all(asker.store.has(blob) for blob, _ in wanted)
    batches = len(list(transfer._batches(dict(wanted), transfer.BATCH_BYTES)))
    assert asked.count(BRIDGE) <= blobhttp.PARALLEL < batches == asked.count(SECOND)
    assert asker.misserved == [Misserved(peer=BRIDGE, reason="no-blobs")]


async def test_what_nobody_has_is_no_bridges_fault(fork):
    asker, *_, source = fork
    with pytest.raises(TransferError, match="1 of 21"):
        await asker.transfers.fetch(SOURCE, [*source.fill(*datas()), (bytes(32), 7)])
    assert asker.misserved == []


async def test_a_bridge_that_gives_other_bytes_is_told_of_and_another_is_asked(fork):
    asker, first, second, source = fork
    wanted = source.fill(*datas(3))
    honest = first.store.get
    first.store.get = lambda blob: lying(honest(blob))
    await asker.transfers.fetch(SOURCE, wanted)
    assert all(asker.store.has(blob) for blob, _ in wanted)
    assert len(second.store) == 3
    assert asker.misserved[0] == Misserved(peer=BRIDGE, reason="other-bytes")
    assert {each.peer for each in asker.misserved} == {BRIDGE}


async def test_a_way_whose_bridge_is_not_linked_is_not_taken(fork):
    asker, first, second, source = fork
    asker.ways[SOURCE] = [SECOND, NodeId(b"x" * 32), BRIDGE]
    asker.transfers.link_down(SECOND)
    await asker.transfers.fetch(SOURCE, source.fill(*datas(3)))
    assert (len(first.store), len(second.store)) == (3, 0)


async def test_a_liar_that_is_no_bridge_is_told_of_too(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PAUSES_S", (0.0, 0.0, 0.0))
    async with stations(tmp_path, ASKERS[0], SOURCE) as (asker, source):
        join(asker, source, dials=True)
        honest = source.store.get
        source.store.get = lambda blob: lying(honest(blob))
        with pytest.raises(TransferError):
            await asker.transfers.fetch(SOURCE, source.fill(b"payload"))
        assert asker.misserved == [Misserved(peer=SOURCE, reason="other-bytes")] * 3
