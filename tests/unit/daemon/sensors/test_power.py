"""Mains and batteries, as /sys shows them."""

from pathlib import Path
from typing import Any

import pytest

from p2pq.daemon.sensors.power import Power

BATTERY = {"type": "Battery", "present": 1, "capacity": 50, "status": "Discharging"}


@pytest.mark.parametrize(
    ("supplies", "read"),
    [
        ({}, (True, None)),
        ({"AC": {"type": "Mains", "online": 0}}, (True, None)),
        ({"AC": {"type": "Mains", "online": 1}, "BAT0": BATTERY}, (True, 0.5)),
        ({"AC": {"type": "Mains", "online": 0}, "BAT0": BATTERY}, (False, 0.5)),
        ({"AC": {"type": "Mains", "online": 0}, "usb": {"type": "USB", "online": 1}, "BAT0": BATTERY}, (True, 0.5)),
        ({"BAT0": BATTERY}, (False, 0.5)),
        ({"BAT0": BATTERY | {"status": "Charging"}}, (True, 0.5)),
        ({"BAT0": BATTERY, "BAT1": BATTERY | {"capacity": 100, "status": "Unknown"}}, (False, 0.75)),
        ({"BAT0": BATTERY, "BAT1": BATTERY | {"capacity": 100, "present": 0}}, (False, 0.5)),
        ({"mouse": BATTERY | {"scope": "Device"}}, (True, None)),
        ({"BAT0": BATTERY | {"capacity": "?"}}, (False, None)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_power(tmp_path: Path, supplies: dict[str, dict[str, Any]], read: tuple[bool, float | None]) -> None:
    for name, files in supplies.items():
        folder = tmp_path / "sys" / "class" / "power_supply" / name
        folder.mkdir(parents=True)
        for file, value in files.items():
            (folder / file).write_text(f"{value}\n")
    assert Power(str(tmp_path)).read() == read
