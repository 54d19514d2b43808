"""File contents into sealed chunks: bounded memory, two threads, one order.

Large files become chunks of their own; small files are grouped into packs. Where one pack ends is decided by the
hash of a
path, not by a count, so that a changed, added or removed file moves only the boundaries next to it and the other
packs keep
their names.
"""

import os
import stat
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from p2pq.model.ids import BlobId
from p2pq.wire.tree import PLAIN_MAX, Chunk, File, KeyOf, Part, seal_chunk

Sink = Callable[[BlobId, bytes], None]
"""Takes each new blob's name and ciphertext, from the packing thread, in order."""

SMALL: Final = 256 << 10
"""Files below this many bytes are grouped."""
PACK_MIN: Final = 768 << 10
"""A pack smaller than this is not closed by a path's hash."""
PACK_MAX: Final = 3 << 20
"""A pack is closed before it grows past this."""
_BOUNDARY_MASK: Final = 0x0F
THREADS: Final = 2
"""lz4, BLAKE2b and XChaCha20 release the interpreter lock; more than two threads starve on reading."""
AT_ONCE_BYTES: Final = 64 << 10
"""So little is sealed or opened sooner than a thread begins."""
IN_FLIGHT_MAX: Final = 4
"""Chunks being sealed at once: bounds memory to about 50 MiB."""


class ChangedError(Exception):
    """A file changed while it was read."""


class Packer:
    """Seals the contents of files and hands each new blob to a sink.

    Use as a context manager. Add files in path order; ``chunks`` and the returned files are complete after ``finish``.
    """

    def __init__(self, sink: Sink, key_of: KeyOf, *, threads: int = THREADS) -> None:
        """Take what is needed. ``key_of`` is called from these threads, too."""
        self._sink = sink
        self._key_of = key_of
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="p2pq-pack")
        self._flying: deque[Future[tuple[Chunk, bytes]]] = deque()
        self._chunks: list[Chunk] = []
        # By the whole chunk: one blob can be compressed data to one file and the raw content of another.
        self._numbers: dict[Chunk, int] = {}
        self._order: list[int] = []  # n-th submitted chunk -> index in _chunks
        self._submitted = 0
        self._pack: list[bytes] = []
        self._pack_bytes = 0
        self._files: list[tuple[str, bool, int, list[tuple[int, int, int]]]] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the threads; unfinished work is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def add(self, path: str, descriptor: int) -> int:
        """Read one open regular file to its end and pack it; return its size in bytes.

        Raises:
            ChangedError: its size or time of change was not the same before and after; it is left out, though blobs
            of it may
                have reached the sink.
            OSError: it cannot be read.
        """
        before = os.fstat(descriptor)
        parts = (
            self._add_small(path, descriptor, before) if before.st_size < SMALL else self._add_large(descriptor, before)
        )
        executable = bool(before.st_mode & stat.S_IXUSR)
        self._files.append((path, executable, before.st_size, parts))
        return before.st_size

    def finish(self) -> tuple[tuple[File, ...], tuple[Chunk, ...]]:
        """Seal what is left; return the files as they were added, and the chunks."""
        self._close_pack()
        while self._flying:
            self._land()
        files = tuple(
            File(path, executable, size, tuple(Part(self._order[n], at, k) for n, at, k in parts))
            for path, executable, size, parts in self._files
        )
        return files, tuple(self._chunks)

    def _add_small(self, path: str, descriptor: int, before: os.stat_result) -> list[tuple[int, int, int]]:
        data = read_exactly(descriptor, before.st_size) if before.st_size else b""
        if changed(before, os.fstat(descriptor)):
            raise ChangedError
        boundary = not zlib.crc32(path.encode()) & _BOUNDARY_MASK
        if self._pack_bytes + len(data) > PACK_MAX or (boundary and self._pack_bytes >= PACK_MIN):
            self._close_pack()
        if not data:
            return []
        part = (self._submitted, self._pack_bytes, len(data))
        self._pack.append(data)
        self._pack_bytes += len(data)
        return [part]

    def _add_large(self, descriptor: int, before: os.stat_result) -> list[tuple[int, int, int]]:
        self._close_pack()
        parts: list[tuple[int, int, int]] = []
        left = before.st_size
        while left:
            data = read_exactly(descriptor, min(left, PLAIN_MAX))
            parts.append((self._submitted, 0, len(data)))
            self._submit(data)
            left -= len(data)
        if changed(before, os.fstat(descriptor)):
            raise ChangedError
        return parts

    def _close_pack(self) -> None:
        if self._pack:
            data = b"".join(self._pack)
            self._pack.clear()
            self._pack_bytes = 0
            self._submit(data)

    def _submit(self, data: bytes) -> None:
        if len(self._flying) >= IN_FLIGHT_MAX:
            self._land()
        self._submitted += 1
        if len(data) > AT_ONCE_BYTES:
            self._flying.append(self._pool.submit(seal_chunk, data, self._key_of))
            return
        sealed: Future[tuple[Chunk, bytes]] = Future()
        sealed.set_result(seal_chunk(data, self._key_of))
        self._flying.append(sealed)

    def _land(self) -> None:
        chunk, ciphertext = self._flying.popleft().result()
        number = self._numbers.get(chunk)
        if number is None:
            number = self._numbers[chunk] = len(self._chunks)
            self._chunks.append(chunk)
            self._sink(BlobId(chunk.blob), ciphertext)
        self._order.append(number)


def changed(before: os.stat_result, after: os.stat_result) -> bool:
    """Return whether a file's content may have changed between two looks at it."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def read_exactly(descriptor: int, size: int) -> bytes:
    """Read exactly ``size`` bytes.

    Raises:
        ChangedError: the file ends earlier.
        OSError: it cannot be read.
    """
    data = os.read(descriptor, size)
    if len(data) == size:
        return data
    pieces = [data]
    left = size - len(data)
    while left:
        piece = os.read(descriptor, left)
        if not piece:
            raise ChangedError
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
