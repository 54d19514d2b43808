"""One node: membership, master and worker in one machine. They meet only here.

A node treats itself as one more linked peer: what its master says to its own worker, and back, is delivered inside the
same turn, in order, and never leaves.
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final, assert_never

import msgspec

from p2pq.core import events as ev
from p2pq.core.abroad import Abroad
from p2pq.core.bans import Subject
from p2pq.core.clock import WallClock
from p2pq.core.effects import Drop, Effect, Emit, Hangup, Record, Send
from p2pq.core.identity import Identity
from p2pq.core.kept import KeptFor
from p2pq.core.membership import Membership
from p2pq.core.peers import State
from p2pq.core.placement import JobSnapshot, TaskSnapshot
from p2pq.core.prekeys import Prekeys, make_card
from p2pq.core.queue import Queue
from p2pq.core.records import BanKept, OwnerBanKept, Restored
from p2pq.core.slots import Guest
from p2pq.core.worker import Worker
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall
from p2pq.model.job import Profile
from p2pq.model.notice import NodeWoke, PrekeyChanged
from p2pq.wire import messages as msg
from p2pq.wire import session, trust
from p2pq.wire.objects import Cert, ResultItem

LINKS_MAX: Final = 64
"""Links to peers where nothing else is set."""
DAY_MS: Final = 24 * 3600 * 1000
KEEP_DAYS: Final = 30
"""Days that results are kept for an absent master where nothing else is set."""

SAID_MAX: Final = 100_000
"""Messages to itself in one turn; more is a bug, and stops the node rather than hangs it."""


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    """Another node, for people."""

    id: NodeId | None
    """None where nobody has been authenticated at that address yet."""
    name: str
    owner: str
    address: str
    """HOST:PORT; empty where it is only seen through bridges."""
    path: tuple[NodeId, ...]
    """The bridges that carry the link to it, the nearest first."""
    state: State
    reason: str
    """Why it is down or refused, as a stable phrase."""
    slots: int
    """Cpus that it offers to this node's jobs."""
    free: int
    """Of those, the ones that tasks of this node do not use."""
    has_work: bool
    """Whether it has announced work."""
    profile: Profile | None
    """What it said that it offers; None where it is not linked or does not work."""
    boot: bytes
    realm: str = ""
    """What its mesh is called, where that is another one."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What this node does as a worker, for people."""

    known: bool
    """Whether the sensors have spoken yet."""
    accepts: bool
    reason: str
    draining: bool
    slots: int
    free: int
    kept: tuple[KeptFor, ...]
    """Results that wait for their master's receipt, by master."""


class Node:
    """Everything that this node decides."""

    def __init__(  # noqa: PLR0913  what the world gives is exactly this much
        self,
        identity: Identity,
        settings: ScheduleSettings,
        restored: Restored,
        rng: Random,
        entropy: Callable[[int], bytes],
        *,
        now: Mono,
        wall: Wall,
        links_max: int = LINKS_MAX,
        keep_days: int = KEEP_DAYS,
        bridging: bool = False,
        welcome: dict[bytes, tuple[str, ...]] | None = None,
    ) -> None:
        """Begin a life. The first ``handle`` is due at once: it says what the restored state asks for.

        Args:
            identity: who this node is.
            settings: leases, requests and fairness.
            restored: what the store gave back.
            rng: for draws and jitter; two nodes must not share one.
            entropy: for keys and nonces.
            now: the present.
            wall: the wall clock at ``now``; ``Tick(wall=...)`` corrects it.
            links_max: links to peers at most.
            keep_days: so long results are kept for an absent master.
            bridging: carry links between peers that cannot reach each other.
            welcome: by mesh, what this node lets members of another one do here, where a peering does, too.

        Raises:
            Reject: the restored state belongs to another key or mesh.
        """
        self._entropy = entropy
        self.prekeys = Prekeys(identity, now, settings.lease_s + trust.SKEW_MS / 1000)
        identity = msgspec.structs.replace(
            identity, prekey_secret=b""
        )  # nobody else has it, so that it can be forgotten
        self._identity = identity
        self._me = identity.node
        self._clock = WallClock(now, wall)
        self._membership = Membership(
            identity, restored, links_max, rng, now, self._clock.at, bridging=bridging, welcome=welcome
        )
        self._queue = Queue(identity, settings, restored, entropy, now, wall)
        self._worker = Worker(identity, settings, restored, rng, entropy, self._clock.at, self.prekeys)
        self._keep_ms = keep_days * DAY_MS
        self._fresh = True
        self._next: Mono | None = now
        # The own machine works for its own user whatever its certificate lets it do for others.
        self._self_link = ev.LinkUp(
            peer=identity.node,
            name=identity.name,
            owner=identity.owner,
            caps=tuple(sorted({*identity.caps, "submit", "work"})),
            boot=identity.boot,
            minor=msg.MINOR,
            prekey=identity.prekey,
            address="",
        )

    @property
    def deadline(self) -> Mono | None:
        """When to call ``handle`` at the latest; None: not before something happens."""
        return self._next

    def handle(self, event: ev.Event, now: Mono) -> list[Effect]:
        """Fire what is due, take the event in, settle what this node says to itself; return what is to be done, in order.

        ``Woke`` alone comes before what is due: it is the clock's own event, and moves deadlines.
        """
        turn = _Turn(self._me)
        if self._fresh:
            self._fresh = False
            turn.take(self._queue.handle(self._self_link, now))
            turn.take(self._worker.handle(self._self_link, now))
        if isinstance(event, ev.Tick) and event.wall is not None:
            self._clock.rebase(now, event.wall)
        if self._next is not None and self._next <= now and not isinstance(event, ev.Woke):
            self._fire(turn, now)
        self._route(turn, event, now)
        delivered = 0
        while turn.said:
            delivered += 1
            assert delivered <= SAID_MAX, "this node talks to itself without end"
            self._deliver(turn, self._me, turn.said.popleft(), now)
        instants = (self._membership.deadline, self._queue.deadline, self._worker.deadline)
        self._next = min((at for at in instants if at is not None), default=None)
        return turn.out

    def _fire(self, turn: "_Turn", now: Mono) -> None:
        for machine in (self._membership, self._queue, self._worker):
            if (at := machine.deadline) is not None and at <= now:
                turn.take(machine.handle(ev.Tick(), now))

    def _route(self, turn: "_Turn", event: ev.Event, now: Mono) -> None:  # noqa: C901, PLR0912  one arm per event
        match event:
            case ev.Tick():
                turn.take(self._queue.handle(event, now))
                if event.wall is not None:
                    self._judge(turn, event, now)
                    self._turn_prekey(turn, now)
                    turn.take(self._worker.forget_old(Wall(event.wall - self._keep_ms)))
            case ev.Woke():
                turn.take([Emit(notice=NodeWoke(slept_s=event.slept_s, counted=event.counted))])
                for machine in (self._membership, self._queue, self._worker):
                    turn.take(machine.handle(event, now))
            case ev.AddressSeen() | ev.DialFailed() | ev.MeshKeyAsked():
                turn.take(self._membership.handle(event, now))
            case ev.BanAsked() | ev.OwnerBanAsked() | ev.PeeringAsked():
                self._judge(turn, event, now)
            case ev.LinkUp():
                turn.take(self._membership.handle(event, now))
                if self._membership.link(event.peer) is event:
                    # The worker's Holding must come before anything else it says, so both begin now.
                    turn.take(self._queue.handle(event, now))
                    turn.take(self._worker.handle(event, now))
                    if self.prekeys.turned and event.minor >= msg.TRUST_SINCE:
                        # The handshake may have begun before the prekey changed.
                        turn.take([Send(peer=event.peer, message=self._keycard(now))])
            case ev.LinkDown():
                if self._membership.linked(event.peer):
                    turn.take(self._membership.handle(event, now))
                    turn.take(self._queue.handle(event, now))
                    turn.take(self._worker.handle(event, now))
            case ev.Received(peer=peer, message=message):
                if self._membership.linked(peer):
                    self._deliver(turn, peer, message, now)
                else:
                    turn.take([Drop(peer=peer, reason="not linked")])
            case (
                ev.Submitted()
                | ev.CancelAsked()
                | ev.RetryAsked()
                | ev.Collected()
                | ev.CollectFailed()
                | ev.Delivered()
                | ev.DeliverFailed()
            ):
                turn.take(self._queue.handle(event, now))
            case ev.Started() | ev.Exited() | ev.Faulted() | ev.Progressed() | ev.Offering():
                turn.take(self._worker.handle(event, now))
            case ev.Drain():
                turn.take(self._worker.handle(event, now))
                turn.take(self._membership.handle(event, now))
            case _:
                assert_never(event)

    def _deliver(self, turn: "_Turn", peer: NodeId, message: msg.CoreMessage, now: Mono) -> None:
        event = ev.Received(peer=peer, message=message)
        match message:
            case (
                msg.ProfileIs()
                | msg.Holding()
                | msg.Request()
                | msg.Return()
                | msg.Heartbeat()
                | msg.ResultReady()
                | msg.Confirm()
                | msg.KeycardIs()
            ):
                turn.take(self._queue.handle(event, now))
            case (
                msg.HasWork()
                | msg.Granted()
                | msg.Nothing()
                | msg.Recall()
                | msg.Cancel()
                | msg.Receipted()
                | msg.Confirmed()
            ):
                turn.take(self._worker.handle(event, now))
            case msg.Peers() | msg.Reach() | msg.Heads() | msg.BansKnown() | msg.MeshKeys():
                turn.take(self._membership.handle(event, now))
            case msg.Bans() | msg.Peerings():
                self._judge(turn, event, now)
            case msg.Leaving():
                turn.take(self._membership.handle(event, now))
                turn.take(self._queue.handle(event, now))
            case _:
                assert_never(message)

    def _judge(self, turn: "_Turn", event: ev.Event, now: Mono) -> None:
        """Take in who is out, or what peering is over; of them nothing runs here any more, and of us nothing there."""
        effects = self._membership.handle(event, now)
        turn.take(effects)
        gone = [each.peer for each in effects if isinstance(each, Hangup)]
        for peer in gone:
            turn.take(self._queue.handle(ev.LinkDown(peer=peer, reason=trust.BANNED), now))
            turn.take(self._worker.handle(ev.LinkDown(peer=peer, reason=trust.BANNED), now))
        abroad = self._membership.abroad.expelled()
        rows = [each.row for each in effects if isinstance(each, Record)]
        named = [row.node for row in rows if isinstance(row, BanKept) and self._membership.banned(row.node)]
        turned_out = [peer for peer in gone if not self._membership.abroad.mesh_of(peer)]
        nodes = [who for who in abroad if not isinstance(who, str)]
        for node in nodes:
            turn.take(self._queue.expel(node, now, "the worker, of another mesh, is not let in any more"))
            turn.take(self._worker.expel(node, now))
        for node in dict.fromkeys((*turned_out, *named)):
            if node != self._me:
                turn.take(self._queue.expel(node, now))
                turn.take(self._worker.expel(node, now))
        owners = [row.owner for row in rows if isinstance(row, OwnerBanKept)]
        for owner in dict.fromkeys(owners):
            if owner in self._membership.bans:
                turn.take(self._worker.expel(owner, now))
        for who in abroad:
            if isinstance(who, str):
                turn.take(self._worker.expel(who, now))

    def _turn_prekey(self, turn: "_Turn", now: Mono) -> None:
        """Draw a new prekey if it is time, and let everybody seal to it; who is too old to be told links anew."""
        if not self.prekeys.turn(now, self._entropy):
            return
        turn.take([Emit(notice=PrekeyChanged(prekey=self.prekeys.public))])
        card = self._keycard(now)
        turn.take([Send(peer=self._me, message=card)])
        for peer in self._membership.linked_peers():
            if peer.minor >= msg.TRUST_SINCE:
                turn.take([Send(peer=peer.peer, message=card)])
            else:
                turn.take([Hangup(peer=peer.peer, reason="new-prekey")])

    def _keycard(self, now: Mono) -> msg.KeycardIs:
        return msg.KeycardIs(card=make_card(self.prekeys.public, self._identity, self._clock.at(now)))

    # -- for readers --------------------------------------------------------------------------------------------------

    def peers(self, now: Mono) -> tuple[PeerView, ...]:  # noqa: ARG002  every reader says when it reads
        """Return every other node known, the linked ones first."""
        workers = {worker.node: worker for worker in self._queue.workers()}
        views = []
        for peer in self._membership.peers():
            worker = None if peer.id is None else workers.get(peer.id)
            slots = 0 if worker is None else worker.profile.slots
            views.append(
                PeerView(
                    id=peer.id,
                    name=peer.name,
                    owner=peer.owner,
                    address=peer.address,
                    path=peer.path,
                    state=peer.state,
                    reason=peer.reason,
                    slots=slots,
                    free=0 if worker is None else max(0, slots - worker.cpus),
                    has_work=peer.id is not None and self._worker.has_work(peer.id),
                    profile=None if worker is None else worker.profile,
                    boot=peer.boot,
                    realm=peer.realm or self.abroad.realm(peer.id),
                )
            )
        return tuple(views)

    def guests(self, now: Mono) -> tuple[Guest, ...]:
        """Return the attempts held here, own ones too."""
        return self._worker.guests(now)

    def policy(self) -> Policy:
        """Return what this node does as a worker."""
        offering = self._worker.offering
        return Policy(
            known=offering is not None,
            accepts=offering is not None and offering.profile.accepts and not self._worker.draining,
            reason="" if offering is None else offering.profile.reason,
            draining=self._worker.draining,
            slots=0 if offering is None else offering.profile.slots,
            free=self._worker.free_slots(),
            kept=self._worker.kept(),
        )

    @property
    def busy(self) -> bool:
        """Whether this node, as a worker, holds any lease."""
        return self._worker.busy

    @property
    def owes(self) -> bool:
        """Whether a linked master has yet to acknowledge a result that this node holds for it."""
        return self._worker.owes

    def linked(self, peer: NodeId) -> bool:
        """Tell whether a link to that node stands."""
        return self._membership.linked(peer)

    def banned(self, node: NodeId, owner: str = "") -> bool:
        """Tell whether a node, or its owner, is out, as far as this one knows."""
        return self._membership.banned(node, owner)

    def out(self, cert: Cert) -> bool:
        """Tell whether the holder of a certificate is out, as far as this node knows."""
        return self._membership.out(cert)

    @property
    def abroad(self) -> Abroad:
        """What is known of other meshes, for readers."""
        return self._membership.abroad

    def foreign(self, now: Mono) -> tuple[session.Mesh, ...]:
        """Return the other meshes whose members may be linked now, the latest peering first."""
        bans = self._membership.bans
        return tuple(
            session.Mesh(
                root=ours.root,
                psks=(ours.key,),
                is_banned=partial(self.abroad.out, ours.mesh, ours.name, own=bans),
                foreign=session.Foreign(
                    peering=ours.peering, realm=ours.name, may=ours.opened.theirs, welcome=ours.welcome
                ),
            )
            for ours in self.abroad.usable(now)
        )

    def ban_at(self, subject: Subject) -> Wall:
        """Return when this node, as an admin, last said of a node or owner that it is out or in; 0 where it never did."""
        return self._membership.bans.said_at(self._me, subject)

    def psks(self) -> tuple[bytes, ...]:
        """Return the mesh keys, newest first: the first is used to dial, each opens the gate."""
        return self._membership.mesh_keys.psks

    def mesh_key_at(self) -> Wall:
        """Return when the newest mesh key was made; 0 where that is not known."""
        return self._membership.mesh_keys.newest_at

    def path(self, bridge: NodeId, node: NodeId) -> tuple[NodeId, ...]:
        """Return the bridges of a link to ``node`` that ``bridge`` carries, the nearest first."""
        return self._membership.path(bridge, node)

    def jobs(self) -> list[JobSnapshot]:
        """Return the jobs submitted here that have not ended."""
        return self._queue.jobs()

    def job(self, job: JobId) -> JobSnapshot | None:
        """Return one of them; None if there is none or it has ended."""
        return self._queue.job(job)

    def tasks(self, job: JobId, start: int = 0, limit: int = 100_000) -> list[TaskSnapshot]:
        """Return a job's tasks from ``start`` on, at most ``limit``."""
        return self._queue.tasks(job, start, limit)

    def collecting(self, lease: LeaseId) -> ResultItem | None:
        """Return the result that is being collected under a lease; None if there is none."""
        return self._queue.collecting(lease)

    def why(self, job: JobId, task: int | None, now: Mono) -> str | None:
        """Return one sentence on why a job, or one task of it, waits; None if there is no such job or task here."""
        return self._queue.why(job, task, now)

    def check(self) -> None:
        """Assert the invariants of all machines."""
        self._membership.check()
        self._queue.check()
        self._worker.check()


class _Turn:
    """The effects of one turn; what the node says to itself is set aside for delivery."""

    __slots__ = ("_me", "out", "said")

    def __init__(self, me: NodeId) -> None:
        self._me = me
        self.out: list[Effect] = []
        self.said: deque[msg.CoreMessage] = deque()

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.peer == self._me:
                self.said.append(effect.message)
            else:
                self.out.append(effect)
