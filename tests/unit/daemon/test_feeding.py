"""Standard input of commands, on its way in and on its way to a task."""

import asyncio
import os

import pytest

from p2pq.daemon import feeding as module
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.feeding import Uploads, write
from p2pq.errors import DiskFullError, NotFoundError, RefusedError, UsageError
from p2pq.wire.commandcontrol import KeepInput
from p2pq.wire.feed import Feed
from p2pq.wire.tree import convergent

NAME = b"n" * 16


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(tmp_path / "blobs", quota_bytes=4 << 20, reserve_bytes=0)


@pytest.fixture
def uploads(blobs):
    return Uploads(blobs, convergent(b"s" * 32))


async def keep(uploads, *pieces, name=NAME):
    for piece in pieces:
        await uploads.keep(KeepInput(upload=name, data=piece), None)


def read(blobs, path, feed, task):
    write(feed, task, blobs, path)
    return path.read_bytes()


async def test_what_came_in_is_what_tasks_read(uploads, blobs, tmp_path):
    large = os.urandom(100_000)
    await keep(uploads, b"ab", large, b"c")
    with uploads.taken(NAME) as chunks:
        feed = Feed((1, 0, len(large) + 2), chunks)
        found = [read(blobs, tmp_path / str(task), feed, task) for task in range(3)]
    assert found == [b"a", b"", b"b" + large + b"c"]
    assert large not in b"".join(path.read_bytes() for path in (tmp_path / "blobs").rglob("*") if path.is_file())


async def test_it_is_held_until_it_is_taken_and_can_be_taken_once(uploads, blobs):
    await keep(uploads, b"a")
    [tag] = blobs._tags
    with uploads.taken(NAME) as [chunk]:
        assert blobs._tags[tag] == {chunk.blob}
        with pytest.raises(NotFoundError, match="submit them again"), uploads.taken(NAME):
            pass
    assert not blobs._tags
    with uploads.taken(None) as chunks:
        assert chunks == ()


async def test_what_nobody_takes_is_forgotten(uploads, blobs, monkeypatch):
    class Timer:
        def __init__(self, delay_s, call, *args):
            self.delay_s, self.fire, self.cancelled = delay_s, lambda: call(*args), False
            timers.append(self)

        def cancel(self):
            self.cancelled = True

    timers = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", Timer)
    await keep(uploads, b"a", b"b")
    assert [(timer.delay_s, timer.cancelled) for timer in timers] == [(600.0, True), (600.0, False)]
    timers[-1].fire()
    assert not blobs._tags
    with pytest.raises(NotFoundError), uploads.taken(NAME):
        pass


async def test_there_is_an_end_to_how_much_comes_in(uploads, monkeypatch):
    monkeypatch.setattr(module, "UPLOADS_MAX", 1)
    monkeypatch.setattr(module, "BLOBS_MAX", 2)
    await keep(uploads, b"a", b"b")
    with pytest.raises(UsageError, match="at most 2 pieces"):
        await keep(uploads, b"c")
    with pytest.raises(RefusedError, match="try again"):
        await keep(uploads, b"c", name=b"m" * 16)


async def test_what_does_not_fit_into_the_store_is_refused(uploads):
    with pytest.raises(DiskFullError, match="blobs_mb"):
        await keep(uploads, *(os.urandom(1 << 20) for _ in range(5)))


async def test_a_disk_without_room_is_said_before_anything_is_written(uploads, blobs, tmp_path, monkeypatch):
    await keep(uploads, b"a")
    monkeypatch.setattr(module.room.files, "free_bytes", lambda _: 0)
    with uploads.taken(NAME) as chunks, pytest.raises(DiskFullError, match="the standard input would take"):
        write(Feed((1,), chunks), 0, blobs, tmp_path / "stdin")
    assert not (tmp_path / "stdin").exists()
