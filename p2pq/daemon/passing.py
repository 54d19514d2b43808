"""As a bridge that batches: pass on what leaves print to the masters that follow it (docs/adr/0201).

A master asks this bridge for a lease; the leaf that has it is asked in turn, and what it says goes up under the master's
number. All of it is encrypted under the job's key.
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire.messages import LogData, LogStop, LogWant, Message

STREAMS_MAX: Final = 64
"""Streams passed on to one master at once."""


class _Way(msgspec.Struct, frozen=True):
    master: NodeId
    req: int
    """Its number for the stream."""
    leaf: NodeId


class Passing:
    """Streams between masters and leaves. Use it from the event loop's thread only."""

    def __init__(
        self,
        *,
        leaf_of: Callable[[NodeId, LeaseId], NodeId | None],
        say: Callable[[NodeId, Message], None],
        behind: Callable[[NodeId], bool],
        numbers: Iterator[int],
    ) -> None:
        """Pass on nothing yet.

        Args:
            leaf_of: returns the leaf that holds a lease of a master.
            say: sends to a linked peer; what is for others is lost.
            behind: tells whether a peer takes less than is said to it.
            numbers: where the numbers of this node's requests come from.
        """
        self._leaf_of, self._say, self._behind, self._numbers = leaf_of, say, behind, numbers
        self._ways: dict[int, _Way] = {}
        """By this node's own number."""

    def __len__(self) -> int:
        """Return how many streams there are."""
        return len(self._ways)

    def want(self, master: NodeId, want: LogWant) -> bool:
        """Ask the leaf for what a master wants; return whether there is one that has the lease, and not too much to do."""
        leaf = self._leaf_of(master, want.lease)
        mine = [way.req for way in self._ways.values() if way.master == master]
        if leaf is None or want.req in mine or len(mine) >= STREAMS_MAX:
            return False
        number = next(self._numbers)
        self._ways[number] = _Way(master, want.req, leaf)
        self._say(leaf, msgspec.structs.replace(want, req=number, master=master))
        return True

    def stop(self, master: NodeId, stop: LogStop) -> None:
        """A master follows no more."""
        for number, way in self._ways.items():
            if (way.master, way.req) == (master, stop.req):
                del self._ways[number]
                self._say(way.leaf, LogStop(req=number))
                return

    def data(self, leaf: NodeId, data: LogData) -> None:
        """Pass on what a leaf says, unless its master is behind: that one then asks again from where it is."""
        way = self._ways.get(data.req)
        if way is None or way.leaf != leaf:
            return
        if data.end:
            del self._ways[data.req]
        if data.end or not self._behind(way.master):
            self._say(way.master, msgspec.structs.replace(data, req=way.req))

    def link_down(self, peer: NodeId) -> None:
        """A peer is gone: what it followed is not wanted any more, what it printed ends here."""
        for number, way in list(self._ways.items()):
            if way.master == peer:
                del self._ways[number]
                self._say(way.leaf, LogStop(req=number))
            elif way.leaf == peer:
                self.data(peer, LogData(req=number, offset=0, data=b"", end=True))
