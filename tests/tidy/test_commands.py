"""Every `p2pq ...` command line that the documents show exists, with every option that they show."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").glob("*/README.md"),
        ROOT / "examples" / "demo.sh",
    ]
)
GROUPS = {("mesh", "init"), ("config", "show")}
LINE = re.compile(r"(?:^|[\s;&`$])p2pq ((?:--home \S+ )?[a-z]+\b[^`\n|&;]*)")


def command_lines() -> list[tuple[str, str]]:
    """Return (page, what follows ``p2pq``) of indented blocks, inline code and scripts, comments cut off."""
    found = []
    for page in PAGES:
        text = page.read_text()
        shown = [line for line in text.splitlines() if line.startswith("    ")] + re.findall(r"`([^`\n]+)`", text)
        if page.suffix == ".sh":
            shown = re.findall(r"bin/(p2pq .*)", text.replace('p2pq"', "p2pq"))
        for line in shown:
            code = line.partition(" #")[0]
            found += [(str(page.relative_to(ROOT)), match.strip()) for match in LINE.findall(f" {code}")]
    return sorted(set(found))


def split(arguments: str) -> tuple[tuple[str, ...], list[str]]:
    """Return the (sub)command and the long options of a command line; what follows the folder belongs to the job."""
    words = shlex.split(arguments.replace("…", "").replace("[", "").replace("]", ""))
    if words[0] == "--home":
        words = words[2:]
    folders = [at for at, word in enumerate(words) if "/" in word or "$" in word]
    words = words[: folders[0]] if folders and words[0] == "submit" else words
    command = tuple(words[:2]) if tuple(words[:2]) in GROUPS else tuple(words[:1])
    return command, [word.partition("=")[0] for word in words if word.startswith("--")]


@cache
def help_of(command: tuple[str, ...]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "p2pq", *command, "--help"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"p2pq {' '.join(command)}: {done.stderr}"
    return done.stdout


def test_command_lines_are_found():
    commands = {split(line)[0] for _, line in command_lines()}
    assert {("submit",), ("invite",), ("join",), ("doctor",), ("config", "show"), ("mesh", "init")} <= commands


@pytest.mark.parametrize(("page", "line"), command_lines(), ids=lambda value: value[:50])
def test_a_shown_command_line_exists(page, line):
    command, options = split(line)
    known = set(re.findall(r"--[a-z][a-z-]*", help_of(command)))
    assert set(options) <= known, f"{page}: p2pq {line}"
