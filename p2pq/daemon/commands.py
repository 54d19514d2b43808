"""As master, beside the core: take in jobs of commands, which run on this machine as their user would run them."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from p2pq.core.effects import Effect
from p2pq.core.events import Event, Submitted
from p2pq.daemon import submission
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.feeding import Uploads
from p2pq.daemon.jobs import Jobs
from p2pq.daemon.store import Store
from p2pq.errors import UsageError
from p2pq.model.halt import parse_halt
from p2pq.model.ids import Wall
from p2pq.wire.body import CommandsBody
from p2pq.wire.commandcontrol import SubmitCommands
from p2pq.wire.control import Reply


class Commands:
    """Takes submissions. Use it from the event loop's thread only."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        store: Store,
        blobs: BlobStore,
        uploads: Uploads,
        opened: Callable[[bytes, CommandsBody], None],
        post_durable: Callable[[Event], Awaitable[Sequence[Effect]]],
    ) -> None:
        """Take the parts; ``opened`` is told the body of each job, which is soon to be run here."""
        self._jobs = jobs
        self._store = store
        self._blobs = blobs
        self._uploads = uploads
        self._opened = opened
        self._post_durable = post_durable

    async def submit(self, request: SubmitCommands, send: Callable[[Reply], Awaitable[None]]) -> None:
        """Answer ``SubmitCommands``."""
        halt = parse_halt(request.halt) if request.halt else None
        if not request.cwd.startswith("/"):
            raise UsageError(f"{request.cwd}: the folder to run in must be an absolute path")
        now = Wall(int(time.time() * 1000))
        # They have no results folder that others could want.
        with self._uploads.taken(request.upload) as chunks, self._jobs.claimed(f"commands {secrets.token_hex(8)}"):
            prepared, body = await asyncio.to_thread(
                submission.prepare_commands, request, self._jobs.author, self._blobs, chunks=chunks, now_ms=now
            )
            try:
                self._store.keep_extra(prepared.job, prepared.extra)
                self._opened(prepared.job, body)
                await self._post_durable(
                    Submitted(
                        manifest=prepared.manifest,
                        key=prepared.key,
                        reply_secret=prepared.reply_secret,
                        wall=now,
                        kept=prepared.extra.skipped,
                        halt=halt,
                    )
                )
            except BaseException:
                self._blobs.unpin(prepared.job)
                raise
        catalogue = self._jobs.catalogue
        await send(catalogue.view(catalogue.row(prepared.job)))
