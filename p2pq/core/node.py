"""One node: membership, master and worker in one machine. They meet only here.

A node treats itself as one more linked peer: what its master says to its own worker, and back, is delivered inside the
same turn, in order, and never leaves.
"""

from collections.abc import Callable
from random import Random
from typing import Final, assert_never

import msgspec

from p2pq.core import events as ev
from p2pq.core.abroad import Abroad
from p2pq.core.bans import Subject
from p2pq.core.clock import WallClock
from p2pq.core.effects import Drop, Effect, Emit, Hangup, Record, Send
from p2pq.core.identity import Identity, self_link
from p2pq.core.membership import Membership
from p2pq.core.meshkeys import MeshKeys
from p2pq.core.placement import JobSnapshot, NameOf, TaskSnapshot
from p2pq.core.prekeys import Prekeys, make_card
from p2pq.core.queue import Queue
from p2pq.core.records import BanKept, OwnerBanKept, Restored
from p2pq.core.slots import Guest
from p2pq.core.stock import Stock
from p2pq.core.through import Fell, Stood, Throughs, cluster_of
from p2pq.core.turn import Turn
from p2pq.core.views import PeerView, Policy, Spoken, peer_views, policy_of
from p2pq.core.worker import Worker
from p2pq.errors import Reject
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall, short
from p2pq.model.notice import NodeWoke, PrekeyChanged
from p2pq.wire import messages as msg
from p2pq.wire import session, trust
from p2pq.wire.objects import Cert, ResultItem

LINKS_MAX: Final = 64
"""Links to peers where nothing else is set."""
KEEP_DAYS: Final = 30
"""Days that results are kept for an absent master where nothing else is set."""

BANNED: Final = "the worker is banned"
NOT_LET_IN: Final = "the worker, of another mesh, is not let in any more"
"""Why leases were lost, for people."""
SAID_MAX: Final = 100_000
"""Messages to itself in one turn; more is a bug, and stops the node rather than hangs it."""


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
        batching: bool = False,
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
            batching: as a bridge, speak for the workers below instead, where both sides can.
            welcome: by mesh, what this node lets members of another one do here, where a peering does, too.

        Raises:
            Reject: the restored state belongs to another key or mesh.
        """
        self._entropy = entropy
        self.prekeys = Prekeys(identity, now, settings.lease_s + trust.SKEW_MS / 1000)
        # Nobody else has the secret, so that it can be forgotten.
        identity = msgspec.structs.replace(identity, prekey_secret=b"")
        self._identity, self._me = identity, identity.node
        self._clock = WallClock(now, wall)
        batching = bridging and batching
        self._membership = Membership(
            identity,
            restored,
            links_max,
            rng,
            now,
            self._clock.at,
            bridging=bridging,
            batching=batching,
            welcome=welcome,
        )
        self._stock = Stock(identity, settings, entropy, self._clock.at, self._membership.out) if batching else None
        self._queue = Queue(identity, settings, restored, entropy, now, wall, self._membership.out)
        self._worker = Worker(identity, settings, restored, rng, entropy, self._clock.at, self.prekeys)
        self._throughs = Throughs(self._me, identity.root, self._membership.out, (self._worker.voice, self._stock))
        self._carded: dict[NodeId, None] = {}
        """Bridges that have got this node's keycard over the link that stands; a new one they get as every peer does."""
        self._keep_ms, self._fresh = keep_days * 24 * 3600 * 1000, True
        self._next: Mono | None = now
        self._self_link = self_link(identity)

    @property
    def deadline(self) -> Mono | None:
        """When to call ``handle`` at the latest; None: not before something happens."""
        return self._next

    def handle(self, event: ev.Event, now: Mono) -> list[Effect]:
        """Fire what is due, take the event in, settle what this node says to itself; return what is to be done, in order.

        ``Woke`` alone comes before what is due: it is the clock's own event, and moves deadlines.
        """
        turn = Turn(self._me, self._throughs)
        if self._fresh:
            self._fresh = False
            turn.take([*self._queue.handle(self._self_link, now), *self._worker.handle(self._self_link, now)])
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
        for bridge, reason in turn.suspects.items():
            turn.take(self._membership.handle(ev.Misserved(peer=bridge, reason=reason), now))
        if self._throughs.changed:
            self._throughs_changed(turn, now)
        deadlines = (each.deadline for each in (*self._machines, self._throughs))
        self._next = min((at for at in deadlines if at is not None), default=None)
        return turn.over()

    @property
    def _machines(self) -> "tuple[Membership | Queue | Worker | Stock, ...]":
        machines = (self._membership, self._queue, self._worker)
        return machines if self._stock is None else (*machines, self._stock)

    def _fire(self, turn: Turn, now: Mono) -> None:
        for machine in self._machines:
            if (at := machine.deadline) is not None and at <= now:
                turn.take(machine.handle(ev.Tick(), now))
        turn.take(self._throughs.fire(now))

    def _route(self, turn: Turn, event: ev.Event, now: Mono) -> None:  # noqa: C901, PLR0912  one arm per event
        match event:
            case ev.Tick():
                turn.take(self._queue.handle(event, now))
                if event.wall is not None:
                    self._judge(turn, event, now)
                    wall = event.wall
                    self._expelled(turn, lambda cert: wall > cert.exp + trust.SKEW_MS, now)
                    self._turn_prekey(turn, now)
                    turn.take(self._worker.forget_old(Wall(event.wall - self._keep_ms)))
            case ev.Woke():
                turn.take([Emit(notice=NodeWoke(slept_s=event.slept_s, counted=event.counted))])
                for machine in self._machines:
                    turn.take(machine.handle(event, now))
                self._throughs.woke(now)
            case ev.AddressSeen() | ev.DialFailed() | ev.Misserved() | ev.MeshKeyAsked():
                turn.take(self._membership.handle(event, now))
            case ev.BanAsked() | ev.OwnerBanAsked() | ev.PeeringAsked():
                self._judge(turn, event, now)
            case ev.LinkUp():
                self._link_up(turn, event, now)
            case ev.LinkDown():
                self._link_down(turn, event, now)
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
                | ev.Several()
            ):
                turn.take(self._queue.handle(event, now))
            case ev.Started() | ev.Vacated() | ev.Exited() | ev.TrainExited() | ev.Faulted() | ev.Progressed():
                turn.take(self._worker.handle(event, now))
            case ev.Offering() | ev.OwnerIs():
                turn.take(self._worker.handle(event, now))
            case ev.Drain():
                turn.take(self._worker.handle(event, now))
                self._stocked(turn, event, now)
                turn.take(self._membership.handle(event, now))
            case _:
                assert_never(event)

    def _link_up(self, turn: Turn, event: ev.LinkUp, now: Mono) -> None:
        effects = self._membership.handle(event, now)
        if self._membership.link(event.peer) is not event:
            turn.take(effects)
            return
        self._carded.pop(event.peer, None)
        # Nothing goes through a bridge to whom is linked.
        self._throughs_changed(turn, now)
        turn.take(effects)
        # The worker's Holding must come before anything else it says, so both begin now.
        turn.take(self._queue.handle(event, now))
        turn.take(self._worker.handle(event, now))
        if self.prekeys.turned and event.minor >= msg.TRUST_SINCE:
            # The handshake may have begun before the prekey changed.
            turn.take([Send(peer=event.peer, message=self._keycard(now))])
        self._stocked(turn, event, now)

    def _link_down(self, turn: Turn, event: ev.LinkDown, now: Mono) -> None:
        if self._membership.linked(event.peer):
            turn.take(self._membership.handle(event, now))
            turn.take(self._queue.handle(event, now))
            turn.take(self._worker.handle(event, now))
            self._forget_shown(event.peer)
            self._stocked(turn, event, now)

    def _forget_shown(self, bridge: NodeId) -> None:
        """The link to what may be a bridge is gone, and with it what was said over it."""
        self._throughs.leave(bridge)
        self._carded.pop(bridge, None)

    def _deliver(self, turn: Turn, peer: NodeId, message: msg.CoreMessage, now: Mono) -> None:
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
                | msg.Leaves()
                | msg.Report()
            ):
                turn.take(self._queue.handle(event, now))
            case msg.KeycardIs():
                turn.take(self._queue.handle(event, now))
                self._stocked(turn, event, now)
            case msg.MasterIs() | msg.Parted():
                self._shown(turn, peer, message, now)
            case msg.Through():
                self._through(turn, peer, message, now)
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

    # -- through bridges ----------------------------------------------------------------------------------------------

    def _stocked(self, turn: Turn, event: ev.Event | Stood | Fell, now: Mono) -> None:
        """Let the bridge that this node is, if it is one that batches, know as well."""
        if self._stock is not None:
            turn.take(self._stock.handle(event, now))

    def _expelled(self, turn: Turn, gone: Callable[[Cert], bool], now: Mono) -> None:
        """Let the bridge that this node is know whose certificates, of leaves far below, do not count any more."""
        if self._stock is not None:
            turn.take(self._stock.expel(gone, now))

    def _shown(self, turn: Turn, peer: NodeId, message: msg.MasterIs | msg.Parted, now: Mono) -> None:
        bridge = self._membership.link(peer)
        assert bridge is not None, "only linked nodes are heard, and nobody shows itself a master"
        if isinstance(message, msg.Parted):
            self._throughs.parted(peer, NodeId(message.node))
        else:
            try:
                self._throughs.show(bridge, message, self._clock.at(now), now)
            except Reject as reject:
                turn.take([Drop(peer=peer, reason=f"master: {reject.reason}")])

    def _through(self, turn: Turn, peer: NodeId, message: msg.Through, now: Mono) -> None:
        """Deliver what a bridge passes on, or, as a bridge, answer or pass it on."""
        node = NodeId(message.node)
        bridge = self._membership.link(peer)
        if bridge is not None and node == cluster_of(peer) and isinstance(message.message, msg.Leaves):
            try:
                self._throughs.speak(bridge)
            except Reject as reject:
                turn.take([Drop(peer=peer, reason=f"leaves: {reject.reason}")])
                return
            self._throughs_changed(turn, now)
        if self._throughs.bridge(node) == peer and not message.cluster:
            # What a peer of this kind does not say is dropped by the machine that hears it: it knows nobody of that id.
            self._deliver(turn, node, message.message, now)
        elif self._stock is not None:
            turn.take(self._stock.handle(ev.Received(peer=peer, message=message), now))
        else:
            turn.take([Drop(peer=peer, reason="through: nobody here is known by that")])

    def _throughs_changed(self, turn: Turn, now: Mono) -> None:
        """Let the machines know who takes part through a bridge from now on, and who no more."""
        for change in self._throughs.settle(self._membership.linked, self._membership.banned, now):
            machine: Queue | Worker = self._queue if change.cluster else self._worker
            if isinstance(change, Fell):
                turn.take(machine.handle(ev.LinkDown(peer=change.peer), now))
                if not change.cluster:
                    self._stocked(turn, change, now)
                if self._membership.linked(change.bridge) and not (change.cluster or change.known):
                    leaving = msg.Through(node=change.peer, message=msg.Leaving())
                    turn.take([Send(peer=change.bridge, message=leaving)])
                continue
            bridge = change.link.path[0]
            if not change.cluster and bridge not in self._carded:
                self._carded[bridge] = None
                turn.take([Send(peer=bridge, message=self._keycard(now))])
            turn.take(machine.handle(change.link, now))
            if not change.cluster:
                self._stocked(turn, change, now)

    def _judge(self, turn: Turn, event: ev.Event, now: Mono) -> None:
        """Take in who is out, or what peering is over; of them nothing runs here any more, and of us nothing there."""
        turn.take(effects := self._membership.handle(event, now))
        gone = [each.peer for each in effects if isinstance(each, Hangup)]
        for peer in gone:
            turn.take(self._queue.handle(ev.LinkDown(peer=peer, reason=trust.BANNED), now))
            turn.take(self._worker.handle(ev.LinkDown(peer=peer, reason=trust.BANNED), now))
        rows = [each.row for each in effects if isinstance(each, Record)]
        named = [row.node for row in rows if isinstance(row, BanKept) and self._membership.banned(row.node)]
        owners = [row.owner for row in rows if isinstance(row, OwnerBanKept) and row.owner in self._membership.bans]
        # A link with another mesh may have to be made anew by another peering: that alone ends nothing else.
        here = [peer for peer in gone if not self.abroad.mesh_of(peer)]
        out: dict[NodeId | str, str] = dict.fromkeys(self.abroad.expelled(), NOT_LET_IN)
        for who, why in (out | dict.fromkeys((*here, *named, *owners), BANNED)).items():
            if who != self._me:
                turn.take(self._queue.expel(who, now, why))
                turn.take(self._worker.expel(who, now))
        if rows:
            self._expelled(turn, self._membership.out, now)
        for peer in gone:
            self._forget_shown(peer)
            self._stocked(turn, ev.LinkDown(peer=peer, reason=trust.BANNED), now)
        self._throughs.changed = True

    def _turn_prekey(self, turn: Turn, now: Mono) -> None:
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
        """Return every other node known: the linked ones, those that take part through bridges, then the rest."""
        return peer_views(self._membership, self._throughs, self._queue, self._worker)

    def bridge_of(self, node: NodeId) -> NodeId | None:
        """Return the bridge that leads to a node which takes part through it; None where it is linked, or nobody speaks for it.

        For a master that is the one that shows it, for a leaf the nearest on the way, be it here or for a bridge above.
        """
        if self._membership.linked(node):
            return None
        known = self._throughs.bridge(node) or next(iter(self._queue.crew.path(node)), None)
        return self._stock.toward(node) if known is None and self._stock is not None else known

    def name_of(self, node: NodeId) -> str:
        """Return what a node is called that takes part through a bridge; nothing for others, which say so as they are linked."""
        stood, leaf = self._throughs.get(node), self._queue.crew.leaf(node)
        if stood is not None and not stood.cluster:
            return stood.link.name
        return "" if leaf is None else leaf.name

    def leaf_of(self, master: NodeId, lease: LeaseId) -> NodeId | None:
        """Return the leaf below this bridge that holds a lease of that master; None where none does."""
        return None if self._stock is None else self._stock.leaf_of(master, lease)

    def spoken(self) -> tuple[Spoken, ...]:
        """Return for which masters this node, as a bridge, speaks to leaves."""
        return () if self._stock is None else self._stock.spoken()

    def guests(self, now: Mono) -> tuple[Guest, ...]:
        """Return the attempts held here, own ones too."""
        return self._worker.guests(now)

    def policy(self) -> Policy:
        """Return what this node does as a worker."""
        return policy_of(self._worker)

    @property
    def busy(self) -> bool:
        """Whether this node, as a worker, holds any lease."""
        return self._worker.busy

    @property
    def carries(self) -> bool:
        """Whether this node, as a bridge, has attempts of masters in stock or at leaves."""
        return self._stock is not None and self._stock.holds

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
        return self.abroad.meshes(self._membership.bans, now)

    def ban_at(self, subject: Subject) -> Wall:
        """Return when this node, as an admin, last said of a node or owner that it is out or in; 0 where it never did."""
        return self._membership.bans.said_at(self._me, subject)

    @property
    def mesh_keys(self) -> MeshKeys:
        """The mesh keys, for readers."""
        return self._membership.mesh_keys

    def path(self, bridge: NodeId, node: NodeId) -> tuple[NodeId, ...]:
        """Return the bridges of a link to ``node`` that ``bridge`` carries, the nearest first."""
        return self._membership.path(bridge, node)

    def ways(self, node: NodeId) -> tuple[NodeId, ...]:
        """Return the nearest bridges of the ways to a node, the best first."""
        return self._membership.ways(node)

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

    def why(self, job: JobId, task: int | None, now: Mono, name_of: NameOf = short) -> str | None:
        """Return one sentence on why a job, or one task of it, waits; None if there is no such job or task here."""
        return self._queue.why(job, task, now, name_of)

    def check(self) -> None:
        """Assert the invariants of all machines."""
        self._throughs.check()
        for machine in self._machines:
            machine.check()
