"""Sources of a test's own, for the sensors that ask several."""

from collections.abc import Callable
from typing import Any, cast

from p2pq.daemon.sensors.displays import Idle
from p2pq.daemon.sensors.logind import Session
from p2pq.daemon.sensors.seats import Sources

UID = 1000


class FakeDisplay:
    """An X server."""

    def __init__(self, seconds: float = 500.0, *, blanked: bool = False, off: bool = False, full: bool = False) -> None:
        self.tells = True
        self.seconds, self.blanked, self.off, self.full = seconds, blanked, off, full

    def idle(self) -> Idle:
        return Idle(self.seconds, self.blanked)

    def dark(self) -> bool:
        return self.off

    def full_screen(self) -> bool:
        return self.full


class FakeSources:
    """Everybody who is asked: displays, logind, the desktop, terminals and devices."""

    def __init__(self) -> None:
        self.shown: dict[int, FakeDisplay] = {}
        self.wayland = False
        self.refused: tuple[str, ...] = ()
        self.known: tuple[Session, ...] = ()
        self.answers: bool | None = True
        self.used: float | None = None
        self.is_locked: bool | None = None
        self.typed = 9_000.0
        self.touched: float | None = None

    def look(self) -> bool:
        return bool(self.shown)

    def each(self, ask: Callable[[Any], Any]) -> list[tuple[int, Any]]:
        return [(number, ask(display)) for number, display in self.shown.items()]

    def sessions(self) -> tuple[Session, ...]:
        return self.known

    def locked(self) -> bool | None:
        return self.is_locked

    def sources(self) -> Sources:
        """Return itself in each of these parts."""
        desktop, terminals, devices = (
            FakeIdle(lambda: self.used),
            FakeIdle(lambda: self.typed),
            FakeIdle(lambda: self.touched),
        )
        desktop.locked = self.locked  # type: ignore[attr-defined]
        fakes: Any = cast("Any", self)
        return Sources(fakes, fakes, cast("Any", desktop), cast("Any", terminals), cast("Any", devices), UID)


class FakeIdle:
    """Whoever says how long nobody did something."""

    def __init__(self, say: Callable[[], float | None]) -> None:
        self._say = say

    def idle_s(self, *_now: float) -> float | None:
        return self._say()


def session(**changes: Any) -> Session:
    """Return a session at a screen, in use."""
    found: dict[str, Any] = {"uid": UID, "greeter": False, "active": True, "wayland": True, "display": None}
    return Session(**found | {"locked": False, "idle_since": None} | changes)
