"""Celery with a worker of two processes; broker and results in a redis-server of its own, or in files where there is none."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import celery  # noqa: F401  so that it is missing here, and not later

CHUNK = 100
START_S = 60.0


class Celery:
    """Tasks, each sent by ``delay``."""

    lacks: dict[str, str] = {}

    def __init__(self, tasks: object, broker: str) -> None:
        self._tasks = tasks
        # Its guides: prefork, prefetch 128 for short tasks, no chatter between workers; `chunks` to put several calls into a
        # message. Results are waited for one by one: groups and result sets were no faster here. Redis as it comes keeps
        # snapshots only: a crash loses what is new.
        self.setting = f"{broker}, prefork -c 2, prefetch 128, no gossip; in chunks: Task.chunks(..., 100)"

    def one(self, argv: Sequence[str]) -> int:
        return self._tasks.command.delay(argv).get()

    def commands(self, argvs: Sequence[Sequence[str]]) -> list[int]:
        return self._all(self._tasks.command, argvs)

    def outputs(self, argvs: Sequence[Sequence[str]]) -> list[str]:
        return self._all(self._tasks.output, argvs)

    def calls(self, count: int) -> Iterable[int]:
        return self._all(self._tasks.nothing, range(count))

    def chunks(self, count: int) -> Iterable[int]:
        parts = self._tasks.nothing.chunks(zip(range(count), strict=True), CHUNK).apply_async().get()
        return itertools.chain.from_iterable(parts)

    def _all(self, task: object, arguments: Iterable[object]) -> list:
        sent = [task.delay(one) for one in arguments]
        return [result.get() for result in sent]


@contextlib.contextmanager
def peer(folder: Path) -> Iterator[Celery]:
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(_redis(folder) if shutil.which("redis-server") else _files(folder))
        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = here
        worker = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "celery_tasks",
            "worker",
            "-c",
            "2",
            "-P",
            "prefork",
            "-l",
            "error",
        ]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        stack.enter_context(_ended(subprocess.Popen([*worker, *quiet], cwd=here, stdout=subprocess.DEVNULL)))
        import celery_tasks

        celery_tasks.nothing.delay(0).get(timeout=START_S)  # the worker is there
        yield Celery(celery_tasks, broker)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp") as short:  # a socket's path may have 107 characters
        socket = f"{short}/redis.sock"
        argv = ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", str(folder)]
        with _ended(subprocess.Popen(argv, stdout=subprocess.DEVNULL)):
            deadline = time.monotonic() + START_S
            while not os.path.exists(socket):  # noqa: PTH110
                if time.monotonic() > deadline:
                    raise RuntimeError("redis-server did not start")
                time.sleep(0.05)
            os.environ["PEER_BROKER"] = f"redis+socket://{socket}?virtual_host=0"
            os.environ["PEER_RESULTS"] = f"redis+socket://{socket}?virtual_host=1"
            yield "redis through a Unix socket"


@contextlib.contextmanager
def _files(folder: Path) -> Iterator[str]:
    for name in ("queue", "results"):
        (folder / name).mkdir()
    os.environ["PEER_QUEUE"] = str(folder / "queue")
    os.environ["PEER_BROKER"] = "filesystem://"
    os.environ["PEER_RESULTS"] = f"file://{folder / 'results'}"
    yield "broker and results in files"


@contextlib.contextmanager
def _ended(process: subprocess.Popen) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
