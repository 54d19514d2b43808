"""Screen: locked or blanked, or filled by a program.

All screens that people may look at have to be locked for the machine to count as locked. A login screen is locked. Of a machine
without any screen nothing is known: nobody has left it to others by locking it.
"""

import time
from collections.abc import Callable
from typing import Final

from p2pq.daemon.sensors.displays import Display, trouble
from p2pq.daemon.sensors.seats import STARTING, Sources

FULL_PERIOD_S: Final = 1.0
"""A film is not begun and ended within that."""
NO_SCREEN: Final = "no desktop runs here, so no screen can be locked; choose another policy"
WAYLAND: Final = (
    "a Wayland desktop does not say which program fills the screen; name such programs in [policy] programs"
)


class Screens:
    """The sensor."""

    def __init__(self, sources: Sources, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask these; the clock in seconds."""
        self._s = sources
        self._clock = clock
        self._looked: float | None = None
        self._full = False

    def locked(self) -> tuple[bool | None, str]:
        """Return whether every screen is locked or blanked; or None, and why that is not known."""
        s = self._s
        s.displays.look()
        dark = dict(s.displays.each(_dark))
        sessions = [each for each in s.logind.sessions() if each.active]
        if s.logind.answers is None:
            return None, STARTING
        own = s.desktops.locked()
        found = []
        for each in sessions:
            is_dark = dark.pop(each.display, False) if each.display is not None else False
            found.append(each.greeter or each.locked or is_dark or (bool(own) and each.uid == s.uid))
        # Screens of which logind has no session belong to whom the node runs as.
        found += [is_dark or bool(own) for is_dark in dark.values()]
        if s.displays.wayland and not any(each.wayland for each in sessions) and own is not None:
            found.append(own)
        if found and not s.displays.refused:
            return all(found), ""
        if s.displays.refused and not sessions:
            return None, trouble(s.displays.refused)
        return (all(found), "") if found else (None, NO_SCREEN)

    def full_screen(self) -> tuple[bool | None, str]:
        """Return whether a program fills a screen; or None, and why that is not known. Not looked at more than once a second."""
        s = self._s
        s.displays.look()
        sessions = [each for each in s.logind.sessions() if each.active and not each.greeter]
        if s.displays.wayland or any(each.wayland for each in sessions):
            return None, WAYLAND
        if s.displays.refused:
            return None, trouble(s.displays.refused)
        now = self._clock()
        if self._looked is None or now - self._looked >= FULL_PERIOD_S:
            self._looked = now
            self._full = any(full for _, full in s.displays.each(_full_screen))
        return self._full, ""


def _dark(display: Display) -> bool:
    return (display.tells and display.idle().blanked) or display.dark()


def _full_screen(display: Display) -> bool:
    return display.full_screen()
