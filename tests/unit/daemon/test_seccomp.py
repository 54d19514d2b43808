"""The deny-list: its numbers against the kernel's headers, its program against an interpreter of classic BPF."""

import errno
import os
import re
import struct
from pathlib import Path

import pytest

from p2pq.daemon import seccomp

X86_HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
GENERIC_HEADER = Path("/usr/include/asm-generic/unistd.h")
TABLE = seccomp.EPERM_CALLS | seccomp.ENOSYS_CALLS | seccomp.CHECKED_CALLS
SHARED = [
    (seccomp.SHARED_EPERM_CALLS, errno.EPERM),
    (seccomp.SHARED_ENOSYS_CALLS, errno.ENOSYS),
    (seccomp.SHARED_ENOTSUP_CALLS, errno.EOPNOTSUPP),
    (seccomp.IGNORED_CALLS, 0),
]
"""What is refused besides where a task has no namespaces of its own."""
ALL = {name: numbers for calls, _ in SHARED for name, numbers in calls.items()} | TABLE | seccomp.SHARED_CHECKED_CALLS
ALLOW, KILL = 0x7FFF0000, 0x80000000


def run(machine: str, nr: int, *args: int, arch: int | None = None, shared: bool = False) -> int:
    """Execute the filter as the kernel would and return its verdict."""
    arch = seccomp.AUDIT_ARCH[machine] if arch is None else arch
    data = struct.pack("=IIQ6Q", nr, arch, 0, *(args + (0,) * 6)[:6])
    code = list(struct.iter_unpack("=HBBI", seccomp.program(machine, shared=shared)))
    at, acc = 0, 0
    while True:
        op, yes, no, value = code[at]
        at += 1
        match op:
            case 0x20:
                (acc,) = struct.unpack_from("=I", data, value)
            case 0x15:
                at += yes if acc == value else no
            case 0x35:
                at += yes if acc >= value else no
            case 0x45:
                at += yes if acc & value else no
            case 0x54:
                acc &= value
            case 0x06:
                return value
            case _:
                raise AssertionError(f"instruction {op:#x}")


def refused(number: int) -> int:
    return 0x00050000 | number


@pytest.mark.parametrize(("header", "column"), [(X86_HEADER, 0), (GENERIC_HEADER, 1)], ids=["x86_64", "aarch64"])
def test_numbers_are_those_of_the_kernel_headers(header: Path, column: int) -> None:
    if not header.exists():
        pytest.skip(f"needs the kernel's headers: no {header}")
    known = {
        name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    }
    checked = {name: numbers[column] for name, numbers in ALL.items() if name in known}
    assert len(checked) > 90
    assert checked == {name: known[name] for name in checked}
    if column == 0:
        new = {"open_tree_attr", "memfd_secret", "quotactl_fd", "set_mempolicy_home_node"}
        new |= {"fchmodat2", "file_setattr", "process_mrelease", "removexattrat", "setxattrat"}
        assert ALL.keys() - known.keys() <= new


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_listed_call_is_refused(machine: str) -> None:
    column = list(seccomp.AUDIT_ARCH).index(machine)
    for calls, number in (
        (seccomp.EPERM_CALLS, errno.EPERM),
        (seccomp.ENOSYS_CALLS, errno.ENOSYS),
    ):
        for name, numbers in calls.items():
            if (call := numbers[column]) is not None:
                assert run(machine, call) == refused(number), name


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_ordinary_calls_are_allowed(machine: str) -> None:
    column = list(seccomp.AUDIT_ARCH).index(machine)
    listed = {numbers[column] for numbers in TABLE.values()}
    for call in set(range(480)) - listed:
        assert run(machine, call) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_arguments_decide(machine: str) -> None:
    number = {name: calls[list(seccomp.AUDIT_ARCH).index(machine)] for name, calls in seccomp.CHECKED_CALLS.items()}
    thread = 0x003D0F00  # what pthread_create passes
    assert run(machine, number["clone"], thread) == ALLOW
    for flag in (1 << 7, 1 << 17, *(1 << bit for bit in range(25, 31))):
        assert run(machine, number["clone"], thread | flag) == refused(errno.EPERM), hex(flag)
    assert run(machine, number["ioctl"], 0, 0x5401) == ALLOW  # TCGETS
    for request in (seccomp.TIOCSTI, seccomp.TIOCLINUX):
        assert run(machine, number["ioctl"], 0, request) == refused(errno.EPERM)
        # The kernel looks at the low half only, and so must the filter.
        assert run(machine, number["ioctl"], 0, request | 1 << 32) == refused(errno.EPERM)
    for name in ("socket", "socketpair"):
        for family in range(50):
            expected = ALLOW if family in (1, 2, 10) else refused(errno.EAFNOSUPPORT)
            assert run(machine, number[name], family) == expected, family
    assert run(machine, number["personality"], 0xFFFFFFFF) == ALLOW
    assert run(machine, number["personality"], 0x0008) == refused(errno.EPERM)


def test_other_architectures_die_and_x32_is_not_there() -> None:
    assert run("x86_64", 1, arch=0x40000003) == KILL  # i386
    assert run("aarch64", 1, arch=0x40000028) == KILL  # arm
    assert run("x86_64", 0x40000001) == refused(errno.ENOSYS)
    assert run("x86_64", 0xFFFFFFFF) == refused(errno.ENOSYS)


def test_unknown_machine_has_no_filter() -> None:
    assert not seccomp.supported("riscv64")
    with pytest.raises(KeyError):
        seccomp.program("riscv64")


def test_descriptor_holds_the_program_of_this_machine() -> None:
    machine = os.uname().machine
    assert seccomp.supported()
    fd = seccomp.open_program()
    try:
        assert not os.get_inheritable(fd)
        assert os.read(fd, 1 << 16) == seccomp.program(machine)
    finally:
        os.close(fd)


def call(name: str, machine: str) -> int:
    number = ALL[name][list(seccomp.AUDIT_ARCH).index(machine)]
    assert number is not None
    return number


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_without_namespaces_more_is_refused(machine: str) -> None:
    column = list(seccomp.AUDIT_ARCH).index(machine)
    for calls, number in [(seccomp.EPERM_CALLS, errno.EPERM), (seccomp.ENOSYS_CALLS, errno.ENOSYS), *SHARED]:
        for name, numbers in calls.items():
            if (each := numbers[column]) is not None:
                assert run(machine, each, shared=True) == refused(number), name
                assert number in (errno.EPERM, errno.ENOSYS) or run(machine, each) == ALLOW
    listed = {numbers[column] for numbers in ALL.values()}
    for each in set(range(480)) - listed:
        assert run(machine, each, shared=True) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_without_namespaces_there_are_no_sockets_but_pairs_that_reach_nobody_else(machine: str) -> None:
    for family in (1, 2, 10, 16, 17, 38):
        assert run(machine, call("socket", machine), family, 1, shared=True) == refused(errno.EACCES)
    for kind in (1, 5, 1 | 0o2000000, 5 | 0o4000):
        assert run(machine, call("socketpair", machine), 1, kind, shared=True) == ALLOW
    for kind in (2, 3, 2 | 0o2000000):
        assert run(machine, call("socketpair", machine), 1, kind, shared=True) == refused(errno.EACCES)
    assert run(machine, call("socketpair", machine), 2, 1, shared=True) == refused(errno.EAFNOSUPPORT)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("name", "own", "others"),
    [
        ("sched_setscheduler", [(0, 3)], [(7, 3), (1 << 31, 3)]),
        ("sched_setparam", [(0,)], [(7,)]),
        ("sched_setattr", [(0,)], [(7,)]),
        ("setpriority", [(0, 0, 19)], [(0, 7, 19), (1, 0, 19), (2, 0, 19)]),
        ("ioprio_set", [(1, 0)], [(1, 7), (2, 0), (3, 0)]),
        ("prlimit64", [(0, 7, 1), (0, 10, 0)], [(7, 7, 0), (0, 10, 1), (0, 10, 1 << 40)]),
        ("setrlimit", [(7, 1)], [(10, 1)]),
        ("ioctl", [(3, 0x5401)], [(3, 0x5412), (3, 0x40086602), (3, 0x40806685)]),
    ],
)
def test_without_namespaces_a_process_changes_itself_only(
    machine: str, name: str, own: list[tuple[int, ...]], others: list[tuple[int, ...]]
) -> None:
    for args in own:
        assert run(machine, call(name, machine), *args, shared=True) == ALLOW, args
    for args in others:
        assert run(machine, call(name, machine), *args, shared=True) == refused(errno.EPERM), args
