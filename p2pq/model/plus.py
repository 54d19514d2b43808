"""More replacement strings for command lines, as ``--plus`` of GNU parallel has them."""

import re
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

from p2pq.errors import UsageError
from p2pq.model import template
from p2pq.model.params import ARGV_CHARS_MAX

_TEXT: Final = r"[^{}]"
_PLUS: Final = re.compile(
    r"\{(?P<column>-?[0-9]{1,9})?(?:"
    r"(?P<path>\+/|\+\.{1,3}|/?\.{2,3})|(?P<skip>choose_k|uniq)|(?P<number>0#|##)"
    rf"|:-(?P<default>{_TEXT}*)|:(?P<first>[0-9]{{1,6}})(?::(?P<length>[0-9]{{1,6}}))?"
    rf"|(?P<cut>##?|%%?)(?P<what>[^{{}}#%]{_TEXT}*)|/(?P<all>/?)(?P<old>[^{{}}/.][^{{}}/]*)/(?P<new>{_TEXT}*)"
    rf"|(?P<case>\^\^?|,,?)(?P<letters>{_TEXT}+))\}}",
    re.ASCII,
)


def render(words: Sequence[str], values: Sequence[str], number: int, total: int) -> str | None:
    """Return a command line as ``template.render`` does, with more replacement strings; None: this task is not wanted.

    ``{..}`` and ``{...}`` are without two and three extensions, ``{+.}`` (``{+..}``) the extensions, ``{+/}`` the folder,
    ``{/..}`` the last component without two; ``{##}`` is how many tasks there are; ``{:2}`` and ``{:2:3}`` are parts of the
    value, ``{:-x}`` is x where it is empty; ``{#x}`` and ``{%x}`` are without x at the begin or end, ``{/x/y}`` has y for the
    first x (``{//x/y}``: each), ``{^x}`` and ``{,x}`` have x at the begin in capitals or not (twice: anywhere), where x is a
    regular expression of Python. ``{choose_k}`` wants tasks only whose values rise, ``{uniq}`` those whose values differ. A
    column's number goes first.

    Raises:
        UsageError: as ``template.render``, or x is no regular expression.
    """
    text = " ".join(words)
    matches = list(_PLUS.finditer(text))
    if not matches:
        return template.render(words, values, number)
    if any(match["skip"] and not _WANTED[match["skip"]](values) for match in matches):
        return None
    parts, at = [], 0
    for match in matches:
        # Each part by itself: what is filled in is never looked at again.
        parts += [template.fill(text[at : match.start()], values, number, show=shlex.quote)]
        parts += [_filled(match, values, number, total)]
        at = match.end()
    line = "".join([*parts, template.fill(text[at:], values, number, show=shlex.quote)])
    if len(line) > ARGV_CHARS_MAX:
        raise UsageError(f"the command line of task {number} is longer than {ARGV_CHARS_MAX} characters; use a file")
    return line


_WANTED: Final[dict[str, Callable[[Sequence[str]], bool]]] = {
    "choose_k": lambda values: all(first < second for first, second in pairwise(values)),
    "uniq": lambda values: len(set(values)) == len(values),
}


def _filled(match: re.Match[str], values: Sequence[str], number: int, total: int) -> str:
    if match["number"]:
        return str(total) if match["number"] == "##" else str(number).zfill(len(str(total)))
    try:
        change = _change(match)
        return " ".join(shlex.quote(change(value)) for value in template.chosen(values, int(match["column"] or 0)))
    except re.error as error:
        raise UsageError(f"{match.group()} holds no regular expression: {error}") from error


def _change(match: re.Match[str]) -> Callable[[str], str]:
    """Return what a replacement string makes of a value."""
    if path := match["path"]:
        return partial(_path, path)
    if match["first"]:
        first = int(match["first"])
        stop = None if match["length"] is None else first + int(match["length"])
        return lambda value: value[first:stop]
    if match["cut"]:
        greedy = len(match["cut"]) > 1
        what = match["what"] if greedy else re.sub(r"([*+?])(?!\?)", r"\1?", match["what"])
        pattern = rf"^(?:{what})" if match["cut"][0] == "#" else rf"^(.*{'?' if greedy else ''})(?:{what})$"
        return lambda value: re.sub(pattern, "" if match["cut"][0] == "#" else r"\1", value, count=1, flags=re.DOTALL)
    if match["old"]:
        return lambda value: re.sub(match["old"], lambda _: match["new"], value, count=0 if match["all"] else 1)
    if match["case"]:
        pattern = match["letters"] if len(match["case"]) > 1 else f"^(?:{match['letters']})"
        upper = match["case"][0] == "^"
        return lambda value: re.sub(pattern, lambda found: found[0].upper() if upper else found[0].lower(), value)
    default = match["default"]
    return str if default is None else lambda value: value or default


def _path(form: str, value: str) -> str:
    folder, slash, base = value.rpartition("/")
    if form == "+/":
        return folder
    most = form.count(".")
    stem, extensions = base, ""
    for _ in range(most):
        before, dot, extension = stem.rpartition(".")
        if not dot:
            stem, extensions = base, ""  # it has fewer than are asked for
            break
        stem, extensions = before, f".{extension}{extensions}"
    if form[0] == "+":
        return extensions[1:]
    return stem if form[0] == "/" else folder + slash + stem
