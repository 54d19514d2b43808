"""Tries what reaches other processes and files of the same user without a namespace between; prints the error of each.

Its arguments are the id of a process outside, a file outside that belongs to the same user, and a socket outside that takes
datagrams.
"""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PTH104, PTH108, PTH120, PTH123

import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
outside, file, datagrams = int(sys.argv[1]), sys.argv[2], sys.argv[3]
x86 = os.uname().machine == "x86_64"
RLIMIT_LOCKS = 10


def raw(on_x86, on_arm, *args):
    ctypes.set_errno(0)
    if libc.syscall(on_x86 if x86 else on_arm, *args) == -1:
        raise OSError(ctypes.get_errno(), "")


def to_others(kind):
    for sock in socket.socketpair(socket.AF_UNIX, kind):
        sock.sendto(b"x", datagrams)


def control(request):
    with open(sys.executable, "rb") as readable:  # the owner's, perhaps
        fcntl.ioctl(readable, request, bytes(64))


def many(call, *argss):
    for args in argss:
        call(*args)


words = ctypes.create_string_buffer(64)
tries = {
    "kill": lambda: os.kill(outside, signal.SIGCONT),
    "signal by descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(outside), 0),
    "limits of another": lambda: resource.prlimit(outside, resource.RLIMIT_CORE, (0, 0)),
    "limits of another, read": lambda: resource.prlimit(outside, resource.RLIMIT_CORE),
    "priority of another": lambda: os.setpriority(os.PRIO_PROCESS, outside, 19),
    "priority of a group": lambda: os.setpriority(os.PRIO_PGRP, os.getpgid(outside), 19),
    "priority of a user": lambda: os.setpriority(os.PRIO_USER, 0, 19),
    "scheduler of another": lambda: os.sched_setscheduler(outside, os.SCHED_IDLE, os.sched_param(0)),
    "processors of another": lambda: os.sched_setaffinity(outside, {0}),
    "disk priority of another": lambda: raw(251, 30, 1, outside, 3 << 13),
    "disk priority of a user": lambda: raw(251, 30, 3, 0, 3 << 13),
    "its mark": lambda: resource.setrlimit(RLIMIT_LOCKS, (1, 1)),
    "its mark, again": lambda: resource.prlimit(0, RLIMIT_LOCKS, (1, 1)),
    "its mark, by the old call": lambda: raw(160, 164, RLIMIT_LOCKS, words),
    "message queue": lambda: raw(68, 186, 0, 0o1600),
    "semaphores": lambda: raw(64, 190, 0, 1, 0o1600),
    "shared memory": lambda: raw(29, 194, 0, 4096, 0o1600),
    "shared memory of another": lambda: raw(30, 196, 0, 0, 0),
    "queue with a name": lambda: raw(240, 180, b"p2pq", os.O_RDWR | os.O_CREAT, 0o600, 0),
    "datagrams": lambda: to_others(socket.SOCK_DGRAM),
    "raw pair": lambda: to_others(socket.SOCK_RAW),
    "stream to a name": lambda: to_others(socket.SOCK_STREAM),
    "pair of another family": lambda: socket.socketpair(socket.AF_INET, socket.SOCK_STREAM),
    "bind": lambda: socket.socketpair()[0].bind("here"),
    "connect": lambda: socket.socketpair()[0].connect(datagrams),
    "watch": lambda: raw(294, 26, 0),
    "open": lambda: os.close(os.open(file, os.O_RDONLY)),
    "write": lambda: os.close(os.open(file, os.O_WRONLY | os.O_APPEND)),
    "truncate": lambda: os.truncate(file, 0),
    "link": lambda: os.link(file, "linked"),
    "rename": lambda: os.rename(file, "renamed"),
    "unlink": lambda: os.unlink(file),
    "device": lambda: os.mknod("device", 0o20666, os.makedev(1, 1)),
    "owner": lambda: os.chown(file, os.getuid(), os.getgid()),
    "owner of its own": lambda: os.chown("main.py", os.getuid(), os.getgid()),
    "attribute": lambda: os.setxattr(file, "user.x", b"x"),
    "attribute, removed": lambda: os.removexattr(file, "user.x"),
    "flags": lambda: control(0x40086602),
    "verity": lambda: control(0x40806685),
    "its own /proc": lambda: os.close(os.open("/proc/self/status", os.O_RDONLY)),
    "terminal": lambda: os.close(os.open("/dev/tty", os.O_RDWR)),
    "abstract socket": lambda: socket.socket(socket.AF_UNIX),
    "datagram socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "mode": lambda: many(os.chmod, (file, 0o777), (os.path.dirname(file), 0o777)),
    "date": lambda: os.utime(file, (1, 1)),
}
answers = {}
for name, call in tries.items():
    try:
        call()
        answers[name] = "worked"
    except OSError as error:
        answers[name] = errno.errorcode.get(error.errno, "?")
    except ValueError:  # as the module resource has it
        answers[name] = "EPERM"
print(json.dumps(answers))
