"""What the tests of clusters at a master share: bridges, leaves with certificates, and what they say."""

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.core.queue import Queue
from p2pq.core.records import Restored
from p2pq.core.through import cluster_of
from p2pq.model.ids import LeaseId, NodeId, Wall
from p2pq.model.job import Outcome, Profile
from p2pq.wire import messages as msg
from p2pq.wire import sign, trust
from p2pq.wire.objects import Cert, GrantItem, Keycard, Mandate, Result, ResultItem, SubGrant
from tests.unit.core.mesh import (
    IDENTITY,
    MASTER,
    MESH,
    OK,
    OWNER,
    PROFILE,
    ROOT,
    WALL,
    Bench,
    Member,
    entropy,
    granted,
    ready,
    result_item,
)

BRIDGE, OTHER = Member("bridge"), Member("other")
CAT, DOG, EMU, FOX = Member("cat"), Member("dog"), Member("emu"), Member("fox")
"""Leaves."""
CLUSTER = cluster_of(BRIDGE.node)
_OF = {member.node: member for member in (BRIDGE, OTHER, CAT, DOG, EMU, FOX, MASTER)}
ADMIN = Member("admin")
ADMIN_CERT = trust.issue_admin(
    ROOT,
    trust.Subject(node=ADMIN.node, name="admin", owner="admin", caps=("admin", "bridge", "submit", "work")),
    serial=bytes(16),
    wall=Wall(WALL),
)
LIFE_MS = 10**9


def chain(member: Member, *caps: str, owner: str = OWNER) -> tuple[bytes, ...]:
    subject = trust.Subject(node=member.node, name=member.name, owner=owner, caps=caps or ("work",))
    cert = trust.issue_member(
        ADMIN.signer, ADMIN_CERT, ROOT.public, subject, serial=bytes(16), wall=Wall(WALL), life_ms=LIFE_MS
    )
    return cert, ADMIN_CERT


def card(member: Member, **fields: object) -> bytes:
    plain = {
        "mesh": MESH,
        "node": member.node,
        "boot": bytes(16),
        "prekey": member.prekey,
        "iat": WALL,
        "exp": WALL + LIFE_MS,
    }
    return sign.sign(member.signer, Keycard(**(plain | fields)))


def mandate(member: Member, *way: Member, life: int = 1, serial: int = 1, **fields: object) -> bytes:
    """Return a worker's word that it takes part with the master over these bridges, the nearest first."""
    plain = {
        "mesh": MESH,
        "node": member.node,
        "master": MASTER.node,
        "way": tuple(bridge.node for bridge in way),
        "life": life,
        "serial": serial,
    }
    return sign.sign(member.signer, Mandate(**(plain | fields)))


def leaf(
    member: Member, profile: Profile = PROFILE, *, by: Member = BRIDGE, serial: int = 1, **fields: object
) -> msg.Leaf:
    """Return how a bridge introduces a leaf. ``serial``: of its word on that way."""
    way = (*(_OF[node] for node in reversed(fields.get("path", ()))), by)
    plain = {"certs": chain(member), "card": card(member), "profile": profile, "mandate": b""}
    plain["mandate"] = mandate(member, *way[: msg.HOPS_MAX], serial=serial)
    return msg.Leaf(**(plain | fields))


def place(member: Member, cpus: int = 1, memory_mb: int = 4096, gpus: int = 0) -> msg.Place:
    return msg.Place(member.node, cpus, memory_mb, gpus)


class Cluster:
    """A bridge that speaks to the master of a bench."""

    def __init__(self, bench: Bench, bridge: Member = BRIDGE) -> None:
        self.bench = bench
        self.bridge = bridge
        self.node = cluster_of(bridge.node)

    def up(self) -> ev.LinkUp:
        return msgspec.structs.replace(
            self.bridge.link_up(caps=("work",), prekey=b"", minor=msg.MINOR),
            peer=self.node,
            address="",
            path=(self.bridge.node,),
        )

    def join(self, *leaves: Member, serial: int = 1) -> None:
        """Let the bridge link, and introduce these: what they said of it was their word of that number."""
        self.bench.do(self.up())
        self.says(msg.Leaves(leaves=tuple(leaf(member, by=self.bridge, serial=serial) for member in leaves)))

    def says(self, message: msg.CoreMessage, *, after: float = 0.0) -> list[fx.Effect]:
        return self.bench.do(ev.Received(peer=self.node, message=message), after=after)

    def ask(self, *places: msg.Place, **fields: object) -> list[fx.Effect]:
        room = {
            "cpus": sum(each.cpus for each in places),
            "memory_mb": sum(each.memory_mb for each in places),
            "gpus": sum(each.gpus for each in places),
            "tasks_max": 64,
        }
        return self.says(self.bench.request(**(room | {"places": places} | fields)))

    def leases(self, *places: msg.Place, **fields: object) -> list[GrantItem]:
        return granted(self.ask(*places, **fields))

    def report(self, **fields: object) -> list[fx.Effect]:
        return self.says(msg.Report(**fields))

    def placed(self, member: Member, *items: GrantItem) -> list[fx.Effect]:
        return self.report(placed=tuple((item.lease, member.node) for item in items))

    def brings(self, member: Member, *items: ResultItem) -> list[fx.Effect]:
        return self.report(results=(ready(member, *items).result,))

    def finish(self, member: Member, item: GrantItem, outcome: Outcome = OK, number: int = 1) -> list[fx.Effect]:
        self.brings(member, result_item(item, outcome, number))
        return self.bench.do(ev.Collected(lease=item.lease))


def sub_grant(above: bytes, bridge: Member, to: Member, *items: GrantItem, **fields: object) -> bytes:
    """Return a bridge's word that some attempts of a grant, or a sub-grant, are somebody's."""
    plain = {
        "mesh": MESH,
        "node": bridge.node,
        "master": MASTER.node,
        "to": to.node,
        "parent": sign.digest(above),
        "nonce": bytes(16),
        "leases": tuple(item.lease for item in items),
        "expires": WALL,
    }
    return sign.sign(bridge.signer, SubGrant(**(plain | fields)))


def bench_of(
    *leaves: Member, out: trust.IsBanned = trust.nobody, restored: Restored | None = None
) -> tuple[Bench, Cluster]:
    """Return a master's bench, and the cluster of a bridge with these leaves there."""
    bench = Bench()
    bench.queue = Queue(IDENTITY, bench.settings, restored or bench.disk.restored(), entropy, bench.now, WALL, out)
    bench.tick()
    cluster = Cluster(bench)
    cluster.join(*leaves)
    return bench, cluster


def said(effects: list[fx.Effect]) -> msg.Granted:
    """Return the one grant that was said."""
    [message] = [
        each.message for each in effects if isinstance(each, fx.Send) and isinstance(each.message, msg.Granted)
    ]
    return message


def cert_of(member: Member, owner: str = OWNER) -> Cert:
    return trust.verify_chain(chain(member, owner=owner), ROOT.public, Wall(WALL), trust.nobody)


def moved(to: NodeId, *items: GrantItem) -> list[fx.Effect]:
    """Return that the master keeps who answers for these from now on."""
    return [fx.Record(row=r.LeaseMoved(lease=item.lease, worker=to)) for item in items]


def drop(reason: str, node: NodeId = CLUSTER) -> fx.Drop:
    return fx.Drop(peer=node, reason=reason)


def signed_result(member: Member, *items: ResultItem, **fields: object) -> bytes:
    return sign.sign(
        member.signer, Result(**({"mesh": MESH, "node": MASTER.node, "by": member.node, "items": items} | fields))
    )


def lease(counter: int) -> LeaseId:
    return LeaseId(1, counter)
