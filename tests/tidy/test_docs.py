"""The documents agree with the code, and stay readable."""

import inspect
import re
import typing
from pathlib import Path

import msgspec
import pytest

from p2pq import errors
from p2pq.wire import join, messages, objects, session

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
README_LINES_MAX = 200
EXPECTED = {"architecture", "configuration", "glossary", "guarantees", "operations", "protocol", "threat-model"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_promised_pages_exist():
    assert {path.stem for path in DOCS} >= EXPECTED


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_no_line_numbers_of_code(path):
    assert re.findall(r"\w+\.(?:py|toml|sh):\d+|\bline \d+\b", path.read_text()) == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < README_LINES_MAX


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_that_a_page_names_exist(path):
    """Paths of this project: ``docs/x.md``, ``p2pq/a/b.py``, ``configs/x``, with or without backticks."""
    text = path.read_text()
    named = re.findall(r"\b((?:docs|p2pq|configs|examples|tests|simulations|benchmarks)/[\w./-]+\.\w+)", text)
    missing = {name for name in named if not (ROOT / name.rstrip(".")).exists()}
    assert missing == set()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_tables_are_tables(path):
    """Every row of a table has as many cells as its head."""
    rows: list[int] = []
    for line in [*path.read_text().splitlines(), ""]:
        if line.startswith("|"):
            rows.append(len(re.findall(r"(?<!\\)\|", line)))
        elif rows:
            assert len(set(rows)) == 1, line
            rows = []


def exceptions() -> list[type[BaseException]]:
    return [value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__]


@pytest.mark.parametrize("error", exceptions(), ids=lambda error: error.__name__)
def test_every_exception_is_documented_as_it_is(error):
    retry = "yes" if getattr(error, "retryable", False) else "no"
    code = getattr(error, "exit_code", "-")
    meaning = inspect.getdoc(error).splitlines()[0]
    row = f"| `{error.__name__}` | {code} | {retry} | {meaning} |"
    assert row in (ROOT / "docs" / "operations.md").read_text()


def protocol() -> str:
    return (ROOT / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize("kind", typing.get_args(messages.Message), ids=lambda kind: kind.__name__)
def test_every_message_is_documented_with_its_tag(kind):
    tag = kind.__struct_config__.tag
    cells = [row.split("|") for row in protocol().splitlines() if row.startswith("|")]
    rows = [cell for cell in cells if f"`{kind.__name__}`" in cell[1] and f"`{tag}`" in cell[2]]
    assert len(rows) == 1


def signed_objects() -> list[type[msgspec.Struct]]:
    return [
        value
        for _, value in inspect.getmembers(objects, inspect.isclass)
        if issubclass(value, msgspec.Struct) and value.__struct_config__.tag is not None
    ]


@pytest.mark.parametrize("kind", signed_objects(), ids=lambda kind: kind.__name__)
def test_every_signed_object_is_documented(kind):
    assert f"| `{kind.__struct_config__.tag}` |" in protocol()


@pytest.mark.parametrize("reason", sorted(session.SENTENCES.keys() | join.SENTENCES.keys()))
def test_every_reason_of_a_refusal_is_documented(reason):
    assert f"`{reason}`" in protocol()
