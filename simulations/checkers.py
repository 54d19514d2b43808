"""What must hold whatever happens, judged by what became durable and by what really ran, not by what nodes believe."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from p2pq.core import records
from p2pq.core.docket import GIVEN_UP
from p2pq.core.effects import Start
from p2pq.core.through import cluster_of
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import FAULTS_MAX, Outcome
from p2pq.wire import messages as msg
from p2pq.wire import provenance, sign
from p2pq.wire.objects import Grant
from p2pq.wire.provenance import Handing, Proven, Refuted

OVER: Final = ("done", "failed", "cancelled")
STARTS_MAX: Final = 3.0
"""Attempts started per task, on average, with any faults."""

_BY_MASTER: Final = ("lost", "expired", "cancelled", "deliver")
"""Why a lease ends without a word of its worker on it."""

Key = tuple[NodeId, LeaseId]
Undo = Callable[[], None]


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
    excused: int = 0
    """Starts that did not count against it, or that its master does not know of, as the power took the rows."""
    leases: dict[LeaseId, NodeId] = msgspec.field(default_factory=dict)
    """The live ones, with their workers."""
    written: bool = False
    delivered: bool = False
    given_up: bool = False
    """Its user cancelled it, as its results could not be written out."""


class _Job(msgspec.Struct):
    master: NodeId
    retries: int
    tasks: list[_Task]
    added: bool = False
    manifest: bytes = b""
    state: str = ""
    settled: int = 0
    retried: int = 0
    """Attempts that failed by their own doing and were followed by another."""
    starts: int = 0
    again: int = 0
    """Second attempts, at the tail."""


class Checkers:
    """Watches every durable row of every host, and every attempt that runs."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._jobs: dict[JobId, _Job] = {}
        self._granted: dict[Key, records.LeaseGranted] = {}
        """Every lease that was ever durable, even if a loss of power undid it: it may be under way, and is used up."""
        self._live: dict[Key, records.LeaseGranted] = {}
        self._started: dict[Key, NodeId] = {}
        self._exited: dict[Key, tuple[NodeId, Outcome]] = {}
        self._unsynced: dict[NodeId, list[Undo]] = {}
        """Per host, how to undo each row that a loss of power may take, the latest last."""
        self._handed_back: set[Key] = set()
        """Leases that their workers gave up by a message."""
        self._liars: set[NodeId] = set()
        self._clusters: set[NodeId] = set()
        """Workers that stand for all those below a bridge: whoever of them starts an attempt first holds it."""
        self._to_bridges: dict[Key, bytes] = {}
        """The grants of leases that bridges hand on."""
        self._settling: list[_Task] = []
        """Tasks that the transaction at hand has settled."""
        self.starts_at: Counter[NodeId] = Counter()
        """Attempts started, by host."""
        self.again = 0
        """Second attempts, at the tail."""
        self.killed = 0
        """Attempts that ran on machines which went down."""
        self.expected = 0
        """Jobs that will be submitted in all."""
        self.open = 0
        """Jobs that have not ended."""
        self.settled = 0
        self.undone_rows = 0
        """Rows that losses of power took."""
        self.lost_jobs = 0
        """Jobs that went with the disk of their master."""
        self.proved = 0
        """Results of leaves of which the master has kept all that proves them."""
        self.states: Counter[str] = Counter()
        self.starts = 0

    def submitted(self, master: NodeId, job: JobId, tasks: int, retries: int) -> None:
        """A user wants that job done; it counts from now, whatever becomes of the master."""
        insist(job not in self._jobs, "a job was submitted twice")
        self._jobs[job] = _Job(master, retries, [_Task() for _ in range(tasks)])
        self.open += 1

    def distrust(self, liar: NodeId) -> None:
        """What that host says of its own leases cannot be judged; what it says of others' must not count."""
        self._liars.add(liar)

    def speaks(self, cluster: NodeId) -> None:
        """A bridge speaks for the workers below under that id."""
        self._clusters.add(cluster)

    def _may_hold(self, granted: records.LeaseGranted, host: NodeId) -> bool:
        return granted.worker == host or granted.worker in self._clusters

    # -- rows -----------------------------------------------------------------------------------------------------------

    def durable(self, host: NodeId, rows: Sequence[records.Row]) -> None:
        """A transaction of that host will survive a crash from now on."""
        undos = self._unsynced.setdefault(host, [])
        for row in rows:
            undos.append(self._apply(host, row))
            if isinstance(row, records.GrantKept):
                grant = sign.open_signed(row.signed, Grant, host)
                self._to_bridges |= {(host, item.lease): row.signed for item in grant.items if not grant.key}
            elif isinstance(row, records.LeaseMoved):
                self._lease_moved(host, row)
        insist(not any(task.leases for task in self._settling), "a task was settled, and one of its leases lives on")
        self._settling.clear()

    def synced(self, host: NodeId) -> None:
        """Whatever is durable there will survive a loss of power, too."""
        self._unsynced.pop(host, None)

    def undone(self, host: NodeId, count: int) -> None:
        """The last ``count`` durable rows of that host are gone: the power failed."""
        undos = self._unsynced.get(host, [])
        self.undone_rows += count
        for _ in range(count):
            undos.pop()()

    def _apply(self, host: NodeId, row: records.Row) -> Undo:
        match row:
            case records.JobAdded():
                job = self._job(host, row.job)
                insist(not job.added, "a job was added twice")
                job.added, job.manifest = True, row.manifest
            case records.LeaseGranted():
                return self._lease_granted(host, row)
            case records.LeaseEnded():
                return self._lease_ended(host, row)
            case records.AttemptEnded():
                self._attempt_ended(host, row)
            case records.TaskEnded():
                self._task_ended(host, row)
            case records.TasksCancelled():
                job = self._job(host, row.job)
                for task in job.tasks:
                    if task.state not in OVER:
                        self._settle(job, task, "cancelled")
            case records.TaskDelivered():
                return self._delivered(host, row)
            case records.FailureForgiven():
                self._job(host, row.job).tasks[row.task].excused += 1
            case records.JobEnded():
                self._job_ended(host, row)
            case _:
                return _nothing
        return _never

    def _job(self, host: NodeId, job_id: JobId) -> _Job:
        job = self._jobs.get(job_id)
        insist(job is not None and job.master == host, "rows of a job that was never submitted there")
        assert job is not None
        insist(not job.state, "rows of a job that has ended")
        return job

    def _lease_granted(self, host: NodeId, row: records.LeaseGranted) -> Undo:
        job = self._job(host, row.job)
        task = job.tasks[row.task]
        key = (host, row.lease)
        before = task.attempts
        insist(key not in self._granted, "a lease was granted twice")
        insist(len(task.leases) < 2, "a task has three live leases")
        if task.leases:
            job.again += 1
            self.again += 1
            known = row.worker in self._clusters
            insist(known or row.worker not in task.leases.values(), "a worker holds two leases of one task")
        insist(task.state not in OVER, "a task that is over was granted")
        insist(row.attempt > before, "attempts are not counted up")
        self._granted[key] = row
        self._take(task, host, row)
        task.attempts = row.attempt

        def undo() -> None:
            self._drop(task, host, row)
            task.attempts = before
            task.excused += 1

        return undo

    def _take(self, task: _Task, host: NodeId, row: records.LeaseGranted) -> None:
        task.leases[row.lease] = row.worker
        self._live[host, row.lease] = row

    def _drop(self, task: _Task, host: NodeId, row: records.LeaseGranted) -> None:
        del self._live[host, row.lease], task.leases[row.lease]

    def _lease_moved(self, host: NodeId, row: records.LeaseMoved) -> None:
        """A bridge may answer for whoever has a lease; else only who was granted it, or the leaf that runs it, does."""
        granted = self._live.get((host, row.lease))
        insist(granted is not None, "a lease moved that was not live")
        assert granted is not None
        if row.worker not in self._clusters:
            runs = self._started.get((host, row.lease), row.worker) == row.worker
            insist(runs and self._may_hold(granted, row.worker), "a lease moved to a worker that does not hold it")

    def _lease_over(self, host: NodeId, lease: LeaseId, job: JobId, index: int) -> records.LeaseGranted:
        row = self._live.get((host, lease))
        insist(row is not None, "a lease ended that was not live")
        assert row is not None
        insist((row.job, row.task) == (job, index), "a lease ended for another task")
        known = self._job(host, job)
        self._drop(known.tasks[index], host, row)
        return row

    def _lease_ended(self, host: NodeId, row: records.LeaseEnded) -> Undo:
        granted = self._lease_over(host, row.lease, row.job, row.task)
        said = granted.worker == host or granted.worker in self._liars or (host, row.lease) in self._handed_back
        # What waited at a bridge that has forgotten it, or was given to a leaf that is out, waits again by its master's doing.
        unplaced = granted.worker in self._clusters and row.fault == "recalled" and row.leaf is None
        insist(said or unplaced or row.fault in _BY_MASTER, "a lease was handed back, but not by its worker")
        task = self._job(host, row.job).tasks[row.task]
        task.excused += not row.counted

        def undo() -> None:
            self._take(task, host, granted)
            task.excused += 1

        return undo

    def _attempt_ended(self, host: NodeId, row: records.AttemptEnded) -> None:
        granted = self._lease_over(host, row.lease, row.job, row.task)
        result = row.result
        insist(self._may_hold(granted, row.worker), "a result of a worker that did not hold the lease")
        insist(
            (result.lease, result.job, result.task, result.attempt)
            == (row.lease, row.job, row.task, granted.attempt),
            "a result under another lease",
        )  # fmt: skip
        ran = self._exited.get((host, row.lease))
        insist(
            ran == (row.worker, result.outcome) or row.worker in self._liars,
            "a result of an attempt that never ended so",
        )
        job = self._job(host, row.job)
        if granted.worker in self._clusters:
            self._prove(host, job, granted, row)
        if row.state in OVER:
            self._settle(job, job.tasks[row.task], row.state)
        else:
            job.retried += 1

    def _prove(self, host: NodeId, job: _Job, granted: records.LeaseGranted, row: records.AttemptEnded) -> None:
        """Judge what is kept of a leaf's result as ``verify`` does: it may be too little, and is never wrong."""
        assert row.proof is not None, "every result comes from somebody"
        kept = provenance.Kept(
            task=row.task,
            attempt=granted.attempt,
            lease=row.lease,
            granted=granted.wall,
            wall=row.wall,
            item=row.result,
            grant=self._to_bridges.get((host, row.lease), b""),
            signed=row.proof.signed,
            certs=row.proof.certs,
            handed=tuple(Handing(signed=step.signed, certs=step.certs) for step in row.proof.handed),
        )
        found = provenance.check(kept, provenance.open_job(job.manifest, host, row.job), lambda _: None)
        insist(not isinstance(found, Refuted), f"what proves a result does not hold: {found}")
        self.proved += isinstance(found, Proven)

    def _settle(self, job: _Job, task: _Task, state: str) -> None:
        insist(task.state not in OVER, "a task was settled twice")
        task.state = state
        self._settling.append(task)
        job.settled += 1
        self.settled += 1
        self.states[state] += 1

    def _task_ended(self, host: NodeId, row: records.TaskEnded) -> None:
        job = self._job(host, row.job)
        if row.detail == GIVEN_UP:
            self._give_up(job.tasks[row.task], row.state)
        else:
            self._settle(job, job.tasks[row.task], row.state)

    def _give_up(self, task: _Task, state: str) -> None:
        """Results that are not in their user's folder yet are not wanted there any more."""
        insist(
            task.state in {"done", "failed"} and not task.delivered, "results were given up that were not on their way"
        )
        insist(state == "cancelled", "what was given up is not cancelled")
        self.states[task.state] -= 1
        self.states[state] += 1
        task.state, task.given_up = state, True

    def _delivered(self, host: NodeId, row: records.TaskDelivered) -> Undo:
        task = self._job(host, row.job).tasks[row.task]
        insist(task.state in OVER, "a task was delivered before it was over")
        insist(task.written, "a task counts as delivered but nothing was written")
        before, task.delivered = task.delivered, True

        def undo() -> None:
            task.delivered = before

        return undo

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

    def disk_lost(self, host: NodeId) -> None:
        """The store of that host is gone, and with it the jobs that were submitted there and have not ended."""
        self._unsynced.pop(host, None)
        for job in self._jobs.values():
            if job.master == host and job.added and not job.state:
                job.state = "lost"
                self.open -= 1
                self.lost_jobs += 1
        for key in [key for key in self._live if key[0] == host]:
            del self._live[key]

    # -- what really runs -----------------------------------------------------------------------------------------------

    def started(self, host: NodeId, start: Start) -> None:
        """A host begins to run an attempt."""
        key = (start.master, start.lease)
        granted = self._granted.get(key)
        insist(granted is not None, "an attempt runs whose lease is not durable")
        assert granted is not None
        insist(self._may_hold(granted, host), "an attempt runs on a host that does not hold its lease")
        insist((granted.job, granted.task) == (start.job, start.task), "another task runs than was granted")
        insist(key not in self._started, "an attempt was started twice")
        self._started[key] = host
        if host in self._liars:
            return
        job = self._jobs[start.job]
        task = job.tasks[start.task]
        task.starts += 1
        job.starts += 1
        self.starts += 1
        self.starts_at[host] += 1
        insist(task.starts <= FAULTS_MAX + job.retries + 2 + task.excused, "a task runs again and again")

    def said(self, host: NodeId, peer: NodeId, message: msg.CoreMessage) -> None:
        """A host says something; over a bridge a worker gives up leases to the master, and a bridge for its cluster."""
        match message:
            case msg.Return(items=items):
                self.handed_back(host, peer, [item.lease for item in items])
            case msg.Through(node=node, message=msg.Return(items=items)):
                self.handed_back(host, NodeId(node), [item.lease for item in items])
            case msg.Through(node=node, message=msg.Report(returns=items), cluster=True):
                self.handed_back(cluster_of(host), NodeId(node), [item.lease for item in items])
            case msg.Through(message=msg.Report(returns=items)):
                self.handed_back(cluster_of(host), peer, [item.lease for item in items])
            case _:
                pass

    def handed_back(self, host: NodeId, master: NodeId, leases: Sequence[LeaseId]) -> None:
        """A worker says that it gives up leases of that master."""
        for lease in leases:
            granted = self._granted.get((master, lease))
            if granted is not None and self._may_hold(granted, host):
                self._handed_back.add((master, lease))

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
        over = task.state in {"done", "failed"} or task.given_up
        insist(over, "results were written of a task that is not over, durably")
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
        kept = [job for job in self._jobs.values() if job.state != "lost"]
        waiting = [task for job in kept for task in job.tasks if task.state not in OVER]
        insist(not waiting, f"{len(waiting)} tasks were lost: all faults are over, and they are not")
        insist(not self.open, f"{self.open} jobs never ended though all their tasks did")
        insist(not self._live, "a lease is live though all jobs have ended")
        called_for = sum(job.settled + job.retried for job in kept)
        starts = sum(job.starts for job in kept)
        limit = called_for + sum(job.again for job in kept) if clean else STARTS_MAX * called_for + self.killed + 20
        insist(starts <= limit, f"{starts} attempts were started for {called_for} that were called for")


def _nothing() -> None:
    """No check hangs on that row."""


def _never() -> None:
    insist(False, "a loss of power undid what people have been told")
