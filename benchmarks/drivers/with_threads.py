"""Threads that start processes: nothing is remembered, nothing is sent. What no tool can beat by much."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from work import command, output

AT_ONCE = 2


class Threads:
    """Two threads that take turns with ``subprocess``."""

    setting = "two threads with subprocess.run; nothing durable, nothing isolated"
    lacks = dict.fromkeys(("calls", "chunks"), "threads share one interpreter: a call is no task")

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def one(self, argv: Sequence[str]) -> int:
        return command(argv)

    def commands(self, argvs: Sequence[Sequence[str]]) -> list[int]:
        return list(self._pool.map(command, argvs))

    def outputs(self, argvs: Sequence[Sequence[str]]) -> list[str]:
        return list(self._pool.map(output, argvs))


@contextlib.contextmanager
def peer(_folder: Path) -> Iterator[Threads]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield Threads(pool)
