"""The books of a master whose store was damaged and rebuilt: it may have forgotten leases under which results still come."""

from typing import Final

from p2pq.core.leases import Lease
from p2pq.core.resuming import ResumingBook
from p2pq.model.ids import JobId, Mono, NodeId, TaskKey
from p2pq.wire.objects import ResultItem

AHEAD_MAX: Final = 64
"""So many attempts of a task, beyond those that are known, a damaged store may have forgotten; no more are believed."""
ADOPTIONS_MAX: Final = 8
"""Results of one task that are taken up like this, in one life of the master; at most one from each worker."""


class RebuiltBook(ResumingBook):
    """A book that can take up a lease that it does not know any more."""

    def adopt(self, item: ResultItem, worker: NodeId, now: Mono, cluster: NodeId | None = None) -> Lease | None:
        """Let a forgotten lease live again for the result that ``worker`` brings under it, if its task still waits.

        Where it is a leaf, its ``cluster`` answers for it.

        It is as good as any other, and fenced by the task: one that is over, runs again, or was granted again since has no
        use for it. Nobody but the worker says that it was ever granted, so little is believed: one result of a worker and
        task, with a number that an attempt may well have had, and no failure. Such a task rather runs again.
        """
        job = self.jobs.get(JobId(item.job))
        if job is None or item.task >= job.manifest.tasks or job.manifest.only not in {b"", worker}:
            return None
        if job.state_of(item.task) != "pending":
            return None
        known = job.tasks.get(item.task)
        attempts, adopted = (0, ()) if known is None else (known.attempts, known.adopted)
        if not attempts <= item.attempt <= attempts + AHEAD_MAX or item.outcome.reason not in {"ok", "saved"}:
            return None
        if worker in adopted or len(adopted) >= ADOPTIONS_MAX:
            return None
        task = job.task(item.task)
        task.adopted = (*adopted, worker)
        if task.avoid is None:
            job.pending.remove(item.task)
        else:
            self.rests.cancel(TaskKey(job.id, item.task))
            job.unrest(item.task, task.avoid)
            task.avoid = None
        task.attempts = item.attempt
        lease = Lease(item.lease, job.id, item.task, item.attempt, cluster or worker)
        self._begin(job, lease, now)
        if cluster is not None:
            self.place(lease, worker)
        self._tail(job, now)
        return lease
