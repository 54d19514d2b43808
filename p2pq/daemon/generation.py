"""All that belongs to one life of a node in one mesh: its parts, what runs between them, and the core's effects.

`p2pq.daemon.app` makes one after the other. Cleaning up runs backwards through what was built, whatever failed.
"""

import asyncio
import contextlib
import logging
import os
import random
from typing import Final, assert_never

from p2pq import __version__
from p2pq.core import draws, flight
from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.records import Restored
from p2pq.daemon import draining, gate, inheriting, netinfo, offering, preparing, recorder, room, sqlite
from p2pq.daemon.admin import Admin, Parts
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.commands import Commands
from p2pq.daemon.dialing import Elsewhere
from p2pq.daemon.discovery import Discovery
from p2pq.daemon.driver import Driver, Machine
from p2pq.daemon.enclosing import enclose
from p2pq.daemon.ends import Ends
from p2pq.daemon.environments import Environments
from p2pq.daemon.feeding import Uploads
from p2pq.daemon.guests import Guests
from p2pq.daemon.jobs import Jobs
from p2pq.daemon.joining import Invitations, with_port
from p2pq.daemon.lasting import Lasting
from p2pq.daemon.links import Links
from p2pq.daemon.logs import Logs
from p2pq.daemon.owner import signal_number
from p2pq.daemon.peerings import PeeringDesk
from p2pq.daemon.performing import Performing
from p2pq.daemon.runners import RunnerPool
from p2pq.daemon.scheduler import Scheduler
from p2pq.daemon.store import Store
from p2pq.daemon.submission import Author
from p2pq.daemon.transfer import Transfers
from p2pq.daemon.ways import Bridges
from p2pq.errors import LinkError, LocalProtocolError, Reject, StorageError
from p2pq.model.ids import JobId, NodeId, short, to_text
from p2pq.model.notice import MeshKeyRotated, NodeWoke, Notice, PrekeyChanged
from p2pq.wire import messages as msg
from p2pq.wire.peering import name_abroad

log = logging.getLogger(__name__)

SOFTWARE: Final = f"p2pq {__version__}"
PRUNE_EVERY_S: Final = 3600.0


class Generation:
    """All that belongs to one life in one mesh."""

    def __init__(self, app: Lasting, group: asyncio.TaskGroup) -> None:
        """Belong to a group, which owns all tasks: then ``build``, ``start``, ``drain`` and, in any case, ``close``."""
        self._app = app
        self._group = group
        self._telemetry = app.telemetry
        self._cleanup = contextlib.AsyncExitStack()
        self._new_rows: inheriting.Rows = ()
        self._driving: asyncio.Task[None] | None = None
        self._full = ""
        """Why no task of a guest could be started for lack of disk."""

    def build(self) -> None:
        """Build the parts; ``start`` sets them going.

        Raises:
            P2PQError: the store or the blobs cannot be used.
        """
        restored = self._build_core()
        self._build_network(restored)
        self._build_work(restored)

    def _build_core(self) -> Restored:
        app = self._app
        settings, keys = app.settings, app.keys
        self.store, restored = Store.open(app.home.store, app.wall)
        self._cleanup.push_async_callback(self.store.close)
        self._cleanup.push_async_callback(self._end_driver)
        restored, self._new_rows = inheriting.of_mesh(restored, keys.state.root, app.wall(), app.bans)
        self.blobs = BlobStore(
            app.home.blobs,
            quota_bytes=settings.store.blobs_mb << 20,
            reserve_bytes=settings.store.reserve_mb << 20,
        )
        self._cleanup.callback(self.blobs.close)
        now, wall = app.mono(), app.wall()
        header = flight.Header(
            software=SOFTWARE,
            identity=keys.core_identity(),
            settings=settings.schedule,
            restored=restored,
            links_max=settings.node.links_max,
            keep_days=settings.store.keep_days,
            now=now,
            wall=wall,
            seed=os.urandom(draws.SEED_BYTES),
            bridging=app.bridging,
            batching=settings.bridge.batch,
            welcome=settings.welcome,
        )
        recorded = settings.log.flight
        try:
            self.node = header.begin() if recorded else header.begin(random.SystemRandom(), os.urandom)
        except Reject as error:
            raise sqlite.damaged(app.home.store, f"a job in it does not verify: {error.reason}") from error
        machine = self._recorded(header) if recorded else self.node
        self.driver = Driver(machine, self.store, self._perform, app.mono, app.wall, app.boot)
        return restored

    def _recorded(self, header: flight.Header) -> Machine:
        recorded = recorder.record(self._app.home.flight, header, self.node, self._telemetry.event)
        if recorded is None:
            return self.node
        self._cleanup.callback(recorded.close)
        return recorded

    def _build_network(self, restored: Restored) -> None:
        app, group = self._app, self._group
        settings, keys = app.settings, app.keys
        self.links = Links(
            keys,
            group,
            post=self._post,
            service=self._service,
            notice=self._telemetry.notice,
            wall=app.wall,
            is_banned=self.node.out,
            psks=lambda: self.node.mesh_keys.psks,
            on_duplicate_key=self._on_duplicate_key,
            listen=app.listen,
            links_max=settings.node.links_max,
            software=SOFTWARE,
            bridging=app.bridging,
            path=self.node.path,
            elsewhere=Elsewhere(
                foreign=lambda: self.node.foreign(app.mono()),
                mesh_of=self.node.abroad.mesh_of,
                carries=self.node.abroad.carries,
            ),
        )
        self._cleanup.push_async_callback(self.links.close)
        self.scheduler = Scheduler(self.node, me=keys.node, name=keys.cert.name, mono=app.mono)
        names = self.store.workers_named() | {peer.node: peer.name for peer in restored.peers}
        for node, name in names.items():
            self.scheduler.remember(node, name)
        bridges = Bridges(
            serves=app.bridging,
            speaks=self.node.bridge_of,
            ways=self.node.ways,
            joins=self.node.abroad.joins,
            post=self._post,
        )
        self.transfers = Transfers(self.blobs, self.links.http, self._say, tasks=group, clock=app.mono, bridges=bridges)
        self.discovery: Discovery | None = None
        self.invitations = Invitations(
            keys,
            wall=app.wall,
            entropy=os.urandom,
            admit=self.links.admit,
            show_slot=self._show_slot,
            is_banned=self.node.banned,
            names=lambda joiner: frozenset(
                peer.name for peer in self.node.peers(app.mono()) if not peer.realm and peer.id != joiner
            ),
            peers=lambda: tuple(
                filter(
                    None,
                    (self.links.address(peer) for peer in self.links.peers() if not self.node.abroad.mesh_of(peer)),
                )
            ),
            bans=self.store.signed_bans,
            psks=lambda: self.node.mesh_keys.psks,
            joined=self._joined,
        )
        self._cleanup.callback(self.invitations.close)

    def _build_work(self, restored: Restored) -> None:
        app, group = self._app, self._group
        settings, keys = app.settings, app.keys
        self.pool = RunnerPool(
            app.home.scratch, app.python, grace_s=settings.runner.grace_s, idle_s=settings.runner.idle_s
        )
        self._cleanup.push_async_callback(self.pool.close)
        memory_mb, kept = app.machine.task_memory_mb, settings.environments
        self.environments = Environments(
            app.home, kept, pool=self.pool, blobs=self.blobs, tasks=group, memory_mb=memory_mb
        )
        self._cleanup.push_async_callback(self.environments.close)
        self.guests = Guests(
            node=keys.node,
            name=keys.cert.name,
            blobs=self.blobs,
            transfers=self.transfers,
            pool=self.pool,
            environments=self.environments,
            settings=settings.runner,
            memory_mb=memory_mb,
            gpus=app.machine.gpus,
            tasks=group,
            post=self._post,
            checkpoint_signal=signal_number(settings.policy),
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
            unprotected=self._unprotected,
            packages=preparing.packages(self.environments, self.scheduler),
        )
        self.jobs.home.pin_live(restored)
        for job in restored.jobs:
            self.jobs.files.look(job.job)
        self._build_answers()

    def _build_answers(self) -> None:
        group, keys = self._group, self._app.keys
        self.logs = Logs(
            node=keys.node,
            guests=self.guests,
            jobs=self.jobs,
            store=self.store,
            blobs=self.blobs,
            scheduler=self.scheduler,
            tasks=group,
            say=self._say,
            pending=self.links.pending,
            linked=self.node.linked,
            bridge_of=self.node.bridge_of,
            leaf_of=self.node.leaf_of,
        )
        self.uploads = Uploads(self.blobs, self.jobs.author.chunk_keys())
        self.commands = Commands(
            jobs=self.jobs,
            store=self.store,
            blobs=self.blobs,
            uploads=self.uploads,
            opened=self.guests.opened,
            post_durable=self._post_durable,
        )
        self.ends = Ends(
            store=self.store,
            blobs=self.blobs,
            jobs=self.jobs,
            scheduler=self.scheduler,
            logs=self.logs,
            finish=lambda job: self.pool.finish(keys.node + job),
        )
        self.pool.hooks.said = lambda job, text: self.ends.said(JobId(job.removeprefix(keys.node)), text)
        self.performing = Performing(
            links=self.links,
            guests=self.guests,
            home=self.jobs.home,
            telemetry=self._telemetry,
            say=self._say_enclosing,
            told=self._told,
            guest_begins=self._app.owner.guest_begins,
        )

    async def start(self) -> None:
        """Open the doors and set everything going.

        Raises:
            P2PQError: a part cannot start (a port in use, a full disk).
        """
        app, settings = self._app, self._app.settings
        self.store.start(self._on_trouble)
        if self._new_rows:
            await self.store.commit(self._new_rows, full=True)
        await self.pool.start()
        await self.environments.start()
        self.links.add_routes([*self.transfers.routes(), *self.invitations.routes()])
        await self.links.start()
        app.listen = netinfo.join(gate.parse_listen(app.listen)[0], self.links.port)
        self._driving = self._group.create_task(self.driver.run(), name="driver")
        app.owner.serve(self.guests, self._post)
        self._group.create_task(app.owner.run(), name="owner")
        if settings.bridge.enabled and not app.bridging:
            reason = "its certificate does not let it be a bridge; see `p2pq doctor`"
            self._telemetry.event(logging.WARNING, "bridge.not-allowed", reason=reason)
        if settings.bridge.batch and not settings.bridge.enabled:
            reason = "[bridge] batch is for bridges only: set enabled = true, too, or start the node with --bridge"
            self._telemetry.event(logging.WARNING, "bridge.not-enabled", reason=reason)
        for address in settings.node.peers:
            self._post(ev.AddressSeen(addresses=(with_port(address),), source="config"))
        if app.hints:
            self._post(ev.AddressSeen(addresses=app.hints, source="memory"))
        if settings.node.mdns:
            self.discovery = Discovery(
                self._group,
                post=self._post,
                psks=lambda: self.node.mesh_keys.psks,
                wall=app.wall,
                addresses=self.links.addresses,
                entropy=os.urandom,
            )
            self._cleanup.push_async_callback(self.discovery.close)
            await self.discovery.start()
        self._group.create_task(netinfo.watch(self._interfaces_changed), name="interfaces")
        self._group.create_task(self._prune(), name="prune")
        watching = room.watch(app.home.scratch, self.blobs.relieve, self._disk_changed)
        self._group.create_task(watching, name="disk")
        self.admin = Admin(self._parts())
        self.peering = PeeringDesk(self.parts, app.settings.welcome)
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
            environments=self.environments,
            counters=app.telemetry.counters,
            carried=self.transfers.counters,
            mono=app.mono,
            held=self.jobs.held,
            post_durable=self._post_durable,
            restart=self._restart,
            stop=app.stop,
            keep_days=app.settings.store.keep_days,
            bridge=app.settings.bridge.enabled,
            batch=app.settings.bridge.batch,
            isolation=app.isolation,
            duplicate=app.duplicate,
            owner_findings=app.owner.findings,
        )
        return self.parts

    async def _restart(self, hints: tuple[str, ...], bans: tuple[bytes, ...]) -> None:
        """Begin anew; whoever asked through this generation goes on with the parts of the next."""
        following = await self._app.restart(hints, bans)
        for field in "node links discovery invitations scheduler store blobs environments post_durable".split():  # noqa: SIM905
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
            if app.isolation.level != "none":
                self.pool.keep_spare(app.isolation.level)
            found = app.settings, app.machine, app.python, app.features, app.isolation
            self._post(offering.offering(*found, self._full, builds=not self.environments.problem))

    def _disk_changed(self, full: str) -> None:
        """Take no guests while the disk is too full for their tasks, instead of handing back each of them."""
        self._full = full
        level, name = (logging.WARNING, "disk.nearly-full") if full else (logging.INFO, "disk.has-room")
        self._telemetry.event(level, name, reason=full or "guests are welcome again")
        self.offer()

    async def drain(self, *, at_once: bool) -> None:
        """Go down: see ``draining``."""
        await draining.drain(self.driver, self.node, at_once=at_once)

    async def close(self) -> None:
        """Close every part, the last opened first."""
        await self._cleanup.aclose()

    async def _end_driver(self) -> None:
        """End the core's turns, as all that could say something to it has ended: none may record what is not kept any more."""
        if self._driving is not None:
            self._driving.cancel()
            await asyncio.wait([self._driving])

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
                self.transfers.link_up(peer, event.dialled, address, next(iter(event.path), None))
                self.scheduler.remember(peer, name_abroad(event.name, event.realm) if event.mesh else event.name)
            case ev.LinkDown(peer=peer):
                self.transfers.link_down(peer)
                self.logs.link_down(peer)
            case _:
                pass
        self.driver.post(event)

    async def _post_durable(self, event: ev.Event) -> list[fx.Effect]:
        return await self.driver.post_durable(event)

    def _perform(self, effect: fx.Effect) -> None:
        self.performing.perform(effect)

    def _told(self, notice: Notice) -> None:
        if isinstance(notice, NodeWoke):
            self.links.woke()
        elif isinstance(notice, PrekeyChanged):
            self._app.keys.prekey = notice.prekey
        elif isinstance(notice, MeshKeyRotated) and self.discovery is not None:
            self._group.create_task(self.discovery.announce(), name="mdns tag")
        self._telemetry.notice(notice)
        self.jobs.notice(notice)
        self.ends.notice(notice)

    def _say_enclosing(self, peer: NodeId, message: msg.Message) -> None:
        self._say(peer, enclose(message, self.blobs, direct=not self.links.link_path(peer)))

    def _say(self, peer: NodeId, message: msg.Message) -> None:
        try:
            self.links.send(peer, message)
        except LocalProtocolError as error:
            # Decided for a link whose place one of an older version has taken since; anything else would be a bug.
            self._telemetry.event(logging.ERROR, "message.too-new", limit=peer, peer=peer, message=str(error))

    def _service(self, peer: NodeId, message: msg.ServiceMessage) -> None:
        """Take a message that the core does not decide on."""
        match message:
            case msg.BlobWant() | msg.BlobTickets() | msg.BlobPush() | msg.BlobGone():
                try:
                    self.transfers.on_message(peer, message)
                except Reject as error:
                    self._telemetry.drop(fx.Drop(peer=peer, reason=error.reason, close=True))
                    self.links.hangup(peer, error.reason)
            case msg.LogWant() | msg.LogData() | msg.LogStop():
                self.logs.on_message(peer, message)
            case (
                msg.Ping()
                | msg.Pong()
                | msg.RenewWant()
                | msg.Renewed()
                | msg.RelayWant()
                | msg.RelayOffer()
                | msg.RelayRefused()
            ):
                raise LinkError("links answer these themselves")
            case _:
                assert_never(message)

    def _unprotected(self) -> str:
        found = self._app.isolation
        return "" if found is None else found.shortcoming

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
