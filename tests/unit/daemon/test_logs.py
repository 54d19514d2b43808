"""Output of running tasks: what a peer that asks for it can do to the node that runs them."""

import asyncio
import os
from types import SimpleNamespace

import msgspec
import pytest

from p2pq.core.placement import TaskSnapshot
from p2pq.core.records import JobEnded, LeaseEnded, LeaseGranted
from p2pq.daemon import logs
from p2pq.daemon.history import Kept
from p2pq.daemon.logs import CHUNK_BYTES, PENDING_BYTES_MAX, Logs, aad
from p2pq.errors import NotFoundError, RefusedError
from p2pq.model.ids import LeaseId, NodeId, Wall
from p2pq.model.job import Outcome
from p2pq.wire import control, seal
from p2pq.wire.messages import LogData, LogStop, LogWant
from tests.unit.daemon.jobskit import AUTHOR, id_of

MASTER, OTHER = NodeId(b"m" * 32), NodeId(b"o" * 32)
LEASE = LeaseId(1, 1)
KEY = b"k" * 32


class Guests:
    def __init__(self):
        self.running = {}

    def find(self, lease, master):
        return self.running.get((master, lease))


class Worker:
    """A worker's Logs; with ``limit`` its link takes nothing."""

    def __init__(self, tasks, folder):
        self.said = []
        self.queued = 0
        self.limit = False
        self.bridges = {}
        self.leaves = {}
        self.news = asyncio.Event()
        self.guests = Guests()
        self.stdout = folder / "stdout"
        self.stdout.write_bytes(b"")
        start = SimpleNamespace(lease=LEASE, master=MASTER, key=KEY)
        self.guests.running[MASTER, LEASE] = SimpleNamespace(
            start=start, stdout=self.stdout, stderr=None, over=asyncio.Event()
        )
        self.logs = Logs(
            node=NodeId(b"w" * 32),
            guests=self.guests,
            jobs=None,
            store=None,
            blobs=None,
            scheduler=None,
            tasks=tasks,
            say=self.say,
            pending=lambda _: self.queued if self.limit else 0,
            bridge_of=self.bridges.get,
            leaf_of=lambda master, lease: self.leaves.get((master, lease)),
        )

    def say(self, peer, message):
        self.said.append((peer, message))
        if isinstance(message, LogData):
            self.queued += len(message.data)
        self.news.set()

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def worker(tmp_path):
    async with asyncio.TaskGroup() as tasks:
        bench = Worker(tasks, tmp_path)
        yield bench
        bench.logs.link_down(MASTER)


def data_of(said):
    return [message for _, message in said if isinstance(message, LogData)]


async def test_output_is_held_back_while_the_link_is_behind(worker):
    worker.stdout.write_bytes(os.urandom(3 * PENDING_BYTES_MAX))
    worker.limit = True
    worker.logs.on_message(MASTER, LogWant(req=1, lease=LEASE, stream="stdout"))
    await worker.until(lambda: worker.queued > PENDING_BYTES_MAX)
    for _ in range(100):
        await asyncio.sleep(0)
    assert worker.queued <= PENDING_BYTES_MAX + 2 * CHUNK_BYTES
    worker.queued = 0  # the link has caught up
    await worker.until(lambda: worker.queued > PENDING_BYTES_MAX)


async def test_a_gigabyte_of_output_leaves_everybody_else_their_turn(worker):
    worker.stdout.write_bytes(os.urandom(20 * CHUNK_BYTES))
    worker.logs.on_message(MASTER, LogWant(req=1, lease=LEASE, stream="stdout"))
    turns = 0
    while len(data_of(worker.said)) < 20:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 20


async def test_output_reaches_the_master_whole_and_bound_to_its_place(worker):
    printed = os.urandom(3 * CHUNK_BYTES + 7)
    worker.stdout.write_bytes(printed)
    worker.logs.on_message(MASTER, LogWant(req=1, lease=LEASE, stream="stdout", offset=5))
    await worker.until(lambda: len(data_of(worker.said)) == 4)
    plain = b"".join(
        seal.decrypt_body(KEY, message.data, aad(LEASE, "stdout", message.offset), size_max=CHUNK_BYTES)
        for message in data_of(worker.said)
    )
    assert plain == printed[5:]
    worker.logs.on_message(MASTER, LogStop(req=1))


async def test_only_the_master_of_an_attempt_is_told_what_it_prints(worker):
    worker.stdout.write_bytes(b"secret")
    worker.logs.on_message(OTHER, LogWant(req=1, lease=LEASE, stream="stdout"))
    assert worker.said == [(OTHER, LogData(req=1, offset=0, data=b"", end=True))]


async def test_the_bridge_of_a_master_is_told_for_it_and_no_other_node_is(worker):
    worker.stdout.write_bytes(b"output")
    for master in (MASTER, b"short"):
        worker.logs.on_message(OTHER, LogWant(req=1, lease=LEASE, stream="stdout", master=master))
    assert [message.end for message in data_of(worker.said)] == [True, True]
    worker.said.clear()
    worker.bridges[MASTER] = OTHER
    worker.logs.on_message(OTHER, LogWant(req=2, lease=LEASE, stream="stdout", master=MASTER))
    await worker.until(lambda: data_of(worker.said))
    [(to, said)] = worker.said
    assert to == OTHER
    assert seal.decrypt_body(KEY, said.data, aad(LEASE, "stdout", 0), size_max=CHUNK_BYTES) == b"output"
    worker.logs.link_down(OTHER)


async def test_a_bridge_asks_its_leaf_and_passes_the_answer_on(worker):
    lease = LeaseId(2, 2)
    worker.leaves[MASTER, lease] = OTHER
    want = LogWant(req=4, lease=lease, stream="stdout", offset=3)
    worker.logs.on_message(MASTER, want)
    worker.logs.on_message(OTHER, LogData(req=1, offset=3, data=b"x"))
    worker.logs.on_message(MASTER, LogStop(req=4))
    asked = msgspec.structs.replace(want, req=1, master=MASTER)
    passed = LogData(req=4, offset=3, data=b"x")
    assert worker.said == [(OTHER, asked), (MASTER, passed), (OTHER, LogStop(req=1))]
    worker.said.clear()
    worker.logs.on_message(OTHER, LogWant(req=5, lease=lease, stream="stdout", master=MASTER))
    assert worker.said == [(OTHER, LogData(req=5, offset=0, data=b"", end=True))], "it is for the leaf itself to answer"
    worker.logs.on_message(MASTER, want)
    worker.logs.link_down(OTHER)
    assert worker.said[-1] == (MASTER, LogData(req=4, offset=0, data=b"", end=True))


@pytest.mark.parametrize("bridge", [None, MASTER])
async def test_a_worker_is_asked_itself_or_through_the_bridge_that_speaks_for_it(worker, bridge):
    worker.bridges[OTHER] = bridge
    asked = bridge or OTHER
    sealed = seal.encrypt_body(KEY, b"output", aad(LEASE, "stdout", 0))
    got = []

    async def read():
        got.extend([data async for data in worker.logs._remote(OTHER, LEASE, KEY, "stdout", 0, follow=True)])

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        await worker.until(lambda: worker.said)
        worker.logs.on_message(asked, LogData(req=1, offset=0, data=sealed))
        worker.logs.on_message(asked, LogData(req=1, offset=6, data=b"", end=True))
    assert got == [b"output"]
    want = LogWant(req=1, lease=LEASE, stream="stdout")
    assert worker.said == [(asked, want), (asked, LogStop(req=1))]


async def test_what_the_next_task_prints_is_not_shown_as_that_of_one_that_has_ended(worker):
    guest = worker.guests.running[MASTER, LEASE]
    guest.stdout = None  # it has not started yet
    worker.logs.on_message(MASTER, LogWant(req=1, lease=LEASE, stream="stdout"))
    await asyncio.sleep(0)
    guest.stdout = worker.stdout
    del worker.guests.running[MASTER, LEASE]
    worker.stdout.write_bytes(b"the next task of this runner")
    await worker.until(lambda: any(message.end for message in data_of(worker.said)))
    assert b"".join(message.data for message in data_of(worker.said)) == b""


async def test_the_end_of_a_task_is_told_at_once_and_not_when_its_file_is_looked_at_next(worker, monkeypatch):
    monkeypatch.setattr(logs, "TAIL_POLL_S", 1000.0)
    guest = worker.guests.running[MASTER, LEASE]
    worker.logs.on_message(MASTER, LogWant(req=1, lease=LEASE, stream="stdout"))
    await asyncio.sleep(0)
    worker.stdout.write_bytes(b"last words")
    del worker.guests.running[MASTER, LEASE]
    guest.over.set()
    await worker.until(lambda: any(message.end for message in data_of(worker.said)))
    assert len(data_of(worker.said)) == 2


async def test_output_that_nobody_asked_for_or_that_another_node_sends_is_not_taken(worker):
    queue = asyncio.Queue()
    worker.logs._asked[7] = (MASTER, queue)
    worker.logs.on_message(OTHER, LogData(req=7, offset=0, data=b"x"))
    worker.logs.on_message(MASTER, LogData(req=8, offset=0, data=b"x"))
    assert queue.empty()
    worker.logs.on_message(MASTER, LogData(req=7, offset=0, data=b"x"))
    assert queue.qsize() == 1


# -- as master: attempts ------------------------------------------------------------------------------------------------

BAD = Outcome(reason="exit", exit=3)


def stored(rig, **parts):
    return Logs(
        node=AUTHOR.node,
        guests=Guests(),
        jobs=rig.jobs,
        store=rig.store,
        blobs=rig.blobs,
        scheduler=rig.scheduler,
        tasks=None,
        say=None,
        **parts,
    )


async def read(rig, view, **fields):
    replies = await rig.ask(stored(rig).logs, control.Logs(job=view.job, **fields))
    return b"".join(reply.data for reply in replies).decode()


async def test_each_attempt_keeps_what_it_printed(rig, folder):
    view = await rig.submit(folder, array="3,5")
    job = id_of(rig, view)
    await rig.settle(job, 1, "pending", BAD, printed="first try")
    await rig.settle(job, 1, "done", attempt=2, printed="second try")
    assert await read(rig, view, task=5, attempt=1) == "first try"
    assert await read(rig, view, task=5, attempt=2) == await read(rig, view, task=5) == "second try"
    with pytest.raises(NotFoundError, match="no attempt 3; see `p2pq show"):
        await read(rig, view, task=5, attempt=3)
    with pytest.raises(RefusedError, match="--attempt is about one task"):
        await read(rig, view, attempt=1)


async def test_an_attempt_without_output_says_why(rig, folder):
    view = await rig.submit(folder)
    job = id_of(rig, view)
    await rig.write(
        LeaseGranted(lease=LEASE, job=job, task=0, attempt=1, worker=OTHER, wall=Wall(1)),
        LeaseEnded(lease=LEASE, job=job, task=0, attempt=1, fault="lost", detail="gone"),
        LeaseGranted(lease=LeaseId(1, 2), job=job, task=0, attempt=2, worker=AUTHOR.node, wall=Wall(1)),
    )
    with pytest.raises(NotFoundError, match=r"attempt 1 left no output \(lost: gone\)"):
        await read(rig, view, task=0, attempt=1)
    with pytest.raises(NotFoundError, match=r"attempt 2 left no output \(its lease is over\)"):
        await read(rig, view, task=0, attempt=2)
    rig.scheduler.task = lambda job, task: TaskSnapshot(
        task=0, state="running", attempts=2, lease=LeaseId(1, 2), worker=AUTHOR.node
    )
    assert await read(rig, view, task=0, attempt=2) == ""


async def test_a_kept_task_shows_what_it_printed_in_its_own_job(rig, folder):
    first = await rig.submit(folder, array="0-1")
    job = id_of(rig, first)
    await rig.settle(job, 1, printed="long ago")
    await rig.write(JobEnded(job=job, state="done", wall=Wall(4)))
    view = await rig.submit(folder, array="0-1")
    extra = rig.store.job(id_of(rig, view)).extra
    rig.store.keep_extra(id_of(rig, view), msgspec.structs.replace(extra, kept=(Kept(1, 2, job, 1),)))
    await rig.write()
    assert await read(rig, view, task=1) == await read(rig, view, task=1, follow=True) == "long ago"


# -- as master: nodes that are not reachable ----------------------------------------------------------------------------

GATE = NodeId(b"g" * 32)


def running_at(rig, worker):
    rig.scheduler.task = lambda job, task: TaskSnapshot(
        task=task, state="running", attempts=1, lease=LeaseId(1, task), worker=worker
    )


@pytest.mark.parametrize("attempt", [0, 1])
async def test_a_node_that_is_not_reachable_is_named_instead_of_asked(rig, folder, attempt):
    view = await rig.submit(folder)
    grant = LeaseGranted(lease=LEASE, job=id_of(rig, view), task=0, attempt=1, worker=OTHER, wall=Wall(1))
    await rig.write(grant)
    running_at(rig, OTHER)
    logs = stored(rig, linked=lambda _: False, bridge_of=lambda _: GATE)
    [note] = await rig.ask(logs.logs, control.Logs(job=view.job, task=0, attempt=attempt))
    assert note == control.Note(
        text="worker, where the task runs as far as is known, is not reachable now; what it has printed there is not known here"
    )


async def test_of_several_tasks_a_node_that_is_not_reachable_is_named_once(rig, folder):
    view = await rig.submit(folder, array="0-3")
    running_at(rig, OTHER)
    logs = stored(rig, linked=lambda _: False)
    assert len(await rig.ask(logs.logs, control.Logs(job=view.job))) == 1


@pytest.mark.parametrize("via", [None, GATE])
async def test_who_follows_is_told_each_time_that_the_node_is_not_reachable_and_goes_on(rig, folder, via):
    view = await rig.submit(folder)
    running_at(rig, OTHER)
    linked, asked = set(), []
    said = asyncio.Queue()
    logs = stored(rig, linked=linked.__contains__, bridge_of=lambda _: via)

    async def stream(*_, **__):
        asked.append(None)
        linked.clear()
        yield b"output"

    logs._remote = stream
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        following = group.create_task(logs.logs(control.Logs(job=view.job, follow=True), said.put))
        first = await said.get()
        assert not asked
        linked.add(via or OTHER)
        output, second = await said.get(), await said.get()
        following.cancel()
    assert (output.data, len(asked)) == (b"output", 1)
    then = "this goes on when it is back, or when the task runs again elsewhere"
    away = control.Note(text=f"worker, where the task runs as far as is known, is not reachable now; {then}")
    assert first == second == away
