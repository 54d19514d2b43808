"""The smallest and the fullest value of any message type, made from its definition."""

from typing import Any

import msgspec
from msgspec import inspect


def smallest(kind: Any) -> Any:
    """Return a value in which everything optional is left out and everything else is as small as its bounds allow."""
    return _value(inspect.type_info(kind), full=False)


def fullest(kind: Any) -> Any:
    """Return a value in which every field is given and no collection is empty."""
    return _value(inspect.type_info(kind), full=True)


def unions(kind: Any) -> list[type[msgspec.Struct]]:
    """Return the structs of a union type."""
    return [part.cls for part in inspect.type_info(kind).types]


def _value(info: inspect.Type, *, full: bool) -> Any:  # noqa: PLR0911  one return per kind of type
    match info:
        case inspect.StructType(cls=cls, fields=fields):
            given = [field for field in fields if full or field.required]
            return cls(**{field.name: _value(field.type, full=full) for field in given})
        case inspect.UnionType(types=types):
            first = next(part for part in types if not isinstance(part, inspect.NoneType))
            return _value(first, full=full)
        case inspect.Metadata(type=inner):
            return _value(inner, full=full)
        case inspect.LiteralType(values=values):
            return values[-1]
        case inspect.TupleType(item_types=items):
            return tuple(_value(item, full=full) for item in items)
        case inspect.VarTupleType(item_type=item, min_length=low):
            return tuple(_value(item, full=full) for _ in range(max(low or 0, int(full))))
        case inspect.DictType(key_type=key, value_type=value):
            return {_value(key, full=full): _value(value, full=full)} if full else {}
        case _:
            return _leaf(info, full=full)


def _leaf(info: inspect.Type, *, full: bool) -> Any:
    match info:
        case inspect.BoolType():
            return full
        case inspect.IntType(ge=ge, gt=gt):
            low = ge if ge is not None else gt + 1 if gt is not None else 0
            return low + int(full)
        case inspect.FloatType():
            return 0.5
        case inspect.StrType(min_length=low, pattern=pattern):
            return "x" * max(low or 0, int(full), int(pattern is not None))
        case inspect.BytesType(min_length=low):
            return b"\x01" * max(low or 0, int(full))
        case inspect.AnyType():
            return "anything"
        case _:
            raise TypeError(f"no sample for {info}")
