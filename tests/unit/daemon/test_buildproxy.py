"""What builds reach of the network: the hosts that they may, and no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pq.daemon import buildproxy
from p2pq.daemon.buildproxy import BuildProxy


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """Serve what sends back what it gets, with its beginning changed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(path, *pieces: bytes) -> bytes:
    """Send pieces, each after an answer to the one before, and return the last answer."""
    reader, writer = await asyncio.open_unix_connection(path)
    said = b""
    for piece in pieces:
        writer.write(piece)
        said = await asyncio.wait_for(reader.read(1000), 10)  # noqa: TID251
    writer.close()
    return said


async def test_a_tunnel_to_a_host_that_it_may_reach(tmp_path):
    async with echo() as port:
        proxy = BuildProxy(frozenset({("127.0.0.1", port)}))
        async with proxy.serving(tmp_path / "s"):
            opened = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            assert await ask(tmp_path / "s", opened) == b"HTTP/1.1 200 Connected\r\n\r\n"
            assert await ask(tmp_path / "s", opened, b"hello") == b"heard hello"
    assert (proxy.refused, proxy.unreached) == ({}, {})
    assert not (tmp_path / "s").exists()


async def test_a_plain_request_is_passed_on_once(tmp_path):
    async with echo() as port, BuildProxy(frozenset({("127.0.0.1", port)})).serving(tmp_path / "s"):
        head = f"GET http://127.0.0.1:{port}/simple/x?y HTTP/1.1\r\nHost: h\r\nProxy-Connection: keep-alive\r\n\r\n"
        said = await ask(tmp_path / "s", head.encode())
    assert said == b"heard GET /simple/x?y HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        "CONNECT 127.0.0.1:{port} HTTP/1.1",
        "CONNECT 169.254.169.254:80 HTTP/1.1",
        "CONNECT [::1]:{port} HTTP/1.1",
        "CONNECT localhost:{port} HTTP/1.1",
        "CONNECT allowed.example.evil.example:443 HTTP/1.1",
        "GET http://127.0.0.1:{port}/ HTTP/1.1",
        "GET https://allowed.example/ HTTP/1.1",
        "GET / HTTP/1.1",
    ],
)
async def test_others_are_refused(tmp_path, head):
    async with echo() as port:
        proxy = BuildProxy(frozenset({("allowed.example", 443)}))
        async with proxy.serving(tmp_path / "s"):
            said = await ask(tmp_path / "s", head.format(port=port).encode() + b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 403 ")
    assert len(proxy.refused) == 1


async def test_a_host_that_does_not_answer(tmp_path, unused_tcp_port):
    proxy = BuildProxy(frozenset({("127.0.0.1", unused_tcp_port)}))
    async with proxy.serving(tmp_path / "s"):
        said = await ask(tmp_path / "s", f"CONNECT 127.0.0.1:{unused_tcp_port} HTTP/1.1\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 502 ")
    assert proxy.unreached == {"127.0.0.1": None}


NONSENSE = [
    b"\r\n\r\n",
    b"CONNECT x\r\n\r\n",
    b"CONNECT x:y HTTP/1.1\r\n\r\n",
    b"\xff \xff \xff\r\n\r\n",
    b"x" * 40_000,
    b"GET http://[ HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("head", NONSENSE)
async def test_nonsense_ends_the_connection(tmp_path, head):
    async with BuildProxy(frozenset()).serving(tmp_path / "s"):
        try:
            said = await ask(tmp_path / "s", head)
        except ConnectionError:
            said = b""
    assert said == b""


async def test_there_are_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(buildproxy, "CONNECTIONS_MAX", 1)
    monkeypatch.setattr(buildproxy, "REFUSED_MAX", 2)
    proxy = BuildProxy(frozenset())
    (tmp_path / "s").touch()  # left by one that was killed
    async with proxy.serving(tmp_path / "s"):
        _, silent = await asyncio.open_unix_connection(tmp_path / "s")
        reader, second = await asyncio.open_unix_connection(tmp_path / "s")
        assert await reader.read() == b""
        second.close()
        silent.close()
        while proxy._connections:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for name in ("a", "b", "c"):
            await ask(tmp_path / "s", f"CONNECT {name}:1 HTTP/1.1\r\n\r\n".encode())
    assert list(proxy.refused) == ["a", "b"]


async def test_whoever_is_silent_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(buildproxy, "HEAD_S", 0.01)
    async with BuildProxy(frozenset()).serving(tmp_path / "s"):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        assert await reader.read() == b""
        writer.close()
