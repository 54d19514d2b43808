"""Sessions of people on this machine, as systemd-logind knows them: who is at a screen, locked or not, idle since when."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from jeepney import DBusAddress, HeaderFields, MatchRule, Message

from p2pq.daemon.sensors.bus import SYSTEM, Bus, BusGoneError

AGAIN_S: Final = 30.0
"""Ask for a bus again after that."""
FIRST_S: Final = 0.005
"""Wait for first answers as long as that."""
SESSIONS_MAX: Final = 256
NAME: Final = "org.freedesktop.login1"
SESSION: Final = f"{NAME}.Session"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
MANAGER: Final = DBusAddress("/org/freedesktop/login1", NAME, f"{NAME}.Manager")
GRAPHICAL: Final = frozenset({"x11", "wayland", "mir"})


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session at a screen of this machine."""

    uid: int
    greeter: bool
    """Nobody has logged in there."""
    active: bool
    """It is the one that the screen shows."""
    wayland: bool
    display: int | None
    """Of X."""
    locked: bool
    idle_since: float | None
    """By the wall clock, seconds; None while its desktop says that it is in use, or where that never says anything."""


class Logind:
    """Knows the sessions, soon after the first look. Not for several threads."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """Look on the bus that the environment names, else on the system's."""
        self._address = environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM
        self._clock = clock
        self._bus: Bus | None = None
        self._dialled: float | None = None
        self._known: dict[str, dict[str, Any]] = {}
        self._answers: bool | None = None

    def close(self) -> None:
        """Close the connection; a later look opens it again."""
        self._lose()
        self._dialled = self._answers = None

    @property
    def answers(self) -> bool | None:
        """Whether there is a logind that tells of all sessions; None before that is known."""
        return None if self._answers and not all(self._known.values()) else self._answers

    def sessions(self) -> tuple[Session, ...]:
        """Return the sessions at screens, as far as is known now."""
        try:
            if self._bus is None and not self._dial():
                self._answers = False
                return ()
            if self._bus is not None:
                self._bus.look(FIRST_S if self.answers is None else 0.0)
        except BusGoneError:
            self._lose()
            return ()
        return tuple(session for known in self._known.values() if (session := session_of(known)) is not None)

    def _dial(self) -> bool:
        now = self._clock()
        if self._dialled is not None and now - self._dialled < AGAIN_S:
            return False
        self._dialled = now
        self._bus = Bus(self._address, self._heard)
        self._bus.listen(MatchRule(type="signal", sender=NAME, interface=MANAGER.interface))
        self._bus.listen(MatchRule(type="signal", sender=NAME, interface=PROPERTIES))
        self._list()
        return True

    def _lose(self) -> None:
        if self._bus is not None:
            self._bus.close()
            self._bus = None
        self._known.clear()
        self._answers = False

    def _list(self) -> None:
        if self._bus is not None:
            self._bus.ask(MANAGER, "ListSessions", self._listing)

    def _listing(self, body: tuple[Any, ...] | None) -> None:
        """Take the list of sessions and ask for each that is new."""
        self._answers = body is not None
        paths = [str(row[4]) for row in body[0][:SESSIONS_MAX]] if body else []
        self._known = {path: known for path, known in self._known.items() if path in paths}
        for path in paths:
            if path not in self._known:
                self._ask(path)

    def _ask(self, path: str) -> None:
        if self._bus is None:
            return
        self._known.setdefault(path, {})
        address = DBusAddress(path, NAME, PROPERTIES)

        def take(body: tuple[Any, ...] | None) -> None:
            if path not in self._known:
                return
            if body is None:
                del self._known[path]  # it has ended
            else:
                self._known[path] = {name: value for name, (_, value) in body[0].items()}

        self._bus.ask(address, "GetAll", take, "s", (SESSION,))

    def _heard(self, message: Message) -> None:
        """Take a signal: sessions that come and go, and what changes of one."""
        fields = message.header.fields
        path, member = str(fields.get(HeaderFields.path)), fields.get(HeaderFields.member)
        if member in {"SessionNew", "SessionRemoved"}:
            self._list()
        elif member == "PropertiesChanged" and path in self._known and message.body[0] == SESSION:
            _, changed, invalid = message.body
            self._known[path] |= {name: value for name, (_, value) in changed.items()}
            if invalid:
                self._ask(path)


def session_of(known: Mapping[str, Any]) -> Session | None:
    """Return a session as its properties tell it; None for one that is not at a screen of this machine."""
    display = str(known.get("Display", ""))
    if known.get("Type") not in GRAPHICAL or known.get("Remote") or known.get("Class") not in {"user", "greeter"}:
        return None
    return Session(
        uid=int(known.get("User", (0, ""))[0]),
        greeter=known["Class"] == "greeter",
        active=bool(known.get("Active")),
        wayland=known["Type"] != "x11",
        display=int(display[1:]) if display[:1] == ":" and display[1:].isdigit() else None,
        locked=bool(known.get("LockedHint")),
        idle_since=int(known.get("IdleSinceHint", 0)) / 1e6 if known.get("IdleHint") else None,
    )
