"""The books of a master: the leases on the tasks of its jobs, and what became of each attempt.

Every change of a task goes through here and leaves as rows and notices. Who asks and who is told is the queue's affair.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from p2pq.core import checkpoints, records
from p2pq.core import effects as fx
from p2pq.core.clock import WallClock
from p2pq.core.clusters import Rooms
from p2pq.core.deadlines import Deadlines
from p2pq.core.docket import BACKOFF_MAX_S
from p2pq.core.events import CancelAsked
from p2pq.core.jobs import OVER, Job, Task
from p2pq.core.judging import Judge
from p2pq.core.leases import Given, Lease, Leases
from p2pq.errors import Reject
from p2pq.model import notice
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, TaskKey, Wall
from p2pq.model.job import ATTEMPTS_MAX, Fault, TaskState
from p2pq.wire import sign
from p2pq.wire.objects import Grant, GrantItem, ResultItem

AVOID_S: Final = 60.0
"""How long a task is kept from the worker it failed on while another could run it; then it may have it again."""
RETURNS_FREE: Final = 8
"""How often a task that was handed back goes to the next worker without a pause."""

_UNCOUNTED: Final[tuple[Fault, ...]] = ("late", "draining", "refused", "no-manifest", "evicted", "recalled")
"""Handed back unstarted: nobody's failure."""
_AT_ONCE: Final[tuple[Fault, ...]] = ("late", "draining", "no-manifest", "evicted", "recalled", "lost", "expired")
"""Says nothing about how the task would fare on the next worker, or on this one again."""


class Book(Judge):
    """The open jobs of this node and the leases on their tasks. What is to be done is appended to ``out``."""

    def __init__(  # noqa: PLR0913, PLR0917  each is a different fact
        self,
        node: NodeId,
        settings: ScheduleSettings,
        restored: records.Restored,
        clock: WallClock,
        other_is_able: Callable[[Job, NodeId], bool],
        path: Callable[[NodeId], tuple[NodeId, ...]],
        now: Mono,
    ) -> None:
        """Begin a life with a new epoch; what was live is live again.

        Args:
            node: this master, the author of every manifest.
            settings: lengths of leases and pauses.
            restored: what earlier lives left.
            clock: for the rows' wall times.
            other_is_able: whether a linked worker besides that one could run tasks of that job.
            path: the bridges on the way to a worker, for the rows.
            now: the present.

        Raises:
            Reject: a restored manifest is not this node's: the store belongs to another key.
        """
        leases = Leases(restored.epoch + 1, settings.lease_s, restored.settled, restored.rebuilt)
        super().__init__(node, clock, leases, settings.backoff_s, other_is_able)
        self._settings = settings
        self._path = path
        self.rests: Deadlines[TaskKey] = Deadlines()
        """Tasks that rest until then, or avoid a worker until then."""
        self.tails: Deadlines[JobId] = Deadlines()
        """Jobs of which nothing waits, and when an attempt will have taken too long."""
        self.out.append(fx.Record(row=records.EpochBegun(epoch=restored.epoch + 1)))
        self._restore(restored, now)

    def _restore(self, restored: records.Restored, now: Mono) -> None:
        for kept in restored.jobs:
            self._take_up(kept)
        for old_lease in restored.leases:
            job = self.jobs[old_lease.job]
            job.pending.remove(old_lease.task)
            lease = Lease(old_lease.lease, job.id, old_lease.task, old_lease.attempt, old_lease.worker)
            self._run(job, lease, now)
        for given in restored.grants:
            with suppress(Reject):  # one that was altered is no proof, as will be seen when it is asked for
                grant = sign.open_signed(given.signed, Grant, self._node)
                if grant.key:
                    self._still_has(NodeId(grant.to), grant.items)
                else:
                    self.gave(grant.items, given.signed, NodeId(grant.to))
        for job in list(self.jobs.values()):
            self.out += [fx.Deliver(job=job.id, task=index) for index in job.to_deliver()]
            self.finish(job, now)
            self.lines[job.manifest.owner].update(job)
        self.grew = True

    def _still_has(self, worker: NodeId, items: tuple[GrantItem, ...]) -> None:
        """What was granted to a worker itself nobody else can run, whichever bridge has answered for it since."""
        for item in items:
            lease = self.leases.get(item.lease)
            if lease is not None and lease.worker != worker:
                self.place(lease, worker)

    @property
    def deadline(self) -> Mono | None:
        """When ``fire`` has something to do."""
        instants = (self.leases.deadline, self.rests.next, self.redeliver.next, self.tails.next, self.probes.next)
        return min((at for at in instants if at is not None), default=None)

    def fire(self, now: Mono) -> list[Lease]:
        """Do what is due at ``now``; return the leases that expired."""
        expired: list[Lease] = []
        while (lease := self.leases.pop_due(now)) is not None:
            held_s = now - lease.granted
            self.out.append(fx.Emit(notice=notice.LeaseExpired(lease=lease.id, worker=lease.runner, held_s=held_s)))
            self._lost(lease, "expired", "", now)
            expired.append(lease)
        while (key := self.rests.pop(now)) is not None:
            self._rested(self.jobs[JobId(key.job)], key, now)
        while (key := self.redeliver.pop(now)) is not None:
            self.out.append(fx.Deliver(job=JobId(key.job), task=key.task))
        while (late := self.tails.pop(now)) is not None:
            self._tail(self.jobs[late], now)
        while (probe := self.probes.pop(now)) is not None:
            self.wake.append(probe[1])
        return expired

    # -- from pending to running ----------------------------------------------------------------------------------------

    def grant(
        self, job: Job, worker: NodeId, limit: int, now: Mono, rooms: Rooms | None = None
    ) -> tuple[GrantItem, ...]:
        """Give ``worker`` up to ``limit`` tasks of ``job`` that it may have; a cluster those that it has ``rooms`` for."""
        items: list[GrantItem] = []
        take = partial(job.take, worker) if rooms is None else partial(job.take_beside, rooms.beside)
        while taken := take(limit - len(items)):
            for index in taken:
                task = job.task(index)
                avoided, task.avoid = task.avoid, None
                if avoided is not None:
                    self.rests.cancel(TaskKey(job.id, index))
                if task.attempts < ATTEMPTS_MAX:
                    items.append(self._grant(job, index, worker, now))
                    if rooms is not None and avoided is not None:
                        rooms.shun(items[-1].lease, avoided)
                else:
                    detail = f"given up: its {ATTEMPTS_MAX} attempts are used up"
                    self._end_task(job, index, "failed", detail, self._clock.at(now))
        self._tail(job, now)
        self.finish(job, now)
        return tuple(items)

    def gave(self, items: tuple[GrantItem, ...], signed: bytes, bridge: NodeId) -> None:
        """These attempts were granted to a bridge, which hands them on; those that are over by now are left alone."""
        given = Given(sign.digest(signed), bridge, tuple(item.lease for item in items))
        for item in items:
            if (lease := self.leases.get(item.lease)) is not None:
                lease.given = given

    def take_back(self, items: tuple[GrantItem, ...], detail: str, now: Mono) -> None:
        """What was just granted could not be said: it is as if the worker had handed it back."""
        for item in items:
            lease = self.leases.get(item.lease)
            assert lease is not None, "what was just granted is live"
            self.lose(lease, "refused", detail, now)

    def grant_again(
        self, job: Job, worker: NodeId, limit: int, now: Mono, rooms: Rooms | None = None
    ) -> tuple[GrantItem, ...]:
        """Give ``worker`` second attempts of up to ``limit`` tasks that take too long elsewhere."""
        items: list[GrantItem] = []
        for lease_id in list(job.tail.overdue(now)) if job.tail.open else ():
            lease = self.leases.get(lease_id)
            assert lease is not None, "an attempt that has ended is overdue"
            spent = job.tasks[lease.task].attempts >= ATTEMPTS_MAX
            elsewhere = lease.runner != worker and (rooms is None or rooms.beside(lease.runner) > 0)
            if len(items) < limit and elsewhere and lease.collecting is None and not spent:
                items.append(self._grant(job, lease.task, worker, now))
                if rooms is not None:
                    rooms.shun(items[-1].lease, lease.runner)
        if items:
            self._tail(job, now)
        return tuple(items)

    def _grant(self, job: Job, index: int, worker: NodeId, now: Mono) -> GrantItem:
        task = job.task(index)
        task.attempts += 1
        lease = Lease(self.leases.new_id(), job.id, index, task.attempts, worker)
        self._begin(job, lease, now)
        return GrantItem(index, lease.attempt, lease.id)

    def _begin(self, job: Job, lease: Lease, now: Mono) -> None:
        self._run(job, lease, now)
        index, attempt, worker, wall = lease.task, lease.attempt, lease.worker, self._clock.at(now)
        row = records.LeaseGranted(
            lease=lease.id, job=job.id, task=index, attempt=attempt, worker=worker, wall=wall, via=self._path(worker)
        )
        granted = notice.TaskGranted(job=job.id, task=index, attempt=attempt, lease=lease.id, worker=worker)
        self.out += [fx.Record(row=row), fx.Emit(notice=granted)]

    def _run(self, job: Job, lease: Lease, now: Mono) -> None:
        task = job.task(lease.task)
        if task.leases:
            job.tail.end(task.leases[0])
        else:
            job.tail.begin(lease.id, now)
            job.running += 1
        task.state = "running"
        task.leases += (lease.id,)
        task.worker = lease.runner
        self.leases.add(lease, now, job.manifest.limits.time_s)

    def _stop(self, job: Job, task: Task, lease: LeaseId, now: Mono) -> None:
        """An attempt of a task has ended; where another one is under way, that is alone again."""
        job.tail.end(lease)
        task.leases = tuple(other for other in task.leases if other != lease)
        if task.leases:
            job.tail.begin(task.leases[0], now)
        else:
            job.running -= 1

    def _tail(self, job: Job, now: Mono) -> None:
        """See whether there are second attempts of the job to be had, or from when on."""
        due = None if job.waits or job.halted else job.tail.due()
        is_open = due is not None and due <= now
        self.grew = self.grew or (is_open and not job.tail.open)
        job.tail.open = is_open
        if due is None or is_open:
            self.tails.cancel(job.id)
        else:
            self.tails.set(job.id, due)
        self.lines[job.manifest.owner].update(job)

    # -- attempts that end without a result -----------------------------------------------------------------------------

    def lose(self, lease: Lease, fault: Fault, detail: str, now: Mono) -> None:
        """A live lease brings no result, by its worker's doing: the task waits again or is given up."""
        self._lost(self.leases.end(lease), fault, detail, now)

    def _lost(self, lease: Lease, fault: Fault, detail: str, now: Mono) -> None:
        job = self.jobs[lease.job]
        task = job.tasks[lease.task]
        self._unblock(job, lease.runner)
        if fault == "refused":
            self._declined(job, lease.runner, now)
        counted = fault not in _UNCOUNTED and self._charge(job, task, lease.runner, now)
        task.faults += counted
        task.detail = f"{fault}: {detail}" if detail else fault
        self._stop(job, task, lease.id, now)
        lost = notice.AttemptLost(
            job=lease.job, task=lease.task, attempt=lease.attempt, worker=lease.runner, fault=fault, detail=detail
        )
        self.out += [self._ended(lease, fault, detail, counted=counted), fx.Emit(notice=lost)]
        given_up = self._given_up(job, task, lease.runner, fault, detail)
        if given_up and not task.leases:
            self._end_task(job, lease.task, "failed", given_up, self._clock.at(now))
            self.finish(job, now)
        elif job.halted and not task.leases:
            self._end_task(job, lease.task, "cancelled", job.halted, self._clock.at(now))
            self.finish(job, now)
        elif not task.leases:
            task.returns += 1
            rests = fault not in _AT_ONCE or task.returns > RETURNS_FREE
            self._requeue(job, lease.task, lease.runner if rests else None, now)
        self._tail(job, now)

    def _requeue(self, job: Job, index: int, avoid: NodeId | None, now: Mono) -> None:
        """A task that ran is pending again: at once, or after a pause and if possible on another worker."""
        task = job.tasks[index]
        task.state = "pending"
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

    def settle(self, lease: Lease, now: Mono) -> list[Lease]:
        """The result that was being collected is durable here: it counts, and decides the task or one of its tries.

        Returns:
            The lease of the task's other attempt, if that is over by this.
        """
        item = lease.collecting
        assert item is not None, "a result counts only once it has been collected"
        self.leases.settle(lease)
        job = self.jobs[lease.job]
        task = job.tasks[lease.task]
        self._unblock(job, lease.runner)
        outcome = item.outcome
        # The first death of a runner may well be the runner's or the machine's fault.
        counted = outcome.reason != "runner-died" or task.died
        counted = not self._judge(job, lease, outcome, now, counted=counted) and counted
        task.died = task.died or outcome.reason == "runner-died"
        task.failures += counted and not outcome.ok
        task.outcome = outcome
        task.detail = ""
        self._stop(job, task, lease.id, now)
        state: TaskState = "done" if outcome.ok else "failed"
        if not outcome.ok and task.leases:
            state = "running"  # the other attempt may still succeed
        elif not outcome.ok and not job.halted and (not counted or task.failures <= job.manifest.retries):
            state = "pending"
        over = [self._revoke(job, task, other, now) for other in task.leases] if outcome.ok else []
        row = records.AttemptEnded(
            lease=lease.id,
            job=job.id,
            task=lease.task,
            worker=lease.runner,
            result=item,
            state=state,
            wall=self._clock.at(now),
            counted=counted,
            detail=lease.detail,
            skipped=lease.skipped,
            via=self._via(lease),
            proof=lease.proof,
            delivered=state in OVER and self.left_nothing(item),
        )
        self.out.append(fx.Record(row=row))
        if state in OVER:
            self._settled(job, lease, item, state)
        else:
            failed = notice.AttemptFailed(
                job=job.id, task=lease.task, attempt=lease.attempt, worker=lease.runner, outcome=outcome
            )
            self.out.append(fx.Emit(notice=failed))
            if state == "pending":
                self._requeue(job, lease.task, lease.runner, now)
        self._tail(job, now)
        return over

    def _settled(self, job: Job, lease: Lease, item: ResultItem, state: TaskState) -> None:
        """A result has decided its task; it is to be written out if there is anything in it."""
        written, index = self.left_nothing(item), lease.task
        job.settle(index, state, deliver=not written)
        self.counted[job.id] = None
        settled = notice.TaskSettled(
            job=job.id,
            task=index,
            attempt=lease.attempt,
            state=state,
            worker=lease.runner,
            outcome=item.outcome,
            left=bool(item.body),
        )
        rest = fx.Emit(notice=notice.TaskResultsWritten(job=job.id, task=index)) if written else None
        self.out += [fx.Emit(notice=settled), rest or fx.Deliver(job=job.id, task=index)]

    # -- the end --------------------------------------------------------------------------------------------------------

    def cancel(self, asked: CancelAsked, now: Mono) -> list[Lease]:
        """Cancel a job, or one task of it; return the leases that this ended. What is over already stays as it is.

        What is over but cannot be written out is given up if there is nothing else to stop.
        """
        job = self.jobs.get(asked.job)
        if job is None:
            return []
        if asked.lost:
            self._blame_nobody(job)
            self._say_halted(job, asked.lost)
            return self._cancel_all(job, asked.wall, now, running=False)
        index = asked.task
        if not job.unsettled or (index is not None and job.state_of(index) in OVER):
            self.give_up(job, index, asked.wall, now)
            return []
        if index is not None:
            return self._cancel_task(job, index, asked.wall, now)
        return self._cancel_all(job, asked.wall, now, running=True)

    def _say_halted(self, job: Job, detail: str) -> None:
        job.halted = detail
        row = records.JobHalted(job=job.id, detail=detail)
        self.out += [fx.Record(row=row), fx.Emit(notice=notice.JobHalted(job=job.id, detail=detail))]

    def _cancel_all(self, job: Job, wall: Wall, now: Mono, *, running: bool) -> list[Lease]:
        leases: list[Lease] = []
        for index, task in job.tasks.items():
            if running:
                leases += [self._revoke(job, task, lease, now) for lease in task.leases]
            if task.avoid is not None:
                self.rests.cancel(TaskKey(job.id, index))
            if running or task.state == "pending":
                checkpoints.forget(task, self.out)
        if job.unsettled > job.running:
            job.cancel(running=running)
            self._tail(job, now)
            self.out.append(fx.Record(row=records.TasksCancelled(job=job.id, wall=wall, running=running)))
            self.finish(job, now)
        return leases

    def halt(self, now: Mono) -> list[Lease]:
        """Stop the jobs of which enough tasks have failed (or succeeded) by now; return the leases that this ended.

        Those of which nothing is left are let go of.
        """
        leases: list[Lease] = []
        for job_id in self.counted:
            job = self.jobs.get(job_id)
            if job is not None and job.halt is not None:
                if job.halts:
                    self._say_halted(job, job.say_halted())
                    leases += self._cancel_all(job, self._clock.at(now), now, running=job.halt.now)
                job.look()
            if job_id in self.jobs:
                self.finish(self.jobs[job_id], now)
        self.counted.clear()
        return leases

    def _cancel_task(self, job: Job, index: int, wall: Wall, now: Mono) -> list[Lease]:
        if not 0 <= index < job.manifest.tasks or job.state_of(index) in OVER:
            return []
        task = job.task(index)
        leases = [self._revoke(job, task, lease, now) for lease in task.leases]
        if task.avoid is not None:
            self.rests.cancel(TaskKey(job.id, index))
            job.unrest(index, task.avoid)
        elif not leases:
            job.pending.remove(index)
        self._end_task(job, index, "cancelled", "cancelled", wall)
        self._tail(job, now)
        self.finish(job, now)
        return leases

    def _revoke(self, job: Job, task: Task, lease_id: LeaseId, now: Mono) -> Lease:
        """End the lease of an attempt that nobody needs; what the task becomes is said by the caller, in this turn."""
        lease = self.leases.get(lease_id)
        assert lease is not None, "the lease of a running task is live"
        self._unblock(job, lease.runner)
        self._stop(job, task, lease_id, now)
        self.out.append(self._ended(lease, "cancelled", "", counted=False))
        return self.leases.end(lease)

    def _ended(self, lease: Lease, fault: str, detail: str, *, counted: bool) -> fx.Record:
        row = records.LeaseEnded(
            lease=lease.id,
            job=lease.job,
            task=lease.task,
            attempt=lease.attempt,
            fault=fault,
            detail=detail,
            counted=counted,
            leaf=lease.leaf,
            via=self._via(lease),
        )
        return fx.Record(row=row)

    def _via(self, lease: Lease) -> tuple[NodeId, ...]:
        """Return the bridges on the way to the leaf that had a lease; none where the grant says already who had it."""
        return () if lease.leaf is None else self._path(lease.leaf)

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
            assert stands == job.stands, "a job with tasks is not in line, or one without is"
            job.standing.check()
            for index, task in job.tasks.items():
                key = TaskKey(job.id, index)
                assert (key in self.rests) == (task.avoid is not None), "a pause without an end, or without a reason"
                for each in task.leases:
                    lease = self.leases.get(each)
                    assert lease is not None, "a running task without a lease"
                    assert (lease.job, lease.task) == (job.id, index), "the wrong lease"
                    assert lease.attempt <= task.attempts, "an attempt that was never counted"
                    assert (each in job.tail) == (len(task.leases) == 1), "alone or not?"
                running += len(task.leases)
            assert len(job.tail) <= job.running, "a dead attempt is in the tail"
            assert not job.tail.open or len(job.tail), "second attempts of nothing"
        assert running == len(self.leases), "a lease without a running task"
        assert sum(len(line) for line in self.lines.values()) <= len(self.jobs), "a dead job stands in line"
