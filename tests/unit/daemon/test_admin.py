"""What the local API says of the node and its mesh, and what it refuses to change."""

import asyncio
import time
from collections import Counter
from types import SimpleNamespace

import msgspec
import pytest

from p2pq.core.events import BanAsked, MeshKeyAsked, OwnerBanAsked
from p2pq.core.kept import KEPT_MAX, KeptFor
from p2pq.core.views import PeerView as CorePeer
from p2pq.core.views import Policy, Spoken
from p2pq.daemon import admin as admin_module
from p2pq.daemon.admin import Admin, Parts
from p2pq.daemon.home import Home
from p2pq.daemon.selftest import IsolationReport
from p2pq.errors import RefusedError, StorageError
from p2pq.model.ids import Mono, NodeId, to_text
from p2pq.wire import control
from p2pq.wire.parts import LeafView, SpokenView
from tests.unit.daemon.linkkit import keys_at

BOB, EVE, NEW = NodeId(b"b" * 32), NodeId(b"e" * 32), NodeId(b"n" * 32)
HOUR_MS = 3_600_000


def now_ms():
    return int(time.time() * 1000)


def peer(node, name, state="up", **fields):
    known = {"owner": name, "address": "10.0.0.9:9476", "path": (), "reason": "", "slots": 4, "free": 3}
    caps = ("work",) if state == "up" else ()
    plain = {"has_work": True, "profile": None, "boot": None, "caps": caps}
    return CorePeer(id=node, name=name, state=state, **{**plain, **known, **fields})


def held_for(master, results, days=0.0, **fields):
    since = now_ms() - round(days * 24 * HOUR_MS)
    return KeptFor(
        **{
            "master": master,
            "owner": "bob",
            "results": results,
            "bytes": 3 << 20,
            "since": since,
            "full": False,
            **fields,
        }
    )


class Environments:
    """Some that take room."""

    used_bytes = 30

    def __len__(self):
        return 3

    async def finding(self):
        return control.Finding(check="environments", ok=True, detail="3 are there")


class World:
    """A node whose parts say what the test wants."""

    def __init__(self, path):
        self.policy = Policy(known=True, accepts=True, reason="", draining=False, slots=4, free=2, kept=())
        self.peers = []
        self.spoken = ()
        self.banned = set()
        self.guests = ()
        self.infos = {}
        self.live = ()
        self.trouble = None
        self.asked = []
        self.restarts = []
        self.stops = []
        self.addresses = ("10.0.0.1:9476",)
        self.keys = keys_at(path / "home", "ant")
        self.parts = Parts(
            home=Home.open(path / "home", environ={"P2PQ_ALLOW_ROOT": "1"}),
            keys=self.keys,
            node=SimpleNamespace(
                policy=lambda: self.policy,
                abroad=SimpleNamespace(mesh_of=lambda node: b""),
                guests=lambda now: self.guests,
                peers=lambda now: tuple(self.peers),
                jobs=lambda: [SimpleNamespace(pending=3), SimpleNamespace(pending=4)],
                banned=lambda node, _owner: node in self.banned,
                ban_at=lambda _who: 0,
                mesh_keys=SimpleNamespace(newest_at=7, psks=(b"k" * 32,)),
                spoken=lambda: self.spoken,
            ),
            links=SimpleNamespace(
                port=9476,
                http=None,
                counters=Counter(refused=2),
                peers=lambda: list(self.infos),
                info=self.infos.get,
                rtt=lambda node: 0.00125 if node == BOB else None,
            ),
            discovery=None,
            invitations=SimpleNamespace(invite=self.invite),
            scheduler=SimpleNamespace(name_of=lambda node: f"node-{node[:1].decode()}", resolve_node=lambda text: BOB),
            store=SimpleNamespace(live_jobs=lambda: self.live, trouble=None),
            blobs=type("Blobs", (), {"used_bytes": 10, "__len__": lambda _: 2})(),
            environments=Environments(),
            counters=Counter({"job.queued": 1}),
            carried=Counter({"from-neighbours-bytes": 7}),
            mono=lambda: Mono(5.0),
            post_durable=self.durable,
            restart=self.restart,
            stop=self.stops.append,
            keep_days=30,
        )
        self.parts.links.addresses = self.addresses
        self.admin = Admin(self.parts)

    async def durable(self, event):
        self.asked.append(event)

    async def restart(self, hints, bans):
        self.restarts.append((hints, bans))

    def invite(self, caps, owner, ttl_s, uses):
        code = SimpleNamespace(text="7-guitar-anvil")
        return SimpleNamespace(code=code, owner=owner or "me", caps=caps, expires=now_ms() + ttl_s * 1000)

    async def ask(self, method, request=None):
        sent = []

        async def send(reply):
            sent.append(reply)

        await getattr(self.admin, method)(request, send)
        return sent

    async def findings(self, check):
        return [found for found in await self.ask("doctor") if found.check == check]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def info(*, skew_ms=0, expires=0):
    return SimpleNamespace(wall_skew_ms=skew_ms, caps=("work",), cert_expires=expires or now_ms() + HOUR_MS)


async def test_status(world):
    [status] = await world.ask("status")
    assert (status.id, status.name) == (to_text(world.keys.node), "ant")
    assert (status.slots, status.free, status.queued, status.sandbox) == (4, 2, 7, "unknown")
    assert (status.policy.state, status.policy.reason) == ("run", "")
    assert status.counters == {"job.queued": 1, "link.refused": 2, "blobs.from-neighbours-bytes": 7}
    assert status.disk == {"blobs_bytes": 10, "blobs": 2, "environments_bytes": 30, "environments": 3}
    assert status.address == "10.0.0.1:9476"
    running = {"job": b"j" * 16, "task": 2, "owner": "bob", "master": BOB, "own": False}
    world.guests = (
        SimpleNamespace(**running, since_s=1.26, state="suspended", progress=250),
        SimpleNamespace(**running, since_s=0.0, state="waiting", progress=-1),
    )
    world.parts.isolation = IsolationReport("none", "no bubblewrap", "install it")
    world.parts.links.addresses = ()
    world.policy = Policy(
        known=True, accepts=False, reason="switched off", draining=False, slots=4, free=2, kept=(held_for(BOB, 1),)
    )
    [status] = await world.ask("status")
    assert [(row.node, row.task, row.seconds, row.state) for row in status.running] == [("node-b", 2, 1.3, "suspended")]
    assert [row.progress for row in status.running] == [0.25]
    assert (status.sandbox, status.sandbox_reason, status.kept_results) == ("none", "no bubblewrap", 1)
    assert (status.policy.state, status.policy.reason) == ("off", "switched off")
    assert status.address == "127.0.0.1:9476"
    world.policy = Policy(
        known=True, accepts=False, reason="", draining=True, slots=4, free=2, kept=(held_for(BOB, 1),)
    )
    assert (await world.ask("status"))[0].policy.state == "draining"


async def test_status_says_what_is_kept_for_whom_and_how_much_may_be(world):
    kept = (held_for(BOB, 2, days=1.5), held_for(EVE, KEPT_MAX, owner="eve", full=True))
    world.policy = Policy(known=True, accepts=True, reason="", draining=False, slots=4, free=2, kept=kept)
    [status] = await world.ask("status")
    assert status.kept_results == KEPT_MAX + 2
    assert [(each.owner, each.node, each.results, each.bytes, each.full) for each in status.kept] == [
        ("bob", "node-b", 2, 3 << 20, False),
        ("eve", "node-e", KEPT_MAX, 3 << 20, True),
    ]
    assert status.kept[0].oldest_s == pytest.approx(1.5 * 24 * 3600, abs=60)
    assert status.kept_limits == control.KeptLimits(results=4096, bytes=4 << 30, days=30)


async def test_a_bridge_that_batches_says_to_whom_it_speaks_for_whom(world):
    world.parts.bridge, world.parts.batch = True, True
    world.parts.links.relays = SimpleNamespace(carried=1)
    assert (await world.ask("status"))[0].bridge == ()
    world.spoken = (Spoken(BOB, 3, ((EVE, 2), (NEW, 0))), Spoken(NEW, 0, ((EVE, 0),)))
    world.keys.cert = msgspec.structs.replace(world.keys.cert, caps=("bridge", "work"))
    [status] = await world.ask("status")
    eve, new = LeafView(node="node-e", attempts=2), LeafView(node="node-n", attempts=0)
    assert status.bridge[0] == SpokenView(node="node-b", stock=3, leaves=(eve, new))
    [finding] = await world.findings("bridge")
    said = "speaks for workers here, now 2, to masters, now 2; carries links between peers, 1 now"
    assert (finding.ok, finding.detail, status.bridging) == (True, said, said)


async def test_who_is_no_bridge_and_should_be_is_told_why(world):
    assert (await world.ask("status"))[0].bridging == ""
    assert await world.findings("bridge") == []
    world.parts.batch = True
    [finding] = await world.findings("bridge")
    assert not finding.ok
    assert (
        finding.detail
        == (await world.ask("status"))[0].bridging
        == "is no bridge, so [bridge] batch = true does nothing"
    )
    assert "enabled = true" in finding.suggestion
    world.parts.bridge = True
    world.keys.cert = msgspec.structs.replace(world.keys.cert, caps=("submit", "work"))
    [finding] = await world.findings("bridge")
    assert (finding.ok, "certificate does not let it" in finding.detail) == (False, True)
    assert (await world.ask("status"))[0].bridging == finding.detail
    assert "`p2pq mesh init NAME`" in finding.suggestion


async def test_who_takes_part_through_a_bridge_is_counted_and_shown_as_a_member(world):
    world.peers = [peer(BOB, "bob"), peer(EVE, "eve", address="", path=(BOB,)), peer(NEW, "new", state="down")]
    world.infos[BOB] = info()
    assert (await world.ask("status"))[0].peers == 2
    eve = (await world.ask("peers"))[1]
    assert (eve.state, eve.via, eve.rtt_ms, eve.slots, eve.free) == ("up", ("node-b",), None, 4, 3)
    member = (await world.ask("members"))[2]
    assert (member.name, member.state, member.caps, member.expires) == ("eve", "up", ("work",), "")


@pytest.mark.parametrize(
    ("kept", "ok", "detail", "suggestion"),
    [
        ((), True, "none wait here for an absent node", ""),
        (
            (held_for(BOB, 2, days=1),),
            True,
            "results wait here for node-b (bob): 2 of at most 4096, 3 of at most 4096 MB, the oldest for 1.0 of at most 30 days",
            "",
        ),
        (
            (held_for(BOB, 2), held_for(EVE, 3500, owner="")),
            True,
            "results wait here for node-e: 3500 of at most 4096",
            "start node-e",
        ),
        ((held_for(BOB, 2, bytes=4000 << 20),), True, "4000 of at most 4096 MB", "start node-b"),
        ((held_for(BOB, 2, days=25),), True, "the oldest for 25.0 of at most 30 days", "start node-b"),
        (
            (held_for(BOB, 2, days=25), held_for(EVE, KEPT_MAX, full=True)),
            False,
            "3 of at most 4096 MB, the oldest for 0.0 of at most 30 days; nothing more is taken of it",
            "start node-e: it fetches them; what is too old is forgotten",
        ),
    ],
    ids=["none", "some", "many", "large", "old", "full"],
)
async def test_doctor_says_in_time_what_will_not_be_kept(world, kept, ok, detail, suggestion):
    world.policy = Policy(known=True, accepts=True, reason="", draining=False, slots=4, free=2, kept=kept)
    [finding] = await world.findings("kept results")
    assert finding.ok is ok
    assert detail in finding.detail
    assert finding.suggestion.startswith(suggestion)
    assert bool(finding.suggestion) == bool(suggestion)


async def test_peers_and_members(world):
    world.peers = [peer(BOB, "bob"), peer(EVE, "", state="down", reason="timeout"), peer(None, "", state="connecting")]
    world.infos[BOB] = info(expires=1000)
    bob, eve, unknown = await world.ask("peers")
    assert (bob.name, bob.state, bob.rtt_ms, bob.slots, bob.free, bob.mesh) == (
        "bob",
        "up",
        1.25,
        4,
        3,
        world.keys.state.name,
    )
    assert (eve.name, eve.slots, eve.rtt_ms, eve.reason, eve.mesh) == ("node-e", None, None, "timeout", "")
    assert (unknown.id, unknown.address) == ("", "10.0.0.9:9476")
    world.peers[2] = peer(None, "", state="down", reason="already-linked")
    assert [each.name for each in await world.ask("peers")] == ["bob", "node-e"]  # that address is one of theirs
    world.banned.add(EVE)
    me, bob, eve = await world.ask("members")
    assert (me.name, me.state, me.caps) == ("ant", "self", world.keys.cert.caps)
    assert (bob.state, bob.caps, bob.expires) == ("up", ("work",), "1970-01-01T00:00:01Z")
    assert (eve.state, eve.caps, eve.expires) == ("banned", (), "")
    [mesh] = await world.ask("mesh")
    assert (mesh.members, mesh.founder) == (3, world.keys.founder)


async def test_a_new_mesh_begins_a_new_life(world):
    before = world.keys.mesh
    [mesh] = await world.ask("mesh_init", control.MeshInit(name="garden"))
    assert mesh.name == "garden"
    assert world.keys.mesh != before
    assert world.restarts == [((), ())]


@pytest.mark.parametrize("request_", [control.MeshInit(name="garden"), control.Join(code="7-guitar-anvil")])
async def test_a_mesh_is_not_left_while_somebody_relies_on_this_node(world, request_):
    method = "join" if isinstance(request_, control.Join) else "mesh_init"
    before = world.keys.mesh
    world.live = (1, 2)
    with pytest.raises(RefusedError, match=r"2 jobs .*`p2pq jobs`"):
        await world.ask(method, request_)
    world.live = ()
    world.policy = Policy(
        known=True, accepts=True, reason="", draining=False, slots=4, free=2, kept=(held_for(BOB, 1), held_for(EVE, 2))
    )
    with pytest.raises(RefusedError, match="3 results"):
        await world.ask(method, request_)
    assert (world.keys.mesh, world.restarts) == (before, [])


async def test_joining_begins_a_new_life_with_what_the_inviter_told(world, monkeypatch):
    asked = []

    async def join_mesh(keys, http, code, *, at, find, **_):
        asked.append((code, at, await find("slot", 1.0)))
        return SimpleNamespace(
            mesh="garden", owner="carol", inviter="10.0.0.1:1", peers=("10.0.0.2:2",), bans=(b"ban",)
        )

    monkeypatch.setattr(admin_module, "join_mesh", join_mesh)
    await world.ask("join", control.Join(code="7-guitar-anvil", at="h:1"))
    assert asked == [("7-guitar-anvil", "h:1", ())]
    assert world.restarts == [(("10.0.0.1:1", "10.0.0.2:2"), (b"ban",))]


async def test_invite_says_what_the_code_is_good_for(world):
    request = control.Invite(caps=("work", "work", "submit"), ttl_s=60, uses=3)
    [view] = await world.ask("invite", request)
    assert (view.code, view.caps, view.uses, view.owner) == ("7-guitar-anvil", ("submit", "work"), 3, "me")
    assert view.addresses == ("10.0.0.1:9476",)


@pytest.mark.parametrize(("signed", "reach"), [(b"word", "every node that hears of it"), (b"", "on this node")])
async def test_a_ban_is_durable_before_it_is_said_and_says_how_far_it_reaches(world, monkeypatch, signed, reach):
    monkeypatch.setattr(type(world.keys), "sign_ban", lambda *_, **__: signed)
    [note] = await world.ask("ban", control.BanMember(who="bob"))
    assert world.asked == [BanAsked(node=BOB, banned=True, signed=signed)]
    assert "node-b" in note.text
    assert "is banned" in note.text
    assert reach in note.text
    [note] = await world.ask("ban", control.BanMember(who="bob", banned=False))
    assert "no longer banned" in note.text


async def test_a_ban_of_an_owner_is_durable_before_it_is_said(world, monkeypatch):
    monkeypatch.setattr(type(world.keys), "sign_owner_ban", lambda *_, **__: b"word")
    [note] = await world.ask("ban_owner", control.BanOwner(owner="eve"))
    assert world.asked == [OwnerBanAsked(owner="eve", banned=True, signed=b"word")]
    assert note.text.startswith("All nodes of eve are banned here and")
    [note] = await world.ask("ban_owner", control.BanOwner(owner="eve", banned=False))
    assert "no longer banned" in note.text


async def test_a_new_mesh_key_is_durable_before_it_is_said(world, monkeypatch):
    monkeypatch.setattr(type(world.keys), "sign_mesh_key", lambda _keys, _wall, newest: b"after %d" % newest)
    [note] = await world.ask("rotate_key", control.RotateKey())
    assert world.asked == [MeshKeyAsked(signed=b"after 7")]
    assert "new key; 0 linked nodes were told" in note.text
    world.infos |= {BOB: info(), EVE: info()}
    world.parts.node.abroad = SimpleNamespace(mesh_of=lambda node: b"another" if node == EVE else b"")
    [note] = await world.ask("rotate_key", control.RotateKey())
    assert "1 linked node was told" in note.text  # none of another mesh


async def test_stop(world):
    assert await world.ask("stop", control.Stop(now=True)) == []
    assert world.stops == [True]


async def test_doctor_of_a_sound_node(world):
    world.parts.isolation = IsolationReport("strict", "bubblewrap held")
    world.parts.discovery = SimpleNamespace(problem="")
    world.peers = [peer(BOB, "bob")]
    world.infos[BOB] = info(skew_ms=100)
    found = await world.ask("doctor")
    assert {finding.check for finding in found} >= {
        "sandbox", "store", "clock", "membership", "network", "discovery", "peers",
    }  # fmt: skip
    assert [finding for finding in found if not finding.ok] == []
    assert "1 linked" in {finding.check: finding.detail for finding in found}["peers"]


async def test_doctor_names_the_failing_step(world):
    assert "still running" in (await world.findings("sandbox"))[0].detail
    world.parts.isolation = IsolationReport("none", "no bubblewrap", "install it")
    [sandbox] = await world.findings("sandbox")
    assert (sandbox.ok, sandbox.suggestion) == (False, "install it")

    world.parts.store.trouble = StorageError("the disk is full")
    [store] = await world.findings("store")
    assert (store.ok, store.detail) == (False, "the disk is full")

    world.infos |= {BOB: info(skew_ms=-24 * HOUR_MS), EVE: info(skew_ms=10)}
    [clock] = await world.findings("clock")
    assert not clock.ok
    assert "node-b by -86400 s" in clock.detail
    assert "node-e" not in clock.detail
    assert "time synchronisation" in clock.suggestion

    world.parts.duplicate = "another node has this key"
    [membership] = await world.findings("membership")
    assert (membership.ok, membership.detail) == (False, "another node has this key")

    world.parts.links.addresses = ()
    [network] = await world.findings("network")
    assert "this machine only" in network.detail

    world.parts.discovery = SimpleNamespace(problem="no multicast here")
    [discovery] = await world.findings("discovery")
    assert not discovery.ok
    assert "--peer" in discovery.suggestion

    world.peers = [
        peer(BOB, "bob", state="refused", reason="another-mesh"),
        peer(EVE, "eve", state="down", reason="timeout"),
        peer(NEW, "new", state="down"),
    ]
    refused, down = await world.findings("peer")
    assert not refused.ok
    assert "bob" in refused.detail
    assert "another-mesh" in refused.detail
    assert down.ok
    assert "firewall" in down.suggestion


async def test_a_certificate_that_ends_soon_is_said(world, monkeypatch):
    expires = world.keys.cert.exp
    monkeypatch.setattr(admin_module, "_wall", lambda: expires - HOUR_MS)
    [membership] = await world.findings("membership")
    assert not membership.ok
    assert "renews by itself" in membership.suggestion


async def test_every_answer_is_one_the_client_knows(world):
    world.peers = [peer(BOB, "bob")]
    for method in ("status", "peers", "members", "mesh", "doctor"):
        async with asyncio.timeout(5):
            assert all(isinstance(reply, control.Reply) for reply in await world.ask(method))
