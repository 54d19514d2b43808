"""Why a job or task is as it is: the answers to ``why`` and ``show JOB.TASK``."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from p2pq.core.docket import GIVEN_UP
from p2pq.daemon.blame import Verdict, judge
from p2pq.daemon.catalogue import Catalogue
from p2pq.daemon.history import JobRow, TaskRow
from p2pq.daemon.requirements import FAILED
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.store import Store
from p2pq.daemon.views import attempt_view
from p2pq.model.ids import JobId
from p2pq.wire import control
from p2pq.wire.control import Note, Reply, TaskView

Send = Callable[[Reply], Awaitable[None]]

SAID_MAX: Final = 3
"""Entries left behind that a sentence names."""


class Explaining:
    """Says in one sentence how things stand, and whose doing a failure is."""

    def __init__(self, catalogue: Catalogue, store: Store, scheduler: Scheduler, troubles: Mapping[JobId, str]) -> None:
        """Take the parts; ``troubles`` says of live jobs why their results do not get through on this side."""
        self._catalogue = catalogue
        self._store = store
        self._scheduler = scheduler
        self._troubles = troubles

    async def attempts(self, request: control.Attempts, send: Send) -> None:
        """Answer ``Attempts``."""
        row = self._catalogue.find(request.job)
        index = self._catalogue.index(row, request.task)
        await send(self._catalogue.task(row, index, self._catalogue.task_row(row, index)))
        for attempt in self._store.attempts(row.job, index):
            await send(attempt_view(attempt, self._scheduler.name_of))

    async def say_why_waiting(self, job: JobId, send: Send) -> None:
        """Say why nothing of a job has begun yet, if nothing has and there is a reason to name."""
        row = self._store.job(job)
        if row is not None and row.state is None:
            why = self._unbuilt(job) if row.attempts else self._scheduler.why(job, None)
            if why is not None:
                await send(Note(text=f"still waiting: {why}"))

    def _unbuilt(self, job: JobId) -> str | None:
        """Say why the packages of a job could not be had, if none of its first task's attempts had them."""
        attempts = self._store.attempts(job, 0)
        if not attempts or any(not each.detail.startswith(FAILED) for each in attempts):
            return None
        nodes = ", ".join(dict.fromkeys(self._scheduler.name_of(each.worker) for each in attempts))
        return f"{attempts[-1].detail} (tried on {nodes})"

    async def why(self, request: control.Why, send: Send) -> None:
        """Answer ``Why``."""
        row = self._catalogue.find(request.job)
        index = None if request.task is None else self._catalogue.index(row, request.task)
        if (trouble := self._troubles.get(row.job)) is not None:
            await send(Note(text=trouble))
        elif index is not None:
            await send(self._why_task(row, index))
        else:
            found = self._scheduler.why(row.job, None) if row.state is None else None
            left = None if found else await self.left_behind(row)
            await send(Note(text=found) if found else self._why_over(row, left))

    def _why_task(self, row: JobRow, index: int) -> Note:
        task = self._catalogue.task_row(row, index)
        view = self._catalogue.task(row, index, task)
        name = f"{self._name(row)}.{view.task}"
        verdict = self._verdict(row, task)
        if view.state == "failed":
            blame = verdict.clause if verdict is not None else view.reason
            return Note(text=f"Task {view.task} failed: {blame}.{_behind(view)}", suggestion=self._hint(name, verdict))
        live = self._scheduler.why(row.job, index) if row.state is None else None
        if live is not None:
            if verdict is None:
                return Note(text=live + (_behind(view) if view.state == "done" else ""))
            sofar = f"{verdict.clause[:1].upper()}{verdict.clause[1:]}"
            return Note(text=f"{live.rstrip('.')}. {sofar}.", suggestion=self._hint(name, verdict, failed=False))
        where = f" on {view.node}" if view.node else ""
        reason = f" ({view.reason})" if view.reason not in (None, "ok", "cancelled") else ""
        hint = f"`p2pq retry {name} --cancelled` runs it" if view.state == "cancelled" else ""
        if task is not None and task.detail == GIVEN_UP:
            hint = f"`p2pq results {self._name(row)} --to DIR` has them"
        return Note(text=f"Task {view.task}: {view.state}{where}{reason}.{_behind(view)}", suggestion=hint)

    async def left_behind(self, row: JobRow) -> Note | None:
        """Say which tasks of a job left results behind that cannot travel; None if none did."""
        found = await asyncio.to_thread(self._store.skipped, row.job)
        if not found:
            return None
        first = found[0]
        number = self._catalogue.task(row, first.task, self._catalogue.task_row(row, first.task)).task
        more = f" and {len(found) - 1} more tasks" if len(found) > 1 else ""
        text = f"task {number}{more} left results behind that cannot travel ({'; '.join(first.skipped[:SAID_MAX])})"
        return Note(text=f"{text}; see `p2pq show {self._name(row)}.{number}`")

    def _verdict(self, row: JobRow, task: TaskRow | None) -> Verdict | None:
        """Judge a task that failed or is tried again; one that nothing counts against needs no judge."""
        if task is None or task.state not in {"pending", "failed"} or not task.attempts:
            return None
        return judge(self._store.attempts(row.job, task.task), self._scheduler.name_of)

    def _hint(self, name: str, verdict: Verdict | None, *, failed: bool = True) -> str:
        if verdict is not None and verdict.attempt:
            return f"see `p2pq logs {name} --attempt {verdict.attempt} --stderr`"
        return f"see `p2pq show {name}`" + (f"; `p2pq retry {name}` runs it again" if failed else "")

    def _why_over(self, row: JobRow, left: Note | None) -> Note:
        """Say what became of a job that the core has let go of."""
        view = self._catalogue.view(row)
        counts, name = view.tasks, self._name(row)
        hint = ""
        if counts.failed:
            hint = f"see `p2pq tasks {name}`; `p2pq retry {name}` runs what failed again"
            hint += ", with --cancelled also what was cancelled" if counts.cancelled else ""
        elif counts.cancelled:
            hint = f"`p2pq retry {name} --cancelled` runs the rest"
        enough = view.state == "done" and counts.done < counts.total
        halted = view.halted or ("as enough of its tasks succeeded" if enough else "")
        halted = halted and f", {halted}"
        behind = "" if left is None else f" {left.text[0].upper()}{left.text[1:]}."
        return Note(
            text=f"The job {'has' if view.state == 'failed' else 'is'} {view.state}{halted}: {counts.done} done, "
            f"{counts.failed} failed, {counts.cancelled} cancelled of {counts.total}.{behind}",
            suggestion=hint,
        )

    def _name(self, row: JobRow) -> str:
        return self._catalogue.view(row).job[:8]


def _behind(view: TaskView) -> str:
    if not view.skipped:
        return ""
    more = len(view.skipped) - SAID_MAX
    listed = "; ".join(view.skipped[:SAID_MAX]) + (f" and {more} more" if more > 0 else "")
    return f" Of its results could not travel: {listed}."
