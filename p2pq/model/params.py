"""Arrays and sweeps: what the user typed, how many tasks that makes, and what each task is called and told.

A task has an index (0, 1, ...; what the core counts) and a number (what people see: the array's own number where there is an
array and no sweep, else the index).
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from p2pq.errors import UsageError
from p2pq.model.job import TASKS_MAX

NUMBER_MAX: Final = 1 << 40
VALUE_CHARS_MAX: Final = 65_536
ARGV_CHARS_MAX: Final = 2 << 20
"""What all arguments of one task may come to; Linux starts no program with more."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_RESERVED: Final = frozenset({"task", "job", "array", "config"})

Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]


class Range(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The numbers first, first + step, ... up to and including last."""

    first: Number
    last: Number
    step: Annotated[int, Meta(ge=1, le=NUMBER_MAX)] = 1

    def count(self) -> int:
        """Return how many numbers there are; 0 where last is before first."""
        return max(0, (self.last - self.first) // self.step + 1)


class Axis(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One swept parameter: its name and its values, as text."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    values: Annotated[tuple[Annotated[str, Meta(max_length=VALUE_CHARS_MAX)], ...], Meta(min_length=1)]


def parse_array(text: str) -> tuple[Range, ...]:
    """Parse ``0-99``, ``0-99:5`` or ``3,7,10-12``.

    Raises:
        UsageError: it is not such a list, runs backwards, repeats a number, or makes too many tasks.
    """
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,12})(?:-([0-9]{1,12})(?::([0-9]{1,12}))?)?\s*", part)
        if match is None:
            raise UsageError(f"--array {text!r} is not a list of numbers; write it like 0-99, 0-99:5 or 3,7,10-12")
        first, last, step = match.groups()
        if step is not None and int(step) == 0:
            raise UsageError(f"--array {part.strip()} has a step of 0; leave the step out or make it 1 or more")
        item = Range(int(first), int(last or first), int(step or 1))
        if not item.count():
            raise UsageError(f"--array {part.strip()} runs backwards; put the smaller number first")
        ranges.append(item)
    total = sum(item.count() for item in ranges)
    if total > TASKS_MAX:
        raise UsageError(f"--array makes {total} tasks; the most is {TASKS_MAX}")
    ordered = sorted(ranges, key=lambda item: item.first)
    if any(before.last >= after.first for before, after in pairwise(ordered)):
        raise UsageError(f"--array {text!r} has ranges that overlap; every task needs a number of its own")
    return tuple(ranges)


def parse_sweep(text: str) -> Axis:
    """Parse ``k=1,2,3`` or ``x=0:1:0.1`` (start, last value included, step; exact decimal arithmetic).

    Raises:
        UsageError: it has no name or no values, or the range never ends.
    """
    name, equals, rest = text.partition("=")
    name = name.strip()
    if not equals or not _NAME.fullmatch(name) or not rest:
        raise UsageError(f"--sweep {text!r} is not NAME=VALUES; write it like k=1,2,3 or x=0:1:0.1")
    if name in _RESERVED:
        raise UsageError(f"--sweep cannot be named {name!r}: {{{name}}} has a meaning already; choose another name")
    pieces = rest.split(":")
    if len(pieces) in {2, 3} and all(_is_number(piece) for piece in pieces):
        return Axis(name, _steps(text, [Decimal(piece) for piece in pieces]))
    values = tuple(value.strip() for value in rest.split(","))
    if any(len(value) > VALUE_CHARS_MAX for value in values):
        raise UsageError(f"--sweep {name} has a value longer than {VALUE_CHARS_MAX} characters; put it into a file")
    return Axis(name, values)


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite() and len(text) <= 40  # noqa: PLR2004  digits enough for anybody
    except InvalidOperation:
        return False


def _steps(text: str, numbers: list[Decimal]) -> tuple[str, ...]:
    start, last, step = (*numbers, Decimal(1))[:3]
    if not step or (last - start) / step < 0:
        raise UsageError(f"--sweep {text!r} never reaches its last value; check the sign of the step")
    count = int((last - start) / step) + 1
    if count > TASKS_MAX:
        raise UsageError(f"--sweep {text!r} makes {count} values; the most is {TASKS_MAX}")
    return tuple(_plain(start + step * number) for number in range(count))


def _plain(number: Decimal) -> str:
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def count_tasks(array: Sequence[Range], axes: Sequence[Axis]) -> int:
    """Return how many tasks an array and swept axes make together.

    Raises:
        UsageError: more than TASKS_MAX, or two axes have one name.
    """
    if len({axis.name for axis in axes}) != len(axes):
        raise UsageError("--sweep names one parameter twice; give all its values in one --sweep")
    total = sum(item.count() for item in array) if array else 1
    for axis in axes:
        total *= len(axis.values)
    if total > TASKS_MAX:
        raise UsageError(f"the sweep makes {total} tasks; the most is {TASKS_MAX}")
    return total


def array_value(array: Sequence[Range], position: int) -> int:
    """Return the number at a position of the array. Raises IndexError past its end."""
    for item in array:
        if position < item.count():
            return item.first + position * item.step
        position -= item.count()
    raise IndexError(position)


def task_params(array: Sequence[Range], axes: Sequence[Axis], index: int) -> dict[str, str]:
    """Return the task's parameters by name; the last axis varies fastest. ``array`` is the array's number."""
    values: dict[str, str] = {}
    for axis in reversed(axes):
        index, position = divmod(index, len(axis.values))
        values[axis.name] = axis.values[position]
    if array:
        values["array"] = str(array_value(array, index))
    return dict(reversed(values.items()))


def task_number(array: Sequence[Range], axes: Sequence[Axis], index: int) -> int:
    """Return what people call the task: the array's number where nothing is swept, else the index."""
    return array_value(array, index) if array and not axes else index


def task_index(array: Sequence[Range], axes: Sequence[Axis], number: int) -> int | None:
    """Return the index of the task that people call ``number``, or None."""
    if not array or axes:
        return number if 0 <= number < count_tasks(array, axes) else None
    before = 0
    for item in array:
        if item.first <= number <= item.last and (number - item.first) % item.step == 0:
            return before + (number - item.first) // item.step
        before += item.count()
    return None


def expand(args: Sequence[str], params: dict[str, str], *, job: str, task: int, swept: Sequence[Axis]) -> list[str]:
    """Fill ``{k}``, ``{task}`` and ``{job}``; append ``--k value`` for each swept axis that no argument names.

    Braces that name nothing stay as they are, so that arguments in other languages survive.

    Raises:
        UsageError: all of it is longer than ARGV_CHARS_MAX (found out before it is built: a short text can name a long
            value a million times).
    """
    known = {**params, "job": job, "task": str(task)}
    named: set[str] = set()
    total = 0

    def grow(text: str) -> str:
        nonlocal total
        total += len(text)
        if total > ARGV_CHARS_MAX:
            raise UsageError(f"the arguments of task {task} are longer than {ARGV_CHARS_MAX} characters; use a file")
        return text

    def fill(match: re.Match[str]) -> str:
        key = match.group(1)
        if key not in known:
            return match.group(0)
        named.add(key)
        return grow(known[key])

    done = [re.sub(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}", fill, grow(arg)) for arg in args]
    for axis in swept:
        if axis.name not in named:
            done += [grow(f"--{axis.name}"), grow(params[axis.name])]
    return done
