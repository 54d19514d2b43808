"""logind, as a table on a bus of its own answers for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from p2pq.daemon.sensors import bus, logind
from p2pq.daemon.sensors.logind import AGAIN_S, PROPERTIES, SESSION, Logind, Session, session_of
from tests.desktopkit import message_bus, service

MANAGER = "/org/freedesktop/login1"
SEAT = {
    "User": ("(uo)", (1000, "/user")),
    "Type": ("s", "wayland"),
    "Class": ("s", "user"),
    "Remote": ("b", False),
    "Active": ("b", True),
    "Display": ("s", ""),
    "LockedHint": ("b", False),
    "IdleHint": ("b", False),
    "IdleSinceHint": ("t", 0),
}
IN_USE = Session(uid=1000, greeter=False, active=True, wayland=True, display=None, locked=False, idle_since=None)


class FakeLogind:
    """What logind knows, as a table that a test changes."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {"/1": dict(SEAT)}

    def answers(self) -> dict[tuple[str, str], tuple[str, tuple[Any, ...]]]:
        listed = [(path[1:], 1000, "somebody", "seat0", path) for path in self.known]
        found: dict[tuple[str, str], tuple[str, tuple[Any, ...]]] = {(MANAGER, "ListSessions"): ("a(susso)", (listed,))}
        return found | {(path, "GetAll"): ("a{sv}", (known,)) for path, known in self.known.items()}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "GREETING_S", 20)
    monkeypatch.setattr(logind, "FIRST_S", 0.05)


def until(found: Logind, done: Callable[[tuple[Session, ...]], bool]) -> tuple[Session, ...]:
    """Look until sessions are so."""
    while not done(sessions := found.sessions()):
        pass
    return sessions


@pytest.mark.desktop
def test_sessions_come_change_and_go(tmp_path: Path) -> None:
    fake = FakeLogind()
    with message_bus(tmp_path) as address, service(address, (logind.NAME,), fake.answers) as made:
        now = 100.0
        found = Logind({"DBUS_SYSTEM_BUS_ADDRESS": address}, lambda: now)
        assert until(found, bool) == (IN_USE,)
        assert found.answers is True
        changed = {"IdleHint": ("b", True), "IdleSinceHint": ("t", 5_000_000)}
        made.signal("/1", PROPERTIES, "PropertiesChanged", "sa{sv}as", (SESSION, changed, []))
        assert until(found, lambda all_: all_[0].idle_since is not None)[0].idle_since == 5.0
        fake.known["/1"]["LockedHint"] = ("b", True)
        made.signal("/1", PROPERTIES, "PropertiesChanged", "sa{sv}as", (SESSION, {}, ["LockedHint"]))
        assert until(found, lambda all_: all_[0].locked)
        fake.known["/2"] = SEAT | {"User": ("(uo)", (7, "/user"))}
        made.signal(MANAGER, f"{logind.NAME}.Manager", "SessionNew", "so", ("2", "/2"))
        assert [each.uid for each in until(found, lambda all_: len(all_) == 2)] == [1000, 7]
        del fake.known["/1"]
        made.signal(MANAGER, f"{logind.NAME}.Manager", "SessionRemoved", "so", ("1", "/1"))
        assert [each.uid for each in until(found, lambda all_: len(all_) == 1)] == [7]
    until(found, lambda all_: not all_)
    assert found.answers is False
    assert found.sessions() == ()
    found.close()


@pytest.mark.desktop
def test_a_bus_without_logind_has_no_sessions(tmp_path: Path) -> None:
    with message_bus(tmp_path) as address:
        found = Logind({"DBUS_SYSTEM_BUS_ADDRESS": address})
        until(found, lambda _: found.answers is not None)
        assert found.answers is False
        found.close()


@pytest.mark.desktop
def test_a_bus_that_comes_later_is_found_later(tmp_path: Path) -> None:
    now = 100.0
    found = Logind({"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={tmp_path}/bus"}, lambda: now)
    assert (found.sessions(), found.answers) == ((), False)
    with message_bus(tmp_path) as address, service(address, (logind.NAME,), FakeLogind().answers):
        now += AGAIN_S - 1
        assert found.sessions() == ()
        now += 1
        assert until(found, bool) == (IN_USE,)
        found.close()


@pytest.mark.desktop
def test_before_all_sessions_are_known_nothing_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logind, "FIRST_S", 0)
    with message_bus(tmp_path) as address, service(address, (logind.NAME,), FakeLogind().answers):
        found = Logind({"DBUS_SYSTEM_BUS_ADDRESS": address})
        assert (found.sessions(), found.answers) == ((), None)
        until(found, lambda _: found.answers is not None)
        assert found.sessions() == (IN_USE,)
        found.close()


@pytest.mark.parametrize(
    ("changes", "session"),
    [
        ({}, IN_USE),
        (
            {"Type": "x11", "Display": ":1", "Active": False},
            Session(uid=1000, greeter=False, active=False, wayland=False, display=1, locked=False, idle_since=None),
        ),
        (
            {"Class": "greeter", "LockedHint": True, "IdleHint": True, "IdleSinceHint": 1_500_000},
            Session(uid=1000, greeter=True, active=True, wayland=True, display=None, locked=True, idle_since=1.5),
        ),
        ({"Type": "tty"}, None),
        ({"Type": "unspecified"}, None),
        ({"Remote": True}, None),
        ({"Class": "manager"}, None),
    ],
    ids=str,
)
def test_sessions_at_screens(changes: dict[str, Any], session: Session | None) -> None:
    assert session_of({name: value for name, (_, value) in SEAT.items()} | changes) == session


def test_a_session_of_which_nothing_is_known_is_none() -> None:
    assert session_of({}) is None
