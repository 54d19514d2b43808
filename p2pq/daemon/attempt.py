"""One run of one task as a small state machine: what its runner says, what the limits say, who wants it to end.

The pool drives it with `hear` and `tick`; it sends the runner its orders. Whatever the runner says that does not fit
makes it *lost*: killed, and the attempt counted against the task.
"""

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, assert_never

from p2pq.daemon import sleeping
from p2pq.daemon.limits import Breach, Limits, Watch, size_text
from p2pq.daemon.runner_messages import Clean, Did, Dirty, Exited, Failed, Gone, Heard, Ready, Started, Wake
from p2pq.daemon.runner_process import RunnerProcess
from p2pq.daemon.standstill import Standstill

ANSWER_S: Final = 15.0
"""How long a runner may take to start a task, to say that a killed one ended, and that it is clean."""

EXIT_NOT_FOUND: Final = 127
EXIT_NOT_EXECUTABLE: Final = 126

KillReason = Literal["cancelled", "evicted", "time-limit", "memory-limit", "disk-limit", "output-limit"]
Reason = Literal["ok", "exit", "signal", "sandbox"] | KillReason


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended. ``sandbox``: the task killed, stopped or abused its runner."""

    exit: int | None
    signal: int | None
    seconds: float
    max_rss: int
    """Bytes, of the largest single process; at least what the runner itself has (some 12 MiB)."""

    reason: Reason
    detail: str
    """One sentence."""

    stdout: Path
    stderr: Path
    cpu_s: float = 0.0

    @property
    def silent(self) -> bool:
        """Whether it printed nothing; asked before its files are emptied."""
        return not any(path.exists() and path.stat().st_size for path in (self.stdout, self.stderr))


@dataclass(frozen=True, slots=True)
class Stop:
    """An order to end a task."""

    reason: KillReason
    detail: str
    grace_s: float
    signal: int = signal.SIGTERM
    """What tells it so."""


class Attempt:
    """A task from its launch until its runner is clean or lost."""

    def __init__(
        self,
        runner: RunnerProcess,
        number: int,
        limits: Limits,
        grace_s: float,
        now: float,
    ) -> None:
        """Take a runner that was just sent ``run`` with this number."""
        self._runner = runner
        self._number = number
        self._limits = limits
        self._grace_s = grace_s
        self._begun = now
        self.stdout, self.stderr = runner.scratch.prints
        self.watch = Watch(
            limits,
            runner.pid,
            runner.scratch.written,
            (self.stdout, self.stderr),
            runner.in_memory,
            threads=runner.level == "basic",
            grouped=runner.grouped,
        )
        self.on_started: Callable[[Path, Path], None] | None = None
        self.done = False
        self._oom_kills = runner.group.oom_kills() if runner.group is not None else 0
        self._started = False
        self._ended: Exited | Failed | None = None
        self._stop: Stop | None = None
        self._lost: str | None = None
        self._kill_at: float | None = None
        self._answer_by: float | None = now + ANSWER_S
        self._wall_at = now + limits.wall_s
        self._look_at = now + self.watch.next_look_s
        self._walk_at = now + self.watch.next_walk_s
        self._still: Standstill | None = None
        self._still_since = now
        self._stood_s = 0.0
        """How long it stood still, in all."""

    @property
    def _watched(self) -> bool:
        """Whether limits still matter: it runs, and nothing is ending it yet."""
        return self._ended is None and self._stop is None and not self.done

    @property
    def deadline(self) -> float:
        """When `tick` is due next."""
        due = [at for at in (self._kill_at, self._answer_by) if at is not None]
        if self._watched:
            due.append(self._look_at)
            if self._still is None:
                due.append(self._wall_at)
        return min(due, default=self._begun)

    def woke(self, due: float, now: float) -> None:
        """Count none of it if what was ``due`` comes now because this process slept; a task ran no longer than its node."""
        slept_s = sleeping.late_s(due, now)
        if self._answer_by is not None:
            self._answer_by += slept_s
        if self._kill_at is not None:
            self._kill_at += slept_s
        if self._still is None:
            self._wall_at += slept_s

    def suspend(self, now: float) -> None:
        """Let the task stand still until ``go_on``; what it stands still is no run time."""
        if self._still is None and self._watched:
            self._still = Standstill(self._runner.pid)
            self._still_since = now
            self._still.hold()

    def go_on(self, now: float) -> None:
        """Let it go on."""
        if self._still is not None:
            self._still.release()
            self._still = None
            stood_s = now - self._still_since
            self._stood_s += stood_s
            self._wall_at += stood_s

    def walk_due(self, now: float) -> bool:
        """Whether the scratch folder should be walked now; the pool does it in a thread."""
        return self._watched and now >= self._walk_at

    def walked(self, breach: Breach | None, now: float) -> None:
        """Take the result of a walk."""
        self._walk_at = now + self.watch.next_walk_s
        self._breached(breach, now)

    def stop(self, stop: Stop, now: float) -> None:
        """End the task: by a signal and, after the grace, SIGKILL to everything; the first reason counts."""
        if not self._watched:
            return
        self.go_on(now)  # or it could not hear that it should end
        self._stop = stop
        if stop.grace_s > 0:
            self._send("signal", signal=int(stop.signal))
            self._send("signal", signal=int(signal.SIGCONT))  # or it could not act on it
        self._kill_at = now + stop.grace_s

    def never_started(self, stop: Stop) -> None:
        """Note that the task was ended before it was launched."""
        self._stop = stop
        self.done = True

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self._watched and self._still is None and now >= self._wall_at:
            sentence = f"it ran longer than its limit of {self._limits.wall_s:g} s"
            self.stop(Stop("time-limit", sentence, self._grace_s), now)
        if self._watched and now >= self._look_at:
            if self._still is not None:
                self._still.hold()  # what was being started, or woken from outside
                if self._still.resists:
                    self.stop(Stop("evicted", "it did not stand still", 0.0), now)
            self._breached(self.watch.look(), now)
            self._look_at = now + self.watch.next_look_s
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self._answer_by = now + ANSWER_S
            self._send("kill")
        if self._answer_by is not None and now >= self._answer_by and not self.done:
            self._lose("its runner did not answer any more")

    def hear(self, heard: Heard, now: float) -> None:
        """Take what the runner said."""
        match heard:
            case Wake():
                pass
            case Gone(why):
                self._lose(f"its runner was lost: {why}")
            case Ready() | Did():
                self._lose("its runner spoke out of turn")
            case Started() | Failed() | Exited() | Clean() | Dirty():
                if heard.id == self._number and self._fits(heard):
                    self._advance(heard, now)
                else:
                    self._lose("its runner spoke out of turn")
            case _:
                assert_never(heard)

    def _fits(self, heard: Started | Failed | Exited | Clean | Dirty) -> bool:
        """Whether the message is the next one of an honest runner."""
        match heard:
            case Started() | Failed():
                return not self._started and self._ended is None
            case Exited(exit=code, signal=number):
                return self._started and self._ended is None and (code is None) != (number is None)
            case Clean() | Dirty():
                return self._ended is not None
            case _:
                assert_never(heard)

    def _advance(self, heard: Started | Failed | Exited | Clean | Dirty, now: float) -> None:
        match heard:
            case Started(beside=beside):
                self._started = True
                self.watch.spare(beside)
                if self._still is not None:
                    self._still.hold()  # it was being started
                if self._stop is None or self._kill_at is not None:
                    self._answer_by = None  # else it was killed already and must say so in time
                if self.on_started is not None:
                    self.on_started(self.stdout, self.stderr)
            case Failed() | Exited():
                self._ended = heard
                self._kill_at = None
                self._answer_by = now + ANSWER_S
            case Clean():
                self._runner.occupied = False
                self.done = True
            case Dirty():
                self._runner.kill()
                self.done = True
            case _:
                assert_never(heard)

    def _breached(self, breach: Breach | None, now: float) -> None:
        if breach is not None:
            self.stop(Stop(breach.reason, breach.detail, 0.0), now)

    def _send(self, op: str, **fields: int) -> None:
        self._runner.send({"op": op, "id": self._number, **fields})

    def _lose(self, why: str) -> None:
        self._lost = why
        self.done = True
        self._runner.kill()

    def outcome(self, now: float) -> Outcome:
        """Return how it ended; call when ``done``."""
        ended = self._ended
        code, number, seconds, max_rss, cpu_s = None, None, now - self._begun, 0, 0.0
        if isinstance(ended, Exited):
            code, number, max_rss = ended.exit, ended.signal, ended.max_rss
            # A runner may lie, but not beyond our own clock.
            seconds = max(0.0, min(ended.seconds, seconds) - self._stood_s)
            cpu_s = ended.utime + ended.stime
        elif isinstance(ended, Failed):
            code = exit_unexecuted(ended.errno)
        reason, detail = self._verdict(code, number)
        return Outcome(
            exit=code,
            signal=number,
            seconds=seconds,
            max_rss=max_rss,
            reason=reason,
            detail=detail,
            stdout=self.stdout,
            stderr=self.stderr,
            cpu_s=cpu_s,
        )

    def _verdict(self, code: int | None, number: int | None) -> tuple[Reason, str]:
        if self._stop is not None:
            return self._stop.reason, self._stop.detail
        if code != 0 and self._out_of_memory():
            limit = size_text(self._limits.memory_bytes or 0)
            return "memory-limit", f"it used more memory than its limit of {limit}"
        if self._lost is not None:
            return "sandbox", self._lost
        if isinstance(self._ended, Failed):
            return "exit", unexecuted(self._ended.errno)
        return by_itself(code, number)

    def _out_of_memory(self) -> bool:
        """Whether the kernel killed something of the task for passing its group's limit."""
        group = self._runner.group
        return group is not None and group.oom_kills() > self._oom_kills


def exited(code: int | None) -> str:
    """Return what there is to say of an attempt that ended by itself."""
    return f"it exited with status {code}"


def exit_unexecuted(number: int) -> int:
    """Return the exit status of what could not be executed, as shells have it, by the error number."""
    return EXIT_NOT_FOUND if number == errno.ENOENT else EXIT_NOT_EXECUTABLE


def unexecuted(number: int) -> str:
    """Return what there is to say of what could not be executed."""
    return f"the command could not be executed: {os.strerror(number)}"


def by_itself(code: int | None, number: int | None) -> tuple[Reason, str]:
    """Return how an attempt ended that nobody ended: by its status or by a signal, and what there is to say of it."""
    return _by_signal(number) or ("exit" if code else "ok", exited(code))


def _by_signal(number: int | None) -> tuple[Reason, str] | None:
    if number is None:
        return None
    if number == signal.SIGXFSZ:
        return "disk-limit", "one of its files grew beyond its limit"
    return "signal", f"it was killed by {_signal_name(number)}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
