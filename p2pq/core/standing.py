"""Whose fault is a failure? How attempts fare at each worker, compared with the others, and who must wait for it.

Two judgements, both a master's own, neither durable nor told to anybody:

- Of one job, by its results (``Standing``). A worker at which task after task fails, while others succeed with tasks of that
  job, is *suspect*: if attempts failed everywhere as often as they do elsewhere, such a streak would have a chance of less than
  1 in 100. Its failures then count against it and not against the tasks. A task that failed elsewhere, too, says nothing of
  a worker.
- Of all jobs, by faults (``Budget``). A worker that takes and drops attempt after attempt without ending one is slowed down.

Either way it gets one attempt at a time, after a pause that doubles; an attempt that ends well clears it at once.
"""

from collections.abc import Iterator
from typing import Final

from p2pq.model.ids import Mono, NodeId

ODDS: Final = 0.01
"""A streak that is less likely than this, if the worker were like the others, makes it suspect."""
STREAK_MIN: Final = 2
OTHERS_MIN: Final = 3
"""So many attempts must have ended elsewhere before they are compared with."""
CAUTION: Final = 3
"""A streak that calls for caution while nothing has ended elsewhere."""
CAUTION_MAX_S: Final = 2.0
PAUSE_MAX_S: Final = 60.0
STREAK_MAX: Final = 256
"""Failed tasks remembered per worker."""
FAULTS_FREE: Final = 3
"""Faults in a row before a worker is slowed down."""
BUDGETS_MAX: Final = 1024
"""Workers whose faults are remembered."""


class _Record:
    """How the attempts of one job fared at one worker."""

    __slots__ = ("bad", "declined", "declined_until", "ok", "pauses", "streak", "until")

    def __init__(self) -> None:
        self.ok = 0
        self.bad = 0
        self.streak: dict[int, int] = {}
        """Tasks that failed here and nowhere else since the last success here: by which attempt, 0 if that did not count."""
        self.pauses = 0
        self.until = Mono(0.0)
        self.declined = 0
        """How often it handed a task of the job back as one that it cannot run, since an attempt last ended there."""
        self.declined_until = Mono(0.0)


class Standing:
    """How the attempts of one job fare at each worker."""

    __slots__ = ("_bad", "_ok", "_records")

    def __init__(self) -> None:
        self._records: dict[NodeId, _Record] = {}
        self._ok = 0
        self._bad = 0

    def succeeded(self, worker: NodeId) -> None:
        """An attempt ended well there: whatever was held against the worker is over."""
        record = self._record(worker)
        record.ok += 1
        record.declined = 0
        self._ok += 1
        record.streak.clear()
        record.pauses = 0
        record.until = Mono(0.0)

    def failed(self, worker: NodeId, task: int, attempt: int, elsewhere: tuple[NodeId, ...]) -> None:
        """An attempt failed there.

        Args:
            worker: where.
            task: of which task.
            attempt: which attempt; 0 if it does not count against the task.
            elsewhere: the other workers on which the same task has failed before.
        """
        record = self._record(worker)
        record.bad += 1
        record.declined = 0
        self._bad += 1
        for other in elsewhere:
            self._record(other).streak.pop(task, None)
        if not elsewhere and len(record.streak) < STREAK_MAX:
            record.streak[task] = attempt

    def suspect(self, worker: NodeId) -> bool:
        """Tell whether failures there are the worker's own doing, as far as one can tell by the other workers."""
        record = self._records.get(worker)
        if record is None or len(record.streak) < STREAK_MIN:
            return False
        bad, ended = self._bad - record.bad, self._ok + self._bad - record.ok - record.bad
        if ended < OTHERS_MIN:
            return False
        likely: float = ((bad + 0.5) / (ended + 1)) ** len(record.streak)
        return likely < ODDS

    def cautious(self, worker: NodeId) -> bool:
        """Tell whether all of the latest attempts failed there while nobody else has anything to compare with."""
        record = self._records.get(worker)
        if record is None or len(record.streak) < CAUTION:
            return False
        return self._ok + self._bad - record.ok - record.bad < OTHERS_MIN

    def streak(self, worker: NodeId) -> int:
        """Return how many tasks failed there and nowhere else since the last success there."""
        record = self._records.get(worker)
        return 0 if record is None else len(record.streak)

    def noted(self) -> Iterator[NodeId]:
        """Yield the workers that anything is held against since the last success there."""
        return (worker for worker, record in self._records.items() if record.streak or record.declined)

    def forgive(self, worker: NodeId) -> dict[int, int]:
        """Return the streak's tasks whose failures counted, by attempt; from now on they do not."""
        streak = self._record(worker).streak
        counted = {task: attempt for task, attempt in streak.items() if attempt}
        streak.update(dict.fromkeys(counted, 0))
        return counted

    def pause(self, worker: NodeId, now: Mono, first_s: float) -> Mono:
        """Let the worker wait, longer each time; return until when."""
        record = self._record(worker)
        most_s = PAUSE_MAX_S if self.suspect(worker) else CAUTION_MAX_S
        record.until = Mono(now + min(most_s, first_s * 2.0 ** min(record.pauses, 16)))
        record.pauses += 1
        return record.until

    def decline(self, worker: NodeId, now: Mono, first_s: float) -> Mono:
        """The worker has no room for the job: leave it alone, longer each time; return until when."""
        record = self._record(worker)
        record.declined_until = Mono(now + min(PAUSE_MAX_S, first_s * 2.0 ** min(record.declined, 16)))
        record.declined += 1
        return record.declined_until

    def declines(self, worker: NodeId, now: Mono) -> bool:
        """Tell whether the worker has just said that it has no room for the job."""
        record = self._records.get(worker)
        return record is not None and record.declined > 0 and now < record.declined_until

    def until(self, worker: NodeId) -> Mono:
        """Return when the worker may have the next attempt, if it is suspect or there is reason for caution."""
        record = self._records.get(worker)
        return Mono(0.0) if record is None else record.until

    def _record(self, worker: NodeId) -> _Record:
        record = self._records.get(worker)
        if record is None:
            record = self._records[worker] = _Record()
        return record

    def check(self) -> None:
        """Assert that the sums are those of the records."""
        records = self._records.values()
        assert self._ok == sum(record.ok for record in records), "the successes do not add up"
        assert self._bad == sum(record.bad for record in records), "the failures do not add up"
        assert all(len(record.streak) <= min(record.bad, STREAK_MAX) for record in records), "more failed than failed"


class Budget:
    """The faults of one worker, of whatever job, since an attempt last ended there."""

    __slots__ = ("_at", "faults", "until")

    def __init__(self) -> None:
        self.faults = 0
        self.until = Mono(0.0)
        """When it may have the next attempt, if it is slowed down."""
        self._at: Mono | None = None

    @property
    def slow(self) -> bool:
        """Whether the worker gets one attempt at a time only."""
        return self.faults >= FAULTS_FREE

    def fault(self, now: Mono, first_s: float) -> bool:
        """One more attempt was lost there; return whether that makes the worker wait.

        What is lost in one moment, as by a crash, is one fault however many attempts it were.
        """
        if self._at == now:
            return False
        self._at = now
        self.faults += 1
        if self.slow:
            self.until = Mono(now + min(PAUSE_MAX_S, first_s * 2.0 ** min(self.faults - FAULTS_FREE, 16)))
        return self.slow


class Budgets:
    """The budgets of all workers that had a fault; of BUDGETS_MAX, the one whose last fault is the oldest is forgotten."""

    __slots__ = ("_budgets",)

    def __init__(self) -> None:
        self._budgets: dict[NodeId, Budget] = {}

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._budgets)

    def get(self, worker: NodeId) -> Budget | None:
        """Return the worker's budget; None where it had no fault since an attempt ended there."""
        return self._budgets.get(worker)

    def slow(self) -> Iterator[NodeId]:
        """Yield the workers that are slowed down."""
        return (worker for worker, budget in self._budgets.items() if budget.slow)

    def fault(self, worker: NodeId, now: Mono, first_s: float) -> Mono | None:
        """An attempt was lost there; return until when the worker must wait, if that is new."""
        budget = self._budgets.pop(worker, None) or Budget()
        self._budgets[worker] = budget
        if len(self._budgets) > BUDGETS_MAX:
            del self._budgets[next(iter(self._budgets))]
        return budget.until if budget.fault(now, first_s) else None

    def ended(self, worker: NodeId) -> None:
        """An attempt ended there, well or not: it does not drop what it takes."""
        self._budgets.pop(worker, None)
