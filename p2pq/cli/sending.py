"""Commands that run on other machines: the files that travel with them, and those that come back (``--where any``).

Such a job is a folder like any other: the files of ``--file``, and a script that runs the command line of a task and then
leaves the files of ``--return`` as its results. What comes back was written by foreign machines: only what was asked for is
put into the caller's folder, and no links.
"""

import errno
import os
import posixpath
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from p2pq.cli.common import note
from p2pq.cli.options import resources_of, time_of
from p2pq.client.inherited import umask
from p2pq.errors import Reject, UsageError
from p2pq.model.params import Axis
from p2pq.wire import control, names

MAIN: Final = "p2pq-command.sh"
_RUN: Final = """\
rm -f -- "$0"
exec /bin/sh -c "$1"
"""
_RUN_AND_RETURN: Final = """\
rm -f -- "$0"
eval "set -- $1"
line=$1
shift
/bin/sh -c "$line"
code=$?
for file; do
    case $file in */*) mkdir -p "results/${file%/*}" ;; esac
    if [ -e "$file" ]; then
        mv -f -- "$file" "results/$file" || code=1
    elif [ "$code" -eq 0 ]; then
        echo "p2pq: the command succeeded, but there is no '$file' to return" >&2
        code=1
    fi
done
exit "$code"
"""


def plain_path(option: str, path: str) -> str:
    """Return a path below the current folder in its shortest form.

    Raises:
        UsageError: it is not below it, or p2pq has something of its own there.
    """
    found = posixpath.normpath(path)
    if path.startswith("/") or found.split("/")[0] in {"", ".", ".."}:
        raise UsageError(f"{option} {path!r} is not below this folder; go to one that holds it, and name it from there")
    try:
        names.check_path(found)
    except Reject as error:
        raise UsageError(f"{option} {names.display(path)}: {error.reason}") from error
    if found.split("/")[0] in {MAIN, "results"} and option == "--file":
        raise UsageError(f"{option} {path!r}: every task has something of its own of that name; rename it")
    return found


class Sending:
    """The files of one job on their way there and back. A context manager, which leaves nothing but what came back."""

    def __init__(
        self, lines: Sequence[str], files: Iterable[str], returns: Sequence[Sequence[str]], *, detached: bool = False
    ) -> None:
        """Put together what travels.

        Args:
            lines: the command line of each task.
            files: what goes along with all of them.
            returns: what comes back of each task; empty: nothing of any.
            detached: nobody is going to ``bring`` it: it stays in a folder of its own.

        Raises:
            UsageError: a file cannot be had.
        """
        self._returns = returns
        here = Path.cwd()
        self._folder = _made(here, ".p2pq-files-")
        self._results: Path | None = None
        self._detached = detached
        self._lines = tuple(lines)
        try:
            for path in sorted(
                dict.fromkeys(files), key=len
            ):  # folders before what lies in them, which they bring along
                _stage(here / path, self._folder / path, path)
            (self._folder / MAIN).write_text(_RUN_AND_RETURN if returns else _RUN)
            if returns:
                self._lines = tuple(shlex.join([line, *wanted]) for line, wanted in zip(lines, returns, strict=True))
                self._results = _made(here, "returned-" if detached else ".p2pq-returned-")
                self._results.rmdir()  # whatever stood there would be moved aside
        except BaseException:
            self.clear()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is of no more use."""
        self.clear()

    def clear(self) -> None:
        """Remove what travelled, and what came back and nobody had asked for."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._results is not None and not self._detached:
            shutil.rmtree(self._results, ignore_errors=True)

    def request(self, options: Mapping[str, Any], name: str) -> control.Submit:
        """Return the request that submits the job."""
        return control.Submit(
            folder=str(self._folder),
            main=MAIN,
            args=("{command}",),
            axes=(Axis("command", self._lines),),
            exclude=(control.EVERYTHING,),
            name=name,
            results="" if self._results is None else str(self._results),
            stays=self._results is None,
            resources=resources_of(options),
            time_s=time_of(options),
            retries=options["retries"],
            priority=options["priority"],
            where=options["where"],
            env="none",
            halt=options.get("halt", ""),
            umask=umask(),
            hooks=(options.get("begin", ""), options.get("end", "")),
        )

    def say_where(self) -> None:
        """Say where a job that goes on without us leaves what it returns."""
        if self._results is not None:
            note(f"what it returns comes to {self._results.name}/" + "TASK/" * (len(self._returns) > 1))

    def bring(self) -> None:
        """Put what has come back so far where it was asked for, over what is there.

        Raises:
            OSError: it cannot be put there.
        """
        for task, folder in self._came():
            for path in self._returns[task]:
                _move(folder / path, Path(path))
            shutil.rmtree(folder, ignore_errors=True)

    def _came(self) -> Iterator[tuple[int, Path]]:
        """Yield the results that are there; each appears complete."""
        if self._results is None:
            return
        if len(self._returns) == 1:
            if self._results.is_dir():
                yield 0, self._results
            return
        with suppress(FileNotFoundError):
            for folder in sorted(self._results.iterdir()):
                if folder.name.isdecimal() and int(folder.name) < len(self._returns):
                    yield int(folder.name), folder


def _made(here: Path, prefix: str) -> Path:
    """Return a new folder: beside what goes into it, where files need not be copied, else where temporary files are."""
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=here))
    except OSError:
        return Path(tempfile.mkdtemp(prefix=prefix))


def _stage(source: Path, target: Path, path: str) -> None:
    if target.exists():
        return  # it came with a folder that was named, too
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=_link, ignore=shutil.ignore_patterns(".p2pq-*"))
        else:
            _link(str(source), str(target))
    except shutil.Error as error:
        raise UsageError(f"--file {names.display(path)}: {error.args[0][0][2]}") from error
    except OSError as error:
        raise UsageError(f"--file {names.display(path)}: {error.strerror}") from error


def _link(source: str, target: str) -> None:
    """Let a file be in two places; where it cannot, copy it."""
    if not stat.S_ISREG(Path(source).stat().st_mode):
        raise UsageError(f"--file {names.display(source)} is no file")
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def _move(source: Path, target: Path) -> None:
    """Put a file, or all files of a folder, where they belong; links are left behind."""
    if source.is_symlink():
        note(f"{target} came back as a link, and was left out")
    elif source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for entry in sorted(source.iterdir()):
            _move(entry, target / entry.name)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.move(source, target)
