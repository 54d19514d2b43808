"""Calls on their way into tasks: which go together, by how long such calls took, so that a task is worth its start.

Pure but for pickling: no clock, no thread, no node.
"""

import pickle  # noqa: TID251  calls go to this user's own processes only
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, Final

from p2pq.runner import calls

TASK_S: Final = 0.08
"""So much work goes into a task, if there is as much; more where starting one takes long."""
START_PART: Final = 4
"""A task works so many times as long as it takes to start, if there is as much to do."""
SHARED_S: Final = 0.005
"""Calls that take less than this together are not divided over slots."""
HAND_BACK: Final = 3.0
"""A task that has worked so many times as long as was meant gives back what it has not begun, for others to take."""
BYTES_MAX: Final = 16 << 20
"""No more calls are put into a task whose arguments have so many bytes."""
CALLS_MAX: Final = 20_000
SAMPLE: Final = 256
"""How many waiting calls are looked at to tell how much work there is."""
ROUNDING: Final = 1 - 1e-6
"""Sums of small numbers are never what they should be; a task more for a single call would be dear."""
NAMES_MAX: Final = 4096
"""Functions of which durations are remembered."""


@dataclass(slots=True)
class Call:
    """One call that was asked for."""

    future: "Future[Any]"
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    begun: bool = False
    """It is on its way, or was: it cannot be cancelled any more."""


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that become one task."""

    calls: list[Call]
    data: list[bytes]
    """What the task reads."""


class Pace:
    """How long calls take, by what they call, and how long a task takes to start."""

    def __init__(self, least_s: float = TASK_S) -> None:
        """Know nothing but how much work a task should have at least."""
        self._least_s = least_s
        self._first: dict[str, float] = {}
        self._later: dict[str, float] = {}
        self._start_s = 0.0

    def measured(self, made: list[tuple[Call, float]]) -> None:
        """Take in how long the calls of a task took, in order; what is new counts as much as all before.

        The first one of a function may import something, so that the others tell more.
        """
        taken: dict[str, list[float]] = {}
        for call, seconds in made:
            taken.setdefault(_name(call.function), []).append(seconds)
        for name, (first, *later) in taken.items():
            if len(self._first) >= NAMES_MAX:
                self._first.clear()
                self._later.clear()
            self._first[name] = first
            if later:
                mean = sum(later) / len(later)
                self._later[name] = (self._later.get(name, mean) + mean) / 2

    def started(self, seconds: float) -> None:
        """Take in how long a task took besides its calls."""
        self._start_s = (self._start_s + seconds) / 2 if self._start_s else seconds

    def of(self, call: Call) -> float | None:
        """Return how long a call will probably take, in seconds; None: nothing is known."""
        name = _name(call.function)
        return self._later.get(name, self._first.get(name))

    def doubted(self, call: Call) -> bool:
        """Whether only first calls are known, so that two in one task would tell more."""
        return _name(call.function) not in self._later

    @property
    def gather_s(self) -> float:
        """How long it is worth waiting for more calls at most: a part of what it costs to start one task more."""
        return self._start_s / 2

    @property
    def task_s(self) -> float:
        """How much work a task should have."""
        return max(self._least_s, START_PART * self._start_s)


class Groups:
    """Calls that wait, and how they are put together."""

    def __init__(
        self, begin: bytes, *, least_s: float = TASK_S, trusted: bool = True, types: Sequence[bytes] = ()
    ) -> None:
        """Keep what each task calls first, pickled, and how much it should work at least; the rest is as in ``calls.Order``."""
        self.pending: deque[Call] = deque()
        self.pace = Pace(least_s)
        self._begin = begin
        self._trusted, self._types = trusted, types

    def take(self, free: int, spare: int) -> list[Group]:
        """Take calls out for tasks: at most ``free`` that begin at once, and ``spare`` that will when others end.

        Calls of which nothing is known yet are each a task, and only begin at once. What begins later is a whole task's work, as
        more may come until then.
        """
        found: list[Group] = []
        work_s = self._work_s()
        wanted = min(free, max(1, ceil(work_s / SHARED_S))) if free > 0 else 0
        wanted = max(wanted, min(free + spare, int(work_s / self.pace.task_s)))
        many = len(self.pending) > 2 * wanted
        while len(found) < wanted and self.pending:
            if len(found) >= free and self.pace.of(self.pending[0]) is None:
                break
            share_s = min(self.pace.task_s, max(0.0, work_s) / (wanted - len(found)))
            group, taken_s = self._group(share_s, many=many)
            work_s -= taken_s
            if group is not None:
                found.append(group)
        return found

    def short(self) -> bool:
        """Whether what waits first is a call that is not worth a task of its own."""
        seconds = self.pace.of(self.pending[0]) if self.pending else None
        return seconds is not None and seconds < SHARED_S

    def _work_s(self) -> float:
        """Return how long what waits will take, as far as that matters for how many tasks it makes."""
        total, seen = 0.0, 0
        for call in self.pending:
            seconds = self.pace.of(call)
            total += self.pace.task_s if seconds is None else seconds
            seen += 1
            if seen >= SAMPLE:
                break
        return total * len(self.pending) / seen if seen else 0.0

    def _group(self, share_s: float, *, many: bool) -> tuple[Group | None, float]:
        """Take calls for one task; return them, and how long they will take.

        There is none if all of them are cancelled, or cannot be pickled, which they are told.
        """
        taken: list[Call] = []
        functions: dict[int, tuple[int, bytes]] = {}
        arguments: list[bytes] = []
        which: list[tuple[int, int]] = []
        total_s, total_bytes = 0.0, 0
        while self.pending and len(taken) < CALLS_MAX and total_bytes < BYTES_MAX:
            call = self.pending[0]
            seconds = self.pace.of(call)
            full = seconds is None or total_s >= share_s * ROUNDING
            if taken and full and not (many and len(taken) == 1 and seconds is not None and self.pace.doubted(call)):
                break
            self.pending.popleft()
            if not call.begun and not call.future.set_running_or_notify_cancel():
                continue
            call.begun = True
            try:
                number = _number(call.function, functions)
                data = calls.pickled((call.args, call.kwargs))
            except Exception as error:  # noqa: BLE001  whatever an object raises that cannot be pickled
                call.future.set_exception(error)
                continue
            taken.append(call)
            arguments.append(data)
            which.append((number, len(data)))
            total_bytes += len(data)
            if seconds is None:
                total_s += self.pace.task_s
                break
            total_s += seconds
        if not taken:
            return None, total_s
        return Group(taken, [*self._head([each for _, each in functions.values()], which), *arguments]), total_s

    def _head(self, functions: list[bytes], which: list[tuple[int, int]]) -> Iterator[bytes]:
        budget_s = HAND_BACK * self.pace.task_s
        order = calls.Order(
            list(sys.path),
            list(sys.argv),
            budget_s,
            self._begin,
            functions,
            which,
            trusted=self._trusted,
            types=self._types,
        )
        head = pickle.dumps(order, calls.PROTOCOL)
        yield len(head).to_bytes(calls.LENGTH_BYTES, "little")
        yield head

    def put_back(self, handed: list[Call]) -> None:
        """Let calls that were not made wait again, before all others."""
        self.pending.extendleft(reversed(handed))


def argv(python: str, root: str) -> tuple[str, ...]:
    """Return the command that makes calls: this interpreter, with the flags it was started with.

    Args:
        python: the interpreter.
        root: the folder that this package lies in.
    """
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001  as multiprocessing does
    return (python, *flags, "-c", calls.BOOT, root)


def _name(function: Callable[..., Any]) -> str:
    """Return what durations of a function are remembered by: methods of all objects of a class have one."""
    while isinstance(function, partial):
        function = function.args[0] if function.func is calls.run_chunk else function.func
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def _number(function: Callable[..., Any], functions: dict[int, tuple[int, bytes]]) -> int:
    """Return a function's number in its task. Pickled once a task and not once for all: what it refers to may change."""
    known = functions.get(id(function))
    if known is None:
        known = functions[id(function)] = (len(functions), calls.pickled(function))
    return known[0]
