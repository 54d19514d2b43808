"""Input: the seconds since anybody touched this machine, as the least of what all say who can tell.

Who sits at a screen must be heard of by somebody, or nothing is known: a screen that nobody tells of may be in use. Terminals and
devices only ever make the time shorter.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from p2pq.daemon.sensors.desktops import Desktops
from p2pq.daemon.sensors.devices import Devices
from p2pq.daemon.sensors.displays import Display, Displays, trouble
from p2pq.daemon.sensors.logind import Logind, Session
from p2pq.daemon.sensors.terminals import Terminals

STARTING = "logind has not yet said who is logged in; it will within seconds"
NO_SAVER = "does not tell when it was last used (it lacks the extension MIT-SCREEN-SAVER); use another X server"
WAYLAND = (
    "a Wayland desktop runs, and neither logind nor the desktop says when it was last used; "
    "start the node in that session, on a machine with systemd-logind"
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Who is asked; shared with the other sensors."""

    displays: Displays
    logind: Logind
    desktops: Desktops
    terminals: Terminals
    devices: Devices
    uid: int
    """As whom the node runs."""


class Seats:
    """The sensor."""

    def __init__(
        self, sources: Sources, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        """Ask these; both clocks in seconds."""
        self._s = sources
        self._clock = clock
        self._wall = wall

    def idle_s(self) -> tuple[float | None, str]:
        """Return the seconds since the last input, or None and why that is not known and what to do about it, as one clause."""
        s = self._s
        wall = self._wall()
        s.displays.look()
        shown = s.displays.each(_idle_of)
        sessions = s.logind.sessions()
        why = self._unheard(shown, sessions)
        if why:
            return None, why
        # What a display of X says is better than what logind was told of it.
        by_display = {number for number, _ in shown}
        told = [seconds for _, seconds in shown if seconds is not None]
        told += [
            self._of_session(each, wall) for each in sessions if not each.greeter and each.display not in by_display
        ]
        told.append(s.terminals.idle_s(wall))
        if (touched := s.devices.idle_s(self._clock())) is not None:
            told.append(touched)
        return max(0.0, round(min(told), 3)), ""

    def _of_session(self, session: Session, wall: float) -> float:
        """Return how long a session at a screen has not been used, by its desktop, else as logind was told."""
        if session.wayland and session.uid == self._s.uid and (seconds := self._s.desktops.idle_s()) is not None:
            return seconds
        return 0.0 if session.idle_since is None else max(0.0, wall - session.idle_since)

    def _unheard(self, shown: Sequence[tuple[int, float | None]], sessions: Sequence[Session]) -> str:
        """Return why somebody at a screen might not be heard of, or nothing."""
        s = self._s
        if s.logind.answers is None:
            return STARTING
        if mute := [number for number, seconds in shown if seconds is None]:
            return f"the X server :{mute[0]} {NO_SAVER}"
        people = [each for each in sessions if not each.greeter]
        if s.displays.refused and not people:
            return trouble(s.displays.refused)
        if s.displays.wayland and not any(each.wayland for each in people) and s.desktops.idle_s() is None:
            return WAYLAND
        return ""


def _idle_of(display: Display) -> float | None:
    return display.idle().seconds if display.tells else None
