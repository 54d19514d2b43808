"""HyperQueue through its Python API, server and worker in threads of this process."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import tqdm
from hyperqueue import Job, LocalCluster
from hyperqueue import client as hq_client
from hyperqueue.cluster import WorkerConfig

hq_client.tqdm = lambda **options: tqdm.tqdm(disable=True, **options)  # a progress bar is no part of the work


class HyperQueue:
    """One job of many programs, as ``hq submit --array`` makes it."""

    # Its manual: many tasks in one job, and no files for their output where nobody wants it (stdout=none). LocalCluster keeps
    # no journal: nothing is durable.
    setting = (
        "Python API, LocalCluster with a worker of 2 cores, one job, outputs off unless wanted; no journal; "
        "its wait_for_jobs looks once a second"
    )
    lacks = {
        **dict.fromkeys(("calls", "chunks"), "it starts an interpreter for each Python function, says its manual"),
        "cli": "its command hq is not on PyPI",
    }

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self._client = cluster.client()
        self._folder = folder

    def commands(self, argvs: Sequence[Sequence[str]]) -> list[int]:
        job = Job(default_workdir=self._folder, max_fails=None)
        for argv in argvs:
            job.program(list(argv), stdout=None, stderr=None)
        failed = self._run(job)
        return [-1 if number in failed else 0 for number in range(len(argvs))]

    def outputs(self, argvs: Sequence[Sequence[str]]) -> list[str]:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            paths = [Path(folder) / str(number) for number in range(len(argvs))]
            job = Job(default_workdir=self._folder, max_fails=None)
            for argv, path in zip(argvs, paths, strict=True):
                job.program(list(argv), stdout=str(path), stderr=None)
            if failed := self._run(job):
                raise RuntimeError(f"{len(failed)} tasks failed")
            return [path.read_text() for path in paths]

    def _run(self, job: Job) -> set[int]:
        submitted = self._client.submit(job)
        if self._client.wait_for_jobs([submitted], raise_on_error=False):
            return set()
        return set(self._client.get_failed_tasks(submitted))


@contextlib.contextmanager
def peer(folder: Path) -> Iterator[HyperQueue]:
    with LocalCluster(str(folder / "server"), WorkerConfig(cores=2)) as cluster:
        yield HyperQueue(cluster, folder)
