"""What builds reach of the network: the hosts that they may, and no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pq.daemon import buildproxy
from p2pq.daemon.buildproxy import BuildProxy
from p2pq.daemon.upstream import Proxies, Upstream


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


@asynccontextmanager
async def asked(answer: bytes) -> AsyncIterator[tuple[Upstream, list[bytes]]]:
    """Serve as a proxy between here and the world: answer as told, and then as what it leads to would."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if b" 200 " in answer and heads[-1].startswith(b"CONNECT"):
            writer.write(b"heard " + await reader.read(1000))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Upstream("127.0.0.1", server.sockets[0].getsockname()[1], b"Proxy-Authorization: Basic eA==\r\n"), heads


async def test_a_tunnel_goes_by_the_proxy_of_the_nodes_owner(tmp_path):
    opened = b"CONNECT index.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"
    async with asked(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n") as (upstream, heads):
        proxy = BuildProxy(frozenset({("index.example", 443), ("::1", 443)}), Proxies(https=upstream))
        async with proxy.serving(tmp_path / "s"):
            assert await ask(tmp_path / "s", opened) == b"HTTP/1.1 200 Connected\r\n\r\n"
            assert await ask(tmp_path / "s", opened, b"hello") == b"heard hello"
            assert b" 403 " in await ask(tmp_path / "s", opened.replace(b"index", b"other"))
            await ask(tmp_path / "s", opened.replace(b"index.example", b"[::1]"))
    told = b"\r\nProxy-Authorization: Basic eA==\r\n\r\n"
    assert heads[0] == b"CONNECT index.example:443 HTTP/1.1\r\nHost: index.example:443" + told
    assert heads[2] == b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443" + told
    assert len(heads) == 3, "what builds may not reach is not asked for there either"
    assert proxy.unreached == {}


async def test_a_plain_request_goes_by_the_proxy_of_the_nodes_owner(tmp_path):
    async with asked(b"HTTP/1.1 200 OK\r\n\r\nbody") as (upstream, heads):
        proxy = BuildProxy(frozenset({("index.example", 80)}), Proxies(http=upstream))
        async with proxy.serving(tmp_path / "s"):
            head = b"GET http://index.example/simple/ HTTP/1.1\r\nHost: h\r\nProxy-Authorization: Basic mine\r\n\r\n"
            assert await ask(tmp_path / "s", head) == b"HTTP/1.1 200 OK\r\n\r\nbody"
    [head] = heads
    assert head.split(b"\r\n") == [
        b"GET http://index.example:80/simple/ HTTP/1.1",
        b"Host: h",
        b"Connection: close",
        b"Proxy-Authorization: Basic eA==",
        b"",
        b"",
    ]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Who are you?\r\n\r\n", b"", b"x" * 40_000])
async def test_a_proxy_that_does_not_lead_there_is_named(tmp_path, answer):
    async with asked(answer) as (upstream, _):
        proxy = BuildProxy(frozenset({("index.example", 443)}), Proxies(https=upstream))
        async with proxy.serving(tmp_path / "s"):
            assert b" 502 " in await ask(tmp_path / "s", b"CONNECT index.example:443 HTTP/1.1\r\n\r\n")
    assert proxy.unreached == {"index.example by the proxy 127.0.0.1": None}


async def test_a_plain_request_is_passed_on_once(tmp_path):
    async with echo() as port, BuildProxy(frozenset({("127.0.0.1", port)})).serving(tmp_path / "s"):
        head = f"GET http://127.0.0.1:{port}/simple/x?y HTTP/1.1\r\nHost: h\r\nProxy-Connection: keep-alive\r\n\r\n"
        said = await ask(tmp_path / "s", head.encode())
    assert said == b"heard GET /simple/x?y HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


PLAIN = b"GET http://index.example/simple/ HTTP/1.1\r\nHost: h\r\n\r\n"
SMUGGLED = [
    PLAIN.replace(b"\r\nHost", b"\nHost"),
    PLAIN.replace(b"Host: h", b"Host: h\n\nCONNECT other.example:443 HTTP/1.1"),
    PLAIN.replace(b"Host: h", b"Host: h\rX: y"),
    PLAIN.replace(b"Host: h", b"Host: h\0"),
    PLAIN.replace(b"Host: h", b"Host: h\x7f"),
    PLAIN.replace(b"Host: h", b"Host: h\r\n Proxy-Authorization: x"),
    PLAIN.replace(b"Host: h", b"Connection : keep-alive"),
    PLAIN.replace(b"Host: h", b"no field"),
    PLAIN.replace(b"simple", b"sim\x0bple"),
    PLAIN.replace(b"HTTP/1.1", b"HTTP/2.0"),
    PLAIN.replace(b"HTTP/1.1", b"HTTP/1.1\n"),
    PLAIN.replace(b"HTTP/1.1", b"x"),
    PLAIN.replace(b"GET", b"POST"),
    PLAIN.replace(b"GET", b"TRACE"),
    PLAIN.replace(b"GET", b"get"),
    PLAIN.replace(b"GET", b"GET\nX"),
]


@pytest.mark.parametrize("head", SMUGGLED)
async def test_nothing_else_than_a_plain_request_gets_to_the_proxy_of_the_nodes_owner(tmp_path, head):
    async with asked(b"HTTP/1.1 200 OK\r\n\r\nbody") as (upstream, heads):
        proxy = BuildProxy(frozenset({("index.example", 80)}), Proxies(http=upstream))
        async with proxy.serving(tmp_path / "s"):
            assert await ask(tmp_path / "s", head) in {
                b"",
                b"HTTP/1.1 405 Builds may GET and HEAD only\r\nAllow: GET, HEAD\r\n\r\n",
            }
    assert heads == []


async def test_nothing_follows_a_plain_request(tmp_path):
    got: list[bytes] = []
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await answered.wait()
        writer.write_eof()
        got.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        proxies = Proxies(http=Upstream("127.0.0.1", server.sockets[0].getsockname()[1]))
        async with BuildProxy(frozenset({("index.example", 80)}), proxies).serving(tmp_path / "s"):
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            second = b"CONNECT other.example:443 HTTP/1.1\r\n\r\n"
            writer.write(PLAIN.replace(b"Host: h", b"Host: h\r\nContent-Length: 9\r\nUpgrade: x") + second)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\n\r\n"
            writer.write(second)
            await writer.drain()
            answered.set()
            await reader.read()
            writer.close()
            while len(got) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert got == [b"GET http://index.example:80/simple/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", b""]


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
        "GET http://allowed.example:443/ HTTP/1.1",
        "GET / HTTP/1.1",
    ],
)
async def test_others_are_refused(tmp_path, head):
    async with echo() as port:
        allowed = frozenset({("allowed.example", 443)})
        proxy = BuildProxy(allowed, secure=allowed)
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
