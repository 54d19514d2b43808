"""``concurrent.futures.ProcessPoolExecutor``."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

from work import command, nothing, output

AT_ONCE = 2
CHUNK = 100


class Pool:
    """Any executor whose ``map`` has a ``chunksize``."""

    # The manual of concurrent.futures: "for very long iterables, using a large value for chunksize can significantly improve
    # performance"; without it each call is a message, which is what a call whose duration nobody knows needs.
    setting = "max_workers=2, started before; in chunks: chunksize=100"

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    def one(self, argv: Sequence[str]) -> int:
        return self._pool.submit(command, argv).result()

    def commands(self, argvs: Sequence[Sequence[str]]) -> list[int]:
        return list(self._pool.map(command, argvs))

    def outputs(self, argvs: Sequence[Sequence[str]]) -> list[str]:
        return list(self._pool.map(output, argvs))

    def calls(self, count: int) -> Iterable[int]:
        return self._pool.map(nothing, range(count))

    def chunks(self, count: int) -> Iterable[int]:
        return self._pool.map(nothing, range(count), chunksize=CHUNK)


@contextlib.contextmanager
def peer(_folder: Path) -> Iterator[Pool]:
    with ProcessPoolExecutor(AT_ONCE) as pool:
        yield Pool(pool)
