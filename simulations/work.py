"""What users submit: jobs whose lengths, sizes and failures come from the seed."""

from collections.abc import Sequence
from random import Random
from typing import Literal

import msgspec

from p2pq.model.ids import JobId
from p2pq.model.job import Limits, Outcome, Resources

Shape = Literal["fixed", "exponential", "mixed"]


class JobPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A job, and how its tasks will behave."""

    tasks: int
    mean_s: float
    shape: Shape = "fixed"
    resources: Resources = Resources()
    limits: Limits = Limits()
    retries: int = 1
    priority: int = 0
    fails: float = 0.0
    """How likely an attempt ends badly by its own doing."""
    cancel_s: float | None = None
    """The user cancels it so long after submitting it."""
    cancel_task: int | None = None

    def length_s(self, job: JobId, task: int) -> float:
        """Return how long a task runs: the same each time it is tried."""
        if self.shape == "fixed":
            return self.mean_s
        rng = Random(job + task.to_bytes(4, "big"))
        if self.shape == "exponential" or rng.random() < 0.9:
            return rng.expovariate(1 / self.mean_s)
        return 10 * self.mean_s


def outcome_of(plan: JobPlan, job: JobId, task: int, attempt: int, took_s: float) -> Outcome:
    """Return how an attempt ends."""
    run_ms = round(1000 * took_s)
    if plan.length_s(job, task) > plan.limits.time_s:
        return Outcome(reason="time-limit", run_ms=run_ms)
    if plan.fails:
        rng = Random(job + task.to_bytes(4, "big") + attempt.to_bytes(4, "big"))
        if rng.random() < plan.fails:
            if rng.random() < 0.2:
                return Outcome(reason="runner-died", run_ms=run_ms)
            return Outcome(reason="exit", exit=1, run_ms=run_ms)
    return Outcome(reason="ok", exit=0, run_ms=run_ms)


def workload(rng: Random, tasks: int, mean_s: float, cpus: Sequence[int] = (1, 1, 1, 2)) -> list[JobPlan]:
    """Return jobs of so many tasks in all, with lengths around ``mean_s`` over three orders of magnitude.

    ``cpus``: how wide tasks may be, each as likely.
    """
    plans: list[JobPlan] = []
    while tasks:
        count = min(tasks, rng.choice((1, 3, 10, 30, 100)))
        tasks -= count
        cancelled = rng.random() < 0.1
        plans.append(
            JobPlan(
                tasks=count,
                mean_s=mean_s * rng.choice((0.01, 0.1, 1.0, 1.0, 3.0)),
                shape=rng.choice(("fixed", "exponential", "mixed")),
                resources=Resources(cpus=rng.choice(cpus), memory_mb=rng.choice((0, 0, 512))),
                limits=Limits(time_s=round(100 * mean_s) + 10),
                retries=rng.choice((0, 1, 3)),
                priority=rng.choice((-1, 0, 0, 0, 1)),
                fails=rng.choice((0.0, 0.0, 0.05, 0.3)),
                cancel_s=rng.uniform(0, 20 * mean_s) if cancelled else None,
                cancel_task=rng.randrange(count) if cancelled and rng.random() < 0.5 else None,
            )
        )
    return plans
