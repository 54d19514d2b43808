"""The node as a whole: builds every part, carries effects from the core to the parts, and takes it all down again.

What belongs to one mesh (store, core, links, discovery, jobs, guests) makes a *generation* in one TaskGroup; joining or
founding a mesh ends it and begins the next. The local API, the keys and the home's lock outlive generations.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from p2pq import __version__
from p2pq.daemon import offering, sqlite, store
from p2pq.daemon.api import Api, Send
from p2pq.daemon.generation import Generation
from p2pq.daemon.home import Home
from p2pq.daemon.identity import load_or_create
from p2pq.daemon.lasting import Lasting
from p2pq.daemon.owner import Owner
from p2pq.daemon.sensors.gather import Sensors
from p2pq.daemon.settings import Entry, load
from p2pq.daemon.telemetry import Telemetry, logging_to
from p2pq.errors import InvariantError, P2PQError, RefusedError, StorageError
from p2pq.model.config import Settings
from p2pq.model.ids import Mono, Wall, to_text
from p2pq.wire import commandcontrol, control, peercontrol, resultcontrol, settingcontrol

log = logging.getLogger(__name__)

END_S: Final = 9.5
"""After this the process ends, whatever still hangs; the store makes that safe."""
PR_SET_DUMPABLE: Final = 4
FILES_MAX: Final = 65_536

R = TypeVar("R")


class _Over(Exception):  # noqa: N818  not an error: how a TaskGroup is told to end
    """This generation is over."""


def run(path: Path, overrides: Mapping[str, Mapping[str, Any]] | None = None, *, ready: Callable[[str], None]) -> int:
    """Run a node until it is told to stop; return the exit code.

    Args:
        path: the home; made if need be.
        overrides: what options say, by section and key.
        ready: told one line when the node serves.

    Raises:
        P2PQError: it could not start, or had to stop; one sentence that says what to do.
    """
    harden()
    home = Home.open(path)
    dotted = {f"{section}.{key}": value for section, keys in (overrides or {}).items() for key, value in keys.items()}
    effective = load(home.path, os.environ, dotted)
    settings = effective.settings
    with home.lock(), logging_to(home.log, settings.log):
        try:
            asyncio.run(run_node(home, settings, ready, effective.entries))
        except BaseExceptionGroup as group:
            raise _sentence(group, home, settings) from group
    return 0


def harden() -> None:
    """Keep keys out of core dumps and other processes' reach, and new files to ourselves."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Otherwise any process of this user could read our memory through /proc.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


async def run_node(home: Home, settings: Settings, ready: Callable[[str], None], entries: Sequence[Entry] = ()) -> None:
    """Run a node in this loop until SIGTERM, SIGINT or a Stop request. The home is locked by the caller.

    Raises:
        BaseExceptionGroup: of P2PQError where it could not start or had to stop, of AssertionError for a bug.
    """
    app = App(home, settings, ready, entries)
    with app.signals():
        await app.run()


class App:
    """One running node."""

    def __init__(
        self, home: Home, settings: Settings, ready: Callable[[str], None], entries: Sequence[Entry] = ()
    ) -> None:
        """Load the keys; nothing runs yet. ``entries`` are the same settings, with where each came from.

        Raises:
            P2PQError: the home is not usable.
        """
        self._loop = asyncio.get_running_loop()
        store.begin(home)
        telemetry = Telemetry(self.mono)
        python, self._python_problem = offering.find_python(settings, home.path)
        self.lasting = Lasting(
            home=home,
            settings=settings,
            keys=load_or_create(home, settings.node.name, wall(), os.urandom),
            telemetry=telemetry,
            machine=offering.machine(settings),
            owner=Owner(
                settings.policy,
                home.path,
                lambda needs: Sensors(home.path, settings.policy.programs, needs=needs),
                self.mono,
                wall,
            ),
            python=python,
            listen=settings.node.listen,
            mono=self.mono,
            wall=wall,
            boot=_clock_since_boot(),
            restart=self.restart,
            stop=self.stop,
        )
        self._ready: Callable[[str], None] | None = ready
        self._entries = tuple(entries)
        self._generation: Generation | None = None
        self._serving = asyncio.Event()
        self._stopping = False
        self._at_once = False
        self._change = asyncio.Event()
        """A generation is to end: for a stop or a new mesh."""
        self._main: asyncio.Task[None] | None = None
        self.api = Api(home.open_socket_folder(), home.token(), self._welcome)

    def mono(self) -> Mono:
        """Read the clock that the loop and the core run on."""
        return Mono(self._loop.time())

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop the node; the second one at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.remove_signal_handler(number)

    async def run(self) -> None:
        """Run generations until told to stop."""
        self._register()
        self.api.bind()
        self._main = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                serving = group.create_task(self.api.run(), name="api")
                proving = group.create_task(self._prove(), name="self-test")
                while not self._stopping:
                    await self._live_once()
                proving.cancel()
                serving.cancel()
        except asyncio.CancelledError:
            if not self._at_once:
                raise
        finally:
            self.api.close()
            self.lasting.owner.close()
        self.lasting.telemetry.event(logging.INFO, "node.stopped")

    async def _live_once(self) -> None:
        self._change.clear()
        try:
            async with asyncio.TaskGroup() as group:
                generation = Generation(self.lasting, group)
                try:
                    generation.build()
                    await generation.start()
                    self._generation = generation
                    generation.offer()  # from here on the self-test tells it itself, so nothing falls between
                    self._serving.set()
                    if self._ready is not None:
                        self._ready(generation.ready_line())
                        self._ready = None
                    self.lasting.telemetry.event(
                        logging.INFO, "node.ready", mesh=self.lasting.keys.state.name, port=generation.links.port
                    )
                    await self._change.wait()
                    self._serving.clear()
                    await generation.drain(at_once=self._at_once)
                finally:
                    self._generation = None
                    self._serving.clear()
                    await generation.close()
                raise _Over  # noqa: TRY301  ends what else runs in the group
        except* _Over:
            pass

    async def _prove(self) -> None:
        """Find out in a thread, while the node begins to serve, what it can promise as a worker."""
        lasting, floor = self.lasting, self.lasting.settings.runner.sandbox_floor
        report, lasting.features = await asyncio.to_thread(
            offering.prove, lasting.python, lasting.home.path, lasting.home.socket, self._python_problem, floor
        )
        lasting.isolation = report
        level = logging.INFO if report.level == "strict" else logging.WARNING
        self.lasting.telemetry.event(level, "sandbox.tested", level=report.level, reason=report.reason)
        if self._generation is not None:
            self._generation.offer()

    # -- stopping and beginning anew -----------------------------------------------------------------------------------

    def generation(self) -> Generation:
        """Return the present generation.

        Raises:
            RefusedError: there is none: the node is starting or stopping.
        """
        if self._generation is None:
            raise RefusedError("the node is starting or stopping; try again in a moment")
        return self._generation

    def stop(self, now: bool) -> None:
        """Go down; ``now``: without waiting for what runs."""
        self._stopping = True
        self._at_once = self._at_once or now
        self._change.set()
        self._loop.call_later(END_S, self._cut_short)

    def _signalled(self) -> None:
        if self._stopping:
            self._cut_short()
        self.stop(now=False)

    def _cut_short(self) -> None:
        self._at_once = True
        if self._main is not None:
            self._main.cancel()

    async def restart(self, hints: tuple[str, ...], bans: tuple[bytes, ...]) -> Generation:
        """Begin anew in the mesh that the keys now name; return the generation that serves there, when it does."""
        self.lasting.hints, self.lasting.bans = hints, bans
        self._serving.clear()
        self._change.set()
        await self._serving.wait()
        return self.generation()

    # -- the local API -------------------------------------------------------------------------------------------------

    def _welcome(self) -> control.Welcome:
        return control.Welcome(
            id=to_text(self.lasting.keys.node), name=self.lasting.keys.cert.name, version=__version__
        )

    def _register(self) -> None:
        """Route each request to the present generation."""
        self._route(control.Submit, lambda now: now.jobs.submit)
        self._route(commandcontrol.KeepInput, lambda now: now.uploads.keep)
        self._route(commandcontrol.SubmitCommands, lambda now: now.commands.submit)
        self._route(commandcontrol.Ends, lambda now: now.ends.ends)
        self._route(control.Jobs, lambda now: now.jobs.jobs)
        self._route(control.Show, lambda now: now.jobs.show)
        self._route(control.Tasks, lambda now: now.jobs.tasks)
        self._route(control.Watch, lambda now: now.jobs.watch)
        self._route(resultcontrol.Results, lambda now: now.jobs.results)
        self._route(control.CancelJob, lambda now: now.jobs.cancel)
        self._route(control.Retry, lambda now: now.jobs.retrying.retry)
        self._route(control.Why, lambda now: now.jobs.explaining.why)
        self._route(control.Attempts, lambda now: now.jobs.explaining.attempts)
        self._route(control.Logs, lambda now: now.logs.logs)
        self._route(control.Status, lambda now: now.admin.status)
        self._route(control.PeersList, lambda now: now.admin.peers)
        self._route(control.Members, lambda now: now.admin.members)
        self._route(control.Mesh, lambda now: now.admin.mesh)
        self._route(control.MeshInit, lambda now: now.admin.mesh_init)
        self._route(control.Invite, lambda now: now.admin.invite)
        self._route(control.Join, lambda now: now.admin.join)
        self._route(control.BanMember, lambda now: now.admin.ban)
        self._route(control.BanOwner, lambda now: now.admin.ban_owner)
        self._route(control.RotateKey, lambda now: now.admin.rotate_key)
        self._route(peercontrol.PeeringsList, lambda now: now.peering.list)
        self._route(peercontrol.PeerOffer, lambda now: now.peering.offer)
        self._route(peercontrol.PeerAccept, lambda now: now.peering.accept)
        self._route(peercontrol.PeerEnd, lambda now: now.peering.end)
        self._route(control.Doctor, lambda now: now.admin.doctor)
        self._route(control.Stop, lambda now: now.admin.stop)
        self.api.register(settingcontrol.SettingsList, self._settings)
        self.api.register(settingcontrol.PauseGuests, self._pause)

    async def _pause(self, request: settingcontrol.PauseGuests, send: Send) -> None:
        self.generation()  # whose core hears of it at once
        await self.lasting.owner.pause(request, send)

    async def _settings(self, _request: settingcontrol.SettingsList, send: Send) -> None:
        for entry in self._entries:
            await send(settingcontrol.SettingView(key=entry.key, value=entry.value, origin=entry.origin))

    def _route(self, kind: type[R], choose: "Callable[[Generation], Handler[R]]") -> None:
        async def handle(request: R, send: Send) -> None:
            await choose(self.generation())(request, send)

        self.api.register(kind, handle)


class Handler(Protocol[R]):  # type: ignore[misc]  # R is only ever taken in
    """Answers one kind of request."""

    async def __call__(self, request: R, send: Send, /) -> None:
        """Answer it."""


def wall() -> Wall:
    """Return the wall clock's time."""
    return Wall(int(time.time() * 1000))


def _clock_since_boot() -> Callable[[], float] | None:
    """Return a clock that goes on while the machine sleeps and is otherwise as fast as the loop's; None where there is none."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    return lambda: time.clock_gettime(time.CLOCK_BOOTTIME)


def _sentence(group: BaseExceptionGroup[BaseException], home: Home, settings: Settings) -> P2PQError:
    """Return the one error to tell people of: what went wrong first. A bug's traceback goes to the log."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, StorageError) and str(error).endswith(sqlite.AGAIN):
        error = type(error)(str(error).removesuffix(sqlite.AGAIN) + "then start the node again")  # it has ended
    if isinstance(error, P2PQError):
        log.error("node.failed", extra={"fields": {"reason": str(error)}})
        return error
    log.critical("node.broken", exc_info=group)
    again = "; `p2pq node --flight` would record how it comes to that"
    hint = again if isinstance(error, InvariantError) and not settings.log.flight else ""
    return P2PQError(
        f"the node stopped because of a bug ({error!r}); nothing acknowledged is lost. Please report {home.log}{hint}"
    )
