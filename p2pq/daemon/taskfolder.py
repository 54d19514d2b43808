"""What p2pq puts into the folder of a task, beside the job's own files, and reads there while the task runs. Blocking."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from p2pq.errors import RefusedError

PARAMS_FILE: Final = ".p2pq/params.json"
DATA_FILE: Final = ".p2pq/data.pickle"
"""What ``p2pq.job.data()`` reads; it travels with the job's own files."""
PROGRESS_NAME: Final = ".progress"


def furnish(folder: Path) -> None:
    """Make the folders that every task finds beside its job's files.

    Raises:
        RefusedError: files of the job are in the way.
        OSError: the disk failed.
    """
    with _in_the_way(folder):
        (folder / "results").mkdir(exist_ok=True)
        (folder / PARAMS_FILE).parent.mkdir(exist_ok=True)


def write_params(folder: Path, params: dict[str, str]) -> None:
    """Put a task's parameters into its folder, where ``furnish`` has been.

    Raises:
        RefusedError: files of the job are in the way.
        OSError: the disk failed.
    """
    with _in_the_way(folder):
        _write_anew(folder / PARAMS_FILE, written(params).encode())


@contextmanager
def _in_the_way(folder: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        name = Path(error.filename or folder).name
        raise RefusedError(f"the job brings something of its own called {name}, where every task has p2pq's") from error


def written(params: dict[str, str]) -> str:
    """Return what the file of parameters holds."""
    return json.dumps(params)


def _write_anew(path: Path, data: bytes) -> None:
    """Write a file in place of what is there. Nothing is followed, in case something of a job still runs."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path.name, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path.name, flags, 0o644, dir_fd=folder), "wb") as file:
            file.write(data)
    finally:
        os.close(folder)


def read_progress(root: Path) -> int | None:
    """Return the progress in thousandths that a task wrote, or None where there is no number from 0 to 1.

    The task may still run and has put there what it likes: nothing is followed, nothing blocks.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        folder = os.open(root / "results", flags | os.O_DIRECTORY)
        try:
            descriptor = os.open(PROGRESS_NAME, flags, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            value = float(os.read(descriptor, 64))
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return None
    return round(value * 1000) if 0 <= value <= 1 else None


def remove_progress(root: Path) -> None:
    """Take the progress file out of the results; it was only for the way."""
    with suppress(OSError):  # not there, or not a file: then it is collected or skipped like anything else
        folder = os.open(root / "results", os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.unlink(PROGRESS_NAME, dir_fd=folder)
        finally:
            os.close(folder)
