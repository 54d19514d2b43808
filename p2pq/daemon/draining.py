"""How a node goes down: what has not started is handed back, what runs may end or leave a checkpoint, and all is said."""

import asyncio
import contextlib
from typing import Final, Protocol

from p2pq.core.effects import Effect
from p2pq.core.events import Drain, Event
from p2pq.errors import StorageError

LET_FINISH_S: Final = 3.0
"""How long a node that was told to stop waits for tasks that are running."""
SAVE_GRACE_S: Final = 2.5
"""How long at most they then have to leave a checkpoint and end by themselves ([runner] grace_s may be less)."""
SAVE_S: Final = 4.0
"""How long in all until their checkpoints are packed and with their masters; the rest is handed back without."""
FLUSH_S: Final = 1.5
"""How long it waits until what it decided is durable and said."""
LOOK_S: Final = 0.05


class Driving(Protocol):
    """What is needed of the driver."""

    async def post_durable(self, event: Event) -> list[Effect]:
        """Let the core handle an event; return when what it decided is durable and done."""

    async def flush(self) -> None:
        """Return when all that was posted before has been handled."""


class Busy(Protocol):
    """What is needed of the core."""

    @property
    def busy(self) -> bool:
        """Whether it holds leases as a worker."""

    @property
    def owes(self) -> bool:
        """Whether a linked master has yet to acknowledge a result."""


async def drain(driver: Driving, node: Busy, *, at_once: bool) -> None:
    """Hand back what has not started, let what runs end if it does so soon or leave a checkpoint, hand back the rest."""
    if not at_once:
        await _settle(driver, node, Drain(), LET_FINISH_S)
        await _settle(driver, node, Drain(save_s=SAVE_GRACE_S), SAVE_S)
    with contextlib.suppress(TimeoutError, StorageError):
        async with asyncio.timeout(FLUSH_S):
            await driver.post_durable(Drain(now=True))
            await driver.flush()


async def _settle(driver: Driving, node: Busy, event: Drain, seconds: float) -> None:
    """Drain further, and wait until nothing runs here any more and linked masters have all that ran."""
    with contextlib.suppress(TimeoutError, StorageError):
        async with asyncio.timeout(seconds):
            await driver.post_durable(event)
            while node.busy or node.owes:  # noqa: ASYNC110  for a moment, at the very end
                await asyncio.sleep(LOOK_S)
