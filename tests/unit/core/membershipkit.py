"""A membership on a bench, and what admins of its mesh sign."""

from random import Random

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.membership import Membership
from p2pq.core.records import Restored
from p2pq.model.ids import Mono, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import prims, trust
from tests.unit.core.workerkit import ANN, IDENTITY, WALL, Member, entropy

CAT = Member("cat")
DAN = Member("dan")
ROOT = trust.make_root(entropy)
MINE = msgspec.structs.replace(IDENTITY, root=ROOT.public, mesh=prims.mesh_id(ROOT.public))
NEW = msg.TRUST_SINCE
HOME = "192.0.2.1:9476"
AWAY = "192.0.2.2:9476"


def ban(node: NodeId, at: int = WALL, *, banned: bool = True, issuer: prims.SigningKey = ROOT, certs=()) -> bytes:
    return trust.issue_ban(issuer, ROOT.public, node, at=Wall(at), banned=banned, certs=certs)


def admin(member: Member) -> bytes:
    subject = trust.Subject(node=member.node, name=member.name, owner=member.name, caps=("admin",))
    return trust.issue_admin(ROOT, subject, serial=bytes(16), wall=WALL)


class Middle(Random):
    """Jitters by nothing: three quarters of every pause."""

    def random(self) -> float:
        return 0.5


class Bench:
    def __init__(self, restored: Restored | None = None, links_max: int = 8, *, bridging: bool = False) -> None:
        self.now = Mono(0.0)
        self.members = Membership(
            MINE,
            Restored() if restored is None else restored,
            links_max,
            Middle(),
            self.now,
            lambda _now: WALL,
            bridging=bridging,
        )

    def do(self, event: ev.Event, *, after: float = 0.0) -> list[fx.Effect]:
        self.now = Mono(self.now + after)
        effects = self.members.handle(event, self.now)
        self.members.check()
        assert self.members.deadline is None or self.members.deadline > self.now
        return effects

    def tick(self, after: float = 0.0) -> list[fx.Effect]:
        return self.do(ev.Tick(), after=after)

    def says(self, message: msg.CoreMessage, member: Member = ANN) -> list[fx.Effect]:
        return self.do(ev.Received(peer=member.node, message=message))


def mesh_key(number: int, issuer: prims.SigningKey = ROOT, certs=()) -> bytes:
    at = Wall(WALL + number)
    return trust.issue_mesh_key(issuer, ROOT.public, number.to_bytes(32, "big"), at=at, certs=certs)
