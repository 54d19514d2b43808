import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from p2pq.daemon import gate
from p2pq.daemon.gate import Bucket, Gate, GateLimits, bind, parse_listen, source_of
from p2pq.errors import ConfigError


class Guest(asyncio.Protocol):
    made: "asyncio.Queue[asyncio.BaseTransport]"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.put_nowait(transport)


class Door:
    """A gate on 127.0.0.1, and what went through it."""

    def __init__(self, limits: GateLimits, **options: Any) -> None:
        self.refused: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.made: asyncio.Queue[asyncio.BaseTransport] = asyncio.Queue()
        self.gate = Gate(limits, refused=lambda ip, why: self.refused.put_nowait((ip, why)), **options)
        self.listener = bind("127.0.0.1:0")

    def server(self) -> Guest:
        guest = Guest()
        guest.made = self.made
        return guest

    async def knock(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.listener.getsockname())


@asynccontextmanager
async def door(limits: GateLimits, **options: Any) -> AsyncIterator[Door]:
    opened = Door(limits, **options)
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        task = group.create_task(opened.gate.serve(opened.listener, opened.server))
        yield opened
        task.cancel()
        opened.gate.close()
        opened.listener.close()


async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Wait for the other side to close."""
    try:
        ended = await reader.read(1) == b""
    except ConnectionResetError:
        ended = True
    writer.close()
    return ended


OPEN = GateLimits(source_burst=1000, rate=1000, burst=1000)


async def test_who_proves_nothing_is_cut_off() -> None:
    async with door(GateLimits(deadline_s=0.05)) as opened:
        assert await gone(*await opened.knock())
        assert await opened.refused.get() == ("127.0.0.1", gate.TOO_SLOW)


async def test_who_proves_itself_stays() -> None:
    async with door(GateLimits(deadline_s=0.05)) as opened:
        reader, writer = await opened.knock()
        transport = await opened.made.get()
        opened.gate.admit(transport)
        opened.gate.admit(transport)
        opened.gate.admit(None)
        assert await gone(*await opened.knock())  # the one after it has been cut off by now
        assert not transport.is_closing()
        transport.close()
        assert await gone(reader, writer)


async def test_a_crowd_from_one_address() -> None:
    """H4: beyond the limit, connections are reset."""
    async with door(GateLimits(pending_per_source=8, source_burst=1000, rate=1000, burst=1000)) as opened:
        pairs = [await opened.knock() for _ in range(100)]
        refused = [await opened.refused.get() for _ in range(92)]
        assert set(refused) == {("127.0.0.1", gate.TOO_MANY_FROM_SOURCE)}
        assert opened.made.qsize() == 8
        for _, writer in pairs:
            writer.close()


async def test_too_often_from_one_address() -> None:
    async with door(GateLimits(source_burst=5, source_rate=0.0001)) as opened:
        pairs = [await opened.knock() for _ in range(7)]
        assert [await opened.refused.get() for _ in range(2)] == [("127.0.0.1", gate.TOO_OFTEN)] * 2
        assert opened.made.qsize() == 5
        opened.gate.admit(await opened.made.get())  # welcome after all: its token comes back
        pairs.append(await opened.knock())
        assert await opened.made.get()
        for _, writer in pairs:
            writer.close()


async def test_too_often_in_all() -> None:
    async with door(GateLimits(source_burst=100, burst=2, rate=0.0001)) as opened:
        pairs = [await opened.knock() for _ in range(3)]
        assert await opened.refused.get() == ("127.0.0.1", gate.TOO_OFTEN)
        for _, writer in pairs:
            writer.close()


@pytest.mark.parametrize(("limits", "reason"), [({"pending": 2}, gate.TOO_MANY_PENDING), ({"total": 2}, gate.TOO_MANY)])
async def test_bounds_in_all(limits: dict[str, int], reason: str) -> None:
    async with door(GateLimits(**limits), known=lambda _: True) as opened:  # type: ignore[arg-type]
        pairs = [await opened.knock() for _ in range(3)]
        assert await opened.refused.get() == ("127.0.0.1", reason)
        opened.made.get_nowait().close()
        pairs.append(await opened.knock())  # there is room again
        for _ in range(2):
            await opened.made.get()
        for _, writer in pairs:
            writer.close()


async def test_members_may_come_often() -> None:
    async with door(GateLimits(source_burst=1, source_rate=0.0001), known=lambda ip: ip == "127.0.0.1") as opened:
        pairs = [await opened.knock() for _ in range(20)]
        for _ in range(20):
            await opened.made.get()
        assert opened.refused.empty()
        for _, writer in pairs:
            writer.close()


async def test_no_more_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    async with door(GateLimits(deadline_s=0.05)) as opened:
        loop = asyncio.get_running_loop()
        real, fail = loop.sock_accept, [errno.ECONNABORTED, errno.EMFILE]

        async def accept(sock: socket.socket) -> tuple[socket.socket, Any]:
            if fail:
                raise OSError(fail.pop(0), "no")
            return await real(sock)

        monkeypatch.setattr(loop, "sock_accept", accept)
        first = await opened.knock()  # ends the accept that was under way
        second = await opened.knock()
        assert await opened.refused.get() == ("", gate.TOO_MANY)
        for _ in range(2):
            await opened.made.get()
        for _, writer in (first, second):
            writer.close()


def test_sources() -> None:
    assert source_of("10.0.0.1") == "10.0.0.1"
    assert source_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert source_of("fd00::1:2:3:4") == source_of("fd00::9") == "fd00::/64"
    assert source_of("fe80::1%eth0") == "fe80::/64"


async def test_sources_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SOURCES_MAX", 3)
    watched = Gate(OPEN, refused=lambda _ip, _why: None)
    for i in range(10):
        assert watched._judge(f"10.0.0.{i}", "x") is None
    assert list(watched._sources) == ["10.0.0.7", "10.0.0.8", "10.0.0.9"]


def test_a_bucket_fills_with_time() -> None:
    bucket = Bucket(rate=2, burst=3, now=0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5) for _ in range(2)] == [True, False]
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::]:9476", ("::", 9476)),
        ("localhost:1234", ("127.0.0.1", 1234)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)),
    ],
)
def test_listen(text: str, parts: tuple[str, int]) -> None:
    assert parse_listen(text) == parts


@pytest.mark.parametrize("text", ["", "0.0.0.0", "9476", "0.0.0.0:x", "0.0.0.0:70000", "0.0.0.0:-1", "host:1", ":9476"])
def test_listen_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        parse_listen(text)


def test_the_default_port_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setattr(gate, "DEFAULT_PORT", port)
    with bind("127.0.0.1:0") as first, bind("127.0.0.1:0") as second:
        assert first.getsockname()[1] == port
        assert second.getsockname()[1] != port
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            bind(f"127.0.0.1:{port}")


def test_ipv6_listens_for_ipv4_too() -> None:
    with bind("[::]:0") as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRNOTAVAIL, "not an address of this machine"),
        (errno.EACCES, "above 1023"),
        (errno.ENETDOWN, "choose another"),
    ],
)
def test_other_reasons_not_to_listen(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def fail(_host: str, _port: int) -> socket.socket:
        raise OSError(number, "no")

    monkeypatch.setattr(gate, "_listen", fail)
    with pytest.raises(ConfigError, match=words):
        bind("127.0.0.1:80")


async def test_one_address_does_not_take_every_place_even_of_a_member() -> None:
    limits = GateLimits(per_source=2, source_burst=1000, rate=1000, burst=1000)
    async with door(limits, known=lambda _: True) as opened:
        pairs = [await opened.knock() for _ in range(3)]
        assert await opened.refused.get() == ("127.0.0.1", gate.TOO_MANY_FROM_SOURCE)
        assert opened.made.qsize() == 2
        for _, writer in pairs:
            writer.close()
