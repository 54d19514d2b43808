"""Hostile servers: whatever answers a dial, the dial ends with one word and the node goes on."""

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pq.core.events import DialFailed
from p2pq.daemon import dialing
from p2pq.daemon.joining import join_mesh
from p2pq.daemon.link import LinkLimits
from p2pq.errors import NodeUnreachableError, RefusedError
from p2pq.wire import session
from tests.unit.daemon.linkkit import keys_at, node, running, wall

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
UP = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"


def accept(request: bytes) -> bytes:
    found = re.search(rb"Sec-WebSocket-Key: (\S+)", request, re.IGNORECASE)
    assert found is not None
    return UP % base64.b64encode(hashlib.sha1(found[1] + GUID).digest())


REPLIES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(5000),
    "noise": lambda _: os.urandom(5000),
    "ssh": lambda _: b"SSH-2.0-OpenSSH_9.2\r\n",
    "ok": lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "half": lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\nok",
    "chunks": lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "long line": lambda _: b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
    "long field": lambda _: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "many fields": lambda _: b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 10_000 + b"\r\n",
    "redirect": lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "bad redirect": lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://[::\r\nContent-Length: 0\r\n\r\n",
    "continue": lambda _: b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    "bare 101": lambda _: b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "wrong key": lambda _: UP % b"AAAA" + b"\r\n",
    "101 and gone": lambda request: accept(request) + b"\r\n",
    "101 with length": lambda request: accept(request) + b"Content-Length: 5\r\n\r\nhello",
    "101 with zero length": lambda request: accept(request) + b"Content-Length: 0\r\n\r\n",
    "101 and chunks": lambda request: accept(request) + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "101 that closes": lambda request: accept(request).replace(b"Upgrade\r\n", b"close\r\n") + b"\r\n",
    "101 gzip": lambda request: accept(request) + b"Content-Encoding: gzip\r\n\r\nxx",
    "compression": lambda request: accept(request) + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n\xc2\x01x",
    "text": lambda request: accept(request) + b"\r\n\x81\x05hello",
    "empty": lambda request: accept(request) + b"\r\n\x82\x00",
    "second message of noise": lambda request: accept(request) + b"\r\n\x82\x7e\x01\x00" + os.urandom(256),
    "short message": lambda request: accept(request) + b"\r\n\x82\x01x",
    "huge frame": lambda request: accept(request) + b"\r\n\x82\x7f\x00\x00\x00\xff\xff\xff\xff\xff",
    "bad opcode": lambda request: accept(request) + b"\r\n\x83\x00",
    "close": lambda request: accept(request) + b"\r\n\x88\x00",
    "cookies": lambda request: accept(request) + b"Set-Cookie: a=b\r\n\r\n\x88\x00",
}


@asynccontextmanager
async def server(reply: Callable[[bytes], bytes]) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(request))
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield "{}:{}".format(*listening.sockets[0].getsockname())


REASONS = {
    dialing.NOT_P2PQ,
    dialing.TURNED_AWAY,
    dialing.UNREACHABLE,
    dialing.NO_ANSWER,
    session.REFUSED_EARLY,
    session.NOT_AUTHENTIC,
}


@pytest.mark.parametrize("how", REPLIES)
async def test_a_dial_ends_with_one_word(tmp_path: Path, how: str) -> None:
    limits = LinkLimits(handshake_s=0.5, close_s=0.05)
    async with running(node(keys_at(tmp_path / "a"), limits=limits)) as (one,), server(REPLIES[how]) as address:
        one.links.dial(address)
        failed = await one.event(DialFailed)
        assert failed.reason in REASONS
        assert not one.links.peers()


@pytest.mark.parametrize("how", REPLIES)
async def test_a_join_ends_with_one_sentence(tmp_path: Path, how: str) -> None:
    keys = keys_at(tmp_path / "a")

    async def find(_slot: str, _timeout: float) -> tuple[str, ...]:
        return ()

    async with server(REPLIES[how]) as address:
        http = dialing.make_session(1)
        async with http, asyncio.timeout(60):
            with pytest.raises((RefusedError, NodeUnreachableError)) as refused:
                await join_mesh(keys, http, "4T-K7QX-93FD", at=address, find=find, wall=wall, entropy=os.urandom)
    assert len(str(refused.value)) < 300
    assert keys.solo
