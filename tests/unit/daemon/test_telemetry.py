import io
import json
import logging
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from p2pq.core.effects import Drop
from p2pq.daemon import telemetry as telemetry_module
from p2pq.daemon.telemetry import Telemetry, escape, log, logging_to
from p2pq.model import notice as n
from p2pq.model.config import LogSettings
from p2pq.model.ids import JobId, LeaseId, Mono, NodeId, short
from p2pq.model.job import Fault, Outcome
from p2pq.model.notice import Notice

JOB = JobId(b"j" * 16)
PEER = NodeId(b"p" * 32)
OTHER = NodeId(b"q" * 32)
LEASE = LeaseId(2, 7)
J, P = short(JOB), short(PEER)

LINES = {
    n.JobQueued(job=JOB, tasks=3): f"INFO job.queued job={J} tasks=3",
    n.TaskGranted(
        job=JOB, task=1, attempt=2, lease=LEASE, worker=PEER
    ): f"DEBUG task.granted job={J} task=1 attempt=2 lease=2.7 worker={P}",
    n.TaskProgressed(job=JOB, task=1, progress=500): f"DEBUG task.progressed job={J} task=1 progress=500",
    n.AttemptLost(
        job=JOB, task=1, attempt=2, worker=PEER, fault="lost", detail="gone away"
    ): f'WARNING attempt.lost job={J} task=1 attempt=2 worker={P} fault=lost detail="gone away"',
    n.AttemptFailed(
        job=JOB, task=1, attempt=2, worker=PEER, outcome=Outcome(reason="exit", exit=3, run_ms=9)
    ): f"INFO attempt.failed job={J} task=1 attempt=2 worker={P} reason=exit exit=3 run_ms=9",
    n.TaskSettled(
        job=JOB, task=1, attempt=2, state="cancelled"
    ): f"DEBUG task.settled job={J} task=1 attempt=2 state=cancelled",
    n.TaskResultsWritten(job=JOB, task=1): f"DEBUG results.written job={J} task=1",
    n.TaskResultsStuck(job=JOB, task=1, reason="disk full"): f'ERROR results.stuck job={J} task=1 reason="disk full"',
    n.TaskResultsLost(job=JOB, task=1, reason="damaged"): f"ERROR results.lost job={J} task=1 reason=damaged",
    n.TasksRetried(job=JOB, tasks=3): f"INFO job.retried job={J} tasks=3",
    n.JobHalted(
        job=JOB, detail="halted after 1 failure"
    ): f'WARNING job.halted job={J} reason="halted after 1 failure"',
    n.JobFinished(job=JOB, state="done"): f"INFO job.finished job={J} state=done",
    n.LeaseExpired(
        lease=LEASE, worker=PEER, held_s=61.23456
    ): f"WARNING lease.expired lease=2.7 worker={P} held_s=61.235",
    n.LateResult(lease=LEASE, worker=PEER): f"INFO result.late lease=2.7 worker={P}",
    n.WorkerSuspected(job=JOB, worker=PEER, failures=3): f"WARNING worker.suspected job={J} worker={P} failures=3",
    n.GuestTaken(
        lease=LEASE, master=PEER, owner="ann", job=JOB, task=1
    ): f"DEBUG guest.taken job={J} task=1 lease=2.7 master={P} owner=ann",
    n.GuestEnded(
        lease=LEASE, master=PEER, job=JOB, task=1, reason="ok"
    ): f"DEBUG guest.ended job={J} task=1 lease=2.7 master={P} reason=ok",
    n.KeptForgotten(master=PEER, results=3): f"WARNING results.forgotten master={P} results=3",
    n.NodeWoke(slept_s=61.5, counted=True): "INFO node.woke slept_s=61.5 counted=True",
    n.PeerUp(peer=PEER, name="lab", address="10.0.0.1:1"): f"INFO peer.up peer={P} name=lab address=10.0.0.1:1",
    n.PeerDown(peer=PEER, reason="leaving"): f"INFO peer.down peer={P} reason=leaving",
    n.BridgeSuspected(bridge=PEER, reason="no-blobs"): f"WARNING bridge.suspected bridge={P} reason=no-blobs",
    n.PeerRefused(address="10.0.0.1:1", reason="banned"): "WARNING peer.refused address=10.0.0.1:1 reason=banned",
    n.LinksFull(links_max=64): "WARNING links.full links_max=64",
    n.TooFar(master=PEER, path=(PEER, PEER)): f"WARNING bridge.far master={P} via={P},{P}",
    n.WayLeft(master=PEER, bridge=PEER): f"INFO bridge.left bridge={P} master={P}",
    n.PeerBanned(peer=PEER, banned=True, by="here"): f"INFO peer.banned peer={P} banned=True by=here",
    n.OwnerBanned(owner="eve", banned=True, by="lab"): "INFO owner.banned owner=eve banned=True by=lab",
    n.PeeringChanged(mesh="there", ended=True, by="lab"): "INFO peering.changed mesh=there ended=True by=lab",
    n.PeeringLapsed(mesh="there", peer=PEER): f"INFO peering.lapsed mesh=there peer={P}",
    n.PrekeyChanged(prekey=b"p" * 32): "DEBUG prekey.changed",
    n.MeshKeyRotated(by="lab"): "INFO mesh.key by=lab",
}


class Rig:
    def __init__(self) -> None:
        self.now = 100.0
        self.telemetry = Telemetry(lambda: Mono(self.now))
        self.stream = io.StringIO()

    def lines(self) -> list[str]:
        """Return what was written since the last call, without the instants."""
        text = self.stream.getvalue()
        self.stream.seek(0)
        self.stream.truncate()
        lines = text.splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ ", line) for line in lines)
        return [line.partition(" ")[2] for line in lines]


@pytest.fixture
def rig():
    rig = Rig()
    with logging_to(None, LogSettings(level="debug"), rig.stream):
        yield rig


def test_every_notice_is_one_line_and_one_counter(rig: Rig) -> None:
    assert {type(notice) for notice in LINES} == set(typing.get_args(Notice))
    for notice, line in LINES.items():
        before = dict(rig.telemetry.counters)
        rig.telemetry.notice(notice)
        assert rig.lines() == [line]
        name = line.split()[1]
        assert rig.telemetry.counters == {**before, name: 1}


@pytest.mark.parametrize(("level", "count"), [("debug", len(LINES)), ("info", 25), ("warning", 11), ("error", 2)])
def test_the_level_decides_what_is_written_and_not_what_is_counted(
    level: Literal["debug", "info", "warning", "error"], count: int
) -> None:
    rig = Rig()
    with logging_to(None, LogSettings(level=level), rig.stream):
        for notice in LINES:
            rig.telemetry.notice(notice)
    assert len(rig.lines()) == count
    assert sum(rig.telemetry.counters.values()) == len(LINES)


@pytest.mark.parametrize(("fault", "level"), [("recalled", "DEBUG"), ("late", "DEBUG"), ("draining", "WARNING")])
def test_a_lease_that_came_back_before_anything_ran_is_no_warning(rig: Rig, fault: Fault, level: str) -> None:
    rig.telemetry.notice(n.AttemptLost(job=JOB, task=1, attempt=2, worker=PEER, fault=fault))
    assert rig.lines() == [f"{level} attempt.lost job={J} task=1 attempt=2 worker={P} fault={fault}"]


def test_a_peer_gets_one_line_a_second_for_each_reason(rig: Rig) -> None:
    def drop(peer: NodeId, reason: str) -> None:
        rig.telemetry.drop(Drop(peer=peer, reason=reason))

    for _ in range(5):
        drop(PEER, "bad nonce")
    drop(PEER, "not linked")
    drop(OTHER, "bad nonce")
    q = short(OTHER)
    assert rig.lines() == [
        f'WARNING peer.rejected peer={P} reason="bad nonce" closed=False',
        f'WARNING peer.rejected peer={P} reason="not linked" closed=False',
        f'WARNING peer.rejected peer={q} reason="bad nonce" closed=False',
    ]
    rig.now += 0.99
    drop(PEER, "bad nonce")
    assert rig.lines() == []
    rig.now += 0.01
    drop(PEER, "bad nonce")
    assert rig.lines() == [f'WARNING peer.rejected peer={P} reason="bad nonce" closed=False held_back=5']
    assert rig.telemetry.counters == {
        "peer.rejected": 9,
        "peer.rejected: bad nonce": 8,
        "peer.rejected: not linked": 1,
    }


def test_what_is_remembered_of_peers_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_module, "LIMITED_MAX", 10)
    monkeypatch.setattr(telemetry_module, "REASONS_MAX", 3)
    for number in range(100):
        rig.telemetry.drop(Drop(peer=NodeId(bytes([number]) * 32), reason=f"reason {number}"))
    assert len(rig.telemetry._limited) == 10
    assert rig.telemetry.counters == {
        "peer.rejected": 100,
        "peer.rejected: reason 0": 1,
        "peer.rejected: reason 1": 1,
        "peer.rejected: reason 2": 1,
        "peer.rejected: other": 97,
    }


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a\nERROR forged", '"a\\nERROR forged"'),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x85\u2028", "\\x85\\u2028"),
        ("back\\slash", "back\\\\slash"),
        ("\ud800", "\\ud800"),
        ("müller", "müller"),
        ("x=1", '"x=1"'),
    ],
)
def test_no_text_can_forge_a_line_or_drive_a_terminal(rig: Rig, hostile: str, shown: str) -> None:
    rig.telemetry.event(logging.INFO, "peer.up", name=hostile)
    assert rig.lines() == [f"INFO peer.up name={shown}"]


def test_a_long_text_is_cut() -> None:
    assert escape("x" * 501) == "x" * 500 + "…"
    assert escape("x" * 500) == "x" * 500


def fail() -> None:
    raise ValueError("first\n2026-01-01T00:00:00.000Z ERROR forged")


def logged_traceback(settings: LogSettings, failing: Callable[[], None]) -> str:
    stream = io.StringIO()
    with logging_to(None, settings, stream):
        try:
            failing()
        except ValueError:
            logging.getLogger("p2pq.daemon.api").exception("api.failed", extra={"fields": {"request": "Show"}})
    return stream.getvalue()


def test_a_traceback_is_indented() -> None:
    first, *rest = logged_traceback(LogSettings(), fail).splitlines()
    assert first.endswith("ERROR api.failed request=Show")
    assert all(line.startswith("  | ") for line in rest)
    assert any("ValueError: first" in line for line in rest)


def test_json_is_one_object_a_line() -> None:
    (line,) = logged_traceback(LogSettings(json=True), fail).splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["event"], entry["request"]) == ("ERROR", "api.failed", "Show")
    assert any("ValueError: first" in text for text in entry["traceback"])
    rig = Rig()
    with logging_to(None, LogSettings(json=True), rig.stream):
        rig.telemetry.notice(n.JobFinished(job=JOB, state="done"))
    entry = json.loads(rig.stream.getvalue())
    assert {key: value for key, value in entry.items() if key != "time"} == {
        "level": "INFO",
        "event": "job.finished",
        "job": J,
        "state": "done",
    }


def test_the_file_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry_module, "FILE_BYTES_MAX", 1000)
    path = tmp_path / "node.log"
    telemetry = Telemetry(lambda: Mono(0))
    with logging_to(path, LogSettings(), io.StringIO()):
        for number in range(200):
            telemetry.event(logging.INFO, "node.ready", number=number)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["node.log"] + [f"node.log.{i}" for i in range(1, 6)]
    assert path.read_text().endswith("number=199\n")
    assert all(file.stat().st_size <= 1000 for file in tmp_path.iterdir())


def test_logging_is_left_as_it_was() -> None:
    before = log.level, log.propagate, list(log.handlers)
    with logging_to(None, LogSettings(level="debug"), io.StringIO()):
        assert log.handlers != before[2]
    assert (log.level, log.propagate, list(log.handlers)) == before
