"""Style that linters lack: sizes, docstrings, order of iteration in the core, nothing left over."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
DISPATCH_STATEMENTS_MAX = 2  # a short name for something, and the match
PRODUCT = sorted((ROOT / "p2pq").rglob("*.py")) + sorted((ROOT / "simulations").rglob("*.py"))
DECODING = [path for path in sorted((ROOT / "p2pq").rglob("*.py")) if path.name != "decoders.py"]
CORE = sorted((ROOT / "p2pq" / "core").rglob("*.py"))
EVERYTHING = sorted(
    path
    for folder in ("p2pq", "simulations", "tests", "benchmarks", "examples", "docs", "configs", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and path.suffix in {".py", ".md", ".toml", ".sh", ".service", ""} and "results" not in path.parts
)
LEFTOVERS = tuple(word[::-1] for word in ("EMXIF", "ODOT", "XXX", "KCAH"))  # reversed, or this file would find itself
MAKES_DECODERS = {
    "msgspec.convert",
    *(f"msgspec.{form}.{what}" for form in ("msgpack", "json", "toml", "yaml") for what in ("decode", "Decoder")),
}
INDIFFERENT = {"sorted", "any", "all", "sum", "len", "set", "frozenset"}
CONSUMERS = ("list", "tuple", "enumerate", "iter", "zip", "map", "filter", "dict", "deque", "chain", ".join", ".extend")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_module_is_one_idea_with_a_docstring(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "say in a docstring what this module is for"
    assert text.count("\n") <= MODULE_LINES_MAX, "two ideas? split it"


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return how many lines one must read to follow it: not its docstring, and of a ``match`` its longest arm.

    A function that only dispatches has an arm for each kind; splitting it would lose the proof that none is missing.
    """
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if body and isinstance(body[-1], ast.Match) and len(body) <= DISPATCH_STATEMENTS_MAX:
        body = max((case.body for case in body[-1].cases), key=lambda arm: arm[-1].end_lineno - arm[0].lineno)
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_functions_fit_on_a_screen(path):
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert {each.name: lines_of(each) for each in functions if lines_of(each) > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("path", DECODING, ids=name_of)
def test_decoders_are_made_in_one_place(path):
    """To make two at once ends the process (ADR 0012)."""
    names = [ast.unparse(node) for node in ast.walk(parse(path)) if isinstance(node, ast.Attribute)]
    assert [name for name in names if name in MAKES_DECODERS] == []


def test_nothing_is_left_over():
    found = [
        f"{name_of(path)}: {word}"
        for path in EVERYTHING
        for word in LEFTOVERS
        if word in path.read_text(errors="replace").split() or f"{word}:" in path.read_text(errors="replace")
    ]
    assert found == []


def sets_by_name(tree: ast.Module) -> set[str]:
    """Return names and attributes that hold sets, by their annotations and assignments in this module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.AnnAssign(target=target, annotation=annotation) if is_set_type(annotation):
                names.add(ast.unparse(target))
            case ast.arg(arg=name, annotation=annotation) if annotation and is_set_type(annotation):
                names.add(name)
            case ast.Assign(targets=targets, value=value) if is_set(value, names):
                names.update(ast.unparse(target) for target in targets)
    return names


def is_set_type(annotation: ast.expr) -> bool:
    return ast.unparse(annotation).partition("[")[0] in {"set", "frozenset", "AbstractSet", "MutableSet"}


def is_set(node: ast.expr, names: set[str]) -> bool:
    """Recognise a set by how it is written: literal, comprehension, call, operator on sets or key views, known name."""
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=func):
            return ast.unparse(func) in {"set", "frozenset"}
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr() | ast.Sub() | ast.BitXor(), left=left, right=right):
            return any(is_set(side, names) or is_view(side) for side in (left, right))
        case ast.Name() | ast.Attribute():
            return ast.unparse(node) in names
        case _:
            return False


def is_view(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".keys", ".items"))


def set_order(tree: ast.Module) -> list[str]:
    """Return the sets whose order could decide something: iterated without ``sorted``, ``any``, ``sum`` and the like."""
    names = sets_by_name(tree)
    harmless: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.SetComp):
            harmless.update(id(generator) for generator in node.generators)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in INDIFFERENT:
            inner = (found for argument in node.args for found in ast.walk(argument))
            harmless.update(id(found) for found in inner if isinstance(found, ast.comprehension))
    consumed: list[ast.expr] = []
    for node in ast.walk(tree):
        match node:
            case ast.For(iter=source) | ast.Starred(value=source):
                consumed.append(source)
            case ast.comprehension(iter=source) if id(node) not in harmless:
                consumed.append(source)
            case ast.Call(func=ast.Attribute(value=source, attr="pop"), args=[]):
                consumed.append(source)
            case ast.Call(func=func, args=args) if ast.unparse(func).endswith(CONSUMERS):
                consumed.extend(args)
    return [ast.unparse(source) for source in consumed if is_set(source, names)]


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_never_depends_on_the_order_of_a_set(path):
    assert set_order(parse(path)) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("for x in {1, 2}: f(x)", 1),
        ("for x in sorted({1, 2}): f(x)", 0),
        ("a: set[int] = f()\nfor x in a: g(x)", 1),
        ("self.a: set[int] = f()\nb = [x for x in self.a]", 1),
        ("b = list(a.keys() & c)", 1),
        ("a = set()\na.pop()", 1),
        ("a = set()\nb = any(x for x in a)", 0),
        ("a = set()\nb = sorted(x for x in a)", 0),
        ("def f(a: frozenset[int]): return (*a,)", 1),
        ("for x in {1: 2}: f(x)", 0),
    ],
)
def test_the_set_order_check_sees_it(source, found):
    assert len(set_order(ast.parse(source))) == found
