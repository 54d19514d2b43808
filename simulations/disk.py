"""A disk: what was recorded survives a crash once it has been committed, and what depends on it waits for that."""

from collections import deque
from collections.abc import Callable

from p2pq.core.effects import Effect, Record, Send, Start
from p2pq.core.ledger import Ledger
from p2pq.core.records import Row
from p2pq.wire.messages import Heartbeat
from simulations.world import World

COMMIT_S = (0.001, 0.006)
"""How long a commit takes."""


def _overtakes(effect: Effect) -> bool:
    match effect:
        case Start(own=own):
            return not own
        case Send(message=message):
            return isinstance(message, Heartbeat)
        case _:
            return False


class Disk:
    """Group commit: the rows of a turn are durable before any effect of that turn or a later one is performed.

    Heartbeats, and starts under another master's lease, alone overtake: nothing that they promise is recorded here.
    """

    def __init__(self, world: World, name: str, perform: Callable[[Effect], None], kept: Callable[[Row], None]) -> None:
        """Start empty.

        Args:
            world: the clock.
            name: of its own source of chance.
            perform: does an effect whose time has come.
            kept: hears of every row that became durable.
        """
        self.ledger = Ledger()
        self._world = world
        self._rng = world.rng(name)
        self._perform = perform
        self._kept = kept
        self._turns: deque[tuple[list[Row], list[Effect]]] = deque()
        self._committing = 0
        self._life = 0

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
            self._turns.append((rows, later))
        if not self._committing:
            self._commit()

    def _commit(self) -> None:
        self._committing = len(self._turns)
        if self._committing:
            self._world.after(self._rng.uniform(*COMMIT_S), self._committed, self._life)

    def _committed(self, life: int) -> None:
        if life != self._life:
            return
        turns = [self._turns.popleft() for _ in range(self._committing)]
        self._keep(turns)
        for _, effects in turns:
            for effect in effects:
                self._perform(effect)
        self._commit()

    def _keep(self, turns: list[tuple[list[Row], list[Effect]]]) -> None:
        for rows, _ in turns:
            for row in rows:
                self.ledger.apply(row)
                self._kept(row)

    def crash(self) -> None:
        """Lose what was not committed; whether a commit under way succeeded is a matter of chance."""
        if self._rng.random() < 0.5:
            self._keep([self._turns.popleft() for _ in range(self._committing)])
        self._turns.clear()
        self._committing = 0
        self._life += 1
