"""Small blobs travel inside the message that names them: a short task's results, or inputs, cost no request of their own."""

from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from p2pq.daemon.blobstore import BlobStore
from p2pq.errors import StorageError
from p2pq.wire import codec, sign
from p2pq.wire.messages import INLINE_BYTES_MAX, Granted, Message, ResultReady, Through
from p2pq.wire.objects import BlobRef, Manifest, Result

ENCLOSED_BYTES_MAX: Final = 32 << 10
"""Larger blobs are fetched: what is enclosed is held in memory on both sides, and is part of what a node notes of its past."""
_COUNT_MAX: Final[dict[type, int]] = {Granted: 64, ResultReady: 256}
"""As the messages have it."""

M = TypeVar("M", Granted, ResultReady)
S = TypeVar("S", Manifest, Result)


def enclose(message: Message, blobs: BlobStore, *, direct: bool) -> Message:
    """Return a message of this node with the small blobs that whoever gets it is about to want.

    Args:
        message: any. Looked into are a result that is said alone, as it is when it is new, and a grant with which a link
            carries a manifest for the first time. Results that waited for their master come by the dozen, and reading all of
            them would hold up everything else here: they are fetched.
        blobs: where they are read; what cannot be read is fetched by who wants it, and fails there.
        direct: no bridge carries the link. A bridge gets the inputs of a job once, and serves them to all behind it; so nothing
            is added to a grant to its cluster either.
    """
    match message:
        case ResultReady(result=raw):
            items = _own(raw, Result).items
            return _with(message, (*items[0].body, *items[0].blobs), blobs) if len(items) == 1 else message
        case Through(message=ResultReady() as ready):
            # The bridge passes them on with the result: nobody has to come back for them, over two links, within the second.
            return msgspec.structs.replace(message, message=enclose(ready, blobs, direct=False))
        case Granted(manifest=raw) if raw and direct:
            manifest = _own(raw, Manifest)
            return _with(message, (*manifest.body, *manifest.blobs), blobs)
        case _:
            return message


def _own(raw: bytes, kind: type[S]) -> S:
    """Return what this node has just signed."""
    return codec.decode_strict(sign.body_of(raw), kind, size_max=sign.size_max(kind))


def _with(message: M, refs: Iterable[BlobRef], blobs: BlobStore) -> M:
    enclosed: dict[bytes, bytes] = {}
    room = INLINE_BYTES_MAX
    for ref in refs:
        if len(enclosed) == _COUNT_MAX[type(message)] or room <= 0:
            break
        if ref.size <= min(room, ENCLOSED_BYTES_MAX) and ref.blob not in enclosed:
            try:
                enclosed[ref.blob] = blobs.get(ref.blob)
            except StorageError:
                continue
            room -= ref.size
    return msgspec.structs.replace(message, blobs=tuple(enclosed.values()))
