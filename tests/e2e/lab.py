"""Real nodes through the command line: start them, speak to them, end them."""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.e2e import forking

READY_S = 30
END_S = 15
COMMAND_S = 120
ROOT = Path(__file__).parents[2]


class Host:
    """One home, its node and its command line; in a network namespace if one is named."""

    def __init__(self, home: Path, *, netns: str = "", user: str = "", package: Path = ROOT) -> None:
        """Name a home, and where the p2pq lies that runs on it; nothing runs yet."""
        self.home = home
        self.package = package
        self._netns = netns
        self._prefix = (["ip", "netns", "exec", netns] if netns else []) + (
            ["runuser", "-u", user, "--"] if user else []
        )
        self.process: subprocess.Popen[str] | None = None
        self.ready = ""
        self.settings: dict[str, str] = {}
        """More variables of the environment."""
        self.node_module = "p2pq"
        """What is run as its node."""
        self._user = user

    def environment(self) -> dict[str, str]:
        """Return what commands on this host see."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("P2PQ_")}
        python_path = os.pathsep.join(filter(None, (str(self.package), os.environ.get("PYTHONPATH"))))
        own = {"P2PQ_HOME": str(self.home), "P2PQ_ALLOW_ROOT": "1", "PYTHONPATH": python_path}
        if self.package != ROOT:
            own["PYTHONSAFEPATH"] = "1"  # or the p2pq of the working directory would come first
        return {**kept, **own, **self.settings}

    def argv(self, *args: str, module: str = "p2pq") -> list[str]:
        """Return the argument vector of a p2pq command."""
        return [*self._prefix, sys.executable, "-m", module, *args]

    def start(self, *options: str, mdns: bool = False) -> str:
        """Run ``p2pq node`` and wait until it is ready; return its line."""
        arguments = ["node", *([] if mdns else ["--no-mdns"]), *options]
        # Its standard error is a file: a pipe that nobody reads would stop the node once it is full.
        with tempfile.TemporaryFile("w+") as said:
            if self.node_module == "p2pq":
                self.process = self.popen(*arguments, stderr=said)
            else:
                argv = self.argv(*arguments, module=self.node_module)
                self.process = subprocess.Popen(
                    argv, env=self.environment(), stdout=subprocess.PIPE, stderr=said, text=True
                )
            assert self.process.stdout is not None
            readable, _, _ = select.select([self.process.stdout], [], [], READY_S)
            self.ready = self.process.stdout.readline() if readable else ""
            if not self.ready.startswith("ready "):
                self.process.kill()
                self.process.communicate()
                said.seek(0)
                raise AssertionError(f"the node did not start: {said.read()}")
        return self.ready

    @property
    def address(self) -> str:
        """Where the node listens."""
        return self.ready.split()[3]

    @property
    def port(self) -> int:
        """The port that peers dial."""
        return int(self.address.rpartition(":")[2])

    def run(self, *args: str, timeout: float = COMMAND_S, **options: object) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; whatever happens, nobody is shown a traceback."""
        given = options.pop("input", None)
        with self.popen(*args, **({} if given is None else {"stdin": subprocess.PIPE}), **options) as process:
            try:
                out, err = process.communicate(given, timeout)
            except BaseException:
                process.kill()
                raise
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def fails(self, code: int, *args: str) -> str:
        """Run one command that must end with that code and say one sentence; return it."""
        done = self.run(*args)
        said = done.stderr.splitlines()
        assert done.returncode == code, f"p2pq {' '.join(args)} ended with {done.returncode}: {said}\n{self.log()}"
        assert said, f"p2pq {' '.join(args)} said nothing"
        assert said[-1].startswith("p2pq: "), said
        return said[-1].removeprefix("p2pq: ")

    def submit(self, *args: str) -> str:
        """Submit without waiting; return the job's id."""
        [job] = self.ok("submit", "--detach", *args).split()
        return job

    def ok(self, *args: str, timeout: float = COMMAND_S) -> str:
        """Run one command that must succeed; return its standard output."""
        done = self.run(*args, timeout=timeout)
        assert done.returncode == 0, f"p2pq {' '.join(args)} ended with {done.returncode}: {done.stderr}\n{self.log()}"
        return done.stdout

    def json(self, *args: str) -> object:
        """Run one command that must succeed and print JSON."""
        return json.loads(self.ok(*args, "--json"))

    def popen(self, *args: str, **options: object) -> "subprocess.Popen[str]":
        """Start a command and leave it running."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        if not self._user and self.package == ROOT and pipes.keys() <= {"stdin", "stdout", "stderr", "cwd"}:
            # Those need not import p2pq: they are forked off a process that has.
            return forking.Fork(list(args), netns=self._netns, env=self.environment(), text=True, **pipes)
        return subprocess.Popen(self.argv(*args), env=self.environment(), text=True, **pipes)

    def kill(self) -> None:
        """Kill the node as a power failure would."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        self.process = None

    def stop(self) -> int:
        """End the node with SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        code = self.process.returncode
        self.process = None
        return code

    def log(self) -> str:
        """Return the end of the node's log."""
        return self.whole_log()[-4000:]

    def whole_log(self) -> str:
        """Return all of the node's log that is still there."""
        return "".join(path.read_text() for path in sorted(self.home.glob("node.log*"), reverse=True))

    def close(self) -> None:
        """End the node, however it was started."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop()
        elif (self.home / "node.sock").exists():
            self.run("stop", "--now")


def until(condition, what: str, seconds: float = 30.0):
    """Ask again and again until it is so; return what it said."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {what}"
        time.sleep(0.05)


def make_folder(path: Path, main: str, **files: str) -> Path:
    """Make a folder with a main.py and other files."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "main.py").write_text(main)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return path


@contextlib.contextmanager
def hosts(base: Path, names: Sequence[str], **options: object) -> Iterator[list[Host]]:
    """Give hosts whose nodes are ended afterwards."""
    found = []
    for name in names:
        home = base / name
        home.mkdir(mode=0o700)
        found.append(Host(home, **options))  # type: ignore[arg-type]
    try:
        yield found
    finally:
        for host in found:
            host.close()
        for host in found:
            shutil.rmtree(host.home, ignore_errors=True)


def read_line(stream, seconds: float) -> str:
    """Return the next line that a process writes."""
    readable, _, _ = select.select([stream], [], [], seconds)
    assert readable, f"no line within {seconds:g} s"
    return stream.readline()


def interrupt(process: "subprocess.Popen[str]") -> str:
    """Press Ctrl-C in a command; return what it said on standard error."""
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert "Traceback" not in said, said
    return said


def processes(marker: str) -> list[int]:
    """Return the processes that have this in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def on_terminal(host: Host, *args: str, typed: str = "", seconds: float = 60.0, code: int = 0) -> str:
    """Run a command that must end with ``code`` on a terminal of its own; return all that was shown there."""
    master, slave = pty.openpty()
    process = host.popen(*args, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, typed.encode())
    shown = bytearray()
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):  # EIO: the last one who had the terminal open is gone
        while select.select([master], [], [], max(0.0, deadline - time.monotonic()))[0]:
            shown += os.read(master, 65_536)
    os.close(master)
    text = shown.decode(errors="replace")
    try:
        assert process.wait(timeout=5) == code, text
    finally:
        process.kill()
        process.wait()
    return text
