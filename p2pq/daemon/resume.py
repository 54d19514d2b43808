"""``submit --resume``: which tasks of a job an earlier job of the same folder has done already, with the same inputs.

The earlier job is the latest one of that folder with that results folder. Of it counts each task that succeeded, had the
same number, the same parameters and the same inputs as a whole (files, what is run, arguments), and whose results still
lie where they were written; nobody looks into them. Blocking; runs in a thread.
"""

import os
from pathlib import Path

import msgspec

from p2pq.core.intervals import IntervalSet
from p2pq.core.records import Intervals
from p2pq.daemon.delivery import target
from p2pq.daemon.history import PAGE_MAX, History, JobExtra, JobRow, Kept
from p2pq.daemon.submission import open_sweep
from p2pq.model.ids import JobId, to_text
from p2pq.model.params import task_index, task_number, task_params


class Resumed(msgspec.Struct, frozen=True):
    """What need not run again, and a sentence about it."""

    kept: tuple[Kept, ...]
    said: str

    @property
    def intervals(self) -> Intervals:
        """Return the kept tasks as the core wants them."""
        return IntervalSet((kept.start, kept.stop) for kept in self.kept).intervals()


def resumed(history: History, extra: JobExtra, *, anyway: bool = False) -> Resumed:
    """Find out what a job that is about to be added need not run.

    Args:
        history: the jobs so far.
        extra: of the new job.
        anyway: files and arguments may have changed since.
    """
    old = _latest(history, extra)
    if old is None or old.extra is None:
        return Resumed((), f"no earlier job of this folder brought results to {extra.results}; every task runs")
    name = to_text(old.job)[:8]
    if old.extra.inputs != extra.inputs and not anyway:
        said = f"the files or the arguments are not those of job {name}; every task runs (--keep-done keeps what succeeded)"
        return Resumed((), said)
    if (old.extra.tasks == 1) != (extra.tasks == 1):
        return Resumed((), f"job {name} put its results elsewhere in {extra.results}; every task runs")
    kept = _kept(history, old.job, old.extra, extra)
    count = sum(each.stop - each.start for each in kept)
    rest = extra.tasks - count
    runs = f"{rest} run" if rest > 1 else "1 runs" if rest else "nothing is left to run"
    return Resumed(kept, f"{count} of {extra.tasks} tasks are kept from job {name}, {runs}")


def _latest(history: History, extra: JobExtra) -> JobRow | None:
    places = (os.path.realpath(extra.folder), os.path.realpath(extra.results))
    for row in history.job_rows(PAGE_MAX):
        found = row.extra
        if found is not None and (os.path.realpath(found.folder), os.path.realpath(found.results)) == places:
            return row
    return None


def _done(history: History, job: JobId) -> IntervalSet:
    """Return the tasks of a job that succeeded in it and whose results were written out."""
    done = IntervalSet()
    start = 0
    while page := history.tasks(job, start=start):
        for task in page:
            if task.state == "done" and task.delivered:
                done.add(task.task)
        start = page[-1].task + 1
    return done


def _in_place(history: History, new: JobExtra, number: int, origin: tuple[JobId, int]) -> bool:
    """Tell whether a task's results lie where they were written, or there are none."""
    if target(Path(new.results), tasks=new.tasks, number=number).is_dir():
        return True
    item = history.result(*origin)
    return item is not None and not item.body


def _kept(history: History, job: JobId, old: JobExtra, new: JobExtra) -> tuple[Kept, ...]:
    done = _done(history, job)
    ours, theirs = open_sweep(new), open_sweep(old)
    runs: list[Kept] = []
    for index in range(new.tasks):
        number = task_number(ours.array, ours.axes, index)
        before = task_index(theirs.array, theirs.axes, number)
        if before is None or before >= old.tasks:
            continue
        origin = old.origin(before) or ((job, before) if before in done else None)
        if (
            origin is None
            or task_params(ours.array, ours.axes, index) != task_params(theirs.array, theirs.axes, before)
            or not _in_place(history, new, number, origin)
        ):
            continue
        last = runs[-1] if runs else None
        if last is not None and (last.stop, last.job, last.first + index - last.start) == (index, *origin):
            runs[-1] = Kept(last.start, index + 1, last.job, last.first)
        else:
            runs.append(Kept(index, index + 1, *origin))
    return tuple(runs)
