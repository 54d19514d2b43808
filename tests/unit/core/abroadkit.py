"""Two meshes, whole nodes of both, and a wire between them: handshakes are real, messages are encoded, nothing is lost."""

import hashlib
from collections import deque
from random import Random

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.identity import Identity
from p2pq.core.ledger import Ledger
from p2pq.core.node import Node
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, Mono, NodeId, Wall
from p2pq.model.job import Outcome
from p2pq.wire import codec, peering, prims, seal, session, sign, trust
from p2pq.wire import messages as msg
from p2pq.wire.messages import PeeringKnown
from p2pq.wire.objects import CAPABILITIES, PEER_CAPABILITIES, PeerSide
from tests.unit.core.mesh import LEFT
from tests.unit.core.workerkit import KEY, OFFER, WALL, manifest
from tests.unit.wire.makers import DAY_MS

ALL = PeerSide(caps=PEER_CAPABILITIES)
LIFE_MS = 90 * DAY_MS


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


class Mesh:
    """A root, and an admin that lets others in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root = prims.SigningKey(digest("root", name))
        self.id = prims.mesh_id(self.root.public)
        self.psk = digest("psk", name)
        self.admin = prims.SigningKey(digest("admin", name))
        self.chain = (self._cert(),)

    def _cert(self) -> bytes:
        subject = trust.Subject(
            node=self.admin.public, name=f"admin-{self.name}", owner=f"admin-{self.name}", caps=CAPABILITIES
        )
        return trust.issue_admin(self.root, subject, serial=bytes(16), wall=WALL)

    def let_in(self, key: prims.SigningKey, name: str, owner: str, caps: tuple[str, ...]) -> tuple[bytes, ...]:
        subject = trust.Subject(node=key.public, name=name, owner=owner, caps=caps)
        member = trust.issue_member(
            self.admin, self.chain[0], self.root.public, subject, serial=digest(name)[:16], wall=WALL
        )
        return (member, *self.chain)

    def ban(self, subject: NodeId | str, at: int = WALL) -> bytes:
        return trust.issue_ban(self.admin, self.root.public, subject, at=Wall(at), certs=self.chain)


def peer(one: Mesh, other: Mesh, *, at: int = WALL, exp: int = WALL + LIFE_MS, **sides: PeerSide) -> PeeringKnown:
    """Return a peering of two meshes; ``ours`` is what members of the first may do towards the second."""
    offer = peering.offer(
        one.admin,
        one.chain,
        one.root.public,
        name=one.name,
        to=other.id,
        ours=sides.get("ours", ALL),
        theirs=sides.get("theirs", ALL),
        key=digest("key", one.name, other.name, at),
        at=Wall(at),
        exp=Wall(exp),
    )
    accept = peering.accept(other.admin, other.chain, other.root.public, offer, name=other.name, at=Wall(at))
    return PeeringKnown(offer, accept)


def ended(known: PeeringKnown, by: Mesh, at: int = WALL) -> PeeringKnown:
    word = peering.end(by.admin, by.chain, by.root.public, sign.digest(known.offer), at=Wall(at))
    return PeeringKnown(known.offer, known.accept, word)


class Peer:
    """A node, its disk, and what it was asked to do."""

    def __init__(
        self,
        world: "World",
        mesh: Mesh,
        name: str,
        welcome: dict[bytes, tuple[str, ...]],
        *,
        owner: str = "",
        caps: tuple[str, ...] = ("submit", "work"),
        batching: bool = False,
    ) -> None:
        self.batching = batching
        self.world, self.mesh, self.name, self.owner, self.caps = world, mesh, name, owner or name, caps
        self.key = prims.SigningKey(digest("node", name))
        self.node: NodeId = self.key.public
        self.certs = mesh.let_in(self.key, name, self.owner, caps)
        self.welcome = welcome
        self.disk = Ledger()
        self.lives = 0
        self.boot()

    def boot(self) -> None:
        """Begin a life with what is on disk."""
        self.lives += 1
        secret = digest("prekey", self.name, self.lives)
        self.prekey = prims.x25519_public(secret)
        self.boot_id = digest("boot", self.name, self.lives)[:16]
        identity = Identity(
            node=self.node,
            secret=self.key.seed,
            mesh=self.mesh.id,
            name=self.name,
            owner=self.owner,
            caps=self.caps,
            boot=self.boot_id,
            prekey_secret=secret,
            prekey=self.prekey,
            root=self.mesh.root.public,
            psks=(self.mesh.psk,),
        )
        self.numbers = 0
        self.starts: list[fx.Start] = []
        self.kills: list[fx.Kill] = []
        self.drops: list[fx.Drop] = []
        self.dials: list[fx.Dial] = []
        self.core = Node(
            identity,
            ScheduleSettings(),
            self.disk.restored(),
            Random(1),
            self.entropy,
            now=self.world.now,
            wall=self.world.wall,
            bridging="bridge" in self.caps,
            batching=self.batching,
            welcome=self.welcome,
        )
        self.do(ev.Tick())

    def entropy(self, size: int) -> bytes:
        self.numbers += 1
        return hashlib.shake_256(repr((self.name, self.lives, self.numbers)).encode()).digest(size)

    def local(self) -> session.Local:
        return session.Local(
            key=self.key,
            static=digest("static", self.name, self.lives),
            boot=self.boot_id,
            prekey=self.prekey,
            certs=self.certs,
        )

    def own(self) -> session.Mesh:
        return session.Mesh(root=self.mesh.root.public, psks=self.core.mesh_keys.psks, is_banned=self.core.out)

    def do(self, event: ev.Event) -> None:
        for effect in self.core.handle(event, self.world.now):
            match effect:
                case fx.Record(row=row):
                    self.disk.apply(row)
                case fx.Send(peer=to, message=message):
                    self.world.said.append((self, self.world.by_node[to], message))
                case fx.Hangup(peer=to):
                    self.world.said.append((self, self.world.by_node[to], None))
                case fx.Start():
                    self.starts.append(effect)
                case fx.Kill():
                    self.kills.append(effect)
                case fx.Drop():
                    self.drops.append(effect)
                case fx.Dial():
                    self.dials.append(effect)
                case fx.Collect(lease=lease):
                    self.world.collects.append((self, lease))
        self.core.check()

    def linked(self, other: "Peer") -> bool:
        return self.core.linked(other.node)

    def sees(self, other: "Peer") -> tuple[str, tuple[str, ...]]:
        """Return as whom another node counts here, and what it may do."""
        link = self.core.abroad._links[other.node]
        return link.owner, link.caps

    def submit(self, number: int = 1, **fields) -> JobId:
        plain = {"mesh": self.mesh.id, "node": self.node, "owner": self.owner, "tasks": 1, "expires": WALL + LIFE_MS}
        job = msgspec.structs.replace(manifest(number=number), **(plain | {"commit": seal.commitment(KEY)} | fields))
        raw = sign.sign(self.key, job)
        self.do(ev.Submitted(manifest=raw, key=KEY, reply_secret=b"r" * 32, wall=self.world.wall))
        return JobId(job.job)

    def exit(self, start: fx.Start) -> None:
        """Let an attempt end well."""
        self.do(
            ev.Exited(
                lease=start.lease,
                master=start.master,
                outcome=Outcome(reason="ok", exit=0),
                sandbox=start.sandbox,
                body=LEFT,
            )
        )


class World:
    """Nodes and the wire between them."""

    def __init__(self) -> None:
        self.now = Mono(0.0)
        self.peers: list[Peer] = []
        self.by_node: dict[NodeId, Peer] = {}
        self.said: deque[tuple[Peer, Peer, msg.CoreMessage | None]] = deque()
        """What is on its way, in order; None: the link ends."""
        self.heard: list[tuple[Peer, Peer, msg.CoreMessage]] = []
        """All that has arrived."""
        self.collects: list = []

    @property
    def wall(self) -> Wall:
        return Wall(WALL + round(self.now * 1000))

    def add(self, mesh: Mesh, name: str, welcome: dict[bytes, tuple[str, ...]] | None = None, **fields) -> Peer:
        made = Peer(self, mesh, name, {} if welcome is None else welcome, **fields)
        self.peers.append(made)
        self.by_node[made.node] = made
        made.do(OFFER)
        return made

    def link(self, one: Peer, other: Peer, path: tuple[Peer, ...] = ()) -> str:
        """Let the first dial the second; return why there is no link, or nothing."""
        foreign = one.mesh is not other.mesh
        meshes = one.core.foreign(self.now) if foreign else (one.own(),)
        meshes = tuple(each for each in meshes if each.root == other.mesh.root.public)
        if not meshes:
            return session.NO_PEERING
        dialler = session.Initiator(one.local(), meshes[0], one.entropy)
        answerer = session.Responder(other.local(), other.own(), other.entropy, other.core.foreign(self.now))
        try:
            second = answerer.receive(dialler.start(), self.wall)
            answerer.receive(dialler.receive(second, self.wall), self.wall)
        except session.HandshakeRefused as refusal:
            return refusal.reason
        ways = tuple(each.node for each in path)
        for here, info, way in ((one, dialler.peer, ways), (other, answerer.peer, ways[::-1])):
            assert info is not None
            here.do(
                ev.LinkUp(
                    peer=info.node,
                    name=info.name,
                    owner=info.owner,
                    caps=info.caps,
                    boot=info.boot,
                    minor=info.minor,
                    prekey=info.prekey,
                    address="" if path else f"192.0.2.{self.peers.index(self.by_node[info.node]) + 1}:1",
                    dialled=here is one and not path,
                    path=way,
                    certs=info.certs,
                    mesh=info.mesh,
                    realm=info.realm,
                    peering=info.peering,
                )
            )
        self.settle()
        return ""

    def settle(self) -> None:
        """Let everybody say what they have to say."""
        for _ in range(10_000):
            if not self.said:
                return
            source, target, message = self.said.popleft()
            if message is None:
                target.do(ev.LinkDown(peer=source.node, reason="cut"))
            elif target.linked(source):
                again = codec.decode_lenient(codec.encode(message), msg.Message, size_max=msg.MESSAGE_BYTES_MAX)
                self.heard.append((source, target, message))
                target.do(ev.Received(peer=source.node, message=again))
        raise AssertionError("they never stop talking")

    def wait(self, seconds: float) -> None:
        """Let time pass, a second at a time; the wall clock is told once a minute."""
        end = self.now + seconds
        while self.now < end:
            self.now = Mono(min(end, self.now + 1.0))
            for each in self.peers:
                each.do(ev.Tick(wall=self.wall) if self.now % 60 == 0 else ev.Tick())
            self.settle()

    def at(self, seconds: float) -> None:
        """Jump there, and tell everybody the wall clock."""
        self.now = Mono(seconds)
        for each in self.peers:
            each.do(ev.Tick(wall=self.wall))
        self.settle()
