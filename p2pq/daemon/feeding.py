"""Standard input of commands: as master, taken in piece by piece before its job; as worker, a file that a task reads."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from p2pq.daemon import room
from p2pq.daemon.blobstore import BlobStore
from p2pq.errors import NotFoundError, RefusedError, UsageError
from p2pq.wire.commandcontrol import KeepInput
from p2pq.wire.control import Reply
from p2pq.wire.feed import Feed, parts
from p2pq.wire.objects import BLOBS_MAX
from p2pq.wire.tree import Chunk, KeyOf, open_chunk, seal_chunk

UPLOADS_MAX: Final = 64
FORGOTTEN_S: Final = 600.0
"""So long after its last piece an upload that no job has taken is dropped."""
LARGE_BYTES: Final = 64 << 10
"""Smaller pieces are sealed at once: going to a thread takes longer."""


@dataclass(slots=True)
class _Upload:
    """What has come of a stream; its blobs are pinned by its tag."""

    tag: tuple[str, bytes]
    timer: asyncio.TimerHandle | None = None
    chunks: list[Chunk] = field(default_factory=list)


class Uploads:
    """Streams that are on their way in, and that no job has taken yet. Use it from the event loop's thread only."""

    def __init__(self, blobs: BlobStore, key_of: KeyOf) -> None:
        """Keep them as blobs there."""
        self._blobs = blobs
        self._key_of = key_of
        self._uploads: dict[bytes, _Upload] = {}

    async def keep(self, request: KeepInput, _send: Callable[[Reply], Awaitable[None]]) -> None:
        """Answer ``KeepInput``.

        Raises:
            RefusedError: there are too many of them.
            StorageError: it cannot be kept.
            UsageError: there is too much of it for one job.
        """
        upload = self._uploads.get(request.upload)
        if upload is None:
            if len(self._uploads) >= UPLOADS_MAX:
                raise RefusedError(f"input of {UPLOADS_MAX} jobs is on its way in already; try again in a moment")
            upload = self._uploads[request.upload] = _Upload(("upload", request.upload))
        if len(upload.chunks) >= BLOBS_MAX:
            raise UsageError(
                f"the standard input of one job has at most {BLOBS_MAX} pieces; split it into several jobs"
            )
        self._rearm(request.upload, upload)
        if len(request.data) < LARGE_BYTES:
            chunk = self._seal(request.data, upload)
        else:
            chunk = await asyncio.to_thread(self._seal, request.data, upload)
        upload.chunks.append(chunk)

    def _seal(self, data: bytes, upload: _Upload) -> Chunk:
        chunk, ciphertext = seal_chunk(data, self._key_of)
        self._blobs.add(chunk.blob, ciphertext, pin=upload.tag)
        return chunk

    @contextmanager
    def taken(self, name: bytes | None) -> Iterator[tuple[Chunk, ...]]:
        """Take what has come under a name, and let go of it afterwards: by then its job holds it, or there is none.

        Raises:
            NotFoundError: nothing has.
        """
        if name is None:
            yield ()
            return
        upload = self._uploads.pop(name, None)
        if upload is None:
            raise NotFoundError("the standard input of these commands is not here any more; submit them again")
        if upload.timer is not None:
            upload.timer.cancel()
        try:
            yield tuple(upload.chunks)
        finally:
            self._blobs.unpin(upload.tag)

    def _rearm(self, name: bytes, upload: _Upload) -> None:
        if upload.timer is not None:
            upload.timer.cancel()
        upload.timer = asyncio.get_running_loop().call_later(FORGOTTEN_S, self._forget, name)

    def _forget(self, name: bytes) -> None:
        with self.taken(name):
            pass


def write(feed: Feed, task: int, blobs: BlobStore, path: Path) -> None:
    """Write what a task reads as its standard input to a new file. Blocking.

    Raises:
        OSError: it cannot be written.
        Reject: a blob is not what the job says.
        StorageError: a blob cannot be read, or there is no room for it.
    """
    with room.claim(path.parent, feed.sizes[task], blobs.reserve_bytes, "the standard input"), path.open("xb") as file:
        for chunk, begin, end in parts(feed, task):
            file.write(memoryview(open_chunk(chunk, blobs.get(chunk.blob)))[begin:end])
