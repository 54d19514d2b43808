"""How large a body's trees are, found out before they are decoded: a few compressed bytes can name millions of parts.

Files are looked at one by one, but their parts are only counted: a part takes four bytes on the way and fifty times as many
in memory. All the rest of a body is bounded by its types.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from p2pq.errors import Reject
from p2pq.wire import codec
from p2pq.wire.tree import ENTRIES_MAX, SIZE_MAX, TreeLimits, check_sizes

LOOKED_AT_BYTES: Final = 256 << 10
"""Shorter bodies are decoded at once: whatever they hold is no burden."""
_NONE: Final = msgspec.Raw(b"\x90")
_FIXARRAY: Final = 0x90
_FIXARRAY_MAX: Final = 15
_LONG: Final = {0xDC: 3, 0xDD: 5}


class _File(msgspec.Struct, frozen=True, array_like=True, gc=False):
    path: str
    executable: bool
    size: Annotated[int, Meta(ge=0, le=SIZE_MAX)]
    parts: msgspec.Raw


class _Tree(msgspec.Struct, frozen=True):
    files: Annotated[tuple[_File, ...], Meta(max_length=ENTRIES_MAX)] = ()
    chunks: msgspec.Raw = _NONE


class _Body(msgspec.Struct, frozen=True):
    tree: _Tree = _Tree()
    output: _Tree = _Tree()


def check_shape(raw: bytes, limits: TreeLimits, output: TreeLimits) -> None:
    """Refuse a body whose trees are larger, or are cut into more parts, than they may be.

    Args:
        raw: the encoded body.
        limits: of its folder.
        output: of what was printed, where it has such a tree.

    Raises:
        Reject: it is so, or it is no body at all.
    """
    if len(raw) < LOOKED_AT_BYTES:
        return
    body: _Body = codec.decode_lenient(raw, _Body, size_max=len(raw))
    for tree, most in ((body.tree, limits), (body.output, output)):
        parts = sum(_length(file.parts) for file in tree.files)
        check_sizes(len(tree.files), _length(tree.chunks), parts, sum(file.size for file in tree.files), most)


def _length(array: msgspec.Raw) -> int:
    """Return how many items an encoded array has, by its head alone."""
    head = bytes(memoryview(array)[:5])
    if _FIXARRAY <= head[0] <= _FIXARRAY + _FIXARRAY_MAX:
        return head[0] - _FIXARRAY
    if head[0] not in _LONG:
        raise Reject("malformed")
    return int.from_bytes(head[1 : _LONG[head[0]]])
