"""What a script imports at its top: standard library only, one file; it enters the sandbox beside ``warm.py``, which uses it.

It imports nothing but ``os``, and parses without ``ast``: what it imported, scripts would find in ``sys.modules``.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FILES_MAX = 200
FILE_BYTES_MAX = 1 << 20
ONLY_AST = 0x400  # ast.PyCF_ONLY_AST

PLAIN = frozenset(
    {
        *("Constant", "Name", "Attribute", "Tuple", "List", "Dict", "Set", "BinOp", "UnaryOp", "BoolOp", "Compare"),
        *("Subscript", "Slice", "Starred", "Lambda", "arguments", "arg"),
    }
)
"""Expressions that only look at values."""


class Script:
    """The imports at the top of a script and of the modules beside it, as far as nothing can be done before them.

    After the first statement that may do something (a call, a decorator, an ``if``) no import counts: it may depend on what
    was done, as ``import numpy`` does on a variable that is set before.
    """

    def __init__(self, folder: str, exists: "Callable[[str], bool]") -> None:
        """Take the script's folder, and what tells whether a module is installed."""
        self.folder = folder
        self.exists = exists
        self.names = names_in(folder)
        self.found: dict[tuple[str, tuple[str, ...]], None] = {}
        self._seen: set[str] = set()

    def read(self, file: str) -> "list[tuple[str, tuple[str, ...]]]":
        """Return modules in order, each with the names taken from it."""
        self._file(file, "", main=True)
        return list(self.found)

    def _file(self, file: str, package: str, *, main: bool = False) -> bool:
        """Whether all of a file was harmless."""
        if file in self._seen:
            return True
        self._seen.add(file)
        try:
            with open(file, "rb") as source:
                text = source.read(FILE_BYTES_MAX + 1)
            if len(text) > FILE_BYTES_MAX or len(self._seen) > FILES_MAX:
                return False
            body = compile(text, file, "exec", ONLY_AST, dont_inherit=True).body
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return all(self._statement(statement, package, main=main) for statement in body)

    def _statement(self, node: "Any", package: str, *, main: bool) -> bool:
        """Whether a statement does nothing but import and name things."""
        kind = type(node).__name__
        if kind == "Import":
            harmless = all(self._module(alias.name, ()) for alias in node.names)
        elif kind == "ImportFrom":
            harmless = self._from(node, package)
        elif kind == "Expr":
            harmless = type(node.value).__name__ == "Constant"
        elif kind in ("Assign", "AnnAssign"):
            targets = node.targets if kind == "Assign" else [node.target]
            harmless = all(type(target).__name__ == "Name" for target in targets) and plain(node)
        elif kind in ("FunctionDef", "AsyncFunctionDef"):
            harmless = not node.decorator_list and plain(node.args) and plain(node.returns)
        elif kind == "ClassDef":
            harmless = not (node.decorator_list or node.keywords) and plain(node.bases)
            harmless = harmless and all(self._statement(each, package, main=main) for each in node.body)
        elif kind == "If":
            harmless = never(node.test, main=main) and not node.orelse
        elif kind == "Try":
            harmless = self._fallback(node)
        else:
            harmless = kind == "Pass"
        return harmless

    def _fallback(self, node: "Any") -> bool:
        """Whether a ``try`` does nothing but import what is installed, or else something else: it is left alone."""
        parts = [
            *node.body,
            *node.orelse,
            *node.finalbody,
            *(each for handler in node.handlers for each in handler.body),
        ]
        for part in parts:
            match type(part).__name__:
                case "Import":
                    names = [alias.name for alias in part.names]
                case "ImportFrom":
                    names = [part.module or "" if not part.level else ""]
                case "Assign":
                    names = [] if plain(part) else [""]
                case "Pass":
                    names = []
                case _:
                    return False
            if any(not name or self._local(name.partition(".")[0]) for name in names):
                return False
        return True

    def _from(self, node: "Any", package: str) -> bool:
        names = tuple(alias.name for alias in node.names)
        if not node.level:
            return node.module == "__future__" or self._module(node.module, names)
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        if not package or not above:
            return False  # the script fails there
        return self._module(".".join([*above, node.module] if node.module else above), names)

    def _module(self, name: str, names: tuple[str, ...]) -> bool:
        """Take an import, or what a module beside the script imports; whether it does nothing else, as far as one can see."""
        top = name.partition(".")[0]
        if not self._local(top):
            if not self.exists(top):
                return False  # the script ends there
            self.found[name, names] = None
            return True
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            if not self._beside(parts[:length]):
                return False
        return all(self._beside([*parts, each]) for each in names if self._path([*parts, each]))

    def _beside(self, parts: "list[str]") -> bool:
        path = self._path(parts)
        if not path:
            return os.path.isdir(os.path.join(self.folder, *parts))
        package = parts if path.endswith("__init__.py") else parts[:-1]
        return self._file(path, ".".join(package))

    def _path(self, parts: "list[str]") -> str:
        base = os.path.join(self.folder, *parts)
        return next((path for path in (f"{base}/__init__.py", f"{base}.py") if os.path.isfile(path)), "")

    def _local(self, top: str) -> bool:
        if top in self.names:
            return True
        return os.path.isdir(os.path.join(self.folder, top)) and not self.exists(top)


def never(test: "Any", *, main: bool) -> bool:
    """Whether a condition is known not to hold: for type checkers only, or for a script that this module is not."""
    match type(test).__name__:
        case "Name":
            return bool(test.id == "TYPE_CHECKING")
        case "Attribute":
            return bool(test.attr == "TYPE_CHECKING")
        case "Compare":
            equal = [type(each).__name__ for each in test.ops] == ["Eq"]
            return equal and not main and type(test.left).__name__ == "Name" and test.left.id == "__name__"
        case _:
            return False


def plain(node: "Any") -> bool:
    """Whether evaluating this only looks at values; None and contexts are."""
    if isinstance(node, list):
        return all(map(plain, node))
    if not hasattr(node, "_fields"):
        return True
    kind = type(node).__name__
    if kind in ("Assign", "AnnAssign"):
        return plain(node.value) and plain(getattr(node, "annotation", None))
    if kind not in PLAIN:
        return not node._fields  # operators and contexts have none
    if kind == "Lambda":
        return plain(node.args)
    return all(plain(getattr(node, field, None)) for field in node._fields)


def names_in(folder: str) -> "set[str]":
    """Return the names of the modules that lie in a folder, and come before what is installed."""
    found = set()
    for entry in os.scandir(folder):
        stem, dot, end = entry.name.partition(".")
        if (dot and end.endswith(("py", "pyc", "so"))) or os.path.isfile(os.path.join(entry.path, "__init__.py")):
            found.add(stem)
    return found
