"""The books of a master: the leases on the tasks of its jobs, and what became of each attempt.

Every change of a task goes through here and leaves as rows and notices. Who asks and who is told is the queue's affair.
"""

from collections.abc import Callable
from typing import Final

from p2pq.core import effects as fx
from p2pq.core import records
from p2pq.core.clock import WallClock
from p2pq.core.deadlines import Deadlines
from p2pq.core.docket import BACKOFF_MAX_S, Docket
from p2pq.core.jobs import OVER, Job, Task
from p2pq.core.leases import Lease, Leases
from p2pq.core.placement import TaskSnapshot
from p2pq.model import notice
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, TaskKey, Wall
from p2pq.model.job import FAULTS_MAX, Fault, TaskState
from p2pq.wire.objects import GrantItem

AVOID_S: Final = 60.0
"""How long a task is kept from the worker it failed on while another could run it; then it may have it again."""
RETURNS_FREE: Final = 8
"""How often a task that was handed back goes to the next worker without a pause."""

_UNCOUNTED: Final[tuple[Fault, ...]] = ("late", "draining", "refused", "no-manifest", "evicted")
"""Handed back unstarted: nobody's failure."""
_AT_ONCE: Final[tuple[Fault, ...]] = ("late", "draining", "no-manifest", "evicted", "lost", "expired")
"""Says nothing about how the task would fare on the next worker, or on this one again."""


class Book(Docket):
    """The open jobs of this node and the leases on their tasks. What is to be done is appended to ``out``."""

    def __init__(
        self,
        node: NodeId,
        settings: ScheduleSettings,
        restored: records.Restored,
        clock: WallClock,
        other_is_able: Callable[[Job, NodeId], bool],
        now: Mono,
    ) -> None:
        """Begin a life with a new epoch; what was live is live again.

        Args:
            node: this master, the author of every manifest.
            settings: lengths of leases and pauses.
            restored: what earlier lives left.
            clock: for the rows' wall times.
            other_is_able: whether a linked worker besides that one could run tasks of that job.
            now: the present.

        Raises:
            Reject: a restored manifest is not this node's: the store belongs to another key.
        """
        super().__init__(node, clock)
        self._settings = settings
        self._other_is_able = other_is_able
        self.leases = Leases(restored.epoch + 1, settings.lease_s, restored.settled)
        self.rests: Deadlines[TaskKey] = Deadlines()
        """Tasks that rest until then, or avoid a worker until then."""
        self.out.append(fx.Record(row=records.EpochBegun(epoch=restored.epoch + 1)))
        self._restore(restored, now)

    def _restore(self, restored: records.Restored, now: Mono) -> None:
        for kept in restored.jobs:
            self._take_up(kept)
        for old_lease in restored.leases:
            job = self.jobs[old_lease.job]
            job.pending.remove(old_lease.task)
            self._run(job, old_lease.task, old_lease.lease, old_lease.worker, now)
        for job in list(self.jobs.values()):
            self.out += [fx.Deliver(job=job.id, task=index) for index in job.to_deliver()]
            self.finish(job, now)
            self.lines[job.manifest.owner].update(job)
        self.grew = True

    @property
    def deadline(self) -> Mono | None:
        """When ``fire`` has something to do."""
        instants = (self.leases.deadline, self.rests.next, self.redeliver.next)
        return min((at for at in instants if at is not None), default=None)

    def fire(self, now: Mono) -> list[Lease]:
        """Do what is due at ``now``; return the leases that expired."""
        expired: list[Lease] = []
        while (lease := self.leases.pop_due(now)) is not None:
            held_s = now - lease.granted
            self.out.append(fx.Emit(notice=notice.LeaseExpired(lease=lease.id, worker=lease.worker, held_s=held_s)))
            self._lost(lease, "expired", "", now)
            expired.append(lease)
        while (key := self.rests.pop(now)) is not None:
            self._rested(self.jobs[JobId(key.job)], key, now)
        while (key := self.redeliver.pop(now)) is not None:
            self.out.append(fx.Deliver(job=JobId(key.job), task=key.task))
        return expired

    # -- from pending to running ----------------------------------------------------------------------------------------

    def grant(self, job: Job, worker: NodeId, limit: int, now: Mono) -> tuple[GrantItem, ...]:
        """Give ``worker`` up to ``limit`` tasks of ``job`` that it may have."""
        wall = self._clock.at(now)
        items: list[GrantItem] = []
        for index in job.take(worker, limit):
            task = job.task(index)
            if task.avoid is not None:
                task.avoid = None
                self.rests.cancel(TaskKey(job.id, index))
            task.attempts += 1
            item = GrantItem(index, task.attempts, self.leases.new_id())
            items.append(item)
            self._run(job, index, item.lease, worker, now)
            row = records.LeaseGranted(
                lease=item.lease, job=job.id, task=index, attempt=item.attempt, worker=worker, wall=wall
            )
            granted = notice.TaskGranted(job=job.id, task=index, attempt=item.attempt, lease=item.lease, worker=worker)
            self.out += [fx.Record(row=row), fx.Emit(notice=granted)]
        self.lines[job.manifest.owner].update(job)
        return tuple(items)

    def _run(self, job: Job, index: int, lease: LeaseId, worker: NodeId, now: Mono) -> None:
        task = job.task(index)
        task.state = "running"
        task.lease = lease
        task.worker = worker
        job.running += 1
        self.leases.add(Lease(lease, job.id, index, task.attempts, worker), now, job.manifest.limits.time_s)

    # -- attempts that end without a result -----------------------------------------------------------------------------

    def lose(self, lease: Lease, fault: Fault, detail: str, now: Mono) -> None:
        """A live lease brings no result, by its worker's doing: the task waits again or is given up."""
        self._lost(self.leases.end(lease), fault, detail, now)

    def _lost(self, lease: Lease, fault: Fault, detail: str, now: Mono) -> None:
        job = self.jobs[lease.job]
        task = job.tasks[lease.task]
        counted = fault not in _UNCOUNTED
        task.faults += counted
        task.detail = f"{fault}: {detail}" if detail else fault
        job.running -= 1
        ended = records.LeaseEnded(
            lease=lease.id,
            job=lease.job,
            task=lease.task,
            attempt=lease.attempt,
            fault=fault,
            detail=detail,
            counted=counted,
        )
        lost = notice.AttemptLost(
            job=lease.job, task=lease.task, attempt=lease.attempt, worker=lease.worker, fault=fault, detail=detail
        )
        self.out += [fx.Record(row=ended), fx.Emit(notice=lost)]
        if task.faults > FAULTS_MAX:
            detail = (
                f"given up after {task.faults} attempts that ended by their workers' doing; the last: {task.detail}"
            )
            self._end_task(job, lease.task, "failed", detail, self._clock.at(now))
            self.finish(job, now)
            return
        if job.halted:
            self._end_task(job, lease.task, "cancelled", job.halted, self._clock.at(now))
            self.finish(job, now)
            return
        task.returns += 1
        rests = fault not in _AT_ONCE or task.returns > RETURNS_FREE
        self._requeue(job, lease.task, lease.worker if rests else None, now)

    def _requeue(self, job: Job, index: int, avoid: NodeId | None, now: Mono) -> None:
        """A task that ran is pending again: at once, or after a pause and if possible on another worker."""
        task = job.tasks[index]
        task.state = "pending"
        task.lease = None
        task.avoid = avoid
        if avoid is None:
            self._offer(job, index)
            return
        pause_s = min(BACKOFF_MAX_S, self._settings.backoff_s * 2.0 ** min(task.rests, 16))
        task.rests += 1
        job.resting += 1
        self.rests.set(TaskKey(job.id, index), Mono(now + pause_s))

    def _rested(self, job: Job, key: TaskKey, now: Mono) -> None:
        """A pause is over, or a task need not avoid a worker any longer."""
        task = job.tasks[key.task]
        avoid = task.avoid
        assert avoid is not None, "only a task that avoids a worker rests"
        was_shy = job.unrest(key.task, avoid)
        if not was_shy and self._other_is_able(job, avoid):
            job.hide(key.task, avoid)
            self.rests.set(key, Mono(now + AVOID_S))
            self._offered(job)
            return
        task.avoid = None
        self._offer(job, key.task)

    # -- results --------------------------------------------------------------------------------------------------------

    def settle(self, lease: Lease, now: Mono) -> None:
        """The result that was being collected is durable here: it counts, and decides the task or one of its tries."""
        item = lease.collecting
        assert item is not None, "a result counts only once it has been collected"
        self.leases.settle(lease)
        job = self.jobs[lease.job]
        task = job.tasks[lease.task]
        job.running -= 1
        outcome = item.outcome
        # The first death of a runner may well be the runner's or the machine's fault.
        counted = outcome.reason != "runner-died" or task.died
        task.died = task.died or outcome.reason == "runner-died"
        task.failures += counted and not outcome.ok
        task.outcome = outcome
        task.detail = ""
        state: TaskState = "done" if outcome.ok else "failed"
        if not outcome.ok and not job.halted and (not counted or task.failures <= job.manifest.retries):
            state = "pending"
        row = records.AttemptEnded(
            lease=lease.id,
            job=job.id,
            task=lease.task,
            worker=lease.worker,
            result=item,
            state=state,
            wall=self._clock.at(now),
            counted=counted,
        )
        self.out.append(fx.Record(row=row))
        if state == "pending":
            failed = notice.AttemptFailed(
                job=job.id, task=lease.task, attempt=lease.attempt, worker=lease.worker, outcome=outcome
            )
            self.out.append(fx.Emit(notice=failed))
            self._requeue(job, lease.task, lease.worker, now)
            return
        job.settle(lease.task, state, deliver=True)
        self._counted(job)
        settled = notice.TaskSettled(
            job=job.id, task=lease.task, attempt=lease.attempt, state=state, worker=lease.worker, outcome=outcome
        )
        self.out += [fx.Emit(notice=settled), fx.Deliver(job=job.id, task=lease.task)]

    # -- the end --------------------------------------------------------------------------------------------------------

    def cancel(self, job_id: JobId, index: int | None, wall: Wall, now: Mono) -> list[Lease]:
        """Cancel a job, or one task of it; return the leases that this ended. What is over already stays as it is."""
        job = self.jobs.get(job_id)
        if job is None:
            return []
        if index is not None:
            return self._cancel_task(job, index, wall, now)
        return self._cancel_all(job, wall, now, running=True)

    def _cancel_all(self, job: Job, wall: Wall, now: Mono, *, running: bool) -> list[Lease]:
        leases: list[Lease] = []
        for index, task in job.tasks.items():
            if running and task.state == "running":
                leases.append(self._revoke(job, index, task))
            if task.avoid is not None:
                self.rests.cancel(TaskKey(job.id, index))
        if job.unsettled > job.running:
            job.cancel(running=running)
            self.lines[job.manifest.owner].update(job)
            self.out.append(fx.Record(row=records.TasksCancelled(job=job.id, wall=wall, running=running)))
            self.finish(job, now)
        return leases

    def halt(self, now: Mono) -> list[Lease]:
        """Stop the jobs of which enough tasks have failed (or succeeded) by now; return the leases that this ended."""
        leases: list[Lease] = []
        for job_id in self.counted:
            job = self.jobs.get(job_id)
            if job is not None and job.halt is not None and job.halts:
                detail = job.say_halted()
                halted = notice.JobHalted(job=job.id, detail=detail)
                self.out += [fx.Record(row=records.JobHalted(job=job.id, detail=detail)), fx.Emit(notice=halted)]
                leases += self._cancel_all(job, self._clock.at(now), now, running=job.halt.now)
        self.counted.clear()
        return leases

    def _cancel_task(self, job: Job, index: int, wall: Wall, now: Mono) -> list[Lease]:
        if not 0 <= index < job.manifest.tasks or job.state_of(index) in OVER:
            return []
        task = job.task(index)
        leases: list[Lease] = []
        if task.state == "running":
            leases = [self._revoke(job, index, task)]
        elif task.avoid is None:
            job.pending.remove(index)
        else:
            self.rests.cancel(TaskKey(job.id, index))
            job.unrest(index, task.avoid)
        self._end_task(job, index, "cancelled", "cancelled", wall)
        self.lines[job.manifest.owner].update(job)
        self.finish(job, now)
        return leases

    def _revoke(self, job: Job, index: int, task: Task) -> Lease:
        """End the lease of a task that is being cancelled; what the task becomes is said by the caller, in this turn."""
        assert task.lease is not None, "a running task has a lease"
        lease = self.leases.get(task.lease)
        assert lease is not None, "the lease of a running task is live"
        job.running -= 1
        row = records.LeaseEnded(
            lease=lease.id, job=job.id, task=index, attempt=lease.attempt, fault="cancelled", counted=False
        )
        self.out.append(fx.Record(row=row))
        return self.leases.end(lease)

    # -- for readers ----------------------------------------------------------------------------------------------------

    def task_snapshot(self, job: Job, index: int) -> TaskSnapshot:
        """Return one task as a value."""
        task = job.tasks.get(index)
        if task is None:
            return TaskSnapshot(task=index, state=job.state_of(index), delivered=job.state_of(index) != "pending")
        lease = None if task.lease is None else self.leases.get(task.lease)
        return TaskSnapshot(
            task=index,
            state=task.state,
            attempts=task.attempts,
            worker=task.worker,
            lease=task.lease,
            started=lease is not None and lease.running,
            since=None if lease is None else lease.granted,
            progress=-1 if lease is None else lease.progress,
            outcome=task.outcome,
            failures=task.failures,
            faults=task.faults,
            detail=task.detail,
            not_before=self.rests.get(TaskKey(job.id, index)) if task.avoid not in job.shy else None,
            delivered=task.delivered,
        )

    def check(self) -> None:
        """Assert that jobs, leases, lines and pauses tell one story."""
        self.leases.check()
        self.rests.check()
        self.redeliver.check()
        running = 0
        for job in self.jobs.values():
            job.check()
            assert not job.ended, "an ended job was kept"
            stands = job.id in self.lines[job.manifest.owner]
            assert stands == bool(job.pending or job.shy), "a job with tasks is not in line, or one without is"
            running += job.running
            for index, task in job.tasks.items():
                key = TaskKey(job.id, index)
                assert (key in self.rests) == (task.avoid is not None), "a pause without an end, or without a reason"
                lease = None if task.lease is None else self.leases.get(task.lease)
                if task.lease is not None:
                    assert lease is not None, "a running task without a lease"
                    assert (lease.job, lease.task, lease.attempt) == (job.id, index, task.attempts), "the wrong lease"
        assert running == len(self.leases), "a lease without a running task"
        assert sum(len(line) for line in self.lines.values()) <= len(self.jobs), "a dead job stands in line"
