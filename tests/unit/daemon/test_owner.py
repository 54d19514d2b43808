"""The owner's loop: when it looks, what it tells the core and the guests, and that a pause is kept."""

import asyncio
import logging
import signal
from types import SimpleNamespace

import msgspec
import pytest

from p2pq.core.events import OwnerIs
from p2pq.core.policy import PAUSED, TOUCHED, UNTOLD
from p2pq.daemon import loadprobe
from p2pq.daemon import owner as module
from p2pq.daemon.owner import QUICK_S, SLOW_S, Owner, Paused, signal_number
from p2pq.errors import StorageError
from p2pq.model.config import PolicySettings
from p2pq.model.ids import Mono, Wall
from p2pq.model.owner import Readings, Verdict
from p2pq.wire.settingcontrol import PauseGuests

CALM = Readings(idle_s=1e6, locked=True, full_screen=False, load=0.0, mains=True, programs=())
WALL = 1_700_000_000_000


class World:
    """A machine whose sensors say what the test wants, and a node on it."""

    def __init__(self, home, **policy):
        self.home = home
        self.now = 100.0
        self.readings_are = CALM
        self.fails = None
        self.looked = 0
        self.closed = False
        self.needs = None
        self.events = []
        self.quiets = []
        self.running = {}
        self.settings = PolicySettings(**policy)
        self.owner = self.begin()

    def begin(self):
        owner = Owner(
            self.settings, self.home, self.open, lambda: Mono(self.now), lambda: Wall(WALL + int(1000 * self.now))
        )
        guests = SimpleNamespace(
            quiet=lambda *, still: self.quiets.append(still), guests=lambda: self.running, pids=lambda: [1, 1 << 30]
        )
        owner.serve(guests, self.events.append)
        return owner

    def open(self, needs):
        self.needs = needs
        return self

    def readings(self):
        self.looked += 1
        if self.fails is not None:
            raise self.fails
        return self.readings_are

    def close(self):
        self.closed = True

    def look(self, after=0.0, **says):
        """Let time pass and look; return what the core hears."""
        self.now += after
        self.readings_are = msgspec.structs.replace(self.readings_are, **says)
        self.events.clear()
        self.owner.look()
        return list(self.events)

    async def ask(self, **request):
        said = []

        async def send(reply):
            said.append(reply)

        self.events.clear()
        await self.owner.pause(PauseGuests(**request), send)
        [note] = said
        return note.text


def told(stance, reason="", grace_s=10.0):
    return OwnerIs(verdict=Verdict(stance=stance, reason=reason), grace_s=grace_s)


def test_a_core_hears_at_once_what_holds_and_then_of_changes_alone(tmp_path):
    world = World(tmp_path, mode="idle", grace_s=3)
    assert world.events == [told("run", grace_s=3.0)]
    assert world.quiets == [False]
    assert world.look(1.0) == []
    assert world.look(1.0, idle_s=0.0) == [told("suspend", TOUCHED, 3.0)]
    assert world.look(1.0, idle_s=1.0) == []
    assert world.look(600.0, idle_s=0.0) == [told("evict", TOUCHED, 3.0)]
    assert world.quiets == [False, True]
    assert world.look(1000.0, idle_s=1000.0) == [told("run", grace_s=3.0)]
    assert world.quiets == [False, True, False]


def test_the_next_core_hears_it_too(tmp_path):
    world = World(tmp_path, mode="idle")
    world.look(1.0, idle_s=0.0)
    world.events.clear()
    world.owner.serve(SimpleNamespace(quiet=lambda *, still: world.quiets.append(still)), world.events.append)
    assert world.events == [told("suspend", TOUCHED)]
    assert world.quiets == [False, True, True]


def test_what_the_policy_needs_is_opened_and_closed_again(tmp_path):
    world = World(tmp_path, mode="night", on_battery=True)
    assert world.needs == ("screen",)
    world.owner.close()
    assert world.closed


def test_always_reads_nothing_and_never_looks_by_itself(tmp_path):
    world = World(tmp_path)
    assert (world.needs, world.looked) == (None, 0)
    assert world.events == [told("run")]
    assert world.owner._rest_s() == pytest.approx(60.0)  # once more, for a quiet that nobody waits for
    world.look(1000.0)
    assert world.owner._rest_s() is None
    world.owner.close()
    assert not world.closed


def test_it_looks_often_only_while_guests_are_in_danger(tmp_path):
    guest = SimpleNamespace(start=SimpleNamespace(own=False))
    own = SimpleNamespace(start=SimpleNamespace(own=True))
    world = World(tmp_path, mode="idle")
    assert world.owner._rest_s() == SLOW_S
    world.running = {1: own}
    assert world.owner._rest_s() == SLOW_S
    world.running = {1: own, 2: guest}
    assert world.owner._rest_s() == QUICK_S
    world.look(1.0, idle_s=0.0)
    assert world.owner._rest_s() == SLOW_S
    quiet = World(tmp_path, mode="night", start="00:00", end="23:59")
    quiet.running = {2: guest}
    assert quiet.events == [told("run")]
    assert quiet.owner._rest_s() == SLOW_S


def test_it_looks_when_time_alone_changes_something(tmp_path):
    world = World(tmp_path, mode="idle", evict_s=1.5)
    world.look(1000.0, idle_s=0.0)
    assert world.owner._rest_s() == 1.5
    world.now += 1.49
    assert world.owner._rest_s() == QUICK_S


async def test_the_loop_looks_and_is_woken_by_a_pause(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOW_S", 0.01)
    monkeypatch.setattr(module, "QUICK_S", 0.001)
    world = World(tmp_path, mode="idle")
    posts = asyncio.Queue()
    world.owner._post = posts.put_nowait
    running = asyncio.get_running_loop().create_task(world.owner.run())
    world.readings_are = msgspec.structs.replace(CALM, idle_s=0.0)
    assert await posts.get() == told("suspend", TOUCHED)
    world.now += 1000.0
    assert await posts.get() == told("evict", TOUCHED)
    running.cancel()
    await asyncio.wait([running])


async def test_a_guest_that_begins_is_looked_after_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOW_S", 3600.0)
    world = World(tmp_path, mode="idle")
    posts = asyncio.Queue()
    world.owner._post = posts.put_nowait
    running = asyncio.get_running_loop().create_task(world.owner.run())
    while not world.owner._asked._waiters:  # noqa: ASYNC110  it rests
        await asyncio.sleep(0)
    world.readings_are = msgspec.structs.replace(CALM, idle_s=0.0)
    world.running = {1: SimpleNamespace(start=SimpleNamespace(own=False))}
    world.owner.guest_begins()
    assert await posts.get() == told("suspend", TOUCHED)
    running.cancel()
    await asyncio.wait([running])


def test_many_guests_that_begin_and_end_wake_it_once(tmp_path):
    world = World(tmp_path, mode="idle")
    world.owner.guest_begins()
    assert world.owner._asked.is_set()
    world.owner._asked.clear()
    world.now += SLOW_S - 0.1
    world.owner.guest_begins()
    assert not world.owner._asked.is_set()
    assert world.owner._rest_s() == QUICK_S
    world.now += 0.2
    assert world.owner._rest_s() == SLOW_S
    world.owner.guest_begins()
    assert world.owner._asked.is_set()


@pytest.mark.parametrize("policy", [{}, {"mode": "night", "start": "00:00", "end": "23:59"}])
def test_where_nobody_has_to_be_watched_a_guest_that_begins_is_no_reason_to_look(tmp_path, policy):
    world = World(tmp_path, **policy)
    world.owner.guest_begins()
    assert not world.owner._asked.is_set()


async def test_a_pause_is_kept_and_told_at_once(tmp_path):
    world = World(tmp_path)
    assert await world.ask() == "guests are paused here; `p2pq resume` ends that"
    assert world.events == [told("suspend", PAUSED)]
    assert msgspec.json.decode((tmp_path / "pause.json").read_bytes(), type=Paused) == Paused()
    world.events.clear()
    world.owner = world.begin()
    assert world.events == [told("suspend", PAUSED)]
    assert await world.ask(paused=False) == "guests may run here"
    assert world.events == [told("run")]
    assert not (tmp_path / "pause.json").exists()
    assert await world.ask(paused=False) == "guests may run here"


async def test_a_pause_ends_by_the_wall_clock(tmp_path):
    world = World(tmp_path)
    assert (await world.ask(for_s=60)).startswith("guests are paused here until 20")
    assert world.look(59.0) == []
    assert world.owner._rest_s() == pytest.approx(1.0)
    assert world.look(1.0) == [told("run")]
    assert not (tmp_path / "pause.json").exists()


async def test_who_resumes_hears_what_else_keeps_guests_away(tmp_path):
    world = World(tmp_path, mode="idle")
    world.look(1.0, idle_s=0.0)
    assert await world.ask(paused=False) == f"no pause any more, but no guests: {TOUCHED}"


@pytest.mark.parametrize("text", [b"", b"{", b'{"until": -1}', b'{"until": "x"}', b"x" * 5000])
def test_a_pause_that_cannot_be_read_is_one(tmp_path, text):
    (tmp_path / "pause.json").write_bytes(text)
    assert World(tmp_path).events == [told("suspend", PAUSED)]


async def test_a_pause_that_cannot_be_kept_holds_and_says_so(tmp_path):
    home = tmp_path / "home"
    world = World(home)
    with pytest.raises(StorageError, match=r"pause\.json: cannot be written .* it holds until the node ends"):
        await world.ask()
    assert world.events == [told("suspend", PAUSED)]


def test_the_memory_of_guests_is_looked_at_only_where_it_matters(tmp_path, monkeypatch):
    world = World(tmp_path, mode="idle", suspended_memory_mb=1)
    assert world.owner.readings.guests_mb is None
    world.look(1.0, idle_s=0.0)
    monkeypatch.setattr(module.limits, "tree", lambda pid, _most: [pid])
    monkeypatch.setattr(module.psutil, "Process", _Process)
    assert world.look(1.0) == [told("evict", TOUCHED)]
    assert world.owner.readings.guests_mb == 5


class _Process:
    def __init__(self, pid):
        if pid != 1:
            raise module.psutil.NoSuchProcess(pid)

    def memory_info(self):
        return SimpleNamespace(rss=5 << 20)


async def test_a_load_probe_stands_in_for_the_load(tmp_path):
    world = World(tmp_path, mode="load < 0.5", load_probe="echo 0.9")
    assert world.events[0].verdict.stance == "hold"
    assert world.owner.readings.load is None
    running = asyncio.get_running_loop().create_task(world.owner.run())
    while world.owner._probe._asking is None:  # noqa: ASYNC110  it begins
        await asyncio.sleep(0)
    await world.owner._probe._asking
    world.look()
    assert world.owner.readings.load == 0.9
    running.cancel()
    await asyncio.wait([running])


async def test_while_a_load_probe_runs_the_sensors_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SLOW_S", 0.001)
    monkeypatch.setattr(module, "QUICK_S", 0.001)
    monkeypatch.setattr(loadprobe, "PATIENCE_S", 3600.0)
    world = World(tmp_path, mode="idle", load_probe="sleep 613")
    running = asyncio.get_running_loop().create_task(world.owner.run())
    while world.owner._probe._process is None:  # noqa: ASYNC110  it begins
        await asyncio.sleep(0.001)
    before = world.looked
    while world.looked < before + 5:  # noqa: ASYNC110  for ever, if they waited for the probe
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait([running])
    assert await world.owner._probe._process.wait() == -signal.SIGKILL


def test_sensors_that_fail_keep_guests_away_and_not_the_node_from_living(tmp_path, caplog):
    world = World(tmp_path, mode="idle", resume_s=60)
    caplog.set_level(logging.INFO, module.__name__)
    world.fails = ValueError("filedescriptor out of range")
    [heard] = world.look(1.0)
    assert heard.verdict.stance == "suspend"
    assert "the sensors failed (ValueError: filedescriptor out of range)" in heard.verdict.reason
    assert {name for name, _ in world.owner.readings.absent} == set(world.needs)
    assert not any(each.ok for each in world.owner.findings())
    world.fails = ValueError("another word for the same")
    assert world.look(1.0) == []
    world.fails = KeyError("x")
    assert "KeyError" in world.look(1.0)[0].verdict.reason
    world.fails = None
    assert world.look(1.0) == []
    assert world.look(60.0) == [told("run")]
    said = [each.message for each in caplog.records if "sensors" in each.message]
    assert said == ["owner.sensors-failed", "owner.sensors-failed", "owner.sensors-again"]


def test_a_rule_that_wants_something_not_to_be_does_not_hold_where_the_sensors_fail(tmp_path):
    world = World(tmp_path, mode="not saver")
    assert world.events == [told("run")]
    world.fails = OSError("out of memory")
    [heard] = world.look(1.0)
    assert heard.verdict.stance == "suspend"
    assert heard.verdict.reason.startswith(
        "the policy needs to know of screen: the sensors failed (OSError: out of memory)"
    )


def test_doctor_hears_of_the_sensors_that_are_needed(tmp_path):
    assert World(tmp_path).owner.findings() == []
    world = World(tmp_path, mode="idle")
    world.look(0.0, idle_s=None, absent=(("input", "no display; log in"), ("memory", "no pressure")))
    found = {each.check: each.ok for each in world.owner.findings()}
    assert found == {"sensor input": False, "sensor load": True, "sensor power": True, "sensor screen": True}


@pytest.mark.parametrize(
    ("named", "number"), [("TERM", signal.SIGTERM), ("SIGUSR1", signal.SIGUSR1), (34, 34), ("12", 12)]
)
def test_signals_have_numbers(named, number):
    assert signal_number(PolicySettings(checkpoint_signal=named)) == number


def test_before_a_look_nothing_is_known(tmp_path):
    owner = Owner(
        PolicySettings(mode="idle"), tmp_path, lambda _: SimpleNamespace(), lambda: Mono(0.0), lambda: Wall(0)
    )
    assert owner.policy.verdict == Verdict(stance="hold", reason=UNTOLD)
