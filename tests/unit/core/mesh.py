"""What the tests of the master share: keys, jobs, and a queue with a clock, a disk and workers that answer."""

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.identity import Identity
from p2pq.core.ledger import Ledger
from p2pq.core.queue import Queue
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, MeshId, Mono, NodeId, Wall
from p2pq.model.job import Outcome, Profile
from p2pq.wire import messages as msg
from p2pq.wire import prims, seal, sign, trust
from p2pq.wire.objects import BlobRef, Grant, GrantItem, Manifest, Receipt, Result, ResultItem

ROOT = trust.make_root(lambda size: b"r" * size)
MESH = MeshId(prims.mesh_id(ROOT.public))
OWNER = "ann"
WALL = Wall(1_700_000_000_000)
KEY = b"k" * 32
BODY = BlobRef(b"b" * 32, 10)
PROFILE = Profile(slots=4, memory_mb=4096, gpus=0, labels=(("os", "linux"),), sandbox="strict", accepts=True)


class Member:
    """A node's keys."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.signer = prims.SigningKey(name.encode().ljust(32, b"."))
        self.node = self.signer.public
        self.prekey_secret = prims.blake2b(name.encode())
        self.prekey = prims.x25519_public(self.prekey_secret)
        self.certs = (f"certificate of {name}".encode(),)

    def link_up(
        self,
        *,
        caps: tuple[str, ...] = ("submit", "work"),
        prekey: bytes | None = None,
        minor: int = 1,
        path: tuple[NodeId, ...] = (),
    ) -> ev.LinkUp:
        return ev.LinkUp(
            peer=self.node,
            name=self.name,
            owner=OWNER,
            caps=caps,
            boot=bytes(16),
            minor=minor,
            prekey=self.prekey if prekey is None else prekey,
            address="192.0.2.1:9476",
            certs=self.certs,
            path=path,
        )


MASTER = Member("master")
ALICE = Member("alice")
BOB = Member("bob")
IDENTITY = Identity(
    node=MASTER.node,
    secret=MASTER.signer.seed,
    mesh=MESH,
    name="master",
    owner=OWNER,
    caps=("submit", "work"),
    boot=bytes(16),
    prekey_secret=MASTER.prekey_secret,
    prekey=MASTER.prekey,
    root=ROOT.public,
)
SETTINGS = ScheduleSettings()


def manifest(number: int = 1, **fields) -> Manifest:
    """Return the manifest of job ``number``; one task and no retries unless told."""
    plain = {
        "mesh": MESH,
        "node": MASTER.node,
        "owner": OWNER,
        "job": job_id(number),
        "tasks": 1,
        "retries": 0,
        "reply": MASTER.prekey,
        "commit": b"c" * 32,
        "body": (BODY,),
        "submitted": WALL,
        "expires": WALL + 1,
    }
    return Manifest(**(plain | fields))


def job_id(number: int = 1) -> JobId:
    return JobId(number.to_bytes(16, "big"))


def submitted(number: int = 1, **fields) -> ev.Submitted:
    raw = sign.sign(MASTER.signer, manifest(number, **fields))
    return ev.Submitted(manifest=raw, key=KEY, reply_secret=b"r" * 32, wall=WALL)


def entropy(size: int) -> bytes:
    return b"e" * size


class Bench:
    """A queue, its disk and its clock. ``do`` performs one event and returns what came out, whole."""

    def __init__(self, **settings) -> None:
        self.disk = Ledger()
        self.now = Mono(0.0)
        self.settings = ScheduleSettings(**settings)
        self.nonces = 0
        self.boot()

    def boot(self) -> None:
        """Start over from what is on the disk."""
        self.queue = Queue(IDENTITY, self.settings, self.disk.restored(), entropy, self.now, WALL, trust.nobody)

    def do(self, event: ev.Event, *, after: float = 0.0) -> list[fx.Effect]:
        self.now = Mono(self.now + after)
        effects = self.queue.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, fx.Record):
                self.disk.apply(effect.row)
        self.queue.check()
        assert self.queue.deadline is None or self.queue.deadline > self.now
        return effects

    def tick(self, after: float = 0.0) -> list[fx.Effect]:
        return self.do(ev.Tick(), after=after)

    def says(self, member: Member, message: msg.CoreMessage, *, after: float = 0.0) -> list[fx.Effect]:
        return self.do(ev.Received(peer=member.node, message=message), after=after)

    def join(self, member: Member, profile: Profile = PROFILE, path: tuple[NodeId, ...] = ()) -> list[fx.Effect]:
        """Link a worker up the way a worker does it."""
        effects = self.do(member.link_up(path=path))
        effects += self.says(member, msg.Holding())
        return effects + self.says(member, msg.ProfileIs(profile=profile))

    def ask(self, member: Member, **fields) -> list[fx.Effect]:
        return self.says(member, self.request(**fields))

    def request(self, **fields) -> msg.Request:
        self.nonces += 1
        plain = {"nonce": self.nonces.to_bytes(16, "big"), "owner": OWNER, "cpus": 4, "memory_mb": 4096, "tasks_max": 4}
        return msg.Request(**(plain | fields))

    def leases(self, member: Member, **fields) -> list[GrantItem]:
        """Ask, and return what was granted."""
        return granted(self.ask(member, **fields))

    def finish(self, member: Member, item: GrantItem, outcome: Outcome, number: int = 1) -> list[fx.Effect]:
        """Send a result and let it be collected; return the effects of the latter."""
        self.says(member, ready(member, result_item(item, outcome, number)))
        return self.do(ev.Collected(lease=item.lease))


OK = Outcome(reason="ok", exit=0)
BAD = Outcome(reason="exit", exit=3)


LEFT = (BlobRef(b"r" * 32, 100),)
"""The body of a result."""


def result_item(item: GrantItem, outcome: Outcome = OK, number: int = 1, **fields) -> ResultItem:
    plain = ResultItem(
        job=job_id(number),
        task=item.task,
        attempt=item.attempt,
        lease=item.lease,
        outcome=outcome,
        sandbox="strict",
        key=b"k" * 80,
        body=LEFT,
    )
    return msgspec.structs.replace(plain, **fields)


def ready(member: Member, *items: ResultItem, blobs: tuple[bytes, ...] = (), **fields) -> msg.ResultReady:
    plain = {"mesh": MESH, "node": MASTER.node, "by": member.node, "items": items}
    return msg.ResultReady(result=sign.sign(member.signer, Result(**(plain | fields))), blobs=blobs)


def proof(member: Member, *items: ResultItem) -> r.Proof:
    """Return what proves results that came in one message."""
    return r.Proof(signed=ready(member, *items).result, certs=member.certs)


def receipt(member: Member, verdict: str, *leases: LeaseId) -> fx.Send:
    items = tuple((lease, verdict) for lease in leases)
    value = msgspec.convert(
        {"type": "receipt", "mesh": MESH, "node": MASTER.node, "to": member.node, "items": items}, Receipt
    )
    return fx.Send(peer=member.node, message=msg.Receipted(receipt=sign.sign(MASTER.signer, value)))


def grant(  # the arguments are what a grant says
    member: Member, submission: ev.Submitted, nonce: int, items: tuple[GrantItem, ...], *, now: float = 0.0, sent=False
) -> fx.Send:
    """Return the grant that is to be sent, to the byte."""
    opened = sign.open_signed(submission.manifest, Manifest, MASTER.node)
    digest = sign.digest(submission.manifest)
    value = Grant(
        mesh=MESH,
        node=MASTER.node,
        to=member.node,
        nonce=nonce.to_bytes(16, "big"),
        job=opened.job,
        manifest=digest,
        items=items,
        key=seal.seal(member.prekey, KEY, digest, entropy),
        expires=WALL + round(now * 1000) + 60_000,
    )
    message = msg.Granted(grant=sign.sign(MASTER.signer, value), manifest=b"" if sent else submission.manifest)
    return fx.Send(peer=member.node, message=message)


def grants(
    member: Member, submission: ev.Submitted, nonce: int, items: tuple[GrantItem, ...], *, now: float = 0.0, sent=False
) -> list[fx.Effect]:
    """Return the grant that is to be sent, and that it is kept before."""
    send = grant(member, submission, nonce, items, now=now, sent=sent)
    job = JobId(sign.open_signed(submission.manifest, Manifest, MASTER.node).job)
    kept = r.GrantKept(job=job, lease=items[0].lease, signed=send.message.grant)
    return [fx.Record(row=kept), send]


def granted(effects: list[fx.Effect]) -> list[GrantItem]:
    """Return the attempts that were granted in these effects."""
    items: list[GrantItem] = []
    for effect in effects:
        if isinstance(effect, fx.Send) and isinstance(effect.message, msg.Granted):
            items += sign.open_signed(effect.message.grant, Grant, MASTER.node).items
    return items


def nobody(name: str = "mallory") -> NodeId:
    return Member(name).node
