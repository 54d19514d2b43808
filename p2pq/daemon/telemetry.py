"""What people are told: each notice becomes one log line and one counter, here and nowhere else.

A line is a fact: a stable dotted name and fields. ERROR: a human must act. WARNING: something got worse. INFO: a role,
member or job changed. DEBUG: everything else. What peers say and what goes wrong again and again is limited to one line
a second for each (peer, reason); the counters count all of it.
Ids are shortened; keys, tokens, arguments and environments never appear.
"""

import contextlib
import json
import logging
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final, TextIO, assert_never

from p2pq.core.effects import Drop
from p2pq.model import notice as n
from p2pq.model.config import LogSettings
from p2pq.model.ids import LeaseId, Mono, short
from p2pq.model.job import Outcome
from p2pq.model.notice import Notice

FILE_BYTES_MAX: Final = 10_000_000
FILES_OLD: Final = 5
LINE_EVERY_S: Final = 1.0
LIMITED_MAX: Final = 1024
"""(peer, reason) pairs that are remembered; the one that spoke last is forgotten last."""
REASONS_MAX: Final = 64
"""Reasons that are counted apart; further ones are counted together."""
NEVER_RAN: Final = ("late", "recalled")
"""Faults of leases ahead that came back unstarted: nothing got worse by them."""
VALUE_CHARS_MAX: Final = 500
ROOT: Final = "p2pq"

log: Final = logging.getLogger(ROOT)

Fields = Mapping[str, object]


class _Told:
    """One notice in the words of the log. Those with ``limit`` are limited to a line a second for each value of it."""

    __slots__ = ("fields", "level", "limit", "name")

    def __init__(self, level: int, name: str, limit: object = None, /, **fields: object) -> None:
        self.level = level
        self.name = name
        self.limit = limit
        self.fields = fields


class Telemetry:
    """Counts and logs. Use it from the event loop's thread only."""

    def __init__(self, mono: Callable[[], Mono]) -> None:
        """Start with nothing counted; ``mono`` is for the limit on lines."""
        self._mono = mono
        self.counters: Counter[str] = Counter()
        """How often each fact was told since the start, by name; for reading."""
        self._limited: OrderedDict[tuple[str, object], tuple[float, int]] = OrderedDict()

    def notice(self, notice: Notice) -> None:
        """Tell what the core emitted."""
        told = _told(notice)
        self._count(told.name)
        self._write(told)

    def drop(self, drop: Drop) -> None:
        """Tell that a peer said what it must not say."""
        self._count("peer.rejected")
        self._count_reason("peer.rejected", drop.reason)
        limit = (drop.peer, drop.reason)
        told = _Told(logging.WARNING, "peer.rejected", limit, peer=drop.peer, reason=drop.reason, closed=drop.close)
        self._write(told)

    def event(self, level: int, name: str, /, *, limit: object = None, **fields: object) -> None:
        """Tell something that the daemon knows and the core does not (``store.trouble``, ``node.ready``)."""
        self._count(name)
        self._write(_Told(level, name, limit, **fields))

    def _count(self, name: str) -> None:
        self.counters[name] += 1

    def _count_reason(self, name: str, reason: str) -> None:
        apart = f"{name}: {reason}"
        known = sum(1 for counter in self.counters if counter.startswith(f"{name}: "))
        self._count(apart if apart in self.counters or known < REASONS_MAX else f"{name}: other")

    def _write(self, told: _Told) -> None:
        if not log.isEnabledFor(told.level):
            return
        fields = told.fields
        if told.limit is not None:
            key = (told.name, told.limit)
            now = self._mono()
            wrote, held_back = self._limited.get(key, (-LINE_EVERY_S, 0))
            if now - wrote < LINE_EVERY_S:
                self._limited[key] = (wrote, held_back + 1)
                return
            self._limited[key] = (now, 0)
            self._limited.move_to_end(key)
            if len(self._limited) > LIMITED_MAX:
                self._limited.popitem(last=False)
            if held_back:
                fields = {**fields, "held_back": held_back}
        log.log(told.level, "%s", told.name, extra={"fields": fields})


def _told(notice: Notice) -> _Told:  # noqa: C901, PLR0911, PLR0912  one arm per notice is the clearest there is
    match notice:
        case n.JobQueued():
            return _Told(logging.INFO, "job.queued", job=notice.job, tasks=notice.tasks)
        case n.TaskGranted():
            return _Told(logging.DEBUG, "task.granted", **_attempt(notice), lease=notice.lease, worker=notice.worker)
        case n.TaskProgressed():
            return _Told(logging.DEBUG, "task.progressed", **_task(notice), progress=notice.progress)
        case n.AttemptLost():
            return _Told(
                logging.DEBUG if notice.fault in NEVER_RAN else logging.WARNING,
                "attempt.lost",
                (notice.worker, notice.fault),
                **_attempt(notice),
                worker=notice.worker,
                fault=notice.fault,
                detail=notice.detail,
            )
        case n.AttemptFailed():
            return _Told(
                logging.INFO,
                "attempt.failed",
                notice.job,
                **_attempt(notice),
                worker=notice.worker,
                **_outcome(notice.outcome),
            )
        case n.TaskSettled():
            return _Told(
                logging.DEBUG,
                "task.settled",
                **_attempt(notice),
                state=notice.state,
                worker=notice.worker,
                **_outcome(notice.outcome),
                detail=notice.detail,
            )
        case n.TaskResultsWritten():
            return _Told(logging.DEBUG, "results.written", **_task(notice))
        case n.TaskResultsStuck():
            about = (notice.job, notice.reason)
            return _Told(logging.ERROR, "results.stuck", about, **_task(notice), reason=notice.reason)
        case n.TaskResultsLost():
            return _Told(logging.ERROR, "results.lost", notice.job, **_task(notice), reason=notice.reason)
        case n.TasksRetried():
            return _Told(logging.INFO, "job.retried", job=notice.job, tasks=notice.tasks)
        case n.JobHalted():
            return _Told(logging.WARNING, "job.halted", job=notice.job, reason=notice.detail)
        case n.JobFinished():
            return _Told(logging.INFO, "job.finished", job=notice.job, state=notice.state)
        case n.LeaseExpired():
            return _Told(
                logging.WARNING,
                "lease.expired",
                notice.worker,
                lease=notice.lease,
                worker=notice.worker,
                held_s=notice.held_s,
            )
        case n.LateResult():
            return _Told(logging.INFO, "result.late", notice.worker, lease=notice.lease, worker=notice.worker)
        case n.WorkerSuspected():
            return _Told(
                logging.WARNING,
                "worker.suspected",
                (notice.job, notice.worker),
                job=notice.job,
                worker=notice.worker,
                failures=notice.failures,
            )
        case n.GuestTaken():
            return _Told(
                logging.DEBUG,
                "guest.taken",
                **_task(notice),
                lease=notice.lease,
                master=notice.master,
                owner=notice.owner,
            )
        case n.GuestEnded():
            return _Told(
                logging.DEBUG,
                "guest.ended",
                **_task(notice),
                lease=notice.lease,
                master=notice.master,
                reason=notice.reason,
            )
        case n.KeptForgotten():
            return _Told(logging.WARNING, "results.forgotten", master=notice.master, results=notice.results)
        case n.NodeWoke():
            return _Told(logging.INFO, "node.woke", slept_s=notice.slept_s, counted=notice.counted)
        case n.PeerUp():
            return _Told(
                logging.INFO,
                "peer.up",
                notice.peer,
                peer=notice.peer,
                name=notice.name,
                address=notice.address,
                via=",".join(map(short, notice.path)),
            )
        case n.PeerDown():
            return _Told(logging.INFO, "peer.down", notice.peer, peer=notice.peer, reason=notice.reason)
        case n.PeerRefused():
            limit = (notice.peer or notice.address, notice.reason)
            return _Told(
                logging.WARNING,
                "peer.refused",
                limit,
                peer=notice.peer,
                address=notice.address,
                reason=notice.reason,
            )
        case n.BridgeSuspected():
            return _Told(
                logging.WARNING,
                "bridge.suspected",
                (notice.bridge, notice.reason),
                bridge=notice.bridge,
                reason=notice.reason,
                peer=notice.peer,
            )
        case n.LinksFull():
            return _Told(logging.WARNING, "links.full", "links", links_max=notice.links_max)
        case n.TooFar():
            via = ",".join(map(short, notice.path))
            return _Told(logging.WARNING, "bridge.far", notice.master, master=notice.master, via=via)
        case n.WayLeft():
            return _Told(logging.INFO, "bridge.left", notice.bridge, bridge=notice.bridge, master=notice.master)
        case n.PeerBanned():
            return _Told(logging.INFO, "peer.banned", peer=notice.peer, banned=notice.banned, by=notice.by)
        case n.OwnerBanned():
            return _Told(logging.INFO, "owner.banned", owner=notice.owner, banned=notice.banned, by=notice.by)
        case n.PrekeyChanged():
            return _Told(logging.DEBUG, "prekey.changed")
        case n.PeeringChanged():
            return _Told(logging.INFO, "peering.changed", mesh=notice.mesh, ended=notice.ended, by=notice.by)
        case n.PeeringLapsed():
            return _Told(logging.INFO, "peering.lapsed", mesh=notice.mesh, peer=notice.peer)
        case n.MeshKeyRotated():
            return _Told(logging.INFO, "mesh.key", by=notice.by)
        case _:
            assert_never(notice)


def _task(
    notice: n.TaskProgressed
    | n.TaskResultsWritten
    | n.TaskResultsStuck
    | n.TaskResultsLost
    | n.GuestTaken
    | n.GuestEnded,
) -> Fields:
    return {"job": notice.job, "task": notice.task}


def _attempt(notice: n.TaskGranted | n.AttemptLost | n.AttemptFailed | n.TaskSettled) -> Fields:
    return {"job": notice.job, "task": notice.task, "attempt": notice.attempt}


def _outcome(outcome: Outcome | None) -> Fields:
    if outcome is None:
        return {}
    return {"reason": outcome.reason, "exit": outcome.exit, "signal": outcome.signal, "run_ms": outcome.run_ms}


# -- lines ------------------------------------------------------------------------------------------------------------


def escape(text: str) -> str:
    """Return the text with everything that is not printable (controls, bidi marks, newlines) as an escape, bounded."""
    if len(text) > VALUE_CHARS_MAX:
        text = f"{text[:VALUE_CHARS_MAX]}…"
    return "".join(
        c if c.isprintable() and c != "\\" else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


class LineFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO job.finished job=abcd2345 state=done``; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without control characters whatever the fields hold."""
        parts = [_instant(record), record.levelname, escape(record.getMessage())]
        for key, value in _plain(record).items():
            text = escape(str(value))
            quoted = f'"{text}"' if not text or any(c in text for c in ' "=') else text
            parts.append(f"{key}={quoted}")
        return "\n  | ".join([" ".join(parts), *_traceback(self, record)])


class JsonFormatter(logging.Formatter):
    """One object a line: ``time``, ``level``, ``event``, the fields, and ``traceback`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; JSON escapes what is not ASCII."""
        line: dict[str, object] = {
            "time": _instant(record),
            "level": record.levelname,
            "event": record.getMessage(),
            **_plain(record),
        }
        if traceback := list(_traceback(self, record)):
            line["traceback"] = traceback
        return json.dumps(line)


@contextlib.contextmanager
def logging_to(path: Path | None, settings: LogSettings, stream: TextIO = sys.stderr) -> Iterator[None]:
    """Send the log of everything below ``p2pq`` to a stream, and to a rotating file (10 MB, five old ones) if one is named.

    The file is created under the process's umask, which the node sets to 077.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(stream)]
    if path is not None:
        handlers.append(RotatingFileHandler(path, maxBytes=FILE_BYTES_MAX, backupCount=FILES_OLD, encoding="utf-8"))
    formatter = JsonFormatter() if settings.json else LineFormatter()
    before = log.level, log.propagate
    log.setLevel(settings.level.upper())
    log.propagate = False
    for handler in handlers:
        handler.setFormatter(formatter)
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        log.setLevel(before[0])
        log.propagate = before[1]


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(record: logging.LogRecord) -> dict[str, str | int | float | bool]:
    """Return the record's fields as simple values, without those that say nothing."""
    fields: Fields = getattr(record, "fields", {})
    plain: dict[str, str | int | float | bool] = {}
    for key, value in fields.items():
        match value:
            case None | "":
                continue
            case bytes():
                plain[key] = short(value)
            case LeaseId():
                plain[key] = str(value)
            case float():
                plain[key] = round(value, 3)
            case bool() | int() | str():
                plain[key] = value
            case _:
                plain[key] = str(value)
    return plain


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> Iterator[str]:
    if record.exc_info:
        # Line by line, so that no message inside can begin a line of its own.
        yield from (escape(line) for line in formatter.formatException(record.exc_info).split("\n"))
