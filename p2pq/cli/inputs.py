"""What the tasks of map and batch differ in: values from the command line, from files, from standard input."""

import os
import random
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from p2pq.errors import UsageError
from p2pq.model import plus, template
from p2pq.model.params import VALUE_CHARS_MAX
from p2pq.model.sources import Source, count
from p2pq.model.sources import values as values_of
from p2pq.wire.control import FRAME_BYTES_MAX

STDIN: Final = "-"
LINE_BYTES_MAX: Final = VALUE_CHARS_MAX
"""A command line that is filled with values is no longer, as long as each of them leaves room for another."""

Trim = Literal["n", "l", "r", "lr"]
Column = tuple[Sequence[str], bool]
"""Values as they came, and whether they are linked to those before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """How what was typed is read: options of map that are spelled as in GNU parallel."""

    null: bool = False
    """Items of files end with a zero byte."""
    colsep: str | None = None
    """What divides columns, a regular expression; None: nothing does."""
    header: bool = False
    """The first value of each source names it."""
    link: bool = False
    """Sources do not multiply: the first value goes with the first, and short ones begin again."""
    trim: Trim | None = None
    """At which ends of values blanks are taken away; None: at both ends of columns, and nowhere else."""
    quote: bool = False
    """The command's words are what they are, and nothing in them is for the shell."""
    shuffle: bool = False
    plus: bool = False
    """There are more replacement strings."""
    values_max: int | None = None
    """So many values for each command line; 0: one each, that is not given to it."""
    fill: Literal["", "context", "values"] = ""
    """As many values for each command line as fit: each with what is around it, or all in one place."""
    at_once: int = 1
    """Into so many command lines at least values are divided that are filled in."""
    values: str = ":::"
    """What begins values on the command line."""
    files: str = "::::"
    """What begins files of values."""


@dataclass(frozen=True)
class Tasks:
    """The tasks of one map or batch."""

    words: tuple[str, ...]
    """The command with its replacement strings; none: the values are command lines."""
    sources: tuple[Source, ...]
    names: tuple[str, ...]
    """Of the columns."""
    name: str = ""
    """What was typed, where ``words`` do not say it."""
    grouped: bool = False
    """Tasks have several values of one column."""
    blocks: int | None = None
    """With ``--pipe``: how many there are; they have no values."""
    given: tuple[tuple[str, ...], ...] | None = None
    """The values of each task, where those of ``sources`` are command lines that have them already."""

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return count(self.sources) if self.blocks is None else self.blocks

    def command(self, task: int) -> str:
        """Return the command line of a task.

        Raises:
            UsageError: it cannot be made, or not be run.
        """
        return template.render(self.words, values_of(self.sources, task), task + 1)

    def values(self, task: int) -> tuple[str, ...]:
        """Return the values of a task."""
        return values_of(self.sources, task) if self.given is None else self.given[task]

    def filled(self, text: str, tasks: Sequence[int]) -> list[str]:
        """Return what a text with replacement strings, such as the name of a file, is for some tasks."""
        if not template.replaces(text):
            return [template.fill(text, (), 0)] * len(tasks)
        return [template.fill(text, self.values(task), task + 1) for task in tasks]

    def tag(self, task: int) -> str:
        """Return what ``--tag`` puts before the lines of a task."""
        shown = self.values(task)
        return " ".join(shown) + "\t"


class Inputs:
    """Reads items: lines, or what ends with a zero byte. Standard input can be read once."""

    def __init__(self, *, null: bool) -> None:
        """Split after zero bytes instead of at the ends of lines."""
        self._end = "\0" if null else "\n"
        self._stdin_is_read = False

    def read(self, name: str) -> list[str]:
        """Return the items of a file, or of standard input (``-``); empty ones are items too.

        Raises:
            UsageError: it is too large, is no text, or standard input was read before.
            OSError: it cannot be read.
        """
        called = "standard input" if name == STDIN else name
        data = self._data(name)
        if len(data) > FRAME_BYTES_MAX:
            raise UsageError(f"{called} holds more than {FRAME_BYTES_MAX >> 20} MiB; split it into several jobs")
        try:
            items = data.decode().split(self._end)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise UsageError(f"{called} is not UTF-8 text in line {line}; write it in UTF-8") from error
        if not items[-1]:
            items.pop()  # an end ends an item and does not begin one
        return items

    def _data(self, name: str) -> bytes:
        if name != STDIN:
            with open(name, "rb") as file:  # noqa: PTH123  errors name the file as it was typed
                return file.read(FRAME_BYTES_MAX + 1)
        if self._stdin_is_read:
            raise UsageError("standard input can be read only once; write it to a file if two sources need it")
        self._stdin_is_read = True
        return sys.stdin.buffer.read(FRAME_BYTES_MAX + 1)


def of_batch(name: str, *, null: bool, shuffle: bool = False) -> Tasks | None:
    """Return the tasks that the command lines of a file make, None where there are none.

    Raises:
        UsageError: something is wrong with them.
        OSError: they cannot be read.
    """
    return of_lines(Inputs(null=null).read(name), shuffle=shuffle)


def of_lines(lines: Sequence[str], *, shuffle: bool = False) -> Tasks | None:
    """Return the tasks that command lines make, None where there are none.

    Raises:
        UsageError: something is wrong with them.
    """
    sources = template.combine([(lines, False)])
    return None if sources is None else _tasks((), sources, ("1",), Grammar(shuffle=shuffle))


def of_map(words: Sequence[str], *, files: Sequence[str] = (), grammar: Grammar) -> Tasks | None:
    """Return the tasks of a command and its values, None where those make no tasks.

    Args:
        words: the command with ``:::`` and its kin.
        files: those of ``-a``, sources that come before the others.
        grammar: how all this is read.

    Raises:
        UsageError: there is no input, or something is wrong with it.
        OSError: a file cannot be read.
    """
    command, given = template.split_sources(words, values=grammar.values, files=grammar.files)
    if not files and not given:
        if sys.stdin.isatty():
            raise UsageError(
                "there are no values; put ::: A B C after the command, -a FILE before it, or pipe lines into it"
            )
        files = (STDIN,)
    inputs = Inputs(null=grammar.null)
    columns: list[Column] = [(inputs.read(name), False) for name in files]
    for each in given:
        lists = [each.words] if each.kind == "values" else map(inputs.read, each.words)
        columns += [(values, each.linked) for values in lists]
    names: tuple[str, ...] = ()
    if grammar.header:
        names, columns = _named(columns, grammar.colsep)
        command = template.name_columns(command, names)
    if grammar.quote and grammar.fill != "context":
        command = template.quote(command)
    trim = grammar.trim or "n"
    columns = [([_trimmed(value, trim) for value in values], linked) for values, linked in columns]
    sources = template.combine(
        _linked(columns) if grammar.link else columns,
        separator=grammar.colsep,
        trimmed=lambda column: _trimmed(column, grammar.trim or "lr"),
    )
    if sources is None:
        return None
    width = sum(source.columns for source in sources)
    names += tuple(str(number) for number in range(len(names) + 1, width + 1))
    return _tasks(command, sources, names, grammar)


def _named(columns: Sequence[Column], colsep: str | None) -> tuple[tuple[str, ...], list[Column]]:
    """Return the names that the first values are, and the rest."""
    names: list[str] = []
    for values, _ in columns:
        if not values:
            raise UsageError("--header: a source has no first value that could name it; give it one")
        names += [values[0].strip()] if colsep is None else template.split_columns(values[:1], colsep).row(0)
    return tuple(names), [(values[1:], linked) for values, linked in columns]


def _trimmed(value: str, trim: Trim) -> str:
    blanks = " \t\n\r\f\v"
    value = value.lstrip(blanks) if "l" in trim else value
    return value.rstrip(blanks) if "r" in trim else value


def _linked(columns: Sequence[Column]) -> list[Column]:
    """Return sources that go along with the first; short ones begin again."""
    most = max(len(values) for values, _ in columns)
    if not all(values for values, _ in columns):
        return [((), False)]
    return [
        ([values[row % len(values)] for row in range(most)], position > 0)
        for position, (values, _) in enumerate(columns)
    ]


def _tasks(
    words: tuple[str, ...], sources: tuple[Source, ...], names: tuple[str, ...], grammar: Grammar
) -> Tasks | None:
    total = count(sources)
    if grammar.shuffle:
        rows = [values_of(sources, row) for row in range(total)]
        random.Random().shuffle(rows)  # noqa: S311  the order of tasks is no secret
        sources = template.rows(rows)
    if grammar.plus:
        return _plus(words, sources, names)
    if grammar.fill:
        flat = [value for row in range(total) for value in values_of(sources, row)]
        typed = template.quote(words) if grammar.quote and grammar.fill == "context" else words
        return _filled(words, list(_groups(typed, flat, grammar)), names, grammar)
    if grammar.values_max == 0:
        given = tuple(values_of(sources, row) for row in range(total))
        lines = [(template.render(words, (), row + 1),) for row in range(total)]
        return Tasks((), template.rows(lines), names, name=" ".join(words), given=given)
    if grammar.values_max is None or grammar.values_max == 1:
        return Tasks(words, sources, names)
    rows = [values_of(sources, row) for row in range(total)]
    groups = [
        tuple(value for row in rows[first : first + grammar.values_max] for value in row)
        for first in range(0, total, grammar.values_max)
    ]
    return Tasks(words, template.rows(groups), names, grouped=True)


def _plus(words: tuple[str, ...], sources: tuple[Source, ...], names: tuple[str, ...]) -> Tasks | None:
    """Return the tasks that are wanted, as command lines: the node does not know these replacement strings."""
    total = count(sources)
    given = [values_of(sources, row) for row in range(total)]
    made = [(plus.render(words, row, number, total), row) for number, row in enumerate(given, 1)]
    wanted = [(line, row) for line, row in made if line is not None]
    if not wanted:
        return None
    lines = template.rows([(line,) for line, _ in wanted])
    return Tasks((), lines, names, name=" ".join(words), given=tuple(row for _, row in wanted))


def _groups(words: Sequence[str], flat: Sequence[str], grammar: Grammar) -> Iterator[tuple[str, ...]]:
    """Divide values into as few command lines as hold them, but so many that there is one for each that may run at once."""
    text = " ".join(words)
    around = max(map(len, os.fsencode(text).split()), default=0)  # each value may come with so much
    places = max(1, text.count("{"))
    most = -(-len(flat) // grammar.at_once)
    group: list[str] = []
    length = len(os.fsencode(text))
    for value in flat:
        cost = places * (len(os.fsencode(shlex.quote(value))) + around + 1)
        if group and (len(group) == (grammar.values_max or most) or length + cost > LINE_BYTES_MAX):
            yield tuple(group)
            group, length = [], len(os.fsencode(text))
        group.append(value)
        length += cost
    yield tuple(group)


def _filled(
    words: tuple[str, ...], groups: Sequence[tuple[str, ...]], names: tuple[str, ...], grammar: Grammar
) -> Tasks:
    lines = []
    for number, group in enumerate(groups, 1):
        spread = template.spread(words, len(group), quoted=grammar.quote) if grammar.fill == "context" else words
        lines.append((template.render(spread, group, number),))
    return Tasks((), template.rows(lines), names, name=" ".join(words), grouped=True, given=tuple(groups))
