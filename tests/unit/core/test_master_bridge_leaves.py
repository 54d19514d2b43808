"""A master, bridges that batch in a row and two leaves, each the pure machine; what runs and the clock are made up."""

from itertools import pairwise
from random import Random

import msgspec
import pytest

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.identity import Identity
from p2pq.core.records import Restored
from p2pq.core.stock import GATHER_S, Stock
from p2pq.core.through import Stood
from p2pq.core.worker import Worker
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import provenance, seal, sign
from p2pq.wire.objects import Grant
from tests.unit.core.clusterkit import BRIDGE, CAT, CLUSTER, DOG, FOX, OTHER, Cluster, card, chain
from tests.unit.core.mesh import IDENTITY, KEY, LEFT, MASTER, OK, OWNER, PROFILE, WALL, Bench, Member, submitted

pytestmark = pytest.mark.slow

LEAVES = (CAT, DOG)
ROW = (BRIDGE, OTHER, FOX)
"""Bridges, the one next to the master first."""
TASK_S = 0.2
ENDED = msgspec.structs.replace(OK, run_ms=round(TASK_S * 1000))
STEP_S = 0.01


class Mesh:
    """Passes on what they say to each other, without delay."""

    def __init__(self, bridges: int) -> None:
        self.now = Mono(0.0)
        self.numbers = 0
        self.master = Bench()
        self.joined = False
        self.row = ROW[:bridges]
        self.bridges = {
            bridge.node: Stock(identity(bridge), ScheduleSettings(), self.draw, self.wall, lambda _: False)
            for bridge in self.row
        }
        self.leaves = {
            leaf.node: Worker(identity(leaf), ScheduleSettings(), Restored(), Random(1), self.draw, self.wall)
            for leaf in LEAVES
        }
        self.running: list[tuple[float, NodeId, LeaseId]] = []
        self.done: set[int] = set()
        self.rows: list[r.Row] = []
        """What the master keeps."""
        self.said: list[str] = []
        """What the master and the cluster said to each other, by kind."""
        for leaf in LEAVES:
            worker = self.leaves[leaf.node]
            worker.handle(link(self.row[-1], "bridge"), self.now)
            worker.handle(ev.Offering(profile=PROFILE, own=PROFILE), self.now)
            self.to_bridge(self.row[-1].node, link(leaf, "work"))
            self.to_bridge(self.row[-1].node, ev.Received(peer=leaf.node, message=msg.KeycardIs(card=card(leaf))))
        for above, below in pairwise(self.row):
            self.to_bridge(above.node, link(below, "bridge"))
            self.to_bridge(below.node, link(above, "bridge"))
        self.to_bridge(self.row[0].node, link(MASTER, "submit"))

    def draw(self, size: int) -> bytes:
        self.numbers += 1
        return self.numbers.to_bytes(size, "big")

    def wall(self, now: Mono) -> Wall:
        return Wall(WALL + round(now * 1000))

    def to_bridge(self, bridge: NodeId, event: ev.Event | Stood) -> None:
        for effect in self.bridges[bridge].handle(event, self.now):
            assert isinstance(effect, fx.Send), effect
            match effect.message:
                case msg.MasterIs(path=path):
                    shown = link(MASTER, "submit", prekey=b"", path=(bridge, *path))
                    if effect.peer in self.bridges:
                        self.to_bridge(effect.peer, Stood(shown, cluster=False))
                    else:
                        self.to_leaf(effect.peer, shown)
                case msg.Through(message=message) if effect.peer == MASTER.node:
                    if not self.joined:
                        self.joined = True
                        self.to_master(link(BRIDGE, "bridge"))
                        self.to_master(Cluster(self.master).up())
                    self.said.append(type(message).__name__)
                    self.to_master(ev.Received(peer=CLUSTER, message=message))
                case msg.Through() if effect.peer in self.bridges:
                    self.to_bridge(effect.peer, ev.Received(peer=bridge, message=effect.message))
                case msg.Through(message=message):
                    self.to_leaf(effect.peer, ev.Received(peer=MASTER.node, message=message))
        self.bridges[bridge].check()

    def to_master(self, event: ev.Event) -> None:
        self.master.now = self.now
        for effect in self.master.do(event):
            assert not isinstance(effect, fx.Drop), effect
            match effect:
                case fx.Record(row=row):
                    self.rows.append(row)
                case fx.Send(peer=peer, message=message) if peer == CLUSTER:
                    self.said.append(type(message).__name__)
                    through = msg.Through(node=CLUSTER, message=message)
                    self.to_bridge(BRIDGE.node, ev.Received(peer=MASTER.node, message=through))
                case fx.Collect(lease=lease):
                    self.to_master(ev.Collected(lease=lease))
                case fx.Deliver(job=job, task=task):
                    self.done.add(task)
                    self.to_master(ev.Delivered(job=job, task=task, wall=WALL))

    def to_leaf(self, node: NodeId, event: ev.Event) -> None:
        for effect in self.leaves[node].handle(event, self.now):
            assert not isinstance(effect, fx.Drop), effect
            match effect:
                case fx.Send(peer=MASTER.node, message=message):
                    through = msg.Through(node=MASTER.node, message=message)
                    self.to_bridge(self.row[-1].node, ev.Received(peer=node, message=through))
                case fx.Start(lease=lease):
                    self.running.append((self.now + TASK_S, node, lease))

    def step(self) -> None:
        self.now = Mono(self.now + STEP_S)
        self.to_master(ev.Tick())
        for bridge in self.row:
            self.to_bridge(bridge.node, ev.Tick())
        over = [each for each in self.running if each[0] <= self.now]
        self.running = [each for each in self.running if each[0] > self.now]
        for _, node, lease in over:
            self.to_leaf(node, ev.Started(lease=lease, master=MASTER.node))
            self.to_leaf(node, ev.Exited(lease=lease, master=MASTER.node, outcome=ENDED, sandbox="strict", body=LEFT))


def identity(member: Member) -> Identity:
    keys = {"secret": member.signer.seed, "prekey": member.prekey, "prekey_secret": member.prekey_secret}
    return msgspec.structs.replace(IDENTITY, node=member.node, name=member.name, **keys)


def link(member: Member, *caps: str, **fields) -> ev.LinkUp:
    plain = member.link_up(caps=caps, minor=msg.MINOR)
    return msgspec.structs.replace(plain, owner=OWNER, certs=chain(member, *caps), **fields)


def findings(rows: list[r.Row]) -> list[provenance.Finding]:
    """Return what ``verify`` finds of each result that was kept."""
    [added] = [row for row in rows if isinstance(row, r.JobAdded)]
    job = provenance.open_job(added.manifest, MASTER.node, added.job)
    signed = [row.signed for row in rows if isinstance(row, r.GrantKept)]
    grants = {item.lease: raw for raw in signed for item in sign.open_signed(raw, Grant, MASTER.node).items}
    found = []
    for row in rows:
        if isinstance(row, r.AttemptEnded):
            assert row.proof is not None
            kept = provenance.Kept(
                task=row.task,
                attempt=row.result.attempt,
                lease=row.lease,
                granted=WALL,
                wall=row.wall,
                item=row.result,
                grant=grants[row.lease],
                signed=row.proof.signed,
                certs=row.proof.certs,
                handed=tuple(provenance.Handing(signed=step.signed, certs=step.certs) for step in row.proof.handed),
            )
            found.append(provenance.check(kept, job, lambda _: None))
    return found


@pytest.mark.parametrize("bridges", [1, 2, 3])
def test_a_cluster_does_a_job_of_short_tasks_without_waiting_for_its_master(bridges: int) -> None:
    """Two hundred tasks on eight slots take five seconds at least; the master is asked, and told of them, far less often."""
    mesh = Mesh(bridges)
    mesh.to_master(submitted(1, tasks=200, commit=seal.commitment(KEY), expires=WALL + 10**8))
    gather_s = GATHER_S * (3 if bridges > 1 else 1)
    for _ in range(round((gather_s + 6.0 + bridges) / STEP_S)):
        mesh.step()
    assert len(mesh.done) == 200
    assert not any(bridge.leaf_of(MASTER.node, LeaseId(1, 0)) for bridge in mesh.bridges.values())
    found = findings(mesh.rows)
    assert len(found) == 200
    assert {each.by for each in found if isinstance(each, provenance.Proven)} == {leaf.node for leaf in LEAVES}
    assert all(isinstance(each, provenance.Proven) for each in found), "how each came to its leaf is shown"
    assert mesh.said.count("Request") <= 20
    assert mesh.said.count("Report") <= 60
