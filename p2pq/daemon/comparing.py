"""Is a folder what a tree says? Compared with the blobs where they are here, else by making them again. Blocking, reads only."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from p2pq.errors import Reject
from p2pq.wire.tree import Chunk, File, Part, Tree, made_of, open_chunk

State = Literal["same", "gone", "unsure", "differs"]
_WORST: Final[tuple[State, ...]] = ("same", "unsure", "differs")
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

BlobOf = Callable[[bytes], bytes | None]
"""Returns a blob's bytes, or None where it is not here any more."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a tree's files and links, by path."""

    same: int = 0
    differs: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    """They cannot be read; or they have the right size, but neither are their blobs here, nor are those made of them the same."""


def compare(tree: Tree, folder: Path, blob_of: BlobOf) -> Compared:
    """Compare a folder with a checked tree; what else lies in the folder is nobody's word."""
    found: dict[str, State] = {file.path: _look(file, folder) for file in tree.files}
    users: dict[int, list[tuple[File, Part, int]]] = {}
    for file in tree.files:
        at = 0
        for part in file.parts:
            users.setdefault(part.chunk, []).append((file, part, at))
            at += part.length
    for number, parts in users.items():
        for path, state in _compare_chunk(tree.chunks[number], parts, found, folder, blob_of).items():
            found[path] = max(found[path], state, key=_WORST.index)
    for link in tree.links:
        found[link.path] = _look_at_link(folder / link.path, link.target)
    return Compared(
        same=sum(state == "same" for state in found.values()),
        differs=tuple(path for path, state in found.items() if state == "differs"),
        gone=tuple(path for path, state in found.items() if state == "gone"),
        unsure=tuple(path for path, state in found.items() if state == "unsure"),
    )


def _look(file: File, folder: Path) -> State:
    try:
        info = (folder / file.path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    except OSError:
        return "unsure"
    return "same" if stat.S_ISREG(info.st_mode) and info.st_size == file.size else "differs"


def _look_at_link(path: Path, target: str) -> State:
    if not os.path.lexists(path):
        return "gone"
    return "same" if path.is_symlink() and str(path.readlink()) == target else "differs"


def _compare_chunk(
    chunk: Chunk, parts: list[tuple[File, Part, int]], found: dict[str, State], folder: Path, blob_of: BlobOf
) -> dict[str, State]:
    """Return how the files that look right stand to what a chunk holds of them."""
    there = [(file, part, at) for file, part, at in parts if found[file.path] in {"same", "unsure"}]
    pieces = [(file.path, part, _read(folder / file.path, at, part.length)) for file, part, at in there]
    plain = _plain(chunk, blob_of)
    made_again = plain is None and _made_again(chunk, [(part, piece) for _, part, piece in pieces])
    states: dict[str, State] = {}
    for path, part, piece in pieces:
        if piece is None or (plain is None and not made_again):
            states[path] = "unsure"
        elif plain is not None and piece != plain[part.offset : part.offset + part.length]:
            states[path] = "differs"
    return states


def _plain(chunk: Chunk, blob_of: BlobOf) -> bytes | None:
    ciphertext = blob_of(chunk.blob)
    if ciphertext is None:
        return None
    try:
        return open_chunk(chunk, ciphertext)
    except Reject:  # its worker packed it like that: what was unpacked of it did not come from there
        return None


def _made_again(chunk: Chunk, pieces: list[tuple[Part, bytes | None]]) -> bool:
    """Tell whether the files, put together again, are the very chunk."""
    plain = bytearray(chunk.length)
    reached = 0
    for part, piece in sorted(pieces, key=lambda each: each[0].offset):
        if piece is None or part.offset > reached or len(piece) != part.length:
            return False
        plain[part.offset : part.offset + part.length] = piece
        reached = max(reached, part.offset + part.length)
    return reached == chunk.length and made_of(chunk, bytes(plain))


def _read(path: Path, at: int, length: int) -> bytes | None:
    """Return a piece of a file, shorter where that ends; None if it cannot be read."""
    try:
        with os.fdopen(os.open(path, _OPEN), "rb") as file:
            file.seek(at)
            return file.read(length)
    except OSError:
        return None
