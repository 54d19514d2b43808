"""One life in one mesh: what it is built of, what a join told it, and that nothing of it is left."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import flight
from p2pq.core.prekeys import PREKEY_S
from p2pq.core.records import BanKept
from p2pq.daemon import draining, offering
from p2pq.daemon import generation as module
from p2pq.daemon.app import END_S
from p2pq.daemon.generation import Generation
from p2pq.daemon.home import Home
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.lasting import Lasting
from p2pq.daemon.limits import FREE_BYTES_MIN
from p2pq.daemon.owner import Owner
from p2pq.daemon.store import Store
from p2pq.daemon.telemetry import Telemetry
from p2pq.errors import ConfigError, LinkError, LocalProtocolError, StorageError
from p2pq.model.config import LogSettings, NodeSettings, Settings
from p2pq.model.ids import Mono, NodeId, Wall
from p2pq.model.owner import Readings
from p2pq.wire.messages import BlobGone, Leaving, Ping
from tests.unit.daemon.linkkit import free_address, keys_at, wall

PEER = NodeId(b"p" * 32)


def lasting(path: Path, **changes: object) -> Lasting:
    loop = asyncio.get_running_loop()

    async def no_restart(_hints: tuple[str, ...], _bans: tuple[bytes, ...]) -> Generation:
        raise AssertionError("nothing here begins anew")

    def mono() -> Mono:
        return Mono(loop.time())

    keys = keys_at(path / "home", "ant")
    settings = Settings(node=NodeSettings(mdns=False, slots=1))
    made = Lasting(
        home=Home.open(path / "home", environ={"P2PQ_ALLOW_ROOT": "1"}),
        settings=settings,
        keys=keys,
        telemetry=Telemetry(mono),
        machine=offering.machine(settings),
        owner=Owner(settings.policy, path / "home", lambda _: SimpleNamespace(readings=Readings), mono, wall),
        python=JobPython(executable=path / "no-python", prefixes=(), version="3.11.0"),
        listen=free_address(),
        mono=mono,
        boot=None,
        wall=wall,
        restart=no_restart,
        stop=lambda _now: None,
    )
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class Over(Exception):  # noqa: N818  ends the group, as the app does
    pass


@contextlib.asynccontextmanager
async def living(app: Lasting) -> AsyncIterator[Generation]:
    try:
        async with asyncio.TaskGroup() as group, asyncio.timeout(60):
            generation = Generation(app, group)
            try:
                generation.build()
                await generation.start()
                yield generation
                await generation.drain(at_once=True)
            finally:
                await generation.close()
            raise Over  # noqa: TRY301  ends what else runs in the group
    except* Over:
        pass


async def test_it_says_where_it_listens_and_listens_there_again(tmp_path: Path) -> None:
    app = lasting(tmp_path, listen=free_address())
    async with living(app) as first:
        line = first.ready_line()
        assert line.split()[:2] == ["ready", "ant"]
        assert line.split()[3] == app.listen == f"127.0.0.1:{first.links.port}"
    async with living(app) as second:
        assert second.ready_line() == line


async def test_it_goes_down_at_once_if_nothing_runs(tmp_path: Path) -> None:
    async with living(lasting(tmp_path)) as generation:
        async with asyncio.timeout(1.0):
            await generation.drain(at_once=False)
        assert generation.node.policy().draining


async def test_a_node_that_goes_down_has_its_whole_process_gone_in_time() -> None:
    """The cut comes after every stage of going down, and before the 10 s that are promised."""
    stages = draining.LET_FINISH_S + draining.SAVE_S + draining.FLUSH_S
    assert draining.SAVE_GRACE_S < draining.SAVE_S
    assert stages + 1.0 <= END_S < 10


async def test_a_ban_that_a_join_told_holds_before_the_first_link_and_after_a_restart(tmp_path: Path) -> None:
    app = lasting(tmp_path)
    raw = app.keys.sign_ban(PEER, wall(), Wall(0), banned=True)
    app.bans = (raw, b"not a ban")
    async with living(app) as generation:
        assert generation.node.banned(PEER)
        assert not generation.node.banned(NodeId(b"q" * 32))
    store, restored = Store.open(app.home.store, wall)
    await store.close()
    assert restored.bans == (BanKept(node=PEER, banned=True, issuer=app.keys.node, signed=raw),)


async def test_a_week_later_handshakes_name_a_new_prekey(tmp_path: Path) -> None:
    """The core keeps the private half to itself, so that it can be forgotten; another life has another one."""
    ahead = [0.0]
    app = lasting(tmp_path)
    app.mono = lambda: Mono(asyncio.get_running_loop().time() + ahead[0])
    async with living(app) as generation:
        first = app.keys.local((), "").prekey
        assert first == generation.node.prekeys.public
        ahead[0] = PREKEY_S
        await generation.parts.post_durable(ev.Tick(wall=wall()))
        await generation.driver.flush()
        second = app.keys.local((), "").prekey
        assert second == generation.node.prekeys.public
    assert len({first, second, app.keys.core_identity().prekey}) == 3


async def test_a_new_mesh_key_is_announced_and_there_after_a_restart(tmp_path: Path) -> None:
    app = lasting(tmp_path)
    raw = app.keys.sign_mesh_key(wall(), Wall(0))
    announced = asyncio.Event()

    async def announce() -> None:
        announced.set()

    async with living(app) as generation:
        generation.discovery = SimpleNamespace(announce=announce)
        assert generation.node.mesh_keys.psks == app.keys.state.psks
        await generation.parts.post_durable(ev.MeshKeyAsked(signed=raw))
        async with asyncio.timeout(10):
            await announced.wait()
        psks = generation.node.mesh_keys.psks
        assert psks[1:] == app.keys.state.psks
    async with living(app) as generation:
        assert generation.node.mesh_keys.psks == psks


@pytest.mark.parametrize(
    ("spoil", "error"),
    [("blobs", StorageError), ("listen", ConfigError)],
)
async def test_what_could_not_start_leaves_nothing_open(tmp_path: Path, spoil: str, error: type[Exception]) -> None:
    app = lasting(tmp_path)
    if spoil == "blobs":
        shutil.rmtree(app.home.blobs)
        app.home.blobs.write_text("a file where a folder should be")
    else:
        app.listen = "192.0.2.1:1"
    with pytest.raises(ExceptionGroup) as caught:
        async with living(app):
            pass
    assert caught.group_contains(error), caught.value.exceptions
    assert [path for path in held_open() if str(tmp_path) in path] == []


async def test_a_life_is_written_down_only_where_that_is_wanted(tmp_path: Path) -> None:
    app = lasting(tmp_path, listen=free_address())
    async with living(app):
        pass
    assert not app.home.flight.exists()
    app.settings = Settings(node=app.settings.node, log=LogSettings(flight=True))
    async with living(app) as generation:
        hint = ev.AddressSeen(addresses=("192.0.2.1:1",), source="config")
        await generation.driver.post_durable(hint)
    with (app.home.flight / "0001.flight").open("rb") as file:
        header, entries = flight.read(file.read)
        heard = [entry.event for entry in entries if isinstance(entry, flight.Heard)]
    assert header.identity.secret == app.keys.key.seed
    assert header.settings == app.settings.schedule
    assert isinstance(heard[0], ev.Tick)
    assert hint in heard
    assert ev.Drain(now=True) in heard
    assert app.telemetry.counters["flight.recording"] == 1


async def test_a_life_that_cannot_be_written_down_is_lived(tmp_path: Path) -> None:
    app = lasting(tmp_path)
    app.settings = Settings(node=app.settings.node, log=LogSettings(flight=True))
    app.home.flight.write_text("in the way")
    async with living(app) as generation:
        assert generation.node.deadline is None
    assert app.telemetry.counters["flight.ended"] == 1


def held_open() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that this listing used
            found.append(str(path.readlink()))
    return found


async def test_what_members_say_reaches_the_part_that_answers_it(tmp_path: Path) -> None:
    async with living(lasting(tmp_path)) as generation:
        generation._service(PEER, BlobGone(req=1, blobs=(b"b" * 32,)))  # nobody waits for it
        with pytest.raises(LinkError, match="themselves"):
            generation._service(PEER, Ping(number=1))


async def test_what_a_peer_is_too_old_for_is_told_not_said(tmp_path: Path) -> None:
    app = lasting(tmp_path)
    async with living(app) as generation:
        said: list[object] = []

        def send(_peer: NodeId, message: object) -> None:
            if isinstance(message, Ping):
                raise LocalProtocolError("Ping to a peer of minor version 1")
            said.append(message)

        generation.links.send = send  # type: ignore[method-assign]
        generation._perform(fx.Send(peer=PEER, message=Leaving()))
        generation._say(PEER, Ping(number=1))
        assert said == [Leaving()]
        assert app.telemetry.counters["message.too-new"] == 1


async def test_what_the_machine_offers_is_told_once_it_is_known(tmp_path: Path) -> None:
    app = lasting(tmp_path)
    async with living(app) as generation:
        assert generation._unprotected() == ""  # not known yet
        told: list[ev.Event] = []
        generation.driver.post = told.append  # type: ignore[method-assign]
        generation.offer()
        assert told == []
        app.isolation = offering.IsolationReport("none", "no bwrap", "install it")
        generation.offer()
        (offered,) = told
        assert generation._unprotected() == "without a sandbox: no bwrap"
        assert isinstance(offered, ev.Offering)
        assert generation.parts.isolation == app.isolation
        app.isolation = offering.IsolationReport("basic", "Landlock held")
        assert generation._unprotected() == "in a sandbox that is weaker than strict: Landlock held"


async def test_guests_are_welcome_again_once_the_disk_has_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = FREE_BYTES_MIN - 1
    monkeypatch.setattr(module.room, "EVERY_S", 0.01)
    monkeypatch.setattr(module.room.files, "free_bytes", lambda _: free)
    app = lasting(tmp_path)
    app.isolation = offering.IsolationReport("strict", "held")
    async with living(app) as generation:
        offers: asyncio.Queue[ev.Event] = asyncio.Queue()
        monkeypatch.setattr(generation.driver, "post", offers.put_nowait)
        monkeypatch.setattr(generation.pool, "keep_spare", lambda _: None)
        while not generation._full:  # noqa: ASYNC110  for a moment, after the start
            await asyncio.sleep(0.01)
        generation.offer()
        offered = await offers.get()
        assert isinstance(offered, ev.Offering)
        assert (offered.profile.accepts, offered.own.accepts) == (False, True)
        assert offered.profile.reason == "its disk is nearly full: less than 1 GiB is free"
        free += 1 + module.room.MARGIN_BYTES
        while (
            not offered.profile.accepts
        ):  # what it offered when it noticed that the disk is full may come after the above
            offered = await offers.get()
            assert isinstance(offered, ev.Offering)
