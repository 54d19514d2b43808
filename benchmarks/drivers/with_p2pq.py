"""p2pq through its Python client, run by the interpreter that has it; ``P2PQ_HOME`` says which node, ``PEER_SANDBOX`` how."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import p2pq

AT_ONCE = 2
CHUNK = 100


class P2pq:
    """One node that runs already."""

    def __init__(self, client: p2pq.Client, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._strict = os.environ["PEER_SANDBOX"] == "strict"
        how = "Client.submit of a folder with an executable main" if self._strict else "Client.commands"
        self.setting = f"{how}, Executor.map; in chunks: chunksize=100"
        self.lacks: dict[str, str] = {}
        if not hasattr(p2pq, "Executor"):
            self.lacks = dict.fromkeys(("calls", "chunks"), "p2pq has no Executor yet")
        else:
            self.calls, self.chunks = self._calls, self._chunks

    def one(self, argv: Sequence[str]) -> int:
        if self._strict:
            folder = self._folder / "one"
            if not folder.exists():
                folder.mkdir()
                shutil.copy(argv[0], folder / "main")
            job = self._client.submit(folder, argv[1:])
        else:
            job = self._client.commands(argv)
        return next(task.exit_code for task in job.as_completed())

    def commands(self, argvs: Sequence[Sequence[str]]) -> list[int]:
        return [self.one(argv) for argv in argvs]

    def _calls(self, count: int) -> Iterable[int]:
        return self._map(count)

    def _chunks(self, count: int) -> Iterable[int]:
        return self._map(count, chunksize=CHUNK)

    def _map(self, count: int, **options: int) -> list[int]:
        from work import nothing

        with p2pq.Executor() as pool:
            return list(pool.map(nothing, range(count), **options))


@contextlib.contextmanager
def peer(folder: Path) -> Iterator[P2pq]:
    with p2pq.Client(start=False) as client:
        yield P2pq(client, folder)
