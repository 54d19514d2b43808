"""As a bridge that batches: pass on what leaves print to the masters that follow it (docs/adr/0201).

A master, or a bridge above, asks this bridge for a lease; the leaf that has it, or the bridge below that leads there, is asked
in turn, and what it says goes up under the number of who asked. All of it is encrypted under the job's key.
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire.messages import LogData, LogStop, LogWant, Message

STREAMS_MAX: Final = 64
"""Streams passed on to one peer at once."""


class _Way(msgspec.Struct, frozen=True):
    asker: NodeId
    req: int
    """Its number for the stream."""
    asked: NodeId


class Passing:
    """Streams between masters and leaves. Use it from the event loop's thread only."""

    def __init__(
        self,
        *,
        leaf_of: Callable[[NodeId, LeaseId], NodeId | None],
        bridge_of: Callable[[NodeId], NodeId | None],
        say: Callable[[NodeId, Message], None],
        behind: Callable[[NodeId], bool],
        numbers: Iterator[int],
    ) -> None:
        """Pass on nothing yet.

        Args:
            leaf_of: returns the leaf that holds a lease of a master.
            bridge_of: returns the bridge below that leads to a leaf; None where it is linked.
            say: sends to a linked peer; what is for others is lost.
            behind: tells whether a peer takes less than is said to it.
            numbers: where the numbers of this node's requests come from.
        """
        self._leaf_of, self._bridge_of = leaf_of, bridge_of
        self._say, self._behind, self._numbers = say, behind, numbers
        self._ways: dict[int, _Way] = {}
        """By this node's own number."""

    def __len__(self) -> int:
        """Return how many streams there are."""
        return len(self._ways)

    def want(self, asker: NodeId, master: NodeId, want: LogWant) -> bool:
        """Ask for what a master wants, or a bridge above for it; return whether a leaf has it and there is not too much to do."""
        leaf = self._leaf_of(master, want.lease)
        mine = [way.req for way in self._ways.values() if way.asker == asker]
        if leaf is None or want.req in mine or len(mine) >= STREAMS_MAX:
            return False
        number, asked = next(self._numbers), self._bridge_of(leaf) or leaf
        self._ways[number] = _Way(asker, want.req, asked)
        self._say(asked, msgspec.structs.replace(want, req=number, master=master))
        return True

    def stop(self, asker: NodeId, stop: LogStop) -> None:
        """Who asked follows no more."""
        for number, way in self._ways.items():
            if (way.asker, way.req) == (asker, stop.req):
                del self._ways[number]
                self._say(way.asked, LogStop(req=number))
                return

    def data(self, asked: NodeId, data: LogData) -> None:
        """Pass on what is said, unless who asked is behind: that one then asks again from where it is."""
        way = self._ways.get(data.req)
        if way is None or way.asked != asked:
            return
        if data.end:
            del self._ways[data.req]
        if data.end or not self._behind(way.asker):
            self._say(way.asker, msgspec.structs.replace(data, req=way.req))

    def link_down(self, peer: NodeId) -> None:
        """A peer is gone: what it followed is not wanted any more, what it printed ends here."""
        for number, way in list(self._ways.items()):
            if way.asker == peer:
                del self._ways[number]
                self._say(way.asked, LogStop(req=number))
            elif way.asked == peer:
                self.data(peer, LogData(req=number, offset=0, data=b"", end=True))
