"""Small things about files that several parts need."""

import ctypes
import errno
import os
import re
import stat
from pathlib import Path
from typing import Final, Never

_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
"""What file systems without an fsync for folders answer to one."""
ONE_BY_ONE: Final = 32
"""More files than this are synced together."""
_syncfs: Final = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's names, are on the disk.

    Raises:
        OSError: they are not; after that, a later success says nothing of what was written before.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Return when a folder's names are on the disk; on a file system that knows no such thing, at once.

    Raises:
        OSError: they are not.
    """
    try:
        sync(path)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_tree(root: Path) -> None:
    """Return when a folder is on the disk with all that is in it. No link is followed.

    Few files are synced one by one, before their folders. For many it is quicker, 20 times with 10,000, to sync the
    whole file system once.

    Raises:
        OSError: it is not.
    """
    found = list(os.walk(root, topdown=False, onerror=_raise))
    if sum(len(names) for _, _, names in found) > ONE_BY_ONE and _sync_file_system(root):
        return
    for parent, _, names in found:
        folder = Path(parent)
        for name in names:
            path = folder / name
            if stat.S_ISREG(path.lstat().st_mode):
                sync(path)
        sync_folder(folder)


def _raise(error: OSError) -> Never:
    raise error


def _sync_file_system(path: Path) -> bool:
    """Return when all that was written to a path's file system is on the disk; False if the system cannot do that.

    syncfs(2), which Python does not have. It tells of lost writes since Linux 5.8; older ones count as without it.

    Raises:
        OSError: some of it is not.
    """
    if _syncfs is None or _kernel() < (5, 8):
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _syncfs(descriptor) == 0:
            return True
        code = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if code in {errno.ENOSYS, *_NO_SYNC}:
        return False
    raise OSError(code, os.strerror(code), str(path))


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def free_bytes(folder: Path) -> int:
    """Return how much of a folder's disk is free for this user."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
