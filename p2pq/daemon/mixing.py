"""What the tasks of a job print while they run, for whoever follows it and wants all of it as it comes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from p2pq.core.placement import TaskSnapshot
from p2pq.daemon.history import JobRow
from p2pq.daemon.logs import TAIL_POLL_S, Logs, Stream
from p2pq.daemon.scheduler import Scheduler
from p2pq.model.ids import LeaseId
from p2pq.wire.control import LogChunk, Reply

Send = Callable[[Reply], Awaitable[None]]

AGAIN_S: Final = 1.0
"""Until output is asked for again, where a stream of it ended before its task: nothing came for long, or something was lost."""
TAILS_MAX: Final = 64
"""Tasks whose output comes as it is printed; that of others comes when they end."""
LOOKED_AT_MAX: Final = 1024
"""Of the tasks that may run already when somebody begins to follow, so many are looked at."""
_STREAMS: Final[tuple[Stream, ...]] = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Told:
    """What has been sent of what an attempt printed."""

    lease: LeaseId
    counts: dict[Stream, int] = field(default_factory=lambda: dict.fromkeys(_STREAMS, 0))
    """Bytes of each stream."""


@dataclass(slots=True)
class _Tail:
    told: Told
    streams: list["asyncio.Task[None]"]


class Mixer:
    """Sends the output of the tasks of one job as they print it. Use it from the event loop's thread only."""

    def __init__(self, row: JobRow, *, logs: Logs, scheduler: Scheduler, send: Send, group: asyncio.TaskGroup) -> None:
        """Take the job, what reads output, and to whom it goes; ``group`` owns the streams."""
        self._row = row
        self._logs = logs
        self._scheduler = scheduler
        self._send = send
        self._group = group
        self._granted: dict[int, None] = {}
        self._tails: dict[int, _Tail] = {}

    def granted(self, tasks: Iterable[int]) -> None:
        """Take it that tasks may have begun to run."""
        self._granted.update(dict.fromkeys(tasks))

    async def watch(self) -> None:
        """Begin to send what tasks print once they run, until this is cancelled."""
        while True:
            for task in list(self._granted):
                if len(self._tails) >= TAILS_MAX:
                    break
                self._look(task)
            await asyncio.sleep(TAIL_POLL_S)  # files that grow tell nobody either

    def _look(self, task: int) -> None:
        live = self._scheduler.task(self._row.job, task)
        if live is None or live.state != "running" or live.lease is None:
            self._granted.pop(task)  # if it is tried again, that is said again
        elif live.started:
            self._granted.pop(task)
            self._stop(task)  # of an earlier attempt
            told = Told(live.lease)
            streams = [self._group.create_task(self._follow(live, stream, told)) for stream in _STREAMS]
            self._tails[task] = _Tail(told, streams)

    async def _follow(self, live: TaskSnapshot, stream: Stream, told: Told) -> None:
        async def send(reply: Reply) -> None:
            if isinstance(reply, LogChunk):
                told.counts[stream] += len(reply.data)  # which is on its way from here on, whatever becomes of us
            await self._send(reply)

        while True:  # until it is stopped
            await self._logs.stream(self._row, live.task, live, stream, told.counts[stream], send, follow=True)
            await asyncio.sleep(AGAIN_S)

    def end(self, task: int) -> Told | None:
        """A task has ended: send no more of it; return what was sent of what its last attempt had printed."""
        self._granted.pop(task, None)
        return self._stop(task)

    def close(self) -> None:
        """Send nothing more."""
        for task in list(self._tails):
            self._stop(task)

    def _stop(self, task: int) -> Told | None:
        tail = self._tails.pop(task, None)
        if tail is None:
            return None
        for stream in tail.streams:
            stream.cancel()
        return tail.told
