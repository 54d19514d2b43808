"""The start-up self-test: a hostile probe tries to get out of a sandbox; only what held is believed and advertised.

``strict`` comes first. ``basic`` is tried where that does not hold and the settings allow it.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from p2pq.daemon import basic, limits
from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.sandbox import Mount, base_environment, find_bwrap, strict_command
from p2pq.errors import SandboxError
from p2pq.runner import confine, probe

PROBE_S: Final = 30.0
PROBE_PATH: Final = "/p2pq-probe.py"
BWRAP_MIN: Final = (0, 8, 0)
NAMESPACES: Final = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")

INSTALL: Final = (
    "install it: apt install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora), pacman -S bubblewrap (Arch)"
)
BUG: Final = "report this as a bug"
LOWER: Final = 'set [runner] sandbox_floor = "basic" to use a weaker sandbox (docs/threat-model.md)'
_NOT_DUMPABLE: Final = "import ctypes, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(flush=True); sys.stdin.read()"
_SYSCTLS: Final = {
    "kernel.unprivileged_userns_clone": "/proc/sys/kernel/unprivileged_userns_clone",
    "user.max_user_namespaces": "/proc/sys/user/max_user_namespaces",
    "kernel.apparmor_restrict_unprivileged_userns": "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
}


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """What the self-test proved."""

    level: Literal["strict", "basic", "none"]
    reason: str
    """What held, or why ``strict`` did not, in one sentence without a period."""

    suggestion: str = ""
    """What to do about it; empty where nothing is to be done."""

    @property
    def shortcoming(self) -> str:
        """How tasks run here, and why not better; empty where ``strict`` holds."""
        if self.level == "strict":
            return ""
        return f"{'without a sandbox' if self.level == 'none' else 'in a sandbox that is weaker than strict'}: {self.reason}"


def self_test(
    python: JobPython,
    *,
    user_home: Path,
    p2pq_home: Path,
    socket_path: Path | None = None,
    bwrap: str | None = None,
    floor: Literal["strict", "basic"] = "strict",
) -> IsolationReport:
    """Run the probe in a strict sandbox, and in a basic one where that does not hold and may be used; judge its findings.

    Blocking, some 150 ms; call it in a worker thread. It raises nothing: whatever goes wrong is the reason why
    a level is not proved.

    Args:
        python: The interpreter that jobs use.
        user_home: The user's home, which must not be visible.
        p2pq_home: ``P2PQ_HOME``, likewise.
        socket_path: The local API's socket, to which the probe tries to connect.
        bwrap: The path of bubblewrap; default: found on PATH.
        floor: The weakest level that this machine's owner lets be used.
    """
    outside = _Outside(python, user_home, p2pq_home, socket_path)
    strict = _strict(bwrap or find_bwrap(), outside)
    if strict.level == "strict" or strict.suggestion == BUG:
        return strict
    if floor == "strict":
        if basic.problem():
            return strict
        either = f"{strict.suggestion}; or " if strict.suggestion else ""
        return replace(strict, suggestion=either + LOWER)
    weaker = _basic(outside)
    if weaker.level == "basic":
        return replace(
            weaker,
            reason=f"{weaker.reason}, which is weaker than strict: {strict.reason}"[:300],
            suggestion=strict.suggestion,
        )
    nor = f"; nor does basic hold: {weaker.reason}"[:180]
    return IsolationReport("none", strict.reason[: 300 - len(nor)] + nor, strict.suggestion)


@dataclass(frozen=True, slots=True)
class _Outside:
    """What lies outside of the sandboxes to be tested."""

    python: JobPython
    user_home: Path
    p2pq_home: Path
    socket_path: Path | None


def _strict(bwrap: str | None, outside: _Outside) -> IsolationReport:
    """Run the probe by bubblewrap."""
    if bwrap is None:
        return IsolationReport("none", "bubblewrap (bwrap) is not installed", INSTALL)
    version = _version(bwrap)
    if version < BWRAP_MIN:
        text = ".".join(map(str, version)) or "of unknown version"
        return IsolationReport("none", f"bubblewrap {text} is too old; 0.8.0 is needed", INSTALL)
    try:
        with _asked(outside) as (asked, job):
            asked["environment"] = [*base_environment(outside.python), "PWD"]
            python = str(outside.python.executable)
            command = strict_command(
                bwrap,
                outside.python,
                job,
                [python, "-I", "-S", "-B", PROBE_PATH, json.dumps(asked)],
                [Mount(Path(probe.__file__), PROBE_PATH)],
            )
            try:
                done = _run(command.argv, asked, command.fds)
            finally:
                command.close()
    except SandboxError as error:
        return IsolationReport("none", str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return IsolationReport("none", f"the self-test could not run: {error}")
    found = judge(done.stdout, asked["nonce"])
    return explain(done.stderr, read_settings()) if found is None else _verdict("strict", "bubblewrap", found)


def _basic(outside: _Outside) -> IsolationReport:
    """Run the probe as the level ``basic`` runs tasks."""
    python = outside.python
    try:
        if not basic.problem() and not _shown(python):
            return IsolationReport("none", limits.HIDDEN)
        with _asked(outside) as (asked, job):
            shutil.copy(probe.__file__, job / "probe.py")
            asked |= {"namespaces": {}, "processes": [os.getpid()]}
            asked["hidden"] += ["/", "/proc", "/sys", "/home", "/etc/passwd", "/tmp", "/dev/shm"]  # noqa: S108  looked at only
            rules = basic.rules(python, [job])
            inside = [str(python.executable), "-I", "-S", "-B"]
            variables = basic.base_environment(python, job, job)
            asked["environment"] = [*variables]
            argv = [*inside, confine.__file__, json.dumps(rules), *inside, "probe.py", json.dumps(asked)]
            done = _run(argv, asked, (), job, variables)
    except SandboxError as error:
        return IsolationReport("none", str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return IsolationReport("none", f"the self-test could not run: {error}")
    found = judge(done.stdout, asked["nonce"])
    if found is None:
        return IsolationReport("none", f"the sandbox did not start: {_printable(done.stderr)}")
    return _verdict("basic", "Landlock and a system call filter", found)


def _shown(python: JobPython) -> bool:
    """Tell whether a process that is not dumpable, as the runners of ``basic`` are, is shown by /proc."""
    argv = [str(python.executable), "-I", "-S", "-B", "-c", _NOT_DUMPABLE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise OSError("a Python did not start")
            return limits.shown(process.pid)
        finally:
            process.kill()


def _version(bwrap: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=PROBE_S, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


def _run(
    argv: list[str],
    asked: Mapping[str, Any],
    fds: tuple[int, ...],
    folder: Path | None = None,
    variables: Mapping[str, str] = MappingProxyType({"PATH": os.defpath}),
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        pass_fds=fds,
        timeout=PROBE_S,
        check=False,
        cwd=folder,
        env=dict(variables) | ({} if folder else {"P2PQ_PROBE": asked["nonce"]}),
        start_new_session=True,
    )


@contextmanager
def _asked(outside: _Outside) -> Iterator[tuple[dict[str, Any], Path]]:
    """Set up what the probe must not reach; give what to ask it, and the folder of a job."""
    nonce = secrets.token_hex(16)
    abstract = f"p2pq-probe-{nonce}"
    with (
        tempfile.TemporaryDirectory(prefix="p2pq-probe-") as folder,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as nameless,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        canary = Path(folder) / "canary"
        job = Path(folder) / "job"
        job.mkdir()
        canary.touch()
        unix.bind(str(Path(folder) / "s"))
        unix.listen()
        nameless.bind("\0" + abstract)
        nameless.listen()
        datagrams.bind(str(Path(folder) / "d"))
        sockets = [str(Path(folder) / "s"), *([str(outside.socket_path)] if outside.socket_path else [])]
        yield (
            {
                "namespaces": {name: Path(f"/proc/self/ns/{name}").readlink().as_posix() for name in NAMESPACES},
                "processes": [],
                "port": tcp.getsockname()[1],
                "sockets": sockets,
                "abstract": abstract,
                "datagrams": str(Path(folder) / "d"),
                "canary": str(canary),
                "hidden": [str(canary), str(outside.p2pq_home), *_secrets(outside.user_home), "/etc/shadow", "/run"],
                "read_only": ["/", "/usr", "/etc", "/dev", *map(str, outside.python.prefixes)],
                "nonce": nonce,
            },
            job,
        )


def _secrets(user_home: Path) -> list[str]:
    """Return what of the home must not be visible: everything in it but the folders above a bound prefix."""
    names = (".ssh", ".bashrc", ".profile", ".gnupg", ".config", ".local/share/keyrings", ".netrc")
    return [str(user_home / name) for name in names]


def judge(stdout: str, nonce: str) -> str | None:
    """Return what the probe could do, by what it printed: nothing if a complete set of checks held, None if it did not run."""
    try:
        findings = json.loads(stdout)
        complete = findings.pop("nonce") == nonce and len(findings) == FINDINGS
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
    escaped = [f"{found}" for found in findings.values() if found is not None]
    return escaped[0] if escaped else "" if complete else "left out a check"


def _verdict(level: Literal["strict", "basic"], what: str, found: str) -> IsolationReport:
    if found:
        return IsolationReport("none", f"the sandbox does not hold: a probe inside it {found}"[:300], BUG)
    return IsolationReport(level, f"{what} held in {FINDINGS} checks")


FINDINGS: Final = 13


def read_settings() -> dict[str, str]:
    """Read the kernel settings that can forbid sandboxes, and whether this is a container."""
    settings = {}
    for name, path in _SYSCTLS.items():
        try:
            settings[name] = Path(path).read_text().strip()
        except OSError:
            continue  # this kernel does not have it
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        settings["container"] = "1"
    return settings


def _printable(stderr: str) -> str:
    """Return the line that says why a program failed."""
    lines = stderr.strip().splitlines() or ["it printed nothing"]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return "".join(char if char.isprintable() else "?" for char in line)[:200]


def explain(stderr: str, settings: Mapping[str, str]) -> IsolationReport:
    """Say why bubblewrap failed, by what it printed and how the kernel is set."""
    said = _printable(stderr)
    lowered = stderr.lower()
    denied = "permission denied" in lowered or "not permitted" in lowered or "no permissions" in lowered
    if settings.get("kernel.unprivileged_userns_clone") == "0":
        return IsolationReport(
            "none",
            "this kernel forbids user namespaces (kernel.unprivileged_userns_clone = 0)",
            "as root: sysctl -w kernel.unprivileged_userns_clone=1",
        )
    if settings.get("user.max_user_namespaces") == "0":
        return IsolationReport(
            "none",
            "this kernel forbids user namespaces (user.max_user_namespaces = 0)",
            "as root: sysctl -w user.max_user_namespaces=10000",
        )
    if denied and settings.get("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return IsolationReport(
            "none",
            f"AppArmor keeps bubblewrap from using user namespaces ({said})",
            "give /usr/bin/bwrap an AppArmor profile with userns (Ubuntu: apt install apparmor-profiles, "
            "then enable bwrap-userns-restrict), "
            "or as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if denied and "container" in settings:
        return IsolationReport(
            "none",
            f"the container that this node runs in does not let bubblewrap make namespaces ({said})",
            "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined, or run the node outside",
        )
    return IsolationReport("none", f"the sandbox did not start: {said}")
