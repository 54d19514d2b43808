"""What doctor says."""

from p2pq.daemon.sensors.findings import findings
from p2pq.daemon.sensors.load import MEASURING
from p2pq.daemon.sensors.screens import NO_SCREEN, WAYLAND
from p2pq.model.owner import SENSORS, Readings
from p2pq.wire.control import Finding


def said(readings: Readings) -> dict[str, str]:
    return {each.check.removeprefix("sensor "): each.detail for each in findings(readings, SENSORS) if each.ok}


def test_what_sensors_say_is_told() -> None:
    readings = Readings(
        idle_s=12.3,
        locked=True,
        full_screen=True,
        saver=True,
        load=0.25,
        pressure=0.5,
        mains=False,
        battery=0.3,
        programs=("a", "b"),
    )
    assert said(readings) == {
        "input": "last used 12 s ago",
        "screen": "locked or blanked, filled by a program, screensaver",
        "load": "others use 25% of all cores",
        "memory": "some process waited for memory in 50% of the last ten seconds",
        "power": "on battery, battery at 30%",
        "programs": "these run: a, b",
    }
    calm = Readings(idle_s=0.0, locked=False, pressure=0.0, mains=True, programs=(), absent=(("load", MEASURING),))
    assert said(calm) == {
        "input": "last used 0 s ago",
        "screen": "in use",
        "load": "is being measured",
        "memory": "some process waited for memory in 0% of the last ten seconds",
        "power": "on mains",
        "programs": "none of those named runs",
    }


def test_a_sensor_that_cannot_tell_is_a_failure_with_what_to_do() -> None:
    readings = Readings(
        absent=(("screen", NO_SCREEN), ("screen", WAYLAND), ("load", MEASURING), ("input", "nobody knows"))
    )
    assert findings(readings, ("screen", "load")) == [
        Finding(check="sensor load", ok=True, detail="is being measured"),
        *(
            Finding(check="sensor screen", ok=False, detail=why.partition("; ")[0], suggestion=why.partition("; ")[2])
            for why in (NO_SCREEN, WAYLAND)
        ),
    ]


def test_a_machine_without_a_screen_is_fine_for_who_does_not_ask_whether_it_is_locked() -> None:
    readings = Readings(full_screen=False, absent=(("screen", NO_SCREEN),))
    assert findings(readings, ("screen",), locks=False) == [
        Finding(check="sensor screen", ok=True, detail="no desktop runs here")
    ]
    assert [each.ok for each in findings(readings, ("screen",))] == [False]
