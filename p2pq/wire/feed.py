"""What the tasks of a job of commands read as their standard input: one stream, sealed in chunks, of which each has its part."""

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from p2pq.errors import Reject
from p2pq.wire.commandcontrol import Sizes
from p2pq.wire.objects import BLOBS_MAX, BlobRef
from p2pq.wire.tree import Chunk


class Feed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The stream, and how many bytes of it each task reads, in the order of the tasks."""

    sizes: Sizes
    chunks: Annotated[tuple[Chunk, ...], Meta(max_length=BLOBS_MAX)]


def check(feed: Feed, tasks: int) -> None:
    """Refuse a stream that is not for so many tasks, or that they would not read to its end.

    Raises:
        Reject: it is so.
    """
    if len(feed.sizes) != tasks:
        raise Reject(f"there is standard input for {len(feed.sizes)} tasks, and there are {tasks}")
    if sum(feed.sizes) != sum(chunk.length for chunk in feed.chunks):
        raise Reject("the standard input of all tasks together is not what was sent")


def parts(feed: Feed, task: int) -> Iterator[tuple[Chunk, int, int]]:
    """Yield what a task reads: chunks in order, each with where its bytes begin and end in it."""
    start = sum(feed.sizes[:task])
    end = start + feed.sizes[task]
    at = 0
    for chunk in feed.chunks:
        begin, stop = max(0, start - at), min(chunk.length, end - at)
        if begin < stop:
            yield chunk, begin, stop
        at += chunk.length


def refs(feed: Feed) -> tuple[BlobRef, ...]:
    """Return the stream's blobs without repeats."""
    return tuple(dict.fromkeys(BlobRef(chunk.blob, chunk.size) for chunk in feed.chunks))
