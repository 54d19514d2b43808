"""A hostile program for the start-up self-test: it tries to get out and reports what it could do.

It runs inside the sandbox with the standard library only. Its argument is a JSON object of what must not be reachable; it
prints a JSON object of findings, each ``None`` where the sandbox held and a short text where it did not.
"""

import ctypes
import errno
import json
import os
import socket
import stat
import sys

PTRACE_TRACEME = 0
CLONE_NEWUSER = 0x10000000
CALLS = {  # ptrace, keyctl, unshare, bpf, io_uring_setup, mount
    "x86_64": (101, 250, 272, 321, 425, 165),
    "aarch64": (117, 219, 97, 280, 425, 40),
}
NEVER = "no findings"


def refused(number: int, *args: int) -> bool:
    """Whether a raw system call fails with EPERM or ENOSYS."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, *args)
    return result == -1 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)


def system_calls() -> "str | None":
    """Try calls that open the kernel's attack surface."""
    ptrace, keyctl, unshare, bpf, io_uring, mount = CALLS[os.uname().machine]
    tried = {
        "ptrace": refused(ptrace, PTRACE_TRACEME, 0, 0, 0),
        "keyctl": refused(keyctl, 0, -3, 0),
        "a nested user namespace": refused(unshare, CLONE_NEWUSER),
        "bpf": refused(bpf, 0, 0, 0),
        "io_uring": refused(io_uring, 1, 0),
        "mount": refused(mount, 0, 0, 0, 0, 0),
    }
    allowed = [name for name, held in tried.items() if not held]
    return f"{', '.join(allowed)} allowed" if allowed else None


def namespaces(outside: "dict[str, str]") -> "str | None":
    """Compare the namespaces with those of the daemon."""
    shared = [name for name, link in outside.items() if os.readlink(f"/proc/self/ns/{name}") == link]
    return f"shares the {', '.join(shared)} namespace" if shared else None


def processes() -> "str | None":
    """Count the processes that are visible: this one, and nobody else."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    return None if pids == [str(os.getpid())] else f"sees {len(pids)} processes"


def privileges() -> "str | None":
    """Read the capability sets, the no-new-privileges bit and the filter mode."""
    with open("/proc/self/status") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    if any(int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")):
        return "holds capabilities"
    if fields["NoNewPrivs"].strip() != "1":
        return "may gain privileges"
    if fields["Seccomp"].strip() != "2":
        return "runs without a system call filter"
    return None


def network() -> "str | None":
    """Look for interfaces and try to reach addresses."""
    with open("/proc/net/dev") as file:
        names = [line.split(":")[0].strip() for line in file if ":" in line]
    if names not in ([], ["lo"]):
        return "has a network interface"
    for kind, address in (
        (socket.SOCK_DGRAM, ("192.0.2.1", 9)),
        (socket.SOCK_DGRAM, ("224.0.0.251", 5353)),
        (socket.SOCK_STREAM, ("169.254.169.254", 80)),
    ):
        with socket.socket(socket.AF_INET, kind) as sock:
            sock.settimeout(1)
            try:
                sock.connect(address)
            except OSError:
                continue
            return f"can send to {address[0]}"
    return None


def local_port(port: int) -> "str | None":
    """Connect to a port on which the daemon listens on the loopback interface."""
    with socket.socket() as sock:
        sock.settimeout(1)
        try:
            sock.connect(("127.0.0.1", port))
        except OSError:
            return None
    return "reaches services of this machine"


def unix_sockets(paths: "list[str]", abstract: str) -> "str | None":
    """Connect to the daemon's own sockets."""
    for name in (*paths, "\0" + abstract):
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(name)
            except OSError:
                continue
            return "connects to a socket of the daemon"
    return None


def hidden(paths: "list[str]") -> "str | None":
    """Look for folders and files of the user."""
    seen = []
    for path in paths:
        try:
            folder = stat.S_ISDIR(os.lstat(path).st_mode)
            # A folder above a bound prefix exists, but holds nothing else.
            seen += [path] if not folder or os.listdir(path) else []
        except FileNotFoundError:
            continue
        except OSError:
            seen.append(path)
    return f"sees {seen[0]}" if seen else None


def read_only(paths: "list[str]") -> "str | None":
    """Try to make a file in each folder."""
    for path in paths:
        name = os.path.join(path, ".p2pq-probe")
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError:
            continue
        return f"can write to {path}"
    return None


def descriptors() -> "str | None":
    """List the open files: standard input, output and error, and the one that lists."""
    extra = [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 3]  # noqa: PLR2004
    return f"inherited {len(extra)} open files" if extra else None


def kernel_settings() -> "str | None":
    """Try to open kernel settings that root outside may write."""
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname"):
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        return f"can write to {path}"
    return None


def main() -> None:
    """Try everything and print the findings."""
    asked = json.loads(sys.argv[1])
    findings = {
        "namespaces": namespaces(asked["namespaces"]),
        "processes": processes(),
        "privileges": privileges(),
        "system calls": system_calls(),
        "network": network(),
        "local port": local_port(asked["port"]),
        "unix sockets": unix_sockets(asked["sockets"], asked["abstract"]),
        "hidden": hidden(asked["hidden"]),
        "read-only": read_only(asked["read_only"]),
        "descriptors": descriptors(),
        "kernel settings": kernel_settings(),
        "environment": None
        if sorted(os.environ) == sorted(asked["environment"])
        else "inherited environment variables",
        "nonce": asked["nonce"],
    }
    print(json.dumps(findings))  # noqa: T201  its answer


if __name__ == "__main__":
    main()
