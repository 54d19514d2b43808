"""What faults must not leave behind: processes, folders, results that nobody fetched, words in logs, plaintext on disks."""

import contextlib
import os
import signal
from pathlib import Path

from p2pq.wire import control
from tests.e2e import lab
from tests.netns.lan import Host, linked

CALM_S = 90.0
"""From the last fault until everything is linked and nothing is kept any more."""


def calm(hosts: list[Host]) -> list[str]:
    """Wait for the calm after faults; return what does not become as it was."""
    linked(hosts, CALM_S)
    lab.until(lambda: all(kept(host) == 0 for host in hosts), "nothing is kept any more", CALM_S)
    lab.until(lambda: all(running(host) == 0 for host in hosts), "nothing runs any more", CALM_S)
    found = []
    for host in hosts:
        lines = host.whole_log().splitlines()
        found += [f"{host.name}: {line}" for line in lines if "Traceback" in line or " ERROR " in line][:3]
        try:
            lab.until(lambda host=host: not left_over(host), "nothing is left", 10.0)
        except AssertionError:
            found += [f"{host.name}: left over: {what}" for what in left_over(host)]
    return found


def left_over(host: Host) -> list[str]:
    """Return what earlier lives of a node left: processes that are nobody's, scratch folders in which nothing runs."""
    pids = lab.processes(str(host.home))
    lines = [words for pid in pids if (words := read(f"/proc/{pid}/cmdline"))]
    scratch = host.home / "scratch"
    folders = [path for path in scratch.iterdir() if not any(str(path) in line for line in lines)]
    orphans = [pid for pid in pids if not descends(pid, os.getpid())]
    return [f"process {pid}: {read(f'/proc/{pid}/cmdline')[:200]}" for pid in orphans] + [str(each) for each in folders]


def still_at_it(job: str) -> list[str]:
    """Return a sentence for each process of a job's tasks that does not end, wherever it runs."""
    try:
        lab.until(lambda: not at_it(job), "all processes of the job have ended", 10.0)
    except AssertionError:
        return [f"process {pid} of the job still runs: {read(f'/proc/{pid}/cmdline')[:200]}" for pid in at_it(job)]
    return []


def at_it(job: str) -> list[int]:
    """Return the processes of a job's tasks."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if f"P2PQ_JOB={job}" in read(f"/proc/{pid}/environ").split("\0")]


def descends(pid: int, ancestor: int) -> bool:
    """Tell whether a process comes of another; not if either has just ended."""
    while pid not in {0, 1, ancestor}:
        status = read(f"/proc/{pid}/stat")
        pid = int(status.rpartition(")")[2].split()[1]) if status else 0
    return pid == ancestor


def read(path: str) -> str:
    """Return what the kernel says of a process; nothing if it has gone."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def kept(host: Host) -> int:
    """Return how many results a host keeps for their masters; 1 if it does not say."""
    return next((status.kept_results for status in host.ask(control.Status(), control.StatusView)), 1)


def running(host: Host) -> int:
    """Return how many attempts run on a host; 1 if it does not say."""
    return next((len(status.running) for status in host.ask(control.Status(), control.StatusView)), 1)


def tree(pid: int) -> list[int]:
    """Return a process and all that come of it."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [each for each in pids if descends(each, pid)]


def tell_all(host: Host, number: signal.Signals) -> None:
    """Send a signal to a node and to everything that it runs, as when a laptop sleeps (SIGSTOP) and wakes (SIGCONT)."""
    assert host.process is not None
    pids = tree(host.process.pid)
    for pid in pids if number is signal.SIGSTOP else reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def holding(folder: Path, what: bytes) -> list[str]:
    """Return the files below a folder that hold these bytes, and the names that do."""
    found = []
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            if what in os.fsencode(path.name) or (path.is_file() and what in path.read_bytes()):
                found.append(str(path.relative_to(folder)))
    return found
