"""A disk: what was recorded survives a crash once it has been committed, and what depends on it waits for that."""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import msgspec

from p2pq.core.effects import Effect, Record, Send, Start
from p2pq.core.ledger import Ledger
from p2pq.core.records import Restored, Row, needs_full
from p2pq.model.ids import Wall
from p2pq.wire.messages import Heartbeat

COMMIT_S = (0.001, 0.006)
"""How long a commit takes."""


def _overtakes(effect: Effect) -> bool:
    match effect:
        case Start(own=own):  # those of a train are its own
            return not own
        case Send(message=message):
            return isinstance(message, Heartbeat)
        case _:
            return False


class After(Protocol):
    """A clock that calls."""

    def __call__(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """Call that in so many seconds."""
        ...


class Watch(Protocol):
    """Who hears what becomes of rows."""

    def durable(self, rows: list[Row]) -> None:
        """One transaction: it survives the end of the process."""
        ...

    def synced(self) -> None:
        """Whatever is durable so far survives a loss of power."""
        ...

    def undone(self, count: int) -> None:
        """The power was lost, and with it the last ``count`` durable rows."""
        ...


class _Turn(msgspec.Struct, frozen=True):
    rows: list[Row]
    effects: list[Effect]


class Disk:
    """Group commit: the rows of a turn are durable before any effect of that turn or a later one is performed.

    Heartbeats, and starts under another master's lease, alone overtake: nothing that they promise is recorded here.

    As in SQLite's write-ahead log, a transaction is there whole or not at all. One with rows that need it syncs the log; of
    those since the last such one a loss of power leaves a prefix.
    """

    def __init__(self, after: After, rng: Random, perform: Callable[[Effect], None], watch: Watch) -> None:
        """Start empty.

        Args:
            after: calls something in so many seconds.
            rng: its own source of chance.
            perform: does an effect whose time has come.
            watch: hears what becomes of rows.
        """
        self._after = after
        self._rng = rng
        self._perform = perform
        self._watch = watch
        self._synced = Ledger()
        self._tail: list[list[Row]] = []
        """Transactions since the log was synced."""
        self._turns: deque[_Turn] = deque()
        self._committing = 0
        self._life = 0
        self.commit_s = COMMIT_S
        """How long a commit takes."""

    def restored(self, wall: Wall) -> Restored:
        """Return what a node that starts now is given. To read the log is to sync it, as far as a node can tell.

        As in the daemon, a life begins after every epoch that a store which is lost can have used.
        """
        self._sync()
        restored = self._synced.restored()
        return msgspec.structs.replace(restored, epoch=max(restored.epoch, wall))

    def take(self, effects: list[Effect]) -> None:
        """Take in the effects of one turn."""
        rows = [effect.row for effect in effects if isinstance(effect, Record)]
        if not rows and not self._turns:
            for effect in effects:
                self._perform(effect)
            return
        later: list[Effect] = []
        for effect in effects:
            if _overtakes(effect):
                self._perform(effect)
            elif not isinstance(effect, Record):
                later.append(effect)
        if rows or later:
            self._turns.append(_Turn(rows, later))
        if not self._committing:
            self._commit()

    def _commit(self) -> None:
        self._committing = len(self._turns)
        if self._committing:
            self._after(self._rng.uniform(*self.commit_s), self._committed, self._life)

    def _committed(self, life: int) -> None:
        if life != self._life:
            return
        turns = [self._turns.popleft() for _ in range(self._committing)]
        self._keep(turns)
        for turn in turns:
            for effect in turn.effects:
                self._perform(effect)
        self._commit()

    def _keep(self, turns: list[_Turn]) -> None:
        rows = [row for turn in turns for row in turn.rows]
        if rows:
            self._watch.durable(rows)
            self._tail.append(rows)
        if needs_full(rows):
            self._sync()

    def _sync(self) -> None:
        for rows in self._tail:
            for row in rows:
                self._synced.apply(row)
        self._tail.clear()
        self._watch.synced()

    def crash(self, *, power: bool) -> None:
        """Lose what was not committed; whether a commit under way succeeded is a matter of chance.

        ``power``: it failed, so that of what was not synced a prefix is left, which may be all or nothing.
        """
        if power:
            left = self._rng.choice((0, len(self._tail), self._rng.randint(0, len(self._tail))))
            lost = self._tail[left:]
            del self._tail[left:]
            self._watch.undone(sum(map(len, lost)))
            whole = not lost
        else:
            whole = True
        if whole and self._rng.random() < 0.5:
            self._keep([self._turns.popleft() for _ in range(self._committing)])
        self._forget()

    def wipe(self) -> None:
        """Be another disk, with an empty store."""
        self._forget()
        self._tail.clear()
        self._synced = Ledger()

    def _forget(self) -> None:
        self._turns.clear()
        self._committing = 0
        self._life += 1
