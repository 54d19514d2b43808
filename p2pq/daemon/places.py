"""Where the results of jobs lie: what a newer job moves aside goes on belonging to the older one. Blocking.

The place of a job's results is kept beside the job (``JobExtra.results``) and follows them whenever p2pq moves them. What
people move by themselves it cannot know; so the latest job of a place is the only one that may write there.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from p2pq.daemon import delivery
from p2pq.daemon.history import History, JobExtra
from p2pq.model.ids import JobId


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


def _at(history: History, place: str) -> list[tuple[JobId, JobExtra]]:
    # Only names are compared: one of those folders may lie on a disk that does not answer any more.
    return [
        (job, extra) for job, extra in history.extras() if place == (extra.place or os.path.normpath(extra.results))
    ]
