"""The books of a master whose store was damaged and rebuilt: it may have forgotten leases under which results still come."""

from p2pq.core.leases import Lease
from p2pq.core.resuming import ResumingBook
from p2pq.model.ids import JobId, Mono, NodeId, TaskKey
from p2pq.wire.objects import ResultItem


class RebuiltBook(ResumingBook):
    """A book that can take up a lease that it does not know any more."""

    def adopt(self, item: ResultItem, worker: NodeId, now: Mono) -> Lease | None:
        """Let a forgotten lease live again for the result that ``worker`` brings under it, if its task still waits.

        It is as good as any other, and fenced by the task: one that is over, runs again, or was granted again since has no
        use for it.
        """
        job = self.jobs.get(JobId(item.job))
        if job is None or item.task >= job.manifest.tasks or job.manifest.only not in {b"", worker}:
            return None
        if job.state_of(item.task) != "pending":
            return None
        task = job.task(item.task)
        if task.attempts > item.attempt:
            return None
        if task.avoid is None:
            job.pending.remove(item.task)
        else:
            self.rests.cancel(TaskKey(job.id, item.task))
            job.unrest(item.task, task.avoid)
            task.avoid = None
        task.attempts = item.attempt
        lease = Lease(item.lease, job.id, item.task, item.attempt, worker)
        self._begin(job, lease, now)
        self._tail(job, now)
        return lease
