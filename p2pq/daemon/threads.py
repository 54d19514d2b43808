"""Work in a worker thread that is always waited for."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], executor: Executor | None = None) -> T:
    """Run ``work`` in a worker thread, of those of ``executor`` if there is one.

    When cancelled, wait for it first, since it cannot be stopped.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await settled(future)
        raise


async def settled(future: "asyncio.Future[T]") -> None:
    """Wait until a thread's work is over, whatever came of it and however often this is cancelled."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue  # the caller raises its own
    if not future.cancelled():
        future.exception()
