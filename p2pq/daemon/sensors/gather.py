"""All sensors together: what a policy needs to know, as ``Readings``."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

from p2pq.daemon.sensors.claim import Claim
from p2pq.daemon.sensors.desktops import Desktops
from p2pq.daemon.sensors.devices import Devices
from p2pq.daemon.sensors.displays import Displays
from p2pq.daemon.sensors.kin import Kin
from p2pq.daemon.sensors.load import Load
from p2pq.daemon.sensors.logind import Logind
from p2pq.daemon.sensors.memory import ABSENT, Memory
from p2pq.daemon.sensors.power import Power
from p2pq.daemon.sensors.programs import Programs
from p2pq.daemon.sensors.screens import Screens
from p2pq.daemon.sensors.seats import Seats, Sources
from p2pq.daemon.sensors.terminals import Terminals
from p2pq.model.owner import SENSORS, Readings

SLOW_S: Final = 1.0
"""Pressure and power are not looked at more often."""


class Sensors:
    """Looks at this machine when it is asked, and never otherwise. Use it from one thread."""

    def __init__(  # noqa: PLR0913  each is something else of this machine
        self,
        home: Path,
        programs: Collection[str] = (),
        ours: Callable[[], Collection[int]] = lambda: (),
        needs: Collection[str] = SENSORS,
        *,
        environ: Mapping[str, str] = os.environ,
        root: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; nothing is opened before the first reading.

        Args:
            home: The node's, for `p2pq screensaver`'s lock.
            programs: Those that the sensor ``programs`` looks for.
            ours: Processes of the node and its runners, by id; what they started is found from there. This process is always one.
            needs: Sensors to read, of ``SENSORS``; the others are not looked at and not said to be absent.
            environ: Where this user's displays and buses are.
            root: What stands before /proc, /sys, /dev, /tmp and /run.
            clock: Seconds that never go back.
            wall: Seconds of the clock on the wall.
        """
        kin = Kin(ours, root)
        self._sources = Sources(
            Displays(environ, kin, root, clock),
            Logind(environ, clock),
            Desktops(environ, root, clock),
            Terminals(root),
            Devices(root),
            os.geteuid(),
        )
        self._needs = frozenset(needs)
        self._wall = wall
        self._clock = clock
        self._claim = Claim(home)
        self._seats = Seats(self._sources, clock, wall)
        self._screens = Screens(self._sources, clock)
        self._load = Load(kin, root, clock)
        self._memory = Memory(root)
        self._power = Power(root)
        self._programs = Programs(tuple(programs), kin, root, clock)
        self._slow: dict[str, Any] = {}
        self._slowly: float | None = None

    def close(self) -> None:
        """Let go of displays and buses; a later reading would open them again."""
        self._sources.displays.close()
        self._sources.logind.close()
        self._sources.desktops.close()

    def readings(self) -> Readings:
        """Return what is to be known now. Takes a few hundred microseconds, at worst some tens of milliseconds."""
        local = time.localtime(self._wall())
        found: dict[str, Any] = {"weekday": local.tm_wday, "minute": local.tm_hour * 60 + local.tm_min}
        absent: list[tuple[str, str]] = []
        if "input" in self._needs:
            found["idle_s"], why = self._seats.idle_s()
            absent += [("input", why)] if why else []
        if "screen" in self._needs:
            found["saver"] = self._claim.held()
            found["locked"], unlocked = self._screens.locked()
            found["full_screen"], unfilled = self._screens.full_screen()
            if found["saver"] and found["full_screen"]:
                found["full_screen"] = False  # it is what fills the screen
            absent += [("screen", why) for why in dict.fromkeys((unlocked, unfilled)) if why]
        if "load" in self._needs:
            found["load"] = self._load.read()
            absent += [("load", self._load.absent)] if found["load"] is None else []
        if "programs" in self._needs:
            found["programs"] = self._programs.read()
        slow = self._slower()
        if "memory" in self._needs and slow["pressure"] is None:
            absent.append(("memory", ABSENT))
        return Readings(**found, **slow, absent=tuple(absent))

    def _slower(self) -> dict[str, Any]:
        """Return what does not change within a second."""
        now = self._clock()
        if self._slowly is None or now - self._slowly >= SLOW_S:
            self._slowly = now
            self._slow = {"pressure": self._memory.pressure() if "memory" in self._needs else None}
            if "power" in self._needs:
                self._slow["mains"], self._slow["battery"] = self._power.read()
        return self._slow
