"""This machine's addresses, and which addresses of others are worth a try.

What others say is a hint: numeric, unicast, private (or the very address they talk from), an ordinary port.
"""

import asyncio
import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import psutil

ADDRESSES_MAX: Final = 8
"""Addresses of one node that are looked at."""
PORT_MIN: Final = 1024
PORT_MAX: Final = 0xFFFF
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
POLL_S: Final = 10.0

_INNER: Final = ("docker", "br-", "virbr", "lxc", "lxdbr", "cni", "flannel", "cali", "vmnet", "vboxnet", "podman")
"""Beginnings of the names of interfaces that lead to containers and virtual machines of this very machine."""


class Interface(msgspec.Struct, frozen=True):
    """A network interface that is up, and its IP addresses without scope or mask."""

    name: str
    addresses: tuple[str, ...]


def interfaces() -> tuple[Interface, ...]:
    """Ask the system which interfaces are up."""
    stats = psutil.net_if_stats()
    found: list[Interface] = []
    for name, entries in sorted(psutil.net_if_addrs().items()):
        if name in stats and stats[name].isup:
            texts = (entry.address.partition("%")[0] for entry in entries)
            found.append(Interface(name, tuple(text for text in texts if _ip(text) is not None)))
    return tuple(found)


def usable(found: Iterable[Interface], exclude: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the addresses that peers may reach this machine by, IPv4 first.

    Loopback never; bridges to this machine's own containers only where there is nothing else. Link-local IPv6 is left out:
    it means nothing without the other side's interface.

    Args:
        found: all interfaces.
        exclude: names that are left out besides.
    """
    excluded = tuple(exclude)
    outer: list[str] = []
    inner: list[str] = []
    for interface in found:
        if interface.name in excluded:
            continue
        into = inner if interface.name.startswith(_INNER) else outer
        into.extend(text for text in interface.addresses if _reachable(text))
    return tuple(
        sorted(dict.fromkeys(outer or inner), key=lambda text: (":" in text, outer.index(text) if outer else 0))
    )


def listening(host: str, port: int, exclude: Iterable[str] = ()) -> tuple[str, ...]:
    """Return where a node that listens on ``host`` can be dialled: all usable addresses if it listens on all."""
    ip = _ip(host)
    if ip is not None and not ip.is_unspecified:
        return (join(host, port),)
    texts = usable(interfaces(), exclude)
    if host == "0.0.0.0":  # noqa: S104  compared, not bound
        texts = tuple(text for text in texts if ":" not in text)
    return tuple(join(text, port) for text in texts[:ADDRESSES_MAX])


def hints(addresses: Iterable[str], seen_at: str = "") -> tuple[str, ...]:
    """Return those of a node's claimed addresses that are worth a try, at most ADDRESSES_MAX.

    Args:
        addresses: ``HOST:PORT`` each, as the node claims.
        seen_at: the IP address that it really talks from, if it does; that one may be public or loopback.
    """
    good: list[str] = []
    for address in addresses:
        if len(good) == ADDRESSES_MAX:
            break
        if is_hint(address, seen_at) and address not in good:
            good.append(address)
    return tuple(good)


def worth_a_try(
    told: Iterable[tuple[bytes, tuple[str, ...]]], teller_ip: str
) -> tuple[tuple[bytes, tuple[str, ...]], ...]:
    """Leave out addresses that a member must not make us dial (not private, or a system's port), and whom nothing is left of."""
    found = ((node, hints(addresses, teller_ip)) for node, addresses in told)
    return tuple((node, good) for node, good in found if good)


def is_hint(address: str, seen_at: str = "") -> bool:
    """Tell whether ``HOST:PORT`` is numeric, unicast, private (or ``seen_at``), with a port from 1024 on."""
    host, port = host_of(address), port_of(address)
    ip = _ip(host)
    if ip is None or port < PORT_MIN or join(host, port) != address:
        return False
    if ip.is_multicast or ip.is_unspecified or ip.is_reserved or str(ip) == "255.255.255.255":
        return False
    if seen_at and host == seen_at:
        return True
    return not ip.is_loopback and not ip.is_global


def join(host: str, port: int) -> str:
    """Return ``HOST:PORT``, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dialable(addresses: Iterable[str], ip: str) -> str:
    """Return where a peer that dialled us can probably be dialled: its port at the address that we see."""
    said = hints(addresses, ip)
    for address in said:
        if host_of(address) == ip:
            return address
    return join(ip, port_of(said[0])) if said and ip else ""


def plain_ip(text: str) -> str:
    """Return an IP address as peers write it: no scope, and IPv4 as IPv4 even where a socket says ``::ffff:``."""
    ip = _ip(text.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return "" if ip is None else str(ip)


def host_of(address: str) -> str:
    """Return the host of ``HOST:PORT``, without brackets."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def port_of(address: str) -> int:
    """Return the port of ``HOST:PORT``; 0 where there is none."""
    text = address.rpartition(":")[2]
    return int(text) if _PORT.fullmatch(text) and int(text) <= PORT_MAX else 0


async def watch(changed: Callable[[tuple[Interface, ...]], None], every_s: float = POLL_S) -> None:
    """Tell of every change of interfaces or addresses, until cancelled. A look costs about a millisecond."""
    last = interfaces()
    while True:
        await asyncio.sleep(every_s)
        now = interfaces()
        if now != last:
            last = now
            changed(now)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _reachable(text: str) -> bool:
    ip = _ip(text)
    if ip is None or ip.is_loopback or ip.is_multicast or ip.is_unspecified:
        return False
    return isinstance(ip, ipaddress.IPv4Address) or not ip.is_link_local
