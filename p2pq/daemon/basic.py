"""The level ``basic``: what a task may reach where no namespaces can be made, and how what outlives it is found.

Everything a task can open is listed here; `p2pq.runner.confine` makes it so, by Landlock and a system call filter.
"""

import binascii
import contextlib
import os
import secrets
import select
import signal
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pq.daemon import seccomp
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.sandbox import Mount, system_folders
from p2pq.daemon.scratch import Scratch
from p2pq.errors import SandboxError
from p2pq.runner import confine

ROUNDS_MAX: Final = 20
DIES_S: Final = 0.05
AT_ONCE_MAX: Final = 256
"""So many killed processes are waited for at a time: each takes one of this process's descriptors."""

RUNNER_BITS: Final = 30

_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_MACHINE: Final = tuple(f"/proc/{name}" for name in ("cpuinfo", "loadavg", "meminfo", "stat", "uptime", "version"))
"""What programs ask about the machine. Nothing else of /proc is in reach: it shows all processes."""


def problem() -> str:
    """Return why this machine cannot shut tasks in at this level, in one sentence without a period; empty where it can try."""
    if not seccomp.supported():
        return f"there is no system call filter for {os.uname().machine} machines"
    version = confine.abi()
    if version < confine.ABI_MIN:
        has = f"version {version}" if version else "nothing"
        return f"this kernel has {has} of Landlock, and version {confine.ABI_MIN} is needed (Linux 6.12)"
    return ""


def rules(
    python: JobPython, writable: Iterable[Path], readable: Iterable[Path] = (), devices: Iterable[Path] = ()
) -> "confine.Rules":
    """Return what a task may reach: the system, the job's Python and the machine's numbers read-only, and its own folders.

    Args:
        python: the one that jobs run with.
        writable: the task's own folders.
        readable: what it is to see besides.
        devices: what it is to control besides.

    Raises:
        SandboxError: this machine cannot do it.
    """
    if found := problem():
        raise SandboxError(found)
    return {
        "read": [*system_folders(), *_MACHINE, *map(str, (*python.prefixes, *readable))],
        "write": [str(path) for path in writable],
        "devices": [*_DEVICES, *map(str, devices)],
        "filter": binascii.b2a_base64(seccomp.program(os.uname().machine, shared=True), newline=False).decode(),
    }


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a runner is told of how to shut in its tasks, and itself."""

    rules: "confine.Rules"
    outputs: str
    """The folder of what tasks print, which the runner has to reach besides."""
    mark: int
    """What all processes of this runner have as ``RLIMIT_LOCKS``, which has no other meaning.

    Whatever they start inherits it, and their filter keeps them from changing it.
    """


def confinement(python: JobPython, scratch: Scratch, mounts: Iterable[Mount] = ()) -> Confinement:
    """Return that of a new runner.

    Raises:
        SandboxError: this machine cannot do it.
    """
    mark = _of_folder(scratch.root.parent) << RUNNER_BITS | secrets.randbelow(1 << RUNNER_BITS)
    devices = [each.outside for each in mounts if each.device]
    readable = [each.outside for each in mounts if not each.device]
    return Confinement(rules(python, scratch.written, readable, devices), str(scratch.output), mark)


def base_environment(python: JobPython, home: Path, temporary: Path) -> dict[str, str]:
    """Return the environment of a task, to which the job's own entries are added."""
    return {
        "PATH": f"{python.bin}:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TMPDIR": str(temporary),
        "USER": "job",  # /etc/passwd is not in reach
    }


def _of_folder(folder: Path) -> int:
    return zlib.crc32(os.fsencode(folder)) | 1 << 31  # never a small number, as somebody may have set one


def kill_marked(mark: int) -> None:
    """Kill what is left of a runner. Returns when that is dead, or after some seconds where something cannot die."""
    _kill(lambda found: found == mark)


def purge(folder: Path) -> None:
    """Kill what is left of all runners whose scratch folders lay in a folder."""
    _kill(lambda found: found >> RUNNER_BITS == _of_folder(folder))


def _kill(ours: Callable[[int], bool]) -> None:
    """Kill the processes with such a mark, again until there is none."""
    for _ in range(ROUNDS_MAX):
        found = False
        fds: list[int] = []
        try:
            with os.scandir("/proc") as listing:  # read as it goes on: who forks ahead of us is met again
                for entry in listing:
                    if entry.name.isdigit() and (mark := _mark(entry.path)) is not None and ours(mark):
                        if len(fds) >= AT_ONCE_MAX:
                            _await(fds)
                        try:
                            fds.append(os.pidfd_open(int(entry.name)))
                        except ProcessLookupError:
                            continue  # it ended
                        except OSError:  # too many open files
                            found = True
                            _await(fds)
                            continue
                        if _mark(entry.path) != mark or ended(fds[-1], 0):
                            os.close(fds.pop())  # the number is another's by now, or nobody has asked how it ended
                            continue
                        found = True
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            signal.pidfd_send_signal(fds[-1], signal.SIGKILL)
        finally:
            _await(fds)
        if not found:
            return


def _await(fds: list[int]) -> None:
    """Wait a little for each of the processes behind these descriptors to end, and close them."""
    while fds:
        ended(fds[-1], DIES_S)
        os.close(fds.pop())


def ended(pidfd: int, wait_s: float) -> bool:
    """Tell whether a process and all its threads ended, within so many seconds."""
    poll = select.poll()  # select.select knows no descriptors from 1024 on
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))


def _mark(process: str) -> int | None:
    """Return the mark of a process; None where it has none."""
    try:
        with open(f"{process}/limits", "rb") as file:  # noqa: PTH123  in a hot loop
            line = next((line for line in file if line.startswith(b"Max file locks")), b"")
        return int(line.split()[4])
    except (OSError, IndexError, ValueError):
        return None  # it ended, or has no such limit
