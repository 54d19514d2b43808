"""The environments that this node has built for jobs: each once, kept for the next job that asks for the same.

A task that needs one waits for it and holds it. What nobody holds goes, the least recently used first, when all together take
more than their quota. What is told of a failure is remembered for a moment, so that ten tasks do not fail ten times.
"""

import asyncio
import hashlib
import json
import logging
import os
import platform
import shutil
import sysconfig
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from p2pq.core.effects import Start
from p2pq.daemon import building, bundles, indexes, requirements, room
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.building import INSIDE, MADE, Builder, remove_tree
from p2pq.daemon.bundles import Target
from p2pq.daemon.home import Home
from p2pq.daemon.indexes import Index
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.limits import folder_bytes, size_text
from p2pq.daemon.requirements import FAILED, LABEL, Wanted
from p2pq.daemon.runners import RunnerPool
from p2pq.daemon.sandbox import Mount
from p2pq.daemon.threads import in_thread
from p2pq.daemon.unpack import unpack
from p2pq.errors import BuildError, ConfigError, RefusedError, StorageError, UsageError
from p2pq.model.config import EnvironmentSettings
from p2pq.wire.body import AnyJobBody, JobBody
from p2pq.wire.control import Finding
from p2pq.wire.tree import File, Tree, disk_bytes, read_part

log = logging.getLogger(__name__)

BUILDS_MAX: Final = 2
"""Builds at the same time."""
FAILED_S: Final = 20.0
"""So long a failure is not tried again: an index may be back by then."""
REMEMBERED_MAX: Final = 256
WHEELS_PART: Final = 4
"""Packages kept for further builds may take one part in so many of the quota."""


@dataclass(slots=True, eq=False)
class Environment:
    """One that is there."""

    name: str
    folder: Path
    bytes: int
    users: int = 0
    """Tasks and runners that need it."""

    def hold(self) -> None:
        """Keep it until ``let_go``."""
        self.users += 1

    def let_go(self, _done: object = None) -> None:
        """It is needed no longer by one of those who held it."""
        self.users -= 1

    def hold_until(self, done: "asyncio.Future[None]") -> None:
        """Keep it until that is done."""
        self.hold()
        done.add_done_callback(self.let_go)

    def python(self, python: JobPython, *, strict: bool) -> JobPython:
        """Return its interpreter, as a task in the sandbox finds it, or one without a sandbox."""
        place = Path(INSIDE) if strict else self.folder / MADE
        return JobPython(executable=place / "bin" / "python", prefixes=python.prefixes, version=python.version)

    def mounts(self) -> tuple[Mount, ...]:
        """Return what a task sees of it."""
        return (Mount(self.folder / MADE, INSIDE),)


@dataclass(frozen=True, slots=True)
class Order:
    """An environment that is wanted."""

    name: str
    """Equal names are equal environments, on this node."""
    wanted: Wanted
    brought: bundles.Brought | None = None
    """All that it takes, of a job that brings it along; else it comes from the node's index."""

    @property
    def attempt(self) -> str:
        """Return what a build of it has in common with others: also the very bytes, of a job that brings them.

        They are checked by hash, so what comes of them is for all who want the same; that they are wrong concerns nobody else.
        """
        if self.brought is None:
            return self.name
        return f"{self.name} {hashlib.sha256(msgspec.msgpack.encode(self.brought.tree)).hexdigest()}"


@dataclass(slots=True)
class _Build:
    task: "asyncio.Task[Environment | Exception]"
    waiters: int = 0
    given_up: bool = False
    """Nobody waits for it any more."""


def _let_go(task: "asyncio.Task[Environment | Exception]") -> None:
    """Of a build that is over: it holds what it has made no longer."""
    if not task.cancelled() and isinstance(made := task.result(), Environment):
        made.let_go()


def find_uv() -> Path | None:
    """Return the path of uv: the one that was installed with p2pq, else the one on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "uv"
    found = str(beside) if beside.is_file() else shutil.which("uv")
    return None if found is None else Path(os.path.realpath(found))


class Environments:
    """Keeps environments below one folder. Use it from the event loop's thread only."""

    def __init__(  # noqa: PLR0913  the daemon's parts, each used here
        self,
        home: Home,
        settings: EnvironmentSettings,
        *,
        pool: RunnerPool,
        blobs: BlobStore,
        tasks: asyncio.TaskGroup,
        memory_mb: int,
        environ: Mapping[str, str] = os.environ,
        uv: Path | None = None,
    ) -> None:
        """Take the parts; ``start`` looks at what is there.

        Args:
            home: has a folder for them.
            settings: the owner's.
            pool: runs builds.
            blobs: has the files of jobs.
            tasks: owns builds.
            memory_mb: the limit of a build.
            environ: where uv's and pip's variables are.
            uv: the program; default: found.
        """
        self.folder = home.environments
        self._settings = settings
        self._pool = pool
        self._blobs = blobs
        self._tasks = tasks
        self._sockets = home.socket.parent  # where names are short enough
        self._memory_mb = memory_mb
        self._environ = environ
        self._uv = uv or find_uv()
        self._builder: Builder | None = None
        self._known: OrderedDict[str, Environment] = OrderedDict()
        self._builds: dict[str, _Build] = {}
        self._failed: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._orders: OrderedDict[tuple[bytes, bytes], Order] = OrderedDict()
        self._building = asyncio.Semaphore(BUILDS_MAX)
        self._numbers = 0
        self._running = 0
        self._wheels_bytes = 0
        self.problem = "the node is starting"
        """Why nothing can be built here; empty if it can."""

    @property
    def used_bytes(self) -> int:
        """Return what all of it takes on the disk, as it was measured after builds."""
        return sum(each.bytes for each in self._known.values()) + self._wheels_bytes

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._known)

    @property
    def target(self) -> Target:
        """Return which packages fit this node: the Python of its jobs, and the kind of machine."""
        return bundles.target_of(self._pool.python.version, platform.system(), platform.machine())

    async def start(self) -> None:
        """Look at what is there, and whether more can be built.

        Raises:
            StorageError: the folder cannot be used.
        """
        try:
            found = await asyncio.to_thread(self._load)
        except OSError as error:
            raise StorageError(f"{self.folder}: {error.strerror}; check the disk and the folder") from error
        self._known = OrderedDict((each.name, each) for each in found)
        if self._uv is None:
            self.problem = "uv is not installed here"
            return
        homes = Path.home(), self.folder.parent
        python = self._pool.python
        try:
            index = indexes.find(self._settings, self._environ, homes=homes, prefix=python.executable.parent.parent)
        except ConfigError as error:
            self.problem = str(error)
            return
        self._builder = Builder(
            pool=self._pool,
            python=python,
            index=index,
            uv=self._uv,
            settings=self._settings,
            memory_mb=self._memory_mb,
            wheels=self.folder / "wheels",
        )
        self.problem = ""

    def _load(self) -> list[Environment]:
        """Return what is whole, the least recently used first; delete what is not."""
        built = self.folder / "built"
        for folder in (self.folder, built, self.folder / "wheels"):
            folder.mkdir(mode=0o700, exist_ok=True)
        found = []
        for folder in built.iterdir():
            if folder.name.startswith("."):  # beside its place
                remove_tree(folder)
                continue
            try:
                about = json.loads((folder / building.ABOUT).read_text())
                used = (folder / building.ABOUT).stat().st_mtime
                found.append((used, Environment(folder.name, folder, int(about["bytes"]))))
            except (OSError, ValueError, KeyError, TypeError):
                remove_tree(folder)  # its build did not get to its end
        self._wheels_bytes = folder_bytes(self.folder / "wheels", building.ENDLESS) or 0
        return [each for _, each in sorted(found, key=lambda each: each[0])]

    # ------------------------------------------------------------------ for tasks

    async def of_task(self, start: Start, job: AnyJobBody) -> Environment | None:
        """Return what a task needs, built if need be, and held; None if it needs nothing.

        Raises:
            BuildError: it cannot be had here.
            RefusedError: the job asks for what no node builds.
            SandboxError, StorageError: this machine's doing.
        """
        if LABEL not in start.resources.needs or not isinstance(job, JobBody):
            return None
        key = (start.master, start.job)
        order = self._orders.get(key)
        if order is None:
            try:
                order = await asyncio.to_thread(self._ask, job)
            except UsageError as error:
                raise RefusedError(str(error)) from error
            if order is None:
                return None
            self._orders[key] = order
            if len(self._orders) > REMEMBERED_MAX:
                self._orders.popitem(last=False)
        return await self.get(order, idle=not start.own)

    def _ask(self, job: JobBody) -> Order | None:
        """Return what a job wants, and by which name it goes here. Blocking.

        Raises:
            RefusedError, UsageError: it wants what cannot be.
        """
        path = bundles.find(job.tree, self.target)
        if path:
            found = bundles.read(_text(job.tree, path, self._blobs) or b"")
            wanted = found.wanted()
            # What it holds is told by hashes, so it is the same from wherever it comes.
            return Order(self._name(wanted, bundles.FOLDER), wanted, bundles.brought(job.tree, found))
        asked = requirements.read(lambda path: _text(job.tree, path, self._blobs), job.main)
        return None if asked is None else self.order(asked)

    def order(self, wanted: Wanted) -> Order:
        """Return an order for what the index of this node has."""
        index = Index() if self._builder is None else self._builder.index
        return Order(self._name(wanted, *index.texts()), wanted)

    def _name(self, wanted: Wanted, *circumstances: str) -> str:
        """Return by which name something wanted goes here: equal names are equal environments."""
        python = self._pool.python
        where = str(python.executable), python.version, platform.machine(), platform.system()
        return requirements.digest(wanted, *where, *circumstances)

    async def get(self, order: Order, *, idle: bool = False) -> Environment:
        """Return an environment, built if need be, and held; ``idle``: behind all else that this machine does.

        Raises:
            BuildError, SandboxError, StorageError: it cannot be had here.
        """
        found = self._held(order.name)
        if found is not None:
            return found
        attempt = order.attempt
        at, why = self._failed.get(attempt, (0.0, ""))
        if at > time.monotonic():
            raise BuildError(why)
        while (build := self._builds.get(attempt)) is not None and build.given_up:
            await asyncio.wait([build.task])
        if build is None:
            build = self._begin(order, idle=idle)
        build.waiters += 1
        try:
            made = await asyncio.shield(build.task)
            if isinstance(made, Exception):
                raise made
            made.hold()
            return made
        finally:
            build.waiters -= 1
            if build.waiters == 0 and build.task.done():
                _let_go(build.task)
            elif build.waiters == 0:
                build.given_up = True
                build.task.cancel()

    def _begin(self, order: Order, *, idle: bool) -> _Build:
        task = self._tasks.create_task(self._build(order, idle=idle), name=f"environment {order.name[:8]}")
        attempt = order.attempt
        build = self._builds[attempt] = _Build(task)

        def over(_: object) -> None:
            del self._builds[attempt]
            if build.given_up:
                _let_go(task)

        task.add_done_callback(over)
        return build

    def _held(self, name: str) -> Environment | None:
        """Return one that is there, held."""
        found = self._known.get(name)
        if found is not None:
            found.hold()
            self._known.move_to_end(name)
            os.utime(found.folder / building.ABOUT)
        return found

    async def close(self) -> None:
        """End builds, and wait for that."""
        running = [build.task for build in self._builds.values()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    # ------------------------------------------------------------------ building

    async def _build(self, order: Order, *, idle: bool) -> Environment | Exception:
        """Build one, and make room for it; a failure is the result, for whoever waits for it."""
        attempt = order.attempt
        try:
            turn = self._turns.setdefault(order.name, asyncio.Lock())
            async with turn:  # one at a time makes what goes by a name
                # Of other bytes, it may have been built meanwhile.
                found = self._held(order.name)
                if found is not None:
                    return found
                async with self._building:
                    return await self._built(order, idle=idle)
        except BuildError as error:
            log.warning("environment.failed", extra={"fields": {"name": attempt[:8], "reason": str(error)}})
            self._failed[attempt] = time.monotonic() + FAILED_S, str(error)
            self._failed.move_to_end(attempt)
            if len(self._failed) > REMEMBERED_MAX:
                self._failed.popitem(last=False)
            return error
        except Exception as error:  # noqa: BLE001  told to the tasks that wait
            return error

    def builder(self, source: str) -> Builder:
        """Return what builds here.

        Raises:
            BuildError: nothing can be built here; the sentence says for whom it was to be.
        """
        if self._builder is None:
            raise BuildError(f"{FAILED}{source}: this node can build none ({self.problem})")
        return self._builder

    @contextmanager
    def running(self) -> Iterator[None]:
        """Leave what is kept for further builds as it is: one runs that uses it."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def socket(self) -> Path:
        """Return where one build may listen."""
        self._numbers += 1
        return self._sockets / f"env{self._numbers}.sock"

    async def _built(self, order: Order, *, idle: bool) -> Environment:
        name, wanted = order.name, order.wanted
        builder = self.builder(wanted.source)
        version = self._pool.python.version
        if not requirements.python_fits(wanted.python, version):
            raise BuildError(f"{FAILED}{wanted.source}: it wants Python {wanted.python}, and jobs have {version} here")
        folder = self.folder / "built" / name
        bring = None if order.brought is None else partial(self._bring, order.brought)
        begun = time.monotonic()
        with self.running():
            size = await builder.build(wanted, folder, self.socket(), idle=idle, bring=bring)
        found = self._known[name] = Environment(name, folder, size)
        fields = {"name": name[:8], "of": wanted.source, "bytes": size, "seconds": round(time.monotonic() - begun, 1)}
        log.info("environment.built", extra={"fields": fields})
        found.hold()  # nobody who waits for it has it yet; the last of those lets go
        try:
            await self._make_room()
        except asyncio.CancelledError:
            found.let_go()
            raise
        return found

    def _bring(self, brought: bundles.Brought, folder: Path) -> None:
        """Unpack the wheels of a job. Blocking."""
        with room.claim(folder.parent, disk_bytes(brought.tree), self._blobs.reserve_bytes, "the job's packages"):
            unpack(brought.tree, lambda chunk: self._blobs.get(chunk.blob), folder)

    async def _make_room(self) -> None:
        """Delete what is over the quota and not in use: environments, and what is kept for further builds."""
        quota = self._settings.quota_mb << 20
        wheels = self.folder / "wheels"
        self._wheels_bytes = await asyncio.to_thread(lambda: folder_bytes(wheels, building.ENDLESS) or 0)
        doomed = []
        if self._wheels_bytes > quota // WHEELS_PART and not self._running:
            doomed.append(wheels)
            self._wheels_bytes = 0
        for found in list(self._known.values()):
            if self.used_bytes > quota and not found.users:
                doomed.append(found.folder)
                del self._known[found.name]
        await in_thread(lambda: self._delete(doomed))

    def _delete(self, folders: list[Path]) -> None:
        for folder in folders:
            try:
                remove_tree(folder)
            except OSError as error:
                log.warning("environment.kept", extra={"fields": {"folder": str(folder), "reason": str(error)}})
        (self.folder / "wheels").mkdir(mode=0o700, exist_ok=True)

    # ------------------------------------------------------------------ for people

    async def finding(self) -> Finding:
        """Return what doctor says of it."""
        most = size_text(self._settings.quota_mb << 20)
        cache = f"{len(self)} in {self.folder}, {size_text(self.used_bytes)} of at most {most}"
        if self._builder is None:
            return Finding(
                check="environments",
                ok=self._uv is not None,
                detail=f"packages that jobs ask for cannot be had here: {self.problem}",
                suggestion="install uv, as p2pq does by itself with pip: pip install uv"
                if self._uv is None
                else _SETTINGS,
            )
        silent = await indexes.silent(self._builder.index)
        if silent:
            detail = f"packages that jobs ask for cannot be had here now: {silent} does not answer; {cache}"
            return Finding(check="environments", ok=True, detail=detail, suggestion=_SETTINGS)
        place = self._builder.index.url or "no index, only folders"
        return Finding(check="environments", ok=True, detail=f"packages come from {place}; {cache}")


_SETTINGS: Final = (
    "set [environments] index in config.toml to where packages can be had; tasks that need some go elsewhere"
)


def _text(tree: Tree, path: str, blobs: BlobStore) -> bytes | None:
    """Return the beginning of a file of a job; None where there is none of that path. Blocking."""
    file: File | None = next((each for each in tree.files if each.path == path), None)
    if file is None:
        return None
    raw = bytearray()
    for part in file.parts:
        raw += read_part(tree, part, blobs.get)
        if len(raw) > requirements.TEXT_MAX:
            break
    return bytes(raw)
