"""How much memory hangs on an object."""

import gc
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Final

_PASSED: Final = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def size_of(root: object) -> int:
    """Return the bytes of everything that hangs on an object, code and types left out."""
    seen: set[int] = set()
    waiting: list[object] = [root]
    total = 0
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, _PASSED):
            continue
        seen.add(id(found))
        total += sys.getsizeof(found)
        waiting += gc.get_referents(found)
    return total
