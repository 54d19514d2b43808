"""dispy with a node on this machine."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import dispy

HERE = "127.0.0.1"
START_S = 30.0
ATTEMPTS = 5
"""A job that ends before its node has written down its process is lost ('NoneType' has no 'pid'), so it is submitted again."""


# dispy sends the source of its functions, so these stand alone: they import what they need, and have no annotations.


def command(argv):
    """Run a command; return its exit code."""
    import subprocess

    return subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode


def output(argv):
    """Run a command that must succeed; return what it printed."""
    import subprocess

    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True).stdout


def nothing(number):
    """Do nothing."""
    return number


class Dispy:
    """One cluster object for each function."""

    # Its manual: a JobCluster sends its function once and then only arguments. Pulses and resubmission are off as by default.
    setting = "dispynode -c 2, a JobCluster for each function; jobs that it loses are submitted again"
    lacks = {"chunks": "it has no option for that"}

    def __init__(self) -> None:
        self._clusters: dict[str, dispy.JobCluster] = {}

    def commands(self, argvs: Sequence[Sequence[str]]) -> list[int]:
        return self._run(command, argvs)

    def outputs(self, argvs: Sequence[Sequence[str]]) -> list[str]:
        return self._run(output, argvs)

    def calls(self, count: int) -> Iterable[int]:
        return self._run(nothing, range(count))

    def _run(self, function: object, arguments: Sequence[object]) -> list:
        if function.__name__ not in self._clusters:
            self.close()  # a node serves one cluster at a time
            self._clusters[function.__name__] = dispy.JobCluster(function, nodes=[HERE], host=HERE)
        cluster = self._clusters[function.__name__]
        jobs = [cluster.submit(one) for one in arguments]
        results = [job() for job in jobs]
        for _ in range(ATTEMPTS):
            lost = [number for number, job in enumerate(jobs) if job.exception]
            if not lost:
                return results
            for number in lost:
                jobs[number] = cluster.submit(arguments[number])
                results[number] = jobs[number]()
        raise RuntimeError(jobs[lost[0]].exception)

    def close(self) -> None:
        """Let the node go."""
        for cluster in self._clusters.values():
            cluster.close()
        self._clusters.clear()


@contextlib.contextmanager
def peer(folder: Path) -> Iterator[Dispy]:
    dispynode = str(Path(sys.executable).parent / "dispynode.py")
    options = ["-c", "2", "-i", HERE, "--daemon", "--clean", "--dest_path_prefix", str(folder / "dispy")]
    with (folder / "dispynode.log").open("wb") as log:
        node = subprocess.Popen([sys.executable, dispynode, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    used = Dispy()
    try:
        _until_served(node)
        yield used
    finally:
        used.close()
        node.terminate()
        node.wait(30)


def _until_served(node: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and node.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HERE, dispy.config.DispyPort + 1), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError("dispynode did not start")
