"""All sensors, on a machine that is a folder, and on a real screen."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from p2pq.daemon.sensors import Sensors, displays
from p2pq.daemon.sensors.claim import claimed
from p2pq.daemon.sensors.load import MEASURING
from p2pq.daemon.sensors.memory import ABSENT
from p2pq.daemon.sensors.screens import NO_SCREEN
from p2pq.model.owner import SENSORS, Readings
from tests.desktopkit import x_server
from tests.unit.daemon.sensors.prockit import FakeProc

NOBODY = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/none", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/none"}


class Machine:
    """A machine without a screen."""

    def __init__(self, tmp_path: Path, **options: Any) -> None:
        self.fake = FakeProc(tmp_path)
        self.fake.process(os.getpid())
        self.fake.process(7, argv="blender")
        self.fake.busy(*[0] * (max(os.sched_getaffinity(0)) + 1))
        (self.fake.proc / "uptime").write_text("5000.0 1.0\n")
        (self.fake.proc / "pressure").mkdir()
        self.pressure("0.50")
        self.now = 100.0
        options = {
            "environ": NOBODY,
            "root": str(tmp_path),
            "clock": lambda: self.now,
            "wall": lambda: 1_000_000.0,
        } | options
        self.sensors = Sensors(tmp_path, ["blender"], **options)

    def pressure(self, percent: str) -> None:
        (self.fake.proc / "pressure" / "memory").write_text(f"some avg10={percent} avg60=0.00 avg300=0.00 total=0\n")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million seconds after the epoch it was 13:46 of a Monday."""
    monkeypatch.setenv("TZ", "UTC")
    import time  # noqa: PLC0415

    time.tzset()


def test_all_of_a_machine_without_a_screen(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    expected: dict[str, Any] = {
        "idle_s": 5000.0,
        "full_screen": False,
        "pressure": 0.005,
        "mains": True,
        "programs": ("blender",),
        "weekday": 0,
        "minute": 13 * 60 + 46,
    }
    absent = (("screen", NO_SCREEN), ("load", MEASURING))
    assert machine.sensors.readings() == Readings(**expected, absent=absent)
    machine.pressure("80.00")
    machine.now += 0.9
    assert machine.sensors.readings() == Readings(**expected, absent=absent)
    machine.now += 2
    assert machine.sensors.readings() == Readings(**expected | {"pressure": 0.8}, load=0.0, absent=absent[:1])
    (machine.fake.proc / "pressure" / "memory").unlink()
    machine.now += 1
    assert machine.sensors.readings().absent == (*absent[:1], ("memory", ABSENT))
    machine.sensors.close()


@pytest.mark.parametrize("name", SENSORS)
def test_only_what_is_needed_is_looked_at(tmp_path: Path, name: str) -> None:
    readings = Machine(tmp_path, needs=(name,)).sensors.readings()
    fields = {
        "input": {"idle_s"},
        "screen": {"full_screen"},
        "load": set(),
        "memory": {"pressure"},
        "power": {"mains"},
        "programs": {"programs"},
    }
    known = {field for field in ("idle_s", "locked", "full_screen", "load", "pressure", "mains", "battery", "programs")
             if getattr(readings, field) is not None}  # fmt: skip
    assert known == fields[name]
    assert {sensor for sensor, _ in readings.absent} <= {name}


def test_the_screensaver_is_seen_to_come_and_go(tmp_path: Path) -> None:
    sensors = Machine(tmp_path, needs=("screen",)).sensors
    assert not sensors.readings().saver
    with claimed(tmp_path):
        assert sensors.readings().saver
    assert not sensors.readings().saver


@pytest.mark.desktop
def test_a_real_screen_and_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displays, "ANSWER_S", 20)
    with x_server(tmp_path) as real:
        sensors = Sensors(tmp_path, environ=real.environ)
        threads = threading.active_count()
        readings = sensors.readings()
        assert readings.idle_s is not None
        assert (readings.locked, readings.full_screen, readings.saver) == (False, False, False)
        assert dict(readings.absent).keys() <= {"load", "memory"}
        real.do("xset", "s", "activate")
        assert sensors.readings().locked is True
        assert threading.active_count() == threads
        sensors.close()
        real.key()
        again = sensors.readings()
        assert again.locked is False
        sensors.close()
