"""Through which bridges a worker takes part with a master, in its own word (docs/adr/0206).

Bridges pass on who their leaves are. Without a leaf's word any bridge that has seen its certificate and keycard could claim it,
and end what it runs for its masters. The latest word counts, by the life of the leaf and by its number in that.
"""

from typing import Final

from p2pq.core.identity import Identity
from p2pq.errors import Reject
from p2pq.model.ids import NodeId
from p2pq.wire import prims, sign
from p2pq.wire.objects import Mandate

HOMES_MAX: Final = 8192
"""Workers whose latest word is remembered; those that said something longest ago are forgotten."""

Number = tuple[int, int]
"""The life of a worker, and how many words it said in that before."""
Way = tuple[NodeId, ...]
"""The bridges from a worker to a master, the nearest to the worker first; none: by a link of its own."""


class Mandates:
    """The words of this node."""

    def __init__(self, identity: Identity, life: int) -> None:
        """Begin a life; its number is higher than those of all before."""
        self._identity, self._life = identity, life
        self._signer = prims.SigningKey(identity.secret)
        self._serial = 0

    def make(self, master: NodeId, way: Way) -> bytes:
        """Return this node's word that it takes part with a master on that way from now on."""
        self._serial += 1
        mandate = Mandate(
            mesh=self._identity.mesh,
            node=self._identity.node,
            master=master,
            way=way,
            life=self._life,
            serial=self._serial,
        )
        return sign.sign(self._signer, mandate)


def open_mandate(raw: bytes, node: NodeId, mesh: bytes, master: NodeId, way: Way) -> Number:
    """Return which of its words it is, if a worker says that it takes part with that master on that way.

    Raises:
        Reject: it is not that worker's word, or says something else.
    """
    mandate = sign.open_signed(raw, Mandate, node)
    if (mandate.mesh, mandate.node, mandate.master, mandate.way) != (mesh, node, master, way):
        raise Reject("mandate for another way")
    return mandate.life, mandate.serial


class Homes:
    """On which way each worker takes part with one master, as it said last."""

    def __init__(self) -> None:
        """Know of nobody."""
        self._latest: dict[NodeId, tuple[Number, Way]] = {}
        """The longest silent first."""

    def take(self, node: NodeId, number: Number, way: Way) -> None:
        """Take in a worker's word, new or once more.

        Raises:
            Reject: it has said since that it takes part on another way.
        """
        known = self._latest.get(node)
        if known is not None and (number, way) != known and number <= known[0]:
            raise Reject("it takes part another way by now")
        self._latest.pop(node, None)
        self._latest[node] = (number, way)
        if len(self._latest) > HOMES_MAX:
            del self._latest[next(iter(self._latest))]

    def way(self, node: NodeId) -> Way | None:
        """Return on which way a worker takes part; None where it has not said so."""
        known = self._latest.get(node)
        return None if known is None else known[1]

    def check(self) -> None:
        """Assert the bound."""
        assert len(self._latest) <= HOMES_MAX, "too many homes"
