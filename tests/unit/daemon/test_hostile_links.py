"""Hostile inputs against a live listener: nothing but the handshake is possible, and nothing stays open.

The numbers are those of the list of hostile inputs in the security design.
"""

import asyncio
import logging
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from p2pq.core.events import LinkDown, LinkUp, Received
from p2pq.daemon import gate, link
from p2pq.daemon.gate import GateLimits
from p2pq.daemon.identity import NodeKeys
from p2pq.daemon.link import LinkLimits
from p2pq.daemon.links import LINK_PATH
from p2pq.model.notice import PeerRefused
from p2pq.wire import codec, frames, session, sign, trust
from p2pq.wire.messages import HasWork, Ping
from tests.unit.daemon.linkkit import OPEN_GATE, Node, keys_at, members, node, running, wall

pytestmark = pytest.mark.slow

QUICK_GATE = GateLimits(deadline_s=0.1, source_burst=1000, source_rate=1000, rate=1000, burst=1000)
UPGRADE = (
    f"GET {LINK_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
).encode()
BINARY, TEXT, CONTINUATION, CLOSE, PING = 2, 1, 0, 8, 9


class Raw:
    """A connection that sends whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def upgrade(self) -> bytes:
        await self.send(UPGRADE + b"\r\n")
        return await self.reader.readuntil(b"\r\n\r\n")

    async def gone(self) -> bytes:
        """Wait for the other side to close; return what it said before."""
        said = b""
        try:
            while piece := await self.reader.read(65536):
                said += piece
        except ConnectionError:
            return said
        return said


def frame(opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, mask: bool = True) -> bytes:
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    flag = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([flag | len(payload)])
    elif len(payload) < 65536:
        head += bytes([flag | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([flag | 127]) + struct.pack(">Q", len(payload))
    return head + (bytes(4) if mask else b"") + payload


@asynccontextmanager
async def victim(tmp_path: Path, **options: Any) -> AsyncIterator[Node]:
    settings = {"gate_limits": QUICK_GATE} | options
    async with (
        running(node(keys_at(tmp_path / "v", "v"), **settings)) as (one,),
        asyncio.timeout(60),
    ):
        yield one
        assert one.events.empty()
        assert not one.links.peers()


@asynccontextmanager
async def connected(to: Node) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", to.links.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


async def refusals(one: Node, count: int = 1) -> set[str]:
    reasons = set()
    for _ in range(count):
        notice = await one.notices.get()
        assert isinstance(notice, PeerRefused)
        reasons.add(notice.reason)
    return reasons


# -- before the handshake ---------------------------------------------------------------------------------------------------


async def test_h1_silence(tmp_path: Path) -> None:
    async with victim(tmp_path) as one, connected(one) as raw:
        assert await raw.gone() == b""
        assert await refusals(one) == {gate.TOO_SLOW}


async def test_h2_half_a_header_byte_by_byte(tmp_path: Path) -> None:
    async with victim(tmp_path) as one, connected(one) as raw:
        ended = asyncio.Event()

        async def drip() -> None:
            try:
                await raw.send(b"GET / HTTP/1.1\r\nX: ")
                while not ended.is_set():
                    await raw.send(b"x")
                    await asyncio.sleep(0.01)
            except ConnectionError:
                return

        async with asyncio.TaskGroup() as group:
            group.create_task(drip())
            await raw.gone()
            ended.set()
        assert gate.TOO_SLOW in await refusals(one)


async def test_h3_upgrade_then_silence(tmp_path: Path) -> None:
    async with victim(tmp_path) as one, connected(one) as raw:
        assert b" 101 " in await raw.upgrade()
        await raw.gone()
        assert gate.TOO_SLOW in await refusals(one, 1)


async def test_h4_a_hundred_connections(tmp_path: Path) -> None:
    limits = GateLimits(deadline_s=0.2, pending_per_source=8, source_burst=5, source_rate=0.001)
    async with running(node(keys_at(tmp_path / "v"), gate_limits=limits)) as (one,), asyncio.timeout(60):
        raws = [Raw(*await asyncio.open_connection("127.0.0.1", one.links.port)) for _ in range(100)]
        for raw in raws:
            assert await raw.gone() == b""
            raw.writer.close()
        counters = one.links.counters
        assert counters[gate.TOO_OFTEN] == 95
        assert counters[gate.TOO_SLOW] == 5
        assert one.notices.qsize() <= 4  # one line per reason and second, however many there were


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        UPGRADE + b"X-Long: " + b"x" * 5000 + b"\r\n\r\n",
        UPGRADE + b"".join(b"X-%d: x\r\n" % i for i in range(200)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 4096,
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ],
)
async def test_requests_that_are_none(tmp_path: Path, request_bytes: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with victim(tmp_path) as one, connected(one) as raw:
        await raw.send(request_bytes)
        said = await raw.gone()
        assert b" 101 " not in said
        assert not said or said.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_web_pages(tmp_path: Path) -> None:
    async with victim(tmp_path) as one, aiohttp.ClientSession() as http:
        for origin in ("http://evil.example", "null", f"http://127.0.0.1:{one.links.port}", ""):
            url = f"http://{one.address}{LINK_PATH}"
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await http.ws_connect(url, headers={"Origin": origin})
            assert refused.value.status == 403
        async with http.post(f"http://{one.address}{LINK_PATH}", data=b"x" * 100_000) as answer:
            assert answer.status == 405
        async with http.get(f"http://{one.address}{LINK_PATH}") as answer:
            assert answer.status == 400


@pytest.mark.parametrize("version", ["0", "2", "255", "x"])
async def test_h16_other_versions(tmp_path: Path, version: str) -> None:
    async with victim(tmp_path) as one, aiohttp.ClientSession() as http:
        answer = await http.get(f"http://{one.address}/p2pq/{version}/link")
        assert answer.status == 426
        answer.release()


# -- during the handshake ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames_sent",
    [
        frame(TEXT, b"hello"),
        frame(BINARY, b""),
        frame(BINARY, b"x" * 48),
        frame(BINARY, bytes(48)),
        frame(BINARY, b"x" * 4097),
        frame(BINARY, b"x" * 65_535),
        frame(BINARY, b"x" * 65_536),
        frame(BINARY, b"x", rsv=4),
        frame(BINARY, b"x", rsv=1),
        frame(CONTINUATION, b"x"),
        frame(PING, b"x") * 1000,
        frame(PING, b"x" * 126),
        frame(3, b"x"),
        frame(BINARY, b"x" * 48, mask=False),
        frame(CLOSE, b""),
        frame(CLOSE, b"\x00\x00"),
        frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"),
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00",
    ],
    ids=lambda value: f"{len(value)}-{value[:3].hex()}",
)
async def test_h17_frames_that_are_no_handshake(tmp_path: Path, frames_sent: bytes) -> None:
    async with victim(tmp_path) as one, connected(one) as raw:
        await raw.upgrade()
        await raw.send(frames_sent)
        said = await raw.gone()
        assert len(said) < 200  # at most a close frame: nothing of the handshake
        assert await refusals(one) <= {session.WRONG_MESH, session.LEFT, gate.TOO_SLOW}


async def test_h17_twenty_thousand_empty_fragments(tmp_path: Path) -> None:
    async with victim(tmp_path) as one, connected(one) as raw:
        await raw.upgrade()
        with suppress(ConnectionError):
            await raw.send(frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 20_000)
        await raw.gone()
        assert await refusals(one) <= {session.LEFT, gate.TOO_SLOW, session.WRONG_MESH}


async def test_h20_ten_thousand_handshakes(tmp_path: Path) -> None:
    """Each costs the node a few hash operations and no answer; the gate turns most away before that."""
    async with victim(tmp_path, gate_limits=OPEN_GATE) as one:
        for _ in range(200):
            async with connected(one) as raw:
                await raw.upgrade()
                await raw.send(frame(BINARY, os.urandom(48)))
                assert not (await raw.gone())[4:]
        assert one.links.counters[session.WRONG_MESH] == 200
        assert one.notices.qsize() < 20


class Evil:
    """A client that speaks the handshake itself, as a member or nearly one."""

    def __init__(self, stream: aiohttp.ClientWebSocketResponse) -> None:
        self.stream = stream

    async def message(self) -> bytes | None:
        got = await self.stream.receive()
        return got.data if got.type is aiohttp.WSMsgType.BINARY else None

    async def begin(self, keys: NodeKeys, **changes: Any) -> session.Initiator:
        """Shake hands up to message 3, which is returned unsent in ``third``."""
        local = replace(keys.local((), "evil"), **changes)
        initiator = session.Initiator(local, keys.known_mesh(lambda _: False), os.urandom)
        await self.stream.send_bytes(initiator.start())
        second = await self.message()
        assert second is not None
        self.second = second
        self.third = initiator.receive(second, wall())
        return initiator

    async def link(self, keys: NodeKeys, **changes: Any) -> session.Channel:
        initiator = await self.begin(keys, **changes)
        await self.stream.send_bytes(self.third)
        assert initiator.channel is not None
        return initiator.channel

    async def farewell(self, channel: session.Channel) -> str | None:
        """Return what the responder says in its BYE."""
        record = await self.message()
        if record is None:
            return None
        decoder = frames.Decoder()
        decoder.feed(channel.decrypt(record))
        return decoder.bye


@asynccontextmanager
async def attacking(target: Node) -> AsyncIterator[Evil]:
    async with aiohttp.ClientSession() as http:
        stream = await http.ws_connect(f"http://{target.address}{LINK_PATH}", autoping=False, max_msg_size=70_000)
        try:
            yield Evil(stream)
        finally:
            await stream.close()


async def test_h5_another_mesh_key(tmp_path: Path) -> None:
    async with victim(tmp_path, gate_limits=OPEN_GATE) as one, attacking(one) as evil:
        keys = keys_at(tmp_path / "e")
        initiator = session.Initiator(keys.local((), ""), keys.known_mesh(lambda _: False), os.urandom)
        await evil.stream.send_bytes(initiator.start())
        assert await evil.message() is None
        assert await refusals(one) == {session.WRONG_MESH}


def stolen_key(tmp_path: Path, one: Node) -> NodeKeys:
    """Return an outsider that knows the victim's mesh key, and nothing else."""
    keys = keys_at(tmp_path / "e")
    keys.state = replace_state(keys, one)
    return keys


def replace_state(keys: NodeKeys, one: Node) -> Any:
    return type(keys.state)(
        name="x", root=one.keys.state.root, certs=keys.state.certs, psks=one.keys.state.psks, issued=0
    )


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("none", trust.MISSING),
        ("own mesh", trust.WRONG_ROOT),
        ("member's", session.NOT_HOLDER),
        ("self-made", trust.WRONG_ROOT),
        ("noise", trust.BAD_CERT),
        ("by a member", trust.NOT_ADMIN),
    ],
)
async def test_h6_h8_certificates(tmp_path: Path, how: str, reason: str) -> None:
    async with victim(tmp_path, gate_limits=OPEN_GATE) as one, attacking(one) as evil:
        keys = stolen_key(tmp_path, one)
        outsider = trust.make_root(os.urandom)
        member = keys_at(tmp_path / "m")
        chain = one.keys.issue(trust.Subject(node=member.node, name="m", owner="m", caps=("work",)), wall())
        own = trust.issue_admin(
            outsider, trust.Subject(node=keys.node, name="e", owner="e", caps=("admin",)), serial=bytes(16), wall=wall()
        )
        cert = codec.decode_strict(
            codec.decode_lenient(chain[0], list, size_max=4096)[1], trust.Cert, size_max=4096
        )  # what a member would sign for another
        forged = type(cert)(
            mesh=cert.mesh, sub=keys.node, iss=member.node, ser=cert.ser, name="e", owner="e", caps=(), nbf=cert.nbf,
            exp=cert.exp,
        )  # fmt: skip
        certs = {
            "none": (),
            "own mesh": keys.state.certs,
            "member's": chain,
            "self-made": (own,),
            "noise": (b"\x00" * 300,),
            "by a member": (sign.sign(member.key, forged), chain[0]),
        }[how]
        channel = await evil.link(keys, certs=certs)
        assert await evil.farewell(channel) == reason
        assert await evil.message() is None
        assert await refusals(one) == {reason}


async def test_h9_a_signature_over_another_static_key(tmp_path: Path) -> None:
    """The signature of one session proves nothing in another, whose static key differs."""
    async with victim(tmp_path, gate_limits=OPEN_GATE) as one, attacking(one) as evil:
        keys = stolen_key(tmp_path, one)
        chain = one.keys.issue(trust.Subject(node=keys.node, name="e", owner="e", caps=("work",)), wall())
        local = replace(keys.local((), ""), certs=chain)
        initiator = session.Initiator(local, keys.known_mesh(lambda _: False), os.urandom)
        replayed = initiator._hello(wall())  # signed over local.static
        await evil.stream.send_bytes(initiator.start())
        second = await evil.message()
        assert second is not None
        initiator._handshake.read(second)
        initiator._handshake._s = os.urandom(32)
        third = initiator._handshake.write(replayed)
        await evil.stream.send_bytes(third)
        assert await evil.farewell(session.Channel(*initiator._handshake.split())) == session.BAD_SIGNATURE
        assert await refusals(one) == {session.BAD_SIGNATURE}


async def test_h11_h12_replayed_and_reflected_messages(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a, gate_limits=OPEN_GATE)) as (one,), asyncio.timeout(60):
        async with attacking(one) as evil:
            local = b.local((), "")
            initiator = session.Initiator(local, b.known_mesh(lambda _: False), os.urandom)
            first = initiator.start()
            await evil.stream.send_bytes(first)
            second = await evil.message()
            assert second is not None
            third = initiator.receive(second, wall())
            await evil.stream.send_bytes(third)
            assert (await one.event(LinkUp)).peer == b.node
            await evil.stream.close()
            await one.event(LinkDown)
        for last in (third, second, first):  # replayed, reflected, repeated: the responder's ephemeral key is new
            async with attacking(one) as evil:
                await evil.stream.send_bytes(first)
                assert await evil.message() is not None
                await evil.stream.send_bytes(last)
                assert await evil.message() is None
                assert one.links.counters[session.NOT_AUTHENTIC] > 0
        assert one.links.counters[session.NOT_AUTHENTIC] == 3
        assert one.events.empty()


# -- on a link --------------------------------------------------------------------------------------------------------------


def record_of(channel: session.Channel, message: Any) -> bytes:
    (piece,) = frames.encode(codec.encode(message))
    return channel.encrypt(piece)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    ["replay", "flip", "drop", "truncate", "empty", "short", "huge", "text", "ping", "fragment", "bomb", "unknown"],
)
async def test_h13_h17_records(tmp_path: Path, how: str) -> None:  # noqa: C901  one case for each way
    """A member that breaks the protocol loses the link at once; what came before counts, nothing after."""
    a, b = members(tmp_path, 2)
    async with running(node(a)) as (one,), asyncio.timeout(60), attacking(one) as evil:
        channel = await evil.link(b)
        await one.event(LinkUp)
        good = record_of(channel, HasWork(counter=1))
        await evil.stream.send_bytes(good)
        assert (await one.event(Received)).message == HasWork(counter=1)
        record = record_of(channel, HasWork(counter=2))
        match how:
            case "replay":
                await evil.stream.send_bytes(good)
            case "flip":
                await evil.stream.send_bytes(record[:-1] + bytes([record[-1] ^ 1]))
            case "drop":
                await evil.stream.send_bytes(record_of(channel, HasWork(counter=3)))
            case "truncate":
                await evil.stream.send_bytes(record[:-1])
            case "empty":
                await evil.stream.send_bytes(b"")
            case "short":
                await evil.stream.send_bytes(record[:15])
            case "huge":
                await evil.stream.send_bytes(b"x" * 65_536)
            case "text":
                await evil.stream.send_str("hello")
            case "ping":
                await evil.stream.ping(b"x")
            case "fragment":
                evil.stream._writer.transport.write(frame(BINARY, record, fin=False) + frame(BINARY, record))
            case "bomb":
                header = struct.pack("<BII", 1, 100, 8 << 20)
                await evil.stream.send_bytes(channel.encrypt(b"\x00\x01\x00\x00\x00\x01\x00\x00\x00"))
                await evil.stream.send_bytes(channel.encrypt(header + b"\xff" * 100))
            case "unknown":
                await evil.stream.send_bytes(channel.encrypt(struct.pack("<BII", 9, 1, 1) + b"x"))
        assert (await one.event(LinkDown)).reason == link.BROKE_PROTOCOL
        assert one.events.empty()


async def test_h14_an_end_without_bye(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a)) as (one,), asyncio.timeout(60), attacking(one) as evil:
        channel = await evil.link(b)
        await one.event(LinkUp)
        pieces = frames.encode(os.urandom(200_000))
        await evil.stream.send_bytes(channel.encrypt(pieces[0]))  # the rest never comes
        evil.stream._response.close()
        assert (await one.event(LinkDown)).reason == link.CUT
        assert one.events.empty()


async def test_h15_records_after_bye(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a)) as (one,), asyncio.timeout(60), attacking(one) as evil:
        channel = await evil.link(b)
        await one.event(LinkUp)
        await evil.stream.send_bytes(channel.encrypt(frames.encode_bye("done")))
        await evil.stream.send_bytes(record_of(channel, HasWork(counter=1)))
        assert await one.event(LinkDown) == LinkDown(peer=b.node, reason="bye: done")
        assert one.events.empty()


async def test_a_farewell_is_not_repeated_as_it_is(tmp_path: Path) -> None:
    """What a responder says for a reason reaches people only if it looks like one."""
    keys, b = members(tmp_path, 2)

    async def rude(request: web.Request) -> web.StreamResponse:
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        responder = session.Responder(keys.local((), ""), keys.known_mesh(lambda _: False), os.urandom)
        await stream.send_bytes(responder.receive(await stream.receive_bytes(), wall()))
        responder.receive(await stream.receive_bytes(), wall())
        assert responder.channel is not None
        await stream.send_bytes(responder.channel.encrypt(frames.encode_bye("\x1b[31m<script>")))
        await stream.close()
        return stream

    app = web.Application()
    app.router.add_get(LINK_PATH, rude)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with running(node(b, limits=LinkLimits(close_s=0.1))) as (one,):
            one.links.dial("{}:{}".format(*runner.addresses[0]))
            async with asyncio.timeout(60):
                failed = await one.events.get()
            assert failed.reason == session.LEFT  # type: ignore[union-attr]
    finally:
        await runner.cleanup()


async def test_pings_are_answered_and_nothing_more(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a)) as (one,), asyncio.timeout(60), attacking(one) as evil:
        channel = await evil.link(b)
        await one.event(LinkUp)
        for number in range(50):
            await evil.stream.send_bytes(record_of(channel, Ping(number=number)))
        decoder, answers = frames.Decoder(), 0
        while answers < 51:  # its own first ping, and fifty answers
            record = await evil.message()
            assert record is not None
            answers += len(decoder.feed(channel.decrypt(record)))
        assert one.events.empty()
        assert one.services.empty()


@pytest.mark.slow
async def test_where_a_member_is_linked_from_silence_is_cut_off_all_the_same(tmp_path: Path) -> None:
    first, second = members(tmp_path, 2)
    limits = LinkLimits(handshake_s=2.0, close_s=0.2)
    async with running(node(first, limits=limits), node(second, limits=limits)) as (one, two):
        two.links.dial(one.address)
        await one.event(LinkUp)
        async with asyncio.timeout(20), aiohttp.ClientSession() as http:
            stream = await http.ws_connect(f"http://{one.address}/p2pq/1/link")
            got = await stream.receive()
            assert got.type is not aiohttp.WSMsgType.BINARY
        assert one.links.counters[gate.TOO_SLOW] == 1
        assert two.id in one.links.peers()
