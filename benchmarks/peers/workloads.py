"""What is measured, and what is wanted of it: ratios to others in the same run."""

from typing import Final

import msgspec


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One table of the report."""

    title: str
    """With ``{count}``."""
    unit: str = "s"
    """Of its figures."""
    count: int = 1
    least: int = 1
    """Fewer would measure nothing, however small the scale."""
    rough_s: float = 0.0
    """So long it takes one contestant, more or less, for the time that is told at the start."""
    script: str = ""
    """What main.py holds, where it runs scripts; its argument is the task's number."""
    rate: bool = False
    """Whether the table has a column with how many a second."""


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """At least so many times as fast as another, in the median of the runs."""

    work: str
    own: str
    other: str
    at_least: float


NUMPY: Final = """\
import sys
import time

import numpy

number = int(sys.argv[1])
draw = numpy.random.default_rng(number)
values = draw.standard_normal(1000)
began = time.process_time()
while time.process_time() - began < 0.1:
    total = float(numpy.sqrt(values * values).sum())
print(number, repr(total))
"""

BRIAN: Final = """\
import sys

import brian2

number = int(sys.argv[1])
brian2.prefs.codegen.target = "numpy"
brian2.seed(number)
group = brian2.NeuronGroup(100, "dv/dt = (1.1 - v) / (10 * ms) + 0.3 * xi / sqrt(10 * ms) : 1", threshold="v > 1", reset="v = 0",
                           method="euler")
spikes = brian2.SpikeMonitor(group)
brian2.run(20 * brian2.ms)
print(number, spikes.num_spikes, repr(float(group.v[0])))
"""

WORKS: Final[dict[str, Work]] = {
    "commands": Work(
        title="{count} times `/bin/true`, all exit codes collected", count=10_000, least=20, rough_s=30, rate=True
    ),
    "calls": Work(
        title="{count} calls of a Python function that does nothing", count=10_000, least=20, rough_s=15, rate=True
    ),
    "chunks": Work(title="The same {count} calls, 100 to a message", count=10_000, least=20, rough_s=3, rate=True),
    "latency": Work(
        title="One `true` through the Python client (median of {count})", unit="ms", count=51, least=3, rough_s=5
    ),
    "cli": Work(title="One `true` as a whole command (median of {count})", unit="ms", count=21, least=3, rough_s=4),
    "numpy": Work(
        title="{count} runs of a script that imports numpy and computes for 100 ms",
        count=200,
        least=4,
        rough_s=25,
        script=NUMPY,
    ),
    "brian2": Work(
        title="{count} runs of a script that simulates a small network with brian2",
        count=50,
        least=2,
        rough_s=40,
        script=BRIAN,
    ),
    "memory": Work(title="Memory of all processes, client included, when idle (PSS)", unit="MiB", rough_s=45),
    "processor": Work(title="Processor time when idle (of one core)", unit="%"),
    "wakeups": Work(title="Wake-ups per second when idle", unit="/s"),
}
IDLE: Final = ("memory", "processor", "wakeups")
"""Measured together."""

SLOW: Final = ("GNU parallel", "two threads", "HyperQueue", "p2pq none", "p2pq strict")
"""Who runs the brian2 script: everyone else would start it the same way as two threads do."""

GOALS: Final = (
    Goal(work="commands", own="p2pq none", other="two threads", at_least=0.75),
    Goal(work="commands", own="p2pq none", other="GNU parallel", at_least=3.0),
    Goal(work="commands", own="p2pq none", other="HyperQueue", at_least=2.5),
    Goal(work="commands", own="p2pq none", other="Ray", at_least=1.7),
    Goal(work="commands", own="p2pq strict", other="p2pq none", at_least=0.8),
    Goal(work="commands", own="p2pq strict, 2 nodes", other="p2pq strict", at_least=0.85),
    Goal(work="calls", own="p2pq none", other="loky", at_least=1.0),
    Goal(work="calls", own="p2pq none", other="Ray", at_least=1.0),
    Goal(work="calls", own="p2pq none", other="Dask", at_least=1.0),
    Goal(work="latency", own="p2pq none", other="Ray", at_least=1.0),
    Goal(work="latency", own="p2pq none", other="Celery", at_least=1.0),
    Goal(work="latency", own="p2pq none", other="dispy", at_least=1.0),
    Goal(work="latency", own="p2pq none", other="Dask", at_least=1.0),
    Goal(work="cli", own="p2pq none", other="GNU parallel", at_least=1.0),
    Goal(work="numpy", own="p2pq none", other="GNU parallel", at_least=1.7),
    Goal(work="numpy", own="p2pq strict", other="GNU parallel", at_least=1.7),
    Goal(work="numpy", own="p2pq strict, 2 nodes", other="p2pq strict", at_least=0.85),
    Goal(work="brian2", own="p2pq none", other="GNU parallel", at_least=3.0),
    Goal(work="brian2", own="p2pq strict", other="GNU parallel", at_least=3.0),
)
"""docs/performance.md says where they come from."""
