"""The ``strict`` sandbox: which Python is bound into it, and the exact bubblewrap command line.

Everything a job can see is listed here. Paths from a job never reach this command line; the only writable ones are made
by the daemon. `p2pq.daemon.selftest` proves at start-up what really holds.
"""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pq.daemon import seccomp
from p2pq.daemon.jobpython import JobPython, inside, python_features, resolve_python
from p2pq.errors import SandboxError

__all__ = [
    "BEGUN_FOLDER",
    "JOB_FOLDER",
    "JobPython",
    "Mount",
    "StrictCommand",
    "base_environment",
    "find_bwrap",
    "mounts_below_scratch",
    "python_features",
    "resolve_python",
    "strict_command",
    "system_folders",
]

JOB_FOLDER: Final = "/job"
BEGUN_FOLDER: Final = "/begun"
"""Where a job has something to run before its tasks: what that leaves for them."""
RUNNER_PATH: Final = "/p2pq-runner.py"
RUNNER_FOLDER: Final = "/p2pq-runner"
"""Holds what else the runner imports."""
SHM_BYTES: Final = 64 << 20
TMP_BYTES: Final = 256 << 20

_ETC: Final = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/fonts",
)
_PROC_READ_ONLY: Final = (
    *("/proc/acpi", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/scsi", "/proc/sys"),
    "/proc/sysrq-trigger",
)
_PASSWD: Final = b"job:x:1000:1000:job:/job:/bin/sh\n"
_GROUP: Final = b"job:x:1000:\n"


def find_bwrap() -> str | None:
    """Return the path of bubblewrap, or None."""
    return shutil.which("bwrap")


def sealed_file(data: bytes) -> int:
    """Return a descriptor at offset 0 from which bubblewrap copies ``data``; the caller closes it."""
    fd = os.memfd_create("p2pq-data", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


_BESIDE_USR: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


def system_folders() -> list[str]:
    """Return the folders and files of the system that a task may read; some may be missing."""
    return ["/usr", *(name for name in _BESIDE_USR if not Path(name).is_symlink()), *_ETC]


def _system() -> list[str]:
    """Return the read-only system: /usr, and the folders beside it as links where the system has merged them."""
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in _BESIDE_USR:
        path = Path(name)
        if path.is_symlink():
            argv += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            argv += ["--ro-bind", name, name]
    for name in _ETC:
        argv += ["--ro-bind-try", name, name]
    return argv


def base_environment(python: JobPython) -> dict[str, str]:
    """Return the environment of a strict task, to which the job's own entries are added."""
    return {
        "PATH": f"{python.bin}:/usr/bin:/bin",
        "HOME": JOB_FOLDER,
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108  the sandbox's own
    }


@dataclass(frozen=True, slots=True)
class Mount:
    """Something of this machine that a sandbox is to see besides; read-only but for what is made to be written."""

    outside: Path
    inside: str
    writable: bool = False
    device: bool = False
    """A device file, to be used as one."""

    @property
    def option(self) -> str:
        """How bubblewrap is told."""
        return "--dev-bind" if self.device else "--bind" if self.writable else "--ro-bind"


@dataclass(slots=True)
class StrictCommand:
    """A bubblewrap command line with the descriptors that it names; close them after the start."""

    argv: list[str]
    fds: tuple[int, ...]

    def close(self) -> None:
        """Close the descriptors here; bubblewrap has its own copies."""
        for fd in self.fds:
            os.close(fd)
        self.fds = ()


def strict_command(
    bwrap: str,
    python: JobPython,
    job_folder: Path,
    command: Iterable[str],
    files: Iterable[Mount] = (),
) -> StrictCommand:
    """Build the complete command line of the level ``strict``.

    Args:
        bwrap: The path of bubblewrap, 0.8.0 or newer.
        python: Its prefixes are bound read-only at their own paths; nothing else of what they lie in.
        job_folder: It appears as ``/job``, writable.
        command: What becomes process 1 inside.
        files: What it is to see besides.

    Raises:
        SandboxError: there is no system call filter for this machine.
    """
    if not seccomp.supported():
        raise SandboxError(f"there is no system call filter for {os.uname().machine} machines")
    passwd, group, filter_fd = (
        sealed_file(_PASSWD),
        sealed_file(_GROUP),
        seccomp.open_program(),
    )
    argv = [
        *(bwrap, "--unshare-all", "--unshare-user", "--disable-userns"),
        *("--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "p2pq", "--clearenv"),
    ]
    for name, value in base_environment(python).items():
        argv += ["--setenv", name, value]
    argv += _system()
    argv += ["--ro-bind-data", str(passwd), "/etc/passwd"]
    argv += ["--ro-bind-data", str(group), "/etc/group"]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    # bubblewrap leaves these writable when root runs it: their folders are not, but their files belong to root.
    for name in _PROC_READ_ONLY:
        argv += ["--ro-bind-try", name, name]
    argv += ["--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
    argv += ["--size", str(TMP_BYTES), "--tmpfs", "/tmp"]  # noqa: S108
    # After /tmp, which would hide a checkout in the host's /tmp.
    for prefix in python.prefixes:
        argv += ["--ro-bind", str(prefix), str(prefix)]
    for each in files:
        argv += [each.option, str(each.outside), each.inside]
    argv += ["--bind", str(job_folder), JOB_FOLDER, "--chdir", "/"]
    argv += ["--remount-ro", "/dev", "--remount-ro", "/"]
    argv += ["--seccomp", str(filter_fd), "--", *command]
    return StrictCommand(argv=argv, fds=(passwd, group, filter_fd))


def mounts_below_scratch(python: JobPython) -> list[list[str]]:
    """Return the bound prefixes that lie in /tmp or /dev/shm, which the runner must not try to empty."""
    return [
        list(prefix.parts[1:])
        for prefix in python.prefixes
        if inside(prefix, Path("/tmp")) or inside(prefix, Path("/dev/shm"))  # noqa: S108
    ]
