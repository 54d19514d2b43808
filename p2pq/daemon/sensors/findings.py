"""What `p2pq doctor` says of the sensors that a policy needs."""

from collections.abc import Collection

from p2pq.daemon.sensors.load import MEASURING
from p2pq.daemon.sensors.screens import NO_SCREEN
from p2pq.model.owner import Readings
from p2pq.wire.control import Finding


def findings(readings: Readings, needs: Collection[str], *, locks: bool = True) -> list[Finding]:
    """Return one finding for each sensor that is needed, and one more for each further reason why one cannot tell.

    A sensor that has not measured long enough yet is none that fails, nor is one of a screen that is not there, unless it matters
    that the screen ``locks``.
    """
    found = []
    excused = {MEASURING} if locks else {MEASURING, NO_SCREEN}
    for name in sorted(needs):
        reasons = [why for sensor, why in readings.absent if sensor == name and why not in excused]
        for reason in reasons:
            detail, _, todo = reason.partition("; ")
            found.append(Finding(check=f"sensor {name}", ok=False, detail=detail, suggestion=todo))
        if not reasons:
            found.append(Finding(check=f"sensor {name}", ok=True, detail=_said(name, readings)))
    return found


def _said(name: str, readings: Readings) -> str:
    """Return what a sensor says now, for people."""
    match name:
        case "input":
            return f"last used {readings.idle_s or 0:.0f} s ago"
        case "screen":
            return _screen(readings)
        case "load":
            return "is being measured" if readings.load is None else f"others use {readings.load:.0%} of all cores"
        case "memory":
            return f"some process waited for memory in {readings.pressure or 0:.0%} of the last ten seconds"
        case "power":
            battery = "" if readings.battery is None else f", battery at {readings.battery:.0%}"
            return f"{'on mains' if readings.mains else 'on battery'}{battery}"
        case _:
            return f"these run: {', '.join(readings.programs)}" if readings.programs else "none of those named runs"


def _screen(readings: Readings) -> str:
    if ("screen", NO_SCREEN) in readings.absent:
        return NO_SCREEN.partition(",")[0]
    state = "locked or blanked" if readings.locked else "in use"
    return (
        f"{state}{', filled by a program' if readings.full_screen else ''}{', screensaver' if readings.saver else ''}"
    )
