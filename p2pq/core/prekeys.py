"""The seal prekeys of this node: others seal job keys to the newest; older ones open what is still on its way, then are gone.

Links learn a new one by a signed keycard, without connecting again.
"""

from collections.abc import Callable
from typing import Final

from p2pq.core import events as ev
from p2pq.core.identity import Identity
from p2pq.errors import Reject
from p2pq.model.ids import Mono, NodeId, Wall
from p2pq.wire import prims, seal, sign, trust
from p2pq.wire.objects import Keycard

PREKEY_S: Final = 7 * 24 * 3600.0
"""A prekey is used for so long, then a new one is drawn; seconds that the node is awake."""
CARD_MS: Final = 14 * 24 * 3600 * 1000
"""A keycard is good for so long: longer than its prekey is the newest."""


class Prekeys:
    """Private halves, in memory only, the newest first."""

    def __init__(self, identity: Identity, now: Mono, keep_s: float) -> None:
        """Begin with the prekey that handshakes name.

        Args:
            identity: has it.
            now: the present; the next one is drawn PREKEY_S later.
            keep_s: so long an older one opens what was sealed to it: a lease, and as much as clocks may differ.
        """
        self._keep_s = keep_s
        self._newest = identity.prekey_secret
        self._older: list[tuple[bytes, Mono]] = []
        self._due = Mono(now + PREKEY_S)
        self.public = identity.prekey
        """The public half of the newest."""
        self.turned = False
        """Whether it is another than this life began with."""

    def turn(self, now: Mono, entropy: Callable[[int], bytes]) -> bool:
        """Forget what is kept no longer, and draw a new prekey if it is time; return whether that was so."""
        self._older = [(secret, until) for secret, until in self._older if now < until]
        if now < self._due:
            return False
        self._older.insert(0, (self._newest, Mono(now + self._keep_s)))
        self._newest = entropy(prims.KEY_BYTES)
        self._due = Mono(now + PREKEY_S)
        self.public = prims.x25519_public(self._newest)
        self.turned = True
        return True

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Return what was sealed to the newest prekey, or to one that is still kept.

        Raises:
            Reject: it was sealed to another key, bound to something else, or altered.
        """
        for secret, _ in self._older:
            try:
                return seal.open_seal(secret, sealed, context)
            except Reject:
                continue
        return seal.open_seal(self._newest, sealed, context)


def make_card(prekey: bytes, identity: Identity, wall: Wall) -> bytes:
    """Return this node's signed word that this is its prekey from now on."""
    card = Keycard(
        mesh=identity.mesh, node=identity.node, boot=identity.boot, prekey=prekey, iat=wall, exp=wall + CARD_MS
    )
    return sign.sign(prims.SigningKey(identity.secret), card)


def open_card(raw: bytes, link: ev.LinkUp, mesh: bytes, wall: Wall) -> bytes:
    """Return the prekey that a linked node uses from now on.

    Raises:
        Reject: it is not that node's own word, of another life of it or another mesh, or not of this time.
    """
    card = sign.open_signed(raw, Keycard, NodeId(link.peer))
    if (card.mesh, card.node, card.boot) != (mesh, link.peer, link.boot):
        raise Reject("not of this link")
    _check_time(card, wall)
    return card.prekey


def open_leaf_card(raw: bytes, node: NodeId, mesh: bytes, wall: Wall) -> bytes:
    """Return the prekey of a node that is not linked. An old card costs no more than its node having to decline.

    Raises:
        Reject: it is not that node's own word, of another mesh, or not of this time.
    """
    card = sign.open_signed(raw, Keycard, node)
    if (card.mesh, card.node) != (mesh, node):
        raise Reject("keycard of another node")
    _check_time(card, wall)
    return card.prekey


def _check_time(card: Keycard, wall: Wall) -> None:
    if not card.iat - trust.SKEW_MS <= wall <= card.exp + trust.SKEW_MS:
        raise Reject("not of this time")
