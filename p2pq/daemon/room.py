"""Room on disks: what is about to be unpacked is compared with what is free, less a reserve and what others are unpacking."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final

from p2pq.daemon import files
from p2pq.daemon.limits import FREE_BYTES_MIN, size_text
from p2pq.errors import DiskFullError

DELIVERY_RESERVE_BYTES: Final = 256 << 20
"""Results leave so much free on their owner's disk; a twentieth of it, where that is less."""
MARGIN_BYTES: Final = 64 << 20
"""So much more must be free before a disk that was nearly full is so no longer."""
EVERY_S: Final = 10.0
RESERVE_SHARE: Final = 20
"""One part in so many of a disk is left alone in any case."""

_lock: Final = Lock()
_claimed: Final = Counter[int]()
"""By disk: what is being unpacked there."""


@contextmanager
def claim(folder: Path, wanted: int, left: int, what: str) -> Iterator[None]:
    """Write about ``wanted`` bytes below a folder that exists, if that leaves so many bytes of its disk.

    Raises:
        DiskFullError: it does not; ``what`` is too large.
        OSError: there is no such folder.
    """
    disk = folder.stat().st_dev
    with _lock:
        free = max(0, files.free_bytes(folder) - _claimed[disk] - left)
        if wanted > free:
            beside = f", as {size_text(left)} are to stay free" if left else ""
            raise DiskFullError(
                f"{what} would take {size_text(wanted)}, and there is room for {size_text(free)}{beside}"
            )
        _claimed[disk] += wanted
    try:
        yield
    finally:
        with _lock:
            _claimed[disk] -= wanted


def reserve(folder: Path, wanted: int) -> int:
    """Return how much of a folder's disk is left alone, if that is to be ``wanted`` bytes at least."""
    disk = os.statvfs(folder)
    return max(wanted, disk.f_blocks * disk.f_frsize // RESERVE_SHARE)


def delivery_reserve(folder: Path) -> int:
    """Return what results leave free on the disk of the folder that they are written to."""
    disk = os.statvfs(folder)
    return min(DELIVERY_RESERVE_BYTES, disk.f_blocks * disk.f_frsize // RESERVE_SHARE)


def nearly_full(folder: Path, *, was: bool) -> str:
    """Say so if too little of a folder's disk is free for tasks to be started there, with a margin if it was so."""
    least = FREE_BYTES_MIN + (MARGIN_BYTES if was else 0)
    if files.free_bytes(folder) >= least:
        return ""
    return f"its disk is nearly full: less than {size_text(FREE_BYTES_MIN)} is free"


async def watch(folder: Path, relieve: Callable[[int], None], changed: Callable[[str], None]) -> None:
    """Look at a folder's disk for ever; let go of what nobody needs as it fills, and tell when it is too full, or no longer.

    Args:
        folder: where tasks run.
        relieve: blocking; lets go of what nobody needs until so many bytes are free.
        changed: told the sentence of ``nearly_full``.
    """
    known = ""
    while True:
        full = known
        with suppress(OSError):  # what is wrong with the folder is found out by whoever uses it
            await asyncio.to_thread(relieve, FREE_BYTES_MIN + MARGIN_BYTES)
            full = await asyncio.to_thread(nearly_full, folder, was=bool(known))
        if full != known:
            known = full
            changed(full)
        await asyncio.sleep(EVERY_S)
