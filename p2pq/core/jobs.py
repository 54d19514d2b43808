"""What a master remembers of its jobs and tasks, and which task may be granted next.

A pending task is in exactly one of three places: the job's ``pending`` (anybody may have it), ``shy`` (anybody but the
worker that it failed on), or resting (nobody yet; the queue keeps until when). Tasks without a history are not
stored at all, so a job of a million tasks costs as much as a job of one.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Final

from p2pq.core.intervals import IntervalSet
from p2pq.core.placement import Ask, JobSnapshot
from p2pq.core.records import Intervals, RestoredTask
from p2pq.core.standing import Standing
from p2pq.core.tails import Tail
from p2pq.model.halt import Halt
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, Wall
from p2pq.model.job import JobState, Outcome, TaskState
from p2pq.wire.objects import Manifest, ResultItem

OVER: Final[tuple[TaskState, ...]] = ("done", "failed", "cancelled")
LEASES_MAX: Final = 2
"""Attempts of one task at the same time."""


class Task:
    """A task with a history."""

    __slots__ = (
        "adopted", "attempts", "avoid", "blame", "checkpoint", "delivered", "detail", "died", "dropped", "failures", "faults",
        "leases", "outcome", "rests", "returns", "state", "stuck", "void", "worker",
    )  # fmt: skip

    def __init__(self) -> None:
        self.state: TaskState = "pending"
        self.attempts = 0
        """Granted so far; the latest attempt has this number."""
        self.worker: NodeId | None = None
        """Who got the latest attempt."""
        self.adopted: tuple[NodeId, ...] = ()
        """The workers whose results were taken up though no lease of theirs was known, in this life of the master."""
        self.wipe()

    def wipe(self) -> None:
        """Nothing counts against it any more."""
        self.failures = 0
        self.faults = 0
        self.returns = 0
        """How often it came back without a result, in this life of the master."""
        self.rests = 0
        """Pauses so far, in this life of the master; the next one is twice as long."""
        self.died = False
        self.detail = ""
        self.delivered = False
        self.stuck = 0
        """Deliveries that failed in a row."""
        self.void = 0
        """Results of it that were lost here, in this life of the master."""
        self.leases: tuple[LeaseId, ...] = ()
        """Of the attempts that are under way, the oldest first: one, or two at the tail of a job."""
        self.outcome: Outcome | None = None
        self.avoid: NodeId | None = None
        """The worker that it failed on last, while that matters."""
        self.blame: tuple[NodeId, ...] = ()
        """The workers that it failed on, in this life of the master."""
        self.dropped: tuple[NodeId, ...] = ()
        """The workers that lost it by their own doing, once for each time, in this life of the master."""
        self.checkpoint: ResultItem | None = None
        """Of the latest attempt that left one; the next attempt starts with it."""


class Job:
    """A job that has not ended."""

    def __init__(self, manifest: Manifest, raw: bytes, digest: bytes, key: bytes, serial: int, wall: Wall) -> None:
        """Hold a new job: all its tasks are pending."""
        self.id = JobId(manifest.job)
        self.manifest = manifest
        self.raw = raw
        self.digest = digest
        self.key = key
        self.reply_secret = b""
        """Opens what results are sealed with."""
        self.wall = wall
        self.rank = (-manifest.priority, serial)
        """Lower is served first."""
        self.ask = Ask(resources=manifest.resources, sandbox=manifest.sandbox, only=manifest.only)
        self.tasks: dict[int, Task] = {}
        self.pending = IntervalSet([(0, manifest.tasks)])
        self.shy: dict[NodeId, IntervalSet] = {}
        self.resting = 0
        self.running = 0
        self.over: dict[TaskState, int] = dict.fromkeys(OVER, 0)
        self.undelivered = 0
        self.cancelled = False
        """As a whole: a task without a history is cancelled then, unless it was kept."""
        self.kept = IntervalSet()
        """Done by an earlier job; they have no history here."""
        self.halt: Halt | None = None
        self.halted = ""
        """After what it was halted: no further attempt begins."""
        self.met = False
        """The condition held when it was last looked at: it halts when it comes to hold, not as long as it does."""
        self.tail = Tail()
        self.standing = Standing()
        self.unsolved: tuple[NodeId, ...] = ()
        """Workers that found no solution for the packages that it asks for; a few of them are enough."""
        self.had_packages = False
        """An attempt of it ended somewhere, so what it asks for can be had."""
        self.since: Mono | None = None
        """Since when it stands in line, as far as that matters to anybody: see ``overflow``."""
        self.able: tuple[int, tuple[NodeId, ...]] = (-1, ())
        """Up to two linked workers that could run it, and as of which change of the workers that is."""

    def task(self, index: int) -> Task:
        """Return the task's history, beginning one if there is none."""
        task = self.tasks.get(index)
        if task is None:
            task = self.tasks[index] = Task()
        return task

    @property
    def grantable(self) -> int:
        """How many tasks somebody may have now."""
        return len(self.pending) + sum(len(tasks) for tasks in self.shy.values())

    def hide(self, index: int, worker: NodeId) -> None:
        """Let anybody but ``worker`` have a pending task."""
        self.shy.setdefault(worker, IntervalSet()).add(index)

    def unrest(self, index: int, worker: NodeId) -> bool:
        """Take out a task that rests or avoids ``worker``; return whether it was the latter."""
        tasks = self.shy.get(worker)
        if tasks is None or index not in tasks:
            self.resting -= 1
            return False
        tasks.remove(index)
        if not tasks:
            del self.shy[worker]
        return True

    def take(self, worker: NodeId, limit: int) -> list[int]:
        """Remove and return tasks that ``worker`` may have: retried ones first, at most ``limit``."""
        return self.take_beside(lambda avoided: 0 if avoided == worker else limit, limit)

    def take_beside(self, beside: Callable[[NodeId], int], limit: int) -> list[int]:
        """Remove and return tasks, retried ones first, at most ``limit``; of those that avoid a node at most ``beside`` it."""
        taken: list[int] = []
        for avoided in list(self.shy):
            if len(taken) == limit:
                break
            tasks = self.shy[avoided]
            taken += tasks.take(min(beside(avoided), limit) - len(taken))
            if not tasks:
                del self.shy[avoided]
        return taken + self.pending.take(limit - len(taken))

    @property
    def waits(self) -> bool:
        """Whether there is a task that somebody may have now."""
        return bool(self.pending or self.shy)

    @property
    def stands(self) -> bool:
        """Whether there is anything to grant, be it a second attempt."""
        return self.waits or self.tail.open

    def may_take(self, worker: NodeId) -> bool:
        """Whether there is a task that ``worker`` may have."""
        return bool(self.pending) or len(self.shy) > (worker in self.shy)

    def state_of(self, index: int) -> TaskState:
        """Return the state of any task."""
        task = self.tasks.get(index)
        if task is not None:
            return task.state
        if index in self.kept:
            return "done"
        return "cancelled" if self.cancelled else "pending"

    def keep(self, kept: Intervals) -> None:
        """These tasks are done from the start."""
        for start, stop in kept:
            self.kept.add(start, min(stop, self.manifest.tasks))
            self.pending.remove(start, stop)
        self.over["done"] = len(self.kept)

    def settle(self, index: int, state: TaskState, *, deliver: bool) -> Task:
        """A task is over; ``deliver`` tells whether its results are still to be written out."""
        task = self.task(index)
        task.state = state
        task.leases = ()
        task.avoid = None
        task.delivered = not deliver
        self.over[state] += 1
        self.undelivered += deliver
        return task

    def cancel(self, *, running: bool = True) -> None:
        """All tasks that wait or, unless told otherwise, run are cancelled; their leases and pauses have been ended."""
        self.cancelled = True
        for task in self.tasks.values():
            if task.state == "pending" or (running and task.state == "running"):
                task.state = "cancelled"
                task.leases = ()
                task.avoid = None
                task.delivered = True
        self.over["cancelled"] += self.unsettled - self.running
        self.pending.clear()
        self.shy.clear()
        self.resting = 0

    def restore(self, old: RestoredTask) -> None:
        """Take up a task's history; what ran waits until its lease is taken up too."""
        task = self.task(old.task)
        task.attempts = old.attempts
        task.failures = old.failures
        task.faults = old.faults
        task.died = old.died
        task.detail = old.detail
        if self.cancelled:
            self.over["cancelled"] -= 1  # it had been counted among those without a history
            self.pending.add(old.task)
        if old.state not in OVER:
            task.checkpoint = old.checkpoint
            return
        self.pending.remove(old.task)
        self.settle(old.task, old.state, deliver=not old.delivered)

    def retry(self, index: int | None, *, cancelled: bool) -> tuple[list[int], bool]:
        """Let tasks that failed (or were cancelled) wait again, one or all; return which, and whether the plain rest too.

        Results on their way to the owner's folder get there first: such a task is left as it is.
        """
        states: tuple[TaskState, ...] = ("failed", "cancelled") if cancelled else ("failed",)
        rest = cancelled and index is None and self.cancelled
        if rest:
            self.cancelled = False
            plain = IntervalSet([(0, self.manifest.tasks)])
            for start, stop in self.kept.intervals():
                plain.remove(start, stop)
            for other in self.tasks:
                plain.remove(other)
            rest = bool(plain)
            self.over["cancelled"] -= len(plain)
            for start, stop in plain.intervals():
                self.pending.add(start, stop)
        elif index is not None and cancelled and index not in self.tasks and self.state_of(index) == "cancelled":
            task = self.task(index)
            task.state, task.delivered = "cancelled", True
        wanted = self.tasks if index is None else (index,)
        again = [other for other in wanted if self._is_over(other, states)]
        for other in again:
            task = self.tasks[other]
            self.over[task.state] -= 1
            task.state = "pending"
            task.wipe()
            self.pending.add(other)
        if again or rest:
            self.halted = ""
            self.look()
            self.standing = Standing()  # nothing counts any more, so nothing can be forgiven
        return again, rest

    def _is_over(self, index: int, states: tuple[TaskState, ...]) -> bool:
        task = self.tasks.get(index)
        return task is not None and task.state in states and task.delivered

    def to_deliver(self) -> list[int]:
        """Return the tasks whose results do not lie in the owner's folder yet."""
        return [index for index, task in self.tasks.items() if task.state in OVER and not task.delivered]

    @property
    def unsettled(self) -> int:
        """How many tasks are not over."""
        return self.manifest.tasks - sum(self.over.values())

    @property
    def ended(self) -> bool:
        """No task is left to run or to deliver."""
        return not self.undelivered and not self.unsettled

    @property
    def state(self) -> JobState:
        """How the job stands; what it will have been once it has ended."""
        if self.unsettled:
            return "running" if self.running or self.tasks else "queued"
        what = "" if self.halt is None else self.halt.what
        if what == "success" and (self._reached or (self.halted and self.halt and self.halt.percent)):
            return "done"  # a search that had its success: what failed or was cut off is not missed
        if self.over["cancelled"] and not (self.halted and what == "done"):
            return "cancelled"
        return "failed" if self.over["failed"] else "done"

    @property
    def _reached(self) -> bool:
        """Whether the condition to halt holds."""
        return self.halt is not None and self.halt.reached(**self._own, total=self.manifest.tasks)

    @property
    def halts(self) -> bool:
        """Whether it is time to stop by itself; also where nothing is left to stop, if that explains why the job is done."""
        if self.halt is None or self.halted or self.met or not self._reached:
            return False
        return bool(self.unsettled or (self.halt.what == "success" and self.over["failed"]))

    def look(self) -> None:
        """Take in whether the condition to halt holds: until it comes to hold anew, the job does not halt."""
        self.met = self._reached

    def say_halted(self) -> str:
        """Begin to be halted; return after what."""
        assert self.halt is not None, "only a job with a condition is halted"
        self.halted = self.halt.sentence(**self._own)
        return self.halted

    @property
    def _own(self) -> dict[str, int]:
        return {"done": self.over["done"] - len(self.kept), "failed": self.over["failed"]}

    def trouble(self) -> str:
        """Return what sent the first of the tasks that wait back, if one was sent back by its worker's doing."""
        return next((task.detail for task in self.tasks.values() if task.state == "pending" and task.detail), "")

    def snapshot(self) -> JobSnapshot:
        """Return a value for readers."""
        return JobSnapshot(
            job=self.id,
            owner=self.manifest.owner,
            state=self.state,
            tasks=self.manifest.tasks,
            pending=self.unsettled - self.running,
            running=self.running,
            done=self.over["done"],
            failed=self.over["failed"],
            cancelled=self.over["cancelled"],
            undelivered=self.undelivered,
            priority=self.manifest.priority,
            ask=self.ask,
            submitted=self.wall,
            halted=self.halted,
        )

    def check(self) -> None:
        """Assert that every task is in one place and that the counts are right."""
        self.pending.check()
        count = len(self.pending) + self.resting
        for tasks in self.shy.values():
            tasks.check()
            assert tasks, "an empty set of shy tasks was kept"
            assert all(index not in self.pending for index in tasks), "a task is in two places"
            count += len(tasks)
        states = [task.state for task in self.tasks.values()]
        plain = {"cancelled": 0, "failed": 0, "done": len(self.kept)}
        if self.cancelled:
            plain["cancelled"] = self.manifest.tasks - len(self.tasks) - len(self.kept)
        assert self.running == states.count("running"), "the count of running tasks is wrong"
        for state in OVER:
            assert self.over[state] == states.count(state) + plain[state], "a count is wrong"
        assert all(index not in self.kept for index in self.tasks), "a task that was kept has a history"
        assert count + self.running + sum(self.over.values()) == self.manifest.tasks, "a task was lost or is twice"
        waiting = sum(task.state in OVER and not task.delivered for task in self.tasks.values())
        assert self.undelivered == waiting, "the count of undelivered results is wrong"
        for index, task in self.tasks.items():
            assert bool(task.leases) == (task.state == "running"), "running means: under a lease"
            assert len(task.leases) <= LEASES_MAX, "too many attempts at once"
            assert task.state == "pending" or index not in self.pending, "a task that is not pending may be granted"
            assert task.checkpoint is None or task.state not in OVER, "a checkpoint that nobody will start with is kept"


class Line:
    """The jobs of one owner that have tasks to grant, in the order in which they are served."""

    def __init__(self) -> None:
        self._jobs: list[tuple[tuple[int, int], JobId]] = []

    def __iter__(self) -> Iterator[JobId]:
        """Yield the jobs in order."""
        return (job for _, job in self._jobs)

    def __len__(self) -> int:
        """Return how many jobs have tasks to grant."""
        return len(self._jobs)

    def update(self, job: Job) -> None:
        """Let a job stand in line if and only if it has tasks to grant."""
        entry = (job.rank, job.id)
        at = bisect_left(self._jobs, entry)
        stands = at < len(self._jobs) and self._jobs[at] == entry
        wants = job.stands
        if wants and not stands:
            insort(self._jobs, entry)
        elif stands and not wants:
            del self._jobs[at]
            job.since = None
