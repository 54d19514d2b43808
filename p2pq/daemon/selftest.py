"""The start-up self-test: a hostile probe tries to get out of ``strict``; only what held is believed and advertised."""

import json
import os
import re
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from p2pq.daemon.jobpython import JobPython
from p2pq.daemon.sandbox import Mount, base_environment, find_bwrap, strict_command
from p2pq.errors import SandboxError
from p2pq.runner import probe

PROBE_S: Final = 30.0
PROBE_PATH: Final = "/p2pq-probe.py"
BWRAP_MIN: Final = (0, 8, 0)
NAMESPACES: Final = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")

INSTALL: Final = (
    "install it: apt install bubblewrap (Debian, Ubuntu), dnf install bubblewrap (Fedora), pacman -S bubblewrap (Arch)"
)
_SYSCTLS: Final = {
    "kernel.unprivileged_userns_clone": "/proc/sys/kernel/unprivileged_userns_clone",
    "user.max_user_namespaces": "/proc/sys/user/max_user_namespaces",
    "kernel.apparmor_restrict_unprivileged_userns": "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
}


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """What the self-test proved."""

    level: Literal["strict", "none"]
    reason: str
    """One sentence: what held, or why ``strict`` did not."""

    suggestion: str = ""
    """What to do about it; empty where nothing is to be done."""


def self_test(
    python: JobPython,
    *,
    user_home: Path,
    p2pq_home: Path,
    socket_path: Path | None = None,
    bwrap: str | None = None,
) -> IsolationReport:
    """Run the probe in a strict sandbox and judge its findings.

    Blocking, some 150 ms; call it in a worker thread. It raises nothing: whatever goes wrong is the reason why
    ``strict`` is not proved.

    Args:
        python: The interpreter that jobs use.
        user_home: The user's home, which must not be visible.
        p2pq_home: ``P2PQ_HOME``, likewise.
        socket_path: The local API's socket, to which the probe tries to connect.
        bwrap: The path of bubblewrap; default: found on PATH.
    """
    bwrap = bwrap or find_bwrap()
    if bwrap is None:
        return IsolationReport("none", "bubblewrap (bwrap) is not installed", INSTALL)
    version = _version(bwrap)
    if version < BWRAP_MIN:
        text = ".".join(map(str, version)) or "of unknown version"
        return IsolationReport("none", f"bubblewrap {text} is too old; 0.8.0 is needed", INSTALL)
    try:
        return _run(bwrap, python, user_home, p2pq_home, socket_path)
    except SandboxError as error:
        return IsolationReport("none", str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return IsolationReport("none", f"the self-test could not run: {error}")


def _version(bwrap: str) -> tuple[int, ...]:
    try:
        said = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=PROBE_S, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else ()


def _run(bwrap: str, python: JobPython, user_home: Path, p2pq_home: Path, socket_path: Path | None) -> IsolationReport:
    """Set up what the probe must not reach, run it, judge its findings."""
    nonce = secrets.token_hex(16)
    abstract = f"p2pq-probe-{nonce}"
    with (
        tempfile.TemporaryDirectory(prefix="p2pq-probe-") as folder,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as nameless,
    ):
        canary = Path(folder) / "canary"
        job = Path(folder) / "job"
        job.mkdir()
        canary.touch()
        unix.bind(str(Path(folder) / "s"))
        unix.listen()
        nameless.bind("\0" + abstract)
        nameless.listen()
        sockets = [str(Path(folder) / "s"), *([str(socket_path)] if socket_path else [])]
        asked = {
            "namespaces": {name: Path(f"/proc/self/ns/{name}").readlink().as_posix() for name in NAMESPACES},
            "port": tcp.getsockname()[1],
            "sockets": sockets,
            "abstract": abstract,
            "hidden": [str(canary), str(p2pq_home), *_secrets(user_home), "/etc/shadow", "/run"],
            "read_only": ["/", "/usr", "/etc", "/dev", *map(str, python.prefixes)],
            # Python itself may add LC_CTYPE.
            "environment": [*base_environment(python), "PWD"],
            "nonce": nonce,
        }
        command = strict_command(
            bwrap,
            python,
            job,
            [str(python.executable), "-I", "-S", "-B", PROBE_PATH, json.dumps(asked)],
            [Mount(Path(probe.__file__), PROBE_PATH)],
        )
        try:
            done = subprocess.run(
                command.argv,
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                pass_fds=command.fds,
                timeout=PROBE_S,
                check=False,
                env={"PATH": os.defpath, "P2PQ_PROBE": nonce},
            )
        finally:
            command.close()
    return judge(done.stdout, done.stderr, nonce, read_settings())


def _secrets(user_home: Path) -> list[str]:
    """Return what of the home must not be visible: everything in it but the folders above a bound prefix."""
    names = (".ssh", ".bashrc", ".profile", ".gnupg", ".config", ".local/share/keyrings", ".netrc")
    return [str(user_home / name) for name in names]


def judge(stdout: str, stderr: str, nonce: str, settings: Mapping[str, str]) -> IsolationReport:
    """Turn what the probe printed into a report; anything but a complete set of "held" is a failure."""
    try:
        findings = json.loads(stdout)
        complete = findings.pop("nonce") == nonce and len(findings) == FINDINGS
    except (ValueError, AttributeError, KeyError, TypeError):
        return explain(stderr, settings)
    escaped = [f"{found}" for found in findings.values() if found is not None]
    if not complete or escaped:
        what = escaped[0] if escaped else "left out a check"
        return IsolationReport(
            "none", f"the sandbox does not hold: a probe inside it {what}"[:300], "report this as a bug"
        )
    return IsolationReport("strict", f"bubblewrap held in {FINDINGS} checks")


FINDINGS: Final = 12


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


def explain(stderr: str, settings: Mapping[str, str]) -> IsolationReport:
    """Say why bubblewrap failed, by what it printed and how the kernel is set."""
    lines = stderr.strip().splitlines() or ["it printed nothing"]
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    said = "".join(char if char.isprintable() else "?" for char in line)[:200]
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
