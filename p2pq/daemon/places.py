"""Where the results of jobs lie: what a newer job moves aside goes on belonging to the older one. Blocking.

The place of a job's results is kept beside the job (``JobExtra.results``) and follows them whenever p2pq moves them. What
people move by themselves it cannot know; so the latest job of a place is the only one that may write there.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from p2pq.daemon import delivery
from p2pq.daemon.history import History, JobExtra
from p2pq.daemon.ignore import RESULTS
from p2pq.model.ids import JobId

_ROTATED: Final = re.compile(r"(?:\.~[0-9]+~)+$")
"""What moving results aside puts behind their name."""


@dataclass(frozen=True, slots=True)
class MovedAside:
    """Where earlier results are now, if there were any, and what people see from now on of the jobs that they are of."""

    folder: Path | None
    extras: tuple[tuple[JobId, JobExtra], ...] = ()


def move_aside(history: History, results: Path, *, leave: bool) -> MovedAside:
    """Move earlier results aside, unless they are to be left; find out now, not later, whether new ones can be written.

    Raises:
        RefusedError: they cannot.
        StorageError: the store cannot be read, or the folder not be renamed.
    """
    jobs = _at(history, os.path.realpath(results))  # afterwards the name may stand for another folder
    folder = delivery.move_aside(results, leave=leave)
    if folder is None:
        return MovedAside(None)
    place = os.path.realpath(folder)
    moved = ((job, msgspec.structs.replace(extra, results=str(folder), place=place)) for job, extra in jobs)
    return MovedAside(folder, tuple(moved))


def newer(history: History, job: JobId, results: Path) -> JobId | None:
    """Return the latest job with results in that place, if it is another than this one."""
    latest = next((other for other, _ in _at(history, os.path.realpath(results))), job)
    return None if latest == job else latest


def inside(history: History, folder: Path, results: Path) -> tuple[str, ...]:
    """Return the folders in a folder that hold results of its jobs, as paths in it, ``results`` itself left out.

    Args:
        history: the jobs.
        folder: what is to be submitted.
        results: where its results are to go, which stays at home anyway.
    """
    here, own = os.path.realpath(folder), os.path.realpath(results)
    found: dict[str, None] = {}
    for _, extra in history.extras():
        if os.path.realpath(extra.folder) != here or not extra.results:
            continue
        place = _ROTATED.sub("", extra.place or os.path.normpath(extra.results))
        path = os.path.relpath(place, here)
        known = path.startswith(os.pardir) or path in {os.curdir, RESULTS} or place == own
        if not known and _lies_there(Path(place)):
            found[path] = None
    return tuple(sorted(found))


def _lies_there(place: Path) -> bool:
    if place.is_dir():
        return True
    with suppress(OSError):
        return any(path.name.startswith(f"{place.name}.~") for path in place.parent.iterdir())
    return False


def _at(history: History, place: str) -> list[tuple[JobId, JobExtra]]:
    # Only names are compared: one of those folders may lie on a disk that does not answer any more.
    return [
        (job, extra) for job, extra in history.extras() if place == (extra.place or os.path.normpath(extra.results))
    ]
