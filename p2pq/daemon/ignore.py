"""Which files of a folder stay at home: ``.gitignore``, ``.p2pqignore`` and ``--exclude``, as git reads them.

A pattern counts from the folder its file lies in; of all patterns that match, the last one wins, in this order:
``.gitignore`` then ``.p2pqignore`` of the outermost folder, then of the next one inside, and ``--exclude`` at the
end. What lies
in an excluded folder cannot be included again.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from p2pq.errors import UsageError

if TYPE_CHECKING:
    import pathspec

IGNORE_FILES: Final = (".gitignore", ".p2pqignore")
"""Names of the files that hold patterns, in the order in which they are read."""
IGNORE_BYTES_MAX: Final = 1 << 20
RESULTS: Final = "results"
"""Nothing of this name at the top travels, whatever it is: every task has a folder of its own there."""
_RESULTS: Final = re.compile(r"results(?:\.~[0-9]+~)*")

Rules = tuple[tuple[str, "pathspec.GitIgnoreSpec"], ...]
"""(folder prefix, patterns) from the outermost folder inwards; the prefix is empty or ends in ``/``."""


class Ignore:
    """Decides, while a folder is walked from the top, what does not travel.

    Args:
        excludes: patterns of ``--exclude``, relative to the top.

    Raises:
        UsageError: a pattern is not valid.
    """

    def __init__(self, excludes: Sequence[str] = ()) -> None:
        self._excludes = compile_patterns(excludes, "--exclude") if excludes else None

    def excluded(self, rules: Rules, path: str, *, folder: bool) -> bool:
        """Return whether an entry stays at home.

        Args:
            rules: those of the folder that holds it, see ``enter``.
            path: relative to the top.
            folder: whether it is a folder (a symlink never is).
        """
        if always_excluded(path, folder=folder):
            return True
        name = path + "/" if folder else path
        if self._excludes is not None:
            include = self._excludes.check_file(name).include
            if include is not None:
                return include
        for prefix, spec in reversed(rules):
            include = spec.check_file(name[len(prefix) :]).include
            if include is not None:
                return include
        return False


def enter(rules: Rules, folder: str, patterns: Sequence[tuple[str, str]]) -> Rules:
    """Return the rules inside a folder.

    Args:
        rules: those of the folder around it.
        folder: its path relative to the top; empty for the top itself.
        patterns: (name, text) of the ignore files in it, in the order of IGNORE_FILES.

    Raises:
        UsageError: a pattern is not valid.
    """
    prefix = folder + "/" if folder else ""
    return rules + tuple((prefix, compile_patterns(text.splitlines(), prefix + name)) for name, text in patterns)


def compile_patterns(lines: Sequence[str], origin: str) -> "pathspec.GitIgnoreSpec":
    """Compile patterns.

    Raises:
        UsageError: one is not valid; the message names where it came from.
    """
    import pathspec  # noqa: PLC0415  slow to import, and few folders have patterns

    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise UsageError(f"{origin}: not a valid pattern: {error}") from error


def always_excluded(path: str, *, folder: bool) -> bool:
    """Return whether an entry never travels: results at the top, ``.git`` and p2pq's own files anywhere."""
    name = path.rpartition("/")[2]
    if name == ".git" or name.startswith(".p2pq") or path == RESULTS:
        return True
    return folder and "/" not in path and _RESULTS.fullmatch(path) is not None
