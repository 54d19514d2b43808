"""Blobs on disk: content-addressed files of ciphertext, with a quota, pins and least-recently-used eviction.

A blob is ``FOLDER/ab/<name>``: written beside and renamed, so a file under its name is whole as long as the machine does
not lose power. What must survive that is passed to ``sync`` before anyone is told of it; what was not may be damaged
after a crash, so each blob of an earlier run is checked against its name when it is first used.

All methods block for disk time at most and may be called from any thread.
"""

import errno
import os
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Final, Protocol

from p2pq.daemon import crashpoints, files, room
from p2pq.errors import DiskFullError, Reject, StorageError
from p2pq.model.ids import BLOB_ID_BYTES, from_text, to_text
from p2pq.wire import prims
from p2pq.wire.tree import CHUNK

TOGETHER_MIN: Final = 12
"""Fewer blobs are synced one by one: what others have written need not be on the disk yet."""
TOGETHER_S: Final = 0.25
"""Syncing the file system as a whole takes longer where others have much to write."""
APART_S: Final = 60.0
APART_TIMES: Final = 100
"""Not again for so many times as long as it took."""
_TEMPORARY: Final = "tmp"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class BlobMissingError(StorageError):
    """A blob that was expected to be here is not (evicted, or found damaged); fetch it again."""


class BlobShelf(Protocol):
    """Where blobs can be had."""

    def get(self, blob: bytes) -> bytes:
        """Return a blob's bytes. Raises BlobMissingError, StorageError."""


class BlobReader:
    """The blobs of a node, whether it runs or not: nothing is changed, and each is checked against its name."""

    def __init__(self, folder: Path) -> None:
        """Read from there."""
        self._folder = folder

    def get(self, blob: bytes) -> bytes:
        """Return a blob's bytes.

        Raises:
            BlobMissingError: it is not here, or damaged.
            StorageError: it cannot be read.
        """
        try:
            ciphertext = _path(self._folder, blob).read_bytes()
        except FileNotFoundError as error:
            raise BlobMissingError("a blob is not here any more") from error
        except OSError as error:
            raise StorageError(f"a blob cannot be read: {error.strerror}") from error
        if prims.blob_id(ciphertext) != blob:
            raise BlobMissingError("a blob is damaged")
        return ciphertext


class BlobStore:
    """The blobs of one node.

    A blob is pinned while any tag holds it; pins live in memory and are set again by the caller at start. Blobs that no
    tag holds are evicted, the one used longest ago first, when the quota or the free disk would be passed.
    """

    def __init__(self, folder: Path, *, quota_bytes: int, reserve_bytes: int) -> None:
        """Open a store, making its folder if needed, and forget what was half written.

        Args:
            folder: belongs to the store alone.
            quota_bytes: most bytes of blobs; pinned ones count too.
            reserve_bytes: free disk to leave alone; see ``room.reserve``. 0: none.

        Raises:
            StorageError: the folder cannot be used.
        """
        self._folder = folder
        self._quota = quota_bytes
        self._reserve = reserve_bytes
        self._lock = Lock()
        self._sync_lock = Lock()
        self._loose: OrderedDict[bytes, int] = OrderedDict()  # not pinned, least recently used first
        self._pinned: dict[bytes, int] = {}
        self._tags: dict[Hashable, set[bytes]] = {}
        self._holds: Counter[bytes] = Counter()
        self._unchecked: set[bytes] = set()
        self._dirty: dict[bytes, None] = {}
        self._suspects: set[bytes] = set()
        """Those of them of which some may be lost."""
        self._subfolders: set[str] = set()
        self._unsynced: set[str] = set()
        """Those of them that a loss of power may undo."""
        self._apart_until = 0.0
        """Until then (monotonic) the file system as a whole is not synced."""
        self._used = 0
        self._numbers = count()
        try:
            self._load()
            # Opened before anything is written: see ``files.sync_file_system``.
            self._disk = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"the blobs in {folder} cannot be used: {error.strerror}") from error
        self._let_go = weakref.finalize(self, os.close, self._disk)

    def close(self) -> None:
        """Hold nothing open any more; what is called after that still works."""
        self._let_go()

    @property
    def quota_bytes(self) -> int:
        """Most bytes of blobs."""
        return self._quota

    @property
    def reserve_bytes(self) -> int:
        """Free disk that is left alone."""
        return room.reserve(self._folder, self._reserve) if self._reserve else 0

    @property
    def used_bytes(self) -> int:
        """Bytes of all blobs here."""
        return self._used

    def __len__(self) -> int:
        """Return how many blobs are here."""
        return len(self._loose) + len(self._pinned)

    def has(self, blob: bytes) -> bool:
        """Return whether a blob is here (one of an earlier run may still prove damaged)."""
        return blob in self._loose or blob in self._pinned

    def size(self, blob: bytes) -> int:
        """Return a blob's size in bytes, 0 if it is not here."""
        return self._loose.get(blob) or self._pinned.get(blob, 0)

    def put(self, blob: bytes, ciphertext: bytes, *, pin: Hashable | None = None) -> None:
        """Check bytes from anywhere against their name and keep them.

        Args:
            blob: the name.
            ciphertext: the bytes, at most CHUNK of them.
            pin: a tag that holds the blob from now on, so that it cannot be evicted before it is pinned.

        Raises:
            Reject: they are not what the name says, or too long.
            DiskFullError: quota or disk are full of what must stay.
            StorageError: they cannot be written.
        """
        if len(ciphertext) > CHUNK or prims.blob_id(ciphertext) != blob:
            raise Reject("a blob does not match its name")
        self.add(blob, ciphertext, pin=pin)

    def add(self, blob: bytes, ciphertext: bytes, *, pin: Hashable | None = None) -> None:
        """Keep bytes whose name was just computed here; see ``put``."""
        if pin is not None:
            self.pin(pin, [blob])
        size = len(ciphertext)
        try:
            with self._lock:
                if self._touch(blob):
                    return
                self._make_room(size)
                self._used += size  # counted while it is written: two threads must not share one gap
            try:
                self._write(blob, ciphertext)
            except OSError:
                with self._lock:
                    self._used -= size
                raise
        except OSError as error:
            if error.errno in _FULL:
                raise DiskFullError("the disk is full; a blob could not be stored") from error
            raise StorageError(f"a blob could not be stored: {error.strerror}") from error

    def get(self, blob: bytes) -> bytes:
        """Return a blob's bytes.

        Raises:
            BlobMissingError: it is not here, or was damaged (and is gone now).
            StorageError: it cannot be read.
        """
        return self._read(blob)[1]

    def verify(self, blobs: Iterable[bytes]) -> list[bytes]:
        """Read blobs and return those that are not here whole; what is damaged is gone afterwards.

        Raises:
            StorageError: one cannot be read now, so that nothing is known of it.
        """
        bad = []
        for blob in blobs:
            try:
                ciphertext = self._read(blob)[1]
            except BlobMissingError:
                bad.append(blob)
                continue
            if prims.blob_id(ciphertext) != blob:
                self._forget(blob)
                bad.append(blob)
        return bad

    def path(self, blob: bytes) -> Path:
        """Return the file of a blob, to be sent soon; it may be evicted later unless pinned.

        Raises:
            BlobMissingError, StorageError: see ``get``.
        """
        with self._lock:
            checked = blob not in self._unchecked
            if checked and not self._touch(blob):
                raise BlobMissingError("a blob is not here")
        return self._path(blob) if checked else self._read(blob)[0]

    def sync(self, blobs: Iterable[bytes] | None = None) -> None:
        """Make blobs survive a loss of power: return when they are on the disk.

        Args:
            blobs: these; None: all that were written since they were last synced.

        Raises:
            StorageError: the disk failed; nothing may be acknowledged.
        """
        with self._sync_lock:
            with self._lock:
                wanted = list(self._dirty) if blobs is None else [blob for blob in blobs if blob in self._dirty]
            try:
                if not self._sync_together(wanted):
                    self._sync_apart(wanted)
            except OSError as error:
                for blob in wanted:
                    self._forget(blob)  # after a failed fsync the next one would lie
                raise StorageError(f"the disk failed to keep blobs: {error.strerror}") from error
            crashpoints.reached("blobs.synced")
            with self._lock:
                for blob in wanted:
                    self._dirty.pop(blob, None)
                    self._suspects.discard(blob)

    def _sync_together(self, wanted: list[bytes]) -> bool:
        """Sync the whole file system, which for many small files is five times as quick as one after another; False: not now.

        Where others have much to write it takes their time, too: then not again for a while, the longer the longer it took.
        """
        began = time.monotonic()
        with self._lock:
            unsynced = set(self._unsynced)
        few = len(wanted) < TOGETHER_MIN
        if few or began < self._apart_until or not self._suspects.isdisjoint(wanted):
            return False
        try:
            if not files.sync_file_system(self._disk):
                return False
        except OSError:
            # It says so once, and not of which file: from now on each that is not synced is to tell that of itself.
            with self._lock:
                self._suspects |= self._dirty.keys()
            return False
        with self._lock:
            self._unsynced -= unsynced
        took_s = time.monotonic() - began
        if took_s > TOGETHER_S:
            self._apart_until = began + took_s + max(APART_S, APART_TIMES * took_s)
        return True

    def _sync_apart(self, wanted: list[bytes]) -> None:
        paths = [self._path(blob) for blob in wanted]
        files.sync_all(paths)  # what was evicted in the meantime nobody needed
        for folder in dict.fromkeys(str(path.parent) for path in paths):
            files.sync(Path(folder))
        self._sync_subfolders({path.parent.name for path in paths})

    def _sync_subfolders(self, needed: set[str]) -> None:
        with self._lock:
            unsynced = set(self._unsynced)
        if needed & unsynced:
            files.sync(self._folder)
            with self._lock:
                self._unsynced -= unsynced

    def pin(self, tag: Hashable, blobs: Iterable[bytes]) -> None:
        """Add blobs, here or yet to come, to what a tag holds."""
        with self._lock:
            held = self._tags.setdefault(tag, set())
            for blob in blobs:
                if blob in held:
                    continue
                held.add(blob)
                self._holds[blob] += 1
                size = self._loose.pop(blob, None)
                if size is not None:
                    self._pinned[blob] = size

    def unpin(self, tag: Hashable) -> None:
        """Forget a tag and all that it held; unknown tags are fine."""
        with self._lock:
            for blob in self._tags.pop(tag, ()):
                self._holds[blob] -= 1
                if self._holds[blob]:
                    continue
                del self._holds[blob]
                size = self._pinned.pop(blob, None)
                if size is not None:
                    self._loose[blob] = size

    def discard(self, blobs: Iterable[bytes]) -> None:
        """Delete blobs that no tag holds, where they are here."""
        with self._lock:
            for blob in blobs:
                if blob in self._loose:
                    self._delete(blob)

    def relieve(self, free_bytes: int) -> None:
        """Evict blobs that no tag holds, if and as far as it takes to have so much of the disk free."""
        with self._lock:
            missing = free_bytes - files.free_bytes(self._folder)
            if missing > 0 and sum(self._loose.values()) >= missing:
                while self._loose and files.free_bytes(self._folder) < free_bytes:
                    self._delete(next(iter(self._loose)))

    def _load(self) -> None:
        temporary = self._folder / _TEMPORARY
        temporary.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in temporary.iterdir():
            path.unlink()
        found: list[tuple[int, bytes, int]] = []
        for folder in self._folder.iterdir():
            if folder.name == _TEMPORARY:
                continue
            self._subfolders.add(folder.name)
            self._unsynced.add(folder.name)  # for all that is known
            with os.scandir(folder) as listing:
                for item in listing:
                    info = item.stat(follow_symlinks=False)
                    try:
                        blob = from_text(item.name, BLOB_ID_BYTES)
                    except Reject:
                        continue  # not ours; left alone and not counted
                    if info.st_size == 0:
                        Path(item.path).unlink()  # what a loss of power leaves most often
                    else:
                        found.append((info.st_mtime_ns, blob, info.st_size))
        for _used, blob, size in sorted(found):
            self._loose[blob] = size
            self._used += size
            self._unchecked.add(blob)

    def _path(self, blob: bytes) -> Path:
        return _path(self._folder, blob)

    def _touch(self, blob: bytes) -> bool:
        if blob in self._loose:
            self._loose.move_to_end(blob)
            return True
        return blob in self._pinned

    def _read(self, blob: bytes) -> tuple[Path, bytes]:
        path = self._path(blob)
        with self._lock:
            known = self._touch(blob)
        if not known:
            raise BlobMissingError("a blob is not here")
        try:
            ciphertext = path.read_bytes()
            if blob in self._unchecked:
                self._check(blob, ciphertext)
                os.utime(path)  # so that the order of use outlives this run
        except FileNotFoundError as error:
            self._forget(blob)
            raise BlobMissingError("a blob is not here any more") from error
        except OSError as error:
            raise StorageError(f"a blob cannot be read: {error.strerror}") from error
        return path, ciphertext

    def _check(self, blob: bytes, ciphertext: bytes) -> None:
        if prims.blob_id(ciphertext) != blob:
            self._forget(blob)
            raise BlobMissingError("a blob was damaged and is gone now")
        with self._lock:
            self._unchecked.discard(blob)

    def _write(self, blob: bytes, ciphertext: bytes) -> None:
        temporary = self._folder / _TEMPORARY / str(next(self._numbers))
        path = self._path(blob)
        if path.parent.name not in self._subfolders:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with self._lock:
                self._subfolders.add(path.parent.name)
                self._unsynced.add(path.parent.name)
        try:
            descriptor = os.open(temporary, _CREATE, 0o600)
            try:
                left = memoryview(ciphertext)
                while left:
                    left = left[os.write(descriptor, left) :]
            finally:
                os.close(descriptor)
            crashpoints.reached("blob.written")
            with self._lock:  # renamed and counted in one step, or an eviction between them would be lost
                if self.has(blob):  # another thread was faster
                    temporary.unlink()
                    self._used -= len(ciphertext)
                    return
                temporary.rename(path)
                crashpoints.reached("blob.renamed")
                (self._pinned if self._holds[blob] else self._loose)[blob] = len(ciphertext)
                self._dirty[blob] = None
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _make_room(self, size: int) -> None:
        while self._used + size > self._quota:
            if not self._loose:
                raise DiskFullError("the blob store is full of what live jobs need; raise [store] blobs_mb or wait")
            self._delete(next(iter(self._loose)))
        while self._reserve and not self._disk_has(size):
            if not self._loose:
                raise DiskFullError("the disk is nearly full; free some space or lower [store] reserve_mb")
            self._delete(next(iter(self._loose)))

    def _disk_has(self, size: int) -> bool:
        return files.free_bytes(self._folder) - size >= room.reserve(self._folder, self._reserve)

    def _delete(self, blob: bytes) -> None:
        self._drop(blob)
        with suppress(FileNotFoundError):
            self._path(blob).unlink()

    def _forget(self, blob: bytes) -> None:
        with self._lock:
            if self.has(blob):
                self._delete(blob)

    def _drop(self, blob: bytes) -> None:
        size = self._loose.pop(blob, None)
        self._used -= self._pinned.pop(blob) if size is None else size
        self._unchecked.discard(blob)
        self._dirty.pop(blob, None)
        self._suspects.discard(blob)


def _path(folder: Path, blob: bytes) -> Path:
    name = to_text(blob)
    return folder / name[:2] / name
