"""loky: what joblib uses by default."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import loky
from with_processes import AT_ONCE, Pool


class Loky(Pool):
    """Its executor has the same methods."""

    # Its manual: the reusable executor spares starting workers for each use; without a timeout idle ones do not end.
    setting = "get_reusable_executor(max_workers=2, timeout=None), started before; in chunks: chunksize=100"


@contextlib.contextmanager
def peer(_folder: Path) -> Iterator[Loky]:
    executor = loky.get_reusable_executor(max_workers=AT_ONCE, timeout=None)
    try:
        yield Loky(executor)
    finally:
        executor.shutdown(wait=True, kill_workers=True)
