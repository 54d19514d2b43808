"""The progress bar of ``submit`` and ``wait``: rich on a terminal, otherwise only failures and the end are said."""

import signal
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from p2pq.cli.common import duration, harmless, note
from p2pq.wire.control import Change

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class WaitOver(Exception):  # noqa: N818  not an error; not a TimeoutError either, which sockets raise
    """The time that the user was willing to wait is over."""


class Progress:
    """Shows changes of the watched jobs; a context manager that cleans the terminal up."""

    def __init__(self, *, quiet: bool, timeout_s: float | None = None) -> None:
        """Draw nothing if ``quiet``; raise WaitOver in the middle of waiting after ``timeout_s``."""
        self._quiet = quiet
        self._timeout_s = timeout_s
        self._bar: Bar | None = None
        self._rows: dict[str, TaskID] = {}
        self._restore = signal.getsignal(signal.SIGALRM)

    def __enter__(self) -> Self:
        """Start the clock and the bar."""
        if self._timeout_s is not None:
            signal.signal(signal.SIGALRM, _timed_out)
            signal.setitimer(signal.ITIMER_REAL, self._timeout_s)
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415  slow to import, only for terminals
            from rich.progress import BarColumn, TextColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[counts]}", markup=False),
                TextColumn("{task.fields[eta]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both."""
        if self._timeout_s is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._restore)
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Say a sentence above the bar."""
        if self._bar is not None:
            self._bar.console.print(f"p2pq: {harmless(text)}", markup=False, highlight=False)
        else:
            note(text)

    def show(self, change: Change) -> None:
        """Show how far a job is."""
        task = change.task
        if task is not None and task.state == "failed":
            ended = f"signal {task.signal}" if task.signal is not None else f"exit {task.exit}"
            reason = task.reason if task.reason not in (None, "exit", "signal") else ended
            where = f" on {task.node}" if task.node else ""
            name = f"{change.job.job[:8]}.{task.task}"
            # Where it was the workers' doing there is no output of the last attempt to look at.
            has_output = (task.exit, task.signal, task.seconds) != (None, None, None)
            see = f"p2pq logs {name} --stderr" if has_output else f"p2pq why {name}"
            self.say(f"task {task.task} failed{where}: {reason}; see `{see}`")
        if self._bar is not None:
            self._draw(self._bar, change)

    def _draw(self, bar: "Bar", change: Change) -> None:
        view, counts = change.job, change.job.tasks
        text = f"{counts.done + counts.failed + counts.cancelled}/{counts.total}"
        if counts.running:
            text += f", {counts.running} running"
        if counts.failed:
            text += f", {counts.failed} failed"
        eta = ""
        if 0 < change.progress < 1:
            eta = f"{duration(change.running_s * (1 - change.progress) / change.progress)} left"
        if view.job not in self._rows:
            self._rows[view.job] = bar.add_task(harmless(view.name), total=1.0, counts=text, eta=eta)
        bar.update(self._rows[view.job], completed=change.progress, counts=text, eta=eta)


def _timed_out(_number: int, _frame: FrameType | None) -> None:
    raise WaitOver
