"""What a folder says about its own job: ``[tool.p2pq]`` in the script's own block (PEP 723), else in ``pyproject.toml``."""

import tomllib
from pathlib import Path
from typing import Final

import msgspec

from p2pq import decoders
from p2pq.errors import UsageError
from p2pq.wire import names

BYTES_MAX: Final = 1 << 20
BEGIN: Final = "# /// script"
END: Final = "# ///"


class FolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that ``[tool.p2pq]`` may hold."""

    warm: bool = True
    """Whether tasks may start in interpreters that have imported ahead."""


def read(folder: Path, main: str) -> FolderSettings:
    """Return the settings of a folder whose job runs ``main``.

    Raises:
        UsageError: ``[tool.p2pq]`` is there and cannot be understood.
    """
    if main.endswith(".py"):
        found = _settings(script_block(_text(folder / main)), names.display(main))
        if found is not None:
            return found
    return _settings(_text(folder / "pyproject.toml"), "pyproject.toml") or FolderSettings()


def _text(path: Path) -> str:
    """Return a file's text, empty where there is none or it is too long to be meant."""
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except OSError:
        return ""
    return raw.decode(errors="replace") if len(raw) <= BYTES_MAX else ""


def script_block(script: str) -> str:
    """Return the TOML of a script's block: comment lines from the one that begins it to the last one that ends it."""
    lines = [line.rstrip() for line in script.splitlines()]
    if BEGIN not in lines:
        return ""
    block: list[str] = []
    ends = 0
    for line in lines[lines.index(BEGIN) + 1 :]:
        if line != "#" and not line.startswith("# "):
            break
        if line == END:
            ends = len(block)
        block.append(line[2:])
    return "\n".join(block[:ends])


def _settings(text: str, where: str) -> FolderSettings | None:
    """Return what a TOML document has under ``[tool.p2pq]``; None if it says nothing."""
    if "p2pq" not in text:
        return None  # whatever else may be wrong with it is not ours to judge
    try:
        tool = tomllib.loads(text).get("tool")
        said = tool.get("p2pq") if isinstance(tool, dict) else None
        return None if said is None else decoders.convert(said, FolderSettings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        known = ", ".join(FolderSettings.__struct_fields__)
        raise UsageError(f"[tool.p2pq] in {where} is not usable ({error}); it may hold: {known}") from error
