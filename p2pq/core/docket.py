"""The open jobs of a master: taken in, offered, ended, delivered. Who runs their tasks is the book's affair.

Every change leaves as rows and notices.
"""

from typing import Final

from p2pq.core import checkpoints, records
from p2pq.core import effects as fx
from p2pq.core.clock import WallClock
from p2pq.core.deadlines import Deadlines
from p2pq.core.events import DeliverFailed, RetryAsked
from p2pq.core.intervals import IntervalSet
from p2pq.core.jobs import OVER, Job, Line, Task
from p2pq.model import notice
from p2pq.model.ids import JobId, Mono, NodeId, TaskKey, Wall
from p2pq.model.job import TaskState
from p2pq.wire import sign
from p2pq.wire.objects import Manifest

BACKOFF_MAX_S: Final = 60.0
DELIVER_S: Final = 5.0
"""Pause after results could not be written out; doubles up to BACKOFF_MAX_S."""
VOID_MAX: Final = 3
"""How often a task runs again because its result was lost here, in one life of the master."""
GIVEN_UP: Final = "cancelled before its results could be written out"
"""Why a task is cancelled that has results."""


class Docket:
    """The open jobs of this node, in the order in which each owner's are served."""

    def __init__(self, node: NodeId, clock: WallClock) -> None:
        """Begin without jobs.

        Args:
            node: this master, the author of every manifest.
            clock: for the rows' wall times.
        """
        self._node = node
        self._clock = clock
        self._serial = 0
        self.jobs: dict[JobId, Job] = {}
        self.lines: dict[str, Line] = {}
        self.redeliver: Deadlines[TaskKey] = Deadlines()
        self.counted: dict[JobId, None] = {}
        """Jobs of which a task was settled; whoever looks at them empties it."""
        self.grew = False
        """Something became grantable that was not; whoever reads it resets it."""
        self.out: list[fx.Effect] = []
        """What is to be done; whoever reads it empties it."""

    def owners(self) -> tuple[str, ...]:
        """Return the owners with tasks that can be granted."""
        return tuple(owner for owner, line in self.lines.items() if len(line))

    def grantable(self, enough: int) -> int:
        """Count tasks that can be granted, at least up to ``enough``."""
        count = 0
        for line in self.lines.values():
            for job in line:
                if count >= enough:
                    return count
                count += self.jobs[job].grantable
        return count

    # -- in --------------------------------------------------------------------------------------------------------------

    def add(self, row: records.JobAdded, manifest: Manifest, now: Mono) -> None:
        """Take in a new job; one that is known already changes nothing."""
        if row.job not in self.jobs:
            job = self._add(row, manifest)
            queued = notice.JobQueued(job=job.id, tasks=job.manifest.tasks)
            self.out += [fx.Record(row=row), fx.Emit(notice=queued)]
            self._offered(job)
            self.finish(job, now)

    def _add(self, row: records.JobAdded | records.RestoredJob, manifest: Manifest) -> Job:
        self._serial += 1
        job = Job(manifest, row.manifest, sign.digest(row.manifest), row.key, self._serial, row.wall)
        job.keep(row.kept)
        job.halt = row.halt
        job.reply_secret = row.reply_secret
        self.jobs[job.id] = job
        self.lines.setdefault(manifest.owner, Line())
        return job

    def _take_up(self, kept: records.RestoredJob) -> Job:
        job = self._add(kept, sign.open_signed(kept.manifest, Manifest, self._node))
        job.halted = kept.halted
        if kept.cancelled:
            job.cancel()
        for old in kept.tasks:
            job.restore(old)
        job.look()
        return job

    def retry(self, asked: RetryAsked) -> None:
        """Run tasks that are over again; a job that has ended is opened again if there are such.

        Raises:
            Reject: the manifest of the ended job is not this node's.
        """
        job, reopened = self.jobs.get(asked.job), None
        if job is None and asked.ended is not None and asked.ended.job == asked.job:
            job = reopened = self._take_up(asked.ended)
        if job is None:
            return
        tasks, rest = job.retry(asked.task, cancelled=asked.cancelled)
        if not tasks and not rest:
            if reopened is not None:
                del self.jobs[job.id]
            return
        if asked.ended is not None and reopened is not None:
            self.out.append(fx.Record(row=records.JobReopened(job=asked.ended)))
        again = IntervalSet((index, index + 1) for index in tasks).intervals()
        self.out.append(fx.Record(row=records.TasksRetried(job=job.id, tasks=again, rest=rest, wall=asked.wall)))
        self.out.append(fx.Emit(notice=notice.TasksRetried(job=job.id, tasks=job.unsettled)))
        self._offered(job)

    def _offer(self, job: Job, index: int) -> None:
        job.pending.add(index)
        self._offered(job)

    def _offered(self, job: Job) -> None:
        self.lines[job.manifest.owner].update(job)
        self.grew = True

    # -- out -------------------------------------------------------------------------------------------------------------

    def _end_task(self, job: Job, index: int, state: TaskState, detail: str, wall: Wall) -> None:
        """A task that neither waits nor runs any more ends without a result."""
        task = job.settle(index, state, deliver=False)
        checkpoints.forget(task, self.out)
        task.detail = detail
        row = records.TaskEnded(job=job.id, task=index, state=state, detail=detail, wall=wall)
        settled = notice.TaskSettled(
            job=job.id, task=index, attempt=task.attempts, state=state, worker=task.worker, detail=detail
        )
        self.out += [fx.Record(row=row), fx.Emit(notice=settled)]
        self.counted[job.id] = None

    def delivered(self, job_id: JobId, index: int, now: Mono) -> None:
        """The results of a task lie in the owner's folder."""
        if (found := self._undelivered(job_id, index)) is None:
            return
        job, task = found
        task.delivered = True
        job.undelivered -= 1
        self.redeliver.cancel(TaskKey(job_id, index))
        written = notice.TaskResultsWritten(job=job_id, task=index)
        self.out += [fx.Record(row=records.TaskDelivered(job=job_id, task=index)), fx.Emit(notice=written)]
        self.finish(job, now)

    def deliver_failed(self, failed: DeliverFailed, now: Mono) -> None:
        """Results could not be written out.

        They stay in the store, and it is tried again after a pause. If no repetition mends it, their task has failed; if
        they are lost, the task waits again.
        """
        if (found := self._undelivered(failed.job, failed.task)) is None:
            return
        job, task = found
        if failed.void and task.state == "done" and task.void < VOID_MAX and not job.cancelled and not job.halted:
            self._void(job, failed, now)
        elif failed.refused or failed.void:
            self._undeliver(job, failed.task, "failed", f"deliver: {failed.reason}", self._clock.at(now))
            self.finish(job, now)
        else:
            pause_s = min(BACKOFF_MAX_S, DELIVER_S * 2.0 ** min(task.stuck, 16))
            task.stuck += 1
            self.redeliver.set(TaskKey(job.id, failed.task), Mono(now + pause_s))
            stuck = notice.TaskResultsStuck(job=job.id, task=failed.task, reason=failed.reason)
            self.out.append(fx.Emit(notice=stuck))

    def _void(self, job: Job, failed: DeliverFailed, now: Mono) -> None:
        """The result of a task that was done is lost: it runs again, as if it had been asked to."""
        task, index = job.tasks[failed.task], failed.task
        job.over[task.state] -= 1
        job.undelivered -= 1
        self.redeliver.cancel(TaskKey(job.id, index))
        void = task.void + 1
        task.wipe()
        task.state, task.void = "pending", void
        row = records.TasksRetried(job=job.id, tasks=((index, index + 1),), wall=self._clock.at(now))
        lost = notice.TaskResultsLost(job=job.id, task=index, reason=failed.reason)
        self.out += [fx.Record(row=row), fx.Emit(notice=lost)]
        job.look()
        self._offer(job, index)

    def give_up(self, job: Job, index: int | None, wall: Wall, now: Mono) -> None:
        """Results that could not be written out are not wanted there any more, of one task or all: these are cancelled."""
        for other in job.to_deliver():
            if job.tasks[other].stuck and index in {None, other}:
                self._undeliver(job, other, "cancelled", GIVEN_UP, wall)
        self.finish(job, now)

    def _undeliver(self, job: Job, index: int, state: TaskState, detail: str, wall: Wall) -> None:
        """Results that were to be written out never will be."""
        task = job.tasks[index]
        job.over[task.state] -= 1
        job.undelivered -= 1
        self.redeliver.cancel(TaskKey(job.id, index))
        task.outcome = None
        self._end_task(job, index, state, detail, wall)

    def _undelivered(self, job_id: JobId, index: int) -> tuple[Job, Task] | None:
        job = self.jobs.get(job_id)
        task = None if job is None else job.tasks.get(index)
        if job is None or task is None or task.delivered or task.state not in OVER:
            return None
        return job, task

    def finish(self, job: Job, now: Mono) -> None:
        """Let go of a job if nothing is left of it to run or to deliver."""
        if job.ended:
            del self.jobs[job.id]
            row = records.JobEnded(job=job.id, state=job.state, wall=self._clock.at(now))
            self.out += [fx.Record(row=row), fx.Emit(notice=notice.JobFinished(job=job.id, state=job.state))]
