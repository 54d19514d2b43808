"""Desktops of the user whom the node runs as: they know better than logind when they were used, and whether they are locked."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from jeepney import DBusAddress

from p2pq.daemon.sensors.bus import Bus, BusGoneError

AGAIN_S: Final = 30.0
"""Ask for a bus again after that."""
OLD_S: Final = 0.25
"""Where the last answer is older, wait for the next one,"""
WAIT_S: Final = 0.005
"""as long as that."""
SILENT_S: Final = 1.0
"""An answer older than that says nothing."""
IDLE: Final = DBusAddress(
    "/org/gnome/Mutter/IdleMonitor/Core", "org.gnome.Mutter.IdleMonitor", "org.gnome.Mutter.IdleMonitor"
)
SAVERS: Final = tuple(
    DBusAddress(path, name, name)
    for path, name in (
        ("/org/freedesktop/ScreenSaver", "org.freedesktop.ScreenSaver"),  # KDE
        ("/org/gnome/ScreenSaver", "org.gnome.ScreenSaver"),
        ("/org/cinnamon/ScreenSaver", "org.cinnamon.ScreenSaver"),
        ("/org/mate/ScreenSaver", "org.mate.ScreenSaver"),
        ("/org/xfce/ScreenSaver", "org.xfce.ScreenSaver"),
    )
)


class Desktops:
    """Asks the session bus. Not for several threads."""

    def __init__(self, environ: Mapping[str, str], root: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        """Look on the bus that the environment names, else on the one that systemd starts for this user."""
        runtime = environ.get("XDG_RUNTIME_DIR") or f"{root}/run/user/{os.geteuid()}"
        self._address = environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={runtime}/bus"
        self._clock = clock
        self._bus: Bus | None = None
        self._dialled: float | None = None
        self._answers: dict[str, tuple[float, int]] = {}
        """To each name the last answer, and when it came."""
        self._asked: set[str] = set()
        self._absent: dict[str, float] = {}
        """Who answers nothing, since when."""

    def close(self) -> None:
        """Close the connection; a later question opens it again."""
        self._lose()
        self._dialled = None

    def _lose(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None
        self._answers.clear()
        self._asked.clear()
        self._absent.clear()

    def idle_s(self) -> float | None:
        """Return the seconds since anybody used this user's desktop; None where none says that."""
        found = self._ask([IDLE], "GetIdletime")
        return found[0][1] / 1000 + self._clock() - found[0][0] if found else None

    def locked(self) -> bool | None:
        """Return whether this user's desktop is locked; None where none says that."""
        found = self._ask(SAVERS, "GetActive")
        return any(active for _, active in found) if found else None

    def _ask(self, addresses: Sequence[DBusAddress], method: str) -> list[tuple[float, int]]:
        """Ask once more, unless an answer is due, and return the answers of late, with when they came."""
        now = self._clock()
        by_name = {str(address.bus_name): address for address in addresses}
        here = [name for name in by_name if now - self._absent.get(name, -math.inf) >= AGAIN_S]
        try:
            if self._bus is None and (self._dialled is None or now - self._dialled >= AGAIN_S):
                self._dialled = now
                self._bus = Bus(self._address, lambda _: None)
            if self._bus is None or not here:
                return []
            self._bus.look()
            wait = False
            for name in [name for name in here if name not in self._asked]:
                self._asked.add(name)
                self._bus.ask(by_name[name], method, self._taker(name))
                wait = wait or now - self._answers.get(name, (-math.inf, 0))[0] > OLD_S
            until = time.monotonic() + WAIT_S
            while wait and self._asked and (left := until - time.monotonic()) > 0:
                self._bus.look(left)
        except BusGoneError:
            self._lose()
        found = [self._answers[name] for name in here if name in self._answers]
        return [(at, value) for at, value in found if now - at < SILENT_S]

    def _taker(self, name: str) -> Callable[[tuple[Any, ...] | None], None]:
        def take(body: tuple[Any, ...] | None) -> None:
            self._asked.discard(name)
            if body is None:
                self._answers.pop(name, None)
                self._absent[name] = self._clock()
            else:
                self._answers[name] = (self._clock(), int(body[0]))

        return take
