"""Results into the owner's folder: complete or not at all, never over something else, the same if done twice. Blocking."""

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from threading import BoundedSemaphore
from typing import Final

import msgspec

from p2pq.daemon import crashpoints, files, room
from p2pq.daemon.blobstore import BlobShelf, BlobStore
from p2pq.daemon.unpack import rotate_results, unpack
from p2pq.errors import DiskFullError, P2PQError, RefusedError, StorageError, UsageError
from p2pq.model.job import Limits
from p2pq.wire import body as bodies
from p2pq.wire import codec, seal, sign
from p2pq.wire.body import ResultBody
from p2pq.wire.objects import MANIFEST_BYTES_MAX, ResultItem
from p2pq.wire.tree import Tree, TreeLimits, disk_bytes

STAGING_PREFIX: Final = ".p2pq-"
"""Half-written results; such names are never submitted. What a crash leaves of them is swept away (``sweep``)."""
OPENING_MAX: Final = 2
"""Results opened at the same time: each may take some hundred megabytes for a moment."""
SMALL_BYTES: Final = 2048
"""Encrypted bodies of so many bytes are no burden, and wait for nothing."""
_OPENING: Final = BoundedSemaphore(OPENING_MAX)
_STAGED: Final = re.compile(re.escape(STAGING_PREFIX) + "[a-z0-9_]{8}")
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE: Final = 1 << 18
_FOR_GOOD: Final = {errno.ENAMETOOLONG, errno.ELOOP}
"""What no repetition mends."""


class UndeliverableError(RefusedError):
    """Results can never be written there."""


class _Limited(msgspec.Struct):
    limits: Limits = Limits()


def limits_of(manifest: bytes) -> Limits:
    """Return the limits of a job by its signed manifest, out of this node's own store.

    Raises:
        Reject: it is none.
    """
    limited: _Limited = codec.decode_lenient(sign.body_of(manifest), _Limited, size_max=MANIFEST_BYTES_MAX)
    return limited.limits


def open_result(item: ResultItem, reply_secret: bytes, blobs: BlobShelf, limits: Limits) -> ResultBody:
    """Decrypt what an attempt left; it is not larger than the job's limits allow. Blocks where others are opened.

    Where it brought no body it left and printed nothing.

    Raises:
        Reject: it is not what its worker signed, or holds more than it may.
        StorageError: a blob is not here any more.
    """
    if not item.body:
        return ResultBody(tree=Tree(), output=Tree())
    context = bodies.result_context(item.job, item.task, item.attempt, item.lease)
    key = seal.open_seal(reply_secret, item.key, context)
    results = TreeLimits(bytes_max=limits.results_bytes)
    output = TreeLimits(entries_max=2, bytes_max=limits.printed_bytes)
    with nullcontext() if sum(ref.size for ref in item.body) <= SMALL_BYTES else _OPENING:
        parts = {ref.blob: blobs.get(ref.blob) for ref in item.body}
        return bodies.decrypt(key, item.body, parts, ResultBody, results, output)


def target(results: Path, *, tasks: int, number: int) -> Path:
    """Return where a task's results belong: ``results`` itself for a job of one task, else a folder of its number."""
    return results if tasks == 1 else results / str(number)


def write(tree: Tree, blobs: BlobStore, destination: Path, *, umask: int = 0o022) -> None:
    """Write a tree as the folder ``destination``, which appears complete, with a rename, and is on the disk on return.

    Something else of that name is moved aside to ``NAME.~N~``. If the very same content is there already (a delivery
    before a crash), nothing happens.

    Args:
        tree: what to write.
        blobs: where its content is.
        destination: the folder to be.
        umask: the modes that the owner does not want; the node's own umask is stricter.

    Raises:
        Reject: a blob is not what the tree says.
        DiskFullError: there is no room for it, and a reserve; nothing was written.
        StorageError: it cannot be written; nothing half-written stays under ``destination``.
        UndeliverableError: it never can, there.
    """
    parent = destination.parent
    try:
        _make_folders(parent, umask)
        wanted, reserve = disk_bytes(tree), room.delivery_reserve(parent)
        with room.claim(parent, wanted, reserve, str(destination)), _staging(parent) as (staging, disk):
            folder = staging / "folder"
            folder.mkdir(mode=0o777)
            _unpack(tree, blobs, folder)
            crashpoints.reached("delivery.staged")
            _give_modes(folder, umask)
            _put_in_place(folder, destination, disk)
        files.sync_folder(parent)
    except OSError as error:
        raise _said(error, parent) from error


def _unpack(tree: Tree, blobs: BlobStore, folder: Path) -> None:
    try:
        unpack(tree, lambda chunk: blobs.get(chunk.blob), folder)
    except DiskFullError as error:
        raise DiskFullError(f"{folder.parent.parent}: the disk is full; make room") from error
    except RefusedError as error:  # two names that are one there, or a name that is none
        raise UndeliverableError(f"{folder.parent.parent}: {error}") from error


def _said(error: OSError, parent: Path) -> P2PQError:
    """Return what an error means, in a sentence that is the same each time it is tried again, and for each task."""
    failed = str(error.filename or "")
    # What is half written has a name of its own each time, and what is opened by descriptor half a name.
    where = failed if failed.startswith("/") and STAGING_PREFIX not in failed else parent
    if error.errno in _FOR_GOOD:
        return UndeliverableError(f"{where}: {error.strerror}")
    kind = DiskFullError if error.errno in {errno.ENOSPC, errno.EDQUOT} else StorageError
    return kind(f"{where}: {error.strerror}; make room or mend it")


def _make_folders(folder: Path, umask: int) -> None:
    """Make a folder and those above it that are missing, with the modes that the owner's own program would have given them."""
    if not folder.is_dir():
        _make_folders(folder.parent, umask)
        with suppress(FileExistsError):  # another delivery was quicker
            folder.mkdir()
            folder.chmod(0o777 & ~umask)
        files.sync_folder(folder.parent)


@contextmanager
def _staging(parent: Path) -> Iterator[tuple[Path, int]]:
    """Make a folder for a while; it is locked, so that ``sweep`` knows the ones that nobody uses any more."""
    while True:
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=parent))
        try:
            descriptor = os.open(staging, _OPEN_FOLDER)
        except FileNotFoundError:
            continue  # swept between the two
        with suppress(OSError):  # a file system without locks: then nobody sweeps there either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)
    try:
        yield staging, descriptor
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(descriptor)


def sweep(parent: Path) -> None:
    """Remove what deliveries into ``parent`` left half written when their node died."""
    with suppress(OSError), os.scandir(parent) as listing:
        for item in listing:
            if _STAGED.fullmatch(item.name) and item.is_dir(follow_symlinks=False):
                _sweep(Path(item.path))


def _sweep(staging: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(staging, _OPEN_FOLDER)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(staging, ignore_errors=True)
        finally:
            os.close(descriptor)


def _give_modes(folder: Path, umask: int) -> None:
    """Give what was written the modes that it would have had if the owner's own program had written it."""
    for _, _, names, descriptor in os.fwalk(folder, topdown=False, onerror=files.raised):
        for name in names:
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            if stat.S_ISREG(mode):
                os.chmod(name, (0o777 if mode & stat.S_IXUSR else 0o666) & ~umask, dir_fd=descriptor)
        os.fchmod(descriptor, 0o777 & ~umask)


def _put_in_place(folder: Path, destination: Path, disk: int) -> None:
    if os.path.lexists(destination):
        if same(folder, destination):
            files.sync_tree(destination)  # a crash before this may have come between its rename and the disk
            return
        rotate_results(destination.parent, destination.name)
        crashpoints.reached("delivery.aside")
    files.sync_tree(folder, disk)
    folder.rename(destination)
    crashpoints.reached("delivery.in-place")


def same(one: Path, other: Path) -> bool:
    """Tell whether two folders hold the same names and content; not if one of them cannot be read."""
    try:
        with _opened(one) as mine, _opened(other) as theirs:
            return _same(mine, theirs)
    except OSError:
        return False


def _same(one: int, other: int) -> bool:
    found = _listed(one)
    if found != _listed(other):
        return False
    for name, (kind, _) in found.items():
        if kind not in {stat.S_IFDIR, stat.S_IFREG}:
            continue
        flags = _OPEN_FOLDER if kind == stat.S_IFDIR else _OPEN_FILE
        with _opened(name, one, flags) as mine, _opened(name, other, flags) as theirs:
            if not (_same(mine, theirs) if kind == stat.S_IFDIR else _same_content(mine, theirs)):
                return False
    return True


def _listed(folder: int) -> dict[str, tuple[int, int | str]]:
    """Return what is in a folder: of each name its kind, and a file's size or a link's target."""
    found: dict[str, tuple[int, int | str]] = {}
    for name in os.listdir(folder):
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFLNK:
            found[name] = kind, os.readlink(name, dir_fd=folder)
        else:
            found[name] = kind, info.st_size if kind == stat.S_IFREG else 0
    return found


def _same_content(one: int, other: int) -> bool:
    while (mine := os.read(one, _PIECE)) == os.read(other, _PIECE):
        if not mine:
            return True
    return False


@contextmanager
def _opened(path: Path | str, parent: int | None = None, flags: int = _OPEN_FOLDER) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_empty(folder: Path) -> None:
    """Make an empty folder, or find one. Raises RefusedError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        full = any(folder.iterdir())
    except OSError as error:
        raise RefusedError(f"{error.filename or folder}: {error.strerror}; name another with --to DIR") from error
    if full:
        raise RefusedError(f"{folder} is not empty; name another with --to DIR")


def check_apart(results: Path, folder: Path) -> None:
    """Refuse a results folder that is, or holds, what is submitted: moving earlier results aside would move that away.

    Raises:
        UsageError: it is so.
    """
    home, source = results.resolve(), folder.resolve()
    if home == source or home in source.parents:
        raise UsageError(
            f"--results {results} holds the folder that is submitted; name one of its own, such as results"
        )


def move_aside(results: Path, *, leave: bool = False) -> Path | None:
    """Move earlier results aside, unless they are to be left; find out now, not later, whether new ones can be written.

    Raises:
        RefusedError: they cannot.
    """
    try:
        parent = next(folder for folder in results.parents if os.path.lexists(folder))
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise RefusedError(f"results cannot be written below {parent}; use --results DIR")
        return rotate_results(results.parent, results.name) if os.path.lexists(results) and not leave else None
    except OSError as error:
        raise RefusedError(f"{error.filename or results}: {error.strerror}; mend it, or use --results DIR") from error
