"""One turn of a node: what its machines want done, sorted by who is to do or to hear it."""

from collections import deque

from p2pq.core.effects import Drop, Effect, Record, Send
from p2pq.core.records import ResultKept, ResultReleased, Row
from p2pq.core.through import Throughs
from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire import messages as msg


class Turn:
    """The effects of one turn; what the node says to itself is set aside, what is for a peer behind a bridge goes there."""

    __slots__ = ("_me", "_throughs", "out", "said", "suspects")

    def __init__(self, me: NodeId, throughs: Throughs) -> None:
        """Begin with nothing to do; ``throughs`` knows who is reached through whom."""
        self._me = me
        self._throughs = throughs
        self.out: list[Effect] = []
        """What the outside world is to do."""
        self.said: deque[msg.CoreMessage] = deque()
        """What this node said to itself and has yet to hear."""
        self.suspects: dict[NodeId, str] = {}
        """Bridges that did what only they can have done, and what; whoever tells of it empties it."""

    def over(self) -> list[Effect]:
        """Return what the outside world is to do; what was kept and let go of within this very turn is kept nowhere."""
        rows = [effect.row for effect in self.out if isinstance(effect, Record)]
        released = {(row.master, row.lease) for row in rows if isinstance(row, ResultReleased)}
        if not released:
            return self.out
        both = released.intersection((row.master, row.lease) for row in rows if isinstance(row, ResultKept))
        return [effect for effect in self.out if not (isinstance(effect, Record) and _of(effect.row, both))]

    def take(self, effects: list[Effect]) -> None:
        """Take in what a machine wants done, in order."""
        for effect in effects:
            bridge = self._throughs.bridge(effect.peer) if isinstance(effect, Send | Drop) else None
            if isinstance(effect, Drop) and effect.suspect:
                self.suspects[bridge or effect.peer] = effect.suspect
            if isinstance(effect, Send) and effect.peer == self._me:
                self.said.append(effect.message)
            elif isinstance(effect, Send | Drop) and bridge is not None:
                self.out.append(self._over(bridge, effect))
            else:
                self.out.append(effect)

    def _over(self, bridge: NodeId, effect: Send | Drop) -> Effect:
        if isinstance(effect, Drop):
            if effect.close:
                # Whoever is to blame, this way is no good: another bridge, or a link, may be.
                self._throughs.part(bridge, effect.peer)
            return Drop(peer=bridge, reason=f"through: {effect.reason}")
        assert isinstance(effect.message, msg.Passed), "what only linked peers say"
        return Send(peer=bridge, message=msg.Through(node=effect.peer, message=effect.message))


def _of(row: Row, results: set[tuple[NodeId, LeaseId]]) -> bool:
    return isinstance(row, ResultKept | ResultReleased) and (row.master, row.lease) in results
