"""A node is away in mid-job, or stopped like a sleeping laptop: ``python -m tests.netns.away``.

    python -m tests.netns.away [--away 60] [--lease 60] [--only killed|ended|worker|owner]

Three nodes in network namespaces (needs root and bubblewrap). *killed* and *ended*: the owner's node is killed with -9, or ended
with ``p2pq stop``, for that many seconds; its workers finish what they hold and keep it sealed: a word that is in inputs,
arguments, output and results is in no byte below their homes; all of it arrives after the owner's return, and nothing that
was finished runs again. *worker* and *owner*: all processes of a node are stopped (SIGSTOP) for two lease times and go on; a
worker's tasks run elsewhere meanwhile and its stale results are refused; an owner's absence makes nothing expire; nothing
doubles.
It prints what it measured and ends with 1 if a promise was broken.
"""

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lz4.frame

from p2pq.wire import control, parts
from tests.e2e import lab
from tests.netns.lan import Host, Lan, into_one_mesh
from tests.netns.traces import at_it, calm, holding, kept, running, still_at_it, tell_all

NAMES = ("anna", "bert", "carl")
SLOTS = 2
TASK_S = 2.0
AGAIN_S = 20.0
"""Within this time after the return all that was kept is in."""
JOB_S = 120.0

WRITES = """
import os, pathlib, sys, time
results = pathlib.Path(os.environ["P2PQ_RESULTS"])
with (results / "attempts.txt").open("a") as file:
    print(os.environ["P2PQ_JOB"], os.environ["P2PQ_TASK"], os.environ["P2PQ_ATTEMPT"], file=file)
word = pathlib.Path("word.txt").read_text()
print("output", word, sys.argv[1], flush=True)
time.sleep(float(sys.argv[2]))
(results / "word.txt").write_text(word + sys.argv[1])
"""


class Marked:
    """A job that carries a secret word everywhere, and what must hold of it at the end."""

    def __init__(self, owner: Host, folder: Path, tasks: int, seconds: float = TASK_S) -> None:
        """Submit it."""
        self.owner, self.tasks = owner, tasks
        self.word = f"word-{secrets.token_hex(12)}"
        self.folder = lab.make_folder(folder, WRITES, word__txt=self.word)
        self.job = owner.detach("--array", f"0-{tasks - 1}", str(self.folder), f"--{self.word}", f"{seconds}")

    def views(self) -> list[control.TaskView]:
        """Return the tasks as the owner's node sees them."""
        return self.owner.tasks(self.job)

    def on(self, host: Host) -> set[int]:
        """Return the tasks that run on a host."""
        return {task.task for task in self.views() if task.state == "running" and task.node == host.name}

    def done(self) -> set[int]:
        """Return the tasks that are done."""
        return {task.task for task in self.views() if task.state == "done"}

    def spread(self, hosts: Sequence[Host]) -> dict[str, set[int]]:
        """Wait until each of these runs as much as it has slots for; return what."""
        lab.until(lambda: all(len(self.on(host)) == SLOTS for host in hosts), "the tasks run on all nodes")
        return {host.name: self.on(host) for host in hosts}

    def broken(self) -> list[str]:
        """Wait for the end; return a sentence for each promise that was broken."""
        done = self.owner.run("wait", self.job, timeout=JOB_S)
        found = [] if done.returncode == 0 else [f"`p2pq wait` ended with {done.returncode}: {done.stderr}"]
        views = {task.task: task for task in self.views()}
        folders = {path.name for path in (self.folder / "results").iterdir()}
        if folders != {str(task) for task in range(self.tasks)}:
            found.append(f"the results are {sorted(folders)}")
        beside = sorted(path.name for path in self.folder.iterdir())
        if beside != ["main.py", "results", "word.txt"]:
            found.append(f"in the folder lies {beside}")
        for name in sorted(folders & {str(task) for task in views}, key=int):
            view = views[int(name)]
            files = {path.name: path.read_text() for path in (self.folder / "results" / name).iterdir()}
            lines = {
                "attempts.txt": f"{self.job} {name} {view.attempt}\n",
                "word.txt": f"{self.word}--{self.word}",
            }
            if files != lines or view.exit != 0:
                found.append(f"task {name} has exit {view.exit} and {files}, should have {lines}")
        return found + still_at_it(self.job)


def kill(host: Host) -> None:
    """End a node as a power failure would."""
    host.kill()


def end(host: Host) -> None:
    """End a node with ``p2pq stop``."""
    host.ok("stop")
    assert host.process is not None
    host.process.communicate(timeout=lab.END_S)
    host.process = None


def owner_away(hosts: list[Host], base: Path, seconds: float, leave: Callable[[Host], None]) -> list[str]:
    """Let the owner's node be away for that long; return the promises that were broken."""
    owner, *others = hosts
    job = Marked(owner, base, tasks=18)
    held = job.spread(others)
    leave(owner)
    left = time.monotonic()
    ended = set().union(*held.values())
    found = []
    for host in others:
        lab.until(lambda host=host: kept(host) >= SLOTS and not running(host), f"{host.name} keeps its results")
    count = sum(map(kept, others))
    said = [view for host in others for view in told(host)]
    lab.until(lambda: time.monotonic() - left >= seconds, "it has been away for long enough", seconds + 1)
    for host in others:
        found += [f"{host.name} keeps {path}, which holds the secret word" for path in clear(host, job.word)]
    owner.start()
    lab.until(lambda: ended <= job.done() and not any(map(kept, others)), "all that was kept is in", AGAIN_S)
    back_s = time.monotonic() - owner.ready_at
    attempts = {task.task: task.attempts for task in job.views()}
    again = sorted(task for task in ended if attempts[task] != 1)
    found += [f"tasks that were finished run again: {again}"] if again else []
    found += [f"`p2pq status` says {said} of {count} kept results"] if not all(map(sound, said)) else []
    found += job.broken() + seen(job)
    print(
        f"owner away for {seconds:g} s ({leave.__name__}): {count} results kept, all in {back_s:.1f} s after its return"
    )
    return found + calm(hosts)


def told(host: Host) -> tuple[parts.KeptView, ...]:
    """Return what a host says that it keeps; its command says the same in words."""
    [status] = host.ask(control.Status(), control.StatusView)
    shown = host.ok("status")
    assert "KEPT FOR" in shown
    assert "at most 4096 and 4 GiB for each node, for 30 days" in shown
    return status.kept


def sound(view: parts.KeptView) -> bool:
    """Tell whether this says: results of anna's owner, since a moment ago."""
    return (
        view.node == "anna" and bool(view.owner and view.bytes) and view.results >= SLOTS and 0 <= view.oldest_s < JOB_S
    )


def clear(host: Host, word: str) -> list[str]:
    """Return the files of a worker that hold the word; the runners of the job may still be there, empty."""
    return holding(host.home, word.encode())


def seen(job: Marked) -> list[str]:
    """Return a sentence if the search would not have found the word where it is known to be, as it is or packed."""
    packed = job.folder / "results" / "0" / "packed"
    packed.write_bytes(lz4.frame.compress((job.folder / "results" / "0" / "word.txt").read_bytes()))
    found = holding(job.folder, job.word.encode())
    packed.unlink()
    wanted = {"word.txt", "results/0/packed", *(f"results/{task}/word.txt" for task in range(job.tasks))}
    return [] if wanted <= set(found) else [f"the search for the word found only {found}"]


def worker_stopped(hosts: list[Host], base: Path, seconds: float, lease_s: float) -> list[str]:
    """Stop a worker for that long; return the promises that were broken."""
    owner, worker, _ = hosts
    tasks = 18
    job = Marked(owner, base, tasks)
    held = job.spread([worker])[worker.name]
    tell_all(worker, signal.SIGSTOP)
    stopped = time.monotonic()
    try:
        lab.until(lambda: held <= job.done(), "its tasks are done elsewhere", lease_s + JOB_S)
        elsewhere_s = time.monotonic() - stopped
        first = {task.task: (task.node, task.attempt) for task in job.views() if task.task in held}
        lab.until(lambda: time.monotonic() - stopped >= seconds, "it was stopped for long enough", seconds + 1)
    finally:
        tell_all(worker, signal.SIGCONT)
    found = [f"task {task} was done on the stopped node" for task, (node, _) in first.items() if node == worker.name]
    found += calm(hosts) + job.broken()
    after = {task.task: (task.node, task.attempt) for task in job.views() if task.task in held}
    found += [f"what counted were {first}, now {after}"] if first != after else []
    again = Marked(owner, base.with_name(f"{base.name}-again"), 4, 0.1)
    where = lab.make_folder(base.with_name(f"{base.name}-there"), "print('here')")
    found += again.broken()
    done = owner.run("submit", "--where", worker.name, str(where), timeout=JOB_S)
    found += [f"{worker.name} does not work again: {done.stderr}"] if done.returncode else []
    print(f"worker stopped for {seconds:g} s: its {len(held)} tasks were done elsewhere after {elsewhere_s:.1f} s")
    return found + calm(hosts)


def owner_stopped(hosts: list[Host], base: Path, seconds: float) -> list[str]:
    """Stop the owner's node for that long; return the promises that were broken."""
    owner, *others = hosts
    job = Marked(owner, base, tasks=18)
    held = set().union(*job.spread(hosts).values())
    # A sandbox that only starts would find, when it goes on, that it had no answer for too long; its task would go elsewhere.
    lab.until(lambda: len(at_it(job.job)) >= len(held), "all of them have begun")
    expired = -expirations(owner)
    tell_all(owner, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        tell_all(owner, signal.SIGCONT)
    back = time.monotonic()
    lab.until(lambda: held <= job.done(), "all that ran then is done", AGAIN_S)
    back_s = time.monotonic() - back
    attempts = {task.task: task.attempts for task in job.views()}
    again = sorted(task for task in held if attempts[task] != 1)
    found = [f"tasks that ran through it run again: {again}"] if again else []
    expired += expirations(owner)
    found += [f"{expired} leases expired"] if expired else []
    print(
        f"owner stopped for {seconds:g} s: what ran on {len(others) + 1} nodes was in {back_s:.1f} s after it went on"
    )
    return found + job.broken() + calm(hosts)


def expirations(host: Host) -> int:
    """Return how many leases have expired at a master since its start."""
    [status] = host.ask(control.Status(), control.StatusView)
    return status.counters.get("lease.expired", 0)


def mesh(lan: Lan, lease_s: float) -> list[Host]:
    """Make a mesh of three with that length of leases."""
    for name in NAMES:
        schedule = f"[schedule]\nlease_s = {lease_s}\nheartbeat_s = {lease_s / 4}\n"
        lan.add(name).configure(f"[node]\nslots = {SLOTS}\n{schedule}")
    into_one_mesh(lan.hosts)
    return lan.hosts


def main(argv: Sequence[str] | None = None) -> int:
    """Let each of them happen; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.netns.away", description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--away", type=float, default=60.0, help="seconds that the owner's node is away (60)")
    parser.add_argument(
        "--lease", type=float, default=60.0, help="seconds that a lease lasts (60); stops last two of them"
    )
    parser.add_argument("--only", choices=("killed", "ended", "worker", "owner"), help="one of them")
    given = parser.parse_args(argv)
    os.environ["P2PQ_ALLOW_ROOT"] = "1"
    stop_s = 2 * given.lease
    cases: dict[str, Callable[[list[Host], Path], list[str]]] = {
        "killed": lambda hosts, base: owner_away(hosts, base, given.away, kill),
        "ended": lambda hosts, base: owner_away(hosts, base, given.away, end),
        "worker": lambda hosts, base: worker_stopped(hosts, base, stop_s, given.lease),
        "owner": lambda hosts, base: owner_stopped(hosts, base, stop_s),
    }
    base = Path(tempfile.mkdtemp(prefix="p2pq-away-"))
    lan = Lan(base)
    broken = []
    try:
        lan.open()
        hosts = mesh(lan, given.lease)
        for name, case in cases.items():
            if given.only in {None, name}:
                broken += [f"{name}: {sentence}" for sentence in case(hosts, base / f"job-{name}")]
    except AssertionError as error:
        broken.append(str(error))
    finally:
        lan.close()
    for sentence in broken:
        print(f"BROKEN: {sentence}")
    print(f"a promise was broken; homes and logs are in {base}" if broken else "every promise held")
    if not broken:
        shutil.rmtree(base, ignore_errors=True)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
