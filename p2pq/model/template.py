"""The grammar of GNU parallel: command lines with replacement strings, and the input sources behind ``:::``."""

import re
import shlex
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from p2pq.errors import UsageError
from p2pq.model.job import TASKS_MAX
from p2pq.model.params import ARGV_CHARS_MAX, VALUE_CHARS_MAX
from p2pq.model.sources import COLUMNS_MAX, SOURCES_MAX, Source

CELLS_MAX: Final = 2 * TASKS_MAX
"""What the rows of one source may come to, times their columns; one wide row makes all others as wide."""

# -- command lines ----------------------------------------------------------------------------------------------------

_REPLACEMENT: Final = re.compile(r"\{(?:(?P<column>-?[0-9]{1,9})\s*)?(?P<form>//|/\.|/|\.|)\}|\{#\}", re.ASCII)
_CHOOSES_COMMAND: Final = re.compile(rf"[^ \t\n=]*?(?:{_REPLACEMENT.pattern})", re.ASCII)


def quote(words: Sequence[str]) -> tuple[str, ...]:
    """Return words of which a shell takes each for one as it is, replacement strings excepted."""
    return tuple(
        "".join(
            word[start:end] if replaced else shlex.quote(word[start:end])
            for start, end, replaced in _parts(word)
            if start < end or not word
        )
        for word in words
    )


def _parts(word: str) -> list[tuple[int, int, bool]]:
    """Return where the parts of a word are, and which of them are replacement strings."""
    parts, at = [], 0
    for match in _REPLACEMENT.finditer(word):
        parts += [(at, match.start(), False), (match.start(), match.end(), True)]
        at = match.end()
    return [*parts, (at, len(word), False)]


def render(words: Sequence[str], values: Sequence[str], number: int) -> str:
    """Return the shell command line of one task: the words joined by blanks, each replacement string filled in.

    ``{}`` is all columns, ``{.}`` without extension, ``{/}`` the last component, ``{//}`` the folder, ``{/.}`` the last component
    without extension, ``{#}`` the task's number, from 1; ``{2}``, ``{2.}``, ``{-1/}`` and so on the same of one column, nothing
    where there is no such column. Other braces stay as they are. Where none of these occurs, all columns are appended.
    Values are quoted for the shell, and never filled in themselves. Without words the values, as they are, are the command line.

    As with GNU parallel, no value is quoted where a replacement string is in the command's name: there a value may be a
    command with arguments.

    Raises:
        UsageError: the words hold ``{%}`` or ``{= perl =}``, or there is a zero byte, or the command line is longer than
            ARGV_CHARS_MAX (found out before it is built: a short text can name a long value a million times).
    """
    template = " ".join(words)
    refuse_unsupported(template)
    show = shlex.quote if words and not _CHOOSES_COMMAND.match(template) else str
    if values and not replaces(template):
        template += " {}" if words else "{}"
    line = _filled(template, values, number, show)
    if "\0" in line:
        raise UsageError(
            f"the command line of task {number} holds a zero byte, which no program can be given; use a file"
        )
    return line


def replaces(text: str) -> bool:
    """Tell whether there is a replacement string in a text."""
    return _REPLACEMENT.search(text) is not None


def fill(text: str, values: Sequence[str], number: int, show: Callable[[str], str] = str) -> str:
    """Return a text, such as the name of a file, with its replacement strings filled in, as ``show`` has values.

    Raises:
        UsageError: as ``render``.
    """
    refuse_unsupported(text)
    return _filled(text, values, number, show)


def _filled(template: str, values: Sequence[str], number: int, show: Callable[[str], str]) -> str:
    filled: dict[str, str] = {}
    total = 0

    def grow(text: str) -> str:
        nonlocal total
        total += len(text)
        if total > ARGV_CHARS_MAX:
            raise UsageError(
                f"the command line of task {number} is longer than {ARGV_CHARS_MAX} characters; use a file"
            )
        return text

    def fill_in(match: re.Match[str]) -> str:
        text = match.group()
        if text in filled:
            return grow(filled[text])
        if text == "{#}":
            filled[text] = grow(str(number))
        else:
            change = _FORMS[match["form"]]
            filled[text] = " ".join(grow(show(change(value))) for value in chosen(values, int(match["column"] or 0)))
        return filled[text]

    return _REPLACEMENT.sub(fill_in, grow(template))


_CONTEXT: Final = re.compile(r"[^ \t\n]*\{(?://|/\.|/|\.|)\}[^ \t\n]*", re.ASCII)
_OF_ALL: Final = re.compile(r"\{(//|/\.|/|\.|)\}", re.ASCII)


def spread(words: Sequence[str], count: int, *, quoted: bool = False) -> tuple[str, ...]:
    """Return words that say each value of a command line by its number, in a word of its own: ``-X`` of GNU parallel.

    What is not divided by blanks from a replacement string without a number is repeated with it: ``a{}.x`` becomes
    ``a{1}.x a{2}.x`` for two values. To be ``quoted`` are the words that result: blanks between quotes would be blanks to this.
    """
    if quoted and not any(map(_REPLACEMENT.search, words)):
        words = (*words, "{}")
    template = " ".join(words)
    if words and not _REPLACEMENT.search(template):
        template += " {}"

    def repeat(match: re.Match[str]) -> str:
        return ("\0" if quoted else " ").join(
            _OF_ALL.sub(rf"{{{number}\1}}", match.group()) for number in range(1, count + 1)
        )

    if quoted:
        return (" ".join(quote([each for word in words for each in _CONTEXT.sub(repeat, word).split("\0")])),)
    return (_CONTEXT.sub(repeat, template),)


def name_columns(words: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return words that say columns by their numbers instead of by their names: ``{size.}`` becomes ``{2.}``.

    Raises:
        UsageError: two columns have one name.
    """
    numbers = {name: number for number, name in enumerate(names, 1)}
    if len(numbers) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"--header: two columns are called {twice!r}; give each a name of its own")
    known = "|".join(re.escape(name) for name in sorted(numbers, key=len, reverse=True) if name)
    pattern = re.compile(rf"\{{({known})(//|/\.|/|\.|)\}}") if known else None
    if pattern is None:
        return tuple(words)
    return tuple(pattern.sub(lambda match: f"{{{numbers[match[1]]}{match[2]}}}", word) for word in words)


def refuse_unsupported(template: str) -> None:
    """Raise UsageError if a text holds what looks like a replacement string and is none here: ``{%}`` or ``{= perl =}``."""
    if "{%}" in template:
        raise UsageError("{%}, the number of a slot, is not supported; use {#}, the number of the task")
    start = template.find("{=")
    if start >= 0 and "=}" in template[start + 2 :]:
        raise UsageError("{= perl =} is not supported; change the value in the command, as in: echo {} | sed s/a/b/")


def chosen(values: Sequence[str], column: int) -> Sequence[str]:
    """Return the values of a column, counted from 1 or, below 0, from the end; of 0, which is no column, all."""
    if column == 0:
        return values
    position = column - 1 if column > 0 else len(values) + column
    return values[position : position + 1] if position >= 0 else ()


def _stem(value: str) -> str:
    before, dot, extension = value.rpartition(".")
    return before if dot and "/" not in extension else value


def _base(value: str) -> str:
    return value.rpartition("/")[2]


def _folder(value: str) -> str:
    path = value.rstrip("/")
    folder, slash, _ = path.rpartition("/")
    if slash or (value and not path):
        return folder.rstrip("/") or "/"
    return "."


_FORMS: Final[dict[str, Callable[[str], str]]] = {
    "": str,
    ".": _stem,
    "/": _base,
    "//": _folder,
    "/.": lambda value: _stem(_base(value)),
}

# -- how a command line is run ----------------------------------------------------------------------------------------

_PROGRAM: Final = r"[A-Za-z0-9_./][A-Za-z0-9_./,:+@%^-]*+"  # with "=" it would set a variable
_WORD: Final = re.compile(r"""(?:[A-Za-z0-9_./,:+@%^=-]|'[^'\0]*+'|"'")++""")
_PLAIN: Final = re.compile(rf"[ \t]*+(?P<program>{_PROGRAM})(?:[ \t]++{_WORD.pattern})*+[ \t]*+")
_QUOTED: Final = re.compile(r"""'([^']*)'|["](')["]""")
_SHELL_WORDS: Final = frozenset(
    # Of the language, then of dash, bash, ksh and zsh. One too many costs a shell; one too few runs another program.
    """
    case coproc do done elif else end esac fi for foreach function if in namespace nocorrect repeat select then time until while
    . alias bg bind break builtin caller cd chdir command compgen complete compopt continue declare dirs disable disown echo
    emulate enable eval exec exit export false fc fg float functions getln getopts hash help hist history integer jobs kill let
    limit local log logout mapfile nameref newgrp noglob popd print printf pushd pushln pwd read readarray readonly rehash
    return sched set setopt shift shopt source stop suspend test times trap true ttyctl type typeset ulimit umask unalias
    unfunction unhash unlimit unset unsetopt vared vmap wait whence where which zmodload
    """.split()  # noqa: SIM905  a hundred lines of one word each are no easier to read
)


def argv(line: str, shell: str = "/bin/sh") -> tuple[str, ...]:
    """Return what to start for a command line: its own words where a shell would only split it into them, else that shell.

    Starting a shell costs as much as a short command does. Plain are words of letters, digits and ``_-./,:+=@%^``, and
    single-quoted text as ``render`` makes it; the program may be no word or builtin of a shell and set no variable. What a shell
    does beyond splitting is the caller's: a script without ``#!`` runs in a shell, and what cannot be started ends with 127 or
    126. A shell that is given exported functions would run those first.
    """
    match = _PLAIN.fullmatch(line)
    if match is None or match["program"] in _SHELL_WORDS:
        return (shell, "-c", line)
    # As shlex.split does, whose time grows with the square of a word's length.
    return tuple(_QUOTED.sub(r"\1\2", word) for word in _WORD.findall(line))


# -- input sources ----------------------------------------------------------------------------------------------------


class Given(msgspec.Struct, frozen=True):
    """An input source as typed: values, or the one file that holds them."""

    kind: Literal["values", "files"]
    words: tuple[str, ...]
    linked: bool = False
    """Its values go with those of the source before, the first with the first, instead of multiplying."""


def split_sources(
    words: Sequence[str], *, values: str = ":::", files: str = "::::"
) -> tuple[tuple[str, ...], tuple[Given, ...]]:
    """Return the command's words and the sources after them; each file of several after ``::::`` is a source of its own.

    Args:
        words: as typed.
        values: what begins values.
        files: what begins files of values.

    Raises:
        UsageError: a file is missing.
    """
    separators: dict[str, tuple[Literal["values", "files"], bool]] = {
        values: ("values", False),
        f"{values}+": ("values", True),
        files: ("files", False),
        f"{files}+": ("files", True),
    }
    starts = [position for position, word in enumerate(words) if word in separators]
    sources: list[Given] = []
    for start, end in pairwise([*starts, len(words)]):
        separator, given = words[start], tuple(words[start + 1 : end])
        kind, linked = separators[separator]
        if kind == "values":
            sources.append(Given(kind, given, linked))
        elif given:
            sources += [Given(kind, (path,), linked) for path in given]
        else:
            raise UsageError(f"{separator} needs a file after it; write - to read standard input")
    command = words[: starts[0]] if starts else words
    return tuple(command), tuple(sources)


def combine(
    columns: Sequence[tuple[Sequence[str], bool]],
    *,
    separator: str | None = None,
    trimmed: Callable[[str], str] | None = None,
) -> tuple[Source, ...] | None:
    """Return the sources that lists of values make, each with whether it is linked to the one before.

    As with ``:::+`` of GNU parallel, the shortest of linked lists decides how many rows there are. With a separator each value
    is a row of columns (see ``split_columns``). Without any list there is one task, ``()``; where a list has no value there is
    none, and None is returned.

    Raises:
        UsageError: too many sources, columns or rows, or a value that is too long or holds a zero byte, or as split_columns.
    """
    groups: list[list[Source]] = []
    for values, linked in columns:
        source = _source(values, 1) if separator is None else split_columns(values, separator, trimmed)
        if linked and groups:
            groups[-1].append(source)
        else:
            groups.append([source])
    if len(groups) > SOURCES_MAX:
        raise UsageError(f"there are {len(groups)} input sources; the most is {SOURCES_MAX}")
    sources = tuple(map(_linked, groups))
    return sources if all(source.rows() for source in sources) else None


def rows(rows: Sequence[Sequence[str]]) -> tuple[Source, ...]:
    """Return the one source that rows make, of which the last may be short.

    Raises:
        UsageError: too many rows or columns, or a value that is too long or holds a zero byte.
    """
    widest = max(map(len, rows))
    _bound(len(rows), widest)
    return (_source([value for row in rows for value in row], widest),)


def split_columns(lines: Sequence[str], separator: str, trimmed: Callable[[str], str] | None = None) -> Source:
    """Return the columns of lines between what a regular expression matches, ``trimmed``, else without blanks around them.

    Rows are padded with empty columns to the widest. What groups of the expression match are columns too. Without lines there
    are no rows.

    Raises:
        UsageError: the expression is none, or matches nothing at all; too many columns or rows; a column that is too long or
            holds a zero byte.
    """
    try:
        pattern = re.compile(separator)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"--colsep {separator!r} is not a regular expression: {error}") from error
    if pattern.search(""):
        raise UsageError(f"--colsep {separator!r} matches between any two characters; it must match one or more")
    trimmed = trimmed or (lambda column: column.strip(" \t\n\r\f\v"))
    rows = [[trimmed(column or "") for column in pattern.split(line)] for line in lines]
    widest = max(map(len, rows), default=1)
    _bound(len(rows), widest)
    return _source([column for row in rows for column in row + [""] * (widest - len(row))], widest)


def _linked(sources: Sequence[Source]) -> Source:
    rows = min(source.rows() for source in sources)
    columns = sum(source.columns for source in sources)
    _bound(rows, columns)
    return _source([value for row in range(rows) for source in sources for value in source.row(row)], columns)


def _bound(rows: int, columns: int) -> None:
    if columns > COLUMNS_MAX:
        raise UsageError(f"the input has {columns} columns; the most is {COLUMNS_MAX}")
    if rows * columns > CELLS_MAX:
        raise UsageError(f"the input has {rows} rows of {columns} columns; the most is {CELLS_MAX} values in all")


def _source(values: Sequence[str], columns: int) -> Source:
    for value in values:
        if len(value) > VALUE_CHARS_MAX:
            raise UsageError(f"the input has a value longer than {VALUE_CHARS_MAX} characters; put it into a file")
        if "\0" in value:
            raise UsageError(
                "the input has a value with a zero byte, which no program can be given; put it into a file"
            )
    return Source(tuple(values), columns)
