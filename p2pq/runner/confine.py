"""How the runner shuts in what it starts at level ``basic``, and itself: Landlock, no privileges, a system call filter.

Standard library only; nothing here needs a namespace or root. What a process may reach comes from the daemon as ``Rules``;
whatever the kernel offers beyond these is denied. As a program, it enters the rules of its first argument, JSON, and executes
the others.
"""

import binascii
import ctypes
import json
import os
import resource
import signal
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, ClassVar, TypedDict

    class Rules(TypedDict):
        """What a process may reach, and nothing else."""

        read: list[str]
        """Folders and files to read and execute; what is not there is left out."""
        write: list[str]
        """Folders to do anything in."""
        devices: list[str]
        """Files to read, write and control."""
        filter: str
        """The system call filter, in base64."""

    class Confinement(TypedDict):
        """What a runner is told; see `p2pq.daemon.basic`."""

        rules: Rules
        outputs: str
        mark: int


ABI_MIN = 6
"""Linux 6.12: older ones let a task send signals to all processes of its user."""

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
ABI_VERSION = 1
PATH_BENEATH = 1
# linux/landlock.h: LANDLOCK_ACCESS_FS_*
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
ALL_FILES = (1 << 16) - 1
TCP = 3
"""LANDLOCK_ACCESS_NET_BIND_TCP and CONNECT_TCP: none is allowed to any port."""
SCOPES = 3
"""LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET and SIGNAL."""
REMOVE, MAKE_DIR, MAKE_REG, MAKE_FIFO, MAKE_SYM, REFER = 1 << 4 | 1 << 5, 1 << 7, 1 << 8, 1 << 10, 1 << 12, 1 << 13
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | TRUNCATE | REMOVE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER
DEVICE = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV
OUTPUT = READ_FILE | WRITE_FILE | TRUNCATE
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

KIND, FOLDER, REGULAR = 0o170000, 0o040000, 0o100000

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES = 64
RLIMIT_LOCKS = 10
"""By which the daemon finds what outlives this runner: it means nothing else, and tasks cannot change it."""

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    """A ``struct sock_fprog``."""

    _fields_: "ClassVar[Sequence[Any]]" = (("count", ctypes.c_ushort), ("program", ctypes.c_char_p))


def _call(what: str, number: int, *args: "int | bytes | ctypes.Array[ctypes.c_char]") -> int:
    """Make a system call by its number; OSError where it fails."""
    done: int = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in args))
    if done < 0:
        raise OSError(ctypes.get_errno(), what)
    return done


def _prctl(what: str, *args: "int | ctypes.c_void_p") -> None:
    filled = [ctypes.c_ulong(arg) if isinstance(arg, int) else arg for arg in (*args, 0, 0, 0, 0)[:5]]
    if _libc.prctl(*filled):
        raise OSError(ctypes.get_errno(), what)


def abi() -> int:
    """Return the version of Landlock that this kernel offers; 0 where there is none."""
    try:
        return _call("landlock", CREATE_RULESET, 0, 0, ABI_VERSION)
    except OSError:
        return 0


def landlock(rules: "Rules", opened: "Iterable[int]" = ()) -> None:
    """Deny this process, and all that it starts, what the rules do not name; of ``opened`` files it may open again what they are.

    Raises:
        OSError: the kernel refuses, or its Landlock is too old to shut anything in.
    """
    if abi() < ABI_MIN:
        raise OSError(38, f"Landlock {abi()} is too old, {ABI_MIN} (Linux 6.12) is needed")
    ruleset = _call("landlock", CREATE_RULESET, struct.pack("=QQQ", ALL_FILES, TCP, SCOPES), 24, 0)
    try:
        for fd in opened:
            if os.fstat(fd).st_mode & KIND == REGULAR:
                _allow(ruleset, fd, OUTPUT)
        for paths, access in ((rules["read"], READ), (rules["write"], WRITE), (rules["devices"], DEVICE)):
            for path in paths:
                try:
                    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                except OSError:
                    continue  # it is not on this machine
                try:
                    _allow(ruleset, fd, access)
                finally:
                    os.close(fd)
        _prctl("no new privileges", PR_SET_NO_NEW_PRIVS, 1)
        _call("landlock", RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, fd: int, access: int) -> None:
    folder = os.fstat(fd).st_mode & KIND == FOLDER
    rule = struct.pack("=Qi", access if folder else access & OF_FILES, fd)
    _call("landlock", ADD_RULE, ruleset, PATH_BENEATH, rule, 0)


def enclose(order: "Confinement", code: str) -> "Rules":
    """Shut the runner in itself: what its tasks may reach, its code, their outputs, and /proc, by which it finds what they leave.

    Returns what its tasks may reach.

    Raises:
        OSError: the kernel refuses.
    """
    rules = order["rules"]
    resource.setrlimit(RLIMIT_LOCKS, (order["mark"], order["mark"]))
    for path in rules["read"]:
        if path.startswith("/proc/"):
            # A file of /proc that nobody has open may become another one, which the rules would not name.
            os.open(path, os.O_PATH | os.O_CLOEXEC)
    own = [code, os.path.dirname(os.path.realpath(__file__)), "/proc"]
    landlock({**rules, "read": [*rules["read"], *own], "write": [*rules["write"], order["outputs"]]})
    return rules


def drop_capabilities() -> None:
    """Hold none, and gain none by executing anything; matters where root runs a node."""
    for capability in range(CAPABILITIES):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # refused to who has none, and of what there is not
    if _libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capset")


def enter(rules: "Rules", opened: "Iterable[int]" = ()) -> None:
    """Shut this process in for good.

    Raises:
        OSError: the kernel refuses; nothing of a task may be executed then.
    """
    landlock(rules, opened)
    drop_capabilities()
    program = binascii.a2b_base64(rules["filter"])
    which = _Filter(len(program) // 8, program)
    _prctl("system call filter", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_void_p(ctypes.addressof(which)))


def spawn(
    argv: "list[str]",
    env: "dict[str, str]",
    files: "tuple[int, int, int]",
    rules: "Rules | None",
    reset: "Iterable[int]",
) -> int:
    """Start a program that is shut in, in a process group of its own; it dies with the one that starts it.

    Args:
        argv: its name is looked up in ``env``'s PATH.
        env: all of its environment.
        files: its standard input, output and error; without the first it is empty.
        rules: what it may reach, besides these files.
        reset: signals that it handles by default.

    Raises:
        OSError: it could not be executed, or not be shut in.
    """
    if rules is None:
        raise OSError(1, "nobody has said what it may reach")
    parent, (read, write) = os.getpid(), os.pipe()
    pid = os.fork()
    if not pid:
        number = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in reset:
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setpgid(0, 0)
            _prctl("death signal", PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                for place, fd in enumerate(files):
                    os.dup2(fd if fd >= 0 else os.open(os.devnull, os.O_RDONLY), place)
                enter(rules, range(3))
                os.execvpe(argv[0], argv, env)  # noqa: S606  the task
        except OSError as error:
            number = error.errno or number
        except ValueError:  # a zero byte in an argument
            number = 22
        finally:
            os.write(write, number.to_bytes(4, "big"))
            os._exit(127)
    os.close(write)
    said = os.read(read, 4)
    os.close(read)
    if said:
        os.waitpid(pid, 0)
        raise OSError(int.from_bytes(said, "big"), os.strerror(int.from_bytes(said, "big")))
    return pid


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]))
    os.execve(sys.argv[2], sys.argv[2:], dict(os.environ))  # noqa: S606
