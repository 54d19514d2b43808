"""Other meshes: the peerings that this node knows of, and who of their members is out.

A peering is one thing with two signatures and, at the end, a third. All that is known of one only ever grows: of two
acceptances of one offer, or two words that end it, the earlier counts. So nodes that tell each other what they know agree, in
whatever order they heard of it, and one that was ended stays so, whoever says again that it was made.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from p2pq.core.bans import Bans, subject_of
from p2pq.core.records import PeerBanKept, PeeringKept
from p2pq.errors import Reject
from p2pq.model.ids import MeshId, NodeId, Wall
from p2pq.wire import messages as msg
from p2pq.wire import peering, prims, sign, trust
from p2pq.wire.messages import PeeringKnown
from p2pq.wire.objects import Cert
from p2pq.wire.peering import Opened

TIME_END: Final = Wall((1 << 48) - 1)
NO_ROOM: Final = "too many peerings"


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """What a link with a member of another mesh is made by."""

    peering: bytes
    mesh: MeshId
    root: bytes
    name: str
    key: bytes
    opened: Opened
    welcome: tuple[str, ...]
    """Of what the peering lets its members do here, what this node lets them."""

    def __repr__(self) -> str:
        """Name the mesh, not the key."""
        return f"Ours({self.name!r})"


class Peerings:
    """The peerings of our mesh, and the bans of the other ones."""

    def __init__(
        self,
        root: bytes,
        welcome: dict[bytes, tuple[str, ...]],
        rows: Iterable[PeeringKept],
        bans: Iterable[PeerBanKept],
    ) -> None:
        """Take up what was kept.

        Args:
            root: our mesh root's public key; empty: there is no way to tell, and nothing is taken in.
            welcome: by mesh, what this node lets its members do here; meshes that are not in it get no link.
            rows: peerings.
            bans: words of the other meshes' admins.
        """
        self._root = root
        self._welcome = welcome
        self._known: dict[bytes, tuple[PeeringKnown, Opened]] = {}
        self._bans: dict[MeshId, Bans] = {}
        for row in rows:
            # Judged against the clock when it came. What does not verify was of a mesh that this node has left.
            known = PeeringKnown(row.offer, row.accept, row.end)
            try:
                opened = peering.open_known(known, root, TIME_END)
            except Reject:
                continue
            self._known[opened.id] = known, opened
        # The store keeps those that had to make room as well.
        latest = sorted(self._known.items(), key=lambda each: (each[1][1].exp, each[0]))[-msg.PEERINGS_MAX :]
        self._known = dict(latest)
        for opened in self.all():
            self._bans.setdefault(opened.mesh, Bans(opened.root, ()))
        for ban in bans:
            if (of := self._bans.get(MeshId(ban.mesh))) is not None:
                try:
                    of.hear(ban.signed, TIME_END)
                except Reject:
                    continue

    # -- what holds -----------------------------------------------------------------------------------------------------

    def all(self) -> tuple[Opened, ...]:
        """Return every peering known, those that are over, too."""
        return tuple(opened for _, opened in self._known.values())

    def get(self, ident: bytes) -> Opened | None:
        """Return one of them."""
        found = self._known.get(ident)
        return None if found is None else found[1]

    def welcome(self, mesh: bytes) -> tuple[str, ...]:
        """Return what this node lets members of a mesh do here, whatever the peering says."""
        return self._welcome.get(mesh, ())

    def holds(self, ident: bytes, wall: Wall, is_out: trust.IsBanned) -> bool:
        """Tell whether a peering is in force: of its time, not ended, and both its issuers still admins in good standing.

        Args:
            ident: which.
            wall: the time by this node's clock.
            is_out: whether the holder of a certificate of our own mesh is out.
        """
        opened = self.get(ident)
        if opened is None or not opened.holds(wall) or is_out(opened.our_issuer):
            return False
        return not self._is_banned(opened.mesh, opened.their_issuer)

    def usable(self, wall: Wall, is_out: trust.IsBanned) -> tuple[Ours, ...]:
        """Return what links may be made by now, the latest first: the peering holds, and this node wants it."""
        found = [
            Ours(
                peering=opened.id,
                mesh=opened.mesh,
                root=opened.root,
                name=opened.name,
                key=opened.key,
                opened=opened,
                welcome=self._welcome[opened.mesh],
            )
            for opened in self.all()
            if self._welcome.get(opened.mesh) and self.holds(opened.id, wall, is_out)
        ]
        return tuple(sorted(found, key=lambda each: (each.opened.at, each.peering), reverse=True))

    # -- peerings as they are told --------------------------------------------------------------------------------------

    def hear(self, known: PeeringKnown, wall: Wall) -> tuple[Opened, PeeringKept] | None:
        """Take in what somebody knows of a peering; return what holds now, and the row that keeps it, if that is news.

        Raises:
            Reject: it does not hold, is not of our mesh, is over without being known here, or there are too many.
        """
        ident = sign.digest(known.offer)
        before = self._known.get(ident)
        if before is not None and before[0] == known:
            return None
        opened = peering.open_known(known, self._root, wall)
        if before is None:
            if wall > opened.exp + trust.SKEW_MS:
                raise Reject(peering.OVER)
            self._make_room(wall)
        else:
            merged = _merge(before[0], known, wall)
            if merged == before[0]:
                return None
            known, opened = merged, peering.open_known(merged, self._root, wall)
        self._known[ident] = known, opened
        self._bans.setdefault(opened.mesh, Bans(opened.root, ()))
        return opened, PeeringKept(id=ident, offer=known.offer, accept=known.accept, end=known.end)

    def _make_room(self, wall: Wall) -> None:
        """Forget the one that is over for longest. One that was ended stays until its time is up, so that it cannot return."""
        if len(self._known) < msg.PEERINGS_MAX:
            return
        over = [opened for opened in self.all() if wall > opened.exp + 2 * trust.SKEW_MS]
        if not over:
            raise Reject(NO_ROOM)
        oldest = min(over, key=lambda each: (each.exp, each.id))
        del self._known[oldest.id]
        if all(each.mesh != oldest.mesh for each in self.all()):
            del self._bans[oldest.mesh]

    def told(self, wall: Wall, mesh: bytes = b"") -> tuple[PeeringKnown, ...]:
        """Return what others are told: all that are not past their time; with a mesh, those with that one."""
        return tuple(
            known
            for ident, (known, opened) in sorted(self._known.items())
            if wall <= opened.exp + trust.SKEW_MS and mesh in {b"", opened.mesh}
        )

    def known(self, ident: bytes) -> PeeringKnown | None:
        """Return a peering as it is told."""
        found = self._known.get(ident)
        return None if found is None else found[0]

    def head(self, wall: Wall, mesh: bytes = b"") -> bytes:
        """Return 32 bytes that are equal on two nodes that would tell each other the same."""
        parts = (part for known in self.told(wall, mesh) for part in (known.offer, known.accept, known.end))
        return prims.blake2b(b"".join(sign.digest(part) for part in parts), person="p2pq-peerings")

    # -- who is out -----------------------------------------------------------------------------------------------------

    def bans(self, mesh: bytes) -> Bans | None:
        """Return what the admins of another mesh have said of its members."""
        return self._bans.get(MeshId(mesh))

    def bans_heads(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return, by mesh, the hash of what is known of its bans."""
        return tuple((mesh, bans.head) for mesh, bans in sorted(self._bans.items()))[: msg.PEERINGS_MAX]

    def hear_ban(self, raw: bytes, wall: Wall) -> tuple[MeshId, PeerBanKept] | None:
        """Take in a ban by an admin of another mesh; return of which, and the row that keeps it, if that is news.

        Raises:
            Reject: no admin of a mesh that ours peers with signed it, it is dated in the future, or there are too many.
        """
        last = Reject(trust.WRONG_ROOT)
        for mesh, bans in self._bans.items():
            try:
                heard = bans.hear(raw, wall)
            except Reject as reject:
                if reject.reason != trust.WRONG_ROOT:
                    last = reject
                continue
            if heard is None:
                return None
            subject = subject_of(heard.word)
            named = b"o" + subject.encode() if isinstance(subject, str) else b"n" + subject
            return mesh, PeerBanKept(mesh=mesh, issuer=heard.word.iss, subject=named, signed=raw)
        raise last

    def is_banned(self, mesh: bytes, node: NodeId, owner: str) -> bool:
        """Tell whether the admins of another mesh say that its member is out; ``owner`` as its certificate has it."""
        bans = self.bans(mesh)
        return bans is not None and (node in bans or owner in bans)

    def _is_banned(self, mesh: bytes, cert: Cert) -> bool:
        return self.is_banned(mesh, NodeId(cert.sub), cert.owner)

    def check(self) -> None:
        """Assert the bounds."""
        assert len(self._known) <= msg.PEERINGS_MAX, "too many peerings"
        assert self._bans.keys() == {opened.mesh for opened in self.all()}, (
            "bans of a mesh that ours has nothing to do with"
        )
        for bans in self._bans.values():
            bans.check()


def _merge(before: PeeringKnown, news: PeeringKnown, wall: Wall) -> PeeringKnown:
    """Return what both say together: the earlier acceptance, and the earlier end."""
    terms = peering.open_offer(before.offer, wall)

    def accepted(raw: bytes) -> tuple[int, bytes]:
        return peering.open_accept(raw, before.offer, terms, wall).at, raw

    def ended(raw: bytes) -> tuple[int, bytes]:
        return peering.end_at(raw), raw

    accept = min(before.accept, news.accept, key=accepted)
    ends = [raw for raw in (before.end, news.end) if raw]
    return PeeringKnown(before.offer, accept, min(ends, key=ended, default=b""))
