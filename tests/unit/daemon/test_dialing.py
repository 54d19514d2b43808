"""Dials that do not end in a link, and the one word for each."""

import errno
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from p2pq.daemon import dialing
from p2pq.daemon.link import LinkLimits
from p2pq.model.ids import NodeId
from p2pq.wire import prims, session, trust
from tests.unit.daemon.linkkit import keys_at, node, refused, running


async def test_nobody_there(tmp_path: Path) -> None:
    async with running(node(keys_at(tmp_path / "a"))) as (one,):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{sock.getsockname()[1]}"
            assert await refused(one, address) == dialing.CONNECTION_REFUSED
        assert await refused(one, "1.2.3.4:port") == dialing.BAD_ADDRESS
        assert one.links.counters[dialing.CONNECTION_REFUSED] == 1


async def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        async with running(node(keys_at(tmp_path / "a"), limits=LinkLimits(handshake_s=0.05, close_s=0.05))) as (one,):
            assert await refused(one, f"127.0.0.1:{sock.getsockname()[1]}") == dialing.NO_ANSWER


async def serve(handler: Any) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, "{}:{}".format(*runner.addresses[0])


async def test_other_servers(tmp_path: Path) -> None:
    visits: list[str] = []

    async def other(request: web.Request) -> web.StreamResponse:
        visits.append(request.path)
        if request.app["how"] == "redirect":
            raise web.HTTPFound("/elsewhere")
        return web.Response(status=request.app["how"])

    async with running(node(keys_at(tmp_path / "a"))) as (one,):
        runner, address = await serve(other)
        try:
            for how, reason in ((200, dialing.NOT_P2PQ), (426, dialing.VERSION), ("redirect", dialing.NOT_P2PQ)):
                runner.app._state["how"] = how
                assert await refused(one, address) == reason
        finally:
            await runner.cleanup()
    assert visits == ["/p2pq/1/link"] * 3


async def test_a_server_that_upgrades_and_leaves(tmp_path: Path) -> None:
    async def leave(request: web.Request) -> web.StreamResponse:
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        await stream.close()
        return stream

    async with running(node(keys_at(tmp_path / "a"))) as (one,):
        runner, address = await serve(leave)
        try:
            assert await refused(one, address) == session.REFUSED_EARLY
        finally:
            await runner.cleanup()


def test_failures_have_one_word_each() -> None:
    for error, reason in (
        (TimeoutError(), dialing.NO_ANSWER),
        (OSError(errno.EHOSTUNREACH, "x"), dialing.UNREACHABLE),
        (OSError(errno.ETIMEDOUT, "x"), dialing.NO_ANSWER),
        (ConnectionResetError(errno.ECONNRESET, "x"), dialing.TURNED_AWAY),
        (aiohttp.ServerDisconnectedError(), dialing.TURNED_AWAY),
        (aiohttp.InvalidURL("x"), dialing.BAD_ADDRESS),
        (aiohttp.ClientPayloadError(), dialing.NOT_P2PQ),
    ):
        assert dialing.dial_reason(error) == reason
        assert dialing.SENTENCES[reason].endswith(".")


def test_whoever_may_be_there_is_dialled_by_what_may_be_right() -> None:
    own = session.Mesh(root=b"r" * 32, psks=(b"2" * 32, b"1" * 32), is_banned=trust.nobody)
    others = tuple(
        session.Mesh(root=root * 32, psks=(b"p" * 32,), is_banned=trust.nobody) for root in (b"s", b"t", b"s")
    )
    ours = [replace(own, psks=(b"2" * 32,)), replace(own, psks=(b"1" * 32,))]
    assert dialing.keys_for(own, others, None) == [*ours, *others], "nobody knows who is there"
    assert dialing.keys_for(own, others, b"") == ours
    assert dialing.keys_for(own, others, prims.mesh_id(b"s" * 32)) == [others[0], others[2]]
    with pytest.raises(session.HandshakeRefused) as refusal:
        dialing.keys_for(own, others, prims.mesh_id(b"u" * 32))
    assert refusal.value.reason == session.NO_PEERING
    nowhere = dialing.NOWHERE
    assert (nowhere.foreign(), nowhere.mesh_of(NodeId(b"n" * 32)), nowhere.carries(b"m")) == ((), b"", False)
