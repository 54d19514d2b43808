"""Makes system calls that open attack surface, raw; prints the error of each."""

import ctypes
import errno
import fcntl
import json
import os
import resource

libc = ctypes.CDLL(None, use_errno=True)


def raw(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(number, *args)
    return errno.errorcode.get(ctypes.get_errno(), "0") if result == -1 else "worked"


def tried(call):
    try:
        call()
    except (OSError, ValueError) as error:
        return errno.errorcode.get(getattr(error, "errno", 0), type(error).__name__)
    return "worked"


calls = {
    "x86_64": {
        "unshare": 272,
        "mount": 165,
        "bpf": 321,
        "keyctl": 250,
        "ptrace": 101,
        "userfaultfd": 323,
        "perf_event_open": 298,
        "chroot": 161,
        "setns": 308,
        "sched_setaffinity": 203,
    },
    "aarch64": {
        "unshare": 97,
        "mount": 40,
        "bpf": 280,
        "keyctl": 219,
        "ptrace": 117,
        "userfaultfd": 282,
        "perf_event_open": 241,
        "chroot": 51,
        "setns": 268,
        "sched_setaffinity": 122,
    },
}[os.uname().machine]
buffer = ctypes.create_string_buffer(4096)
answers = {name: raw(number, 0x10000000, buffer, buffer, 0, 0) for name, number in calls.items()}
answers["clone3"] = raw(435, buffer, 88)
answers["io_uring_setup"] = raw(425, 1, buffer)
answers["fsopen"] = raw(430, b"tmpfs", 0)
answers["memfd_create"] = tried(lambda: os.memfd_create("x"))
if os.uname().machine == "x86_64":
    answers["x32"] = raw(0x40000000 | 39)
    answers["clone"] = raw(56, 0x10000000 | 17, 0, 0, 0, 0)
for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
    # A filter looks before the kernel finds that this is no terminal.
    answers[name] = tried(lambda request=request: fcntl.ioctl(0, request, b"x"))
for name, family in (("netlink", 16), ("packet", 17), ("vsock", 40), ("alg", 38)):
    answers[name] = raw({"x86_64": 41, "aarch64": 198}[os.uname().machine], family, 3, 0)
for path in (
    "/proc/sys/kernel/core_pattern",
    "/proc/sysrq-trigger",
    "/proc/1/oom_score_adj",
    "/usr/x",
    "/x",
    "/dev/x",
    "/etc/x",
):
    answers[path] = tried(lambda path=path: os.close(os.open(path, os.O_WRONLY | os.O_CREAT)))
for name in ("RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_CORE"):
    soft, hard = resource.getrlimit(getattr(resource, name))
    answers[name] = tried(
        lambda name=name, hard=hard: resource.setrlimit(getattr(resource, name), (hard + 1, hard + 1))
    )
print(json.dumps(answers))
