"""Output of running tasks: what a peer that asks for it can do to the node that runs them."""

import asyncio
import os
from types import SimpleNamespace

import pytest

from p2pq.daemon.logs import CHUNK_BYTES, PENDING_BYTES_MAX, Logs, aad
from p2pq.model.ids import LeaseId, NodeId
from p2pq.wire import seal
from p2pq.wire.messages import LogData, LogStop, LogWant

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
        self.news = asyncio.Event()
        self.guests = Guests()
        self.stdout = folder / "stdout"
        self.stdout.write_bytes(b"")
        start = SimpleNamespace(lease=LEASE, master=MASTER, key=KEY)
        self.guests.running[MASTER, LEASE] = SimpleNamespace(start=start, stdout=self.stdout, stderr=None)
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


async def test_output_that_nobody_asked_for_or_that_another_node_sends_is_not_taken(worker):
    queue = asyncio.Queue()
    worker.logs._asked[7] = (MASTER, queue)
    worker.logs.on_message(OTHER, LogData(req=7, offset=0, data=b"x"))
    worker.logs.on_message(MASTER, LogData(req=8, offset=0, data=b"x"))
    assert queue.empty()
    worker.logs.on_message(MASTER, LogData(req=7, offset=0, data=b"x"))
    assert queue.qsize() == 1
