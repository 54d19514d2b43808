"""Small things about files that several parts need."""

import os
from pathlib import Path


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


def free_bytes(folder: Path) -> int:
    """Return how much of a folder's disk is free for this user."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
