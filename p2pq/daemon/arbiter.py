"""Which of two links to one peer stays, and which of a peer's lives is its latest. Pure; both ends decide alike.

Who dials looks first whether it has a link to whoever answered, and gives up before message 3 if so. So a message 3 says
that its sender has no link: the one at hand is dead and gives way. But two nodes may dial each other at the same moment:
then the link dialled by the smaller id stays.
"""

from collections import OrderedDict
from typing import Final, Protocol

from p2pq.daemon.dialing import ALREADY, FULL
from p2pq.model.ids import NodeId
from p2pq.wire import session
from p2pq.wire.session import PeerInfo

SIMULTANEOUS_S: Final = 10.0
"""Two nodes that dial each other do it within this time."""
BOOTS_KEPT: Final = 8
PEERS_KEPT: Final = 1024


class Existing(Protocol):
    """What counts of a link that stands."""

    info: PeerInfo
    dialled: bool
    up_at: float
    path: tuple[NodeId, ...]


class Arbiter:
    """Judges new links by those that stand or are under way."""

    def __init__(self, me: NodeId, links_max: int) -> None:
        """Begin without any link."""
        self._me = me
        self._links_max = links_max
        self._boots: OrderedDict[NodeId, list[bytes]] = OrderedDict()
        self.dialling: set[NodeId] = set()
        """Peers that have got our message 3 and have not answered yet."""

    def may_finish(self, info: PeerInfo, existing: Existing | None, *, direct: bool = True) -> bool:
        """Tell, as the one that dials, whether to send message 3. A direct link takes the place of one that bridges carry."""
        if info.node in self.dialling:
            return False
        return existing is None or existing.info.boot != info.boot or (direct and bool(existing.path))

    def why_not(
        self, info: PeerInfo, existing: Existing | None, count: int, now: float, *, direct: bool = True
    ) -> str | None:
        """Return, as the one that was dialled, why this member gets no link; None if it does and replaces the existing one.

        Args:
            info: who it is.
            existing: the link to it that stands, if any.
            count: how many links stand.
            now: on the clock of ``Existing.up_at``.
            direct: no bridge carries the new one.
        """
        if info.boot in self._boots.get(info.node, ())[:-1]:
            # A life of this node that another has replaced: two copies of one home take turns.
            return session.DUPLICATE_KEY
        smaller = self._me < info.node
        if info.node in self.dialling and smaller:
            return ALREADY
        if existing is None:
            return FULL if count >= self._links_max else None
        if direct and existing.path:
            return None
        young = now - existing.up_at < SIMULTANEOUS_S
        if existing.dialled and smaller and young and existing.info.boot == info.boot:
            return ALREADY
        return None

    def began(self, info: PeerInfo) -> None:
        """Remember which life of that peer is linked now."""
        boots = self._boots.setdefault(info.node, [])
        if info.boot not in boots:
            boots.append(info.boot)
            del boots[:-BOOTS_KEPT]
        self._boots.move_to_end(info.node)
        if len(self._boots) > PEERS_KEPT:
            self._boots.popitem(last=False)
