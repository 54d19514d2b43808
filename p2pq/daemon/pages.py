"""Rows out of the raw pages of a damaged database: what SQLite refuses to read as a whole.

A database is a file of pages. A table is a tree of them; inner pages name others, leaves hold rows. SQLite stops
at the first page that is wrong. This reader leaves such a page out and goes on with the next, and it takes
in leaves that no tree leads to any more and that are not free either, because an inner page above them is lost. It believes
nothing: every length and number is checked, and what its rows mean is for ``repair`` to judge.

The format is described at sqlite.org/fileformat2.html. Only what our tables use is read: UTF-8, no virtual tables.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from p2pq.daemon import wal

Value = int | float | str | bytes | None
Record = tuple[Value, ...]

MAGIC: Final = b"SQLite format 3\x00"
INNER_INDEX: Final = 2
INNER_TABLE: Final = 5
LEAF_INDEX: Final = 10
LEAF_TABLE: Final = 13
DEPTH_MAX: Final = 24
RECORD_BYTES_MAX: Final = 64 << 20


class PageError(Exception):
    """A page, or a cell of it, is not what it should be."""


class Pages:
    """The pages of a database file with its write-ahead log on top, and which of them were found to be wrong."""

    def __init__(self, path: Path) -> None:
        """Open a database file and read, where there is one, its ``-wal``; both are left as they are."""
        self._file = path.open("rb", buffering=0)
        self.size = wal.PAGE_BYTES  # of a database whose header is lost; all of ours have it
        head = self._read(0, 100)
        if head[:16] == MAGIC and int.from_bytes(head[16:18], "big") in wal.PAGE_SIZES:
            self.size = int.from_bytes(head[16:18], "big")
        self.log = wal.read(wal.of(path), self._stored)
        self._logged = {number: page for number, page in self.log.pages.items() if len(page) == self.size}
        self.count = max([-(-path.stat().st_size // self.size), *self._logged, *self.log.lost])
        self.headed = False
        """Whether the first page, with the schema and the list of free pages, is there."""
        with suppress(PageError):
            self.headed = self.page(1)[:16] == MAGIC
        self.wrong: set[int] = set()
        """Numbers of pages that could not be read, wholly or in part."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, at: int, size: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), size, at)
        except OSError:
            return b""  # a sector that the disk cannot read is a wrong page

    def _stored(self, number: int) -> bytes:
        return self._read((number - 1) * self.size, self.size) if number > 0 else b""

    def page(self, number: int) -> bytes:
        """Return a page by its number, from 1.

        Raises:
            PageError: there is none, or the file ends within it, or what the log had of it last is lost.
        """
        page = self._logged.get(number)
        if page is None:
            page = b"" if number in self.log.lost else self._stored(number)
        if len(page) != self.size:
            raise PageError
        return page

    def earlier(self) -> Iterator[tuple[int, bytes]]:
        """Yield the pages whose last content in the log is lost, as they were before, where that is known."""
        for number, page in sorted(self.log.lost.items()):
            before = self._stored(number) if page is None else page
            if len(before) == self.size:
                yield number, before

    def free(self) -> set[int] | None:
        """Return the pages that are in no use; None if that cannot be known."""
        found: set[int] = set()
        try:
            trunk = int.from_bytes(self.page(1)[32:36], "big") if self.headed else -1
            while trunk:
                if trunk in found:
                    return None
                found.add(trunk)
                page = self.page(trunk)
                trunk, leaves = struct.unpack(">II", page[:8])
                if leaves > self.size // 4 - 2:
                    return None
                found.update(struct.unpack(f">{leaves}I", page[8 : 8 + 4 * leaves]))
        except PageError:
            return None
        return found


class Reader:
    """Walks the trees of a database; remembers which pages it has seen."""

    def __init__(self, pages: Pages) -> None:
        """Read from these."""
        self._pages = pages
        self.seen: set[int] = set()

    def schema(self) -> dict[str, int]:
        """Return the root page of each table; empty if the schema is lost."""
        found: dict[str, int] = {}
        if self._pages.headed:
            for _, record in self.tree(1):
                match record:
                    case ("table", str(name), str(), int(root), str()):
                        found[name] = root
                    case ("index", str(), str(), int(root), _):
                        self._mark(root)
                    case _:
                        pass
        return found

    def tree(self, root: int) -> Iterator[tuple[int, Record]]:
        """Yield the rows of a tree, each with its row id (0 in a table without); a page that is wrong is left out."""
        stack = [(root, 0)]
        while stack:
            number, depth = stack.pop()
            if number in self.seen:
                continue  # pages that name each other in a circle, or twice
            self.seen.add(number)
            try:
                page = self._pages.page(number)
                kind, cells, right = self._head(number, page)
            except PageError:
                self._pages.wrong.add(number)
                continue
            if kind in {INNER_TABLE, INNER_INDEX}:
                children = [int.from_bytes(page[at : at + 4], "big") for at in cells]
                if depth < DEPTH_MAX:
                    stack += [(child, depth + 1) for child in reversed([*children, right])]
            if kind != INNER_TABLE:
                yield from self._rows(number, page, kind, cells)

    def orphans(self) -> Iterator[tuple[int, Record]]:
        """Yield the rows of leaves that belong to no tree that was walked, if it is known that they are not free."""
        free = self._pages.free()
        if free is None or not self._pages.wrong:
            return
        for number in range(2, self._pages.count + 1):
            if number in self.seen or number in free:
                continue
            try:
                page = self._pages.page(number)
                kind, cells, _ = self._head(number, page)
            except PageError:
                continue
            if kind in {LEAF_TABLE, LEAF_INDEX, INNER_INDEX}:
                self.seen.add(number)
                yield from self._rows(number, page, kind, cells)

    def earlier(self) -> Iterator[tuple[int, Record]]:
        """Yield the rows of leaves as they were before their last change, where what that made of them is lost."""
        for number, page in self._pages.earlier():
            with suppress(PageError):
                kind, cells, _ = self._head(number, page)
                if kind != INNER_TABLE:
                    yield from self._rows(number, page, kind, cells)

    def _mark(self, root: int) -> None:
        """See the pages of an index, whose rows nobody needs."""
        for _ in self.tree(root):
            pass

    def _head(self, number: int, page: bytes) -> tuple[int, list[int], int]:
        """Return a page's kind, where its cells begin, and its last child (0 in a leaf)."""
        at = 100 if number == 1 else 0
        kind = page[at]
        if kind not in {INNER_INDEX, INNER_TABLE, LEAF_INDEX, LEAF_TABLE}:
            raise PageError
        inner = kind in {INNER_INDEX, INNER_TABLE}
        count = int.from_bytes(page[at + 3 : at + 5], "big")
        first = at + (12 if inner else 8)
        if first + 2 * count > self._pages.size:
            raise PageError
        cells = list(struct.unpack(f">{count}H", page[first : first + 2 * count]))
        if any(not first + 2 * count <= cell < self._pages.size for cell in cells):
            raise PageError
        return kind, cells, int.from_bytes(page[at + 8 : at + 12], "big") if inner else 0

    def _rows(self, number: int, page: bytes, kind: int, cells: list[int]) -> Iterator[tuple[int, Record]]:
        for at in cells:
            try:
                yield self._cell(page, kind, at)
            except (PageError, struct.error, UnicodeDecodeError, IndexError):
                self._pages.wrong.add(number)

    def _cell(self, page: bytes, kind: int, at: int) -> tuple[int, Record]:
        if kind == INNER_INDEX:
            at += 4
        length, at = _varint(page, at)
        rowid = 0
        if kind == LEAF_TABLE:
            rowid, at = _varint(page, at)
            rowid -= (rowid >> 63) << 64
        size = self._pages.size
        inline_max = size - 35 if kind == LEAF_TABLE else (size - 12) * 64 // 255 - 23
        if length > RECORD_BYTES_MAX:
            raise PageError
        if length <= inline_max:
            payload = page[at : at + length]
        else:
            least = (size - 12) * 32 // 255 - 23
            inline = least + (length - least) % (size - 4)
            inline = inline if inline <= inline_max else least
            payload = page[at : at + inline] + self._overflow(page[at + inline : at + inline + 4], length - inline)
        if len(payload) != length:
            raise PageError
        return rowid, _record(payload)

    def _overflow(self, link: bytes, length: int) -> bytes:
        parts: list[bytes] = []
        number = int.from_bytes(link, "big")
        while length > 0:
            page = self._pages.page(number)
            self.seen.add(number)
            parts.append(page[4 : 4 + min(length, self._pages.size - 4)])
            length -= len(parts[-1])
            number = int.from_bytes(page[:4], "big")
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _record(payload: bytes) -> Record:
    """Decode a record: a head of type numbers, then the values."""
    head, at = _varint(payload, 0)
    if not at <= head <= len(payload):
        raise PageError
    kinds: list[int] = []
    while at < head:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Value] = []
    at = head
    for kind in kinds:
        value, at = _value(payload, kind, at)
        values.append(value)
    if at != len(payload):
        raise PageError
    return tuple(values)


_WIDTHS: Final = (0, 1, 2, 3, 4, 6, 8)


def _value(payload: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind < len(_WIDTHS):
        end = at + _WIDTHS[kind]
        _within(payload, end)
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if kind == 7:  # noqa: PLR2004  numbers of the format
        _within(payload, at + 8)
        return struct.unpack(">d", payload[at : at + 8])[0], at + 8
    if kind in {8, 9}:
        return kind - 8, at
    if kind < 12:  # noqa: PLR2004
        raise PageError
    end = at + (kind - 12) // 2
    _within(payload, end)
    raw = payload[at:end]
    return (raw.decode() if kind % 2 else raw), end


def _within(payload: bytes, end: int) -> None:
    if end > len(payload):
        raise PageError
