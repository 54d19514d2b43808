"""Ray on this machine."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing here is to leave this machine

import ray
from ray.util.multiprocessing import Pool
from work import command, nothing, output

CHUNK = 100


class Ray:
    """A local Ray with two processors."""

    # Its manual: tasks for single calls, all submitted before `ray.get` waits for the list; for very small ones batch them,
    # for which its multiprocessing.Pool has `chunksize`. Dashboard and forwarding of logs are off: they only cost.
    setting = "ray.init(num_cpus=2), no dashboard, tasks; in chunks: its multiprocessing.Pool with chunksize=100"

    def __init__(self) -> None:
        self._command = ray.remote(command)
        self._output = ray.remote(output)
        self._nothing = ray.remote(nothing)

    def one(self, argv: Sequence[str]) -> int:
        return ray.get(self._command.remote(argv))

    def commands(self, argvs: Sequence[Sequence[str]]) -> list[int]:
        return ray.get([self._command.remote(argv) for argv in argvs])

    def outputs(self, argvs: Sequence[Sequence[str]]) -> list[str]:
        return ray.get([self._output.remote(argv) for argv in argvs])

    def calls(self, count: int) -> Iterable[int]:
        return ray.get([self._nothing.remote(number) for number in range(count)])

    def chunks(self, count: int) -> Iterable[int]:
        # The pool holds both processors while it lives, so it is started for this alone, and that counts.
        with Pool(processes=2) as pool:
            return pool.map(nothing, range(count), chunksize=CHUNK)


@contextlib.contextmanager
def peer(_folder: Path) -> Iterator[Ray]:
    # The path of a socket may have 107 characters, and Ray's own part of it is long.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as short:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=short, logging_level="error")
        try:
            yield Ray()
        finally:
            ray.shutdown()
