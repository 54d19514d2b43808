"""Results that a worker keeps until their master has them: signed in batches, said again until acknowledged."""

from collections.abc import Iterable
from typing import Final

from p2pq.core.identity import Identity
from p2pq.core.records import ResultKept
from p2pq.core.slots import Key
from p2pq.model.ids import LeaseId, Mono, NodeId
from p2pq.wire import sign
from p2pq.wire.messages import ResultReady
from p2pq.wire.objects import Result, ResultItem
from p2pq.wire.prims import SigningKey

KEPT_MAX: Final = 4096
"""Unacknowledged results per master; beyond it nothing more is asked of that master."""
KEPT_BYTES_MAX: Final = 4 << 30
"""Bytes of results kept per master, beyond which likewise: they stay on this machine's disk for a month."""
BATCH_MAX: Final = 64
"""Results under one signature when many are said again."""
RESEND_S: Final = 30.0
"""A result that is not acknowledged is said again after so long."""
RENEW_S: Final = 600.0
"""How long the lease of a kept result is still renewed; collecting it may take that long."""
_BLOBS_MAX: Final = 50_000
"""Blobs named in one message at most (a single result may name more)."""


class Kept:
    """The results of attempts that ended here, by master and lease."""

    def __init__(self, identity: Identity, restored: Iterable[ResultKept]) -> None:
        """Take up what an earlier life of this node kept."""
        self._identity = identity
        self._key = SigningKey(identity.secret)
        self._items: dict[NodeId, dict[LeaseId, ResultItem]] = {}
        self._since: dict[Key, Mono | None] = {}
        self._bytes: dict[NodeId, int] = {}
        for row in restored:
            self.keep(row.master, row.item, None)

    def __len__(self) -> int:
        return len(self._since)

    def keep(self, master: NodeId, item: ResultItem, now: Mono | None) -> None:
        """Keep a result. ``now`` is None for one of an earlier life."""
        assert not self.has(master, item.lease), "one lease has one result"
        self._items.setdefault(master, {})[item.lease] = item
        self._bytes[master] = self._bytes.get(master, 0) + _size(item)
        self._since[master, item.lease] = now

    def release(self, master: NodeId, lease: LeaseId) -> bool:
        """Forget a result; False if it is not kept."""
        items = self._items.get(master, {})
        item = items.pop(lease, None)
        if item is None:
            return False
        del self._since[master, lease]
        self._bytes[master] -= _size(item)
        if not items:
            del self._items[master], self._bytes[master]
        return True

    def has(self, master: NodeId, lease: LeaseId) -> bool:
        """Tell whether a result is kept under that lease."""
        return (master, lease) in self._since

    def full(self, master: NodeId) -> bool:
        """Tell whether that master has KEPT_MAX results, or KEPT_BYTES_MAX of them, to acknowledge."""
        return len(self._items.get(master, {})) >= KEPT_MAX or self._bytes.get(master, 0) >= KEPT_BYTES_MAX

    def due(self, master: NodeId, now: Mono) -> tuple[LeaseId, ...]:
        """Return those that have waited RESEND_S or longer."""
        return tuple(
            lease
            for lease in self._items.get(master, {})
            if (since := self._since[master, lease]) is not None and now - since >= RESEND_S
        )

    def leases(self, master: NodeId) -> tuple[LeaseId, ...]:
        """Return the leases of a master's kept results, oldest first."""
        return tuple(self._items.get(master, {}))

    def renewed(self, master: NodeId, now: Mono) -> tuple[LeaseId, ...]:
        """Return those whose lease is still renewed: kept in this life, for less than RENEW_S."""
        return tuple(
            lease
            for lease in self._items.get(master, {})
            if (since := self._since[master, lease]) is not None and now - since < RENEW_S
        )

    def linked(self, master: NodeId, now: Mono) -> None:
        """Count the time of results of an earlier life from the first link to their master on."""
        for lease in self._items.get(master, {}):
            if self._since[master, lease] is None:
                self._since[master, lease] = now

    def messages(self, master: NodeId, leases: Iterable[LeaseId]) -> list[ResultReady]:
        """Return these results, signed, in batches."""
        messages = []
        batch: list[ResultItem] = []
        blobs = 0
        for lease in leases:
            item = self._items[master][lease]
            if batch and (len(batch) == BATCH_MAX or blobs + len(item.blobs) > _BLOBS_MAX):
                messages.append(self._signed(master, batch))
                batch, blobs = [], 0
            batch.append(item)
            blobs += len(item.blobs)
        if batch:
            messages.append(self._signed(master, batch))
        return messages

    def _signed(self, master: NodeId, items: list[ResultItem]) -> ResultReady:
        result = Result(mesh=self._identity.mesh, node=master, by=self._identity.node, items=tuple(items))
        return ResultReady(result=sign.sign(self._key, result))

    def check(self) -> None:
        """Assert that both indexes hold the same."""
        keys = [(master, lease) for master, items in self._items.items() for lease in items]
        assert dict.fromkeys(keys).keys() == self._since.keys(), "kept results disagree"
        sizes = {master: sum(map(_size, items.values())) for master, items in self._items.items()}
        assert sizes == self._bytes, "the sizes of kept results disagree"


def _size(item: ResultItem) -> int:
    return sum(ref.size for ref in (*item.body, *item.blobs))
