"""What running tasks print is sent as they print it, and counted."""

import asyncio
from types import SimpleNamespace

import pytest

from p2pq.core.placement import TaskSnapshot
from p2pq.daemon import mixing
from p2pq.daemon.mixing import Mixer
from p2pq.model.ids import LeaseId
from p2pq.wire.control import LogChunk, Note

ROW = SimpleNamespace(job=b"j" * 16)


class World:
    """Tasks whose output the test writes."""

    def __init__(self, group):
        self.tasks = {}
        self.lines = {}
        self.sent = asyncio.Queue()
        self.ended_at = []
        self.mixer = Mixer(ROW, logs=self, scheduler=self, send=self.sent.put, group=group)

    def run(self, task, *, attempt=1, started=True, state="running"):
        lease = LeaseId(attempt, task)
        self.tasks[task] = TaskSnapshot(task=task, state=state, attempts=attempt, lease=lease, started=started)

    def task(self, job, task):
        assert job == ROW.job
        return self.tasks.get(task)

    async def stream(self, row, index, live, stream, offset, send, *, follow):
        assert (row, follow) == (ROW, True)
        while (item := await self.queue(live.lease, stream).get()) is not None:
            await send(item)
        self.ended_at.append(offset)

    def queue(self, lease, stream):
        return self.lines.setdefault((lease, stream), asyncio.Queue())

    def print(self, task, text, *, attempt=1, stream="stdout"):
        self.queue(LeaseId(attempt, task), stream).put_nowait(LogChunk(task=task, data=text, stream=stream))

    async def next(self):
        async with asyncio.timeout(10):
            return await self.sent.get()


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr(mixing, "TAIL_POLL_S", 0)
    monkeypatch.setattr(mixing, "AGAIN_S", 0)
    async with asyncio.TaskGroup() as group:
        world = World(group)
        watching = group.create_task(world.mixer.watch())
        yield world
        watching.cancel()
        world.mixer.close()


async def test_tasks_are_told_of_as_they_print_and_what_was_told_is_counted(world):
    for task in (0, 1):
        world.run(task)
        world.mixer.granted([task])
    world.print(0, b"abc")
    assert (await world.next()).data == b"abc"
    world.print(1, b"d", stream="stderr")
    assert (await world.next()).data == b"d"
    assert world.mixer.end(0).counts == {"stdout": 3, "stderr": 0}
    told = world.mixer.end(1)
    assert (told.lease, told.counts) == (LeaseId(1, 1), {"stdout": 0, "stderr": 1})
    assert world.mixer.end(0) is None


async def test_what_has_not_started_waits_and_what_ended_meanwhile_is_forgotten(world):
    world.run(0, started=False)
    world.run(1, state="done")
    world.mixer.granted([0, 1, 2])
    for _ in range(5):
        await asyncio.sleep(0)
    assert [world.mixer.end(task) for task in (0, 1, 2)] == [None] * 3
    world.mixer.granted([0])
    world.run(0)
    world.print(0, b"late")
    assert (await world.next()).data == b"late"


async def test_another_attempt_is_another_story(world):
    world.run(0)
    world.mixer.granted([0])
    world.print(0, b"first")
    await world.next()
    world.run(0, attempt=2)
    world.mixer.granted([0])
    world.print(0, b"2nd", attempt=2)
    assert (await world.next()).data == b"2nd"
    told = world.mixer.end(0)
    assert (told.lease, told.counts["stdout"]) == (LeaseId(2, 0), 3)


async def test_notes_are_passed_on_and_no_more_than_so_many_are_followed(world, monkeypatch):
    monkeypatch.setattr(mixing, "TAILS_MAX", 1)
    for task in (0, 1):
        world.run(task)
    world.mixer.granted([0, 1])
    world.queue(LeaseId(1, 0), "stdout").put_nowait(Note(text="away"))
    assert await world.next() == Note(text="away")
    world.print(1, b"x")
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.sent.empty()
    assert world.mixer.end(0).counts["stdout"] == 0
    assert (await world.next()).data == b"x"


async def test_what_was_silent_for_long_is_asked_again_from_where_it_was(world):
    world.run(0)
    world.mixer.granted([0])
    for text in (b"abc", b"de"):
        world.print(0, text)
        world.queue(LeaseId(1, 0), "stdout").put_nowait(None)
        assert (await world.next()).data == text
    world.print(0, b"f")
    assert (await world.next()).data == b"f"
    assert world.ended_at == [0, 3]
    assert world.mixer.end(0).counts["stdout"] == 6
