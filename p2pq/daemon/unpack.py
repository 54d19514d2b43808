"""Trees back into folders, and hostile results folders into trees.

``unpack`` writes a checked tree below a folder and nothing outside it: every folder is opened by descriptor without
following
symlinks, every file is created exclusively. ``collect`` reads what a job left behind, after all of its processes are
dead,
and believes none of it.
"""

import errno
import os
import re
import stat
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Final, Self

from p2pq.daemon import crashpoints
from p2pq.daemon.packer import AT_ONCE_BYTES, IN_FLIGHT_MAX, THREADS, ChangedError, Packer, Sink
from p2pq.errors import DiskFullError, RefusedError, Reject, StorageError
from p2pq.wire import names
from p2pq.wire.tree import (
    Chunk,
    Directory,
    File,
    KeyOf,
    Link,
    Tree,
    TreeLimits,
    check_link,
    check_tree,
    open_chunk,
)

ReadBlob = Callable[[Chunk], bytes]
"""Returns the ciphertext of a chunk; called from several threads."""

SKIPPED_MAX: Final = 99
"""Most skipped entries that ``collect`` names; the rest is a count."""
_FOLDERS_OPEN_MAX: Final = 64
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_REOPEN_FILE: Final = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SEARCH: Final = stat.S_IRUSR | stat.S_IXUSR
_CHANGED: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""What an entry answers that was deleted or swapped since it was listed: nobody but the job itself can have done that."""
_ROTATED: Final = re.compile(r"\.~([0-9]{1,9})~")

Slice = tuple[int, int, int, int]
"""(file, offset in the file, offset in the chunk, length)."""


def unpack(tree: Tree, read_blob: ReadBlob, destination: Path | int) -> None:
    """Write a tree below a folder; blocks until it is there.

    Files get mode 0644 or 0755 (less the umask). Nothing that exists is overwritten or followed; folders that exist
    are used. Each chunk is read and decrypted once. After a failure, what was written stays.

    Args:
        tree: from ``decode_tree``, or ``pack``.
        read_blob: called from two threads; what it raises comes out of here.
        destination: a folder, made if missing, or an open descriptor of one.

    Raises:
        Reject: a blob is not what the tree says.
        RefusedError: a file to be written exists already, or a folder of the tree is no folder there.
        DiskFullError: the disk or its quota is full.
        StorageError: it cannot be written otherwise.
    """
    with _destination(destination) as root, _Writer(root, tree.files) as writer:
        for folder in tree.dirs:
            writer.folder(folder.path)
        for number, file in enumerate(tree.files):
            if not file.parts:
                writer.write(number, 0, b"")
        for slices, plain in _opened_chunks(tree, read_blob):
            for number, at, start, length in slices:
                writer.write(number, at, memoryview(plain)[start : start + length])
            crashpoints.reached("unpack.chunk")
        for link in tree.links:
            writer.link(link)


def collect(
    folder: Path, limits: TreeLimits, sink: Sink, key_of: KeyOf, wanted: Callable[[str], bool] = lambda _: True
) -> tuple[Tree, tuple[str, ...]]:
    """Seal what a job left in its results folder; blocks until all is sealed.

    Call only when nothing of the job runs any more. Regular files, folders and relative symlinks that stay inside are
    taken, as content and an executable bit; what the job closed even to its owner is opened. What cannot travel by the
    job's own doing is skipped and named; trouble of this machine never is. A missing folder gives an empty tree.

    Args:
        folder: the last component is the job's and not trusted; what leads to it is ours.
        limits: what the results may hold.
        sink: takes each blob, from the calling thread.
        key_of: random keys.
        wanted: told the names in the folder itself; the others are left behind, unmentioned.

    Returns:
        The tree, and one printable sentence per skipped entry (bounded).

    Raises:
        Reject: a limit is passed; blobs made so far are of no use.
        ReplacedError: the folder is something else.
        OSError: something cannot be read by this machine's doing.
    """
    with Packer(sink, key_of) as packer:
        collector = _Collector(packer, limits, wanted)
        collector.run(folder)
        files, chunks = packer.finish()
    tree = Tree(
        files=files,
        dirs=tuple(Directory(path) for path in collector.empty),
        links=tuple(collector.safe_links()),
        chunks=chunks,
    )
    check_tree(tree, limits)
    return tree, collector.report()


def rotate_results(folder: Path, name: str = "results") -> Path | None:
    """Make room for new results: rename an existing ``results`` to ``results.~N~``, N one above the highest there.

    Returns:
        Where the old results are now, or None if there were none.

    Raises:
        StorageError: it cannot be renamed.
    """
    current = folder / name
    try:
        if not os.path.lexists(current):
            return None
        others = [path.name[len(name) :] for path in folder.iterdir() if path.name.startswith(name)]
        matches = [_ROTATED.fullmatch(rest) for rest in others]
        number = 1 + max((int(match[1]) for match in matches if match), default=0)
        return current.rename(folder / f"{name}.~{number}~")
    except OSError as error:
        raise _storage_error(error, current.name) from error


class _Folders:
    """Descriptors of folders below a root, made where missing; at most _FOLDERS_OPEN_MAX open at once."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: OrderedDict[str, int] = OrderedDict()

    def get(self, path: str) -> int:
        """Return the descriptor of a folder; valid until the next call."""
        if not path:
            return self._root
        descriptor = self._open.get(path)
        if descriptor is not None:
            self._open.move_to_end(path)
            return descriptor
        parent, _, name = path.rpartition("/")
        above = self.get(parent)
        with suppress(FileExistsError):  # a folder is used as it is; anything else fails to open
            os.mkdir(name, 0o755, dir_fd=above)
        descriptor = os.open(name, _OPEN_FOLDER, dir_fd=above)
        self._open[path] = descriptor
        if len(self._open) > _FOLDERS_OPEN_MAX:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


class _Writer:
    """Writes files by slices; the file written last stays open, because large files come in a row."""

    def __init__(self, root: int, files: tuple[File, ...]) -> None:
        self._folders = _Folders(root)
        self._files = files
        self._created: set[int] = set()
        self._number = -1
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._folders.close()

    def folder(self, path: str) -> None:
        with _translated(path):
            self._folders.get(path)

    def link(self, link: Link) -> None:
        with _translated(link.path):
            parent, _, name = link.path.rpartition("/")
            os.symlink(link.target, name, dir_fd=self._folders.get(parent))

    def write(self, number: int, offset: int, data: bytes | memoryview) -> None:
        file = self._files[number]
        with _translated(file.path):
            if number != self._number:
                self._switch(number, file)
            while data:
                done = os.pwrite(self._descriptor, data, offset)
                data = data[done:]
                offset += done

    def _switch(self, number: int, file: File) -> None:
        self._close()
        parent, _, name = file.path.rpartition("/")
        flags = _REOPEN_FILE if number in self._created else _CREATE_FILE
        mode = 0o755 if file.executable else 0o644
        self._descriptor = os.open(name, flags, mode, dir_fd=self._folders.get(parent))
        self._number = number
        if len(file.parts) > 1:
            self._created.add(number)

    def _close(self) -> None:
        if self._number >= 0:
            self._number = -1
            os.close(self._descriptor)


def _opened_chunks(tree: Tree, read_blob: ReadBlob) -> Iterator[tuple[list[Slice], bytes]]:
    """Yield each used chunk's slices and plain text, in order; decrypting runs ahead on threads, bounded."""
    slices: dict[int, list[Slice]] = {}
    for number, file in enumerate(tree.files):
        at = 0
        for part in file.parts:
            slices.setdefault(part.chunk, []).append((number, at, part.offset, part.length))
            at += part.length

    def fetch(chunk: Chunk) -> bytes:
        return open_chunk(chunk, read_blob(chunk))

    if sum(tree.chunks[index].length for index in slices) <= AT_ONCE_BYTES:
        for index, some in slices.items():
            yield some, fetch(tree.chunks[index])
        return
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="p2pq-unpack")
    flying: deque[tuple[int, Future[bytes]]] = deque()
    try:
        # In the order of files, not of chunk numbers: then large files are written front to back.
        for index in slices:
            flying.append((index, pool.submit(fetch, tree.chunks[index])))
            if len(flying) >= IN_FLIGHT_MAX:
                first, future = flying.popleft()
                yield slices[first], future.result()
        while flying:
            first, future = flying.popleft()
            yield slices[first], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class ReplacedError(Exception):
    """A job made something else of its results folder; the message says what."""


class _OddError(Exception):
    """An entry of a results folder that is not taken; the message says why."""


class _Collector:
    """Walks a hostile folder by descriptors; feeds regular files to a packer."""

    def __init__(self, packer: Packer, limits: TreeLimits, wanted: Callable[[str], bool]) -> None:
        self._packer = packer
        self._limits = limits
        self._wanted = wanted
        self._entries = 0
        self._bytes = 0
        self._skipped: list[str] = []
        self._more = 0
        self._links: list[Link] = []
        self.empty: list[str] = []
        """Folders that hold nothing, which need an entry of their own."""

    def run(self, folder: Path) -> None:
        try:
            mode = os.lstat(folder).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "a file" if stat.S_ISREG(mode) else ""
            now = f"{kind} now, not a folder" if kind else "no folder any more"
            raise ReplacedError(f"{names.display(folder.name)} is {now}; nothing of it was taken along")
        if mode & _SEARCH != _SEARCH:
            folder.chmod(stat.S_IMODE(mode) | _SEARCH)
        descriptor = os.open(folder, _OPEN_FOLDER)
        try:
            self._folder(descriptor, "")
        finally:
            os.close(descriptor)

    def safe_links(self) -> Iterator[Link]:
        """Yield the links that stay inside; skip the others."""
        links = {link.path for link in self._links}
        for link in self._links:
            try:
                check_link(link, links)
            except Reject as error:
                self._skip(link.path, error.reason)
            else:
                yield link

    def report(self) -> tuple[str, ...]:
        more = (f"and {self._more} more entries skipped",) if self._more else ()
        return (*self._skipped, *more)

    def _skip(self, path: str, reason: str) -> None:
        if len(self._skipped) < SKIPPED_MAX:
            self._skipped.append(f"{names.display(path)}: {reason}")
        else:
            self._more += 1

    def _folder(self, descriptor: int, path: str) -> None:
        room = self._limits.entries_max - self._entries
        with os.scandir(descriptor) as listing:
            found = sorted(islice((item.name for item in listing if path or self._wanted(item.name)), room + 1))
        if len(found) > room:
            raise Reject("the results hold too many files")
        self._entries += len(found)
        taken = False
        for name in found:
            taken |= self._entry(descriptor, name, f"{path}/{name}" if path else name)
        if path and not taken:
            self.empty.append(path)

    def _entry(self, folder: int, name: str, path: str) -> bool:
        """Take one entry or skip it; return whether it was taken."""
        try:
            names.check_path(path)
        except Reject as error:
            self._skip(path, error.reason)
            return False
        try:
            self._take(folder, name, path)
        except _OddError as error:
            self._skip(path, str(error))
            return False
        except ChangedError:
            self._skip(path, "changed while it was read")
            return False
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            self._skip(path, "changed while it was read")
            return False
        return True

    def _take(self, folder: int, name: str, path: str) -> None:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            self._links.append(Link(path, os.readlink(name, dir_fd=folder)))
        elif stat.S_ISDIR(info.st_mode):
            self._open_up(folder, name, info, _SEARCH)
            self._below(folder, name, path)
        elif stat.S_ISREG(info.st_mode):
            self._open_up(folder, name, info, stat.S_IRUSR)
            self._file(folder, name, path)
        else:
            raise _OddError("is a pipe, a socket or a device")

    @staticmethod
    def _open_up(folder: int, name: str, info: os.stat_result, wanted: int) -> None:
        """Give this user the rights that the job took from it; nothing of the job is alive that could swap the entry."""
        if info.st_mode & wanted == wanted:
            return
        if info.st_uid != os.geteuid():
            raise _OddError("belongs to someone else and cannot be read")
        os.chmod(name, stat.S_IMODE(info.st_mode) | wanted, dir_fd=folder)

    def _below(self, folder: int, name: str, path: str) -> None:
        descriptor = os.open(name, _OPEN_FOLDER, dir_fd=folder)
        try:
            self._folder(descriptor, path)
        finally:
            os.close(descriptor)

    def _file(self, folder: int, name: str, path: str) -> None:
        descriptor = os.open(name, _READ_FILE, dir_fd=folder)
        try:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise _OddError("is no regular file any more")
            if info.st_nlink > 1 and info.st_uid != os.geteuid():
                raise _OddError("is a hard link to a file of someone else")
            if self._bytes + info.st_size > self._limits.bytes_max:
                raise Reject("the results hold too many bytes")
            self._bytes += self._packer.add(path, descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _destination(destination: Path | int) -> Iterator[int]:
    if isinstance(destination, int):
        yield destination
        return
    with _translated(destination.name):
        destination.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _storage_error(error, path) from error


def _storage_error(error: OSError, path: str) -> StorageError | RefusedError:
    shown = names.display(path)
    if error.errno in _FULL:
        return DiskFullError(f"the disk is full; {shown} could not be written")
    if error.errno in {errno.EEXIST, errno.ENOTDIR, errno.ELOOP}:
        return RefusedError(f"{shown} exists already and is never overwritten; move it away")
    if error.errno == errno.ENAMETOOLONG:
        return RefusedError(f"{shown} is too long a name for the file system there")
    return StorageError(f"{shown} could not be written: {error.strerror}")
