"""The judgements of a master: what counts against a task, what against its worker, and who must prove itself.

What fails and how it counts is told by the book; ``standing`` holds how workers fare.
"""

import re
from collections.abc import Callable, Container
from typing import Final

from p2pq.core import effects as fx
from p2pq.core import records
from p2pq.core.clock import WallClock
from p2pq.core.deadlines import Deadlines
from p2pq.core.docket import Docket
from p2pq.core.jobs import OVER, Job, Task
from p2pq.core.leases import Lease, Leases
from p2pq.core.standing import Budgets
from p2pq.model import notice
from p2pq.model.ids import JobId, Mono, NodeId
from p2pq.model.job import FAULTS_MAX, Fault, Outcome
from p2pq.wire.objects import ResultItem

FAULTS_EACH: Final = 3
"""Faults of one worker that count against one task, while another could run it."""

OPINIONS: Final = 2
"""So many workers that cannot solve what a job asks for are believed that nobody can."""
_UNSOLVED: Final = re.compile(r"environment of [^:]{1,300}: No solution found when resolving dependencies: (.+)")
_OF_THE_WORKER: Final = re.compile(r"Python|python|platform|wheel|\btag\b|offline|network")
"""Words for what differs between workers: where one is named, another one may well have a solution."""

Probe = tuple[JobId | None, NodeId]
"""Somebody who must wait for an attempt: of one job, or (None) of any."""


def unsolvable(fault: Fault, detail: str) -> bool:
    """Tell whether an attempt was lost as its job asks for packages that contradict each other, or that its index has not."""
    found = _UNSOLVED.match(detail) if fault == "sandbox" else None
    return found is not None and _OF_THE_WORKER.search(found[1]) is None


class Judge(Docket):
    """The open jobs of a master and what it holds against the workers that run them."""

    def __init__(
        self,
        node: NodeId,
        clock: WallClock,
        leases: Leases,
        backoff_s: float,
        other_is_able: Callable[[Job, NodeId], bool],
    ) -> None:
        """Hold nothing against anybody.

        Args:
            node: this master.
            clock: for the rows' wall times.
            leases: the live ones.
            backoff_s: the first pause.
            other_is_able: whether a linked worker besides that one could run tasks of that job.
        """
        super().__init__(node, clock)
        self.leases = leases
        self._backoff_s = backoff_s
        self._other_is_able = other_is_able
        self._budgets = Budgets()
        self.probes: Deadlines[Probe] = Deadlines()
        """Workers that must wait until then."""
        self.wake: list[NodeId] = []
        """Workers that may have something now that was kept from them; whoever reads it empties it."""

    def place(self, lease: Lease, leaf: NodeId, *, hearsay: bool = False) -> None:
        """A cluster has given a lease to one of its leaves: from now on it is that one's doing how it ends."""
        self.leases.place(lease, leaf, hearsay=hearsay)
        task = self.jobs[lease.job].tasks[lease.task]
        if lease.attempt == task.attempts:
            task.worker = leaf

    def move(self, lease: Lease, worker: NodeId) -> None:
        """Somebody else answers for a lease from now on; a later life of this master has to know that as well."""
        self.leases.move(lease, worker)
        self.out.append(fx.Record(row=records.LeaseMoved(lease=lease.id, worker=worker)))

    def _charge(self, job: Job, task: Task, worker: NodeId, now: Mono) -> bool:
        """A worker lost an attempt by its own doing: remember that; return whether it counts against the task as well.

        One worker alone cannot use up a task's faults while there is another to try; a task that kills whatever worker it
        gets is given up all the same.
        """
        if (until := self._budgets.fault(worker, now, self._backoff_s)) is not None:
            self.probes.set((None, worker), until)
        again = task.dropped.count(worker) >= FAULTS_EACH
        if not again:
            task.dropped += (worker,)
        return not again or task.returns >= FAULTS_EACH * FAULTS_MAX or not self._other_is_able(job, worker)

    def _given_up(self, job: Job, task: Task, worker: NodeId, fault: Fault, detail: str) -> str:
        """An attempt was lost by its worker's doing, or so it says: return why the task is not tried again; empty if it is.

        What a job asks for of packages is the job's own. A second worker is asked in any case, as indexes differ; where there
        is none, the same one is.
        """
        if unsolvable(fault, detail) and not job.had_packages:
            again = worker in job.unsolved
            job.unsolved += () if again else (worker,)
            if len(job.unsolved) >= OPINIONS or (again and not self._other_is_able(job, worker)):
                self._blame_nobody(job)
                return f"given up, as no worker has a solution: {detail}"
        if task.faults > FAULTS_MAX:
            return f"given up after {task.faults} attempts that ended by their workers' doing; the last: {task.detail}"
        return ""

    def _declined(self, job: Job, worker: NodeId, now: Mono) -> None:
        """A worker has no room for a task of the job, and so for none: it is not offered to it again at once."""
        until = job.standing.decline(worker, now, self._backoff_s)
        self.probes.set((job.id, worker), max(until, self.probes.get((job.id, worker)) or until))

    def _judge(self, job: Job, lease: Lease, outcome: Outcome, now: Mono, *, counted: bool) -> bool:
        """Take in how an attempt fared at its worker; return whether a failure is held against that, not against the task.

        ``counted``: whether it would count against the task otherwise.
        """
        worker, task, standing = lease.runner, job.tasks[lease.task], job.standing
        self._budgets.ended(worker)
        self._budgets.ended(lease.worker)
        job.had_packages = True
        if outcome.ok:
            standing.succeeded(worker)
            job.tail.pace.took(self._length(lease, outcome, now))
            return False
        elsewhere = tuple(other for other in task.blame if other != worker)
        standing.failed(worker, lease.task, lease.attempt if counted else 0, elsewhere)
        if worker not in task.blame:
            task.blame += (worker,)
        suspect = standing.suspect(worker)
        if not (suspect or standing.cautious(worker)) or not self._other_is_able(job, worker):
            return False
        self.probes.set((job.id, worker), standing.pause(worker, now, self._backoff_s))
        if suspect:
            self._forgive(job, lease)
        return suspect

    @staticmethod
    def left_nothing(item: ResultItem) -> bool:
        """Tell whether an attempt left and printed nothing: nothing is to be brought, looked into or written out."""
        return not (item.body or item.blobs or item.checkpoint)

    def _length(self, lease: Lease, outcome: Outcome, now: Mono) -> float:
        """Return how long an attempt took, in seconds.

        That is measured here, as a worker may say anything. Of an attempt that an earlier life of this master granted only its
        end was seen; so its worker is believed that it took longer, which can only make second attempts come later.
        """
        seen_s = now - lease.granted
        return seen_s if lease.id.epoch == self.leases.epoch else max(seen_s, outcome.run_ms / 1000)

    def _forgive(self, job: Job, lease: Lease) -> None:
        """What failed at a suspect does not count against the tasks any more; it is asked for anew elsewhere."""
        worker = lease.runner
        forgiven = job.standing.forgive(worker)
        suspected = notice.WorkerSuspected(job=job.id, worker=worker, failures=job.standing.streak(worker))
        self.out.append(fx.Emit(notice=suspected))
        for index, attempt in forgiven.items():
            task = job.tasks[index]
            if task.state not in OVER and index != lease.task:
                task.failures -= 1
                self.out.append(fx.Record(row=records.FailureForgiven(job=job.id, task=index, attempt=attempt)))

    def _blame_nobody(self, job: Job) -> None:
        """That workers lost tasks of a job was not their doing after all."""
        for worker in dict.fromkeys(other for task in job.tasks.values() for other in task.dropped):
            self._budgets.ended(worker)
            self.probes.cancel((None, worker))
            self.wake += [worker]

    def allowance(self, job: Job, worker: NodeId, limit: int, now: Mono) -> int:
        """Return how many attempts of the job the worker may have now, at most ``limit``: fewer if it must prove itself."""
        if job.standing.declines(worker, now):
            return 0
        budget = self._budgets.get(worker)
        if budget is not None and budget.slow:
            if now < budget.until or self.leases.count(worker) or self.leases.run_by(worker):
                return 0
            limit = min(limit, 1)
        if not self.held_back(job, worker):
            return limit
        waits = now < job.standing.until(worker) or any(lease.job == job.id for lease in self.leases.run_by(worker))
        return 0 if waits else min(limit, 1)

    def doubtful(self, job: Job, among: Container[NodeId], now: Mono) -> list[NodeId]:
        """Return those of some workers that may have one more attempt of the job at most: they must prove themselves."""
        named = dict.fromkeys((*job.standing.noted(), *self._budgets.slow()))
        return [worker for worker in named if worker in among and self.allowance(job, worker, 2, now) < 2]  # noqa: PLR2004

    def held_back(self, job: Job, worker: NodeId) -> bool:
        """Tell whether a worker gets one attempt of the job at a time, because of how those before fared there."""
        standing = job.standing
        return (standing.suspect(worker) or standing.cautious(worker)) and self._other_is_able(job, worker)

    def _unblock(self, job: Job, worker: NodeId) -> None:
        """An attempt ends there: who gets one at a time was told Nothing while it lasted, and may have the next one."""
        budget = self._budgets.get(worker)
        if (budget is not None and budget.slow) or self.held_back(job, worker):
            self.wake.append(worker)
