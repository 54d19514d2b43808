"""The node as a whole: builds every part, carries effects from the core to the parts, and takes it all down again.

What belongs to one mesh (store, core, links, discovery, jobs, guests) makes a *generation* in one TaskGroup; joining or
founding a mesh ends it and begins the next. The local API, the keys and the home's lock outlive generations.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, assert_never

import msgspec

from p2pq import __version__
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.node import Node
from p2pq.core.records import BanKept, Restored
from p2pq.daemon import gate, netinfo, offering
from p2pq.daemon.admin import Admin, Parts
from p2pq.daemon.api import Api, Send
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.discovery import Discovery
from p2pq.daemon.driver import Driver
from p2pq.daemon.guests import Guests
from p2pq.daemon.home import Home
from p2pq.daemon.identity import load_or_create
from p2pq.daemon.jobs import Jobs
from p2pq.daemon.joining import Invitations, with_port
from p2pq.daemon.links import Links
from p2pq.daemon.logs import Logs
from p2pq.daemon.runners import RunnerPool
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.selftest import IsolationReport
from p2pq.daemon.settings import load
from p2pq.daemon.store import Store
from p2pq.daemon.submission import Author
from p2pq.daemon.telemetry import Telemetry, logging_to
from p2pq.daemon.transfer import Transfers
from p2pq.errors import LinkError, P2PQError, RefusedError, Reject, StorageError
from p2pq.model.config import Settings
from p2pq.model.ids import Mono, NodeId, Wall, short, to_text
from p2pq.wire import control, trust
from p2pq.wire.messages import (
    BlobGone,
    BlobPush,
    BlobTickets,
    BlobWant,
    LogData,
    LogStop,
    LogWant,
    Ping,
    Pong,
    Renewed,
    RenewWant,
    ServiceMessage,
)

log = logging.getLogger(__name__)

SOFTWARE: Final = f"p2pq {__version__}"
LET_FINISH_S: Final = 4.0
"""How long a node that was told to stop waits for tasks that are running."""
FLUSH_S: Final = 2.0
"""How long it waits until what it decided is durable and said."""
END_S: Final = 9.5
"""After this the process ends, whatever still hangs; the store makes that safe."""
PRUNE_EVERY_S: Final = 3600.0
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
    settings = load(home.path, os.environ, dotted).settings
    with home.lock(), logging_to(home.log, settings.log):
        try:
            asyncio.run(run_node(home, settings, ready))
        except BaseExceptionGroup as group:
            raise _sentence(group, home) from group
    return 0


def harden() -> None:
    """Keep keys out of core dumps and other processes' reach, and new files to ourselves."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        # Otherwise any process of this user could read our memory through /proc.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


async def run_node(home: Home, settings: Settings, ready: Callable[[str], None]) -> None:
    """Run a node in this loop until SIGTERM, SIGINT or a Stop request. The home is locked by the caller.

    Raises:
        BaseExceptionGroup: of P2PQError where it could not start or had to stop, of AssertionError for a bug.
    """
    app = App(home, settings, ready)
    with app.signals():
        await app.run()


class App:
    """One running node."""

    def __init__(self, home: Home, settings: Settings, ready: Callable[[str], None]) -> None:
        """Load the keys; nothing runs yet.

        Raises:
            P2PQError: the home is not usable.
        """
        self._loop = asyncio.get_running_loop()
        self.home = home
        self.settings = settings
        self.telemetry = Telemetry(self.mono)
        self.keys = load_or_create(home, settings.node.name, wall(), os.urandom)
        self.machine = offering.machine(settings)
        self.python, self.python_problem = offering.find_python(settings, home.path)
        self.isolation: IsolationReport | None = None
        self.features: frozenset[str] = frozenset()
        self.listen = settings.node.listen
        """Where to listen: after the first generation with the port that it got."""
        self.hints: tuple[str, ...] = ()
        self.bans: tuple[bytes, ...] = ()
        """What a join told: where to look for peers, and who is out."""
        self.duplicate = ""
        self._ready: Callable[[str], None] | None = ready
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
        self.telemetry.event(logging.INFO, "node.stopped")

    async def _live_once(self) -> None:
        self._change.clear()
        try:
            async with asyncio.TaskGroup() as group:
                generation = Generation(self, group)
                try:
                    generation.build()
                    await generation.start()
                    self._generation = generation
                    self._serving.set()
                    if self._ready is not None:
                        self._ready(generation.ready_line())
                        self._ready = None
                    self.telemetry.event(
                        logging.INFO, "node.ready", mesh=self.keys.state.name, port=generation.links.port
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
        report, self.features = await asyncio.to_thread(
            offering.prove, self.python, self.home.path, self.home.socket, self.python_problem
        )
        self.isolation = report
        level = logging.INFO if report.level == "strict" else logging.WARNING
        self.telemetry.event(level, "sandbox.tested", level=report.level, reason=report.reason)
        if self._generation is not None:
            self._generation.offer()

    # -- stopping and beginning anew -----------------------------------------------------------------------------------

    def generation(self) -> "Generation":
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

    async def restart(self, hints: tuple[str, ...], bans: tuple[bytes, ...]) -> None:
        """Begin anew in the mesh that the keys now name; return when it serves there."""
        self.hints, self.bans = hints, bans
        self._serving.clear()
        self._change.set()
        await self._serving.wait()

    # -- the local API -------------------------------------------------------------------------------------------------

    def _welcome(self) -> control.Welcome:
        return control.Welcome(id=to_text(self.keys.node), name=self.keys.cert.name, version=__version__)

    def _register(self) -> None:
        """Route each request to the present generation."""
        self._route(control.Submit, lambda now: now.jobs.submit)
        self._route(control.Jobs, lambda now: now.jobs.jobs)
        self._route(control.Show, lambda now: now.jobs.show)
        self._route(control.Tasks, lambda now: now.jobs.tasks)
        self._route(control.Watch, lambda now: now.jobs.watch)
        self._route(control.Results, lambda now: now.jobs.results)
        self._route(control.CancelJob, lambda now: now.jobs.cancel)
        self._route(control.Why, lambda now: now.jobs.why)
        self._route(control.Logs, lambda now: now.logs.logs)
        self._route(control.Status, lambda now: now.admin.status)
        self._route(control.PeersList, lambda now: now.admin.peers)
        self._route(control.Members, lambda now: now.admin.members)
        self._route(control.Mesh, lambda now: now.admin.mesh)
        self._route(control.MeshInit, lambda now: now.admin.mesh_init)
        self._route(control.Invite, lambda now: now.admin.invite)
        self._route(control.Join, lambda now: now.admin.join)
        self._route(control.BanMember, lambda now: now.admin.ban)
        self._route(control.Doctor, lambda now: now.admin.doctor)
        self._route(control.Stop, lambda now: now.admin.stop)

    def _route(self, kind: type[R], choose: "Callable[[Generation], Handler[R]]") -> None:
        async def handle(request: R, send: Send) -> None:
            await choose(self.generation())(request, send)

        self.api.register(kind, handle)


class Handler(Protocol[R]):  # type: ignore[misc]  # R is only ever taken in
    """Answers one kind of request."""

    async def __call__(self, request: R, send: Send, /) -> None:
        """Answer it."""


class Generation:
    """All that belongs to one life in one mesh."""

    def __init__(self, app: App, group: asyncio.TaskGroup) -> None:
        """Belong to a group, which owns all tasks: then ``build``, ``start``, ``drain`` and, in any case, ``close``."""
        self._app = app
        self._group = group
        self._telemetry = app.telemetry
        self._cleanup = contextlib.AsyncExitStack()

    def build(self) -> None:
        """Build the parts; ``start`` sets them going.

        Raises:
            P2PQError: the store or the blobs cannot be used.
        """
        app, group = self._app, self._group
        settings, keys = app.settings, app.keys
        self.store, restored = Store.open(app.home.store, wall, settings.store)
        self._cleanup.push_async_callback(self.store.close)
        restored = self._with_bans(restored)
        self.blobs = BlobStore(
            app.home.blobs,
            quota_bytes=settings.store.blobs_mb << 20,
            reserve_bytes=settings.store.reserve_mb << 20,
        )
        self.node = Node(
            keys.core_identity(),
            settings.schedule,
            restored,
            random.SystemRandom(),
            os.urandom,
            now=app.mono(),
            wall=wall(),
            links_max=settings.node.links_max,
        )
        self.driver = Driver(self.node, self.store, self._perform, app.mono, wall)
        self.links = Links(
            keys,
            group,
            post=self._post,
            service=self._service,
            notice=self._telemetry.notice,
            wall=wall,
            is_banned=self.node.banned,
            on_duplicate_key=self._on_duplicate_key,
            listen=app.listen,
            links_max=settings.node.links_max,
            software=SOFTWARE,
        )
        self._cleanup.push_async_callback(self.links.close)
        self.scheduler = Scheduler(self.node, me=keys.node, name=keys.cert.name, mono=app.mono)
        for peer in restored.peers:
            self.scheduler.remember(peer.node, peer.name)
        self.transfers = Transfers(
            self.blobs, self.links.http, self.links.send, tasks=group, clock=app.mono, entropy=os.urandom
        )
        self.pool = RunnerPool(
            app.home.scratch, app.python, grace_s=settings.runner.grace_s, idle_s=settings.runner.idle_s
        )
        self._cleanup.push_async_callback(self.pool.close)
        self.guests = Guests(
            node=keys.node,
            name=keys.cert.name,
            blobs=self.blobs,
            transfers=self.transfers,
            pool=self.pool,
            settings=settings.runner,
            memory_mb=app.machine.task_memory_mb,
            tasks=group,
            post=self._post,
        )
        self.guests.pin_kept(restored.kept)
        self.jobs = Jobs(
            author=Author(node=keys.node, secret=keys.key.seed, mesh=keys.mesh, owner=keys.cert.owner),
            store=self.store,
            blobs=self.blobs,
            transfers=self.transfers,
            scheduler=self.scheduler,
            tasks=group,
            post=self._post,
            post_durable=self._post_durable,
        )
        self.jobs.pin_live()
        self.logs = Logs(
            node=keys.node,
            guests=self.guests,
            jobs=self.jobs,
            store=self.store,
            blobs=self.blobs,
            scheduler=self.scheduler,
            tasks=group,
            say=self.links.send,
        )
        self.discovery: Discovery | None = None
        self.invitations = Invitations(
            keys,
            wall=wall,
            entropy=os.urandom,
            admit=self.links.admit,
            show_slot=self._show_slot,
            is_banned=self.node.banned,
            names=lambda: frozenset(peer.name for peer in self.node.peers(app.mono())),
            peers=lambda: tuple(filter(None, map(self.links.address, self.links.peers()))),
            bans=self.store.signed_bans,
            joined=self._joined,
        )
        self._cleanup.callback(self.invitations.close)

    def _with_bans(self, restored: Restored) -> Restored:
        """Add the bans that a join told, so that they hold before the first link."""
        app = self._app
        told = []
        for raw in app.bans:
            try:
                ban = trust.open_ban(raw, app.keys.state.root, wall())
            except Reject as error:
                log.warning("join.ban-ignored", extra={"fields": {"reason": error.reason}})
                continue
            told.append(BanKept(node=NodeId(ban.sub), banned=ban.banned, signed=raw))
        self._told_bans = tuple(told)
        return msgspec.structs.replace(restored, bans=(*restored.bans, *told))

    async def start(self) -> None:
        """Open the doors and set everything going.

        Raises:
            P2PQError: a part cannot start (a port in use, a full disk).
        """
        app, settings = self._app, self._app.settings
        self.store.start(self._on_trouble)
        if self._told_bans:
            await self.store.commit(self._told_bans, full=True)
        await self.pool.start()
        self.links.add_routes([*self.transfers.routes(), *self.invitations.routes()])
        await self.links.start()
        host, _ = gate.parse_listen(app.listen)
        app.listen = netinfo.join(host, self.links.port)
        self._group.create_task(self.driver.run(), name="driver")
        for address in settings.node.peers:
            self._post(ev.AddressSeen(addresses=(with_port(address),), source="config"))
        if app.hints:
            self._post(ev.AddressSeen(addresses=app.hints, source="memory"))
        if settings.node.mdns:
            self.discovery = Discovery(
                self._group,
                post=self._post,
                psks=lambda: app.keys.state.psks,
                wall=wall,
                addresses=self.links.addresses,
                entropy=os.urandom,
            )
            self._cleanup.push_async_callback(self.discovery.close)
            await self.discovery.start()
        self._group.create_task(netinfo.watch(self._interfaces_changed), name="interfaces")
        self._group.create_task(self._prune(), name="prune")
        self.admin = Admin(self._parts())
        self.offer()
        # The core has begun its life when this returns, so that the first request finds it so.
        await self.driver.flush()

    def _parts(self) -> Parts:
        app = self._app
        self.parts = Parts(
            home=app.home,
            keys=app.keys,
            node=self.node,
            links=self.links,
            discovery=self.discovery,
            invitations=self.invitations,
            scheduler=self.scheduler,
            store=self.store,
            blobs=self.blobs,
            counters=app.telemetry.counters,
            mono=app.mono,
            post_durable=self._post_durable,
            restart=self._restart,
            stop=app.stop,
            isolation=app.isolation,
            duplicate=app.duplicate,
        )
        return self.parts

    async def _restart(self, hints: tuple[str, ...], bans: tuple[bytes, ...]) -> None:
        """Begin anew; whoever asked through this generation goes on with the parts of the next."""
        app = self._app
        await app.restart(hints, bans)
        following = app.generation()
        for field in ("node", "links", "discovery", "invitations", "scheduler", "store", "blobs", "post_durable"):
            setattr(self.parts, field, getattr(following.parts, field))

    def ready_line(self) -> str:
        """Return the line that tells people and scripts that the node serves."""
        keys = self._app.keys
        address = next(iter(self.links.addresses), f"127.0.0.1:{self.links.port}")
        return f"ready {keys.cert.name} {to_text(keys.node)} {address}"

    def offer(self) -> None:
        """Tell the core what this machine offers, once that is known."""
        app = self._app
        if app.isolation is not None:
            self.parts.isolation = app.isolation
            if app.isolation.level == "strict":
                self.pool.keep_spare("strict")
            self._post(offering.offering(app.settings, app.machine, app.python, app.features, app.isolation))

    async def drain(self, *, at_once: bool) -> None:
        """Hand back what has not started, let what runs end if it does so soon, hand back the rest, and say all that."""
        with contextlib.suppress(TimeoutError, StorageError):
            async with asyncio.timeout(LET_FINISH_S):
                if not at_once:
                    await self.driver.post_durable(ev.Drain())
                    while self.node.busy:  # noqa: ASYNC110  for a moment, at the very end
                        await asyncio.sleep(0.05)
        with contextlib.suppress(TimeoutError, StorageError):
            async with asyncio.timeout(FLUSH_S):
                await self.driver.post_durable(ev.Drain(now=True))
                await self.driver.flush()

    async def close(self) -> None:
        """Close every part, the last opened first."""
        await self._cleanup.aclose()

    async def _prune(self) -> None:
        while True:
            waiter = self.store.prune(self._app.settings.store)
            await asyncio.wait([waiter])
            await asyncio.sleep(PRUNE_EVERY_S)

    # -- between the core and the parts --------------------------------------------------------------------------------

    def _post(self, event: ev.Event) -> None:
        """Let the parts that must know of links know of them, then the core."""
        match event:
            case ev.LinkUp(peer=peer):
                address = event.address if event.dialled else netinfo.join(self.links.remote_ip(peer), 0)
                self.transfers.link_up(peer, event.dialled, address)
                self.scheduler.remember(peer, event.name)
            case ev.LinkDown(peer=peer):
                self.transfers.link_down(peer)
                self.logs.link_down(peer)
            case _:
                pass
        self.driver.post(event)

    async def _post_durable(self, event: ev.Event) -> None:
        await self.driver.post_durable(event)

    def _perform(self, effect: fx.Effect) -> None:  # noqa: C901, PLR0912  one arm per effect
        match effect:
            case fx.Send():
                self.links.send(effect.peer, effect.message)
            case fx.Record():
                raise AssertionError("a row is not for performing")
            case fx.Dial():
                self.links.dial(effect.address, effect.node)
            case fx.Hangup():
                self.links.hangup(effect.peer, effect.reason)
            case fx.Drop():
                self._telemetry.drop(effect)
                if effect.close:
                    self.links.hangup(effect.peer, effect.reason)
            case fx.Start():
                self.guests.start(effect)
            case fx.Fetch():
                self.guests.fetch(effect)
            case fx.Kill():
                self.guests.kill(effect)
            case fx.Release():
                self.guests.release(effect)
            case fx.Collect():
                self.jobs.collect(effect)
            case fx.Deliver():
                self.jobs.deliver(effect)
            case fx.Emit():
                self._telemetry.notice(effect.notice)
                self.jobs.notice(effect.notice)
            case _:
                assert_never(effect)

    def _service(self, peer: NodeId, message: ServiceMessage) -> None:
        """Take a message that the core does not decide on."""
        match message:
            case BlobWant() | BlobTickets() | BlobPush() | BlobGone():
                try:
                    self.transfers.on_message(peer, message)
                except Reject as error:
                    self._telemetry.drop(fx.Drop(peer=peer, reason=error.reason, close=True))
                    self.links.hangup(peer, error.reason)
            case LogWant() | LogData() | LogStop():
                self.logs.on_message(peer, message)
            case Ping() | Pong() | RenewWant() | Renewed():
                raise LinkError("links answer these themselves")
            case _:
                assert_never(message)

    def _on_trouble(self, trouble: StorageError | None) -> None:
        if trouble is None:
            self._telemetry.event(logging.INFO, "store.recovered")
        else:
            self._telemetry.event(logging.ERROR, "store.trouble", reason=str(trouble))
        self.driver.trouble_changed(trouble)

    def _on_duplicate_key(self, sentence: str) -> None:
        self._app.duplicate = self.parts.duplicate = sentence
        self._telemetry.event(logging.ERROR, "node.duplicate", limit="duplicate", reason=sentence)

    def _joined(self, node: NodeId, name: str) -> None:
        self.scheduler.remember(node, name)
        self._telemetry.event(logging.INFO, "member.joined", node=short(node), name=name)

    def _show_slot(self, slot: str) -> None:
        if self.discovery is not None:
            self.discovery.show_slot(slot)

    def _interfaces_changed(self, _now: tuple[netinfo.Interface, ...]) -> None:
        host, port = gate.parse_listen(self._app.listen)
        self.links.addresses = netinfo.listening(host, port)
        self._telemetry.event(logging.INFO, "node.addresses", addresses=",".join(self.links.addresses))
        if self.discovery is not None:
            self._group.create_task(self.discovery.set_addresses(self.links.addresses), name="mdns addresses")


def wall() -> Wall:
    """Return the wall clock's time."""
    return Wall(int(time.time() * 1000))


def _sentence(group: BaseExceptionGroup[BaseException], home: Home) -> P2PQError:
    """Return the one error to tell people of: what went wrong first. A bug's traceback goes to the log."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, P2PQError):
        log.error("node.failed", extra={"fields": {"reason": str(error)}})
        return error
    log.critical("node.broken", exc_info=group)
    return P2PQError(
        f"the node stopped because of a bug ({error!r}); nothing acknowledged is lost. Please report {home.log}"
    )
