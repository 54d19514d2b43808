"""Certificates that renew themselves, at any admin that can be reached, over bridges too."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from p2pq.daemon import renewal
from p2pq.daemon.identity import NodeKeys
from p2pq.daemon.renewal import ASKERS_MAX, BRIDGES_MAX, NOT_KEPT, PASS_S, SIGN_S, Renewals
from p2pq.errors import StorageError
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import trust
from p2pq.wire.messages import HOPS_MAX, MINOR, RENEWALS_SINCE, Renewed, RenewWant
from p2pq.wire.objects import Cert
from p2pq.wire.trust import CERT_LIFE_MS
from tests.unit.daemon import linkkit
from tests.unit.daemon.linkkit import admit, keys_at, node, running

LATE = CERT_LIFE_MS * 3 // 4
MEMBER = ("submit", "work")
BRIDGE = ("bridge", "submit", "work")
ADMIN = ("admin", "bridge", "submit", "work")


@dataclass
class Peer:
    """Somebody who is linked, and what was said to it."""

    peer: NodeId
    caps: tuple[str, ...] = MEMBER
    minor: int = MINOR
    mesh: bytes = b""
    heard: list[Any] = field(default_factory=list)

    @property
    def info(self) -> SimpleNamespace:
        return SimpleNamespace(caps=self.caps, minor=self.minor, mesh=self.mesh)

    def send(self, message: RenewWant | Renewed) -> None:
        self.heard.append(message)


def stranger(index: int, caps: tuple[str, ...] = MEMBER, **facts: Any) -> Peer:
    return Peer(NodeId(bytes([index]) * 32), caps, **facts)


class Party:
    """One node's part in renewals, some months later."""

    def __init__(self, keys: NodeKeys, *peers: Peer, bridging: bool = False) -> None:
        self.keys, self.peers, self.banned, self.now = keys, list(peers), set[bytes](), 1000.0
        self.late = LATE
        made = (keys, self.wall, self.out, lambda: self.now, lambda: self.peers, self.send)
        self.renewals = Renewals(*made, bridging=bridging)  # type: ignore[arg-type]  # links, as far as it uses them

    def send(self, peer: NodeId, message: RenewWant | Renewed) -> None:
        for each in self.peers:
            if each.peer == peer:
                each.send(message)

    def wall(self) -> Wall:
        return Wall(linkkit.wall() + self.late)

    def out(self, cert: Cert) -> bool:
        return cert.sub in self.banned

    def ask(self, peer: Peer) -> list[Any]:
        self.renewals.ask(peer)  # type: ignore[arg-type]  # a link, as far as it is used
        return peer.heard

    def answer(self, peer: Peer, message: RenewWant) -> str | None:
        return self.renewals.answer(peer, message)  # type: ignore[arg-type]  # a link, as far as it is used

    def take(self, peer: Peer, message: Renewed) -> str | None:
        return self.renewals.take(peer, message)  # type: ignore[arg-type]  # a link, as far as it is used


@pytest.fixture
def founder(tmp_path: Path) -> NodeKeys:
    return keys_at(tmp_path / "founder", "founder")


@pytest.fixture
def ant(tmp_path: Path, founder: NodeKeys) -> NodeKeys:
    keys = keys_at(tmp_path / "ant", "ant")
    admit(founder, keys)
    return keys


@pytest.fixture
def gate(tmp_path: Path, founder: NodeKeys) -> NodeKeys:
    keys = keys_at(tmp_path / "gate", "gate")
    admit(founder, keys, BRIDGE)
    return keys


def second_admin(tmp_path: Path, founder: NodeKeys, caps: tuple[str, ...] = ADMIN) -> NodeKeys:
    """Return the keys of another admin, let in some months later."""
    keys = keys_at(tmp_path / "second", "second")
    admit(founder, keys, caps)
    return keys


def months_later(tmp_path: Path) -> NodeKeys:
    """Return the founder's keys after a start: it renews its own certificate then."""
    return keys_at(tmp_path / "founder", "founder", Wall(linkkit.wall() + LATE))


def full(*_: object) -> bool:
    raise StorageError("no space left")


def wants(keys: NodeKeys, hops: int = 0) -> RenewWant:
    cert, issuer = keys.state.certs
    return RenewWant(cert=cert, issuer=issuer, hops=hops)


# -- the member ------------------------------------------------------------------------------------------------------


def test_a_member_asks_when_its_certificate_ages_whoever_may_know_an_admin(ant: NodeKeys, founder: NodeKeys) -> None:
    party = Party(ant)
    party.late = 0
    assert party.ask(stranger(1, ADMIN)) == []
    party.late = LATE
    assert party.ask(stranger(1, ADMIN)) == [wants(ant)]
    assert party.ask(stranger(1, BRIDGE)) == [wants(ant)]
    assert party.ask(stranger(1)) == []
    assert party.ask(stranger(1, ADMIN, mesh=bytes(32))) == []
    for caps in (ADMIN, BRIDGE):
        assert party.ask(stranger(1, caps, minor=RENEWALS_SINCE - 1)) == []
    assert party.ask(Peer(founder.node, ADMIN, minor=1)) == [wants(ant)], "who issued it always renewed it"


def test_a_member_keeps_only_what_says_the_same_for_longer(
    ant: NodeKeys, founder: NodeKeys, gate: NodeKeys, tmp_path: Path
) -> None:
    party, admin, bridge = Party(ant), Party(second_admin(tmp_path, founder)), Peer(gate.node, BRIDGE)
    old = ant.cert
    other = founder.issue(trust.Subject(node=ant.node, name="ant", owner="eve", caps=MEMBER), party.wall())
    assert party.take(bridge, Renewed(certs=other)) == "not-the-holder"
    assert party.take(bridge, Renewed(certs=())) == "missing-certificate"
    assert party.take(bridge, Renewed(certs=(ant.state.certs[1], ant.state.certs[0]))) is not None
    assert party.take(bridge, Renewed(certs=ant.state.certs)) is None
    assert ant.cert == old
    asker = Peer(ant.node)
    assert admin.answer(asker, wants(ant)) is None
    party.banned.add(admin.keys.node)
    assert party.take(bridge, asker.heard[0]) == "issuer-banned"
    party.banned.clear()
    assert party.take(stranger(9, mesh=bytes(32)), asker.heard[0]) == renewal.FOREIGN
    assert ant.cert == old
    assert party.take(bridge, asker.heard[0]) is None
    assert (ant.cert.iss, ant.cert.exp > old.exp) == (admin.keys.node, True)
    assert not ant.renewal_due(party.wall())


def test_a_renewed_certificate_that_does_not_fit_on_the_disk_ends_nothing(
    ant: NodeKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    founder = months_later(tmp_path)
    asker = Peer(ant.node)
    Party(founder).answer(asker, wants(ant))
    monkeypatch.setattr(ant, "renewed", full)
    assert Party(ant).take(Peer(founder.node, ADMIN), asker.heard[0]) == NOT_KEPT


# -- the admin -------------------------------------------------------------------------------------------------------


def test_any_admin_renews_whoever_let_a_member_in(ant: NodeKeys, founder: NodeKeys, tmp_path: Path) -> None:
    for keys in (months_later(tmp_path), second_admin(tmp_path, founder)):
        asker = Peer(ant.node)
        assert Party(keys).answer(asker, wants(ant)) is None
        (answer,) = asker.heard
        leaf = trust.verify_chain(answer.certs, founder.state.root, Party(ant).wall(), trust.nobody)
        assert (leaf.iss, leaf.sub) == (keys.node, ant.node)
        assert (leaf.name, leaf.owner, leaf.caps) == (ant.cert.name, ant.cert.owner, ant.cert.caps)


def test_an_admin_is_asked_as_older_members_ask(ant: NodeKeys, tmp_path: Path) -> None:
    asker = Peer(ant.node, minor=1)
    assert Party(months_later(tmp_path)).answer(asker, RenewWant(cert=ant.state.certs[0])) is None
    assert asker.heard[0].certs[0] != ant.state.certs[0]


def test_an_admin_renews_nobody_who_is_out(ant: NodeKeys, gate: NodeKeys, founder: NodeKeys, tmp_path: Path) -> None:
    admin, asker = Party(second_admin(tmp_path, founder)), Peer(gate.node)
    admin.banned = {ant.node}
    assert admin.answer(asker, wants(ant)) == "banned"
    admin.banned = {founder.node}
    assert admin.answer(asker, wants(ant)) == "issuer-banned"
    admin.banned = set()
    assert admin.answer(stranger(9, mesh=bytes(32)), wants(ant)) == renewal.FOREIGN
    admin.late = 2 * CERT_LIFE_MS
    assert admin.answer(asker, wants(ant)) == "certificate-expired"
    assert asker.heard == []


def test_an_admin_renews_nothing_before_it_is_time(ant: NodeKeys, founder: NodeKeys) -> None:
    admin, asker = Party(founder), Peer(ant.node)
    admin.late = CERT_LIFE_MS // 2
    assert admin.answer(asker, wants(ant)) == renewal.NOT_DUE
    assert asker.heard == []


def test_an_admin_renews_no_capability_that_it_lacks_and_nothing_that_would_end_sooner(
    gate: NodeKeys, founder: NodeKeys, tmp_path: Path
) -> None:
    admin, asker = Party(second_admin(tmp_path, founder, caps=("admin", "submit", "work"))), Peer(gate.node)
    assert admin.answer(asker, wants(gate)) is None
    assert asker.heard == []
    # The founder's own certificate is as old as that of the member, so that a new one would last no longer.
    assert Party(founder).answer(asker, wants(gate)) is None
    assert asker.heard == []


def test_admins_are_renewed_by_the_founder_over_bridges_too(founder: NodeKeys, gate: NodeKeys, tmp_path: Path) -> None:
    second = Party(second_admin(tmp_path, founder))
    assert second.keys.renewal_due(second.wall())
    asker, third, first = Peer(second.keys.node, ADMIN), stranger(3, ADMIN), Peer(founder.node, ADMIN)
    want = RenewWant(cert=second.keys.state.certs[0])
    assert second.ask(Peer(gate.node, BRIDGE)) == [want]
    bridge = Party(gate, asker, third, first, bridging=True)
    assert bridge.answer(asker, want) is None
    on = RenewWant(cert=want.cert, hops=1)
    assert third.heard == first.heard == [on]
    hub = Peer(gate.node)
    assert Party(second_admin(tmp_path / "third", founder)).answer(hub, on) is None
    assert hub.heard == []
    Party(founder).answer(hub, on)
    assert bridge.take(first, hub.heard[0]) is None
    assert second.take(Peer(gate.node, BRIDGE), asker.heard[0]) is None
    assert not second.keys.renewal_due(second.wall())
    assert second.keys.admin


def test_a_founder_renews_its_own_in_time(founder: NodeKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    party, peer = Party(founder, other := stranger(1, ADMIN)), founder.cert
    party.late = 0
    party.renewals.tick()
    assert founder.cert == peer
    party.late = LATE
    assert not founder.renewal_due(party.wall()), "it asks nobody"
    monkeypatch.setattr(founder, "renew_own", full)
    party.renewals.tick()
    assert founder.cert == peer
    monkeypatch.undo()
    party.renewals.tick()
    assert founder.cert.exp > peer.exp
    assert other.heard == []


def test_a_member_asks_all_again_every_hour(ant: NodeKeys) -> None:
    party = Party(ant, one := stranger(1, ADMIN), two := stranger(2))
    party.renewals.tick()
    party.renewals.tick()
    assert (one.heard, two.heard) == ([wants(ant)] * 2, [])


def test_an_admin_whose_root_key_is_damaged_says_so_and_goes_on(
    founder: NodeKeys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    second, asker = second_admin(tmp_path, founder), stranger(1)
    (path,) = (tmp_path / "founder" / "mesh").glob("root-*.key")
    path.write_bytes(b"x")
    assert Party(founder).answer(asker, RenewWant(cert=second.state.certs[0])) is None
    assert asker.heard == []
    assert "certificate.not-renewed" in caplog.text


def test_an_admin_signs_for_a_member_once_in_a_while(
    ant: NodeKeys, founder: NodeKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anew = founder.issue(trust.Subject(node=ant.node, name="ant", owner="zoe", caps=MEMBER), linkkit.wall())
    founder = months_later(tmp_path)
    admin, asker = Party(founder), Peer(ant.node)
    for _ in range(3):
        admin.answer(asker, wants(ant))
    assert len({each.certs for each in asker.heard}) == 1
    admin.now += SIGN_S
    admin.answer(asker, wants(ant))
    assert len({each.certs for each in asker.heard}) == 2
    # Let in anew as somebody else's, it is not given what was signed before.
    admin.answer(asker, RenewWant(cert=anew[0], issuer=anew[1]))
    leaf = trust.verify_chain(asker.heard[-1].certs, founder.state.root, admin.wall(), trust.nobody)
    assert leaf.owner == "zoe"
    monkeypatch.setattr(renewal, "MEMBERS_MAX", 1)
    admin.answer(asker, RenewWant(cert=anew[0], issuer=anew[1]))
    assert len(admin.renewals._signed) == 1


# -- the bridge ------------------------------------------------------------------------------------------------------


def test_a_bridge_passes_on_to_admins_and_back(ant: NodeKeys, gate: NodeKeys, tmp_path: Path) -> None:
    founder = months_later(tmp_path)
    asker, admin, second = Peer(ant.node), Peer(founder.node, ADMIN), stranger(2, BRIDGE)
    bridge = Party(gate, asker, admin, second, stranger(3), bridging=True)
    assert bridge.answer(asker, wants(ant)) is None
    assert admin.heard == [wants(ant, hops=1)]
    assert [each.heard for each in bridge.peers if each is not admin] == [[], [], []]
    Party(founder).answer(hub := Peer(gate.node), admin.heard[0])
    assert bridge.take(admin, hub.heard[0]) is None
    assert asker.heard == hub.heard
    party = Party(ant)
    assert party.take(Peer(gate.node), asker.heard[0]) is None
    assert not ant.renewal_due(party.wall())


def test_a_bridge_without_an_admin_asks_bridges_and_no_further_than_they_go(ant: NodeKeys, gate: NodeKeys) -> None:
    asker, above = Peer(ant.node, BRIDGE), [stranger(index, BRIDGE) for index in range(1, BRIDGES_MAX + 2)]
    old, abroad = stranger(90, ADMIN, minor=RENEWALS_SINCE - 1), stranger(91, ADMIN, mesh=bytes(32))
    bridge = Party(gate, asker, stranger(80), old, abroad, *above, bridging=True)
    assert bridge.answer(asker, wants(ant, hops=HOPS_MAX - 1)) is None
    assert [each.heard for each in above] == [[wants(ant, hops=HOPS_MAX)]] * BRIDGES_MAX + [[]]
    assert (old.heard, abroad.heard, asker.heard) == ([], [], [])
    bridge.now += PASS_S
    assert bridge.answer(asker, wants(ant, hops=HOPS_MAX)) is None
    assert len(above[0].heard) == 1


def test_a_bridge_asks_for_a_member_once_in_a_while_and_answers_all_who_asked(
    ant: NodeKeys, gate: NodeKeys, tmp_path: Path
) -> None:
    founder = months_later(tmp_path)
    admin, askers = Peer(founder.node, ADMIN), [stranger(index, BRIDGE) for index in range(1, ASKERS_MAX + 2)]
    bridge = Party(gate, admin, *askers, bridging=True)
    for asker in (*askers, *askers):
        assert bridge.answer(asker, wants(ant)) is None
    assert len(admin.heard) == 1, "loops end here, too"
    chain = Renewed(certs=founder.renew(ant.cert, bridge.wall()))
    for _ in range(6):
        assert bridge.take(admin, chain) is None
    assert [len(each.heard) for each in askers] == [4] * ASKERS_MAX + [0]
    bridge.now += PASS_S
    bridge.take(admin, chain)
    assert [len(each.heard) for each in askers] == [4] * ASKERS_MAX + [0], "it came too late"
    bridge.answer(askers[0], wants(ant))
    assert len(admin.heard) == 2


def test_a_bridge_passes_on_nothing_unsound(ant: NodeKeys, gate: NodeKeys, tmp_path: Path) -> None:
    founder = months_later(tmp_path)
    asker, admin = Peer(ant.node), Peer(founder.node, ADMIN)
    bridge = Party(gate, asker, admin, bridging=True)
    alone = keys_at(tmp_path / "alone", "alone")
    for want in (
        RenewWant(cert=ant.state.certs[0]),
        RenewWant(cert=b"\x00", issuer=ant.state.certs[1]),
        RenewWant(cert=ant.state.certs[0], issuer=alone.state.certs[0]),
    ):
        assert bridge.answer(asker, want) is not None
    bridge.banned = {ant.node}
    assert bridge.answer(asker, wants(ant)) == "banned"
    bridge.banned = set()
    assert admin.heard == []
    chain = Renewed(certs=founder.renew(ant.cert, bridge.wall()))
    assert bridge.take(admin, chain) is None
    assert asker.heard == [], "nobody has asked"
    bridge.answer(asker, wants(ant))
    assert bridge.take(admin, Renewed(certs=(b"x", chain.certs[1]))) is not None
    assert asker.heard == []


def test_who_is_no_bridge_passes_nothing_on(ant: NodeKeys, gate: NodeKeys, founder: NodeKeys) -> None:
    admin = Peer(founder.node, ADMIN)
    party = Party(gate, admin)
    assert party.answer(Peer(ant.node), wants(ant)) is None
    assert admin.heard == []


def test_what_a_bridge_remembers_is_bounded(
    ant: NodeKeys, gate: NodeKeys, founder: NodeKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "MEMBERS_MAX", 1)
    bridge = Party(gate, bridging=True)
    bee = keys_at(tmp_path / "bee", "bee")
    admit(founder, bee)
    for keys in (ant, bee):
        assert bridge.answer(Peer(keys.node), wants(keys)) is None
    assert list(bridge.renewals._asked) == [bee.node]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0.01)


# -- over links ------------------------------------------------------------------------------------------------------


async def test_a_member_renews_over_a_bridge(ant: NodeKeys, gate: NodeKeys, tmp_path: Path) -> None:
    founder = months_later(tmp_path)

    def later() -> Wall:
        return Wall(linkkit.wall() + LATE)

    nodes = (node(founder, wall=later), node(gate, wall=later, bridging=True), node(ant, wall=later))
    async with running(*nodes) as (admin, bridge, member):
        bridge.links.dial(admin.address)
        await until(lambda: not gate.renewal_due(later()))
        member.links.dial(bridge.address)
        await until(lambda: not ant.renewal_due(later()))
    assert ant.cert.iss == founder.node
