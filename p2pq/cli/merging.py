"""The results of many tasks as one folder: ``p2pq results JOB --merge``.

Files of one name become one file: tables are put below one another, with the task and its parameters in front of each row;
text is put together in the order of the tasks. Whatever else there is lies side by side, with the task's number in its name.
What is merged was written by foreign machines: links are left out, and nothing of it is run or trusted.
"""

import csv
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, TextIO

from p2pq.errors import UsageError
from p2pq.wire.body import CHECKPOINT
from p2pq.wire.control import TaskView

TABLES: Final = {".csv": ",", ".tsv": "\t"}
TEXTS: Final = frozenset({".txt", ".log", ".out", ".err", ".dat", ".md", ".jsonl", ".ndjson"})
OVERVIEW: Final = "tasks.csv"


@dataclass(slots=True)
class Merged:
    """What became of the results."""

    tasks: int = 0
    files: int = 0
    notes: list[str] = field(default_factory=list)
    """What could not be put together, or was left out."""


def merge(tasks: Sequence[TaskView], to: Path) -> Merged:
    """Merge the results of tasks that succeeded into a new folder; it appears complete.

    Raises:
        UsageError: there is something in the way, or nothing to merge.
        OSError: files cannot be read or written.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"{to} is there already; remove it, or name another folder with --to DIR")
    there = [
        task for task in tasks if task.state == "done" and task.results is not None and Path(task.results).is_dir()
    ]
    if not there:
        raise UsageError("no task has results here that could be merged; `p2pq results JOB` writes them out again")
    merged = Merged(tasks=len(there))
    if left := len(tasks) - len(there):
        merged.notes.append(
            f"{left} of {len(tasks)} tasks have not succeeded, or have no results here, and are left out"
        )
    staging = to.with_name(f".p2pq-merging-{to.name}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        for path, owners in _by_path(there, merged).items():
            _merge_one(path, owners, staging, merged)
        taken = (staging / OVERVIEW).exists()
        _write_overview(tasks, staging / (f"p2pq-{OVERVIEW}" if taken else OVERVIEW))
        if to.exists():
            to.rmdir()
        staging.rename(to)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return merged


def _by_path(tasks: Sequence[TaskView], merged: Merged) -> dict[str, list[tuple[TaskView, Path]]]:
    """Return each path below the results folders with the tasks that have a file there, in their order."""
    found: dict[str, list[tuple[TaskView, Path]]] = {}
    links = 0
    for task in tasks:
        root = Path(task.results or "")
        for folder, _, names in os.walk(root):
            for name in names:
                file = Path(folder, name)
                if file.is_symlink() or not file.is_file():
                    links += 1
                elif PurePosixPath(file.relative_to(root)).parts[0] not in {".progress", CHECKPOINT}:
                    found.setdefault(file.relative_to(root).as_posix(), []).append((task, file))
    if links:
        merged.notes.append("1 link is left out" if links == 1 else f"{links} links are left out")
    return dict(sorted(found.items()))


def _merge_one(path: str, owners: Sequence[tuple[TaskView, Path]], to: Path, merged: Merged) -> None:
    target = to / path
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = PurePosixPath(path).suffix
    if suffix in TABLES:
        try:
            _merge_tables(owners, target, TABLES[suffix])
        except _UnequalError as error:
            merged.notes.append(f"{path}: {error}; the tables lie side by side")
            target.unlink(missing_ok=True)
        else:
            merged.files += 1
            return
    elif suffix in TEXTS:
        with target.open("xb") as out:
            for _, file in owners:
                with file.open("rb") as text:
                    shutil.copyfileobj(text, out)
                    _end_line(out, file)
        merged.files += 1
        return
    for task, file in owners:
        shutil.copyfile(file, target.with_name(f"{target.stem}.{task.task}{target.suffix}"))
        merged.files += 1


def _end_line(out: BinaryIO, file: Path) -> None:
    """What one task wrote does not go on in the line of another."""
    with file.open("rb") as text:
        if text.seek(0, os.SEEK_END):
            text.seek(-1, os.SEEK_END)
            if text.read(1) != b"\n":
                out.write(b"\n")


class _UnequalError(Exception):
    """Tables that are none, or not of one kind."""


def _merge_tables(owners: Sequence[tuple[TaskView, Path]], target: Path, delimiter: str) -> None:
    names = list(dict.fromkeys(name for task, _ in owners for name in task.params))
    head: list[str] | None = None
    with ExitStack() as stack:
        out = csv.writer(stack.enter_context(_text(target, "x")), delimiter=delimiter, lineterminator="\n")
        for task, file in owners:
            for number, row in enumerate(_rows(file, delimiter)):
                if number:
                    out.writerow([task.task, *(task.params.get(name, "") for name in names), *row])
                elif head is None:
                    head = row
                    out.writerow([name if name not in row else f"p2pq.{name}" for name in ("task", *names)] + row)
                elif row != head:
                    raise _UnequalError("its first lines differ")


def _rows(file: Path, delimiter: str) -> Iterator[list[str]]:
    with _text(file, "r") as text:
        try:
            yield from csv.reader(text, delimiter=delimiter)
        except csv.Error as error:
            raise _UnequalError(str(error)) from error


def _text(path: Path, mode: str) -> TextIO:
    opened: Any = path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")
    return opened  # type: ignore[no-any-return]  # a mode of text


def _write_overview(tasks: Sequence[TaskView], path: Path) -> None:
    names = list(dict.fromkeys(name for task in tasks for name in task.params))
    with _text(path, "x") as text:
        out = csv.writer(text, lineterminator="\n")
        out.writerow(["task", *names, "state", "exit", "seconds", "node", "attempts"])
        for task in tasks:
            values = [task.params.get(name, "") for name in names]
            out.writerow([task.task, *values, task.state, task.exit, task.seconds, task.node, task.attempts])
