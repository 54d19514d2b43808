"""As master, beside the core: take in jobs of commands, which run on this machine as their user would run them."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager

from p2pq.core.effects import Effect
from p2pq.core.events import Event, Submitted
from p2pq.daemon import submission
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.catalogue import Catalogue
from p2pq.daemon.feeding import Uploads
from p2pq.daemon.store import Store
from p2pq.errors import UsageError
from p2pq.model.halt import parse_halt
from p2pq.model.ids import Wall
from p2pq.wire.commandcontrol import SubmitCommands
from p2pq.wire.control import Reply


class Commands:
    """Takes submissions. Use it from the event loop's thread only."""

    def __init__(  # noqa: PLR0913  the daemon's parts, each used here
        self,
        *,
        author: submission.Author,
        store: Store,
        blobs: BlobStore,
        catalogue: Catalogue,
        uploads: Uploads,
        claimed: Callable[[str], AbstractContextManager[None]],
        post_durable: Callable[[Event], Awaitable[Sequence[Effect]]],
    ) -> None:
        """Take the parts; ``claimed`` holds a place for a job that is on its way in, or refuses."""
        self._author = author
        self._store = store
        self._blobs = blobs
        self._catalogue = catalogue
        self._uploads = uploads
        self._claimed = claimed
        self._post_durable = post_durable

    async def submit(self, request: SubmitCommands, send: Callable[[Reply], Awaitable[None]]) -> None:
        """Answer ``SubmitCommands``."""
        halt = parse_halt(request.halt) if request.halt else None
        if not request.cwd.startswith("/"):
            raise UsageError(f"{request.cwd}: the folder to run in must be an absolute path")
        now = Wall(int(time.time() * 1000))
        # They have no results folder that others could want.
        with self._uploads.taken(request.upload) as chunks, self._claimed(f"commands {secrets.token_hex(8)}"):
            prepared = await asyncio.to_thread(
                submission.prepare_commands, request, self._author, self._blobs, chunks=chunks, now_ms=now
            )
            try:
                self._store.keep_extra(prepared.job, prepared.extra)
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
        await send(self._catalogue.view(self._catalogue.row(prepared.job)))
