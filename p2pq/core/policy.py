"""When guests may run on a machine that is first of all its owner's: what the sensors say, to what guests may do.

Pure: it reads no sensor and no clock. What it says depends on the settings and on what it was told before, and only changes when
it is told something, or at ``deadline``.

Every policy but ``always`` is the same small machine; they differ in what speaks against guests (``_against``) and in what lets
them begin (``_waits``):

    hold ──────── nothing against, nothing to wait for ───────> run
    run ───────── something against ──────────────────────────> suspend (or kill)
    suspend ───── quiet for resume_s ─────────────────────────> run
    suspend ───── for evict_s, or in too much memory ─────────> evict
    evict, kill ─ as from hold, once quiet for resume_s, too ─> run

So nothing flaps: whatever sent guests away has to be over for ``resume_s`` before they are back. What is asked of a sensor that
cannot tell speaks against them.
"""

from typing import Final

from p2pq.core import rules
from p2pq.errors import ConfigError
from p2pq.model.config import PolicySettings
from p2pq.model.ids import Mono
from p2pq.model.owner import Readings, Stance, Verdict

MODES: Final = ("always", "idle", "night", "screensaver")
PAUSED: Final = "paused with `p2pq pause`; `p2pq resume` ends that"
TOUCHED: Final = "somebody uses this machine"
UNTOLD: Final = "no sensor has spoken yet"
_LACK: Final = {
    "input": "nobody can tell when a key was pressed here",
    "screen": "nobody can tell what the screen shows",
    "load": "nobody can tell what other programs use",
    "memory": "nobody can tell how short memory is",
    "power": "nobody can tell whether this runs on battery",
    "programs": "nobody can tell which programs run",
}
"""What it means where a sensor does not say itself why it cannot tell."""
_WITHOUT: Final = {
    "input": 'set [policy] mode to "night" or "always" to do without',
    "screen": "set [policy] full_screen = false to do without",
    "load": "set [policy] load_probe to a command that tells",
    "memory": "take `pressure` out of the rule to do without",
    "power": "set [policy] on_battery = true to do without",
    "programs": "empty [policy] programs to do without",
}


class OwnerPolicy:
    """One machine's policy, and how things stand."""

    def __init__(self, settings: PolicySettings) -> None:
        """Begin with no guests, but in ``always``.

        Raises:
            ConfigError: the mode is none, and no rule.
        """
        self._settings = settings
        self._rule: rules.Rule | None = None if settings.mode in MODES else _rule(settings.mode)
        self._verdict = Verdict() if settings.mode == "always" else Verdict(stance="hold", reason=UNTOLD)
        self._paused = False
        self._until: Mono | None = None
        self._left: Mono | None = None
        """Since when guests stand still."""
        self._quiet: Mono | None = None
        """Since when nothing that was read speaks against guests."""
        self._loud: Mono | None = None
        """Since when other programs use as much as makes guests leave."""
        self._away = False
        """Guests were sent away: they are back only once it has been quiet. Not so where that was on purpose, as by a pause, the
        hours of the day or an unlocked screen."""
        self._told = Mono(float("-inf"))
        """When the sensors spoke last."""

    @property
    def verdict(self) -> Verdict:
        """What guests may do, as of the last word."""
        return self._verdict

    @property
    def needs(self) -> tuple[str, ...]:
        """The sensors without which no guest runs, of ``model.owner.SENSORS``."""
        if self._rule is not None:
            return self._rule.sensors
        settings, mode = self._settings, self._settings.mode
        if mode == "always":
            return ()
        wanted = {
            "input": mode == "idle",
            "load": mode == "idle",
            "screen": mode == "screensaver" or settings.full_screen,
            "power": not settings.on_battery,
            "programs": bool(settings.programs),
        }
        return tuple(name for name, needed in wanted.items() if needed)

    @property
    def locks(self) -> bool:
        """Whether it matters that the screen is locked; else at most what fills it."""
        names = () if self._rule is None else self._rule.names
        return self._settings.mode == "screensaver" or not {"locked", "saver"}.isdisjoint(names)

    @property
    def watches(self) -> bool:
        """Whether guests have to be out of the way the moment that somebody touches the machine."""
        names = () if self._rule is None else self._rule.names
        return self._settings.mode in {"idle", "screensaver"} or not {"idle_s", "locked", "saver"}.isdisjoint(names)

    @property
    def deadline(self) -> Mono | None:
        """When to ask again at the latest, though no sensor says anything new; None: not before one does."""
        settings = self._settings
        steps = (
            (self._until, 0.0),
            (self._left, settings.evict_s),
            (self._loud, settings.load_pause_s),
            (self._quiet, settings.resume_s),
        )
        at = [Mono(since + after_s) for since, after_s in steps if since is not None]
        return min((each for each in at if each > self._told), default=None)

    def pause(self, until: Mono | None, now: Mono) -> None:
        """Give the machine back to its owner, whatever the sensors say; None: until ``resume``."""
        self._paused = until is None or until > now
        self._until = until if self._paused else None

    def resume(self) -> None:
        """End a pause."""
        self._paused, self._until = False, None

    def sense(self, readings: Readings, now: Mono) -> Verdict:
        """Take in what the sensors say; return what guests may do from now on."""
        self._told = now
        if self._until is not None and self._until <= now:
            self.resume()
        self._watch_load(readings, now)
        against = self._against(readings, now)
        if self._verdict.stance in {"run", "suspend"} and against not in {"", self._outside}:
            self._away = self._settings.mode != "screensaver"
        if self._paused:
            against = PAUSED
        match self._verdict.stance:
            case "run":
                if against:
                    self._leave(against, now)
            case "suspend":
                if not against and self._calm(readings, now):
                    self._be("run", "")
                elif now - _set(self._left) >= self._settings.evict_s or self._too_large(readings):
                    self._be("evict", against or self._verdict.reason)
                elif against:
                    self._be("suspend", against)
            case stance:
                waits = against or self._waits(readings)
                if not waits and self._calm(readings, now):
                    self._be("run", "")
                else:
                    self._be(stance, waits or self._verdict.reason)
        return self._verdict

    def _leave(self, against: str, now: Mono) -> None:
        """Something speaks against the guests that run."""
        settings = self._settings
        if settings.mode == "screensaver" or settings.on_return == "kill":
            self._be("kill", against)
        elif against == self._outside:
            self._be("evict", against)  # it will be long before they could go on
        else:
            self._be("suspend", against)
            self._left = now

    def _be(self, stance: Stance, reason: str) -> None:
        if stance == "run":
            self._away = False
        if stance != "suspend":
            self._left = None
        self._verdict = Verdict(stance=stance, reason=reason)

    def _calm(self, readings: Readings, now: Mono) -> bool:
        """Whether what sent guests away has been over for long enough."""
        if not self._away:
            return True
        resume_s = self._settings.resume_s
        untouched = self._settings.mode != "idle" or (readings.idle_s is not None and readings.idle_s >= resume_s)
        return untouched and self._quiet is not None and now - self._quiet >= resume_s

    def _watch_load(self, readings: Readings, now: Mono) -> None:
        """Note since when other programs have used much."""
        loud = readings.load is not None and readings.load >= self._settings.load_pause
        self._loud = (now if self._loud is None else self._loud) if loud else None

    def _too_large(self, readings: Readings) -> bool:
        most = self._settings.suspended_memory_mb
        return most is not None and readings.guests_mb is not None and readings.guests_mb > most

    # -- what speaks against guests ------------------------------------------------------------------------------------

    @property
    def _outside(self) -> str:
        return f"outside of the hours from {self._settings.start} to {self._settings.end}"

    def _against(self, readings: Readings, now: Mono) -> str:
        """Return why guests that run have to get out of the way, in a few words; empty where they need not.

        Notes since when all is quiet. A reading tells itself how long ago input was, so that is no matter of this.
        """
        against = self._spoken(readings)
        loud = self._settings.mode == "idle" and (readings.load or 0.0) > self._settings.load_max
        self._quiet = None if against or loud else now if self._quiet is None else self._quiet
        return against or (self._busy(readings, now) if self._settings.mode == "idle" else "")

    def _spoken(self, readings: Readings) -> str:
        """Return what speaks against guests, but for how busy the machine is."""
        settings = self._settings
        if settings.mode == "always":
            return ""
        if self._rule is not None:
            lacking = self._rule.unknown(readings)
            if lacking:
                return self._lacks(lacking[0], readings)
            return "" if self._rule.holds(readings) else f"the rule does not hold: {settings.mode[:120]}"
        if settings.mode == "screensaver" and not (readings.locked or readings.saver):
            return self._lacks("screen", readings) if readings.locked is None else "the screen is in use"
        return self._common(readings)

    def _common(self, readings: Readings) -> str:  # noqa: PLR0911  one for each thing that may speak
        """Return what speaks against guests in each of the named policies but ``always``."""
        settings = self._settings
        if settings.mode == "idle" and readings.idle_s is None:
            return self._lacks("input", readings)
        if settings.mode == "idle" and readings.load is None:
            return self._lacks("load", readings)
        if not settings.on_battery and not readings.mains:
            return self._lacks("power", readings) if readings.mains is None else "it runs on battery"
        if settings.programs and readings.programs is None:
            return self._lacks("programs", readings)
        if settings.programs and readings.programs:
            return f"{readings.programs[0]} runs"
        if settings.full_screen and settings.mode != "screensaver" and readings.full_screen is not False:
            return self._lacks("screen", readings) if readings.full_screen is None else "a program fills the screen"
        return self._outside if settings.mode == "night" and not self._in_hours(readings) else ""

    def _busy(self, readings: Readings, now: Mono) -> str:
        """Return what speaks against guests where the machine has to be idle."""
        settings = self._settings
        # They may have gone on after resume_s, so input that was longer ago than that is no reason to leave.
        if (readings.idle_s or 0.0) < min(settings.idle_s, settings.resume_s):
            return TOUCHED
        if self._loud is not None and now - self._loud >= settings.load_pause_s:
            return "other programs keep this machine busy"
        return ""

    def _waits(self, readings: Readings) -> str:
        """Return why guests may not begin, though nothing would send them away."""
        settings = self._settings
        if settings.mode != "idle":
            return ""
        if (readings.idle_s or 0.0) < settings.idle_s:
            return f"somebody used this machine less than {settings.idle_s:g} s ago"
        return "other programs use this machine" if (readings.load or 0.0) > settings.load_max else ""

    def _in_hours(self, readings: Readings) -> bool:
        start, end = self._settings.from_minute, self._settings.to_minute
        if start < end:
            return start <= readings.minute < end
        return readings.minute >= start or readings.minute < end

    def _lacks(self, sensor: str, readings: Readings) -> str:
        why = dict(readings.absent).get(sensor, _LACK[sensor])
        without = _WITHOUT[sensor]
        if sensor == "screen" and self._settings.mode == "screensaver":
            without = "or let `p2pq screensaver` run"
        elif self._rule is not None:
            without = "or take it out of the rule"
        return f"the policy needs to know of {sensor}: {why}; {without}"


def check(settings: PolicySettings) -> None:
    """Assert that the mode is one, or a rule.

    Raises:
        ConfigError: it is not.
    """
    OwnerPolicy(settings)


def _rule(text: str) -> rules.Rule:
    try:
        return rules.parse(text)
    except ConfigError as error:
        named = f"{', '.join(MODES[:-1])} nor {MODES[-1]}"
        raise ConfigError(f'policy.mode is "{text[:80]}", neither {named}, and no rule: {error}') from None


def _set(at: Mono | None) -> Mono:
    assert at is not None, "stands still, but since when?"
    return at
