"""Finding peers on the local network by mDNS (RFC 6762, 6763): a hint and nothing more.

What is announced names nobody: a random instance name and a tag that only members can tell from noise. What is heard is
filtered before anything is dialled: few candidates, few addresses each, private ones only, ordinary ports.
"""

import asyncio
import functools
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import zeroconf
from zeroconf import IPVersion, ServiceInfo, ServiceListener, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from p2pq.core.events import AddressSeen, Event
from p2pq.daemon import netinfo
from p2pq.model.ids import Wall
from p2pq.wire import join, prims

SERVICE: Final = "_p2pq._tcp.local."
CANDIDATES_MAX: Final = 256
TXT_BYTES_MAX: Final = 512
LOOKUPS_MAX: Final = 16
"""Lookups at the same time; further candidates wait for the next announcement."""
NAME_CHARS_MAX: Final = 64
LOOKUP_MS: Final = 1500
DAY_MS: Final = 24 * 3600 * 1000
TAG_BYTES: Final = 8
INSTANCE_BYTES: Final = 8
RETAG_S: Final = 600.0
SETTLE_S: Final = 1.1

log = logging.getLogger(__name__)


class Candidate(msgspec.Struct, frozen=True):
    """What is left of an announcement after checking it."""

    tag: bytes
    slot: str
    """The invitation that it serves, if any."""
    addresses: tuple[str, ...]


def tag(psk: bytes, day: int) -> bytes:
    """Return the tag by which members recognise their mesh on that day: 8 bytes, noise to everyone else."""
    return prims.derive(psk, day.to_bytes(8, "little"), "p2pq-mdns", size=TAG_BYTES)


def day_of(wall: Wall) -> int:
    """Return the number of the day, UTC."""
    return wall // DAY_MS


def tags_near(psks: tuple[bytes, ...], wall: Wall) -> frozenset[bytes]:
    """Return the tags of yesterday, today and tomorrow under all mesh keys: clocks and time zones differ."""
    today = day_of(wall)
    return frozenset(tag(psk, max(0, day)) for psk in psks for day in (today - 1, today, today + 1))


def properties(psk: bytes, wall: Wall, slot: str) -> dict[str, str]:
    """Return the TXT record of this node."""
    shown = {"v": "1", "m": tag(psk, day_of(wall)).hex()}
    return shown | {"inv": slot} if slot else shown


def read(port: int | None, text: bytes, found: dict[bytes, bytes | None], addresses: list[str]) -> Candidate | None:
    """Return what an announcement says, or None if it is not one of a node worth dialling.

    Args:
        port: as announced.
        text: the raw TXT record, for its length only.
        found: the TXT record's pairs.
        addresses: the announced addresses, numeric.
    """
    if port is None or len(text) > TXT_BYTES_MAX or found.get(b"v") != b"1":
        return None
    raw = found.get(b"m") or b""
    try:
        mark = bytes.fromhex(raw.decode("ascii"))
    except ValueError:
        return None
    slot = (found.get(b"inv") or b"").decode("ascii", errors="replace")
    if slot and not (len(slot) == join.SLOT_CHARS and set(slot) <= set(join.ALPHABET)):
        return None
    good = netinfo.hints(netinfo.join(address.partition("%")[0], port) for address in addresses)
    if len(mark) != TAG_BYTES or not good:
        return None
    return Candidate(mark, slot, good)


class Discovery(ServiceListener):
    """Announces this node and looks for others, on every usable interface, until closed."""

    def __init__(  # noqa: PLR0913  each is a different fact
        self,
        group: asyncio.TaskGroup,
        *,
        post: Callable[[Event], None],
        psks: Callable[[], tuple[bytes, ...]],
        wall: Callable[[], Wall],
        addresses: tuple[str, ...],
        entropy: Callable[[int], bytes],
        open_zeroconf: Callable[[list[str]], AsyncZeroconf] | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            group: owns the tasks.
            post: takes AddressSeen.
            psks: returns the mesh keys, newest first.
            wall: reads the clock.
            addresses: where this node listens, ``HOST:PORT`` each; on these hosts' interfaces it talks.
            entropy: for the instance name, new at every start.
            open_zeroconf: opens sockets on the interfaces with these addresses.
        """
        self._group, self._post, self._psks, self._wall = group, post, psks, wall
        self._open = open_zeroconf or _open_zeroconf
        self._name = f"{entropy(INSTANCE_BYTES).hex()}.{SERVICE}"
        self._addresses = addresses
        self._slot = ""
        self._loop = asyncio.get_running_loop()
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announced: ServiceInfo | None = None
        self._candidates: OrderedDict[str, Candidate] = OrderedDict()
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._waiting: OrderedDict[str, None] = OrderedDict()
        """Names to look up when others are done; the oldest go first, and are the first to be dropped."""
        self._sending: Awaitable[object] = self._loop.create_future()
        """Announcements under way; zeroconf sends them several times, and nobody waits for that."""
        self._announcers: set[asyncio.Task[None]] = set()
        self._refresher: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._heard: asyncio.Event = asyncio.Event()
        self.problem = ""
        """Why discovery does not work here, for doctor; empty if it does."""

    async def start(self) -> None:
        """Begin to announce and to look. Where that cannot work, ``problem`` says why; the node runs without."""
        async with self._lock:
            await self._begin()
        self._refresher = self._group.create_task(self._refresh(), name="mdns tags")

    async def close(self) -> None:
        """Say goodbye and stop."""
        if self._refresher is not None:
            self._refresher.cancel()
        for task in self._announcers:
            task.cancel()
        async with self._lock:
            await self._end()

    async def set_addresses(self, addresses: tuple[str, ...]) -> None:
        """Begin anew on other interfaces."""
        async with self._lock:
            if addresses != self._addresses:
                await self._end()
                self._addresses = addresses
                await self._begin()

    def show_slot(self, slot: str) -> None:
        """Show the slot of the newest open invitation; empty for none."""
        self._slot = slot
        task = self._group.create_task(self.announce(), name="mdns slot")
        self._announcers.add(task)
        task.add_done_callback(self._announcers.discard)

    async def announce(self) -> None:
        """Announce what has changed: the day, the mesh, the invitation."""
        async with self._lock:
            await self._announce()

    async def find_inviter(self, slot: str, timeout_s: float) -> tuple[str, ...]:
        """Return where nodes listen that serve an invitation with that slot; empty if none was heard of in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    found = [each.addresses for each in self._candidates.values() if each.slot == slot]
                    if found:
                        return tuple(address for addresses in found for address in addresses)
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            return ()

    # -- what zeroconf calls --------------------------------------------------------------------------------------------

    def add_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Look up a node that was announced."""
        if name == self._name or len(name) > NAME_CHARS_MAX or type_ != SERVICE:
            return
        self._waiting[name] = None
        if len(self._waiting) > CANDIDATES_MAX:
            self._waiting.popitem(last=False)
        self._look_up_next(zc)

    def update_service(self, zc: Zeroconf, type_: str, name: str) -> None:
        """Look it up again: its address, tag or invitation changed."""
        self.add_service(zc, type_, name)

    def remove_service(self, zc: Zeroconf, type_: str, name: str) -> None:  # noqa: ARG002  zeroconf's signature
        """Forget a node that said goodbye."""
        self._candidates.pop(name, None)

    def heard(self, name: str, candidate: Candidate) -> None:
        """Take in a checked announcement; post it if it is of this mesh."""
        known = self._candidates.pop(name, None)
        self._candidates[name] = candidate
        if len(self._candidates) > CANDIDATES_MAX:
            self._candidates.popitem(last=False)
        self._heard.set()
        new = known is None or (known.tag, known.addresses) != (candidate.tag, candidate.addresses)
        if new and candidate.tag in tags_near(self._psks(), self._wall()):
            self._post(AddressSeen(addresses=candidate.addresses, source="mdns"))

    # -- inside ---------------------------------------------------------------------------------------------------------

    def _look_up_next(self, zc: Zeroconf) -> None:
        ready = [name for name in self._waiting if name not in self._lookups]
        for name in ready[: LOOKUPS_MAX - len(self._lookups)]:
            del self._waiting[name]
            task = self._group.create_task(self._look_up(zc, name), name="mdns lookup")
            self._lookups[name] = task
            task.add_done_callback(functools.partial(self._looked_up, zc, name))

    def _looked_up(self, zc: Zeroconf, name: str, _: asyncio.Task[None]) -> None:
        self._lookups.pop(name, None)
        if self._zeroconf is not None:
            self._look_up_next(zc)

    async def _look_up(self, zc: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE, name)
        if not await info.async_request(zc, LOOKUP_MS):
            return
        candidate = read(info.port, info.text or b"", info.properties, info.parsed_addresses())
        if candidate is not None:
            self.heard(name, candidate)

    async def _begin(self) -> None:
        hosts = [netinfo.host_of(address) for address in self._addresses]
        if not hosts:
            self.problem = "no usable network interface"
            return
        if all(ipaddress.ip_address(host).is_loopback for host in hosts):
            self.problem = "this node listens on loopback only"
            return
        try:
            self._zeroconf = self._open(hosts)
            await self._zeroconf.zeroconf.async_wait_for_start()
        except (OSError, zeroconf.Error) as error:
            self.problem = f"multicast does not work here: {error}"
            log.warning("mDNS is off: %s; name peers with --peer HOST:PORT", self.problem)
            return
        self.problem = ""
        self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE, listener=self)
        await self._announce()

    async def _announce(self) -> None:
        if self._zeroconf is None or not self._addresses:
            return
        info = ServiceInfo(
            SERVICE,
            self._name,
            port=netinfo.port_of(self._addresses[0]),
            properties=properties(self._psks()[0], self._wall(), self._slot),
            server=self._name,
            parsed_addresses=[netinfo.host_of(address) for address in self._addresses],
        )
        if self._announced is None:
            self._sending = await self._zeroconf.async_register_service(info, cooperating_responders=True)
        elif info.text != self._announced.text:
            # Caches drop a record only if it is a second older than its successor (RFC 6762, 10.2).
            await self._sending
            await asyncio.sleep(SETTLE_S)
            self._sending = await self._zeroconf.async_update_service(info)
        self._announced = info

    async def _end(self) -> None:
        for task in list(self._lookups.values()):
            task.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
            self._browser = None
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
            self._zeroconf = None
        self._announced = None
        self._waiting.clear()
        self._candidates.clear()

    async def _refresh(self) -> None:
        """Show the tag of the new day, and see again who has a tag of ours by then."""
        while True:
            await asyncio.sleep(RETAG_S)
            await self.announce()


def _open_zeroconf(hosts: list[str]) -> AsyncZeroconf:
    v6 = any(":" in host for host in hosts)
    return AsyncZeroconf(interfaces=hosts, ip_version=IPVersion.All if v6 else IPVersion.V4Only)
