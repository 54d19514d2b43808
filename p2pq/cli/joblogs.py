"""A log of ended tasks with the columns of GNU parallel: written as they end, and read to go on where a job was left."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from p2pq.cli.outputs import is_its_own_doing
from p2pq.core.intervals import IntervalSet
from p2pq.errors import UsageError
from p2pq.model.job import TASKS_MAX
from p2pq.wire.commandcontrol import TaskEnded

HEAD: Final = ("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command")
_LINE: Final = re.compile(rb"([0-9]{1,9})(?:\t[^\t]*){5}\t(-?[0-9]{1,9})\t([0-9]{1,9})\t(.*)\n", re.DOTALL)


@dataclass(slots=True)
class Past:
    """What a log tells. Tasks count from 0."""

    ran: IntervalSet = field(default_factory=IntervalSet)
    """Tasks of which there is a line."""
    succeeded: IntervalSet = field(default_factory=IntervalSet)
    """Tasks of which a line says so."""
    commands: dict[int, str] = field(default_factory=dict)
    """The latest command line of each task that ran."""

    def failed(self) -> dict[int, str]:
        """Return the command lines of tasks that never succeeded, in their order."""
        return {task: self.commands[task] for task in sorted(self.commands) if task not in self.succeeded}


def read(path: Path) -> Past:
    """Return what a log tells; one that is not there tells nothing, and neither does a line that was cut off.

    Raises:
        UsageError: it is no such log.
        OSError: it cannot be read.
    """
    past = Past()
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return past
    with file:
        head = file.readline(1024)
        if head and not head.startswith(b"Seq\tHost\t"):
            raise UsageError(f"{path} is no log of --joblog, as its first line shows; name another file")
        for line in file:
            match = _LINE.fullmatch(line)
            if match is None:
                continue
            task = int(match[1]) - 1
            if not 0 <= task < TASKS_MAX:
                raise UsageError(f"{path} is of a job with more than {TASKS_MAX} tasks; name another file")
            past.ran.add(task)
            past.commands[task] = os.fsdecode(match[4].replace(b"\0", b"\n"))
            if int(match[2]) == int(match[3]) == 0:
                past.succeeded.add(task)
    return past


class JobLog:
    """Writes such a log, a line at once. A context manager."""

    def __init__(self, path: Path, *, goes_on: bool = False) -> None:
        """Begin the log anew, or go on with what is there.

        Raises:
            OSError: it cannot be written.
        """
        self._path = path
        self._goes_on = goes_on
        self._file = path.open("ab" if goes_on else "wb", buffering=0)

    def __enter__(self) -> Self:
        """Write the head, or end a line that was cut off.

        Raises:
            OSError: it cannot be written.
        """
        try:
            if not self._goes_on or not self._file.tell():
                self._line(HEAD)
            elif not _ends_a_line(self._path):
                self._write(b"\n")
        except OSError:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def add(self, ended: TaskEnded, command: str) -> None:
        """Write a line about a task, unless it was cancelled before it ran.

        Exitval is -1 where the task did not end by its own doing (a limit, a machine that went away), as GNU parallel has it.

        Raises:
            OSError: it cannot be written.
        """
        if ended.state != "cancelled" or ended.started:
            self._line(cells(ended, command.replace("\n", "\0")))  # as GNU parallel does: a line is a task

    def _line(self, cells: Sequence[str]) -> None:
        self._write(os.fsencode("\t".join(cells) + "\n"))

    def _write(self, rest: bytes) -> None:
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def cells(ended: TaskEnded, command: str) -> tuple[str, ...]:
    """Return what the columns of HEAD say of a task."""
    unknown = 0 if ended.state == "done" or is_its_own_doing(ended) else -1
    return (
        str(ended.task + 1),
        ":",
        f"{ended.started / 1000:.3f}",
        f"{ended.seconds:10.3f}",
        "0",
        str(ended.printed[0]),
        str(unknown if ended.exit is None else ended.exit),
        str(ended.signal or 0),
        command,
    )
