"""A thread's work is over when whoever asked for it goes on, even when that was cancelled."""

import asyncio
import threading

import pytest

from p2pq.daemon.threads import in_thread, settled


async def test_it_returns_what_the_work_returns():
    assert await in_thread(threading.get_ident) != threading.get_ident()


async def test_whoever_is_cancelled_waits_for_the_work_first():
    go, began, over = threading.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def work():
        loop.call_soon_threadsafe(began.set)
        go.wait(10)
        over.append(1)

    task = loop.create_task(in_thread(work))
    await began.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over == [1]


async def test_what_the_work_raised_is_nobodys_surprise():
    async def fail():
        raise ValueError

    task = asyncio.get_running_loop().create_task(fail())
    await settled(task)
    assert isinstance(task.exception(), ValueError)
