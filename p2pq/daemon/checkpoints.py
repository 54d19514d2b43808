"""As worker: what an earlier attempt left for this one, opened and put where the task finds it. Blocking.

It comes from another machine through the task's master, so it is believed no more than any other tree. One that is of no
use costs the work behind it, never the task: the attempt starts from nothing, and the log says why.
"""

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from p2pq.core.effects import Start
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.unpack import unpack
from p2pq.errors import RefusedError, Reject
from p2pq.model.ids import short
from p2pq.wire import body as bodies
from p2pq.wire.body import CHECKPOINT, ResultBody
from p2pq.wire.tree import Tree, TreeLimits, select

log = logging.getLogger(__name__)

PRINTED_MAX: Final = 64 << 30
"""What was printed is not unpacked; this bounds what it takes to look at its list of parts."""
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_checkpoint(start: Start, blobs: BlobStore, bytes_max: int) -> Tree | None:
    """Decrypt the result that holds the checkpoint; return the part that is the checkpoint, or None if it is of no use.

    Args:
        start: names the parts of the result's body, which are here.
        blobs: where they are.
        bytes_max: the most that the earlier results may unpack to.

    Raises:
        StorageError: a part cannot be read.
    """
    parts = {ref.blob: blobs.get(ref.blob) for ref in start.checkpoint}
    try:
        limits = TreeLimits(bytes_max=bytes_max)
        output = TreeLimits(entries_max=2, bytes_max=min(start.limits.printed_bytes, PRINTED_MAX))
        body = bodies.decrypt(start.checkpoint_key, start.checkpoint, parts, ResultBody, limits, output)
        tree = select(body.tree, bodies.in_checkpoint)
    except Reject as error:
        _useless(start, error.reason)
        return None
    if not bodies.has_checkpoint(tree):
        _useless(start, "it holds nothing")
        return None
    return tree


def put_in_place(start: Start, tree: Tree, blobs: BlobStore, root: Path) -> bool:
    """Unpack a checkpoint into the results of a task that has not started; False, and nothing there, if it is of no use.

    Raises:
        StorageError: it cannot be written.
        OSError: the results folder cannot be opened.
    """
    results = os.open(root / "results", _OPEN_FOLDER)
    try:
        unpack(tree, lambda chunk: blobs.get(chunk.blob), results)
    except (Reject, RefusedError) as error:
        _useless(start, str(error))
        with suppress(FileNotFoundError):
            shutil.rmtree(CHECKPOINT, dir_fd=results)
        return False
    finally:
        os.close(results)
    return True


def _useless(start: Start, reason: str) -> None:
    fields = {"lease": str(start.lease), "job": short(start.job), "task": start.task, "reason": reason}
    log.warning("checkpoint.ignored", extra={"fields": fields})
