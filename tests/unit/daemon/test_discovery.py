import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from p2pq.core.events import AddressSeen
from p2pq.daemon import discovery
from p2pq.daemon.discovery import (
    CANDIDATES_MAX,
    DAY_MS,
    LOOKUPS_MAX,
    SERVICE,
    Candidate,
    Discovery,
    properties,
    read,
    tag,
)
from p2pq.model.ids import Wall

PSK, OTHER = b"k" * 32, b"o" * 32
NOW = Wall(1_800_000_000_000)
MARK = tag(PSK, NOW // DAY_MS).hex().encode()


def announced(port: int | None = 9476, addresses: tuple[str, ...] = ("10.0.0.1",), **txt: bytes) -> Candidate | None:
    found: dict[bytes, bytes | None] = {b"v": b"1", b"m": MARK} | {key.encode(): value for key, value in txt.items()}
    return read(port, b"", found, list(addresses))


def test_what_is_announced_names_nobody() -> None:
    shown = properties(PSK, NOW, "")
    assert sorted(shown) == ["m", "v"]
    assert properties(PSK, NOW, "4T")["inv"] == "4T"
    assert PSK.hex() not in str(shown)


def test_a_good_announcement() -> None:
    assert announced(inv=b"4T") == Candidate(bytes.fromhex(MARK.decode()), "4T", ("10.0.0.1:9476",))


@pytest.mark.parametrize(
    "txt",
    [
        {"v": b"2"},
        {"v": b""},
        {"m": b""},
        {"m": b"zz"},
        {"m": b"\xff\xfe"},
        {"m": b"00" * 7},
        {"m": b"00" * 4000},
        {"inv": b"4TX"},
        {"inv": b"\xff\xff"},
        {"inv": b"il"},
    ],
)
def test_bad_text(txt: dict[str, bytes]) -> None:
    """H22: anything that is not exactly ours is nothing."""
    assert announced(**txt) is None


def test_long_text_and_odd_addresses() -> None:
    found: dict[bytes, bytes | None] = {b"v": b"1", b"m": MARK}
    assert read(9476, b"x" * 9000, found, ["10.0.0.1"]) is None
    assert read(9476, b"", {b"v": None, b"m": None}, ["10.0.0.1"]) is None
    assert announced(port=None) is None
    assert announced(port=22) is None
    assert announced(addresses=()) is None
    assert announced(addresses=("127.0.0.1", "8.8.8.8", "0.0.0.0", "224.0.0.1", "::1", "ff02::1")) is None
    many = announced(addresses=tuple(f"10.0.0.{i}" for i in range(1, 100)))
    assert many is not None
    assert len(many.addresses) == 8


def test_tags_of_neighbouring_days_and_older_keys() -> None:
    near = discovery.tags_near((OTHER, PSK), NOW)
    today = NOW // DAY_MS
    assert {tag(PSK, today + d) for d in (-1, 0, 1)} <= near
    assert tag(PSK, today + 2) not in near
    assert tag(b"x" * 32, today) not in near


class FakeInfo:
    """A lookup that is answered from a table."""

    table: ClassVar[dict[str, dict[str, Any]]] = {}
    under_way = 0
    most = 0
    hold: asyncio.Event

    def __init__(self, _type: str, name: str) -> None:
        self.name = name

    async def async_request(self, _zc: object, _timeout: float) -> bool:
        FakeInfo.under_way += 1
        FakeInfo.most = max(FakeInfo.most, FakeInfo.under_way)
        await FakeInfo.hold.wait()
        FakeInfo.under_way -= 1
        return self.name in self.table

    def __getattr__(self, key: str) -> Any:
        return self.table[self.name][key]

    def parsed_addresses(self) -> list[str]:
        return list(self.table[self.name]["addresses"])


class FakeZeroconf:
    """Takes what is registered."""

    def __init__(self, _hosts: list[str]) -> None:
        self.zeroconf = SimpleNamespace(async_wait_for_start=self._nothing)
        self.shown: list[Any] = []
        self.closed = False

    async def _nothing(self) -> None:
        return None

    async def async_register_service(self, info: Any, *, cooperating_responders: bool) -> Any:
        assert cooperating_responders
        self.shown.append(info)
        return asyncio.ensure_future(self._nothing())  # noqa: TID251  as zeroconf does it

    async def async_update_service(self, info: Any) -> Any:
        self.shown.append(info)
        return asyncio.ensure_future(self._nothing())  # noqa: TID251  as zeroconf does it

    async def async_close(self) -> None:
        self.closed = True


class FakeBrowser:
    def __init__(self, _zc: object, service: str, listener: object) -> None:
        assert service == SERVICE
        self.listener = listener

    async def async_cancel(self) -> None:
        return None


class Air:
    """A discovery with fake radio."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.radios: list[FakeZeroconf] = []
        self.posted: asyncio.Queue[Any] = asyncio.Queue()
        self.discovery = Discovery(
            group,
            post=self.posted.put_nowait,
            psks=lambda: (PSK,),
            wall=lambda: NOW,
            addresses=("10.0.0.9:9476",),
            entropy=os.urandom,
            open_zeroconf=self.radio,
        )

    def radio(self, hosts: list[str]) -> Any:
        self.radios.append(FakeZeroconf(hosts))
        return self.radios[-1]

    def hear(self, name: str, **announcement: Any) -> None:
        known: dict[str, Any] = {
            "port": 9476,
            "text": b"",
            "properties": {b"v": b"1", b"m": MARK},
            "addresses": ("10.0.0.1",),
        }
        FakeInfo.table[name] = known | announcement
        self.discovery.add_service(None, SERVICE, name)  # type: ignore[arg-type]


@pytest.fixture
async def air(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Air]:
    monkeypatch.setattr(discovery, "AsyncServiceInfo", FakeInfo)
    monkeypatch.setattr(discovery, "SETTLE_S", 0)
    monkeypatch.setattr(discovery, "AsyncServiceBrowser", FakeBrowser)
    FakeInfo.table, FakeInfo.hold, FakeInfo.most, FakeInfo.under_way = {}, asyncio.Event(), 0, 0
    FakeInfo.hold.set()
    async with running() as opened:
        yield opened


@asynccontextmanager
async def running() -> AsyncIterator[Air]:
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        opened = Air(group)
        await opened.discovery.start()
        yield opened
        await opened.discovery.close()


async def settle(air: Air) -> None:
    """Wait until no lookup is under way."""
    while tasks := list(air.discovery._lookups.values()):
        await asyncio.wait(tasks)
        await asyncio.sleep(0)


async def test_members_are_posted_once_until_they_move(air: Air) -> None:
    for addresses in (("10.0.0.1",), ("10.0.0.1",), ("10.0.0.2",)):
        air.hear("a", addresses=addresses)
        await settle(air)
    assert air.posted.get_nowait() == AddressSeen(addresses=("10.0.0.1:9476",), source="mdns")
    assert air.posted.get_nowait() == AddressSeen(addresses=("10.0.0.2:9476",), source="mdns")
    assert air.posted.empty()


async def test_other_meshes_are_noise(air: Air) -> None:
    air.hear("b", properties={b"v": b"1", b"m": tag(OTHER, NOW // DAY_MS).hex().encode()})
    await settle(air)
    assert air.posted.empty()


async def test_anothers_tag_is_only_a_hint(air: Air) -> None:
    """H24: who copies a tag is dialled, and fails at the handshake; nothing else comes of it."""
    air.hear("thief", addresses=("10.0.0.66",))
    await settle(air)
    assert air.posted.get_nowait() == AddressSeen(addresses=("10.0.0.66:9476",), source="mdns")


async def test_five_thousand_services(air: Air) -> None:
    """H21."""
    FakeInfo.hold.clear()
    for i in range(5000):
        air.hear(f"n{i}", addresses=(f"10.0.{i // 250}.{1 + i % 250}",))
    await asyncio.sleep(0)
    assert len(air.discovery._lookups) == LOOKUPS_MAX
    assert len(air.discovery._waiting) <= CANDIDATES_MAX
    FakeInfo.hold.set()
    await settle(air)
    assert FakeInfo.most <= LOOKUPS_MAX
    assert len(air.discovery._candidates) <= CANDIDATES_MAX
    assert air.posted.qsize() <= CANDIDATES_MAX + LOOKUPS_MAX


async def test_itself_long_names_and_other_services(air: Air) -> None:
    for name in (air.discovery._name, "x" * 65):
        air.hear(name)
    air.discovery.update_service(None, "_http._tcp.local.", "x")  # type: ignore[arg-type]
    await settle(air)
    assert air.posted.empty()


async def test_an_inviter_is_found_in_any_mesh(air: Air) -> None:
    stranger = tag(OTHER, NOW // DAY_MS).hex().encode()
    finding = asyncio.ensure_future(air.discovery.find_inviter("4T", 5))  # noqa: TID251  awaited below
    await asyncio.sleep(0)
    air.hear("c", properties={b"v": b"1", b"m": stranger, b"inv": b"7X"}, addresses=("10.0.0.3",))
    air.hear("d", properties={b"v": b"1", b"m": stranger, b"inv": b"4T"}, addresses=("10.0.0.4",))
    assert await finding == ("10.0.0.4:9476",)
    assert await air.discovery.find_inviter("7X", 5) == ("10.0.0.3:9476",)
    air.discovery.remove_service(None, SERVICE, "c")  # type: ignore[arg-type]
    assert await air.discovery.find_inviter("7X", 0.01) == ()
    assert air.posted.empty()


async def test_what_changes_is_announced(air: Air) -> None:
    (radio,) = air.radios
    assert [info.port for info in radio.shown] == [9476]
    assert radio.shown[0].parsed_addresses() == ["10.0.0.9"]
    air.discovery._slot = "4T"
    await air.discovery.announce()
    assert radio.shown[1].properties[b"inv"] == b"4T"
    await air.discovery.announce()
    assert len(radio.shown) == 2
    air.discovery.show_slot("")
    await asyncio.wait(air.discovery._announcers)
    assert b"inv" not in radio.shown[2].properties
    air.discovery.show_slot("7X")  # closing does not wait for it


async def test_new_interfaces_begin_anew(air: Air) -> None:
    await air.discovery.set_addresses(("10.0.0.9:9476",))
    assert len(air.radios) == 1
    await air.discovery.set_addresses(("10.0.5.5:9476",))
    assert air.radios[0].closed
    assert air.radios[1].shown[0].parsed_addresses() == ["10.0.5.5"]
    for addresses, problem in (((), "no usable network interface"), (("127.0.0.1:9476",), "loopback only")):
        await air.discovery.set_addresses(addresses)
        assert problem in air.discovery.problem
    assert len(air.radios) == 2
    await air.discovery.announce()
    await air.discovery.set_addresses(("10.0.0.9:9476",))
    assert air.discovery.problem == ""


async def test_no_multicast_here(air: Air, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_hosts: list[str]) -> Any:
        raise OSError(19, "No such device")

    air.discovery._open = fail
    await air.discovery.set_addresses(("10.0.5.5:9476",))
    assert "No such device" in air.discovery.problem
    assert "--peer" in caplog.text


def test_discovery_listens_on_the_interfaces_that_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(discovery, "AsyncZeroconf", lambda **options: opened.append(options))
    discovery._open_zeroconf(["10.0.0.1"])
    discovery._open_zeroconf(["10.0.0.1", "fd00::1"])
    assert [each["interfaces"] for each in opened] == [["10.0.0.1"], ["10.0.0.1", "fd00::1"]]
    assert opened[0]["ip_version"] is not opened[1]["ip_version"]
