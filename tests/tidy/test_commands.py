"""Every command line that the documents show exists, and every command and option there is has a test of its effect."""

import ast
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import click
import pytest

from p2pq.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        *(
            page for page in (ROOT / "docs").glob("*.md") if page.name != "gnu-parallel.md"
        ),  # run line by line by what makes it
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


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), command_lines(), ids=lambda value: value[:50])
def test_a_shown_command_line_exists(page, line):
    command, options = split(line)
    known = set(re.findall(r"--[a-z][a-z-]*", help_of(command)))
    assert set(options) <= known, f"{page}: p2pq {line}"


# -- every command and option has a test of its effect ----------------------------------------------------------------


def walk(command: click.Command, context: click.Context, name: str = "") -> set[str]:
    """Return ``COMMAND`` and ``COMMAND --option`` of a command and those below it; ``p2pq`` for the outermost."""
    found = {name or "p2pq"}
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            long, *_ = [spelling for spelling in parameter.opts if spelling.startswith("--")]
            found.add(f"{name or 'p2pq'} {long}")
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            child = command.get_command(context, below)
            assert child is not None
            found |= walk(child, click.Context(child, context), f"{name} {below}".strip())
    return found


@cache
def covered() -> dict[str, list[tuple[str, str]]]:
    """Return what tests say that they cover: to each command or option the tests and their source."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text()
        if "covers(" not in source:
            continue
        for test in ast.walk(ast.parse(source)):
            if not isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for mark in test.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "covers":
                    body = "\n".join(ast.unparse(statement) for statement in test.body)
                    for argument in mark.args:
                        what = ast.literal_eval(argument)
                        found.setdefault(what, []).append((f"{path.name}::{test.name}", body))
    return found


def uses(body: str, what: str) -> bool:
    """Tell whether a test's source names a command or an option, itself or through a method of tests/e2e/lab.py."""
    *command, last = what.split()
    by_method = {"node": r"\.start\(", "--detach": r"\.submit\(", "p2pq": r"\.run\(\)"}.get(last, "$^")
    if last == "--json":
        by_method = rf"\.json\({', '.join(map(repr, command))}[,)]"
    return re.search(rf"""['"]{last}['"=]|{by_method}""", body) is not None


EVERYTHING = walk(cli, click.Context(cli))


def test_there_are_commands_and_options_to_look_for():
    assert {"p2pq", "p2pq --home", "submit", "submit --array", "mesh init", "node --no-mdns"} <= EVERYTHING


@pytest.mark.parametrize("what", sorted(EVERYTHING))
def test_a_command_or_option_has_a_test_of_its_effect(what):
    tests = covered().get(what, [])
    assert tests, f"no test is marked @covers({what!r})"
    assert any(uses(body, what) for _, body in tests), f"{tests[0][0]} says that it covers {what}, but does not use it"


def test_no_test_covers_what_is_not_there():
    assert {what: tests for what, tests in covered().items() if what not in EVERYTHING} == {}


# -- the help of a group says of each command below it what it does ---------------------------------------------------


def groups(command: click.Command, context: click.Context, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the words that lead to each group of commands; none for ``p2pq`` itself."""
    if not isinstance(command, click.Group):
        return []
    found = [path]
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        found += groups(child, click.Context(child, context), (*path, name))
    return found


GROUPS_OF_COMMANDS = groups(cli, click.Context(cli))


@pytest.mark.parametrize("path", GROUPS_OF_COMMANDS, ids=" ".join)
def test_no_line_about_a_command_is_cut_off_in_mid_sentence(path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command, context = cli, click.Context(cli, info_name="p2pq", terminal_width=80)
    for word in path:
        command = command.get_command(context, word)
        context = click.Context(command, context, info_name=word, terminal_width=80)
    listed = command.get_help(context).partition("Commands:\n" if path else "Jobs:\n")[2].splitlines()
    assert listed
    assert [line for line in listed if line.rstrip().endswith("...") or len(line) > 80] == []
    starts = [line for line in listed if re.match(r"  \S", line)]
    assert len(starts) == len(command.list_commands(context))


def test_there_are_groups_of_commands():
    assert {(), ("mesh",), ("mesh", "peer"), ("config",)} <= set(GROUPS_OF_COMMANDS)
