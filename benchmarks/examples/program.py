"""``python -m benchmarks examples``: run each example with both programs, compare, and write docs/gnu-parallel.md."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import nodes
from benchmarks.examples.cases import CASES, ELSEWHERE, STANDINS, Case

DOCUMENT: Final = Path(__file__).parents[2] / "docs/gnu-parallel.md"
LIMIT_S: Final = 120.0
USAGE: Final = 2
REFUSED: Final = re.compile(r"^p2pq: (No such option|.* is not supported)", re.MULTILINE)
"""On standard error: a pipe hides the exit code."""
_CUT: Final = "<!-- made by python -m benchmarks examples -->\n"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a script left."""

    code: int
    printed: str
    said: str
    """On standard error."""
    files: dict[str, bytes]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an example."""

    case: Case
    own: str
    """The script for p2pq."""
    word: str
    """``equal``, ``not yet`` or ``differs``."""
    why: str = ""


def main(arguments: Sequence[str], _about: Callable[[], list[str]]) -> int:
    """Compare, and write the document, or with ``--check`` return 1 if it says something else."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks examples", description=__doc__)
    parser.add_argument(
        "--section", default="", metavar="TEXT", help="only sections whose title holds this; writes nothing"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if docs/gnu-parallel.md says something else"
    )
    options = parser.parse_args(arguments)
    if shutil.which("parallel") is None:
        print("GNU parallel is not installed: apt install parallel", file=sys.stderr)
        return USAGE
    wanted = [case for case in CASES if options.section.lower() in case.section.lower()]
    verdicts = []
    with nodes.workspace(None) as base, nodes.Node(base / "home", "--slots", "2") as node:
        for case in wanted:
            verdicts.append(compare(case, node, base / "example"))
            print(
                f"{verdicts[-1].word:8} {case.section}: {verdicts[-1].own} {verdicts[-1].why}",
                file=sys.stderr,
                flush=True,
            )
    found = document(DOCUMENT.read_text(encoding="utf-8"), verdicts)
    if options.check and found != DOCUMENT.read_text(encoding="utf-8"):
        print("docs/gnu-parallel.md says something else; python -m benchmarks examples makes it anew", file=sys.stderr)
        return 1
    if not options.check and not options.section:
        DOCUMENT.write_text(found, encoding="utf-8")
    return 0


def compare(case: Case, node: nodes.Node, folder: Path) -> Verdict:
    """Run an example with both programs, each in a new folder of the same name."""
    own = case.own or case.script.replace("PARALLEL", "p2pq map")
    theirs = run(case.script.replace("PARALLEL", "parallel"), case.setup, node, folder)
    ours = run(own, case.setup, node, folder)
    if ours.code == USAGE or REFUSED.search(ours.said):
        return Verdict(case=case, own=own, word="not yet", why=_needs(ours.said))
    if _comparable(theirs, case) == _comparable(ours, case):
        return Verdict(case=case, own=own, word="equal", why=case.note)
    return Verdict(case=case, own=own, word="differs", why=_difference(theirs, ours))


def run(script: str, setup: str, node: nodes.Node, folder: Path) -> Outcome:
    """Run a script for bash in a new folder that is set up."""
    shutil.rmtree(folder, ignore_errors=True)
    bin_ = folder / "bin"
    bin_.mkdir(parents=True)
    programs = {**STANDINS, "p2pq": f'exec {shlex.join(node.argv())} "$@"'}
    for name, body in programs.items():
        (bin_ / name).write_text(f"#!/bin/bash\n{body}\n")  # dash would not pass on functions that bash has exported
        (bin_ / name).chmod(0o755)
    place, home = folder / "here", folder / "user"
    place.mkdir()
    # GNU parallel asks for a citation until this file is there.
    (home / ".parallel").mkdir(parents=True)
    (home / ".parallel/will-cite").touch()
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    environment = {**node.environment(), "PATH": path, "HOME": str(home), "SHELL": "/bin/bash", "LC_ALL": "C"}
    if setup:
        subprocess.run(["bash", "-c", setup], cwd=place, env=environment, check=True)
    done = subprocess.run(
        ["bash", "-c", script], cwd=place, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S,
        check=False,
    )  # fmt: skip
    files = {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}
    return Outcome(
        code=done.returncode,
        printed=done.stdout.decode(errors="replace"),
        said=done.stderr.decode(errors="replace"),
        files=files,
    )


def _comparable(outcome: Outcome, case: Case) -> tuple[bool, list[str], dict[str, bytes]]:
    lines = outcome.printed.splitlines(keepends=True)
    ordered = re.search(r"PARALLEL (-\S+ )*(-k|-j1)\b", case.script) is not None
    return outcome.code == 0, lines if ordered else sorted(lines), outcome.files


def _needs(said: str) -> str:
    """Return what p2pq says it cannot do, short enough for a table."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(("Usage:", "Try "))]
    found = re.search(r"[Nn]o such option:? '?(-[\w-]+)", said)
    return found[1] if found else (lines[-1] if lines else "").removeprefix("p2pq: ").partition(";")[0][:120]


def _difference(theirs: Outcome, ours: Outcome) -> str:
    """Return what a reader would see first; nothing that changes from run to run."""
    if (theirs.code == 0) != (ours.code == 0):
        said = next((line for line in ours.said.splitlines() if line and not line.startswith("p2pq: ")), "")
        said = re.sub(r" at -e line \d+|(-c: )?line \d+: ", "", said)  # perl's and bash's own
        return f"exit code {ours.code} instead of {theirs.code}. {said[:100]}".strip()
    if theirs.files != ours.files:
        changed = sorted(
            name for name in theirs.files.keys() | ours.files if theirs.files.get(name) != ours.files.get(name)
        )
        return f"other files: {', '.join(changed)[:100]}"
    pairs = zip(sorted(theirs.printed.splitlines()), sorted(ours.printed.splitlines()), strict=False)
    for their, our in pairs:
        if their != our:
            return f"prints {our[:50]!r} instead of {their[:50]!r}"
    return f"prints {len(ours.printed.splitlines())} lines instead of {len(theirs.printed.splitlines())}"


def document(text: str, verdicts: Iterable[Verdict]) -> str:
    """Return the document with the table made anew."""
    verdicts = list(verdicts)
    equal = sum(verdict.word == "equal" for verdict in verdicts)
    rows = ["| section of the manual | with p2pq | output |", "|---|---|---|"]
    rows += [
        f"| {_cell(one.case.section)} | {_code(one.own)} | {one.word}{f': {_cell(one.why)}' if one.why else ''} |"
        for one in verdicts
    ]
    left = [f"- Sections that {why}: {'; '.join(names)}." for why, names in ELSEWHERE.items()]
    lacks = Counter(one.why for one in verdicts if one.word == "not yet" and one.why)
    wanted = ", ".join(
        f"{_code(why)} ({count})" for why, count in sorted(lacks.items(), key=lambda item: (-item[1], item[0]))
    )
    said = f"{equal} of {len(verdicts)} examples give the same. What was refused first, and how often: {wanted or 'nothing'}.\n"
    return text.partition(_CUT)[0] + "\n".join([_CUT, said, *rows, "", "Not compared:", "", *left, ""])


def _code(script: str) -> str:
    """Return a script as code in a table: a line that holds a backtick needs two around it."""
    lines = [line.replace("|", "\\|") for line in script.splitlines()]
    return "<br>".join(f"`` {line} ``" if "`" in line else f"`{line}`" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
