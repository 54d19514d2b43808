"""One link: order, size, round trips, and the ways in which it dies."""

import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from p2pq.core.events import LinkDown, LinkUp, Received
from p2pq.daemon import dialing, link
from p2pq.daemon.identity import NodeKeys
from p2pq.daemon.link import LinkLimits
from p2pq.errors import LocalProtocolError
from p2pq.wire.messages import MINOR, SINCE, Granted, HasWork, Leaving
from tests.unit.daemon.linkkit import link_up, members, node, running


async def test_large_and_many_messages_arrive_in_order(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        blobs = (os.urandom(3 << 20), os.urandom(3 << 20), b"x" * 100_000)
        one.links.send(b.node, Granted(grant=b"g", blobs=blobs))
        assert one.links.pending(b.node) > 6 << 20
        for counter in range(500):
            one.links.send(b.node, HasWork(counter=counter))
        got = await two.event(Received)
        assert isinstance(got.message, Granted)
        assert got.message.blobs == blobs
        for counter in range(500):
            assert (await two.event(Received)).message == HasWork(counter=counter)
        assert one.links.pending(b.node) == 0


async def test_the_round_trip_is_measured(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        one.links.send(b.node, Leaving())
        await two.event(Received)
        two.links.send(a.node, Leaving())
        await one.event(Received)
        for links, peer in ((one.links, b.node), (two.links, a.node)):
            rtt = links.rtt(peer)
            assert rtt is not None
            assert 0 < rtt < 2


async def test_small_messages_do_not_wait(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        for links, peer in ((one.links, b.node), (two.links, a.node)):
            sock = links._links[peer]._stream.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_link_outlives_the_time_out_of_requests(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await one.links.http.close()
        one.links.http = dialing.make_session(1, total_s=0.05)
        async with asyncio.timeout(60):
            one.links.dial(two.address)
            while not isinstance(
                await one.events.get(), LinkUp
            ):  # the time-out holds for the dial, and this machine is busy
                one.links.dial(two.address)
        await asyncio.sleep(0.15)
        two.links.send(a.node, HasWork(counter=1))
        await one.event(Received)


async def test_a_silent_link_ends(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    quick = LinkLimits(keep_s=0.02, silence_s=0.1, ping_s=1000, close_s=0.05)
    slow = LinkLimits(ping_s=1000, close_s=0.05)
    async with running(node(a, limits=quick), node(b, limits=slow)) as (one, two):
        await link_up(one, two)
        assert (await one.event(LinkDown)).reason == link.SILENT
        assert (await two.event(LinkDown)).reason == link.CUT


async def test_after_a_sleep_a_link_that_brings_nothing_is_dead_soon(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    quick = LinkLimits(keep_s=0.02, ping_s=1000, woke_s=0.1, close_s=0.05)
    async with running(node(a, limits=quick), node(b, limits=LinkLimits(ping_s=1000, close_s=0.05))) as (one, two):
        await link_up(one, two)
        two.links._links[a.node].send = lambda _message: None
        one.links.woke()
        assert (await one.event(LinkDown)).reason == link.SILENT


async def test_after_a_sleep_a_link_that_answers_stands(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    quick = LinkLimits(keep_s=0.02, silence_s=1000, ping_s=1000, woke_s=50, close_s=0.05)
    async with running(node(a, limits=quick), node(b, limits=LinkLimits(ping_s=1000, close_s=0.05))) as (one, two):
        await link_up(one, two)
        carried = one.links._links[b.node]
        one.links.woke()
        assert carried.heard_at < carried.pinged_at - 900
        async with asyncio.timeout(60):
            while carried.heard_at < carried.pinged_at:  # until it is answered: the other side says nothing by itself
                one.links.send(b.node, HasWork(counter=1))
                await two.event(Received)
        assert b.node in one.links.peers()


async def test_pings_keep_a_link_alive(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    quick = LinkLimits(keep_s=0.01, silence_s=60, ping_s=0.02, close_s=0.05)
    async with running(node(a, limits=quick), node(b, limits=LinkLimits(close_s=0.05))) as (one, two):
        await link_up(one, two)
        carried = one.links._links[b.node]
        async with asyncio.timeout(60):
            while carried.heard_at - carried.up_at < 0.3:  # by answers to pings: the other side says nothing by itself
                one.links.send(b.node, HasWork(counter=1))
                await two.event(Received)
        assert b.node in one.links.peers()


async def test_a_peer_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    limits = LinkLimits(outbox_bytes=1 << 20, close_s=0.05)
    async with running(node(a, limits=limits), node(b)) as (one, two):
        await link_up(one, two)
        one.links.send(b.node, Granted(grant=os.urandom(2 << 20)))
        assert (await one.event(LinkDown)).reason == link.SLOW
        assert (await two.event(LinkDown)).reason == link.CUT


async def test_a_stuck_write_ends_the_link(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    quick = LinkLimits(keep_s=0.02, write_s=0.1, close_s=0.05)
    async with running(node(a, limits=quick), node(b)) as (one, two):
        await link_up(one, two)
        blocked = one.links._links[b.node]

        async def never(_data: bytes) -> None:
            await asyncio.Event().wait()

        blocked._stream.send_bytes = never  # type: ignore[method-assign]
        one.links.send(b.node, Leaving())
        assert (await one.event(LinkDown)).reason == link.SLOW
        await two.event(LinkDown)


@pytest.mark.parametrize(("ours", "theirs"), [(1, MINOR), (MINOR, 1), (MINOR + 7, MINOR), (MINOR, MINOR)])
async def test_the_older_of_two_minor_versions_holds_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int
) -> None:
    """protocol.md#encoding (evolution): what is newer than the link is never said, whatever else this node can say."""
    a, b = members(tmp_path, 2)
    for keys, minor in ((a, ours), (b, theirs)):
        speak(monkeypatch, keys, minor)
    monkeypatch.setitem(SINCE, Leaving, MINOR)
    agreed = min(ours, theirs)
    async with running(node(a), node(b)) as (one, two):
        assert [up.minor for up in await link_up(one, two)] == [agreed, agreed]
        for here, there in ((one, two), (two, one)):
            if agreed < MINOR:
                with pytest.raises(LocalProtocolError, match=r"^Leaving to a peer of minor version 1$"):
                    here.links.send(there.id, Leaving())
            else:
                here.links.send(there.id, Leaving())
                assert (await there.event(Received)).message == Leaving()
            here.links.send(there.id, HasWork(counter=1))
            assert (await there.event(Received)).message == HasWork(counter=1)


def speak(monkeypatch: pytest.MonkeyPatch, keys: NodeKeys, minor: int) -> None:
    """Let a node introduce itself as one of another minor version."""
    real = keys.local
    monkeypatch.setattr(keys, "local", lambda *arguments: replace(real(*arguments), minor=minor))


async def test_unknown_fields_are_ignored_and_unknown_messages_are_counted(tmp_path: Path) -> None:
    """protocol.md#encoding (evolution): no honest node says a message that is newer than the link, so few are borne."""
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        sender = one.links._links[b.node]
        for raw in (b"\x83\xa4type\xa2hw\xa7counter\x07\xa4news\x91\x01", b"\x81\xa4type\xa2zz"):
            sender._outbox.append(b"\x00" + 2 * len(raw).to_bytes(4, "little") + raw)
        sender.send(HasWork(counter=8))
        assert [(await two.event(Received)).message for _ in range(2)] == [HasWork(counter=7), HasWork(counter=8)]
        assert two.links._links[a.node]._malformed == 1


async def test_messages_that_nobody_can_read(tmp_path: Path) -> None:
    a, b = members(tmp_path, 2)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        sender = one.links._links[b.node]
        for counter in range(link.MALFORMED_MAX):
            assert two.events.empty()
            sender._outbox.append(b"\x00\x01\x00\x00\x00\x01\x00\x00\x00\xc1")
            sender.send(HasWork(counter=counter))
            if counter < link.MALFORMED_MAX - 1:
                assert (await two.event(Received)).message == HasWork(counter=counter)
        assert (await two.event(LinkDown)).reason == link.BROKE_PROTOCOL
        assert (await one.event(LinkDown)).reason == link.CUT
