"""Who is linked, whom to dial, who is out, what opens the gate; of other meshes, too, as far as ``abroad`` lets them in.

Discovery finds addresses; membership believes only authenticated links.
"""

from collections.abc import Callable
from random import Random
from typing import Final, assert_never

from p2pq.core import events as ev
from p2pq.core.abroad import Abroad
from p2pq.core.addresses import Addresses
from p2pq.core.bans import Bans, Subject, Word, row_of, subject_of
from p2pq.core.effects import Dial, Drop, Effect, Emit, Hangup, Record, Send
from p2pq.core.identity import Identity
from p2pq.core.meshkeys import MeshKeys
from p2pq.core.peers import Peer, absent, refusal, shown, told_to, up
from p2pq.core.reaching import Reaching, is_via, parse_via, via_address
from p2pq.core.records import MeshKeysKept, PeerSeen, Restored
from p2pq.core.suspects import Suspects
from p2pq.core.telling import Telling
from p2pq.errors import Reject
from p2pq.model.ids import Mono, NodeId, Wall
from p2pq.model.notice import LinksFull, MeshKeyRotated, OwnerBanned, PeerBanned, PeerDown, PeerRefused, PeerUp
from p2pq.wire import messages as msg
from p2pq.wire import session, trust
from p2pq.wire.objects import Cert, MeshKey

REMEMBERED_MAX: Final = 1024
"""Peers remembered; beyond it the one seen longest ago is not dialled after the next start."""
VIA_AFTER_S: Final = 3.0
"""So long a node that may be dialled directly has before it is dialled through a bridge."""
PLACES_MAX: Final = 8
"""Addresses told or remembered of a peer."""


class Membership:
    """Links, addresses, bans, mesh keys."""

    def __init__(  # noqa: PLR0913  each is a different fact
        self,
        identity: Identity,
        restored: Restored,
        links_max: int,
        rng: Random,
        now: Mono,
        wall: Callable[[Mono], Wall],
        *,
        bridging: bool = False,
        batching: bool = False,
        welcome: dict[bytes, tuple[str, ...]] | None = None,
    ) -> None:
        """Take up remembered peers, who are dialled at once, and bans. ``welcome`` is as for ``Peerings``.

        Raises:
            Reject: a restored ban or mesh key does not verify: the store belongs to another mesh.
        """
        self.bans = Bans(identity.root, (*restored.bans, *restored.owner_bans))
        self.mesh_keys = MeshKeys(identity, restored.mesh_keys)
        self._identity = identity
        self._links_max = links_max
        self._wall = wall
        self._links: dict[NodeId, ev.LinkUp] = {}
        self._remembered: dict[NodeId, PeerSeen] = {}
        self._owners: dict[NodeId, str] = {}  # of those remembered who were linked in this life
        self._addresses = Addresses(rng)
        self.abroad = Abroad(identity, restored, welcome or {}, wall, self._links, self.out)
        self._telling = Telling(self._links, self.bans, self.mesh_keys, self.abroad)
        self._reaching = Reaching(identity.node, bridging=bridging, batching=batching, carries=self.abroad.carries)
        self._suspects = Suspects(self._reaching)
        self._full = False
        self._leaving: dict[NodeId, None] = {}
        for seen in restored.peers[-REMEMBERED_MAX:]:
            self._remembered[seen.node] = seen
            wanted = seen.node != identity.node and not self.banned(seen.node)
            self._addresses.add(seen.addresses[:PLACES_MAX], seen.node, now, kept=True, dial=wanted)

    @property
    def deadline(self) -> Mono | None:
        """When a dial is due or given up."""
        return None if self._full else self._addresses.deadline

    def linked(self, peer: NodeId) -> bool:
        """Tell whether a link to that node stands."""
        return peer in self._links

    def link(self, peer: NodeId) -> ev.LinkUp | None:
        """Return what that node said at link-up, if it is linked."""
        return self._links.get(peer)

    def linked_peers(self) -> tuple[ev.LinkUp, ...]:
        """Return what all linked nodes said at link-up."""
        return tuple(self._links.values())

    def banned(self, node: NodeId, owner: str = "") -> bool:
        """Tell whether a node is out, or its owner: by this user's word, or by the latest word of any admin.

        Without ``owner`` the one counts that its certificate named when it was last linked in this life, if it was.
        """
        return node in self.bans or (owner or self._owners.get(node, "")) in self.bans or self.abroad.banned(node)

    def out(self, cert: Cert) -> bool:
        """Tell whether the holder of a certificate is out."""
        return self.banned(NodeId(cert.sub), cert.owner)

    def peers(self) -> tuple[Peer, ...]:
        """Return everyone linked, then remembered, then mere addresses."""
        linked = [up(link, self._suspects.why(link.peer)) for link in self._links.values()]
        others = self._addresses.absent(self._identity.node, self._links)
        return (*linked, *(self._absent(*each) for each in others))

    def _absent(self, node: NodeId | None, address: str) -> Peer:
        look = self._addresses.look(node, address)
        if node is None:
            return absent(node, look, None, "", banned=False)
        return absent(node, look, self._remembered.get(node), self._owners.get(node, ""), banned=self.banned(node))

    def handle(  # noqa: C901, PLR0912, PLR0915  one arm per event
        self, event: ev.Event, now: Mono
    ) -> list[Effect]:
        """Take in the event, then dial whom it is time to dial."""
        out: list[Effect] = []
        self._suspects.forgive(now)
        match event:
            case ev.AddressSeen(addresses=addresses, source=source, node=node):
                self._hint(addresses, node, now, kept=source in {"config", "memory"})
            case ev.LinkUp():
                self._link_up(event, now, out)
            case ev.LinkDown(peer=peer, reason=reason):
                self._link_down(peer, reason, now, out)
            case ev.DialFailed():
                self._dial_failed(event, now, out)
            case ev.Misserved(peer=peer, reason=reason):
                if peer in self._links and "bridge" in self._links[peer].caps:
                    out.extend(self._suspects.suspect((peer,), reason, now))
                else:
                    out.append(Drop(peer=peer, reason=reason))
            case ev.Received(peer=peer, message=message):
                if peer not in self._links:
                    out.append(Drop(peer=peer, reason="not linked"))
                else:
                    self._receive(peer, message, now, out)
            case ev.BanAsked(node=node, banned=banned, signed=signed):
                self._ban_asked(node, signed, now, out, banned=banned)
            case ev.OwnerBanAsked(owner=owner, banned=banned, signed=signed):
                self._ban_asked(owner, signed, now, out, banned=banned)
            case ev.MeshKeyAsked(signed=signed):
                self._keys_heard(self._identity.node, (signed,), now, out)
            case ev.PeeringAsked(known=known):
                self._follow_peerings(self.abroad.heard(self._identity.node, (known,), now, out), now, out)
            case ev.Drain(now=True):
                out.extend(Send(peer=peer, message=msg.Leaving()) for peer in self._links)
            case ev.Tick(wall=wall):
                if wall is not None:  # once a minute
                    self._follow_peerings(self.abroad.lapsed(now, out), now, out)
                    for peer in self._links:
                        self._telling.heads(peer, now, out)
            case (
                ev.Woke()
                | ev.Submitted()
                | ev.RetryAsked()
                | ev.CancelAsked()
                | ev.Progressed()
                | ev.Collected()
                | ev.CollectFailed()
                | ev.Delivered()
                | ev.DeliverFailed()
                | ev.Several()
                | ev.Offering()
                | ev.OwnerIs()
            ):
                pass
            case ev.Drain() | ev.Started() | ev.Vacated() | ev.Exited() | ev.TrainExited() | ev.Faulted():
                pass
            case _:
                assert_never(event)
        self._dial(now, out)
        return out

    def _receive(self, peer: NodeId, message: msg.CoreMessage, now: Mono, out: list[Effect]) -> None:
        if self._links[peer].mesh and isinstance(message, msg.Peers | msg.MeshKeys):
            out.append(Drop(peer=peer, reason="not for another mesh to say"))
            return
        match message:
            case msg.Peers(addresses=told):
                for node, addresses in told:
                    self._hint(addresses, NodeId(node), now, kept=False)
            case msg.Reach():
                self._reach(peer, message, now, out)
            case msg.Bans(bans=bans):
                self._bans_heard(peer, bans, now, out)
            case msg.Heads():
                self._telling.compare(peer, message, now, out)
            case msg.Peerings(peerings=known):
                self._follow_peerings(self.abroad.heard(peer, known, now, out), now, out)
            case msg.BansKnown():
                self._telling.bans_beyond(peer, message, now, out)
            case msg.MeshKeys(keys=keys):
                self._keys_heard(peer, keys, now, out)
            case msg.Leaving():
                self._leaving[peer] = None
            case (
                msg.ProfileIs()
                | msg.Holding()
                | msg.HasWork()
                | msg.Request()
                | msg.Granted()
                | msg.Nothing()
                | msg.Return()
                | msg.Heartbeat()
                | msg.Recall()
                | msg.Cancel()
                | msg.ResultReady()
                | msg.Receipted()
                | msg.Confirm()
                | msg.Confirmed()
                | msg.KeycardIs()
                | msg.MasterIs()
                | msg.Parted()
                | msg.Leaves()
                | msg.Report()
                | msg.Through()
            ):
                pass
            case _:
                assert_never(message)

    # -- links --------------------------------------------------------------------------------------------------------

    def _hint(self, addresses: tuple[str, ...], node: NodeId | None, now: Mono, *, kept: bool) -> None:
        if node == self._identity.node:
            return
        wanted = node is None or not (node in self._links or self.banned(node))
        self._addresses.add(addresses[: 2 * PLACES_MAX], node, now, kept=kept, dial=wanted)

    def _link_up(self, event: ev.LinkUp, now: Mono, out: list[Effect]) -> None:
        peer = event.peer
        if event.dialled:
            self._addresses.arrived(event.address, peer)
        if reason := self._why_not(event, now):
            out.append(Hangup(peer=peer, reason=reason))
            out.append(Emit(notice=PeerRefused(address=shown(event.address), reason=reason, peer=peer)))
            return
        if peer not in self._links and len(self._links) >= self._links_max:
            out.append(Hangup(peer=peer, reason="links-full"))
            self._say_full(out)
            return
        self._links[peer] = event
        self.abroad.linked(event)
        self._telling.heads(peer, now, out)
        given = (place for place in (event.address, *event.addresses) if place and not is_via(place))
        places = tuple(dict.fromkeys(given))[:PLACES_MAX]
        self._addresses.add(places, peer, now, kept=True, dial=False)
        self._addresses.rest(peer)
        if event.path:
            # Carried by bridges: a direct way is better, and looked for all the while.
            self._addresses.retry(peer, now, soon=False, which=lambda place: not is_via(place))
        if event.path and (seen := self._remembered.get(peer)):
            # What it says through a bridge says less than what was seen of it.
            places = tuple(dict.fromkeys((*places, *seen.addresses)))[:PLACES_MAX]
        self._remember(PeerSeen(node=peer, name=event.name, addresses=places), out, kept=not event.mesh)
        self._owners[peer] = event.owner
        out.extend(self._suspects.reached(event, now))
        out.append(Emit(notice=PeerUp(peer=peer, name=event.name, address=shown(event.address), path=event.path)))
        if not event.mesh and (told := told_to(peer, self._links, self._remembered)):
            out.append(Send(peer=peer, message=msg.Peers(addresses=told)))
        if event.minor < msg.TRUST_SINCE:
            self._telling.bans(peer, self.bans.signed, out)
        out.extend(Send(peer=to, message=reach) for to, reach in self._reaching.link_up(event, self._links))

    def _why_not(self, link: ev.LinkUp, now: Mono) -> str:
        """Return why a node gets no link; empty where it does."""
        if not self.abroad.admits(link, now):
            return session.NO_PEERING
        out = self.banned(link.peer, link.owner) or self.abroad.banned(link.peer, link)
        return trust.BANNED if out else ""

    def _reach(self, peer: NodeId, message: msg.Reach, now: Mono, out: list[Effect]) -> None:
        """Take in whom a bridge leads to. Of two nodes the one with the smaller id dials through it."""
        if "bridge" not in self._links[peer].caps:
            out.append(Drop(peer=peer, reason="ways, though it may not be a bridge"))
            return
        new, gone = self._reaching.heard(peer, self.abroad.ways(peer, message, self._remembered))
        self._no_way(peer, gone)
        for node in new:
            if self._identity.node < node:
                wanted = not (node in self._links or self.banned(node)) and self.abroad.wanted(node, now)
                way = via_address(peer, node)
                at = Mono(now + max(VIA_AFTER_S if self._addresses.of(node) else 0.0, self._later_s(way)))
                self._addresses.add((way,), node, at, kept=True, dial=wanted)

    def _later_s(self, address: str) -> float:
        """Return how long a place waits to be dialled for better ways to its node."""
        return VIA_AFTER_S * self._suspects.behind(*parse_via(address)) if is_via(address) else 0.0

    def ways(self, node: NodeId) -> tuple[NodeId, ...]:
        """Return the bridges that lead to a node, the best first; of equal ones that which carries its link."""
        link = self._links.get(node)
        return self._suspects.ways(node, link.path[:1] if link is not None else ())

    def _no_way(self, bridge: NodeId, nodes: list[NodeId]) -> None:
        self._suspects.excuse(bridge, nodes)
        for node in nodes:
            self._addresses.forget(via_address(bridge, node))

    def path(self, bridge: NodeId, node: NodeId) -> tuple[NodeId, ...]:
        """Return the bridges of a link to ``node`` that ``bridge`` carries, the nearest first, as far as it has told."""
        return self._reaching.path(bridge, node) or (bridge,)

    def _say_full(self, out: list[Effect]) -> None:
        if not self._full:
            self._full = True
            out.append(Emit(notice=LinksFull(links_max=self._links_max)))

    def _remember(self, seen: PeerSeen, out: list[Effect], *, kept: bool) -> None:
        """Remember a peer; those of other meshes not over a restart: their bridges, or the configuration, lead to them."""
        self._remembered.pop(seen.node, None)
        self._remembered[seen.node] = seen
        if len(self._remembered) > REMEMBERED_MAX:
            oldest = next(node for node in self._remembered if node not in self._links)
            del self._remembered[oldest]
            self._owners.pop(oldest, None)
        if kept:
            out.append(Record(row=seen))

    def _link_down(self, peer: NodeId, reason: str, now: Mono, out: list[Effect]) -> None:
        gone = self._links.pop(peer, None)
        if gone is None:
            return
        self._full = False
        self._no_way(peer, self._reaching.leave(peer))
        out.extend(Send(peer=to, message=reach) for to, reach in self._reaching.link_down(gone, self._links))
        out.append(Emit(notice=PeerDown(peer=peer, reason=reason)))
        out.extend(self._suspects.ended(gone, reason, now))
        self._telling.forget(peer)
        left = peer in self._leaving
        self._leaving.pop(peer, None)
        # Who said goodbye usually dials us when it is back. It may not be able to: not everybody accepts connections.
        if not self.banned(peer) and self.abroad.wanted(peer, now):
            self._addresses.retry(peer, now, soon=not left, later_s=self._later_s)

    def _dial_failed(self, event: ev.DialFailed, now: Mono, out: list[Effect]) -> None:
        before = self._addresses.get(event.address)
        reason = "" if before is None else before.reason
        gone = event.node is not None and (self.banned(event.node) or not self.abroad.wanted(event.node, now))
        wanted = event.node is None or not (self._has(event.node, event.address) or gone)
        place = self._addresses.failed(event.address, event.reason, now, dial=wanted)
        if place is not None and refusal(event.reason) and event.reason != reason:
            out.append(Emit(notice=PeerRefused(address=shown(event.address), reason=event.reason, peer=event.node)))
        if place is not None and is_via(event.address):
            out.extend(self._suspects.failed(*parse_via(event.address), event.reason, place.failures, now))
        if event.reason == "self":
            self._addresses.forget(event.address)

    def _dial(self, now: Mono, out: list[Effect]) -> None:
        while (at := self._addresses.deadline) is not None and at <= now:
            if len(self._links) >= self._links_max:
                self._say_full(out)
                return
            place = self._addresses.next(now)
            if place is None:
                continue
            if place.node is not None and self._has(place.node, place.address):
                self._addresses.arrived(place.address, place.node)
            else:
                out.append(Dial(address=place.address, node=place.node))

    def _has(self, node: NodeId, address: str) -> bool:
        """Tell whether there is a link to that node already that is as good as one to that address would be."""
        link = self._links.get(node)
        return link is not None and (not link.path or is_via(address))

    # -- bans ---------------------------------------------------------------------------------------------------------

    def _ban_asked(self, subject: Subject, signed: bytes, now: Mono, out: list[Effect], *, banned: bool) -> None:
        before = subject in self.bans
        self.bans.ask(subject, banned=banned)
        out.append(Record(row=row_of(subject, banned=banned)))
        if signed:
            self._bans_heard(self._identity.node, (signed,), now, out, asked=True)
        if (subject in self.bans) != before:
            self._apply(subject, self._identity.name, now, out)

    def _bans_heard(
        self, peer: NodeId, bans: tuple[bytes, ...], now: Mono, out: list[Effect], *, asked: bool = False
    ) -> None:
        news: list[bytes] = []
        foreign: list[bytes] = []
        turned: dict[Subject, Word] = {}
        for raw in bans:
            try:
                heard = self.bans.hear(raw, self._wall(now))
            except Reject as reject:
                if reject.reason == trust.WRONG_ROOT:
                    foreign.append(raw)
                else:
                    out.append(Drop(peer=peer, reason=f"ban: {reject.reason}"))
                continue
            if heard is None:
                continue
            word, subject = heard.word, subject_of(heard.word)
            news.append(raw)
            out.append(Record(row=row_of(subject, banned=word.banned, issuer=word.iss, signed=raw)))
            if heard.turned:
                turned[subject] = word
        for other in self._links:
            if other != peer:
                self._telling.bans(other, tuple(news), out)
        self._end_links(self.abroad.bans_heard(peer, tuple(foreign), now, out), now, out, reason=trust.BANNED)
        if not asked:
            for subject, word in turned.items():
                self._apply(subject, self._issuer(word), now, out)

    def _issuer(self, word: Word | MeshKey) -> str:
        if word.iss == self._identity.node:
            return self._identity.name
        link = self._links.get(NodeId(word.iss))
        return "an admin" if link is None else link.name

    def _apply(self, subject: Subject, by: str, now: Mono, out: list[Effect]) -> None:
        """Say that somebody is out, or in again; who is out has no link any more when this returns."""
        banned = subject in self.bans
        if isinstance(subject, str):
            nodes = [node for node, owner in self._owners.items() if owner == subject]
            out.append(Emit(notice=OwnerBanned(owner=subject, banned=banned, by=by)))
        else:
            nodes = [subject]
            out.append(Emit(notice=PeerBanned(peer=subject, banned=banned, by=by)))
        for node in nodes:
            if not banned:
                self._addresses.retry(node, now)
                continue
            self._addresses.rest(node)
            if node in self._links:
                # What else comes over this link does not count, however long it takes until that is closed.
                out.append(Hangup(peer=node, reason=trust.BANNED))
                self._link_down(node, trust.BANNED, now, out)

    def _follow_peerings(self, gone: tuple[NodeId, ...], now: Mono, out: list[Effect]) -> None:
        """End the links that no peering lets in any more, and look anew for whom one lets in that did not hold before."""
        self._end_links(gone, now, out)
        if not (fresh := self.abroad.begun(now)):
            return

        def may_come(node: NodeId | None) -> bool:
            if node is None:
                return True
            return self.abroad.mesh_of(node) in fresh and not (node in self._links or self.banned(node))

        self._addresses.anew(now, which=may_come, later_s=self._later_s)

    def _end_links(
        self, nodes: tuple[NodeId, ...], now: Mono, out: list[Effect], reason: str = session.NO_PEERING
    ) -> None:
        """End the links with nodes of other meshes that are not let in any more."""
        for node in nodes:
            self._addresses.rest(node)
            if node in self._links:
                out.append(Hangup(peer=node, reason=reason))
                self._link_down(node, reason, now, out)

    # -- mesh keys ----------------------------------------------------------------------------------------------------

    def _keys_heard(self, peer: NodeId, keys: tuple[bytes, ...], now: Mono, out: list[Effect]) -> None:
        news: list[bytes] = []
        by = ""
        for raw in keys:
            try:
                word = self.mesh_keys.hear(raw, self._wall(now), self.out)
            except Reject as reject:
                out.append(Drop(peer=peer, reason=f"mesh key: {reject.reason}"))
                continue
            if word is not None:
                news.append(raw)
                by = by or self._issuer(word)
        if not news:
            return
        out.append(Record(row=MeshKeysKept(signed=self.mesh_keys.signed)))
        for other in self._links:
            if other != peer:
                self._telling.keys(other, tuple(news), out)
        out.append(Emit(notice=MeshKeyRotated(by=by)))

    def check(self) -> None:
        """Assert the bounds, and that nobody is linked who is out for good."""
        self._addresses.check()
        self._suspects.check()
        self.bans.check()
        self.mesh_keys.check()
        self.abroad.check()
        assert len(self._links) <= self._links_max, "too many links"
        assert len(self._remembered) <= REMEMBERED_MAX + len(self._links), "too many peers remembered"
        assert self._identity.node not in self._links, "linked to itself"
        assert all(peer in self._remembered for peer in self._links), "linked, but not remembered"
