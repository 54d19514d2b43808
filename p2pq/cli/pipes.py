"""A large input, cut into blocks at the ends of records: what ``--pipe`` gives tasks to read, as GNU parallel does."""

import math
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from p2pq.errors import UsageError
from p2pq.model.job import TASKS_MAX

BLOCK_BYTES: Final = 1 << 20
RECORD_BYTES_MAX: Final = 1 << 30
"""A block without an end of a record grows up to here; it is held in memory."""
NOT_OF_PIPES: Final = (
    "colsep",
    "link",
    "trim",
    "context",
    "multiple",
    "shuf",
    "resume",
    "resume_failed",
    "retry_failed",
)
_GROWTH: Final = 1.3
_SIZE: Final = re.compile(r"([0-9]{1,12})([kKmMgG]?)")
_SHARES: Final = re.compile(r"-([1-9][0-9]{0,3})")
_UNITS: Final = {"": 1, "k": 10**3, "K": 1 << 10, "m": 10**6, "M": 1 << 20, "g": 10**9, "G": 1 << 30}
_ESCAPE: Final = re.compile(r"\\([nrt0\\])")
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\"}

STDIN: Final = "-"

Read = Callable[[int], bytes]
"""Returns so many bytes, fewer only at the end."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """Where an input may be cut, and how large a block is."""

    between: re.Pattern[bytes] | None = re.compile(rb"(?P<end>\n)")
    """A block ends after ``end`` in what this matches; None: anywhere."""
    certain: bool = True
    """More input would not change what was matched at the end of what there is."""
    block_bytes: int = BLOCK_BYTES
    lines: int = 1
    """What is matched so often ends one record."""
    records: int | None = None
    """So many records are a block, however large; None: as many as fit."""
    header: bool = False
    """The first line is none of the records and begins each block."""
    removed: tuple[re.Pattern[bytes], ...] = ()
    """What is taken out of blocks."""


def cutting_of(options: Mapping[str, Any]) -> Cutting:
    """Return what ``--block``, ``--recend``, ``--recstart``, ``--regexp``, ``-N``, ``-L`` and ``--header`` say.

    Raises:
        UsageError: that cannot be.
    """
    for name in NOT_OF_PIPES:
        if options[name] not in {None, False, "n"}:
            raise UsageError(
                f"--{name.replace('_', '-')} is about values, and with --pipe there are none; leave it out"
            )
    end, start = options["recend"], options["recstart"]
    if end is None:
        end = "\0" if options["null"] else "" if start is not None else "\n"
    start = start or ""
    records = options["max_args"]
    if records == 0:
        raise UsageError("a block of no records would never end; leave -N 0 out")
    if not end and not start and (records is not None or options["max_lines"] is not None):
        raise UsageError("without --recend and --recstart there are no records to count; leave -N and -L out")
    between = _between(end, start, regexp=options["regexp"])
    return Cutting(
        between=between,
        certain=not options["regexp"],
        block_bytes=_share(options) or _bytes(options["block"]),
        removed=(between, *_outer(end, start, regexp=options["regexp"])) if between and options["rrs"] else (),
        lines=options["max_lines"] or 1,
        records=records,
        header=options["header"] is not None,
    )


def _between(end: str, start: str, *, regexp: bool) -> re.Pattern[bytes] | None:
    if not end and not start:
        return None
    if not regexp:
        end, start = map(_literal, (end, start))
    pattern = _compiled(f"(?P<end>{end})(?:{start})")
    if pattern.search(b""):
        raise UsageError("--recend and --recstart match between any two bytes; they must match one or more")
    return pattern


def _outer(end: str, start: str, *, regexp: bool) -> tuple[re.Pattern[bytes], ...]:
    """Return what matches before the first record of a block, and behind the last one."""
    if not regexp:
        end, start = map(_literal, (end, start))
    return _compiled(rf"\A(?:{start})"), _compiled(rf"(?P<end>{end})\Z")


def _compiled(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(os.fsencode(text))
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--recend and --recstart make no regular expression: {error}") from error


def _literal(text: str) -> str:
    return re.escape(_ESCAPE.sub(lambda match: _ESCAPED[match[1]], text))


def _share(options: Mapping[str, Any]) -> int:
    """Return how large blocks are of which each cpu is to have so many, 0 where their size was given."""
    match = _SHARES.fullmatch(options["block"])
    if match is None:
        return 0
    if not options["arg_file"] or STDIN in options["arg_file"]:
        raise UsageError("--block -N divides files, whose size is known; name them with -a FILE")
    found = [os.stat(name) for name in options["arg_file"]]  # noqa: PTH116  errors name the file as typed
    if not all(stat.S_ISREG(each.st_mode) for each in found):
        raise UsageError("--block -N divides files, whose size is known; a pipe or a folder is none, so give a size")
    total = sum(each.st_size for each in found)
    parts = int(match[1]) * len(os.sched_getaffinity(0))
    return min(max(1, -(-total // parts)), RECORD_BYTES_MAX)


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= size <= RECORD_BYTES_MAX:
        raise UsageError(f"--block {text!r} is no size of blocks; write it like 100k or 10M, at most 1G")
    return size


def blocks(read: Read, cutting: Cutting) -> Iterator[bytes]:
    """Yield an input in blocks, none of them empty; the last may end anywhere.

    Raises:
        UsageError: there are too many, or one that does not end.
    """
    head = _line(read) if cutting.header else b""
    for number, block in enumerate(_cut(read, cutting)):
        if number == TASKS_MAX:
            raise UsageError(f"the input makes more than {TASKS_MAX} blocks; make them larger with --block or -N")
        for pattern in cutting.removed:
            block = pattern.sub(b"", block)  # noqa: PLW2901
        yield head + block


def reading(names: Sequence[str]) -> Read:
    """Return what reads some files, ``-`` being standard input, one behind the other."""
    left = list(names)
    files: list[BinaryIO] = []

    def read(count: int) -> bytes:
        data = bytearray()
        while len(data) < count and (files or left):
            if not files:
                name = left.pop(0)
                files.append(sys.stdin.buffer if name == STDIN else open(name, "rb"))  # noqa: PTH123, SIM115  as typed
            piece = files[0].read(count - len(data))
            data += piece
            if not piece:
                files.pop().close()
        return bytes(data)

    return read


def _line(read: Read) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < BLOCK_BYTES and (byte := read(1)):
        line += byte
    return bytes(line)


def _cut(read: Read, cutting: Cutting) -> Iterator[bytes]:
    held = bytearray()
    wanted = cutting.block_bytes
    while True:
        data = read(wanted - len(held))
        held += data
        over = len(held) < wanted
        if over and cutting.records is None and cutting.lines == 1:
            if held:
                yield bytes(held)
            return
        start = 0
        for cut in _cuts(held, cutting, over=over):
            yield bytes(held[start:cut])
            start = cut
        if over:
            if start < len(held):
                yield bytes(held[start:])
            return
        del held[:start]
        if not start:
            wanted = math.ceil(wanted * _GROWTH) + 1  # as GNU parallel does, so that blocks are the same
        elif cutting.records is not None:
            wanted = len(held) + cutting.block_bytes
        if wanted > RECORD_BYTES_MAX * _GROWTH + 1:
            raise UsageError("the input has no end of a record within 1 GiB; say what ends one with --recend")


def _cuts(held: bytearray, cutting: Cutting, *, over: bool) -> Iterator[int]:
    """Yield where blocks end in what there is: all those of so many records, else the last place."""
    if cutting.between is None:
        yield len(held)
        return
    every = cutting.lines * (cutting.records or 1)
    last = found = 0
    for match in cutting.between.finditer(held):
        if not cutting.certain and not over and match.end() == len(held):
            break
        cut = match.end("end")
        found += cut > 0  # what begins the first record ends none
        if cut and found % every == 0:
            if cutting.records is not None:
                yield cut
            last = cut
    if cutting.records is None and last:
        yield last
