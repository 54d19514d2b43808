"""What must hold whatever happens, judged by what became durable and by what really ran, not by what nodes believe."""

from collections import Counter
from typing import Final

import msgspec

from p2pq.core import records
from p2pq.core.effects import Start
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import FAULTS_MAX, Outcome

OVER: Final = ("done", "failed", "cancelled")
STARTS_MAX: Final = 3.0
"""Attempts started per task, on average, with any faults."""

Key = tuple[NodeId, LeaseId]


class Broken(AssertionError):  # noqa: N818  read as a sentence: the promise is broken
    """A promise of the system is broken."""


def insist(holds: object, promise: str) -> None:
    """Raise ``Broken`` unless it holds."""
    if not holds:
        raise Broken(promise)


class _Task(msgspec.Struct):
    state: str = "pending"
    attempts: int = 0
    starts: int = 0
    lease: LeaseId | None = None
    written: bool = False
    delivered: bool = False


class _Job(msgspec.Struct):
    master: NodeId
    retries: int
    tasks: list[_Task]
    added: bool = False
    state: str = ""


class Checkers:
    """Watches every durable row of every host, and every attempt that runs."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._jobs: dict[JobId, _Job] = {}
        self._granted: dict[Key, records.LeaseGranted] = {}
        self._live: dict[Key, records.LeaseGranted] = {}
        self._started: dict[Key, NodeId] = {}
        self._exited: dict[Key, tuple[NodeId, Outcome]] = {}
        self.expected = 0
        """Jobs that will be submitted in all."""
        self.open = 0
        """Jobs that have not ended."""
        self.settled = 0
        self.states: Counter[str] = Counter()
        self.retries = 0
        """Attempts that failed by their own doing and were followed by another."""
        self.starts = 0

    def submitted(self, master: NodeId, job: JobId, tasks: int, retries: int) -> None:
        """A user wants that job done; it counts from now, whatever becomes of the master."""
        insist(job not in self._jobs, "a job was submitted twice")
        self._jobs[job] = _Job(master, retries, [_Task() for _ in range(tasks)])
        self.open += 1

    def durable(self, host: NodeId, row: records.Row) -> None:
        """A row of that host will survive a crash from now on."""
        match row:
            case records.JobAdded():
                job = self._job(host, row.job)
                insist(not job.added, "a job was added twice")
                job.added = True
            case records.LeaseGranted():
                self._lease_granted(host, row)
            case records.LeaseEnded():
                self._lease_over(host, row.lease, row.job, row.task)
            case records.AttemptEnded():
                self._attempt_ended(host, row)
            case records.TaskEnded():
                self._settle(self._task(host, row.job, row.task), row.state)
            case records.TasksCancelled():
                for task in self._job(host, row.job).tasks:
                    if task.state not in OVER:
                        self._settle(task, "cancelled")
            case records.TaskDelivered():
                task = self._task(host, row.job, row.task)
                insist(task.state in OVER, "a task was delivered before it was over")
                insist(task.written, "a task counts as delivered but nothing was written")
                task.delivered = True
            case records.JobEnded():
                self._job_ended(host, row)
            case _:
                pass

    def _job(self, host: NodeId, job_id: JobId) -> _Job:
        job = self._jobs.get(job_id)
        insist(job is not None and job.master == host, "rows of a job that was never submitted there")
        assert job is not None
        insist(not job.state, "rows of a job that has ended")
        return job

    def _task(self, host: NodeId, job_id: JobId, index: int) -> _Task:
        return self._job(host, job_id).tasks[index]

    def _lease_granted(self, host: NodeId, row: records.LeaseGranted) -> None:
        task = self._task(host, row.job, row.task)
        insist((host, row.lease) not in self._granted, "a lease was granted twice")
        insist(task.lease is None, "a task has two live leases")
        insist(task.state not in OVER, "a task that is over was granted")
        insist(row.attempt > task.attempts, "attempts are not counted up")
        self._granted[host, row.lease] = self._live[host, row.lease] = row
        task.lease, task.attempts = row.lease, row.attempt

    def _lease_over(self, host: NodeId, lease: LeaseId, job: JobId, index: int) -> records.LeaseGranted:
        row = self._live.pop((host, lease), None)
        insist(row is not None, "a lease ended that was not live")
        assert row is not None
        insist((row.job, row.task) == (job, index), "a lease ended for another task")
        self._task(host, job, index).lease = None
        return row

    def _attempt_ended(self, host: NodeId, row: records.AttemptEnded) -> None:
        granted = self._lease_over(host, row.lease, row.job, row.task)
        result = row.result
        insist(row.worker == granted.worker, "a result of a worker that did not hold the lease")
        insist(
            (result.lease, result.job, result.task, result.attempt)
            == (row.lease, row.job, row.task, granted.attempt),
            "a result under another lease",
        )  # fmt: skip
        ran = self._exited.get((host, row.lease))
        insist(ran == (row.worker, result.outcome), "a result of an attempt that never ended so")
        if row.state in OVER:
            self._settle(self._task(host, row.job, row.task), row.state)
        else:
            self.retries += 1

    def _settle(self, task: _Task, state: str) -> None:
        insist(task.state not in OVER, "a task was settled twice")
        insist(task.lease is None, "a task was settled under a live lease")
        task.state = state
        self.settled += 1
        self.states[state] += 1

    def _job_ended(self, host: NodeId, row: records.JobEnded) -> None:
        job = self._job(host, row.job)
        states = [task.state for task in job.tasks]
        insist(all(state in OVER for state in states), "a job ended before its tasks")
        undelivered = [task for task in job.tasks if task.state == "done" and not task.delivered]
        insist(not undelivered, "a job ended before its results were delivered")
        worst = "cancelled" if "cancelled" in states else "failed" if "failed" in states else "done"
        insist(row.state == worst, "a job ended in the wrong state")
        job.state = row.state
        self.open -= 1

    # -- what really runs -----------------------------------------------------------------------------------------------

    def started(self, host: NodeId, start: Start) -> None:
        """A host begins to run an attempt."""
        key = (start.master, start.lease)
        granted = self._granted.get(key)
        insist(granted is not None, "an attempt runs whose lease is not durable")
        assert granted is not None
        insist(granted.worker == host, "an attempt runs on a host that does not hold its lease")
        insist((granted.job, granted.task) == (start.job, start.task), "another task runs than was granted")
        insist(key not in self._started, "an attempt was started twice")
        self._started[key] = host
        task = self._jobs[start.job].tasks[start.task]
        task.starts += 1
        self.starts += 1
        insist(task.starts <= FAULTS_MAX + self._jobs[start.job].retries + 2, "a task runs again and again")

    def exited(self, host: NodeId, master: NodeId, lease: LeaseId, outcome: Outcome) -> None:
        """An attempt ran to its end there."""
        insist(self._started.get((master, lease)) == host, "an attempt ended that never started")
        self._exited[master, lease] = (host, outcome)

    def written(self, host: NodeId, job: JobId, index: int) -> None:
        """A master writes results into its user's folder; again after a crash, but only of tasks that are over."""
        known = self._jobs.get(job)
        insist(known is not None and known.master == host, "results of a job of somebody else")
        assert known is not None
        task = known.tasks[index]
        insist(task.state in {"done", "failed"}, "results were written of a task that is not over, durably")
        task.written = True

    # -- when all is over -----------------------------------------------------------------------------------------------

    def durably_added(self, job: JobId) -> bool:
        """Whether the master's disk knows the job; otherwise its user was told nothing and submits again."""
        return self._jobs[job].added

    def done(self) -> bool:
        """Whether every job has been submitted and has ended."""
        return not self.open and len(self._jobs) == self.expected

    def finish(self, *, clean: bool) -> None:
        """Judge the end: everything must have been done, with no more work than was called for."""
        waiting = [task for job in self._jobs.values() for task in job.tasks if task.state not in OVER]
        insist(not waiting, f"{len(waiting)} tasks were lost: all faults are over, and they are not")
        insist(not self.open, f"{self.open} jobs never ended though all their tasks did")
        insist(not self._live, "a lease is live though all jobs have ended")
        called_for = self.settled + self.retries
        limit = called_for if clean else STARTS_MAX * called_for + 20
        insist(self.starts <= limit, f"{self.starts} attempts were started for {self.settled} tasks")
