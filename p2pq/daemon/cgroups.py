"""Memory and process limits by cgroup v2, where the service manager has delegated a group to this daemon alone.

A systemd user unit with ``Delegate=memory pids`` does. Elsewhere the watch of `p2pq.daemon.limits` is the only bound; where there
is a group the watch goes on as well, so that reasons and sentences are the same.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

SLACK_BYTES: Final = 64 << 20
"""For the runner itself and the kernel's own accounting; the watch enforces the exact limit."""

SLACK_PROCESSES: Final = 4


class Group:
    """The control group of one runner."""

    def __init__(self, folder: Path) -> None:
        """Take a folder that exists."""
        self._folder = folder

    def add(self, pid: int) -> None:
        """Move a process here; what it starts from now on is here as well.

        Raises:
            OSError: the kernel refuses.
        """
        (self._folder / "cgroup.procs").write_text(str(pid))

    def limit(self, memory_bytes: int | None, processes: int) -> None:
        """Set the limits; None leaves memory unlimited.

        Raises:
            OSError: the kernel refuses.
        """
        (self._folder / "pids.max").write_text(str(processes + SLACK_PROCESSES))
        if memory_bytes is not None:
            (self._folder / "memory.max").write_text(str(memory_bytes + SLACK_BYTES))
            with contextlib.suppress(FileNotFoundError, PermissionError):  # a kernel without swap
                (self._folder / "memory.swap.max").write_text("0")

    def oom_kills(self) -> int:
        """Return how many processes of the group the kernel killed for want of memory."""
        try:
            lines = (self._folder / "memory.events").read_text().splitlines()
        except OSError:
            return 0  # the group is gone with its processes
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def remove(self) -> None:
        """Kill what is left in the group, and delete it."""
        with contextlib.suppress(OSError):  # Linux before 5.14 has no cgroup.kill; the runner's end has killed all
            (self._folder / "cgroup.kill").write_text("1")
        with contextlib.suppress(OSError):  # a process is still dying: the service manager deletes it with the service
            self._folder.rmdir()


class Cgroups:
    """The group delegated to this daemon."""

    def __init__(self, root: Path) -> None:
        """Take a group whose controllers are handed down already."""
        self._root = root

    @classmethod
    def open(
        cls,
        membership: Path = Path("/proc/self/cgroup"),
        mount: Path = Path("/sys/fs/cgroup"),
    ) -> "Cgroups | None":
        """Take over the daemon's own group if it is delegated, else return None and change nothing.

        Delegated means: writable, with the memory and pids controllers, and holding no process but this one.
        """
        try:
            lines = membership.read_text().splitlines()
            path = next((line[3:] for line in lines if line.startswith("0::/")), None)
            if path is None or path == "/":
                return None
            own = mount / path.lstrip("/")
            controllers = (own / "cgroup.controllers").read_text().split()
            alone = (own / "cgroup.procs").read_text().split() == [str(os.getpid())]
            writable = all(os.access(own / name, os.W_OK) for name in (".", "cgroup.procs", "cgroup.subtree_control"))
            if not ({"memory", "pids"} <= set(controllers) and alone and writable):
                return None
            # A group that hands controllers down may hold no process itself.
            (own / "p2pq-daemon").mkdir(exist_ok=True)
            (own / "p2pq-daemon" / "cgroup.procs").write_text(str(os.getpid()))
            try:
                (own / "cgroup.subtree_control").write_text("+memory +pids")
            except OSError:
                (own / "cgroup.procs").write_text(str(os.getpid()))
                return None
        except OSError:
            return None
        return cls(own)

    def create(self, name: str, memory_bytes: int | None, processes: int) -> Group:
        """Make a limited group.

        Raises:
            OSError: the kernel refuses.
        """
        folder = self._root / f"p2pq-{name}"
        folder.mkdir()
        group = Group(folder)
        group.limit(memory_bytes, processes)
        return group
