"""The ``strict`` sandbox: which Python is bound into it, and the exact bubblewrap command line.

Everything a job can see is listed here. Paths from a job never reach this command line; the only writable ones are made
by the daemon. `p2pq.daemon.selftest` proves at start-up what really holds.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pq.errors import SandboxError

JOB_FOLDER: Final = "/job"
RUNNER_PATH: Final = "/p2pq-runner.py"
SHM_BYTES: Final = 64 << 20
TMP_BYTES: Final = 256 << 20
PYTHON_QUERY_S: Final = 20.0

# Existing names below these would be hidden by, or would hide, what the sandbox mounts there.
_RESERVED: Final = ("/proc", "/sys", "/dev", "/job", "/etc", "/bin", "/sbin", "/lib", "/lib64")
_BINDABLE_RESERVED: Final = ("/dev/shm",)  # noqa: S108  a path inside the sandbox, compared only
_ETC: Final = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/fonts",
)
_PASSWD: Final = b"job:x:1000:1000:job:/job:/bin/sh\n"
_GROUP: Final = b"job:x:1000:\n"
_QUERY: Final = (
    "import json,sys;print(json.dumps([sys.executable,sys.prefix,sys.base_prefix,"
    "sys.exec_prefix,sys.base_exec_prefix,'%d.%d.%d'%sys.version_info[:3]]))"
)


@dataclass(frozen=True, slots=True)
class JobPython:
    """The interpreter that jobs run with and the folders that it needs."""

    executable: Path
    prefixes: tuple[Path, ...]
    """Its environment and base installation, without what /usr provides anyway."""

    version: str

    @property
    def bin(self) -> Path:
        """The folder that goes first on a job's PATH."""
        return self.executable.parent


def _inside(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def resolve_python(path: Path | None, *, user_home: Path, p2pq_home: Path) -> JobPython:
    """Find the real interpreter behind ``path`` (default: the one running this), once.

    A version manager's shim costs 100 ms per start, so the interpreter itself is asked where it lies.

    Args:
        path: The configured interpreter, or None.
        user_home: The home folder of the user who runs the node; it must stay outside the sandbox.
        p2pq_home: ``P2PQ_HOME``; likewise.

    Raises:
        SandboxError: it does not run, or binding its folders would show a home to jobs; the message says which.
    """
    if path is None:
        answer = [
            *(sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix),
            ".".join(map(str, sys.version_info[:3])),
        ]
    else:
        answer = _ask(path)
    executable, *folders, version = answer
    prefixes: list[Path] = []
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        # A prefix may be named through a link (a "current" folder); programs use both names.
        prefixes += [folder, Path(os.path.realpath(folder))]
    needed = [prefix for prefix in dict.fromkeys(prefixes) if not _inside(prefix, Path("/usr"))]
    for prefix in needed:
        _check_prefix(prefix, user_home=user_home, p2pq_home=p2pq_home)
    outermost = tuple(
        prefix for prefix in needed if not any(_inside(prefix, other) for other in needed if other != prefix)
    )
    python = JobPython(executable=Path(executable), prefixes=outermost, version=version)
    _check_links(python)
    return python


def _ask(path: Path) -> list[str]:
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _QUERY],
            capture_output=True,
            check=True,
            timeout=PYTHON_QUERY_S,
            stdin=subprocess.DEVNULL,
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SandboxError(
            f"{path} does not run as a Python interpreter ({error}); set [runner] python to one that does"
        ) from error
    if not (isinstance(answer, list) and all(isinstance(item, str) for item in answer)):
        raise SandboxError(f"{path} does not answer like a Python interpreter")
    return answer


def _check_prefix(prefix: Path, *, user_home: Path, p2pq_home: Path) -> None:
    """Refuse to show a home to jobs, whichever of its names is used."""
    advice = "use a virtual environment in a folder of its own and set [runner] python to it"
    homes = {
        "the home folder": {user_home, Path(os.path.realpath(user_home))},
        "P2PQ_HOME": {p2pq_home, Path(os.path.realpath(p2pq_home))},
    }
    for what, names in homes.items():
        if any(_inside(name, prefix) for name in names):
            raise SandboxError(f"the Python prefix {prefix} holds {what}, which jobs must not see; {advice}")
    if any(_inside(prefix, name) for name in homes["P2PQ_HOME"]):
        raise SandboxError(f"the Python prefix {prefix} lies in P2PQ_HOME, which jobs must not see; {advice}")
    if prefix == Path("/") or (
        any(_inside(prefix, Path(folder)) for folder in _RESERVED)
        and not any(_inside(prefix, Path(folder)) for folder in _BINDABLE_RESERVED)
    ):
        raise SandboxError(f"the Python prefix {prefix} cannot be bound into the sandbox; {advice}")


def _check_links(python: JobPython) -> None:
    """Follow the interpreter's symbolic links: each must lie where the sandbox can see it."""
    seen = (Path("/usr"), *(Path(folder) for folder in _RESERVED[5:]), *python.prefixes)
    hop = python.executable
    for _ in range(40):
        if not any(_inside(hop, folder) for folder in seen):
            raise SandboxError(
                f"the interpreter {python.executable} leads through {hop}, which is not below its prefix"
            )
        if not hop.is_symlink():
            return
        hop = Path(os.path.normpath(hop.parent / hop.readlink()))
    raise SandboxError(f"the interpreter {python.executable} is a loop of symbolic links")


def find_bwrap() -> str | None:
    """Return the path of bubblewrap, or None."""
    return shutil.which("bwrap")


def sealed_file(data: bytes) -> int:
    """Return a descriptor at offset 0 from which bubblewrap copies ``data``; the caller closes it."""
    fd = os.memfd_create("p2pq-data", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _system() -> list[str]:
    """Return the read-only system: /usr, and the folders beside it as links where the system has merged them."""
    argv = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
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
    files: Iterable[tuple[Path, str]] = (),
) -> StrictCommand:
    """Build the complete command line of the level ``strict``.

    Args:
        bwrap: The path of bubblewrap, 0.8.0 or newer.
        python: Its prefixes are bound read-only at their own paths; nothing else of what they lie in.
        job_folder: The only writable folder of the host; it appears as ``/job``.
        command: What becomes process 1 inside.
        files: Further read-only files, as (path outside, path inside).

    Raises:
        SandboxError: there is no system call filter for this machine.
    """
    from p2pq.daemon import seccomp  # noqa: PLC0415  keeps ``p2pq doctor`` light

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
    argv += ["--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
    argv += ["--size", str(TMP_BYTES), "--tmpfs", "/tmp"]  # noqa: S108
    # After /tmp, which would hide a checkout in the host's /tmp.
    for prefix in python.prefixes:
        argv += ["--ro-bind", str(prefix), str(prefix)]
    for outside, inside in files:
        argv += ["--ro-bind", str(outside), inside]
    argv += ["--bind", str(job_folder), JOB_FOLDER, "--chdir", "/"]
    argv += ["--remount-ro", "/dev", "--remount-ro", "/"]
    argv += ["--seccomp", str(filter_fd), "--", *command]
    return StrictCommand(argv=argv, fds=(passwd, group, filter_fd))


def mounts_below_scratch(python: JobPython) -> list[list[str]]:
    """Return the bound prefixes that lie in /tmp or /dev/shm, which the runner must not try to empty."""
    return [
        list(prefix.parts[1:])
        for prefix in python.prefixes
        if _inside(prefix, Path("/tmp")) or _inside(prefix, Path("/dev/shm"))  # noqa: S108
    ]
