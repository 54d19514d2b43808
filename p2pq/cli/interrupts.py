"""What interrupts a command that has to clean up: Ctrl-C, SIGTERM and SIGHUP, held back where they would come amiss."""

import os
import signal

TYPE_CHECKING = False  # importing typing for real would cost `p2pq run` 5 ms
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Final, Self

SIGNALS: "Final" = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HELD: "Final" = "stops as soon as the node has said which job it is; once more to leave at once"
"""Said of what comes while a job is being submitted."""


class StoppedError(KeyboardInterrupt):
    """The user, or whoever runs this command, wants it to stop."""

    def __init__(self, number: int) -> None:
        """Keep which signal said so."""
        super().__init__()
        self.exit_code = 128 + number


class Interrupts:
    """Raises StoppedError when one of SIGNALS comes; a context manager.

    What comes after ``hold`` is raised at ``release``; a second one at once, for users who lose their patience.
    """

    def __init__(self) -> None:
        """Change nothing yet."""
        self._holding = ""
        self._held: int | None = None
        self._before: dict[signal.Signals, signal.Handlers] = {}

    def __enter__(self) -> "Self":
        """Take the signals over, except those that are ignored (``nohup``)."""
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before  # type: ignore[assignment]  # callables too; they are only put back
                signal.signal(number, self._arrived)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Put back what was there."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def hold(self, why: str) -> None:
        """Hold the next signal back; ``why`` is said when it comes."""
        self._holding = why

    def release(self) -> None:
        """Hold nothing back any more.

        Raises:
            StoppedError: a signal came meanwhile.
        """
        self._holding = ""
        if self._held is not None:
            raise StoppedError(self._held)

    def _arrived(self, number: int, _frame: "FrameType | None") -> None:
        if self._holding and self._held is None:
            self._held = number
            os.write(2, f"p2pq: {self._holding}\n".encode())  # print might be in the middle of something
            return
        raise StoppedError(number)
