"""A desktop, as a table on a bus of its own answers for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pq.daemon.sensors import bus, desktops
from p2pq.daemon.sensors.desktops import AGAIN_S, IDLE, SAVERS, SILENT_S, Desktops
from tests.desktopkit import message_bus, service

NAMES = (str(IDLE.bus_name), *(str(saver.bus_name) for saver in SAVERS[:2]))


class Desk:
    """Answers, a clock, and the desktop's reader."""

    def __init__(self, address: str) -> None:
        self.now = 100.0
        self.desktops = Desktops({"DBUS_SESSION_BUS_ADDRESS": address}, clock=lambda: self.now)

    def until(self, look: Callable[[], object], value: object) -> None:
        """Look until that is what is seen."""
        while look() != value:
            pass


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "GREETING_S", 20)
    monkeypatch.setattr(desktops, "WAIT_S", 20)


@pytest.mark.desktop
def test_a_desktop_says_how_long_it_has_not_been_used_and_whether_it_is_locked(tmp_path: Path) -> None:
    answers: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {
        (IDLE.object_path, "GetIdletime"): ("t", (4_000,)),
        (SAVERS[1].object_path, "GetActive"): ("b", (False,)),
    }
    with message_bus(tmp_path) as address, service(address, NAMES, lambda: answers) as made:
        desk = Desk(address)
        assert desk.desktops.idle_s() == 4.0
        assert desk.desktops.locked() is False
        answers[SAVERS[1].object_path, "GetActive"] = ("b", (True,))
        answers[IDLE.object_path, "GetIdletime"] = ("t", (0,))
        desk.until(desk.desktops.locked, value=True)
        desk.now += SILENT_S
        desk.until(desk.desktops.idle_s, value=0.0)
        asked = made.asked.count((SAVERS[0].object_path, "GetActive"))
        desk.desktops.locked()
        assert made.asked.count((SAVERS[0].object_path, "GetActive")) == asked == 1  # it has none
        del answers[SAVERS[1].object_path, "GetActive"]
        answers[SAVERS[0].object_path, "GetActive"] = ("b", (True,))
        desk.until(desk.desktops.locked, value=None)
        desk.now += AGAIN_S
        desk.until(desk.desktops.locked, value=True)
    desk.until(desk.desktops.locked, value=None)
    assert desk.desktops.idle_s() is None
    desk.desktops.close()


@pytest.mark.desktop
def test_a_desktop_that_hangs_says_nothing_after_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {(IDLE.object_path, "GetIdletime"): ("t", (4_000,))}
    with message_bus(tmp_path) as address, service(address, NAMES, lambda: answers) as made:
        desk = Desk(address)
        assert desk.desktops.idle_s() == 4.0
        monkeypatch.setattr(desktops, "WAIT_S", 0)
        made.close()
        desk.now += 0.75
        desk.desktops.idle_s()
        desk.now += 0.25
        assert desk.desktops.idle_s() is None
        desk.desktops.close()


def test_without_a_bus_nothing_is_known() -> None:
    desk = Desk("unix:path=/none")
    assert desk.desktops.idle_s() is None
    assert desk.desktops.locked() is None
