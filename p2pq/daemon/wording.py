"""Say in plain words what is wrong with a setting: which it is, what was found, what to write instead."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, get_args, get_origin

import msgspec
from msgspec import inspect

from p2pq import decoders
from p2pq.errors import InvariantError

FOUND_CHARS_MAX: Final = 64
_TOP: Final = ""


def complaint(table: object, kind: Any, key: str = _TOP) -> str:  # noqa: ANN401  a type may be anything
    """Return what is wrong first, as ``SECTION.KEY is FOUND; write EXPECTED``, or which setting does not exist.

    Args:
        table: what was read; it is not of that type.
        kind: the type, a struct for a section.
        key: where it stands, dotted.
    """
    bare = _bare(kind)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct) and isinstance(table, Mapping):
        return _in_section(table, bare, key)
    inner: Sequence[tuple[str, Any, Any]] = ()
    if get_origin(bare) is tuple and isinstance(table, list | tuple):
        inner = [(f"{key}[{number}]", each, get_args(bare)[0]) for number, each in enumerate(table)]
    elif get_origin(bare) is dict and isinstance(table, Mapping):
        names, values = get_args(bare)
        inner = [(f"a name in {key}", name, names) for name in table]
        inner += [(f"{key}.{name}", value, values) for name, value in table.items()]
    for place, value, wanted in inner:
        if not _takes(value, wanted):
            return complaint(value, wanted, place)
    return wrong(key, table, kind)


def wrong(key: str, found: object, kind: Any, *, quoted: bool = True) -> str:  # noqa: ANN401
    """Return ``KEY is FOUND; write EXPECTED``.

    Args:
        key: what people call it.
        found: its value.
        kind: the type that this is not.
        quoted: text stands in quotes there, as in the file, so that numbers may have got them by mistake.
    """
    about = inspect.type_info(kind)
    numeric = isinstance(_core(about), inspect.BoolType | inspect.IntType | inspect.FloatType)
    unquoted = quoted and numeric and isinstance(found, str)
    section = f"[{key}] in brackets, and its settings below" if isinstance(_core(about), inspect.StructType) else ""
    return f"{key} is {_found(found)}; write {section or _expected(about)}{', without quotes' if unquoted else ''}"


def unknown(key: str, known: Iterable[str]) -> str:
    """Return that there is no such setting, and which one may be meant."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"unknown setting {key}" + (f", did you mean `{close[0]}`?" if close else "")


def _takes(value: object, kind: Any) -> bool:  # noqa: ANN401
    """Tell whether a value is of a type, as it stands."""
    try:
        decoders.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _in_section(table: Mapping[str, Any], kind: type[msgspec.Struct], key: str) -> str:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    before = f"{key}." if key else ""
    for name, value in table.items():
        if name not in fields:
            return unknown(before + name, [before + known for known in fields])
        if not _takes(value, fields[name].type):
            return complaint(value, fields[name].type, before + name)
    [missing, *_] = [name for name, field in fields.items() if field.required and name not in table]
    return f"{before}{missing} is missing; write {_expected(inspect.type_info(fields[missing].type))}"


def _bare(kind: Any) -> Any:  # noqa: ANN401
    """Return a type without what ``Annotated`` adds."""
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _core(about: inspect.Type) -> inspect.Type:
    """Return a type without its description, and without the None of what may be unset."""
    while isinstance(about, inspect.Metadata | inspect.UnionType):
        about = about.type if isinstance(about, inspect.Metadata) else about.types[0]
    return about


def _found(value: object) -> str:
    if isinstance(value, str):
        text = f"the text {json.dumps(value, ensure_ascii=False)}"
        return text if len(value) <= FOUND_CHARS_MAX else f"a text of {len(value)} characters"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)[:FOUND_CHARS_MAX]
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "a table" if isinstance(value, Mapping) else "a date or a time"


def _expected(about: inspect.Type) -> str:
    if isinstance(about, inspect.Metadata) and "description" in (about.extra_json_schema or {}):
        return str((about.extra_json_schema or {})["description"])
    match _core(about):
        case inspect.BoolType():
            words = "true or false"
        case inspect.LiteralType(values):
            words = " or ".join(json.dumps(each) for each in values)
        case inspect.IntType() | inspect.FloatType() as number:
            low = f"above {number.gt:g} and up" if number.gt is not None else f"from {number.ge}"
            words = f"a {'whole ' if isinstance(number, inspect.IntType) else ''}number {low} to {number.le:.0f}"
        case inspect.StrType(max_length=most):
            words = f"text in quotes, of at most {most} characters"
        case inspect.DictType():
            words = 'a table like {name = "value"}'
        case inspect.VarTupleType(max_length=most):
            words = f'a list like ["one", "two"], of at most {most}'
        case other:
            raise InvariantError(f"no words for settings of the type {type(other).__name__}")
    return words
