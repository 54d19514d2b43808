"""Locked, blanked, filled: by whoever knows."""

from typing import Any

import pytest

from p2pq.daemon.sensors.screens import FULL_PERIOD_S, NO_SCREEN, WAYLAND, Screens
from p2pq.daemon.sensors.seats import STARTING
from tests.unit.daemon.sensors.sourcekit import FakeDisplay, FakeSources, session

REFUSED = "X server :0: No"
ASK_AS_THEM = f"{REFUSED}; start the node as the user who is logged in there"
X11 = {"wayland": False, "display": 0}


def screens(changes: dict[str, Any]) -> Screens:
    sources = FakeSources()
    for name, value in changes.items():
        setattr(sources, name, value)
    return Screens(sources.sources(), lambda: 1.0)


@pytest.mark.parametrize(
    ("changes", "locked"),
    [
        ({"shown": {0: FakeDisplay()}}, False),
        ({"shown": {0: FakeDisplay(blanked=True)}}, True),
        ({"shown": {0: FakeDisplay(off=True)}}, True),
        ({"shown": {0: FakeDisplay(off=True), 1: FakeDisplay()}}, False),
        ({"shown": {0: FakeDisplay()}, "is_locked": True}, True),
        ({"shown": {0: FakeDisplay()}, "known": (session(**X11, locked=True),)}, True),
        ({"shown": {0: FakeDisplay(off=True)}, "known": (session(**X11),)}, True),
        ({"shown": {0: FakeDisplay()}, "known": (session(**X11),)}, False),
        ({"known": (session(locked=True),)}, True),
        ({"known": (session(),)}, False),
        ({"known": (session(),), "is_locked": True}, True),
        ({"known": (session(uid=7),), "is_locked": True}, False),
        ({"known": (session(locked=True, active=False), session())}, False),
        ({"known": (session(active=False), session(locked=True))}, True),
        ({"known": (session(greeter=True),)}, True),
        ({"wayland": True, "answers": False, "is_locked": True}, True),
        ({"wayland": True, "answers": False, "is_locked": False}, False),
        ({"refused": (REFUSED,), "known": (session(**X11, locked=True),)}, True),
    ],
)
def test_all_screens_are_locked_or_the_machine_is_not(changes: dict[str, Any], locked: bool) -> None:
    assert screens(changes).locked() == (locked, "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, NO_SCREEN),
        ({"answers": None}, STARTING),
        ({"refused": (REFUSED,)}, ASK_AS_THEM),
        ({"refused": (REFUSED,), "shown": {1: FakeDisplay(off=True)}}, ASK_AS_THEM),
        ({"wayland": True, "answers": False}, NO_SCREEN),
    ],
)
def test_where_a_screen_does_not_tell_nothing_is_known(changes: dict[str, Any], why: str) -> None:
    assert screens(changes).locked() == (None, why)


@pytest.mark.parametrize(
    ("changes", "full"),
    [
        ({}, (False, "")),
        ({"shown": {0: FakeDisplay(), 1: FakeDisplay(full=True)}}, (True, "")),
        ({"shown": {0: FakeDisplay()}, "known": (session(**X11),)}, (False, "")),
        ({"known": (session(greeter=True),)}, (False, "")),
        ({"known": (session(),)}, (None, WAYLAND)),
        ({"wayland": True}, (None, WAYLAND)),
        ({"refused": (REFUSED,)}, (None, ASK_AS_THEM)),
    ],
)
def test_a_program_that_fills_a_screen(changes: dict[str, Any], full: tuple[bool | None, str]) -> None:
    assert screens(changes).full_screen() == full


def test_windows_are_looked_at_once_a_second() -> None:
    sources = FakeSources()
    sources.shown[0] = FakeDisplay()
    now = 1.0
    found = Screens(sources.sources(), lambda: now)
    assert found.full_screen() == (False, "")
    sources.shown[0].full = True
    now += FULL_PERIOD_S - 0.1
    assert found.full_screen() == (False, "")
    now += 0.1
    assert found.full_screen() == (True, "")
