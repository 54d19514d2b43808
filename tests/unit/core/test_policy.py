"""When guests may run: a table for every policy, a row for everything that may happen to it."""

from typing import NamedTuple

import msgspec
import pytest

from p2pq.core import policy
from p2pq.core.policy import MODES, PAUSED, TOUCHED, UNTOLD, OwnerPolicy
from p2pq.errors import ConfigError
from p2pq.model.config import PolicySettings
from p2pq.model.ids import Mono
from p2pq.model.owner import SENSORS, Readings, Stance, Verdict

CALM = Readings(
    idle_s=1e6, locked=True, full_screen=False, load=0.0, pressure=0.0, mains=True, programs=(), minute=23 * 60
)
"""Nobody is there, and nothing goes on; the screen is locked, and it is night."""
BUSY = "other programs keep this machine busy"
LATER = "other programs use this machine"
OUTSIDE = "outside of the hours from 22:00 to 07:00"
BATTERY = "it runs on battery"
FILLED = "a program fills the screen"
IN_USE = "the screen is in use"
RECENT = "somebody used this machine less than 900 s ago"
RULE = "idle_s > 600 and load < 0.5 and hour >= 18"
NO_RULE = f"the rule does not hold: {RULE}"


class Row(NamedTuple):
    """At a time the sensors say that, and this follows."""

    at: float
    stance: Stance
    reason: str = ""
    says: dict[str, object] = {}  # noqa: RUF012  never changed
    """What is not as in ``CALM``; ``idle_s`` counts from here on by itself."""


def lacks(sensor: str, why: str, without: str) -> str:
    return f"the policy needs to know of {sensor}: {why}; {without}"


IDLE: dict[str, tuple[Row, ...]] = {
    "starts after a while without input": (
        Row(0, "hold", RECENT, {"idle_s": 300.0}),
        Row(599, "hold", RECENT),
        Row(600, "run"),
    ),
    "who is there is not disturbed": (Row(0, "hold", TOUCHED, {"idle_s": 0.0}),),
    "starts at a load that it may": (Row(0, "hold", LATER, {"load": 0.31}), Row(1, "run", says={"load": 0.3})),
    "the moment the owner is back": (Row(0, "run"), Row(5, "suspend", TOUCHED, {"idle_s": 0.05})),
    "goes on after quiet": (
        Row(0, "run"),
        Row(5, "suspend", TOUCHED, {"idle_s": 0.0}),
        Row(304, "suspend", TOUCHED),
        Row(305, "run"),
        Row(306, "run"),
    ),
    "input puts it off": (
        Row(0, "run"),
        Row(5, "suspend", TOUCHED, {"idle_s": 0.0}),
        Row(300, "suspend", TOUCHED, {"idle_s": 0.0}),
        Row(599, "suspend", TOUCHED),
        Row(600, "run"),
    ),
    "goes after it stood still for long": (
        Row(0, "run"),
        Row(5, "suspend", TOUCHED, {"idle_s": 0.0}),
        Row(604, "suspend", TOUCHED, {"idle_s": 0.0}),
        Row(605, "evict", TOUCHED),
        Row(904, "evict", RECENT),
        Row(1503, "evict", RECENT),
        Row(1504, "run"),
    ),
    "is back after the owner was": (
        Row(0, "run"),
        Row(5, "suspend", TOUCHED, {"idle_s": 0.0}),
        Row(305, "run"),
        Row(310, "suspend", TOUCHED, {"idle_s": 1.0}),
    ),
    "a load that stays": (
        Row(0, "run"),
        Row(10, "run", says={"load": 0.5}),
        Row(129, "run", says={"load": 0.9}),
        Row(130, "suspend", BUSY, {"load": 0.5}),
        Row(131, "suspend", BUSY, {"load": 0.31}),
        Row(200, "suspend", BUSY, {"load": 0.3}),
        Row(499, "suspend", BUSY),
        Row(500, "run"),
    ),
    "a load that passes": (
        Row(0, "run"),
        Row(10, "run", says={"load": 0.9}),
        Row(129, "run", says={"load": 0.49}),
        Row(131, "run", says={"load": 0.9}),
        Row(250, "run", says={"load": 0.9}),
        Row(251, "suspend", BUSY, {"load": 0.9}),
    ),
    "a load that comes back does not let it flap": (
        Row(0, "run", says={"load": 0.0}),
        Row(1, "run", says={"load": 0.9}),
        Row(121, "suspend", BUSY, {"load": 0.9}),
        Row(300, "suspend", BUSY, {"load": 0.1}),
        Row(500, "suspend", BUSY, {"load": 0.4}),
        Row(501, "suspend", BUSY, {"load": 0.1}),
        Row(721, "evict", BUSY, {"load": 0.1}),
        Row(800, "evict", BUSY, {"load": 0.1}),
        Row(801, "run", says={"load": 0.1}),
    ),
    "on battery": (Row(0, "run"), Row(1, "suspend", BATTERY, {"mains": False, "battery": 0.9})),
    "a film": (
        Row(0, "run"),
        Row(1, "suspend", FILLED, {"full_screen": True}),
        Row(10, "suspend", FILLED),
        Row(309, "suspend", FILLED),
        Row(310, "run"),
    ),
    "no input sensor": (
        Row(
            0,
            "hold",
            lacks(
                "input",
                "nobody can tell when a key was pressed here",
                'set [policy] mode to "night" or "always" to do without',
            ),
            {"idle_s": None},
        ),
    ),
    "no load sensor": (
        Row(
            0,
            "hold",
            lacks("load", "nobody can tell what other programs use", "set [policy] load_probe to a command that tells"),
            {"load": None},
        ),
    ),
    "no screen sensor": (
        Row(
            0,
            "hold",
            lacks("screen", "Wayland hides it", "set [policy] full_screen = false to do without"),
            {"full_screen": None, "absent": (("screen", "Wayland hides it"),)},
        ),
    ),
    "no power sensor": (
        Row(
            0,
            "hold",
            lacks(
                "power", "nobody can tell whether this runs on battery", "set [policy] on_battery = true to do without"
            ),
            {"mains": None},
        ),
    ),
    "a sensor that dies": (
        Row(0, "run"),
        Row(
            1,
            "suspend",
            lacks("input", "the X server is gone", 'set [policy] mode to "night" or "always" to do without'),
            {"idle_s": None, "absent": (("input", "the X server is gone"),)},
        ),
        Row(2, "suspend", TOUCHED, {"idle_s": 100.0}),
        Row(302, "run"),
    ),
    "what it does not need may be absent": (
        Row(0, "run", says={"locked": None, "pressure": None, "programs": None, "battery": None}),
    ),
}

NIGHT: dict[str, tuple[Row, ...]] = {
    "before": (Row(0, "hold", OUTSIDE, {"minute": 22 * 60 - 1}), Row(1, "run", says={"minute": 22 * 60})),
    "until": (
        Row(0, "run", says={"minute": 7 * 60 - 1}),
        Row(1, "evict", OUTSIDE, {"minute": 7 * 60}),
        Row(2, "run", says={"minute": 22 * 60}),
    ),
    "input and load are no matter": (Row(0, "run", says={"idle_s": 0.0, "load": 1.0}),),
    "nor are their sensors": (Row(0, "run", says={"idle_s": None, "load": None}),),
    "on battery": (
        Row(0, "run"),
        Row(1, "suspend", BATTERY, {"mains": False}),
        Row(2, "suspend", BATTERY),
        Row(302, "run"),
    ),
    "a film": (Row(0, "hold", FILLED, {"full_screen": True}), Row(1, "run")),
    "the night ends while they stand still": (
        Row(0, "run"),
        Row(1, "suspend", BATTERY, {"mains": False}),
        Row(300, "suspend", OUTSIDE, {"minute": 7 * 60}),
        Row(601, "evict", OUTSIDE, {"minute": 7 * 60}),
    ),
}

SCREENSAVER: dict[str, tuple[Row, ...]] = {
    "while the screen is locked": (
        Row(0, "hold", IN_USE, {"locked": False}),
        Row(1, "run"),
        Row(2, "kill", IN_USE, {"locked": False}),
        Row(3, "run"),
    ),
    "while the saver runs": (
        Row(0, "run", says={"locked": False, "saver": True}),
        Row(1, "kill", IN_USE, {"locked": False}),
    ),
    "the saver is enough": (Row(0, "run", says={"locked": None, "saver": True}),),
    "it fills the screen itself": (Row(0, "run", says={"full_screen": True}),),
    "input is no matter while it is locked": (Row(0, "run", says={"idle_s": 0.0, "load": 1.0}),),
    "on battery": (Row(0, "run"), Row(1, "kill", BATTERY, {"mains": False})),
    "no sensor": (
        Row(
            0,
            "hold",
            lacks("screen", "nobody can tell what the screen shows", "or let `p2pq screensaver` run"),
            {"locked": None},
        ),
    ),
}

ALWAYS: dict[str, tuple[Row, ...]] = {
    "whatever there is": (
        Row(0, "run", says={"idle_s": 0.0, "load": 1.0, "mains": False, "full_screen": True, "locked": False}),
    ),
    "whatever there is not": (
        Row(0, "run", says=dict.fromkeys(("idle_s", "load", "mains", "full_screen", "locked", "programs"))),
    ),
}

OWN_RULE: dict[str, tuple[Row, ...]] = {
    "holds": (Row(0, "run"),),
    "does not": (Row(0, "hold", NO_RULE, {"idle_s": 100.0}), Row(500, "hold", NO_RULE), Row(501, "run")),
    "does no longer": (
        Row(0, "run"),
        Row(1, "suspend", NO_RULE, {"load": 0.5}),
        Row(2, "suspend", NO_RULE, {"load": 0.4}),
        Row(301, "suspend", NO_RULE),
        Row(302, "run"),
    ),
    "for long": (Row(0, "run"), Row(1, "suspend", NO_RULE, {"load": 1.0}), Row(601, "evict", NO_RULE, {"load": 1.0})),
    "decides alone": (Row(0, "run", says={"mains": False, "full_screen": True}),),
    "lacks a sensor": (
        Row(
            0,
            "hold",
            lacks("input", "nobody can tell when a key was pressed here", "or take it out of the rule"),
            {"idle_s": None},
        ),
    ),
}

TABLES = {"idle": IDLE, "night": NIGHT, "screensaver": SCREENSAVER, "always": ALWAYS, RULE: OWN_RULE}
CASES = [(mode, name) for mode, table in TABLES.items() for name in table]


def play(settings: PolicySettings, rows: tuple[Row, ...], *, paused: OwnerPolicy | None = None) -> OwnerPolicy:
    """Go through the rows of a table."""
    subject = paused or OwnerPolicy(settings)
    touched: float | None = None
    for row in rows:
        said = row.says.get("idle_s", ...)
        if isinstance(said, float):
            touched = row.at - said
        readings = msgspec.structs.replace(CALM, **row.says)
        if said is ... and touched is not None:
            readings = msgspec.structs.replace(readings, idle_s=row.at - touched)
        verdict = subject.sense(readings, Mono(row.at))
        assert verdict == Verdict(stance=row.stance, reason=row.reason), row
        assert subject.verdict == verdict
    return subject


@pytest.mark.parametrize(("mode", "name"), CASES, ids=lambda text: text[:40])
def test_every_row(mode: str, name: str) -> None:
    play(PolicySettings(mode=mode), TABLES[mode][name])


def test_before_anybody_spoke_no_guest_runs_but_in_always() -> None:
    assert OwnerPolicy(PolicySettings()).verdict == Verdict()
    for mode in (*MODES[1:], RULE):
        assert OwnerPolicy(PolicySettings(mode=mode)).verdict == Verdict(stance="hold", reason=UNTOLD)


def test_nothing_follows_for_whom_nothing_tells() -> None:
    for mode in ("idle", "screensaver", RULE):
        assert OwnerPolicy(PolicySettings(mode=mode)).sense(Readings(), Mono(0.0)).stance == "hold"
    assert OwnerPolicy(PolicySettings()).sense(Readings(), Mono(0.0)).stance == "run"


def test_guests_are_killed_where_the_owner_wants_it() -> None:
    settings = PolicySettings(mode="idle", on_return="kill")
    play(
        settings,
        (
            Row(0, "run"),
            Row(5, "kill", TOUCHED, {"idle_s": 0.0}),
            Row(304, "kill", TOUCHED),
            Row(904, "kill", RECENT),
            Row(905, "run"),
        ),
    )


def test_programs_keep_guests_away() -> None:
    settings = PolicySettings(mode="night", programs=("blender", "game"))
    play(
        settings,
        (
            Row(0, "run"),
            Row(1, "suspend", "game runs", {"programs": ("game",)}),
            Row(2, "suspend", "game runs"),
            Row(302, "run"),
        ),
    )
    without = lacks("programs", "nobody can tell which programs run", "empty [policy] programs to do without")
    play(settings, (Row(0, "hold", without, {"programs": None}),))


def test_what_is_not_asked_for_is_no_matter() -> None:
    settings = PolicySettings(mode="idle", on_battery=True, full_screen=False)
    play(
        settings, (Row(0, "run", says={"mains": None, "full_screen": None}), Row(1, "run", says={"full_screen": True}))
    )


def test_a_night_within_a_day() -> None:
    settings = PolicySettings(mode="night", start="01:30", end="06:00")
    why = "outside of the hours from 01:30 to 06:00"
    play(
        settings,
        (
            Row(0, "hold", why, {"minute": 89}),
            Row(1, "run", says={"minute": 90}),
            Row(2, "run", says={"minute": 359}),
            Row(3, "evict", why, {"minute": 360}),
        ),
    )


def test_short_waits_wait_for_the_longer_of_both() -> None:
    """Where guests may begin sooner than go on, they go on when they may."""
    settings = PolicySettings(mode="idle", idle_s=60, resume_s=300)
    play(
        settings,
        (
            Row(0, "run"),
            Row(5, "suspend", TOUCHED, {"idle_s": 0.0}),
            Row(64, "suspend", TOUCHED),
            Row(65, "suspend", TOUCHED),
            Row(304, "suspend", TOUCHED),
            Row(305, "run"),
            Row(306, "run"),
        ),
    )


def test_guests_that_stand_still_in_too_much_memory_go() -> None:
    settings = PolicySettings(mode="idle", suspended_memory_mb=1000)
    play(
        settings,
        (
            Row(0, "run", says={"guests_mb": 5000}),
            Row(1, "suspend", TOUCHED, {"idle_s": 0.0}),
            Row(2, "suspend", TOUCHED, {"guests_mb": 1000}),
            Row(3, "evict", TOUCHED, {"guests_mb": 1001}),
        ),
    )
    unlimited = (
        Row(0, "run"),
        Row(1, "suspend", TOUCHED, {"idle_s": 0.0}),
        Row(2, "suspend", TOUCHED, {"guests_mb": 9999}),
    )
    play(PolicySettings(mode="idle"), unlimited)


# -- pauses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["always", "idle", "night", RULE])
def test_a_pause_lets_guests_stand_still_and_then_go(mode: str) -> None:
    subject = play(PolicySettings(mode=mode), (Row(0, "run"),))
    subject.pause(None, Mono(1.0))
    rows = (
        Row(1, "suspend", PAUSED),
        Row(600, "suspend", PAUSED),
        Row(601, "evict", PAUSED),
        Row(9999, "evict", PAUSED),
    )
    play(PolicySettings(), rows, paused=subject)
    subject.resume()
    play(PolicySettings(), (Row(10_000, "run"),), paused=subject)


@pytest.mark.parametrize("mode", ["always", "idle", "night", RULE])
def test_a_pause_ends_by_itself_and_they_go_on_at_once(mode: str) -> None:
    subject = play(PolicySettings(mode=mode), (Row(0, "run"),))
    subject.pause(Mono(10.0), Mono(1.0))
    play(PolicySettings(), (Row(1, "suspend", PAUSED), Row(9, "suspend", PAUSED)), paused=subject)
    assert subject.deadline == 10.0
    play(PolicySettings(), (Row(10, "run"), Row(11, "run")), paused=subject)


def test_a_pause_kills_where_guests_are_killed() -> None:
    subject = play(PolicySettings(mode="screensaver"), (Row(0, "run"),))
    subject.pause(None, Mono(1.0))
    play(PolicySettings(), (Row(1, "kill", PAUSED),), paused=subject)


def test_a_pause_that_is_over_is_none() -> None:
    subject = play(PolicySettings(), (Row(0, "run"),))
    subject.pause(None, Mono(1.0))
    subject.pause(Mono(5.0), Mono(5.0))
    play(PolicySettings(), (Row(5, "run"),), paused=subject)
    assert subject.deadline is None or subject.deadline > 5.0


def test_who_is_there_after_a_pause_is_not_disturbed() -> None:
    subject = play(PolicySettings(mode="idle"), (Row(0, "run"),))
    subject.pause(None, Mono(1.0))
    play(PolicySettings(), (Row(1, "suspend", PAUSED, {"idle_s": 0.0}),), paused=subject)
    subject.resume()
    play(PolicySettings(), (Row(2, "suspend", TOUCHED, {"idle_s": 0.0}), Row(302, "run")), paused=subject)


# -- when to ask again, and of what --------------------------------------------------------------------------------------


def test_the_deadline_is_when_time_alone_changes_something() -> None:
    subject = OwnerPolicy(PolicySettings(mode="idle"))
    assert subject.deadline is None
    subject.sense(CALM, Mono(0.0))
    assert subject.deadline == 300.0  # a quiet that nothing waits for: one look too many
    subject.sense(msgspec.structs.replace(CALM, load=1.0), Mono(100.0))
    assert subject.deadline == 220.0
    subject.sense(msgspec.structs.replace(CALM, load=1.0), Mono(220.0))
    assert subject.verdict.stance == "suspend"
    assert subject.deadline == 820.0
    subject.sense(CALM, Mono(400.0))
    assert subject.deadline == 700.0


NEEDS = {
    "always": (),
    "idle": ("input", "load", "screen", "power"),
    "night": ("screen", "power"),
    "screensaver": ("screen", "power"),
    RULE: ("input", "load"),
}


@pytest.mark.parametrize("mode", NEEDS)
def test_what_a_policy_needs(mode: str) -> None:
    assert OwnerPolicy(PolicySettings(mode=mode)).needs == NEEDS[mode]
    assert set(NEEDS[mode]) <= set(SENSORS)


def test_a_policy_may_need_less_or_more() -> None:
    less = PolicySettings(mode="night", on_battery=True, full_screen=False)
    assert OwnerPolicy(less).needs == ()
    assert OwnerPolicy(msgspec.structs.replace(less, mode="screensaver")).needs == ("screen",)
    assert OwnerPolicy(msgspec.structs.replace(less, programs=("game",))).needs == ("programs",)


WATCHES = {
    "always": False,
    "idle": True,
    "night": False,
    "screensaver": True,
    "idle_s > 9": True,
    "locked": True,
    "saver or hour > 9": True,
    "load < 0.5": False,
}


@pytest.mark.parametrize("mode", WATCHES)
def test_who_has_to_be_quick(mode: str) -> None:
    assert OwnerPolicy(PolicySettings(mode=mode)).watches is WATCHES[mode]


@pytest.mark.parametrize("mode", WATCHES)
def test_for_whom_it_matters_that_the_screen_is_locked(mode: str) -> None:
    assert OwnerPolicy(PolicySettings(mode=mode)).locks is (mode in {"screensaver", "locked", "saver or hour > 9"})


def test_what_is_no_policy_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError) as refused:
        policy.check(PolicySettings(mode="idel"))
    said = str(refused.value)
    assert said.startswith(
        'policy.mode is "idel", neither always, idle, night nor screensaver, and no rule: "idel" is not'
    )
    policy.check(PolicySettings(mode=RULE))
