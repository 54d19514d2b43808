"""Messages over records: each message compressed if that helps, framed, and cut into records.

A frame is ``kind (1) | stored length (4, LE) | plain length (4, LE) | stored bytes``. Frames follow each other without gaps
in the plaintext of the records, so a record may hold a piece of a frame or several frames. All of it is inside the link's
encryption: lengths are authenticated before they are read here, and still checked against a cap before anything is
allocated. The last frame is BYE; a link that ends without one was cut.
"""

import struct
from typing import Final

import lz4.block

from p2pq.errors import LocalProtocolError, Reject
from p2pq.wire import seal

PIECE_BYTES_MAX: Final = 65_519
"""Longest plaintext of one record: 65,535 less the tag."""
SIZE_MAX: Final = 8 << 20
COMPRESS_FROM_BYTES: Final = 512
BYE_BYTES_MAX: Final = 200

_HEADER: Final = struct.Struct("<BII")
_BYE: Final = 2
"""The third kind of frame; the other two are seal.STORED and seal.LZ4."""


def encode(message: bytes, *, size_max: int = SIZE_MAX) -> list[bytes]:
    """Return the plaintexts of the records that carry one message.

    Raises:
        LocalProtocolError: the message is empty or longer than ``size_max``.
    """
    if not 0 < len(message) <= size_max:
        raise LocalProtocolError("message is empty or too long")
    kind, stored = seal.STORED, message
    if len(message) > COMPRESS_FROM_BYTES:
        packed = lz4.block.compress(message, store_size=False)
        if len(packed) < len(message):
            kind, stored = seal.LZ4, packed
    frame = _HEADER.pack(kind, len(stored), len(message)) + stored
    return [frame[at : at + PIECE_BYTES_MAX] for at in range(0, len(frame), PIECE_BYTES_MAX)]


def encode_bye(reason: str = "") -> bytes:
    """Return the plaintext of the last record: the sender is done, and says why. The reason is cut to BYE_BYTES_MAX."""
    stored = reason.encode(errors="replace")[:BYE_BYTES_MAX].decode(errors="ignore").encode()
    return _HEADER.pack(_BYE, len(stored), len(stored)) + stored


class Decoder:
    """Puts messages together again from the plaintexts of records, in order. A failed one is dead for good."""

    __slots__ = ("_buffer", "_dead", "_size_max", "bye")

    def __init__(self, *, size_max: int = SIZE_MAX) -> None:
        """Accept messages of up to ``size_max`` bytes."""
        self._size_max = size_max
        self._buffer = bytearray()
        self._dead = False
        self.bye: str | None = None
        """The peer's farewell, once it has come; nothing may follow it."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next record's plaintext and return the messages that it completes.

        Raises:
            Reject: empty, after BYE, too long, of an unknown kind, or it does not expand to what it declares.
        """
        if self._dead:
            raise Reject("frames: after a failure")
        self._dead = True  # until this piece is through
        if self.bye is not None:
            raise Reject("frames: data after BYE")
        if not piece:
            raise Reject("frames: empty record")
        self._buffer += piece
        messages: list[bytes] = []
        while (message := self._next()) is not None:
            messages.append(message)
        self._dead = False
        return messages

    def finish(self) -> None:
        """Check, when the connection has ended, that it ended on purpose.

        Raises:
            Reject: no BYE has come; what was under way is to be dropped.
        """
        if self.bye is None:
            raise Reject("frames: ended without BYE")

    def _next(self) -> bytes | None:
        if len(self._buffer) < _HEADER.size:
            return None
        kind, stored_size, size = _HEADER.unpack_from(self._buffer)
        self._check(kind, stored_size, size)
        end = _HEADER.size + stored_size
        if len(self._buffer) < end:
            return None
        stored = bytes(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        if kind == _BYE:
            # For people and logs: what is not text is shown as such, not refused.
            self.bye = stored.decode(errors="replace")
            if self._buffer:
                raise Reject("frames: data after BYE")
            return None
        return seal.expand(kind, stored, size)

    def _check(self, kind: int, stored_size: int, size: int) -> None:
        if kind == seal.STORED:
            fits = 0 < size <= self._size_max and stored_size == size
        elif kind == seal.LZ4:
            fits = 0 < stored_size < size <= self._size_max
        elif kind == _BYE:
            fits = stored_size == size <= BYE_BYTES_MAX
        else:
            raise Reject("frames: unknown kind")
        if not fits:
            raise Reject("frames: bad length")
