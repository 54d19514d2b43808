"""A bridge that batches: it answers its leaves for their masters, and speaks to masters for its leaves (docs/adr/0201).

Pure and soft: nothing of it is on disk, and nothing in it is known to nobody else. For each linked master there is a
``Cluster``; this is what they have in common.
"""

from collections.abc import Callable
from typing import Final

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.cluster import Cluster
from p2pq.core.deadlines import Deadlines
from p2pq.core.identity import Identity
from p2pq.core.serving import Peer, Timer
from p2pq.core.through import cluster_of
from p2pq.core.views import Spoken
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.wire import messages as msg

GATHER_S: Final = 5.0
"""How long leaves have to say what they hold before a master is told: its leases that are not named then are lost."""
BUSY_MAX: Final = 1024
"""Masters remembered that left while leaves held leases of theirs."""
THROUGH_SINCE: Final = msg.SINCE[msg.Through]


class Stock:
    """What this bridge does for masters and leaves."""

    def __init__(
        self,
        identity: Identity,
        schedule: ScheduleSettings,
        entropy: Callable[[int], bytes],
        wall: Callable[[Mono], Wall],
    ) -> None:
        """Know nobody."""
        self._identity, self._schedule = identity, schedule
        self._entropy, self._wall = entropy, wall
        self._me = cluster_of(identity.node)
        self._deadlines: Deadlines[Timer] = Deadlines()
        self._peers: dict[NodeId, Peer] = {}
        self._since: dict[NodeId, Mono] = {}
        """Since when each of them is linked."""
        self._clusters: dict[NodeId, Cluster] = {}
        self._busy: dict[NodeId, None] = {}
        self._began: Mono | None = None
        self._draining = False

    @property
    def deadline(self) -> Mono | None:
        """The instant at which something is due, or None."""
        return self._deadlines.next

    @property
    def holds(self) -> bool:
        """Whether there is any attempt here, in stock or at a leaf, or any news of one."""
        return any(cluster.holds for cluster in self._clusters.values())

    def leaf_of(self, master: NodeId, lease: LeaseId) -> NodeId | None:
        """Return the leaf that holds a lease of that master; None where none here does."""
        cluster = self._clusters.get(master)
        return None if cluster is None else cluster.leaf_of(lease)

    def spoken(self) -> tuple[Spoken, ...]:
        """Return, for people, the masters with leaves, and those of which there is anything here."""
        found = [cluster.spoken() for cluster in self._clusters.values()]
        return tuple(each for each in found if each.leaves or each.stock)

    def handle(self, event: ev.Event, now: Mono) -> list[fx.Effect]:
        """Do what is due, take in the event, then say what is to be said."""
        out: list[fx.Effect] = []
        touched: dict[NodeId, None] = {}
        if self._began is None:
            self._began = now
        if isinstance(event, ev.Woke):
            for master, cluster in self._clusters.items():
                touched[master] = None
                cluster.woke(now)
        while (timer := self._deadlines.pop(now)) is not None:
            touched[timer[1]] = None
            self._clusters[timer[1]].due(timer, now, out)
        self._take_in(event, touched, now, out)
        for master in touched:
            if master in self._clusters:
                self._clusters[master].settle(now, out)
        return out

    def _take_in(self, event: ev.Event, touched: dict[NodeId, None], now: Mono, out: list[fx.Effect]) -> None:
        match event:
            case ev.LinkUp(peer=peer):
                self._link_down(peer, touched, out)
                if not event.path and event.minor >= THROUGH_SINCE:
                    self._link_up(event, now, out)
                    touched[peer] = None
            case ev.LinkDown(peer=peer):
                self._link_down(peer, touched, out)
            case ev.Received(peer=node, message=msg.KeycardIs(card=card)) if node in self._peers:
                self._peers[node].card = card
                for master, cluster in self._clusters.items():
                    cluster.renew(node)
                    touched[master] = None
            case ev.Received(peer=node, message=msg.Through() as message) if node in self._peers:
                self._through(self._peers[node], message, touched, now, out)
            case ev.Drain():
                self._draining = True
                for master, cluster in self._clusters.items():
                    cluster.drain()
                    if event.now:
                        cluster.leave_off(now, out)
                    touched[master] = None
            case _:
                pass  # of links that nothing goes through, or of no concern to a bridge

    # -- links ----------------------------------------------------------------------------------------------------------

    def _link_up(self, link: ev.LinkUp, now: Mono, out: list[fx.Effect]) -> None:
        node = link.peer
        self._peers[node] = Peer(link)
        if "work" in link.caps:
            out += [fx.Send(peer=node, message=_shown(each.link)) for each in self._clusters.values()]
        if "submit" in link.caps and link.certs:
            cluster = Cluster(self._identity, link, self._schedule, self._entropy, self._wall, self._deadlines)
            self._clusters[node] = cluster
            workers = self._workers(node)
            out += [fx.Send(peer=worker, message=_shown(link)) for worker in workers]
            cluster.begin(self._gather_s(node, workers, now), now, out)
            if self._draining:
                cluster.drain()
        self._since[node] = now

    def _link_down(self, node: NodeId, touched: dict[NodeId, None], out: list[fx.Effect]) -> None:
        if self._peers.pop(node, None) is None:
            return
        del self._since[node]
        own = self._clusters.pop(node, None)
        if own is not None:
            own.end()
            self._busy.pop(node, None)
            if own.busy:
                self._busy[node] = None
                if len(self._busy) > BUSY_MAX:
                    del self._busy[next(iter(self._busy))]
            out += [fx.Send(peer=worker, message=msg.Parted(node=node)) for worker in self._workers(node)]
        for master, cluster in self._clusters.items():
            cluster.leave(node)
            touched[master] = None

    def _workers(self, master: NodeId) -> list[NodeId]:
        """Return whom a master is shown to."""
        return [node for node, peer in self._peers.items() if node != master and "work" in peer.link.caps]

    def _gather_s(self, master: NodeId, workers: list[NodeId], now: Mono) -> float:
        """Return how long to wait for leaves that may hold leases of a master; not at all where none can be expected to."""
        assert self._began is not None, "a link came up before anything was handled"
        young = any(now - since < GATHER_S for since in (self._began, *(self._since[worker] for worker in workers)))
        return GATHER_S if young or master in self._busy else 0.0

    # -- what goes through ----------------------------------------------------------------------------------------------

    def _through(
        self, peer: Peer, message: msg.Through, touched: dict[NodeId, None], now: Mono, out: list[fx.Effect]
    ) -> None:
        node, about = peer.link.peer, NodeId(message.node)
        if about == self._me and node in self._clusters:
            touched[node] = None
            self._clusters[node].from_master(message.message, now, out)
        elif about in self._clusters and about != node and "work" in peer.link.caps:
            touched[about] = None
            self._clusters[about].from_leaf(peer, message.message, now, out)
        # Otherwise that master has just gone, which the peer is about to hear.

    def check(self) -> None:
        """Assert the invariants; they hold between any two calls of ``handle``."""
        self._deadlines.check()
        assert self._peers.keys() == self._since.keys(), "linked, but since when?"
        for master, cluster in self._clusters.items():
            assert master in self._peers, "a master without a link"
            cluster.check()


def _shown(link: ev.LinkUp) -> msg.MasterIs:
    """Return what workers are told of a linked master."""
    return msg.MasterIs(certs=link.certs, boot=link.boot, minor=link.minor)
