"""Nodes of other meshes: whether they may be linked, what is told them, and who of them is out.

A link with one is made like any other, but by the key and under the id of a peering that both meshes have signed (``peering``),
and only where this node's user wants to have to do with that mesh. It is a link for work: the addresses, mesh keys and
members of one mesh are no business of another. Peerings and the bans of both meshes do cross it, so that what an admin says on
one side holds on the other.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from typing import Final

import msgspec

from p2pq.core import events as ev
from p2pq.core.bans import Bans
from p2pq.core.effects import Drop, Effect, Emit, Record, Send
from p2pq.core.identity import Identity
from p2pq.core.peerings import Ours, Peerings
from p2pq.core.records import PeerBanKept, Restored
from p2pq.errors import Reject
from p2pq.model.ids import Mono, NodeId, Wall
from p2pq.model.notice import PeeringChanged, PeeringLapsed
from p2pq.wire import messages as msg
from p2pq.wire import peering as wire
from p2pq.wire import session, trust
from p2pq.wire.messages import PeeringKnown
from p2pq.wire.objects import Cert

NODES_MAX: Final = 4096
"""Nodes of other meshes whose mesh is remembered; of those that never were linked the one named longest ago goes first."""
BANS_PER_MESSAGE: Final = 256


class Abroad:
    """What a membership knows of other meshes."""

    def __init__(
        self,
        identity: Identity,
        restored: Restored,
        welcome: dict[bytes, tuple[str, ...]],
        wall: Callable[[Mono], Wall],
        links: Mapping[NodeId, ev.LinkUp],
        is_out: trust.IsBanned,
    ) -> None:
        """Take up what was kept; ``links`` is the membership's own, ``is_out`` its word on members of our mesh."""
        self.peerings = Peerings(identity.root, welcome, restored.peerings, restored.peer_bans)
        self._identity = identity
        self._wall = wall
        self._links = links
        self._is_out = is_out
        self._meshes: dict[NodeId, bytes] = {}
        self._owners: dict[NodeId, str] = {}
        """As their certificates have it, of those that were linked in this life: these alone have proved to be of their mesh. Of
        others a bridge abroad says so, which may be members of ours that are behind other bridges."""
        self._vouched: dict[NodeId, None] = {}
        """Nodes that a bridge of our mesh has said to be of ours, the latest last."""
        self._expelled: dict[NodeId | str, None] = {}
        self._parted: dict[NodeId, bytes] = {}
        """Of which mesh those are with whose mesh no peering holds any more, for when a new one does."""
        self._held: frozenset[bytes] = frozenset()

    # -- who may be linked ----------------------------------------------------------------------------------------------

    def usable(self, now: Mono) -> tuple[Ours, ...]:
        """Return what links with other meshes may be made by now, the latest first."""
        return self.peerings.usable(self._wall(now), self._is_out)

    def meshes(self, own: Bans, now: Mono) -> tuple[session.Mesh, ...]:
        """Return the same as what a handshake needs; ``own`` are the bans of our mesh."""
        return tuple(
            session.Mesh(
                root=ours.root,
                psks=(ours.key,),
                is_banned=partial(self.out, ours.mesh, ours.name, own=own),
                foreign=session.Foreign(
                    peering=ours.peering, realm=ours.name, may=ours.opened.theirs, welcome=ours.welcome
                ),
            )
            for ours in self.usable(now)
        )

    def mesh_of(self, node: NodeId) -> bytes:
        """Return the mesh of a node that is known to be of another one; else nothing."""
        return self._meshes.get(node, b"")

    def realm(self, node: NodeId | None) -> str:
        """Return what the mesh of a node is called that is known to be of another one; else nothing."""
        mesh = b"" if node is None else self.mesh_of(node)
        return next((opened.name for opened in self.peerings.all() if opened.mesh == mesh), "")

    def carries(self, mesh: bytes) -> bool:
        """Tell whether links between another mesh and ours may go through this node, and through bridges of that mesh to it."""
        return "bridge" in self.peerings.welcome(mesh)

    def joins(self, one: NodeId, other: NodeId) -> bool:
        """Tell whether this node, as a bridge, may bring two nodes together: nothing leads from one other mesh to the next."""
        meshes = [mesh for mesh in (self.mesh_of(one), self.mesh_of(other)) if mesh]
        return len(meshes) <= 1 and all(map(self.carries, meshes))

    def admits(self, link: ev.LinkUp, now: Mono) -> bool:
        """Tell whether a link stands by a peering that holds; one within our mesh does."""
        return not link.mesh or any(each.peering == link.peering for each in self.usable(now))

    def wanted(self, node: NodeId, now: Mono) -> bool:
        """Tell whether a node may be dialled as far as peerings go."""
        mesh = self.mesh_of(node)
        return not mesh or any(each.mesh == mesh for each in self.usable(now))

    def banned(self, node: NodeId, link: ev.LinkUp | None = None) -> bool:
        """Tell whether the admins of its own mesh say that a node of another mesh is out."""
        proved = self.mesh_of(node) if node in self._owners else b""
        mesh = proved if link is None else link.mesh
        owner = self._owners.get(node, "") if link is None else link.claimed
        return bool(mesh) and self.peerings.is_banned(mesh, node, owner)

    def out(self, mesh: bytes, realm: str, cert: Cert, own: Bans) -> bool:
        """Tell whether the holder of another mesh's certificate is out, by the word of either mesh's admins or this user."""
        node = NodeId(cert.sub)
        if node in own or wire.name_abroad(cert.owner, realm) in own:
            return True
        return self.peerings.is_banned(mesh, node, cert.owner)

    def linked(self, link: ev.LinkUp) -> None:
        """Remember of which mesh a linked node is."""
        if link.mesh:
            self._owners[link.peer] = link.claimed
            self._vouched.pop(link.peer, None)
            self._learn(link.peer, link.mesh)
        else:
            self._meshes.pop(link.peer, None)
            self._owners.pop(link.peer, None)
            self._parted.pop(link.peer, None)

    def _learn(self, node: NodeId, mesh: bytes) -> None:
        self._meshes.pop(node, None)
        self._parted.pop(node, None)
        self._meshes[node] = mesh
        if len(self._meshes) > NODES_MAX:
            claimed = next(
                (each for each in self._meshes if each not in self._owners and each not in self._links), None
            )
            oldest = claimed or next(each for each in self._meshes if each not in self._links)
            del self._meshes[oldest]
            self._owners.pop(oldest, None)

    def _vouch(self, node: NodeId) -> None:
        """That node is of our mesh, by the word of a bridge of ours."""
        self._meshes.pop(node, None)
        self._parted.pop(node, None)
        self._vouched.pop(node, None)
        self._vouched[node] = None
        if len(self._vouched) > NODES_MAX:
            del self._vouched[next(iter(self._vouched))]

    def ways(self, bridge: NodeId, message: msg.Reach, own: Container[NodeId]) -> msg.Reach:
        """Return what is believed of what a bridge says: one of another mesh speaks for that mesh only.

        One of ours may speak for meshes that this node wants to have to do with, even if it has not heard of the peering yet,
        and its word outlasts what is only claimed abroad; ``own`` are the nodes known to be of ours.
        """
        here = self._links[bridge].mesh
        meshes = dict(enumerate(message.meshes))
        found = []
        for number, way in enumerate(message.ways):
            node, said = NodeId(way.node), meshes.get(number, b"")
            mesh = here or said
            if said and (here or not self.peerings.welcome(said)):
                continue
            ours = node in own or node in self._vouched
            claimed = self._meshes.get(node)
            known = claimed if here or node in self._owners else None
            if mesh not in {known or (b"" if ours else mesh), claimed, self._parted.get(node)}:
                continue  # it has proved to be of another one, or who would know says so
            if mesh:
                self._learn(node, mesh)
            else:
                self._vouch(node)
            found.append(way)
        return msgspec.structs.replace(message, ways=tuple(found))

    # -- what is told and heard -----------------------------------------------------------------------------------------

    def heads(self, peer: NodeId, bans: bytes, mesh_keys: bytes, now: Mono) -> msg.Heads:
        """Return what a linked peer is told of what is known here."""
        mesh = self._links[peer].mesh
        if self._links[peer].minor < msg.PEERINGS_SINCE:
            return msg.Heads(bans=bans, mesh_keys=mesh_keys)
        foreign = self.peerings.bans_heads()
        if mesh:
            foreign = (*(each for each in foreign if each[0] == mesh), (self._identity.mesh, bans))
            bans = mesh_keys = bytes(32)
        return msg.Heads(bans=bans, mesh_keys=mesh_keys, peerings=self._head(mesh, now), foreign=foreign)

    def _head(self, mesh: bytes, now: Mono) -> bytes:
        """Return the head of the peerings that such a peer is told; nothing where there are none."""
        wall = self._wall(now)
        return self.peerings.head(wall, mesh) if self.peerings.told(wall, mesh) else b""

    def compare(self, peer: NodeId, theirs: msg.Heads, own: Bans, now: Mono) -> list[msg.Peerings | msg.BansKnown]:
        """Return what takes the two further: our peerings, and which bans of other meshes (``own``: of ours) we know."""
        link = self._links[peer]
        if link.minor < msg.PEERINGS_SINCE:
            return []
        known = self.peerings.told(self._wall(now), link.mesh)
        further: list[msg.Peerings | msg.BansKnown] = []
        if known and theirs.peerings != self._head(link.mesh, now):
            further.append(msg.Peerings(peerings=known))
        for mesh, head in theirs.foreign:
            if link.mesh and mesh not in {link.mesh, self._identity.mesh}:
                continue
            bans = own if link.mesh and mesh == self._identity.mesh else self.peerings.bans(mesh)
            if bans is not None and bans.head != head and not bans.full:
                further.append(msg.BansKnown(digests=bans.digests, mesh=mesh))
        return further

    def bans_beyond(self, peer: NodeId, mesh: bytes, digests: Iterable[bytes], own: Bans) -> tuple[bytes, ...]:
        """Return the bans of a mesh that a peer lacks, if they are any of its business."""
        link = self._links[peer]
        if link.mesh and mesh == self._identity.mesh:
            return own.beyond(digests)
        bans = None if link.mesh and mesh != link.mesh else self.peerings.bans(mesh)
        return () if bans is None else bans.beyond(digests)

    def heard(self, peer: NodeId, told: tuple[PeeringKnown, ...], now: Mono, out: list[Effect]) -> tuple[NodeId, ...]:
        """Take in what a peer, or this node's user, knows of peerings; return whom no peering lets in any more."""
        meshes: dict[bytes, None] = {}
        for each in told:
            try:
                news = self.peerings.hear(each, self._wall(now))
            except Reject as reject:
                out.append(Drop(peer=peer, reason=f"peering: {reject.reason}"))
                continue
            if news is None:
                continue
            opened, row = news
            meshes[opened.mesh] = None
            out.append(Record(row=row))
            message = msg.Peerings(peerings=(PeeringKnown(row.offer, row.accept, row.end),))
            out.extend(
                Send(peer=other, message=message)
                for other, link in self._links.items()
                if other != peer and link.minor >= msg.PEERINGS_SINCE and link.mesh in {b"", opened.mesh}
            )
            by = self._identity.name if peer == self._identity.node else self._links[peer].name
            out.append(Emit(notice=PeeringChanged(mesh=opened.name, ended=opened.ended is not None, by=by)))
        return self._out_of_peering(now) if meshes else ()

    def lapsed(self, now: Mono, out: list[Effect]) -> tuple[NodeId, ...]:
        """Return whom no peering lets in any more, as time has passed."""
        gone = self._out_of_peering(now)
        linked = [link for node in gone if (link := self._links.get(node)) is not None]
        out.extend(Emit(notice=PeeringLapsed(mesh=link.realm, peer=link.peer)) for link in linked)
        return gone

    def _out_of_peering(self, now: Mono) -> tuple[NodeId, ...]:
        """Return the nodes that were linked by a peering that does not hold now; nothing of theirs goes on here."""
        usable = self.usable(now)
        peerings, meshes = {each.peering for each in usable}, {each.mesh for each in usable}
        gone = [
            node
            for node, mesh in self._meshes.items()
            if (self._links[node].peering not in peerings if node in self._links else mesh not in meshes)
        ]
        for node in gone:
            if self._meshes[node] not in meshes:
                if node in self._owners:
                    self._expelled[node] = None
                if node not in self._links:
                    self._forget(node)
        return tuple(gone)

    def _forget(self, node: NodeId) -> None:
        self._parted[node] = self._meshes.pop(node)
        self._owners.pop(node, None)
        if len(self._parted) > NODES_MAX:
            del self._parted[next(iter(self._parted))]

    def begun(self, now: Mono) -> frozenset[bytes]:
        """Return, once, the meshes with which a peering holds that did not before: who was of them counts as such again."""
        held = frozenset(each.mesh for each in self.usable(now))
        fresh, self._held = held - self._held, held
        for node, mesh in list(self._parted.items()):
            if mesh in fresh:
                self._learn(node, mesh)
        return fresh

    def bans_heard(self, peer: NodeId, bans: tuple[bytes, ...], now: Mono, out: list[Effect]) -> tuple[NodeId, ...]:
        """Take in bans by admins of other meshes; return who is out by them."""
        news: dict[bytes, list[bytes]] = {}
        for raw in bans:
            try:
                heard = self.peerings.hear_ban(raw, self._wall(now))
            except Reject as reject:
                out.append(Drop(peer=peer, reason=f"ban: {reject.reason}"))
                continue
            if heard is not None:
                mesh, row = heard
                news.setdefault(mesh, []).append(raw)
                out.append(Record(row=row))
                self._expel(row)
        for of, raws in news.items():
            for other, link in self._links.items():
                if other != peer and link.minor >= msg.PEERINGS_SINCE and link.mesh in {b"", of}:
                    for first in range(0, len(raws), BANS_PER_MESSAGE):
                        part = tuple(raws[first : first + BANS_PER_MESSAGE])
                        out.append(Send(peer=other, message=msg.Bans(bans=part)))
        gone = [node for node, of in self._meshes.items() if of in news and self.banned(node)]
        self._expelled.update(dict.fromkeys(gone))
        return tuple(gone)

    def _expel(self, row: PeerBanKept) -> None:
        """Whoever of that mesh is named by that ban is out, if it still says so, whether it has a link now or not."""
        subject: NodeId | str = NodeId(row.subject[1:]) if row.subject[:1] == b"n" else row.subject[1:].decode()
        bans = self.peerings.bans(row.mesh)
        if bans is None or subject not in bans:
            return
        if not isinstance(subject, str):
            if subject in self._owners and self.mesh_of(subject) == row.mesh:
                self._expelled[subject] = None
            return
        realms = (opened.name for opened in self.peerings.all() if opened.mesh == row.mesh)
        self._expelled.update((wire.name_abroad(subject, realm), None) for realm in realms)

    def expelled(self) -> tuple[NodeId | str, ...]:
        """Return, once, the nodes and owners of other meshes of which nothing may go on here."""
        gone = tuple(self._expelled)
        self._expelled.clear()
        return gone

    def check(self) -> None:
        """Assert the bounds, and that the mesh of whoever is linked is known."""
        self.peerings.check()
        assert len(self._meshes) <= NODES_MAX, "too many nodes of other meshes"
        assert len(self._vouched) <= NODES_MAX, "too many nodes of ours"
        assert not self._vouched.keys() & self._meshes.keys(), "of ours, and of another mesh"
        assert len(self._parted) <= NODES_MAX, "too many nodes that have parted"
        assert self._parted.keys().isdisjoint(self._meshes), "parted, and not"
        assert self._owners.keys() <= self._meshes.keys(), "an owner of nobody"
        for link in self._links.values():
            assert self.mesh_of(link.peer) == link.mesh, "linked, but of another mesh"
