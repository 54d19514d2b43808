"""All links of a node: who is let in, which of two stays, what is told of them."""

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from p2pq.core.events import DialFailed, LinkDown, LinkUp, Received
from p2pq.daemon import dialing, link, links
from p2pq.daemon.gate import GateLimits
from p2pq.errors import ConfigError
from p2pq.model.ids import Wall
from p2pq.model.notice import PeerRefused
from p2pq.wire import session, trust
from p2pq.wire.messages import BlobGone, HasWork, Leaving, Peers
from p2pq.wire.objects import CERT_LIFE_MS
from tests.unit.daemon.linkkit import Node, keys_at, link_up, members, node, refused, running, wall

DAY_MS = 24 * 3600 * 1000


# -- mesh keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [("ab", "b"), ("b", "ab"), ("abcd", "d"), ("abcd", "dxyz")])
async def test_the_newest_mesh_key_is_tried_first_and_an_earlier_one_links_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str
) -> None:
    """Who was away when the key was rotated comes back, whoever dials."""
    monkeypatch.setattr(links, "FALL_BACK_S", 0.01)
    a, b = members(tmp_path, 2)
    psks = [tuple(letter.encode() * 32 for letter in letters) for letters in (ours, theirs)]
    async with running(node(a, psks=lambda: psks[0]), node(b, psks=lambda: psks[1])) as (one, two):
        await link_up(one, two)


async def test_without_a_mesh_key_in_common_there_is_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "FALL_BACK_S", 0.01)
    a, b = members(tmp_path, 2)
    async with running(node(a, psks=lambda: (b"a" * 32, b"c" * 32)), node(b, psks=lambda: (b"b" * 32,))) as (one, two):
        assert await refused(one, two.address) == session.REFUSED_EARLY
        assert two.links.counters[session.WRONG_MESH] == 2


async def test_who_refuses_by_name_is_not_asked_again_with_an_earlier_key(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    keys = (b"a" * 32, b"b" * 32)
    banned = {"is_banned": lambda cert: cert.sub == a.node}
    async with running(node(a, psks=lambda: keys), node(b, psks=lambda: keys, **banned)) as (one, two):
        assert await refused(one, two.address) == f"by-peer:{trust.BANNED}"
        assert two.links.counters[trust.BANNED] == 1


# -- the good case ----------------------------------------------------------------------------------------------------------


async def test_members_link_and_talk(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        up, other = await link_up(one, two)
        assert (up.peer, up.name, up.owner, up.caps, up.dialled) == (b.node, "n1", "bob", ("submit", "work"), True)
        assert (other.peer, other.name, other.dialled, other.boot) == (a.node, "n0", False, a.boot)
        assert up.address == two.address
        assert other.address == one.address
        assert up.prekey == b.prekey
        one.links.send(b.node, HasWork(counter=1, owners=("ann",)))
        one.links.send(b.node, BlobGone(req=3, blobs=()))
        one.links.send(b.node, Leaving())
        assert await two.event(Received) == Received(peer=a.node, message=HasWork(counter=1, owners=("ann",)))
        assert await two.event(Received) == Received(peer=a.node, message=Leaving())
        assert two.services.get_nowait() == (a.node, BlobGone(req=3, blobs=()))
        assert b.node in one.links.peers()
        assert one.links.link_dialled(b.node)
        assert not two.links.link_dialled(a.node)
        assert two.links.remote_ip(a.node) == "127.0.0.1"
        assert one.links.peers() == (b.node,)
        info = one.links.info(b.node)
        assert info is not None
        assert info.node == b.node
        one.links.hangup(b.node, "enough")
        assert await one.event(LinkDown) == LinkDown(peer=b.node, reason="enough")
        assert await two.event(LinkDown) == LinkDown(peer=a.node, reason="bye: enough")
        assert b.node not in one.links.peers()
        one.links.send(b.node, Leaving())
        assert one.links.info(b.node) is None
        assert one.links.rtt(b.node) is None
        assert one.links.remote_ip(b.node) == one.links.address(b.node) == ""
        assert one.links.pending(b.node) == 0


async def test_what_members_tell_of_others_is_filtered(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        good = ("10.0.0.5:9476", "127.0.0.1:5000")  # loopback, for the teller is there too
        told = ((b"x" * 32, ("8.8.8.8:9476", *good, "10.0.0.5:22", "example.org:9476")), (b"y" * 32, ("8.8.8.8:53",)))
        one.links.send(b.node, Peers(addresses=told))
        assert (await two.event(Received)).message == Peers(addresses=((b"x" * 32, good),))


async def test_leaving_says_so(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(b)) as (two,):
        async with running(node(a)) as (one,):
            await link_up(one, two)
        assert (await two.event(LinkDown)).reason == "bye: leaving"
        one.links.dial(two.address)  # a closed node dials nobody
        assert one.events.get_nowait() == LinkDown(peer=b.node, reason="leaving")
        assert one.events.empty()


# -- two links to one peer --------------------------------------------------------------------------------------------------


async def test_simultaneous_dials_leave_one_link(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as nodes:
        one, two = sorted(nodes, key=lambda n: n.id)
        one.links.dial(two.address)
        two.links.dial(one.address)
        seen: list[tuple[type, bool]] = []
        while len(seen) < 3:
            for each in (one, two):
                while not each.events.empty():
                    event = each.events.get_nowait()
                    assert isinstance(event, LinkUp) or event.reason == dialing.ALREADY
                    seen.append((type(event), each is one))
            await asyncio.sleep(0)
        assert sorted(kind.__name__ for kind, _ in seen) == ["DialFailed", "LinkUp", "LinkUp"]
        assert one.notices.empty()
        assert two.notices.empty()
        assert one.links.link_dialled(two.id) != two.links.link_dialled(one.id)
        one.links.send(two.id, HasWork(counter=7))
        assert (await two.event(Received)).message == HasWork(counter=7)


async def test_a_second_dial_is_given_up_before_the_peer_hears_of_it(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        assert await refused(one, two.address) == dialing.ALREADY
        assert await refused(two, one.address) == dialing.ALREADY
        assert b.node in one.links.peers()
        assert two.events.empty()
        assert one.events.empty()


async def test_the_core_learns_by_which_certificates_a_peer_was_let_in(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        to_b, to_a = await link_up(one, two)
        assert (to_b.peer, to_b.certs) == (b.node, b.state.certs)
        assert (to_a.peer, to_a.certs) == (a.node, a.state.certs)


async def test_a_restarted_peer_replaces_its_old_link(tmp_path: Path) -> None:
    a, _ = members(tmp_path, 2)
    async with running(node(a)) as (one,), running(node(keys_at(tmp_path / "n1", "n1"))) as (two,):
        old, _ = await link_up(one, two)
        async with running(node(keys_at(tmp_path / "n1", "n1"))) as (again,):
            one.links.dial(again.address)
            assert await one.event(LinkDown) == LinkDown(peer=two.id, reason=link.REPLACED)
            new = await one.event(LinkUp)
            assert new.peer == old.peer
            assert new.boot != old.boot


async def test_who_dials_again_has_lost_its_link(tmp_path: Path) -> None:
    """A link whose other end vanished without a word gives way to a new one at once."""
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        two.links._links.clear()  # as if the peer had given up on it; nothing crosses the wire
        two.links.dial(one.address)
        if one.id < two.id:  # the smaller id stands by a young link that it dialled itself
            assert (await two.event(DialFailed)).reason == dialing.ALREADY
            one.links._links[two.id].up_at -= 60
            two.links.dial(one.address)
        await two.event(LinkUp)
        assert (await one.event(LinkDown)).reason == link.REPLACED
        await one.event(LinkUp)


# -- refusals ---------------------------------------------------------------------------------------------------------------


async def test_another_mesh(tmp_path: Path) -> None:
    async with running(node(keys_at(tmp_path / "a")), node(keys_at(tmp_path / "b"))) as (one, two):
        assert await refused(one, two.address) == session.REFUSED_EARLY
        notice = two.notices.get_nowait()
        assert notice == PeerRefused(address="127.0.0.1", reason=session.WRONG_MESH)
        assert two.events.empty()


async def test_self(tmp_path: Path) -> None:
    async with running(node(keys_at(tmp_path / "a"))) as (one,):
        assert await refused(one, one.address) == session.SELF
        assert one.duplicates.empty()


async def test_a_copied_home_is_told_of(tmp_path: Path) -> None:
    one_keys, two_keys = keys_at(tmp_path / "a"), keys_at(tmp_path / "a")
    async with running(node(one_keys), node(two_keys)) as (one, two):
        assert await refused(one, two.address) == session.DUPLICATE_KEY
        assert "this home was copied" in one.duplicates.get_nowait()


async def test_whoever_gives_up_because_a_link_stands_is_not_refused(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        one.links.dial(two.address)
        await one.event(LinkUp)
        await two.event(LinkUp)
        assert await refused(one, two.address) == dialing.ALREADY
        while not two.links.counters[session.LEFT]:  # noqa: ASYNC110  it is the very next thing
            await asyncio.sleep(0)
        assert two.notices.empty()


async def test_two_copies_that_take_turns_at_a_third_node(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    copy = keys_at(tmp_path / "n1", "n1")
    async with running(node(a), node(b), node(copy)) as (hub, one, two):
        for copied in (one, two):
            copied.links.dial(hub.address)
            await copied.event(LinkUp)
        await one.event(LinkDown)
        assert await refused(one, hub.address) == session.DUPLICATE_KEY
        sentence = one.duplicates.get_nowait()
        assert "this home was copied" in sentence
        assert f"{hub.address} is linked to another node" in sentence  # the hub is not the copy
        assert b.node in hub.links.peers()
        assert PeerRefused(address="127.0.0.1", reason=session.DUPLICATE_KEY, peer=b.node) == hub.notices.get_nowait()


@pytest.mark.parametrize("banning", ["dialler", "dialled"])
async def test_the_banned(tmp_path: Path, banning: str) -> None:
    a, b = members(tmp_path, 2)
    options = {"is_banned": lambda cert: cert.sub in (a.node, b.node)}
    async with running(
        node(a, **(options if banning == "dialler" else {})),
        node(b, **(options if banning == "dialled" else {})),
    ) as (one, two):
        assert await refused(one, two.address) == ("by-peer:" if banning == "dialled" else "") + trust.BANNED
        assert one.events.empty()
        assert two.events.empty()


@pytest.mark.parametrize(
    ("off", "reason"),
    [
        (3600_000, None),
        (-3600_000, trust.NOT_YET_VALID),
        (2 * CERT_LIFE_MS, trust.EXPIRED),
        (-DAY_MS, trust.NOT_YET_VALID),
    ],
)
@pytest.mark.parametrize("whose", ["dialler", "dialled"])
async def test_clocks_that_differ(tmp_path: Path, off: int, reason: str | None, whose: str) -> None:
    a, b = members(tmp_path, 2)
    wrong = {"wall": lambda: Wall(wall() + off)}
    async with running(
        node(a, **(wrong if whose == "dialler" else {})), node(b, **(wrong if whose == "dialled" else {}))
    ) as (one, two):
        if reason is None:
            await link_up(one, two)
        else:
            assert (await refused(one, two.address)).removeprefix("by-peer:") == reason


async def test_more_peers_than_links(tmp_path: Path) -> None:
    a, b, c = members(tmp_path, 3)
    async with running(node(a, links_max=1), node(b), node(c)) as (hub, one, two):
        await link_up(one, hub)
        assert await refused(two, hub.address) == dialing.FULL


# -- the door ---------------------------------------------------------------------------------------------------------------


async def test_a_port_in_use_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(ExceptionGroup) as caught:
            async with running(node(keys_at(tmp_path / "a"), listen=f"127.0.0.1:{port}")):
                pass
    error = caught.value.exceptions[0]
    assert isinstance(error, ConfigError)
    assert str(port) in str(error)
    assert "--listen 127.0.0.1:PORT" in str(error)


@pytest.mark.slow
async def test_routes_of_services(tmp_path: Path) -> None:
    a = keys_at(tmp_path / "a")

    async with asyncio.TaskGroup() as group:
        one = Node(a, group, gate_limits=GateLimits(deadline_s=0.5, source_burst=100))

        async def hold(request: web.Request) -> web.StreamResponse:
            one.links.admit(request)
            await released.wait()
            return web.Response(text="ok")

        released = asyncio.Event()
        one.links.add_routes([web.get("/p2pq/1/thing", hold)])
        await one.links.start()
        try:
            async with aiohttp.ClientSession() as client:
                url = f"http://{one.address}/p2pq/1/thing"
                async with client.get(url, headers={"Origin": "http://evil.example"}) as answer:
                    assert answer.status == 403
                async with client.get(f"http://{one.address}/nothing") as answer:
                    assert answer.status == 404
                asyncio.get_running_loop().call_later(0.7, released.set)
                async with client.get(url) as answer:  # admitted: outlives the gate's deadline
                    assert await answer.text() == "ok"
        finally:
            await one.links.close()


async def test_who_has_gone_before_it_is_answered_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that was stopped finds connections whose dialler has given up long ago."""

    async def gone(*_args: object) -> None:
        raise ConnectionResetError("Cannot write to closing transport")

    (a,) = members(tmp_path, 1)
    async with running(node(a)) as [one]:
        monkeypatch.setattr(web.WebSocketResponse, "prepare", gone)
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientError):
                await http.ws_connect(f"http://{one.address}/p2pq/1/link")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
