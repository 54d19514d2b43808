"""Failed tasks again: the answer to ``retry``. A job that has ended is opened again from what the store has of it."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import msgspec

from p2pq.core.effects import Effect, Emit
from p2pq.core.events import Event, RetryAsked
from p2pq.core.records import RestoredJob
from p2pq.daemon import places
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.catalogue import Catalogue
from p2pq.daemon.history import JobRow
from p2pq.daemon.store import Store
from p2pq.daemon.submission import Author
from p2pq.errors import RefusedError, Reject
from p2pq.model.ids import Wall, to_text
from p2pq.model.notice import TasksRetried
from p2pq.wire import control, sign
from p2pq.wire.control import Note, Reply
from p2pq.wire.objects import Manifest

Send = Callable[[Reply], Awaitable[None]]

TURNS: Final = 2
"""A job may end between the look at the store and the asking: then it is looked at once more."""


class Retrying:
    """Runs tasks again. Use it from the event loop's thread only."""

    def __init__(
        self,
        *,
        author: Author,
        catalogue: Catalogue,
        store: Store,
        blobs: BlobStore,
        claimed: Callable[[str], AbstractContextManager[None]],
        post_durable: Callable[[Event], Awaitable[Sequence[Effect]]],
    ) -> None:
        """Take the parts; ``claimed`` holds a results folder against other jobs, or refuses."""
        self._author = author
        self._catalogue = catalogue
        self._store = store
        self._blobs = blobs
        self._claimed = claimed
        self._post_durable = post_durable

    async def retry(self, request: control.Retry, send: Send) -> None:
        """Answer ``Retry``.

        Raises:
            RefusedError: there is nothing to run again, or it cannot be run.
        """
        row = self._catalogue.find(request.job)
        index = None if request.task is None else self._catalogue.index(row, request.task)
        self._check_wanted(row, index, cancelled=request.cancelled)
        for _ in range(TURNS):
            row = self._catalogue.row(row.job)
            asked = RetryAsked(job=row.job, task=index, cancelled=request.cancelled, wall=_now())
            if row.state is None:
                again = await self._ask(asked)
            else:
                gone = _results_gone(row)
                again = await self._reopen(row, asked)
                if again and gone:
                    await send(Note(text=gone))
            if again:
                await send(self._catalogue.view(self._catalogue.row(row.job)))
                return
        raise RefusedError(f"results of job {_name(row)} are on their way to its folder; try again in a moment")

    def _check_wanted(self, row: JobRow, index: int | None, *, cancelled: bool) -> None:
        """Refuse where nothing failed, in a sentence that says what there is."""
        name = _name(row)
        if index is not None:
            task = self._catalogue.task(row, index, self._catalogue.task_row(row, index))
            if task.state == "cancelled" and not cancelled:
                raise RefusedError(f"task {task.task} was cancelled; add --cancelled to run it all the same")
            if task.state not in {"failed", "cancelled"}:
                raise RefusedError(f"task {task.task} is {task.state}; only tasks that failed are run again")
            return
        counts = self._catalogue.view(row).tasks
        if counts.failed or (cancelled and counts.cancelled):
            return
        if counts.cancelled:
            raise RefusedError(f"no task of job {name} failed, {counts.cancelled} were cancelled; add --cancelled")
        left = f", {counts.total - counts.done} go on" if counts.done < counts.total else ""
        raise RefusedError(f"nothing to run again: {counts.done} tasks of job {name} are done, none failed{left}")

    async def _ask(self, asked: RetryAsked) -> bool:
        """Let the core decide; return whether tasks wait again, durably."""
        effects = await self._post_durable(asked)
        return any(isinstance(effect, Emit) and isinstance(effect.notice, TasksRetried) for effect in effects)

    async def _reopen(self, row: JobRow, asked: RetryAsked) -> bool:
        ended = await asyncio.to_thread(self._store.ended_job, row.job)
        if ended is None or row.extra is None:
            raise RefusedError(f"job {_name(row)} is being let go of; submit its folder again")
        results = Path(row.extra.results)
        place = os.path.realpath(results) if row.extra.results else to_text(row.job)  # noqa: ASYNC240  a few look-ups
        with self._claimed(place):
            newer = await asyncio.to_thread(places.newer, self._store, row.job, results) if row.extra.results else None
            if newer is not None:
                raise RefusedError(
                    f"newer results, of job {to_text(newer)[:8]}, lie in {results}; "
                    "submit the folder again, or with --results DIR"
                )
            manifest = self._open(row, ended)
            refs = [ref.blob for ref in (*manifest.body, *manifest.blobs)]
            self._blobs.pin(row.job, refs)
            try:
                gone = sum(not self._blobs.has(blob) for blob in refs)
                if gone:
                    raise RefusedError(  # noqa: TRY301
                        f"the store does not have the files of job {_name(row)} any more ({gone} of {len(refs)} pieces made "
                        f"room for newer ones); send them again: p2pq submit --resume {row.extra.folder}"
                    )
                self._store.keep_extra(row.job, row.extra)
                reopened = await self._ask(msgspec.structs.replace(asked, ended=ended))
            except BaseException:
                self._blobs.unpin(row.job)
                raise
            if not reopened and self._catalogue.row(row.job).state is not None:
                self._blobs.unpin(row.job)
            return reopened

    def _open(self, row: JobRow, ended: RestoredJob) -> Manifest:
        """Return the job's manifest, if workers of this mesh would take it."""
        try:
            manifest = sign.open_signed(ended.manifest, Manifest, self._author.node)
        except Reject as error:
            raise RefusedError(
                f"job {_name(row)} was submitted by another node key; submit its folder again"
            ) from error
        if manifest.mesh != self._author.mesh:
            raise RefusedError(f"job {_name(row)} belongs to another mesh; submit its folder again")
        if manifest.expires <= _now():
            raise RefusedError(f"job {_name(row)} is too old; submit its folder again")
        return manifest


def _results_gone(row: JobRow) -> str:
    """Say so if the results that the job has brought so far are not where it brought them."""
    if row.extra is None or not row.done + row.failed or not row.extra.results or os.path.lexists(row.extra.results):
        return ""
    return f"{row.extra.results} is not there any more; it is made anew for what runs again"


def _name(row: JobRow) -> str:
    return to_text(row.job)[:8]


def _now() -> Wall:
    return Wall(int(time.time() * 1000))
