"""Power: mains or battery, as /sys/class/power_supply says."""

from typing import Final

from p2pq.daemon.sensors import peeking

FOLDER: Final = "/sys/class/power_supply"
OUTSIDE: Final = frozenset({"Mains", "USB", "Wireless"})
"""Kinds of supplies that draw from a wall."""


class Power:
    """The sensor."""

    def __init__(self, root: str = "") -> None:
        """Look below ``root``."""
        self._folder = root + FOLDER

    def read(self) -> tuple[bool, float | None]:
        """Return whether the machine does not run on its battery, and how full that is, from 0 to 1.

        A machine without a battery runs on mains, whatever its supplies say of themselves. Batteries of mice and keyboards
        are not the machine's; of several that are, the mean counts.
        """
        full: list[float] = []
        online: list[bool] = []
        discharging = False
        for name in peeking.names(self._folder):
            supply = f"{self._folder}/{name}"
            kind = peeking.text(f"{supply}/type")
            if peeking.text(f"{supply}/scope") == "Device":
                continue
            if kind in OUTSIDE:
                online.append(bool(peeking.number(f"{supply}/online")))
            elif kind == "Battery" and peeking.number(f"{supply}/present") != 0:
                charge = peeking.number(f"{supply}/capacity")
                full += [] if charge is None else [max(0, min(100, charge)) / 100]
                discharging = discharging or peeking.text(f"{supply}/status") == "Discharging"
        mains = any(online) if full and online else not discharging
        return mains, round(sum(full) / len(full), 3) if full else None
