"""One link: order, size, round trips, and the ways in which it dies."""

import asyncio
import os
import socket
from pathlib import Path

from p2pq.core.events import LinkDown, LinkUp, Received
from p2pq.daemon import dialing, link
from p2pq.daemon.link import LinkLimits
from p2pq.wire.messages import Granted, HasWork, Leaving
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
        assert one.links.is_up(b.node)


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
