"""A submitted folder: look through it, find its main, pack it.

Everything that cannot travel is said before anything is sent, in one sentence that names the file.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from p2pq.daemon.ignore import IGNORE_BYTES_MAX, IGNORE_FILES, Ignore, Rules, enter
from p2pq.daemon.packer import ChangedError, Packer, Sink
from p2pq.errors import Reject, UsageError
from p2pq.wire import names
from p2pq.wire.tree import (
    ENTRIES_MAX,
    Directory,
    KeyOf,
    Link,
    Tree,
    TreeLimits,
    check_link,
    check_tree,
)

_KINDS: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One file, folder or symlink that will travel."""

    path: str
    kind: Literal["file", "dir", "link"]
    size: int = 0
    target: str = ""


class Scan(msgspec.Struct, frozen=True):
    """What ``scan`` found, sorted by path."""

    entries: tuple[Entry, ...]
    warnings: tuple[str, ...]
    """Sentences for people about odd names; safe to print."""
    size: int
    """Bytes of all files together."""


def scan(folder: Path, excludes: Sequence[str] = ()) -> Scan:
    """List what of a folder will travel.

    Args:
        folder: the folder; it may itself be a symlink to one.
        excludes: patterns of ``--exclude``.

    Raises:
        UsageError: it is missing, not a folder, empty (after exclusions), or holds something that cannot travel.
    """
    if not folder.exists():
        raise UsageError(f"{_show(folder)} does not exist")
    if not folder.is_dir():
        raise UsageError(f"{_show(folder)} is not a folder")
    entries = sorted(_walk(folder, Ignore(excludes)), key=lambda entry: entry.path)
    if not any(entry.kind == "file" for entry in entries):
        raise UsageError(f"{_show(folder)} holds no file to send (after --exclude and ignore files)")
    links = {entry.path for entry in entries if entry.kind == "link"}
    for entry in entries:
        if entry.kind == "link":
            _check_link(entry, links)
    warnings = names.odd_names(entry.path for entry in entries)
    return Scan(tuple(entries), tuple(warnings), sum(entry.size for entry in entries))


def pack(folder: Path, found: Scan, sink: Sink, key_of: KeyOf) -> Tree:
    """Seal a scanned folder: stream its content into blobs and return its tree.

    Reads with bounded memory on the calling thread and seals on two more; blocks until all is sealed.

    Args:
        folder: as given to ``scan``.
        found: what ``scan`` returned.
        sink: takes each blob, from the calling thread; what it raises comes out of here.
        key_of: ``tree.convergent(secret)``.

    Raises:
        UsageError: a file cannot be read, is gone, or changes while it is read (after one more try).
    """
    with Packer(sink, key_of) as packer, _opened(folder) as root:
        for entry in found.entries:
            if entry.kind == "file":
                _pack_file(packer, root, entry.path)
        files, chunks = packer.finish()
    full = _parents(entry.path for entry in found.entries)
    tree = Tree(
        files=files,
        dirs=tuple(Directory(entry.path) for entry in found.entries if entry.kind == "dir" and entry.path not in full),
        links=tuple(Link(entry.path, entry.target) for entry in found.entries if entry.kind == "link"),
        chunks=chunks,
    )
    try:
        check_tree(tree, TreeLimits())
    except Reject as error:
        raise UsageError(f"{_show(folder)} cannot be sent: {error.reason}") from error
    return tree


def find_main(folder: Path, main: str | None = None) -> str:
    """Return the path, relative to the folder, of what a job runs.

    ``main.py``, else the only ``main_*.py``, else ``main.sh``, else an executable ``main``; ``main`` (``--main
    FILE``) decides.

    Raises:
        UsageError: there is none, or more than one ``main_*.py``.
    """
    if main is not None:
        try:
            names.check_path(main)
        except Reject as error:
            raise UsageError(f"--main {names.display(main)}: {error.reason}") from error
        if not (folder / main).is_file():
            raise UsageError(f"--main: there is no file {names.display(main)} in {_show(folder)}")
        return main
    if (folder / "main.py").is_file():
        return "main.py"
    mains = sorted(path.name for path in folder.glob("main_*.py") if path.is_file())
    if len(mains) > 1:
        listed = names.display(", ".join(mains))
        raise UsageError(f"{_show(folder)} holds several mains ({listed}); say which: --main FILE")
    if mains:
        return mains[0]
    if (folder / "main.sh").is_file():
        return "main.sh"
    plain = folder / "main"
    if plain.is_file() and os.access(plain, os.X_OK):
        return "main"
    raise UsageError(
        f"{_show(folder)} holds no main.py, main_*.py, main.sh or executable main; say what to run: --main FILE"
    )


def _walk(folder: Path, ignore: Ignore) -> Iterator[Entry]:
    count = 0
    pending: list[tuple[str, Rules]] = [("", ())]
    while pending:
        here, outer = pending.pop()
        try:
            with os.scandir(folder / here) as listing:
                found = list(listing)
        except OSError as error:
            raise UsageError(f"{_show(folder / here)} cannot be read: {error.strerror}") from error
        rules = enter(outer, here, _ignore_files(found))
        for item in found:
            path = f"{here}/{item.name}" if here else item.name
            is_folder = item.is_dir(follow_symlinks=False)
            if ignore.excluded(rules, path, folder=is_folder):
                continue
            count += 1
            if count > ENTRIES_MAX:
                raise UsageError(f"{_show(folder)} holds more than {ENTRIES_MAX:,} files")
            try:
                names.check_path(path)
            except Reject as error:
                raise UsageError(f"{names.display(path)}: {error.reason}; rename it or use --exclude") from error
            if is_folder:
                pending.append((path, rules))
                yield Entry(path, "dir")
            else:
                yield _leaf(item, path)


def _leaf(item: os.DirEntry[str], path: str) -> Entry:
    try:
        if item.is_symlink():
            return Entry(path, "link", target=os.readlink(item.path))  # noqa: PTH115  a str
        info = item.stat(follow_symlinks=False)
    except OSError as error:
        raise UsageError(f"{names.display(path)} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(info.st_mode):
        kind = _KINDS.get(stat.S_IFMT(info.st_mode), "not a file")
        raise UsageError(f"{names.display(path)} is {kind}; remove it or use --exclude")
    if not os.access(item.path, os.R_OK):
        raise UsageError(f"{names.display(path)} cannot be read; change its permissions or use --exclude")
    return Entry(path, "file", size=info.st_size)


def _ignore_files(found: Sequence[os.DirEntry[str]]) -> list[tuple[str, str]]:
    patterns: list[tuple[str, str]] = []
    for name in IGNORE_FILES:
        for item in found:
            if item.name == name and item.is_file():
                try:
                    with Path(item.path).open(encoding="utf-8", errors="surrogateescape") as file:
                        patterns.append((name, file.read(IGNORE_BYTES_MAX)))
                except OSError as error:
                    raise UsageError(f"{_show(Path(item.path))} cannot be read: {error.strerror}") from error
    return patterns


def _check_link(entry: Entry, links: set[str]) -> None:
    try:
        check_link(Link(entry.path, entry.target), links)
    except Reject as error:
        raise UsageError(
            f"{names.display(entry.path)}: {error.reason}; replace it by what it points to, or use --exclude"
        ) from error


def _pack_file(packer: Packer, root: int, path: str) -> None:
    for last_try in (False, True):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise UsageError(f"{names.display(path)} is no longer a file; submit again")
                packer.add(path, descriptor)
            finally:
                os.close(descriptor)
        except ChangedError as error:
            if last_try:
                raise UsageError(
                    f"{names.display(path)} changes while it is read; wait for its writer or use --exclude"
                ) from error
        except OSError as error:
            raise UsageError(f"{names.display(path)} cannot be read: {error.strerror}") from error
        else:
            return


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _parents(paths: Iterator[str]) -> set[str]:
    return {path.rpartition("/")[0] for path in paths}


def _show(path: Path) -> str:
    return names.display(str(path))
