"""Prints what it finds in its folder, /tmp and /dev/shm, and which processes there are."""
# Plain system calls, as an attacker writes them.
# ruff: noqa: PTH208

import json
import os

print(
    json.dumps(
        {
            "job": sorted(os.listdir(".")),
            "tmp": sorted(os.listdir(os.environ["TMPDIR"])),
            "shm": sorted(os.listdir("/dev/shm")),
            "processes": sorted(int(pid) for pid in os.listdir("/proc") if pid.isdigit()),
            "environment": sorted(os.environ),
            "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
            "nice": os.nice(0),
            "policy": os.sched_getscheduler(0),
            "cpus": len(os.sched_getaffinity(0)),
        }
    )
)
