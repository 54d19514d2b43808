"""Input: the least of what everybody says, and nothing where somebody might not be heard of."""

from typing import Any

import pytest

from p2pq.daemon.sensors.seats import NO_SAVER, STARTING, WAYLAND, Seats
from tests.unit.daemon.sensors.sourcekit import FakeDisplay, FakeSources, session

WALL = 20_000.0
X11 = {"wayland": False, "display": 0}


def idle(**changes: Any) -> tuple[float | None, str]:
    """Return what is said where these sources differ from a machine without a screen."""
    sources = FakeSources()
    for name, value in changes.items():
        setattr(sources, name, value)
    return Seats(sources.sources(), lambda: 1.0, lambda: WALL).idle_s()


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 9_000),
        ({"answers": False}, 9_000),
        ({"touched": 3.0}, 3),
        ({"shown": {0: FakeDisplay(500)}}, 500),
        ({"shown": {0: FakeDisplay(500), 1: FakeDisplay(20)}}, 20),
        ({"shown": {0: FakeDisplay(500)}, "typed": 4.0}, 4),
        ({"shown": {0: FakeDisplay(500)}, "known": (session(**X11),)}, 500),  # whose desktop tells logind nothing
        ({"shown": {0: FakeDisplay(500)}, "known": (session(wayland=False, display=1, uid=7),)}, 0),  # somebody else's
        ({"known": (session(idle_since=WALL - 60),)}, 60),
        ({"known": (session(idle_since=WALL + 60),)}, 0),
        ({"known": (session(),)}, 0),
        ({"known": (session(),), "used": 2.5}, 2.5),
        ({"known": (session(idle_since=WALL - 60),), "used": 2.5}, 2.5),
        ({"known": (session(uid=7, idle_since=WALL - 60),), "used": 2.5}, 60),
        ({"known": (session(greeter=True),)}, 9_000),
        ({"known": (session(idle_since=WALL - 60), session(idle_since=WALL - 30))}, 30),
        ({"wayland": True, "answers": False, "used": 2.5, "typed": 1.5}, 1.5),
        ({"refused": ("X server :0: No",), "known": (session(**X11, uid=7, idle_since=WALL - 60),)}, 60),
    ],
)
def test_the_least_counts(changes: dict[str, Any], seconds: float) -> None:
    assert idle(**changes) == (seconds, "")


def mute() -> FakeDisplay:
    display = FakeDisplay()
    display.tells = False
    return display


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"answers": None}, STARTING),
        ({"shown": {0: FakeDisplay(), 2: mute()}}, f"the X server :2 {NO_SAVER}"),
        ({"wayland": True}, WAYLAND),
        ({"wayland": True, "known": (session(greeter=True, wayland=False),)}, WAYLAND),
        ({"refused": ("X server :0: No",)}, "X server :0: No; start the node as the user who is logged in there"),
        (
            {"refused": ("X server :0: No",), "shown": {1: FakeDisplay()}, "known": (session(greeter=True),)},
            "X server :0: No; start the node as the user who is logged in there",
        ),
    ],
)
def test_where_somebody_may_not_be_heard_of_nothing_is_known(changes: dict[str, Any], why: str) -> None:
    assert idle(**changes) == (None, why)
