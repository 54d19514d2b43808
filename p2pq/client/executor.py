"""``p2pq.Executor``: calls of Python functions on this machine or others, as ``concurrent.futures`` has it."""

import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from p2pq.client import away, finding
from p2pq.client.asking import AnyPath, resources_of
from p2pq.client.away import Away
from p2pq.client.caller import Caller
from p2pq.client.grouping import Call, Groups
from p2pq.client.here import Here
from p2pq.client.inherited import umask
from p2pq.client.plain import REGISTERED
from p2pq.errors import UsageError
from p2pq.homes import default_path, plain_path
from p2pq.runner import calls
from p2pq.wire.commandcontrol import SubmitCommands
from p2pq.wire.control import PeersList, PeerView, Status, StatusView

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Executor(futures.Executor):
    """Makes calls in processes of this machine, in this folder and with this environment, or of others; a context manager.

    Use it as ``concurrent.futures.ProcessPoolExecutor``: ``submit``, ``map``, ``shutdown``, and ``as_completed`` and ``wait``
    of that module. Functions and arguments are pickled, those of ``__main__`` and lambdas by value. Calls that come together
    are made together, some to a process, so that short ones are worth it; what each process calls first is ``initializer``.

    With ``where="any"`` calls go to any machine of the mesh, into sandboxes; what comes back is data: plain types, arrays of
    numpy, data frames, and types that are registered (``p2pq.register``) before the Executor is made.

    A call that ends its process, like a crash, breaks the executor: whatever is not done by then raises
    ``concurrent.futures.BrokenExecutor``.
    """

    def __init__(  # noqa: PLR0913  as processes of a pool have it, and what a task needs
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        cpus: int = 1,
        memory: str | int = 0,
        gpus: int = 0,
        time_s: int = 0,
        priority: int = 0,
        name: str = "calls",
        where: str = "local",
        needs: Mapping[str, str] | None = None,
        files: Sequence[AnyPath] = (),
        trust_results: bool = False,
        home: AnyPath | None = None,
        start: bool = True,
    ) -> None:
        """Find the node, or start one.

        Args:
            max_workers: processes at the same time; None: as many as there are slots for.
            initializer: called first in each process.
            initargs: what it is called with.
            cpus: of each process, as ``memory`` (``"4G"``, or MiB) and ``gpus``.
            memory: see ``cpus``.
            gpus: see ``cpus``.
            time_s: longest run of a process; 0: 24 h.
            priority: among your own jobs; higher first.
            name: what its jobs are called.
            where: ``local``; or ``any`` machine, or the name or id of one.
            needs: labels that a machine must have: ``{"has": "numpy"}``; not for ``local``.
            files: files and folders that are sent along, as modules that other machines do not have; not for ``local``.
            trust_results: open pickles that other machines send, so that calls may return anything. Whoever runs a node of
                the mesh could then run code of theirs in this program.
            home: the node's home; None: ``P2PQ_HOME``, else the usual one.
            start: start a node there if none runs.

        Raises:
            P2PQError: there is no node, or a value is not usable.
            TypeError: the initializer cannot be called.
        """
        if "P2PQ_TASK" in os.environ:
            # It would hold its slot while it waits for another one; as many of these as there are slots would wait for ever.
            raise UsageError("this is a task of p2pq already: make the calls here, or in a ThreadPoolExecutor")
        if where == "local" and (needs or files or trust_results):
            raise UsageError('needs, files and trust_results are for other machines; say where="any", too')
        if max_workers is not None and max_workers < 1:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        begin = b"" if initializer is None else calls.pickled((initializer, initargs))
        slots = node_slots(home, start=start, cpus=cpus, where=where)
        labels = dict(needs or {})
        if where != "local":
            # Functions that travel by value are of this version of Python.
            labels.setdefault("python", f"{sys.version_info.major}.{sys.version_info.minor}")
        common: dict[str, Any] = {
            "name": name,
            "resources": resources_of({"cpus": cpus, "memory": memory, "gpus": gpus, "needs": labels}),
            "time_s": time_s,
            "priority": priority,
            "umask": umask(),
        }
        place: Here | Away
        if where == "local":
            place = Here(SubmitCommands(shell=False, cwd="/", environment=b"", **common))
            groups = Groups(begin)
        else:
            place = Away(away.request(where, common), files, trusted=trust_results)
            types = [calls.pickled((kind, *told)) for kind, told in REGISTERED.plain.items()]
            groups = Groups(begin, least_s=away.TASK_S, trusted=trust_results, types=types)
        self._max_workers = slots if max_workers is None else max_workers
        # Some more than there is room for: a slot is taken again as soon as it is free.
        tasks = self._max_workers if self._max_workers < slots else 2 * slots
        self._caller = Caller(finding.address(_home(home)), place, groups, slots=slots, tasks=tasks)
        self._process = os.getpid()
        self._end = weakref.finalize(self, self._caller.shut_down, wait=False)
        self._end.atexit = False  # the caller sees to that itself, and waits

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Make a call; return what becomes of it.

        Raises:
            BrokenExecutor: a process has come to a bad end.
            RuntimeError: after ``shutdown``, or in a process that was forked off.
        """
        if self._process != os.getpid():
            raise RuntimeError("this Executor belongs to the process that this one was forked from; make another one")
        future: Future[T] = Future()
        self._caller.submit(Call(future, fn, args, kwargs))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,  # noqa: ANN401  buffersize, where this Python has it
    ) -> Iterator[T]:
        """Call ``fn`` with the items of ``iterables``; return an iterator over the results, in order.

        Args:
            fn: what to call.
            iterables: as of the built-in ``map``.
            timeout: seconds from now; a result that has not come by then raises TimeoutError.
            chunksize: calls that share a future. Calls go together by themselves; of a great many that take microseconds, a
                larger one spares this process some work.
            options: ``buffersize``, from Python 3.14 on.

        Raises:
            ValueError: ``chunksize`` is less than 1.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **options)
        chunks = _chunks(zip(*iterables, strict=False), chunksize)
        return chain.from_iterable(super().map(partial(calls.run_chunk, fn), chunks, timeout=timeout, **options))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all calls; but of whoever interrupts the program nobody waits for any, and what is under way is cancelled."""
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self._process == os.getpid():
            self._caller.give_up("interrupted")
        self.shutdown(wait=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``wait`` until all are done. ``cancel_futures``: those that are not under way are not made."""
        if self._process == os.getpid():
            self._caller.shut_down(wait=wait, cancel=cancel_futures)


def node_slots(home: AnyPath | None = None, *, start: bool = True, cpus: int = 1, where: str = "local") -> int:
    """Return how many processes of so many cpus there is room for, starting this machine's node if wanted.

    Args:
        home: of this machine's node.
        start: start it if none runs.
        cpus: of each process.
        where: ``local``, ``any``, or the name or id of a node.

    Raises:
        P2PQError: there is no node, or it cannot be started.
    """
    with finding.connect(_home(home), start=start, say=log.info) as node:
        own = node.one(Status(), StatusView)
        slots = own.slots // cpus if where in ("local", "any", own.name, own.id) else 0
        if where != "local":
            peers = [peer for peer in node.all(PeersList(), PeerView) if peer.state == "up"]
            slots += sum((peer.slots or 0) // cpus for peer in peers if where in ("any", peer.name, peer.id))
        return max(1, slots)


def _home(home: AnyPath | None) -> Path:
    return plain_path(default_path() if home is None else Path(home))


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk
