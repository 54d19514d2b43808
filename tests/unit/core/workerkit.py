"""What the tests of the worker share: two masters, a worker with a clock, and grants to the byte."""

from random import Random

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.identity import Identity
from p2pq.core.records import Restored, ResultKept
from p2pq.core.through import cluster_of
from p2pq.core.worker import Worker
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, MeshId, Mono, NodeId, Wall
from p2pq.model.job import Outcome, Profile
from p2pq.model.notice import GuestEnded, GuestTaken
from p2pq.wire import body, prims, seal, sign
from p2pq.wire import messages as msg
from p2pq.wire.objects import (
    BlobRef,
    Checkpoint,
    Grant,
    GrantItem,
    Mandate,
    Manifest,
    Receipt,
    ReceiptItem,
    Result,
    ResultItem,
    SubGrant,
)

MESH = MeshId(b"m" * 32)
WALL = Wall(1_700_000_000_000)
KEY = b"k" * 32
BODY = (BlobRef(b"b" * 32, 10),)
SAVED_KEY = b"s" * 32
SAVED_BODY = (BlobRef(b"p" * 32, 70),)
OK = Outcome(reason="ok", exit=0, run_ms=150)  # too long for trains: what a slot is taken for is said by ``after``
PROFILE = Profile(slots=2, memory_mb=4096, gpus=1, labels=(("os", "linux"),), sandbox="strict", accepts=True)
OWN = Profile(slots=3, memory_mb=8192, labels=(("os", "linux"),), sandbox="strict", accepts=True)
OFFER = ev.Offering(profile=PROFILE, own=OWN)


class Member:
    """A node's keys."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signer = prims.SigningKey(name.encode().ljust(32, b"."))
        self.node: NodeId = self.signer.public
        self.prekey_secret = prims.blake2b(name.encode())
        self.prekey = prims.x25519_public(self.prekey_secret)

    def link(self, **fields) -> ev.LinkUp:
        plain = {
            "peer": self.node,
            "name": self.name,
            "owner": self.name,
            "caps": ("submit", "work"),
            "boot": bytes(16),
            "minor": msg.TRUST_SINCE - 1,  # from then on heads are exchanged at link-up; tests of that say so
            "prekey": self.prekey,
            "address": "192.0.2.1:9476",
        }
        return ev.LinkUp(**(plain | fields))


ME = Member("me")
ANN = Member("ann")
BOB = Member("bob")
CAT = Member("cat")
"""A bridge."""
CLUSTER = cluster_of(CAT.node)
IDENTITY = Identity(
    node=ME.node,
    secret=ME.signer.seed,
    mesh=MESH,
    name="me",
    owner="me",
    caps=("submit", "work"),
    boot=bytes(16),
    prekey_secret=ME.prekey_secret,
    prekey=ME.prekey,
)


def nonce(number: int) -> bytes:
    return number.to_bytes(16, "big")


def entropy(size: int) -> bytes:
    return b"e" * size


def job_id(number: int = 1) -> JobId:
    return JobId(number.to_bytes(16, "big"))


def manifest(member: Member = ANN, number: int = 1, **fields) -> Manifest:
    plain = {
        "mesh": MESH,
        "node": member.node,
        "owner": member.name,
        "job": job_id(number),
        "tasks": 1000,
        "reply": member.prekey,
        "commit": seal.commitment(KEY),
        "body": BODY,
        "submitted": WALL,
        "expires": WALL + 1_000_000,
    }
    return Manifest(**(plain | fields))


def item(counter: int, task: int = 0, attempt: int = 1) -> GrantItem:
    return GrantItem(task, attempt, LeaseId(1, counter))


def granted(
    items: tuple[GrantItem, ...],
    *,
    number: int = 1,
    member: Member = ANN,
    of: Manifest | None = None,
    sent: bool = False,
    blobs: tuple[bytes, ...] = (),
    checkpoints: tuple[bytes, ...] = (),
    signer: Member | None = None,
    **fields,
) -> msg.Granted:
    """Return a grant in answer to request ``number``, all well unless told otherwise."""
    job = manifest(member) if of is None else of
    raw = sign.sign(member.signer, job)
    digest = sign.digest(raw)
    plain = {
        "mesh": MESH,
        "node": member.node,
        "to": ME.node,
        "nonce": nonce(number),
        "job": job.job,
        "manifest": digest,
        "items": items,
        "key": seal.seal(ME.prekey, KEY, digest, entropy),
        "expires": WALL + 60_000,
    }
    grant = sign.sign((signer or member).signer, Grant(**(plain | fields)))
    return msg.Granted(grant=grant, manifest=b"" if sent else raw, blobs=blobs, checkpoints=checkpoints)


def behind(member: Member = ANN, *bridges: Member) -> ev.LinkUp:
    """Return how a master takes part through bridges, the nearest first; through CAT unless told otherwise."""
    return member.link(prekey=b"", address="", path=tuple(bridge.node for bridge in bridges or (CAT,)))


def mandate(member: Member, *way: Member, of: Member = ANN, life: int = 1, serial: int = 1, **fields) -> bytes:
    """Return a worker's word that it takes part with a master over these bridges, the nearest first."""
    plain = {
        "mesh": MESH,
        "node": member.node,
        "master": of.node,
        "way": tuple(bridge.node for bridge in way),
        "life": life,
        "serial": serial,
    }
    return sign.sign(member.signer, Mandate(**(plain | fields)))


def sub_grant(parent: bytes, /, *leases: LeaseId, number: int = 1, signer: Member | None = None, **fields) -> bytes:
    """Return CAT's word that some attempts of a grant are this node's, in answer to request ``number``."""
    plain = {
        "mesh": MESH,
        "node": CAT.node,
        "master": ANN.node,
        "to": ME.node,
        "parent": sign.digest(parent),
        "nonce": nonce(number),
        "leases": leases,
        "expires": WALL + 60_000,
    }
    return sign.sign((signer or CAT).signer, SubGrant(**(plain | fields)))


def handed_on(items: tuple[GrantItem, ...], *leases: LeaseId, sub: dict | None = None, **fields) -> msg.Granted:
    """Return a grant to CAT that it has handed on, with all its attempts unless some are named; ``sub`` for its sub-grant."""
    whole = granted(items, **({"number": 99, "to": CAT.node, "key": b""} | fields))
    digest = sign.digest(sign.sign(ANN.signer, fields.get("of") or manifest()))
    named = leases or tuple(entry.lease for entry in items)
    return msgspec.structs.replace(
        whole,
        subs=(sub_grant(whole.grant, *named, **(sub or {})),),
        keys=((BOB.node, bytes(80)), (ME.node, seal.seal(ME.prekey, KEY, digest, entropy))),
    )


def checkpoint(entry: GrantItem, *, member: Member = ANN, signer: Member | None = None, **fields) -> bytes:
    """Return what an earlier attempt left, handed on with the grant of ``entry``."""
    context = body.checkpoint_context(job_id(), entry.task, entry.lease)
    plain = {
        "mesh": MESH,
        "node": member.node,
        "to": ME.node,
        "job": job_id(),
        "task": entry.task,
        "lease": entry.lease,
        "key": seal.seal(ME.prekey, SAVED_KEY, context, entropy),
        "body": SAVED_BODY,
    }
    return sign.sign((signer or member).signer, Checkpoint(**(plain | fields)))


def start(entry: GrantItem, *, member: Member = ANN, of: Manifest | None = None, **fields) -> list[fx.Effect]:
    """Return the two effects of a start."""
    job = manifest(member) if of is None else of
    plain = {
        "lease": entry.lease,
        "master": member.node,
        "owner": job.owner,
        "job": JobId(job.job),
        "task": entry.task,
        "attempt": entry.attempt,
        "tasks": job.tasks,
        "key": KEY,
        "reply": job.reply,
        "body": job.body,
        "blobs": job.blobs,
        "resources": job.resources,
        "limits": job.limits,
        "sandbox": "strict",
        "own": member is ME,
    }
    taken = GuestTaken(lease=entry.lease, master=member.node, owner=job.owner, job=JobId(job.job), task=entry.task)
    return [fx.Start(**(plain | fields)), fx.Emit(notice=taken)]


def ended(entry: GrantItem, reason: str = "ok", *, member: Member = ANN, job: JobId | None = None) -> fx.Emit:
    """Return the notice of an end."""
    which = job_id() if job is None else job
    return fx.Emit(notice=GuestEnded(lease=entry.lease, master=member.node, job=which, task=entry.task, reason=reason))


def result_item(entry: GrantItem, outcome: Outcome = OK, **fields) -> ResultItem:
    plain = {
        "job": job_id(),
        "task": entry.task,
        "attempt": entry.attempt,
        "lease": entry.lease,
        "outcome": outcome,
        "sandbox": "strict",
    }
    return ResultItem(**(plain | fields))


def ready(*items: ResultItem, member: Member = ANN) -> fx.Send:
    """Return the message that says these results."""
    result = Result(mesh=MESH, node=member.node, by=ME.node, items=items)
    return send(msg.ResultReady(result=sign.sign(ME.signer, result)), member)


def receipted(*leases: LeaseId, member: Member = ANN, signer: Member | None = None, **fields) -> msg.Receipted:
    plain = {
        "mesh": MESH,
        "node": member.node,
        "to": ME.node,
        "items": tuple(ReceiptItem(lease, "settled") for lease in leases),
    }
    return msg.Receipted(receipt=sign.sign((signer or member).signer, Receipt(**(plain | fields))))


def send(message: msg.CoreMessage, member: Member = ANN) -> fx.Send:
    return fx.Send(peer=member.node, message=message)


def returned(fault: str, *entries: GrantItem, detail: str = "", member: Member = ANN) -> fx.Send:
    items = tuple(msg.ReturnItem(entry.lease, fault, detail) for entry in entries)
    return send(msg.Return(items=items), member)


def kept(*items: ResultItem, member: Member = ANN) -> Restored:
    """Return what the store gives back of these results."""
    return Restored(
        kept=tuple(
            ResultKept(lease=each.lease, master=member.node, item=each, wall=WALL, owner=member.name) for each in items
        )
    )


class Bench:
    """A worker and its clock. ``do`` performs one event and returns what came out, whole."""

    def __init__(self, restored: Restored | None = None, *, identity: Identity = IDENTITY, **settings) -> None:
        self.now = Mono(0.0)
        self.numbers = 0
        self.worker = Worker(
            identity,
            ScheduleSettings(**settings),
            Restored() if restored is None else restored,
            Random(1),
            self.entropy,
            lambda now: Wall(WALL + round(now * 1000)),
        )

    def entropy(self, size: int) -> bytes:
        self.numbers += 1
        return self.numbers.to_bytes(size, "big")

    def do(self, event: ev.Event, *, after: float = 0.0) -> list[fx.Effect]:
        self.now = Mono(self.now + after)
        effects = self.worker.handle(event, self.now)
        self.worker.check()
        assert self.worker.deadline is None or self.worker.deadline > self.now
        return effects

    def tick(self, after: float = 0.0) -> list[fx.Effect]:
        return self.do(ev.Tick(), after=after)

    def says(self, message: msg.CoreMessage, member: Member = ANN, *, after: float = 0.0) -> list[fx.Effect]:
        return self.do(ev.Received(peer=member.node, message=message), after=after)

    def join(self, *members: Member, offer: ev.Offering = OFFER) -> None:
        """Offer, and link these masters."""
        self.do(offer)
        for member in members:
            self.do(member.link())

    def work(self, member: Member = ANN, counter: int = 1) -> list[fx.Effect]:
        """Let a master announce work."""
        return self.says(msg.HasWork(counter=counter, owners=(member.name,)), member)

    def exited(self, entry: GrantItem, *, member: Member = ANN, after: float = 0.0, **fields) -> list[fx.Effect]:
        plain = {"lease": entry.lease, "master": member.node, "outcome": OK, "sandbox": "strict"}
        return self.do(ev.Exited(**(plain | fields)), after=after)

    def asks(self, number: int, *, cpus: int = 2, memory_mb: int = 4096, gpus: int = 1, member: Member = ANN, **fields):
        """Return the request that is to be sent as number ``number``."""
        plain = {
            "nonce": nonce(number),
            "owner": member.name,
            "cpus": cpus,
            "memory_mb": memory_mb,
            "gpus": gpus,
            "tasks_max": max(1, cpus),
        }
        return send(msg.Request(**(plain | fields)), member)
