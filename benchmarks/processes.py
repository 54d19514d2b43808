"""What running processes cost: memory, processor time, wake-ups. Everything is read from /proc."""

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it; nothing where it has ended."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def pss_mib(pids: Iterable[int]) -> float:
    """Return their share of memory; 0 where a daemon's guard against other processes keeps us out, too."""
    total_kib = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except PermissionError:
            return 0.0
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        total_kib += int(found[1]) if found else 0
    return total_kib / 1024


def rss_mib(pids: Iterable[int]) -> float:
    """Return their memory, shared pages counted for each: what an ordinary user may know of a daemon."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += psutil.Process(pid).memory_info().rss
    return total / (1 << 20)


def memory_mib(pids: Sequence[int]) -> float:
    """Return their share of memory, or what comes nearest to it for this user."""
    return pss_mib(pids) or rss_mib(pids)


def cpu_s(pids: Iterable[int]) -> float:
    """Return the processor seconds of all their threads so far, to the clock tick of 10 ms."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def wakeups(pids: Iterable[int]) -> int:
    """Return how often their threads went to sleep by themselves so far: as often each was woken."""
    total = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            try:
                found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE)
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += int(found[1]) if found else 0
    return total
