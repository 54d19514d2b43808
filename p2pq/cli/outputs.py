"""What is printed as tasks end: their output, each in one piece, a line that counts them.

Bytes pass as they are: what a command prints is for whoever reads our standard output, terminal or not.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, BinaryIO, Final, Literal, Self

from p2pq.cli.common import duration
from p2pq.errors import StorageError
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk

Stream = Literal["stdout", "stderr"]

KEPT_BYTES_MAX: Final = 16 << 20
"""Output that came early is kept in memory up to here, then in a file without a name."""
LINE_BYTES_MAX: Final = 1 << 20
"""A line that is longer is printed in pieces."""
BAR_CELLS: Final = 30
_STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")


def write(chunk: LogChunk) -> None:
    """Pass on what a task has printed, at once."""
    stream = _ours(chunk.stream)
    stream.write(chunk.data)
    stream.flush()


def let_go() -> None:
    """Let go of what our outputs do not take, or the interpreter would try again at its end and exit with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_its_own_doing(ended: TaskEnded) -> bool:
    """Tell whether a task ended by an exit code or a signal, and not at a limit or by its worker's doing."""
    return ended.reason in {"", "exit", "signal"} and bool(ended.exit or ended.signal)


def _ours(name: Stream) -> BinaryIO:
    return sys.stdout.buffer if name == "stdout" else sys.stderr.buffer


class Printer:
    """Prints the output of tasks, one task after another: as they end, or in their order. A context manager."""

    def __init__(
        self,
        *,
        order: Iterable[int] | None = None,
        tag: Callable[[int], bytes] | None = None,
        live: bool = False,
    ) -> None:
        """Print tasks in that order, None: as they end; put what ``tag`` says of a task before each of its lines.

        With ``live``, what the task prints whose turn it is stands at once where it belongs.
        """
        self._live = live
        self._order = None if order is None else iter(order)
        self._next = None if self._order is None else next(self._order, None)
        self._tag = tag
        self._line_begins = {"stdout": True, "stderr": True}
        self._ended: set[int] = set()
        self._kept = _Kept()
        self.printed: Callable[[int], None] = lambda _: None
        """Told of each task of which all has been printed."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what was kept."""
        self._kept.close()

    def take(self, chunk: LogChunk) -> None:
        """Take output of a task; without an order, between two ends of tasks all of it is of one.

        Raises:
            OSError: our own output does not take it.
            StorageError: neither does the folder for temporary files.
        """
        if self._order is None or chunk.task == self._next:
            self._print(chunk.task, chunk.stream, chunk.data)
            if self._live:
                _ours(chunk.stream).flush()
        else:
            self._kept.add(chunk)

    def end(self, ended: TaskEnded) -> None:
        """Take it that a task has no more output.

        Raises:
            OSError: our own output does not take it.
        """
        if self._order is None:
            self._turn()
            self.printed(ended.task)
            return
        self._ended.add(ended.task)
        while self._next is not None and self._next in self._ended:
            self._ended.remove(self._next)
            self._turn()
            self.printed(self._next)
            self._next = next(self._order, None)
            if self._next is not None:
                self._print_kept(self._next)

    def finish(self) -> None:
        """Print what still waits for tasks before it; they will not come any more."""
        for task in self._kept.tasks():
            self._print_kept(task)
            self._turn()
            self.printed(task)

    def _turn(self) -> None:
        sys.stdout.buffer.flush()
        sys.stderr.buffer.flush()
        self._line_begins = {"stdout": True, "stderr": True}

    def _print_kept(self, task: int) -> None:
        for stream, data in self._kept.take(task):
            self._print(task, stream, data)

    def _print(self, task: int, stream: Stream, data: bytes) -> None:
        if self._tag is not None and data:
            tag = self._tag(task)
            whole = data.endswith(b"\n")
            inside = data[:-1] if whole else data
            begin = tag if self._line_begins[stream] else b""
            data = begin + inside.replace(b"\n", b"\n" + tag) + b"\n" * whole
            self._line_begins[stream] = whole
        if stream == "stderr":
            sys.stdout.buffer.flush()  # where both are one terminal, what was printed first stands first
        _ours(stream).write(data)


class Mixer:
    """Prints the output of tasks that run at the same time as it comes: whole lines, or whatever there is."""

    def __init__(self, *, lines: bool, tag: Callable[[int], bytes] | None = None) -> None:
        """Print whole ``lines``, after what ``tag`` says of their task; or all at once, without it."""
        self._lines = lines
        self._tag = tag if lines else None
        self._begun: dict[tuple[int, Stream], bytes] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: nothing is held open."""

    def take(self, chunk: LogChunk) -> None:
        """Take output of a task.

        Raises:
            OSError: our own output does not take it.
        """
        if not self._lines:
            write(chunk)
            return
        key = chunk.task, chunk.stream
        data = self._begun.pop(key, b"") + chunk.data
        whole = data.rfind(b"\n") + 1 or (len(data) if len(data) >= LINE_BYTES_MAX else 0)
        if whole < len(data):
            self._begun[key] = data[whole:]
        self._print(*key, data[:whole])

    def end(self, ended: TaskEnded) -> None:
        """Take it that a task has no more output: what it began is a line.

        Raises:
            OSError: our own output does not take it.
        """
        for stream in _STREAMS:
            self._print(ended.task, stream, self._begun.pop((ended.task, stream), b""))

    def finish(self) -> None:
        """Print what tasks began that are not told of any more."""
        for (task, stream), data in self._begun.items():
            self._print(task, stream, data)
        self._begun.clear()

    def _print(self, task: int, stream: Stream, data: bytes) -> None:
        if data:
            if self._tag is not None:
                tag = self._tag(task)
                inside = data.removesuffix(b"\n")
                data = tag + inside.replace(b"\n", b"\n" + tag) + data[len(inside) :]
            write(LogChunk(task=task, data=data, stream=stream))


class _Kept:
    """Output of tasks whose turn has not come: in memory up to KEPT_BYTES_MAX, beyond that in a file without a name."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._pieces: dict[int, list[tuple[Stream, bytes | range]]] = {}
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._in_file = 0

    def close(self) -> None:
        """Let go of everything."""
        if self._file is not None:
            self._file.close()

    def add(self, chunk: LogChunk) -> None:
        """Keep a piece of output.

        Raises:
            StorageError: there is no room for it.
        """
        held: bytes | range = chunk.data
        if self._bytes + len(chunk.data) > KEPT_BYTES_MAX:
            held = self._write(chunk.data)
        else:
            self._bytes += len(chunk.data)
        self._pieces.setdefault(chunk.task, []).append((chunk.stream, held))

    def tasks(self) -> list[int]:
        """Return the tasks of which there is output, in order."""
        return sorted(self._pieces)

    def take(self, task: int) -> Iterator[tuple[Stream, bytes]]:
        """Give back what a task printed, and keep it no longer."""
        for stream, held in self._pieces.pop(task, ()):
            if isinstance(held, range):
                yield stream, self._read(held)
            else:
                self._bytes -= len(held)
                yield stream, held

    def _write(self, data: bytes) -> range:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as this object
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            where = tempfile.gettempdir()
            raise StorageError(
                f"{where}: {error.strerror}; make room, set TMPDIR to another folder, or leave --keep-order out"
            ) from error
        self._in_file += 1
        return range(start, start + len(data))

    def _read(self, place: range) -> bytes:
        assert self._file is not None  # noqa: S101  there is a place in it
        self._file.seek(place.start)
        data = self._file.read(len(place))
        self._in_file -= 1
        if not self._in_file:
            self._file.truncate(
                0
            )  # what is early all the time would else fill the disk with what has long been printed
        return data


class CountsLine:
    """A line on a terminal that tells how many tasks are over; it steps aside for what the tasks print."""

    def __init__(self, total: int, *, bar: bool, eta: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Draw a bar, the time that is left, both, or nothing; nothing either where standard error is no terminal."""
        self._total = total
        self._bar = bar
        self._eta = eta
        self._shown = (bar or eta) and sys.stderr.isatty()
        self._clock = clock
        self._begun = clock()
        self._visible = False
        self._over = 0
        self._failed = 0

    def clear(self) -> None:
        """Take the line away."""
        if self._visible:
            self._visible = False
            self._say("\r\x1b[K")

    def ended(self, state: str) -> None:
        """Count a task that has ended, and draw the line anew."""
        self._over += 1
        self._failed += state == "failed"
        if self._shown:
            self._visible = True
            self._say(f"\r\x1b[K{self._text(self._clock() - self._begun)}")

    def _text(self, taken_s: float) -> str:
        text = f"{self._over}/{self._total}"
        if self._failed:
            text += f", {self._failed} failed"
        if self._eta and self._over < self._total:
            text += f", {duration(taken_s * (self._total - self._over) / self._over)} left"
        if self._bar:
            full = BAR_CELLS * self._over // self._total
            text = f"[{'=' * full}{' ' * (BAR_CELLS - full)}] {text}"
        return text

    def _say(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
