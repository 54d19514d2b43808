"""The books of a master whose tasks go on from checkpoints: what becomes of an attempt that left one."""

from p2pq.core import checkpoints, records
from p2pq.core import effects as fx
from p2pq.core.book import RETURNS_FREE, Book
from p2pq.core.jobs import OVER
from p2pq.core.leases import Lease
from p2pq.model import notice
from p2pq.model.ids import Mono
from p2pq.model.job import TaskState
from p2pq.wire.objects import ResultItem


class ResumingBook(Book):
    """Books that remember what a task's next attempt starts with."""

    def settle(self, lease: Lease, now: Mono) -> list[Lease]:
        """The result that was being collected is durable here: see ``Book``; a checkpoint in it is for the next attempt."""
        item = lease.collecting
        assert item is not None, "a result counts only once it has been collected"
        if item.outcome.reason == "saved":
            self._saved(lease, item, now)
            return []
        over = super().settle(lease, now)
        task = self.jobs[lease.job].tasks[lease.task]
        if task.state in OVER:
            checkpoints.forget(task, self.out)
        elif item.checkpoint:
            checkpoints.keep(task, item, self.out)
        return over

    def _saved(self, lease: Lease, item: ResultItem, now: Mono) -> None:
        """An attempt was told to end by its worker: nobody's failure, and its task goes on at once, if it may."""
        self.leases.settle(lease)
        job = self.jobs[lease.job]
        task = job.tasks[lease.task]
        self._stop(job, task, lease.id, now)
        state: TaskState = "running" if task.leases else "pending"
        detail = "; ".join(filter(None, (lease.detail, "it left a checkpoint" if item.checkpoint else "")))
        task.detail = f"evicted: {detail}" if detail else "evicted"
        row = records.AttemptEnded(
            lease=lease.id,
            job=job.id,
            task=lease.task,
            worker=lease.runner,
            result=item,
            state=state,
            wall=self._clock.at(now),
            counted=False,
            detail=lease.detail,
            skipped=lease.skipped,
            via=self._via(lease),
            proof=lease.proof,
        )
        lost = notice.AttemptLost(
            job=job.id, task=lease.task, attempt=lease.attempt, worker=lease.runner, fault="evicted", detail=detail
        )
        self.out += [fx.Record(row=row), fx.Emit(notice=lost)]
        if item.checkpoint:
            checkpoints.keep(task, item, self.out)
        else:
            self.out.append(fx.Forget(lease=lease.id))
        if state == "pending" and job.halted:
            self._end_task(job, lease.task, "cancelled", job.halted, self._clock.at(now))
            self.finish(job, now)
        elif state == "pending":
            task.returns += 1
            self._requeue(job, lease.task, lease.runner if task.returns > RETURNS_FREE else None, now)
        self._tail(job, now)
