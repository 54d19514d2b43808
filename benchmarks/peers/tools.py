"""Peers that are commands and nothing else: GNU parallel and xargs."""

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.peers.contestant import LIMIT_S, TRUE, NotMeasuredError, Order, Sample

AT_ONCE: Final = 2


class Tool:
    """A command that starts other commands; nothing of it is there in between."""

    name = ""
    program = ""
    setting = ""

    def __init__(self, folder: Path) -> None:
        """Say where files may lie."""
        self._folder = folder

    def __enter__(self) -> Self:
        """See that it is there, and run it once."""
        if shutil.which(self.program) is None:
            raise NotMeasuredError(f"not installed: {self.program}")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run(self._single())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing runs."""

    def pids(self) -> list[int]:
        """Return nothing."""
        return []

    def measure(self, order: Order) -> Sample:
        """Run it as a whole process."""
        if order.work == "cli":
            return Sample(seconds=tuple(self._run(self._single())[0] for _ in range(order.count)))
        if order.argvs:
            numbers = self._folder / "numbers"
            numbers.write_text("".join(f"{argv[-1]}\n" for argv in order.argvs))
            took, printed = self._run(self._scripts(order.argvs[0][:-1], numbers))
            return Sample(seconds=(took,), outputs=tuple(printed.splitlines(keepends=True)))
        if order.work == "commands":
            argv, check = self._commands(order.count)
            return Sample(seconds=(self._run(argv, check)[0],))
        raise NotMeasuredError("a command, without a Python client")

    def _single(self) -> Sequence[str]:
        raise NotImplementedError

    def _scripts(self, argv: Sequence[str], numbers: Path) -> Sequence[str]:
        raise NotImplementedError

    def _commands(self, count: int) -> tuple[Sequence[str], Callable[[], object]]:
        raise NotImplementedError

    def _run(self, argv: Sequence[str], check: Callable[[], object] = lambda: None) -> tuple[float, str]:
        """Return the seconds it took, the check included, and what it printed."""
        began = time.perf_counter()
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise NotMeasuredError(f"not done within {LIMIT_S:.0f} s") from error
        if done.returncode:
            raise NotMeasuredError(f"exit code {done.returncode}: {done.stderr.strip()[:200]}")
        check()
        return time.perf_counter() - began, done.stdout


class Parallel(Tool):
    """GNU parallel."""

    name = "GNU parallel"
    program = "parallel"
    # Only a job log has the exit code of each job (its manual, --joblog). -k keeps outputs in the order of the inputs. What the
    # manual recommends for fast jobs, `--pipe sh` and -X, has no exit code of each job and is no peer of this.
    setting = "-j 2; --joblog for exit codes, -k for outputs"

    def _single(self) -> Sequence[str]:
        return [self.program, "--will-cite", "true", ":::", "1"]

    def _scripts(self, argv: Sequence[str], numbers: Path) -> Sequence[str]:
        return [self.program, "--will-cite", "-k", "-j", str(AT_ONCE), *argv, "{}", "::::", str(numbers)]

    def _commands(self, count: int) -> tuple[Sequence[str], Callable[[], object]]:
        lines, log = self._folder / "lines", self._folder / "log"
        lines.write_text(f"{TRUE}\n" * count)
        argv = [self.program, "--will-cite", "-j", str(AT_ONCE), "--joblog", str(log), "--arg-file", str(lines)]
        return argv, lambda: check_joblog(log, count)


class ParallelTwice(Parallel):
    """GNU parallel that starts two of itself."""

    name = "GNU parallel, two below one"
    # Its manual, "Speeding up fast jobs": "spawn multiple GNU parallels", each of which starts jobs on a core of its own.
    setting = "-j 2 --pipe parallel -j 1 --joblog"

    def measure(self, order: Order) -> Sample:
        """Run commands; nothing else becomes faster by it."""
        if order.work != "commands":
            raise NotMeasuredError("as GNU parallel alone")
        return super().measure(order)

    def _commands(self, count: int) -> tuple[Sequence[str], Callable[[], object]]:
        lines, logs = self._folder / "lines", self._folder / "logs"
        lines.write_text(f"{TRUE}\n" * count)
        logs.mkdir(exist_ok=True)
        inner = [self.program, "--will-cite", "-j", "1", "--joblog", f"{logs}/{{#}}"]
        each = str(-(-count // AT_ONCE))
        argv = [self.program, "--will-cite", "-j", str(AT_ONCE), "--pipe", "-N", each, *inner]
        # It reads what it deals out from its standard input only.
        return ["sh", "-c", 'exec "$@" <"$0"', str(lines), *argv], lambda: check_joblogs(logs, count)


class Xargs(Tool):
    """xargs of GNU findutils."""

    name = "xargs"
    program = "xargs"
    setting = "-P 2 -n 1; of exit codes it tells only whether all were 0, and outputs may mix"

    def _single(self) -> Sequence[str]:
        one = self._folder / "one"
        one.write_text("1\n")
        return [self.program, "-a", str(one), "-n", "1", "true"]

    def _scripts(self, argv: Sequence[str], numbers: Path) -> Sequence[str]:
        return [self.program, "-a", str(numbers), "-P", str(AT_ONCE), "-n", "1", *argv]

    def _commands(self, count: int) -> tuple[Sequence[str], Callable[[], object]]:
        numbers = self._folder / "numbers"
        numbers.write_text("".join(f"{number}\n" for number in range(count)))
        return [self.program, "-a", str(numbers), "-P", str(AT_ONCE), "-n", "1", TRUE], lambda: None


def check_joblog(log: Path, count: int) -> None:
    """See that a job log has as many jobs, all with exit code 0.

    Raises:
        NotMeasuredError: it has not.
    """
    good = _good(log)
    if good != count:
        raise NotMeasuredError(f"only {good} of {count} came back as they should")


def check_joblogs(folder: Path, count: int) -> None:
    """See that the job logs of a folder together have as many jobs, all with exit code 0.

    Raises:
        NotMeasuredError: they have not.
    """
    good = sum(map(_good, list(folder.iterdir())))
    if good != count:
        raise NotMeasuredError(f"only {good} of {count} came back as they should")


def _good(log: Path) -> int:
    _, *jobs = log.read_text().splitlines()
    log.unlink()
    return sum(job.split("\t")[6] == "0" for job in jobs)
