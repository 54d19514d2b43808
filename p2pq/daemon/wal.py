"""The write-ahead log beside the store: whether it is broken where more follows, and what it holds all the same.

SQLite reads a log up to the first frame that is wrong and takes that for its end. After ``kill -9`` or a loss of power that is
right: nobody was told of what comes after. Where a disk broke it is not: everything after that frame is gone without a word. So
before the store is used, ``check`` looks whether transactions follow the end that SQLite sees.

- If the machine has not been started since the log was written, none can: the system holds what a process has written.
- Otherwise what was not synced may be there in any order, so there must be proof: a transaction that was synced (each of these
  writes the page MARKED_PAGE, see ``store``) and that another one followed, which can only be once all before it was safe.

The sums in the frames are cumulative, each beginning with the one before. That one is in the frame before, so frames after a
broken one can be verified as well, and ``read`` gives their pages. The format: sqlite.org/fileformat2.html#walformat; how far
SQLite got is in the ``-shm`` file: sqlite.org/walformat.html#the_wal_index_file_format.
"""

import os
import struct
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from p2pq.daemon import sqlite

MAGIC: Final = (0x377F0682, 0x377F0683)
HEAD_BYTES: Final = 32
FRAME_HEAD_BYTES: Final = 24
PAGE_BYTES: Final = 4096
PAGE_SIZES: Final = tuple(1 << shift for shift in range(9, 16))
MARKED_PAGE: Final = 2
"""Where the table ``meta`` is, of one page, the first of a store: what is synced writes it, and nothing else does."""
INDEX_VERSION: Final = 3_007_000

Sums = tuple[int, int]


@dataclass(slots=True)
class Log:
    """What a log holds."""

    pages: dict[int, bytes] = field(default_factory=dict)
    """Pages as of the last transaction; where the log is damaged, as far as they are there."""
    lost: dict[int, bytes | None] = field(default_factory=dict)
    """Pages whose last content is lost, with what they held before, if the log says that."""
    frames: int = 0
    broken: int = 0
    """Frames that are damaged."""
    unknown: int = 0
    """Of these, such of which it is not even known which page they held."""
    later: int = 0
    """Transactions behind the first broken frame that are there."""
    damage: str = ""
    """What is wrong, in words; empty: nothing, or no more than how it ends."""


@dataclass(slots=True)
class _Frame:
    number: int
    commit: int
    current: bool
    """Whether it carries the salts of this log, so that it is none of an earlier one."""
    sums: Sums
    good: bool = False


def of(path: Path) -> Path:
    """Return where the log of a database is."""
    return path.with_name(path.name + "-wal")


def check(path: Path) -> None:
    """Refuse a store whose log is damaged; nothing is changed. It takes a millisecond or two.

    Raises:
        StoreDamagedError: transactions follow a frame that is broken.
        sqlite3.Error, OSError: the disk failed, or the database itself is damaged.
    """
    log = of(path)
    if not log.exists() or log.stat().st_size <= HEAD_BYTES:
        return
    with closing(sqlite.connect(path, readonly=True)) as db:
        db.execute("PRAGMA user_version").fetchone()  # SQLite reads the log
        taken = _taken(path.with_name(path.name + "-shm"))
    if taken is not None and _last_commit(log) > taken and (found := read(log).damage):
        raise sqlite.damaged(path, found)


def read(log: Path, stored: Callable[[int], bytes] | None = None) -> Log:
    """Read a log as a whole, slowly.

    Args:
        log: the file; a file that is not there is an empty log.
        stored: returns a page as the database file has it: where the log was written into that before, its page may be
            the very one that is broken here.

    Raises:
        OSError: the disk failed.
    """
    raw = log.read_bytes() if log.exists() else b""
    if len(raw) < HEAD_BYTES:
        return Log()
    size, headed = _page_bytes(raw), _headed(raw)
    frames = _frames(raw, size)
    found = Log(frames=len(frames))
    whole, unbroken = _verify(raw, size, frames)
    if not headed:
        whole = unbroken = 0
    # The frame that is broken may be the last, half of which was written; so only what comes after it counts.
    behind = [at for at, frame in enumerate(frames, 1) if _commits(frame) and at > unbroken + headed]
    if behind and (not headed or not _rebooted_since(log) or _synced_after(frames, whole)):
        found.later = len(behind)
        found.damage = f"its log {log.name} is broken in the middle; transactions after that: {found.later}"
        whole = behind[-1]
    highest = max((frame.commit for frame in frames if _commits(frame)), default=0)
    for at, frame in enumerate(frames[:whole]):
        if frame.number > highest:
            frame.number = 0  # what no page can be is no page's number
        begin = HEAD_BYTES + at * (FRAME_HEAD_BYTES + size) + FRAME_HEAD_BYTES
        _take(found, frame, raw[begin : begin + size], _original(frames, at, stored, raw, size))
    return found


def _take(found: Log, frame: _Frame, page: bytes, original: bytes | None) -> None:
    found.broken += not frame.good
    if frame.good or original is not None:
        found.pages[frame.number] = page if original is None else original
        found.lost.pop(frame.number, None)
    elif frame.current and frame.number:
        found.lost[frame.number] = found.pages.pop(frame.number, found.lost.get(frame.number))
    else:
        found.unknown += 1


def _original(
    frames: list[_Frame], at: int, stored: Callable[[int], bytes] | None, raw: bytes, size: int
) -> bytes | None:
    """Return what a broken frame held, if the database file has the very same page."""
    frame = frames[at]
    if frame.good or stored is None or not frame.current or not frame.number:
        return None
    page = stored(frame.number)
    before = frames[at - 1].sums if at else _sums_of_head(raw)
    begin = HEAD_BYTES + at * (FRAME_HEAD_BYTES + size)
    if len(page) == size and _checksum(raw[begin : begin + 8] + page, before, _order(raw)) == frame.sums:
        return page
    return None


# -- how it ends -----------------------------------------------------------------------------------------------------------


def _taken(index: Path) -> int | None:
    """Return up to which frame SQLite takes the log for whole; None if it does not use it as one."""
    try:
        head = index.read_bytes()[:20]
    except FileNotFoundError:
        return None
    if len(head) < 20:  # noqa: PLR2004  its header up to that number
        return None
    version, frames = struct.unpack("=I12xI", head)
    return int(frames) if version == INDEX_VERSION else None


def _last_commit(log: Path) -> int:
    """Return the last frame, from 1, that ends a transaction of this log: only heads are read, from the end."""
    with log.open("rb", buffering=0) as file:
        head = os.pread(file.fileno(), HEAD_BYTES, 0)
        size = _page_bytes(head)
        stride = FRAME_HEAD_BYTES + size
        count = (log.stat().st_size - HEAD_BYTES) // stride
        if not _headed(head):
            return count
        for at in range(count, 0, -1):
            found = os.pread(file.fileno(), 16, HEAD_BYTES + (at - 1) * stride)
            if found[8:] == head[16:24] and found[4:8] != bytes(4):
                return at
    return 0


def _commits(frame: _Frame) -> bool:
    return frame.current and 0 < frame.number <= frame.commit


def _rebooted_since(log: Path) -> bool:
    """Tell whether this machine may have been started after a file was written last."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return True
    return log.stat().st_mtime < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _synced_after(frames: list[_Frame], whole: int) -> bool:
    """Tell whether a synced transaction ends after frame ``whole`` and another frame follows it."""
    numbers: set[int] = set()
    synced = False
    for frame in frames[whole:]:
        if frame.current:
            if synced:
                return True
            numbers.add(frame.number)
            if _commits(frame):
                synced = MARKED_PAGE in numbers
                numbers = set()
    return False


# -- frames ----------------------------------------------------------------------------------------------------------------


def _page_bytes(head: bytes) -> int:
    return int.from_bytes(head[8:12], "big") if _headed(head) else PAGE_BYTES


def _order(head: bytes) -> str:
    magic = int.from_bytes(head[:4], "big")
    return ">" if (magic & 1 if magic in MAGIC else sys.byteorder == "big") else "<"


def _sums_of_head(head: bytes) -> Sums:
    first, second = struct.unpack(">II", head[24:32])
    return first, second


def _headed(head: bytes) -> bool:
    return (
        len(head) >= HEAD_BYTES
        and int.from_bytes(head[:4], "big") in MAGIC
        and int.from_bytes(head[8:12], "big") in PAGE_SIZES
        and _checksum(head[:24], (0, 0), _order(head)) == _sums_of_head(head)
    )


def _frames(raw: bytes, size: int) -> list[_Frame]:
    """Return the frames up to the last one of this log; those of an earlier one may follow it."""
    stride = FRAME_HEAD_BYTES + size
    heads = [struct.unpack_from(">II8sII", raw, at) for at in range(HEAD_BYTES, len(raw) - stride + 1, stride)]
    salts = raw[16:24]
    if not _headed(raw) and heads:
        # Those of the first frames; one of these may be broken, too.
        salts = next((one[2] for one, other in pairwise(heads) if one[2] == other[2]), heads[0][2])
    frames = [_Frame(number, commit, found == salts, (a, b)) for number, commit, found, a, b in heads]
    while frames and not frames[-1].current:
        frames.pop()
    return frames


def _verify(raw: bytes, size: int, frames: list[_Frame]) -> tuple[int, int]:
    """Find out which frames are good.

    Returns:
        How many make whole transactions before the first frame that SQLite refuses; how many there are before that.
    """
    order = _order(raw)
    stored, computed = _sums_of_head(raw), _checksum(raw[:24], (0, 0), order)
    before: _Frame | None = None
    whole = unbroken = 0
    for at, frame in enumerate(frames):
        begin = HEAD_BYTES + at * (FRAME_HEAD_BYTES + size)
        data = raw[begin : begin + 8] + raw[begin + FRAME_HEAD_BYTES : begin + FRAME_HEAD_BYTES + size]
        sums = _checksum(data, stored, order)
        frame.good = frame.current and sums == frame.sums
        if frame.good and unbroken == at:
            unbroken = at + 1
            whole = unbroken if frame.commit else whole
        if not frame.good and frame.current and stored != computed:
            # Maybe it is the sum in the frame before that is broken, and nothing else of that.
            sums = _checksum(data, computed, order)
            frame.good = sums == frame.sums
            if frame.good and before is not None:
                before.good = before.current
        stored, computed, before = frame.sums, sums, frame
    return whole, unbroken


def _checksum(data: bytes, sums: Sums, order: str) -> Sums:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
