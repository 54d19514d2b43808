"""The keys of the mesh, as admins made them: which is the newest, and which still count.

Every node keeps the latest few of all that it has heard of, by one order that depends on nothing but the keys themselves. So
nodes that have heard of the same keys, in whatever order, agree, and two admins that make one at the same moment do, too.
"""

from typing import Final

from p2pq.core.identity import Identity
from p2pq.model.ids import Wall
from p2pq.wire import prims, session, sign, trust
from p2pq.wire.objects import MeshKey

KEPT_MAX: Final = session.PSKS_MAX
"""Keys that open the gate; a node that missed so many has to join again."""
TIME_END: Final = Wall((1 << 48) - 1)


class MeshKeys:
    """The latest signed keys, and behind them what came with the membership."""

    def __init__(self, identity: Identity, signed: tuple[bytes, ...]) -> None:
        """Take up what was kept.

        Raises:
            Reject: one of them does not verify: the store belongs to another mesh.
        """
        self._root = identity.root
        self._unsigned = identity.psks
        self._known: list[tuple[MeshKey, bytes]] = []
        for raw in signed:
            # Judged against the clock when it came; a clock that is behind now must not keep the node from starting.
            self._take(trust.open_mesh_key(raw, self._root, TIME_END), raw)

    @property
    def psks(self) -> tuple[bytes, ...]:
        """All keys that count, newest first: the first is used to dial, each opens the gate."""
        signed = (word.key for word, _ in self._known)
        return tuple(dict.fromkeys((*signed, *self._unsigned)))[:KEPT_MAX]

    @property
    def signed(self) -> tuple[bytes, ...]:
        """Those that an admin signed, newest first, ready to be sent."""
        return tuple(raw for _, raw in self._known)

    @property
    def head(self) -> bytes:
        """Return 32 bytes that are equal on two nodes that know the same signed keys."""
        return prims.blake2b(b"".join(sign.digest(raw) for raw in self.signed), person="p2pq-mesh-keys")

    @property
    def newest_at(self) -> Wall:
        """When the newest was made, by its admin's clock; 0 where none was signed."""
        return Wall(self._known[0][0].at if self._known else 0)

    def hear(self, raw: bytes, wall: Wall, is_banned: trust.IsBanned) -> MeshKey | None:
        """Take in a signed key; return it if it now counts and did not before.

        Raises:
            Reject: no admin of this mesh signed it, or one that is banned, or it is dated in the future.
        """
        if raw in self.signed:
            return None
        word = trust.open_mesh_key(raw, self._root, wall, is_banned)
        before = self.signed
        self._take(word, raw)
        return word if self.signed != before else None

    def _take(self, word: MeshKey, raw: bytes) -> None:
        """Keep the latest: by date, then by bytes; one that was signed twice counts once, by its latest date."""
        ranked = sorted([*self._known, (word, raw)], key=lambda each: (each[0].at, each[0].key, each[1]), reverse=True)
        latest: dict[bytes, tuple[MeshKey, bytes]] = {}
        for each in ranked:
            latest.setdefault(each[0].key, each)
        self._known = list(latest.values())[:KEPT_MAX]

    def check(self) -> None:
        """Assert the bound, and the order."""
        assert len(self._known) <= KEPT_MAX, "too many mesh keys"
        dates = [word.at for word, _ in self._known]
        assert dates == sorted(dates, reverse=True), "mesh keys out of order"
