"""As master: what a folder becomes before it is a job, with the packages that are to go along. Packing runs in a thread."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pq.daemon import bundles, places, submission
from p2pq.daemon.additions import Brought
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.bundles import Target
from p2pq.daemon.bundling import Bundler
from p2pq.daemon.environments import Environments
from p2pq.daemon.freezing import Freezer
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.store import Store
from p2pq.daemon.submission import Author, Prepared
from p2pq.errors import RefusedError, UsageError
from p2pq.model.job import Resources
from p2pq.wire.control import Note, Reply, Submit

Send = Callable[[Reply], Awaitable[None]]

_NOTHING: Final = (
    "the folder asks for no packages: it has no requirements.txt, no pyproject.toml with uv.lock, and main has no block of "
    "dependencies (PEP 723)"
)


@dataclass(frozen=True, slots=True)
class Packages:
    """How they are made ready to go along."""

    bundler: Bundler
    freezer: Freezer
    targets: Callable[[Resources, bytes], Mapping[Target, Sequence[str]]]
    """For whom: the Pythons and machines of the nodes that may run a job, by what it asks for and the only node that may."""


def packages(environments: Environments, scheduler: Scheduler) -> Packages:
    """Return how they are made ready on this node, for all nodes that it knows."""

    def targets(resources: Resources, only: bytes) -> Mapping[Target, Sequence[str]]:
        me = scheduler.me
        own = scheduler.name_of(me), environments.target
        return bundles.wanted_by(own, scheduler.peers(), resources, only, me)

    return Packages(Bundler(environments), Freezer(environments), targets)


class Preparing:
    """Makes jobs of folders."""

    def __init__(self, author: Author, store: Store, blobs: BlobStore, packages: Packages | None) -> None:
        """Take the parts; without ``packages`` none go along."""
        self._author = author
        self._store = store
        self._blobs = blobs
        self._packages = packages

    async def prepare(self, request: Submit, only: bytes, results: str, send: Send) -> Prepared:
        """As ``submission.prepare``; gives up when the client goes away.

        Args:
            request: as the client sent it.
            only: the node that may run it, or empty.
            results: where its results go.
            send: takes what people are told while they wait.

        Raises:
            RefusedError, UsageError: it cannot be submitted; nothing was queued.
            SandboxError, StorageError: this machine's doing.
        """
        given_up = threading.Event()
        folder = Path(request.folder)
        try:
            earlier = await asyncio.to_thread(places.inside, self._store, folder, Path(results))
            async with self._brought(request, only, earlier, send) as brought:
                return await asyncio.to_thread(
                    submission.prepare,
                    request,
                    self._author,
                    self._blobs,
                    only=only,
                    now_ms=int(time.time() * 1000),
                    given_up=given_up.is_set,
                    earlier=earlier,
                    brought=brought,
                )
        except asyncio.CancelledError:
            given_up.set()
            raise

    @asynccontextmanager
    async def _brought(
        self, request: Submit, only: bytes, earlier: Sequence[str], send: Send
    ) -> AsyncIterator[Brought | None]:
        """Give what is to go along with the folder."""
        if request.env not in ("bundle", "freeze"):
            yield None
            return
        if self._packages is None:
            raise RefusedError("this node has no environments; submit without --bundle and --freeze")
        looked = await asyncio.to_thread(submission.look, request, earlier)

        async def say(text: str) -> None:
            await send(Note(text=text))

        if request.env == "freeze":
            async with self._packages.freezer.frozen(Path(request.folder), looked, say) as frozen:
                yield frozen
            return
        if looked.wanted is None:
            raise UsageError(f"--bundle: {_NOTHING}")
        targets = self._packages.targets(request.resources, only)
        async with self._packages.bundler.bundled(looked.wanted, targets, say) as folder:
            yield Brought(folder, bundles.FOLDER)
