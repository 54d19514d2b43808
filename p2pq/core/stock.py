"""A bridge that batches: it answers its leaves for their masters, and speaks to masters for its leaves (docs/adr/0201).

Pure and soft: nothing of it is on disk, and nothing in it is known to nobody else. For each master, linked or shown by a bridge
above (docs/adr/0204), there is a ``Cluster``; this is what they have in common.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.cluster import Cluster
from p2pq.core.deadlines import Deadlines
from p2pq.core.events import LinkUp
from p2pq.core.identity import Identity
from p2pq.core.serving import Peer, Timer
from p2pq.core.through import Fell, Stood, cluster_of
from p2pq.core.views import Spoken
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.model.notice import TooFar
from p2pq.wire import messages as msg
from p2pq.wire import trust
from p2pq.wire.objects import Cert

GATHER_S: Final = 5.0
"""How long leaves have to say what they hold before a master is told: its leases that are not named then are lost. Where there
are bridges below it is so much longer for each of them that there may be in a row, as they wait for their own leaves first."""
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
        is_banned: trust.IsBanned,
    ) -> None:
        """Know nobody."""
        self._identity, self._schedule, self._is_banned = identity, schedule, is_banned
        self._entropy, self._wall = entropy, wall
        self._me = cluster_of(identity.node)
        self._deadlines: Deadlines[Timer] = Deadlines()
        self._peers: dict[NodeId, Peer] = {}
        self._speakers: dict[NodeId, Peer] = {}
        """What the bridges among them speak for, by bridge."""
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

    # What comes of ways, as ``Voice`` has it.

    def brought(self, master: NodeId) -> Mono | None:
        """Return when a master last granted or acknowledged something, since it is linked or stands."""
        cluster = self._clusters.get(master)
        return None if cluster is None else cluster.brought

    def waits(self, master: NodeId, now: Mono) -> bool:  # noqa: ARG002  leaves say what they wait for
        """Tell whether leaves here could work for that master."""
        cluster = self._clusters.get(master)
        return cluster is not None and cluster.peopled

    def keeps(self, master: NodeId, now: Mono) -> bool:
        """Tell whether there are attempts of a master here or at leaves, and no result of theirs waits for too long."""
        cluster = self._clusters.get(master)
        return cluster is not None and cluster.holds and not cluster.owed(now)

    def spoken(self) -> tuple[Spoken, ...]:
        """Return, for people, the masters with leaves, and those of which there is anything here."""
        found = [cluster.spoken() for cluster in self._clusters.values()]
        return tuple(each for each in found if each.leaves or each.stock)

    def toward(self, leaf: NodeId) -> NodeId | None:
        """Return the bridge below that leads to a leaf; None where none does."""
        found = (cluster.toward(leaf) for cluster in self._clusters.values())
        return next((bridge for bridge in found if bridge is not None), None)

    def handle(self, event: ev.Event | Stood | Fell, now: Mono) -> list[fx.Effect]:
        """Do what is due, take in the event, then say what is to be said.

        A master stands, or falls, as a bridge above shows it.
        """
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
        if isinstance(event, Stood | Fell):
            self._turn(event, touched, now, out)
        else:
            self._take_in(event, touched, now, out)
        for master in touched:
            if master in self._clusters:
                self._clusters[master].settle(now, out)
        return out

    def expel(self, gone: Callable[[Cert], bool], now: Mono) -> list[fx.Effect]:
        """Leaves of bridges below that are out, by their certificates, take part no more; others lose their links."""
        out: list[fx.Effect] = []
        for cluster in self._clusters.values():
            if cluster.expel(gone):
                cluster.settle(now, out)
        return out

    def _turn(self, change: Stood | Fell, touched: dict[NodeId, None], now: Mono, out: list[fx.Effect]) -> None:
        """The way to a master that is not linked is another now."""
        if isinstance(change, Stood):
            self._stand(change.link, touched, now, out)
        elif change.bridge in self._peers and self._fall(change.peer, out) and not change.known:
            leaving = msg.Through(node=change.peer, message=msg.Leaving(), cluster=True)
            out.append(fx.Send(peer=change.bridge, message=leaving))

    def _take_in(self, event: ev.Event, touched: dict[NodeId, None], now: Mono, out: list[fx.Effect]) -> None:
        match event:
            case ev.LinkUp(peer=peer):
                self._link_down(peer, touched, out)
                if not (event.path or event.mesh) and event.minor >= THROUGH_SINCE:
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
                pass  # of links that nothing goes through (of other meshes, too), or of no concern to a bridge

    # -- links ----------------------------------------------------------------------------------------------------------

    def _link_up(self, link: LinkUp, now: Mono, out: list[fx.Effect]) -> None:
        node = link.peer
        self._peers[node] = Peer(link)
        if "bridge" in link.caps:
            self._speakers[node] = Peer(msgspec.structs.replace(link, peer=cluster_of(node), path=(node,)))
        for each in self._clusters.values():
            if node in self._hearers(each.link):
                out += [fx.Send(peer=node, message=self._shown(each.link))]
                if node in self._speakers:
                    each.gather(GATHER_S * (msg.HOPS_MAX - len(each.link.path)))
        if "submit" in link.caps and link.certs:
            self._begin(link, now, out)
        self._since[node] = now

    def _stand(self, link: LinkUp, touched: dict[NodeId, None], now: Mono, out: list[fx.Effect]) -> None:
        """A bridge above shows a master."""
        if len(link.path) >= msg.HOPS_MAX:
            out.append(fx.Emit(notice=TooFar(master=link.peer, path=link.path)))
        elif link.path[0] in self._peers:
            self._begin(link, now, out)
            touched[link.peer] = None

    def _begin(self, link: LinkUp, now: Mono, out: list[fx.Effect]) -> None:
        """Speak to a master for a cluster from now on."""
        cluster = Cluster(
            self._identity, link, self._schedule, self._entropy, self._wall, self._deadlines, self._is_banned
        )
        self._clusters[link.peer] = cluster
        hearers = self._hearers(link)
        out += [fx.Send(peer=hearer, message=self._shown(link)) for hearer in hearers]
        cluster.begin(self._gather_s(link, hearers, now), now, out)
        if self._draining:
            cluster.drain()

    def _fall(self, master: NodeId, out: list[fx.Effect]) -> bool:
        """A master is gone, or the way to it; return whether there was one."""
        gone = self._clusters.pop(master, None)
        if gone is None:
            return False
        gone.end()
        self._busy.pop(master, None)
        if gone.busy:
            self._busy[master] = None
            if len(self._busy) > BUSY_MAX:
                del self._busy[next(iter(self._busy))]
        out += [fx.Send(peer=hearer, message=msg.Parted(node=master)) for hearer in self._hearers(gone.link)]
        return True

    def _link_down(self, node: NodeId, touched: dict[NodeId, None], out: list[fx.Effect]) -> None:
        if self._peers.pop(node, None) is None:
            return
        del self._since[node]
        self._speakers.pop(node, None)
        for master, cluster in list(self._clusters.items()):
            if node in (master, *cluster.link.path[:1]):
                self._fall(master, out)
                continue
            cluster.leave(node)
            cluster.leave(cluster_of(node))
            touched[master] = None

    def _hearers(self, master: LinkUp) -> list[NodeId]:
        """Return whom a master is shown to: workers, and bridges that are not on the way to it."""
        above = {master.peer, *master.path}
        found = ((node, peer.link.caps) for node, peer in self._peers.items() if node not in above)
        return [node for node, caps in found if "work" in caps or "bridge" in caps]

    def _gather_s(self, master: LinkUp, hearers: list[NodeId], now: Mono) -> float:
        """Return how long to wait for leaves that may hold leases of a master; not at all where none can be expected to."""
        assert self._began is not None, "a link came up before anything was handled"
        rows = msg.HOPS_MAX - len(master.path) if any(node in self._speakers for node in hearers) else 1
        wait_s = GATHER_S * rows
        young = any(now - since < wait_s for since in (self._began, *(self._since[hearer] for hearer in hearers)))
        return wait_s if young or master.peer in self._busy else 0.0

    def _shown(self, link: LinkUp) -> msg.MasterIs:
        """Return what workers, and bridges below, are told of a master."""
        bridges = (self._peers[link.path[0]].link.certs, *link.bridges) if link.path else ()
        return msg.MasterIs(certs=link.certs, boot=link.boot, minor=link.minor, path=link.path, bridges=bridges)

    # -- what goes through ----------------------------------------------------------------------------------------------

    def _through(
        self, peer: Peer, message: msg.Through, touched: dict[NodeId, None], now: Mono, out: list[fx.Effect]
    ) -> None:
        node, about = peer.link.peer, NodeId(message.node)
        if about == self._me and (linked := self._clusters.get(node)) is not None and not linked.link.path:
            touched[node] = None
            linked.from_master(message.message, now, out)
            return
        cluster = self._clusters.get(about)
        if cluster is None or about == node:
            return  # that master has just gone, which the peer is about to hear
        touched[about] = None
        speaker = self._speakers.get(node) if message.cluster else peer
        if message.cluster and node in cluster.link.path[:1]:
            cluster.from_master(message.message, now, out)
        elif speaker is not None and (message.cluster or "work" in peer.link.caps):
            cluster.from_leaf(speaker, message.message, now, out)

    def check(self) -> None:
        """Assert the invariants; they hold between any two calls of ``handle``."""
        self._deadlines.check()
        assert self._peers.keys() == self._since.keys(), "linked, but since when?"
        for master, cluster in self._clusters.items():
            assert (*cluster.link.path, master)[0] in self._peers, "a master without a link"
            cluster.check()
