"""The driver: events into the core, rows to the store, effects out. The only thing that runs the core.

A turn takes what is in the inbox (256 events at most), handles each and collects the effects. A turn that recorded
rows is released when they are durable; the next turns go on meanwhile but are released after it, so effects leave in the
order in which they were decided. A turn without rows that follows none is released at once. Some effects overtake because they
promise nothing that a crash could break: heartbeats, so that a slow disk costs no leases, starts of tasks whose leases are
durable (those of others are, at their masters), so that a slot does not wait for the disk to take in the result of the task
before, and what lets these stand still, go on and, where the machine's owner is back, end.

A sleep of the machine or of this process is told to the core (``Woke``) before everything that waited meanwhile.

While the disk fails nothing is released: nobody is told of what is not durable. The store tries again; leases that cannot be
renewed by a paused driver expire, and the protocol recovers.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from p2pq.core.effects import Continue, Effect, Kill, Record, Send, Start, Suspend, Train
from p2pq.core.events import Event, Received, Tick, Woke
from p2pq.core.records import LeaseGranted, Row, needs_full
from p2pq.daemon.sleeping import LOOK_EVERY_S, Sleeps
from p2pq.errors import InvariantError, StorageError
from p2pq.model.ids import LeaseId, Mono, Wall
from p2pq.wire.messages import Heartbeat, Through

TURN_EVENTS_MAX: Final = 256
INBOX_MAX: Final = 100_000
"""Events that wait at most. Beyond it what peers say is dropped and counted: the lease protocol repeats what matters."""
ROWS_WAITING_MAX: Final = 200_000
"""Rows that are not durable at most; beyond it no turn begins until the disk has caught up."""
WALL_EVERY_S: Final = 60.0
"""How often the core is told the wall time, and its invariants are checked."""
STOPPING: Final = "the node is stopping; try again when it runs"
JUMP_MS: Final = 2000
"""The wall clock jumped if it went this much faster or slower than the monotonic one."""


class Machine(Protocol):
    """What the driver needs of ``core.node.Node``."""

    @property
    def deadline(self) -> Mono | None:
        """When it wants to be called next, if nothing happens before."""

    def handle(self, event: Event, now: Mono) -> list[Effect]:
        """Decide."""

    def check(self) -> None:
        """Assert the invariants."""


class Committer(Protocol):
    """What the driver needs of ``daemon.store.Store``."""

    @property
    def trouble(self) -> StorageError | None:
        """Why nothing can be written now."""

    def commit(self, rows: Sequence[Row], *, full: bool) -> asyncio.Future[None]:
        """Make rows durable, in the order of the calls."""


Answer = asyncio.Future[list[Effect]]


class _Turn:
    __slots__ = ("answers", "durable", "effects", "rows")

    def __init__(self) -> None:
        self.effects: list[Effect] = []
        self.rows: list[Row] = []
        self.answers: list[tuple[Answer, list[Effect]]] = []
        self.durable: asyncio.Future[None] | None = None


class Driver:
    """Runs one core; everything but ``run`` may be called at any time from the event loop."""

    def __init__(
        self,
        node: Machine,
        store: Committer,
        perform: Callable[[Effect], None],
        mono: Callable[[], Mono],
        wall: Callable[[], Wall],
        boot: Callable[[], float] | None = None,
    ) -> None:
        """Wire it up; nothing happens before ``run``.

        Args:
            node: the core.
            store: where its rows go.
            perform: does one effect, without waiting; what comes of it returns as an event.
            mono: the clock that the event loop runs on, or a test's.
            wall: the wall clock.
            boot: a clock like ``mono`` that counts the machine's sleep too; None where there is none.
        """
        self._node = node
        self._store = store
        self._perform = perform
        self._mono = mono
        self._wall = wall
        self._inbox: deque[tuple[Event, Answer | None]] = deque()
        self._turns: deque[_Turn] = deque()
        self._rows_waiting = 0
        self._granting: dict[LeaseId, None] = {}
        """Leases of this node's tasks that are not durable yet."""
        self._wake = asyncio.Event()
        self._sleeps = Sleeps(mono, boot)
        self._woke: list[Woke] = []
        self._told_mono = mono()
        self._told_wall = wall()
        self._over = False
        self.dropped = 0
        """Messages of peers that found the inbox full."""

    def post(self, event: Event) -> None:
        """Let the core handle this soon. Never waits and never fails."""
        if len(self._inbox) >= INBOX_MAX and isinstance(event, Received):
            self.dropped += 1
            return
        self._inbox.append((event, None))
        self._wake.set()

    async def post_durable(self, event: Event) -> list[Effect]:
        """Let the core handle this and return its effects when they are durable and have been performed.

        Raises:
            StorageError: nothing can be written now. If it could when this was called, the event has been handled all the
                same and will be durable if the disk recovers.
        """
        if self._over:
            raise StorageError(STOPPING)
        if self._store.trouble is not None:
            raise self._store.trouble
        answer: Answer = asyncio.get_running_loop().create_future()
        self._inbox.append((event, answer))
        self._wake.set()
        return await answer

    def trouble_changed(self, trouble: StorageError | None) -> None:
        """Hear from the store that it cannot write (or can again): whoever waits for durability is told so."""
        if trouble is None:
            return
        for turn in self._turns:
            for answer, _ in turn.answers:
                if not answer.done():
                    answer.set_exception(trouble)

    async def flush(self) -> None:
        """Return when all that was posted before has been handled, made durable and performed."""
        await self.post_durable(Tick())

    async def run(self) -> None:
        """Run the core until cancelled.

        Raises:
            InvariantError: the core broke a promise of its own; the process must end.
            StorageError: the store is damaged; the process must end.
        """
        try:
            self._inbox.appendleft((self._tell_wall(), None))
            self._sleeps.look()  # what went by before is nobody's sleep
            while True:
                await self._until_something()
                self._woke += self._sleeps.look()
                self._release()
                if self._rows_waiting < ROWS_WAITING_MAX:
                    self._turn()
                    self._release()
                await asyncio.sleep(0)  # one turn of ours, one of everybody else
        finally:
            self._abandon()

    async def _until_something(self) -> None:
        if self._ready():
            return
        self._wake.clear()
        wait_s = self._told_mono + WALL_EVERY_S - self._mono()
        if self._node.deadline is not None:
            wait_s = min(wait_s, self._node.deadline - self._mono())
        if self._rows_waiting >= ROWS_WAITING_MAX:
            wait_s = WALL_EVERY_S  # the disk is what we wait for
        if wait_s <= 0:
            return
        wait_s = min(wait_s, LOOK_EVERY_S)
        self._sleeps.wait(wait_s)
        timer = asyncio.get_running_loop().call_later(wait_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _ready(self) -> bool:
        return bool(self._turns and _done(self._turns[0])) or (
            bool(self._inbox) and self._rows_waiting < ROWS_WAITING_MAX
        )

    def _turn(self) -> None:
        turn = _Turn()
        if self._clock_moved():
            self._inbox.appendleft((self._tell_wall(), None))
        elif not self._inbox and not self._woke and self._due():
            self._inbox.append((Tick(), None))
        # First of all, as it moves the very deadlines that anything else would fire.
        self._inbox.extendleft((woke, None) for woke in self._woke)
        self._woke.clear()
        for _ in range(min(TURN_EVENTS_MAX, len(self._inbox))):
            event, answer = self._inbox.popleft()
            effects = self._handle(event)
            turn.effects += effects
            if answer is not None:
                turn.answers.append((answer, effects))
        if not turn.effects and not turn.answers:
            return
        turn.rows = [effect.row for effect in turn.effects if isinstance(effect, Record)]
        if turn.rows:
            self._rows_waiting += len(turn.rows)
            self._granting |= dict.fromkeys(row.lease for row in turn.rows if isinstance(row, LeaseGranted))
            turn.durable = self._store.commit(turn.rows, full=needs_full(turn.rows))
            turn.durable.add_done_callback(lambda _: self._wake.set())
        if turn.rows or self._turns:
            turn.effects = [effect for effect in turn.effects if not self._overtakes(effect)]
        self._turns.append(turn)

    def _handle(self, event: Event) -> list[Effect]:
        try:
            return self._node.handle(event, self._mono())
        except AssertionError as error:
            raise InvariantError(f"{error} (while handling {type(event).__name__})") from error

    def _overtakes(self, effect: Effect) -> bool:
        match effect:
            case (
                Send(message=Heartbeat() | Through(message=Heartbeat()))
                | Start(own=False)
                | Suspend()
                | Continue()
                | Kill(reason="evicted")
            ):
                self._perform(effect)
                return True
            case Start(lease=lease) if lease not in self._granting:
                self._perform(effect)
                return True
            case Train(starts=starts) if not any(start.own and start.lease in self._granting for start in starts):
                self._perform(effect)
                return True
            case _:
                return False

    def _release(self) -> None:
        """Perform what is durable, in order; events that come of it wait in the inbox."""
        while self._turns and _done(self._turns[0]):
            turn = self._turns[0]
            if turn.durable is not None:
                turn.durable.result()  # a store that is damaged ends us here
            self._turns.popleft()
            self._rows_waiting -= len(turn.rows)
            for row in turn.rows:
                if isinstance(row, LeaseGranted):
                    self._granting.pop(row.lease, None)
            for effect in turn.effects:
                if not isinstance(effect, Record):
                    self._perform(effect)
            for answer, effects in turn.answers:
                if not answer.done():
                    answer.set_result(effects)

    def _due(self) -> bool:
        return self._node.deadline is not None and self._node.deadline <= self._mono()

    def _clock_moved(self) -> bool:
        passed_s = self._mono() - self._told_mono
        jumped_ms = self._wall() - self._told_wall - 1000 * passed_s
        return passed_s >= WALL_EVERY_S or abs(jumped_ms) >= JUMP_MS

    def _tell_wall(self) -> Tick:
        self._told_mono, self._told_wall = self._mono(), self._wall()
        try:
            self._node.check()
        except AssertionError as error:
            raise InvariantError(str(error)) from error
        return Tick(wall=self._told_wall)

    def _abandon(self) -> None:
        self._over = True
        answers = [answer for turn in self._turns for answer, _ in turn.answers]
        answers += [answer for _, answer in self._inbox if answer is not None]
        for answer in answers:
            if not answer.done():
                answer.set_exception(StorageError(STOPPING))


def _done(turn: _Turn) -> bool:
    return turn.durable is None or turn.durable.done()
