"""Settings, their documentation and the example files agree."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from p2pq.model.config import Settings, check

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "configuration.md"
EXAMPLES = sorted((ROOT / "configs").glob("*.toml"))
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", re.MULTILINE)


def settings_with_defaults() -> dict[str, dict[str, object]]:
    """Return every setting and its default by section; the top level is the section ``Top level``."""
    top: dict[str, object] = {}
    sections: dict[str, dict[str, object]] = {"Top level": top}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.default, msgspec.Struct):
            sections[f"[{field.name}]"] = {
                inner.name: getattr(field.default, inner.name) for inner in msgspec.structs.fields(field.default)
            }
        else:
            top[field.name] = field.default
    return sections


def documented() -> dict[str, dict[str, str]]:
    """Return the documented default of every key by heading."""
    parts = re.split(r"^## (.+)$", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    headings = dict(zip(parts[::2], parts[1::2], strict=True))
    return {
        heading: {key: default for key, default, _ in ROW.findall(text)}
        for heading, text in headings.items()
        if heading == "Top level" or heading.startswith("[")
    }


def as_written(value: object) -> str:
    """Return a default as the document writes it."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        assert value == ()
        return "`[]`"
    return f"`{value}`"


def test_every_setting_is_documented_with_its_default_and_nothing_else_is():
    expected = {
        section: {name: as_written(default) for name, default in fields.items()}
        for section, fields in settings_with_defaults().items()
    }
    assert documented() == expected


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES} >= {"workstation", "server"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_loads_and_changes_something(path):
    settings = msgspec.convert(tomllib.loads(path.read_text()), Settings)
    check(settings)
    assert settings != Settings()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_commented_out_keys_of_an_example_load_too(path):
    text = re.sub(r"^# (\w+ = )", r"\1", path.read_text(), flags=re.MULTILINE)
    check(msgspec.convert(tomllib.loads(text), Settings))
