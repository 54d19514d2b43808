"""Deletes what a task leaves in a folder, whatever that is: standard library only; the runner and the daemon do it alike."""

import errno
import os
import stat

FLATTEN = ".p2pq-flatten-"
NAME_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)  # a task chose that very name


def keep_below(root: str, keep: list[list[str]]) -> list[list[str]]:
    """Return the mount points below ``root`` as lists of names relative to it."""
    parts = root.strip("/").split("/")
    return [path[len(parts) :] for path in keep if path[: len(parts)] == parts]


def empty_folder(root: str, keep: list[list[str]] | tuple[()] = ()) -> None:
    """Delete all that is in a folder, whatever a task left: deep, unreadable or huge trees.

    Call it only when no process that could change the folder is alive. It follows no symbolic link, needs two file
    descriptors however deep the tree is, and leaves what ``keep`` names (mount points, as lists of names below the
    root) and the folders above it.

    Raises:
        OSError: something could not be deleted.
    """
    if stat.S_ISDIR(os.lstat(root).st_mode):
        os.chmod(root, stat.S_IRWXU)  # a task may have closed it even to its owner
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _empty(fd, [path for path in keep if path])
    finally:
        os.close(fd)


def _empty(root_fd: int, keep: list[list[str]]) -> None:
    """Empty the folder behind ``root_fd``: folders with content give their subfolders to the root first."""
    kept = {path[0] for path in keep}
    number = 0
    while names := [name for name in os.listdir(root_fd) if name not in kept]:
        for name in names:
            if not _remove(root_fd, name):
                number = _flatten(root_fd, name, number)
                os.rmdir(name, dir_fd=root_fd)
    for name in kept:
        below = [path[1:] for path in keep if path[0] == name]
        if [] in below:
            continue  # the mount point itself
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd)
        try:
            _empty(fd, below)
        finally:
            os.close(fd)


def _remove(fd: int, name: str) -> bool:
    """Delete a file or an empty folder; False, and the folder made accessible, where it holds something."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=fd)
        return True
    try:
        os.rmdir(name, dir_fd=fd)
    except OSError:
        os.chmod(name, stat.S_IRWXU, dir_fd=fd)
        return False
    return True


def _flatten(root_fd: int, name: str, number: int) -> int:
    """Empty one folder by deleting its files and moving its full subfolders up into the root."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root_fd)
    try:
        for child in os.listdir(fd):
            while not _remove(fd, child):
                number += 1
                try:
                    os.rename(child, f"{FLATTEN}{number}", src_dir_fd=fd, dst_dir_fd=root_fd)
                    break
                except OSError as error:
                    if error.errno not in NAME_TAKEN:
                        raise
    finally:
        os.close(fd)
    return number
