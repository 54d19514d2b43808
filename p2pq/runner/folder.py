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


class Folder:
    """A folder that was filled for the next task, and serves those behind it for as long as no task changes it."""

    def __init__(self, root: str) -> None:
        """Take the folder; nothing has run in it."""
        self.root = root
        self.found: dict[str, tuple[int, int, int, int]] = {}
        """What every task finds, by path."""

    def remember(self) -> None:
        """Remember what is there. A later change is told by its date, so that this returns when the clock has gone on.

        Raises:
            OSError: it cannot be read, or this file system's dates are of no use.
        """
        self.found = {self.root: entry(os.lstat(self.root))}
        folders = [self.root]
        while folders:
            with os.scandir(folders.pop()) as listing:
                for each in listing:
                    self.found[each.path] = entry(each.stat(follow_symlinks=False))
                    if each.is_dir(follow_symlinks=False):
                        folders.append(each.path)
        dates = [date for _, _, _, date in self.found.values() if date]
        if dates and all(date % SECOND_NS == 0 for date in dates):
            raise OSError("dates are of whole seconds")
        for _ in range(TICKS_MAX):
            if time.clock_gettime_ns(CLOCK_COARSE) > max(dates, default=0):
                return
            time.sleep(TICK_S)
        raise OSError("the clock stands still")

    def unchanged(self) -> bool:
        """Tell whether all is as every task finds it, and nothing else is there."""
        seen, folders = 1, [self.root]
        try:
            if entry(os.lstat(self.root)) != self.found[self.root]:
                return False
            while folders:
                with os.scandir(folders.pop()) as listing:
                    for each in listing:
                        if entry(each.stat(follow_symlinks=False)) != self.found.get(each.path):
                            return False
                        seen += 1
                        if each.is_dir(follow_symlinks=False):
                            folders.append(each.path)
        except OSError:
            return False
        return seen == len(self.found)

    def give(self, params: str) -> None:
        """Put the parameters of the next task in place of those of the last one.

        Raises:
            OSError: that failed.
        """
        path = os.path.join(self.root, PARAMS_FILE)
        os.unlink(path)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, params.encode())
        finally:
            os.close(file)
        self.found[path] = entry(os.lstat(path))


def entry(info: os.stat_result) -> tuple[int, int, int, int]:
    """Return what tells whether something is what it was. Of folders no date counts: their entries do."""
    if stat.S_ISDIR(info.st_mode):
        return info.st_mode, info.st_ino, 0, 0
    return info.st_mode, info.st_ino, info.st_size, info.st_ctime_ns
