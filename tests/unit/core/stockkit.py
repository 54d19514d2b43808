"""What the tests of a bridge that batches share: a master, two leaves, grants to the byte, and a stock with a clock."""

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.stock import GATHER_S, Stock
from p2pq.core.through import Fell, Stood, cluster_of
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.model.job import Outcome
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.objects import ITEMS_MAX, Checkpoint, Grant, GrantItem, Manifest, Receipt, ReceiptItem, Result, SubGrant
from tests.unit.core.mesh import ROOT
from tests.unit.core.workerkit import (
    BODY,
    IDENTITY,
    ME,
    MESH,
    OK,
    PROFILE,
    WALL,
    Member,
    job_id,
    mandate,
    manifest,
    nonce,
    result_item,
)

ANN = Member("ann")
"""The master."""
LEA = Member("lea")
LEO = Member("leo")
CLUSTER = cluster_of(ME.node)
JOB = manifest(ANN)
WINDOW_S = 0.05
CARD = b"card of "


def sealed(leaf: Member, number: int = 1) -> bytes:
    """Return what stands for the key of a job, sealed to a leaf."""
    return leaf.name.encode() + bytes([number])


def link(member: Member, **fields) -> ev.LinkUp:
    plain = {"minor": msg.MINOR, "certs": (b"cert of " + member.name.encode(),)}
    return member.link(**(plain | fields))


def master(member: Member = ANN, **fields) -> ev.LinkUp:
    return link(member, caps=("submit",), **fields)


def worker(member: Member, **fields) -> ev.LinkUp:
    return link(member, caps=("work",), **fields)


def introduced(member: Member, profile=PROFILE, above: tuple[Member, ...] = (), serial: int = 1) -> msg.Leaf:
    word = mandate(member, ME, *above, serial=serial)
    return msg.Leaf(certs=link(member).certs, card=CARD + member.name.encode(), profile=profile, mandate=word)


def granted(
    items: tuple[GrantItem, ...],
    *,
    number: int = 1,
    of: Manifest = JOB,
    keys: tuple[Member, ...] = (LEA, LEO),
    sent: bool = False,
    avoid: tuple[tuple[LeaseId, NodeId], ...] = (),
    checkpoints: tuple[bytes, ...] = (),
    blobs: tuple[bytes, ...] = (),
    signer: Member = ANN,
    **fields,
) -> msg.Granted:
    """Return a grant to this bridge, in answer to its request ``number``."""
    raw = sign.sign(ANN.signer, of)
    plain = {
        "mesh": MESH,
        "node": ANN.node,
        "to": ME.node,
        "nonce": nonce(number),
        "job": of.job,
        "manifest": sign.digest(raw),
        "items": items,
        "key": b"",
        "expires": WALL + 60_000,
    }
    return msg.Granted(
        grant=sign.sign(signer.signer, Grant(**(plain | fields))),
        manifest=b"" if sent else raw,
        keys=tuple((leaf.node, sealed(leaf)) for leaf in keys),
        avoid=avoid,
        checkpoints=checkpoints,
        blobs=blobs,
    )


def checkpoint(entry: GrantItem, **fields) -> bytes:
    plain = {
        "mesh": MESH,
        "node": ANN.node,
        "to": CLUSTER,
        "job": job_id(),
        "task": entry.task,
        "lease": entry.lease,
        "key": b"k",
        "body": BODY,
    }
    return sign.sign(ANN.signer, Checkpoint(**(plain | fields)))


def parcel(
    leaf: Member, grant: msg.Granted, number: int, *items: GrantItem, sent: bool = False, checkpoints=()
) -> msg.Granted:
    """Return what a leaf is given of a grant, in answer to its request ``number``."""
    sub = SubGrant(
        mesh=MESH,
        node=ME.node,
        master=ANN.node,
        to=leaf.node,
        parent=sign.digest(grant.grant),
        nonce=nonce(number),
        leases=tuple(each.lease for each in items),
        expires=WALL + 60_000,
    )
    return msg.Granted(
        grant=grant.grant,
        manifest=b"" if sent else grant.manifest,
        checkpoints=checkpoints,
        blobs=grant.blobs,
        subs=(sign.sign(ME.signer, sub),),
        keys=((leaf.node, sealed(leaf)),),
    )


def handed(leaf: Member, *leases: LeaseId, by: Member = ME, **fields) -> bytes:
    """Return a bridge's word that it gave leases of a grant that nobody has any more to a leaf."""
    plain = {
        "mesh": MESH,
        "node": by.node,
        "master": ANN.node,
        "to": leaf.node,
        "parent": bytes(32),
        "nonce": nonce(1),
        "leases": leases,
        "expires": WALL,
    }
    return sign.sign(by.signer, SubGrant(**(plain | fields)))


def asks(number: int, **fields) -> msg.Request:
    """Return a leaf's request."""
    plain = {"nonce": nonce(number), "owner": "ann", "cpus": 2, "memory_mb": 4096, "gpus": 1, "tasks_max": 2}
    return msg.Request(**(plain | fields))


def result(leaf: Member, *entries: GrantItem, outcome: Outcome = OK, signer: Member | None = None, **fields) -> bytes:
    items = tuple(result_item(entry, outcome) for entry in entries)
    plain = {"mesh": MESH, "node": ANN.node, "by": leaf.node, "items": items}
    return sign.sign((signer or leaf).signer, Result(**(plain | fields)))


def receipt(*entries: GrantItem, signer: Member = ANN, **fields) -> bytes:
    items = tuple(ReceiptItem(entry.lease, "settled") for entry in entries)
    plain = {"mesh": MESH, "node": ANN.node, "to": CLUSTER, "items": items}
    return sign.sign(signer.signer, Receipt(**(plain | fields)))


def down(leaf: Member, message: msg.Passed) -> fx.Send:
    """Return that a leaf is told this as the master's word."""
    return fx.Send(peer=leaf.node, message=msg.Through(node=ANN.node, message=message))


def up(message: msg.Passed) -> fx.Send:
    """Return that the master is told this as the cluster's word."""
    return fx.Send(peer=ANN.node, message=msg.Through(node=CLUSTER, message=message))


def placed(leaf: Member, *entries: GrantItem) -> tuple[tuple[LeaseId, NodeId], ...]:
    return tuple((entry.lease, leaf.node) for entry in entries)


def returns(fault: str, *entries: GrantItem) -> tuple[msg.ReturnItem, ...]:
    return tuple(msg.ReturnItem(entry.lease, fault) for entry in entries)


class Bench:
    """A stock and its clock. ``do`` performs one event and returns what came out, whole."""

    above: tuple[Member, ...] = ()
    """The bridges on the way to the master, the nearest first."""

    def __init__(self, **settings) -> None:
        self.now = Mono(0.0)
        self.numbers = 0
        self.out: set[NodeId] = set()
        self.stock = Stock(
            msgspec.structs.replace(IDENTITY, root=ROOT.public),
            ScheduleSettings(**settings),
            self.entropy,
            lambda now: Wall(WALL + round(now * 1000)),
            lambda cert: NodeId(cert.sub) in self.out,
        )

    def entropy(self, size: int) -> bytes:
        self.numbers += 1
        return self.numbers.to_bytes(size, "big")

    def do(self, event: ev.Event | Stood | Fell, *, after: float = 0.0) -> list[fx.Effect]:
        self.now = Mono(self.now + after)
        effects = self.stock.handle(event, self.now)
        self.stock.check()
        assert self.stock.deadline is None or self.stock.deadline > self.now
        return effects

    def tick(self, after: float = 0.0) -> list[fx.Effect]:
        return self.do(ev.Tick(), after=after)

    def flush(self) -> list[fx.Effect]:
        """Let the shortest window pass; return what came out."""
        return self.tick(after=WINDOW_S)

    def leaf(self, member: Member, message: msg.Passed, **kwargs) -> list[fx.Effect]:
        """Let a leaf say something to the master."""
        return self.do(ev.Received(peer=member.node, message=msg.Through(node=ANN.node, message=message)), **kwargs)

    def master(self, message: msg.Passed, **kwargs) -> list[fx.Effect]:
        """Let the master say something to the cluster."""
        return self.do(ev.Received(peer=ANN.node, message=msg.Through(node=CLUSTER, message=message)), **kwargs)

    def card(self, member: Member, card: bytes | None = None) -> list[fx.Effect]:
        said = CARD + member.name.encode() if card is None else card
        return self.do(ev.Received(peer=member.node, message=msg.KeycardIs(card=said)))

    def holding(self, member: Member, *leases: LeaseId, **fields) -> msg.Holding:
        """Return what a leaf begins with: that an earlier life of this bridge gave it these leases."""
        parts = range(0, len(leases), ITEMS_MAX)
        proofs = tuple(handed(member, *leases[first : first + ITEMS_MAX]) for first in parts)
        return msg.Holding(leases=leases, mandate=mandate(member, ME, *self.above, **fields), proofs=proofs)

    def took(self, member: Member, *entries: GrantItem, also: tuple[GrantItem, ...] = ()) -> list[fx.Effect]:
        """Let a leaf that has some leases name more, which run."""
        self.leaf(member, self.holding(member, *(each.lease for each in (*also, *entries))))
        return self.leaf(member, msg.Heartbeat(beats=tuple(msg.Beat(each.lease) for each in entries)))

    def join(self, member: Member, *leases: LeaseId, profile=PROFILE) -> None:
        """Let a worker link up and take part."""
        self.do(worker(member))
        self.enter(member, *leases, profile=profile)

    def enter(self, member: Member, *leases: LeaseId, profile=PROFILE) -> None:
        """Let a linked worker take part."""
        self.card(member)
        self.leaf(member, self.holding(member, *leases))
        self.leaf(member, msg.ProfileIs(profile=profile))

    def ready(self, *members: Member, profile=PROFILE) -> None:
        """Link the master and these leaves, tell it, and let it announce work."""
        self.do(master())
        for member in members:
            self.join(member, profile=profile)
        self.tick(after=GATHER_S)
        self.flush()
        self.work()

    def work(self, counter: int = 1, *owners: str) -> list[fx.Effect]:
        return self.master(msg.HasWork(counter=counter, owners=owners or ("ann",)))

    def stocked(self, *items: GrantItem, number: int = 1, **fields) -> msg.Granted:
        """Let LEA ask, and the master answer with these; return the grant. LEA gets as many as it has room for."""
        self.leaf(LEA, asks(number))
        self.flush()
        grant = granted(items, number=self.numbers, **fields)
        self.master(grant)
        return grant


def of(effects: list[fx.Effect], kind: type) -> list[msg.Passed]:
    """Return what was said of one kind, to anybody."""
    said = (effect.message for effect in effects if isinstance(effect, fx.Send))
    return [each.message for each in said if isinstance(each, msg.Through) and isinstance(each.message, kind)]


def smaller(**fields):
    return msgspec.structs.replace(PROFILE, **fields)
