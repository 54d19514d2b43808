"""A task as its node told of it, for programs."""

from dataclasses import dataclass, field
from pathlib import Path

from p2pq.model.job import TaskState
from p2pq.wire.control import TaskView


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task of a job of commands that has ended, as ``--each`` has it."""

    number: int
    """As ``p2pq tasks`` counts, from 0."""
    arguments: tuple[str, ...]
    """Its values."""
    command: str
    """Its command line."""
    state: TaskState
    """``done``, ``failed`` or ``cancelled``."""
    exit_code: int | None
    signal: int | None
    """Which signal ended it."""
    seconds: float
    reason: str
    """Why it ended, if not by itself: ``time-limit`` and the like, or a sentence."""
    node: str
    """The machine of its latest attempt."""
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    results: Path | None
    """The folder that ``--results`` has for it."""


class TaskFacts:
    """How a task was when the node was asked; what it was asked later is another one."""

    def __init__(self, view: TaskView) -> None:
        """Take what the node told."""
        self.view = view
        """All of it, as the local API has it."""
        self.number: int = view.task
        self.state: TaskState = view.state
        self.params: dict[str, str] = view.params
        """Values of the sweep and the array, as text."""
        self.exit_code: int | None = view.exit
        self.signal: int | None = view.signal
        """Which signal ended it."""
        self.seconds: float | None = view.seconds
        self.max_rss: int | None = view.max_rss
        """Bytes of memory at most."""
        self.reason: str | None = view.reason
        """Why it ended: ``ok``, ``exit``, ``time-limit`` and the like, or a sentence."""
        self.node: str | None = view.node
        """The machine of its latest attempt."""
        self.via: tuple[str, ...] = view.via
        """The bridges between, the one next to the node first."""
        self.attempts: int = view.attempts
        self.results: Path | None = None if view.results is None else Path(view.results)
        """The folder of its results, once they are written."""

    def __repr__(self) -> str:
        """Name the task."""
        return f"<{type(self).__name__} {self.number} {self.state}>"
