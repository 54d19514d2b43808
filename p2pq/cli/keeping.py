"""Output of tasks in files, as ``--results`` of GNU parallel keeps it: a folder for each, or one table of all."""

import csv
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal, Self, TextIO

from p2pq.cli import joblogs
from p2pq.errors import UsageError
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk

NAME_BYTES_MAX: Final = 200
"""Of a value that names a folder; the task's number tells longer ones apart."""
TABLE_BYTES_MAX: Final = 256 << 20
"""Output of one task that a row of a table may hold."""
DELIMITERS: Final = {".csv": ",", ".tsv": "\t"}
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "/": "\\_", "\t": "\\t", "\0": "\\0"})

Stream = Literal["stdout", "stderr"]
Named = tuple[Path, Path, Path]
"""Where the standard output, the standard error and the number of a task go."""


def named(root: str, names: Sequence[str], values: Sequence[str], task: int) -> Named:
    """Return the files of a task in a tree of folders: the name of each source and the task's value, ``1/a/2/b``."""
    folder = Path(root)
    for position, value in enumerate(values):
        folder = folder / (names[position] if position < len(names) else str(position + 1)) / _component(value, task)
    return folder / "stdout", folder / "stderr", folder / "seq"


def beside(stdout: str) -> Named:
    """Return the files of a task whose standard output has a name of its own."""
    return Path(stdout), Path(f"{stdout}.err"), Path(f"{stdout}.seq")


def _component(value: str, task: int) -> str:
    name = value.translate(_ESCAPES)
    if name in {"", ".", ".."}:
        return f"\\{name}"  # none of these is a name of its own in a folder
    raw = os.fsencode(name)
    if len(raw) > NAME_BYTES_MAX:
        return f"{os.fsdecode(raw[:NAME_BYTES_MAX])}~{task + 1}"
    return name


class Folders:
    """Writes what tasks printed into files, one task after another. A context manager."""

    def __init__(self, names: Callable[[int], Named]) -> None:
        """Ask ``names`` for the files of a task."""
        self._names = names
        self._open: dict[int, dict[Stream, BinaryIO]] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""
        for files in self._open.values():
            for file in files.values():
                file.close()

    def take(self, chunk: LogChunk) -> None:
        """Write output of a task.

        Raises:
            OSError: it cannot be written.
        """
        self._files(chunk.task)[chunk.stream].write(chunk.data)

    def end(self, ended: TaskEnded) -> None:
        """Close the files of a task; that they are whole is told by the one with its number, which comes last.

        Raises:
            OSError: they cannot be written.
        """
        for file in self._files(ended.task).values():
            file.close()
        del self._open[ended.task]
        self._names(ended.task)[2].write_text(str(ended.task + 1))

    def finish(self) -> None:
        """Nothing waits here."""

    def _files(self, task: int) -> dict[Stream, BinaryIO]:
        if task not in self._open:
            stdout, stderr, number = self._names(task)
            stdout.parent.mkdir(parents=True, exist_ok=True)
            number.unlink(missing_ok=True)  # of an earlier run: these are not whole yet
            files = self._open[task] = {}
            files["stdout"] = stdout.open("wb")
            files["stderr"] = stderr.open("wb")
        return self._open[task]


class Table:
    """Writes a row for each ended task: the columns of a log, its values, and what it printed. A context manager."""

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        row: Callable[[int], tuple[str, Sequence[str]]],
        *,
        goes_on: bool = False,
    ) -> None:
        """Begin a table, or go on with the one that is there; ``-.csv`` or ``-.tsv``: on standard output.

        Args:
            name: the file, which ends with ``.csv`` or ``.tsv``.
            columns: the names of the values.
            row: gives the command line and the values of a task.
            goes_on: add to the rows that are there.

        Raises:
            OSError: it cannot be written.
        """
        path = Path(name)
        self._row = row
        self._stack = ExitStack()
        self._printed: dict[int, dict[Stream, bytearray]] = {}
        text: TextIO
        headed = False
        if path.stem == "-":
            text = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", errors="surrogateescape", newline="")
            self._stack.callback(text.detach)
        else:
            mode: Literal["a", "w"] = "a" if goes_on else "w"
            text = self._stack.enter_context(path.open(mode, encoding="utf-8", errors="surrogateescape", newline=""))
            headed = goes_on and path.stat().st_size > 0
        self._text = text
        self._writer = csv.writer(text, delimiter=DELIMITERS[path.suffix], lineterminator="\n")
        if not headed:
            self._writer.writerow((*joblogs.HEAD, *columns, "Stdout", "Stderr"))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._stack.close()

    def take(self, chunk: LogChunk) -> None:
        """Keep output of a task until it has ended.

        Raises:
            UsageError: it is too much for a cell.
        """
        held = self._printed.setdefault(chunk.task, {"stdout": bytearray(), "stderr": bytearray()})
        held[chunk.stream] += chunk.data
        if sum(map(len, held.values())) > TABLE_BYTES_MAX:
            raise UsageError(
                f"task {chunk.task} printed more than {TABLE_BYTES_MAX >> 20} MiB, too much for a table; use --results DIR"
            )

    def end(self, ended: TaskEnded) -> None:
        """Write the row of a task.

        Raises:
            OSError: it cannot be written.
        """
        held = self._printed.pop(ended.task, {})
        command, values = self._row(ended.task)
        printed = [bytes(held.get(stream, b"")).decode("utf-8", "surrogateescape") for stream in ("stdout", "stderr")]
        self._writer.writerow((*(cell.strip() for cell in joblogs.cells(ended, command)), *values, *printed))
        self._text.flush()

    def finish(self) -> None:
        """Nothing waits here."""
