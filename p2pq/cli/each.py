"""A Python function that is called with each task as it ends: ``--each module:function``."""

import importlib
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from p2pq.client.told import EndedTask
from p2pq.errors import EachFailedError, P2PQError, UsageError
from p2pq.wire.commandcontrol import TaskEnded
from p2pq.wire.control import LogChunk

HELD_BYTES_MAX: Final = 1 << 30
"""Output of tasks that the function has not been called with yet."""

Function = Callable[[EndedTask], Any]


def function_of(text: str) -> Function:
    """Return what ``module:function`` names; modules of the current folder come first, as with ``python -m``.

    Raises:
        UsageError: there is no such thing, or it can not be called.
        EachFailedError: the module could not be loaded; what it raised was printed.
    """
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise UsageError(
            f"--each {text!r} is not module:function; write it like --each mine:collect, for collect in mine.py"
        )
    if sys.path[:1] != [str(Path.cwd())]:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _failed(f"{module} could not be loaded") from error
        raise UsageError(
            f"--each {text!r}: there is no {module}.py here, nor a module of that name for {sys.executable}"
        ) from error
    except (Exception, SystemExit) as error:
        raise _failed(f"{module} could not be loaded") from error
    function = getattr(found, name, None)
    if not callable(function):
        raise UsageError(f"--each {text!r}: {module} has no function {name}")
    return function  # type: ignore[no-any-return]  # whatever it is, it is called


def _failed(what: str) -> EachFailedError:
    traceback.print_exc()
    return EachFailedError(f"--each: {what}, as said above; mend that and try again")


class Calls:
    """Calls a function with tasks, as they end or in their order. A context manager."""

    def __init__(
        self, function: Function, order: Iterable[int] | None, made: Callable[[TaskEnded, bytes, bytes], EndedTask]
    ) -> None:
        """Call ``function`` with what ``made`` makes of how a task ended and of what it printed."""
        self._function = function
        self._order = None if order is None else iter(order)
        self._next = None if self._order is None else next(self._order, None)
        self._made = made
        self._printed: dict[int, tuple[bytearray, bytearray]] = {}
        self._bytes = 0
        self._early: dict[int, TaskEnded] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what is held."""
        self._printed.clear()

    def take(self, chunk: LogChunk) -> None:
        """Hold output of a task until it has ended.

        Raises:
            UsageError: it is too much.
        """
        held = self._printed.setdefault(chunk.task, (bytearray(), bytearray()))
        held[chunk.stream == "stderr"].extend(chunk.data)
        self._bytes += len(chunk.data)
        if self._bytes > HELD_BYTES_MAX:
            raise UsageError(
                f"--each: output of more than {HELD_BYTES_MAX >> 20} MiB waits for the function; "
                "let tasks write into files, or leave --keep-order out"
            )

    def end(self, ended: TaskEnded) -> None:
        """Call the function, if it is this task's turn.

        Raises:
            EachFailedError: it raised an exception, which was printed.
        """
        if self._order is None:
            self._call(ended)
            return
        self._early[ended.task] = ended
        while self._next in self._early:
            self._call(self._early.pop(self._next))
            self._next = next(self._order, None)

    def finish(self) -> None:
        """Call the function with tasks that waited for others before them; these will not come any more."""
        for task in sorted(self._early):
            self._call(self._early[task])

    def _call(self, ended: TaskEnded) -> None:
        stdout, stderr = map(bytes, self._printed.pop(ended.task, (b"", b"")))
        self._bytes -= len(stdout) + len(stderr)
        task = self._made(ended, stdout, stderr)
        try:
            self._function(task)
            sys.stdout.flush()
        except (P2PQError, BrokenPipeError):
            raise
        except (Exception, SystemExit) as error:
            raise _failed(f"{getattr(self._function, '__qualname__', 'it')} failed with task {ended.task}") from error
