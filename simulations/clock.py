"""The monotonic clock of one host, and what waits for it: a machine may sleep, and a process may be stopped."""

from collections.abc import Callable
from typing import Any

from p2pq.model.ids import Mono
from simulations.world import World

Timer = tuple[float, Callable[..., None], tuple[Any, ...], bool]
"""When it is due by the host's clock, what is due, and whether that goes on while only the node is stopped."""


class Clock:
    """Seconds that do not count while the machine sleeps, and timers that count by it.

    While the node is stopped or asleep its timers do not fire; those of tasks do while only the node is stopped. What fell due
    meanwhile fires at the release, in the order in which it was due.
    """

    def __init__(self, world: World) -> None:
        """Begin with the world's time."""
        self._world = world
        self._slept_s = 0.0
        self._held_since = 0.0
        self._asleep = False
        self._floor = 0.0
        self._held: list[Timer] = []
        self.held = False

    @property
    def now(self) -> Mono:
        """The present by this clock."""
        at = self._held_since if self._asleep else self._world.now
        return Mono(max(self._floor, at - self._slept_s))

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """Let the node call that in so many of this host's seconds."""
        self._set((self.now + seconds, call, arguments, False))

    def after_of_task(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """Let a task end in so many of this host's seconds."""
        self._set((self.now + seconds, call, arguments, True))

    def at(self, instant: float, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        """Let the node call that at an instant of this clock."""
        self._set((instant, call, arguments, False))

    def hold(self, *, asleep: bool) -> None:
        """Stop the node, or let the machine sleep."""
        self.held = True
        self._held_since = self._world.now
        self._asleep = asleep

    def release(self) -> tuple[float, bool]:
        """Go on; return how long it was held, in seconds, and whether this clock went on meanwhile."""
        held_s = self._world.now - self._held_since
        counted = not self._asleep
        if self._asleep:
            self._slept_s += held_s
        self.held = self._asleep = False
        timers, self._held = self._held, []
        for timer in sorted(timers, key=lambda timer: timer[0]):
            self._set(timer)
        return held_s, counted

    def reset(self) -> None:
        """The host went down: it is no longer asleep, and what waited is forgotten."""
        self._held.clear()
        if self.held:
            self.release()

    def _set(self, timer: Timer) -> None:
        self._world.at(max(self._world.now, timer[0] + self._slept_s), self._fire, timer)

    def _fire(self, timer: Timer) -> None:
        due, call, arguments, of_task = timer
        if self._asleep or (self.held and not of_task):
            self._held.append(timer)
        elif due > self.now + 1e-6:  # it slept meanwhile
            self._set(timer)
        else:
            self._floor = max(self._floor, due)  # where the sum of sleeps is rounded
            call(*arguments)
