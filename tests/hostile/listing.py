"""Prints what it finds in its folder, /tmp and /dev/shm, and which processes there are; null for what it may not list."""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PTH208

import json
import os


def listed(folder):
    try:
        return sorted(os.listdir(folder))
    except PermissionError:
        return None


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


processes = listed("/proc")
print(
    json.dumps(
        {
            "job": listed("."),
            "tmp": listed(os.environ["TMPDIR"]),
            "shm": listed("/dev/shm"),
            "processes": processes and sorted(int(pid) for pid in processes if pid.isdigit()),
            "environment": sorted(os.environ),
            "fds": list(filter(is_open, range(1024))),
            "nice": os.nice(0),
            "policy": os.sched_getscheduler(0),
            "cpus": len(os.sched_getaffinity(0)),
        }
    )
)
