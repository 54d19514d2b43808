"""Pinned runs: how many nodes, what they are asked to do, what goes wrong meanwhile."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol

import msgspec

from p2pq.model.ids import Mono
from simulations import people
from simulations.checkers import insist
from simulations.host import Host
from simulations.nemesis import Faults
from simulations.work import JobPlan, workload
from simulations.world import World


class Stage(Protocol):
    """What a script acts on."""

    @property
    def world(self) -> World:
        """The clock."""
        ...

    @property
    def hosts(self) -> Sequence[Host]:
        """The machines, masters first."""
        ...


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of run. What is drawn comes from the seed."""

    about: str
    nodes: int = 20
    tasks: int = 300
    masters: int = 0
    """Nodes that submit, linked to workers only; 0: everybody is linked to everybody, and several submit."""
    slots: tuple[int, int] = (1, 4)
    own: bool = False
    """Everybody runs own work on all slots; otherwise some do and some do not."""
    links_max: int | None = None
    """Links of one node, where not everybody may be linked to everybody."""
    clusters: int = 1
    """Networks in a row; from one to another leads no way but over the bridges."""
    bridges: int = 0
    """How many; the first hosts, of which each stands in two networks that are side by side."""
    batching: bool = False
    """Bridges speak for the workers below, instead of carrying links."""
    skew_ms: int = 2000
    """How wrong wall clocks are at most."""
    faults: Callable[[Random], Faults] = lambda _: Faults()
    faults_s: float = 60.0
    """Things go wrong for so long."""
    work: Callable[[Random, int], list[JobPlan]] = lambda rng, tasks: workload(rng, tasks, 2.0)
    arrive_s: float = 30.0
    """The jobs are submitted within so many seconds."""
    slower: float = 1.0
    """On the last host attempts take so many times as long."""
    fails_s: float | None = None
    """On the last host every attempt fails after so long."""
    script: Callable[[Stage], None] | None = None
    """What happens besides the faults that are drawn."""
    revoked: str = ""
    """An owner that is banned meanwhile: its nodes are not linked to anybody in the end."""
    checks: int = 1
    """The invariants of a node are checked every so many events of it."""


def swarm_faults(rng: Random) -> Faults:
    """Draw a bit of everything, from the seed."""
    few = (0.0, 0.3, 1.0)
    return Faults(
        crash_every_s=rng.choice((0.0, 5.0, 15.0)),
        down_s=rng.choice((0.5, 5.0, 30.0)),
        power=rng.choice((0.1, 0.5, 1.0)),
        wipe=rng.choice((0.0, 0.0, 0.05, 0.2)),
        leave_every_s=rng.choice((0.0, 20.0)),
        pause_every_s=rng.choice((0.0, 10.0)),
        pause_s=rng.choice((2.0, 30.0, 300.0)),
        asleep=rng.choice((0.0, 0.5, 1.0)),
        slow_disk_every_s=rng.choice((0.0, 0.0, 10.0)),
        step_every_s=rng.choice((0.0, 0.0, 10.0)),
        flap_every_s=rng.choice((0.0, 0.0, 20.0)),
        cut_every_s=rng.choice((0.0, 10.0, 30.0)),
        cut_s=rng.choice((3.0, 20.0, 90.0)),
        drop_every_s=rng.choice((0.0, 0.5, 3.0)),
        clog_every_s=rng.choice((0.0, 3.0)),
        loss=0.003 * rng.choice(few),
        duplicates=0.1 * rng.choice(few),
        delay_s=rng.choice(((0.0002, 0.002), (0.01, 0.1), (0.001, 1.5))),
        liars=rng.choice((0.0, 0.0, 0.1, 0.3)),
        fault=0.1 * rng.choice(few),
        collect=0.2 * rng.choice(few),
        deliver=0.2 * rng.choice(few),
        packs=rng.choice((0.0, 0.5, 1.0)),
    )


def _equal(mean_s: float) -> Callable[[Random, int], list[JobPlan]]:
    return lambda _, tasks: [JobPlan(tasks=tasks, mean_s=mean_s)]


def _broken(_: Random, tasks: int) -> list[JobPlan]:
    return [JobPlan(tasks=max(1, tasks // 2), mean_s=0.005, fails=1.0), JobPlan(tasks=max(1, tasks // 2), mean_s=1.0)]


def _failing(_: Random, tasks: int) -> list[JobPlan]:
    return [
        JobPlan(tasks=max(1, tasks // 2), mean_s=0.1, fails=0.5, retries=3),
        JobPlan(tasks=max(1, tasks // 4), mean_s=0.01, fails=1.0, retries=2),
        JobPlan(tasks=max(1, tasks // 4), mean_s=1.0, retries=0),
    ]


def _thousand(_: Random, tasks: int) -> list[JobPlan]:
    return [
        JobPlan(tasks=max(1, tasks // 20), mean_s=5.0, shape="exponential", fails=0.01, retries=3) for _ in range(20)
    ]


def _pause(stage: Stage, index: int, at: float, seconds: float, *, asleep: bool) -> None:
    host = stage.hosts[index]
    stage.world.at(at, lambda: host.pause(asleep=asleep))
    stage.world.at(at + seconds, lambda: host.resume(host.naps))


def _sleeper(stage: Stage) -> None:
    """Stop the node of one worker, and let another sleep, both for five minutes."""
    _pause(stage, 2, 30.0, 300.0, asleep=False)
    _pause(stage, 3, 40.0, 300.0, asleep=True)


def _sleeping_master(stage: Stage) -> None:
    _pause(stage, 0, 30.0, 300.0, asleep=False)
    _pause(stage, 0, 400.0, 300.0, asleep=True)


def _wrong_clock(stage: Stage) -> None:
    """Set the clock of one worker 20 minutes ahead, for good."""
    stage.world.at(10.0, lambda: stage.hosts[-1].step_clock(20 * 60 * 1000))


REVOKED: Final = "o1"
BANNED_S: Final = 80.0
HEALED_S: Final = 130.0
REVOKED_S: Final = 60.0
"""So long after everything can be reached again nothing of a banned owner runs anywhere."""


def _long(_: Random, tasks: int) -> list[JobPlan]:
    """Draw a job for each of the five that submit; that of the second, whose owner is banned, would run for much longer."""
    return [
        JobPlan(tasks=tasks // 5, mean_s=600.0, cancel_s=400.0)
        if number == 1
        else JobPlan(tasks=tasks // 5, mean_s=10.0)
        for number in range(5)
    ]


def _revocation(stage: Stage) -> None:
    """Ban an owner while half of the nodes are cut off and its job runs everywhere; judge a minute after all is mended."""
    stage.world.at(BANNED_S, lambda: _ban(stage))
    stage.world.at(HEALED_S + REVOKED_S, lambda: _judge_revocation(stage))


def _ban(stage: Stage) -> None:
    others = [host for host in stage.hosts if host.owner != REVOKED]
    insist(
        sum(host.works_for(REVOKED) > 0 for host in others) >= len(others) // 3, "too little of it runs to be a test"
    )
    others[0].ban_owner(REVOKED)


def _judge_revocation(stage: Stage) -> None:
    for host in stage.hosts:
        if host.owner != REVOKED:
            insist(
                host.node.banned(host.node_id, REVOKED), "a node has not heard of the ban a minute after all is mended"
            )
            insist(not host.works_for(REVOKED), "something of a banned owner still runs or is kept")
            linked = [peer for peer in host.node.peers(Mono(stage.world.now)) if peer.state == "up"]
            insist(all(peer.owner != REVOKED for peer in linked), "somebody is linked who is banned")


def _people(mode: str) -> Scenario:
    """Return a run in which every machine is somebody's, who comes and goes."""
    return Scenario(
        about=f"people come and go at every machine, whose policy is: {mode}",
        faults=lambda _: Faults(
            crash_every_s=10.0,
            cut_every_s=20.0,
            cut_s=20.0,
            pause_every_s=10.0,
            pause_s=10.0,
            asleep=0.5,
            drop_every_s=5.0,
            packs=0.5,
        ),
        faults_s=120.0,
        work=lambda rng, tasks: workload(rng, tasks, 5.0),
        script=lambda stage: people.come_and_go(stage, people.settings(mode)),
    )


SCENARIOS: Final[dict[str, Scenario]] = {
    "clean": Scenario(about="nothing goes wrong"),
    "swarm": Scenario(about="a bit of everything, drawn from the seed", faults=swarm_faults, faults_s=120.0),
    "lossy": Scenario(
        about="links break with what is on their way; single messages are lost or come twice",
        faults=lambda _: Faults(drop_every_s=0.5, loss=0.002, duplicates=0.1, delay_s=(0.001, 0.3)),
    ),
    "crashes": Scenario(
        about="machines crash, lose power and come back; some leave politely",
        faults=lambda _: Faults(crash_every_s=2.0, leave_every_s=10.0, fault=0.02, deliver=0.1),
    ),
    "power": Scenario(
        about="the power fails again and again: what was not synced is lost",
        faults=lambda _: Faults(crash_every_s=1.5, power=1.0, down_s=3.0, fault=0.02, deliver=0.1),
    ),
    "disks": Scenario(
        about="machines come back without their disks",
        faults=lambda _: Faults(crash_every_s=4.0, wipe=0.5, power=0.5),
    ),
    "partitions": Scenario(
        about="the network is cut in two, both ways or one, for longer than a lease; links clog, machines hang",
        faults=lambda _: Faults(cut_every_s=8.0, cut_s=60.0, clog_every_s=2.0, pause_every_s=10.0, pause_s=10.0),
        faults_s=200.0,
        work=lambda rng, tasks: workload(rng, tasks, 20.0),
    ),
    "revoked": Scenario(
        about="an owner is banned while its job runs and the network is cut in two again and again",
        faults=lambda _: Faults(cut_every_s=5.0, cut_s=30.0, drop_every_s=2.0, loss=0.002, duplicates=0.05),
        faults_s=HEALED_S, tasks=500, work=_long, arrive_s=5.0, script=_revocation, revoked=REVOKED,
    ),
    "liars": Scenario(
        about="a third of the machines without jobs of their own lie, repeat themselves, flood, fail and drop tasks",
        faults=lambda _: Faults(liars=0.34, drop_every_s=5.0),
        faults_s=90.0,
    ),
    "thousand": Scenario(
        about="1,000 nodes, 10 of them masters, links only between masters and workers, all faults",
        nodes=1000,
        tasks=20_000,
        masters=10,
        faults=lambda _: Faults(
            crash_every_s=1.0, cut_every_s=10.0, cut_s=30.0, drop_every_s=0.2, clog_every_s=1.0, loss=0.0005,
            duplicates=0.02, delay_s=(0.0005, 0.02), fault=0.005, collect=0.01, deliver=0.01,
        ),
        faults_s=60.0,
        work=_thousand,
        checks=2000,
    ),
    "sleeper": Scenario(
        about="one worker's node is stopped for five minutes, another worker's machine sleeps for as long",
        nodes=7, masters=1, slots=(1, 1), tasks=240, work=_equal(10.0), arrive_s=0.0, script=_sleeper, faults_s=345.0,
    ),
    "sleeping-master": Scenario(
        about="the master is stopped for five minutes, and later sleeps for as long",
        nodes=7, masters=1, slots=(1, 1), tasks=60, work=_equal(50.0), arrive_s=0.0, script=_sleeping_master,
        faults_s=705.0,
    ),
    "wrong-clock": Scenario(
        about="the clock of one worker of five is soon 20 minutes ahead",
        nodes=6, masters=1, slots=(1, 1), tasks=200, work=_equal(1.0), arrive_s=0.0, script=_wrong_clock,
    ),
    "bridges": Scenario(
        about="three networks in a row and two bridges, all faults", clusters=3, bridges=2, faults=swarm_faults,
        faults_s=120.0,
    ),
    "two-bridges": Scenario(
        about="two networks and two bridges between them, all faults", clusters=2, bridges=2, faults=swarm_faults,
        faults_s=120.0,
    ),
    "batches": Scenario(
        about="two networks and two bridges between them that speak for the workers of either, all faults",
        clusters=2, bridges=2, batching=True, faults=swarm_faults, faults_s=120.0,
    ),
    "nested": Scenario(
        about="four networks in a row and three bridges that speak for the workers of those behind them, all faults",
        clusters=4, bridges=3, batching=True, faults=swarm_faults, faults_s=120.0,
    ),
    "nested-ring": Scenario(
        about="three networks in a row and four bridges that batch, two between any two, all faults",
        clusters=3, bridges=4, batching=True, faults=swarm_faults, faults_s=120.0,
    ),
    "blackhole": Scenario(
        about="every task fails within 5 ms on one worker of ten",
        nodes=11, masters=1, slots=(1, 1), tasks=10_000, work=_equal(0.1), fails_s=0.005, arrive_s=0.0, checks=500,
    ),
    "broken-job": Scenario(
        about="a job of which every attempt fails within 5 ms, and a good one after it",
        nodes=11, masters=1, slots=(1, 1), tasks=400, work=_broken, arrive_s=0.0,
    ),
    "one-node": Scenario(
        about="a mesh of one, and tasks that fail now and then or always", nodes=1, own=True, tasks=40, work=_failing,
        arrive_s=0.0,
    ),
    "two-nodes": Scenario(
        about="a mesh of two, and tasks that fail now and then or always", nodes=2, tasks=40, work=_failing, arrive_s=0.0,
    ),
    "slow-worker": Scenario(
        about="one worker of ten is 20 times slower", nodes=11, masters=1, slots=(1, 1), tasks=100, work=_equal(1.0),
        slower=20.0, arrive_s=0.0,
    ),
    "short": Scenario(about="one job of 10 ms tasks, clean", tasks=5000, masters=1, slots=(1, 1), nodes=11,
                      work=_equal(0.01), arrive_s=0.0, checks=100),
    "middle": Scenario(about="one job of 1 s tasks, clean", tasks=1000, masters=1, slots=(1, 1), nodes=11,
                       work=_equal(1.0), arrive_s=0.0, checks=100),
    "long": Scenario(about="one job of 100 s tasks, clean", tasks=100, masters=1, slots=(1, 1), nodes=11,
                     work=_equal(100.0), arrive_s=0.0, checks=100),
    "people-always": _people("always"),
    "people-idle": _people("idle"),
    "people-night": _people("night"),
    "people-screensaver": _people("screensaver"),
    "people-rule": _people("idle_s > 8 and load < 0.5 and not on_battery"),
}  # fmt: skip
