"""Rules of a machine's owner: a condition over what the sensors say, such as ``idle_s > 900 and load < 0.3``.

Read with Python's own parser, and then only what is named here is let through: names, numbers, comparisons, ``and``, ``or``,
``not``, ``+``, ``-`` and ``*``. Nothing is ever executed. Whatever a rule names must be known, or it does not hold.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final, Literal

import msgspec

from p2pq.errors import ConfigError
from p2pq.model.config import RULE_CHARS_MAX
from p2pq.model.owner import Readings

DEPTH_MAX: Final = 12
NODES_MAX: Final = 50
NUMBER_MAX: Final = 1e9

Kind = Literal["a number", "a condition"]
Value = float | bool

NAMES: Final[Mapping[str, tuple[Kind, str]]] = {
    "idle_s": ("a number", "input"),
    "locked": ("a condition", "screen"),
    "saver": ("a condition", "screen"),
    "full_screen": ("a condition", "screen"),
    "load": ("a number", "load"),
    "pressure": ("a number", "memory"),
    "on_battery": ("a condition", "power"),
    "battery": ("a number", "power"),
    "programs": ("a condition", "programs"),
    "hour": ("a number", ""),
    "minute": ("a number", ""),
    "weekday": ("a number", ""),
}
"""What a rule may name: what that is, and which sensor tells it (none: it is always known)."""
HELP: Final = (
    f"rules compare the numbers {', '.join(name for name, (kind, _) in NAMES.items() if kind == 'a number')} by < <= > >= == !=, "
    f"and join that, and {', '.join(name for name, (kind, _) in NAMES.items() if kind == 'a condition')}, by and, or, not"
)


class Rule(msgspec.Struct, frozen=True):
    """A rule that was read and found well."""

    tree: ast.expr
    names: tuple[str, ...]
    """What it names, in order."""

    @property
    def sensors(self) -> tuple[str, ...]:
        """The sensors without which it cannot be decided."""
        return tuple(dict.fromkeys(sensor for name in self.names if (sensor := NAMES[name][1])))

    def unknown(self, readings: Readings) -> tuple[str, ...]:
        """Return the sensors that do not tell what it names."""
        known = values(readings)
        return tuple(dict.fromkeys(NAMES[name][1] for name in self.names if known[name] is None))

    def holds(self, readings: Readings) -> bool:
        """Tell whether it holds; it does not where anything that it names is unknown."""
        known = {name: value for name, value in values(readings).items() if value is not None}
        return not self.unknown(readings) and bool(_evaluate(self.tree, known))


def values(readings: Readings) -> dict[str, Value | None]:
    """Return what each name stands for now; None where nothing tells.

    A machine without a battery has it full: what is asked of it is whether there is enough in it.
    """
    full = 1.0 if readings.mains and readings.battery is None else readings.battery
    return {
        "idle_s": readings.idle_s,
        "locked": readings.locked,
        "saver": readings.saver,
        "full_screen": readings.full_screen,
        "load": readings.load,
        "pressure": readings.pressure,
        "on_battery": None if readings.mains is None else not readings.mains,
        "battery": full,
        "programs": None if readings.programs is None else bool(readings.programs),
        "hour": float(readings.minute // 60),
        "minute": float(readings.minute % 60),
        "weekday": float(readings.weekday),
    }


def parse(text: str) -> Rule:
    """Read a rule.

    Raises:
        ConfigError: it is none; a clause that says what is wrong with it.
    """
    if len(text) > RULE_CHARS_MAX:
        raise ConfigError(f"it is longer than {RULE_CHARS_MAX} characters")
    names: dict[str, None] = {}
    try:
        with warnings.catch_warnings(action="ignore"):  # of numbers and words that touch
            tree = ast.parse(text.strip(), mode="eval").body
        kind = _Reader(names).kind(tree, 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"it cannot be read; {HELP}") from error
    if kind != "a condition":
        raise ConfigError(f"it is a number and no condition; {HELP}")
    return Rule(tree, tuple(names))


class _Reader:
    """Goes through a rule once and lets nothing else through."""

    def __init__(self, names: dict[str, None]) -> None:
        self._names = names
        self._nodes = 0

    def kind(self, node: ast.expr, depth: int) -> Kind:  # noqa: PLR0911  one arm for each kind of part
        """Return what a part of a rule is."""
        self._nodes += 1
        if depth > DEPTH_MAX or self._nodes > NODES_MAX:
            raise ConfigError("it has too many parts; make it shorter")
        match node:
            case ast.BoolOp(values=parts):
                self._all(parts, "a condition", depth)
                return "a condition"
            case ast.UnaryOp(op=ast.Not(), operand=part):
                self._all([part], "a condition", depth)
                return "a condition"
            case ast.UnaryOp(op=ast.USub(), operand=part):
                self._all([part], "a number", depth)
                return "a number"
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult(), right=right):
                self._all([left, right], "a number", depth)
                return "a number"
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
                self._all([left, *others], "a number", depth)
                return "a condition"
            case ast.Name(id=name):
                if name not in NAMES:
                    raise ConfigError(f'"{name}" is not known; {HELP}')
                self._names[name] = None
                return NAMES[name][0]
            case ast.Constant(value=bool()):
                return "a condition"
            case ast.Constant(value=int() | float() as number) if number <= NUMBER_MAX:
                return "a number"
            case _:
                raise ConfigError(f'"{ast.unparse(node)[:40]}" has no place in it; {HELP}')

    def _all(self, parts: list[ast.expr], wanted: Kind, depth: int) -> None:
        for part in parts:
            if self.kind(part, depth + 1) != wanted:
                raise ConfigError(f'"{ast.unparse(part)[:40]}" is not {wanted}; {HELP}')


_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[Value, Value], bool]]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _evaluate(  # noqa: PLR0911  one for each kind of part
    node: ast.expr, known: Mapping[str, Value]
) -> Value:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_evaluate(part, known) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_evaluate(part, known) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _evaluate(part, known)
        case ast.UnaryOp(operand=part):
            return -_evaluate(part, known)
        case ast.BinOp(left=left, op=op, right=right):
            one, other = float(_evaluate(left, known)), float(_evaluate(right, known))
            if isinstance(op, ast.Mult):
                return one * other
            return one + other if isinstance(op, ast.Add) else one - other
        case ast.Compare(left=left, ops=ops, comparators=others):
            found = [_evaluate(part, known) for part in (left, *others)]
            return all(_COMPARE[type(op)](*pair) for op, pair in zip(ops, pairwise(found), strict=True))
        case ast.Name(id=name):
            return known[name]
        case _:
            value = ast.literal_eval(node)
            assert isinstance(value, bool | int | float), "a rule with a part that was not let through"
            return value
