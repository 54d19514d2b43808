"""Output of tasks in temporary files, whose names are printed instead, as ``--files`` of GNU parallel does."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from p2pq.cli.outputs import Printer
from p2pq.errors import StorageError
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk

PREFIX: Final = "par"
SUFFIX: Final = ".par"


class TempFiles:
    """Writes the standard output of each task into a file, and lets a printer print its name, and standard error.

    A context manager. The files stay: they are whoever's the names are printed for.
    """

    def __init__(self, printer: Printer) -> None:
        """Take what prints, in which order it may be."""
        self._printer = printer
        self._printer.printed = self._printed
        self._stack = ExitStack()
        self._files: dict[int, Path] = {}

    def __enter__(self) -> Self:
        """Open the printer."""
        self._stack.enter_context(self._printer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete files whose names nobody will be told."""
        for file in self._files.values():
            file.unlink(missing_ok=True)
        self._stack.close()

    def take(self, chunk: LogChunk) -> None:
        """Take output of a task.

        Raises:
            StorageError: there is no room for it.
            OSError: our own output does not take what a task said on standard error.
        """
        if chunk.stream == "stderr":
            self._printer.take(chunk)
            return
        try:
            with self._file(chunk.task).open("ab") as file:
                file.write(chunk.data)
        except OSError as error:
            where = error.filename or "the folder for temporary files"
            raise StorageError(f"{where}: {error.strerror}; make room, or set TMPDIR to another folder") from error

    def end(self, ended: TaskEnded) -> None:
        """Print the name of a task's file, which is whole.

        Raises:
            StorageError: it could not be made.
            OSError: our own output does not take it.
        """
        self.take(LogChunk(task=ended.task, data=b"", stream="stdout"))
        name = bytes(self._file(ended.task)) + b"\n"
        self._printer.take(LogChunk(task=ended.task, data=name, stream="stdout"))
        self._printer.end(ended)

    def finish(self) -> None:
        """Print the names that still wait for tasks before them."""
        self._printer.finish()

    def _printed(self, task: int) -> None:
        self._files.pop(task, None)

    def _file(self, task: int) -> Path:
        if task not in self._files:
            descriptor, name = tempfile.mkstemp(prefix=PREFIX, suffix=SUFFIX)
            os.close(descriptor)
            self._files[task] = Path(name)
        return self._files[task]
