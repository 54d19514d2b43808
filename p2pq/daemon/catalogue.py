"""The jobs of this node, as people find them: by the beginning of an id, their tasks by number."""

from typing import Final

from p2pq.daemon import submission
from p2pq.daemon.history import History, JobExtra, JobRow, TaskRow
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.store import Store
from p2pq.daemon.views import job_view, task_view
from p2pq.errors import NotFoundError
from p2pq.model.ids import JobId, to_text
from p2pq.model.params import task_index, task_number
from p2pq.wire.control import JobView, TaskView

PREFIX_CHARS_MIN: Final = 4


def find_job(store: History, name: str) -> JobRow:
    """Return the job of that id or beginning of one.

    Raises:
        NotFoundError: there is none, or more than one.
    """
    if len(name) < PREFIX_CHARS_MIN:
        raise NotFoundError(f"{name!r} is too short; give at least {PREFIX_CHARS_MIN} characters of the job's id")
    found = store.find_jobs(name)
    if not found:
        raise NotFoundError(
            f"there is no job {name!r} here; see `p2pq jobs`, and ask the node that it was submitted on"
        )
    if len(found) > 1:
        raise NotFoundError(f"{name!r} could be {len(found)} jobs; give more of the id, see `p2pq jobs`")
    return job_of(store, found[0])


def job_of(store: History, job: JobId) -> JobRow:
    """Return a job. Raises NotFoundError."""
    row = store.job(job)
    if row is None:
        raise NotFoundError(f"job {to_text(job)[:8]} is not here any more")
    return row


def index_of(row: JobRow, number: int) -> int:
    """Return the index of the task that people call ``number``. Raises NotFoundError."""
    sweep = submission.open_sweep(row.extra)
    # Tasks that differ in their standard input only are as many as there is input for.
    index = task_index(sweep.array, sweep.axes, number) if sweep.array or sweep.axes else number
    if index is None or row.extra is None or not 0 <= index < row.extra.tasks:
        raise NotFoundError(f"the job has no task {number}; see `p2pq tasks {to_text(row.job)[:8]}`")
    return index


class Catalogue:
    """Finds jobs and shows them. Use it from the event loop's thread only."""

    def __init__(self, store: Store, scheduler: Scheduler, owner: str) -> None:
        """Look into a store; ``owner`` is whose jobs they are."""
        self._store = store
        self._scheduler = scheduler
        self._owner = owner

    def find(self, name: str) -> JobRow:
        """Return the job of that id or beginning of one.

        Raises:
            NotFoundError: there is none, or more than one.
        """
        return find_job(self._store, name)

    def row(self, job: JobId) -> JobRow:
        """Return a job. Raises NotFoundError."""
        return job_of(self._store, job)

    def index(self, row: JobRow, number: int) -> int:
        """Return the index of the task that people call ``number``. Raises NotFoundError."""
        return index_of(row, number)

    def number(self, job: JobId, index: int) -> int:
        """Return what people call a task."""
        sweep = submission.open_sweep(self.row(job).extra)
        return task_number(sweep.array, sweep.axes, index)

    def view(self, row: JobRow) -> JobView:
        """Return a job as people see it."""
        return job_view(row, self._owner)

    def task_row(self, row: JobRow, index: int) -> TaskRow | None:
        """Return what is known of a task; None where it has no history."""
        found = self._store.tasks(row.job, start=index, limit=1)
        return found[0] if found and found[0].task == index else None

    def task(self, row: JobRow, index: int, task: TaskRow | None) -> TaskView:
        """Return a task as people see it; ``task`` is what is known of it."""
        extra = row.extra or JobExtra()
        live = self._scheduler.task(row.job, index) if row.state is None else None
        return task_view(
            task,
            index,
            submission.open_sweep(extra),
            extra,
            self._scheduler.name_of,
            live,
            cancelled=row.cancelled,
        )
