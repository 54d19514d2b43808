"""The Python that jobs run with: resolved once, and refused where binding it would show a home to jobs."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pq.errors import SandboxError

QUERY_S: Final = 20.0

# Existing names below these would be hidden by, or would hide, what the sandbox mounts there.
_RESERVED: Final = ("/proc", "/sys", "/dev", "/job", "/etc", "/bin", "/sbin", "/lib", "/lib64")
_BINDABLE_RESERVED: Final = ("/dev/shm",)  # noqa: S108  a path inside the sandbox, compared only
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


def inside(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or lies in it, by its text."""
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
        answer = _ask(path, _QUERY)
    executable, *folders, version = answer
    prefixes: list[Path] = []
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        # A prefix may be named through a link (a "current" folder); programs use both names.
        prefixes += [folder, Path(os.path.realpath(folder))]
    needed = [prefix for prefix in dict.fromkeys(prefixes) if not inside(prefix, Path("/usr"))]
    for prefix in needed:
        _check_prefix(prefix, user_home=user_home, p2pq_home=p2pq_home)
    outermost = tuple(
        prefix for prefix in needed if not any(inside(prefix, other) for other in needed if other != prefix)
    )
    python = JobPython(executable=Path(executable), prefixes=outermost, version=version)
    _check_links(python)
    return python


def _ask(path: Path, code: str) -> list[str]:
    try:
        done = subprocess.run(
            [path, "-I", "-c", code],
            capture_output=True,
            check=True,
            timeout=QUERY_S,
            stdin=subprocess.DEVNULL,
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SandboxError(
            f"{path} does not run as a Python interpreter ({why}); set [runner] python to one that does"
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
        if any(inside(name, prefix) for name in names):
            raise SandboxError(f"the Python prefix {prefix} holds {what}, which jobs must not see; {advice}")
    if any(inside(prefix, name) for name in homes["P2PQ_HOME"]):
        raise SandboxError(f"the Python prefix {prefix} lies in P2PQ_HOME, which jobs must not see; {advice}")
    if prefix == Path("/") or (
        any(inside(prefix, Path(folder)) for folder in _RESERVED)
        and not any(inside(prefix, Path(folder)) for folder in _BINDABLE_RESERVED)
    ):
        raise SandboxError(f"the Python prefix {prefix} cannot be bound into the sandbox; {advice}")


def _check_links(python: JobPython) -> None:
    """Follow the interpreter's symbolic links: each must lie where the sandbox can see it."""
    seen = (Path("/usr"), *(Path(folder) for folder in _RESERVED[5:]), *python.prefixes)
    hop = python.executable
    for _ in range(40):
        if not any(inside(hop, folder) for folder in seen):
            raise SandboxError(
                f"the interpreter {python.executable} leads through {hop}, which is not below its prefix"
            )
        if not hop.is_symlink():
            return
        hop = Path(os.path.normpath(hop.parent / hop.readlink()))
    raise SandboxError(f"the interpreter {python.executable} is a loop of symbolic links")


def python_features(python: JobPython) -> frozenset[str]:
    """Return the names of the top-level modules that the interpreter can import, without importing them.

    Raises:
        SandboxError: the interpreter did not answer.
    """
    code = (
        "import json,pkgutil,sys;print(json.dumps(sorted("
        "{*sys.builtin_module_names}|{m.name for m in pkgutil.iter_modules()})))"
    )
    return frozenset(_ask(python.executable, code))
