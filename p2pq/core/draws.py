"""Draws that follow from a seed: what a life that is written down draws instead of the machine's entropy.

A stream is keyed BLAKE2b over a counter, which nobody without the seed can tell from chance (RFC 7693 names it a PRF). A
life draws as well from a stream as from the machine, and a record of it needs to hold the seed only.
"""

from random import Random
from typing import Final, NoReturn

from p2pq.wire import prims

SEED_BYTES: Final = prims.KEY_BYTES
_BLOCK_BYTES: Final = 64
_PERSON: Final = "p2pq-draws"


class Stream:
    """Bytes without end, the same for the same seed and name."""

    def __init__(self, seed: bytes, name: str) -> None:
        """Begin the stream of that name; streams of different names have nothing in common.

        Raises:
            Reject: the seed is not 32 bytes.
        """
        self._key = prims.derive(seed, name.encode(), _PERSON)
        self._blocks = 0
        self._rest = b""

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        while len(self._rest) < size:
            self._rest += prims.derive(self._key, self._blocks.to_bytes(8, "big"), _PERSON, size=_BLOCK_BYTES)
            self._blocks += 1
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


class StreamRandom(Random):
    """A ``Random`` that draws from a stream, as ``SystemRandom`` does from the machine."""

    def __init__(self, stream: Stream) -> None:
        """Draw from that stream."""
        super().__init__()
        self._stream = stream

    def random(self) -> float:
        """Return the next number in [0, 1), with 53 bits of chance."""
        return float((int.from_bytes(self._stream.take(7), "big") >> 3) * 2.0**-53)

    def getrandbits(self, k: int, /) -> int:
        """Return the next ``k`` bits."""
        size = (k + 7) // 8
        return int.from_bytes(self._stream.take(size), "big") >> (8 * size - k)

    def seed(self, *_args: object, **_kwargs: object) -> None:
        """Do nothing: the stream is the seed."""

    def getstate(self) -> NoReturn:
        """Refuse: there is no state but the stream's.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a stream has no state to save")

    def setstate(self, _state: object) -> NoReturn:
        """Refuse, as ``getstate`` does.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("a stream has no state to restore")
