"""What a job and a result say inside their encryption: the job's body, the result's body, and their blobs.

A body is encoded, cut into parts that fit into blobs, and each part is encrypted (``seal.encrypt_body``) under the job's
or the result's random key, bound to its number.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from p2pq.errors import Reject
from p2pq.model.ids import LeaseId
from p2pq.model.params import Axis, Range
from p2pq.model.sources import SOURCES_MAX, Source
from p2pq.wire import codec, feed, prims, seal
from p2pq.wire.commandcontrol import DELAY_MS_MAX
from p2pq.wire.feed import Feed
from p2pq.wire.objects import BODY_PARTS_MAX, BlobRef
from p2pq.wire.shape import check_shape
from p2pq.wire.tree import Tree, TreeLimits, check_tree

PART_BYTES: Final = (4 << 20) - 4096
"""Plain bytes in one part; leaves room for what encryption adds even where nothing compresses."""
BODY_BYTES_MAX: Final = PART_BYTES * BODY_PARTS_MAX
PLAIN_FREE: Final = 8 << 20
PLAIN_RATIO: Final = 128
"""A body is not longer than PLAIN_FREE bytes and so many times its ciphertext. Lists of files compress far less than that."""
CHECKPOINT: Final = ".checkpoint"
"""The folder in ``results/`` that a task leaves for its next attempt."""

WORDS_MAX: Final = 1 << 18
"""Words of a command: what a shell makes of ``*`` in a large folder."""

Text = Annotated[str, Meta(max_length=128 << 10)]
HOOK_CHARS_MAX: Final = 64 << 10
Hook = Annotated[str, Meta(min_length=1, max_length=HOOK_CHARS_MAX)]
"""A command line for a shell."""


class JobBody(msgspec.Struct, frozen=True, kw_only=True, tag="job", forbid_unknown_fields=True):
    """What to run, with what, in which folder."""

    v: Literal[1] = 1
    name: Annotated[str, Meta(max_length=200)] = ""
    main: Annotated[str, Meta(min_length=1, max_length=4096)]
    """The file in the tree that is executed."""
    kind: Literal["python", "python-cold", "shell", "command"]
    """python: the job's interpreter runs ``main``, and may have imported ahead what it imports; python-cold: it may not;
    shell: /bin/sh runs it; command: ``main`` itself is executed."""
    args: Annotated[tuple[Text, ...], Meta(max_length=4096)] = ()
    """Arguments after ``main``; may hold ``{k}``, ``{task}``, ``{job}``."""
    axes: Annotated[tuple[Axis, ...], Meta(max_length=32)] = ()
    """Swept parameters; several multiply, the last one varying fastest."""
    array: Annotated[tuple[Range, ...], Meta(max_length=1024)] = ()
    """The numbers of ``--array``. They name the tasks where nothing is swept; else they multiply, slowest."""
    config: Annotated[str, Meta(max_length=4096)] = ""
    """A file of the tree whose path is passed as ``--config``."""
    tree: Tree
    begin: Hook | UnsetType = UNSET
    """A command line that each runner runs before its first task of the job, and after its last. Nodes of before refuse such a
    body; one without these is what it ever was."""
    end: Hook | UnsetType = UNSET


class CommandsBody(msgspec.Struct, frozen=True, kw_only=True, tag="commands", forbid_unknown_fields=True):
    """Commands to run on the machine that submitted them, in a folder and an environment of its user."""

    v: Literal[1] = 1
    name: Annotated[str, Meta(max_length=200)] = ""
    words: Annotated[tuple[Text, ...], Meta(max_length=WORDS_MAX)] = ()
    """As the user typed them, with replacement strings; none: the values are command lines themselves."""
    sources: Annotated[tuple[Source, ...], Meta(max_length=SOURCES_MAX)] = ()
    shell: bool = True
    """Whether ``words`` make a command line; else they are the arguments as they are."""
    cwd: Annotated[str, Meta(min_length=1, max_length=4096)]
    environment: Annotated[bytes, Meta(max_length=4 << 20)] = b""
    """K=V, each ended by a zero byte."""
    umask: Annotated[int, Meta(ge=0, le=0o777)] = 0o022
    stdin: Feed | None = None
    """What each task reads as its standard input; None: nothing."""
    begin: Hook | UnsetType = UNSET
    """As of a ``JobBody``."""
    end: Hook | UnsetType = UNSET
    delay_ms: Annotated[int, Meta(ge=1, le=DELAY_MS_MAX)] | UnsetType = UNSET
    """Between the starts of any two tasks; nodes of before refuse a body with it."""


class ResultBody(msgspec.Struct, frozen=True, kw_only=True, tag="result-body", forbid_unknown_fields=True):
    """What an attempt left: its results folder and all it printed."""

    v: Literal[1] = 1
    tree: Tree
    """Paths are relative to ``results/``."""
    output: Tree
    """Two files at most: ``stdout`` and ``stderr``."""
    detail: Annotated[str, Meta(max_length=2000)] = ""
    """One sentence on how it ended, for people."""
    skipped: Annotated[tuple[Annotated[str, Meta(max_length=5000)], ...], Meta(max_length=100)] = ()
    """What could not be taken along from ``results/`` and why."""


Body = TypeVar("Body", JobBody, ResultBody)
AnyJobBody = JobBody | CommandsBody
_ANY: Final = TreeLimits()
_OUTPUT: Final = TreeLimits(entries_max=2)


def encrypt(key: bytes, body: AnyJobBody | ResultBody) -> tuple[tuple[BlobRef, ...], list[bytes]]:
    """Return the references and the ciphertexts of a body's parts.

    Args:
        key: 32 random bytes, used for this body only.
        body: what to encrypt.

    Raises:
        Reject: the body is larger than BODY_BYTES_MAX (too many files).
    """
    plain = codec.encode(body)
    if len(plain) > BODY_BYTES_MAX:
        raise Reject("the list of files is too large for one job")
    blobs = [
        seal.encrypt_body(key, plain[at : at + PART_BYTES], _aad(number))
        for number, at in enumerate(range(0, len(plain), PART_BYTES))
    ]
    return tuple(BlobRef(prims.blob_id(blob), len(blob)) for blob in blobs), blobs


def decrypt(
    key: bytes,
    refs: tuple[BlobRef, ...],
    blobs: Mapping[bytes, bytes],
    type_: type[Body],
    limits: TreeLimits = _ANY,
    output: TreeLimits = _OUTPUT,
) -> Body:
    """Put a body together again; everything about it is checked, the tree included.

    Args:
        key: the job's or result's key.
        refs: the parts in order.
        blobs: ciphertext by blob id.
        type_: JobBody or ResultBody.
        limits: what its folder may hold.
        output: what was printed may be.

    Raises:
        Reject: a part is missing or does not verify, the body is not well formed, or it holds more than it may.
    """
    raw = _plain(key, refs, blobs)
    check_shape(raw, limits, output)
    body = codec.decode_strict(raw, type_, size_max=BODY_BYTES_MAX)
    check_tree(body.tree, limits)
    if isinstance(body, ResultBody):
        check_tree(body.output, output)
    return body


def decrypt_job(
    key: bytes, refs: tuple[BlobRef, ...], blobs: Mapping[bytes, bytes], limits: TreeLimits = _ANY
) -> AnyJobBody:
    """Put the body of a job together again, as ``decrypt`` does, whatever kind of job it is.

    Raises:
        Reject: as ``decrypt``.
    """
    raw = _plain(key, refs, blobs)
    check_shape(raw, limits, _OUTPUT)
    body: AnyJobBody = codec.decode_strict(raw, AnyJobBody, size_max=BODY_BYTES_MAX)  # type: ignore[arg-type]  # a union
    if isinstance(body, JobBody):
        check_tree(body.tree, limits)
    return body


def _plain(key: bytes, refs: tuple[BlobRef, ...], blobs: Mapping[bytes, bytes]) -> bytes:
    most = PLAIN_FREE + PLAIN_RATIO * sum(ref.size for ref in refs)
    plain = BytesIO()
    for number, ref in enumerate(refs):
        blob = blobs.get(ref.blob)
        if blob is None:
            raise Reject("a part of the body is missing")
        if len(blob) != ref.size or prims.blob_id(blob) != ref.blob:
            raise Reject("a blob does not match its name")
        plain.write(seal.decrypt_body(key, blob, _aad(number), size_max=PART_BYTES))
        if plain.tell() > most:
            raise Reject("a body is far longer than what it was packed into")
    return plain.getvalue()


def result_context(job: bytes, task: int, attempt: int, lease: LeaseId) -> bytes:
    """Return what the key of a result is bound to when it is sealed to ``Manifest.reply``."""
    return prims.blake2b(codec.encode((job, task, attempt, lease)), person="p2pq-result")


def in_checkpoint(path: str) -> bool:
    """Tell whether a path of the results belongs to the checkpoint, which is for the next attempt and not for people."""
    return path.partition("/")[0] == CHECKPOINT


def has_checkpoint(results: Tree) -> bool:
    """Tell whether a results' tree holds a checkpoint: a folder of that name with something in it."""
    paths = [entry.path for entries in (results.files, results.dirs, results.links) for entry in entries]
    return any(path.startswith(f"{CHECKPOINT}/") for path in paths)


def checkpoint_context(job: bytes, task: int, lease: LeaseId) -> bytes:
    """Return what the key of a checkpoint is bound to when it is sealed to the worker that goes on with it."""
    return prims.blake2b(codec.encode((job, task, lease)), person="p2pq-checkpoint")


def tree_refs(folder: Tree) -> tuple[BlobRef, ...]:
    """Return the tree's blobs without repeats, in order of first use."""
    return tuple(dict.fromkeys(BlobRef(chunk.blob, chunk.size) for chunk in folder.chunks))


def brought(body: AnyJobBody) -> tuple[BlobRef, ...]:
    """Return the blobs that a job brings along besides its body."""
    if isinstance(body, JobBody):
        return tree_refs(body.tree)
    return () if body.stdin is None else feed.refs(body.stdin)


def _aad(number: int) -> bytes:
    return b"p2pq/1 body part" + number.to_bytes(4, "little")
