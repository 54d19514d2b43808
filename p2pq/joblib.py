"""p2pq as a backend of joblib: after ``import p2pq.joblib``, ``joblib.parallel_config(backend="p2pq")`` makes calls here.

Whatever ``Executor`` takes can be said there, too: ``joblib.parallel_config(backend="p2pq", memory="2G")``. With ``where="any"``
results have to be data, as they have to be for an Executor; other machines need no joblib.
"""

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

try:
    import joblib
    from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, SequentialBackend
except ImportError as error:
    raise ImportError("p2pq.joblib needs joblib; `pip install joblib`") from error

from p2pq.client.executor import Executor, node_slots
from p2pq.runner.calls import run_items

__all__ = ["P2PQBackend"]


class P2PQBackend(AutoBatchingMixin, joblib.parallel.ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Makes the calls of ``joblib.Parallel`` with an ``Executor``, which lives as long as they take."""

    default_n_jobs = -1
    supports_retrieve_callback = True

    def __init__(self, nesting_level: int | None = None, **options: Any) -> None:  # noqa: ANN401  an Executor's
        """Take what an ``Executor`` is to be made with."""
        options.pop("inner_max_num_threads", None)
        super().__init__(nesting_level=nesting_level)
        self._options = {"name": "joblib", **options}
        self._pool: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many calls are made at a time: none beside others in a task, which would wait for its own slot."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if "P2PQ_TASK" in os.environ:
            return 1
        if n_jobs is None or n_jobs > 0:
            return n_jobs or 1
        known = ("home", "start", "cpus", "where")
        slots = node_slots(**{key: self._options[key] for key in known if key in self._options})
        return max(1, slots + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:  # noqa: ANN401  joblib's own
        """Make ready for the calls of one ``Parallel``; a single one at a time is made where it is asked for."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self._pool = Executor(n_jobs, **self._options)
        self.parallel = parallel
        return n_jobs

    def submit(self, func: Any, callback: Callable[[Future[Any]], object] | None = None) -> Future[Any]:  # noqa: ANN401  joblib's own
        """Make a call."""
        assert self._pool is not None, "configure comes first"  # noqa: S101
        if self._options.get("where", "local") == "local":
            future = self._pool.submit(func)
        else:  # joblib's own object would need joblib there
            future = self._pool.submit(run_items, func.items)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:  # noqa: ANN401  whatever a call returns
        """Return what a call returned."""
        return out.result()

    def terminate(self) -> None:
        """Let go of the executor once its calls are made."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Make none of the calls that are not under way."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)


joblib.register_parallel_backend("p2pq", P2PQBackend)
