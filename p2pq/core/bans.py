"""Who is out: by this node's own user, and by the latest word of each admin; and what two nodes know of that, compared.

A word is about a node, or about an owner, which is all nodes whose certificate names it, present and future. The words of
admins only ever grow in number, and of one admin on one of them only the latest counts. So two nodes that tell each other
what the other lacks know the same afterwards.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from p2pq.core.meshkeys import TIME_END
from p2pq.core.records import BanKept, OwnerBanKept
from p2pq.errors import Reject
from p2pq.model.ids import NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import prims, sign, trust
from p2pq.wire.objects import Ban, OwnerBan

BANS_MAX: Final = msg.BANS_MAX
"""Signed bans known, one per issuer and subject; further ones are dropped."""

Subject = NodeId | str
"""A node, or an owner by name."""
Word = Ban | OwnerBan
Kept = BanKept | OwnerBanKept


class Heard(msgspec.Struct, frozen=True):
    """A ban that says something new."""

    word: Word
    turned: bool
    """Whether its subject is out by it and was not before, or the reverse."""


class Bans:
    """All bans that this node knows of."""

    def __init__(self, root: bytes, rows: Iterable[Kept]) -> None:
        """Take up what was kept.

        Raises:
            Reject: a signed one does not verify: the store belongs to another mesh.
        """
        self._root = root
        self._local: dict[Subject, bool] = {}
        self._signed: dict[tuple[bytes, Subject], tuple[Word, bytes]] = {}
        self._digests: dict[bytes, tuple[bytes, Word]] = {}
        self._head: bytes | None = None
        for row in rows:
            if row.signed:
                # Judged against the clock when it came; a clock that is behind now must not keep the node from starting.
                self._take(trust.open_ban(row.signed, root, TIME_END), row.signed)
            elif not row.issuer:
                self._local[row.node if isinstance(row, BanKept) else row.owner] = row.banned

    def __contains__(self, subject: Subject) -> bool:
        """Tell whether a node is out by its id, or an owner by its name."""
        if self._local.get(subject, False):
            return True
        return any(word.banned for (_, other), (word, _) in self._signed.items() if other == subject)

    @property
    def signed(self) -> tuple[bytes, ...]:
        """What admins said, ready to be sent."""
        return tuple(raw for raw, _ in self._digests.values())

    @property
    def full(self) -> bool:
        """Whether no further word is taken."""
        return len(self._signed) >= BANS_MAX

    def is_of_node(self, raw: bytes) -> bool:
        """Tell whether a ban that is known here is about a node: all that older versions know."""
        return isinstance(self._digests[_digest(raw)][1], Ban)

    def said_at(self, issuer: bytes, subject: Subject) -> Wall:
        """Return when an admin last said something of a subject, by its clock; 0 where it never did."""
        known = self._signed.get((issuer, subject))
        return Wall(0 if known is None else known[0].at)

    def ask(self, subject: Subject, *, banned: bool) -> None:
        """Take the word of this node's user."""
        self._local[subject] = banned

    def hear(self, raw: bytes, wall: Wall) -> Heard | None:
        """Take in a signed ban; return what it says if that is new.

        Raises:
            Reject: no admin of this mesh signed it, it is dated in the future, or there are too many.
        """
        if _digest(raw) in self._digests:
            return None
        word = trust.open_ban(raw, self._root, wall)
        subject = subject_of(word)
        known = self._signed.get((word.iss, subject))
        if known is None and self.full:
            raise Reject("too many")
        if known is not None and (known[0].at, known[1]) >= (word.at, raw):
            return None
        before = subject in self
        self._take(word, raw)
        return Heard(word, turned=(subject in self) != before)

    def _take(self, word: Word, raw: bytes) -> None:
        key = (word.iss, subject_of(word))
        if key in self._signed:
            del self._digests[_digest(self._signed[key][1])]
        self._signed[key] = (word, raw)
        self._digests[_digest(raw)] = (raw, word)
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
        return tuple(raw for digest, (raw, _) in self._digests.items() if digest not in others)

    def check(self) -> None:
        """Assert the bound, and that each ban is known by its digest."""
        assert len(self._signed) <= BANS_MAX, "too many bans"
        assert len(self._digests) == len(self._signed), "a ban without its digest"


def subject_of(word: Word) -> Subject:
    """Return whom a ban is about."""
    return NodeId(word.sub) if isinstance(word, Ban) else word.owner


def row_of(subject: Subject, *, banned: bool, issuer: bytes = b"", signed: bytes = b"") -> Kept:
    """Return the row that keeps a ban."""
    if isinstance(subject, str):
        return OwnerBanKept(owner=subject, banned=banned, issuer=issuer, signed=signed)
    return BanKept(node=subject, banned=banned, issuer=issuer, signed=signed)


def _digest(raw: bytes) -> bytes:
    return sign.digest(raw)[: msg.BAN_DIGEST_BYTES]
