"""Whom to ask for blobs: their holder, or one of the bridges that lead there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from p2pq.core.events import Misserved
from p2pq.daemon.blobasks import PeerLink
from p2pq.model.ids import NodeId


@dataclass(frozen=True, slots=True)
class Way:
    """Whom to ask for blobs."""

    ask: NodeId
    source: bytes = b""
    """Who has them, where that is another: then who is asked is a bridge."""

    @property
    def bridge(self) -> NodeId | None:
        """The bridge that is asked, if one is."""
        return self.ask if self.source else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridges:
    """What bridges have to do with the blobs of this node."""

    serves: bool = False
    """Whether it is one: it gets blobs for peers from others."""
    speaks: Callable[[NodeId], NodeId | None] = lambda _: None
    """Return the bridge that speaks for a node that is not linked; None if none does."""
    ways: Callable[[NodeId], Sequence[NodeId]] = lambda _: ()
    """Return the bridges that lead to a node, the best first."""
    joins: Callable[[NodeId, NodeId], bool] = lambda _one, _other: True
    """Tell whether this node, as a bridge, may get for the first what the second has: nothing goes on to a third mesh."""
    post: Callable[[Misserved], None] = lambda _: None
    """Take what a bridge, or any other peer, did that it must not do."""

    def gets(self, links: Mapping[NodeId, PeerLink], peer: NodeId, holder: NodeId) -> bool:
        """Tell whether this node, as a bridge, gets for a peer what another one has; never by way of that peer itself.

        The holder may be linked, over other bridges or not, or take part through the bridge that speaks for it.
        """
        link = links.get(holder)
        nearest = self.speaks(holder) if link is None else link.bridge
        known = link is not None or nearest is not None
        return self.serves and known and peer not in {nearest, holder} and self.joins(peer, holder)

    def way(
        self, links: Mapping[NodeId, PeerLink], peer: NodeId, through: NodeId | None, idlers: Mapping[NodeId, int]
    ) -> Way | None:
        """Return whom to ask for what a peer has; None where nothing leads there.

        Behind bridges that is the best of those that have brought nothing least often.

        Args:
            links: those of this node.
            peer: who has it.
            through: the linked bridge that spoke for the peer when this was decided, where it is not linked itself.
            idlers: how often a bridge has brought nothing.
        """
        link = links.get(peer)
        if link is not None and link.bridge is None:
            return Way(peer)
        ways, nearest = self.ways(peer), self.speaks(peer) or through if link is None else link.bridge
        bridges = (nearest, *ways) if link is None else (*ways, nearest)
        near = [bridge for bridge in bridges if bridge is not None and bridge in links and links[bridge].bridge is None]
        return Way(min(near, key=lambda bridge: idlers.get(bridge, 0)), source=peer) if near else None
