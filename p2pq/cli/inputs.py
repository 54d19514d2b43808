"""What the tasks of map and batch differ in: values from the command line, from files, from standard input."""

import sys
from collections.abc import Sequence
from typing import Final

from p2pq.errors import UsageError
from p2pq.model import template
from p2pq.model.sources import Source, count
from p2pq.wire.control import FRAME_BYTES_MAX

STDIN: Final = "-"


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


def of_batch(name: str, *, null: bool) -> tuple[Source, ...] | None:
    """Return the command lines of a file as a source, None where there are none.

    Raises:
        UsageError: something is wrong with them.
        OSError: they cannot be read.
    """
    return _counted(template.combine([(Inputs(null=null).read(name), False)]))


def of_map(
    words: Sequence[str], *, files: Sequence[str], null: bool, colsep: str | None
) -> tuple[tuple[str, ...], tuple[Source, ...] | None]:
    """Return the command, and what its tasks differ in, None where that makes no tasks.

    Args:
        words: the command with ``:::`` and its kin.
        files: those of ``-a``, sources that come before the others.
        null: items of files end with a zero byte.
        colsep: what divides columns, a regular expression; None: nothing does.

    Raises:
        UsageError: there is no input, or something is wrong with it.
        OSError: a file cannot be read.
    """
    command, given = template.split_sources(words)
    if not files and not given:
        if sys.stdin.isatty():
            raise UsageError(
                "there are no values; put ::: A B C after the command, -a FILE before it, or pipe lines into it"
            )
        files = (STDIN,)
    inputs = Inputs(null=null)
    columns: list[tuple[Sequence[str], bool]] = [(inputs.read(name), False) for name in files]
    for each in given:
        lists = [each.words] if each.kind == "values" else map(inputs.read, each.words)
        columns += [(values, each.linked) for values in lists]
    return command, _counted(template.combine(columns, separator=colsep))


def _counted(sources: tuple[Source, ...] | None) -> tuple[Source, ...] | None:
    count(sources or ())
    return sources
