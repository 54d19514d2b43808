"""Plays a scenario from a seed: builds hosts, lets things go wrong, heals, waits for everything to end, and judges."""

import gc
from random import Random
from time import perf_counter

import msgspec

from p2pq.core.through import cluster_of
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId
from p2pq.model.job import Profile
from p2pq.wire import trust
from simulations.checkers import Checkers, insist
from simulations.host import WALL_S, Host
from simulations.liar import Liar, habits_of
from simulations.nemesis import Nemesis
from simulations.network import Network
from simulations.office import Office
from simulations.plans import Misfortune, Plan
from simulations.scenarios import Scenario
from simulations.sizes import size_of
from simulations.work import JobPlan
from simulations.world import World

LINKS_MAX = 64
PATIENCE_S = 1800.0
"""Everything must have ended so long after the faults, beyond the time that the work itself takes."""
START_S = 3.0
"""The first submissions: by then everybody has met."""
SETTLE_S = 240.0
"""After the last job has ended: so long until every worker has forgotten what it held."""


NODE_BYTES_MAX = 60_000
PEER_BYTES_MAX = 3_000
LEASE_BYTES_MAX = 100
"""What a node may hold in memory when all is over, for each other node, and for each lease that was ever granted: those that
brought no result stay holes between the settled ones."""
WAY_BYTES_MAX = 700
"""... and for each bridge and other node: the address through that bridge, and how the bridge reaches it."""
SPOKEN_BYTES_MAX = 5_000
"""Where bridges batch, for each bridge and other node: as a master that is shown, and as a leaf with its certificates."""
MASTER_BYTES_MAX = 5_000
LEAF_BYTES_MAX = 1_000
JOB_BYTES_MAX = 5_000
"""... and at such a bridge for each master, for each leaf of each master, and for each job (its manifest and its keys)."""
GRANT_MESSAGES_MAX = 6
LINK_MESSAGES_MAX = 8
"""Messages per attempt granted, besides one to each node that it may be offered to, and per end of a link that came up,
besides one a minute."""
REACH_MESSAGES_MAX = 2
"""... and where bridges carry links, for each link that came up at one, and each node: that it is reached, and is no more."""
SHOWN_MESSAGES_MAX = 8
"""... and where bridges batch, for each link that came up at one, and any two nodes that it joins: each is shown to the other as
a master and parted again, and says to it what it holds and offers."""
LEFT_MESSAGES_MAX = 4
"""... and once a way that brought nothing is left for another one (docs/adr/0205): the end of the one, and on the other what a
worker holds and offers, and that it takes part there."""


class Report(msgspec.Struct, kw_only=True):
    """The figures of one run."""

    seed: int
    nodes: int
    slots: int
    tasks: int
    settled: int
    states: dict[str, int]
    makespan_s: float
    """From the first submission until the last job ended."""
    ideal_s: float
    """What the work would take if it were cut finely and no slot ever stood idle."""
    attempts: int
    again: int
    """Second attempts of tasks whose first was under way."""
    last_attempts: int
    """Of these, on the last host."""
    messages: int
    bytes: int
    lost: int
    events: int
    crashes: int
    power_losses: int
    undone: int
    """Rows that losses of power undid."""
    wipes: int
    lost_jobs: int
    """They went with the disk of their master."""
    cuts: int
    flaps: int
    pauses: int
    lies: int
    notices: dict[str, int]
    drops: dict[str, int]
    digest: str
    took_s: float
    """Of real time."""

    def text(self) -> str:
        """Return the figures for people."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        notices = ", ".join(f"{name} {count}" for name, count in sorted(self.notices.items()))
        drops = ", ".join(f"{reason!r} {count}" for reason, count in sorted(self.drops.items())) or "none"
        return "\n".join(
            (
                f"seed {self.seed}: {self.nodes} nodes, {self.slots} slots, {self.tasks} tasks",
                f"settled   {self.settled} ({states})",
                f"makespan  {self.makespan_s:.1f} s simulated (the work alone: {self.ideal_s:.1f} s)",
                f"attempts  {self.attempts} ({self.last_attempts} on the last host)",
                f"messages  {self.messages} ({self.bytes / 1e6:.1f} MB, {self.lost} lost)",
                f"faults    {self.crashes} crashes, {self.cuts} partitions, {self.flaps} flapping hosts, {self.pauses} stops",
                f"lies      {self.lies}",
                f"power     {self.power_losses} losses, {self.undone} rows undone",
                f"disks     {self.wipes} lost, and {self.lost_jobs} jobs with them",
                f"notices   {notices}",
                f"refused   {drops}",
                f"events    {self.events} in {self.took_s:.1f} s ({self.events / max(1e-9, self.took_s):.0f}/s)",
                f"digest    {self.digest}",
            )
        )


class Play:
    """One run. ``run`` may be called once."""

    def __init__(self, scenario: Scenario, seed: int, nodes: int = 0, tasks: int = 0) -> None:
        """Build everything; 0 nodes or tasks means as many as the scenario says."""
        self.scenario = scenario
        self.seed = seed
        self.nodes = nodes or scenario.nodes
        self.tasks = tasks or scenario.tasks
        self.world = World(seed)
        self.checkers = self._judge()
        self.misfortune = Misfortune()
        self.jobs: dict[JobId, JobPlan] = {}
        rng = self.world.rng("play")
        self.masters = min(scenario.masters, self.nodes - 1)
        self.network = Network(self.world, self._may_link)
        root = trust.make_root(rng.randbytes)
        self.office = Office(root, rng.randbytes, self.world.wall())
        plans = [self._plan(index, rng) for index in range(self.nodes)]
        faults = scenario.faults(rng)
        self.hosts = [self._host(plan, faults.liars) for plan in plans]
        self.slots = sum(plan.profile.slots for plan in plans if "work" in plan.caps)
        self.network.connect(self.hosts)
        self.nemesis = Nemesis(self.world, self.network, self.misfortune, self.hosts, faults)
        self._submissions(rng)

    def _judge(self) -> Checkers:
        """Return what looks at it."""
        return Checkers()

    def _host(self, plan: Plan, liars: float) -> Host:
        rng = self.world.rng(f"habits {plan.index}")
        hostile = not plan.submits and rng.random() < liars
        host = (Liar if hostile else Host)(
            self.world, self.network, self.checkers, self.misfortune, self.office, plan, ScheduleSettings(), self.jobs,
            self.scenario.checks,
        )  # fmt: skip
        if plan.batching and plan.bridging:
            self.checkers.speaks(cluster_of(host.node_id))
        if isinstance(host, Liar):
            host.vow(habits_of(rng))
            self.checkers.distrust(host.node_id)
        return host

    @property
    def troubled(self) -> bool:
        """Whether anything goes wrong in this run."""
        return self.nemesis.faults.any or self.scenario.script is not None

    def _may_link(self, one: int, other: int) -> bool:
        if self.scenario.bridges:
            return not self._stands_in(one).isdisjoint(self._stands_in(other))
        return not self.masters or (one < self.masters) != (other < self.masters)

    def _stands_in(self, index: int) -> frozenset[int]:
        """Return the networks of a host."""
        clusters, bridges = self.scenario.clusters, self.scenario.bridges
        if index < bridges:
            return frozenset((index % (clusters - 1), index % (clusters - 1) + 1))
        return frozenset(((index - bridges) % clusters,)) if bridges else frozenset((0,))

    def _joins(self, one: int, other: int) -> float:
        """Return how many pairs of nodes the end at ``one`` of a link joins that would not be linked without a bridge."""
        if one >= self.scenario.bridges:
            return 0
        here, there = self._stands_in(one), self._stands_in(other)
        if other >= self.scenario.bridges or here == there:
            return self.nodes
        low, high = min(here | there), max(here | there)
        stand = [self._stands_in(index) for index in range(self.nodes)]
        # The other end of a link between bridges counts the other half.
        return sum(min(each) <= low for each in stand) * sum(max(each) >= high for each in stand) / 2

    def _should_link(self, one: int, other: int) -> bool:
        """Tell whether two hosts must be linked once all is well, be it over bridges."""
        return self._may_link(one, other) or (bool(self.scenario.bridges) and not self.scenario.batching)

    def _plan(self, index: int, rng: Random) -> Plan:
        slots = rng.randint(*self.scenario.slots)
        offer = Profile(slots=slots, memory_mb=1024 * slots, sandbox="strict", accepts=True)
        if not self.masters:
            own = Profile(
                slots=slots if self.scenario.own else rng.choice((0, slots)),
                memory_mb=1024 * slots,
                sandbox="strict",
                accepts=True,
            )
            return Plan(
                index=index, name=f"n{index}", owner=f"o{index % 5}", profile=offer, own=own,
                caps=("bridge", "submit", "work") if index < self.scenario.bridges else ("submit", "work"),
                bridging=index < self.scenario.bridges, batching=self.scenario.batching, listens=True, submits=index < 5,
                links_max=self.scenario.links_max or max(LINKS_MAX, self.nodes),
                dials=tuple(other for other in range(index) if self._may_link(index, other)),
                skew_ms=rng.randint(-self.scenario.skew_ms, self.scenario.skew_ms),
            )  # fmt: skip
        if index < self.masters:
            return Plan(
                index=index, name=f"m{index}", owner=f"o{index}", caps=("submit",), profile=Profile(), own=Profile(),
                links_max=self.nodes, listens=True, submits=True, dials=(),
            )  # fmt: skip
        return Plan(
            index=index, name=f"w{index}", owner="workers", caps=("work",), profile=offer, own=Profile(),
            links_max=self.masters, listens=False, submits=False, dials=tuple(range(self.masters)),
            slower=self.scenario.slower if index == self.nodes - 1 else 1.0,
            fails_s=self.scenario.fails_s if index == self.nodes - 1 else None,
        )  # fmt: skip

    def _submissions(self, rng: Random) -> None:
        submitters = [host for host in self.hosts if host.submits]
        self.work_s = 0.0
        for number, plan in enumerate(self.scenario.work(rng, self.tasks)):
            host = submitters[number % len(submitters)]
            self.world.after(START_S + rng.uniform(0.0, self.scenario.arrive_s), host.submit, plan)
            self.work_s += plan.tasks * plan.mean_s * plan.resources.cpus
            self.checkers.expected += 1

    def run(self) -> Report:
        """Play it.

        Raises:
            Broken: a promise of the system does not hold.
            AssertionError: an invariant of a node does not hold.
        """
        collects = gc.isenabled()
        gc.disable()  # a run makes hardly any cycles, and looking for them among all these nodes takes time
        try:
            return self._run()
        finally:
            if collects:
                gc.enable()

    def _run(self) -> Report:
        began = perf_counter()
        world = self.world
        for host in self.hosts:
            world.after(world.rng(f"boot {host.index}").uniform(0.0, 0.5), host.start)
        self.nemesis.begin()
        if self.scenario.script is not None:
            self.scenario.script(self)
        if self.troubled:
            world.run(self.scenario.faults_s, lambda: False)
        self.nemesis.heal()
        world.run(world.now + PATIENCE_S + 20 * self.work_s / self.slots, self.checkers.done)
        makespan_s = world.now - START_S
        self.checkers.finish(clean=not self.troubled)
        world.run(world.now + SETTLE_S, lambda: False)
        self._converged()
        return self._report(makespan_s, perf_counter() - began)

    def _converged(self) -> None:
        for host in self.hosts:
            insist(host.alive, "a host never came back")
            host.node.check()
            # With few links a worker and the master of what it still holds may never meet again.
            insist(
                host.idle or self.scenario.links_max is not None or host.owner == self.scenario.revoked,
                "a worker still holds something though all jobs have ended",
            )
            insist(not host.node.jobs(), "a master still has a job that has ended")
            insist(size_of(host.node) <= self._bytes_max(host), "a node remembers more than it has a use for")
        if not self.nemesis.faults.liars:
            notices = self.world.notices
            said = (
                (GRANT_MESSAGES_MAX + self.nodes) * notices["TaskGranted"]
                + LINK_MESSAGES_MAX * notices["PeerUp"]
                + self.nodes * self.world.now / ScheduleSettings().heartbeat_s
                + 2 * len(self.network.links()) * self.world.now / WALL_S
                + 100
            )
            if self.scenario.batching:
                joined = sum(self._joins(*ends) * count for ends, count in self.network.ups.items())
                said += SHOWN_MESSAGES_MAX * joined + LEFT_MESSAGES_MAX * notices["WayLeft"]
            else:
                at_bridges = sum(count for ends, count in self.network.ups.items() if ends[0] < self.scenario.bridges)
                said += REACH_MESSAGES_MAX * self.nodes * at_bridges
            insist(self.network.messages <= said, "more was said than the work and the links called for")
        for one in self.hosts:
            for other in self.hosts[: one.index]:
                revoked = self.scenario.revoked in (one.owner, other.owner)
                if self.scenario.links_max is None and self._should_link(one.index, other.index) and not revoked:
                    insist(self.network.linked(one.index, other.index), "two hosts never found each other again")

    def _bytes_max(self, host: Host) -> int:
        """Return how much a node has a use for when all is over."""
        most = NODE_BYTES_MAX + PEER_BYTES_MAX * self.nodes + LEASE_BYTES_MAX * self.world.notices["TaskGranted"]
        most += WAY_BYTES_MAX * self.nodes * self.scenario.bridges
        if self.scenario.batching:
            most += SPOKEN_BYTES_MAX * self.nodes * self.scenario.bridges
            if host.index < self.scenario.bridges:
                most += self.nodes * (MASTER_BYTES_MAX + LEAF_BYTES_MAX * self.nodes) + JOB_BYTES_MAX * len(self.jobs)
        return most

    def _report(self, makespan_s: float, took_s: float) -> Report:
        return Report(
            seed=self.seed,
            nodes=self.nodes,
            slots=self.slots,
            tasks=self.tasks,
            settled=self.checkers.settled,
            states=dict(self.checkers.states),
            makespan_s=makespan_s,
            ideal_s=self.work_s / self.slots,
            attempts=self.checkers.starts,
            again=self.checkers.again,
            last_attempts=self.checkers.starts_at[self.hosts[-1].node_id],
            messages=self.network.messages,
            bytes=self.network.bytes,
            lost=self.network.lost,
            events=self.world.events,
            crashes=self.nemesis.crashes,
            power_losses=self.nemesis.power_losses,
            undone=self.checkers.undone_rows,
            wipes=self.nemesis.wipes,
            lost_jobs=self.checkers.lost_jobs,
            cuts=self.nemesis.cuts,
            flaps=self.nemesis.flaps,
            pauses=self.nemesis.pauses,
            lies=sum(host.lies for host in self.hosts if isinstance(host, Liar)),
            notices=dict(self.world.notices),
            drops=dict(self.world.drops),
            digest=self.world.digest(),
            took_s=took_s,
        )


def play(scenario: Scenario, seed: int, nodes: int = 0, tasks: int = 0) -> Report:
    """Play a scenario from a seed and return its figures; raises as ``Play.run`` does."""
    return Play(scenario, seed, nodes, tasks).run()
