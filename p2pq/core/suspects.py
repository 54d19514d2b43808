"""Bridges that did something else than to pass on what they were given: they come behind the others for a while.

A bridge can drop and delay, and nothing else that is not found out at the ends. What is certain counts against it at once: a
record that does not open, another node than was asked for, other bytes than a blob's. What may have honest causes (a link
that is cut or falls silent, a dial that fails) only puts that way behind; it counts against the bridge if the same life of
the node is soon reached over other bridges while this one goes on saying that it leads there.

Being behind costs a bridge nothing but that: it is used where there is no other, and nobody else is told.
"""

from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from p2pq.core.effects import Effect, Emit
from p2pq.core.events import ALTERED, CUT, NO_ANSWER, NO_WAY, OTHER_NODE, SILENT, SLOW, LinkUp
from p2pq.core.reaching import Reaching
from p2pq.model.ids import Mono, NodeId
from p2pq.model.notice import BridgeSuspected
from p2pq.wire import session

SUSPECT_S: Final = 300.0
"""So long a bridge is behind the others after it was last suspected."""
DOUBT_S: Final = 10.0
"""So soon after a way failed the node must be reached over another one: later it may have slept itself, or been unplugged."""
DIALS_MIN: Final = 2
"""A dial may fail because a node has just gone; two in a row are doubtful."""
ENTRIES_MAX: Final = 1024
"""Of bridges, and of ways in doubt; the oldest is forgotten."""

_CERTAIN: Final = frozenset({ALTERED, OTHER_NODE, session.NOT_AUTHENTIC})
_DOUBTFUL: Final = frozenset({CUT, SILENT, SLOW, NO_ANSWER, NO_WAY, session.REFUSED_EARLY, session.LEFT})

Path = tuple[NodeId, ...]


class _Suspicion(msgspec.Struct, frozen=True):
    at: Mono
    reason: str


class _Doubt(msgspec.Struct, frozen=True):
    """A way that failed, perhaps by no fault of its bridges."""

    at: Mono
    reason: str
    path: Path
    boot: bytes
    """The life of the node that was linked; empty where it was only dialled."""


_Key = TypeVar("_Key")
_Entry = TypeVar("_Entry", _Suspicion, _Doubt)


class Suspects:
    """Which bridges, and which ways over them, come behind the others."""

    def __init__(self, reaching: Reaching) -> None:
        """Suspect nobody; ``reaching`` knows which bridges say that they lead where."""
        self._reaching = reaching
        self._suspected: dict[NodeId, _Suspicion] = {}
        self._doubts: dict[tuple[NodeId, NodeId], _Doubt] = {}
        """By the nearest bridge and the node at the other end."""

    def ended(self, gone: LinkUp, reason: str, now: Mono) -> list[Effect]:
        """Judge the end of a link, if bridges carried it."""
        return self._judge(gone.path, gone.peer, reason, gone.boot, now) if gone.path else []

    def failed(self, bridge: NodeId, node: NodeId, reason: str, failures: int, now: Mono) -> list[Effect]:
        """Judge a dial over a bridge that failed, for so many times in a row."""
        if reason in _DOUBTFUL and failures < DIALS_MIN:
            return []
        return self._judge(self._path(bridge, node), node, reason, b"", now)

    def _judge(self, path: Path, node: NodeId, reason: str, boot: bytes, now: Mono) -> list[Effect]:
        if reason in _CERTAIN:
            return self.suspect(path, reason, now, node)
        if reason in _DOUBTFUL and self._reaching.path(path[0], node) is not None:
            self._doubts.pop((path[0], node), None)
            self._doubts[path[0], node] = _Doubt(now, reason, path, boot)
            _forget(self._doubts)
        return []

    def suspect(self, path: Path, reason: str, now: Mono, node: NodeId | None = None) -> list[Effect]:
        """Put bridges behind the others: of several on one way nobody can tell which it was."""
        for bridge in path:
            self._suspected.pop(bridge, None)
            self._suspected[bridge] = _Suspicion(now, reason)
        _forget(self._suspected)
        return [Emit(notice=BridgeSuspected(bridge=bridge, reason=reason, peer=node)) for bridge in path]

    def reached(self, link: LinkUp, now: Mono) -> list[Effect]:
        """A node was reached over bridges: suspect others that failed to carry a link to it, and say that they could."""
        told: list[Effect] = []
        if not link.path:
            return told
        for (bridge, node), doubt in list(self._doubts.items()):
            if node != link.peer or bridge in link.path:
                continue
            del self._doubts[bridge, node]
            if doubt.boot in {b"", link.boot} and now - doubt.at <= DOUBT_S:
                path = tuple(each for each in doubt.path if each not in link.path)
                told += self.suspect(path, doubt.reason, now, node)
        return told

    def excuse(self, bridge: NodeId, nodes: Iterable[NodeId]) -> None:
        """A bridge says itself that it leads there no longer, or is gone: what failed on those ways is not held against it."""
        for node in nodes:
            self._doubts.pop((bridge, node), None)

    def forgive(self, now: Mono) -> None:
        """Forget what is long ago."""
        _forget(self._suspected, now - SUSPECT_S)
        _forget(self._doubts, now - SUSPECT_S)

    def ways(self, node: NodeId, first: Path = ()) -> tuple[NodeId, ...]:
        """Return the bridges that lead to a node, those found wanting longest ago first; of equal ones ``first``."""
        bridges = dict.fromkeys((*first, *self._reaching.bridges(node)))
        return tuple(sorted(bridges, key=lambda bridge: self._since(bridge, node)))

    def behind(self, bridge: NodeId, node: NodeId) -> int:
        """Return how many better ways to a node there are than that over this bridge, equal ones counted once."""
        mine = self._since(bridge, node)
        others = {self._since(each, node) for each in self._reaching.bridges(node)}
        return sum(other < mine for other in others)

    def _since(self, bridge: NodeId, node: NodeId) -> float:
        """Return when a way was last found wanting; minus infinity where it never was."""
        found = [each.at for on in self._path(bridge, node) if (each := self._suspected.get(on)) is not None]
        if (doubt := self._doubts.get((bridge, node))) is not None:
            found.append(doubt.at)
        return max(found, default=float("-inf"))

    def _path(self, bridge: NodeId, node: NodeId) -> Path:
        return self._reaching.path(bridge, node) or (bridge,)

    def why(self, bridge: NodeId) -> str:
        """Return why a bridge is behind the others; empty where it is not."""
        suspicion = self._suspected.get(bridge)
        return "" if suspicion is None else f"behind other bridges: {suspicion.reason}"

    def check(self) -> None:
        """Assert the bounds."""
        assert max(len(self._suspected), len(self._doubts)) <= ENTRIES_MAX, "too many suspects"


def _forget(entries: dict[_Key, _Entry], until: float = float("-inf")) -> None:
    """Drop the oldest entries: those up to an instant, and those that are too many."""
    while entries and (len(entries) > ENTRIES_MAX or next(iter(entries.values())).at <= until):
        del entries[next(iter(entries))]
