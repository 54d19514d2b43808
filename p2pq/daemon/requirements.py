"""What packages a job's folder asks for, read from its own files and brought into one form. Nothing here acts.

The first of these says it: the script's own block (PEP 723), ``requirements.txt``, ``pyproject.toml`` with ``uv.lock``. It is
read twice and believed never: where the folder is submitted, so that people hear at once what cannot be, and at each worker.

Two jobs with equal ``Wanted`` share an environment, whoever they are of. So nothing may be asked for whose content is not told
by its text: no paths, no options, and no index but that of the node's owner.
"""

import operator
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from p2pq.daemon.foldersettings import script_block
from p2pq.errors import UsageError
from p2pq.wire import names, prims

LABEL: Final = ("env", "uv")
"""What a job that needs an environment asks of a node, and a node that can build one offers."""
FAILED: Final = "environment of "
"""How each sentence begins that says why an environment could not be had."""
REQUIREMENTS: Final = "requirements.txt"
PROJECT: Final = "pyproject.toml"
LOCK: Final = "uv.lock"
TEXT_MAX: Final = 4 << 20
"""Bytes of one file that asks for packages; a lock file names every wheel of every version."""
FILES_MAX: Final = 16
LINES_MAX: Final = 5000
LINE_CHARS_MAX: Final = 64 << 10
_NONE: Final = "`--env none` runs the job without an environment of its own"

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*) ?(\[[A-Za-z0-9._, -]*\])? ?((?:[<>=!~(;@]|--hash=).*)?")
_URL: Final = re.compile(r"@ ?(https?|git\+https)://[^\s]+( ?;.*)?( --hash=.*)?")
_ARCHIVE: Final = re.compile(r".*\.(whl|zip|tar|tgz|tbz|txz|gz|bz2|xz|egg)", re.IGNORECASE)
_CLAUSE: Final = re.compile(r"(~=|==|!=|<=|>=|<|>) ?([0-9]{1,6}(?:\.[0-9]{1,6}){0,5})(\.\*)?")

_COMPARE: Final = {
    "==": operator.eq,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}

Read = Callable[[str], bytes | None]
"""Returns a file of the job by its path, None where it has none; a longer one than ``TEXT_MAX`` may come cut off behind that."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Packages that a job asks for."""

    source: str
    """The file that says so."""
    lines: tuple[str, ...] = ()
    """Requirements, sorted, each once, without comments."""
    constraints: tuple[str, ...] = ()
    project: str = ""
    lock: str = ""
    """The text of ``pyproject.toml`` and of ``uv.lock``, instead."""
    python: str = ""
    """Which versions of Python will do, as ``requires-python`` has it."""


def read(get: Read, main: str) -> Wanted | None:
    """Return what a job asks for whose script, if it is one, is ``main``; None if it asks for nothing.

    Raises:
        UsageError: it asks for what cannot be had; the sentence names the file and the line.
    """
    if main.endswith(".py") and (script := get(main)) is not None:
        found = _script(script.decode(errors="replace"), names.display(main))
        if found is not None:
            return found
    text = get(REQUIREMENTS)
    if text is not None:
        reader = _Reader(get)
        reader.file(REQUIREMENTS, constrains=False)
        return Wanted(REQUIREMENTS, _sorted(reader.lines), _sorted(reader.constraints))
    project = get(PROJECT)
    lock = None if project is None else get(LOCK)
    if project is None or lock is None:
        return None
    return _project(_decoded(project, PROJECT), _decoded(lock, LOCK))


def digest(wanted: Wanted, *circumstances: str) -> str:
    """Return the name of the environment that holds what is wanted under those circumstances: which Python, which index."""
    same = (wanted.lines, wanted.constraints, wanted.project, wanted.lock, wanted.python, circumstances)
    return prims.blake2b(msgspec.msgpack.encode(same), person="p2pq-environ").hex()


def python_fits(wanted: str, version: str) -> bool:
    """Tell whether a version of Python is among those that ``requires-python`` names.

    Raises:
        UsageError: that cannot be understood.
    """
    own = _numbers(version)
    for clause in filter(None, (part.strip() for part in wanted.split(","))):
        match = _CLAUSE.fullmatch(clause)
        if match is None or (match[3] and match[1] not in {"==", "!="}):
            raise UsageError(f"requires-python {clause[:40]!r} is not understood; write it like >=3.11,<3.14")
        if not _fits(match[1], own, _numbers(match[2]), prefix=bool(match[3])):
            return False
    return True


def _fits(sign: str, own: tuple[int, ...], other: tuple[int, ...], *, prefix: bool) -> bool:
    if sign in {"==", "~="} and (prefix or sign == "~="):
        start = other if prefix else other[:-1]
        return own[: len(start)] == start and (prefix or own >= other)
    if sign == "!=":
        return not _fits("==", own, other, prefix=prefix)
    width = max(len(own), len(other))
    return bool(_COMPARE[sign](own + (0,) * (width - len(own)), other + (0,) * (width - len(other))))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _sorted(lines: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(lines)))


def _decoded(raw: bytes, path: str) -> str:
    if len(raw) > TEXT_MAX:
        raise UsageError(f"{names.display(path)} is larger than {TEXT_MAX >> 20} MiB; {_NONE}")
    return raw.decode(errors="replace").replace("\r\n", "\n")


def _script(text: str, name: str) -> Wanted | None:
    """Return what a script's own block asks for; None if it does not say which packages."""
    try:
        table = tomllib.loads(script_block(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"the block `# /// script` in {name} is not TOML ({_short(error)}); {_NONE}") from error
    wanted = table.get("dependencies")
    if wanted is None:
        return None
    if not isinstance(wanted, list) or not all(isinstance(each, str) for each in wanted) or len(wanted) > LINES_MAX:
        raise UsageError(f"dependencies in the block `# /// script` in {name} are no list of texts; {_NONE}")
    python = _python(table, name)
    return Wanted(name, _sorted([_line(each, f"the block of {name}") for each in wanted]), python=python)


def _python(table: dict[str, Any], name: str) -> str:
    found = table.get("requires-python", "")
    if not isinstance(found, str):
        raise UsageError(f"requires-python in {name} is no text; write it like >=3.11")
    python_fits(found, "3.11.0")  # or it is not understood
    return ",".join(sorted(part.replace(" ", "") for part in found.split(",") if part.strip()))


def _short(error: Exception) -> str:
    return names.display(str(error))[:200]


def _line(line: str, where: str) -> str:
    """Return one requirement in the form in which it counts.

    Raises:
        UsageError: it is none, or what it means is not told by its text.
    """
    plain = " ".join(line.split())
    shown = names.display(plain[:80])
    if not plain.isprintable() or len(plain) > LINE_CHARS_MAX:
        raise UsageError(f"{where}: {shown!r} is no requirement; {_NONE}")
    match = _REQUIREMENT.fullmatch(plain)
    if match is None or _ARCHIVE.fullmatch(match[1]):
        raise UsageError(
            f"{where}: {shown!r} is no package by name; environments hold what an index has, not files or folders, "
            f"which travel with the job anyway. {_NONE}"
        )
    if any(word.startswith("-") and not word.startswith("--hash=") for word in plain.split()):
        raise UsageError(f"{where}: options in {shown!r} are not supported in environments; {_NONE}")
    if (match[3] or "").startswith("@") and not _URL.fullmatch(match[3]):
        raise UsageError(f"{where}: {shown!r} is not at an https:// address; {_NONE}")
    return plain


class _Reader:
    """Reads ``requirements.txt`` and what it includes."""

    def __init__(self, get: Read) -> None:
        self._get = get
        self._seen: set[tuple[str, bool]] = set()
        self.lines: list[str] = []
        self.constraints: list[str] = []

    def file(self, path: str, *, constrains: bool) -> None:
        """Take in one file and those that it names."""
        if (path, constrains) in self._seen:
            return
        self._seen.add((path, constrains))
        if len(self._seen) > FILES_MAX:
            raise UsageError(f"{REQUIREMENTS} includes more than {FILES_MAX} files; {_NONE}")
        raw = self._get(path)
        if raw is None:
            raise UsageError(f"{REQUIREMENTS} includes {names.display(path)}, which is not in the folder that travels")
        for number, line in _joined(_decoded(raw, path)):
            self._take(line, path, f"{names.display(path)} line {number}", constrains=constrains)

    def _take(self, line: str, path: str, where: str, *, constrains: bool) -> None:
        if not line.startswith("-"):
            found = self.constraints if constrains else self.lines
            found.append(_line(line, where))
            if len(found) > LINES_MAX:
                raise UsageError(f"{where}: more than {LINES_MAX} requirements; {_NONE}")
            return
        option, _, value = line.replace("=", " ", 1).partition(" ")
        if option[:2] in {"-r", "-c"} and len(option) > 2:  # noqa: PLR2004  -rFILE
            option, value = option[:2], option[2:]
        included = posixpath.normpath(posixpath.join(posixpath.dirname(path), value.strip()))
        if option in {"-r", "--requirement"}:
            self.file(included, constrains=constrains)
        elif option in {"-c", "--constraint"}:
            self.file(included, constrains=True)
        elif option in {"-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host"}:
            raise UsageError(
                f"{where}: where packages come from is for the owner of each node to say ([environments] in its config.toml); "
                f"leave {option} out. {_NONE}"
            )
        else:
            raise UsageError(f"{where}: {names.display(option)[:40]} is not supported in environments; {_NONE}")


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, with their numbers; one that ends with a backslash goes on in the next."""
    parts: list[str] = []
    begun = 0
    for number, raw in enumerate([*text.split("\n"), ""], start=1):
        begun = begun or number
        comment = re.search(r"(^|\s)#", raw)
        line = raw if comment is None else raw[: comment.start()]
        parts.append(line.rstrip("\\"))
        if line.endswith("\\") and comment is None:
            continue
        whole = " ".join(parts).strip()
        if whole:
            yield begun, whole
        parts, begun = [], 0


def _project(project: str, lock: str) -> Wanted:
    """Return what a locked project asks for.

    Raises:
        UsageError: one of the files cannot be understood, or it depends on folders.
    """
    tables = []
    for text, name in ((project, PROJECT), (lock, LOCK)):
        try:
            tables.append(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise UsageError(f"{name} is not TOML ({_short(error)}); {_NONE}") from error
    about, packages = tables[0].get("project"), tables[1].get("package", [])
    if not isinstance(about, dict) or not isinstance(packages, list):
        raise UsageError(f"{PROJECT} has no [project], or {LOCK} no packages; run `uv lock`, or: {_NONE}")
    for package in packages:
        source = package.get("source") if isinstance(package, dict) else None
        kind = next(iter(source), "") if isinstance(source, dict) else ""
        itself = isinstance(source, dict) and source.get(kind) == "." and kind in {"virtual", "editable"}
        if kind not in {"registry", "git", "url"} and not itself:
            name = names.display(str(package.get("name", "?") if isinstance(package, dict) else "?"))[:80]
            raise UsageError(
                f"{LOCK}: {name} comes from a folder or file; environments hold what an index has. {_NONE}"
            )
    return Wanted(LOCK, project=project, lock=lock, python=_python(about, PROJECT))
