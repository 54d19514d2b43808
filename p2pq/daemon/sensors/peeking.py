"""Small files of /proc and /sys, read often: without a path object, an encoding or an exception for what is not there."""

import itertools
import os
import stat
from typing import Final

BYTES_MAX: Final = 1 << 20
"""/proc/interrupts of a machine with 256 cores is some 300 kB long."""


def read(path: str, bytes_max: int = BYTES_MAX) -> bytes:
    """Return what is in a file, at most that much of it; nothing where it cannot be read."""
    parts = []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        while bytes_max > 0 and (part := os.read(descriptor, min(65_536, bytes_max))):
            parts.append(part)
            bytes_max -= len(part)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return b"".join(parts)


def read_plain(path: str, bytes_max: int) -> bytes:
    """Return the same of a file whose path others chose: nothing of a pipe, a device or a file that is too long."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return b""
    return read(path, bytes_max) if stat.S_ISREG(found.st_mode) and found.st_size <= bytes_max else b""


def text(path: str) -> str:
    """Return a short text without its last newline, empty where there is none."""
    return read(path, 4096).decode(errors="replace").strip()


def number(path: str) -> int | None:
    """Return a whole number, None where there is none."""
    found = text(path)
    return int(found) if found.lstrip("-").isascii() and found.lstrip("-").isdigit() else None


def names(folder: str) -> list[str]:
    """Return what is in a folder, sorted; nothing where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def some_names(folder: str, most: int) -> list[str]:
    """Return the same of a folder where others may put things: at most so many, in any order."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in itertools.islice(entries, most)]
    except OSError:
        return []


def processes(proc: str) -> list[int]:
    """Return the ids of all processes that are to be seen in a /proc."""
    return [int(name) for name in names(proc) if name.isascii() and name.isdigit()]
