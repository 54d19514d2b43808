"""What a job asks for, what can become of a task, and why an attempt ended."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

TASKS_MAX: Final = 10_000_000
RETRIES_MAX: Final = 1000
ATTEMPTS_MAX: Final = 1 << 20
"""Attempts of one task, whatever became of them."""
TIME_DEFAULT_S: Final = 24 * 3600
CPUS_MAX: Final = 4096
NEEDS_MAX: Final = 32
REASON_CHARS_MAX: Final = 300

Label = Annotated[str, Meta(min_length=1, max_length=64)]

SandboxLevel = Literal["strict", "basic", "none"]
"""How well a task is shut in: bubblewrap; Landlock; not at all (own tasks on the own machine only)."""

TaskState = Literal["pending", "running", "done", "failed", "cancelled"]
"""pending -> running -> done | failed | cancelled; a lost or failed attempt goes back to pending."""

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
"""queued until the first grant; done, failed (some task failed) or cancelled when no task is left."""

Reason = Literal[
    "ok",
    "exit",
    "signal",
    "time-limit",
    "memory-limit",
    "disk-limit",
    "output-limit",
    "runner-died",
    "cancelled",
    "saved",
]
"""Why an attempt ended by its own doing. ``ok`` and ``exit`` come with an exit code, ``signal`` with a number.

``saved`` is nobody's failure: it was told to end by its worker, and its result holds the checkpoint that it left.
"""

Fault = Literal[
    "sandbox",
    "fetch",
    "disk",
    "no-manifest",
    "late",
    "refused",
    "draining",
    "evicted",
    "recalled",
    "lost",
    "expired",
    "deliver",
]
"""Why an attempt ended by its worker's doing; never counts against the task, has its own limit (FAULTS_MAX)."""

FAULTS_MAX: Final = 10


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one task needs while it runs. ``needs`` are labels a worker must have, such as ``os=linux``."""

    cpus: Annotated[int, Meta(ge=1, le=CPUS_MAX)] = 1
    memory_mb: Annotated[int, Meta(ge=0, le=1 << 24)] = 0
    """Mebibytes; 0 asks for nothing in particular and gets the worker's default limit."""
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    needs: Annotated[tuple[tuple[Label, Label], ...], Meta(max_length=NEEDS_MAX)] = ()


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ends a task that takes too much. Seconds and mebibytes."""

    time_s: Annotated[int, Meta(ge=1, le=366 * 24 * 3600)] = TIME_DEFAULT_S
    disk_mb: Annotated[int, Meta(ge=1, le=1 << 24)] = 16 * 1024
    output_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 1024
    """Of standard output and standard error, each."""
    processes: Annotated[int, Meta(ge=1, le=1 << 16)] = 1024

    @property
    def results_bytes(self) -> int:
        """What the results of an attempt may hold."""
        return self.disk_mb << 20

    @property
    def printed_bytes(self) -> int:
        """What an attempt can have printed: more than it may, because it is looked at from time to time only."""
        return (4 * self.output_mb + 1024) << 20


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker can offer at most: told to masters on link-up and whenever it changes."""

    slots: Annotated[int, Meta(ge=0, le=CPUS_MAX)] = 0
    """Cpus that guests may use."""
    memory_mb: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0
    labels: Annotated[tuple[tuple[Label, Label], ...], Meta(max_length=256)] = ()
    sandbox: SandboxLevel = "none"
    """The level that the start-up self-test proved."""
    accepts: bool = False
    """Whether other people's tasks are welcome at all."""
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)] = ""
    """Why not, if they are not."""
    still: bool = False
    """Those that are here stand still, or are being sent away, for the same reason: the machine's owner wants it back."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one attempt ended. Durations in milliseconds, memory in bytes."""

    reason: Reason
    exit: Annotated[int, Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, Meta(ge=1, le=64)] | None = None
    run_ms: Annotated[int, Meta(ge=0, lt=1 << 48)] = 0
    cpu_ms: Annotated[int, Meta(ge=0, lt=1 << 48)] = 0
    max_rss: Annotated[int, Meta(ge=0, lt=1 << 52)] = 0
    started: Annotated[int, Meta(ge=0, lt=1 << 48)] = 0
    """Wall milliseconds on the worker's clock."""

    @property
    def ok(self) -> bool:
        """Whether the task succeeded."""
        return self.reason == "ok"


def missing_needs(resources: Resources, profile: Profile) -> tuple[str, ...]:
    """Return the labels ``k=v`` that the task needs and the worker lacks."""
    return tuple(f"{k}={v}" for k, v in resources.needs if (k, v) not in profile.labels)
