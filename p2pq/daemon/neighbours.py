"""Who has which blobs, as their holder saw it; and how long a fetcher waits for neighbours that are said to have some.

A holder gives each blob to the first who asks for it and names that one to the next: so it leaves here once for as many as
are linked to each other, and those serve each other in a tree. It is a hint and nothing more. Who comes back gets the blob.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from p2pq.model.ids import NodeId

FANOUT: Final = 2
"""To so many a node is named, for each blob, before the next one has its turn."""
ENTRIES_MAX: Final = 65_536
"""Of (blob, node); the blobs that were asked for longest ago are forgotten first."""
STALL_S: Final = 5.0
"""So long a neighbour sends and says nothing, and nobody else sends anything, until a fetcher gives it up."""
STILL_S: Final = 1.5
"""So often a neighbour that is getting the blobs itself says so."""
SHUN_S: Final = 60.0
"""So long such a neighbour, and one that sent other bytes, is not asked again."""


class Holders:
    """To whom this node gave, or named somebody else for, each blob."""

    def __init__(self) -> None:
        """Nobody has anything yet."""
        self._named: OrderedDict[bytes, dict[NodeId, int]] = OrderedDict()
        """By blob, in the order in which they asked: those who have it or will soon, and to how many each was named."""
        self._entries = 0

    def __len__(self) -> int:
        """Return how many (blob, node) are remembered."""
        return self._entries

    def name(self, asker: NodeId, blob: bytes, near: Container[NodeId]) -> NodeId | None:
        """Return who shall be asked first for a blob: one of ``near``, or nobody, and this node gives it itself.

        From now on the asker counts as one who has it. Nobody is named to who asks again: it did not get it. So whoever
        is named asked before who is sent there, and no two ever wait for each other.
        """
        named = self._named.setdefault(blob, {})
        self._named.move_to_end(blob)
        if asker in named:
            return None
        known = [node for node in named if node in near]
        best = min(known, key=lambda node: named[node] // FANOUT, default=None)
        if best is not None:
            named[best] += 1
        named[asker] = 0
        self._entries += 1
        while self._entries > ENTRIES_MAX:
            self._entries -= len(self._named.popitem(last=False)[1])
        return best

    def drop(self, node: NodeId) -> None:
        """Forget a node that cannot be reached any more."""
        for blob in [blob for blob, named in self._named.items() if node in named]:
            del self._named[blob][node]
            self._entries -= 1
            if not self._named[blob]:
                del self._named[blob]


class Patience:
    """Until when one fetch waits for its neighbours: for each, STALL_S after it last said that it is getting the blobs itself.

    So one that is gone, or silent, is given up long before those who wait for it as well. Whatever comes renews it for all.
    """

    def __init__(self) -> None:
        """Wait for nobody yet."""
        self._clocks: dict[asyncio.Timeout, None] = {}

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[Callable[[], None]]:
        """Wait for a neighbour inside the block, which is told how to say that this one goes on.

        Raises:
            TimeoutError: it was waited for too long.
        """
        async with asyncio.timeout(STALL_S) as clock:
            self._clocks[clock] = None
            try:
                yield partial(_renew, clock)
            finally:
                del self._clocks[clock]

    def renew(self) -> None:
        """Something came."""
        for clock in self._clocks:
            _renew(clock)


def _renew(clock: asyncio.Timeout) -> None:
    if not clock.expired():
        clock.reschedule(asyncio.get_running_loop().time() + STALL_S)
