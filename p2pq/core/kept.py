"""Results that a worker keeps until their master has them: signed in batches, said again until acknowledged."""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from p2pq.core.identity import Identity
from p2pq.core.records import ResultKept
from p2pq.core.slots import Key
from p2pq.model.ids import LeaseId, Mono, NodeId, Wall
from p2pq.wire import sign
from p2pq.wire.messages import SUBS_BYTES_MAX, ResultReady
from p2pq.wire.objects import Result, ResultItem
from p2pq.wire.prims import SigningKey

KEPT_MAX: Final = 4096
"""Unacknowledged results per master; beyond it nothing more is asked of that master."""
KEPT_BYTES_MAX: Final = 4 << 30
"""Bytes of results, and of the sub-grants that led to them, kept per master, beyond which likewise: they stay on this machine's
disk for a month."""
BATCH_MAX: Final = 64
"""Results under one signature when many are said again."""
RESEND_S: Final = 30.0
"""A result that is not acknowledged is said again after so long."""
RENEW_S: Final = 600.0
"""How long the lease of a kept result is still renewed; collecting it may take that long."""
_BLOBS_MAX: Final = 50_000
"""Blobs named in one message at most (a single result may name more)."""


class KeptFor(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept for one master, for people."""

    master: NodeId
    owner: str
    """Of the latest; empty where an older version kept it."""
    results: int
    bytes: int
    since: Wall
    """When the oldest was kept."""
    full: bool
    """Nothing more is asked of that master before it has acknowledged some."""


class Kept:
    """The results of attempts that ended here, by master and lease."""

    def __init__(self, identity: Identity, restored: Iterable[ResultKept]) -> None:
        """Take up what an earlier life of this node kept."""
        self._identity = identity
        self._key = SigningKey(identity.secret)
        self._rows: dict[NodeId, dict[LeaseId, ResultKept]] = {}
        self._since: dict[Key, Mono | None] = {}
        self._bytes: dict[NodeId, int] = {}
        self._grants: dict[Key, bytes] = {}
        """The grants that leases are of, where they are results of this life."""
        for row in restored:
            self.keep(row, None)

    def by_master(self) -> tuple[KeptFor, ...]:
        """Return what is kept for others, in the order of the masters' first results."""
        return tuple(
            KeptFor(
                master=master,
                owner=next(reversed(rows.values())).owner,
                results=len(rows),
                bytes=self._bytes[master],
                since=min(row.wall for row in rows.values()),
                full=self.full(master),
            )
            for master, rows in self._rows.items()
            if master != self._identity.node
        )

    def keep(self, row: ResultKept, now: Mono | None, grant: bytes = b"") -> None:
        """Keep a result. ``now`` is None for one of an earlier life, and ``grant`` empty."""
        assert not self.has(row.master, row.lease), "one lease has one result"
        self._rows.setdefault(row.master, {})[row.lease] = row
        self._bytes[row.master] = self._bytes.get(row.master, 0) + _size(row)
        self._since[row.master, row.lease] = now
        if grant:
            self._grants[row.master, row.lease] = grant

    def release(self, master: NodeId, lease: LeaseId) -> bool:
        """Forget a result; False if it is not kept."""
        rows = self._rows.get(master, {})
        row = rows.pop(lease, None)
        if row is None:
            return False
        del self._since[master, lease]
        self._grants.pop((master, lease), None)
        self._bytes[master] -= _size(row)
        if not rows:
            del self._rows[master], self._bytes[master]
        return True

    def has(self, master: NodeId, lease: LeaseId) -> bool:
        """Tell whether a result is kept under that lease."""
        return (master, lease) in self._since

    def full(self, master: NodeId) -> bool:
        """Tell whether that master has KEPT_MAX results, or KEPT_BYTES_MAX of them, to acknowledge."""
        return len(self._rows.get(master, {})) >= KEPT_MAX or self._bytes.get(master, 0) >= KEPT_BYTES_MAX

    def due(self, master: NodeId, now: Mono) -> tuple[LeaseId, ...]:
        """Return those that have waited RESEND_S or longer."""
        return tuple(
            lease
            for lease in self._rows.get(master, {})
            if (since := self._since[master, lease]) is not None and now - since >= RESEND_S
        )

    def leases(self, master: NodeId) -> tuple[LeaseId, ...]:
        """Return the leases of a master's kept results, oldest first."""
        return tuple(self._rows.get(master, {}))

    def owned_by(self, owner: str) -> list[Key]:
        """Return the results of an owner's jobs that are kept."""
        return [
            (master, lease) for master, rows in self._rows.items() for lease, row in rows.items() if row.owner == owner
        ]

    def older(self, before: Wall) -> dict[NodeId, list[LeaseId]]:
        """Return those that have been kept since before that, by master."""
        found: dict[NodeId, list[LeaseId]] = {}
        for master, rows in self._rows.items():
            leases = [lease for lease, row in rows.items() if row.wall < before]
            if leases:
                found[master] = leases
        return found

    def renewed(self, master: NodeId, now: Mono) -> tuple[LeaseId, ...]:
        """Return those whose lease is still renewed: kept in this life, for less than RENEW_S."""
        return tuple(
            lease
            for lease in self._rows.get(master, {})
            if (since := self._since[master, lease]) is not None and now - since < RENEW_S
        )

    def linked(self, master: NodeId, now: Mono) -> None:
        """Count the time of results of an earlier life from the first link to their master on."""
        for lease in self._rows.get(master, {}):
            if self._since[master, lease] is None:
                self._since[master, lease] = now

    def proofs(self, master: NodeId) -> Iterator[tuple[bytes, ...]]:
        """Go through what shows that the leases of a master's kept results were given to this node."""
        for lease, row in self._rows.get(master, {}).items():
            grant = self._grants.get((master, lease), b"")
            yield (grant, *row.subs) if grant else row.subs

    def messages(self, master: NodeId, leases: Iterable[LeaseId], mesh: bytes) -> list[ResultReady]:
        """Return these results, signed, in batches; ``mesh`` is the one that the master's jobs are of."""
        messages = []
        batch: list[ResultItem] = []
        subs: dict[bytes, None] = {}
        """By which these were handed on, each once."""
        blobs = 0
        for lease in leases:
            row = self._rows[master][lease]
            item, more = row.item, subs | dict.fromkeys(row.subs)
            full = (
                len(batch) == BATCH_MAX or blobs + len(item.blobs) > _BLOBS_MAX or sum(map(len, more)) > SUBS_BYTES_MAX
            )
            if batch and full:
                messages.append(self._signed(master, batch, subs, mesh))
                batch, blobs, more = [], 0, dict.fromkeys(row.subs)
            batch.append(item)
            blobs += len(item.blobs)
            subs = more
        if batch:
            messages.append(self._signed(master, batch, subs, mesh))
        return messages

    def _signed(self, master: NodeId, items: list[ResultItem], subs: Iterable[bytes], mesh: bytes) -> ResultReady:
        result = Result(mesh=mesh, node=master, by=self._identity.node, items=tuple(items))
        return ResultReady(result=sign.sign(self._key, result), subs=tuple(subs))

    def check(self) -> None:
        """Assert that both indexes hold the same."""
        keys = [(master, lease) for master, rows in self._rows.items() for lease in rows]
        assert dict.fromkeys(keys).keys() == self._since.keys(), "kept results disagree"
        assert self._grants.keys() <= self._since.keys(), "grants of nothing are kept"
        sizes = {master: sum(map(_size, rows.values())) for master, rows in self._rows.items()}
        assert sizes == self._bytes, "the sizes of kept results disagree"


def _size(row: ResultKept) -> int:
    return sum(ref.size for ref in (*row.item.body, *row.item.blobs)) + sum(map(len, row.subs))
