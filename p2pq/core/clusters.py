"""Clusters as a master knows them: the leaves that a bridge speaks for, and how many attempts of a job fit there.

A leaf is believed by its own certificate and keycard. Of what the bridge says only where a leaf stands, what it offers and
what room it has is taken on trust: that decides where attempts go, never whether a result counts.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from p2pq.core.identity import Identity
from p2pq.core.mandates import Homes, open_mandate
from p2pq.core.placement import Ask, barrier
from p2pq.core.prekeys import open_leaf_card
from p2pq.core.through import bridges_of, check_way
from p2pq.errors import Reject
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.wire import prims, trust
from p2pq.wire.messages import Leaf
from p2pq.wire.objects import ITEMS_MAX, Cert, GrantItem, ReceiptItem

LEAVES_TOTAL_MAX: Final = 4096
"""Leaves of one cluster; further ones are ignored."""
LEFT_MAX: Final = 1024
"""Leaves that have left and whose results still count when they come this way, the latest."""
REFUSED_MAX: Final = 1024
"""Leaves that are out but still have job keys, the latest; what is placed at one of these is taken back."""
SHUNNED_MAX: Final = 16
"""... and of these again the latest; attempts are granted so that they avoid them. Each makes a grant longer."""
AHEAD_SHARE: Final = 2
"""Keys of a job that go ahead to a cluster in all, for each leaf; whoever loses them again and again gets what it needs only."""
AHEAD_JOBS_MAX: Final = 4096
"""Jobs of which that is known."""
KEYS_MAX: Final = 64
"""Jobs per leaf whose key is known to have been sent; beyond it the first is sent again."""


class LeafView:
    """A worker below a bridge."""

    __slots__ = ("cert", "certs", "keyed", "path", "prekey", "profile")

    def __init__(self, leaf: Leaf, cert: Cert, prekey: bytes) -> None:
        """Know it by what its bridge showed; that has been verified."""
        self.cert = cert
        self.certs = leaf.certs
        """The whole chain, kept with what it brings."""
        self.prekey = prekey
        self.profile = leaf.profile
        self.path = tuple(map(NodeId, leaf.path))
        """Further bridges on the way to it, the nearest first."""
        self.keyed: dict[JobId, None] = {}
        """Jobs whose key has been sent, sealed to its prekey, the first first."""


class Cluster:
    """The leaves of one bridge."""

    __slots__ = ("_ahead", "_left", "bridge", "leaves", "receipts", "refused")

    def __init__(self, bridge: NodeId) -> None:
        """Begin without leaves."""
        self.bridge = bridge
        self.leaves: dict[NodeId, LeafView] = {}
        self._left: dict[NodeId, LeafView] = {}
        self._ahead: dict[JobId, int] = {}
        """Keys that went ahead, the job of the latest last."""
        self.refused: dict[NodeId, None] = {}
        """Leaves that are out here, though perhaps not for the bridge."""
        self.receipts: list[ReceiptItem] = []
        """What is to be said of results; whoever says it empties it."""

    def introduce(self, leaf: Leaf, identity: Identity, wall: Wall, is_banned: trust.IsBanned, homes: Homes) -> NodeId:
        """Take a leaf in, or what has changed of it; return who it is.

        Raises:
            Reject: it is no worker of this mesh, its keycard is not its own or not usable, the way to it is none that may be
                gone, one on it is shown that is no bridge, it did not say that it takes part this way, or takes part another way
                by now, or there are too many.
        """
        cert = trust.verify_chain(leaf.certs, identity.root, wall, is_banned)
        if "work" not in cert.caps:
            raise Reject("no work capability")
        node = NodeId(cert.sub)
        check_way((identity.node, self.bridge, *map(NodeId, leaf.path), node))
        if leaf.bridges:
            bridges_of(leaf.path, leaf.bridges, identity.root, wall, is_banned)
        before = self.leaves.get(node)
        if before is None and len(self.leaves) >= LEAVES_TOTAL_MAX:
            raise Reject("too many leaves")
        prekey = open_leaf_card(leaf.card, node, identity.mesh, wall)
        # That a job key cannot be sealed to it is noticed now, not once tasks have been granted.
        prims.x25519_shared(bytes(prims.KEY_BYTES), prekey)
        way = (*map(NodeId, reversed(leaf.path)), self.bridge)
        homes.take(node, open_mandate(leaf.mandate, node, identity.mesh, identity.node, way), way)
        view = LeafView(leaf, cert, prekey)
        if before is not None and before.prekey == prekey:
            view.keyed = before.keyed
        self._left.pop(node, None)
        self.refused.pop(node, None)
        self.leaves[node] = view
        return node

    def leave(self, node: NodeId) -> None:
        """A leaf takes part here no more; results that it has ended still count."""
        self.refused.pop(node, None)
        if (leaf := self.leaves.pop(node, None)) is not None:
            self._left[node] = leaf
            if len(self._left) > LEFT_MAX:
                del self._left[next(iter(self._left))]

    def expel(self, gone: Callable[[Cert], bool]) -> list[NodeId]:
        """Forget the leaves that are out, by their certificates; return which. Nothing that they bring counts any more."""
        found = [node for known in (self.leaves, self._left) for node, leaf in known.items() if gone(leaf.cert)]
        for node in found:
            self.leaves.pop(node, None)
            self._left.pop(node, None)
            self.refused[node] = None
            if len(self.refused) > REFUSED_MAX:
                del self.refused[next(iter(self.refused))]
        return found

    @property
    def shunned(self) -> tuple[NodeId, ...]:
        """The leaves that are out which attempts are to avoid."""
        return tuple(islice(reversed(self.refused), SHUNNED_MAX))

    def known(self, node: NodeId) -> LeafView | None:
        """Return a leaf that is here, or was until lately."""
        return self.leaves.get(node) or self._left.get(node)

    @property
    def slots(self) -> int:
        """How many cpus the leaves offer in all."""
        return sum(leaf.profile.slots for leaf in self.leaves.values())

    def able(self, ask: Ask) -> Iterator[NodeId]:
        """Yield the leaves that could run such a task."""
        for node, leaf in self.leaves.items():
            if barrier(ask, leaf.profile, node, own=False) is None:
                yield node

    def may_go_ahead(self, job: JobId) -> int:
        """Return how many keys of a job may still go to leaves that have no room for it yet."""
        return max(0, AHEAD_SHARE * len(self.leaves) - self._ahead.get(job, 0))

    def went_ahead(self, job: JobId, keys: int) -> None:
        """So many did."""
        if keys > 0:
            self._ahead[job] = self._ahead.pop(job, 0) + keys
            if len(self._ahead) > AHEAD_JOBS_MAX:
                del self._ahead[next(iter(self._ahead))]

    def forget_keys(self, job: JobId) -> None:
        """The bridge has lost what came with the grants of a job: it is sent again."""
        for leaf in self.leaves.values():
            leaf.keyed.pop(job, None)

    def check(self) -> None:
        """Assert that there are no more than may be, and that nobody is here and gone."""
        assert len(self.leaves) <= LEAVES_TOTAL_MAX, "too many leaves"
        assert len(self._ahead) <= AHEAD_JOBS_MAX, "what went ahead is remembered of too many jobs"
        assert len(self._left) <= LEFT_MAX, "too many are remembered"
        assert len(self.refused) <= REFUSED_MAX, "too many are refused"
        assert not self.leaves.keys() & self._left.keys(), "a leaf is here and gone"
        assert not self.leaves.keys() & self.refused.keys(), "a leaf is refused"
        assert all(len(leaf.keyed) <= KEYS_MAX for leaf in self.leaves.values()), "too many keys are remembered"


class Rooms:
    """What a cluster may be given of one job: attempts that leaves have room for now, and some ahead.

    An attempt that is to avoid a leaf needs room at another one, so that it need not wait at the bridge.
    """

    __slots__ = ("_avoided", "_doubtful", "_free", "_node", "_shunned", "ahead", "each", "most")

    def __init__(self, node: NodeId, each: dict[NodeId, int], ahead: int, doubtful: Iterable[NodeId]) -> None:
        """Nothing is given yet.

        Args:
            node: the cluster.
            each: how many attempts may go to each leaf that has room.
            ahead: how many more may wait at the bridge.
            doubtful: the leaves that may have no more than that, whatever becomes free there.
        """
        self._node = node
        self.each, self.ahead = each, ahead
        self._doubtful = tuple(doubtful)
        self._free = sum(each.values())
        pairs = 1 + len(self._doubtful)
        self.most = min(self._free + ahead, max(1, ITEMS_MAX // pairs))
        """How many may be given in all; each may have to avoid any doubtful leaf and one more."""
        self._shunned: dict[NodeId, int] = {}
        self._avoided: list[tuple[LeaseId, NodeId]] = []

    def beside(self, node: NodeId) -> int:
        """Return how many more attempts that are not to run at a node there is room for."""
        if node == self._node:
            return 0
        elsewhere = self._free - self.each.get(node, 0) - self._shunned.get(node, 0)
        return min(elsewhere, self._free - len(self._avoided))

    def shun(self, lease: LeaseId, node: NodeId) -> None:
        """An attempt was given that is not to run at a node."""
        self._shunned[node] = self._shunned.get(node, 0) + 1
        self._avoided.append((lease, node))

    def avoid(self, items: Sequence[GrantItem], leaves: Container[NodeId]) -> tuple[tuple[LeaseId, NodeId], ...]:
        """Return the attempts that were given, with each of the leaves that they are not to run on; ITEMS_MAX at most."""
        pairs = {(lease, node): None for lease, node in self._avoided if node in leaves}
        for leaf in self._doubtful:
            others = [(item.lease, leaf) for item in items if (item.lease, leaf) not in pairs]
            pairs |= dict.fromkeys(others[self.each.get(leaf, 0) :])
        return tuple(pairs)[:ITEMS_MAX]
