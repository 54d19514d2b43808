"""A hostile program for the start-up self-test: it tries to get out and reports what it could do.

It runs inside the sandbox with the standard library only, at each level. Its argument is a JSON object of what must not be
reachable; it prints a JSON object of findings, each ``None`` where the sandbox held and a short text where it did not.
"""

import ctypes
import errno
import json
import os
import socket
import stat
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PTRACE_TRACEME = 0
CLONE_NEWUSER = 0x10000000
CALLS = {  # ptrace, keyctl, unshare, bpf, io_uring_setup, mount
    "x86_64": (101, 250, 272, 321, 425, 165),
    "aarch64": (117, 219, 97, 280, 425, 40),
}
PR_GET_SECCOMP, PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS = 21, 23, 39
CAPABILITY_VERSION_3 = 0x20080522
FILES_MAX = 1024


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


def processes(others: "list[int]") -> "str | None":
    """Count the processes that are visible: this one at most; and try to reach others, by which no harm is done."""
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except PermissionError:
        pids = []
    if pids not in ([], [str(os.getpid())]):
        return f"sees {len(pids)} processes"
    for each in others:
        tries: dict[str, Callable[[int], object]] = {
            "send signals to": lambda pid: os.kill(pid, 0),
            "change the priority of": lambda pid: os.setpriority(
                os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)
            ),
            "read the memory of": lambda pid: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY)),
            "see the variables of": lambda pid: os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY)),
        }
        for name, reach in tries.items():
            try:
                reach(each)
            except OSError:
                continue
            return f"can {name} processes outside"
    return None


def privileges(*, alone: bool) -> "str | None":
    """Ask for the capability sets, the no-new-privileges bit and the filter mode."""
    libc = ctypes.CDLL(None, use_errno=True)
    sets = ctypes.create_string_buffer(24)
    head = ctypes.create_string_buffer(CAPABILITY_VERSION_3.to_bytes(4, sys.byteorder) + bytes(4), 8)
    bounding = any(libc.prctl(PR_CAPBSET_READ, each, 0, 0, 0) == 1 for each in range(64))
    # Without a namespace only root can empty the bounding set; for others it is out of reach.
    if libc.capget(head, sets) or any(sets.raw) or (bounding and (alone or os.getuid() == 0)):
        return "holds capabilities"
    if libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1:
        return "may gain privileges"
    if libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2:  # noqa: PLR2004  SECCOMP_MODE_FILTER
        return "runs without a system call filter"
    return None


def network() -> "str | None":
    """Look for interfaces and try to reach addresses."""
    names = []
    try:
        with open("/proc/net/dev") as file:
            names = [line.split(":")[0].strip() for line in file if ":" in line]
    except PermissionError:
        pass  # and so no sockets either, or the following finds them
    if names not in ([], ["lo"]):
        return "has a network interface"
    for kind, address in (
        (socket.SOCK_DGRAM, ("192.0.2.1", 9)),
        (socket.SOCK_DGRAM, ("224.0.0.251", 5353)),
        (socket.SOCK_STREAM, ("169.254.169.254", 80)),
    ):
        if connects(socket.AF_INET, kind, address):
            return f"can send to {address[0]}"
    return None


def connects(family: int, kind: int, address: "tuple[str, int] | str") -> bool:
    """Whether a connection can be made."""
    try:
        with socket.socket(family, kind) as sock:
            sock.settimeout(1)
            sock.connect(address)
    except OSError:
        return False
    return True


def local_port(port: int) -> "str | None":
    """Connect to a port on which the daemon listens on the loopback interface."""
    return (
        "reaches services of this machine"
        if connects(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port))
        else None
    )


def unix_sockets(paths: "list[str]", abstract: str, datagrams: str) -> "str | None":
    """Connect to the daemon's own sockets, and write to one that takes what anybody sends."""
    for name in (*paths, "\0" + abstract):
        if connects(socket.AF_UNIX, socket.SOCK_STREAM, name):
            return "connects to a socket of the daemon"
    try:
        for sock in socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM):
            with sock:
                sock.sendto(b"x", datagrams)
    except OSError:
        return None
    return "sends to a socket of the daemon"


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


def closed(paths: "list[str]") -> "str | None":
    """Try to list folders and open files that are known to be there by their names only."""
    for path in paths:
        reaches: tuple[Callable[[str], object], ...] = (os.listdir, lambda path: os.close(os.open(path, os.O_RDONLY)))
        for reach in reaches:
            try:
                reach(path)
            except OSError:
                continue
            return f"can read {path}"
    return None


def unchanged(path: str) -> "str | None":
    """Try to change a file that is not in reach, by what needs no opening too; it was made for this."""
    before = os.stat(path)
    changes: tuple[Callable[[], object], ...] = (
        lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
        lambda: os.truncate(path, 0),
        lambda: os.link(path, "link"),
        lambda: os.chmod(path, 0o700),
        lambda: os.utime(path, (1, 1)),
        lambda: os.setxattr(path, "user.p2pq", b"x"),
        lambda: os.rename(path, path + ".moved"),
        lambda: os.unlink(path),
    )
    for change in changes:
        try:
            change()
        except OSError:
            continue
        if not os.path.exists(path) or what(os.stat(path)) != what(before) or os.listxattr(path):
            return f"can change {path}"
    return None


def what(info: os.stat_result) -> "tuple[int, ...]":
    """Return what a change of a file shows in."""
    return info.st_mode, info.st_nlink, info.st_size, info.st_mtime_ns, info.st_ctime_ns


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
    """Count the open files besides standard input, output and error."""
    extra = [fd for fd in range(3, FILES_MAX) if is_open(fd)]
    return f"inherited {len(extra)} open files" if extra else None


def is_open(fd: int) -> bool:
    """Whether a descriptor is one of an open file."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


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
    alone = bool(asked["namespaces"])
    findings = {
        "namespaces": namespaces(asked["namespaces"]),
        "processes": processes(asked["processes"]),
        "privileges": privileges(alone=alone),
        "system calls": system_calls(),
        "network": network(),
        "local port": local_port(asked["port"]),
        "unix sockets": unix_sockets(asked["sockets"], asked["abstract"], asked["datagrams"]),
        "hidden": hidden(asked["hidden"]) if alone else closed(asked["hidden"]),
        "unchanged": unchanged(asked["canary"]) if not alone else None,
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
