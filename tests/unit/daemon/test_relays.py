"""Links that a bridge carries, between real nodes on 127.0.0.1 who reach nobody but the bridge."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
import psutil
import pytest

from p2pq.core.events import DialFailed, LinkDown, LinkUp, Received
from p2pq.core.reaching import via_address
from p2pq.daemon import dialing, gate, link, relays
from p2pq.daemon.relays import PATH
from p2pq.model.ids import NodeId, short
from p2pq.model.notice import PeerRefused
from p2pq.wire import session
from p2pq.wire.messages import HOPS_MAX, HasWork, Peers, RelayOffer, RelayRefused, RelayWant
from tests.unit.daemon.linkkit import Node, admit, keys_at, link_up, members, node, refused, running

pytestmark = [pytest.mark.usefixtures("patience"), pytest.mark.slow]
WAYS = [(True, True), (True, False), (False, True), (False, False)]
IDS = ["both dial the bridge", "near dials, far is dialled", "near is dialled, far dials", "the bridge dials both"]
TICKET = b"t" * 32
WAIT_S = 8.0


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait long where nothing should be waited for; tests that wait in vain take this back."""
    monkeypatch.setattr(relays, "MEET_S", 30.0)


@pytest.fixture
def impatient(patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del patience
    monkeypatch.setattr(relays, "MEET_S", 0.3)


class Three:
    """Two ends that are linked to a bridge, and to nobody else."""

    def __init__(self, near: Node, bridge: Node, far: Node) -> None:
        self.near, self.bridge, self.far = near, bridge, far
        self.all = (near, bridge, far)
        self.via = via_address(bridge.id, far.id)

    async def link(self) -> tuple[LinkUp, LinkUp]:
        """Let the near end dial the far one; return what each was told."""
        self.near.links.dial(self.via)
        return await self.near.event(LinkUp), await self.far.event(LinkUp)

    async def talk(self) -> None:
        await talk(self.near, self.far)


async def talk(one: Node, two: Node) -> None:
    """Say something both ways."""
    for number, (speaker, hearer) in enumerate(((one, two), (two, one)), 1):
        speaker.links.send(hearer.id, HasWork(counter=number))
        assert await hearer.event(Received) == Received(peer=speaker.id, message=HasWork(counter=number))


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0.01)


def sockets(nodes: tuple[Node, ...]) -> int:
    """Count the connections to these nodes; both of their ends are in this process."""
    ports = {each.links.port for each in nodes}
    found = psutil.Process().net_connections("tcp")
    up = sum(1 for each in found if each.status == "ESTABLISHED" and each.laddr and each.laddr[1] in ports)
    # Those that an HTTP client keeps for its next request, after an answer of "not found", are nobody's.
    return up - sum(len(kept) for each in nodes for kept in each.links.http.connector._conns.values())


async def nothing_left(*nodes: Node, links: int = 2) -> None:
    """Wait until no stream is carried, expected or open: all that is left is direct links."""

    def is_idle() -> bool:
        for each in nodes:
            made = each.links.relays
            if made._expected or made._asked or made._carried or made._offered:
                return False
            if any(task.get_name() in ("link relayed", "relay") for task in each.links._tasks):
                return False
        return sockets(nodes) == links

    try:
        await until(is_idle)
    except TimeoutError:
        made = [each.links.relays for each in nodes]
        left = [(each._expected, each._asked, each._carried, each._offered) for each in made]
        tasks = [task.get_name() for each in nodes for task in each.links._tasks]
        pytest.fail(f"left over: {left}, {tasks}, {sockets(nodes)} connections")


@asynccontextmanager
async def three(
    tmp_path: Path, *, near_dials: bool = True, far_dials: bool = True, bridging: bool = True, **options: Any
) -> AsyncIterator[Three]:
    bridge_keys, *ends = members(tmp_path, 3)
    near, far = sorted(ends, key=lambda keys: keys.node)
    async with running(node(near, **options), node(bridge_keys, bridging=bridging), node(far)) as nodes:
        those = Three(*nodes)
        await link_up(*((those.near, those.bridge) if near_dials else (those.bridge, those.near)))
        await link_up(*((those.far, those.bridge) if far_dials else (those.bridge, those.far)))
        yield those
        for each in nodes:
            assert each.events.empty(), each.events.get_nowait()
    for each in nodes:
        assert not each.links._tasks
        assert not each.links.relays._expected


# -- the good case -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("near_dials", "far_dials"), WAYS, ids=IDS)
async def test_a_bridge_carries_a_link(tmp_path: Path, *, near_dials: bool, far_dials: bool) -> None:
    async with three(tmp_path, near_dials=near_dials, far_dials=far_dials) as those:
        near, bridge, far = those.all
        up, other = await those.link()
        assert (up.peer, up.path, up.dialled, up.address) == (far.id, (bridge.id,), True, those.via)
        assert (other.peer, other.path, other.dialled, other.address) == (near.id, (bridge.id,), False, "")
        assert near.links.link_path(far.id) == far.links.link_path(near.id) == (bridge.id,)
        assert near.links.link_path(bridge.id) == ()
        assert near.links.remote_ip(far.id) == far.links.remote_ip(near.id) == ""
        await those.talk()
        assert bridge.links.relays.carried == 1
        assert set(bridge.links.peers()) == {near.id, far.id}
        near.links.hangup(far.id, "enough")
        assert await near.event(LinkDown) == LinkDown(peer=far.id, reason="enough")
        assert await far.event(LinkDown) == LinkDown(peer=near.id, reason="bye: enough")
        await nothing_left(*those.all)
        await those.link()  # and again, from the other end
        far.links.hangup(near.id, "enough")
        assert await near.event(LinkDown) == LinkDown(peer=far.id, reason="bye: enough")
        assert await far.event(LinkDown) == LinkDown(peer=near.id, reason="enough")
        await nothing_left(*those.all)


async def test_what_they_tell_of_others_is_private_or_left_out(tmp_path: Path) -> None:
    """Neither end is seen at an address, so none but private ones are believed."""
    async with three(tmp_path) as those:
        await those.link()
        told = ((b"x" * 32, ("10.0.0.5:9476", "127.0.0.1:5000", "8.8.8.8:9476")),)
        those.near.links.send(those.far.id, Peers(addresses=told))
        heard = (await those.far.event(Received)).message
        assert heard == Peers(addresses=((b"x" * 32, ("10.0.0.5:9476",)),))


async def test_much_is_carried(tmp_path: Path) -> None:
    async with three(tmp_path, near_dials=False) as those:
        await those.link()
        owners = tuple(f"owner {number} {'x' * 40}" for number in range(60))
        for number in range(500):
            those.near.links.send(those.far.id, HasWork(counter=number, owners=owners))
            those.far.links.send(those.near.id, HasWork(counter=number, owners=owners))
        for each in (those.near, those.far):
            for number in range(500):
                heard = (await each.event(Received)).message
                assert heard == HasWork(counter=number, owners=owners)
        assert those.bridge.links.counters["relay-bytes"] > 100_000


@pytest.mark.parametrize("meddle", ["too long", "empty", "made up"])
async def test_records_that_are_not_the_next_ones_end_the_link(tmp_path: Path, meddle: str) -> None:
    async with three(tmp_path) as those:
        sinks: list[Any] = []
        honest = those.bridge.links.relays._pass_on

        async def pass_on(source: Any, sink: Any) -> None:
            sinks.append(sink)
            await honest(source, sink)

        those.bridge.links.relays._pass_on = pass_on  # type: ignore[method-assign]
        await those.link()
        made = {"too long": bytes(1 << 20), "empty": b"", "made up": bytes(200)}
        await sinks[0].send_bytes(made[meddle])
        assert await those.far.event(LinkDown) == LinkDown(peer=those.near.id, reason=link.ALTERED)
        await those.near.event(LinkDown)
        await nothing_left(*those.all)


async def test_a_bridge_that_drops_all_it_is_given_is_found_out_sooner_than_a_cable_that_was_pulled(
    tmp_path: Path,
) -> None:
    async with three(tmp_path) as those:
        await those.link()
        direct, relayed = (those.near.links._links[each.id].limits for each in (those.bridge, those.far))
        assert (direct.ping_s, direct.silence_s) == (20.0, 60.0)
        assert (relayed.ping_s, relayed.silence_s) == (5.0, 20.0)


async def test_pings_go_from_end_to_end(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        await those.link()
        await until(lambda: those.near.links.rtt(those.far.id) is not None)


# -- what the bridge sees ----------------------------------------------------------------------------------------------

Change = Callable[[bytes], bytes | None]


class Tapped:
    """A stream whose records pass through ``change``; None: the stream ends."""

    def __init__(self, stream: Any, change: Change) -> None:
        self._stream, self._change = stream, change

    async def receive(self) -> Any:
        got = await self._stream.receive()
        if got.type is not aiohttp.WSMsgType.BINARY:
            return got
        data = self._change(bytes(got.data))
        return SimpleNamespace(type=aiohttp.WSMsgType.CLOSED if data is None else aiohttp.WSMsgType.BINARY, data=data)


def tap(bridge: Node, change: Change) -> None:
    """Let a bridge meddle with what it carries."""
    honest: Callable[..., Awaitable[None]] = bridge.links.relays._pass_on

    async def pass_on(source: Any, sink: Any) -> None:
        await honest(Tapped(source, change), sink)

    bridge.links.relays._pass_on = pass_on  # type: ignore[method-assign]


async def test_a_bridge_sees_nothing_but_ciphertext(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def look(data: bytes) -> bytes:
        seen.append(data)
        return data

    async with three(tmp_path) as those:
        tap(those.bridge, look)
        await those.link()
        secret = "the name of an owner that nobody else is to know"
        those.near.links.send(those.far.id, HasWork(counter=1, owners=(secret,) * 3))
        assert (await those.far.event(Received)).message == HasWork(counter=1, owners=(secret,) * 3)
        everything = b"".join(seen)
        assert len(seen) >= 5
        assert secret.encode() not in everything
        for each in (those.near, those.far):
            assert each.id not in everything  # not even who they are
        assert those.bridge.services.empty()


async def test_a_record_that_a_bridge_alters_ends_the_link_and_it_comes_again(tmp_path: Path) -> None:
    altering = False

    def alter(data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:] if altering else data

    async with three(tmp_path) as those:
        tap(those.bridge, alter)
        await those.link()
        altering = True
        those.near.links.send(those.far.id, HasWork(counter=1))
        assert await those.far.event(LinkDown) == LinkDown(peer=those.near.id, reason=link.ALTERED)
        assert (await those.near.event(LinkDown)).peer == those.far.id
        await nothing_left(*those.all)
        altering = False
        await those.link()
        await those.talk()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_a_bridge_that_meddles_with_the_handshake(tmp_path: Path, number: int) -> None:
    """Messages 1 to 3, and the first record of the one who answers."""
    count = 0

    def alter(data: bytes) -> bytes:
        nonlocal count
        count += 1
        return data[:-1] + bytes([data[-1] ^ 1]) if count == number else data

    async with three(tmp_path) as those:
        tap(those.bridge, alter)
        those.near.links.dial(those.via)
        assert (await those.near.event(DialFailed)).address == those.via
        if number == 4:
            await those.far.event(LinkUp)
            await those.far.event(LinkDown)
        await nothing_left(*those.all)
        assert those.far.id not in those.near.links.peers()
        await those.link()


@pytest.mark.parametrize("records", range(6))
async def test_a_bridge_that_ends_in_the_middle(tmp_path: Path, records: int) -> None:
    """At whatever record it ends, both ends are told what they have to be, and nothing is left."""
    count = 0

    def end(data: bytes) -> bytes | None:
        nonlocal count
        count += 1
        return data if count <= records else None

    async with three(tmp_path) as those:
        tap(those.bridge, end)
        those.near.links.dial(those.via)
        if records >= 4:
            await those.near.event(LinkUp)
            assert await those.near.event(LinkDown) == LinkDown(peer=those.far.id, reason=link.CUT)
        else:
            assert (await those.near.event(DialFailed)).address == those.via
        if records >= 3:
            await those.far.event(LinkUp)
            assert (await those.far.event(LinkDown)).peer == those.near.id
        await nothing_left(*those.all)


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("near_dials", "far_dials"), WAYS, ids=IDS)
async def test_a_bridge_that_stops_takes_the_links_with_it(
    tmp_path: Path, *, near_dials: bool, far_dials: bool
) -> None:
    async with three(tmp_path, near_dials=near_dials, far_dials=far_dials) as those:
        near, bridge, far = those.all
        await those.link()
        await bridge.links.close()
        for each, other in ((near, far), (far, near)):
            downs = {(await each.event(LinkDown)).peer, (await each.event(LinkDown)).peer}
            assert downs == {bridge.id, other.id}
        for _ in range(2):
            await bridge.event(LinkDown)
        await until(lambda: sockets((near, far)) == 0)
        assert await refused(near, those.via) == dialing.NO_WAY


async def test_an_end_that_stops_is_gone_at_the_other(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        await those.link()
        await far.links.close()
        assert await near.event(LinkDown) == LinkDown(peer=far.id, reason="bye: leaving")
        assert await bridge.event(LinkDown) == LinkDown(peer=far.id, reason="bye: leaving")
        assert {(await far.event(LinkDown)).peer for _ in range(2)} == {near.id, bridge.id}
        await nothing_left(near, bridge, links=1)
        assert await refused(near, those.via) == dialing.NO_WAY


async def test_a_link_outlives_that_to_the_bridge(tmp_path: Path) -> None:
    """The streams are connections of their own."""
    async with three(tmp_path) as those:
        near, bridge, _ = those.all
        await those.link()
        near.links.hangup(bridge.id, "enough")
        await near.event(LinkDown)
        await bridge.event(LinkDown)
        await those.talk()


# -- which of two links stays ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("near_dials", [True, False], ids=["near", "far"])
async def test_a_direct_link_replaces_a_relayed_one(tmp_path: Path, *, near_dials: bool) -> None:
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        await those.link()
        dialler, other = (near, far) if near_dials else (far, near)
        dialler.links.dial(other.address)
        for each, peer in ((dialler, other), (other, dialler)):
            assert await each.event(LinkDown) in [
                LinkDown(peer=peer.id, reason=link.REPLACED),
                LinkDown(peer=peer.id, reason=f"bye: {link.REPLACED}"),
            ]
            up = await each.event(LinkUp)
            assert (up.peer, up.path) == (peer.id, ())
        await those.talk()
        await nothing_left(near, bridge, far, links=3)


async def test_a_relayed_link_does_not_replace_a_direct_one(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        await link_up(far, near)
        assert await refused(near, those.via) == dialing.ALREADY
        assert near.links.link_path(far.id) == ()
        await nothing_left(near, bridge, far, links=3)
        await those.talk()
        assert await refused(far, via_address(bridge.id, near.id)) == dialing.ALREADY
        await nothing_left(near, bridge, far, links=3)


async def test_a_relayed_link_does_not_replace_another(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        await those.link()
        assert await refused(those.near, those.via) == dialing.ALREADY
        assert await refused(those.far, via_address(those.bridge.id, those.near.id)) == dialing.ALREADY
        await until(lambda: those.bridge.links.relays.carried == 1)
        await those.talk()


# -- two bridges in a row ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def chain(tmp_path: Path, count: int) -> AsyncIterator[list[Node]]:
    """Link bridges in a row, and an end at each side; every bridge but the last has a link to the far end."""
    founder = keys_at(tmp_path / "b0", "b0")
    keys = [founder, *(keys_at(tmp_path / f"b{number}", f"b{number}") for number in range(1, count))]
    for each in keys[1:]:
        admit(founder, each, caps=("submit", "work", "bridge"))
    ends = [keys_at(tmp_path / name, name) for name in ("near", "far")]
    for each in ends:
        admit(founder, each)
    ids = [each.node for each in keys]
    makes = [node(ends[0]), *(node(each, bridging=True) for each in keys), node(ends[1])]
    async with running(*makes) as nodes:
        for each in nodes:
            each.links._path = lambda bridge, _node: tuple(ids[ids.index(bridge) :])  # as the bridges would tell
        for one, two in pairwise(nodes):
            await link_up(one, two)
        far = nodes[-1]
        for at in range(count - 2, -1, -1):
            nodes[at + 1].links.dial(via_address(ids[at + 1], far.id))
            up, other = await nodes[at + 1].event(LinkUp), await far.event(LinkUp)
            assert up.path == tuple(ids[at + 1 :])
            assert other.path == tuple(reversed(ids[at + 1 :]))
        yield nodes


async def test_two_bridges_in_a_row(tmp_path: Path) -> None:
    async with chain(tmp_path, 2) as nodes:
        near, first, second, far = nodes
        near.links.dial(via_address(first.id, far.id))
        up, other = await near.event(LinkUp), await far.event(LinkUp)
        assert up.path == (first.id, second.id)
        assert other.path == (second.id, first.id)
        await talk(near, far)
        assert [each.links.relays.carried for each in nodes] == [0, 1, 2, 0]
        await second.links.close()
        assert {(await near.event(LinkDown)).peer} == {far.id}
        assert {(await far.event(LinkDown)).peer for _ in range(3)} == {near.id, first.id, second.id}
        assert {(await first.event(LinkDown)).peer for _ in range(2)} == {second.id, far.id}
        await nothing_left(near, first, far, links=1)


async def test_no_further_than_allowed(tmp_path: Path) -> None:
    async with chain(tmp_path, HOPS_MAX) as nodes:
        near, first, *_, far = nodes
        near.links.dial(via_address(first.id, far.id))
        assert len((await near.event(LinkUp)).path) == HOPS_MAX
        await far.event(LinkUp)
        await talk(near, far)


# -- refusals ----------------------------------------------------------------------------------------------------------


def listen_in(each: Node) -> "asyncio.Queue[Any]":
    """Take what a node's neighbours say of relays, and let nobody answer."""
    heard: asyncio.Queue[Any] = asyncio.Queue()
    each.links.relays.handle = lambda _peer, message: heard.put_nowait(message)  # type: ignore[method-assign]
    return heard


async def next_of(heard: "asyncio.Queue[Any]") -> Any:
    async with asyncio.timeout(WAIT_S):
        return await heard.get()


async def test_a_node_that_is_no_bridge_says_so(tmp_path: Path) -> None:
    async with three(tmp_path, bridging=False) as those:
        assert await refused(those.near, those.via) == dialing.NO_WAY
        assert those.bridge.links.counters[f"relay-{relays.NO_BRIDGE}"] == 1
        await nothing_left(*those.all)


async def test_who_may_not_be_a_bridge_is_not_asked(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b, bridging=True)) as (one, two):
        await link_up(one, two)
        assert await refused(one, via_address(two.id, NodeId(b"n" * 32))) == dialing.NO_WAY
        assert not two.links.counters


@pytest.mark.parametrize("near_dials", [True, False])
async def test_a_refusal_is_heard_at_once(tmp_path: Path, *, near_dials: bool) -> None:
    """However long a bridge would be waited for."""
    async with three(tmp_path, near_dials=near_dials) as those:
        nobody = via_address(those.bridge.id, NodeId(b"n" * 32))
        async with asyncio.timeout(10):
            assert await refused(those.near, nobody) == dialing.NO_WAY
        await nothing_left(*those.all)


async def test_a_bridge_that_is_not_linked_is_not_asked(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        assert await refused(those.near, via_address(NodeId(b"n" * 32), those.far.id)) == dialing.NO_WAY


async def test_a_place_that_cannot_be_read(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        assert await refused(those.near, those.via[:-1]) == dialing.BAD_ADDRESS
        assert await refused(those.near, "via:x") == dialing.BAD_ADDRESS


def bad_wants(those: Three) -> list[tuple[RelayWant, str]]:
    near, bridge, far = (each.id for each in those.all)
    x, y, z = (NodeId(letter * 32) for letter in (b"x", b"y", b"z"))
    plain = RelayWant(req=1, to=far, origin=near, ticket=TICKET)

    def change(**fields: Any) -> RelayWant:
        return msgspec.structs.replace(plain, **fields)

    return [
        (change(to=x), relays.NOT_LINKED),
        (change(to=near, origin=x, path=(near,)), relays.LOOP),
        (change(to=near), relays.NOT_LINKED),
        (change(to=bridge), relays.LOOP),
        (change(origin=bridge, path=(near,)), relays.LOOP),
        (change(origin=x), relays.LOOP),  # it claims to be another
        (change(origin=x, path=(y,)), relays.LOOP),
        (change(origin=x, path=(bridge, near)), relays.LOOP),
        (change(origin=x, path=(far, near)), relays.LOOP),
        (change(origin=x, path=(x, near)), relays.LOOP),
        (change(origin=x, path=(y, z, near)), relays.TOO_FAR),
        (change(origin=x, path=(near,)), relays.NO_BRIDGE),  # passed on by one that may not be a bridge
    ]


async def test_what_a_bridge_refuses(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        heard = listen_in(those.near)
        offered = listen_in(those.far)
        for want, reason in bad_wants(those):
            those.near.links.send(those.bridge.id, want)
            assert await next_of(heard) == RelayRefused(req=1, reason=reason), want
        assert offered.empty()
        await nothing_left(*those.all)


@pytest.mark.parametrize(
    ("near", "far", "carried", "reason"),
    [
        (b"", b"b", {b"b"}, ""),
        (b"b", b"", {b"b"}, ""),
        (b"", b"b", set(), relays.NO_BRIDGE),
        (b"b", b"", {b"c"}, relays.NO_BRIDGE),
        (b"b", b"c", {b"b", b"c"}, relays.NO_BRIDGE),
        (b"b", b"b", {b"b"}, relays.NO_BRIDGE),
    ],
)
async def test_a_bridge_joins_its_own_mesh_with_one_that_it_carries_for_and_nothing_else(
    tmp_path: Path, near: bytes, far: bytes, carried: set[bytes], reason: str
) -> None:
    async with three(tmp_path) as those:
        for end, mesh in ((those.near, near), (those.far, far)):
            link = those.bridge.links._links[end.id]
            link.info = msgspec.structs.replace(link.info, mesh=mesh)
        made = those.bridge.links.relays
        made._carries = carried.__contains__
        want = RelayWant(req=1, to=those.far.id, origin=those.near.id, ticket=TICKET)
        assert made._why_not(those.near.id, want) == reason


async def test_a_wish_over_a_relayed_link_is_refused(tmp_path: Path) -> None:
    """A stream begins at a neighbour."""
    async with chain(tmp_path, 2) as nodes:
        _, first, _, far = nodes
        heard = listen_in(far)
        far.links.send(first.id, RelayWant(req=1, to=nodes[0].id, origin=far.id, ticket=TICKET))
        assert await next_of(heard) == RelayRefused(req=1, reason=relays.NOT_LINKED)
        assert await refused(far, via_address(first.id, nodes[0].id)) == dialing.NO_WAY


@pytest.mark.parametrize(("of_all", "of_one"), [(2, 9), (9, 2)])
async def test_a_bridge_carries_no_more_than_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_all: int, of_one: int
) -> None:
    """Asked for in one breath, too."""
    monkeypatch.setattr(relays, "RELAYS_MAX", of_all)
    monkeypatch.setattr(relays, "PER_PEER_MAX", of_one)
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        heard, offered = listen_in(near), listen_in(far)
        for number in range(4):
            near.links.send(bridge.id, RelayWant(req=number, to=far.id, origin=near.id, ticket=bytes([number]) * 32))
        assert [await next_of(heard) for _ in range(2)] == [
            RelayRefused(req=number, reason=relays.BUSY) for number in (2, 3)
        ]
        for _ in range(2):
            assert isinstance(await next_of(offered), RelayOffer)
        assert bridge.links.relays.carried == 2
        far.links.send(bridge.id, RelayWant(req=7, to=near.id, origin=far.id, ticket=TICKET))
        if of_all == 2:
            assert await next_of(offered) == RelayRefused(req=7, reason=relays.BUSY)
        else:
            assert isinstance(await next_of(heard), RelayOffer)


async def test_a_busy_bridge_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with three(tmp_path) as those:
        monkeypatch.setattr(relays, "PER_PEER_MAX", 0)
        assert await refused(those.near, those.via) == dialing.NO_WAY
        monkeypatch.setattr(relays, "PER_PEER_MAX", 1)
        await those.link()


# -- nobody comes ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("near_dials", "far_dials"), WAYS, ids=IDS)
async def test_the_far_end_does_not_come(tmp_path: Path, *, near_dials: bool, far_dials: bool) -> None:
    async with three(tmp_path, near_dials=near_dials, far_dials=far_dials) as those:
        offered = listen_in(those.far)
        assert await refused(those.near, those.via) in (dialing.NO_WAY, dialing.NO_ANSWER)
        assert isinstance(await next_of(offered), RelayOffer)
        await nothing_left(*those.all)
        assert those.bridge.links.counters[f"relay-{relays.NOT_MET}"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("near_dials", "far_dials"), WAYS, ids=IDS)
async def test_the_near_end_does_not_come(tmp_path: Path, *, near_dials: bool, far_dials: bool) -> None:
    async with three(tmp_path, near_dials=near_dials, far_dials=far_dials) as those:
        near, bridge, far = those.all
        heard = listen_in(near)
        near.links.send(bridge.id, RelayWant(req=9, to=far.id, origin=near.id, ticket=TICKET))
        assert await next_of(heard) == RelayRefused(req=9, reason=relays.NOT_MET)
        await nothing_left(*those.all)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("near_dials", [True, False])
async def test_a_bridge_that_says_nothing(tmp_path: Path, *, near_dials: bool) -> None:
    async with three(tmp_path, near_dials=near_dials) as those:
        heard = listen_in(those.bridge)
        assert await refused(those.near, those.via) == dialing.NO_ANSWER
        assert isinstance(await next_of(heard), RelayWant)
        await nothing_left(*those.all)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("far_dials", [True, False])
async def test_a_bridge_that_offers_and_does_not_come(tmp_path: Path, *, far_dials: bool) -> None:
    async with three(tmp_path, far_dials=far_dials) as those:
        near, bridge, far = those.all
        bridge.links.send(far.id, RelayOffer(origin=near.id, ticket=TICKET, path=(bridge.id,)))
        reason = dialing.NOT_P2PQ if far_dials else dialing.NO_ANSWER
        await until(lambda: far.links.counters[reason] == 1)
        await nothing_left(*those.all)


async def test_a_bridge_that_offers_and_then_is_silent(tmp_path: Path) -> None:
    """The handshake has its own clock."""
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        far.links._limits = link.LinkLimits(handshake_s=0.2, close_s=0.2)
        silent = asyncio.Event()

        async def join(_near: Any, _far: Any) -> None:
            await silent.wait()

        bridge.links.relays._join = join  # type: ignore[method-assign]
        near.links._limits = far.links._limits
        assert await refused(near, those.via) == dialing.NO_ANSWER
        await until(lambda: far.links.counters[gate.TOO_SLOW] == 1)
        silent.set()
        await nothing_left(*those.all)


# -- another than was meant --------------------------------------------------------------------------------------------


@asynccontextmanager
async def four(tmp_path: Path) -> AsyncIterator[tuple[Three, Node]]:
    """Three, and one more member beside the bridge."""
    async with three(tmp_path) as those:
        keys = keys_at(tmp_path / "more", "more")
        admit(those.bridge.keys, keys)
        async with running(node(keys)) as (more,):
            await link_up(more, those.bridge)
            yield those, more
            assert more.events.empty()
            more.links.hangup(those.bridge.id, "enough")
            await those.bridge.event(LinkDown)


async def test_a_bridge_that_leads_to_another_member(tmp_path: Path) -> None:
    async with four(tmp_path) as (those, more):
        made = those.bridge.links.relays
        honest = made.handle
        made.handle = lambda peer, message: honest(  # type: ignore[method-assign]
            peer, msgspec.structs.replace(message, to=more.id)
        )
        those.near.links.dial(those.via, those.far.id)
        failed = await those.near.event(DialFailed)
        assert failed == DialFailed(address=those.via, reason=dialing.OTHER_NODE, node=those.far.id)
        assert more.id not in those.near.links.peers()
        await until(lambda: more.links.counters[session.LEFT] == 1)
        await nothing_left(*those.all, more, links=3)


async def test_a_bridge_that_leads_another_member_here(tmp_path: Path) -> None:
    """Whom it names as origin is who must prove to be it."""
    async with four(tmp_path) as (those, more):
        made = those.bridge.links.relays
        honest = made._say

        def lie(peer: NodeId, message: Any) -> None:
            if isinstance(message, RelayOffer):
                message = msgspec.structs.replace(message, origin=more.id)
            honest(peer, message)

        made._say = lie  # type: ignore[method-assign]
        assert await refused(those.near, those.via) == dialing.OTHER_NODE
        assert those.near.id not in those.far.links.peers()
        assert those.far.notices.get_nowait() == PeerRefused(
            address=f"bridge {short(those.bridge.id)}", reason=dialing.OTHER_NODE, peer=those.near.id
        )
        await nothing_left(*those.all, more, links=3)


async def test_a_bridge_that_leads_back_to_me(tmp_path: Path) -> None:
    async with three(tmp_path, near_dials=False) as those:
        near, bridge, _ = those.all
        made = bridge.links.relays
        honest = made.handle
        made._why_not = lambda _peer, _want: ""  # type: ignore[method-assign]
        made.handle = lambda peer, message: honest(  # type: ignore[method-assign]
            peer, msgspec.structs.replace(message, to=near.id)
        )
        near.links.dial(those.via)
        # An offer of a link to itself.
        await until(lambda: near.links.counters["relay-offer-dropped"] == 1)
        bridge.links.hangup(near.id, "enough")
        await bridge.event(LinkDown)
        await near.event(LinkDown)
        for task in list(near.links._tasks):
            if task.get_name() == "link dial":
                task.cancel()


# -- offers ------------------------------------------------------------------------------------------------------------


async def test_offers_that_cannot_be(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        x = NodeId(b"x" * 32)
        offers = [
            RelayOffer(origin=near.id, ticket=TICKET, path=()),  # it would count as direct
            RelayOffer(origin=near.id, ticket=TICKET, path=(x,)),
            RelayOffer(origin=near.id, ticket=TICKET, path=(bridge.id, x)),
            RelayOffer(origin=near.id, ticket=TICKET, path=(far.id, bridge.id)),
            RelayOffer(origin=near.id, ticket=TICKET, path=(near.id, bridge.id)),
            RelayOffer(origin=near.id, ticket=TICKET, path=(x, x, bridge.id)),
            RelayOffer(origin=far.id, ticket=TICKET, path=(bridge.id,)),
            RelayOffer(origin=bridge.id, ticket=TICKET, path=(bridge.id,)),
        ]
        for offer in offers:
            bridge.links.send(far.id, offer)
        far.links.send(bridge.id, RelayOffer(origin=near.id, ticket=TICKET, path=(far.id,)))  # it may not be a bridge
        await until(lambda: far.links.counters["relay-offer-dropped"] == len(offers))
        await until(lambda: bridge.links.counters["relay-offer-dropped"] == 1)
        await nothing_left(*those.all)


@pytest.mark.usefixtures("impatient")
async def test_offers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "OFFERS_MAX", 3)
    async with three(tmp_path, far_dials=False) as those:
        near, bridge, far = those.all
        for number in range(10):
            ticket = bytes([number]) * 32
            bridge.links.send(far.id, RelayOffer(origin=near.id, ticket=ticket, path=(bridge.id,)))
        await until(lambda: far.links.counters["relay-offer-dropped"] == 7)
        assert far.notices.get_nowait() == PeerRefused(
            address="127.0.0.1", reason="relay-offer-dropped", peer=bridge.id
        )
        await nothing_left(*those.all)


# -- tickets -----------------------------------------------------------------------------------------------------------


async def status(address: str, path: str, method: str = "GET", local: str = "127.0.0.1", **headers: str) -> int:
    connector = aiohttp.TCPConnector(local_addr=(local, 0))
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.request(method, f"http://{address}{path}", headers=upgrade | headers) as answer,
    ):
        return answer.status


async def test_a_ticket_is_for_one_from_one_address(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        offered = listen_in(far)
        near.links.dial(those.via)
        offer = await next_of(offered)
        right = PATH + offer.ticket.hex()
        assert await status(bridge.address, PATH + "0" * 64) == 404
        assert await status(bridge.address, right[:-1]) == 404
        assert await status(bridge.address, right.upper()) == 404
        assert await status(bridge.address, right, method="POST") == 405
        assert await status(bridge.address, right, local="127.0.0.2") == 404
        assert await status(bridge.address, right, Origin="http://evil.example") == 403
        # All of that has not spoilt it; and it is good once.
        del far.links.relays.handle
        far.links.relays.handle(bridge.id, offer)
        await near.event(LinkUp)
        await far.event(LinkUp)
        assert await status(bridge.address, right) == 404
        await those.talk()


async def test_a_ticket_dies_with_its_link(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        offered = listen_in(far)
        near.links.dial(those.via)
        offer = await next_of(offered)
        far.links.hangup(bridge.id, "enough")
        await far.event(LinkDown)
        await bridge.event(LinkDown)
        assert await status(bridge.address, PATH + offer.ticket.hex()) == 404
        for task in list(near.links._tasks):
            if task.get_name() == "link dial":
                task.cancel()


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
async def test_a_ticket_that_is_used_twice_harms_nobody(tmp_path: Path) -> None:
    async with three(tmp_path, far_dials=False) as those:
        near, bridge, far = those.all
        heard = listen_in(near)
        for number in (1, 2):
            near.links.send(bridge.id, RelayWant(req=number, to=far.id, origin=near.id, ticket=TICKET))
        assert {(await next_of(heard)).reason for _ in range(2)} == {relays.BUSY, relays.NOT_MET}
        for _ in range(2):
            bridge.links.send(far.id, RelayOffer(origin=near.id, ticket=TICKET, path=(bridge.id,)))
        await until(lambda: far.links.counters[dialing.NO_WAY] == 1)
        await nothing_left(*those.all)
        del near.links.relays.handle
        await those.link()


class Closing:
    """A stream of which nothing is wanted any more."""

    async def close(self) -> bool:
        return True


async def test_who_comes_as_time_is_up_is_sent_away(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, _ = those.all
        made = bridge.links.relays
        waiting = asyncio.get_running_loop().create_task(made._meet(near.id, TICKET))
        await until(lambda: TICKET in made._expected)
        came = relays._Came(Closing())  # type: ignore[arg-type]
        made._expected[TICKET][1].set_result(came)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert came.closed.is_set()
        await nothing_left(*those.all)


# -- older peers, and words that mean nothing --------------------------------------------------------------------------


def make_old(of: Node, peer: Node) -> None:
    found = of.links._links[peer.id]
    found.info = msgspec.structs.replace(found.info, minor=1)


@pytest.mark.usefixtures("impatient")
async def test_older_peers_are_told_nothing(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, far = those.all
        make_old(bridge, far)
        assert await refused(near, those.via) == dialing.NO_WAY
        make_old(bridge, near)
        assert await refused(near, those.via) == dialing.NO_ANSWER  # which it would never ask for
        make_old(near, bridge)
        assert await refused(near, those.via) == dialing.NO_WAY
        await nothing_left(*those.all)


async def test_refusals_of_what_was_not_asked_are_ignored(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, _ = those.all
        bridge.links.send(near.id, RelayRefused(req=77, reason="busy"))
        await those.link()
        assert not near.links.counters


async def test_a_word_that_nobody_knows_is_not_repeated(tmp_path: Path) -> None:
    async with three(tmp_path) as those:
        near, bridge, _ = those.all
        bridge.links.relays._why_not = lambda _peer, _want: "gibberish"  # type: ignore[method-assign]
        seen: list[str] = []
        near.links.counters.clear()
        with pytest.raises(dialing.NoWay) as caught:
            async with near.links.relays.open(bridge.id, those.far.id):
                seen.append("open")
        assert caught.value.reason == relays.NOT_MET
        assert seen == []
