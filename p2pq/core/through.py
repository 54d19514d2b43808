"""Who takes part through a bridge: masters that it shows to workers, and the cluster that it speaks for to masters.

Both are peers without a link. What is said to them and by them goes in ``Through`` over the link to their bridge; a link of
their own takes their place.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from p2pq.core.deadlines import Deadlines
from p2pq.core.effects import Effect
from p2pq.core.events import LinkUp
from p2pq.core.ways import Voice, Ways
from p2pq.errors import Reject
from p2pq.model.ids import Mono, NodeId, Wall, short
from p2pq.wire import prims, trust
from p2pq.wire.messages import HOPS_MAX, MasterIs
from p2pq.wire.objects import Cert

SHOWN_MAX: Final = 1024
"""Masters that one bridge may show; further ones are ignored."""
TURNS_MAX: Final = 4
"""So often a bridge may show one master anew, or as another life, or on another way, ..."""
TURNS_S: Final = 10.0
"""... in so much time: each time all that was said must be said again, here and below. Else it stands when that time is over."""


def cluster_of(bridge: NodeId) -> NodeId:
    """Return the id of the worker that stands for all leaves of a bridge. Nobody has a key to it."""
    return NodeId(prims.blake2b(bridge, person="p2pq-cluster"))


def whereabouts(worker: NodeId, path: tuple[NodeId, ...]) -> tuple[NodeId, tuple[NodeId, ...]]:
    """Return whom people are told for a worker, and the bridges on the way there: of a cluster its bridge.

    That is as much as is known of an attempt until the bridge has said which leaf has it.
    """
    return (path[0], ()) if path and worker == cluster_of(path[0]) else (worker, path)


def check_way(way: Sequence[NodeId]) -> None:
    """See to it that a way, from a master over bridges to whom works for it, may be gone.

    Raises:
        Reject: it leads in a circle, or over too many bridges.
    """
    if len(set(way)) < len(way):
        raise Reject(f"the way leads in a circle: {_named(way)}")
    if len(way) - 2 > HOPS_MAX:
        raise Reject(f"the way leads over more than {HOPS_MAX} bridges: {_named(way)}")


def _named(way: Sequence[NodeId]) -> str:
    return " > ".join(map(short, way))


def bridges_of(
    path: tuple[bytes, ...], chains: Iterable[tuple[bytes, ...]], root: bytes, wall: Wall, is_banned: trust.IsBanned
) -> list[Cert]:
    """Return the certificates of the bridges on a way, which are shown by these chains.

    Raises:
        Reject: the chains are not theirs, do not lead to this mesh, or one may not be a bridge.
    """
    found = [trust.verify_chain(chain, root, wall, is_banned) for chain in chains]
    if tuple(each.sub for each in found) != path or any("bridge" not in each.caps for each in found):
        raise Reject("not every node on the way is known to be a bridge")
    return found


def _may_speak(bridge: LinkUp) -> None:
    """See to it that a peer may speak for others: between two meshes links are carried, and nobody speaks for anybody.

    Raises:
        Reject: it may not.
    """
    if bridge.mesh:
        raise Reject("it is of another mesh")
    if "bridge" not in bridge.caps:
        raise Reject("it may not be a bridge")


class Stood(msgspec.Struct, frozen=True):
    """A peer takes part through a bridge from now on, as if this link were up."""

    link: LinkUp
    cluster: bool
    """It works for us; otherwise it is a master that we may work for."""


class Fell(msgspec.Struct, frozen=True):
    """A peer takes part through that bridge no more."""

    peer: NodeId
    bridge: NodeId
    cluster: bool
    known: bool = False
    """The bridge knows: it said so itself."""


class _Shown(msgspec.Struct, frozen=True):
    """How a bridge lets a master take part."""

    link: LinkUp
    owners: tuple[str, ...]
    """Whose the further bridges on the way are, as ``LinkUp.path`` names them."""

    def allowed(self, banned: Callable[[NodeId, str], bool]) -> bool:
        """Tell whether neither the master nor a further bridge on the way is out."""
        way = zip((self.link.peer, *self.link.path[1:]), (self.link.owner, *self.owners), strict=True)
        return not any(banned(node, owner) for node, owner in way)


class Throughs:
    """What bridges have shown, and who stands through which of them."""

    def __init__(self, me: NodeId, root: bytes, is_banned: trust.IsBanned, voices: Iterable[Voice | None]) -> None:
        """Know of nobody. ``voices``: what of this node hears what comes over ways."""
        self._me, self._root, self._is_banned = me, root, is_banned
        self._ways = Ways(voices)
        self._turns: dict[tuple[NodeId, NodeId], tuple[Mono, int]] = {}
        """By bridge and master: since when it has shown it, and how often."""
        self._later: dict[tuple[NodeId, NodeId], _Shown] = {}
        """What was shown once too often, and when it counts."""
        self._deadlines: Deadlines[tuple[NodeId, NodeId]] = Deadlines()
        self._shown: dict[NodeId, dict[NodeId, _Shown]] = {}
        """By bridge, then by master."""
        self._clusters: dict[NodeId, LinkUp] = {}
        """By bridge."""
        self._standing: dict[NodeId, Stood] = {}
        self._parted: dict[tuple[NodeId, NodeId], None] = {}
        """Bridges, and whom they themselves have parted since ``settle``."""
        self.changed = False
        """Whether ``settle`` may have something to say."""

    @property
    def deadline(self) -> Mono | None:
        """When to call ``fire`` at the latest."""
        instants = (self._ways.deadline, self._deadlines.next)
        return min((at for at in instants if at is not None), default=None)

    def fire(self, now: Mono) -> list[Effect]:
        """Judge the ways on which nothing came for too long, and take in what was shown too often; return what is to be told."""
        told = self._ways.fire(now)
        self.changed = self.changed or bool(told)
        while (key := self._deadlines.pop(now)) is not None:
            self._take(key, self._later.pop(key), now)
        return told

    def woke(self, now: Mono) -> None:
        """This node did nothing for a while: ways have their time anew."""
        self._ways.woke(now)

    def bridge(self, peer: NodeId) -> NodeId | None:
        """Return the bridge through which a peer stands; None where it does not."""
        stood = self._standing.get(peer)
        return None if stood is None else stood.link.path[0]

    def get(self, peer: NodeId) -> Stood | None:
        """Return how a peer stands; None where it does not."""
        return self._standing.get(peer)

    def peers(self) -> tuple[Stood, ...]:
        """Return who stands through a bridge."""
        return tuple(self._standing.values())

    def show(self, bridge: LinkUp, message: MasterIs, wall: Wall, now: Mono) -> None:
        """Take in that a bridge shows a master; what it shows too often stands later, and meanwhile not at all.

        Raises:
            Reject: it, or another node on the way, is no bridge of this mesh, a chain does not lead to this mesh, that member may
                not give work, or the way is none that may be gone.
        """
        _may_speak(bridge)
        cert = trust.verify_chain(message.certs, self._root, wall, self._is_banned)
        if "submit" not in cert.caps:
            raise Reject("that member may not give work")
        master, path = NodeId(cert.sub), (bridge.peer, *map(NodeId, message.path))
        check_way((master, *reversed(path), self._me))
        further = bridges_of(message.path, message.bridges, self._root, wall, self._is_banned)
        shown, key = self._shown.setdefault(bridge.peer, {}), (bridge.peer, master)
        known = master in shown or key in self._later
        if not known and len(shown) + sum(each == bridge.peer for each, _ in self._later) >= SHOWN_MAX:
            return
        link = LinkUp(
            peer=master,
            name=cert.name,
            owner=cert.owner,
            caps=cert.caps,
            boot=message.boot,
            minor=min(bridge.minor, message.minor),
            prekey=b"",
            address="",
            path=path,
            certs=message.certs,
            bridges=message.bridges,
        )
        entry = _Shown(link, tuple(each.owner for each in further))
        if entry == shown.get(master):
            return
        since, turns = self._turns.get(key, (now, 0))
        if turns < TURNS_MAX or now - since >= TURNS_S:
            self._drop_later(key)
            self._take(key, entry, now)
            return
        self.part(bridge.peer, master)
        self._later[key] = entry
        self._deadlines.set(key, Mono(since + TURNS_S))

    def _take(self, key: tuple[NodeId, NodeId], entry: _Shown, now: Mono) -> None:
        """A bridge shows a master from now on."""
        since, turns = self._turns.get(key, (now, 0))
        self._turns[key] = (since, turns + 1) if now - since < TURNS_S else (now, 1)
        self._shown.setdefault(key[0], {})[key[1]] = entry
        self.changed = True

    def _drop_later(self, key: tuple[NodeId, NodeId]) -> None:
        self._later.pop(key, None)
        self._deadlines.cancel(key)

    def speak(self, bridge: LinkUp) -> None:
        """Take in that a bridge speaks for its cluster.

        Raises:
            Reject: it is no bridge of this mesh.
        """
        _may_speak(bridge)
        self.changed = True
        self._clusters.setdefault(
            bridge.peer,
            msgspec.structs.replace(
                bridge,
                peer=cluster_of(bridge.peer),
                caps=("work",),
                prekey=b"",
                address="",
                path=(bridge.peer,),
                certs=(),
            ),
        )

    def parted(self, bridge: NodeId, peer: NodeId) -> None:
        """Take in that a peer takes part through that bridge no more, by the bridge's word."""
        self.part(bridge, peer)
        self._parted[bridge, peer] = None

    def part(self, bridge: NodeId, peer: NodeId) -> None:
        """Take part with a peer through that bridge no more, as it broke its word, or the bridge did."""
        self.changed = True
        self._shown.get(bridge, {}).pop(peer, None)
        self._drop_later((bridge, peer))
        if peer == cluster_of(bridge):
            self._clusters.pop(bridge, None)

    def leave(self, bridge: NodeId) -> None:
        """Forget all that a bridge has shown: the link to it is gone."""
        self.changed = True
        self._shown.pop(bridge, None)
        self._clusters.pop(bridge, None)
        for key in [key for key in self._later if key[0] == bridge]:
            self._drop_later(key)
        self._turns = {key: turns for key, turns in self._turns.items() if key[0] != bridge}

    def settle(
        self, linked: Callable[[NodeId], bool], banned: Callable[[NodeId, str], bool], now: Mono
    ) -> list[Fell | Stood]:
        """Return what has changed since the last time: who fell, then who stands.

        A master stands through the best of the bridges that show it, and stays there until another one is better (``Ways``); not
        while it has a link of its own.
        """
        self.changed = False
        changes: list[Fell | Stood] = []
        shown = self._found(banned)
        found = {peer: Stood(self._ways.best(links), cluster=False) for peer, links in shown.items()}
        clusters = (link for link in self._clusters.values() if not banned(link.peer, link.owner))
        found |= {link.peer: Stood(link, cluster=True) for link in clusters}
        for peer, stood in list(self._standing.items()):
            bridge = stood.link.path[0]
            best = found.get(peer)
            moves = best is None or (not stood.cluster and self._ways.better(best.link, stood.link))
            offer = self._offer(stood, banned)
            if moves or offer != stood.link or linked(peer):
                del self._standing[peer]
                if offer is None and not stood.cluster:
                    self._ways.gone(stood.link, now)
                self._ways.fall(peer)
                changes.append(Fell(peer, bridge, stood.cluster, (bridge, peer) in self._parted))
        self._parted.clear()
        for peer, stood in found.items():
            if peer not in self._standing and not linked(peer):
                self._standing[peer] = stood
                changes.append(stood)
                if not stood.cluster:
                    self._ways.stand(stood.link, now)
        for peer, links in shown.items():
            self._ways.watch(peer, now, several=len(links) > 1)
        self._ways.forget(shown.__contains__)
        return changes

    def _found(self, banned: Callable[[NodeId, str], bool]) -> dict[NodeId, list[LinkUp]]:
        """Return the ways on which each master could stand."""
        found: dict[NodeId, list[LinkUp]] = {}
        for shown in self._shown.values():
            for peer, each in shown.items():
                if each.allowed(banned):
                    found.setdefault(peer, []).append(each.link)
        return found

    def _offer(self, stood: Stood, banned: Callable[[NodeId, str], bool]) -> LinkUp | None:
        """Return how the bridge that somebody stands through lets it take part now; None where it does not or may not."""
        bridge, peer = stood.link.path[0], stood.link.peer
        if stood.cluster:
            link = self._clusters.get(bridge)
            return None if link is None or banned(peer, link.owner) else link
        shown = self._shown.get(bridge, {}).get(peer)
        return None if shown is None or not shown.allowed(banned) else shown.link

    def check(self) -> None:
        """Assert that who stands was shown by that bridge."""
        self._ways.check()
        self._deadlines.check()
        assert self._later.keys() == dict.fromkeys(self._deadlines).keys(), "what was shown never counts"
        assert self.changed or not self._parted, "what bridges have parted is remembered for nothing"
        for stood in self._standing.values():
            assert stood.link == self._offer(stood, lambda *_: False), "somebody stands who was not shown"
        assert all(len(shown) <= SHOWN_MAX for shown in self._shown.values()), "a bridge shows too many"
