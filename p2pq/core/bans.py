"""Who is out: by this node's own user, and by the latest word of each admin; and what two nodes know of that, compared.

The words of admins only ever grow in number, and of one admin on one node only the latest counts. So two nodes that tell
each other what the other lacks know the same afterwards.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from p2pq.core.meshkeys import TIME_END
from p2pq.core.records import BanKept
from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import prims, sign, trust
from p2pq.wire.objects import Ban

BANS_MAX: Final = msg.BANS_MAX
"""Signed bans known, one per issuer and node; further ones are dropped."""


class Heard(msgspec.Struct, frozen=True):
    """A ban that says something new."""

    ban: Ban
    turned: bool
    """Whether its subject is out by it and was not before, or the reverse."""


class Bans:
    """All bans that this node knows of."""

    def __init__(self, root: bytes, rows: Iterable[BanKept]) -> None:
        """Take up what was kept.

        Raises:
            Reject: a signed one does not verify: the store belongs to another mesh.
        """
        self._root = root
        self._local: dict[NodeId, bool] = {}
        self._signed: dict[tuple[bytes, NodeId], tuple[Ban, bytes]] = {}
        self._digests: dict[bytes, bytes] = {}
        self._head: bytes | None = None
        for row in rows:
            if row.signed:
                # Judged against the clock when it came; a clock that is behind now must not keep the node from starting.
                self._take(trust.open_ban(row.signed, root, TIME_END), row.signed)
            elif not row.issuer:
                self._local[row.node] = row.banned

    def __contains__(self, node: NodeId) -> bool:
        """Tell whether a node is out."""
        if self._local.get(node, False):
            return True
        return any(ban.banned for (_, sub), (ban, _) in self._signed.items() if sub == node)

    @property
    def signed(self) -> tuple[bytes, ...]:
        """What admins said, ready to be sent."""
        return tuple(self._digests.values())

    @property
    def full(self) -> bool:
        """Whether no further word is taken."""
        return len(self._signed) >= BANS_MAX

    def ask(self, node: NodeId, *, banned: bool) -> None:
        """Take the word of this node's user."""
        self._local[node] = banned

    def hear(self, raw: bytes, wall: Wall) -> Heard | None:
        """Take in a signed ban; return what it says if that is new.

        Raises:
            Reject: no admin of this mesh signed it, it is dated in the future, or there are too many.
        """
        if _digest(raw) in self._digests:
            return None
        ban = trust.open_ban(raw, self._root, wall)
        known = self._signed.get((ban.iss, NodeId(ban.sub)))
        if known is None and self.full:
            raise Reject("too many")
        if known is not None and (known[0].at, known[1]) >= (ban.at, raw):
            return None
        before = NodeId(ban.sub) in self
        self._take(ban, raw)
        return Heard(ban, turned=(NodeId(ban.sub) in self) != before)

    def _take(self, ban: Ban, raw: bytes) -> None:
        key = (ban.iss, NodeId(ban.sub))
        if key in self._signed:
            del self._digests[_digest(self._signed[key][1])]
        self._signed[key] = (ban, raw)
        self._digests[_digest(raw)] = raw
        self._head = None

    # -- comparing ----------------------------------------------------------------------------------------------------

    @property
    def head(self) -> bytes:
        """Return 32 bytes that are equal on two nodes that know the same signed bans."""
        if self._head is None:
            self._head = prims.blake2b(b"".join(self.digests), person="p2pq-bans")
        return self._head

    @property
    def digests(self) -> tuple[bytes, ...]:
        """Return a short digest of each signed ban, in order."""
        return tuple(sorted(self._digests))

    def beyond(self, known: Iterable[bytes]) -> tuple[bytes, ...]:
        """Return the signed bans whose digest is not among those."""
        others = dict.fromkeys(known)
        return tuple(raw for digest, raw in self._digests.items() if digest not in others)

    def check(self) -> None:
        """Assert the bound, and that each ban is known by its digest."""
        assert len(self._signed) <= BANS_MAX, "too many bans"
        assert len(self._digests) == len(self._signed), "a ban without its digest"


def _digest(raw: bytes) -> bytes:
    return sign.digest(raw)[: msg.BAN_DIGEST_BYTES]
