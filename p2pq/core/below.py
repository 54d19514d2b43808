"""A bridge below a bridge: the leaves that it speaks for to one master, as the bridge above knows them (docs/adr/0204).

To the bridge above it is one more leaf that stands for many. It is believed no more than any bridge: each leaf shows its own
certificate and keycard, and what comes of leases is signed by the leaf.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import msgspec

from p2pq.core.identity import Identity
from p2pq.core.mandates import Homes, open_mandate
from p2pq.core.prekeys import open_leaf_card
from p2pq.core.through import bridges_of, check_way
from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import trust
from p2pq.wire.messages import PLACES_MAX, Leaf
from p2pq.wire.objects import Cert

SENT_MAX: Final = 256
"""Manifests of which is known to which leaves the bridge below has been sent the job key."""


class Below:
    """The leaves of a bridge below."""

    def __init__(
        self,
        identity: Identity,
        bridge: NodeId,
        certs: tuple[bytes, ...],
        above: tuple[NodeId, ...],
        is_banned: trust.IsBanned,
        homes: Homes,
    ) -> None:
        """Know of no leaf.

        Args:
            identity: who this node is.
            bridge: the one below.
            certs: its certificates, which go up with its leaves.
            above: the master, and the bridges from it to this node, which is not among them.
            is_banned: who is out.
            homes: on which way each worker takes part.
        """
        self.bridge, self._homes = bridge, homes
        self._certs_of_bridge = certs
        self._identity, self._above, self._is_banned = identity, above, is_banned
        self.leaves: dict[NodeId, Leaf] = {}
        """As the master is told of them: with the bridge below on their path."""
        self._certs: dict[NodeId, Cert] = {}
        """Of the leaves."""
        self._keyed: dict[bytes, dict[NodeId, None]] = {}
        """By manifest, the least recently used first: the leaves whose job keys that bridge has been sent."""

    def introduce(self, leaf: Leaf, wall: Wall, *, room: int) -> tuple[NodeId, bool]:
        """Take a leaf in, or what has changed of it; return who it is, and whether what was sealed to it is of no use any more.

        Raises:
            Reject: it is no worker of this mesh, its keycard is not its own, the way to it is too long or leads in a circle, one
                on it is shown that is no bridge, it did not say that it takes part this way, or takes part another way by now, or
                there is no ``room`` for one more.
        """
        cert = trust.verify_chain(leaf.certs, self._identity.root, wall, self._is_banned)
        if "work" not in cert.caps:
            raise Reject("no work capability")
        node, path = NodeId(cert.sub), (self.bridge, *map(NodeId, leaf.path))
        check_way((*self._above, self._identity.node, *path, node))
        if leaf.bridges:
            bridges_of(leaf.path, leaf.bridges, self._identity.root, wall, self._is_banned)
        open_leaf_card(leaf.card, node, self._identity.mesh, wall)
        before = self.leaves.get(node)
        if before is None and room <= 0:
            raise Reject("too many leaves")
        way = (*reversed(path), self._identity.node, *reversed(self._above[1:]))
        self._homes.take(node, open_mandate(leaf.mandate, node, self._identity.mesh, self._above[0], way), way)
        # All of the way is shown, or nothing.
        shown = self._certs_of_bridge and len(leaf.bridges) == len(leaf.path)
        bridges = (self._certs_of_bridge, *leaf.bridges) if shown else ()
        self.leaves[node] = msgspec.structs.replace(leaf, path=path, bridges=bridges)
        self._certs[node] = cert
        return node, before is not None and before.card != leaf.card

    def home(self, node: NodeId) -> bool:
        """Tell whether a leaf is there, and has not said since that it takes part another way."""
        if (leaf := self.leaves.get(node)) is None:
            return False
        way = (*map(NodeId, reversed(leaf.path)), self._identity.node, *reversed(self._above[1:]))
        return self._homes.way(node) == way

    def leave(self, node: NodeId) -> bool:
        """A leaf is there no more; return whether it was."""
        self._certs.pop(node, None)
        return self.leaves.pop(node, None) is not None

    def expel(self, gone: Callable[[Cert], bool]) -> list[NodeId]:
        """Forget the leaves that are out, by their certificates, whatever that bridge knows of it; return which."""
        found = [node for node, cert in self._certs.items() if gone(cert)]
        for node in found:
            self.leave(node)
        return found

    def new_keys(self, digest: bytes, leaves: Iterable[NodeId]) -> list[NodeId]:
        """Return those of some leaves whose key of a job that bridge has not been sent, and count it as sent now.

        They are as many as one message may bring, at most.
        """
        keyed = self._keyed.pop(digest, {})
        self._keyed[digest] = keyed
        if len(self._keyed) > SENT_MAX:
            del self._keyed[next(iter(self._keyed))]
        new = list(islice((leaf for leaf in leaves if leaf not in keyed), PLACES_MAX))
        keyed |= dict.fromkeys(new)
        return new

    def unkey(self, leaves: Iterable[NodeId]) -> None:
        """What was sealed to leaves is of no use to them any more."""
        gone = dict.fromkeys(leaves)
        for keyed in self._keyed.values():
            few = gone if len(gone) < len(keyed) else keyed
            for leaf in [leaf for leaf in few if leaf in gone and leaf in keyed]:
                del keyed[leaf]

    def forget_keys(self) -> None:
        """That bridge has lost what it was sent."""
        self._keyed.clear()
