"""The owner of this machine: asks the sensors, lets the policy decide, tells the core, and keeps `p2pq pause`.

Sensors are read ten times a second only while guests run that must go the moment somebody touches the machine, and at once when
one begins; else every two seconds, and in ``always`` never. The core hears of changes alone.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec
import psutil
from msgspec import Meta

from p2pq import decoders
from p2pq.core.events import Event, OwnerIs
from p2pq.core.policy import OwnerPolicy
from p2pq.daemon import limits
from p2pq.daemon.guests import Guests
from p2pq.daemon.home import write_private
from p2pq.daemon.loadprobe import LoadProbe
from p2pq.daemon.sensors.findings import findings
from p2pq.errors import StorageError
from p2pq.model.config import PolicySettings
from p2pq.model.ids import Mono, Wall
from p2pq.model.owner import Readings, Verdict
from p2pq.wire.control import Finding, Note, Reply
from p2pq.wire.settingcontrol import PauseGuests

log = logging.getLogger(__name__)

QUICK_S: Final = 0.1
SLOW_S: Final = 2.0
FILE_BYTES_MAX: Final = 1024
PROCESSES_MAX: Final = 100_000

Send = Callable[[Reply], Awaitable[None]]


class Sensors(Protocol):
    """What tells whether somebody needs this machine (``p2pq.daemon.sensors``)."""

    def readings(self) -> Readings:
        """Return what is to be known now; never waits for long."""

    def close(self) -> None:
        """Let go of what was opened."""


class Paused(msgspec.Struct, frozen=True):
    """What the home keeps of `p2pq pause`."""

    until: Annotated[int, Meta(ge=0, lt=1 << 53)] | None = None
    """Wall milliseconds; None: until `p2pq resume`."""


class Owner:
    """One machine's owner, as its node knows it, in all meshes. Use it from the event loop's thread only."""

    def __init__(
        self,
        settings: PolicySettings,
        home: Path,
        sensors: Callable[[tuple[str, ...]], Sensors],
        mono: Callable[[], Mono],
        wall: Callable[[], Wall],
    ) -> None:
        """Take the parts; a pause of an earlier life goes on.

        Args:
            settings: the policy.
            home: the node's, where a pause is kept.
            sensors: opens those that the policy needs, of ``model.owner.SENSORS``.
            mono: the clock that the core runs on.
            wall: the wall clock.
        """
        self._settings = settings
        self._file = home / "pause.json"
        self._mono, self._wall = mono, wall
        self.policy = OwnerPolicy(settings)
        self._sensors: Sensors | None = sensors(self.policy.needs) if settings.mode != "always" else None
        self._probe = LoadProbe(settings.load_probe, mono) if settings.load_probe and self._sensors else None
        self._paused = self._read()
        self._guests: Guests | None = None
        self._post: Callable[[Event], None] = lambda _: None
        self._told: Verdict | None = None
        self._asked = asyncio.Event()
        self._begun = Mono(float("-inf"))
        """When a guest began last."""
        self._failure = ""
        """What keeps the sensors from being read, as it was when that began."""
        self.readings = Readings()
        """What the sensors said last."""

    def serve(self, guests: Guests, post: Callable[[Event], None]) -> None:
        """Begin with a core: it hears at once what holds, before anything is offered to anybody."""
        self._guests, self._post, self._told = guests, post, None
        self.look()

    async def run(self) -> None:
        """Look again and again, for ever."""
        try:
            while True:
                self._asked.clear()
                if self._probe is not None:
                    self._probe.look()
                try:
                    async with asyncio.timeout(self._rest_s()):
                        await self._asked.wait()
                except TimeoutError:
                    pass
                self.look()
        finally:
            if self._probe is not None:
                self._probe.close()

    def look(self) -> None:
        """Read the sensors and tell the core what follows, if it is something new."""
        now = self._mono()
        self._keep_pause(now)
        if self._sensors is not None:
            self.readings = self._readings(self._sensors)
        verdict = self.policy.sense(self.readings, now)
        if verdict == self._told:
            return
        if self._told is None or self._told.still != verdict.still:
            assert self._guests is not None, "serves no core"  # noqa: S101
            self._guests.quiet(still=verdict.still)
        if self._told is None or self._told.stance != verdict.stance:
            log.info("owner.is", extra={"fields": {"guests": verdict.stance, "reason": verdict.reason}})
        self._told = verdict
        self._post(OwnerIs(verdict=verdict, grace_s=self._settings.grace_s))

    def guest_begins(self) -> None:
        """Look at once, and then often: what was read last may be two seconds old. Only asks for it, and returns."""
        now = self._mono()
        if self._sensors is not None and self.policy.watches and now - self._begun >= SLOW_S:
            self._asked.set()  # after one that began less long ago it looks often anyway
            self._begun = now

    def close(self) -> None:
        """Let go of the sensors."""
        if self._sensors is not None:
            self._sensors.close()

    def _rest_s(self) -> float | None:
        """Return for how long nothing has to be looked at; None: until somebody asks."""
        now, rest_s = self._mono(), None
        if self._sensors is not None:
            guests = self._has_guests() or now - self._begun < SLOW_S
            quick = self.policy.watches and self.policy.verdict.stance in {"run", "hold"} and guests
            rest_s = QUICK_S if quick else SLOW_S
        deadline = self.policy.deadline
        if deadline is not None:
            rest_s = min(deadline - now, rest_s or SLOW_S) if rest_s is not None else min(deadline - now, 60.0)
        return None if rest_s is None else max(rest_s, QUICK_S)

    def _has_guests(self) -> bool:
        return self._guests is not None and any(not guest.start.own for guest in self._guests.guests().values())

    def _readings(self, sensors: Sensors) -> Readings:
        readings = self._read_sensors(sensors)
        if self._probe is not None:
            readings = self._probe.put_in(readings)
        if self.policy.verdict.stance == "suspend" and self._settings.suspended_memory_mb is not None:
            readings = msgspec.structs.replace(readings, guests_mb=self._guests_mb())
        return readings

    def _read_sensors(self, sensors: Sensors) -> Readings:
        """Return what the sensors say. Where reading them fails, none of those needed can tell: no guests, but the node lives."""
        try:
            readings = sensors.readings()
        except Exception as error:  # whatever it is, the node has more to do than to look after guests
            kind = f"{type(error).__name__}: "
            if not self._failure.startswith(kind):
                self._failure = f"{kind}{str(error)[:120]}"
                log.exception("owner.sensors-failed")
            local = time.localtime(self._wall() / 1000)
            why = f"the sensors failed ({self._failure}); see the node's log"
            return Readings(
                saver=None,
                weekday=local.tm_wday,
                minute=local.tm_hour * 60 + local.tm_min,
                absent=tuple((name, why) for name in self.policy.needs),
            )
        if self._failure:
            self._failure = ""
            log.info("owner.sensors-again")
        return readings

    def _guests_mb(self) -> int:
        """Return what the processes of guests have in memory, together."""
        assert self._guests is not None, "serves no core"  # noqa: S101
        total = 0
        for pid in self._guests.pids():
            for each in limits.tree(pid, PROCESSES_MAX):
                try:
                    total += psutil.Process(each).memory_info().rss
                except psutil.Error:
                    continue  # it ended
        return total >> 20

    # -- pauses --------------------------------------------------------------------------------------------------------

    async def pause(self, request: PauseGuests, send: Send) -> None:
        """Answer ``PauseGuests``: kept in the home before anybody is told so.

        Raises:
            StorageError: it cannot be kept.
        """
        if request.paused:
            until = None if request.for_s is None else self._wall() + round(1000 * request.for_s)
            self._paused = Paused(until)
        else:
            self._paused = None
        try:
            if self._paused is None:
                self._file.unlink(missing_ok=True)
            else:
                write_private(self._file, msgspec.json.encode(self._paused))
        except OSError as error:
            raise StorageError(
                f"{self._file}: cannot be written ({error.strerror}); it holds until the node ends"
            ) from error
        finally:
            self.look()
            self._asked.set()
        await send(Note(text=self._said()))

    def _said(self) -> str:
        verdict = self.policy.verdict
        if self._paused is not None:
            until = self._paused.until
            end = (
                ""
                if until is None
                else f" until {datetime.fromtimestamp(until / 1000, UTC).astimezone():%Y-%m-%d %H:%M}"
            )
            return f"guests are paused here{end}; `p2pq resume` ends that"
        return (
            "guests may run here" if verdict.stance == "run" else f"no pause any more, but no guests: {verdict.reason}"
        )

    def _keep_pause(self, now: Mono) -> None:
        """Let the policy know how long a pause lasts, by the wall clock: a machine that sleeps goes on with it."""
        if self._paused is None:
            self.policy.resume()
        elif self._paused.until is None:
            self.policy.pause(None, now)
        else:
            left_s = (self._paused.until - self._wall()) / 1000
            self.policy.pause(Mono(now + left_s), now)
            if left_s <= 0:
                self._paused = None
                self._file.unlink(missing_ok=True)

    def _read(self) -> Paused | None:
        """Return the pause that the home keeps. One that cannot be read is a pause: the machine is its owner's."""
        try:
            with self._file.open("rb") as file:
                return decoders.read_json(file.read(FILE_BYTES_MAX), Paused)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("owner.pause-unreadable", extra={"fields": {"file": str(self._file), "reason": str(error)}})
            return Paused()

    # -- doctor --------------------------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """Say whether the policy has the sensors that it needs."""
        return findings(self.readings, self.policy.needs, locks=self.policy.locks)


def signal_number(settings: PolicySettings) -> int:
    """Return the number of the checkpoint signal on this system."""
    name = settings.signal
    return name if isinstance(name, int) else int(signal.Signals[f"SIG{name}"])
