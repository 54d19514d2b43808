"""What commands share: finding the node, starting it, saying things, printing JSON."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import msgspec

from p2pq.client import finding
from p2pq.client.connection import Connection
from p2pq.daemon.home import Home
from p2pq.homes import default_path


def home_of(ctx: click.Context) -> Home:
    """Return the home that this command is about, untouched."""
    chosen: Path | None = ctx.find_root().obj
    return Home(chosen if chosen is not None else default_path())


def connect(ctx: click.Context, *, start: bool = False) -> Connection:
    """Connect to the node of this home, starting one first where that is wanted and none runs.

    Raises:
        ConfigError: it could not be started because of a setting.
        NodeUnreachableError: there is none, or it could not be started for another reason.
        RefusedError: as root, without P2PQ_ALLOW_ROOT=1.
    """
    return finding.connect(home_of(ctx).path, start=start, say=note)


def harmless(text: str) -> str:
    """Return text without what makes terminals do things; names of machines and folders are written by others."""
    from p2pq.wire import names  # noqa: PLC0415  needed only where something is printed

    return names.harmless(text)


def note(text: str) -> None:
    """Say something on stderr."""
    click.echo(f"p2pq: {harmless(text)}", err=True)


def say(text: str) -> None:
    """Print a line that holds names which others wrote."""
    click.echo(harmless(text))


def print_json(value: object) -> None:
    """Print one JSON document on a line of its own, with p2pq's field names; in ASCII, so that every terminal bears it."""
    click.echo(json.dumps(plain(value)))


def plain(value: object) -> Any:  # noqa: ANN401  JSON is untyped
    """Return a value as JSON's types, without the tags that the local API uses."""
    built = msgspec.to_builtins(value)
    return _untagged(built)


def _untagged(built: Any) -> Any:  # noqa: ANN401
    if isinstance(built, dict):
        return {key: _untagged(item) for key, item in built.items() if key != "type"}
    if isinstance(built, list | tuple):
        return [_untagged(item) for item in built]
    return built


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> None:
    """Print rows under a head, in columns divided by two blanks.

    A terminal gets the head in bold and wraps what is too wide for it: a job id or a path that is cut off helps nobody.
    """
    lines = [list(head), *(["" if cell is None else harmless(str(cell)) for cell in row] for row in rows)]
    right = set(right)
    widths = [max(len(line[number]) for line in lines) for number in range(len(head))]
    for row, line in enumerate(lines):
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text = "  ".join(cells).rstrip()
        click.echo(click.style(text, bold=True) if row == 0 and sys.stdout.isatty() else text)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values below one another."""
    shown = [(name, harmless(str(value))) for name, value in rows if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}")


def behind(node: str | None, via: Sequence[str]) -> str:
    """Return a node and the bridges that it is behind, the one next to this node first: ``leaf < gate``."""
    return " < ".join(filter(None, (node, *via)))


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: ``0.3 s``, ``12 s``, ``3:05``, ``2:03:04``, ``3 days, 1:00:00``."""
    if seconds is None:
        return ""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    if seconds < 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    text = str(timedelta(seconds=round(seconds)))
    return text[2:].lstrip("0") if text.startswith("0:") else text


def size(count: int | None) -> str:
    """Return bytes as people say them: ``12 MiB``."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
