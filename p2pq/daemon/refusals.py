"""Who was refused, and why: counted every time, told of at most once a second for one source and reason."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from p2pq.daemon.dialing import ALREADY, OTHER_NODE, SENTENCES
from p2pq.model.ids import NodeId
from p2pq.model.notice import Notice, PeerRefused
from p2pq.wire import session
from p2pq.wire.session import HandshakeRefused

NOTES_KEPT: Final = 1024
NOTE_EVERY_S: Final = 1.0


class AlreadyLinked(HandshakeRefused):
    """Who answered is linked already, by another address or the other way round."""

    def __init__(self, node: NodeId) -> None:
        """Keep who it is: the core then knows that the address leads nowhere new."""
        super().__init__(ALREADY, SENTENCES[ALREADY])
        self.node = node


class OtherNode(HandshakeRefused):
    """A bridge leads to another member than it was asked for."""

    def __init__(self) -> None:
        """Take the sentence for it."""
        super().__init__(OTHER_NODE, SENTENCES[OTHER_NODE])


class GaveUp(HandshakeRefused):
    """Who dialled knows the mesh key and left before message 3, as a peer does that finds a link to us: nothing to tell of."""


class Refusals:
    """All refusals of a node's links."""

    def __init__(
        self, notice: Callable[[Notice], None], on_duplicate_key: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        """Count from nothing.

        Args:
            notice: takes PeerRefused.
            on_duplicate_key: told a sentence when another node uses this node's key.
            clock: seconds, never backwards.
        """
        self._notice, self._on_duplicate_key, self._clock = notice, on_duplicate_key, clock
        self._notes: OrderedDict[tuple[str, str], float] = OrderedDict()
        self.counters: Counter[str] = Counter()
        """What was refused or lost, by reason."""

    def add(self, ip: str, reason: str, peer: NodeId | None = None) -> None:
        """Count one, and tell of it."""
        self.counters[reason] += 1
        if reason == ALREADY:
            return  # two nodes dialled each other at the same moment: nothing to tell of
        if reason == session.DUPLICATE_KEY and peer is None:
            self.duplicate(ip)
        now = self._clock()
        key = (ip, reason)
        if now - self._notes.get(key, -NOTE_EVERY_S) < NOTE_EVERY_S:
            return
        self._notes[key] = now
        self._notes.move_to_end(key)
        if len(self._notes) > NOTES_KEPT:
            self._notes.popitem(last=False)
        self._notice(PeerRefused(address=ip, reason=reason, peer=peer))

    def duplicate(self, who: str) -> None:
        """Tell that another node uses this node's key."""
        self._on_duplicate_key(
            f"the node at {who} uses this node's key: this home was copied. "
            "Stop one of the two, delete identity.key and mesh/ in its home, start it again and let it join"
        )
