"""The system calls that a sandboxed task may not make, as a classic BPF program for ``bwrap --seccomp`` and for ``basic``.

A deny-list modelled on Flatpak's: what opens new attack surface (namespaces, mounts, BPF, io_uring, keys, tracing, modules),
what escapes the accounting (memory outside any mapping, CPU affinity) and what injects terminal input. Everything else works.
Calls that programs probe for answer ENOSYS, so that they fall back; the others EPERM.

In ``basic`` a task has no namespaces of its own, and Landlock says nothing of modes, owners, dates and attributes of files, of
other processes' priorities and limits, of what System V shares, or of sockets with a name. There the filter does.
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

# The rest in ``basic`` only.

SHARED_EPERM_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # Paths that Landlock does not look at: whoever owns a file may change these of it, wherever it lies.
    "chown": (92, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "file_setattr": (469, 469),
    "lchown": (94, None),
    # What has no socket needs none of these; a pair of sockets can be turned to others by a name.
    "bind": (49, 200),
    "connect": (42, 203),
    # Shared by all processes of a user, or of the machine.
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "msgctl": (71, 187),
    "msgget": (68, 186),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "process_mrelease": (448, 448),
    "semctl": (66, 191),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "shmat": (30, 196),
    "shmctl": (31, 195),
}

SHARED_ENOSYS_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # A watch tells the names of files in folders that cannot be read.
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
}

SHARED_ENOTSUP_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    "fremovexattr": (199, 16),
    "fsetxattr": (190, 7),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "removexattrat": (466, 466),
    "setxattr": (188, 5),
    "setxattrat": (463, 463),
}

IGNORED_CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # They do nothing and say that they did: copying a file would fail for the mode that it cannot get.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "futimesat": (261, None),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
}

# Of other processes of the same user.
SHARED_CHECKED_CALLS: Final[dict[str, tuple[int, int]]] = {
    "ioprio_set": (251, 30),
    "prlimit64": (302, 261),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "setpriority": (141, 140),
    "setrlimit": (160, 164),
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
FILE_SETTINGS: Final = (0x40086602, 0x401C5820, 0x40087602, 0x40806685)
"""FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_SETVERSION, FS_IOC_ENABLE_VERITY of linux/fs.h, for any open file."""
RLIMIT_LOCKS: Final = 10
"""A limit without a meaning since Linux 2.4, by which what outlived a runner of the level ``basic`` is found."""
SOCKET_FAMILIES: Final = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6: with an empty network namespace these reach nothing outside."""

PAIRS: Final = (1, 5)
"""SOCK_STREAM, SOCK_SEQPACKET: a datagram socket of a pair sends to any other by its name."""

PERSONALITIES: Final = (0, 0xFFFFFFFF)
"""PER_LINUX, and the query that changes nothing."""

# linux/bpf_common.h and linux/filter.h
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x35, 0x45, 0x06, 0x54
# linux/seccomp.h
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
# struct seccomp_data: nr, arch, instruction pointer, args; the low half comes first on both architectures.
_NR, _ARCH, _ARG0, _ARG1, _ARG2, _ARG2_HIGH = 0, 4, 16, 24, 32, 36


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


def _require(arg: int, value: int, number: int) -> bytes:
    """Return: fail unless the argument's half is that value, else go on."""
    return _op(_LOAD, arg) + _op(_JUMP_EQUAL, value, if_true=1) + _fail(number)


def _shared_bodies() -> dict[str, bytes]:
    """Return what is checked where a task has no namespaces of its own."""
    own = _require(_ARG0, 0, errno.EPERM) + _op(_RETURN, _ALLOW)
    mark = _require(_ARG2, 0, errno.EPERM) + _require(_ARG2_HIGH, 0, errno.EPERM)  # it may be read
    pair = _op(_LOAD, _ARG1) + _op(_AND, 0xF)
    for position, kind in enumerate(PAIRS):
        pair += _op(_JUMP_EQUAL, kind, if_true=len(PAIRS) - position)
    return {
        "ioctl": _except(_ARG1, (TIOCSTI, TIOCLINUX, *FILE_SETTINGS), errno.EPERM),
        "ioprio_set": _require(_ARG0, 1, errno.EPERM) + _require(_ARG1, 0, errno.EPERM) + _op(_RETURN, _ALLOW),
        "prlimit64": _require(_ARG0, 0, errno.EPERM)
        + _op(_LOAD, _ARG1)
        + _op(_JUMP_EQUAL, RLIMIT_LOCKS, if_false=len(mark) // 8)
        + mark
        + _op(_RETURN, _ALLOW),
        "sched_setattr": own,
        "sched_setparam": own,
        "sched_setscheduler": own,
        "setpriority": _require(_ARG0, 0, errno.EPERM) + _require(_ARG1, 0, errno.EPERM) + _op(_RETURN, _ALLOW),
        "setrlimit": _except(_ARG0, (RLIMIT_LOCKS,), errno.EPERM),
        "socket": _fail(errno.EACCES),
        "socketpair": _require(_ARG0, 1, errno.EAFNOSUPPORT) + pair + _fail(errno.EACCES) + _op(_RETURN, _ALLOW),
    }


def program(machine: str, *, shared: bool = False) -> bytes:
    """Return the filter for a machine as an array of ``struct sock_filter``.

    Args:
        machine: as ``os.uname().machine`` has it.
        shared: the task has no namespaces of its own, as in ``basic``.

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
    refused = [(EPERM_CALLS, errno.EPERM), (ENOSYS_CALLS, errno.ENOSYS)]
    if shared:
        refused += [
            (SHARED_EPERM_CALLS, errno.EPERM),
            (SHARED_ENOSYS_CALLS, errno.ENOSYS),
            (SHARED_ENOTSUP_CALLS, errno.EOPNOTSUPP),
            (IGNORED_CALLS, 0),
        ]
    for calls, number in refused:
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
    checked = CHECKED_CALLS | SHARED_CHECKED_CALLS
    for name, body in (bodies | (_shared_bodies() if shared else {})).items():
        call = checked[name][column]
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
