"""As master: whether the files of live jobs are still here. Without them nobody can run a job, and no worker is to blame."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from p2pq.core.events import CancelAsked, Event
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.store import Store
from p2pq.errors import Reject, StorageError
from p2pq.model.ids import JobId, NodeId, Wall, to_text
from p2pq.wire import sign
from p2pq.wire.objects import Manifest

log = logging.getLogger(__name__)

READ_EVERY_S: Final = 600.0
"""The files of a job are read at most this often: most fetches fail because of the network."""


class JobFiles:
    """Looks after the blobs of jobs. Use it from the event loop's thread only."""

    def __init__(
        self,
        *,
        node: NodeId,
        store: Store,
        blobs: BlobStore,
        tasks: asyncio.TaskGroup,
        post: Callable[[Event], None],
    ) -> None:
        """Take the parts; ``node`` is the author of every manifest."""
        self._node = node
        self._store = store
        self._blobs = blobs
        self._tasks = tasks
        self._post = post
        self._read_at: dict[JobId, float] = {}

    def look(self, job: JobId) -> bool:
        """Give up a job of which a blob is not here; return whether that was so."""
        refs = self._refs(job)
        gone = sum(not self._blobs.has(blob) for blob in refs)
        if gone:
            self._lost(job, gone, len(refs))
        return bool(gone)

    def fetch_failed(self, job: JobId) -> None:
        """A worker could not have the files of a job: see whether that was its doing."""
        if self.look(job):
            return
        now = asyncio.get_running_loop().time()
        if now - self._read_at.get(job, -READ_EVERY_S) >= READ_EVERY_S:
            self._read_at[job] = now
            self._tasks.create_task(self._read(job), name=f"job files {to_text(job)[:8]}")

    def let_go(self, job: JobId) -> None:
        """A job has ended."""
        self._read_at.pop(job, None)

    async def _read(self, job: JobId) -> None:
        refs = self._refs(job)
        try:
            gone = await asyncio.to_thread(self._blobs.verify, refs)
        except StorageError as error:
            log.warning("job.inputs-unread", extra={"fields": {"job": to_text(job)[:8], "reason": str(error)}})
            return
        if gone:
            self._lost(job, len(gone), len(refs))

    def _lost(self, job: JobId, gone: int, of: int) -> None:
        log.error("job.inputs-lost", extra={"fields": {"job": to_text(job)[:8], "gone": gone, "of": of}})
        lost = f"its files are lost ({gone} of {of} blobs are damaged or gone on this machine); submit the folder again"
        self._post(CancelAsked(job=job, wall=Wall(int(time.time() * 1000)), lost=lost))

    def _refs(self, job: JobId) -> list[bytes]:
        secret = self._store.secret(job)
        if secret is None:
            return []
        try:
            manifest = sign.open_signed(secret.manifest, Manifest, self._node)
        except Reject:
            return []
        return list(dict.fromkeys(ref.blob for ref in (*manifest.body, *manifest.blobs)))
