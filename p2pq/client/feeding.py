"""Standard input of commands as it is told to a node: one stream, in pieces, and how much of it each task reads."""

import os
from collections.abc import Iterable, Iterator

import msgspec

from p2pq.wire.commandcontrol import PIECE_BYTES_MAX, UPLOAD_BYTES, KeepInput, SubmitCommands

Block = bytes | bytearray | memoryview
Input = Block | Iterable[Block]
"""What one task reads: all of it, or block by block."""


class Feeding:
    """What the tasks of one job are to read.

    Send all of ``pieces``, each once the one before is answered; ``named`` then is the request that uses them.
    """

    def __init__(self, inputs: Iterable[Input]) -> None:
        """Take what each task reads, in order; none of it is looked at before ``pieces`` comes to it."""
        self._inputs = inputs
        self._sizes: list[int] = []
        self._upload = os.urandom(UPLOAD_BYTES)

    def pieces(self) -> Iterator[KeepInput]:
        """Yield what the node is to keep. A block that fits into a piece is in one only."""
        held = bytearray()
        for block in self._blocks():
            left = memoryview(block)
            self._sizes[-1] += len(left)
            if held and len(held) + len(left) > PIECE_BYTES_MAX:
                yield self._keep(held)
                held.clear()
            while len(left) > PIECE_BYTES_MAX:
                yield self._keep(left[:PIECE_BYTES_MAX])
                left = left[PIECE_BYTES_MAX:]
            held += left
        if held:
            yield self._keep(held)

    def _blocks(self) -> Iterator[Block]:
        for each in self._inputs:
            self._sizes.append(0)
            if isinstance(each, Block):
                yield each
            else:
                yield from each

    def _keep(self, data: Block) -> KeepInput:
        return KeepInput(upload=self._upload, data=bytes(data))

    def named(self, request: SubmitCommands) -> SubmitCommands:
        """Return the request with what was sent as its tasks' standard input."""
        upload = self._upload if any(self._sizes) else None
        return msgspec.structs.replace(request, stdin=tuple(self._sizes), upload=upload)
