"""The system calls that a sandboxed task may not make, as a classic BPF program for ``bwrap --seccomp``.

A deny-list modelled on Flatpak's: what opens new attack surface (namespaces, mounts, BPF, io_uring, keys, tracing, modules),
what escapes the accounting (memory outside any mapping, CPU affinity) and what injects terminal input. Everything else works.
Calls that programs probe for answer ENOSYS, so that they fall back; the others EPERM.
"""

import errno
import os
import struct
from typing import Final

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* of linux/audit.h, by ``os.uname().machine``."""

X32_BIT: Final = 0x40000000

# number on x86_64, number on aarch64 (asm-generic); None where the architecture does not have it.
EPERM_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "finit_module": (313, 273),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sched_setaffinity": (203, 122),
    "set_mempolicy": (238, 237),
    "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}

ENOSYS_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # clone3 hides its flags behind a pointer; without it programs use clone, whose flags are checked below.
    "clone3": (435, 435),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    # Memory that is in no process's resident set could not be counted against the task's limit.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "shmget": (29, 194),
}

# Calls that are allowed for some arguments only.
CHECKED_CALLS: Final[dict[str, tuple[int, int]]] = {
    "clone": (56, 220),
    "ioctl": (16, 29),
    "personality": (135, 92),
    "socket": (41, 198),
    "socketpair": (53, 199),
}

CLONE_NEW_ANY: Final = 0x7E020080
"""CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET} of linux/sched.h."""

TIOCSTI: Final = 0x5412
TIOCLINUX: Final = 0x541C
SOCKET_FAMILIES: Final = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6: with an empty network namespace these reach nothing outside."""

PERSONALITIES: Final = (0, 0xFFFFFFFF)
"""PER_LINUX, and the query that changes nothing."""

# linux/bpf_common.h and linux/filter.h
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# linux/seccomp.h
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# struct seccomp_data: nr, arch, instruction pointer, args; the low half comes first on both architectures.
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _fail(number: int) -> bytes:
    return _op(_RETURN, _ERRNO | number)


def _only(arg: int, allowed: tuple[int, ...], number: int) -> bytes:
    """Return: allow the listed values of the argument's low 32 bits, else fail."""
    program = _op(_LOAD, arg)
    for position, value in enumerate(allowed):
        program += _op(_JUMP_EQUAL, value, if_true=len(allowed) - position)
    return program + _fail(number) + _op(_RETURN, _ALLOW)


def _except(arg: int, refused: tuple[int, ...], number: int) -> bytes:
    """Return: fail for the listed values of the argument's low 32 bits, else allow."""
    program = _op(_LOAD, arg)
    for position, value in enumerate(refused):
        program += _op(_JUMP_EQUAL, value, if_true=len(refused) - position)
    return program + _op(_RETURN, _ALLOW) + _fail(number)


def program(machine: str) -> bytes:
    """Return the filter for a machine as an array of ``struct sock_filter``.

    Raises:
        KeyError: the machine is neither x86_64 nor aarch64.
    """
    column = list(AUDIT_ARCH).index(machine) if machine in AUDIT_ARCH else None
    if column is None:
        raise KeyError(machine)
    out = _op(_LOAD, _ARCH)
    out += _op(_JUMP_EQUAL, AUDIT_ARCH[machine], if_true=1) + _op(_RETURN, _KILL_PROCESS)
    out += _op(_LOAD, _NR)
    if machine == "x86_64":
        out += _op(_JUMP_AT_LEAST, X32_BIT, if_false=1) + _fail(errno.ENOSYS)
    for calls, number in ((EPERM_CALLS, errno.EPERM), (ENOSYS_CALLS, errno.ENOSYS)):
        for numbers in calls.values():
            call = numbers[column]
            if call is not None:
                out += _op(_JUMP_EQUAL, call, if_false=1) + _fail(number)
    bodies = {
        "clone": _op(_LOAD, _ARG0)
        + _op(_JUMP_ANY_BIT, CLONE_NEW_ANY, if_false=1)
        + _fail(errno.EPERM)
        + _op(_RETURN, _ALLOW),
        "ioctl": _except(_ARG1, (TIOCSTI, TIOCLINUX), errno.EPERM),
        "personality": _only(_ARG0, PERSONALITIES, errno.EPERM),
        "socket": _only(_ARG0, SOCKET_FAMILIES, errno.EAFNOSUPPORT),
        "socketpair": _only(_ARG0, SOCKET_FAMILIES, errno.EAFNOSUPPORT),
    }
    for name, body in bodies.items():
        call = CHECKED_CALLS[name][column]
        out += _op(_JUMP_EQUAL, call, if_false=len(body) // 8) + body
    return out + _op(_RETURN, _ALLOW)


def supported(machine: str | None = None) -> bool:
    """Whether there is a filter for this machine."""
    return (machine or os.uname().machine) in AUDIT_ARCH


def open_program(machine: str | None = None) -> int:
    """Return a new descriptor, at offset 0, from which bubblewrap reads the filter; the caller closes it.

    Raises:
        KeyError: there is no filter for this machine.
    """
    data = program(machine or os.uname().machine)
    fd = os.memfd_create("p2pq-seccomp", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
