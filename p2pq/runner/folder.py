"""The folder in which the tasks of a train run, one after another: whether a task has left it as it found it.

Standard library only; it enters the sandbox beside the runner. Nothing that could change the folder runs while it is looked at.
"""

import os
import stat
import time

PARAMS_FILE = ".p2pq/params.json"
CLOCK_COARSE = 5
"""CLOCK_REALTIME_COARSE, by which file systems date changes."""
TICK_S = 0.001
TICKS_MAX = 50
SECOND_NS = 10**9
KEPT_MAX = 65536
"""What small files may hold in sum that are compared by their content, and put back where a task has deleted them."""


class Folder:
    """A folder that was filled for the next task, and serves those behind it for as long as no task changes it."""

    def __init__(self, root: str) -> None:
        """Take the folder; nothing has run in it."""
        self.root = root
        self.params = os.path.join(root, PARAMS_FILE)
        self.found: dict[str, tuple[int, int, int, int]] = {}
        """What every task finds, by path."""
        self.kept: dict[str, bytes] = {}
        """The content of small files."""

    def remember(self) -> None:
        """Remember what is there. A later change is told by its date, so that this returns when the clock has gone on.

        Raises:
            OSError: it cannot be read, or this file system's dates are of no use.
        """
        room = KEPT_MAX
        self.found = {self.root: entry(os.lstat(self.root))}
        folders = [self.root]
        while folders:
            with os.scandir(folders.pop()) as listing:
                for each in listing:
                    info = each.stat(follow_symlinks=False)
                    self.found[each.path] = entry(info)
                    if each.is_dir(follow_symlinks=False):
                        folders.append(each.path)
                    elif stat.S_ISREG(info.st_mode) and each.path != self.params and info.st_size <= room:
                        room -= info.st_size
                        self.kept[each.path] = read(each.path)
        dates = [date for path, (_, _, _, date) in self.found.items() if date and path not in self.kept]
        if dates and all(date % SECOND_NS == 0 for date in dates):
            raise OSError("dates are of whole seconds")
        for _ in range(TICKS_MAX):
            if time.clock_gettime_ns(CLOCK_COARSE) > max(dates, default=0):
                return
            time.sleep(TICK_S)
        raise OSError("the clock stands still")

    def unchanged(self) -> bool:
        """Tell whether all is as every task finds it, and nothing else is there; small files that are gone are put back."""
        gone, folders = set(self.found) - {self.root}, [self.root]
        try:
            if entry(os.lstat(self.root)) != self.found[self.root]:
                return False
            while folders:
                with os.scandir(folders.pop()) as listing:
                    for each in listing:
                        if not self.same(each):
                            return False
                        gone.discard(each.path)
                        if each.is_dir(follow_symlinks=False):
                            folders.append(each.path)
            for path in sorted(gone & set(self.kept)):
                write(path, self.kept[path], stat.S_IMODE(self.found[path][0]))
        except OSError:
            return False
        return gone <= set(self.kept)

    def same(self, each: "os.DirEntry[str]") -> bool:
        """Tell whether something is what every task finds there. Dates of files that were put back say nothing."""
        now, before = entry(each.stat(follow_symlinks=False)), self.found.get(each.path)
        if before is None or each.path not in self.kept:
            return now == before
        return (now[0], now[2]) == (before[0], before[2]) and read(each.path) == self.kept[each.path]

    def give(self, params: str) -> None:
        """Put the parameters of the next task in place of those of the last one.

        Raises:
            OSError: that failed.
        """
        os.unlink(self.params)
        write(self.params, params.encode(), 0o644)
        self.found[self.params] = entry(os.lstat(self.params))


def entry(info: os.stat_result) -> tuple[int, int, int, int]:
    """Return what tells whether something is what it was. Of folders no date counts: their entries do."""
    if stat.S_ISDIR(info.st_mode):
        return info.st_mode, info.st_ino, 0, 0
    return info.st_mode, info.st_ino, info.st_size, info.st_ctime_ns


def read(path: str) -> bytes:
    """Return the content of a small file."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.read(file, KEPT_MAX + 1)
    finally:
        os.close(file)


def write(path: str, data: bytes, mode: int) -> None:
    """Write a file that is not there."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, data)
        os.fchmod(file, mode)
    finally:
        os.close(file)
