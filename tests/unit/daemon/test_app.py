"""The node as a whole, in this process; several of them together are tests/e2e's concern."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from p2pq.core.records import BanKept
from p2pq.daemon import app as app_module
from p2pq.daemon import offering, sqlite
from p2pq.daemon.app import run_node, wall
from p2pq.daemon.generation import Generation
from p2pq.daemon.home import Home
from p2pq.daemon.identity import load_or_create
from p2pq.daemon.settings import Entry, load
from p2pq.daemon.store import Store
from p2pq.errors import ConfigError, InvariantError, StoreDamagedError
from p2pq.model.config import LogSettings, NodeSettings, RunnerSettings, Settings
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import control, settingcontrol, trust
from p2pq.wire.control import Done, Failed, MeshView, Reply, StatusView, Welcome
from p2pq.wire.prims import SigningKey
from tests.unit.daemon.linkkit import free_address


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def settings(tmp_path: Path, listen: str = "127.0.0.1:0") -> Settings:
    # An interpreter that does not run spares the self-test; nothing is run here.
    node = NodeSettings(name="n", listen=listen, mdns=False, slots=1)
    return Settings(node=node, runner=RunnerSettings(python=str(tmp_path / "no-python")))


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def hear(self) -> Any:
        async with asyncio.timeout(20):
            size = int.from_bytes(await self.reader.readexactly(4), "big")
            return msgspec.msgpack.decode(await self.reader.readexactly(size), type=Reply)

    def say(self, said: object) -> None:
        raw = msgspec.msgpack.encode(said)
        self.writer.write(len(raw).to_bytes(4, "big") + raw)

    async def ask(self, request: object) -> list[Any]:
        self.say(request)
        heard = [await self.hear()]
        while not isinstance(heard[-1], Done | Failed):
            heard.append(await self.hear())
        return heard


@asynccontextmanager
async def running(
    home: Home, with_settings: Settings, entries: tuple[Entry, ...] = ()
) -> AsyncIterator[tuple[Client, str, "asyncio.Task[None]"]]:
    """Run a node; whoever uses this makes it stop."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[str] = loop.create_future()
    with home.lock():
        task = loop.create_task(run_node(home, with_settings, ready.set_result, entries))
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED, timeout=20)
        if task.done():
            task.result()
        client = Client(*await asyncio.open_unix_connection(str(home.socket)))
        client.say(control.Hello(token=home.token()))
        assert isinstance(await client.hear(), Welcome)
        try:
            yield client, ready.result(), task
            async with asyncio.timeout(20):
                await task
        finally:
            client.writer.close()
            task.cancel()


async def test_the_store_is_there_before_the_key(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a key without a store means that the store is lost, and a first start that crashes locks nobody out."""

    def no_key(*_: object) -> None:
        assert home.store.exists()
        raise ConfigError("crashed")

    with monkeypatch.context() as patch, home.lock():
        patch.setattr("p2pq.daemon.app.load_or_create", no_key)
        with pytest.raises(ConfigError, match="crashed"):
            await run_node(home, settings(tmp_path), print)
    async with running(home, settings(tmp_path)) as (client, _, _):
        assert await client.ask(control.Stop()) == [Done()]
    home.store.unlink()
    with home.lock(), pytest.raises(StoreDamagedError, match="the store is missing"):
        await run_node(home, settings(tmp_path), print)


async def test_a_node_says_what_settings_it_goes_by_and_where_they_came_from(home: Home, tmp_path: Path) -> None:
    env = {"P2PQ_NODE_LABELS": "room=12", "P2PQ_SCHEDULE_LEASE_S": "90"}
    effective = load(home.path, env, {"bridge.enabled": True, "node.peers": ["127.0.0.1:9"]})
    async with running(home, settings(tmp_path), effective.entries) as (client, _, _):
        *views, done = await client.ask(settingcontrol.SettingsList())
        assert done == Done()
        assert [(view.key, view.value, view.origin) for view in views] == effective.rows()
        assert settingcontrol.SettingView(key="bridge.enabled", value=True, origin="option") in views
        assert settingcontrol.SettingView(key="node.labels", value={"room": "12"}, origin="P2PQ_NODE_LABELS") in views
        assert await client.ask(control.Stop()) == [Done()]


async def test_a_node_serves_and_stops_when_asked(home: Home, tmp_path: Path) -> None:
    ids = []
    epochs = []
    for _ in range(2):
        async with running(home, settings(tmp_path)) as (client, line, _):
            word, name, node, address = line.split()
            assert (word, name) == ("ready", "n")
            assert address.startswith("127.0.0.1:")
            status, done = await client.ask(control.Status())
            assert isinstance(status, StatusView)
            assert (status.id, status.name, status.policy.state) == (node, "n", "off")
            assert done == Done()
            ids.append(node)
            assert await client.ask(control.Stop()) == [Done()]
        assert not home.socket.exists()
        store, restored = Store.open(home.store, lambda: Wall(0))
        await store.close()
        epochs.append(restored.epoch)
    assert epochs[0] < epochs[1], "each life has leases of its own"
    assert len(set(ids)) == 1, "the node is the same after a restart"


async def test_the_core_has_come_to_its_end_before_the_store_is_closed(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it records meanwhile is refused, and a node that was stopped says that it has failed."""
    close, runs = Store.close, []

    async def closing(self: Store) -> None:
        runs.append([task for task in asyncio.all_tasks() if task.get_name() == "driver"])
        await close(self)

    monkeypatch.setattr(Store, "close", closing)
    async with running(home, settings(tmp_path)) as (client, _, _):
        assert await client.ask(control.Stop()) == [Done()]
    assert runs == [[]]


async def test_a_self_test_that_ends_just_before_the_node_serves_is_heard_of(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the node would offer nothing for the rest of its life, not even to its own user."""
    start, prove = Generation.start, offering.prove
    almost = threading.Event()

    def late_prove(*args: Any) -> Any:
        assert almost.wait(20)
        return prove(*args)

    async def slow_start(self: Generation) -> None:
        await start(self)
        almost.set()
        while self._app.isolation is None:  # noqa: ASYNC110  set by a thread
            await asyncio.sleep(0.001)

    monkeypatch.setattr(offering, "prove", late_prove)
    monkeypatch.setattr(Generation, "start", slow_start)
    async with running(home, settings(tmp_path)) as (client, _, _):
        async with asyncio.timeout(10):
            while not (status := (await client.ask(control.Status()))[0]).policy.reason:
                pass
        assert status.policy.state == "off"
        assert await client.ask(control.Stop()) == [Done()]


async def test_founding_a_mesh_begins_a_new_life_on_the_same_port_and_connection(home: Home, tmp_path: Path) -> None:
    async with running(home, settings(tmp_path, free_address())) as (client, line, _):
        (before, _) = await client.ask(control.Mesh())
        (founded, _) = await client.ask(control.MeshInit(name="lab"))
        assert isinstance(founded, MeshView)
        assert (founded.name, founded.solo) == ("lab", True)
        assert founded.id != before.id
        (status, _) = await client.ask(control.Status())
        assert status.address == line.split()[3]
        assert status.mesh == "lab"
        await client.ask(control.Stop(now=True))


async def test_bans_of_a_mesh_that_was_left_and_of_a_clock_set_back_do_not_prevent_a_start(
    home: Home, tmp_path: Path
) -> None:
    now = wall()
    own = load_or_create(home, "n", now, os.urandom)
    other = SigningKey(os.urandom(32))
    stranger, late = NodeId(os.urandom(32)), NodeId(os.urandom(32))
    foreign = trust.issue_ban(other, other.public, stranger, at=now, banned=True, certs=())
    early = own.sign_ban(late, Wall(now + 10 * trust.SKEW_MS), Wall(0), banned=True)
    store, _ = Store.open(home.store, lambda: now)
    store.start()
    rows = (
        BanKept(node=stranger, banned=True, issuer=other.public, signed=foreign),
        BanKept(node=late, banned=True, issuer=own.node, signed=early),
    )
    await store.commit(rows, full=True)
    await store.close()
    async with running(home, settings(tmp_path)) as (client, _, _):
        assert await client.ask(control.Stop()) == [Done()]
    store, restored = Store.open(home.store, lambda: now)
    await store.close()
    assert set(restored.bans) == {BanKept(node=stranger, banned=False, issuer=other.public), rows[1]}


async def test_sigterm_stops_the_node(home: Home, tmp_path: Path) -> None:
    async with running(home, settings(tmp_path)):
        os.kill(os.getpid(), signal.SIGTERM)


async def test_what_prevents_a_start_is_one_error(home: Home, tmp_path: Path) -> None:
    async with running(home, settings(tmp_path)) as (client, line, _):
        other = Home.open(tmp_path / "other")
        port_in_use = settings(tmp_path, listen=line.split()[3])
        with pytest.raises(ExceptionGroup) as caught:
            async with running(other, port_in_use):
                pass
        assert caught.group_contains(ConfigError, match="is in use")
        await client.ask(control.Stop())
    assert not other.socket.exists()


def in_a_process(home: Path, environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    code = (
        "import sys, pathlib\n"
        "from p2pq.daemon.app import run\n"
        "from p2pq.errors import P2PQError\n"
        "try: run(pathlib.Path(sys.argv[1]), {'node': {'mdns': False}}, ready=print)\n"
        "except P2PQError as error: print(type(error).__name__, error)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **environ}
    argv = [sys.executable, "-c", code, str(home)]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=True)


@pytest.mark.slow
def test_a_damaged_store_and_a_wrong_setting_are_one_sentence(home: Home) -> None:
    home.store.write_bytes(b"nonsense" * 1000)
    home.store.chmod(0o600)
    said = in_a_process(home.path, {"P2PQ_NODE_LISTEN": "127.0.0.1:0"})
    assert said.stdout.startswith(StoreDamagedError.__name__)
    assert "damaged" in said.stdout
    assert "Traceback" not in said.stdout + said.stderr
    said = in_a_process(home.path, {"P2PQ_NODE_SLOTS": "many"})
    assert said.stdout.startswith('ConfigError P2PQ_NODE_SLOTS is the text "many"; write a whole number')


@pytest.mark.parametrize(
    ("error", "recorded", "hint"),
    [
        (InvariantError("two"), False, "; `p2pq node --flight` would record how it comes to that"),
        (InvariantError("two; `python -m simulations replay x --check` shows how"), True, ""),
        (KeyError("two"), False, ""),
    ],
)
def test_a_bug_is_one_sentence_that_says_how_to_see_more(
    home: Home, error: Exception, recorded: bool, hint: str
) -> None:
    group = BaseExceptionGroup("", [BaseExceptionGroup("", [error])])
    said = str(app_module._sentence(group, home, Settings(log=LogSettings(flight=recorded))))
    assert said == (
        f"the node stopped because of a bug ({error!r}); nothing acknowledged is lost. Please report {home.log}{hint}"
    )


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR])
def test_a_node_that_ended_does_not_say_that_it_tries_again(home: Home, code: int) -> None:
    error = sqlite3.OperationalError("no")
    error.sqlite_errorcode = code
    found = sqlite.storage_error(error, home.store)
    assert str(found).endswith(": the node tries again")
    said = app_module._sentence(BaseExceptionGroup("", [found]), home, Settings())
    assert type(said) is type(found)
    assert str(said).endswith(": then start the node again")


def test_keys_are_out_of_reach_of_other_processes() -> None:
    code = (
        "import os, resource\n"
        "from p2pq.daemon.app import harden\n"
        "harden()\n"
        "print(os.umask(0), resource.getrlimit(resource.RLIMIT_CORE))\n"
        "import ctypes\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"  # PR_GET_DUMPABLE
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    said = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["63 (0, 0)", "0"]
