"""The flight recorder: stands between the driver and the core, and writes down what the core hears and decides.

Off unless ``[log] flight`` says otherwise: a record holds the node's keys. It is a diary, not the truth: nothing is synced,
nobody waits for it, and where it cannot go on (a full disk, the bound of a file) it ends and the node goes on. Entries go
to the kernel one by one, so a killed process leaves all of them.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from p2pq.core import flight
from p2pq.core.effects import Effect
from p2pq.core.events import Event
from p2pq.daemon.driver import Machine
from p2pq.errors import InvariantError, Reject
from p2pq.model.ids import Mono

SUFFIX: Final = ".flight"
FILES_MAX: Final = 16
BYTES_MAX: Final = 256 << 20
"""All records of a home together."""
FILE_BYTES_MAX: Final = 128 << 20
"""One record; a life that would need more is recorded up to there."""

Tell = Callable[..., None]
"""``Telemetry.event``."""


def record(folder: Path, header: flight.Header, node: Machine, tell: Tell) -> "Recorder | None":
    """Begin a record of a life in a new file of that folder, after making room; say where it is.

    Returns:
        What the driver runs in place of the core; None, and a line in the log, where no file can be made.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        path = _make_room(folder)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        tell(logging.WARNING, "flight.ended", file=str(folder), reason=error.strerror)
        return None
    recorder = Recorder(node, path, file, tell)
    tell(logging.WARNING, "flight.recording", file=str(path), warning="as secret as the home: it holds the node's keys")
    recorder.write(flight.MAGIC, flight.pack(header))
    return recorder


def _make_room(folder: Path) -> Path:
    """Delete the oldest records until a new one fits into the bounds; return the new one's path."""
    old = sorted((int(path.stem), path) for path in folder.glob(f"*{SUFFIX}") if path.stem.isdecimal())
    sizes = [path.lstat().st_size for _, path in old]
    gone = 0
    while len(old) - gone >= FILES_MAX or sum(sizes[gone:]) > BYTES_MAX - FILE_BYTES_MAX:
        old[gone][1].unlink()
        gone += 1
    number = old[-1][0] + 1 if old else 1
    return folder / f"{number:04}{SUFFIX}"


class Recorder:
    """A core that is written down. What it decides is the core's own; that it is recorded changes nothing."""

    def __init__(self, node: Machine, path: Path, file: int, tell: Tell) -> None:
        """Wrap a core; ``file`` is the open descriptor of ``path`` and belongs to this now."""
        self._node = node
        self._path = path
        self._file: int | None = file
        self._tell = tell
        self._size = 0

    @property
    def deadline(self) -> Mono | None:
        """When the core wants to be called next, if nothing happens before."""
        return self._node.deadline

    def handle(self, event: Event, now: Mono) -> list[Effect]:
        """Let the core decide, and write down what it heard and decided.

        Raises:
            InvariantError: the core broke a promise of its own; the message names the record.
        """
        if self._file is None:
            return self._node.handle(event, now)
        self._entry(lambda: flight.Heard(now, event))
        try:
            effects = self._node.handle(event, now)
        except AssertionError as error:
            raise self._broken(error) from error
        self._entry(lambda: flight.decided(effects))
        return effects

    def check(self) -> None:
        """Assert the core's invariants.

        Raises:
            InvariantError: one does not hold; the message names the record.
        """
        try:
            self._node.check()
        except AssertionError as error:
            raise self._broken(error) from error

    def write(self, *pieces: bytes) -> None:
        """Append to the record; where that cannot be, the record ends here and the log says so."""
        data = b"".join(pieces)
        if self._file is None:
            return
        if self._size + len(data) > FILE_BYTES_MAX:
            self._end(f"{FILE_BYTES_MAX >> 20} MB are written")
            return
        try:
            if os.write(self._file, data) < len(data):
                self._end("the disk is full")
            self._size += len(data)
        except OSError as error:
            self._end(error.strerror or "the disk fails")

    def close(self) -> None:
        """End the record: this life is over."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _entry(self, make: Callable[[], flight.Entry]) -> None:
        try:
            raw = flight.pack(make())
        except Reject as error:  # a text that is no Unicode, say: whatever it is, the node need not care
            self._end(error.reason)
            return
        self.write(raw)

    def _broken(self, error: AssertionError) -> InvariantError:
        if self._file is None:
            return InvariantError(str(error))
        self._entry(lambda: flight.Broke(str(error)))
        self.close()
        return InvariantError(f"{error}; `python -m simulations replay {self._path} --check` shows how it came to that")

    def _end(self, reason: str) -> None:
        self.close()
        self._tell(logging.WARNING, "flight.ended", file=str(self._path), reason=reason)
