"""The books of a master as readers see them: a task as a value, and when what pauses goes on."""

from typing import Final

from p2pq.core.collecting import CollectingBook
from p2pq.core.jobs import Job
from p2pq.core.placement import TaskSnapshot
from p2pq.model.ids import Mono, TaskKey

SILENT: Final = 0.4
"""A worker of which nothing was heard for this part of a lease has missed a heartbeat: ``why`` says so."""


class ShownBook(CollectingBook):
    """Books that tell where a task stands."""

    def task_snapshot(self, job: Job, index: int) -> TaskSnapshot:
        """Return one task as a value."""
        task = job.tasks.get(index)
        if task is None:
            return TaskSnapshot(task=index, state=job.state_of(index), delivered=job.state_of(index) != "pending")
        first, again = (*map(self.leases.get, task.leases), None, None)[:2]
        lease = first
        return TaskSnapshot(
            task=index,
            state=task.state,
            attempts=task.attempts,
            worker=task.worker if lease is None else lease.runner,
            via=() if lease is None else self._path(lease.runner),
            again=None if again is None else again.runner,
            lease=None if lease is None else lease.id,
            started=lease is not None and lease.running,
            since=None if lease is None else lease.granted,
            heard=None if lease is None else lease.heard,
            due=None if lease is None else self.leases.due(lease.id),
            silent_s=SILENT * self._settings.lease_s,
            progress=-1 if lease is None else lease.progress,
            outcome=task.outcome,
            failures=task.failures,
            faults=task.faults,
            detail=task.detail,
            not_before=self.rests.get(TaskKey(job.id, index)) if task.avoid not in job.shy else None,
            delivered=task.delivered,
            checkpoint=0 if task.checkpoint is None else task.checkpoint.attempt,
        )

    def paused(self, job: Job) -> Mono | None:
        """Return when the first of the tasks that pause waits no longer, where all that wait pause; None elsewhere."""
        if not job.resting or job.waits:
            return None
        keys = (TaskKey(job.id, index) for index, task in job.tasks.items() if task.avoid is not None)
        return min((at for key in keys if (at := self.rests.get(key)) is not None), default=None)
