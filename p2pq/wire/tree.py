"""A folder as encrypted chunks, and the manifest (the tree) that puts it together again.

A chunk is up to CHUNK bytes of ciphertext: compress (lz4 block; stored raw where that does not help) | encrypt
(XChaCha20-Poly1305, zero nonce, a key of its own) | name by the BLAKE2b of the ciphertext. A chunk's key is never
used for a
second message: it is either random or a keyed hash of the very bytes that are encrypted.

Everything here is hostile until ``decode_tree`` or ``open_chunk`` returns; the one exception that they raise is Reject.
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Final, Literal

import lz4.block
import msgspec
from msgspec import Meta

from p2pq.errors import Reject
from p2pq.wire import codec, names, prims

CHUNK: Final = 4 << 20
"""Most ciphertext in one blob, bytes."""
TAG_BYTES: Final = 16
PLAIN_MAX: Final = CHUNK - TAG_BYTES
"""Most plain bytes in one chunk: so that a chunk that does not compress still fits."""
SIZE_MAX: Final = 1 << 50
"""Largest file that a tree can hold, bytes."""
ENTRIES_MAX: Final = 1_000_000
"""Most files, folders or links in a tree."""
BLOCK_BYTES: Final = 4096
BYTES_A_PART: Final = 64 << 10
PARTS_FREE: Final = 1024
"""A tree has no more parts than files and chunks, one for each BYTES_A_PART, and so many. Packers make far fewer."""
TOO_MANY_BYTES: Final = "a tree holds too many bytes"
"""Why ``check_tree`` refuses what is larger than the limits."""
TREE_BYTES_MAX: Final = 64 << 20
"""Longest encoded tree; also the most bytes of folder names that a tree may imply."""
_NONCE: Final = bytes(24)  # each key encrypts exactly one message

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Index = Annotated[int, Meta(ge=0, lt=1 << 31)]
Length = Annotated[int, Meta(ge=1, le=PLAIN_MAX)]

KeyOf = Callable[[bytes], bytes]
"""The bytes that will be encrypted -> the 32-byte key for them."""


class Chunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One blob and how to open it."""

    blob: Bytes32
    key: Bytes32
    size: Annotated[int, Meta(ge=TAG_BYTES + 1, le=CHUNK)]
    """Bytes of ciphertext."""
    length: Length
    """Bytes of plain text."""
    packed: bool
    """Whether the plain text is lz4-compressed inside."""


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A range of one chunk's plain text."""

    chunk: Index
    offset: Annotated[int, Meta(ge=0, lt=PLAIN_MAX)]
    length: Length


class File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A regular file: its parts, joined, are its content."""

    path: str
    executable: bool
    size: Annotated[int, Meta(ge=0, le=SIZE_MAX)]
    parts: tuple[Part, ...]


class Directory(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A folder. Folders that hold something need no entry."""

    path: str


class Link(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A relative symlink to a place inside the tree."""

    path: str
    target: str


class Tree(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest of a folder."""

    v: Literal[1] = 1
    files: Annotated[tuple[File, ...], Meta(max_length=ENTRIES_MAX)] = ()
    dirs: Annotated[tuple[Directory, ...], Meta(max_length=ENTRIES_MAX)] = ()
    links: Annotated[tuple[Link, ...], Meta(max_length=ENTRIES_MAX)] = ()
    chunks: Annotated[tuple[Chunk, ...], Meta(max_length=ENTRIES_MAX)] = ()


class TreeLimits(msgspec.Struct, frozen=True):
    """What a receiver is willing to unpack."""

    entries_max: int = ENTRIES_MAX
    """Files, folders and links together, counting folders that are only implied."""
    bytes_max: int = 1 << 40
    """Plain bytes of all files together."""


def convergent(secret: bytes) -> KeyOf:
    """Return keys that depend on the content and a node's secret: equal data gives equal blobs, for this node only."""

    def key_of(data: bytes) -> bytes:
        return prims.blake2b(prims.blake2b(data), key=secret, person="p2pq-chunk-key")

    return key_of


def seal_chunk(plain: bytes, key_of: KeyOf) -> tuple[Chunk, bytes]:
    """Compress and encrypt 1 to PLAIN_MAX bytes; return the chunk and its ciphertext.

    Args:
        plain: the content.
        key_of: ``convergent(secret)``, or a source of random keys; called once.
    """
    assert 0 < len(plain) <= PLAIN_MAX, "a chunk holds 1 to PLAIN_MAX bytes"  # noqa: S101
    inner = lz4.block.compress(plain, store_size=False)
    packed = len(inner) < len(plain)
    if not packed:
        inner = plain
    key = key_of(inner)
    ciphertext = prims.xchacha_encrypt(key, _NONCE, inner, b"")
    return Chunk(prims.blob_id(ciphertext), key, len(ciphertext), len(plain), packed), ciphertext


def open_chunk(chunk: Chunk, ciphertext: bytes) -> bytes:
    """Check and decrypt a chunk's ciphertext; return its plain text, exactly ``chunk.length`` bytes.

    Raises:
        Reject: wrong size or name, not encrypted with the chunk's key, or not exactly ``length`` bytes inside.
    """
    if len(ciphertext) != chunk.size or prims.blob_id(ciphertext) != chunk.blob:
        raise Reject("a blob does not match its name")
    inner = prims.xchacha_decrypt(chunk.key, _NONCE, ciphertext, b"")
    if not chunk.packed:
        if len(inner) != chunk.length:
            raise Reject("a chunk has another length than its tree says")
        return inner
    try:
        # The length was bounded by PLAIN_MAX when the tree was decoded, so nothing larger is ever allocated.
        plain: bytes = lz4.block.decompress(inner, uncompressed_size=chunk.length)
    except (lz4.block.LZ4BlockError, ValueError, MemoryError) as error:
        raise Reject("a chunk does not decompress") from error
    if len(plain) != chunk.length:
        raise Reject("a chunk has another length than its tree says")
    return plain


def read_part(tree: Tree, part: Part, get: Callable[[bytes], bytes]) -> bytes:
    """Return a part of a file; ``get`` returns a blob by its name, or raises what the caller is to see.

    Raises:
        Reject: the blob is not what the tree says.
    """
    chunk = tree.chunks[part.chunk]
    return open_chunk(chunk, get(chunk.blob))[part.offset : part.offset + part.length]


def made_of(chunk: Chunk, plain: bytes) -> bool:
    """Tell whether a chunk was made of these bytes, without its blob. Only a yes is certain: lz4 may pack otherwise elsewhere."""
    if len(plain) != chunk.length:
        return False
    inner = lz4.block.compress(plain, store_size=False) if chunk.packed else plain
    return prims.blob_id(prims.xchacha_encrypt(chunk.key, _NONCE, inner, b"")) == chunk.blob


def encode_tree(tree: Tree) -> bytes:
    """Return the canonical bytes of a tree."""
    return codec.encode(tree)


def decode_tree(data: bytes, limits: TreeLimits) -> Tree:
    """Decode and check a tree.

    Raises:
        Reject: too long, malformed, not canonical, or refused by ``check_tree``.
    """
    tree = codec.decode_strict(data, Tree, size_max=TREE_BYTES_MAX)
    check_tree(tree, limits)
    return tree


def check_tree(tree: Tree, limits: TreeLimits) -> None:
    """Refuse everything that a hostile tree could do to the one who unpacks it.

    A checked tree holds only safe paths, no path twice, nothing below a file or a link, parts that lie inside their
    chunks
    and add up to each file's size, and links whose targets stay inside by their letters and pass no other link.

    Raises:
        Reject: any of that does not hold, or a limit is passed.
    """
    paths = [entry.path for entries in (tree.files, tree.dirs, tree.links) for entry in entries]
    if len(paths) > limits.entries_max:
        raise Reject("a tree holds too many entries")
    for path in paths:
        names.check_path(path)
    if len(set(paths)) != len(paths):
        raise Reject("a tree holds a path twice")
    folders = _folders(paths, limits.entries_max)
    leaves = {file.path for file in tree.files}
    links = {link.path for link in tree.links}
    if not folders.isdisjoint(leaves) or not folders.isdisjoint(links):
        raise Reject("a tree uses a file or link as a folder")
    if len(folders.union(paths)) > limits.entries_max:
        raise Reject("a tree holds too many entries")
    for link in tree.links:
        check_link(link, links)
    _check_chunks(tree.chunks)
    parts = sum(len(file.parts) for file in tree.files)
    check_sizes(len(tree.files), len(tree.chunks), parts, tree_bytes(tree), limits)
    for file in tree.files:
        _check_file(file, tree.chunks)


def check_sizes(files: int, chunks: int, parts: int, total: int, limits: TreeLimits) -> None:
    """Refuse a tree of these numbers of files, chunks and parts, and of ``total`` plain bytes.

    Raises:
        Reject: TOO_MANY_BYTES, or it is cut into more parts than packing it makes.
    """
    if total > limits.bytes_max:
        raise Reject(TOO_MANY_BYTES)
    if parts > PARTS_FREE + files + chunks + total // BYTES_A_PART:
        raise Reject("a tree is cut into too many parts")


def tree_bytes(tree: Tree) -> int:
    """Return the plain bytes of all files together."""
    return sum(file.size for file in tree.files)


def disk_bytes(tree: Tree) -> int:
    """Return about what a tree takes on a disk, once it is unpacked: what has a name takes a block more than its bytes."""
    return tree_bytes(tree) + BLOCK_BYTES * (len(tree.files) + len(tree.dirs) + len(tree.links))


def select(tree: Tree, wanted: Callable[[str], bool]) -> Tree:
    """Return the part of a checked tree whose paths are wanted, with no more chunks than that takes."""
    files = tuple(file for file in tree.files if wanted(file.path))
    used = sorted({part.chunk for file in files for part in file.parts})
    number = {old: new for new, old in enumerate(used)}
    return Tree(
        files=tuple(
            msgspec.structs.replace(
                file, parts=tuple(Part(number[part.chunk], part.offset, part.length) for part in file.parts)
            )
            for file in files
        ),
        dirs=tuple(folder for folder in tree.dirs if wanted(folder.path)),
        links=tuple(link for link in tree.links if wanted(link.path)),
        chunks=tuple(tree.chunks[old] for old in used),
    )


def check_link(link: Link, links: set[str]) -> None:
    """Refuse a link that leaves the tree, by its letters or through another link.

    Raises:
        Reject: see ``names.walk_target``; or the target passes one of ``links``, where letters would not tell where
        it leads.
    """
    passed, _reached = names.walk_target(link.path, link.target)
    if not links.isdisjoint(passed):
        raise Reject("a symlink leads through another symlink")


def _folders(paths: Iterable[str], limit: int) -> set[str]:
    folders: set[str] = set()
    total = 0  # of characters: a few long paths must not imply gigabytes of prefixes
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            total += len(parent)
            parent = parent.rpartition("/")[0]
        if len(folders) > limit or total > TREE_BYTES_MAX:
            raise Reject("a tree holds too many entries")
    return folders


def _check_chunks(chunks: tuple[Chunk, ...]) -> None:
    for chunk in chunks:
        inner = chunk.size - TAG_BYTES
        if inner >= chunk.length if chunk.packed else inner != chunk.length:
            raise Reject("a chunk's sizes contradict each other")


def _check_file(file: File, chunks: tuple[Chunk, ...]) -> None:
    for part in file.parts:
        if part.chunk >= len(chunks) or part.offset + part.length > chunks[part.chunk].length:
            raise Reject("a part lies outside its chunk")
    if sum(part.length for part in file.parts) != file.size:
        raise Reject("a file's parts do not add up")
