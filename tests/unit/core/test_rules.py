"""Rules of a machine's owner: what they let through, what they say of the rest, and what they come to."""

import re

import pytest

from p2pq.core import rules
from p2pq.core.rules import DEPTH_MAX, HELP, NAMES, NODES_MAX
from p2pq.errors import ConfigError
from p2pq.model.config import RULE_CHARS_MAX
from p2pq.model.owner import SENSORS, Readings

ALL = Readings(
    idle_s=1000.0,
    locked=False,
    saver=True,
    full_screen=False,
    load=0.25,
    pressure=0.125,
    mains=True,
    battery=0.5,
    programs=("blender",),
    weekday=4,
    minute=18 * 60 + 45,
)

HOLDS = {
    "idle_s > 900 and load < 0.3 and not on_battery and hour >= 18": True,
    "idle_s > 15 * 60": True,
    "idle_s > 900.5 + 100": False,
    "idle_s - 100 <= 900": True,
    "load < 0.2 or saver": True,
    "locked": False,
    "not locked": True,
    "full_screen or pressure >= 0.125": True,
    "0.1 < load < 0.3": True,
    "0.1 < load < 0.2": False,
    "0.3 < load < 0.5": False,
    "battery == 0.5": True,
    "battery != 0.5": False,
    "programs": True,
    "weekday >= 5 or hour < 7": False,
    "minute == 45": True,
    "load > -1": True,
    "True": True,
    "False or saver": True,
    "(saver and not locked)\n": True,
}


@pytest.mark.parametrize("text", HOLDS)
def test_a_rule_comes_to_what_it_says(text: str) -> None:
    assert rules.parse(text).holds(ALL) is HOLDS[text]


REFUSED = {
    "idel": '"idel" is not known',
    "idle_s": "it is a number and no condition",
    "idle_s > ": "it cannot be read",
    "": "it cannot be read",
    "idle_s > 1; locked": "it cannot be read",
    "900and load": '"900" is not a condition',
    "x\0": "it cannot be read",
    "idle_s and saver": '"idle_s" is not a condition',
    "not load": '"load" is not a condition',
    "saver > 1": '"saver" is not a number',
    "-saver > 1": '"saver" is not a number',
    "saver + 1 > 1": '"saver" is not a number',
    "load / 0 > 1": '"load / 0" has no place in it',
    "load ** 9 > 1": '"load ** 9" has no place in it',
    "load is 1": '"load is 1" has no place in it',
    "load in (1, 2)": '"load in (1, 2)" has no place in it',
    "~load > 1": '"~load" has no place in it',
    "load > 1e10": '"10000000000.0" has no place in it',
    "load > 1e999": '"1e309" has no place in it',
    "load > 2j": '"2j" has no place in it',
    "'a' == 'a'": "\"'a'\" has no place in it",
    "__import__('os').system('true')": "has no place in it",
    "hour.real > 1": '"hour.real" has no place in it',
    "(lambda: True)()": "has no place in it",
    "saver if locked else saver": "has no place in it",
    "(load := 1) > 0": "has no place in it",
    "[load for load in load]": "has no place in it",
    "not " * (DEPTH_MAX + 1) + "saver": "it has too many parts",
    " or ".join(["saver"] * NODES_MAX): "it has too many parts",
    "saver" + " " * RULE_CHARS_MAX: f"it is longer than {RULE_CHARS_MAX} characters",
    "(" * 250 + "saver" + ")" * 245: "it cannot be read",
    "~" * 490 + "load": "it cannot be read",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_nothing_else_is_let_through(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        rules.parse(text)
    assert REFUSED[text] in str(refused.value)


def test_who_writes_something_else_learns_what_a_rule_is() -> None:
    for text in ("idel", "idle_s", "idle_s > ", "load / 2 > 1", "not load"):
        with pytest.raises(ConfigError, match=re.escape(HELP)):
            rules.parse(text)


def test_the_largest_rules_are_let_through() -> None:
    assert rules.parse("not " * DEPTH_MAX + "saver").holds(ALL)
    assert rules.parse(" or ".join(["saver"] * (NODES_MAX - 1))).holds(ALL)


def test_a_rule_names_the_sensors_that_it_needs() -> None:
    rule = rules.parse("idle_s > 9 and (load < 1 or locked or full_screen) and hour > 3 and saver")
    assert rule.names == ("idle_s", "load", "locked", "full_screen", "hour", "saver")
    assert rule.sensors == ("input", "load", "screen")
    assert {sensor for _, sensor in NAMES.values()} - {""} == set(SENSORS)
    saver = rules.parse("saver")
    assert (saver.sensors, saver.unknown(Readings())) == (("screen",), ())


UNKNOWN = {
    "idle_s > 1": "input",
    "locked": "screen",
    "full_screen or saver": "screen",
    "load < 1": "load",
    "pressure < 1": "memory",
    "not on_battery": "power",
    "battery > 0": "power",
    "not programs": "programs",
}


@pytest.mark.parametrize("text", UNKNOWN)
def test_what_nothing_tells_does_not_hold(text: str) -> None:
    rule = rules.parse(text)
    assert rule.unknown(Readings(saver=True)) == (UNKNOWN[text],)
    assert not rule.holds(Readings(saver=True))
    assert rule.unknown(ALL) == ()


def test_a_machine_without_a_battery_has_it_full() -> None:
    rule = rules.parse("battery > 0.9 and not on_battery")
    assert rule.holds(Readings(mains=True))
    assert not rule.holds(Readings(mains=True, battery=0.5))
    assert not rule.holds(Readings(mains=False, battery=1.0))
