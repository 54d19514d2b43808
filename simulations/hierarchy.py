"""What bridges that speak for a cluster spare the masters: messages per task there, beside the same mesh without any bridge.

``python -m simulations hierarchy`` plays clusters of several sizes, one bridge each, and masters in a network of their own;
nothing goes wrong. Deeper meshes have further bridges between those of the clusters and the masters. Flat, every worker is linked
to every master. Counted is what masters say and hear from the submission of the
jobs to their end, and with several masters how equally their owners share the workers' time while all of them have work.
"""

import argparse
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, Final
from unittest.mock import patch

import msgspec

from p2pq.core.effects import Start
from p2pq.core.stock import GATHER_S
from p2pq.model.ids import LeaseId, NodeId
from p2pq.model.job import Outcome, Profile
from p2pq.wire import codec, handing, prims, provenance
from p2pq.wire import messages as msg
from p2pq.wire.messages import HOPS_MAX
from simulations import bounds, plot
from simulations.checkers import Checkers, insist
from simulations.fairness import jain
from simulations.host import Host
from simulations.plans import Plan
from simulations.play import START_S, Play
from simulations.scenarios import Scenario
from simulations.work import JobPlan

BEGIN_S: Final = 10.0
"""When jobs are submitted: by then bridges have gathered what there is to know, and told the masters. Where there are bridges
below bridges that takes longer."""
REMEMBERED_MAX: Final = 1 << 17
"""Signed objects that need not be decoded, and signatures that need not be checked again, the latest."""
SIZES: Final = (10, 25, 50, 100)
HEAD: Final = (
    f"{'mesh':<22}{'in':>8}{'out':>8}{'sum':>8}{'1/':>7}{'Jain':>8}{'makespan, s':>13}"
    f"{'ideal':>8}{'run, s':>8}{'memory, MB':>12}"
)
SPREAD: Final = (0.5, 1.0, 2.0)
"""With several masters, how long the tasks of each are, compared with the mean."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A mesh and its work."""

    clusters: int = 4
    workers: int = 10
    """In each cluster, with a slot each."""
    masters: int = 1
    """Each has one job, and an owner of its own."""
    tasks: int = 10_000
    """Of all jobs together."""
    mean_s: float = 1.0
    depth: int = 2
    """Masters, bridges and workers: 2; with further bridges between: 3 or more; no bridges at all: 1."""

    @property
    def levels(self) -> list[int]:
        """How many bridges there are, level by level, those next to the masters first; each leads to about as many."""
        rows = self.depth - 1
        return [max(1, round(self.clusters ** (row / rows))) for row in range(1, rows + 1)]

    @property
    def begin_s(self) -> float:
        """When jobs are submitted."""
        return BEGIN_S + (GATHER_S * HOPS_MAX if len(self.levels) > 1 else 0.0)

    def jobs(self) -> list[JobPlan]:
        """Return the job of each master; there is as much to do for one as for another."""
        spread = SPREAD if self.masters > 1 else (1.0,)
        factors = [spread[index % len(spread)] for index in range(self.masters)]
        return [
            JobPlan(
                tasks=max(1, round(self.tasks / self.masters / factor)),
                mean_s=self.mean_s * factor,
                shape="exponential",
            )
            for factor in factors
        ]


class Figures(msgspec.Struct, kw_only=True):
    """What was seen of one mesh."""

    shape: Shape
    heard: Counter[str] = msgspec.field(default_factory=Counter)
    """By the masters, by kind."""
    said: Counter[str] = msgspec.field(default_factory=Counter)
    tasks: int = 0
    given: dict[str, float] = msgspec.field(default_factory=dict)
    """Seconds that each owner's attempts took while all owners had tasks that waited."""
    ideal_s: float = 0.0
    """The work alone, on all slots at once."""
    makespan_s: float = 0.0
    took_s: float = 0.0
    """Of real time."""
    memory_mb: float = 0.0
    """What this process has needed at most so far."""

    @property
    def per_task(self) -> tuple[float, float]:
        """Messages per task that masters hear, and that they say."""
        return self.heard.total() / self.tasks, self.said.total() / self.tasks

    @property
    def shares(self) -> float:
        """Jain's index of the owners' time."""
        return jain([self.given.get(f"o{index}", 0.0) for index in range(self.shape.masters)])

    def point(self, seed: int) -> plot.Point:
        """Return what a picture shows of it."""
        heard, said = (round(each, 6) for each in self.per_task)
        return plot.Point(
            clusters=self.shape.clusters, workers=self.shape.workers, masters=self.shape.masters, depth=self.shape.depth,
            tasks=self.shape.tasks, mean_s=self.shape.mean_s, seed=seed, heard_per_task=heard, said_per_task=said,
            makespan_s=round(self.makespan_s, 3),
        )  # fmt: skip

    def line(self, less: float) -> str:
        """Return the figures as a row; ``less``: so many times fewer messages than in the first mesh of that size."""
        heard, said = self.per_task
        return (
            f"{heard:>8.3f}{said:>8.3f}{heard + said:>8.3f}{less:>7.1f}{self.shares:>8.4f}{self.makespan_s:>13.1f}"
            f"{self.ideal_s:>8.1f}{self.took_s:>8.1f}{self.memory_mb:>12.0f}"
        )

    def kinds(self, most: int = 8) -> str:
        """Return what there was most of, per task."""
        both = Counter({f"{kind} in": count for kind, count in self.heard.items()})
        both.update({f"{kind} out": count for kind, count in self.said.items()})
        return ", ".join(f"{kind} {count / self.tasks:.3f}" for kind, count in both.most_common(most))


@contextmanager
def remembered() -> Iterator[None]:
    """Decode and check the same bytes once: what was found of them holds for whoever else gets them."""
    with (
        patch.object(codec, "decode_strict", lru_cache(REMEMBERED_MAX)(codec.decode_strict)),
        patch.object(prims, "verify", lru_cache(REMEMBERED_MAX)(prims.verify)),
        patch.object(provenance, "hands_on", _hands_on()),
    ):
        yield


def _hands_on() -> Callable[[handing.Step, bytes, bytes, Sequence[LeaseId]], bool]:
    """Return ``handing.hands_on`` that asks once: the digest of what is above a step says which leases these are."""
    found: dict[tuple[bytes, bytes, bytes], bool] = {}

    def hands_on(step: handing.Step, above: bytes, to: bytes, leases: Sequence[LeaseId]) -> bool:
        key = step.digest, above, to
        if key not in found:
            found[key] = handing.hands_on(step, above, to, leases)
        return found[key]

    return hands_on


class Watch(Checkers):
    """Checkers that tell the mesh whose attempts ran how long."""

    def __init__(self) -> None:
        """Have seen nothing."""
        super().__init__()
        self.mesh: Mesh

    def started(self, host: NodeId, start: Start) -> None:
        """A host begins to run an attempt."""
        super().started(host, start)
        self.mesh.began(start)

    def exited(self, host: NodeId, master: NodeId, lease: LeaseId, outcome: Outcome) -> None:
        """An attempt ran to its end there."""
        super().exited(host, master, lease, outcome)
        self.mesh.over(master, lease)


class Mesh(Play):
    """One run of a shape: masters first, then the bridges, then the workers of one cluster after the other."""

    def __init__(self, shape: Shape, seed: int = 1) -> None:
        """Build it."""
        self.shape = shape
        self.figures = Figures(shape=shape)
        self._bridges = sum(shape.levels)
        scenario = Scenario(
            about="hierarchy",
            nodes=shape.masters + self._bridges + shape.clusters * shape.workers,
            masters=shape.masters,
            batching=shape.depth > 1,
            skew_ms=0,
            checks=5000,
        )
        self.masters = shape.masters
        self._parents = [None if index < shape.masters else self._parent(index) for index in range(scenario.nodes)]
        self._running: dict[tuple[NodeId, LeaseId], tuple[str, float]] = {}
        self._all_wait = True
        super().__init__(scenario, seed)
        assert isinstance(self.checkers, Watch), "as it is declared"
        self.checkers.mesh = self
        network: Any = self.network
        self._say, network.send = network.send, self._said

    def _judge(self) -> Watch:
        return Watch()

    def _is_bridge(self, index: int) -> bool:
        return self.masters <= index < self.masters + self._bridges

    def _parent(self, index: int) -> int | None:
        """Return the bridge above a bridge or worker; None where masters are next."""
        levels = self.shape.levels
        index -= self.masters
        if index >= self._bridges:
            return self._first(len(levels) - 1) + (index - self._bridges) // self.shape.workers if levels else None
        row = 0
        while index >= levels[row]:
            index -= levels[row]
            row += 1
        return self._first(row - 1) + index * levels[row - 1] // levels[row] if row else None

    def _first(self, row: int) -> int:
        """Return the first bridge of a level."""
        return self.masters + sum(self.shape.levels[:row])

    def _may_link(self, one: int, other: int) -> bool:
        low, high = sorted((one, other))
        parent = None if high < self.masters else self._parents[high]
        return high >= self.masters and (low == parent or (low < self.masters and parent is None))

    def _should_link(self, one: int, other: int) -> bool:
        return self._may_link(one, other)

    def _plan(self, index: int, rng: Random) -> Plan:
        del rng
        is_master, is_bridge = index < self.masters, self._is_bridge(index)
        slots = 0 if is_master or is_bridge else 1
        profile = Profile(slots=slots, memory_mb=1024 * slots, sandbox="strict", accepts=True)
        caps = ("submit",) if is_master else ("bridge",) if is_bridge else ("work",)
        return Plan(
            index=index, name=f"n{index}", owner=f"o{index}" if is_master else "workers", profile=profile, own=Profile(),
            caps=caps, bridging=is_bridge, batching=is_bridge, listens=is_master or is_bridge, submits=is_master,
            links_max=self.nodes, dials=tuple(self._above(index)),
        )  # fmt: skip

    def _above(self, index: int) -> Sequence[int]:
        """Return those that a host knows of: the bridge above it, or the masters."""
        if index < self.masters:
            return ()
        parent = self._parents[index]
        return range(self.masters) if parent is None else (parent,)

    def _submissions(self, rng: Random) -> None:
        del rng
        plans = self.shape.jobs()
        for host, plan in zip(self.hosts, plans, strict=False):
            self.world.at(self.shape.begin_s, host.submit, plan)
            self.checkers.expected += 1
        self.work_s = sum(plan.tasks * plan.mean_s for plan in plans)
        self.figures.tasks = sum(plan.tasks for plan in plans)
        self.figures.ideal_s = self.work_s / self.slots

    # -- what is seen ---------------------------------------------------------------------------------------------------

    def began(self, start: Start) -> None:
        """An attempt begins."""
        self._running[start.master, start.lease] = start.owner, self.world.now

    def over(self, master: NodeId, lease: LeaseId) -> None:
        """An attempt has ended."""
        owner, since = self._running.pop((master, lease))
        host = self.hosts[self.network.host(master).index]
        self._all_wait = self._all_wait and any(job.pending for job in host.node.jobs())
        if self._all_wait:
            self.figures.given[owner] = self.figures.given.get(owner, 0.0) + self.world.now - since

    def _said(self, host: Host, peer: NodeId, message: msg.Message) -> None:
        """Somebody says something."""
        inner = message.message if isinstance(message, msg.Through) else message
        if self.world.now >= self.shape.begin_s and not self.checkers.done():
            if host.index < self.masters:
                self.figures.said[type(inner).__name__] += 1
            if self.network.host(peer).index < self.masters:
                self.figures.heard[type(inner).__name__] += 1
        self._say(host, peer, message)

    def _converged(self) -> None:
        for host in self.hosts:
            host.node.check()
            insist(host.idle, "a worker still holds something though all jobs have ended")

    def _tell(self, every_s: float) -> None:
        """Say how far it is, again and again until the jobs have ended."""
        judged, took_s = self.checkers, perf_counter() - self._began
        said = f"{self.world.now:.0f} s: {judged.settled} of {self.figures.tasks} tasks have ended"
        print(f"{said}, {len(self._running)} run; {took_s:.0f} s", file=sys.stderr, flush=True)
        if not judged.done():
            self.world.after(every_s, self._tell, every_s)

    def measure(self, every_s: float | None = None) -> Figures:
        """Play it to the end; tell how far it is every so many seconds of its own time."""
        began = self._began = perf_counter()
        if every_s is not None:
            self.world.after(every_s, self._tell, every_s)
        with remembered():
            report = self.run()
        self.figures.makespan_s = START_S + report.makespan_s - self.shape.begin_s
        self.figures.took_s = perf_counter() - began
        self.figures.memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return self.figures


def main(argv: Sequence[str]) -> int:
    """Print a table, and of what there was most; draw a picture and keep its figures, or draw it from kept ones."""
    parser = argparse.ArgumentParser(prog="python -m simulations hierarchy", description=__doc__)
    number, usual = bounds.whole(1, bounds.NODES_MAX), Shape()
    parser.add_argument("--clusters", type=number, default=usual.clusters)
    parser.add_argument(
        "--workers", type=number, nargs="+", default=SIZES, help="in each cluster; several: one mesh each"
    )
    parser.add_argument("--masters", type=number, default=usual.masters)
    parser.add_argument("--tasks", type=bounds.whole(1, bounds.TASKS_MAX), default=usual.tasks)
    parser.add_argument("--mean", type=float, default=usual.mean_s, help="seconds that a task takes")
    parser.add_argument(
        "--depth", type=bounds.whole(1, plot.DEPTH_MAX), nargs="+", default=(1, 2),
        help="1: every worker is linked to every master; 2: one bridge between; 3 or more: further bridges between",
    )  # fmt: skip
    parser.add_argument("--seed", type=bounds.whole(0, bounds.SEED_MAX), default=1)
    parser.add_argument(
        "--progress",
        type=bounds.whole(1, 1_000_000),
        metavar="SECONDS",
        help="tell how far it is every so many seconds of the mesh's own time",
    )
    parser.add_argument(
        "--plot", type=_picture, metavar="FILE.png", help="draw messages per task; the figures go to FILE.csv"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="play nothing: draw --plot from the FILE.csv of an earlier run"
    )
    arguments = parser.parse_args(argv)
    if arguments.redraw and arguments.plot is None:
        parser.error("argument --redraw: needs --plot FILE.png, to draw that from FILE.csv")
    if arguments.plot is not None and (lack := plot.lacking()):
        parser.exit(2, f"{lack}\n")
    if arguments.redraw:
        try:
            points = plot.read(plot.kept(arguments.plot))
        except (OSError, ValueError) as error:
            parser.error(f"argument --redraw: {error}")
    else:
        points = measured(arguments)
    if arguments.plot is not None:
        plot.draw(points, arguments.plot)
    return 0


def _picture(text: str) -> Path:
    """Accept where a picture can be written: known before a long run, not after it."""
    path = Path(text)
    if path.suffix != ".png" or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a .png in a folder that exists")
    return path


def measured(arguments: argparse.Namespace) -> list[plot.Point]:
    """Play every mesh and print its row; after each, what is known goes beside the picture if there is to be one."""
    print(HEAD)
    points: list[plot.Point] = []
    for workers in arguments.workers:
        first = 0.0
        for depth in dict.fromkeys(arguments.depth):
            shape = Shape(
                clusters=arguments.clusters, workers=workers, masters=arguments.masters, tasks=arguments.tasks,
                mean_s=arguments.mean, depth=depth,
            )  # fmt: skip
            figures = Mesh(shape, arguments.seed).measure(arguments.progress)
            messages = sum(figures.per_task)
            first = first or messages
            name = "flat" if depth == 1 else f"depth {depth}"
            print(
                f"{f'{shape.clusters} x {workers} {name}':<22}{figures.line(first / messages)}\n    {figures.kinds()}",
                flush=True,
            )
            points.append(figures.point(arguments.seed))
            if arguments.plot is not None:
                plot.keep(points, plot.kept(arguments.plot))
    return points
