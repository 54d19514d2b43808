"""Keyboards and mice themselves: the kernel counts what comes from them, whatever reads it.

Neither /dev/input nor its files' times tell (reading does not change these). What does: interrupts of the controller of
built-in keyboards (i8042), and the transfers of each USB keyboard and mouse (``urbnum``): one ends, and the next begins,
only when the device has something to say. Only changes are seen, so before the first one the time since the first look counts.
"""

import re
from typing import Final

from p2pq.daemon.sensors import peeking

RESCAN_S: Final = 30.0
"""Devices come and go."""
_HUMAN: Final = "03"
_KEYBOARD_OR_MOUSE: Final = frozenset({"01", "02"})
_BUILT_IN: Final = re.compile(rb"^\s*\w+:((?:\s+\d+)+)\s.*\bi8042\b", re.MULTILINE)


class Devices:
    """Looks at what the kernel counts."""

    def __init__(self, root: str = "") -> None:
        """Look below ``root``."""
        self._interrupts = f"{root}/proc/interrupts"
        self._usb = f"{root}/sys/bus/usb/devices"
        self._found: tuple[str, ...] = ()
        self._scanned: float | None = None
        self._counts: dict[str, int] = {}
        self._last = 0.0
        self._built_in = True

    def idle_s(self, now: float) -> float | None:
        """Return the seconds since the first look, or since the last key or movement after it; None without a device to look at.

        ``now`` is the same clock's, seconds.
        """
        if self._scanned is None:
            self._last = now
        if self._scanned is None or now - self._scanned >= RESCAN_S:
            self._found = self._devices()
            self._scanned = now
        counts = self._count()
        if any(name in self._counts and self._counts[name] != count for name, count in counts.items()):
            self._last = now
        self._counts = counts
        return now - self._last if counts else None

    def _count(self) -> dict[str, int]:
        counts = {}
        for device in self._found:
            count = peeking.number(f"{self._usb}/{device}/urbnum")
            if count is not None:
                counts[device] = count
        if self._built_in:
            rows = _BUILT_IN.findall(peeking.read(self._interrupts))
            self._built_in = bool(rows)  # such a controller does not turn up later
            if rows:
                counts["i8042"] = sum(int(number) for row in rows for number in row.split())
        return counts

    def _devices(self) -> tuple[str, ...]:
        """Return the USB devices that are keyboards or mice."""
        return tuple(
            sorted(
                {
                    interface.partition(":")[0]
                    for interface in peeking.names(self._usb)
                    if ":" in interface
                    and peeking.text(f"{self._usb}/{interface}/bInterfaceClass") == _HUMAN
                    and peeking.text(f"{self._usb}/{interface}/bInterfaceProtocol") in _KEYBOARD_OR_MOUSE
                }
            )
        )
