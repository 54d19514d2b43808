"""Dask's distributed scheduler on this machine."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from distributed import Client, LocalCluster
from work import command, nothing, output


class Dask:
    """Two worker processes and a scheduler."""

    # Its manual: processes for Python code that holds the lock, one thread each; `pure=False` says that a result may not be
    # reused, which also spares hashing the arguments; no dashboard. `Client.map` sends all tasks in one message by itself.
    setting = "LocalCluster(n_workers=2, threads_per_worker=1), no dashboard, Client.map(pure=False)"
    lacks = {"chunks": "no option of Client.map puts several calls into a task"}

    def __init__(self, client: Client) -> None:
        self._client = client

    def one(self, argv: Sequence[str]) -> int:
        return self._client.submit(command, argv, pure=False).result()

    def commands(self, argvs: Sequence[Sequence[str]]) -> list[int]:
        return self._client.gather(self._client.map(command, argvs, pure=False))

    def outputs(self, argvs: Sequence[Sequence[str]]) -> list[str]:
        return self._client.gather(self._client.map(output, argvs, pure=False))

    def calls(self, count: int) -> Iterable[int]:
        return self._client.gather(self._client.map(nothing, range(count), pure=False))


@contextlib.contextmanager
def peer(folder: Path) -> Iterator[Dask]:
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(folder)}
    with LocalCluster(processes=True, **options) as cluster, Client(cluster) as client:
        yield Dask(client)
