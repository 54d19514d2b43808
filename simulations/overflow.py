"""Own network first, measured: two networks and a bridge between, masters and workers on either side, nothing goes wrong.

``python -m simulations overflow`` prints when work goes over the bridge, how often the way opens, what it costs in time, and how
equally owners share the time of workers. Beside it stands the same without any of it: work is told to all at once, and workers
ask masters behind the bridge whenever those of their own network have nothing at that moment.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, Final

import msgspec

from p2pq.core import lately, records
from p2pq.core.crew import Crew
from p2pq.core.effects import Start
from p2pq.model.ids import LeaseId, NodeId
from p2pq.model.job import Outcome, Profile
from p2pq.wire import messages as msg
from simulations import bounds
from simulations.checkers import Checkers, insist
from simulations.fairness import jain
from simulations.host import Host
from simulations.plans import Plan
from simulations.play import START_S, Play
from simulations.scenarios import Scenario
from simulations.work import JobPlan

NEAR: Final = 0
FAR: Final = 1
FREE_S: Final = 0.1
"""A slot counts as free so long after a task ended there: by then a worker has asked and been answered."""
GOAL: Final = 0.98
"""Jain's index of the time of owners that are equals in nearness."""


class Seat(msgspec.Struct, frozen=True):
    """A host besides the bridge: in which network it stands, whose it is, its slots and what its user submits, and when."""

    side: int
    owner: str
    slots: int = 0
    jobs: tuple[tuple[float, JobPlan], ...] = ()


class Case(msgspec.Struct, frozen=True):
    """A mesh and its work."""

    name: str
    seats: tuple[Seat, ...]


class Figures(msgspec.Struct):
    """What was seen."""

    near: int = 0
    """Attempts begun in the network of their master."""
    far: int = 0
    early: int = 0
    """... of these, far ones that left a free slot of the master's network without a task."""
    first_far_s: float | None = None
    """From the first submission on."""
    openings: int = 0
    """How often a master told somebody behind the bridge of work who had been told that there was none."""
    makespan_s: float = 0.0
    given: dict[str, float] = {}
    """Slot-seconds by owner."""
    waits: dict[str, list[float]] = {}
    """From submission to the begin of each first attempt, by owner."""


class Watch(Checkers):
    """Checkers that count as well."""

    def __init__(self) -> None:
        """Have seen nothing."""
        super().__init__()
        self.mesh: Mesh

    def durable(self, host: NodeId, rows: Sequence[records.Row]) -> None:
        """A master has granted leases."""
        super().durable(host, rows)
        for row in rows:
            if isinstance(row, records.LeaseGranted):
                self.mesh.granted(host, row)

    def started(self, host: NodeId, start: Start) -> None:
        """A host begins to run an attempt."""
        super().started(host, start)
        self.mesh.began(host, start)

    def exited(self, host: NodeId, master: NodeId, lease: LeaseId, outcome: Outcome) -> None:
        """An attempt ran to its end there."""
        super().exited(host, master, lease, outcome)
        self.mesh.over(master, lease)


class Mesh(Play):
    """One run of a case. Host 0 is the bridge."""

    def __init__(self, case: Case, seed: int = 1) -> None:
        """Build it."""
        self.case = case
        self.figures = Figures(given={}, waits={})
        self.exited: set[tuple[NodeId, LeaseId]] = set()
        self.running: dict[tuple[NodeId, LeaseId], tuple[NodeId, Start, float]] = {}
        self.aware: dict[tuple[int, NodeId], bool] = {}
        self.submitted: dict[bytes, float] = {}
        self.ended: dict[NodeId, float] = {}
        scenario = Scenario(about=case.name, nodes=1 + len(case.seats), clusters=2, bridges=1, skew_ms=0, checks=50)
        super().__init__(scenario, seed)
        assert isinstance(self.checkers, Watch), "as it is declared"
        self.checkers.mesh = self
        network: Any = self.network
        self._say, network.send = network.send, self.said

    def _judge(self) -> Watch:
        return Watch()

    def _stands_in(self, index: int) -> frozenset[int]:
        return frozenset((NEAR, FAR)) if not index else frozenset((self.case.seats[index - 1].side,))

    def _plan(self, index: int, rng: Random) -> Plan:
        del rng
        seat = self.case.seats[index - 1] if index else Seat(NEAR, "bridge")
        offer = Profile(slots=seat.slots, memory_mb=1024 * seat.slots, sandbox="strict", accepts=True)
        caps = ("submit",) * bool(seat.jobs) + ("work",) * bool(seat.slots) if index else ("bridge",)
        return Plan(
            index=index, name=f"n{index}", owner=seat.owner, profile=offer, own=Profile(), caps=caps, bridging=not index,
            listens=True, submits=bool(seat.jobs), links_max=self.nodes,
            dials=tuple(other for other in range(index) if self._may_link(index, other)),
        )  # fmt: skip

    def _submissions(self, rng: Random) -> None:
        del rng
        self.work_s = 0.0
        for host, seat in zip(self.hosts[1:], self.case.seats, strict=True):
            for at, plan in seat.jobs:
                self.world.at(START_S + at, self._submit, host, plan)
                self.work_s += plan.tasks * plan.mean_s * plan.resources.cpus
                self.checkers.expected += 1

    def _submit(self, host: Host, plan: JobPlan) -> None:
        host.submit(plan)
        self.submitted[next(reversed(self.jobs))] = self.world.now

    def side(self, node: NodeId) -> int:
        """Return the network of a host."""
        return self.case.seats[self.network.host(node).index - 1].side

    # -- what is seen ---------------------------------------------------------------------------------------------------

    def said(self, host: Host, peer: NodeId, message: msg.Message) -> None:
        """A node says something."""
        index = self.network.host(peer).index
        if isinstance(message, msg.HasWork) and index and self.side(host.node_id) != self.side(peer):
            aware = any(there for (master, _), there in self.aware.items() if master == host.index)
            self.aware[host.index, peer] = bool(message.owners)
            self.figures.openings += bool(message.owners) and not aware
        self._say(host, peer, message)

    def began(self, worker: NodeId, start: Start) -> None:
        """An attempt begins."""
        figures, far = self.figures, self.side(worker) != self.side(start.master)
        figures.near += not far
        figures.far += far
        if far and figures.first_far_s is None:
            figures.first_far_s = self.world.now - START_S
        if start.attempt == 1:
            figures.waits.setdefault(start.owner, []).append(self.world.now - self.submitted[start.job])
        self.running[start.master, start.lease] = (worker, start, self.world.now)

    def granted(self, master: NodeId, row: records.LeaseGranted) -> None:
        """A worker gets a lease."""
        near, waits = self.side(master), any(each.pending for each in self._host_of(master).node.jobs())
        if self.side(row.worker) != near and not waits:
            self.figures.early += any(self._free(host) for host in self.hosts[1:] if self.side(host.node_id) == near)

    def _host_of(self, node: NodeId) -> Host:
        return self.hosts[self.network.host(node).index]

    def _free(self, worker: Host) -> bool:
        """Tell whether a host has a slot for which nobody granted a lease, and which no task left just now."""
        slots, taken = self.case.seats[worker.index - 1].slots, 0
        for host in self.hosts:
            book = host.node._queue._book  # noqa: SLF001  what was granted and is not durable yet counts as well
            held = book.leases.held(worker.node_id)
            taken += sum((host.node_id, lease.id) not in self.exited for lease in held)
        return slots > taken and self.world.now - self.ended.get(worker.node_id, -FREE_S) >= FREE_S

    def over(self, master: NodeId, lease: LeaseId) -> None:
        """An attempt has ended."""
        worker, start, since = self.running.pop((master, lease))
        self.exited.add((master, lease))
        self.ended[worker] = self.world.now
        took_s = (self.world.now - since) * start.resources.cpus
        self.figures.given[start.owner] = self.figures.given.get(start.owner, 0.0) + took_s

    # -- to the end, or for a while -------------------------------------------------------------------------------------

    def finish(self) -> Figures:
        """Play until all is done and every promise is judged."""
        self.figures.makespan_s = self.run().makespan_s
        return self.figures

    def _converged(self) -> None:
        # What a node may remember is judged for fewer jobs than there are in some of these cases.
        for host in self.hosts:
            host.node.check()
            insist(host.idle, "a worker still holds something though all jobs have ended")

    def watch(self, seconds: float) -> Figures:
        """Play for so long, what runs then included."""
        for host in self.hosts:
            host.start()
        self.world.run(START_S + seconds, lambda: False)
        for master, lease in list(self.running):
            self.over(master, lease)
        return self.figures


@contextmanager
def without() -> Iterator[None]:
    """Let nobody prefer its own network beyond the moment."""
    crew: Any = Crew
    kept: Any = lately
    room_here, keep_s = crew.room_here, kept.KEEP_S
    crew.room_here, kept.KEEP_S = lambda *_: None, 0.0
    try:
        yield
    finally:
        crew.room_here, kept.KEEP_S = room_here, keep_s


# -- cases --------------------------------------------------------------------------------------------------------------


def job(tasks: int, mean_s: float, at: float = 0.0) -> tuple[float, JobPlan]:
    """Return a job of equal tasks, and when it comes."""
    return at, JobPlan(tasks=tasks, mean_s=mean_s)


def workers(side: int, count: int, slots: int = 1) -> tuple[Seat, ...]:
    """Return hosts that only work."""
    return (Seat(side, "workers", slots),) * count


def stream(
    every_s: float, seconds: float, most: int, mean_s: float, seed: int = 7
) -> tuple[tuple[float, JobPlan], ...]:
    """Return small jobs that come about so often: of 1 to ``most`` tasks around ``mean_s`` long."""
    rng, at, jobs = Random(seed), 0.0, []
    while at < seconds:
        jobs.append((at, JobPlan(tasks=rng.randint(1, most), mean_s=mean_s, shape="exponential")))
        at += rng.expovariate(1 / every_s)
    return tuple(jobs)


def light() -> Case:
    """Return small jobs, each of which finds free slots in its own network."""
    jobs = tuple(job(1 + number % 4, 0.3, 0.5 * number) for number in range(80))
    return Case("jobs that fit", (Seat(NEAR, "ann", jobs=jobs), *workers(NEAR, 4, 2), *workers(FAR, 8)))


def limit() -> Case:
    """Return small jobs around what four slots can take: 20 tasks of 0.19 s a second."""
    jobs = stream(0.1, 30.0, 3, 0.19)
    return Case("jobs around the limit", (Seat(NEAR, "ann", jobs=jobs), *workers(NEAR, 4), *workers(FAR, 8)))


def large() -> Case:
    """Return one job for four slots here and eight there."""
    return Case("200 tasks, 4 slots", (Seat(NEAR, "ann", jobs=(job(200, 1.0),)), *workers(NEAR, 4), *workers(FAR, 8)))


def alone() -> Case:
    """Return a master in whose network nobody works."""
    return Case("no slots here", (Seat(NEAR, "ann", jobs=(job(200, 1.0),)), *workers(FAR, 8)))


def busy() -> Case:
    """Return a job that comes while long tasks of another master fill its network."""
    seats = (Seat(NEAR, "bob", jobs=(job(4, 30.0),)), Seat(NEAR, "ann", jobs=(job(8, 1.0, 5.0),)))
    return Case("slots here are taken", (*seats, *workers(NEAR, 4), *workers(FAR, 8)))


def gaps() -> Case:
    """Return workers whose own network has short tasks with short breaks, while long ones wait behind the bridge."""
    own = tuple(job(2, 0.3, 0.6 * number) for number in range(100))
    seats = (Seat(FAR, "far", jobs=(job(12, 60.0, 1.0),)), Seat(NEAR, "own", jobs=own))
    return Case("breaks between own tasks", (*seats, *workers(NEAR, 2, 2)))


def both() -> Case:
    """Return two networks with a job each, of which one is soon done and helps the other."""
    seats = (Seat(NEAR, "ann", jobs=(job(120, 2.0),)), Seat(FAR, "bob", jobs=(job(20, 2.0),)))
    return Case("one helps the other", (*seats, *workers(NEAR, 4), *workers(FAR, 4)))


CASES: Final = (light, limit, large, alone, busy, both, gaps)
SHARED_S: Final = 450.0
LENGTHS: Final = (1.0, 2.0, 5.0, 20.0)


def shared(*sides: int, own: bool = False) -> Case:
    """Return owners on these sides with more work than four workers can do; ``own``: and a near one that has little."""
    seats = [
        Seat(side, f"o{number}", jobs=(job(round(8 * SHARED_S / length_s), length_s),))
        for number, (side, length_s) in enumerate(zip(sides, LENGTHS, strict=False))
    ]
    if own:
        seats.append(Seat(NEAR, "little", jobs=tuple(job(4, 0.5, 3.0 * number) for number in range(int(SHARED_S / 3)))))
    return Case("shared", (*seats, *workers(NEAR, 4, 4)))


def equals(case: Case, given: dict[str, float]) -> list[float]:
    """Return what the owners got that are served first of those with more work than there is time."""
    sides = {seat.owner: seat.side for seat in case.seats if seat.jobs and seat.owner != "little"}
    return [given.get(owner, 0.0) for owner, side in sides.items() if side == min(sides.values())]


def shares(case: Case, seed: int = 1) -> dict[str, float]:
    """Return the slot-seconds of each owner; the first 30 s, in which nobody knows lengths yet, count as well."""
    return Mesh(case, seed).watch(SHARED_S).given


def main(argv: Sequence[str]) -> int:
    """Print the tables; return 1 where owners that are equals do not share equally."""
    parser = argparse.ArgumentParser(prog="python -m simulations overflow", description=__doc__)
    parser.add_argument("--seed", type=bounds.whole(0, bounds.SEED_MAX), default=1)
    arguments = parser.parse_args(argv)
    print(
        f"{'case':<26}{'near':>6}{'far':>6}{'early':>7}{'first far, s':>14}{'openings':>10}{'makespan, s':>13}{'without':>9}"
    )
    for case in (each() for each in CASES):
        with without():
            before = Mesh(case, arguments.seed).finish()
        now = Mesh(case, arguments.seed).finish()
        first = "-" if now.first_far_s is None else f"{now.first_far_s:.2f}"
        print(
            f"{case.name:<26}{now.near:>6}{now.far:>6}{now.early:>7}{first:>14}{now.openings:>10}"
            f"{now.makespan_s:>13.1f}{before.makespan_s:>9.1f}"
        )
    print(f"\nJain's index of time over {SHARED_S:g} s, owners with tasks of {LENGTHS} s, 4 workers of 4 slots")
    fair = True
    for name, case in (
        ("all near", shared(NEAR, NEAR, NEAR, NEAR)),
        ("all far", shared(FAR, FAR, FAR, FAR)),
        ("two near, two far", shared(NEAR, NEAR, FAR, FAR)),
        ("all far, a near one has little", shared(FAR, FAR, FAR, FAR, own=True)),
    ):
        given = shares(case, arguments.seed)
        index = jain(equals(case, given))
        fair = fair and index >= GOAL
        listed = ", ".join(f"{owner} {seconds:.0f}" for owner, seconds in sorted(given.items()))
        print(f"{name:<32}{index:.4f}   {listed}")
    return 0 if fair else 1
