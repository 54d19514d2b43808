"""Terminals: when something was last typed into a console, a window or a login from afar.

The kernel notes when a terminal was read from, in steps of eight seconds (so that nobody learns the rhythm of keys): what
is typed after eight seconds of quiet is seen at once. What programs print is not noted there.
"""

import os
import re
from typing import Final

from p2pq.daemon.sensors import peeking

_CONSOLE: Final = re.compile(r"tty[1-9]\d?")


class Terminals:
    """Looks at all terminals of a machine."""

    def __init__(self, root: str = "") -> None:
        """Look below ``root``."""
        self._dev = f"{root}/dev"
        self._windows = f"{self._dev}/pts"
        self._front = f"{root}/sys/class/tty/tty0/active"
        self._uptime = f"{root}/proc/uptime"
        self._last: float | None = None

    def idle_s(self, wall: float) -> float:
        """Return the seconds since anything was typed; since the machine started where nothing was. ``wall`` is now."""
        if self._last is None:
            up = peeking.read(self._uptime, 100).split()
            self._last = wall - float(up[0]) if up else wall
            consoles = [name for name in peeking.names(self._dev) if _CONSOLE.fullmatch(name)]
        else:
            # One console at a time has the keyboard; what others were told before is known.
            front = peeking.text(self._front)
            consoles = [front] if _CONSOLE.fullmatch(front) else []
        windows = (f"{self._windows}/{name}" for name in peeking.names(self._windows) if name.isdigit())
        for path in (*windows, *(f"{self._dev}/{name}" for name in consoles)):
            try:
                self._last = max(self._last, os.stat(path).st_atime)
            except OSError:
                continue  # closed meanwhile
        return max(0.0, wall - self._last)
