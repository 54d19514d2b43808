"""What rows add up to: the reference for every store.

The simulator's disk is a Ledger; the tests of the SQLite store compare it with one. It applies rows in order and
gives back ``Restored``. It does not judge: rows come from the core.
"""

from bisect import bisect_right
from typing import Final, assert_never

import msgspec

from p2pq.core import records
from p2pq.core.intervals import IntervalSet
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.model.job import TaskState
from p2pq.wire.objects import ResultItem

PEERS_MAX: Final = 1024
"""Peers that are remembered; the one not seen for longest goes first."""


class _Task:
    __slots__ = ("attempts", "checkpoint", "delivered", "detail", "died", "failures", "faults", "live", "state")

    def __init__(self, old: records.RestoredTask | None = None) -> None:
        self.state: TaskState = "pending"
        self.live = 0
        self.attempts = 0
        self.wipe()
        if old is not None:
            self.state, self.attempts, self.failures, self.faults = old.state, old.attempts, old.failures, old.faults
            self.detail, self.delivered, self.died = old.detail, old.delivered, old.died

    def wipe(self) -> None:
        self.failures = 0
        self.faults = 0
        self.detail = ""
        self.delivered = False
        self.died = False
        self.checkpoint: ResultItem | None = None


class _Job:
    __slots__ = ("cancelled", "halted", "row", "tasks")

    def __init__(self, row: records.JobAdded | records.RestoredJob) -> None:
        self.row = row
        self.tasks: dict[int, _Task] = {}
        self.cancelled = False
        self.halted = ""
        if isinstance(row, records.RestoredJob):
            self.cancelled, self.halted = row.cancelled, row.halted
            self.tasks = {old.task: _Task(old) for old in row.tasks}

    def task(self, index: int) -> _Task:
        task = self.tasks.get(index)
        if task is None:
            task = self.tasks[index] = _Task()
        return task


class Ledger:
    """Durable state in memory: rows in, ``Restored`` out."""

    def __init__(self) -> None:
        self._epoch = 0
        self._jobs: dict[JobId, _Job] = {}
        self._serials: dict[JobId, int] = {}
        """When each job was first added, as a number: one that is opened again takes its old place."""
        self._leases: dict[LeaseId, records.RestoredLease] = {}
        self._grants: dict[JobId, dict[LeaseId, records.GrantKept]] = {}
        """Of each job, by the first lease."""
        self._settled: dict[int, IntervalSet] = {}
        self._kept: dict[tuple[NodeId, LeaseId], records.ResultKept] = {}
        self._peers: dict[NodeId, records.PeerSeen] = {}
        self._bans: dict[tuple[NodeId, bytes], records.BanKept] = {}
        self._owner_bans: dict[tuple[str, bytes], records.OwnerBanKept] = {}
        self._mesh_keys: tuple[bytes, ...] = ()
        self._peerings: dict[bytes, records.PeeringKept] = {}
        self._peer_bans: dict[tuple[bytes, bytes, bytes], records.PeerBanKept] = {}

    def apply(self, row: records.Row) -> None:  # noqa: C901, PLR0912, PLR0915  one arm per row is the clearest there is
        """Take one row in.

        Rows of a job that has ended do nothing.
        """
        match row:
            case records.EpochBegun():
                self._epoch = row.epoch
            case records.JobAdded():
                self._take_up(row.job, row)
            case records.JobReopened():
                self._take_up(row.job.job, row.job)
            case records.JobHalted():
                self._halted(row)
            case records.TasksRetried():
                self._retried(row)
            case records.LeaseGranted():
                self._granted(row)
            case records.LeaseMoved(lease=lease, worker=worker) if (live := self._leases.get(lease)) is not None:
                self._leases[lease] = msgspec.structs.replace(live, worker=worker)
            case records.LeaseMoved():
                pass  # of a job that has ended
            case records.GrantKept():
                if row.job in self._jobs:
                    self._grants.setdefault(row.job, {})[row.lease] = row
            case records.LeaseEnded():
                self._lease_ended(row)
            case records.AttemptEnded():
                self._attempt_ended(row)
            case records.FailureForgiven():
                if job := self._jobs.get(row.job):
                    job.task(row.task).failures -= 1
            case records.TaskEnded():
                if job := self._jobs.get(row.job):
                    task = job.task(row.task)
                    task.state, task.detail, task.delivered = row.state, row.detail, True
            case records.TasksCancelled():
                self._cancelled(row)
            case records.TaskDelivered():
                if job := self._jobs.get(row.job):
                    job.task(row.task).delivered = True
            case records.JobEnded():
                self._jobs.pop(row.job, None)
            case records.ResultKept():
                self._kept[row.master, row.lease] = row
            case records.ResultReleased():
                self._kept.pop((row.master, row.lease), None)
            case records.PeerSeen():
                self._seen(row)
            case records.BanKept():
                self._bans[row.node, row.issuer] = row
            case records.OwnerBanKept():
                self._owner_bans[row.owner, row.issuer] = row
            case records.MeshKeysKept():
                self._mesh_keys = row.signed
            case records.PeeringKept():
                self._peerings[row.id] = row
            case records.PeerBanKept():
                self._peer_bans[row.mesh, row.issuer, row.subject] = row
            case _:
                assert_never(row)

    def _seen(self, row: records.PeerSeen) -> None:
        self._peers.pop(row.node, None)
        self._peers[row.node] = row
        if len(self._peers) > PEERS_MAX:
            del self._peers[next(iter(self._peers))]

    def _take_up(self, job: JobId, row: records.JobAdded | records.RestoredJob) -> None:
        self._serials.setdefault(job, len(self._serials))
        self._jobs[job] = _Job(row)

    def _cancelled(self, row: records.TasksCancelled) -> None:
        if job := self._jobs.get(row.job):
            job.cancelled = True
            for task in job.tasks.values():
                if task.state == "pending" or (row.running and task.state == "running"):
                    task.state, task.delivered = "cancelled", True

    def _halted(self, row: records.JobHalted) -> None:
        if job := self._jobs.get(row.job):
            job.halted = row.detail

    def _retried(self, row: records.TasksRetried) -> None:
        if job := self._jobs.get(row.job):
            job.halted = ""
            job.cancelled = job.cancelled and not row.rest
            for index in IntervalSet(row.tasks):
                task = job.task(index)
                task.state = "pending"
                task.wipe()

    def _granted(self, row: records.LeaseGranted) -> None:
        if job := self._jobs.get(row.job):
            task = job.task(row.task)
            task.state, task.attempts = "running", row.attempt
            task.live += 1
            self._leases[row.lease] = records.RestoredLease(
                lease=row.lease, job=row.job, task=row.task, attempt=row.attempt, worker=row.worker
            )

    def _lease_ended(self, row: records.LeaseEnded) -> None:
        self._leases.pop(row.lease, None)
        if job := self._jobs.get(row.job):
            task = job.task(row.task)
            task.live -= 1
            if task.state == "running" and not task.live:
                task.state = "pending"
            task.faults += row.counted

    def _attempt_ended(self, row: records.AttemptEnded) -> None:
        self._leases.pop(row.lease, None)
        self._settled.setdefault(row.lease.epoch, IntervalSet()).add(row.lease.counter)
        if job := self._jobs.get(row.job):
            task = job.task(row.task)
            task.state = row.state
            task.live -= 1
            task.delivered = task.delivered or row.delivered
            task.failures += row.counted and not row.result.outcome.ok
            task.died = task.died or row.result.outcome.reason == "runner-died"
            earlier = task.checkpoint
            if row.result.checkpoint and (earlier is None or earlier.attempt < row.result.attempt):
                task.checkpoint = row.result

    def _granted_live(self) -> tuple[records.GrantKept, ...]:
        """Return how the live leases were granted, each grant once, by job and lease."""
        found: dict[tuple[int, LeaseId], records.GrantKept] = {}
        firsts = {job: sorted(known) for job, known in self._grants.items()}
        for lease in self._leases.values():
            place = bisect_right(firsts.get(lease.job, []), lease.lease)
            if place:
                first = firsts[lease.job][place - 1]
                found[self._serials[lease.job], first] = self._grants[lease.job][first]
        return tuple(grant for _, grant in sorted(found.items(), key=lambda each: each[0]))

    def restored(self) -> records.Restored:
        """Return what a node that starts now is given."""
        return records.Restored(
            epoch=self._epoch,
            jobs=tuple(_restored_job(self._jobs[job]) for job in sorted(self._jobs, key=self._serials.__getitem__)),
            leases=tuple(lease for _, lease in sorted(self._leases.items())),
            grants=self._granted_live(),
            settled=tuple((epoch, done.intervals()) for epoch, done in sorted(self._settled.items())),
            kept=tuple(row for _, row in sorted(self._kept.items())),
            peers=tuple(self._peers.values()),
            bans=tuple(row for _, row in sorted(self._bans.items())),
            owner_bans=tuple(row for _, row in sorted(self._owner_bans.items())),
            mesh_keys=self._mesh_keys,
            peerings=tuple(row for _, row in sorted(self._peerings.items())),
            peer_bans=tuple(row for _, row in sorted(self._peer_bans.items())),
        )


def _restored_job(job: _Job) -> records.RestoredJob:
    row = job.row
    return records.RestoredJob(
        job=row.job,
        manifest=row.manifest,
        key=row.key,
        reply_secret=row.reply_secret,
        wall=row.wall,
        cancelled=job.cancelled,
        kept=row.kept,
        halt=row.halt,
        halted=job.halted,
        tasks=tuple(
            records.RestoredTask(
                task=index,
                state=task.state,
                attempts=task.attempts,
                failures=task.failures,
                faults=task.faults,
                detail=task.detail,
                delivered=task.delivered,
                died=task.died,
                checkpoint=task.checkpoint if task.state in {"pending", "running"} else None,
            )
            for index, task in sorted(job.tasks.items())
        ),
    )
