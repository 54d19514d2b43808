"""What a task may use, and the watch that ends it when it uses more.

Memory and processes are counted over the whole process tree of the sandbox by polling /proc: often when a limit is near,
rarely when it is far, never when no task runs. Disk is counted over the scratch folder. All readings are of a hostile
tree: bounded, and without following links.
"""

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from p2pq.daemon import autogroups

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
FREE_BYTES_MIN: Final = 1 << 30
"""Free space that tasks leave to the machine's owner."""

DEPTH_MAX: Final = 256
ENTRY_BYTES: Final = 1024
"""What each file or folder counts beyond its blocks, so that a million empty files are not free."""

GROWTH_BYTES_S: Final = 2 << 30
"""How fast memory can fill; sets how soon to look again."""

WARM_BYTES_MAX: Final = 512 << 20
"""So much of an interpreter that has imported ahead is not counted: pages that a task shares with it are the task's, too."""

POLL_S_MIN: Final = 0.05
POLL_S_MAX: Final = 0.5
DISK_POLL_S_MIN: Final = 1.0
DISK_POLL_RATIO: Final = 20.0
"""A walk of the scratch folder may take one part in this many of the time."""

HIDDEN: Final = "this user cannot see its own processes in /proc (hidepid?)"

BASIC_PROCESSES_MAX: Final = 1024
"""So many processes and threads, together, a task may have at level ``basic``, where often only this watch bounds them."""

BreachReason = Literal["memory-limit", "disk-limit", "output-limit"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one task may use. Sizes in bytes, times in seconds."""

    cpus: int
    memory_bytes: int | None
    """Resident memory of all its processes together; None: no limit."""

    wall_s: float
    disk_bytes: int
    """What the scratch folder may hold, its input included."""

    processes: int
    output_bytes: int
    """Standard output and error together."""

    def rlimits(self, level: str) -> dict[str, int]:
        """Return the resource limits (names of the ``resource`` module) that each process of the task gets."""
        limits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_FSIZE": max(self.disk_bytes, self.output_bytes),
            # Per process, against a task that outlives its own watch; wall time ends ordinary ones first.
            "RLIMIT_CPU": int(self.wall_s * self.cpus) + 60,
        }
        if level == "strict":
            # Counted in the sandbox's own user namespace; outside it would count the user's desktop.
            limits["RLIMIT_NPROC"] = self.processes
        if level != "none":
            limits |= {
                "RLIMIT_NOFILE": 1024,
                "RLIMIT_STACK": 64 << 20,
                "RLIMIT_MEMLOCK": 0,
                "RLIMIT_MSGQUEUE": 0,
            }
        return limits


@dataclass(frozen=True, slots=True)
class Breach:
    """A limit that was passed, and one sentence about it."""

    reason: BreachReason
    detail: str


def size_text(count: int) -> str:
    """Return a size for people, in binary units."""
    value = float(count)
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:  # noqa: PLR2004
        value /= 1024
        del units[0]
    return f"{value:.1f}".removesuffix(".0") + f" {units[0]}"


def children(pid: int) -> list[int]:
    """Return the direct children of a process, of all its threads; empty when it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  in a hot loop
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123  in a hot loop
                found += map(int, file.read().split())
        except OSError:
            continue  # that thread ended
    return found


def shown(pid: int) -> bool:
    """Tell whether /proc shows a process to this user: all that is counted and killed by ``children`` needs that.

    With the mount option hidepid it does not show those that are not dumpable, as runners are.
    """
    try:
        return bool(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208  as in ``children``
    except OSError:
        return False


def inner_pid(pid: int) -> int:
    """Return the id of a process as its own namespace counts; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
        return next((int(line.split()[-1]) for line in lines if line.startswith(b"NSpid:")), 0)
    except (OSError, ValueError):
        return 0


def tree(pid: int, count_max: int) -> list[int]:
    """Return a process and all below it, at most ``count_max`` of them."""
    found = [pid]
    for parent in found:  # grows while it is walked
        if len(found) >= count_max:
            break
        found += children(parent)
    return found[:count_max]


def threads(pid: int) -> int:
    """Return how many threads a process has; 0 when it is gone."""
    return sum(map(int, stat_fields(pid)[17:18]))


def stat_fields(pid: int) -> list[bytes]:
    """Return what the kernel tells of a process, proc(5), from its state on; nothing when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  in a hot loop
            # The command name may hold spaces and brackets; the fields follow the last one.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def crowd(pid: int, count_max: int) -> tuple[list[int], int]:
    """Return all processes below one, and how many threads they have; looks no further where these are more than allowed."""
    found: list[int] = []
    counted = 0
    fresh = children(pid)
    while fresh:
        below: list[int] = []
        for each in fresh:
            found.append(each)
            counted += max(1, threads(each))
            if counted > count_max:
                return found, counted
            below += children(each)  # no more folders to read than it has threads, which are counted by now
        fresh = below
    return found, counted


def resident_bytes(pids: list[int]) -> int:
    """Return the resident memory of the processes; pages shared between them count once per process."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123  in a hot loop
                total += int(file.read().split()[1]) * PAGE_BYTES
        except (OSError, IndexError):
            continue  # it ended
    return total


def proportional_bytes(pids: list[int]) -> int:
    """Return the resident memory with shared pages divided among their users: exact, but slow.

    A process that does not show its maps counts with its whole resident set.
    """
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        except (OSError, StopIteration):
            total += resident_bytes([pid])
    return total


def folder_bytes(root: Path, stop_above: int) -> int | None:
    """Return what a folder's content takes on disk; None where it is nested deeper than ``DEPTH_MAX``.

    Stops early above ``stop_above``. What a task made unreadable counts as far as it can be seen; the reserve of free
    space bounds the rest.
    """
    total = 0
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return 0
    stack: list[tuple[int, list[str]]] = [(fd, os.listdir(fd))]  # noqa: PTH208  pathlib knows no descriptors
    try:
        while stack:
            fd, names = stack[-1]
            if not names:
                os.close(fd)
                stack.pop()
                continue
            name = names.pop()
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                total += info.st_blocks * 512 + ENTRY_BYTES
                if total > stop_above:
                    return total
                if not stat.S_ISDIR(info.st_mode):
                    continue
                if len(stack) == DEPTH_MAX:
                    return None
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except OSError:
                continue  # the task is still changing it, or made it unreadable
            stack.append((below, []))
            stack[-1] = (below, os.listdir(below))  # noqa: PTH208
    finally:
        for fd, _ in stack:
            os.close(fd)
    return total


def held_bytes(fd: int) -> int:
    """Return what the file system behind a descriptor holds, with something for each of its files."""
    info = os.fstatvfs(fd)
    return (info.f_blocks - info.f_bfree) * info.f_frsize + (info.f_files - info.f_ffree) * ENTRY_BYTES


def free_bytes(path: Path) -> int:
    """Return the free space, for an ordinary user, of the file system that holds ``path``."""
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


class Watch:
    """Looks at one running task. ``look`` is cheap (1 ms); ``walk`` reads the scratch folder (in a thread)."""

    def __init__(  # noqa: PLR0913  each is something else of a task
        self,
        limits: Limits,
        pid: int,
        scratch: tuple[Path, ...],
        outputs: tuple[Path, ...],
        in_memory: Sequence[int] = (),
        *,
        threads: bool = False,
        grouped: bool = False,
    ) -> None:
        """Watch the tree below ``pid`` (the runner, which is not counted), its folders, and those that lie in memory.

        With ``threads`` each of them counts as a process, as it does where the kernel counts. With ``grouped`` their sessions are
        kept behind all others.
        """
        self._threads = threads
        self._grouped = grouped
        self._in_memory = in_memory
        self._limits = limits
        self._pid = pid
        self._scratch = scratch
        self._outputs = outputs
        self._beside = 0
        self.next_look_s = POLL_S_MIN
        """In how many seconds to look again."""

        self.next_walk_s = DISK_POLL_S_MIN
        """In how many seconds to walk again."""

    def spare(self, beside: int) -> None:
        """Do not count a child of the runner, by the id that it has there: no part of the task, but what it was forked off.

        The runner says which. If that is a lie, a task gains ``WARM_BYTES_MAX`` by it.
        """
        self._beside = next((pid for pid in children(self._pid) if beside and inner_pid(pid) == beside), 0)

    def look(self) -> Breach | None:
        """Check memory, processes and output, and set ``next_look_s``; keep what is to be behind others there."""
        limits = self._limits
        written = sum(self._size(path) for path in self._outputs)
        if written > limits.output_bytes:
            return Breach(
                "output-limit",
                f"it wrote {size_text(written)} to standard output and error; the limit is {size_text(limits.output_bytes)}",
            )
        if self._threads:
            pids, count = crowd(self._pid, limits.processes)
        else:
            pids = [pid for pid in tree(self._pid, limits.processes + 3)[1:] if pid != self._beside]
            count = len(pids)
        if self._grouped:
            autogroups.lower(pids)
        if count > limits.processes:
            kinds = "processes and threads" if self._threads else "processes"
            return Breach("memory-limit", f"it started more than {limits.processes} {kinds}")
        headroom = limits.output_bytes - written
        if limits.memory_bytes is not None:
            files = sum(map(held_bytes, self._in_memory))
            if self._beside:
                files += max(0, resident_bytes([self._beside]) - WARM_BYTES_MAX)
            used = files + resident_bytes(pids)
            if used > limits.memory_bytes:
                used = files + proportional_bytes(pids)
            if used > limits.memory_bytes:
                return Breach(
                    "memory-limit",
                    f"it used {size_text(used)} of memory; the limit is {size_text(limits.memory_bytes)}",
                )
            headroom = min(headroom, limits.memory_bytes - used)
        self.next_look_s = min(max(headroom / GROWTH_BYTES_S, POLL_S_MIN), POLL_S_MAX)
        return None

    def walk(self) -> Breach | None:
        """Check the scratch folder, and set ``next_walk_s`` by how long that took."""
        begun = time.monotonic()
        used: int | None = 0
        for folder in self._scratch:
            took = folder_bytes(folder, self._limits.disk_bytes)
            used = None if took is None or used is None else used + took
        self.next_walk_s = max(DISK_POLL_S_MIN, (time.monotonic() - begun) * DISK_POLL_RATIO)
        if used is None:
            return Breach("disk-limit", f"its folders are nested deeper than {DEPTH_MAX} levels")
        if used > self._limits.disk_bytes:
            return Breach(
                "disk-limit",
                f"it holds more than {size_text(self._limits.disk_bytes)} on disk",
            )
        return None

    @staticmethod
    def _size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0
