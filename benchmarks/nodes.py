"""Real nodes for the benchmarks: homes of their own, started and spoken to as people do."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from p2pq.client.connection import Connection
from p2pq.daemon.home import Home
from p2pq.errors import NodeUnreachableError
from p2pq.wire import control

ROOT: Final = Path(__file__).parents[1]
READY_S: Final = 60.0
END_S: Final = 20.0
PROVED_S: Final = 60.0
T = TypeVar("T")


@contextlib.contextmanager
def workspace(folder: Path | None) -> Iterator[Path]:
    """Give a folder on a real disk, where fsync costs what it costs, and delete it afterwards."""
    with tempfile.TemporaryDirectory(prefix="p2pq-bench-", dir=folder or Path("/var/tmp")) as base:
        yield Path(base)


class Node:
    """One home; as a context manager: a node that runs on it and has found out what its sandbox is worth."""

    def __init__(self, home: Path, *options: str, mdns: bool = False) -> None:
        """Make the home."""
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home = Home(home)
        self._options = ("--name", home.name, *([] if mdns else ["--no-mdns"]), *options)
        self._process: subprocess.Popen[str] | None = None
        self.address = ""
        self.sandbox = ""

    def __enter__(self) -> Self:
        """Start it and wait until it serves and takes guests."""
        self._process = subprocess.Popen(
            self.argv("node", *self._options),
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # it says the same in its log
            text=True,
        )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_S)
        words = self._process.stdout.readline().split() if readable else []
        if not words or words[0] != "ready":
            self._process.kill()
            raise RuntimeError(f"the node did not start; see {self.home.log}")
        self.address = words[3]
        until(lambda: self.status().sandbox != "unknown", "the sandbox has been tested")
        self.sandbox = self.status().sandbox
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=END_S)
        finally:
            self._process.kill()

    @property
    def pid(self) -> int:
        """The daemon."""
        assert self._process is not None
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """Return what commands of this home see."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("P2PQ_")}
        allowed = {"P2PQ_ALLOW_ROOT": "1"} if os.geteuid() == 0 else {}
        if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
            # An installed p2pq is compiled once, not at every start.
            kept["PYTHONPYCACHEPREFIX"] = str(self.home.path.parent / "compiled")
        return {**kept, **allowed, "P2PQ_HOME": str(self.home.path), "PYTHONPATH": str(ROOT)}

    def argv(self, *args: str) -> list[str]:
        """Return a command line."""
        return [sys.executable, "-m", "p2pq", *args]

    def command(self, *args: str) -> str:
        """Run a command that must succeed; return what it printed."""
        done = subprocess.run(self.argv(*args), env=self.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"p2pq {' '.join(args)} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def connect(self) -> Connection:
        """Open the local API."""
        return Connection(self.home.socket, self.home.api_token.read_bytes())

    def status(self) -> control.StatusView:
        """Ask how it is."""
        with self.connect() as node:
            return node.one(control.Status(), control.StatusView)

    def join(self, founder: "Node") -> None:
        """Join another node's mesh; return when both are linked."""
        code = founder.command("invite").split()[0]
        self.command("join", code, "--at", f"127.0.0.1:{founder.address.rpartition(':')[2]}", "--yes")
        until(lambda: founder.linked() and self.linked(), "the two nodes are linked")

    def linked(self) -> bool:
        """Whether a peer is up."""
        try:
            with self.connect() as node:
                return any(peer.state == "up" for peer in node.all(control.PeersList(), control.PeerView))
        except NodeUnreachableError:
            return False


def run_job(node: Connection, request: control.Submit) -> control.JobView:
    """Submit and wait for the end, through one connection.

    Raises:
        RuntimeError: it did not end well.
    """
    job = node.one(request, control.JobView)
    for reply in node.ask(control.Watch(jobs=(job.job,))):
        if isinstance(reply, control.Change):
            job = reply.job
    if job.state != "done":
        raise RuntimeError(f"the job ended as {job.state}; see its results in {job.results}")
    return job


def until(condition: Callable[[], T], what: str) -> T:
    """Ask again and again until the answer counts as true; return it."""
    deadline = time.monotonic() + PROVED_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not after {PROVED_S:g} s: {what}")
        time.sleep(0.05)
    return found


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
