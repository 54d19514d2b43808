import asyncio
from types import SimpleNamespace

import psutil
import pytest

from p2pq.daemon import netinfo
from p2pq.daemon.netinfo import Interface


def test_loopback_is_never_offered() -> None:
    assert netinfo.usable([Interface("lo", ("127.0.0.1", "::1"))]) == ()


def test_container_bridges_only_where_there_is_nothing_else() -> None:
    inner = [Interface(name, (f"172.17.0.{i}",)) for i, name in enumerate(("docker0", "br-1a2b", "virbr0", "cni0"), 1)]
    assert netinfo.usable([*inner, Interface("eth0", ("10.0.0.5",))]) == ("10.0.0.5",)
    assert len(netinfo.usable(inner)) == 4


def test_namespaces_and_settings() -> None:
    found = [Interface("veth1", ("10.0.0.5",)), Interface("br0", ("10.0.1.5",)), Interface("tun0", ("10.9.0.5",))]
    assert netinfo.usable(found) == ("10.0.0.5", "10.0.1.5", "10.9.0.5")
    assert netinfo.usable(found, exclude=("tun0",)) == ("10.0.0.5", "10.0.1.5")


def test_ipv4_comes_first_and_link_local_ipv6_not_at_all() -> None:
    found = [Interface("eth0", ("fe80::1", "fd00::5", "10.0.0.5", "10.0.0.5"))]
    assert netinfo.usable(found) == ("10.0.0.5", "fd00::5")


def test_only_interfaces_that_are_up(monkeypatch: pytest.MonkeyPatch) -> None:
    address = SimpleNamespace
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {"a": address(isup=True), "b": address(isup=False)})
    entries = [address(address="10.0.0.1"), address(address="02:42:ac:11:00:02"), address(address="fe80::1%a")]
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"a": entries, "b": entries, "c": entries})
    assert netinfo.interfaces() == (Interface("a", ("10.0.0.1", "fe80::1")),)


def test_where_a_node_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netinfo, "interfaces", lambda: (Interface("eth0", ("10.0.0.5", "fd00::5")),))
    assert netinfo.listening("0.0.0.0", 9476) == ("10.0.0.5:9476",)
    assert netinfo.listening("::", 9476) == ("10.0.0.5:9476", "[fd00::5]:9476")
    assert netinfo.listening("127.0.0.1", 1234) == ("127.0.0.1:1234",)
    assert netinfo.listening("fd00::9", 1234) == ("[fd00::9]:1234",)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:9476",
        "127.0.0.1:9476",
        "224.0.0.251:9476",
        "255.255.255.255:9476",
        "240.0.0.1:9476",
        "8.8.8.8:9476",
        "10.0.0.1:22",
        "10.0.0.1:1023",
        "10.0.0.1:65536",
        "10.0.0.1:0",
        "10.0.0.1:-1",
        "10.0.0.1:+9476",
        "10.0.0.1:\uff19\uff14\uff17\uff16",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:09476",
        "010.0.0.1:9476",
        "host.example:9476",
        "[::]:9476",
        "[::1]:9476",
        "[ff02::fb]:9476",
        "[2001:4860:4860::8888]:9476",
        "fd00::1:9476",
        "10.0.0.1:9476 ",
        "10.0.0.1:9476/../x",
        "a@10.0.0.1:9476",
        "",
        ":",
    ],
)
def test_what_is_not_worth_a_dial(address: str) -> None:
    """H23."""
    assert not netinfo.is_hint(address)
    assert netinfo.hints((address, "10.0.0.9:9476")) == ("10.0.0.9:9476",)


@pytest.mark.parametrize(
    "address", ["10.0.0.1:1024", "192.168.1.7:9476", "169.254.3.4:9476", "100.64.0.1:9476", "[fd00::1]:65535"]
)
def test_what_is_worth_a_dial(address: str) -> None:
    assert netinfo.is_hint(address)


def test_the_address_that_a_member_really_talks_from() -> None:
    assert netinfo.is_hint("127.0.0.1:9476", "127.0.0.1")
    assert netinfo.is_hint("130.75.1.2:9476", "130.75.1.2")
    assert not netinfo.is_hint("130.75.1.3:9476", "130.75.1.2")
    assert not netinfo.is_hint("130.75.1.2:22", "130.75.1.2")


def test_hints_are_few_and_different() -> None:
    many = [f"10.0.0.{i // 2}:9476" for i in range(100)]
    assert netinfo.hints(many) == tuple(f"10.0.0.{i}:9476" for i in range(netinfo.ADDRESSES_MAX))


def test_addresses_as_text() -> None:
    assert netinfo.plain_ip("::ffff:10.0.0.1") == "10.0.0.1"
    assert netinfo.plain_ip("fe80::1%eth0") == "fe80::1"
    assert netinfo.plain_ip("10.0.0.1") == "10.0.0.1"
    assert netinfo.plain_ip("x") == ""
    assert netinfo.host_of("[fd00::1]:1") == "fd00::1"
    assert netinfo.port_of("x:99999") == 0


async def test_changes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (Interface("a", ("10.0.0.1",)),), (Interface("a", ("10.0.0.2",)),)
    looks = iter([one, one, two, two])
    monkeypatch.setattr(netinfo, "interfaces", lambda: next(looks, two))
    told: asyncio.Queue[object] = asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(netinfo.watch(told.put_nowait, every_s=0.001))
        async with asyncio.timeout(5):
            assert await told.get() == two
        watching.cancel()
    assert told.empty()


def test_this_machine_has_interfaces() -> None:
    assert any("127.0.0.1" in each.addresses for each in netinfo.interfaces())


@pytest.mark.parametrize(
    ("told", "ip", "expected"),
    [
        (("10.0.0.5:9476", "10.0.0.6:9477"), "10.0.0.6", "10.0.0.6:9477"),
        (("10.0.0.5:9476",), "10.0.0.6", "10.0.0.6:9476"),
        (("10.0.0.5:9476",), "", ""),
        ((), "10.0.0.6", ""),
        (("8.8.8.8:53",), "10.0.0.6", ""),
    ],
)
def test_where_one_who_dialled_us_can_be_dialled(told: tuple[str, ...], ip: str, expected: str) -> None:
    assert netinfo.dialable(told, ip) == expected
