"""What a job brings along, opened and looked at before any of it is unpacked, at a worker. Blocking."""

from p2pq.core.effects import Start
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.limits import size_text
from p2pq.errors import DiskFullError, RefusedError, Reject
from p2pq.wire import body as bodies
from p2pq.wire.body import AnyJobBody, CommandsBody
from p2pq.wire.tree import TOO_MANY_BYTES, TreeLimits


def open_job(start: Start, blobs: BlobStore, bytes_max: int) -> AnyJobBody:
    """Decrypt a job's body; its parts are here.

    Raises:
        DiskFullError: its files, unpacked, would be more than ``bytes_max``, which is what a task may hold here.
        RefusedError: these are commands for the folder of another machine's user.
        Reject: the body is not what the manifest promised.
        StorageError: a part cannot be read.
    """
    parts = {ref.blob: blobs.get(ref.blob) for ref in start.body}
    try:
        body = bodies.decrypt_job(start.key, start.body, parts, TreeLimits(bytes_max=bytes_max))
    except Reject as error:
        if error.reason != TOO_MANY_BYTES:
            raise
        most = size_text(bytes_max)
        raise DiskFullError(f"the job's files are larger than the {most} that a task may hold here") from error
    if isinstance(body, CommandsBody) and not (start.own and start.sandbox == "none"):
        raise RefusedError("commands in their user's own folder run on that user's machine only")
    return body


def entries(job: AnyJobBody) -> int:
    """Return a measure of the memory that a body takes."""
    if isinstance(job, CommandsBody):
        texts = (job.words, *(source.values for source in job.sources))
        # Values are short, and of a job without files there is nothing else.
        stdin = 0 if job.stdin is None else len(job.stdin.sizes) + 8 * len(job.stdin.chunks)
        return 1 + (stdin + len(job.environment) + sum(64 + len(text) for each in texts for text in each)) // 512
    tree = job.tree
    parts = sum(len(file.parts) for file in tree.files)
    texts = (job.args, *(axis.values for axis in job.axes))
    words = sum(1 + len(text) // 256 for each in texts for text in each)
    return 1 + len(tree.files) + len(tree.dirs) + len(tree.links) + len(tree.chunks) + parts + words
