import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2pq.core.records import (
    AttemptEnded,
    BanKept,
    EpochBegun,
    JobAdded,
    JobEnded,
    LeaseEnded,
    LeaseGranted,
    PeerSeen,
    Restored,
    RestoredJob,
    RestoredLease,
    RestoredTask,
    ResultKept,
    ResultReleased,
    TaskDelivered,
    TaskEnded,
    TasksCancelled,
)
from p2pq.daemon import store as store_module
from p2pq.daemon import tables
from p2pq.daemon.store import AttemptRow, JobExtra, JobRow, Store, TaskRow, needs_full
from p2pq.errors import DiskFullError, RefusedError, StorageError, StoreDamagedError
from p2pq.model.config import StoreSettings
from p2pq.model.ids import JobId, LeaseId, NodeId, Wall, to_text
from p2pq.model.job import Outcome
from p2pq.wire.objects import ResultItem

DAY_MS = 24 * 3600 * 1000
NOW = Wall(100 * DAY_MS)
JOB = JobId(b"j" * 16)
WORKER = NodeId(b"w" * 32)
MASTER = NodeId(b"m" * 32)
LEASE = LeaseId(1, 7)
ADDED = JobAdded(job=JOB, manifest=b"manifest", key=b"KEY", reply_secret=b"SECRET", wall=Wall(1000))


def clock() -> Wall:
    return NOW


def granted(task: int = 0, attempt: int = 1, lease: LeaseId = LEASE, job: JobId = JOB) -> LeaseGranted:
    return LeaseGranted(lease=lease, job=job, task=task, attempt=attempt, worker=WORKER, wall=Wall(2000))


def item(task: int = 0, attempt: int = 1, lease: LeaseId = LEASE, outcome: Outcome | None = None) -> ResultItem:
    return ResultItem(
        job=JOB, task=task, attempt=attempt, lease=lease, outcome=outcome or Outcome(reason="ok"), sandbox="strict"
    )


def attempt_ended(result: ResultItem, state: str = "done", *, counted: bool = True) -> AttemptEnded:
    return AttemptEnded(
        lease=result.lease,
        job=JOB,
        task=result.task,
        worker=WORKER,
        result=result,
        state=state,  # type: ignore[arg-type]
        wall=Wall(3000),
        counted=counted,
    )


class Opened:
    """A store in a folder that can be closed and opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store, self.restored = Store.open(path, clock)
        self.troubles: list[StorageError | None] = []
        self.changed = asyncio.Event()

    def start(self) -> "Opened":
        self.store.start(self._on_trouble)
        return self

    def _on_trouble(self, error: StorageError | None) -> None:
        self.troubles.append(error)
        self.changed.set()

    async def until_trouble_changes(self) -> None:
        async with asyncio.timeout(20):
            await self.changed.wait()
        self.changed.clear()

    async def write(self, *rows: object) -> None:
        await self.store.commit(rows, full=False)  # type: ignore[arg-type]

    async def reopened(self) -> Restored:
        await self.store.close()
        self.store, self.restored = Store.open(self.path, clock)
        self.store.start(self._on_trouble)
        return self.restored


@pytest.fixture
async def opened(tmp_path: Path):
    opened = Opened(tmp_path / "store.sqlite").start()
    yield opened
    await opened.store.close()


async def test_a_new_store_is_empty_and_private(opened: Opened) -> None:
    assert opened.restored == Restored()
    await opened.write(ADDED)
    names = {path.name: path.stat().st_mode & 0o777 for path in opened.path.parent.iterdir()}
    assert names == {"store.sqlite": 0o600, "store.sqlite-wal": 0o600, "store.sqlite-shm": 0o600}


async def test_everything_comes_back_after_a_restart(opened: Opened) -> None:
    await opened.write(
        EpochBegun(epoch=1),
        ADDED,
        granted(task=3, lease=LeaseId(1, 1)),
        granted(task=4, lease=LeaseId(1, 2)),
        attempt_ended(item(task=4, lease=LeaseId(1, 2))),
        granted(task=5, lease=LeaseId(1, 3)),
        LeaseEnded(lease=LeaseId(1, 3), job=JOB, task=5, attempt=1, fault="lost"),
        granted(task=6, lease=LeaseId(1, 4)),
        attempt_ended(item(task=6, lease=LeaseId(1, 4), outcome=Outcome(reason="exit", exit=3)), "pending"),
        TaskEnded(job=JOB, task=9, state="failed", detail="too many faults", wall=Wall(1)),
        TaskDelivered(job=JOB, task=4),
        ResultKept(lease=LEASE, master=MASTER, item=item()),
        ResultKept(lease=LeaseId(1, 8), master=MASTER, item=item()),
        ResultReleased(lease=LeaseId(1, 8), master=MASTER),
        PeerSeen(node=WORKER, name="w", addresses=("10.0.0.1:9476",)),
        PeerSeen(node=MASTER, name="m", addresses=()),
        PeerSeen(node=WORKER, name="w2", addresses=("10.0.0.2:9476",)),
        BanKept(node=WORKER, banned=True, signed=b"ban"),
    )
    assert await opened.reopened() == Restored(
        epoch=1,
        jobs=(
            RestoredJob(
                job=JOB,
                manifest=b"manifest",
                key=b"KEY",
                reply_secret=b"SECRET",
                wall=Wall(1000),
                tasks=(
                    RestoredTask(task=3, state="running", attempts=1),
                    RestoredTask(task=4, state="done", attempts=1, delivered=True),
                    RestoredTask(task=5, state="pending", attempts=1, faults=1),
                    RestoredTask(task=6, state="pending", attempts=1, failures=1),
                    RestoredTask(task=9, state="failed", detail="too many faults", delivered=True),
                ),
            ),
        ),
        leases=(RestoredLease(lease=LeaseId(1, 1), job=JOB, task=3, attempt=1, worker=WORKER),),
        settled=((1, ((2, 3), (4, 5))),),
        kept=(ResultKept(lease=LEASE, master=MASTER, item=item()),),
        peers=(
            PeerSeen(node=MASTER, name="m", addresses=()),
            PeerSeen(node=WORKER, name="w2", addresses=("10.0.0.2:9476",)),
        ),
        bans=(BanKept(node=WORKER, banned=True, signed=b"ban"),),
    )


async def test_an_ended_job_is_history_and_not_restored(opened: Opened) -> None:
    opened.store.keep_extra(JOB, JobExtra(name="pi", folder="/x", results="/x/results", argv=("a",), tasks=3))
    await opened.write(
        EpochBegun(epoch=1),
        ADDED,
        granted(task=1, lease=LeaseId(1, 1)),
        attempt_ended(item(1, lease=LeaseId(1, 1), outcome=Outcome(reason="exit", exit=2, run_ms=5)), "pending"),
        granted(task=1, attempt=2, lease=LeaseId(1, 2)),
        attempt_ended(item(1, attempt=2, lease=LeaseId(1, 2))),
        granted(task=2, lease=LeaseId(1, 3)),
        TasksCancelled(job=JOB, wall=Wall(4000)),
        LeaseEnded(lease=LeaseId(1, 3), job=JOB, task=2, attempt=1, fault="cancelled", counted=False),
        JobEnded(job=JOB, state="cancelled", wall=Wall(5000)),
    )
    restored = await opened.reopened()
    assert (restored.jobs, restored.leases, restored.settled) == ((), (), ((1, ((1, 3),)),))
    store = opened.store
    expected = JobRow(
        job=JOB,
        submitted=Wall(1000),
        extra=JobExtra(name="pi", folder="/x", results="/x/results", argv=("a",), tasks=3),
        state="cancelled",
        ended=Wall(5000),
        cancelled=True,
        attempts=3,
        done=1,
        cancelled_tasks=1,
    )
    assert store.job(JOB) == expected
    assert store.job_rows(10) == (expected,)
    assert store.job(JobId(b"x" * 16)) is None
    first = AttemptRow(
        task=1,
        attempt=1,
        lease=LeaseId(1, 1),
        worker=WORKER,
        granted=Wall(2000),
        ended=Wall(3000),
        outcome=Outcome(reason="exit", exit=2, run_ms=5),
    )
    second = AttemptRow(
        task=1,
        attempt=2,
        lease=LeaseId(1, 2),
        worker=WORKER,
        granted=Wall(2000),
        ended=Wall(3000),
        outcome=Outcome(reason="ok"),
    )
    third = AttemptRow(task=2, attempt=1, lease=LeaseId(1, 3), worker=WORKER, granted=Wall(2000), fault="cancelled")
    assert store.attempts(JOB) == (first, second, third)
    assert store.attempts(JOB, 1, limit=1) == (first,)
    done = TaskRow(
        task=1,
        state="done",
        attempts=2,
        failures=1,
        faults=0,
        detail="",
        delivered=False,
        ended=Wall(3000),
        last=second,
    )
    cancelled = TaskRow(
        task=2,
        state="cancelled",
        attempts=1,
        failures=0,
        faults=0,
        detail="",
        delivered=True,
        ended=Wall(4000),
        last=third,
    )
    assert store.tasks(JOB) == (done, cancelled)
    assert store.tasks(JOB, start=2) == (cancelled,)
    assert store.tasks(JOB, limit=1) == (done,)
    assert store.result(JOB, 1) == item(1, attempt=2, lease=LeaseId(1, 2))
    first_result = store.result(JOB, 1, 1)
    assert first_result is not None
    assert first_result.attempt == 1
    assert store.result(JOB, 2) is None


async def test_a_live_job_is_counted_from_its_tasks(opened: Opened) -> None:
    await opened.write(
        ADDED,
        granted(task=1, lease=LeaseId(1, 1)),
        attempt_ended(item(1, lease=LeaseId(1, 1))),
        granted(task=2, lease=LeaseId(1, 2)),
        attempt_ended(item(2, lease=LeaseId(1, 2), outcome=Outcome(reason="signal", signal=9)), "failed"),
        granted(task=3, lease=LeaseId(1, 3)),
    )
    assert opened.store.job(JOB) == JobRow(job=JOB, submitted=Wall(1000), attempts=3, running=1, done=1, failed=1)
    ended = TaskEnded(job=JOB, task=8, state="cancelled", wall=Wall(1))
    await opened.write(ended)
    assert opened.store.tasks(JOB, start=4)[0].last is None


async def test_rows_of_a_job_that_ended_change_nothing(opened: Opened) -> None:
    await opened.write(ADDED, JobEnded(job=JOB, state="done", wall=Wall(5000)))
    before = opened.store.job(JOB)
    late = granted(lease=LeaseId(1, 9))
    await opened.write(
        late,
        LeaseEnded(lease=late.lease, job=JOB, task=0, attempt=1, fault="lost"),
        TaskEnded(job=JOB, task=0, state="failed", wall=Wall(1)),
        TaskDelivered(job=JOB, task=0),
        JobEnded(job=JOB, state="failed", wall=Wall(9000)),
    )
    assert opened.store.job(JOB) == before
    assert opened.store.tasks(JOB) == ()
    assert await opened.reopened() == Restored()


async def test_secrets_are_kept_for_results_and_never_shown(opened: Opened) -> None:
    await opened.write(ADDED)
    secret = opened.store.secret(JOB)
    assert secret is not None
    assert (secret.manifest, secret.key, secret.reply_secret) == (b"manifest", b"KEY", b"SECRET")
    assert "KEY" not in repr(secret)
    assert "SECRET" not in repr(secret)
    assert opened.store.secret(JobId(b"x" * 16)) is None


async def test_a_job_is_found_by_the_beginning_of_its_id(opened: Opened) -> None:
    jobs = [JobId(bytes([first]) + bytes(15)) for first in (0, 1, 255)]
    await opened.write(*(JobAdded(job=job, manifest=b"", key=b"", reply_secret=b"", wall=Wall(0)) for job in jobs))
    find = opened.store.find_jobs
    for job in jobs:
        text = to_text(job)
        assert find(text) == (job,)
        assert find(text[:10].upper()) == (job,)
        assert find(f"{text[:4]}-{text[4:9]} {text[9]}") == (job,)
    assert find("a") == (jobs[0], jobs[1])
    assert find("aaaa") == (jobs[0],)
    assert find("") == ()
    assert find("0189") == ()
    assert find("bbbb") == ()
    assert find(to_text(jobs[0]) + "a") == ()
    assert find(to_text(jobs[0])[:-1] + "b") == ()  # bits beyond the id
    assert find("ä") == ()


async def test_only_the_latest_jobs_and_those_of_the_last_days_stay(opened: Opened) -> None:
    def job(number: int) -> JobId:
        return JobId(bytes([number]) * 16)

    old, dropped, kept, live = (job(n) for n in range(4))
    for which, ended in ((old, NOW - 40 * DAY_MS), (dropped, NOW - 3), (kept, NOW - 2), (live, None)):
        opened.store.keep_extra(which, JobExtra(name="x"))
        await opened.write(
            JobAdded(job=which, manifest=b"", key=b"", reply_secret=b"", wall=Wall(0)),
            granted(job=which, lease=LeaseId(1, which[0])),
            LeaseEnded(lease=LeaseId(1, which[0]), job=which, task=0, attempt=1, fault="lost"),
            *(() if ended is None else (JobEnded(job=which, state="done", wall=Wall(ended)),)),
        )
    await opened.store.prune(StoreSettings(keep_jobs=1, keep_days=30))
    assert [row.job for row in opened.store.job_rows(10)] == [live, kept]
    for table in ("tasks", "attempts", "extras"):
        assert raw(opened.path, f"SELECT count(*) FROM {table}") == [(2,)]


async def test_kept_results_that_are_too_old_go_at_start(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store, _ = Store.open(path, clock)
    store.start()
    await store.commit([ResultKept(lease=LEASE, master=MASTER, item=item())], full=True)
    await store.close()
    later = Wall(NOW + 31 * DAY_MS)
    store, restored = Store.open(path, lambda: later, StoreSettings(keep_days=32))
    await store.close()
    assert len(restored.kept) == 1
    store, restored = Store.open(path, lambda: later, StoreSettings(keep_days=30))
    await store.close()
    assert restored.kept == ()


async def test_peers_beyond_the_limit_go_at_start(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [NodeId(bytes([number]) * 32) for number in range(5)]
    await opened.write(*(PeerSeen(node=node, name="n", addresses=()) for node in nodes))
    monkeypatch.setattr(tables, "PEERS_MAX", 3)
    restored = await opened.reopened()
    assert [peer.node for peer in restored.peers] == nodes[2:]


async def test_an_extra_whose_job_never_came_goes_at_start(opened: Opened) -> None:
    opened.store.keep_extra(JOB, JobExtra(name="x"))
    await opened.reopened()
    assert raw(opened.path, "SELECT count(*) FROM extras") == [(0,)]


async def test_signed_bans_are_for_telling(opened: Opened) -> None:
    await opened.write(BanKept(node=MASTER, banned=True), BanKept(node=WORKER, banned=True, signed=b"ban"))
    assert opened.store.signed_bans() == (b"ban",)


def test_what_must_survive_a_power_failure() -> None:
    assert needs_full([granted(), ADDED])
    assert needs_full([attempt_ended(item())])
    assert needs_full([EpochBegun(epoch=1)])
    assert not needs_full([granted(), TaskDelivered(job=JOB, task=0)])
    assert not needs_full([])


async def test_the_log_is_synced_only_where_it_must_be(opened: Opened) -> None:
    await opened.store.commit([granted()], full=False)
    assert opened.store._writer.execute("PRAGMA synchronous").fetchone() == (1,)
    await opened.store.commit([ADDED], full=True)
    assert opened.store._writer.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_batches_become_durable_in_order(opened: Opened) -> None:
    order: list[int] = []
    waiters = []
    for number in range(50):
        waiter = opened.store.commit([EpochBegun(epoch=number + 1)], full=number % 7 == 0)
        waiter.add_done_callback(lambda _, number=number: order.append(number))
        waiters.append(waiter)
    await waiters[-1]
    await asyncio.sleep(0)
    assert order == list(range(50))


async def test_a_full_disk_loses_nothing(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RETRY_FIRST_S", 0.01)
    await opened.write(EpochBegun(epoch=1))
    opened.store._writer.execute("PRAGMA max_page_count = 1")
    big = JobAdded(job=JOB, manifest=b"x" * 100_000, key=b"", reply_secret=b"", wall=Wall(0))
    first = opened.store.commit([big, granted(), attempt_ended(item())], full=True)
    await opened.until_trouble_changes()
    assert isinstance(opened.store.trouble, DiskFullError)
    assert "disk is full" in str(opened.store.trouble)
    second = opened.store.commit([EpochBegun(epoch=2)], full=False)
    assert not first.done()
    assert not second.done()
    assert opened.store.job(JOB) is None  # half a batch is never seen
    opened.store._writer.execute("PRAGMA max_page_count = 1000000")
    async with asyncio.timeout(20):
        await first
        await second
    await opened.until_trouble_changes()
    assert [type(trouble) for trouble in opened.troubles] == [DiskFullError, type(None)]
    assert opened.store.trouble is None
    restored = await opened.reopened()
    assert (restored.epoch, restored.settled) == (2, ((1, ((7, 8),)),))
    assert restored.jobs[0].manifest == big.manifest


async def test_closing_on_a_full_disk_says_so_to_who_waits(opened: Opened) -> None:
    await opened.write(EpochBegun(epoch=1))
    opened.store._writer.execute("PRAGMA max_page_count = 1")
    big = JobAdded(job=JOB, manifest=b"x" * 100_000, key=b"", reply_secret=b"", wall=Wall(0))
    waiter = opened.store.commit([big], full=True)
    await opened.until_trouble_changes()
    await opened.store.close()
    with pytest.raises(DiskFullError):
        await waiter
    with pytest.raises(DiskFullError):
        await opened.store.commit([granted()], full=False)


async def test_a_row_that_cannot_be_stored_is_the_end(opened: Opened) -> None:
    await opened.write(ADDED)
    waiting = opened.store.commit([EpochBegun(epoch=5), ADDED], full=True)  # the same job twice
    with pytest.raises(StorageError, match="report this"):
        await waiting
    assert opened.store.trouble is not None
    with pytest.raises(StorageError):
        await opened.store.commit([EpochBegun(epoch=6)], full=True)
    assert (await opened.reopened()).epoch == 0


async def test_a_value_that_sqlite_cannot_hold_is_the_end(opened: Opened) -> None:
    with pytest.raises(StorageError, match="could not be stored"):
        await opened.store.commit([EpochBegun(epoch=1 << 70)], full=True)


async def test_a_closed_store_takes_nothing(opened: Opened) -> None:
    await opened.store.close()
    with pytest.raises(StorageError, match="closed"):
        await opened.store.commit([granted()], full=False)
    with pytest.raises(StorageError):
        opened.store.job(JOB)


async def test_a_closed_store_prunes_nothing(opened: Opened) -> None:
    await opened.store.close()
    waiter = opened.store.prune(StoreSettings())
    await opened.store.close()
    assert waiter.cancelled()


async def test_commit_before_start_is_a_mistake(tmp_path: Path) -> None:
    store, _ = Store.open(tmp_path / "store.sqlite", clock)
    with pytest.raises(RuntimeError):
        store.commit([granted()], full=False)
    with pytest.raises(RuntimeError):
        store.prune(StoreSettings())
    await store.close()


# -- opening what is there -------------------------------------------------------------------------------------------


def raw(path: Path, sql: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


async def filled(path: Path) -> None:
    store, _ = Store.open(path, clock)
    store.start()
    rows = [ADDED, *(granted(task=n, lease=LeaseId(1, n)) for n in range(2000))]
    await store.commit(rows, full=True)
    await store.close()


async def test_a_damaged_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await filled(path)
    whole = path.read_bytes()
    page = 4096
    damages = {
        "header": b"\xff" * 100 + whole[100:],
        "garbage": b"not a database, surely" * 1000,
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "pages": whole[: 3 * page] + b"\x5a" * (len(whole) - 3 * page),
        "short": whole[:50],
    }
    for name, content in damages.items():
        path.write_bytes(content)
        with pytest.raises(StoreDamagedError, match="damaged") as caught:
            Store.open(path, clock)
        assert "backup" in str(caught.value), name
        assert path.read_bytes() == content, name
    path.write_bytes(whole)
    store, restored = Store.open(path, clock)
    await store.close()
    assert len(restored.leases) == 2000


async def test_a_value_that_does_not_decode_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await filled(path)
    raw(path, "INSERT INTO peers VALUES (1, x'00', 'n', x'c1')")
    with pytest.raises(StoreDamagedError, match="does not decode"):
        Store.open(path, clock)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    await filled(path)
    raw(path, "PRAGMA user_version = 2")
    with pytest.raises(RefusedError, match="newer p2pq"):
        Store.open(path, clock)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    raw(path, "CREATE TABLE theirs (x)")
    with pytest.raises(StoreDamagedError, match="another program"):
        Store.open(path, clock)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        Store.open(tmp_path / "missing" / "store.sqlite", clock)


def test_a_crash_while_making_the_store_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / ".store.sqlite.new").write_bytes(b"half")
    store, restored = Store.open(tmp_path / "store.sqlite", clock)
    asyncio.run(store.close())
    assert restored == Restored()
    assert not (tmp_path / ".store.sqlite.new").exists()


# -- kill -9 ---------------------------------------------------------------------------------------------------------

CRASHER = """
import asyncio, sys
from pathlib import Path
from p2pq.core.records import EpochBegun, JobAdded, LeaseGranted
from p2pq.daemon.store import Store
from p2pq.model.ids import LeaseId

async def main(path, start):
    store, _ = Store.open(Path(path), lambda: 0)
    store.start()
    async def write(number):
        job = number.to_bytes(16, "big")
        await store.commit([
            JobAdded(job=job, manifest=b"m" * 300, key=b"", reply_secret=b"", wall=number),
            *(LeaseGranted(lease=LeaseId(1, number * 10 + n), job=job, task=n, attempt=1, worker=b"w", wall=0)
              for n in range(10)),
        ], full=number % 5 == 0)
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    number = start
    while True:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(write(number))
                number += 1

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    acknowledged: set[int] = set()
    for start, acknowledgements in ((0, 3), (100_000, 150), (200_000, 60)):
        argv = [sys.executable, "-c", CRASHER, str(path), str(start)]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        with subprocess.Popen(  # noqa: ASYNC220  the reads below are short
            argv, stdout=subprocess.PIPE, env=environ, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(acknowledgements):
                acknowledged.add(int(process.stdout.readline()))
            process.send_signal(signal.SIGKILL)
            lines = process.stdout.read().splitlines(keepends=True)
            acknowledged |= {int(line) for line in lines if line.endswith("\n")}
        store, restored = Store.open(path, clock)
        await store.close()
        stored = {job.wall: len(job.tasks) for job in restored.jobs}
        assert acknowledged <= stored.keys()
        assert set(stored.values()) == {10}, "a batch is there as a whole or not at all"
        assert len(restored.leases) == 10 * len(stored)


@pytest.mark.slow
async def test_it_is_fast_enough(opened: Opened) -> None:
    """Tens of thousands of row updates in a second."""
    await opened.write(EpochBegun(epoch=1), ADDED)
    tasks = 20_000
    begun = time.perf_counter()
    for first in range(0, tasks, 50):
        numbers = range(first, first + 50)
        opened.store.commit([granted(task=n, lease=LeaseId(1, n)) for n in numbers], full=False)
        waiter = opened.store.commit([attempt_ended(item(task=n, lease=LeaseId(1, n))) for n in numbers], full=True)
    await waiter
    rate = 2 * tasks / (time.perf_counter() - begun)
    print(f"{rate:.0f} rows/s")
    assert rate > 10_000
