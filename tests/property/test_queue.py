"""The master against any order of events: lost, late, repeated, foreign and forgotten messages, and restarts."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core import records as r
from p2pq.model.ids import JobId, LeaseId
from p2pq.model.job import FAULTS_MAX, Outcome
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.objects import Grant, GrantItem, Receipt
from tests.unit.core.mesh import (
    ALICE,
    BAD,
    BOB,
    MASTER,
    OK,
    OWNER,
    PROFILE,
    WALL,
    Bench,
    Member,
    job_id,
    ready,
    result_item,
    submitted,
)

MEMBERS = {member.node: member for member in (MASTER, ALICE, BOB)}
OVER = ("done", "failed", "cancelled")
members = st.sampled_from(list(MEMBERS.values()))
outcomes = st.sampled_from(
    [OK, OK, BAD, Outcome(reason="runner-died"), Outcome(reason="signal", signal=9), Outcome(reason="saved")]
)
faults = st.sampled_from(
    ["late", "draining", "refused", "no-manifest", "evicted", "recalled", "disk", "fetch", "sandbox"]
)
seconds = st.sampled_from([0.0, 0.3, 1.0, 3.0, 15.0, 61.0])
picks = st.integers(min_value=0, max_value=7)


class Master(RuleBasedStateMachine):
    """One queue, three members, a few small jobs."""

    @initialize()
    def start(self) -> None:
        self.bench = Bench()
        self.jobs = 0
        self.linked: dict[bytes, Member] = {}
        self.attempts: list[tuple[Member, int, GrantItem]] = []
        """Whatever was ever granted: to whom, of which job."""
        self.collecting: list[LeaseId] = []
        self.deliverable: list[tuple[JobId, int]] = []
        self.settled: dict[tuple[JobId, int], str] = {}
        self.receipts: dict[LeaseId, str] = {}
        self.leases: dict[LeaseId, tuple[JobId, int]] = {}
        self.holders: dict[LeaseId, bytes] = {}
        self.holding: dict[bytes, msg.Holding] = {}
        """What each worker said when it last linked up."""
        self.known: dict[bytes, set[LeaseId]] = {}
        """The leases that had been granted by then."""
        self.pinned: dict[LeaseId, tuple[JobId, int]] = {}
        """Results that are held for a next attempt."""
        self.ended: dict[JobId, str] = {}
        self.stuck: set[tuple[JobId, int]] = set()
        """Results that could not be written out: who cancels gives them up."""
        self.sizes: dict[JobId, int] = {}
        self.do(ev.Tick())
        self.submit(tasks=4, retries=1, priority=0)
        for member in MEMBERS.values():
            self.link_up(member, keeps=True)

    # -- everything that comes out is checked ---------------------------------------------------------------------------

    def do(self, event: ev.Event, after: float = 0.0) -> list[fx.Effect]:
        effects = self.bench.do(event, after=after)
        for effect in effects:
            match effect:
                case fx.Record(row=row):
                    self.recorded(row)
                case fx.Send(peer=peer, message=msg.Granted() as message):
                    grant = sign.open_signed(message.grant, Grant, MASTER.node)
                    assert grant.to == peer
                    number = int.from_bytes(grant.job, "big")
                    self.attempts += [(MEMBERS[peer], number, item) for item in grant.items]
                case fx.Send(peer=peer, message=msg.Receipted() as message):
                    assert peer in self.linked
                    for item in sign.open_signed(message.receipt, Receipt, MASTER.node).items:
                        verdict, lease = item.verdict, item.lease
                        assert self.holders[lease] is not None, "a receipt for a lease that was never granted"
                        assert verdict == "late" or lease not in self.receipts, "a lease was settled twice"
                        self.receipts[lease] = verdict
                case fx.Send(peer=peer):
                    assert peer in self.linked, "said something to somebody who is not there"
                case fx.Collect(lease=lease, peer=peer):
                    assert self.holders[lease] == peer, "a result was taken from somebody else"
                    self.collecting.append(lease)
                case fx.Forget(lease=lease):
                    assert self.pinned.pop(lease), "a checkpoint was forgotten twice"
                case fx.Deliver(job=job, task=task):
                    assert self.settled[job, task] in {"done", "failed"}
                    self.deliverable.append((job, task))
                case _:
                    pass
        self.agree()
        return effects

    def recorded(self, row: r.Row) -> None:
        match row:
            case r.LeaseGranted():
                assert row.lease not in self.leases, "a lease was granted twice"
                assert (row.job, row.task) not in self.settled, "a task that is over was granted"
                self.leases[row.lease] = (row.job, row.task)
                self.holders[row.lease] = row.worker
            case r.AttemptEnded():
                assert self.leases[row.lease] == (row.job, row.task), "a result was taken for another task"
                assert (row.result.job, row.result.task) == (row.job, row.task), "a result of another task was taken"
                if row.state in OVER:
                    self.settle(row.job, row.task, row.state)
                elif row.result.checkpoint or row.result.outcome.reason == "saved":
                    self.pinned[row.lease] = (row.job, row.task)
            case r.TaskEnded():
                self.settle(row.job, row.task, row.state)
            case r.TasksCancelled():
                for task in range(self.sizes[row.job]):
                    self.settled.setdefault((row.job, task), "cancelled")
            case r.JobEnded():
                assert row.job not in self.ended, "a job ended twice"
                assert all((row.job, task) in self.settled for task in range(self.sizes[row.job]))
                self.ended[row.job] = row.state
            case _:
                pass

    def settle(self, job: JobId, task: int, state: str) -> None:
        given_up = (job, task) in self.stuck and state == "cancelled"
        assert (job, task) not in self.settled or given_up, "a task was settled twice"
        self.stuck.discard((job, task))
        self.settled[job, task] = state

    def agree(self) -> None:
        """The queue, the disk and what was said agree on every open task."""
        restored = self.bench.disk.restored()
        queue = self.bench.queue
        assert [job.job for job in restored.jobs] == [job.job for job in queue.jobs()]
        left = {task.checkpoint.lease for job in restored.jobs for task in job.tasks if task.checkpoint is not None}
        assert left == self.pinned.keys(), "a checkpoint is held for nobody, or not held"
        live: dict[tuple[JobId, int], list[r.RestoredLease]] = {}
        for lease in restored.leases:
            live.setdefault((lease.job, lease.task), []).append(lease)
        for job in restored.jobs:
            kept = {task.task: task for task in job.tasks}
            for task in queue.tasks(job.job):
                old = kept.get(task.task)
                plain = "cancelled" if job.cancelled else "pending"
                assert task.state == (plain if old is None else old.state)
                assert self.settled.get((job.job, task.task)) == (task.state if task.state in OVER else None)
                if old is not None:
                    assert (task.attempts, task.failures, task.faults) == (old.attempts, old.failures, old.faults)
                    assert task.delivered == old.delivered
                    assert task.checkpoint == (old.checkpoint.attempt if old.checkpoint is not None else 0)
                    assert task.faults <= FAULTS_MAX + 1
                    assert task.failures >= 0
                leases = live.get((job.job, task.task), [])
                assert len(leases) <= 2
                assert len({lease.worker for lease in leases}) == len(leases), "two attempts at one worker"
                assert task.lease == (leases[0].lease if leases else None)
                assert not leases or leases[0].worker == task.worker
                assert task.again == (leases[1].worker if len(leases) > 1 else None)
            assert isinstance(queue.why(job.job, None, self.bench.now), str)

    # -- what may happen ------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs < 4)
    @rule(tasks=st.integers(1, 6), retries=st.integers(0, 2), priority=st.integers(-1, 1))
    def submit(self, tasks: int, retries: int, priority: int) -> None:
        self.jobs += 1
        self.sizes[job_id(self.jobs)] = tasks
        self.do(submitted(self.jobs, tasks=tasks, retries=retries, priority=priority))

    @rule(member=members, keeps=st.booleans())
    def link_up(self, member: Member, keeps: bool) -> None:
        self.linked[member.node] = member
        self.do(member.link_up())
        mine = tuple(item.lease for holder, _, item in self.attempts if holder is member)
        self.known[member.node] = set(self.leases)
        self.holding[member.node] = msg.Holding(leases=mine if keeps else mine[::2])
        self.says(member, self.holding[member.node])
        self.says(member, msg.ProfileIs(profile=PROFILE))

    @precondition(lambda self: self.linked)
    @rule(pick=picks)
    def holding_again(self, pick: int) -> None:
        member = list(self.linked.values())[pick % len(self.linked)]
        before = self.bench.disk.restored().leases
        self.says(member, self.holding[member.node])
        gone = {lease.lease for lease in before} - {lease.lease for lease in self.bench.disk.restored().leases}
        assert gone <= self.known[member.node], "words from link-up ended a lease that was granted since"

    @rule(member=members)
    def link_down(self, member: Member) -> None:
        self.linked.pop(member.node, None)
        self.do(ev.LinkDown(peer=member.node))

    def says(self, member: Member, message: msg.CoreMessage, after: float = 0.0) -> None:
        self.do(ev.Received(peer=member.node, message=message), after)

    @rule(member=members, cpus=st.integers(0, 3), ahead=st.integers(0, 2), repeat=st.booleans())
    def request(self, member: Member, cpus: int, ahead: int, repeat: bool) -> None:
        request = self.bench.request(cpus=cpus, tasks_max=4, ahead=((job_id(1), ahead),), owner=OWNER)
        self.says(member, request)
        if repeat:
            self.says(member, request)

    @rule(member=members, every=st.integers(1, 3), running=st.booleans())
    def heartbeat(self, member: Member, every: int, running: bool) -> None:
        mine = [item.lease for holder, _, item in self.attempts if holder is member]
        self.says(member, msg.Heartbeat(beats=tuple(msg.Beat(lease, running) for lease in mine[::every])))

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, fault=faults, liar=st.none() | members)
    def give_back(self, pick: int, fault: str, liar: Member | None) -> None:
        holder, _, item = self.attempt(pick)
        self.says(liar or holder, msg.Return(items=(msg.ReturnItem(item.lease, fault, "x"),)))

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, outcome=outcomes, checkpoint=st.booleans(), liar=st.none() | members)
    def result(self, pick: int, outcome: Outcome, checkpoint: bool, liar: Member | None) -> None:
        holder, number, item = self.attempt(pick)
        says = liar or holder
        self.says(says, ready(says, result_item(item, outcome, number, checkpoint=checkpoint)))

    @precondition(lambda self: self.attempts)
    @rule(pick=picks, other=picks)
    def result_under_another_lease(self, pick: int, other: int) -> None:
        holder, number, item = self.attempt(pick)
        lease = self.attempt(other)[2].lease
        if other == 0:
            lease = LeaseId(self.bench.disk.restored().epoch, 1 << 20)
        self.says(holder, ready(holder, result_item(item, OK, number, lease=lease)))

    def attempt(self, pick: int) -> tuple[Member, int, GrantItem]:
        return self.attempts[-1 - pick % len(self.attempts)]

    @precondition(lambda self: self.collecting)
    @rule(pick=picks, good=st.sampled_from([True, True, False]))
    def collected(self, pick: int, good: bool) -> None:
        lease = self.collecting.pop(pick % len(self.collecting))
        self.do(ev.Collected(lease=lease) if good else ev.CollectFailed(lease=lease, reason="x"))

    @precondition(lambda self: self.deliverable)
    @rule(pick=picks, good=st.sampled_from([True, True, False]))
    def delivered(self, pick: int, good: bool) -> None:
        job, task = self.deliverable.pop(pick % len(self.deliverable))
        if good:
            self.stuck.discard((job, task))
            self.do(ev.Delivered(job=job, task=task, wall=WALL))
        else:
            self.stuck.add((job, task))
            self.do(ev.DeliverFailed(job=job, task=task, reason="x"))

    @precondition(lambda self: self.jobs)
    @rule(pick=picks, task=st.none() | st.integers(-1, 6))
    def cancel(self, pick: int, task: int | None) -> None:
        self.do(ev.CancelAsked(job=job_id(1 + pick % self.jobs), task=task, wall=WALL))

    @rule(after=seconds)
    def time_passes(self, after: float) -> None:
        self.do(ev.Tick(), after)

    @rule(slept=st.sampled_from([6.0, 61.0, 700.0]))
    def sleep(self, slept: float) -> None:
        before = self.bench.disk.restored().leases
        self.do(ev.Woke(slept_s=slept, counted=True), slept)
        assert self.bench.disk.restored().leases == before, "a lease expired because its master slept"

    @rule()
    def restart(self) -> None:
        self.linked.clear()
        self.collecting.clear()
        self.deliverable.clear()
        self.bench.boot()
        self.agree()
        self.do(ev.Tick())

    # -- in the end everything ends -------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.restart()
        self.link_up(ALICE, keeps=False)
        for _ in range(1000):
            if not self.bench.queue.jobs():
                break
            before = len(self.attempts)
            self.says(ALICE, self.bench.request())
            for _, number, item in self.attempts[before:]:
                self.says(ALICE, ready(ALICE, result_item(item, OK, number)))
            while self.collecting:
                self.do(ev.Collected(lease=self.collecting.pop()))
            while self.deliverable:
                job, task = self.deliverable.pop()
                self.do(ev.Delivered(job=job, task=task, wall=WALL))
            deadline = self.bench.queue.deadline
            if deadline is not None:
                self.do(ev.Tick(), deadline - self.bench.now)
        assert self.ended.keys() == self.sizes.keys(), "a job never ended"


Master.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestMaster = Master.TestCase
