"""Jobs and tasks as people see them: what the store knows, with what only the running core knows on top."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from p2pq.core.placement import TaskSnapshot
from p2pq.core.through import whereabouts
from p2pq.core.views import Policy, Spoken
from p2pq.daemon.delivery import target
from p2pq.daemon.history import AttemptRow, JobExtra, JobRow, TaskRow
from p2pq.daemon.submission import Sweep
from p2pq.model.ids import NodeId, to_text
from p2pq.model.job import REASON_CHARS_MAX
from p2pq.model.params import task_number, task_params
from p2pq.wire.control import AttemptView, Counts, JobView, TaskView
from p2pq.wire.parts import LeafView, PolicyView, SpokenView


def rfc3339(wall_ms: int) -> str:
    """Return an instant in UTC, to the second."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def job_view(row: JobRow, owner: str) -> JobView:
    """Return a job as ``jobs`` and ``show`` print it."""
    extra = row.extra or JobExtra()
    over = row.done + row.failed
    kept = extra.kept_count
    left = max(0, extra.tasks - over - kept - row.running)
    # Of a cancelled job what has no history is cancelled; what was let wait again, or runs on, has one.
    cancelled = left - min(left, row.waiting) if row.cancelled else min(left, row.cancelled_tasks)
    return JobView(
        job=to_text(row.job),
        name=extra.name,
        owner=owner,
        state=row.state or ("running" if row.attempts else "queued"),
        tasks=Counts(
            total=extra.tasks,
            pending=left - cancelled,
            running=row.running,
            done=row.done + kept,
            failed=row.failed,
            cancelled=cancelled,
        ),
        attempts=row.attempts,
        submitted=rfc3339(row.submitted),
        finished=None if row.ended is None else rfc3339(row.ended),
        results=extra.results,
        folder=extra.folder,
        halted=row.halted,
        kept=kept,
        lost=extra.lost,
    )


def spoken_view(spoken: Spoken, name_of: Callable[[NodeId], str]) -> SpokenView:
    """Return to whom a bridge speaks for its leaves, as ``status`` prints it."""
    held: dict[str, int] = {}
    for leaf, count in spoken.leaves:  # a bridge below is there twice, as a worker and for its own leaves
        held[name_of(leaf)] = held.get(name_of(leaf), 0) + count
    leaves = tuple(LeafView(node=name, attempts=count) for name, count in held.items())
    return SpokenView(node=name_of(spoken.master), stock=spoken.stock, leaves=leaves)


def policy_view(policy: Policy) -> PolicyView:
    """Return whether guests may run, as ``status`` prints it."""
    stance = policy.verdict.stance
    if policy.draining:
        return PolicyView(state="draining", reason=policy.reason)
    if stance != "run" and policy.reason in {"", policy.verdict.reason[:REASON_CHARS_MAX]}:
        return PolicyView(state=stance, reason=policy.verdict.reason)
    return PolicyView(state="run" if policy.accepts else "off", reason=policy.reason)


def attempt_view(row: AttemptRow, name_of: Callable[[NodeId], str]) -> AttemptView:
    """Return an attempt as ``show JOB.TASK`` prints it."""
    outcome = row.outcome
    state: Literal["running", "done", "failed", "lost"] = "running"
    if outcome is not None:
        state = "done" if outcome.ok else "failed"
    elif row.fault is not None:
        state = "lost"
    where, via = whereabouts(row.worker, row.via)
    return AttemptView(
        attempt=row.attempt,
        node=name_of(where),
        via=tuple(map(name_of, via)),
        state=state,
        granted=rfc3339(row.granted),
        ended=None if row.ended is None else rfc3339(row.ended),
        exit=None if outcome is None else outcome.exit,
        signal=None if outcome is None else outcome.signal,
        seconds=None if outcome is None else outcome.run_ms / 1000,
        max_rss=None if outcome is None else outcome.max_rss,
        reason=row.fault if outcome is None else outcome.reason,
        detail=row.detail,
        counted=state == "failed" and row.counted,
        skipped=row.skipped,
    )


def task_view(  # noqa: PLR0913  each is a source of its own
    row: TaskRow | None,
    index: int,
    sweep: Sweep,
    extra: JobExtra,
    name_of: Callable[[NodeId], str],
    live: TaskSnapshot | None = None,
    *,
    cancelled: bool = False,
) -> TaskView:
    """Return a task as ``tasks`` prints it; ``row`` is None for one that has no history."""
    number = task_number(sweep.array, sweep.axes, index)
    params = task_params(sweep.array, sweep.axes, index)
    if row is None:
        return _plain(index, number, params, extra, cancelled=cancelled)
    last = row.last
    outcome = None if last is None else last.outcome
    where, via = (None, ()) if last is None else whereabouts(last.worker, last.via)
    if live is not None and live.state == "running" and live.worker is not None and live.worker != where:
        # Granted to a cluster: the store learns which leaf has it when it has ended.
        where, via = whereabouts(live.worker, live.via)
    state = row.state
    reason = row.detail or (None if last is None else _reason(last))
    if reason is None and last is not None and last.fault and state != "running":
        reason = f"{last.fault}: {last.detail}" if last.detail else last.fault
    results: str | None = None
    if (
        row.delivered and outcome is not None and not row.detail and extra.results
    ):  # else it ended before they were written out
        results = _folder(extra, number)
    return TaskView(
        task=number,
        state=state,
        params=params,
        node=None if where is None else name_of(where),
        via=tuple(map(name_of, via)),
        attempt=0 if last is None else last.attempt,
        attempts=row.attempts,
        exit=None if outcome is None else outcome.exit,
        signal=None if outcome is None else outcome.signal,
        seconds=None if outcome is None else outcome.run_ms / 1000,
        max_rss=None if outcome is None else outcome.max_rss,
        reason=reason,
        progress=None if live is None or live.progress < 0 else live.progress / 1000,
        results=results,
        skipped=() if last is None else last.skipped,
    )


def _reason(last: AttemptRow) -> str | None:
    """Return why an attempt ended; one that failed with exit code 0 needs a sentence."""
    if last.outcome is not None and last.outcome.reason == "exit" and not last.outcome.exit and last.detail:
        return last.detail
    return None if last.outcome is None else last.outcome.reason


def _folder(extra: JobExtra, number: int) -> str | None:
    """Return where the results of a task lie; None where it left none."""
    folder = target(Path(extra.results), tasks=extra.tasks, number=number)
    return str(folder) if folder.is_dir() else None


def _plain(index: int, number: int, params: dict[str, str], extra: JobExtra, *, cancelled: bool) -> TaskView:
    """Return a task without a history: it waits, or it was cancelled with its job, or an earlier job had done it."""
    if (origin := extra.origin(index)) is not None:
        reason = f"kept from job {to_text(origin[0])[:8]}"
        return TaskView(task=number, state="done", params=params, reason=reason, results=_folder(extra, number))
    if extra.skips(index):
        return TaskView(task=number, state="done", params=params, reason="it ran before, so it was not to run again")
    return TaskView(task=number, state="cancelled" if cancelled else "pending", params=params)
