"""Certificates that renew by themselves, and nobody else's."""

import asyncio
from pathlib import Path

from p2pq.core.events import Received
from p2pq.model.ids import Wall
from p2pq.model.notice import PeerRefused
from p2pq.wire import session
from p2pq.wire.messages import HasWork, Renewed, RenewWant
from p2pq.wire.objects import CERT_LIFE_MS
from tests.unit.daemon.linkkit import keys_at, link_up, members, node, running, wall


async def test_an_aging_certificate_is_renewed_at_link_up(tmp_path: Path) -> None:
    _, b = members(tmp_path, 2)
    late = Wall(wall() + CERT_LIFE_MS * 3 // 4)
    a = keys_at(tmp_path / "n0", "n0", late)  # the founder renews its own at a start
    async with running(node(a, wall=lambda: late), node(b, wall=lambda: late)) as (one, two):
        before = b.cert
        await link_up(one, two)
        async with asyncio.timeout(60):
            while b.cert == before:
                one.links.send(b.node, HasWork(counter=1))
                await two.event(Received)
    assert b.cert.exp > late + CERT_LIFE_MS // 2


async def test_renewal_is_no_way_to_get_more(tmp_path: Path) -> None:
    a, b, c = members(tmp_path, 3)
    async with running(node(a), node(b)) as (one, two):
        await link_up(one, two)
        two.links.send(a.node, RenewWant(cert=c.state.certs[0]))
        two.links.send(a.node, HasWork(counter=1))
        await one.event(Received)
        assert one.notices.get_nowait() == PeerRefused(address="127.0.0.1", reason=session.NOT_HOLDER, peer=b.node)
        one.links.send(b.node, Renewed(certs=c.state.certs))
        one.links.send(b.node, HasWork(counter=1))
        await two.event(Received)
        assert two.notices.get_nowait() == PeerRefused(address="127.0.0.1", reason=session.NOT_HOLDER, peer=a.node)
    assert b.cert.sub == b.node
