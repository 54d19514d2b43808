"""One simulated machine: the real core, a disk that survives, and an executor that only waits as long as tasks take."""

from collections.abc import Callable
from functools import partial
from math import inf
from random import Random

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.identity import Identity
from p2pq.core.node import Node
from p2pq.core.records import Row
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall
from p2pq.model.job import Fault, Outcome
from p2pq.model.notice import AttemptLost
from p2pq.wire import codec, prims, seal, sign, trust
from p2pq.wire import messages as msg
from p2pq.wire.objects import BlobRef, Manifest
from simulations.checkers import Checkers
from simulations.clock import Clock
from simulations.disk import Disk
from simulations.network import End, Network
from simulations.office import Office
from simulations.plans import Misfortune, Plan, address_of
from simulations.trains import Trains
from simulations.work import JobPlan, outcome_of
from simulations.world import World

WALL_S = 60.0
"""How often a node is told the wall clock."""
HINT_S = 120.0
"""How often mDNS tells of those that are there."""
WOKE_S = 5.0
"""A node notices that it did nothing for so long."""
TRANSFER_S = (0.002, 0.05)
START_S = (0.0002, 0.002)
DELIVER_S = (0.001, 0.01)


def _blob(master: NodeId, lease: LeaseId) -> bytes:
    """Return the name of the only blob of a result."""
    return prims.blake2b(master + codec.encode(lease))


class _Watch:
    """Tells the checkers of one host's disk."""

    def __init__(self, checkers: Checkers, node: NodeId) -> None:
        self._checkers = checkers
        self._node = node

    def durable(self, rows: list[Row]) -> None:
        self._checkers.durable(self._node, rows)

    def synced(self) -> None:
        self._checkers.synced(self._node)

    def undone(self, count: int) -> None:
        self._checkers.undone(self._node, count)


class Host:
    """A machine that may crash and start again."""

    def __init__(  # noqa: PLR0913, PLR0915, PLR0917  a machine has this many parts
        self,
        world: World,
        network: Network,
        checkers: Checkers,
        misfortune: Misfortune,
        office: Office,
        plan: Plan,
        settings: ScheduleSettings,
        jobs: dict[JobId, JobPlan],
        check_every: int,
    ) -> None:
        """Build it, switched off."""
        self._world = world
        self._network = network
        self._checkers = checkers
        self._misfortune = misfortune
        self._plan = plan
        self._settings = settings
        self._jobs = jobs
        self._check_every = check_every
        self._turns = 0
        self._rng: Random = world.rng(f"host {plan.index}")
        self._key = prims.SigningKey(self._rng.randbytes(32))
        self._root = office.root
        self._certs = office.chain(self._key.public, plan)
        self.index = plan.index
        self.name = plan.name
        self.owner = plan.owner
        self.node_id: NodeId = self._key.public
        self.address = address_of(plan.index)
        self.listens = plan.listens
        self.submits = plan.submits
        self.minor = plan.minor
        self.alive = False
        self.dark = False
        self.life = 0
        self.naps = 0
        """How often it was stopped or put to sleep."""
        self._clock = Clock(world)
        self._waiting: list[tuple[ev.Event, bytes]] = []
        """What came while it was stopped or asleep."""
        self._skew_ms = plan.skew_ms
        self._wake = inf
        self._running: dict[tuple[NodeId, LeaseId], int] = {}
        rng = world.rng(f"trains {plan.index}")
        self._trains = Trains(rng, self._clock, misfortune, self._running, self._start, self.post)
        self._still: dict[tuple[NodeId, LeaseId], list[Callable[[], None]]] = {}
        """Attempts that stand still, and what becomes of them when they go on."""
        self._cached: dict[JobId, None] = {}
        self._results: dict[bytes, None] = {}
        """Blobs of results that lie here, across crashes, until they are released."""
        self._submitted: list[tuple[JobId, ev.Submitted]] = []
        self._serial = 0
        self._disk = Disk(
            self._clock.after, world.rng(f"disk {plan.index}"), self._perform, _Watch(checkers, self.node_id)
        )
        self._identity: Identity
        self.node: Node

    # -- life and death -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Switch it on: a new life with what the disk kept."""
        secret = self._rng.randbytes(32)
        self._identity = Identity(
            node=self.node_id,
            secret=self._key.seed,
            mesh=prims.mesh_id(self._root.public),
            name=self._plan.name,
            owner=self._plan.owner,
            caps=self._plan.caps,
            boot=self._rng.randbytes(16),
            prekey_secret=secret,
            prekey=prims.x25519_public(secret),
            root=self._root.public,
        )
        self.alive = True
        self.dark = False
        self._wake = inf
        self.node = Node(
            self._identity,
            self._settings,
            self._disk.restored(self._wall()),
            Random(self._rng.randbytes(16)),
            Random(self._rng.randbytes(16)).randbytes,
            now=self._clock.now,
            wall=self._wall(),
            links_max=self._plan.links_max,
            bridging=self._plan.bridging,
            batching=self._plan.batching,
        )
        self._tell_wall(self.life)
        self._hint(self.life)
        self.post(ev.Offering(profile=self._plan.profile, own=self._plan.own))
        for job, submitted in self._submitted:
            if not self._checkers.durably_added(job):
                self.post(submitted)

    def _hint(self, life: int) -> None:
        """Let it find others: by mDNS again and again, or once from its configuration where it cannot be found itself."""
        if life == self.life and self.alive:
            source = "mdns" if self.listens else "config"
            for other in self._plan.dials:
                self.post(ev.AddressSeen(addresses=(address_of(other),), source=source))
            if self.listens:
                self._clock.after(HINT_S, self._hint, life)

    def crash(self, *, silent: bool) -> None:
        """Switch it off: what runs dies, what was not durable is lost.

        ``silent``: the power, not the process, failed. Peers have to find out, and what was not synced may be lost, too.
        """
        self._network.unplug(self, silent=silent)
        self.alive = False
        self.dark = silent
        self.life += 1
        self._clock.reset()
        self._waiting.clear()
        self._checkers.killed += len(self._trains)
        self._trains.clear()
        self._still.clear()
        self._disk.crash(power=silent)

    def lose_disk(self) -> None:
        """While it is off: the disk is replaced by an empty one. The key was kept elsewhere."""
        assert not self.alive, "a disk is replaced while the machine is off"
        self._disk.wipe()
        self._results.clear()
        self._cached.clear()
        self._checkers.disk_lost(self.node_id)

    def leave(self) -> None:
        """Go down politely: leases are handed back first."""
        self._checkers.killed += len(self._trains)
        self.post(ev.Drain(now=True))

    @property
    def held(self) -> bool:
        """Whether it handles nothing: stopped, or asleep."""
        return self._clock.held

    def pause(self, *, asleep: bool) -> None:
        """Handle nothing for a while, without dying.

        ``asleep``: the whole machine sleeps, so its tasks do, too, and its monotonic clock stands. Otherwise only the node is
        stopped (SIGSTOP): its tasks run on and its clock counts the time.
        """
        if self.alive and not self.held:
            self.naps += 1
            self._clock.hold(asleep=asleep)
            self._network.hush(self)

    def resume(self, nap: int) -> None:
        """Go on after that pause, with everything that came meanwhile."""
        if self.alive and self.held and self.naps == nap:
            slept_s, counted = self._clock.release()
            self._network.wake(self)
            if slept_s >= WOKE_S:
                self.post(ev.Woke(slept_s=slept_s, counted=counted))
            self.post(ev.Tick(wall=self._wall()))
            waiting, self._waiting = self._waiting, []
            for event, trace in waiting:
                self.post(event, trace)

    @property
    def skew_ms(self) -> int:
        """How wrong its wall clock is."""
        return self._skew_ms

    def step_clock(self, step_ms: int) -> None:
        """Set the wall clock; the node notices when it does something next."""
        self._skew_ms += step_ms
        if self.alive:
            self.post(ev.Tick(wall=self._wall()))

    def set_commit_s(self, commit_s: tuple[float, float]) -> None:
        """Let commits take so long from now on."""
        self._disk.commit_s = commit_s

    def submit(self, plan: JobPlan) -> None:
        """Let the user of this host submit a job."""
        job = JobId(self._rng.randbytes(16))
        key, reply = self._rng.randbytes(32), self._rng.randbytes(32)
        manifest = Manifest(
            mesh=prims.mesh_id(self._root.public),
            node=self.node_id,
            owner=self._plan.owner,
            job=job,
            tasks=plan.tasks,
            resources=plan.resources,
            limits=plan.limits,
            retries=plan.retries,
            priority=plan.priority,
            reply=prims.x25519_public(reply),
            commit=seal.commitment(key),
            body=(BlobRef(self._rng.randbytes(32), 4096),),
            submitted=self._world.wall(),
            expires=Wall(self._world.wall() + 7 * 24 * 3600 * 1000),
        )
        self._jobs[job] = plan
        self._checkers.submitted(self.node_id, job, plan.tasks, plan.retries)
        submitted = ev.Submitted(
            manifest=sign.sign(self._key, manifest), key=key, reply_secret=reply, wall=self._wall()
        )
        self._submitted.append((job, submitted))
        if self.alive:
            self.post(submitted)
        if plan.cancel_s is not None:
            self._world.after(plan.cancel_s, self._cancel, job, plan.cancel_task)

    def ban_owner(self, owner: str) -> None:
        """Let the user of this host, an admin, put all nodes of an owner out."""
        wall = self._wall()
        signed = trust.issue_ban(self._root, self._root.public, owner, at=wall)
        self.post(ev.OwnerBanAsked(owner=owner, banned=True, signed=signed))

    def keeps_out(self, node: NodeId, owner: str) -> bool:
        """Tell whether a node is banned here."""
        return self.node.banned(node, owner)

    def works_for(self, owner: str) -> int:
        """Return how many attempts of others' jobs of that owner run here or wait, and how many results are kept for it."""
        guests = [guest for guest in self.node.guests(self._clock.now) if guest.owner == owner and not guest.own]
        running = [key for key in self._running if key[0] != self.node_id and self._network.host(key[0]).owner == owner]
        kept = sum(each.results for each in self.node.policy().kept if each.owner == owner)
        return max(len(guests), len(running)) + kept

    def _cancel(self, job: JobId, task: int | None) -> None:
        if self.alive:
            self.post(ev.CancelAsked(job=job, task=task, wall=self._wall()))

    def hello(self, address: str, *, dialled: bool, minor: int, path: tuple[NodeId, ...] = ()) -> ev.LinkUp:
        """Return what a peer that speaks ``minor`` learns of this host when a link comes up, over these bridges."""
        me = self._identity
        return ev.LinkUp(
            peer=me.node,
            name=me.name,
            owner=me.owner,
            caps=me.caps,
            boot=me.boot,
            minor=min(minor, self.minor),
            prekey=self.node.prekeys.public,
            address=address,
            dialled=dialled,
            path=path,
            certs=self._certs,
        )

    def _wall(self) -> Wall:
        return Wall(self._world.wall() + self._skew_ms)

    def _tell_wall(self, life: int) -> None:
        if life == self.life and self.alive:
            self.post(ev.Tick(wall=self._wall()))
            self._clock.after(WALL_S, self._tell_wall, life)

    # -- turns ----------------------------------------------------------------------------------------------------------

    def post(self, event: ev.Event, trace: bytes = b"") -> None:
        """Something happens here. ``trace`` is what the digest takes of it, where that is not the event itself."""
        if self.held:
            self._waiting.append((event, trace))
            return
        now = self._clock.now
        self._world.events += 1
        self._world.trace(self.index, trace or codec.encode(event))
        effects = self.node.handle(event, now)
        self._turns += 1
        if self._turns % self._check_every == 0:
            self.node.check()
        self._disk.take(effects)
        self._arm()

    def _arm(self) -> None:
        at = self.node.deadline
        if at is not None and at < self._wake:
            now = self._clock.now
            assert at > now, "a deadline that does not pass"
            self._wake = at
            self._clock.at(at, self._awake, self.life, at)

    def _awake(self, life: int, at: float) -> None:
        if life != self.life or at != self._wake or not self.alive:
            return
        self._wake = inf
        due = self.node.deadline
        if due is not None and due <= self._clock.now:
            self.post(ev.Tick())
        else:
            self._arm()

    # -- effects --------------------------------------------------------------------------------------------------------

    def _perform(self, effect: fx.Effect) -> None:  # noqa: C901, PLR0912  one arm per effect
        match effect:
            case fx.Send():
                self._say(effect.peer, effect.message)
            case fx.Emit():
                name = type(effect.notice).__name__
                if isinstance(effect.notice, AttemptLost):
                    name += f"({effect.notice.fault})"
                self._world.notices[name] += 1
            case fx.Start():
                self._start(effect)
            case fx.Train(starts=starts):
                self._trains.couple(starts)
            case fx.Kill():
                self._still.pop((effect.master, effect.lease), None)
                self._trains.over((effect.master, effect.lease), None)
            case fx.Suspend():
                self._still.setdefault((effect.master, effect.lease), [])
            case fx.Continue():
                for step in self._still.pop((effect.master, effect.lease), ()):
                    self._world.after(0.0, step)
            case fx.Fetch():
                self._clock.after(self._rng.uniform(*TRANSFER_S), self._fetched, self.life, effect.job)
            case fx.Release():
                self._results.pop(_blob(effect.master, effect.lease), None)
            case fx.Collect():
                self._clock.after(self._rng.uniform(*TRANSFER_S), self._collected, self.life, effect)
            case fx.Deliver():
                self._clock.after(self._rng.uniform(*DELIVER_S), self._deliver, self.life, effect)
            case fx.Dial():
                self._network.dial(self, effect.address, effect.node)
            case fx.Hangup():
                self._network.hang_up(self, effect.peer, effect.reason)
            case fx.Drop():
                self._world.drops[effect.reason] += 1
                if effect.close:
                    self._network.hang_up(self, effect.peer, effect.reason)
            case fx.Forget() | fx.Record():  # nothing is pinned here
                assert isinstance(effect, fx.Forget), "the disk lets no record through"

    def _say(self, peer: NodeId, message: msg.CoreMessage) -> None:
        self._checkers.said(self.node_id, peer, message)
        self._network.send(self, peer, message)

    def _start(self, start: fx.Start) -> None:
        self._checkers.started(self.node_id, start)
        self._serial += 1
        key = (start.master, start.lease)
        self._running[key] = self._serial
        prepare_s = self._rng.uniform(*START_S)
        if start.job not in self._cached:
            prepare_s += self._rng.uniform(*TRANSFER_S)
        self._clock.after(prepare_s, self._started, self._serial, start)

    def _fetched(self, life: int, job: JobId) -> None:
        if life == self.life:
            self._cached[job] = None

    def _runs(self, serial: int, start: fx.Start) -> bool:
        return self._running.get((start.master, start.lease)) == serial

    def _stands(self, start: fx.Start, step: Callable[[], None]) -> bool:
        """Tell whether an attempt stands still; then the step is taken when it goes on."""
        steps = self._still.get((start.master, start.lease))
        if steps is not None:
            steps.append(step)
        return steps is not None

    def _started(self, serial: int, start: fx.Start) -> None:
        if not self._runs(serial, start) or self._stands(start, partial(self._started, serial, start)):
            return
        if self._rng.random() < self._misfortune.fault:
            fault: Fault = "fetch" if start.job not in self._cached else "sandbox"
            self.post(ev.Faulted(lease=start.lease, master=start.master, fault=fault, detail="simulated"))
            self._trains.over((start.master, start.lease), None)
            return
        self._cached[start.job] = None
        length_s, outcome = self._behaviour(self._jobs[start.job], start)
        self.post(ev.Started(lease=start.lease, master=start.master))
        self._clock.after_of_task(length_s, self._exited, serial, start, outcome)
        self._trains.runs((start.master, start.lease), length_s)

    def _behaviour(self, plan: JobPlan, start: fx.Start) -> tuple[float, Outcome]:
        """Return how long an attempt runs here and how it ends."""
        if self._plan.fails_s is not None:
            return self._plan.fails_s, Outcome(reason="exit", exit=1, run_ms=round(1000 * self._plan.fails_s))
        length_s = min(self._plan.slower * plan.length_s(start.job, start.task), plan.limits.time_s)
        return length_s, outcome_of(plan, start.job, start.task, start.attempt, length_s)

    def _exited(self, serial: int, start: fx.Start, outcome: Outcome) -> None:
        if not self._runs(serial, start) or self._stands(start, partial(self._exited, serial, start, outcome)):
            return
        blob = _blob(start.master, start.lease)
        self._results[blob] = None
        self._checkers.exited(self.node_id, start.master, start.lease, outcome)
        body = (BlobRef(blob, 512),)
        exited = ev.Exited(lease=start.lease, master=start.master, outcome=outcome, sandbox=start.sandbox, body=body)
        self._trains.over((start.master, start.lease), exited)

    def holds(self, blob: bytes) -> bool:
        """Tell whether that part of a result lies here."""
        return blob in self._results

    def _collected(self, life: int, collect: fx.Collect) -> None:
        if life != self.life:
            return
        worker = self._network.host(collect.peer)
        if collect.peer != self.node_id and not self._reaches(worker, collect.through):
            self.post(ev.CollectFailed(lease=collect.lease, reason="not linked"))
        elif worker.held and worker is not self:
            self.post(ev.CollectFailed(lease=collect.lease, reason="no answer"))
        elif self._rng.random() < self._misfortune.collect:
            self.post(ev.CollectFailed(lease=collect.lease, reason="simulated"))
        elif not all(worker.holds(ref.blob) for ref in collect.blobs):
            self._world.drops["result gone"] += 1
            self.post(ev.CollectFailed(lease=collect.lease, reason="gone"))
        else:
            self.post(ev.Collected(lease=collect.lease))

    def _reaches(self, worker: End, through: NodeId | None) -> bool:
        if through is None:
            return self._network.linked(self.index, worker.index)
        return self._network.carries(self.index, through, worker.node_id)

    def leads_to(self, node: NodeId) -> NodeId | None:
        """Return the bridge that leads from here to a node that is not linked."""
        return self.node.bridge_of(node) if self.alive else None

    def _deliver(self, life: int, deliver: fx.Deliver) -> None:
        if life != self.life:
            return
        if self._rng.random() < self._misfortune.deliver:
            self.post(ev.DeliverFailed(job=deliver.job, task=deliver.task, reason="simulated"))
        else:
            self._checkers.written(self.node_id, deliver.job, deliver.task)
            self.post(ev.Delivered(job=deliver.job, task=deliver.task, wall=self._wall()))

    @property
    def idle(self) -> bool:
        """Whether it holds nothing: no lease, no result, no attempt, be it as a bridge."""
        return not (self._running or self.node.busy or self.node.carries or self.node.policy().kept)
