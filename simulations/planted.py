"""A fault planted on purpose, to show that the checkers find it: results accepted by task instead of by lease."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from p2pq.core import effects as fx
from p2pq.core import node
from p2pq.core.crew import Hand
from p2pq.core.queue import Queue
from p2pq.model.ids import JobId, Mono
from p2pq.wire import messages as msg
from p2pq.wire import sign
from p2pq.wire.objects import Result


class ByTask(Queue):
    """A master that takes a result for whatever attempt of that task is live now."""

    def _result_ready(self, worker: Hand, ready: msg.ResultReady, now: Mono) -> None:
        peer = worker.link.peer
        for item in sign.open_signed(ready.result, Result, peer).items:
            job = self._book.jobs.get(JobId(item.job))
            task = None if job is None else job.tasks.get(item.task)
            lease = None if task is None or not task.leases else self._book.leases.get(task.leases[0])
            if lease is None:
                self._receipt(peer, [item.lease], "late", now)
            elif lease.collecting is None:
                self._book.leases.collect(lease, item)
                self._out.append(fx.Collect(lease=lease.id, peer=peer, blobs=(*item.body, *item.blobs)))


@contextmanager
def planted() -> Iterator[None]:
    """Let every node that starts inside have that fault."""
    module: Any = node
    module.Queue = ByTask
    try:
        yield
    finally:
        module.Queue = Queue
