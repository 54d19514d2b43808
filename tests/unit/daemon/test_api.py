import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pq.daemon import api as api_module
from p2pq.daemon.api import Api
from p2pq.errors import DiskFullError, NotFoundError, P2PQError, RefusedError
from p2pq.wire.control import (
    ControlRequest,
    Done,
    Failed,
    Hello,
    Invite,
    Jobs,
    Note,
    PeersList,
    Reply,
    Show,
    Status,
    Stop,
    Watch,
    Welcome,
)

TOKEN = b"t" * 32
WELCOME = Welcome(id="id", name="n", version="0")


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def raw(self, raw: bytes) -> None:
        self.writer.write(raw)

    def say(self, said: object) -> None:
        raw = msgspec.msgpack.encode(said)
        self.raw(len(raw).to_bytes(4, "big") + raw)

    async def hear(self) -> Any:
        async with asyncio.timeout(10):
            size = int.from_bytes(await self.reader.readexactly(4), "big")
            return msgspec.msgpack.decode(await self.reader.readexactly(size), type=Reply)

    async def ask(self, request: ControlRequest) -> list[Any]:
        self.say(request)
        heard = [await self.hear()]
        while not isinstance(heard[-1], Done | Failed):
            heard.append(await self.hear())
        return heard

    async def closed(self) -> bool:
        """Wait until the node hangs up; tells whether it said nothing before."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


class Rig:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "node.sock"
        self.api = Api(self.path, TOKEN, lambda: WELCOME)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.api.bind()
        task = asyncio.get_running_loop().create_task(self.api.run())
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            self.api.close()

    @asynccontextmanager
    async def client(self, *, greet: bool = True) -> AsyncIterator[Client]:
        client = Client(*await asyncio.open_unix_connection(str(self.path)))
        try:
            if greet:
                client.say(Hello(token=TOKEN))
                assert await client.hear() == WELCOME
            yield client
        finally:
            client.writer.close()


@pytest.fixture
async def rig(tmp_path: Path):
    rig = Rig(tmp_path)
    async with rig.running():
        yield rig


async def two_notes(request: Jobs, send: Any) -> None:
    await send(Note(text=f"limit {request.limit}"))
    await send(Note(text="second"))


async def test_a_request_is_answered_with_items_and_done(rig: Rig) -> None:
    rig.api.register(Jobs, two_notes)
    async with rig.client() as client:
        assert await client.ask(Jobs(limit=3)) == [Note(text="limit 3"), Note(text="second"), Done()]
        assert await client.ask(Jobs(limit=4)) == [Note(text="limit 4"), Note(text="second"), Done()]


async def test_requests_sent_ahead_are_answered_in_order(rig: Rig) -> None:
    rig.api.register(Jobs, two_notes)
    async with rig.client() as client:
        for number in range(20):
            client.say(Jobs(limit=number))
        for number in range(20):
            heard = [await client.hear() for _ in range(3)]
            assert heard == [Note(text=f"limit {number}"), Note(text="second"), Done()]


async def test_the_socket_is_ours_alone_and_goes_with_the_node(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    async with rig.running():
        mode = rig.path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not rig.path.exists()


async def test_a_left_over_socket_is_replaced_and_a_live_one_is_not(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="already answers"):
        Api(rig.path, TOKEN, lambda: WELCOME).bind()
    async with rig.client():
        pass
    left_over = tmp_path / "old.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left_over))
    other = Rig(tmp_path)
    other.api = Api(left_over, TOKEN, lambda: WELCOME)
    other.path = left_over
    async with other.running(), other.client():
        pass


async def test_a_place_that_cannot_be_taken_is_said(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="cannot listen there"):
        Api(tmp_path / "missing" / "node.sock", TOKEN, lambda: WELCOME).bind()


# -- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [b"", b"u" * 32, TOKEN[:-1], TOKEN + b"t"])
async def test_a_wrong_token_is_refused(rig: Rig, token: bytes) -> None:
    rig.api.register(Jobs, two_notes)
    async with rig.client(greet=False) as client:
        client.say(Hello(token=token))
        client.say(Jobs())
        answer = await client.hear()
        assert isinstance(answer, Failed)
        assert "wrong token" in answer.message
        assert await client.closed()


async def test_another_version_is_refused(rig: Rig) -> None:
    async with rig.client(greet=False) as client:
        client.say(Hello(token=TOKEN, api=2))
        answer = await client.hear()
        assert "version 1" in answer.message
        assert await client.closed()


@pytest.mark.parametrize("said", [Jobs(), b"", [], "Hello", {"type": "Hello", "token": 3}])
async def test_anything_but_a_greeting_is_refused(rig: Rig, said: object) -> None:
    async with rig.client(greet=False) as client:
        client.say(said)
        assert isinstance(await client.hear(), Failed)
        assert await client.closed()


async def test_a_long_greeting_is_cut_off(rig: Rig) -> None:
    async with rig.client(greet=False) as client:
        client.raw((4097).to_bytes(4, "big"))
        assert await client.closed()


async def test_a_silent_client_is_cut_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "HELLO_S", 0.01)
    async with rig.client(greet=False) as client:
        assert await client.closed()


async def test_another_user_is_cut_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module.os, "geteuid", lambda: os.getuid() + 1)
    async with rig.client(greet=False) as client:
        assert await client.closed()


async def test_too_many_clients_are_cut_off_and_places_come_free(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "CONNECTIONS_MAX", 2)
    rig.api.register(Jobs, two_notes)
    async with rig.client() as first:
        async with rig.client(), rig.client(greet=False) as third:
            assert await third.closed()
        assert len(await first.ask(Jobs())) == 3
        async with asyncio.timeout(10):
            while rig.api._connections > 1:  # noqa: ASYNC110  nobody else wants to know
                await asyncio.sleep(0)
        async with rig.client() as fourth:
            assert len(await fourth.ask(Jobs())) == 3


# -- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NotFoundError("no job abcd"), Failed(message="no job abcd", exit_code=4)),
        (DiskFullError("full"), Failed(message="full", exit_code=4, retryable=True)),
        (P2PQError(), Failed(message="Something in p2pq went wrong.", exit_code=4)),
        # Out of the groups of tasks that some answers need.
        (ExceptionGroup("", [ExceptionGroup("", [NotFoundError("gone")])]), Failed(message="gone", exit_code=4)),
        (ExceptionGroup("", [DiskFullError("full"), P2PQError()]), Failed(message="full", exit_code=4, retryable=True)),
    ],
)
async def test_our_errors_become_their_sentence_and_exit_code(rig: Rig, error: Exception, expected: Failed) -> None:
    async def fail(_request: Show, send: Any) -> None:
        await send(Note(text="before"))
        raise error

    rig.api.register(Show, fail)
    async with rig.client() as client:
        assert await client.ask(Show(job="abcd")) == [Note(text="before"), expected]
        assert await client.ask(Show(job="abcd")) == [Note(text="before"), expected]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret detail"),
        OSError("secret detail"),
        EOFError(),
        ExceptionGroup("", [NotFoundError("no job"), ValueError("secret detail")]),
    ],
)
async def test_a_bug_is_logged_and_the_node_goes_on(
    rig: Rig, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async def fail(_request: Show, _send: Any) -> None:
        raise error

    rig.api.register(Show, fail)
    rig.api.register(Jobs, two_notes)
    async with rig.client() as client:
        with caplog.at_level(logging.ERROR, "p2pq.daemon.api"):
            (answer,) = await client.ask(Show(job="abcd"))
        assert answer.exit_code == 4
        assert "node.log" in answer.message
        assert "secret" not in answer.message
        assert caplog.records[0].exc_info is not None
        assert len(await client.ask(Jobs())) == 3


async def test_what_is_not_understood_is_refused_and_the_connection_stays(rig: Rig) -> None:
    rig.api.register(Jobs, two_notes)
    async with rig.client() as client:
        for said in ({"type": "Destroy"}, [1, 2], None, {"type": "Show"}, {"type": "Invite", "uses": "x"}):
            client.say(said)
            assert "does not understand" in (await client.hear()).message
        client.raw((3).to_bytes(4, "big") + b"\xc1\xc1\xc1")
        assert "does not understand" in (await client.hear()).message
        (answer,) = await client.ask(Invite())
        assert answer == Failed(message="this node does not answer Invite", exit_code=4)
        assert len(await client.ask(Jobs())) == 3


async def test_a_frame_that_is_too_long_ends_the_connection(rig: Rig) -> None:
    async with rig.client() as client:
        client.raw(b"\xff\xff\xff\xff")
        assert await client.closed()


async def test_an_answer_that_is_too_long_is_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "FRAME_BYTES_MAX", 1000)

    async def talk(_request: Status, send: Any) -> None:
        await send(Note(text="x" * 2000))

    rig.api.register(Status, talk)
    async with rig.client() as client:
        (answer,) = await client.ask(Status())
        assert "too long" in answer.message


async def test_a_client_that_goes_ends_its_stream_and_nothing_else(rig: Rig) -> None:
    ended = asyncio.Event()

    async def stream(_request: Watch, send: Any) -> None:
        try:
            await send(Note(text="now"))
            await asyncio.Event().wait()
        finally:
            ended.set()

    rig.api.register(Watch, stream)
    rig.api.register(Jobs, two_notes)
    async with rig.client() as other:
        async with rig.client() as client:
            client.say(Watch(jobs=("abcd",)))
            assert await client.hear() == Note(text="now")
        async with asyncio.timeout(10):
            await ended.wait()
        assert len(await other.ask(Jobs())) == 3


async def test_a_client_that_does_not_read_holds_up_only_itself(rig: Rig) -> None:
    async def flood(_request: PeersList, send: Any) -> None:
        while True:
            await send(Note(text="x" * 60_000))

    rig.api.register(PeersList, flood)
    rig.api.register(Jobs, two_notes)
    async with rig.client() as deaf, rig.client() as other:
        deaf.say(PeersList())
        assert isinstance(await deaf.hear(), Note)
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(10):
            assert len(await other.ask(Jobs())) == 3


async def test_a_client_that_vanishes_while_it_is_answered_harms_nobody(rig: Rig) -> None:
    vanished = asyncio.Event()
    ended = asyncio.Event()

    async def answer(_request: Status, send: Any) -> None:
        await vanished.wait()
        try:
            while True:
                await send(Note(text="x" * 60_000))
        finally:
            ended.set()

    rig.api.register(Status, answer)
    rig.api.register(Jobs, two_notes)
    for ahead in (1, 10):
        vanished.clear()
        ended.clear()
        async with rig.client() as other:
            async with rig.client() as client:
                for _ in range(ahead):
                    client.say(Status())
                await client.writer.drain()
                assert len(await other.ask(Jobs())) == 3
                client.writer.transport.abort()  # type: ignore[attr-defined]
                vanished.set()
            async with asyncio.timeout(10):
                await ended.wait()
            assert len(await other.ask(Jobs())) == 3


async def test_the_end_of_the_node_ends_every_connection(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    started = asyncio.Event()

    async def hang(_request: Stop, _send: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    rig.api.register(Stop, hang)
    async with rig.running():
        client = Client(*await asyncio.open_unix_connection(str(rig.path)))
        client.say(Hello(token=TOKEN))
        assert await client.hear() == WELCOME
        client.say(Stop())
        await started.wait()
    assert await client.closed()
    client.writer.close()
